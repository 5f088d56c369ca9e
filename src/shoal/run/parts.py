"""Parts of a checkpoint: whatever has a state, by name, shoal's own or torch's."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Protocol, TypeAlias, runtime_checkable

import torch

from shoal.learn.weights import load_weights
from shoal.types import ConfigError


@runtime_checkable
class Stateful(Protocol):
    """Something of shoal's that can be saved."""

    def state(self) -> Any:
        """All that `restore` needs."""
        ...

    def restore(self, state: Any, /) -> object:
        """Continues from `state`."""
        ...


@runtime_checkable
class TorchStateful(Protocol):
    """Something of torch's that can be saved: a module, an optimizer, a schedule of rates."""

    def state_dict(self) -> Any:
        """All that `load_state_dict` needs."""
        ...

    def load_state_dict(self, state_dict: Any, /) -> object:
        """Continues from `state_dict`."""
        ...


Part: TypeAlias = Stateful | TorchStateful


def check_parts(parts: Mapping[str, object]) -> None:
    """ConfigError where one of them cannot be saved and restored."""
    for name, part in parts.items():
        own = (getattr(part, method, None) for method in ("state", "restore"))
        if not all(map(callable, own)) and not isinstance(part, TorchStateful):
            raise ConfigError(
                f"run.loop: state[{name!r}] is of the type {type(part).__name__}; it needs state() and restore(saved), "
                "or state_dict() and load_state_dict(saved)"
            )


def states_of(parts: Mapping[str, Part]) -> dict[str, Any]:
    """The state of each part; arrays are the parts' own, not copies."""
    return {name: _state_of(part) for name, part in parts.items()}


def restore_into(
    parts: Mapping[str, Part], saved: Mapping[str, Any], updates: int
) -> None:
    """Restores each part from its state in the checkpoint of `updates`.

    Raises:
        ConfigError: the checkpoint does not hold one of them, holds another network's, or one that is not there.
    """
    for name, part in parts.items():
        if name not in saved:
            raise ConfigError(f"the checkpoint of update {updates} holds no {name!r}")
        if isinstance(part, torch.nn.Module):
            load_weights(part, saved[name])
        elif isinstance(part, TorchStateful):
            part.load_state_dict(saved[name])
        else:
            part.restore(saved[name])
    for name in saved:
        if name not in parts:
            raise ConfigError(
                f"the checkpoint of update {updates} holds {name!r}, which was not given to run.loop; "
                "give it again, or train a new run"
            )


def _state_of(part: Part) -> Any:
    return part.state_dict() if isinstance(part, TorchStateful) else part.state()
