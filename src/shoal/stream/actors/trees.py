"""What a learner and an actor on another machine say, as plain trees: nothing is pickled on the way."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from shoal.stream.actors.messages import Request
from shoal.stream.actors.parts import Part
from shoal.stream.actors.weights import Weights

if TYPE_CHECKING:
    from collections.abc import Mapping


class Whole:
    """Carries a value in the message itself."""

    slabs_in_turn = False

    def __init__(self) -> None:
        """Nothing was counted or kept."""
        self.steps = 0
        self.kept: Any = None
        """What the actor kept last."""

    def write(self, value: object, region: int) -> Any:
        """A part, or a state, as a tree."""
        return plain(value.saved() if isinstance(value, Part) else value)

    def read(self, packed: Any) -> Any:
        """Weights by role."""
        return {name: Weights(**own) for name, own in packed.items()}

    def let_go(self, packed: Any) -> None:
        """Nothing is held."""

    def read_copy(self, packed: Any) -> Any:
        """A state, whose arrays came with the message."""
        return packed

    def keep(self, value: object) -> None:
        """Keeps a copy."""
        self.kept = plain(copied(value))

    def count(self) -> None:
        """Counts one more."""
        self.steps += 1


def copied(tree: Any) -> Any:
    """A tree whose arrays and tensors are in memory of their own; what is none, as it is."""
    match tree:
        case np.ndarray():
            return tree.copy()
        case torch.Tensor():
            return tree.detach().clone()
        case dict():
            return {key: copied(part) for key, part in tree.items()}
        case list():
            return [copied(part) for part in tree]
        case tuple():
            return tuple(copied(part) for part in tree)
        case _:
            return tree


def plain(tree: Any) -> Any:
    """A tree with arrays in the place of tensors."""
    match tree:
        case torch.Tensor():
            return tree.detach().cpu().numpy()
        case dict():
            return {key: plain(part) for key, part in tree.items()}
        case list():
            return [plain(part) for part in tree]
        case tuple():
            return tuple(plain(part) for part in tree)
        case _:
            return tree


def weights_tree(weights: Mapping[str, Weights]) -> dict[str, Any]:
    """Weights by role."""
    return {
        name: {
            "version": own.version,
            "flat": own.flat,
            "buffers": plain(own.buffers),
            "names": None if own.names is None else list(own.names),
            "since": own.since,
        }
        for name, own in weights.items()
    }


def request_tree(request: Request) -> dict[str, Any]:
    """A request for a rollout."""
    return {
        "region": request.region,
        "epsilon": request.epsilon,
        "values": request.values,
    }
