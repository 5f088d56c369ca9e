"""Rollouts that are learned from again: copies of the last ones, whole, as they were."""

from __future__ import annotations

import math
from collections import deque
from dataclasses import fields, replace
from typing import TYPE_CHECKING, Any, NamedTuple

import torch

from shoal.memory.pieces import Pieces
from shoal.types import ConfigError, Steps, map_tree, select

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    import numpy as np

UNUSED = ("advantage", "target", "weight")
"""What is not kept: what an algorithm computes anew."""
LATER = ("cost", "final_index", "final_obs", "latest")
"""Fields that older checkpoints lack."""
NAMES = [field.name for field in fields(Steps) if field.name not in UNUSED]


class Kept(NamedTuple):
    """A rollout and its number, by which a checkpoint finds it again."""

    number: int
    steps: Steps


class KeptRollouts:
    """The last `size` rollouts, on the device that learns from them."""

    def __init__(self, size: int, device: torch.device) -> None:
        """Without any; `size` 0 keeps none."""
        self.device = device
        self.added = 0
        """Rollouts that were kept so far."""
        self._kept: deque[Kept] = deque(maxlen=size)

    def __len__(self) -> int:
        return len(self._kept)

    def keep(self, steps: Steps) -> None:
        """Copies a rollout [T, B], in the place of the oldest where there is no room."""
        if self._kept.maxlen == 0:
            return
        used = slice(0, int(steps.final_index.max()) + 1)
        steps = replace(steps, final_obs=select(steps.final_obs, used))
        copied = {name: _copy(getattr(steps, name)) for name in NAMES}
        self._kept.append(Kept(self.added, Steps(**copied)))
        self.added += 1

    def draw(self, fraction: float, rng: np.random.Generator) -> Iterator[Steps]:
        """Old rollouts beside a new one, each alike: so many that on average they are the share `fraction` of all.

        Nothing is drawn where none is kept, nor `rng` asked.
        """
        if not self._kept or fraction == 0:
            return
        count = math.floor(fraction / (1 - fraction) + rng.random())
        for place in rng.integers(len(self._kept), size=count):
            yield self._kept[place].steps

    def state(self) -> dict[str, Any]:
        """The rollouts; a checkpoint writes those that the one before did not hold."""
        arrays: dict[str, Any] = {}
        trees: list[dict[str, Any]] = []
        for number, steps in self._kept:

            def note(leaf: torch.Tensor, number: int = number) -> str:
                name = f"{number}.{sum(key.startswith(f'{number}.') for key in arrays)}"
                arrays[name] = leaf.cpu().numpy()
                return name

            trees.append({name: _noted(note, getattr(steps, name)) for name in NAMES})
        return {
            "added": self.added,
            "numbers": [kept.number for kept in self._kept],
            "trees": trees,
            "leaves": Pieces(arrays),
        }

    def restore(self, state: Mapping[str, Any]) -> None:
        """Makes the memory what it was; ConfigError where the state is damaged."""
        try:
            arrays: Mapping[str, Any] = state["leaves"].arrays

            def leaf(name: str) -> torch.Tensor:
                return torch.from_numpy(arrays[name]).to(self.device)

            found = [_steps(tree, leaf) for tree in state["trees"]]
            numbered = list(map(Kept, state["numbers"], found))
            self.added = int(state["added"])
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise ConfigError(
                f"the checkpoint's kept rollouts are damaged: {type(error).__name__}: {error}"
            ) from error
        self._kept.clear()
        self._kept.extend(numbered)


def _noted(function: Any, tree: Any) -> Any:
    """`map_tree` of a tree that may not be there."""
    return None if tree is None else map_tree(function, tree)


def _copy(tree: Any) -> Any:
    return _noted(torch.clone, tree)


def _steps(saved: Mapping[str, Any], leaf: Callable[[str], torch.Tensor]) -> Steps:
    """Steps of what a checkpoint holds; older ones say of no final observation, and not what came last."""
    held = dict.fromkeys(LATER) | dict(saved)
    found = {name: _noted(leaf, held[name]) for name in NAMES}
    if found["final_index"] is None:
        found["final_index"] = torch.full_like(found["version"], -1)
    return Steps(**found)
