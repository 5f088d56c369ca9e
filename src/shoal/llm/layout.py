"""The layout of a batch of answers as one row of tokens: each beginning once, prompts first; and who sees whom."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

import torch
from torch.nn import functional as F

from shoal.llm.feed_forward import NOT_KNOWN

if TYPE_CHECKING:
    from torch import Tensor

    from shoal.types import Answers

PADDING = -1
"""No token."""


@dataclass(frozen=True, slots=True)
class Laid:
    """N tokens side by side without padding, prompts before answers.

    What answers to a prompt have said alike so far stands there once, and not at all what no other token follows: the
    last one of each. U answers differ in the rest. Layers that treat each token alone run on [N, ...]. For attention,
    rows are gathered: a prompt's tokens see those before them, an answer's also the prompt's, whose keys and values all
    answers of its group share.
    """

    token: Tensor
    """[N], int64."""
    position: Tensor
    """[N], int64: a prompt begins at 0, its answers where it ends."""
    source: Tensor
    """[M]: of each token that is learned, the one before it, whose hidden state predicts it."""
    target: Tensor
    """[M]: the tokens that are learned."""
    place: Tensor
    """[M]: where they stand among the [S * L] of the batch."""
    kept: Tensor | None
    """Bits of what could be drawn [M, ceil(V / 8)]."""
    prompt_rows: Tensor
    """[P, K]: where the tokens of each prompt stand among the N; padding points to the first."""
    prompt_valid: Tensor
    """[P, K], bool."""
    prompt_of: Tensor
    """[U]."""
    answer_rows: Tensor
    """[U, R]: where those of each answer stand, R = max(1, L - 1)."""
    answer_first: Tensor
    """Which of them the answers before it do not have [U, R], bool."""
    prompt_at: Tensor
    """Where tokens stand among the [P * K] of prompts, and those among the [U * R] of answers: found once, not in each
    layer, since a GPU is waited for."""
    answer_at: Tensor
    seen: Tensor
    """[U, 1, R, K + R], bool: which keys a token of an answer sees."""
    routing: Tensor | None = None
    """The experts that each token went to, by layer [N, layers, experts_per_token], int16; NOT_KNOWN where that is not
    known; None where nothing is."""

    def attend(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        """softmax(q k / sqrt(d)) v over what each token sees: [N, heads, d] and [N, kv_heads, d] to [N, heads * d]."""
        grouped = q.shape[1] != k.shape[1]
        rows = self.prompt_rows
        own = F.scaled_dot_product_attention(
            _heads_of(q, rows),
            _heads_of(k, rows),
            _heads_of(v, rows),
            is_causal=True,
            enable_gqa=grouped,
        )
        of_prompts = own.transpose(1, 2).flatten(0, 1).index_select(0, self.prompt_at)
        rows = self.answer_rows
        everything = torch.cat([self.prompt_rows[self.prompt_of], rows], dim=1)
        seen = F.scaled_dot_product_attention(
            _heads_of(q, rows),
            _heads_of(k, everything),
            _heads_of(v, everything),
            attn_mask=self.seen,
            enable_gqa=grouped,
        )
        of_answers = seen.transpose(1, 2).flatten(0, 1).index_select(0, self.answer_at)
        return torch.cat([of_prompts, of_answers]).flatten(1)

    def spread(self, values: Tensor, shape: tuple[int, ...]) -> Tensor:
        """Values [M] of the learned tokens as [S, L], 0 elsewhere."""
        whole = values.new_zeros(shape[0] * shape[1])
        # A copy: what FSDP hangs on a module's output is lost where that is a view.
        return whole.index_copy(0, self.place, values).view(shape).clone()


def _heads_of(x: Tensor, rows: Tensor) -> Tensor:
    """Of x [N, heads, d] those of `rows` [S, L] as [S, heads, L, d]."""
    # Its gradient takes half the time of that of x[rows].
    return x.index_select(0, rows.flatten()).unflatten(0, rows.shape).transpose(1, 2)


def laid_out(batch: Answers) -> Laid:
    """The layout of a batch."""
    device = batch.token.device
    prompts, width = batch.prompt.shape
    prompt_valid = torch.arange(width, device=device) < batch.prompt_length[:, None]
    prompt_rows = prompt_valid.flatten().cumsum(0).sub_(1).view(prompts, width)
    prompt_position = torch.arange(width, device=device).expand(prompts, width)
    said = _beginnings(batch)
    answers, length = said.token.shape
    answer_rows = said.first.flatten().cumsum(0).sub_(1).view(answers, length)
    # What answers before it have too stands where theirs does.
    answer_rows = answer_rows.where(said.first, -1).cummax(0).values
    answer_rows = answer_rows + batch.prompt_length.sum()
    position = torch.arange(length, device=device)
    position = position + batch.prompt_length[said.prompt_of][:, None]
    causal = torch.ones(length, length, dtype=torch.bool, device=device).tril()
    seen = torch.cat(
        [
            prompt_valid[said.prompt_of][:, None].expand(-1, length, -1),
            causal.expand(answers, -1, -1),
        ],
        dim=2,
    )
    last = prompt_rows.gather(1, batch.prompt_length[:, None] - 1)[said.prompt_of]
    before = torch.cat([last, answer_rows], dim=1)[said.of]
    before = before[:, : batch.mask.shape[1]]
    return Laid(
        token=torch.cat([batch.prompt[prompt_valid], said.token[said.first]]),
        position=torch.cat([prompt_position[prompt_valid], position[said.first]]),
        source=before[batch.mask],
        target=batch.token[batch.mask],
        place=batch.mask.flatten().nonzero().squeeze(1),
        kept=None if batch.kept is None else batch.kept[batch.mask],
        prompt_rows=prompt_rows.clamp_(min=0),
        prompt_valid=prompt_valid,
        prompt_of=said.prompt_of,
        answer_rows=answer_rows,
        answer_first=said.first,
        prompt_at=prompt_valid.flatten().nonzero().squeeze(1),
        answer_at=said.first.flatten().nonzero().squeeze(1),
        seen=seen[:, None],
        routing=_routing(batch, prompt_valid, said),
    )


class Beginnings(NamedTuple):
    """Answers without the last token of each, which nobody sees; those that are equal are one."""

    token: Tensor
    """[U, R], sorted: answers that begin alike follow one another."""
    prompt_of: Tensor
    """[U]."""
    of: Tensor
    """Which of them each answer of the batch is [S]."""
    first: Tensor
    """Which tokens follow a beginning that the answer before has not [U, R], bool."""


def _beginnings(batch: Answers) -> Beginnings:
    """What stands in the layout of answers."""
    device, length = batch.token.device, max(1, batch.token.shape[1] - 1)
    valid = torch.arange(length, device=device) < batch.length[:, None] - 1
    token = batch.token[:, :length].where(valid, PADDING)
    own = batch.prompt_of
    if batch.routing is not None:  # equal tokens may have gone to unlike experts
        own = torch.arange(len(batch), device=device)
    whole, of = torch.unique(
        torch.cat([own[:, None], token], dim=1), dim=0, return_inverse=True
    )
    again = (whole[1:] == whole[:-1]).int().cumprod(1)[:, 1:].bool()
    first = whole[:, 1:] != PADDING
    first[1:] &= ~again
    own = whole[:, 0] if batch.routing is None else batch.prompt_of[whole[:, 0]]
    return Beginnings(whole[:, 1:], own, of, first)


def _routing(batch: Answers, prompt_valid: Tensor, said: Beginnings) -> Tensor | None:
    """The experts of every token of the layout; `Answers` has them with the token that was drawn next."""
    next_ = batch.routing
    if next_ is None:
        return None
    prompts, width = prompt_valid.shape
    of_prompts = next_.new_full((prompts, width, *next_.shape[2:]), NOT_KNOWN)
    if batch.prompt_routing is not None:
        of_prompts[:] = batch.prompt_routing
    number = torch.arange(prompts, device=next_.device)
    first = torch.searchsorted(batch.prompt_of, number)
    of_prompts[number, batch.prompt_length - 1] = next_[first, 0]
    of_prompts = of_prompts[prompt_valid]
    if next_.shape[1] == 1:
        return of_prompts
    return torch.cat([of_prompts, next_[:, 1:][said.first]])
