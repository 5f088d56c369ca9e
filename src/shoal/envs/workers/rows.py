"""The backend `workers`: Python environments in processes over shared memory, several rows a worker."""

from __future__ import annotations

import logging
import os
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np

from shoal.envs.history import History
from shoal.envs.vec_env import (
    MAX_VIEWS,
    ActionCheck,
    Capabilities,
    InFlight,
    row_seeds,
    take,
)
from shoal.envs.workers.crew import Crew, Fault, Part, Workers
from shoal.envs.workers.worker import Op
from shoal.types import ConfigError, EnvError, Tree, map_tree

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from numpy.typing import NDArray

    from shoal.envs.randomization import Ranges
    from shoal.types import Bools, Ready

_LOG = logging.getLogger(__name__)


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
        raise ConfigError(
            "backend='workers' needs Linux (memfd_create); backend='serial' runs everywhere"
        )
    kept = {"name": name, "info_keys": tuple(info_keys), "ranges": ranges or {}}
    return WorkersEnv(Crew(factory, num_envs, plan=kept, settings=workers or Workers()))


class WorkersEnv:
    """Python environments in worker processes behind the VecEnv contract.

    Worker w has a contiguous part of the rows and steps them as `serial` does. A send reaches a worker as one word in
    shared memory. After a fault that is raised, nothing goes on before the next `reset` or `restore`, which replace
    the processes that are gone.

    With `Workers(batch_rows=n)` a `send` of whole batches of n rows starts each of them, and `recv` hands over the
    first batch that is done, whichever it is: arrival decides the order, so results are not reproducible. All batches
    may be under way at once.
    """

    def __init__(self, crew: Crew) -> None:
        """`crew`: closed with this object."""
        self.crew = crew
        self.spec = crew.spec
        self.num_rows = num_rows = crew.rows[-1].stop
        batch_rows = crew.settings.batch_rows
        self._in_order = batch_rows in (0, num_rows)
        self._in_flight = InFlight(num_rows, 0 if self._in_order else batch_rows)
        self._batch_rows = num_rows if self._in_order else batch_rows
        self._keeps = crew.settings.on_fault != "raise"
        self._flights: list[list[Part]] = []
        self._parts: dict[tuple[int, int], list[Part]] = {}
        self._sent = 0
        self._action = ActionCheck(self.spec)
        self.out = crew.block.outputs(slice(0, num_rows))
        self.out.valid[:] = True
        for values in self.out.info.values():
            values[:] = np.nan
        self._history = History(self.spec, num_rows)
        self._note_masks([self.spec.masked])

    @property
    def pids(self) -> list[int]:
        """The processes, in the order of their rows."""
        return [worker.pid for worker in self.crew.workers]

    @property
    def capabilities(self) -> Capabilities:
        """What these rows can do."""
        return Capabilities(batch_rows=0 if self._in_order else self._batch_rows)

    @property
    def native_pool(self) -> None:
        """Native code does not step these rows."""
        return

    @property
    def python_rows(self) -> None:
        """The environments are in other processes."""
        return

    @property
    def dropped(self) -> Bools:
        """Rows [B] whose worker failed and was dropped: they are invalid until the next `reset` or `restore`."""
        return self._history.dropped

    def reset(self, seed: int | Sequence[int]) -> None:
        """Starts every row anew."""
        seeds = row_seeds(seed, self.num_rows)
        self._renew()
        masked = self.crew.ask(
            Op.RESET,
            {number: seeds[rows] for number, rows in enumerate(self.crew.rows)},
        )
        self._note_masks(masked)
        self._ready(seeds, [0] * self.num_rows)

    def restart(
        self,
        seeds: Sequence[int | None],
        rows: Bools,
        *,
        held: Bools,
        options: dict[str, Any] | None = None,
    ) -> None:
        """ConfigError: rows in processes are only reset all together."""
        raise ConfigError(
            f"{self.spec.env_id}: rows in processes begin anew by reset(seed) only; backend='serial' restarts some"
        )

    def send(self, rows: slice, action: Tree) -> None:
        """Hands each worker its part of `rows`."""
        rows = self._in_flight.send(rows)
        try:
            self._action.copy(rows, action, take(self.crew.block.action, rows))
        except ValueError:
            self._in_flight.undo()
            raise
        self._sent += 1
        size = min(self._batch_rows, rows.stop - rows.start)
        for start in range(rows.start, rows.stop, size):
            self._flights.append(self._posted(start, start + size))

    def recv(self) -> Ready:
        """Waits for the workers of the oldest send, or of the first batch that is done."""
        nth = 0
        if self._flights:
            try:
                nth = self._finish_oldest() if self._in_order else self._finish_any()
            except BaseException:
                self._stop("a step failed halfway; call reset(seed) or restore(state)")
                raise
            self._note(self._flights.pop(nth))
        return self.out.view(self._in_flight.recv(nth))

    def state(self) -> dict[str, Any]:
        """The state of the same rows in `serial`, and what a restart would draw its seeds from.

        Rows that were dropped have none: `restore` cuts their episodes and begins new ones.
        """
        self._in_flight.quiet()
        history = self._history
        alive = [
            number
            for number, rows in enumerate(self.crew.rows)
            if not history.dropped[rows].any()
        ]
        found = dict(
            zip(alive, self.crew.ask(Op.STATE, dict.fromkeys(alive)), strict=True)
        )
        made = [
            found[n] if n in found else history.state(self.spec, rows)
            for n, rows in enumerate(self.crew.rows)
        ]
        joined: dict[str, Any] = {
            name: _join([part[name] for part in made]) for name in made[0]
        }
        return joined | {
            "seeds": list(history.seeds),
            "restarts": list(history.restarts),
        }

    def restore(self, state: dict[str, Any]) -> list[str]:
        """Plays each row's episode again, each worker its own."""
        if len(state["starts"]) != self.num_rows:
            raise ConfigError(
                f"{self.spec.env_id}: the saved state holds {len(state['starts'])} rows, but this environment has "
                f"{self.num_rows} rows"
            )
        self._renew()
        rest = {
            name: value
            for name, value in state.items()
            if name not in ("seeds", "restarts")
        }
        parts: dict[int, Any] = {}
        for number, rows in enumerate(self.crew.rows):
            parts[number] = {name: _part(value, rows) for name, value in rest.items()}
        longest = max(map(len, state["actions"]))
        made = self.crew.ask(
            Op.RESTORE, parts, self.crew.settings.step_timeout_s * (1 + longest)
        )
        self._note_masks([masked for masked, _ in made])
        nothing = [0] * self.num_rows
        self._ready(state.get("seeds", nothing), state.get("restarts", nothing))
        going_on = ~self.out.truncated
        self._history.returns[:] = state["returns"] * going_on
        self._history.lengths[:] = state["lengths"] * going_on
        return [sentence for _, lost in made for sentence in lost]

    def render(self, row: int) -> NDArray[np.uint8]:
        """ConfigError: no frames come from other processes."""
        raise ConfigError(
            f"{self.spec.env_id}: rows in processes draw no pictures; backend='serial' does"
        )

    def close(self) -> None:
        """Ends the processes, in 4 s at most."""
        self._stop("the environment is closed")
        self.crew.close()

    def _posted(self, first: int, last: int) -> list[Part]:
        """The parts of rows first..last - 1, posted to their workers; those that were dropped have none."""
        parts = self._parts.get((first, last))
        if parts is None:
            if len(self._parts) == MAX_VIEWS:
                self._parts.clear()
            parts = self._parts[first, last] = self.crew.parts(slice(first, last))
        if self._keeps and self.dropped[first:last].any():
            for part in parts:
                if self.dropped[part.rows.start]:
                    self._history.skip(self.out, part.rows)
            parts = [part for part in parts if not self.dropped[part.rows.start]]
        doing = f"send {self._sent} since the reset"
        for part in parts:
            part.doing = doing
        self.crew.post(parts)
        return parts

    def _finish_oldest(self) -> int:
        """Returns when every part of the oldest send is stepped, by whichever process."""
        while parts := self._flights[0]:
            faults = self.crew.wait(parts)
            if not faults:
                break
            for fault in faults:
                self._settle(fault)
        return 0

    def _finish_any(self) -> int:
        """Returns the place of the oldest batch among those whose every part is stepped."""
        while True:
            faults = self.crew.look(self._flights)
            nth = -1 if faults else self.crew.wait_for_one(self._flights)
            if nth >= 0:
                faults = self.crew.failures(self._flights[nth])
                if not faults:
                    return nth
            for fault in faults:
                self._settle(fault)

    def _settle(self, fault: Fault) -> None:
        """Raises the fault's error, or drops the worker, or has a new process take its place."""
        match self.crew.settings.on_fault:
            case "raise":
                raise fault.error
            case "drop":
                self._drop(fault)
            case _:
                self._restart(fault.worker, fault.error)
                for part in self._parts_of(fault.worker):
                    self.crew.post([part])

    def _restart(self, number: int, error: BaseException) -> None:
        """A new process for the worker's rows, and another one where that dies at once, as long as the budget lasts."""
        history, rows, most = (
            self._history,
            self.crew.rows[number],
            self.crew.settings.max_restarts,
        )
        for count in range(history.restarts[rows.start], most):
            _LOG.warning("%s; restart %d of %d", error, count + 1, most)
            history.restarts[rows] = [count + 1] * (rows.stop - rows.start)
            try:
                self.crew.replace(number)
                self.crew.ask(Op.REVIVE, {number: history.of(rows)})
                return
            except Exception as again:
                error = again
        error.add_note(f"shoal: after {most} restarts, as max_restarts allows")
        raise error

    def _drop(self, fault: Fault) -> None:
        """Goes on without the worker and its rows, as long as there are others."""
        history, rows = self._history, self.crew.rows[fault.worker]
        self.crew.workers[fault.worker].end()
        history.dropped[rows] = True
        if history.dropped.all():
            fault.error.add_note(
                "shoal: it was the last worker; all others were dropped before"
            )
            raise fault.error
        _LOG.warning(
            "%s; it is dropped, and %d rows go on",
            fault.error,
            int((~history.dropped).sum()),
        )
        for part in self._parts_of(fault.worker):
            history.skip(self.out, part.rows)
        self._flights = [
            [part for part in parts if part.worker != fault.worker]
            for parts in self._flights
        ]

    def _parts_of(self, number: int) -> list[Part]:
        """What a worker at fault was to do from then on: what it may have done after its fault does not count."""
        return [
            part for parts in self._flights for part in parts if part.worker == number
        ]

    def _renew(self) -> None:
        if self.crew.closed:
            raise RuntimeError(f"{self.spec.env_id}: the environment is closed")
        self._stop()
        self.crew.renew()

    def _stop(self, *why_not: str) -> None:
        self._in_flight.stop(*why_not)
        self._flights.clear()

    def _note_masks(self, masked: list[bool]) -> None:
        """Whether actions are masked, as each worker found; infos may hold the masks, so only a reset tells."""
        for number, found in enumerate(masked):
            if found != masked[0]:
                worker, has = self.crew.workers[number], "an" if found else "no"
                raise EnvError(
                    f"{self.spec.env_id}: {worker} gave {has} info['action_mask'], unlike row 0"
                )
        if masked[0] and self.out.action_mask is None:
            self.spec = replace(self.spec, masked=True)
            self.out.add_masks(self.crew.block.masks)

    def _ready(self, seeds: list[int], restarts: list[int]) -> None:
        self._history.begin(self.out, seeds, restarts)
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
