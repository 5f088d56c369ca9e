"""Drift: whether what is observed on the real system is what was observed in training, number by number."""

from __future__ import annotations

import json
from dataclasses import dataclass
from math import prod
from typing import TYPE_CHECKING, Any, cast

import numpy as np
from gymnasium import spaces

from shoal.envs.names import feature_names
from shoal.run.drafts import write_atomic
from shoal.run.reading import parse_json, read_bytes, sentence
from shoal.types import ConfigError, leaf_spaces

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from numpy.typing import NDArray

    from shoal.deploy.stages.criteria import Drifts
    from shoal.types import Spec

    Array = NDArray[np.float64]

MOST_FEATURES = 256
"""Numbers of an observation that are watched; of images nothing is."""
BINS = 10
LEAST_SHARE = 1e-4
"""Of a bin in which nothing was seen, in the index."""
REFERENCE_EPISODES = 20
"""Greedy ones, of which a reference's bins are."""
CHANCE = 2.0
"""Times the index that chance alone makes of so few episodes, on average: so much more it must be to be alarmed."""
BYTES = 1 << 20
HUGE, MOST_SEEN = 1e100, 2**40
"""Beyond them nothing was observed, and nothing so often: sums and squares of them are finite."""


def watched(spec: Spec) -> tuple[str, ...]:
    """The numbers of an observation that are watched, by name; none of an observation that has too many."""
    parts = [part for _, part in leaf_spaces(spec.observation_space)]
    count = sum(prod(part.shape) for part in parts if isinstance(part, spaces.Box))
    return feature_names(spec) if count <= MOST_FEATURES else ()


def numbers_of(spec: Spec, leaves: Sequence[NDArray[Any]]) -> Array:
    """The numbers that are watched of N observations, whose leaves are [N, ...]: [N, F]."""
    boxes = [
        np.asarray(values, np.float64).reshape(len(values), -1)
        for values, (_, part) in zip(
            leaves, leaf_spaces(spec.observation_space), strict=True
        )
        if isinstance(part, spaces.Box)
    ]
    return np.concatenate(boxes, 1)


@dataclass(frozen=True, slots=True, eq=False)
class Reference:
    """What F numbers of an observation were like in training."""

    names: tuple[str, ...]
    mean: Array
    """[F]"""
    std: Array
    """[F]"""
    edges: Array
    """[F, BINS - 1]: between the bins, at tenths of what greedy episodes showed."""
    share: Array
    """[F, BINS]: of each bin in those episodes."""
    source: str
    """Whose mean and deviation they are."""

    @classmethod
    def of(
        cls,
        names: Sequence[str],
        seen: Array,
        moments: tuple[Array, Array] | None = None,
    ) -> Reference:
        """From observations [N, F] of greedy episodes; `moments`: mean and deviation [F] of all of training instead."""
        edges = np.quantile(seen, np.arange(1, BINS) / BINS, axis=0).T
        counts = _binned(seen, edges)
        source = "greedy episodes in the simulator"
        mean, std = seen.mean(0), seen.std(0)
        if moments is not None:
            mean, std = moments
            source = "all observations of training"
        share = counts / counts.sum(1, keepdims=True)
        return cls(tuple(names), mean, std, edges, share, source)

    def write(self, path: Path) -> None:
        """As JSON."""
        arrays = ("mean", "std", "edges", "share")
        said: dict[str, Any] = {
            name: cast("Array", getattr(self, name)).tolist() for name in arrays
        }
        said |= {"names": list(self.names), "source": self.source}
        write_atomic(path, json.dumps(said, allow_nan=False).encode())

    @classmethod
    def read(cls, path: Path) -> Reference | None:
        """None where there is no file; ConfigError where it is damaged."""
        try:
            said: Any = parse_json(read_bytes(path, at_most=BYTES))
            names = said["names"]
            count = len(names)
            shapes = {
                "mean": (count,),
                "std": (count,),
                "edges": (count, BINS - 1),
                "share": (count, BINS),
            }
            arrays = {name: np.array(said[name], np.float64) for name in shapes}
            fits = all(arrays[name].shape == shape for name, shape in shapes.items())
            finite = all((np.abs(array) <= HUGE).all() for array in arrays.values())
            texts = [*names, said["source"]]
            plain = all(isinstance(x, str) and x.isprintable() for x in texts)
            if not (fits and finite and plain and count <= MOST_FEATURES):
                raise ValueError("it holds other numbers than are written")
        except FileNotFoundError:
            return None
        except ConfigError:
            raise
        except (ValueError, KeyError, TypeError, OverflowError) as error:
            raise ConfigError(
                f"{path} is damaged ({sentence(error)}); enter `simulate` again"
            ) from error
        return cls(tuple(names), **arrays, source=said["source"])


@dataclass(frozen=True, slots=True)
class Drift:
    """How far a number has gone from what it was in training."""

    feature: str
    shift: float
    """Difference of means, in standard deviations of training."""
    psi: float
    """Population stability index: sum of (share - share in training) log of their ratio over the bins."""
    alarmed: bool

    def __str__(self) -> str:
        """In a line."""
        return (
            f"{self.feature} has drifted: mean {self.shift:+.2f} deviations of training, stability index "
            f"{self.psi:.2f}"
        )


