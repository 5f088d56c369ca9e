"""Ranks: processes that learn together on parts of one batch, and what they exchange."""

from __future__ import annotations

import datetime
import time
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Protocol, TypeVar

import numpy as np
import torch
from torch import distributed

from shoal.learn.shard_group import begin_shards, end_shards, is_of_connection
from shoal.types import EnvError, map_tree

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Sequence

    from numpy.typing import NDArray
    from torch import Tensor

    from shoal.types import Tree

T = TypeVar("T")
LOOK_S = 0.5
"""While one rank waits for the others, it looks after them once in so many seconds."""
EVER = datetime.timedelta(days=365)
"""How long the connections themselves wait: who looks after the ranks ends a wait, not a clock."""
TIMED_OUT = "Operation timed out!"
"""What torch says where a wait is over and what is waited for is not."""
LETTER, SIZE = 4096, 8
"""Bytes that each rank says at once, and of the number in front that tells how many there are."""
SPIN_S = 2e-5
"""Between two looks at the work of a GPU."""
LOOPBACK = "127.0.0.1"


class LostError(RuntimeError):
    """The connection to another rank broke."""


class Watches(Protocol):
    """Who looks after the ranks while one of them waits."""

    def waits(self, *, begun: bool) -> None:
        """This rank begins to wait for others, or is done."""
        ...

    def count(self) -> None:
        """This rank has done something."""
        ...

    def look(self) -> None:
        """The wait has lasted for LOOK_S more; raises where a rank is gone, or nothing goes on in it."""
        ...

    def lost(self, error: Exception) -> None:
        """A connection broke; raises what is known of the rank that was at fault."""
        ...


class Trusting:
    """Waits for as long as it takes."""

    def waits(self, *, begun: bool) -> None:
        """Nobody needs to know."""

    def count(self) -> None:
        """Nobody asks."""

    def look(self) -> None:
        """All is well."""

    def lost(self, error: Exception) -> None:
        """Nothing is known."""
        raise LostError(f"the connection between learners broke: {error}") from error


class Ranks:
    """This process among those that learn together, over gloo on the CPU and NCCL between GPUs.

    Whatever all of them call, they must call in one order. What they get is equal on all of them, bit for bit.
    """

    def __init__(
        self,
        store: Any,
        rank: int,
        size: int,
        *,
        device: torch.device | None = None,
        watch: Watches | None = None,
        within_s: float = 60.0,
        shards_within_s: float = 0.0,
    ) -> None:
        """Connects with the others, which do so too.

        Args:
            store: of torch.distributed, shared by all.
            rank: this process's number, from 0.
            size: how many there are.
            device: where gradients lie; those of a CUDA device go over NCCL.
            watch: who looks after the ranks.
            within_s: for how long the others may keep it waiting.
            shards_within_s: as long, while models are computed that lie in parts on all ranks; 0: there are none.

        Raises:
            RuntimeError: they did not come in time.
            ConfigError: models are to lie in parts, and this process has a group of torch's already.
        """
        self.rank, self.size = rank, size
        self.led = False
        """Whether the first rank gives all of them their batches: then they all see the same ones, as one would."""
        self.waited_s = 0.0
        """Seconds in which this rank exchanged something, or waited for others to."""
        self.meanwhile: Callable[[], float] = _nothing
        """Called now and then while it waits; returns the seconds that it took, which are no wait for others."""
        self._watch = watch or Trusting()
        self._group: Any = _gloo_group(store, rank, size, within_s)
        self._gpus: Any = None
        if device is not None and device.type == "cuda":
            self._gpus = _nccl_group(store, rank, size)
            self.sum(torch.zeros(1, device=device))  # connects: the store may go then
        self._shards = shards_within_s > 0
        if self._shards:
            begin_shards(store, rank, size, device, shards_within_s)

    def mean(self, numbers: Tensor, weight: float) -> float:
        """Replaces numbers [n], in place, by their mean over all ranks, each weighing as it says; the sum of weights.

        A rank whose weight is 0 adds nothing, whatever its numbers are.
        """
        buffer = torch.empty(
            len(numbers) + 1, dtype=torch.float32, device=numbers.device
        )
        if weight:
            torch.mul(numbers, weight, out=buffer[:-1])
            buffer[-1] = weight
        else:
            buffer.zero_()
        self._wait(lambda: self._begin_sum(buffer))
        torch.div(buffer[:-1], buffer[-1], out=numbers)
        return float(buffer[-1])

    def sum(self, numbers: Tensor) -> None:
        """Replaces numbers [...], in place, by their sum over all ranks."""
        whole = numbers.detach().contiguous()
        self._wait(lambda: self._begin_sum(whole))
        if whole.data_ptr() != numbers.data_ptr():
            numbers.detach().copy_(whole)

    def goes_on(self) -> None:
        """Shows whoever looks after the ranks that this one works, in the middle of something long."""
        self._watch.count()

    def largest(self, numbers: Sequence[int]) -> list[int]:
        """The largest of each of some whole numbers over all ranks."""
        return self.gather(np.array(numbers, np.int64)).max(axis=0).tolist()

    def gather(self, array: NDArray[Any]) -> NDArray[Any]:
        """The arrays [...] of all ranks, of one shape and dtype, as [rank, ...]."""
        mine = np.array(array, order="C", copy=None)  # which keeps a number's shape []
        found = np.empty((self.size, *mine.shape), mine.dtype)
        if not mine.size:
            return found
        flat = found.reshape(self.size, -1).view(np.uint8)
        parts = [torch.from_numpy(part) for part in flat]
        own = torch.from_numpy(mine.reshape(-1).view(np.uint8))
        self._wait(lambda: self._group.allgather([parts], [own]))
        return found

    def gather_bytes(self, data: bytes) -> list[bytes]:
        """What each rank has to say, be it of different lengths."""
        sized = len(data).to_bytes(SIZE, "little") + data
        heard = [part.tobytes() for part in self.gather(_padded(sized, LETTER))]
        sizes = [int.from_bytes(part[:SIZE], "little") for part in heard]
        longest = SIZE + max(sizes)
        if longest > LETTER:  # what is left of the longer ones
            rest = self.gather(_padded(sized[LETTER:], longest - LETTER))
            pairs = zip(heard, rest, strict=True)
            heard = [first + part.tobytes() for first, part in pairs]
        pairs = zip(heard, sizes, strict=True)
        return [part[SIZE : SIZE + size] for part, size in pairs]

    def rows(self, x: Tree) -> Tree:
        """Tensors [T, b, ...] of each rank's rows as [T, B, ...] of all rows, in their order."""
        return map_tree(self._rows, x)

    def columns(self, x: NDArray[Any]) -> NDArray[Any]:
        """An array [T, b, ...] of each rank's rows as [T, B, ...] of all rows, in their order."""
        return np.concatenate(list(self.gather(x)), axis=1)

    def take_over(self, tensor: Tensor) -> None:
        """Gives a tensor, in place, the values that it has on rank 0."""
        if not tensor.numel():
            return
        shared = tensor.detach().cpu().contiguous()
        torch_own: Any = distributed
        options = torch_own.BroadcastOptions()
        options.rootRank = 0
        plain = shared.reshape(-1).view(torch.uint8)
        self._wait(lambda: self._group.broadcast([plain], options))
        with torch.no_grad():
            tensor.copy_(shared)

    @contextmanager
    def watched(self) -> Generator[None]:
        """Around what ranks exchange by other means: a connection that breaks is told as one of its own."""
        try:
            yield
        except EnvError:
            raise
        except RuntimeError as error:
            if not is_of_connection(error):
                raise
            self._watch.lost(error)
            raise

    def close(self) -> None:
        """Forgets the connections, which end with that."""
        self._group = self._gpus = None
        if self._shards:
            self._shards = False
            end_shards()

    def _begin_sum(self, buffer: Tensor) -> Any:
        if buffer.device.type == "cpu":
            return self._group.allreduce([buffer])
        return _OnDevice(self._gpus.allreduce([buffer]))

    def _rows(self, x: Tensor) -> Tensor:
        joined = self.columns(x.detach().cpu().numpy())
        return torch.from_numpy(joined).to(x.device)

    def _wait(self, begin: Callable[[], Any]) -> None:
        """Begins what all ranks take part in, and waits until it is over."""
        begun_s, other_s = time.perf_counter(), 0.0
        self._watch.waits(begun=True)
        try:
            work = begin()
            while not _is_over(work):
                other_s += self.meanwhile()
                self._watch.look()
        except EnvError:  # of whoever looks after the ranks
            raise
        except RuntimeError as error:  # torch's, of a connection
            self._watch.lost(error)
            raise
        finally:
            self._watch.waits(begun=False)
            self.waited_s += time.perf_counter() - begun_s - other_s


