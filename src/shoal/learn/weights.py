"""Weights as one flat packed buffer: a policy's parameters become views of it, and a snapshot is one copy."""

from __future__ import annotations

import copy
from itertools import accumulate
from typing import TYPE_CHECKING, Any

import torch
from torch.nn.parameter import is_lazy

from shoal.learn.loose import loose_tensors, warn_of_changed
from shoal.nets.images import ImageEncoder
from shoal.nets.normalizer import Normalizer, PixelNormalizer
from shoal.types import ConfigError, text_of

if TYPE_CHECKING:
    from collections.abc import Mapping

    from torch import Tensor, nn

REPLACED = (
    "the network's layers or parameters were replaced after it began to act or learn; change their values in place "
    "(with torch.no_grad(): parameter.copy_(...)), or replace them before"
)


def pack(module: nn.Module) -> Tensor:
    """The flat buffer that all parameters share, in the order of `packing`; the first call moves them into it."""
    return packed_together(packing(module), module)


def trained_of(module: nn.Module) -> list[nn.Parameter] | None:
    """The parameters that are trained, where a module says that it has others (`part_trained`): as torch lists them."""
    if not getattr(module, "part_trained", False):
        return None
    return [p for p in module.parameters() if p.requires_grad]


def packed_together(parameters: list[nn.Parameter], module: nn.Module) -> Tensor:
    """`pack` of some of a module's parameters."""
    if not parameters:
        return torch.empty(0)
    if any(is_lazy(p) for p in parameters):
        lazy = next(name for name, p in module.named_parameters() if is_lazy(p))
        raise ConfigError(
            f"the parameter {lazy} of a lazy layer has no shape yet; "
            "call the network once on an observation before it is trained or acts"
        )
    kinds = {(p.dtype, p.device) for p in parameters}
    if len(kinds) > 1:
        raise ValueError(
            f"a policy's parameters must share one dtype and device, got {sorted(map(str, kinds))}"
        )
    starts = list(accumulate((p.numel() for p in parameters), initial=0))
    storage = parameters[0].untyped_storage()
    if storage.nbytes() == starts[-1] * parameters[0].element_size() and all(
        p.untyped_storage().data_ptr() == storage.data_ptr()
        and p.storage_offset() == start
        and p.is_contiguous()
        for p, start in zip(parameters, starts, strict=False)
    ):
        return parameters[0].data.as_strided((starts[-1],), (1,), 0)
    flat = torch.cat([p.detach().reshape(-1) for p in parameters])
    for parameter, start in zip(parameters, starts, strict=False):
        parameter.data = flat[start : start + parameter.numel()].view_as(parameter)
    return flat


def layers_of(module: nn.Module) -> list[nn.Module]:
    """The module and all layers in it, as torch's `modules()` lists them, in less than half of its time."""
    found: dict[int, nn.Module] = {}
    _walk(module, found)
    return list(found.values())


def _walk(layer: nn.Module, found: dict[int, nn.Module]) -> None:
    if id(layer) in found:
        return
    found[id(layer)] = layer
    for child in layer._modules.values():  # pyright: ignore[reportPrivateUsage]
        if child is not None:
            _walk(child, found)


class Layers:
    """A module and all layers in it, listed again only where something was put in another's place."""

    def __init__(self, module: nn.Module) -> None:
        """Lists them."""
        self.module = module
        self.parameters: list[nn.Parameter] = []
        """In packed order, as they were when they were listed."""
        self._list()

    @property
    def same(self) -> bool:
        """Whether the layers and parameters are the objects that they were when they were listed."""
        return self._ids() == self._before

    def now(self) -> list[nn.Module]:
        """Those that there are by now."""
        if not self.same:
            self._list()
        return self._found

    def _list(self) -> None:
        self._found = layers_of(self.module)
        self.parameters = packed_order(self._found)
        own = map(vars, self._found)
        pairs = ((table["_parameters"], table["_modules"]) for table in own)
        self._tables: list[dict[str, Any]] = [table for pair in pairs for table in pair]
        self._before = self._ids()

    def _ids(self) -> list[int]:
        """Which parameters and modules hang on each."""
        return [id(part) for table in self._tables for part in table.values()]


