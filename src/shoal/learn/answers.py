"""Gradient steps on answers of a language model: a batch in parts that fit into memory, whose gradients add up."""

from __future__ import annotations

from dataclasses import fields, replace
from typing import TYPE_CHECKING, Any, Literal, NamedTuple, Protocol

import torch

from shoal.learn.losses import returned
from shoal.math.token_weights import token_weights
from shoal.types import ConfigError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    import numpy as np
    from torch import Tensor, nn

    from shoal.learn.learner import Learner
    from shoal.learn.losses import Loss
    from shoal.learn.trainable import Trainable
    from shoal.types import Answers

POLICY, REFERENCE = "policy", "reference"
OF_PROMPTS = ("prompt", "prompt_length")
"""What `Answers` has for each prompt; all else is for each answer."""


class WeighsTokens(Protocol):
    """The settings of an algorithm that decide what a token counts."""

    @property
    def loss_normalization(self) -> Literal["sequence", "token", "constant"]:
        """What counts the same: answers, the batch's tokens, or tokens of whatever batch."""
        ...

    @property
    def max_completion_length(self) -> int:
        """Tokens of an answer at most."""
        ...

    @property
    def mask_truncated_completions(self) -> bool:
        """Whether answers that were cut teach nothing."""
        ...


def parts(batch: Answers, most_tokens: int) -> Iterator[Answers]:
    """The batch in parts of at most so many tokens (one answer at least), without the padding that none of them needs.

    A prompt counts once in a part, whatever number of answers to it there are. The loss of a batch is the sum of those
    of its parts: `weight` says what each token counts over the whole of it.
    """
    lengths = batch.length.tolist()
    of_prompt = batch.prompt_length.tolist()
    asked = batch.prompt_of.tolist()
    first, tokens = 0, 0
    for number, length in enumerate(lengths):
        again = number > first and asked[number] == asked[number - 1]
        more = length + (0 if again else of_prompt[asked[number]])
        if number > first and tokens + more > most_tokens:
            yield cut(batch, first, number)
            first, tokens = number, 0
            more = length + of_prompt[asked[number]]
        tokens += more
    yield cut(batch, first, len(lengths))


def cut(batch: Answers, first: int, last: int) -> Answers:
    """The answers from `first` up to `last`, and their prompts; padding that none of them needs is cut off."""
    if first == 0 and last == len(batch):
        return trimmed(batch)
    low = int(batch.prompt_of[first])
    high = int(batch.prompt_of[last - 1]) + 1
    changed: dict[str, Any] = {}
    for field in fields(batch):
        value: Tensor | None = getattr(batch, field.name)
        if value is not None:
            inside = (
                slice(low, high) if field.name in OF_PROMPTS else slice(first, last)
            )
            changed[field.name] = value[inside]
    changed["prompt_of"] = changed["prompt_of"] - low
    return trimmed(replace(batch, **changed))


def trimmed(batch: Answers) -> Answers:
    """The batch without columns that are padding in every row."""
    width = int(batch.prompt_length.max())
    length = max(1, int(batch.length.max()))
    changed: dict[str, Any] = {}
    for field in fields(batch):
        value: Tensor | None = getattr(batch, field.name)
        if field.name == "prompt":
            changed["prompt"] = batch.prompt[:, :width]
        elif value is not None and value.dim() > 1:
            changed[field.name] = value[:, :length]
    return replace(batch, **changed)


def answers_step(
    network: Trainable,
    loss: Loss,
    batch: Answers,
    cfg: Any,
    between: Callable[[], None],
) -> tuple[NamedTuple, float]:
    """One step of a language model on answers, part by part, whose losses and statistics add up; see `Learner.step`.

    `between` is called before each part.
    """
    network.rejoin()
    network.module.zero_grad(set_to_none=True)
    kind: type[Any] = tuple
    stats: list[Tensor] = []
    for part in parts(batch, network.micro_tokens):
        between()
        value, of_part = returned(loss, loss(network.module(part), part, cfg))
        value.backward()
        kind, stats = type(of_part), summed(stats, list(of_part))
    return kind(*stats), network.descent.step_reached()


