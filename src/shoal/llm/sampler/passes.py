"""The forward pass of a sampler: whole sequences read at once, and one token after another decoded."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

import torch
from torch.nn import functional as F

from shoal.llm.sampler.weights import Weights

if TYPE_CHECKING:
    from torch import Tensor

    from shoal.llm.architecture import Architecture
    from shoal.llm.model import LanguageModel
    from shoal.llm.sampler.cache import Cache
    from shoal.llm.sampler.weights import LayerWeights


class Pass(Protocol):
    """A copy of a model's weights, and what is computed with them."""

    def read(self, token: Tensor, cache: Cache) -> tuple[Tensor, Tensor]:
        """Keys and values of whole sequences."""
        ...

    def decode(
        self, cache: Cache, token: Tensor, position: Tensor, longest: int
    ) -> Tensor:
        """Logits after one more token of each."""
        ...


class FastPass:
    """With the weights put together for decoding."""

    def __init__(self, model: LanguageModel, *, rows: int) -> None:
        """Takes a copy of the model's weights; `rows` are usually decoded at once."""
        self.weights = Weights.copied(model, rows=rows)

    def read(self, token: Tensor, cache: Cache) -> tuple[Tensor, Tensor]:
        """Keys and values of sequences [n, length], padded at their ends: [layers, n, kv_heads, length, head_dim] each.

        `cache`: has at least so many positions.
        """
        weights, a = self.weights, self.weights.architecture
        n, length = token.shape
        angles = cache.angles[:length].repeat(n, 1, 1)
        shape = len(weights.layers), n, a.num_kv_heads, length, a.head_dim
        keys = weights.embedding.new_empty(shape)
        values = torch.empty_like(keys)
        if not length:
            return keys, values
        x = weights.embedding[token.flatten()]
        last = len(weights.layers) - 1
        for number, layer in enumerate(weights.layers):
            q, k, v = projected(layer, x, angles, a)
            k = k.view(n, length, a.num_kv_heads, a.head_dim).transpose(1, 2)
            v = v.view(n, length, a.num_kv_heads, a.head_dim).transpose(1, 2)
            keys[number], values[number] = k, v
            if number == last:  # nobody asks what comes after these tokens
                break
            q = q.view(n, length, a.num_heads, a.head_dim).transpose(1, 2)
            grouped = a.num_heads != a.num_kv_heads
            seen = F.scaled_dot_product_attention(
                q, keys[number], values[number], is_causal=True, enable_gqa=grouped
            )
            x = layer.out.plus(seen.transpose(1, 2).reshape(n * length, -1), x)
            x = _fed_forward(layer, x, a)
        return keys, values

    def decode(
        self, cache: Cache, token: Tensor, position: Tensor, longest: int
    ) -> Tensor:
        """Logits [A, V] after the token [A] at `position` [A] of each of the first A slots, whose cache it joins.

        `longest`: the largest position, plus 1.
        """
        weights, a = self.weights, self.weights.architecture
        active, grouped = len(token), a.num_heads // a.num_kv_heads
        angles = cache.angles[position]
        heads = torch.arange(active * a.num_kv_heads, device=token.device)
        place = heads * cache.capacity + position.repeat_interleave(a.num_kv_heads)
        seen = torch.arange(longest, device=token.device) <= position[:, None]
        mask = torch.zeros(seen.shape, device=token.device, dtype=cache.dtype)
        mask.masked_fill_(~seen, -torch.inf)
        mask = mask[:, None, None]
        scale = a.head_dim**-0.5
        x = weights.embedding[token]
        for number, layer in enumerate(weights.layers):
            q, k, v = projected(layer, x, angles, a)
            keys, values = cache.key[number], cache.value[number]
            keys.view(-1, a.head_dim).index_copy_(0, place, k.reshape(-1, a.head_dim))
            values.view(-1, a.head_dim).index_copy_(0, place, v.reshape(-1, a.head_dim))
            q = q.reshape(active, a.num_kv_heads, grouped, a.head_dim)
            scores = q @ keys[:active, :, :longest].transpose(2, 3)
            scores = torch.add(mask, scores, alpha=scale).softmax(-1)
            seen = scores @ values[:active, :, :longest]
            x = layer.out.plus(seen.view(active, -1), x)
            x = _fed_forward(layer, x, a)
        return weights.head(_normalized(x, a))


def projected(
    layer: LayerWeights, x: Tensor, angles: Tensor, a: Architecture
) -> tuple[Tensor, Tensor, Tensor]:
    """Turned queries and keys, and values, of tokens [n, hidden]: [n, heads, head_dim] and twice [n, kv_heads, ...]."""
    parts = layer.qkv(_normalized(x, a)).unflatten(1, (-1, a.head_dim))
    turned = a.num_heads + a.num_kv_heads
    qk = parts[:, :turned]
    if layer.qk_norm is not None:
        qk = F.rms_norm(qk, (a.head_dim,), None, a.norm_eps) * layer.qk_norm
    pairs = torch.view_as_complex(qk.unflatten(2, (-1, 2)))
    qk = torch.view_as_real(pairs * angles).flatten(2)
    return qk[:, : a.num_heads], qk[:, a.num_heads :], parts[:, turned:]


def _fed_forward(layer: LayerWeights, x: Tensor, a: Architecture) -> Tensor:
    gate, up = layer.gate_up(_normalized(x, a)).chunk(2, dim=1)
    return layer.down.plus(F.silu(gate).mul_(up), x)


def _normalized(x: Tensor, a: Architecture) -> Tensor:
    """Rows over their root mean square; what it is multiplied by is part of the next product."""
    return F.rms_norm(x, (a.hidden_size,), None, a.norm_eps)
