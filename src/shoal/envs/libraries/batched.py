"""Libraries that step all their rows at once, brought to the contract of rows."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

import numpy as np

from shoal import _native
from shoal.envs.vec_env import (
    ActionCheck,
    Capabilities,
    InFlight,
    Outputs,
    check_finite,
    not_finite,
    row_seeds,
    write,
)
from shoal.types import ConfigError, EnvError, Spec, map_tree

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from shoal.types import Bools, Ready, Tree


class Stepped(NamedTuple):
    """What one step of all rows came to, in arrays [B, ...].

    Anything that NumPy makes arrays of that shape of is taken; contiguous ones of the usual types are fastest.
    `final_obs` is read at ended rows; None means that `obs` still shows their last observation, and that the next step
    only resets them. `only_reset`: rows for which this was such a step.
    """

    obs: Tree
    reward: NDArray[Any]
    terminated: Bools
    truncated: Bools
    final_obs: Tree | None = None
    only_reset: Bools | None = None


class Library(Protocol):
    """A library that batches itself, as BatchedEnv uses it."""

    spec: Spec
    num_rows: int
    clip_reward: bool
    """Learning is given the signs of the rewards; returns are sums of the rewards themselves."""

    capabilities: Capabilities
    """`whole_sends`, and whether rows can be saved and drawn."""

    @property
    def lives(self) -> NDArray[Any] | None:
        """Lives left after the last call, [B], where a life lost is an end for learning, though not of the episode."""
        ...

    def reset(self, seeds: Sequence[int | None], rows: Bools) -> Tree:
        """Begins episodes in `rows`, seeded or (None) from their own generators; observations [B, ...] of all rows.

        They stay as they are until the next call. ConfigError where the library cannot begin just these.
        """
        ...

    def step(self, action: Tree) -> Stepped:
        """One step of all rows with actions that the space holds; its observations stay until the next call."""
        ...

    def state(self) -> dict[str, Any]:
        """What `restore` needs; empty where the library cannot be saved."""
        ...

    def restore(self, state: dict[str, Any]) -> Tree | None:
        """Comes back to `state` and returns the observations there; None where the library cannot."""
        ...

    def render(self, row: int, obs: Tree) -> NDArray[np.uint8]:
        """What a row looks like, whose observation is obs[row]: RGB [height, width, 3]. ConfigError where it cannot."""
        ...

    def close(self) -> None:
        """Frees what the library holds."""
        ...


class BatchedEnv:
    """A library's rows behind the VecEnv contract; all rows are sent and received at once."""

    def __init__(self, library: Library) -> None:
        """`library`: closed with this object."""
        self.library, self.spec, self.num_rows = library, library.spec, library.num_rows
        self.out = Outputs(self.spec, self.num_rows)
        self._everything = slice(0, self.num_rows)
        self._check = ActionCheck(self.spec)
        self._in_flight = InFlight(self.num_rows)
        self._action: Tree = None
        self._tally = _native.Tally(self.out, library.clip_reward)
        self._returns, self._lengths = self._tally.returns, self._tally.lengths
        self._has_floats = any(
            leaf.dtype.kind == "f" for leaf in self.spec.observation.leaves
        )
        self._seeds, self._steps = [0] * self.num_rows, 0

    @property
    def capabilities(self) -> Capabilities:
        """What these rows can do."""
        return self.library.capabilities

    @property
    def native_pool(self) -> None:
        """Native code does not step these rows."""
        return

    @property
    def python_rows(self) -> None:
        """These rows are no Gymnasium environments in this process."""
        return

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
        """Begins new episodes in some rows; ConfigError for options."""
        if options:
            raise ConfigError(
                f"{self.spec.env_id}: a library's own reset takes no options, got {options}"
            )
        if not (self._in_flight.started or rows.all()):
            raise RuntimeError("every row must be reset once before some are")
        self._in_flight.stop()
        self._action = None
        self.out.clear()
        chosen = rows & ~(held & np.array([seed is None for seed in seeds]))
        if chosen.any():
            self._write(self.library.reset(seeds, chosen))
            self._returns[chosen] = self._lengths[chosen] = 0
            self._note_lives()
            check_finite(
                self.spec,
                self._everything,
                self.out.obs,
                self.out.reward,
                self._lengths,
            )
            given = [seed is not None for seed in seeds]
            self._seeds = [
                int(seed or 0) if new else old
                for seed, new, old in zip(seeds, given, self._seeds, strict=True)
            ]
            self._steps = 0 if rows.all() else self._steps
        self.out.valid[:] = True
        self._in_flight.begin()

    def send(self, rows: slice, action: Tree) -> None:
        """Notes the actions of all rows; the step itself happens in `recv`."""
        rows = self._in_flight.send(rows)
        try:
            if rows != self._everything:
                raise ConfigError(
                    f"{self.spec.env_id}: the library steps its {self.num_rows} rows at once, but rows {rows.start}.."
                    f'{rows.stop - 1} were sent alone; use schedule="sync"'
                )
            self._action = self._check.copied(rows, action)
        except ValueError:
            self._in_flight.undo()
            raise

    def recv(self) -> Ready:
        """Steps all rows, or hands over the first observations."""
        rows = self._in_flight.recv()
        if self._action is not None:
            action, self._action = self._action, None
            try:
                self._account(self.library.step(action))
            except BaseException:
                self._in_flight.stop(
                    "a step failed halfway; call reset(seed) or restore(state)"
                )
                raise
        return self.out.view(rows)

    def state(self) -> dict[str, Any]:
        """Observations and counts, and what the library needs to come back to them, if it can."""
        self._in_flight.quiet()
        return {
            "obs": map_tree(np.copy, self.out.obs),
            "returns": self._returns.copy(),
            "lengths": self._lengths.copy(),
            "seeds": np.array(self._seeds, np.uint64),
            "steps": self._steps,
            "library": self.library.state(),
        }

    def restore(self, state: dict[str, Any]) -> list[str]:
        """Continues; a row that cannot is cut as truncated and begins a fresh episode from a seed of its own."""
        saved, here = map_tree(np.shape, state["obs"]), map_tree(np.shape, self.out.obs)
        if saved != here:
            raise ConfigError(
                f"{self.spec.env_id}: the saved rows have observations {saved}, but this environment has {here}"
            )
        self._in_flight.stop()
        self._action = None
        self.out.clear()
        self.out.valid[:] = True
        self._returns[:], self._lengths[:] = state["returns"], state["lengths"]
        self._seeds, self._steps = (
            [int(seed) for seed in state["seeds"]],
            int(state["steps"]),
        )
        obs = self.library.restore(state["library"])
        self._note_lives()
        lost = np.ones(self.num_rows, np.bool_)
        if obs is not None:
            self._write(obs)
            pairs = zip(
                self.spec.observation.flat(obs),
                self.spec.observation.flat(state["obs"]),
                strict=True,
            )
            same = [(a == b).reshape(self.num_rows, -1).all(axis=1) for a, b in pairs]
            lost = ~np.logical_and.reduce(same)
        if lost.any():
            self._cut(lost, state["obs"])
        self._in_flight.begin()
        why = (
            "cannot be saved"
            if obs is None
            else "did not come back to its saved observation"
        )
        named = self.spec.env_id
        return [
            f"{named}: row {row} {why}; its episode is cut as truncated"
            for row in np.flatnonzero(lost).tolist()
        ]

    def render(self, row: int) -> NDArray[np.uint8]:
        """What the library draws of a row."""
        return self.library.render(row, self.out.obs)

    def close(self) -> None:
        """Closes the library."""
        self._in_flight.stop("the environment is closed")
        self.library.close()

    def _cut(self, rows: Bools, last: Tree) -> None:
        """Ends the episodes of `rows` as truncated, and begins others than the library began with."""
        out = self.out
        out.truncated[rows] = True
        write(out.final_obs, rows, last)
        out.episode_return[rows], out.episode_length[rows] = (
            self._returns[rows],
            np.maximum(self._lengths[rows], 1),
        )
        drawn = [
            np.random.SeedSequence([seed, self._steps]).generate_state(1)[0]
            for seed in self._seeds
        ]
        fresh = [int(seed) % 2**31 for seed in drawn]
        self._write(self.library.reset(fresh, rows))
        self._note_lives()
        self._returns[rows] = self._lengths[rows] = 0

    def _account(self, stepped: Stepped) -> None:
        """Hands a step over: counts, ends, and refusals of what is not finite."""
        self._steps += 1
        self._write(stepped.obs)
        finite = not (
            self._has_floats and not_finite(self.spec.observation, self.out.obs)
        )
        lives = self.library.lives
        ends = self._count(stepped, lives) if finite else -1
        if ends < 0:
            stepped, lives = (
                self._checked(stepped),
                None if lives is None else np.array(lives, np.int64),
            )
            ends = self._count(stepped, lives)
        if ends < 0:
            raise EnvError(
                f"{self.spec.env_id}: the library has the lives {lives!r}, expected ({self.num_rows},)"
            )
        if ends:
            over = stepped.terminated | stepped.truncated
            write(
                self.out.final_obs,
                over,
                self.out.obs if stepped.final_obs is None else stepped.final_obs,
            )
            write(self.out.final_obs, self.out.terminated & ~over, self.out.obs)

    def _count(self, stepped: Stepped, lives: NDArray[Any] | None) -> int:
        _, reward, terminated, truncated, _, only_reset = stepped
        return self._tally.step(reward, terminated, truncated, only_reset, lives)

    def _checked(self, stepped: Stepped) -> Stepped:
        """The step in arrays of the usual types; EnvError where it has other shapes, or holds what is not finite."""
        _, reward, terminated, truncated, _, only_reset = stepped
        usual: dict[str, Any] = {
            "reward": np.array(reward, np.float64),
            "terminated": np.array(terminated, np.bool_),
            "truncated": np.array(truncated, np.bool_),
            "only_reset": np.zeros(self.num_rows, np.bool_)
            if only_reset is None
            else np.array(only_reset, np.bool_),
        }
        for name, array in usual.items():
            if array.shape != (self.num_rows,):
                raise EnvError(
                    f"{self.spec.env_id}: the library returned {name} of shape {array.shape}, expected "
                    f"({self.num_rows},)"
                )
        usual["reward"][usual["only_reset"]] = 0
        lengths = self._lengths + ~usual["only_reset"]
        check_finite(
            self.spec, self._everything, self.out.obs, usual["reward"], lengths
        )
        return stepped._replace(**usual)

    def _note_lives(self) -> None:
        """After a reset: where the lives are counted from."""
        if self.library.lives is not None:
            self._tally.lives[:] = self.library.lives

    def _write(self, obs: Tree) -> None:
        """Hands the library's own arrays over: they stay as they are until the rows are stepped again."""
        last: Any = self.out.obs
        alike = (
            obs.__class__ is last.__class__ is np.ndarray
            and obs.shape == last.shape
            and obs.dtype == last.dtype
        )
        self.out.put_obs(
            obs if alike and obs.flags.carray else self._in_spaces_form(obs)
        )

    def _in_spaces_form(self, obs: Tree) -> Tree:
        """The observations in contiguous arrays of the space's types; EnvError where they are others."""
        layout, own = self.spec.observation, []
        for leaf, new in zip(layout.leaves, layout.flat(obs), strict=True):
            seen, shape = np.asarray(new), (self.num_rows, *leaf.shape)
            if seen.shape != shape or not np.can_cast(
                seen.dtype, leaf.dtype, "same_kind"
            ):
                raise EnvError(
                    f"{self.spec.env_id}: the library returned observations{leaf.name} of shape {seen.shape} and type "
                    f"{seen.dtype}, but its space says {shape} and {leaf.dtype}"
                )
            own.append(np.require(seen, leaf.dtype, ["C", "W"]))
        return layout.tree(own)
