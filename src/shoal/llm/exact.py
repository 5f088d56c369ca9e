"""A forward pass that gives each token the same bits, whatever stands beside it: at learning and at sampling.

Three things make the bits of a token's log-probability depend on others. Products choose their order of summation by
the number of rows: here they are done by blocks (`blocks.py`). Attention over several tokens at once does the same, and
its order over keys depends on where padding lies: here each token attends alone, to keys that lie by their position, as
many as a multiple of WIDTH. And what is left over of a vector at the end of an array is computed in another way: here
tokens are filled up to whole blocks. What remains the same is only true for one kind of machine, and one number of
threads.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, cast

import torch
from torch.nn import functional as F

from shoal.llm.blocks import BLOCK, block_product
from shoal.llm.feed_forward import Experts, mixed, route
from shoal.llm.lora import weight_of
from shoal.llm.rotary import rotated, rotations

if TYPE_CHECKING:
    from torch import Tensor

    from shoal.llm.feed_forward import FeedForward
    from shoal.llm.layout import Laid
    from shoal.llm.model import Decoder, Layer

WIDTH = 64
"""Keys that a token attends to are a multiple of it; those behind the token count nothing."""


@dataclass(frozen=True, slots=True)
class Together:
    """Tokens at one position, which attend at the same time, each to its own sequence."""

    position: int
    token: Tensor
    """[n]: which of all tokens they are."""
    sequence: Tensor
    """[n]: whose."""


def exact_hidden(decoder: Decoder, laid: Laid) -> Tensor:
    """The last hidden state of every token [N, hidden_size], as `decoder(laid)` gives it but for rounding."""
    token, position = filled_up(laid.token), filled_up(laid.position)
    place = _places(laid)
    together = _by_position(laid)
    order = torch.cat([one.token for one in together]).argsort()
    a = decoder.architecture
    angles = rotations(position, a)
    x = decoder.embed_tokens(token)
    for layer in decoder.layers:
        layer = cast("Layer", layer)
        q, k, v = projections(layer, x, angles)
        keys = k[place].transpose(1, 2).contiguous()
        values = v[place].transpose(1, 2).contiguous()
        seen: list[Tensor] = []
        for one in together:
            width = width_at(one.position)
            key = keys[one.sequence, :, :width]
            value = values[one.sequence, :, :width]
            position = torch.full_like(one.token, one.position)
            seen.append(attended(q[one.token], key, value, position))
        x = finished(layer, x, filled_up(torch.cat(seen)[order]))
    return decoder.norm(x)[: len(laid.token)]


def filled_up(x: Tensor) -> Tensor:
    """[n, ...] with zeros behind, to whole blocks."""
    missing = -len(x) % BLOCK
    return torch.cat([x, x.new_zeros(missing, *x.shape[1:])]) if missing else x


def width_at(position: int) -> int:
    """Keys that a token at this position attends to."""
    return (position // WIDTH + 1) * WIDTH


def projections(
    layer: Layer, x: Tensor, angles: tuple[Tensor, Tensor]
) -> tuple[Tensor, Tensor, Tensor]:
    """Turned queries and keys, and values, of tokens [N, hidden_size]: [N, heads or kv_heads, head_dim] each."""
    attention = layer.self_attn
    size = attention.architecture.head_dim
    x = layer.input_layernorm(x)
    layers = attention.q_proj, attention.k_proj, attention.v_proj
    q, k, v = (
        block_product(x, weight_of(one), one.bias).unflatten(1, (-1, size))
        for one in layers
    )
    if attention.architecture.qk_norm:
        q, k = attention.q_norm(q), attention.k_norm(k)
    return rotated(q, angles), rotated(k, angles), v


def attended(q: Tensor, key: Tensor, value: Tensor, position: Tensor) -> Tensor:
    """What tokens see, each of its own sequence: [n, heads * head_dim].

    Args:
        q: [n, heads, head_dim].
        key: [n, kv_heads, width, head_dim], by position.
        value: the same.
        position: of the tokens [n]; later keys count nothing.
    """
    n, heads, size = q.shape
    q = q.reshape(n, key.shape[1], -1, size)
    scores = (q @ key.transpose(2, 3)) * size**-0.5
    later = torch.arange(key.shape[2], device=q.device) > position[:, None]
    scores = scores.masked_fill(later[:, None, None], -torch.inf)
    return (scores.softmax(-1) @ value).reshape(n, heads * size)


def finished(layer: Layer, x: Tensor, seen: Tensor) -> Tensor:
    """The layer's output [N, hidden_size] from its input and from what its tokens see."""
    mlp = layer.mlp
    x = x + block_product(seen, weight_of(layer.self_attn.o_proj))
    within = layer.post_attention_layernorm(x)
    if not isinstance(mlp, Experts):
        return x + _fed(mlp, within)
    logits = block_product(within, mlp.gate.weight)
    chosen, share = route(logits, mlp.per_token, normalize=mlp.normalize)
    experts = [partial(_fed, cast("FeedForward", one)) for one in mlp.experts]
    return x + mixed(within, chosen, share, experts)


def _fed(mlp: FeedForward, x: Tensor) -> Tensor:
    """A feed-forward network of tokens [n, hidden_size], to the same."""
    n, x = len(x), filled_up(x)
    gate = F.silu(block_product(x, weight_of(mlp.gate_proj)))
    up = block_product(x, weight_of(mlp.up_proj))
    return block_product(gate * up, weight_of(mlp.down_proj))[:n]


def _places(laid: Laid) -> Tensor:
    """Where the token at each position of each sequence stands, prompts before answers: [P + S, width]."""
    rows, answers = laid.prompt_rows, laid.answer_rows
    width = width_at(rows.shape[1] + answers.shape[1] - 1)
    position = torch.arange(width, device=rows.device)
    rows = F.pad(rows, (0, width - rows.shape[1]))
    first = laid.prompt_valid.sum(1)[laid.prompt_of][:, None]
    of_answer = (position - first).clamp(0, answers.shape[1] - 1)
    whole = torch.where(
        position < first, rows[laid.prompt_of], answers.gather(1, of_answer)
    )
    return torch.cat([rows, whole])


def _by_position(laid: Laid) -> list[Together]:
    """All tokens, those at the same position together."""
    prompts = len(laid.prompt_rows)
    sequence = torch.cat(
        [
            laid.prompt_valid.nonzero()[:, 0],
            laid.answer_first.nonzero()[:, 0] + prompts,
        ]
    )
    order = laid.position.argsort(stable=True)
    counts = laid.position.bincount().tolist()
    parts = order.split(counts)
    return [
        Together(position, token, sequence[token])
        for position, token in enumerate(parts)
    ]
