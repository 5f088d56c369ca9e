"""The backend `serial`: Python environments of any kind, stepped one after another in this process."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np

from shoal import _native
from shoal.envs import masks
from shoal.envs.generators import Generators, set_generator, spelled_out
from shoal.envs.masks import MaskReader
from shoal.envs.observations import TreeReader
from shoal.envs.python_env import (
    KeptSpaces,
    check_alike,
    is_long,
    make_envs,
    one_by_one,
    read_flag,
    read_info,
    read_rewards,
    stacked,
    strip,
)
from shoal.envs.randomization import Randomiser, Ranges, info_keys_of
from shoal.envs.rendering import RENDER_MODE, frames_per_s, why_not_rendered
from shoal.envs.vec_env import (
    ActionCheck,
    Capabilities,
    InFlight,
    Outputs,
    PythonRows,
    check_finite,
    not_finite,
    row_seeds,
    take,
    write,
)
from shoal.types import ConfigError, EnvError, Spec, map_tree

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    import gymnasium as gym
    from numpy.typing import NDArray

    from shoal.types import Bools, Ready, Tree

_NOTHING: tuple[None, ...] = (None,) * 5


def make(
    factory: Callable[[], gym.Env[Any, Any]],
    num_envs: int,
    *,
    name: str,
    **keywords: Any,
) -> SerialEnv:
    """`num_envs` environments, each made by one call of `factory`; the keywords are `SerialEnv`'s."""
    envs = make_envs(factory, num_envs, name=name)
    try:
        return SerialEnv(envs, name, **keywords)
    except BaseException:
        for env in envs:
            env.close()
        raise


