"""The backend `workers`: Python environments in processes over shared memory, several rows a worker."""

from __future__ import annotations

import os
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np

from shoal.envs.actions import ActionCheck
from shoal.envs.finite import Tolerance
from shoal.envs.in_flight import CALL_RESET, InFlight
from shoal.envs.outputs import take
from shoal.envs.told import is_told
from shoal.envs.vec_env import Capabilities, row_seeds
from shoal.envs.workers.last_seen import LastSeen
from shoal.envs.workers.pool import RowPlan, WorkerPool
from shoal.envs.workers.settings import Workers
from shoal.envs.workers.states import cut_up, join
from shoal.envs.workers.under_way import UnderWay
from shoal.envs.workers.worker import Op
from shoal.types import ConfigError, EnvError

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from numpy.typing import NDArray

    from shoal.envs.randomization import Ranges
    from shoal.types import Bools, Ready, Tree


def make(
    factory: Callable[[], Any],
    num_envs: int,
    *,
    name: str,
    info_keys: tuple[str, ...] = (),
    ranges: Ranges | None = None,
    workers: Workers | None = None,
    tolerance: Tolerance | None = None,
) -> WorkersEnv:
    """`num_envs` rows in processes; `factory` makes one environment and is pickled by value where it must be."""
    if not hasattr(os, "memfd_create"):
        raise ConfigError(
            "backend='workers' needs Linux (memfd_create); backend='serial' runs everywhere"
        )
    taken = tolerance or Tolerance()
    plan = RowPlan(name, tuple(info_keys), ranges or {}, taken, is_told())
    settings = workers or Workers()
    return WorkersEnv(WorkerPool(factory, num_envs, plan=plan, settings=settings))


