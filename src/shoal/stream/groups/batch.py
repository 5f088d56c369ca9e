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
    """All answers of some groups that have a reward; groups in the order given, answers in that of their numbers.

    Of a game every player that learns has a prompt of its own, to which its part in each game is an answer.
    """
    told: list[tuple[int, ...]] = []
    chosen: list[tuple[int, int, Drawn, float]] = []
    for group in groups:
        for player in group.learners:
            pairs = group.of_player(player)
            place = len(told)
            told += [group.told(number) for number, _ in pairs[:1]]
            chosen += [(place, player, group.drawn[n], reward) for n, reward in pairs]
    drawn = [one for _, _, one, _ in chosen]
    kept = None
    if drawn[0].kept is not None:
        kept = tensor(padded([one.kept for one in drawn], np.uint8), device)
    players = None
    if any(group.num_players > 1 for group in groups):
        players = tensor(np.array([player for _, player, _, _ in chosen]), device)
    routing, of_prompts = _routings(told, [(place, one) for place, _, one, _ in chosen])
    return Answers(
        prompt=tensor(padded(told, np.int64), device),
        prompt_length=tensor(np.array([len(token) for token in told]), device),
        prompt_of=tensor(np.array([place for place, _, _, _ in chosen]), device),
        token=tensor(padded([one.token for one in drawn], np.int64), device),
        mask=tensor(padded([one.chosen for one in drawn], np.bool_), device),
        logprob=tensor(padded([one.logprob for one in drawn], np.float32), device),
        version=tensor(padded([one.version for one in drawn], np.int64), device),
        reward=tensor(np.array([x for _, _, _, x in chosen], np.float32), device),
        truncated=tensor(np.array([one.truncated for one in drawn]), device),
        kept=kept,
        player=players,
        routing=None if routing is None else tensor(routing, device),
        prompt_routing=None if of_prompts is None else tensor(of_prompts, device),
    )


def _routings(
    told: Sequence[tuple[int, ...]], chosen: Sequence[tuple[int, Drawn]]
) -> tuple[NDArray[np.int16] | None, NDArray[np.int16] | None]:
    """The experts of the answers' tokens [S, L, ...] and of the prompts' [P, K, ...]; None where nobody said.

    Of a prompt they are those of its first answer: all of a group read it together, but for new weights between.
    """
    known = [one.routing for _, one in chosen if one.routing is not None]
    if len(known) < len(chosen):
        return None, None
    longest = max(len(one.token) for _, one in chosen)
    routing = np.full((len(chosen), longest, *known[0].shape[1:]), NOT_KNOWN, np.int16)
    for row, own in zip(routing, known, strict=True):
        row[: len(own)] = own
    width = max(len(prompt) for prompt in told)
    shape = len(told), width, *known[0].shape[1:]
    of_prompts = np.full(shape, NOT_KNOWN, np.int16)
    found = set[int]()
    for place, one in chosen:
        if one.prefix is not None and place not in found:
            found.add(place)
            own = one.prefix[: len(told[place]) - 1]
            of_prompts[place, : len(own)] = own
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
