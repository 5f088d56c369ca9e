"""The backend `workers`: Python environments in processes over shared memory, several rows a worker."""

from __future__ import annotations

import logging
import os
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from shoal.envs.crew import Crew, Fault, Part, Workers
from shoal.envs.vec_env import ActionCheck, InFlight, row_seeds, take
from shoal.envs.worker import Op
from shoal.types import ConfigError, Tree, assign, map_tree

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from shoal.envs.randomise import Ranges
    from shoal.envs.vec_env import Outputs
    from shoal.types import Ready

_LOG = logging.getLogger(__name__)


@dataclass(slots=True)
class History:
    """What the rows had come to when they were last handed over, kept where a worker may be replaced."""

    seeds: list[int]
    restarts: list[int]
    obs: Tree
    returns: np.ndarray[Any, np.dtype[np.float64]]
    lengths: np.ndarray[Any, np.dtype[np.int64]]

    def note(self, out: Outputs, rows: slice) -> None:
        """Copies what `out` holds of `rows` now."""
        assign(self.obs, rows, take(out.obs, rows))
        going_on = ~(out.terminated[rows] | out.truncated[rows])
        self.returns[rows] = (self.returns[rows] + out.reward[rows]) * going_on
        self.lengths[rows] = (self.lengths[rows] + 1) * going_on

    def of(self, rows: slice) -> dict[str, Any]:
        """What a new process is told of its rows: the seeds that they begin from, and what is cut."""
        numbered = list(enumerate(zip(self.seeds, self.restarts, strict=True)))[rows]
        drawn = [np.random.SeedSequence([seed, row, count]) for row, (seed, count) in numbered]
        return {
            "seeds": [int(sequence.generate_state(1, np.uint64)[0]) for sequence in drawn],
            "obs": map_tree(np.copy, take(self.obs, rows)),
            "returns": self.returns[rows].copy(),
            "lengths": self.lengths[rows].copy(),
        }


def make(
    factory: Callable[[], Any],
    num_envs: int,
    *,
    name: str,
    info_keys: tuple[str, ...] = (),
    ranges: Ranges | None = None,
    workers: Workers | None = None,
) -> WorkersEnv:
    """`num_envs` rows in processes; `factory` makes one environment and is pickled by value where it must be."""
    if not hasattr(os, "memfd_create"):
        raise ConfigError("backend='workers' needs Linux (memfd_create); backend='serial' runs everywhere")
    kept = {"name": name, "info_keys": tuple(info_keys), "ranges": ranges or {}}
    return WorkersEnv(Crew(factory, num_envs, plan=kept, settings=workers or Workers()))


