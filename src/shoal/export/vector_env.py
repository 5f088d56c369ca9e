"""Export as a Gymnasium VectorEnv: rows of environments for code that knows nothing of shoal."""

from __future__ import annotations

import copy as copying
from typing import TYPE_CHECKING, Any, TypeAlias

import gymnasium as gym
import numpy as np
from gymnasium.vector import AutoresetMode, VectorEnv
from gymnasium.vector.utils import batch_space

from shoal.envs.actions import ActionCheck
from shoal.envs.outputs import take, write
from shoal.envs.preprocessing import Preprocessing
from shoal.envs.registry import are_simulated, is_batched, make
from shoal.export.infos import InfoJoiner
from shoal.types import ConfigError, map_tree

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

    from shoal.envs.vec_env import VecEnv
    from shoal.types import Bools, Floats, Tree

    Stepped: TypeAlias = tuple[Tree, Floats, Bools, Bools, dict[str, Any]]

WHOLE_GAMES = {"terminal_on_life_loss": False, "clip_reward": False}
"""Keywords of Atari rows with which other libraries count what Gymnasium's own environments would have them count."""
MODES = {"same_step": AutoresetMode.SAME_STEP, "next_step": AutoresetMode.NEXT_STEP}


GYMNASIUMS = {
    "vectorization_mode": "backend='serial' steps in this process, as its sync does, 'native' and 'ale' in threads",
    "vector_kwargs": "copy, autoreset, num_threads and the other arguments are its own",
    "wrappers": "give a function that makes the environment with its wrappers: make_vec(lambda: Wrapper(...), 8)",
}
"""Arguments of `gymnasium.make_vec` that are none of the environment's, and what is here."""


def make_vec(
    env: str | Callable[..., Any],
    num_envs: int,
    *,
    backend: str = "auto",
    autoreset: str = "same_step",
    num_threads: int = 1,
    env_kwargs: dict[str, Any] | None = None,
    preprocessing: Preprocessing | Mapping[str, Any] | None = None,
    copy: bool = True,
    **kwargs: Any,
) -> ShoalVectorEnv:
    """`num_envs` environments as a `gymnasium.vector.VectorEnv`.

    Environment i equals `gymnasium.make(id)` seeded with seed + i. Of several agents, each is an environment of its
    own; the infos `turn` (whose next action counts) and `valid` (whose step is complete) say who is there.

    Args:
        env: a built-in or Gymnasium id, `package.module:function`, or a callable that returns a `gymnasium.Env`.
        num_envs: how many, at least 1.
        backend: `native` (C++), `serial` (Python, in this process), `ale` (Atari), or `auto`: native where the id is
            built in, ale for ids ALE/*, else serial.
        autoreset: `same_step` (infos carry `final_obs` and `final_info`) or `next_step`, as Gymnasium defines them;
            Atari has `same_step`. There episodes are whole games and rewards the game's own, unless
            `terminal_on_life_loss=True` or `clip_reward=True` is given; infos carry `game` where one ended.
        num_threads: threads that step native rows, the caller included; it changes no result.
        env_kwargs: keywords of the environment's constructor, or parameters of the native one; a distribution has
            every episode draw that parameter.
        preprocessing: frame stack, sticky actions, the reward's scale and clip, another time limit; also a mapping.
        copy: whether arrays are copies; else they are views that the next step may overwrite.
        kwargs: join `env_kwargs`, as `gymnasium.make_vec` takes them.

    Raises:
        ConfigError: an unknown id, backend, mode or keyword, or a setting that cannot work.
    """
    _check(backend, autoreset)
    env_kwargs = _joined(env_kwargs or {}, kwargs)
    if backend == "auto" and are_simulated(env, backend):
        backend = "serial"  # whose steps give infos
    if is_batched(env, backend):
        env_kwargs = WHOLE_GAMES | env_kwargs
    rows = make(
        env,
        num_envs,
        backend=backend,
        num_threads=num_threads,
        env_kwargs=env_kwargs,
        preprocessing=_prepared(preprocessing),
    )
    own_threads = is_batched(env, backend) and backend != "vector"
    refusal = _refusal(rows, autoreset, num_threads=1 if own_threads else num_threads)
    if refusal:
        rows.close()
        raise ConfigError(refusal)
    return ShoalVectorEnv(
        rows, autoreset=MODES[autoreset], copy=copy, env_kwargs=env_kwargs
    )


