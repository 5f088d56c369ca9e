"""Programs: a policy of shoal's own layers as a list of operations on arrays, which other languages can be made of."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, TypeAlias

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Iterator

    from numpy.typing import NDArray

    from shoal.envs.action_guard.limits import Limits
    from shoal.types import Leaf

    Weights: TypeAlias = NDArray[np.float32]


@dataclass(frozen=True, slots=True, eq=False)
class Dense:
    """y = x W + b, with `weight` [inputs, outputs] and `bias` [outputs]."""

    weight: Weights
    bias: Weights


@dataclass(frozen=True, slots=True)
class Activation:
    """tanh, or max(x, 0), of each number."""

    kind: Literal["tanh", "relu"]


@dataclass(frozen=True, slots=True, eq=False)
class Norm:
    """(x - mean(x)) / sqrt(var(x) + eps) * weight + bias over all numbers; weight and bias repeat over them."""

    weight: Weights
    bias: Weights
    eps: float


@dataclass(frozen=True, slots=True, eq=False)
class Convolution:
    """A convolution of [height, width, channels], with `weight` [side, side, channels, filters]."""

    weight: Weights
    bias: Weights
    stride: int
    padding: int
    given: tuple[int, int, int]
    """Height, width and channels of what it reads."""
    made: tuple[int, int, int]
    """And of what it gives."""


@dataclass(frozen=True, slots=True)
class MaxPool:
    """The greatest number of each 3 x 3 places at every second place of [height, width, channels]."""

    given: tuple[int, int, int]
    made: tuple[int, int, int]


@dataclass(frozen=True, slots=True)
class Residual:
    """x + layers(x)."""

    layers: tuple[Layer, ...]


Layer: TypeAlias = Dense | Activation | Norm | Convolution | MaxPool | Residual


@dataclass(frozen=True, slots=True, eq=False)
class Standardize:
    """(x - mean) * inv_std, clipped to +-clip: the statistics of a run's observations."""

    mean: Weights
    inv_std: Weights
    clip: float


@dataclass(frozen=True, slots=True)
class Numbers:
    """A leaf whose numbers are read one after another, divided by `divisor`."""

    leaf: Leaf
    size: int
    divisor: float = 1.0
    normalizer: Standardize | None = None
    layers: tuple[Layer, ...] = ()


@dataclass(frozen=True, slots=True)
class Choices:
    """A leaf of choices, each as a vector of zeros with one 1."""

    leaf: Leaf
    options: tuple[int, ...]
    first: tuple[int, ...]
    """What each choice counts from."""

    @property
    def size(self) -> int:
        """Numbers that it becomes."""
        return sum(self.options)


@dataclass(frozen=True, slots=True)
class Image:
    """A leaf of pixels, put in the order height, width, channels and passed through convolutions."""

    leaf: Leaf
    sides: tuple[int, int, int]
    """Height, width and channels, a stack's images folded into the channels."""
    last: bool
    """Whether the channels stand last in the leaf."""
    low: float
    span: float
    """Floats are scaled from [low, low + span] to [0, 255]; 0: pixels are taken as they are."""
    normalizer: Standardize | None
    layers: tuple[Layer, ...]
    size: int
    """Numbers that it becomes."""


Reading: TypeAlias = Numbers | Choices | Image


@dataclass(frozen=True, slots=True, eq=False)
class Memory:
    """A GRU or LSTM cell, its weights transposed: [inputs, gates * units] and [units, gates * units]."""

    kind: Literal["gru", "lstm"]
    units: int
    weight_in: Weights
    weight_hidden: Weights
    bias_in: Weights
    bias_hidden: Weights

    @property
    def arrays(self) -> tuple[str, ...]:
        """The parts of its state."""
        return ("h",) if self.kind == "gru" else ("h", "c")


@dataclass(frozen=True, slots=True)
class Choose:
    """A leaf of an action that makes choices: the highest of each choice's numbers."""

    leaf: Leaf
    options: tuple[int, ...]
    first: tuple[int, ...]

    @property
    def numbers(self) -> int:
        """Of the network's, how many it reads."""
        return sum(self.options)


@dataclass(frozen=True, slots=True, eq=False)
class Move:
    """A leaf of an action that is a Box: means, through tanh and scaled to the bounds, or clipped to them."""

    leaf: Leaf
    low: NDArray[np.floating]
    high: NDArray[np.floating]
    squash: bool
    """Whether a mean goes through tanh."""
    log_std: Weights | Literal["network", "none"]
    """Given; or the network's own numbers after all means; or there is nothing to draw."""

    @property
    def size(self) -> int:
        """Components of the action."""
        return len(self.low)

    @property
    def numbers(self) -> int:
        """Of the network's, how many it reads."""
        doubled = isinstance(self.log_std, str) and self.log_std == "network"
        return self.size * (2 if doubled else 1)


HeadPart: TypeAlias = Choose | Move


@dataclass(frozen=True, slots=True)
class Program:
    """What happens between an observation and an action."""

    readings: tuple[Reading, ...]
    """One a leaf of the observation; their numbers stand side by side."""
    body: tuple[Layer, ...]
    memory: Memory | None
    actor: tuple[Layer, ...]
    """From the body, or the memory, to the numbers of the head."""
    state_value: tuple[Layer, ...]
    """Of a dueling network the values of states, to which `actor` gives advantages; else empty."""
    quantiles: int
    """Numbers of each action whose mean counts; 1 where it is a value itself."""
    head: tuple[HeadPart, ...]
    draws: bool
    """Whether an action can be drawn from the policy by noise."""
    limits: Limits | None = None
    """Bounds on actions and on their change, which the run's action guard had."""

    @property
    def changes_slowly(self) -> bool:
        """Whether an action's distance from the one before it is limited, so that a state holds that one."""
        return self.limits is not None and bool(self.limits.max_change)

    @property
    def has_state(self) -> bool:
        """Whether anything is remembered from step to step."""
        return self.memory is not None or self.changes_slowly

    @property
    def size(self) -> int:
        """Numbers of an encoded observation."""
        return sum(reading.size for reading in self.readings)

    @property
    def numbers(self) -> int:
        """Numbers that the head reads."""
        return sum(part.numbers for part in self.head)

    @property
    def options(self) -> int:
        """Places of an action mask: one for each number of the head; 0 where there is nothing to choose."""
        chooses = any(isinstance(part, Choose) for part in self.head)
        return self.numbers if chooses else 0

    @property
    def uniforms(self) -> int:
        """Uniform numbers of the noise that draws an action; they stand before the normal ones."""
        choosing = [part for part in self.head if isinstance(part, Choose)]
        return sum(len(part.options) for part in choosing) if self.draws else 0

    @property
    def normals(self) -> int:
        """Normal numbers of that noise."""
        moving = [part for part in self.head if isinstance(part, Move)]
        return sum(part.size for part in moving) if self.draws else 0


def sizes(layers: tuple[Layer, ...], size: int) -> Iterator[tuple[Layer, int, int]]:
    """Each layer with how many numbers it reads and gives, the first one reading `size`."""
    for layer in layers:
        given = size
        if isinstance(layer, Dense):
            size = layer.weight.shape[1]
        elif isinstance(layer, Convolution | MaxPool):
            size = int(np.prod(layer.made))
        yield layer, given, size


def out_size(layers: tuple[Layer, ...], size: int) -> int:
    """Numbers that the last of the layers gives."""
    for _, _, made in sizes(layers, size):
        size = made
    return size