class WorkersEnv:
    """Python environments in worker processes behind the VecEnv contract.

    Worker w has a contiguous part of the rows and steps them as `serial` does. A send reaches a worker as one word in
    shared memory. After a fault that is raised, nothing goes on before the next `reset` or `restore`, which replace
    the processes that are gone.
    """

    def __init__(self, crew: Crew) -> None:
        """`crew`: closed with this object."""
        self.crew = crew
        self.spec = crew.spec
        self.num_rows = num_rows = crew.rows[-1].stop
        self._keeps = crew.settings.on_fault == "restart"
        self._in_flight = InFlight(num_rows)
        self._flights: list[list[Part]] = []
        self._sent = 0
        self._action = ActionCheck(self.spec)
        self.out = crew.block.outputs(slice(0, num_rows))
        self.out.valid[:] = True
        for values in self.out.info.values():
            values[:] = np.nan
        obs = self.spec.observation.allocate(num_rows)
        nothing = [0] * num_rows
        self._history = History(nothing, nothing.copy(), obs, np.zeros(num_rows), np.zeros(num_rows, np.int64))

    @property
    def pids(self) -> list[int]:
        """The processes, in the order of their rows."""
        return [worker.pid for worker in self.crew.workers]

    def reset(self, seed: int | Sequence[int]) -> None:
        """Starts every row anew."""
        seeds = row_seeds(seed, self.num_rows)
        self._renew()
        self.crew.ask(Op.RESET, {number: seeds[rows] for number, rows in enumerate(self.crew.rows)})
        self._ready(seeds, [0] * self.num_rows)

    def send(self, rows: slice, action: Tree) -> None:
        """Hands each worker its part of `rows`."""
        rows = self._in_flight.send(rows)
        try:
            checked = self._action.check(rows, action)
        except ValueError:
            self._in_flight.undo()
            raise
        assign(self.crew.block.action, rows, checked)
        self._sent += 1
        parts: list[Part] = []
        for number, own in enumerate(self.crew.rows):
            first, last = max(own.start, rows.start), min(own.stop, rows.stop)
            if first < last:
                parts.append(self.crew.post(Part(number, slice(first, last))))
        self._flights.append(parts)

    def recv(self) -> Ready:
        """Waits for the workers of the oldest send."""
        rows = self._in_flight.recv()
        if self._flights:
            try:
                self._finish(self._flights[0])
            except BaseException:
                self._in_flight.stop("a step failed halfway; call reset(seed) or restore(state)")
                raise
            self._note(self._flights.pop(0))
        return self.out.view(rows)

    def state(self) -> dict[str, Any]:
        """The state of the same rows in `serial`, and what a restart would draw its seeds from."""
        self._in_flight.quiet()
        made = self.crew.ask(Op.STATE, dict.fromkeys(range(len(self.crew.rows))))
        joined: dict[str, Any] = {name: _join([part[name] for part in made]) for name in made[0]}
        return joined | {"seeds": list(self._history.seeds), "restarts": list(self._history.restarts)}

    def restore(self, state: dict[str, Any]) -> list[str]:
        """Plays each row's episode again, each worker its own."""
        if len(state["starts"]) != self.num_rows:
            raise ConfigError(
                f"{self.spec.env_id}: the saved state holds {len(state['starts'])} rows, but this environment has "
                f"{self.num_rows} rows"
            )
        self._renew()
        rest = {name: value for name, value in state.items() if name not in ("seeds", "restarts")}
        parts: dict[int, Any] = {}
        for number, rows in enumerate(self.crew.rows):
            parts[number] = {name: _part(value, rows) for name, value in rest.items()}
        longest = max(map(len, state["actions"]))
        lost = self.crew.ask(Op.RESTORE, parts, self.crew.settings.step_timeout_s * (1 + longest))
        nothing = [0] * self.num_rows
        self._ready(state.get("seeds", nothing), state.get("restarts", nothing))
        going_on = ~self.out.truncated
        self._history.returns[:] = state["returns"] * going_on
        self._history.lengths[:] = state["lengths"] * going_on
        return [sentence for part in lost for sentence in part]

    def close(self) -> None:
        """Ends the processes, in 4 s at most."""
        self._in_flight.stop("the environment is closed")
        self.crew.close()

    def _finish(self, parts: list[Part]) -> None:
        """Returns when every part is stepped, by whichever process."""
        while parts:
            faults = self.crew.wait(parts, doing=f"send {self._sent - len(self._flights) + 1} since the reset")
            if not faults:
                return
            for fault in faults:
                self._settle(fault)

    def _settle(self, fault: Fault) -> None:
        """Raises the fault's error, or has a new process take the worker's place."""
        settings, history, number = self.crew.settings, self._history, fault.worker
        if settings.on_fault == "raise":
            raise fault.error
        rows = self.crew.rows[number]
        count = history.restarts[rows.start]
        if count >= settings.max_restarts:
            fault.error.add_note(f"shoal: after {count} restarts, as max_restarts allows")
            raise fault.error
        _LOG.warning("%s; restart %d of %d", fault.error, count + 1, settings.max_restarts)
        left = self._take_stepped(number)
        history.restarts[rows] = [count + 1] * (rows.stop - rows.start)
        self.crew.replace(number)
        self.crew.ask(Op.REVIVE, {number: history.of(rows)})
        for part in left:
            self.crew.post(part)

    def _take_stepped(self, number: int) -> list[Part]:
        """Takes the parts that a worker has stepped off their sends; returns the others, which are to be done again."""
        left: list[Part] = []
        for parts in self._flights:
            for part in [part for part in parts if part.worker == number]:
                if self.crew.stepped(part):
                    self._note([part])
                    parts.remove(part)
                else:
                    left.append(part)
        return left

    def _renew(self) -> None:
        if self.crew.closed:
            raise RuntimeError(f"{self.spec.env_id}: the environment is closed")
        self._in_flight.stop()
        self._flights.clear()
        self.crew.renew()

    def _ready(self, seeds: list[int], restarts: list[int]) -> None:
        history = self._history
        history.seeds, history.restarts = list(seeds), list(restarts)
        assign(history.obs, slice(None), self.out.obs)
        history.returns[:] = history.lengths[:] = 0
        self._sent = 0
        self._in_flight.begin()

    def _note(self, parts: list[Part]) -> None:
        if self._keeps:
            for part in parts:
                self._history.note(self.out, part.rows)


def _join(parts: list[Any]) -> Any:
    """Lists one after the other; arrays, and trees of them, along their first axis."""
    if isinstance(parts[0], list):
        return [entry for part in parts for entry in part]

    def joined(*arrays: Any) -> Any:
        return np.concatenate(arrays)

    return map_tree(joined, parts[0], *parts[1:])


def _part(value: Any, rows: slice) -> Any:
    return value[rows] if isinstance(value, list) else take(value, rows)