def summed(before: list[Tensor], more: list[Tensor]) -> list[Tensor]:
    """Statistics of parts as those of the batch."""
    if not before:
        return [value.detach() for value in more]
    return [torch.add(a, b.detach()) for a, b in zip(before, more, strict=True)]


def logprobs_of(network: Trainable, batch: Answers) -> Tensor:
    """Log-probability of each token of answers by a language model as it is now [S, L], without gradients."""
    network.rejoin()
    module, found = network.module, torch.zeros_like(batch.logprob)
    first = 0
    with torch.no_grad():
        for part in parts(batch, network.micro_tokens):
            last = first + len(part)
            found[first:last, : part.mask.shape[1]] = module(part).logprob
            first = last
    return found


def base_logprobs_of(network: Trainable, batch: Answers) -> Tensor:
    """As `logprobs_of`, by the weights beneath a LoRA: no second copy of the model is needed."""
    module: Any = network.module
    with module.as_base():
        return logprobs_of(network, batch)


def add_reference(learner: Learner, make: Callable[[], nn.Module]) -> None:
    """Takes in a model that is never trained, as it is when training begins; beside a LoRA none is made."""
    if not _adapted(learner):
        learner.add(REFERENCE, make())


def with_reference(learner: Learner, batch: Answers) -> Answers:
    """The batch with log-probabilities by the model that training began with: the one beneath a LoRA, or a copy."""
    if _adapted(learner):
        found = base_logprobs_of(learner.networks[POLICY], batch)
    else:
        found = logprobs_of(learner.networks[REFERENCE], batch)
    return replace(batch, reference_logprob=found)


def with_proximal(learner: Learner, batch: Answers) -> Answers:
    """The batch with log-probabilities by the weights as they are before its first gradient step."""
    found = logprobs_of(learner.networks[POLICY], batch)
    return replace(batch, proximal_logprob=found)


def weighted(batch: Answers, cfg: WeighsTokens) -> Answers:
    """The batch of one gradient step with what each of its tokens counts in the loss and in statistics."""
    cut = batch.truncated if cfg.mask_truncated_completions else None
    weight = token_weights(
        batch.mask,
        normalize=cfg.loss_normalization,
        max_length=cfg.max_completion_length,
        truncated=cut,
    )
    share = token_weights(batch.mask, normalize="token")
    return replace(batch, weight=weight, share=share)


def _adapted(learner: Learner) -> bool:
    """Whether the policy is trained through a LoRA."""
    return bool(getattr(learner.policy, "part_trained", False))


def minibatches_of(
    batch: Answers, count: int, rng: np.random.Generator
) -> Iterator[Answers]:
    """The batch in so many parts of whole groups, in an order drawn anew; as it is where it is one part.

    Raises:
        ConfigError: there are fewer groups than parts.
    """
    if count == 1:
        yield batch
        return
    groups = len(batch.prompt)
    if groups < count:
        raise ConfigError(
            f"num_minibatches={count}, but a batch has {groups} groups, of which none is cut; set it to at most that"
        )
    order = torch.from_numpy(rng.permutation(groups)).to(batch.prompt.device)
    for chosen in order.tensor_split(count):
        yield of_groups(batch, chosen)


def of_groups(batch: Answers, groups: Tensor) -> Answers:
    """The answers to some prompts, in the order of these."""
    rows = [(batch.prompt_of == group).nonzero().squeeze(1) for group in groups]
    changed: dict[str, Any] = {}
    for field in fields(batch):
        value: Tensor | None = getattr(batch, field.name)
        if value is not None:
            changed[field.name] = value[
                groups if field.name in OF_PROMPTS else torch.cat(rows)
            ]
    numbers = torch.arange(len(groups), device=groups.device)
    counts = torch.tensor([len(row) for row in rows], device=groups.device)
    changed["prompt_of"] = numbers.repeat_interleave(counts)
    return replace(batch, **changed)
