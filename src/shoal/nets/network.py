"""Network: the settings of the default policy."""

from __future__ import annotations

from dataclasses import dataclass
from math import inf
from typing import Literal

from shoal.types import ConfigError, check_ranges


@dataclass(frozen=True, slots=True)
class Network:
    """The shape of the default policy."""

    hidden: tuple[int, ...] = (64, 64)
    """Units of each layer; more units can represent more and cost more a step."""
    activation: Literal["tanh", "relu"] = "tanh"
    """tanh is steadier for small networks, relu cheaper for wide ones."""
    recurrent: Literal["none", "gru", "lstm"] = "none"
    """A memory between the layers and the heads, for tasks whose observation does not tell the whole state."""
    recurrent_size: int = 64
    """Units of the memory."""
    normalize_obs: bool = False
    """Normalize observations by their running mean and standard deviation; helps when their scales differ."""
    image: Literal["auto", "nature", "nips", "impala", "flat"] = "auto"
    """Layers for images; auto is nature from 36 x 36 pixels on, else flat. impala sees most and costs most."""
    precision: Literal["float32", "bfloat16"] = "float32"
    """bfloat16 computes the layers for images with 8 bits of mantissa: faster where the CPU or GPU has it."""
    squash: bool = False
    """Box actions: tanh of a Gaussian scaled to the Box, instead of a clipped Gaussian."""
    log_std_init: float = 0.0
    """Box actions: the initial log standard deviation; larger explores more widely."""

    def __post_init__(self) -> None:
        """Refuses sizes that cannot be."""
        check_ranges(self, recurrent_size=(1, inf), log_std_init=(-20, 20))
        if min(self.hidden, default=1) < 1:
            raise ConfigError(
                f"hidden must hold a size >= 1 for each layer, such as 64 64, got {self.hidden}"
            )
