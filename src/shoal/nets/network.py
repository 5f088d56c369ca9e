"""Network, QNet, ActorCriticNet: the settings of the default policy, Q-network, and actor with critics Q(s, a)."""

from __future__ import annotations

from dataclasses import dataclass
from math import inf
from typing import ClassVar, Literal

from shoal.types import ConfigError, check_ranges

MOST_LAYERS = 256
"""Hidden layers of a network."""


def _check_hidden(hidden: tuple[int, ...]) -> None:
    """ConfigError where layers cannot have these sizes."""
    if len(hidden) > MOST_LAYERS:
        raise ConfigError(
            f"hidden may hold at most {MOST_LAYERS} layers, got {len(hidden):,}"
        )
    if min(hidden, default=1) < 1:
        raise ConfigError(
            f"hidden must hold a size >= 1 for each layer, such as 64 64, got {hidden}"
        )


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
    image: Literal["auto", "nature", "nips", "impala", "minatar", "flat"] = "auto"
    """Image encoder; auto: nature from 36 x 36 pixels on, else flat. impala is the deepest, minatar for 10 x 10."""
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
        _check_hidden(self.hidden)


@dataclass(frozen=True, slots=True)
class QNet:
    """Architecture of the default Q-network."""

    hidden: tuple[int, ...] = (128, 128)
    """Units of each hidden layer; more can represent more and cost more per step."""
    activation: Literal["tanh", "relu"] = "relu"
    """Activation function; relu is usual for values."""
    normalize_obs: bool = False
    """Normalize observations by their running mean and standard deviation; helps when their scales differ."""
    image: Literal["auto", "nature", "nips", "impala", "minatar", "flat"] = "auto"
    """Image encoder; auto: nature from 36 x 36 pixels on, else flat. impala is the deepest, minatar for 10 x 10."""
    precision: Literal["float32", "bfloat16"] = "float32"
    """Precision of the image encoder; bfloat16 (8 bits of mantissa) is faster where the CPU or GPU supports it."""
    recurrent: Literal["none", "gru", "lstm"] = "none"
    """Recurrent layer before the output heads, for partially observable environments; runs in torch."""
    recurrent_size: int = 64
    """Units of the recurrent layer."""
    layer_norm: bool = False
    """LayerNorm before each activation, which keeps values stable without a target network; runs in torch."""
    dueling: bool = False
    """Value and advantages as separate heads; runs in torch."""
    noisy: bool = False
    """Learned noise in the last layers explores in the place of epsilon; runs in torch."""
    quantiles: int = 0
    """Distributional values: so many quantiles of each action's return, such as 32; 0: the mean; runs in torch."""

    def __post_init__(self) -> None:
        """Refuses sizes that cannot be."""
        check_ranges(self, quantiles=(0, 1024), recurrent_size=(1, inf))
        _check_hidden(self.hidden)


@dataclass(frozen=True, slots=True)
class ActorCriticNet:
    """Architecture of the default actor, and of the critics Q(s, a) beside it."""

    normalize_obs: ClassVar[bool] = False
    """Observations are taken as they are."""

    hidden: tuple[int, ...] = (256, 256)
    """Units of each hidden layer; more can represent more and cost more per step."""
    activation: Literal["tanh", "relu"] = "relu"
    """Activation function; relu is usual for values."""
    num_critics: int = 2
    """Critics, of whose values the least counts; more judge more carefully and cost more."""
    image: Literal["auto", "nature", "nips", "impala", "minatar", "flat"] = "auto"
    """Image encoder; auto: nature from 36 x 36 pixels on, else flat. impala is the deepest, minatar for 10 x 10."""
    precision: Literal["float32", "bfloat16"] = "float32"
    """Precision of the image encoder; bfloat16 (8 bits of mantissa) is faster where the CPU or GPU supports it."""

    def __post_init__(self) -> None:
        """Refuses sizes that cannot be."""
        check_ranges(self, num_critics=(1, 64))
        _check_hidden(self.hidden)
