"""Attention of a decode step: one token of each answer over its cached keys and values."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch.nn import functional as F

from shoal.nets.decoding import decode_attention

if TYPE_CHECKING:
    from collections.abc import Callable

    from torch import Tensor

    from shoal.llm.architecture import Architecture
    from shoal.llm.sampler.cache import Cache, NativeCache
    from shoal.llm.sampler.weights import LayerWeights

    Attention = Callable[[int, LayerWeights, Tensor], Tensor]
    """Of a layer, its number and weights, the queries, keys and values [A, heads + 2 kv_heads, head_dim]: what the
    tokens see [A, heads * head_dim]. Keys and values join the cache."""


def attention_of(
    cache: Cache, a: Architecture, position: Tensor, longest: int
) -> Attention:
    """The attention of a step: the token of slot i is at `position` [A] i, and `longest` is the largest one plus 1."""
    if cache.native is not None:
        return _in_native_code(cache.native, a, position)
    return _in_torch(cache, a, position, longest)


def turned(
    layer: LayerWeights, qkv: Tensor, angles: Tensor, a: Architecture
) -> tuple[Tensor, Tensor, Tensor]:
    """Queries and keys, normalized and turned, and values: [n, heads, head_dim] and twice [n, kv_heads, head_dim]."""
    heads = a.num_heads + a.num_kv_heads
    qk = qkv[:, :heads]
    if layer.qk_norm is not None:
        qk = F.rms_norm(qk, (a.head_dim,), None, a.norm_eps) * layer.qk_norm
    pairs = torch.view_as_complex(qk.unflatten(2, (-1, 2)))
    qk = torch.view_as_real(pairs * angles).flatten(2)
    return qk[:, : a.num_heads], qk[:, a.num_heads :], qkv[:, heads:]


def _in_native_code(cache: NativeCache, a: Architecture, position: Tensor) -> Attention:
    active = len(position)
    places = position.numpy()

    def attend(number: int, layer: LayerWeights, qkv: Tensor) -> Tensor:
        seen = qkv.new_empty(active, a.num_heads, a.head_dim)
        key, value = cache.layers[number]
        norm = None if layer.qk_norm is None else layer.qk_norm.numpy()
        decode_attention(
            qkv.numpy(), norm, a.norm_eps, cache.turns, places, key, value, seen.numpy()
        )
        return seen.view(active, -1)

    return attend


def _in_torch(
    cache: Cache, a: Architecture, position: Tensor, longest: int
) -> Attention:
    active, shared, size = len(position), a.num_kv_heads, a.head_dim
    angles = cache.angles[position]
    heads = torch.arange(active * shared, device=position.device)
    place = heads * cache.capacity + position.repeat_interleave(shared)
    seen = torch.arange(longest, device=position.device) <= position[:, None]
    mask = torch.zeros(seen.shape, device=position.device, dtype=cache.dtype)
    mask = mask.masked_fill_(~seen, -torch.inf)[:, None, None]

    def attend(number: int, layer: LayerWeights, qkv: Tensor) -> Tensor:
        q, k, v = turned(layer, qkv, angles, a)
        keys, values = cache.key[number], cache.value[number]
        keys.view(-1, size).index_copy_(0, place, k.reshape(-1, size))
        values.view(-1, size).index_copy_(0, place, v.reshape(-1, size))
        q = q.reshape(active, shared, -1, size)
        scores = q @ keys[:active, :, :longest].transpose(2, 3)
        shares = torch.add(mask, scores, alpha=size**-0.5).softmax(-1)
        return (shares @ values[:active, :, :longest]).view(active, -1)

    return attend
