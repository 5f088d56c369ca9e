"""Network: the settings of the default policy."""

from __future__ import annotations

from dataclasses import dataclass
from math import inf
from typing import Literal

from shoal.types import ConfigError, check_ranges


@dataclass(frozen=True, slots=True)
class Network:
    """Architecture of the default policy."""

    hidden: tuple[int, ...] = (64, 64)
    """Units of each hidden layer; more can represent more and cost more per step."""
    activation: Literal["tanh", "relu"] = "tanh"
    """Activation function; tanh is more stable for small networks, relu is cheaper for wide ones."""
    recurrent: Literal["none", "gru", "lstm"] = "none"
    """Recurrent layer before the output heads, for partially observable environments."""
    recurrent_size: int = 64
    """Units of the recurrent layer."""
    share: bool = False
    """Actor and critic share the hidden layers, as recurrent and image networks always do; runs in torch."""
    normalize_obs: bool = False
    """Normalize observations by their running mean and standard deviation; helps when their scales differ."""
    image: Literal["auto", "nature", "nips", "impala", "flat"] = "auto"
    """Image encoder; auto: nature from 36 x 36 pixels on, else flat. impala is the deepest and slowest."""
    precision: Literal["float32", "bfloat16"] = "float32"
    """Precision of the image encoder; bfloat16 (8 bits of mantissa) is faster where the CPU or GPU supports it."""
    squash: bool = False
    """Box actions: tanh-squashed Gaussian, scaled to the bounds, instead of a clipped Gaussian."""
    log_std_init: float = 0.0
    """Box actions: initial log standard deviation; larger explores more widely."""
    sde_interval: int = 0
    """Box actions: state-dependent exploration (gSDE), drawn anew every this many steps; 0: independent noise."""

    def __post_init__(self) -> None:
        """Refuses sizes that cannot be."""
        check_ranges(self, recurrent_size=(1, inf), log_std_init=(-20, 20))
        check_ranges(self, sde_interval=(0, inf))
        if self.share and self.recurrent != "none":
            raise ConfigError(
                "a recurrent network has one trunk for actor and critic already; leave share out"
            )
        if min(self.hidden, default=1) < 1:
            raise ConfigError(
                f"hidden must hold a size >= 1 for each layer, such as 64 64, got {self.hidden}"
            )
