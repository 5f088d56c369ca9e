"""Learning together: what the loops of several ranks agree on, so that they go on alike and end alike."""

from __future__ import annotations

import hashlib
import json
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from shoal.learn.trainable import is_sharded
from shoal.remote import states
from shoal.run.interrupts import INTERRUPTED
from shoal.run.trees import Arrays, decode, encode
from shoal.run.writer import Writer
from shoal.types import ConfigError

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from shoal.learn.learner import Learner
    from shoal.learn.ranks import Ranks
    from shoal.run.run import Run

GO_ON, STOP, INTERRUPT = range(3)
"""What a rank wants to follow an update."""
MOST_BYTES = 8 << 30
"""Of a rank's part of a checkpoint."""
PART = "ranks"
"""The part of a checkpoint that holds what ranks have besides the first one's."""
DRIFTED = (
    "their weights or statistics are not the same any more. Gradients are the mean over all learners, so something "
    "else changed them: a layer that keeps statistics of what it sees, such as BatchNorm, or code of an algorithm that "
    "sets weights by what one process saw; take it out, or set learners=1"
)


class Reader(Writer):
    """The checkpoints of a run, as the ranks see them that do not write them."""

    def save(self, parts: Mapping[str, object], **told: object) -> None:
        """Nothing: the first rank has what is to be saved."""

    def write_best(self, parts: Mapping[str, object]) -> bool:
        """Nothing, likewise."""
        return False


def begin_alike(ranks: Ranks, learners: Mapping[str, Learner]) -> None:
    """Gives all ranks the first one's weights and statistics; ConfigError where they are other networks."""
    _check_equal(ranks, _shape(learners), "they have networks of different shapes")
    for tensor in _tensors(learners):
        ranks.take_over(tensor)
    check_alike(ranks, learners)


def check_alike(ranks: Ranks, learners: Mapping[str, Learner]) -> None:
    """ConfigError unless weights, statistics and moments are the same on all ranks, bit for bit."""
    _check_equal(ranks, digest(learners), DRIFTED)


def agreed(run: Run, ranks: Ranks, *, late: bool) -> bool:
    """Stops the run where one rank is to; whether a checkpoint follows the next update, as the first rank says."""
    wanted = GO_ON
    if run.stop_reason:
        wanted = INTERRUPT if run.interrupted_by else STOP
    said = ranks.gather(np.array([wanted, late], np.int64))
    for rank, what in enumerate(said[:, 0].tolist()):
        if what == INTERRUPT:
            run.interrupted_by = run.interrupted_by or f"a signal to learner {rank}"
            run.stop_reason = run.stop_reason or INTERRUPTED
        if what != GO_ON:
            run.stop(f"learner {rank} stopped")
    return bool(said[0, 1])


def note_exchange(run: Run) -> None:
    """Adds the share of the time that went into what ranks exchange to the line under way, if there are several."""
    ranks, elapsed_s = run.settings.ranks, run.meter.elapsed()
    if ranks is not None and elapsed_s > 0:
        run.meter.note("speed/exchange", min(1.0, ranks.waited_s / elapsed_s))


def with_parts(
    ranks: Ranks, learners: Mapping[str, Learner], parts: dict[str, Any]
) -> dict[str, Any]:
    """What a checkpoint holds, with the streams and random generators of the other ranks; all take part.

    Where the first rank leads, the others have nothing of their own: any number of them can go on.
    """
    check_alike(ranks, learners)
    if ranks.led:
        return parts
    own = {name: parts[name] for name in ("stream", "other")}
    own["rng"] = parts["run"]["rng"]
    data = b"" if ranks.rank == 0 else _packed(own)
    _, *others = ranks.gather_bytes(data)
    if ranks.rank:
        return parts
    numbered = enumerate(others, start=1)
    return parts | {PART: {str(rank): _unpacked(part) for rank, part in numbered}}


def part_of(ranks: Ranks | None, tree: Mapping[str, Any]) -> dict[str, Any]:
    """What a rank goes on from: its stream, its random generator and the algorithm's parts."""
    if ranks is None or ranks.rank == 0 or ranks.led:
        return {
            "stream": tree["stream"],
            "other": tree["other"],
            "rng": tree["run"]["rng"],
        }
    return tree[PART][str(ranks.rank)]


def digest(learners: Mapping[str, Learner]) -> bytes:
    """The sha256 of all networks' weights, statistics and moments."""
    found = hashlib.sha256()
    for tensor in (*_tensors(learners), *_moments(learners)):
        plain = tensor.detach().cpu().contiguous()
        found.update(plain.reshape(-1).view(torch.uint8).numpy().tobytes())
    return found.digest()


def _tensors(learners: Mapping[str, Learner]) -> Iterator[torch.Tensor]:
    for learner in learners.values():
        for network in learner.networks.values():
            if not is_sharded(network):  # of those each rank has another part
                yield from network.module.state_dict().values()


def _moments(learners: Mapping[str, Learner]) -> Iterator[torch.Tensor]:
    for learner in learners.values():
        for network in learner.networks.values():
            if network.optimizer is None or is_sharded(network):
                continue
            for state in network.optimizer.state.values():
                yield from (x for x in state.values() if torch.is_tensor(x))


def _shape(learners: Mapping[str, Learner]) -> bytes:
    shapes = [(str(x.dtype), list(x.shape)) for x in _tensors(learners)]
    return hashlib.sha256(json.dumps(shapes).encode()).digest()


def _check_equal(ranks: Ranks, own: bytes, otherwise: str) -> None:
    first, *others = ranks.gather_bytes(own)
    for rank, other in enumerate(others, start=1):
        if other != first:
            raise ConfigError(f"learners 0 and {rank} have drifted apart: {otherwise}")


def _packed(part: dict[str, Any]) -> bytes:
    arrays = Arrays()
    tree = encode(part, PART, arrays)
    whole = {
        "tree": json.dumps(tree),
        "held": arrays.held,
        "pieces": arrays.pieces,
    }
    return states.pack(whole, MOST_BYTES)


def _unpacked(data: bytes) -> Any:
    whole = states.unpack(data)
    return decode(json.loads(whole["tree"]), whole["held"], whole["pieces"])