class ShoalVectorEnv(VectorEnv[Any, Any, Any]):
    """Rows behind Gymnasium's vector interface; equal to its SyncVectorEnv in the same mode, with shoal's refusals.

    Actions are taken in the space's dtype, and those outside the space are refused: ValueError names the environment.
    """

    def __init__(
        self,
        rows: VecEnv,
        *,
        autoreset: AutoresetMode,
        copy: bool,
        env_kwargs: dict[str, Any],
    ) -> None:
        """`rows`: closed with this object; `env_kwargs` go into the spec of a native environment."""
        spec, num_envs = rows.spec, rows.num_rows
        self.rows = rows
        self.num_envs = num_envs
        self.single_observation_space = spec.observation_space
        self.single_action_space = spec.action_space
        self.observation_space = batch_space(spec.observation_space, num_envs)
        self.action_space = batch_space(spec.action_space, num_envs)
        metadata: dict[str, Any] = {"render_modes": []}
        python = rows.python_rows
        if python is not None:
            self.spec = python.registered
            self.render_mode = python.envs[0].render_mode
            metadata = dict(python.envs[0].metadata)
        elif spec.env_id in gym.registry:
            self.spec = copying.deepcopy(gym.registry[spec.env_id])
            self.spec.kwargs |= env_kwargs
        self.metadata = metadata | {"autoreset_mode": autoreset}
        self._copy = copy
        self._check = ActionCheck(spec)
        self._infos = InfoJoiner(rows, self._add_info)
        # In next-step mode: what was returned last, what the rows gave last, and those rows whose next episode has
        # begun but was not shown yet.
        self._obs: Tree = spec.observation.allocate(num_envs)
        self._newest: Tree = spec.observation.allocate(num_envs)
        self._pending = np.zeros(num_envs, np.bool_)

    @property
    def _same_step(self) -> bool:
        """Whether an episode begins in the step in which the last one ended."""
        return self.metadata["autoreset_mode"] is AutoresetMode.SAME_STEP

    def reset(
        self,
        *,
        seed: int | Sequence[int | None] | None = None,
        options: dict[str, Any] | None = None,
    ) -> tuple[Tree, dict[str, Any]]:
        """Begins new episodes, as SyncVectorEnv does; `options={"reset_mask": bools}` resets only those rows.

        Without a seed each environment goes on with its own generator. Other options reach the environments' own
        reset; native ones take none (ConfigError).
        """
        rest = dict(options or {})
        mask = self._mask(rest.pop("reset_mask", None))
        held = self._pending & mask
        seeds = self._seeds(seed)
        self.rows.restart(seeds, mask, held=held, options=rest or None)
        ready = self.rows.recv()
        self._pending &= ~mask
        write(self._obs, slice(None) if self._same_step else mask, ready.obs)
        write(self._newest, slice(None), ready.obs)
        return self._given(self._obs), self._infos.of_reset(ready, mask)

    def step(self, actions: Tree) -> Stepped:
        """Steps every environment once; ValueError names the one whose action is refused, and nothing is stepped."""
        everything = slice(0, self.num_envs)
        if not self._same_step:
            return self._step_next(self._check.check(everything, actions))
        self.rows.send(everything, actions)
        ready = self.rows.recv()
        infos = self._infos.of_step(ready, ready.terminated | ready.truncated)
        return (
            self._given(ready.obs),
            self._given(ready.reward),
            self._given(ready.terminated),
            self._given(ready.truncated),
            infos,
        )

    def render(self) -> tuple[Any, ...]:
        """What each environment renders; native ones with a picture give RGB [height, width, 3]."""
        python = self.rows.python_rows
        if python is not None:
            return tuple(env.render() for env in python.envs)
        return tuple(self.rows.render(row) for row in range(self.num_envs))

    def call(self, name: str, *args: Any, **kwargs: Any) -> tuple[Any, ...]:
        """The method `name` of each Python environment called, or its attribute."""
        found: list[Any] = []
        for env in self._envs(name):
            value = env.get_wrapper_attr(name)
            if callable(value):
                value = value(*args, **kwargs)
            found.append(value)
        return tuple(found)

    def get_attr(self, name: str) -> tuple[Any, ...]:
        """The attribute `name` of each Python environment."""
        return self.call(name)

    def set_attr(self, name: str, values: object) -> None:
        """Sets an attribute of each Python environment: one value for all, or a list with one for each."""
        each: Sequence[object] = [values] * self.num_envs
        if isinstance(values, list | tuple):
            each = values
        for env, value in zip(self._envs(name), each, strict=True):
            env.set_wrapper_attr(name, value)

    def close_extras(self, **_kwargs: object) -> None:
        """Closes the rows."""
        self.rows.close()

    def _step_next(self, actions: Tree) -> Stepped:
        """A row that ended shows its last observation; its first one comes in the next step, which is not a step."""
        pending = self._pending
        reward = np.zeros(self.num_envs)
        terminated, truncated = np.zeros_like(pending), np.zeros_like(pending)
        for run in _runs(~pending):
            self.rows.send(run, take(actions, run))
            ready = self.rows.recv()
            reward[run] = ready.reward
            terminated[run], truncated[run] = ready.terminated, ready.truncated
            write(take(self._newest, run), slice(None), ready.obs)
            ended_here = ready.terminated | ready.truncated
            write(take(self._obs, run), ended_here, ready.final_obs)
        ended = terminated | truncated
        write(self._obs, ~ended, self._newest)
        self._pending = ended
        infos = self._infos.of_late_resets(ended)
        return self._given(self._obs), reward, terminated, truncated, infos

    def _seeds(self, seed: int | Sequence[int | None] | None) -> list[int | None]:
        """A seed for each environment, or None."""
        if seed is None:
            return [None] * self.num_envs
        if isinstance(seed, int | np.integer):
            first = int(seed)
            return list(range(first, first + self.num_envs))
        if len(seed) != self.num_envs:
            raise ValueError(
                f"expected one seed for each of {self.num_envs} environments, got {len(seed)}"
            )
        return list(seed)

    def _given(self, tree: Tree) -> Tree:
        return map_tree(copying.copy, tree) if self._copy else tree

    def _mask(self, mask: object) -> Bools:
        if mask is None:
            return np.ones(self.num_envs, np.bool_)
        if not isinstance(mask, np.ndarray) or mask.dtype != np.bool_:
            raise TypeError(
                f"options['reset_mask'] must be an array of bools, got {mask!r}"
            )
        if mask.shape != (self.num_envs,) or not mask.any():
            raise ValueError(
                f"options['reset_mask'] must have shape ({self.num_envs},) and a true entry, got {mask}"
            )
        return mask

    def _envs(self, what: str) -> Sequence[gym.Env[Any, Any]]:
        python = self.rows.python_rows
        if python is not None:
            return python.envs
        raise ConfigError(
            f"{self.rows.spec.env_id} has no {what!r} here; backend='serial' has, of one agent"
        )


