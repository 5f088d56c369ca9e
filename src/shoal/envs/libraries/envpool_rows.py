"""EnvPool's C++ environments as rows; what EnvPool would take in silence or die of is refused before."""

from __future__ import annotations

import importlib
import warnings
from contextlib import contextmanager
from difflib import get_close_matches
from typing import TYPE_CHECKING, Any

import numpy as np

from shoal.envs.libraries.atari import Firing, actions_of, fire_among
from shoal.envs.libraries.batched import BatchedEnv
from shoal.envs.libraries.library import Stepped
from shoal.envs.vec_env import Capabilities
from shoal.types import ConfigError, Spec

if TYPE_CHECKING:
    from collections.abc import Generator, Sequence

    from numpy.typing import NDArray

    from shoal.types import Bools, Tree

OURS = {
    "batch_size",
    "env_type",
    "episodic_life",
    "num_envs",
    "num_threads",
    "reward_clip",
    "seed",
}
"""Keywords of EnvPool that this file decides."""


def make(
    env_id: str,
    num_envs: int,
    *,
    num_threads: int = 1,
    env_kwargs: dict[str, Any] | None = None,
) -> BatchedEnv:
    """`num_envs` rows of EnvPool's `env_id`; ConfigError when EnvPool or the id is not there, or for a bad keyword.

    Args:
        env_id: one of EnvPool's ids; `ALE/Pong-v5` means its `Pong-v5`.
        num_envs: rows.
        num_threads: of EnvPool's pool; it changes no result.
        env_kwargs: `terminal_on_life_loss` and `clip_reward` for Atari (both True unless given), and EnvPool's own.
    """
    return BatchedEnv(
        EnvPoolRows(env_id, num_envs, num_threads=num_threads, **(env_kwargs or {}))
    )