def packing(module: nn.Module) -> list[nn.Parameter]:
    """The parameters in packed order: as torch lists them, but a module's own last (a head's log_std)."""
    return packed_order(layers_of(module))


def packed_order(layers: list[nn.Module]) -> list[nn.Parameter]:
    """`packing` of the module whose layers these are, itself the first."""
    tables = [layer._parameters for layer in layers]  # pyright: ignore[reportPrivateUsage]
    own = {id(p): p for p in tables[0].values() if p is not None}
    rest = {id(p): p for table in tables[1:] for p in table.values() if p is not None}
    return [*(p for key, p in rest.items() if key not in own), *own.values()]


def rejoin(parameters: list[nn.Parameter], flat: Tensor, *, keep: bool) -> None:
    """Makes parameters views of `flat` again where their owner gave them other memory (`parameter.data = ...`).

    `keep` copies what they hold into `flat` first. ConfigError for another number of values.
    """
    first, base, size = 0, flat.data_ptr(), flat.element_size()
    for parameter in parameters:
        place, start = base + first * size, first
        first += parameter.numel()
        if parameter.data_ptr() == place and parameter.is_contiguous():
            continue
        own = flat[start:first]
        if len(own) < parameter.numel():
            break
        if keep:
            own.copy_(parameter.detach().reshape(-1))
        parameter.data = own.view_as(parameter)
    if first != len(flat):
        raise ConfigError(
            f"the network's parameters hold {first} numbers, but {len(flat)} when it began to act or learn; "
            "parameter.data must keep its shape"
        )


def copy_buffers(source: list[nn.Module], target: list[nn.Module]) -> None:
    """Gives the layers of a copy the buffers that the module's have now: those that were assigned or added as well.

    ConfigError where layers were added to the module or taken out.
    """
    if len(source) != len(target):
        raise ConfigError(REPLACED)
    for theirs, mine in zip(source, target, strict=True):
        if not (theirs._buffers or mine._buffers):  # pyright: ignore[reportPrivateUsage]
            continue
        given = dict(theirs.named_buffers(recurse=False))
        old = dict(mine.named_buffers(recurse=False))
        for name in old.keys() - given.keys():
            setattr(mine, name, None)
        for name, buffer in given.items():
            own = old.get(name)
            if own is not None and not own.is_inference() and _alike(own, buffer):
                own.copy_(buffer)
            elif hasattr(mine, name):
                setattr(mine, name, buffer.detach().clone())
            else:
                mine.register_buffer(name, buffer.detach().clone())


def copy_named(source: nn.Module, target: nn.Module, only: frozenset[str]) -> None:
    """Gives a copy of a module those parameters and buffers that the module has now."""
    given = dict(source.named_parameters()) | dict(source.named_buffers())
    own = dict(target.named_parameters()) | dict(target.named_buffers())
    with torch.no_grad():
        for name in only:
            own[name].copy_(given[name])


def _alike(one: Tensor, other: Tensor) -> bool:
    return (one.shape, one.dtype, one.device) == (
        other.shape,
        other.dtype,
        other.device,
    )