class WorkersEnv:
    """Python environments in worker processes behind the VecEnv contract.

    Worker w has a contiguous part of the rows and steps them as `serial` does. A send reaches a worker as one word in
    shared memory. After a fault that is raised, nothing goes on before the next `reset` or `restore`, which replace
    the processes that are gone.

    With `Workers(batch_rows=n)` a `send` of whole batches of n rows starts each of them, and `recv` hands over the
    first batch that is done, whichever it is: arrival decides the order, so results are not reproducible. All batches
    may be under way at once.
    """

    native_pool = None
    python_rows = None

    def __init__(self, pool: WorkerPool) -> None:
        """`pool`: closed with this object."""
        self.pool = pool
        self.spec = pool.spec
        self.num_rows = num_rows = pool.num_rows
        batch_rows = pool.settings.batch_rows
        if batch_rows == num_rows:
            batch_rows = 0
        self.capabilities = Capabilities(batch_rows=batch_rows)
        self._in_flight = InFlight(num_rows, batch_rows)
        self._batch_rows = batch_rows or num_rows
        self._action = ActionCheck(self.spec)
        self.out = pool.block.outputs(slice(0, num_rows))
        self.out.valid[:] = True
        for values in self.out.info.values():
            values[:] = np.nan
        self._last_seen = LastSeen(self.spec, num_rows)
        self._under_way = UnderWay(pool, self._last_seen, self.out)
        self._note_masks([self.spec.masked])

    @property
    def pids(self) -> list[int]:
        """The processes, in the order of their rows."""
        return [worker.pid for worker in self.pool.workers]

    @property
    def dropped(self) -> Bools:
        """Rows [B] whose worker failed and was dropped: they are invalid until the next `reset` or `restore`."""
        return self._last_seen.dropped

    def slowest(self) -> float | None:
        """How many times as long for a step as the one in the middle the slowest worker takes; see `Paces`."""
        return self.pool.paces.slowest()

    def reset(self, seed: int | Sequence[int]) -> None:
        """Starts every row anew."""
        seeds = row_seeds(seed, self.num_rows)
        self._renew()
        parts = {number: seeds[rows] for number, rows in enumerate(self.pool.rows)}
        self._note_masks(self._under_way.recovery.begin(Op.RESET, parts))
        self._begin(seeds, [0] * self.num_rows)

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
            self._action.copy(rows, action, take(self.pool.block.action, rows))
        except ValueError:
            self._in_flight.undo()
            raise
        self._under_way.post(rows, self._batch_rows)

    def recv(self) -> Ready:
        """Waits for the workers of the oldest send, or of the first batch that is done."""
        nth = 0
        if self._under_way:
            try:
                if self.capabilities.in_order:
                    nth = self._under_way.finish_oldest()
                else:
                    nth = self._under_way.finish_any()
            except BaseException:
                self._stop("a step failed halfway; call reset(seed) or restore(state)")
                raise
            self._under_way.take(nth)
        return self.out.view(self._in_flight.recv(nth))

    def state(self) -> dict[str, Any]:
        """The state of the same rows in `serial`, and what a restart would draw its seeds from.

        Rows that were dropped have none: `restore` cuts their episodes and begins new ones.
        """
        self._in_flight.quiet()
        last_seen = self._last_seen
        found = self._under_way.recovery.states()
        parts: list[dict[str, Any]] = []
        for number, rows in enumerate(self.pool.rows):
            if number in found:
                parts.append(found[number])
            else:
                parts.append(last_seen.state(self.spec, rows))
        state = join(parts)
        state["seeds"] = list(last_seen.seeds)
        state["restarts"] = list(last_seen.restarts)
        return state

    def restore(self, state: dict[str, Any]) -> list[str]:
        """Plays each row's episode again, each worker its own."""
        if len(state["starts"]) != self.num_rows:
            raise ConfigError(
                f"{self.spec.env_id}: the saved state holds {len(state['starts'])} rows, but this environment has "
                f"{self.num_rows} rows"
            )
        self._renew()
        own = dict(state)
        nothing = [0] * self.num_rows
        seeds, restarts = own.pop("seeds", nothing), own.pop("restarts", nothing)
        parts = {n: cut_up(own, rows) for n, rows in enumerate(self.pool.rows)}
        patience_s = self.pool.settings.step_timeout_s * (1 + int(max(own["lengths"])))
        made = self._under_way.recovery.begin(Op.RESTORE, parts, patience_s)
        self._note_masks([masked for masked, _ in made])
        self._begin(seeds, restarts)
        going_on = ~self.out.truncated
        self._last_seen.returns[:] = state["returns"] * going_on
        self._last_seen.lengths[:] = state["lengths"] * going_on
        sentences: list[str] = []
        for _, lost in made:
            sentences += lost
        return sentences

    def render(self, row: int) -> NDArray[np.uint8]:
        """ConfigError: no frames come from other processes."""
        raise ConfigError(
            f"{self.spec.env_id}: the workers backend does not render; use backend='serial'"
        )

    def close(self) -> None:
        """Ends the processes, in 4 s at most; an error of an environment's `close` is raised then."""
        self._stop("the environment is closed")
        self.pool.close()

    def _renew(self) -> None:
        if self.pool.closed:
            raise RuntimeError(f"{self.spec.env_id}: the environment is closed")
        self._stop()
        self.pool.renew()

    def _stop(self, why_not: str = CALL_RESET) -> None:
        self._in_flight.stop(why_not)
        self._under_way.clear()

    def _begin(self, seeds: Sequence[int], restarts: Sequence[int]) -> None:
        self._last_seen.begin(self.out, seeds, restarts)
        self._under_way.begin()
        self._in_flight.begin()

    def _note_masks(self, masked: list[bool]) -> None:
        """Whether actions are masked, as each worker found; infos may hold the masks, so only a reset tells."""
        for number, found in enumerate(masked):
            if found != masked[0]:
                has = "an" if found else "no"
                raise EnvError(
                    f"{self.spec.env_id}: {self.pool.workers[number]} gave {has} info['action_mask'], unlike row 0"
                )
        if masked[0] and self.out.action_mask is None:
            self.spec = replace(self.spec, masked=True)
            self.out.add_masks(self.pool.block.masks)
