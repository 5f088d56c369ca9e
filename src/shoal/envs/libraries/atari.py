"""Atari 2600 games on ALE's own vector environment, with the preprocessing that is usual for learning.

Each action is repeated 4 times; the last two frames are joined by their maximum, made gray and 84 x 84, and stacked
by 4; 0 to 29 no-ops begin a game, and FIRE where it has that. A lost life ends an episode for learning, after which
FIRE is pressed again, and rewards are clipped to their sign; returns and lengths are those of whole games with the
game's own rewards.
"""

from __future__ import annotations

from difflib import get_close_matches
from typing import TYPE_CHECKING, Any

import gymnasium as gym
import numpy as np
from gymnasium.vector import AutoresetMode

from shoal.envs.libraries.atari_keywords import NO_LIMIT, checked
from shoal.envs.libraries.batched import BatchedEnv
from shoal.envs.libraries.library import Stepped
from shoal.envs.vec_env import Capabilities
from shoal.types import ConfigError, Spec

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from gymnasium.envs.registration import EnvSpec
    from numpy.typing import NDArray

    from shoal.envs.outputs import Rows
    from shoal.types import Bools, Tree

SEEDS = 2**31 - 1
"""The seeds that ALE takes are below this."""
MAX_FRAMES = 108_000
FIRST_ROOM = 27_001
"""Actions of a game that are kept at first, where it has no limit."""
OURS = {
    "autoreset_mode",
    "batch_size",
    "episodic_life",
    "life_loss_info",
    "num_threads",
    "reward_clipping",
}
"""Keywords of ALE's vector environment that this file decides."""


def make(
    env_id: str,
    num_envs: int,
    *,
    num_threads: int = 1,
    env_kwargs: dict[str, Any] | None = None,
) -> BatchedEnv:
    """`num_envs` games of an id `ALE/*`; ConfigError when ale-py or the game is not there, or for a bad keyword.

    Args:
        env_id: such as ALE/Pong-v5.
        num_envs: rows.
        num_threads: of ALE's pool; it changes no result.
        env_kwargs: `terminal_on_life_loss` and `clip_reward` (both True unless given), and keywords of ale_py's
            AtariVectorEnv such as `repeat_action_probability` (0 unless given), `noop_max`, `full_action_space`;
            `max_num_frames_per_episode=0` means no limit. `use_fire_reset` (True unless given): FIRE begins a game
            and, where a lost life ends an episode, takes the place of the first action after it.
    """
    kwargs = dict(env_kwargs or {})
    if kwargs.pop("render_mode", None) not in (None, "rgb_array"):
        raise ConfigError(
            f'{env_id}: the only render_mode of backend="ale" is rgb_array; backend="serial" has others'
        )
    kwargs = checked(env_id, kwargs)
    return BatchedEnv(AtariRows(env_id, num_envs, num_threads=num_threads, **kwargs))


def for_vector(env_id: str, env_kwargs: dict[str, Any]) -> dict[str, Any]:
    """Keywords with which `gymnasium.make_vec` makes a game whose rewards are its own, as those of `make` are counted.

    ALE's vector environment clips rewards unless it is told not to. ConfigError as in `make`.
    """
    _registered(env_id)
    if "vectorization_mode" in env_kwargs:
        return env_kwargs
    return {"reward_clipping": False} | env_kwargs


