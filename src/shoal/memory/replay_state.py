"""What a checkpoint keeps of a replay memory: chunks of each row's ring that no longer change, and the rest."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from shoal.memory.pieces import Pieces
from shoal.memory.replay_file import check_same, return_to
from shoal.types import ConfigError

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from numpy.typing import NDArray

    from shoal.memory.replay import ReplayMemory

CHUNK_BYTES = 1 << 20
"""About so many bytes of a row's records are one piece of a checkpoint."""
FEWEST, MOST = 16, 4096
"""Records of a chunk."""


def state_of(memory: ReplayMemory, *, first_row: int = 0) -> dict[str, Any]:
    """The counts of each row, the chunks that are full, and the records before and behind them.

    Of a memory in a file, the counts and the file's name: its records stay where they are. Rows before `first_row` are
    left out.
    """
    pieces: dict[str, NDArray[np.uint64]] = {}
    loose: list[NDArray[np.uint64]] = []
    heads = memory.heads[first_row:]
    held = spans(memory, heads, first_row) if memory.file is None else ()
    for row, first, last in held:
        if _is_chunk(memory, first, last):
            pieces[_name(row, first)] = records(memory, row, first, last)
        else:
            loose.append(records(memory, row, first, last))
    empty = np.zeros((0, memory.ring.shape[2]), np.uint64)
    return {
        "form": str(memory.form),
        "slots": memory.slots,
        "heads": heads,
        "file": None if memory.file is None else memory.file.name,
        "chunks": Pieces(pieces),
        "loose": np.concatenate([empty, *loose]),
    }


def restore_into(
    memory: ReplayMemory, state: Mapping[str, Any], *, first_row: int = 0
) -> None:
    """Makes the memory what it was; rows before `first_row`, which were left out, stay what they are.

    Raises:
        ConfigError: the state is another memory's, or damaged; the memory is as it was.
    """
    try:
        told = (state["form"], int(state["slots"]))
        heads = np.asarray(state["heads"], np.uint64)
        chunks: Mapping[str, Any] = state["chunks"].arrays
        loose = np.asarray(state["loose"], np.uint64)
        file = state.get("file")
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise _damaged(f"{type(error).__name__}: {error}") from error
    here = (str(memory.form), memory.slots)
    rows = memory.num_rows - first_row
    if told != here or heads.shape != (rows, memory.heads.shape[1]):
        raise ConfigError(
            f"the checkpoint holds a replay memory of {told[1]} records in each of {len(heads)} rows ({told[0]}), "
            f"this run's has {here[1]} in each of {rows} ({here[0]}); its settings must be the same"
        )
    check_same(memory.file, file)
    if file is not None:
        return_to(memory, heads)
        return
    placed = _placed(memory, heads, chunks, loose, first_row)
    memory.ring[first_row:] = 0
    memory.heads[first_row:] = heads
    for row, first, words in placed:
        index = np.arange(first, first + len(words)) % memory.slots
        memory.ring[row, index] = words


def spans(
    memory: ReplayMemory,
    heads: NDArray[np.uint64] | None = None,
    first_row: int = 0,
) -> Iterator[tuple[int, int, int]]:
    """Row, first record and the one behind the last, of all that the rings hold, cut where chunks begin.

    `heads`: those of the rows from `first_row` on.
    """
    size = chunk_size(memory)
    heads = memory.heads[first_row:] if heads is None else heads
    for row, head in enumerate(heads[:, 0].tolist(), first_row):
        first = max(0, head - memory.slots)
        while first < head:
            last = min(head, (first // size + 1) * size)
            yield row, first, last
            first = last


def chunk_size(memory: ReplayMemory) -> int:
    """Records of a chunk."""
    return min(MOST, max(FEWEST, CHUNK_BYTES // (8 * memory.ring.shape[2])))


def records(
    memory: ReplayMemory, row: int, first: int, last: int
) -> NDArray[np.uint64]:
    """The words of a row's records `first` to `last`: a view, or a copy where they go round the ring."""
    begin, end = first % memory.slots, (last - 1) % memory.slots + 1
    ring = memory.ring[row]
    if begin < end:
        return ring[begin:end]
    return np.concatenate([ring[begin:], ring[:end]])


def _placed(
    memory: ReplayMemory,
    heads: NDArray[np.uint64],
    chunks: Mapping[str, Any],
    loose: NDArray[np.uint64],
    first_row: int,
) -> list[tuple[int, int, NDArray[np.uint64]]]:
    """Row, first record and words of all that was saved; ConfigError where they are not the records of the heads."""
    placed: list[tuple[int, int, NDArray[np.uint64]]] = []
    used = 0
    for row, first, last in spans(memory, heads, first_row):
        words = loose[used : used + last - first]
        if _is_chunk(memory, first, last):
            if _name(row, first) not in chunks:
                raise _damaged(f"records {first} to {last} of row {row} are missing")
            words = np.asarray(chunks[_name(row, first)], np.uint64)
        else:
            used += last - first
        if words.shape != (last - first, memory.ring.shape[2]):
            raise _damaged(f"records {first} to {last} of row {row} are cut off")
        if (words[:, 0] != 2 * np.arange(first + 1, last + 1, dtype=np.uint64)).any():
            raise _damaged(f"records {first} to {last} of row {row} are other ones")
        placed.append((row, first, words))
    return placed


def _is_chunk(memory: ReplayMemory, first: int, last: int) -> bool:
    return first % chunk_size(memory) == 0 and last - first == chunk_size(memory)


def _name(row: int, first: int) -> str:
    return f"{row}-{first}"


def _damaged(what: str) -> ConfigError:
    return ConfigError(
        f"the checkpoint's replay memory is damaged: {what}; go on from an older checkpoint"
    )
