"""A sampler's own copy of a model's weights, put together for decoding."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, cast

import torch

from shoal.llm.feed_forward import Experts
from shoal.llm.lora import weight_of
from shoal.llm.sampler.products import product_of

if TYPE_CHECKING:
    from torch import Tensor, nn

    from shoal.llm.architecture import Architecture
    from shoal.llm.feed_forward import FeedForward
    from shoal.llm.model import LanguageModel, Layer
    from shoal.llm.sampler.products import Product


@dataclass(frozen=True, slots=True)
class Gated:
    """A gated feed-forward network."""

    gate: Product
    up: Product
    down: Product

    def __call__(self, x: Tensor) -> Tensor:
        """[n, hidden_size] to the same; n = 0 too, which oneDNN does not take."""
        if not len(x):
            return x
        return self.down(self.up.times(x, self.gate.activated(x)))


@dataclass(frozen=True, slots=True)
class Mixture:
    """Experts, and what chooses among them."""

    router: Product
    experts: tuple[Gated, ...]
    per_token: int
    normalize: bool


@dataclass(frozen=True, slots=True)
class LayerWeights:
    """One layer. Norms before a product are part of its columns; the halves of rotated heads lie interleaved."""

    qkv: Product
    """To queries, keys and values side by side."""
    qk_norm: Tensor | None
    """[heads + kv_heads, head_dim]."""
    out: Product
    mlp: Gated | Mixture


@dataclass(frozen=True, slots=True)
class Weights:
    """All of a model."""

    architecture: Architecture
    embedding: Tensor
    layers: tuple[LayerWeights, ...]
    head: Product

    @classmethod
    def copied(cls, model: LanguageModel, *, rows: int) -> Weights:
        """A copy of what the model has now; `rows` are usually decoded at once."""
        a = model.architecture
        with torch.no_grad():
            layers = tuple(
                _copied_layer(cast("Layer", one), a, rows) for one in model.model.layers
            )
            embedding = model.model.embed_tokens.weight.detach().clone()
            head = model.head.detach() * model.model.norm.weight
            return cls(a, embedding, layers, product_of(head, None, rows=rows))


def _copied_layer(layer: Layer, a: Architecture, rows: int) -> LayerWeights:
    attention, mlp = layer.self_attn, layer.mlp
    before, after = layer.input_layernorm.weight, layer.post_attention_layernorm.weight
    projections = attention.q_proj, attention.k_proj, attention.v_proj
    q, k, v = map(weight_of, projections)
    qkv = torch.cat([_interleaved(q, a), _interleaved(k, a), v]) * before
    bias = None
    if a.attention_bias:
        q, k, v = (one.bias for one in projections)
        bias = torch.cat([_interleaved(q, a), _interleaved(k, a), v]).detach()
    norm = None
    if a.qk_norm:
        q = _interleaved(attention.q_norm.weight, a).expand(a.num_heads, -1)
        k = _interleaved(attention.k_norm.weight, a).expand(a.num_kv_heads, -1)
        norm = torch.cat([q, k]).detach()
    return LayerWeights(
        qkv=product_of(qkv, bias, rows=rows),
        qk_norm=norm,
        out=product_of(_copy(attention.o_proj), None, rows=rows),
        mlp=_copied_mlp(mlp, after, rows),
    )


def _copied_mlp(
    mlp: Experts | FeedForward, after: Tensor, rows: int
) -> Gated | Mixture:
    """What follows the norm with the weights `after`."""
    if not isinstance(mlp, Experts):
        return Gated(
            gate=product_of(weight_of(mlp.gate_proj) * after, None, rows=rows),
            up=product_of(weight_of(mlp.up_proj) * after, None, rows=rows),
            down=product_of(_copy(mlp.down_proj), None, rows=rows),
        )
    share = max(1, rows * mlp.per_token // len(mlp.experts))
    experts = tuple(
        cast("Gated", _copied_mlp(cast("FeedForward", one), after, share))
        for one in mlp.experts
    )
    router = product_of(weight_of(mlp.gate) * after, None, rows=rows)
    return Mixture(router, experts, mlp.per_token, mlp.normalize)


def _copy(layer: nn.Linear) -> Tensor:
    """Of its own memory; a merged weight has that already."""
    weight = weight_of(layer)
    return weight.clone() if weight is layer.weight else weight


def _interleaved(weight: Tensor, a: Architecture) -> Tensor:
    """Rows of heads, so that what is turned together lies side by side: products of queries and keys stay the same."""
    halves = weight.unflatten(0, (-1, 2, a.head_dim // 2))
    return halves.transpose(1, 2).flatten(0, 2)