class AtariRows:
    """ALE's vector environment as a Library.

    A row is saved as its seed, the number of games since, and the actions of the present one; without sticky actions,
    games draw nothing but their no-ops, so that the same game begins again.
    """

    infos: Mapping[str, Any] = {}
    capabilities = Capabilities(
        whole_sends=True, restartable=True, can_render=True, frames_per_s=15.0
    )

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
        registered = _registered(env_id)
        from ale_py.vector_env import AtariVectorEnv

        if taken := sorted(OURS & set(kwargs)):
            raise ConfigError(
                f"{env_id}: {', '.join(taken)} cannot be set; terminal_on_life_loss and clip_reward decide what is "
                "learned from, num_threads is an argument of make"
            )
        most_frames: int = kwargs.pop("max_num_frames_per_episode", MAX_FRAMES)
        try:
            self.env = AtariVectorEnv(
                registered.kwargs["game"],
                num_envs,
                num_threads=num_threads,
                autoreset_mode=AutoresetMode.SAME_STEP,
                reward_clipping=False,
                max_num_frames_per_episode=most_frames or NO_LIMIT,
                **kwargs,
            )
        except TypeError as error:
            raise ConfigError(f"{env_id}: {error}") from error
        most = _most_steps(most_frames, kwargs.get("frameskip", 4))
        self.spec = Spec.of(
            env_id,
            self.env.single_observation_space,
            self.env.single_action_space,
            max_episode_steps=most,
            frame_stack=kwargs.get("stack_num", 4),
        )
        self.num_rows = num_envs
        self._ends_life, self.clip_reward = terminal_on_life_loss, clip_reward
        self.lives: NDArray[Any] | None = None
        self._fire = None
        if terminal_on_life_loss and kwargs.get("use_fire_reset", True):
            self._fire = fire_among(self.env.ale.get_action_set(), self.spec)
        self._firing = Firing(num_envs)
        self._everywhere = np.arange(num_envs)
        self._row_seeds = np.zeros(num_envs, np.int64)
        self._games = np.zeros(num_envs, np.int64)
        self._lengths = np.zeros(num_envs, np.int64)
        leaf = self.spec.action.single
        self._room = FIRST_ROOM if most is None else most + 1
        self._played = np.zeros((num_envs, self._room, *leaf.shape), leaf.dtype)

    def reset(self, seeds: Sequence[int | None], rows: Bools) -> Tree:
        """Begins games; without a seed, the next one of the row's own generator."""
        given = np.array([seed is not None for seed in seeds])
        fresh = rows & (given | (self._games == 0))
        for row in np.flatnonzero(fresh).tolist():
            self._row_seeds[row] = (seeds[row] or 0) % SEEDS
        obs: Tree = None
        if fresh.any():
            obs = self._begin(fresh, seeded=True)
        others = rows & ~fresh
        if others.any():
            obs = self._begin(others)
        return obs

    def step(self, action: Tree) -> Stepped:
        """One step of every game; those that are over begin anew within it."""
        action = self._firing.press(self._fire, action)
        self.env.send(action)
        if self.spec.max_episode_steps is None:
            self._make_room(int(self._lengths.max()))
        self._played[self._everywhere, self._lengths] = action
        self._lengths += 1
        obs, reward, terminated, truncated, info = self.env.recv()
        self._note_lives(info)
        final_obs = info.get("final_obs")
        if final_obs is not None:
            over = terminated | truncated
            self._lengths[over] = 0
            self._games[over] += 1
            self._firing.forget(over)
        return Stepped(obs, reward, terminated, truncated, final_obs)

    def state(self) -> dict[str, Any]:
        """Each row's seed, how many games began since, and the actions of the present one."""
        return {
            "seeds": self._row_seeds.copy(),
            "games": self._games.copy(),
            "lengths": self._lengths.copy(),
            "actions": self._played[:, : int(self._lengths.max())].copy(),
        }

    def restore(self, state: dict[str, Any]) -> Tree:
        """Plays the games under way again; they begin one after another, so that all come to their ends together."""
        self._row_seeds[:] = state["seeds"]
        games, lengths = np.asarray(state["games"]), np.asarray(state["lengths"])
        actions, most = np.asarray(state["actions"]), int(lengths.max())
        self._make_room(most)
        obs: Tree = None
        for at in range(most + 1):
            begins = lengths == most - at
            if begins.any():
                obs = self._begin(begins if at else np.ones_like(begins), seeded=True)
                while (behind := begins & (self._games < games)).any():
                    obs = self._begin(behind)
            if at < most:
                self._firing.forget(self._everywhere)
                played = actions[self._everywhere, np.maximum(lengths - most + at, 0)]
                obs, _, _, _, info = self.env.step(np.ascontiguousarray(played))
                self._note_lives(info)
        self._lengths[:] = lengths
        self._played[:, :most] = actions
        return obs

    def render(self, row: int, obs: Tree) -> NDArray[np.uint8]:
        """The newest frame that the policy sees: gray unless the rows are made with `grayscale=False`."""
        frame = obs[row][-1]
        if frame.ndim == 2:
            return np.repeat(frame[..., None], 3, axis=-1)
        return frame.copy()

    def close(self) -> None:
        """ALE frees its pool with the object."""
        self.__dict__.pop("env", None)

    def _begin(self, rows: Bools, *, seeded: bool = False) -> Tree:
        """Begins games in `rows`, from the rows' seeds or their own generators; observations of all rows.

        A seed costs about a tenth of a second a row, because ALE then loads the game anew.
        """
        options = None if rows.all() else {"reset_mask": rows}
        seeds = None
        self._lengths[rows] = 0
        self._games[rows] += 1
        if seeded:
            seeds = self._row_seeds[rows]
            self._games[rows] = 1
        obs, info = self.env.reset(seed=seeds, options=options)
        self._note_lives(info)
        self._firing.forget(rows)
        return obs

    def _make_room(self, length: int) -> None:
        """Room for the actions of a game of more than `length` steps, where games have no limit."""
        while length >= self._room:
            self._played = np.concatenate(
                [self._played, np.zeros_like(self._played)], 1
            )
            self._room *= 2

    def _note_lives(self, info: dict[str, Any]) -> None:
        if self._ends_life:
            self.lives = info["lives"]
            self._firing.note(info["lives"])


