"""Readings of a check: the update's numbers, and whose episodes ended."""

from __future__ import annotations

import json
import math
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from shoal.run.guard.answers import ANSWERS, EVALUATION
from shoal.run.guard.clock import SLOWEST, STALENESS
from shoal.run.guard.seen import Seen
from shoal.types import Episodes

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from shoal.learn.ranks import Ranks
    from shoal.run.guard.watch import Watch
    from shoal.run.loop import Stream
    from shoal.run.run import Run
    from shoal.run.settings import Settings
    from shoal.types import Floats


def numbers_of(
    taken: tuple[dict[str, float | torch.Tensor], dict[str, int]] | None,
    run: Run,
    greedy: float,
    beside: Mapping[str, float],
) -> dict[str, float]:
    """An update's means by metric, and what happens beside; tensors are read together.

    Args:
        taken: a learner's sums and counts.
        run: whose metrics, those of the line under way, are read.
        greedy: the mean return of the last evaluation; -inf before there was one.
        beside: what else is known.
    """
    found: dict[str, float] = {}
    if taken is not None:
        totals, counts = taken
        tensors = {name: x for name, x in totals.items() if torch.is_tensor(x)}
        if tensors:
            flat = [x.detach().float().reshape(()) for x in tensors.values()]
            read = torch.stack(flat).tolist()
            totals = totals | dict(zip(tensors, read, strict=True))
        found = {name: float(x) / counts[name] for name, x in totals.items()}
    found |= beside
    for name in (*STALENESS, *SLOWEST, ANSWERS):
        value = run.metrics.mean(name)
        if value is not None:
            found[name] = value
    if math.isfinite(greedy):
        found[EVALUATION] = greedy
    return _as_the_first(run.settings.ranks, found)


def _as_the_first(ranks: Ranks | None, numbers: dict[str, float]) -> dict[str, float]:
    """The numbers as the first rank has them, where it alone measures and evaluates: so that all decide the same."""
    if ranks is None or not ranks.led:
        return numbers
    own = b"" if ranks.rank else json.dumps(numbers).encode()
    return json.loads(ranks.gather_bytes(own)[0])


def note_rewards(watches: Mapping[str, Watch], stream: Stream, batch: Any) -> None:
    """Shows a batch's rewards to whom it was for: one agent of several, or all learners of the same steps."""
    agent: str = getattr(stream, "agent", "")
    for name in [agent] if agent in watches else watches:
        watches[name].reach.note(batch)


def seen_of(
    watch: Watch, numbers: Mapping[str, float], *, taken: int, skipped: int
) -> Seen:
    """What is known of one learner: its update's numbers, its gradient steps, and its episodes."""
    best, returns = watch.states.best, watch.returns
    return Seen(
        learner=watch.name,
        update=0,
        step=0,
        numbers=numbers,
        taken=taken,
        skipped=skipped,
        finite=watch.finite,
        mean_return=returns.mean,
        mean_length=returns.mean_length,
        first_return=returns.first,
        best_return=math.nan if best is None else best.figure,
        spread=math.nan if best is None else best.spread,
        episodes=returns.size,
        alike=returns.alike or 1,
        turned=returns.turned,
        held_out=returns.mean_held,
        pairs=returns.take_pairs(),
    )


def episodes_by_learner(
    parts: Sequence[Episodes], settings: Settings, learners: Sequence[str]
) -> Mapping[str, Episodes]:
    """The episodes of several batches by the learner whose rows they are; of several ranks those of all.

    Of several learners on the same rows all are the first one's. Of info values the held-out one is kept.
    """
    keys = (settings.held_out,) if settings.held_out else ()
    ended = _joined(parts, keys)
    if settings.ranks is not None:
        columns = [ended.returns, ended.lengths, *ended.info.values()]
        mine = np.stack([column.astype(np.float64) for column in columns])
        heard = settings.ranks.gather_bytes(mine.tobytes())
        all_of = [np.frombuffer(part).reshape(len(columns), -1) for part in heard]
        returns, lengths, *values = np.concatenate(all_of, axis=1)
        info = dict(zip(keys, values, strict=True))
        ended = Episodes(returns, lengths.astype(np.int64), info)
    if settings.learners == 1:
        return {learners[0]: ended}
    whose = np.array(settings.whose_rows)[ended.rows % len(settings.whose_rows)]
    found: dict[str, Episodes] = {}
    for name in learners:
        own = whose == name
        info = {key: values[own] for key, values in ended.info.items()}
        found[name] = Episodes(ended.returns[own], ended.lengths[own], info)
    return found


def _joined(parts: Sequence[Episodes], keys: Sequence[str]) -> Episodes:
    """Episodes of several batches, with these info values: NaN where they lack one."""
    if not parts:
        return Episodes.none(keys)
    info: dict[str, Floats] = {}
    for key in keys:
        missing = [x.info.get(key, np.full(len(x.returns), np.nan)) for x in parts]
        info[key] = np.concatenate(missing)
    return Episodes(
        np.concatenate([x.returns for x in parts]),
        np.concatenate([x.lengths for x in parts]),
        info,
        np.concatenate([x.rows for x in parts]),
    )
