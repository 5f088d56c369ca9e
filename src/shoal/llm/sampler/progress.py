"""Answers under way as a few arrays, for checkpoints."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from shoal.llm.sampler.slots import Answer

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from numpy.typing import NDArray


@dataclass(frozen=True, slots=True)
class Progress:
    """One token of each of n answers, as a step drew them."""

    ENDED: ClassVar[int] = 1
    CUT: ClassVar[int] = 2

    key: NDArray[np.int64]
    """Whose tokens they are [n], with `number`."""
    number: NDArray[np.int64]
    token: NDArray[np.int64]
    logprob: NDArray[np.float32]
    version: int
    kept: NDArray[np.uint8] | None
    """[n, ceil(V / 8)]."""
    end: NDArray[np.uint8]
    """0 where the answer goes on, ENDED where it has ended, CUT where it was cut."""
    routing: NDArray[np.int16] | None = None
    """The experts that chose each [n, layers, experts_per_token], of a mixture of experts."""
    prefix: Mapping[int, NDArray[np.int16]] = field(default_factory=dict)
    """By its place among the n, of an answer that was read since the last step: the experts of what it began with."""


SIZES = ("key", "number", "prompt", "given")


def packed_answers(answers: Sequence[Answer]) -> dict[str, Any]:
    """Answers one behind the other: numbers [n] of each, and all their tokens, of which those drawn have the rest."""
    state: dict[str, Any] = {
        name: np.array([getattr(one, name) for one in answers], np.int64)
        for name in SIZES
    }
    state["length"] = np.array([len(one.token) for one in answers], np.int64)
    tokens = [np.array(one.token, np.int64) for one in answers]
    state["token"] = np.concatenate([np.zeros(0, np.int64), *tokens])
    nothing = np.zeros(0, np.float32), np.zeros(0, np.int64)
    state["logprob"] = np.concatenate([nothing[0], *(one.logprob for one in answers)])
    state["version"] = np.concatenate([nothing[1], *(one.version for one in answers)])
    kept = [one.kept for one in answers if one.kept is not None]
    state["kept"] = np.concatenate(kept) if kept else None
    routing = [one.routing for one in answers if one.routing is not None]
    if routing:
        state["routing"] = np.concatenate(routing)
    return state


def unpacked_answers(state: Mapping[str, Any]) -> list[Answer]:
    """What `packed_answers` was given."""
    answers: list[Answer] = []
    token, drawn = 0, 0
    for key, number, prompt, given, length in zip(
        *(np.asarray(state[name]).tolist() for name in (*SIZES, "length")), strict=True
    ):
        part = slice(drawn, drawn + length - given)
        kept, routing = state["kept"], state.get("routing")
        answers.append(
            Answer(
                key=key,
                number=number,
                token=tuple(
                    np.asarray(state["token"])[token : token + length].tolist()
                ),
                prompt=prompt,
                given=given,
                logprob=np.array(state["logprob"][part], np.float32),
                version=np.array(state["version"][part], np.int64),
                kept=None if kept is None else np.array(kept[part], np.uint8),
                routing=None if routing is None else np.array(routing[part], np.int16),
            )
        )
        token, drawn = token + length, part.stop
    return answers