class SerialEnv:
    """Python environments behind the VecEnv contract.

    A row is saved as what its episode began from (seed or generator, draws) and its actions; `restore` plays them.
    """

    def __init__(
        self,
        envs: list[gym.Env[Any, Any]],
        name: str,
        *,
        info_keys: tuple[str, ...] = (),
        ranges: Ranges | None = None,
        first_row: int = 0,
    ) -> None:
        """`envs`: one environment a row, alike in their spaces; `name` stands in messages.

        `info_keys`: numbers of every episode's last info; `ranges`: what each episode draws. `Ready.info` has both.
        `first_row`: the number of the first row in messages, where these are a part of more rows.
        """
        check_alike(envs, name)
        stripped = [strip(env) for env in envs]
        self.envs = [env for env, _ in stripped]
        self._registered = envs[0].spec
        limit = stripped[0][1]
        threshold = self._registered and self._registered.reward_threshold
        self._bare = [env.unwrapped for env in self.envs]
        self._randomiser = Randomiser(ranges, self._bare, name) if ranges else None
        keys = (*info_keys, *info_keys_of(ranges or {}))
        limits = {
            "max_episode_steps": limit,
            "reward_threshold": threshold,
            "info_keys": keys,
        }
        self.spec = Spec.of(
            name, envs[0].observation_space, envs[0].action_space, **limits
        )
        self.num_rows = num_rows = len(envs)
        self.first_row = first_row
        self._steps = [env.step for env in self.envs]
        self._limits = np.array(
            [most or np.iinfo(np.int64).max for _, most in stripped]
        )
        self._reader = TreeReader(self.spec)
        self._action = ActionCheck(self.spec)
        self._spaces = KeptSpaces(self.envs)
        self._generators = Generators(self._bare)
        self._in_flight = InFlight(num_rows)
        self._actions: list[Tree] = []
        self.out = Outputs(self.spec, num_rows)
        self._masks: MaskReader | None = None
        if masks.in_observation(self.spec):
            self._add_masks()
        self._running_return = np.zeros(num_rows)
        self._running_length = np.zeros(num_rows, np.int64)
        self._starts: list[dict[str, Any]] = [{}] * num_rows
        self._played: list[list[Any]] = [[] for _ in range(num_rows)]
        self.infos: list[dict[str, Any]] = [{}] * num_rows
        self.capabilities = Capabilities(
            restartable=True,
            reset_options=True,
            can_render=envs[0].render_mode == RENDER_MODE,
            frames_per_s=frames_per_s(envs[0].metadata),
        )
        self.final_infos: list[dict[str, Any]] = [{}] * num_rows

    @property
    def native_pool(self) -> None:
        """Native code does not step these rows."""
        return

    @property
    def python_rows(self) -> PythonRows:
        """The environments and their infos."""
        return PythonRows(self.envs, self._registered, self.infos, self.final_infos)

    @property
    def dropped(self) -> Bools:
        """No row is ever dropped."""
        return np.zeros(self.num_rows, np.bool_)

    def reset(self, seed: int | Sequence[int]) -> None:
        """Starts every row anew."""
        everywhere = np.ones(self.num_rows, np.bool_)
        self.restart(row_seeds(seed, self.num_rows), everywhere, held=~everywhere)

    def restart(
        self,
        seeds: Sequence[int | None],
        rows: Bools,
        *,
        held: Bools,
        options: dict[str, Any] | None = None,
    ) -> None:
        """Begins new episodes in some rows."""
        if not (self._in_flight.started or rows.all()):
            raise RuntimeError("every row must be reset once before some are")
        self._in_flight.stop()
        begun = np.array([row_seed is None for row_seed in seeds]) & held
        chosen = np.flatnonzero(rows if options else rows & ~begun)
        starts: list[dict[str, Any] | None] = []
        for row in chosen.tolist():
            seed = seeds[row]
            starts.append(
                {"seed": seed}
                if seed is not None
                else self._starts[row]
                if held[row]
                else None
            )
        self._begin(chosen, starts, options)
        self._read_masks(slice(0, self.num_rows))
        self.out.clear()
        self._ready()

    def send(self, rows: slice, action: Tree) -> None:
        """Notes the actions; the step itself happens in `recv`."""
        rows = self._in_flight.send(rows)
        try:
            self._actions.append(self._action.copied(rows, action))
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
                self._in_flight.stop(
                    "a step failed halfway; call reset(seed) or restore(state)"
                )
                self._actions.clear()
                raise
        return self.out.view(rows)

    def state(self) -> dict[str, Any]:
        """What each row's episode began from, the actions since, and what the replay must come to."""
        self._in_flight.quiet()
        state = {
            "starts": [spelled_out(start) for start in self._starts],
            "actions": [stacked(self.spec.action, played) for played in self._played],
            "obs": map_tree(np.copy, self.out.obs),
            "returns": self._running_return.copy(),
            "lengths": self._running_length.copy(),
        }
        return state | ({"draws": self._randomiser.state()} if self._randomiser else {})

    def restore(self, state: dict[str, Any]) -> list[str]:
        """Plays each row's episode again; a row that comes out different is cut as truncated and said so."""
        saved, here = map_tree(np.shape, state["obs"]), map_tree(np.shape, self.out.obs)
        if len(state["starts"]) != self.num_rows or saved != here:
            raise ConfigError(
                f"{self.spec.env_id}: the saved state holds {len(state['starts'])} rows with observations "
                f"{saved}, but this environment has {here}"
            )
        self._in_flight.stop()
        self.out.clear()
        if self._randomiser is not None:
            self._randomiser.restore(state["draws"])
        lost: list[str] = []
        for row in range(self.num_rows):
            reason = self._replay(row, state)
            if reason:
                self._cut(row, state)
                lost.append(
                    f"{self.spec.env_id}: row {self.first_row + row} {reason}; its episode is cut as truncated"
                )
        self._read_masks(slice(0, self.num_rows))
        self._ready()
        return lost

    def render(self, row: int) -> NDArray[np.uint8]:
        """What the row's environment renders; ConfigError where it was not made with render_mode="rgb_array"."""
        if not self.capabilities.can_render:
            raise ConfigError(why_not_rendered(self.spec.env_id, self.envs[0]))
        frame: Any = self.envs[row].render()
        return frame

    def close(self) -> None:
        """Closes every environment."""
        envs, self.envs, self._steps = self.envs, [], []
        self._in_flight.stop("the environment is closed")
        for env in envs:
            env.close()

    def _step(self, rows: slice, actions: Tree) -> None:
        infos: list[Any] = []
        seen: list[Any] = []
        rewards: list[Any] = []
        flags: list[tuple[int, Any, Any]] = []
        # An environment may change its action in place; what is kept for the replay stays as it was sent.
        given = one_by_one(self.spec, actions)
        kept = (
            given
            if isinstance(given[0], int)
            else one_by_one(self.spec, map_tree(np.copy, actions))
        )
        made = _NOTHING
        try:
            for step, action in zip(self._steps[rows], given, strict=True):
                made = step(action)
                obs, reward, terminated, truncated, info = made
                infos.append(info)
                seen.append(obs)
                rewards.append(reward)
                if terminated is not False or truncated is not False:
                    flags.append((rows.start + len(seen) - 1, terminated, truncated))
        except Exception as error:
            row = rows.start + len(seen)
            where = self._where(row, int(self._running_length[row]) + 1)
            if is_long(made, 5):
                error.add_note(
                    f"shoal: raised by {where}, after the action {kept[len(seen)]}"
                )
                raise
            raise EnvError(
                f"{where} returned {made!r}; step() returns (observation, reward, terminated, truncated, info)"
            ) from None
        self.infos[rows] = infos
        for note, action in zip(self._played[rows], kept, strict=True):
            note.append(action)
        self._account(rows, seen, rewards, flags)

    def _account(
        self,
        rows: slice,
        seen: list[Any],
        rewards: list[Any],
        flags: list[tuple[int, Any, Any]],
    ) -> None:
        """Checks what the rows returned and hands it over; begins new episodes where one ended."""
        out, first = self.out.view(rows), rows.start
        lengths, total = self._running_length[rows], self._running_return[rows]
        lengths += 1
        if not (
            self._reader.gathers and _native.gather(seen, rewards, out.obs, out.reward)
        ):
            self._look_closer(rows, seen, rewards)
        total += out.reward
        terminated, truncated = out.terminated, out.truncated
        terminated[:] = False
        np.greater_equal(lengths, self._limits[rows], out=truncated)
        for row, terminal, cut in flags:
            if terminal.__class__ is not bool or cut.__class__ is not bool:
                terminated[row - first], cut_here = self._read_flags(row, terminal, cut)
            else:
                terminated[row - first], cut_here = terminal, cut
            if cut_here:
                truncated[row - first] = True
        if flags or np.count_nonzero(truncated):
            self._end((terminated | truncated).nonzero()[0] + first)
        self._read_masks(rows, begun=True)

    def _look_closer(self, rows: slice, seen: list[Any], rewards: list[Any]) -> None:
        """Reads what is not all plain finite arrays and numbers, or says what is wrong with it."""
        out, first, lengths = (
            self.out.view(rows),
            rows.start,
            self._running_length[rows],
        )
        bad = self._reader.read(seen, out.obs)
        if bad >= 0:
            raise self._refusal(first + bad, lengths[bad], seen[bad])
        read = read_rewards(rewards)
        if isinstance(read, int):
            where = self._where(first + read, lengths[read])
            raise EnvError(
                f"{where} returned the reward {rewards[read]!r}; return a float"
            )
        named = slice(first + self.first_row, rows.stop + self.first_row)
        check_finite(self.spec, named, out.obs, read, lengths)
        out.reward[:] = read

    def _read_flags(self, row: int, terminal: Any, cut: Any) -> tuple[bool, bool]:
        flags = read_flag(terminal), read_flag(cut)
        if flags[0] is None or flags[1] is None:
            where = self._where(row, self._running_length[row])
            raise EnvError(
                f"{where} returned the flags {terminal!r} and {cut!r}; terminated and truncated are bools"
            )
        return flags[0], flags[1]

    def _end(self, rows: NDArray[np.intp]) -> None:
        out = self.out
        write(out.final_obs, rows, out.obs)
        out.episode_return[rows] = self._running_return[rows]
        out.episode_length[rows] = self._running_length[rows]
        ended: list[int] = rows.tolist()
        for row in ended:
            info = self.infos[row]
            if out.info or info.__class__ is not dict:
                self._read_info(row, info)
            self.final_infos[row] = dict(info)
        self._begin(rows, [None] * len(ended))

    def _read_info(self, row: int, info: Any) -> None:
        where = self._where(row, self._running_length[row])
        if not isinstance(info, dict):
            raise EnvError(f"{where} returned the info {info!r}; return a dict")
        for key, values in self.out.info.items():
            values[row] = read_info(
                info | self._starts[row].get("drawn", {}), key, where
            )

    def _begin(
        self,
        rows: NDArray[np.intp],
        starts: list[dict[str, Any] | None],
        options: dict[str, Any] | None = None,
    ) -> None:
        """Resets rows: as their start says ({"seed"} or {"generator"}), else from where their generator stands."""
        seen: list[Any] = []
        for row, given in zip(rows.tolist(), starts, strict=True):
            start = self._generators.start_of(row) if given is None else given
            if given is not None and "generator" in given:
                set_generator(self._bare[row], given["generator"])
            if options:
                start = start | {"options": options}
            if self._randomiser is not None:
                start = self._randomiser.begin(
                    row, start, int(self._running_length[row])
                )
            self._starts[row] = start
            obs = self._reset(row, start)
            if not self._reader.put(obs, self.out.obs, row):
                raise self._refusal(row, 0, obs)
            self._played[row] = []
            seen.append(obs)
        self._running_return[rows] = 0
        self._running_length[rows] = 0
        bad = not_finite(self.spec.observation, take(self.out.obs, rows))
        if bad:
            leaf, index, value = bad
            raise EnvError(
                f"{self._where(int(rows[index]), 0)} returned the observation{leaf.name} {value}"
            )
        if len(seen) > 1 and starts[0]:
            self._reader.check_apart(
                seen, self.out.obs, rows, lambda row: self._where(row, 0)
            )

    def _reset(self, row: int, start: dict[str, Any]) -> Any:
        made: Any = (None, None)
        try:
            made = self.envs[row].reset(
                **{key: start[key] for key in ("seed", "options") if key in start}
            )
            obs, self.infos[row] = made
        except Exception as error:
            if is_long(made, 2):
                error.add_note(f"shoal: raised by {self._where(row, 0)}")
                raise
            raise EnvError(
                f"{self._where(row, 0)} returned {made!r}; reset() returns (observation, info)"
            ) from None
        changed = self._spaces.changed(row)
        if changed:
            raise EnvError(f"{self._where(row, 0)} {changed}")
        return obs

    def _replay(self, row: int, state: dict[str, Any]) -> str:
        """Plays a saved episode again; returns why it is not the same, or nothing."""
        actions = state["actions"][row]
        total, count = 0.0, len(self.spec.action.flat(actions)[0])
        try:
            self._begin(np.array([row]), [state["starts"][row]])
            obs: Any = None
            for played, action in enumerate(
                one_by_one(self.spec, map_tree(np.copy, actions))
            ):
                obs, reward, terminated, truncated, self.infos[row] = self._steps[row](
                    action
                )
                total += float(reward)
                if terminated or truncated:
                    return f"ended its episode after {played + 1} of the {count} saved actions"
            if count and not self._reader.put(obs, self.out.obs, row):
                return "came back to an observation of another form"
        except Exception as error:
            return f"raised {type(error).__name__} ({error}) when its {count} actions were played again"
        same = map_tree(
            np.array_equal, take(self.out.obs, row), take(state["obs"], row)
        )
        if not all(self.spec.observation.flat(same)) or total != state["returns"][row]:
            return f"did not come back to its saved observation and return after {count} actions"
        self._played[row] = one_by_one(self.spec, actions)
        self._running_return[row], self._running_length[row] = total, count
        return ""

    def _cut(self, row: int, state: dict[str, Any]) -> None:
        out = self.out
        out.truncated[row] = True
        write(out.final_obs, row, state["obs"])
        out.episode_return[row] = state["returns"][row]
        for values in out.info.values():
            values[row] = np.nan
        self.final_infos[row] = {}
        out.episode_length[row] = self._running_length[row] = state["lengths"][row]
        self._begin(np.array([row]), [None])

    def _add_masks(self) -> None:
        self._masks = MaskReader(self.spec)
        self.spec = replace(self.spec, masked=True)
        self.out.add_masks(np.ones((self.num_rows, self._masks.size), np.bool_))

    def _read_masks(self, rows: slice, *, begun: bool = False) -> None:
        """What the rows may choose next; that infos hold masks is found out at the first reset."""
        info: Any = self.infos[rows.start]
        named = isinstance(info, dict) and masks.KEY in info
        if named and self._masks is None and not begun:
            self._add_masks()
        if self._masks is not None:
            self._masks.read_rows(rows, self.out, self.infos, self._where)

    def _ready(self) -> None:
        self._actions.clear()
        self._in_flight.begin()

    def _where(self, row: int, step: int = -1) -> str:
        """Names the environment, the row and the step: 0 for the reset, -1 for the last one."""
        step = int(self._running_length[row]) if step < 0 else step
        when = f"at step {step} of its episode" if step else "at its reset"
        return f"{self.spec.env_id}: row {self.first_row + row} {when}"

    def _refusal(self, row: int, step: int, obs: Any) -> EnvError:
        said = self._reader.complaint(obs)
        return EnvError(f"{self._where(row, step)} returned {said}")