class EnvPoolRows:
    """An EnvPool as a Library. It takes seeds only when it is made, so each reset of all rows makes it anew."""

    capabilities = Capabilities(whole_sends=True, restartable=True, can_save=False)

    def __init__(
        self,
        env_id: str,
        num_envs: int,
        *,
        num_threads: int,
        terminal_on_life_loss: bool = True,
        clip_reward: bool = True,
        **kwargs: Any,
    ) -> None:
        """See `make`."""
        try:
            envpool: Any = importlib.import_module("envpool")
        except ModuleNotFoundError as error:
            raise ConfigError(
                f"backend='envpool' needs EnvPool: pip install envpool ({error})"
            ) from error
        self._make: Any = envpool.make
        name, known = env_id.removeprefix("ALE/"), envpool.list_all_envs()
        if name not in known:
            near = get_close_matches(name, known, n=3)
            hint = f"; did you mean {', '.join(near)}?" if near else ""
            raise ConfigError(f"EnvPool has no {name!r}{hint}")
        if taken := sorted(OURS & set(kwargs)):
            raise ConfigError(
                f"{env_id}: {', '.join(taken)} cannot be set; terminal_on_life_loss and clip_reward decide what is "
                "learned from, num_envs and num_threads are arguments of make"
            )
        self.name = name
        self.num_rows = num_envs
        self._kwargs = {"num_threads": num_threads, **kwargs}
        self.env = self._made(list(range(num_envs)))
        config = self.env.spec.config
        players = int(getattr(config, "max_num_players", 1))
        if players > 1:
            self.env.close()
            raise ConfigError(
                f"{env_id} has up to {players} players, whose rows EnvPool numbers anew in each step; "
                "backend='envpool' steps environments of one player"
            )
        self._atari = hasattr(config, "episodic_life")
        self._ends_life = self._atari and terminal_on_life_loss
        self.clip_reward = self._atari and clip_reward
        self.lives: NDArray[Any] | None = None
        self.spec = Spec.of(
            env_id,
            *self._spaces,
            max_episode_steps=getattr(config, "max_episode_steps", None),
            reward_threshold=getattr(config, "reward_threshold", None),
            frame_stack=int(getattr(config, "stack_num", 1)) if self._atari else 1,
        )
        self._fire: Tree = None
        if self._ends_life and config.use_fire_reset:
            self._fire = _fire_of(config, self.spec)
        self._firing = Firing(num_envs)
        self.infos: dict[str, Any] = {}
        self._ended = np.zeros(num_envs, np.bool_)
        self._dtype = self.spec.action.single.dtype
        if self._dtype == np.int64:
            self._dtype = np.dtype(np.int32)

    def reset(self, seeds: Sequence[int | None], rows: Bools) -> Tree:
        """Makes the pool anew with the seeds; without any, or for a part of the rows, EnvPool's generators go on."""
        given: list[int] = []
        for seed, chosen in zip(seeds, rows, strict=True):
            if chosen and seed is not None:
                given.append(seed)
        if rows.all() and given:
            if len(given) < self.num_rows:
                raise ConfigError(f"{self.spec.env_id}: EnvPool seeds all rows or none")
            self.env.close()
            self.env = self._made([seed % 2**31 for seed in given])
        elif given:
            raise ConfigError(
                f"{self.spec.env_id}: EnvPool cannot seed some of its rows"
            )
        if not rows.all():
            raise ConfigError(
                f"{self.spec.env_id}: only all rows of an EnvPool can be reset"
            )
        obs, info = self.env.reset()
        self.infos = info
        self._ended[:] = False
        self._note_lives(info)
        self._firing.forget(slice(None))
        return obs

    def step(self, action: Tree) -> Stepped:
        """One step of all rows; those that had ended are only reset."""
        pressed = self._firing.press(self._fire, action)
        obs, reward, terminated, truncated, info = self.env.step(
            np.ascontiguousarray(pressed, self._dtype)
        )
        self.infos = info
        only_reset, self._ended = self._ended, terminated | truncated
        self._note_lives(info)
        self._firing.forget(self._ended)
        return Stepped(obs, reward, terminated, truncated, only_reset=only_reset)

    def state(self) -> dict[str, Any]:
        """Nothing: EnvPool cannot be saved."""
        return {}

    def restore(self, state: dict[str, Any]) -> None:
        """Nothing comes back."""

    def render(self, row: int, obs: Tree) -> NDArray[np.uint8]:
        """ConfigError: EnvPool gives no frames."""
        raise ConfigError(f"{self.spec.env_id}: EnvPool does not render")

    def close(self) -> None:
        """Closes the pool."""
        self.env.close()

    def _note_lives(self, info: dict[str, Any]) -> None:
        if self._ends_life:
            self.lives = info["lives"]
            self._firing.note(info["lives"])

    def _made(self, seeds: list[int]) -> Any:
        with quiet():
            try:
                made = self._make(
                    self.name,
                    env_type="gymnasium",
                    num_envs=self.num_rows,
                    seed=seeds,
                    **self._kwargs,
                )
                # EnvPool makes them when they are first read.
                self._spaces = made.observation_space, made.action_space
            except (AssertionError, TypeError, ValueError) as error:
                raise ConfigError(f"EnvPool's {self.name}: {error}") from error
        return made


def _fire_of(config: Any, spec: Spec) -> Tree:
    """FIRE among a game's actions, which EnvPool does not name and ale-py knows; None where there is none."""
    try:
        actions = actions_of(config.task, full=config.full_action_space)
    except (ImportError, ConfigError) as error:
        warnings.warn(
            f"{spec.env_id}: FIRE is not pressed after a lost life, because EnvPool does not say which action it is "
            f"and ale-py is needed for that ({error}); use_fire_reset=False leaves it out",
            stacklevel=2,
        )
        return None
    return fire_among(actions, spec)


@contextmanager
def quiet() -> Generator[None]:
    """EnvPool's spaces warn of their own precision when they are made."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield
