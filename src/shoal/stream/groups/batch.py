"""A batch of groups as tensors, padded on the right."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from shoal.llm.feed_forward import NOT_KNOWN
from shoal.types import Answers

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from shoal.llm.sampler.protocol import Drawn
    from shoal.stream.groups.flight import Group


def answers_of(groups: Sequence[Group], device: torch.device) -> Answers:
    """All answers of some groups that have a reward; groups in the order given, answers in that of their numbers."""
    chosen = [
        (number, one, reward)
        for number, group in enumerate(groups)
        for one, reward in group.scored
    ]
    drawn = [one for _, one, _ in chosen]
    kept = None
    if drawn[0].kept is not None:
        kept = tensor(padded([one.kept for one in drawn], np.uint8), device)
    routing, of_prompts = _routings(groups, drawn)
    return Answers(
        prompt=tensor(padded([group.token for group in groups], np.int64), device),
        prompt_length=tensor(np.array([len(g.token) for g in groups]), device),
        prompt_of=tensor(np.array([number for number, _, _ in chosen]), device),
        token=tensor(padded([one.token for one in drawn], np.int64), device),
        mask=tensor(padded([one.chosen for one in drawn], np.bool_), device),
        logprob=tensor(padded([one.logprob for one in drawn], np.float32), device),
        version=tensor(padded([one.version for one in drawn], np.int64), device),
        reward=tensor(np.array([r for _, _, r in chosen], np.float32), device),
        truncated=tensor(np.array([one.truncated for one in drawn]), device),
        kept=kept,
        routing=None if routing is None else tensor(routing, device),
        prompt_routing=None if of_prompts is None else tensor(of_prompts, device),
    )


def _routings(
    groups: Sequence[Group], drawn: Sequence[Drawn]
) -> tuple[NDArray[np.int16] | None, NDArray[np.int16] | None]:
    """The experts of the answers' tokens [S, L, ...] and of the prompts' [P, K, ...]; None where nobody said.

    Of a prompt they are those of its first answer: all of a group read it together, but for new weights between.
    """
    known = [one.routing for one in drawn if one.routing is not None]
    if len(known) < len(drawn):
        return None, None
    longest = max(len(one.token) for one in drawn)
    routing = np.full((len(drawn), longest, *known[0].shape[1:]), NOT_KNOWN, np.int16)
    for row, own in zip(routing, known, strict=True):
        row[: len(own)] = own
    width = max(len(group.token) for group in groups)
    shape = len(groups), width, *known[0].shape[1:]
    of_prompts = np.full(shape, NOT_KNOWN, np.int16)
    for row, group in zip(of_prompts, groups, strict=True):
        for one, _ in group.scored:
            if one.prefix is not None:
                own = one.prefix[: len(group.token) - 1]
                row[: len(own)] = own
                break
    return routing, of_prompts


def padded(rows: Sequence[Any], dtype: Any) -> NDArray[Any]:
    """Rows of unlike lengths as one array [rows, longest, ...], filled up with zeros."""
    arrays = [np.asarray(row, dtype) for row in rows]
    longest = max(len(array) for array in arrays)
    whole = np.zeros((len(arrays), longest, *arrays[0].shape[1:]), dtype)
    for row, array in zip(whole, arrays, strict=True):
        row[: len(array)] = array
    return whole


def tensor(array: NDArray[Any], device: torch.device) -> torch.Tensor:
    """The array on the device."""
    return torch.from_numpy(array).to(device)
