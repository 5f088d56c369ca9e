"""Packed: a network's parameters as one flat buffer, whatever the module's owner does to them in between."""

from __future__ import annotations

from typing import TYPE_CHECKING

from shoal.learn.weights import REPLACED, pack, packing, rejoin
from shoal.types import ConfigError

if TYPE_CHECKING:
    from torch import Tensor, nn


class Packed:
    """The flat buffer of a module's parameters, which native code may share."""

    def __init__(self, module: nn.Module) -> None:
        """Moves the parameters into it."""
        self.module = module
        self.memory: Tensor = pack(module)
        self.parameters = packing(module)
        self._pointers = [p.data_ptr() for p in self.parameters]
        self._parts = _parts(module)

    def check_same(self, *, trained: bool) -> None:
        """ConfigError where an optimizer would go on with parameters that the module no longer has.

        A network that is not trained, such as a target network, may get other layers.
        """
        if all(_ids(part) == ids for part, ids in self._parts):
            return
        if trained:
            raise ConfigError(REPLACED)
        self.memory, self.parameters = pack(self.module), packing(self.module)
        self._pointers = [p.data_ptr() for p in self.parameters]
        self._parts = _parts(self.module)

    def rejoin(self) -> None:
        """Takes over values that the module's owner put in the place of the shared memory."""
        if [p.data_ptr() for p in self.parameters] != self._pointers:
            rejoin(self.parameters, self.memory, keep=True)


def _parts(module: nn.Module) -> list[tuple[nn.Module, list[int]]]:
    """A module and all below it, with what each consists of."""
    return [(part, _ids(part)) for part in module.modules()]


def _ids(module: nn.Module) -> list[int]:
    """Which parameters and modules hang on a module itself."""
    own = vars(module)
    return [*map(id, own["_parameters"].values()), *map(id, own["_modules"].values())]