class Seen:
    """Counts, means, squared deviations and bins of what is observed, added up as it comes."""

    def __init__(self, reference: Reference) -> None:
        """Bins are those of `reference`."""
        size = len(reference.names)
        self.reference, self.count = reference, 0
        self.mean, self.m2 = np.zeros(size), np.zeros(size)
        self.bins = np.zeros((size, BINS), np.int64)
        self.episodes = 0
        # Of episodes: squared bins, bins times observations, squared observations.
        self._squares, self._products = np.zeros((2, size, BINS))
        self._counts = 0.0

    def add(self, numbers: Array) -> None:
        """Takes in observations [N, F] of an episode."""
        other = Seen(self.reference)
        other.count = len(numbers)
        other.mean = numbers.mean(0)
        other.m2 = np.square(numbers - other.mean).sum(0)
        other._take_episode(_binned(numbers, self.reference.edges))
        self.merge(other)

    def _take_episode(self, bins: NDArray[np.int64]) -> None:
        """The bins of all observations, which are of one episode."""
        self.bins, self.episodes = bins, 1
        self._squares, self._products = (
            np.square(bins, dtype=np.float64),
            1.0 * bins * self.count,
        )
        self._counts = float(self.count) ** 2

    def merge(self, other: Seen) -> None:
        """Takes in what another one saw (Chan et al. 1979)."""
        count = self.count + other.count
        if not count:
            return
        delta = other.mean - self.mean
        self.m2 = self.m2 + other.m2
        self.m2 += np.square(delta) * (self.count * other.count / count)
        self.mean = self.mean + delta * (other.count / count)
        self.bins = self.bins + other.bins
        self.count = count
        self.episodes += other.episodes
        self._squares = self._squares + other._squares
        self._products = self._products + other._products
        self._counts += other._counts

    def state(self) -> dict[str, Any]:
        """As plain numbers."""
        return {
            "count": self.count,
            "mean": self.mean.tolist(),
            "m2": self.m2.tolist(),
            "bins": self.bins.tolist(),
        }

    @classmethod
    def of(cls, reference: Reference, state: Any) -> Seen:
        """From what `state` gave; ValueError where it is something else."""
        made = cls(reference)
        arrays = {name: np.array(state[name], np.float64) for name in ("mean", "m2")}
        bins = np.array(state["bins"], np.int64)
        same = all(array.shape == made.mean.shape for array in arrays.values())
        count = state["count"]
        if not same or bins.shape != made.bins.shape or type(count) is not int:
            raise ValueError("observations were counted in other bins")
        finite = all((np.abs(array) <= HUGE).all() for array in arrays.values())
        if (
            not 0 <= count < MOST_SEEN
            or (bins < 0).any()
            or (bins > count).any()
            or not finite
        ):
            raise ValueError("counts of observations are none")
        made.count = count
        made._take_episode(bins)
        made.mean, made.m2 = arrays["mean"], arrays["m2"]
        return made

    def _chance(self) -> Array:
        """The index [F] that chance alone makes, on average, by how the shares of episodes differ; 0 of one episode.

        Observations of an episode are alike: a hundred of them may say as little as one.
        """
        if self.episodes < 2:
            return np.zeros(len(self.bins))
        share = self.bins / self.count
        apart = self._squares - 2 * share * self._products + share**2 * self._counts
        variance = apart / self.count**2 * self.episodes / (self.episodes - 1)
        both = variance * (1 + self.episodes / REFERENCE_EPISODES)
        return np.asarray((both / np.maximum(share, 1 / self.count)).sum(1), np.float64)

    def drifts(self, limits: Drifts) -> list[Drift]:
        """Of every number, the farthest first; none where too little was seen."""
        if self.count < limits.least_observations:
            return []
        reference = self.reference
        std = np.maximum(reference.std, 1e-6 * np.maximum(1, np.abs(reference.mean)))
        shift = (self.mean - reference.mean) / std
        now = np.maximum(self.bins / self.count, LEAST_SHARE)
        before = np.maximum(reference.share, LEAST_SHARE)
        psi = ((now - before) * np.log(now / before)).sum(1)
        high = (np.abs(shift) > limits.most_shift) | (
            psi > limits.most_psi + CHANCE * self._chance()
        )
        found = [
            Drift(name, float(one), float(index), bool(alarm))
            for name, one, index, alarm in zip(
                reference.names, shift, psi, high, strict=True
            )
        ]
        return sorted(found, key=lambda drift: (-drift.psi, -abs(drift.shift)))


def _binned(numbers: Array, edges: Array) -> NDArray[np.int64]:
    """How many of [N, F] lie in each bin: [F, BINS]."""
    found = [
        np.bincount(np.searchsorted(between, column), minlength=BINS)
        for column, between in zip(numbers.T, edges, strict=True)
    ]
    return np.stack(found)
