"""The keys and values of answers under way: one block of memory, a part of it for each slot."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, NamedTuple

import torch

from shoal.nets import decoding
from shoal.types import ConfigError

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray
    from torch import Tensor

    from shoal.llm.architecture import Architecture

GRAIN = 64
"""Capacities are multiples of it."""


class NativeCache(NamedTuple):
    """What native code reads and writes."""

    layers: list[tuple[NDArray[np.float32], NDArray[np.float32]]]
    """Keys and values of each layer."""
    turns: NDArray[np.float32]
    """[capacity, 2, head_dim], as `decode_attention` takes them."""


class Cache:
    """Keys and values [layers, slots, kv_heads, capacity, head_dim]; they grow to the longest answer asked for."""

    def __init__(
        self,
        architecture: Architecture,
        slots: int,
        device: torch.device,
        dtype: torch.dtype,
    ) -> None:
        """Without capacity."""
        self.architecture, self.slots = architecture, slots
        self.device, self.dtype = device, dtype
        self.key = self._empty(0)
        self.value = self._empty(0)
        self.angles = angles_of(architecture, 0, device)
        """[capacity, 1, head_dim / 2], complex: what a rotated pair at each position is multiplied by."""
        self.native: NativeCache | None = None
        """The same memory for native code, where that can read it."""

    @property
    def capacity(self) -> int:
        """Positions of each slot."""
        return self.key.shape[3]

    def grow(self, capacity: int) -> None:
        """Makes room for so many positions in every slot; what is there stays.

        Raises:
            ConfigError: there is not enough memory.
        """
        if capacity <= self.capacity:
            return
        capacity = -(-capacity // GRAIN) * GRAIN
        self._check_memory(capacity)
        try:
            key, value = self._empty(capacity), self._empty(capacity)
        except (MemoryError, RuntimeError) as error:  # torch raises the latter
            raise self._too_large(capacity) from error
        key[:, :, :, : self.capacity] = self.key
        value[:, :, :, : self.capacity] = self.value
        self.key, self.value = key, value
        self.angles = angles_of(self.architecture, capacity, self.device)
        self.native = native_cache(self)

    def put(self, first: int, key: Tensor, value: Tensor) -> None:
        """Fills slots from `first` on with what was read of n sequences, [layers, n, kv_heads, length, head_dim]."""
        slots = slice(first, first + key.shape[1])
        self.key[:, slots, :, : key.shape[3]] = key
        self.value[:, slots, :, : key.shape[3]] = value

    def move(self, source: Tensor, target: Tensor, length: int) -> None:
        """Copies slots `source` [n] over slots `target` [n], as far as `length` positions."""
        for cache in (self.key, self.value):
            part = cache[:, :, :, :length]
            part[:, target] = part[:, source]

    def _empty(self, capacity: int) -> Tensor:
        a = self.architecture
        shape = a.num_layers, self.slots, a.num_kv_heads, capacity, a.head_dim
        # Zeros, not what memory held: positions that are masked are still multiplied by 0.
        return torch.zeros(shape, device=self.device, dtype=self.dtype)

    def _bytes(self, capacity: int) -> int:
        a = self.architecture
        heads = a.num_layers * self.slots * a.num_kv_heads
        return 2 * heads * capacity * a.head_dim * self.dtype.itemsize

    def _check_memory(self, capacity: int) -> None:
        free = _available(self.device)
        needed = self._bytes(capacity)
        if free is not None and needed > free:
            raise self._too_large(capacity, free)

    def _too_large(self, capacity: int, free: int | None = None) -> ConfigError:
        needed = self._bytes(capacity) / 2**30
        there = "" if free is None else f", and {free / 2**30:.2f} GiB are free"
        return ConfigError(
            f"keys and values of {self.slots} slots with {capacity:,} positions each need {needed:.2f} GiB{there}; "
            "set fewer slots, a smaller max_tokens, or shorter prompts"
        )


def native_cache(cache: Cache) -> NativeCache | None:
    """A cache as arrays; None unless it lies in a CPU's memory in float32, and native code knows its sizes."""
    fits = cache.architecture.head_dim % decoding.GRAIN == 0
    if cache.device.type != "cpu" or cache.dtype != torch.float32 or not fits:
        return None
    pairs = torch.view_as_real(cache.angles.squeeze(1))
    cos = pairs[..., :1].expand(-1, -1, 2)
    sin = pairs[..., 1:] * torch.tensor([-1.0, 1.0])
    turns = torch.stack([cos, sin], dim=1).flatten(2).numpy()
    layers = zip(cache.key.numpy(), cache.value.numpy(), strict=True)
    return NativeCache(list(layers), turns)


def angles_of(a: Architecture, positions: int, device: torch.device) -> Tensor:
    """exp(i position theta^(-2 j / head_dim)), [positions, 1, head_dim / 2]."""
    # The same float32 arithmetic as in the model's own forward pass.
    exponents = torch.arange(0, a.head_dim, 2, device=device) / a.head_dim
    position = torch.arange(positions, device=device)
    angle = position[:, None].float() / a.rope_theta ** exponents.float()
    return torch.polar(torch.ones_like(angle), angle)[:, None]


def _available(device: torch.device) -> int | None:
    """Bytes of memory that can be had; None where nobody says."""
    if device.type == "cuda":
        return torch.cuda.mem_get_info(device)[0]
    try:
        with open("/proc/meminfo", encoding="ascii") as lines:
            for line in lines:
                if line.startswith("MemAvailable:"):
                    return int(line.split()[1]) * 1024
        return os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    except (OSError, ValueError):
        return None