class Firing:
    """Rows whose next action is FIRE: those that have lost a life since their last one."""

    def __init__(self, num_rows: int) -> None:
        """No row has lost one."""
        self._lives = np.zeros(num_rows, np.int64)
        self._due = np.zeros(num_rows, np.bool_)

    def note(self, lives: NDArray[Any]) -> None:
        """The lives that are left after a call, [B]."""
        self._due |= lives < self._lives
        self._lives[:] = lives

    def forget(self, rows: Rows) -> None:
        """New games begin in these rows."""
        self._due[rows] = False

    def press(self, fire: Tree, action: Tree) -> Tree:
        """The actions that are done: FIRE (None: there is none) where a life was lost."""
        if fire is not None and self._due.any():
            action = np.array(action)
            action[self._due] = fire
        self._due[:] = False
        return action


def fire_among(actions: Sequence[Any], spec: Spec) -> Tree:
    """The action of a row that is FIRE, as its space has it; None where the game has none."""
    names = [action.name for action in actions]
    if "FIRE" not in names:
        return None
    if spec.action.single.dtype.kind == "f":
        return np.array([0, 0, 1], spec.action.single.dtype)  # radius, angle, fire
    return names.index("FIRE")


def actions_of(game: str, *, full: bool) -> Sequence[Any]:
    """The actions of a game, such as `breakout`, in the order of their numbers.

    Raises:
        ImportError: ale-py is not there.
        ConfigError: the game is not.
    """
    import ale_py
    from ale_py import roms

    rom = roms.get_rom_path(game)
    if rom is None:
        raise ConfigError(f"ale-py has no game {game!r}")
    ale_py.ALEInterface.setLoggerMode(ale_py.LoggerMode.Error)
    ale = ale_py.ALEInterface()
    ale.loadROM(rom)
    return ale.getLegalActionSet() if full else ale.getMinimalActionSet()


def _most_steps(frames: int, frameskip: int) -> int | None:
    """The steps of a game of at most `frames`: the last one may be shorter. None where there is no limit."""
    return -(-frames // frameskip) if frames else None


def _registered(env_id: str) -> EnvSpec:
    """What ALE registered a game with; ConfigError where ale-py or the game is not there."""
    try:
        import ale_py
    except ModuleNotFoundError as error:
        raise ConfigError(
            f"{env_id} needs ale-py: pip install 'shoal-rl[atari]'"
        ) from error
    gym.register_envs(ale_py)
    registered = gym.registry.get(env_id)
    if registered is None:
        games = [name for name in gym.registry if name.startswith("ALE/")]
        near = get_close_matches(env_id, games, n=3)
        raise ConfigError(
            f"no Atari game {env_id!r}; did you mean {' or '.join(near) or 'ALE/Pong-v5'}?"
        )
    return registered
