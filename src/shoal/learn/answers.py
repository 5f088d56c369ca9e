"""Gradient steps on answers of a language model: a batch in parts that fit into memory, whose gradients add up."""

from __future__ import annotations

from contextlib import nullcontext
from dataclasses import fields, replace
from typing import TYPE_CHECKING, Any, Literal, NamedTuple, Protocol, cast

import torch

from shoal.learn.answer_parts import OF_PROMPTS, Part, parts_of_rank
from shoal.learn.losses import returned
from shoal.learn.trainable import is_sharded
from shoal.math.token_weights import token_weights
from shoal.types import ConfigError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from contextlib import AbstractContextManager

    import numpy as np
    from torch import Tensor, nn

    from shoal.learn.learner import Learner
    from shoal.learn.losses import Loss
    from shoal.learn.sharded import Sharded
    from shoal.learn.trainable import Trainable
    from shoal.types import Answers

POLICY, REFERENCE = "policy", "reference"


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


def answers_step(
    network: Trainable,
    loss: Loss,
    batch: Answers,
    cfg: Any,
    between: Callable[[], None],
) -> tuple[NamedTuple, float]:
    """One step of a language model on answers, part by part, whose losses and statistics add up; see `Learner.step`.

    Of several ranks, all of which have the batch, each computes the gradient of its share of the answers. `between` is
    called before each part.
    """
    network.rejoin()
    network.module.zero_grad(set_to_none=True)
    kind: type[Any] = tuple
    stats: list[Tensor] = []
    for _, part in own_parts(network, batch):
        between()
        with together(network):
            value, of_part = returned(loss, loss(network.module(part), part, cfg))
            value.backward()
        kind, stats = type(of_part), summed(stats, list(of_part))
    step = network.descent.step_reached
    return network.sharing.around_sum(step, kind(*stats))


def own_parts(network: Trainable, batch: Answers) -> Iterator[Part]:
    """The parts of a batch that this process computes, as large as fits: of several ranks its share."""
    ranks = network.sharing.ranks
    rank, size = (0, 1) if ranks is None else (ranks.rank, ranks.size)
    for part in parts_of_rank(
        batch, network.micro_tokens, rank=rank, size=size, alike=is_sharded(network)
    ):
        if ranks is not None:
            ranks.goes_on()
        yield part


def together(network: Trainable) -> AbstractContextManager[None]:
    """Around what a network computes; of one that lies in parts all ranks take part."""
    if is_sharded(network):
        return cast("Sharded", network).together()
    return nullcontext()


def summed(before: list[Tensor], more: list[Tensor]) -> list[Tensor]:
    """Statistics of parts as those of the batch."""
    if not before:
        return [value.detach() for value in more]
    return [torch.add(a, b.detach()) for a, b in zip(before, more, strict=True)]


def logprobs_of(network: Trainable, batch: Answers) -> Tensor:
    """Log-probability of each token of answers by a language model as it is now [S, L], without gradients."""
    network.rejoin()
    module, found = network.module, torch.zeros_like(batch.logprob)
    with torch.no_grad():
        for first, part in own_parts(network, batch):
            with together(network):
                logprob = module(part).logprob
            if first >= 0:
                found[first : first + len(part), : part.mask.shape[1]] = logprob
    if network.sharing.ranks is not None:
        network.sharing.ranks.sum(found)
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