class Snapshot:
    """A private copy of a policy that acts; `update` makes it equal to the learner's."""

    def __init__(self, policy: nn.Module) -> None:
        """Copies the module; the copy never has gradients. ConfigError for a buffer that carries some."""
        for name, buffer in policy.named_buffers():
            if buffer.grad_fn is not None:
                raise ConfigError(
                    f"the policy's buffer {name} carries gradients, so it cannot be copied; assign it detached: "
                    f"self.{name.rpartition('.')[2]} = ... .detach()"
                )
        self.policy = copy.deepcopy(policy).requires_grad_(requires_grad=False)
        self.policy.eval()
        self.flat = pack(self.policy)
        self._own, self._theirs = Layers(self.policy), Layers(policy)
        self._loose = loose_tensors(layers_of(policy))
        self._images = [
            module
            for module in self.policy.modules()
            if isinstance(module, ImageEncoder)
        ]
        self._freeze()

    def update(
        self, policy: nn.Module, flat: Tensor, only: frozenset[str] = frozenset()
    ) -> None:
        """Copies the packed weights and the buffers, whatever objects either module has for them by now.

        With `only` those parameters and buffers alone.
        """
        if only:
            copy_named(policy, self.policy, only)
            self._freeze()
            return
        if len(flat) != len(self.flat):
            raise ConfigError(REPLACED)
        if self._theirs.module is not policy:
            self._theirs = Layers(policy)
        if self._loose:
            self._loose = warn_of_changed(self._loose)
        layers = self._own.now()
        rejoin(self._own.parameters, self.flat, keep=False)
        self.flat.copy_(flat)
        copy_buffers(self._theirs.now(), layers)
        self._freeze()

    def _freeze(self) -> None:
        for module in self._images:
            module.freeze()


def not_finite(module: nn.Module, moments: Mapping[str, Any] | None = None) -> str:
    """The first parameter, statistic of a shoal layer or optimizer's moment that is not finite; empty if all are."""
    layers = [
        m for m in module.modules() if isinstance(m, Normalizer | PixelNormalizer)
    ]
    named = [*module.named_parameters()]
    named += [pair for layer in layers for pair in layer.named_buffers("statistic")]
    for number, state in (moments or {}).get("state", {}).items():
        pairs = ((f"moment {name} of {number}", x) for name, x in state.items())
        named += [pair for pair in pairs if torch.is_tensor(pair[1])]
    for name, tensor in named:
        if not torch.isfinite(tensor).all():
            return name
    return ""


def check_savable(module: nn.Module, moments: Mapping[str, Any] | None) -> None:
    """FloatingPointError where a network or its optimizer's moments are not finite."""
    if bad := not_finite(module, moments):
        raise FloatingPointError(NOT_FINITE.format(bad))


NOT_FINITE = (
    "{} is not finite, so nothing was saved; older checkpoints are kept. Try a smaller learning_rate, or smaller "
    "rewards and observations (reward_scale, network.normalize_obs)"
)
ANOTHER = "the checkpoint holds another network"
GIVE_POLICY = "a run that was given a policy object needs it again (policy=..., or --policy module:Class)"


def learned_state(module: nn.Module) -> dict[str, Any]:
    """What a checkpoint holds of a module: its state by torch's names, or what it says itself (`learned_state`)."""
    own: Any = getattr(module, "learned_state", module.state_dict)
    return own()


def load_weights(
    module: nn.Module,
    saved: dict[str, Any],
    *,
    refused: str = ANOTHER,
    advice: str = GIVE_POLICY,
) -> None:
    """Copies saved weights into a module.

    Raises:
        ConfigError: they are another network's, which is said as `refused`, the first difference and `advice`; or
            they are not finite.
    """
    try:
        load: Any = getattr(module, "load_learned", module.load_state_dict)
        load(saved)
    except RuntimeError as error:
        said = _first_difference(module.state_dict(), saved)
        raise ConfigError(f"{refused}: {said or text_of(error)}; {advice}") from error
    if bad := not_finite(module):
        raise ConfigError(
            f"the checkpoint's weights are not finite ({bad}): that training diverged; train again, with a smaller "
            "learning_rate"
        )


def _first_difference(own: Mapping[str, Any], saved: Mapping[str, Any]) -> str:
    """The first parameter or buffer in which two networks differ, with its shapes; empty where all are alike."""
    for name, value in own.items():
        if name not in saved:
            return f"it has no {name}, which is {_shape(value)} here"
        if _shape(saved[name]) != _shape(value):
            return f"{name} is {_shape(saved[name])} there and {_shape(value)} here"
    for name, value in saved.items():
        if name not in own:
            return f"it has {name} {_shape(value)}, which is not here"
    return ""


def _shape(value: object) -> str:
    if torch.is_tensor(value):
        return str(list(value.shape))
    return type(value).__name__
