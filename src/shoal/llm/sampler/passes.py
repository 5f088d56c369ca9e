"""The forward pass of a sampler: whole sequences read at once, and one token after another decoded."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

import torch
from torch.nn import functional as F

from shoal.llm.feed_forward import NOT_KNOWN, mixed, route
from shoal.llm.sampler.attention import attention_of, turned
from shoal.llm.sampler.weights import Gated, Weights

if TYPE_CHECKING:
    from torch import Tensor

    from shoal.llm.architecture import Architecture
    from shoal.llm.model import LanguageModel
    from shoal.llm.sampler.cache import Cache
    from shoal.llm.sampler.weights import LayerWeights


class Pass(Protocol):
    """A copy of a model's weights, and what is computed with them."""

    routing: Tensor | None
    """The experts that the tokens of the last call went to, by layer [..., layers, experts_per_token], int16; those of
    the last layer are NOT_KNOWN where nobody asks what follows. None where it is not a mixture of experts, or where
    sampler and learner choose alike."""

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
        self.routing: Tensor | None = None

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
        went = self._begin_routing(n, length)
        last = len(weights.layers) - 1
        for number, layer in enumerate(weights.layers):
            qkv = layer.qkv(_normalized(x, a)).unflatten(1, (-1, a.head_dim))
            q, k, v = turned(layer, qkv, angles, a)
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
            x = _fed_forward(layer, x, a, None if went is None else went[:, number])
        return keys, values

    def decode(
        self, cache: Cache, token: Tensor, position: Tensor, longest: int
    ) -> Tensor:
        """Logits [A, V] after the token [A] at `position` [A] of each of the first A slots, whose cache it joins.

        `longest`: the largest position, plus 1.
        """
        weights, a = self.weights, self.weights.architecture
        attention = attention_of(cache, a, position, longest)
        x = weights.embedding[token]
        went = self._begin_routing(len(token))
        for number, layer in enumerate(weights.layers):
            qkv = layer.qkv(_normalized(x, a)).unflatten(1, (-1, a.head_dim))
            x = layer.out.plus(attention(number, layer, qkv), x)
            x = _fed_forward(layer, x, a, None if went is None else went[:, number])
        return weights.head(_normalized(x, a))

    def _begin_routing(self, *shape: int) -> Tensor | None:
        """Room for the routing of so many tokens, layer by layer [tokens, layers, experts_per_token]."""
        a, self.routing = self.weights.architecture, None
        if not a.num_experts:
            return None
        sizes = *shape, a.num_layers, a.experts_per_token
        device = self.weights.embedding.device
        self.routing = torch.full(sizes, NOT_KNOWN, dtype=torch.int16, device=device)
        return self.routing.view(-1, *sizes[-2:])


def _fed_forward(
    layer: LayerWeights, x: Tensor, a: Architecture, went: Tensor | None
) -> Tensor:
    """Tokens [n, hidden_size] to the same; `went` takes the experts of each [n, experts_per_token]."""
    within, mlp = _normalized(x, a), layer.mlp
    if isinstance(mlp, Gated):
        gated = mlp.up.times(within, mlp.gate.activated(within))
        return mlp.down.plus(gated, x)
    logits = mlp.router(within)
    chosen, share = route(logits, mlp.per_token, normalize=mlp.normalize)
    if went is not None:
        went.copy_(chosen)
    return x + mixed(within, chosen, share, mlp.experts)


def _normalized(x: Tensor, a: Architecture) -> Tensor:
    """Rows over their root mean square; what it is multiplied by is part of the next product."""
    norm = torch.linalg.vector_norm(x, dim=1, keepdim=True, dtype=torch.float32)
    square = norm.square_().div_(a.hidden_size).add_(a.norm_eps)
    return x * square.rsqrt_()
