"""What a user's own policy is given, the Spec or observations, and what is said where it cannot take that."""

from __future__ import annotations

import inspect
import traceback
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from shoal.types import RAISED, ConfigError, map_tree, refuse_leaving, text_of

if TYPE_CHECKING:
    from collections.abc import Callable

    from torch import Tensor, nn

    from shoal.types import Layout, Spec, Tree

SIGNATURE = (
    "write it as a class or function of the Spec alone, of which spec.observation_space and spec.action_space are "
    "Gymnasium's spaces, or give a module that is made already: policy=MyNet(4, 2)"
)
RETURNS = "return (logits, value), or (mean, log_std, value) for Box actions, as tensors of float32"
TORCH = str(Path(torch.__file__).parent)


class OutputError(ConfigError):
    """What a policy returned is no policy's output, whatever it was given."""


def check_factory(factory: Callable[[Spec], object]) -> None:
    """ConfigError unless a policy's class or function can be called with the Spec alone."""
    name = getattr(factory, "__name__", repr(factory))
    if not callable(factory):
        raise ConfigError(
            f"the policy {name} is neither a torch.nn.Module nor a function of the Spec"
        )
    try:
        inspect.signature(factory).bind(None)
    except TypeError as error:
        raise ConfigError(
            f"the policy {name} is called with the Spec alone, but {error}; {SIGNATURE}"
        ) from error


def made_by(factory: Callable[[Spec], object], spec: Spec) -> object:
    """What a policy's class or function returns for these rows.

    Raises:
        ConfigError: it raised, and its argument is no Spec, or what is observed is nested, for which it may not be.
    """
    try:
        return factory(spec)
    except ConfigError:
        raise
    except RAISED as error:
        said = getattr(factory, "__name__", repr(factory))
        refuse_leaving(error, f"the policy {said}, called with the Spec,")
        name = getattr(factory, "__name__", repr(factory))
        parameters = inspect.signature(factory).parameters
        if not any(map(_is_spec, parameters.values())):
            raise ConfigError(
                f"the policy {name}({', '.join(parameters)}), called with the Spec, raised {_said(error)}; {SIGNATURE}"
            ) from error
        if len(spec.observation.leaves) == 1 and not spec.observation.leaves[0].path:
            raise
        raise ConfigError(
            f"the policy {name} raised {_said(error)}; {spec.env_id} observes several arrays: "
            f"{described(spec.observation, spec.observation.tree([None] * len(spec.observation.leaves)))}"
        ) from error


def _is_spec(parameter: inspect.Parameter) -> bool:
    """Whether an argument is meant to be the Spec."""
    return parameter.name == "spec" or "Spec" in str(parameter.annotation)


def forward(module: nn.Module, obs: Tree, layout: Layout) -> Any:
    """What a plain module gives for observations [N, ...].

    Raises:
        ConfigError: it raised, and what it got is nested or holds integers, which its layers may not take. For one
            array of floats its own exception arrives, with a note of what it got.
    """
    try:
        return module(obs)
    except (ConfigError, torch.OutOfMemoryError):
        raise
    except RAISED as error:
        got = described(layout, obs)
        refuse_leaving(error, f"the policy {type(module).__name__}, given {got},")
        leaves = layout.leaves
        plain = len(leaves) == 1 and not leaves[0].path
        if plain and leaves[0].dtype.kind == "f":
            error.add_note(f"shoal: the policy was given {got}")
            raise
        raise ConfigError(
            f"the policy {type(module).__name__} raised {_said(error)} when it was given {got}{_as_numbers(layout)}"
        ) from error


def rows_of(obs: Tree, layout: Layout, dtype: torch.dtype) -> tuple[torch.Size, Tree]:
    """The leading axes of observations, and these as [N, ...] with floats of `dtype`, as a plain module gets them."""
    first = layout.flat(obs)[0]
    lead = first.shape[: first.dim() - len(layout.leaves[0].shape)]

    def flatten(x: Tensor) -> Tensor:
        seen = x.reshape(-1, *x.shape[len(lead) :])
        return seen.to(dtype) if seen.is_floating_point() else seen

    return lead, map_tree(flatten, obs)


def dtype_of(module: nn.Module) -> torch.dtype:
    """Of a module's first parameter of floats; float32 where it has none."""
    floats = (p.dtype for p in module.parameters() if p.is_floating_point())
    return next(floats, torch.float32)


def as_floats(
    given: object, module: nn.Module, *, returns: str = RETURNS
) -> tuple[Tensor, ...]:
    """The tensors that a plain module returned; those of half precision, as autocast makes them, in float32.

    Raises:
        OutputError: something else was returned, such as None or integers.
    """
    parts = tuple(given) if isinstance(given, tuple | list) else (given,)
    floats: list[Tensor] = []
    for part in parts:
        if not isinstance(part, torch.Tensor) or not part.is_floating_point():
            said = ", ".join(map(_kind, parts))
            if isinstance(given, tuple | list):
                said = f"({said})"
            raise OutputError(
                f"the policy {type(module).__name__} returned {said}; {returns}"
            )
        floats.append(part.float() if part.dtype.itemsize < 4 else part)
    return tuple(floats)


def _kind(part: object) -> str:
    """What kind of thing a policy returned."""
    if isinstance(part, torch.Tensor):
        return f"a tensor of {str(part.dtype).removeprefix('torch.')}"
    return "None" if part is None else type(part).__name__


def described(layout: Layout, obs: Tree) -> str:
    """Shape and type of each leaf, by its path."""
    said: list[str] = []
    for leaf, value in zip(layout.leaves, layout.flat(obs), strict=True):
        shape, dtype = tuple(leaf.shape), str(leaf.dtype)
        if value is not None:
            shape, dtype = tuple(value.shape), str(value.dtype).removeprefix("torch.")
        said.append(f"obs{leaf.name} {dtype} {list(shape)}")
    return ", ".join(said)


def note_input(
    error: BaseException, policy: nn.Module, obs: Tree, layout: Layout
) -> None:
    """Adds to an exception of a policy of shoal's own signature what it was given, once."""
    notes: list[str] = getattr(error, "__notes__", [])
    if isinstance(error, ConfigError) or any("was given obs" in note for note in notes):
        return
    got = described(layout, obs)
    error.add_note(
        f"shoal: the policy {type(policy).__name__} was given {got}{_as_numbers(layout)}"
    )


def _as_numbers(layout: Layout) -> str:
    """How integers and choices become what a layer takes; nothing where all are floats."""
    said = ""
    whole = [leaf for leaf in layout.leaves if leaf.dtype.kind != "f"]
    for leaf in [leaf for leaf in whole if leaf.shape][:1]:
        said += f"; integers become numbers by obs{leaf.name}.float()"
    for leaf in [leaf for leaf in whole if not leaf.shape][:1]:
        said += (
            f"; a choice of Discrete(n, start=s) becomes n numbers by "
            f"torch.nn.functional.one_hot(obs{leaf.name} - s, n).float()"
        )
    return said


def _said(error: BaseException) -> str:
    """An exception's kind, text and the line of it that is no library's."""
    frames = traceback.extract_tb(error.__traceback__)
    own = [frame for frame in frames if not frame.filename.startswith(TORCH)]
    at = (own or list(frames))[-1]
    where = f"{Path(at.filename).name}:{at.lineno} in {at.name}"
    return f"{type(error).__name__}: {text_of(error)} ({where})"