def made_in_turn(ranks: Ranks | None, make: Callable[[], T]) -> T:
    """What `make` makes on each rank; on rank 0 first, as others may find then what it fetched or computed."""
    if ranks is None:
        return make()
    if ranks.rank:
        ranks.largest([0])
        return make()
    made = make()
    ranks.largest([0])
    return made


def _nothing() -> float:
    return 0.0


def _padded(data: bytes, size: int) -> NDArray[np.uint8]:
    """The first `size` bytes, zeros where there are fewer."""
    return np.frombuffer(bytearray(data[:size].ljust(size, b"\0")), np.uint8)


def _is_over(work: Any) -> bool:
    """Whether it is, after LOOK_S at most; RuntimeError where a connection broke."""
    try:
        work.wait(datetime.timedelta(seconds=LOOK_S))
    except RuntimeError as error:
        if TIMED_OUT not in str(error):
            raise
        return False
    return True


class _OnDevice:
    """Work of GPUs, whose own wait returns before it is done."""

    def __init__(self, work: Any) -> None:
        self._work = work
        self.is_completed = work.is_completed

    def wait(self, limit: datetime.timedelta) -> None:
        """Until it is done; RuntimeError as torch's own where it is not within the limit."""
        end = time.monotonic() + limit.total_seconds()
        while not self.is_completed():
            if time.monotonic() > end:
                raise RuntimeError(TIMED_OUT)
            time.sleep(SPIN_S)
        self._work.wait()


def _gloo_group(store: Any, rank: int, size: int, within_s: float) -> Any:
    """Connections over the loopback interface, of this group alone: torch's default group is left to users."""
    torch_own: Any = distributed
    kind = torch_own.ProcessGroupGloo
    options = kind._Options()
    options._devices = [kind.create_device(hostname=LOOPBACK)]
    options._timeout = datetime.timedelta(seconds=within_s)
    group = kind(store, rank, size, options)
    group.set_timeout(EVER)
    return group


def _nccl_group(store: Any, rank: int, size: int) -> Any:
    """As `_gloo_group`, between GPUs; a torch for the CPU alone has none."""
    torch_own: Any = distributed
    kind = torch_own.ProcessGroupNCCL
    apart = torch_own.PrefixStore("gpus", store)
    return kind(apart, rank, size, kind.Options())