def _joined(env_kwargs: dict[str, Any], kwargs: dict[str, Any]) -> dict[str, Any]:
    """The environment's keywords, given in two ways; ConfigError for one that is given twice or is no environment's."""
    for name in sorted(GYMNASIUMS.keys() & kwargs):
        raise ConfigError(f"make_vec has no {name}; {GYMNASIUMS[name]}")
    twice = sorted(env_kwargs.keys() & kwargs)
    if twice:
        raise ConfigError(
            f"{', '.join(twice)}: given as a keyword and in env_kwargs; leave one of them out"
        )
    return env_kwargs | kwargs


def _prepared(
    preprocessing: Preprocessing | Mapping[str, Any] | None,
) -> Preprocessing | None:
    """The preprocessing, where it is a mapping of its settings too; ConfigError for an unknown one."""
    if preprocessing is None or isinstance(preprocessing, Preprocessing):
        return preprocessing
    try:
        return Preprocessing(**preprocessing)
    except TypeError as error:
        raise ConfigError(f"preprocessing={preprocessing!r}: {error}") from error


def _check(backend: str, autoreset: str) -> None:
    """ConfigError for a backend or a mode that no VectorEnv is made of."""
    if backend == "workers":
        raise ConfigError(
            "make_vec steps in this process, where infos are at hand; use backend='serial'"
        )
    if backend == "mujoco":
        raise ConfigError(
            "make_vec hands on infos, which backend='mujoco' does not make; use backend='serial'"
        )
    if backend in ("envpool", "vector"):
        raise ConfigError(
            f"what backend={backend!r} runs is a vector environment already; use it as it is"
        )
    if autoreset not in MODES:
        raise ConfigError(f"unknown autoreset {autoreset!r}; use {' or '.join(MODES)}")


def _refusal(rows: VecEnv, autoreset: str, *, num_threads: int) -> str:
    """Why these rows are no VectorEnv that resets so, or have no use for threads, or nothing."""
    spec = rows.spec
    if num_threads > 1 and rows.native_pool is None:
        return (
            f"num_threads={num_threads} would change nothing: {spec.env_id} is stepped in Python; "
            "threads are for native environments, backend='ale' and backend='envpool'"
        )
    if spec.num_agents > 1 and not spec.agents:
        return f"{spec.env_id} has {spec.num_agents} agents, a gymnasium.vector.VectorEnv one; use make"
    if autoreset == "same_step":
        return ""
    if spec.agents:
        return "environments of several agents begin anew in the same step; use autoreset='same_step'"
    if rows.capabilities.whole_sends:
        return f"{spec.env_id}: its rows are stepped at once; use autoreset='same_step'"
    return ""


def _runs(chosen: Bools) -> Iterator[slice]:
    """The contiguous runs of true entries."""
    edges = np.flatnonzero(np.diff(chosen, prepend=False, append=False)).tolist()
    for first, last in zip(edges[::2], edges[1::2], strict=True):
        yield slice(first, last)
