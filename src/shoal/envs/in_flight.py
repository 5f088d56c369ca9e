"""Rows in flight: the sends that wait to be received, and the mistakes in their order."""

from __future__ import annotations

CALL_RESET = "call reset(seed) and recv() first"
HALFWAY = "a step failed halfway; call reset(seed) or restore(state)"


class InFlight:
    """The sends that wait to be received, oldest first, and the mistakes in their order."""

    def __init__(self, num_rows: int, batch_rows: int = 0) -> None:
        """`num_rows`: rows of the whole environment; `batch_rows`: rows that each `recv` hands over, in any order."""
        self.num_rows = num_rows
        self.batch_rows = batch_rows
        self.started = False
        self._under_way: list[slice] = []
        self._sent: list[slice] = []
        self._fresh = False
        self._why_not = CALL_RESET

    @property
    def fresh(self) -> bool:
        """Whether all rows have begun and nobody has received them yet."""
        return self._fresh

    def begin(self) -> None:
        """All rows are ready: after a reset or a restore."""
        self._under_way.clear()
        self._fresh = self.started = True

    def stop(self, why_not: str = CALL_RESET) -> None:
        """Nothing goes on before the next `begin`; `why_not` says why, and what to do."""
        self._under_way.clear()
        self._fresh = self.started = False
        self._why_not = why_not

    def send(self, rows: slice) -> slice:
        """Notes that `rows` are under way; returns them as a plain range."""
        first, last, step = rows.indices(self.num_rows)
        if not self.started:
            raise RuntimeError(f"send before reset: {self._why_not}")
        if self._fresh:
            raise RuntimeError(
                "send before recv: receive the first observations after reset first"
            )
        if step != 1 or last <= first:
            raise ValueError(
                f"rows must be a contiguous, non-empty slice of {self.num_rows} rows, got {rows}"
            )
        size = self.batch_rows or last - first
        if self.batch_rows and (first % size or last % size):
            raise ValueError(
                f"rows must be whole batches of batch_rows={size}, got {first}..{last - 1}"
            )
        if self._under_way:
            self._check_apart(first, last)
        whole = slice(first, last)
        if size == last - first:
            self._sent = [whole]
        else:
            self._sent = [slice(at, at + size) for at in range(first, last, size)]
        self._under_way += self._sent
        return whole

    def recv(self, nth: int = 0) -> slice:
        """The rows to hand over next: those of the oldest send, or of the nth oldest."""
        if not self.started:
            raise RuntimeError(f"recv before reset: {self._why_not}")
        if self._fresh:
            self._fresh = False
            return slice(0, self.num_rows)
        if not self._under_way:
            raise RuntimeError(
                "recv with no rows under way: call send(rows, action) first"
            )
        return self._under_way.pop(nth)

    def undo(self) -> None:
        """Takes the last send back, whose action was refused."""
        del self._under_way[-len(self._sent) :]

    def quiet(self) -> None:
        """Raises unless every row has a state and none is under way."""
        if not self.started:
            raise RuntimeError(f"state before reset: {self._why_not}")
        if self._under_way:
            raise RuntimeError(
                f"{self._named()} are under way: receive them before state()"
            )

    def _check_apart(self, first: int, last: int) -> None:
        """RuntimeError where some of the rows are under way already, or as many sends as there may be."""
        full = not self.batch_rows and len(self._under_way) == 2
        if full or any(s.start < last and first < s.stop for s in self._under_way):
            raise RuntimeError(
                f"rows {first}..{last - 1} were sent before {self._named()} were received"
            )

    def _named(self) -> str:
        ranges = [f"{rows.start}..{rows.stop - 1}" for rows in self._under_way]
        return "rows " + " and ".join(ranges)
