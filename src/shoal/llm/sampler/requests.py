"""What of a request can be answered."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from shoal.llm.sampler.slots import NUMBERS, Answer
from shoal.types import ConfigError

if TYPE_CHECKING:
    from shoal.llm.architecture import Architecture
    from shoal.llm.sampler.protocol import Drawing, Request


def answers_of(
    request: Request, drawing: Drawing, architecture: Architecture
) -> list[Answer]:
    """The answers that a request asks for.

    Raises:
        ConfigError: there is no room for an answer, a token is not one of the model's, or numbers do not work.
    """
    name = f"request {request.key}"
    _check_numbers(request, name)
    most = min(len(request.prompt) + drawing.max_tokens, architecture.max_length)
    kept = None
    if drawing.cuts:
        kept = np.zeros((0, -(-architecture.vocab_size // 8)), np.uint8)
    answers: list[Answer] = []
    for index, number in enumerate(request.numbers):
        begun = request.begun[index] if request.begun else ()
        token = *request.prompt, *begun
        _check_tokens(request, token, most, architecture)
        answers.append(
            Answer(
                key=request.key,
                number=number,
                token=token,
                prompt=len(request.prompt),
                given=len(token),
                logprob=np.zeros(0, np.float32),
                version=np.zeros(0, np.int64),
                kept=kept,
            )
        )
    return answers


def _check_numbers(request: Request, name: str) -> None:
    if not request.prompt:
        raise ConfigError(f"the prompt of {name} is empty")
    if not 0 <= request.key < 2**47:
        raise ConfigError(f"{name}: keys must lie between 0 and 2^47")
    numbers = request.numbers
    if len(set(numbers)) < len(numbers) or not all(0 <= n < NUMBERS for n in numbers):
        raise ConfigError(
            f"{name}: numbers of answers must differ and lie between 0 and {NUMBERS - 1}, got {numbers}"
        )
    if request.begun and len(request.begun) != len(numbers):
        raise ConfigError(
            f"{name} asks for {len(numbers)} answers and says how {len(request.begun)} begin; say it for all or none"
        )


def _check_tokens(
    request: Request, token: tuple[int, ...], most: int, architecture: Architecture
) -> None:
    if min(token) < 0 or max(token) >= architecture.vocab_size:
        raise ConfigError(
            f"request {request.key} has a token outside the model's {architecture.vocab_size}; the prompt was made by "
            "another tokenizer"
        )
    if len(token) < most:
        return
    prompt, begun = len(request.prompt), len(token) - len(request.prompt)
    if most == architecture.max_length:
        limit = f"the model reads {architecture.max_length} tokens at most"
        advice = "shorten the prompt, or take a model with a longer context"
    else:
        limit = f"an answer has {most - prompt} tokens at most, those included"
        advice = "raise max_tokens"
    raise ConfigError(
        f"request {request.key} leaves no room for an answer: its prompt has {prompt} tokens, its answer begins with "
        f"{begun}, and {limit}; {advice}"
    )
