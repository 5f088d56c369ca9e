"""The backend `serial`: Python environments of any kind, stepped one after another in this process."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from gymnasium import spaces

from shoal.envs.python_env import read_flag, read_info, read_obs, read_rewards, strip
from shoal.envs.vec_env import InFlight, Outputs, check_action, check_finite, row_seeds
from shoal.types import ConfigError, EnvError, Spec

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    import gymnasium as gym
    from numpy.typing import NDArray

    from shoal.types import Bools, Ready

_NOTHING: tuple[None, ...] = (None,) * 5


def make(
    factory: Callable[[], gym.Env[Any, Any]], num_envs: int, *, name: str, info_keys: tuple[str, ...] = ()
) -> SerialEnv:
    """`num_envs` environments, each made by one call of `factory`; `info_keys`: see `SerialEnv`."""
    envs: list[gym.Env[Any, Any]] = []
    try:
        for row in range(num_envs):
            try:
                envs.append(factory())
            except Exception as error:
                error.add_note(f"shoal: raised while row {row} of {name} was made")
                raise
        return SerialEnv(envs, name, info_keys=info_keys)
    except BaseException:
        for env in envs:
            env.close()
        raise


class SerialEnv:
    """Python environments behind the VecEnv contract.

    A row is saved as what its episode began from (a seed, or its generator's state) and the actions since; `restore`
    plays them again.
    """

    def __init__(self, envs: list[gym.Env[Any, Any]], name: str, *, info_keys: tuple[str, ...] = ()) -> None:
        """`envs`: one environment a row, alike in their spaces; `name` stands in messages.

        `info_keys`: numbers that every episode's last info holds; they arrive in `Ready.info` at ended rows.
        """
        _check_alike(envs, name)
        stripped = [strip(env) for env in envs]
        self.envs = [env for env, _ in stripped]
        self.registered: Any = envs[0].spec
        limit = stripped[0][1]
        threshold = self.registered and self.registered.reward_threshold
        limits = {"max_episode_steps": limit, "reward_threshold": threshold, "info_keys": tuple(info_keys)}
        self.spec = Spec.of(name, envs[0].observation_space, envs[0].action_space, **limits)
        self.num_rows = num_rows = len(envs)
        self._steps = [env.step for env in self.envs]
        self._limits = np.array([most or np.iinfo(np.int64).max for _, most in stripped])
        self._single = self.spec.observation.single
        self._action = self.spec.action.single
        self._in_flight = InFlight(num_rows)
        self._actions: list[NDArray[Any]] = []
        self.out = Outputs(self.spec, num_rows)
        self._running_return = np.zeros(num_rows)
        self._running_length = np.zeros(num_rows, np.int64)
        self._starts: list[dict[str, Any]] = [{}] * num_rows
        self._played: list[list[Any]] = [[] for _ in range(num_rows)]
        self.infos: list[dict[str, Any]] = [{}] * num_rows
        self.final_infos: list[dict[str, Any]] = [{}] * num_rows

    def reset(self, seed: int | Sequence[int]) -> None:
        """Starts every row anew."""
        everywhere = np.ones(self.num_rows, np.bool_)
        self.restart(row_seeds(seed, self.num_rows), everywhere, held=~everywhere)

    def restart(
        self, seeds: Sequence[int | None], rows: Bools, *, held: Bools, options: dict[str, Any] | None = None
    ) -> None:
        """Begins a new episode in the rows where `rows` is true; the others stay where they are.

        Args:
            seeds: one a row; None goes on with the row's own generator, as Gymnasium's `reset()` does.
            rows: which rows, [B].
            held: rows that have begun an episode which nobody has seen; with the seed None they begin it again.
            options: go to each environment's own reset.
        """
        if not (self._in_flight.started or rows.all()):
            raise RuntimeError("every row must be reset once before some are")
        self._in_flight.stop()
        for row in np.flatnonzero(rows).tolist():
            seed = seeds[row]
            start = {"seed": seed} if seed is not None else self._starts[row] if held[row] else None
            self._begin(row, start, options)
        self._ready()

    def send(self, rows: slice, action: NDArray[Any]) -> None:
        """Notes the actions; the step itself happens in `recv`."""
        rows = self._in_flight.send(rows)
        try:
            self._actions.append(check_action(self.spec, rows, action).copy())
        except ValueError:
            self._in_flight.undo()
            raise

    def recv(self) -> Ready:
        """Steps the rows of the oldest send."""
        rows = self._in_flight.recv()
        if self._actions:
            try:
                self._step(rows, self._actions.pop(0))
            except BaseException:
                self._in_flight.stop("a step failed halfway; call reset(seed) or restore(state)")
                self._actions.clear()
                raise
        return self.out.view(rows)

    def state(self) -> dict[str, Any]:
        """What each row's episode began from, the actions since, and what the replay must come to."""
        self._in_flight.quiet()
        leaf = self._action
        return {
            "starts": list(self._starts),
            "actions": [np.array(p, leaf.dtype).reshape(len(p), *leaf.shape) for p in self._played],
            "obs": self.out.obs.copy(),
            "returns": self._running_return.copy(),
            "lengths": self._running_length.copy(),
        }

    def restore(self, state: dict[str, Any]) -> list[str]:
        """Plays each row's episode again; a row that comes out different is cut as truncated and said so."""
        if len(state["starts"]) != self.num_rows or state["obs"].shape != self.out.obs.shape:
            raise ConfigError(
                f"{self.spec.env_id}: the saved state holds {len(state['starts'])} rows with observations "
                f"{state['obs'].shape}, but this environment has {self.out.obs.shape}"
            )
        self._in_flight.stop()
        self.out.clear()
        lost: list[str] = []
        for row in range(self.num_rows):
            reason = self._replay(row, state)
            if reason:
                self._cut(row, state)
                lost.append(f"{self.spec.env_id}: row {row} {reason}; its episode is cut as truncated")
        self._ready(keep=True)
        return lost

    def close(self) -> None:
        """Closes every environment."""
        envs, self.envs, self._steps = self.envs, [], []
        self._in_flight.stop("the environment is closed")
        for env in envs:
            env.close()

    def _step(self, rows: slice, actions: NDArray[Any]) -> None:
        infos = self.infos
        seen: list[Any] = []
        rewards: list[Any] = []
        flags: list[tuple[int, Any, Any]] = []
        # An environment may change its action in place; what is kept for the replay stays as it was sent.
        given = self._as_actions(actions)
        kept = given if isinstance(given[0], int) else self._as_actions(actions.copy())
        row, made = rows.start, _NOTHING
        played = self._played[rows]
        try:
            for step, action in zip(self._steps[rows], given, strict=True):
                made = step(action)
                obs, reward, terminated, truncated, infos[row] = made
                seen.append(obs)
                rewards.append(reward)
                if terminated is not False or truncated is not False:
                    flags.append((row, terminated, truncated))
                row += 1
        except Exception as error:
            where = f"row {row} at step {self._running_length[row] + 1} of its episode"
            if isinstance(made, tuple) and len(made) == 5:
                error.add_note(f"shoal: raised by {self.spec.env_id}, {where}, action {kept[row - rows.start]}")
                raise
            raise EnvError(
                f"{self.spec.env_id}: {where} returned {made!r}; "
                "step() returns (observation, reward, terminated, truncated, info)"
            ) from None
        for note, action in zip(played, kept, strict=True):
            note.append(action)
        self._account(rows, seen, rewards, flags)
