"""Packed: a network's parameters as one flat buffer, whatever the module's owner does to them in between."""

from __future__ import annotations

from typing import TYPE_CHECKING

from shoal.learn.weights import (
    REPLACED,
    Layers,
    packed_together,
    packing,
    rejoin,
    trained_of,
)
from shoal.types import ConfigError

if TYPE_CHECKING:
    from torch import Tensor, nn


class Packed:
    """The flat buffer of a module's parameters, which native code may share.

    Where a module trains some of them only (`part_trained`), the others stay where they lie.
    """

    def __init__(self, module: nn.Module) -> None:
        """Moves the parameters into it."""
        self.module = module
        self._pack()

    def check_same(self, *, trained: bool) -> None:
        """ConfigError where an optimizer would go on with parameters that the module no longer has.

        A network that is not trained, such as a target network, may get other layers.
        """
        if self.layers.same:
            return
        if trained:
            raise ConfigError(REPLACED)
        self._pack()

    def _pack(self) -> None:
        trained = trained_of(self.module)
        self.parameters = packing(self.module) if trained is None else trained
        self.memory: Tensor = packed_together(self.parameters, self.module)
        self._pointers = [p.data_ptr() for p in self.parameters]
        self.layers = Layers(self.module)

    def rejoin(self) -> None:
        """Takes over values that the module's owner put in the place of the shared memory."""
        if [p.data_ptr() for p in self.parameters] != self._pointers:
            rejoin(self.parameters, self.memory, keep=True)
