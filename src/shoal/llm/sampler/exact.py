"""The exact forward pass of a sampler, which gives the log-probabilities of an exact model bit for bit."""

from __future__ import annotations

from copy import deepcopy
from typing import TYPE_CHECKING, cast

import torch

from shoal.llm.blocks import block_product
from shoal.llm.exact import attended, filled_up, finished, projections, width_at
from shoal.llm.lora import merge_layers
from shoal.llm.rotary import rotations

if TYPE_CHECKING:
    from torch import Tensor

    from shoal.llm.model import LanguageModel, Layer
    from shoal.llm.sampler.cache import Cache


class ExactPass:
    """A copy of a model's weights, and what is computed with them."""

    def __init__(self, model: LanguageModel) -> None:
        """Takes the copy."""
        self.architecture = model.architecture
        self.routing: Tensor | None = None
        self.decoder = deepcopy(model.model).requires_grad_(requires_grad=False)
        merge_layers(self.decoder)
        self.head = self.decoder.embed_tokens.weight
        if not model.architecture.tied:
            self.head = model.head.detach().clone()

    def read(self, token: Tensor, cache: Cache) -> tuple[Tensor, Tensor]:
        """As `FastPass.read`."""
        del cache
        a = self.architecture
        n, length = token.shape
        shape = a.num_layers, n, a.num_kv_heads, width_at(length - 1), a.head_dim
        keys, values = self.head.new_zeros(shape), self.head.new_zeros(shape)
        position = torch.arange(length, device=token.device).repeat(n)
        angles = rotations(filled_up(position), a)
        x = self.decoder.embed_tokens(filled_up(token.flatten()))
        for number, layer in enumerate(self.decoder.layers):
            layer = cast("Layer", layer)
            projected = projections(layer, x, angles)
            q, k, v = (one[: n * length].unflatten(0, (n, length)) for one in projected)
            key, value = keys[number], values[number]
            key[:, :, :length] = k.transpose(1, 2)
            value[:, :, :length] = v.transpose(1, 2)
            seen = torch.empty_like(q)
            for at in range(length):
                width = width_at(at)
                where = position.new_full((n,), at)
                part = attended(q[:, at], key[:, :, :width], value[:, :, :width], where)
                seen[:, at] = part.view_as(seen[:, at])
            x = finished(layer, x, filled_up(seen.view(n * length, -1)))
        return keys[..., :length, :], values[..., :length, :]

    def decode(
        self, cache: Cache, token: Tensor, position: Tensor, longest: int
    ) -> Tensor:
        """As `FastPass.decode`."""
        del longest
        n = len(token)
        slot = torch.arange(n, device=token.device)
        widths = [width_at(at) for at in position.tolist()]
        groups = [
            (width, slot[[one == width for one in widths]])
            for width in sorted(set(widths))
        ]
        angles = rotations(filled_up(position), self.architecture)
        x = self.decoder.embed_tokens(filled_up(token))
        for number, layer in enumerate(self.decoder.layers):
            layer = cast("Layer", layer)
            q, k, v = (one[:n] for one in projections(layer, x, angles))
            key, value = cache.key[number], cache.value[number]
            key[slot, :, position], value[slot, :, position] = k, v
            seen = q.new_empty(n, q.shape[1] * q.shape[2])
            for width, of in groups:
                part = key[of, :, :width], value[of, :, :width]
                seen[of] = attended(q[of], *part, position[of])
            x = finished(layer, x, filled_up(seen))
        return block_product(self.decoder.norm(x), self.head)[:n]
