"""What a loss is to the learner, and how one says that native code has it fused."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from numbers import Real
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol, TypeGuard, TypeVar

import torch

from shoal.math.losses import (
    joined_moments,
    moments_of,
    normalize_advantage,
    standardized,
)
from shoal.types import ConfigError

if TYPE_CHECKING:
    from torch import Tensor

    from shoal.learn.ranks import Ranks
    from shoal.types import Steps


class Loss(Protocol):
    """A loss over the steps or transitions of a batch: a mean, so that parts of a batch add up."""

    __name__: str

    def __call__(
        self, output: Any, batch: Any, cfg: Any, /
    ) -> tuple[Tensor, NamedTuple]:
        """The loss, and its statistics: a NamedTuple of scalars that are means too.

        Each of them becomes the metric loss/NAME.
        """
        ...


ONE_STEP = (
    "a batch of 1 step cannot be normalized; "
    "use norm_adv=False, more num_envs or more num_steps"
)
RETURNS = "a loss returns (loss, NamedTuple of scalars that are means)"
Prepare = Callable[["Steps", Any], "Steps"]
NativeGradient = Callable[..., "tuple[list[float], Tensor] | None"]
F = TypeVar("F", bound=Callable[..., Any])


class Fused(NamedTuple):
    """How a loss is known to native code."""

    name: str
    make: Callable[[list[float]], NamedTuple]
    """Statistics from their values, in their order."""


class Lowered(NamedTuple):
    """What native code has of a loss over several networks."""

    gradient: NativeGradient
    make: Callable[[list[float]], NamedTuple]
    """Statistics from their values, in their order."""


def fused(
    statistics: type[NamedTuple], *, prepare: Prepare | None = None
) -> Callable[[F], F]:
    """Marks a loss that `native/losses/` has under the function's own name, with the same statistics.

    The torch function stays the reference: a test compares the two. `prepare` is as in `prepared`; native code does
    its part itself.

    Raises:
        ConfigError: the loss is not shoal's own: native code would run another one in its place, or none.
    """

    def mark(loss: F) -> F:
        if not loss.__module__.startswith("shoal."):
            raise ConfigError(
                f"{loss.__module__}.{loss.__name__} is marked @fused, but only shoal's own losses are in native code, "
                "and one of that name would run in its place; mark it @prepared(...), or not at all: networks of "
                "shoal's layers stay in native code around any loss in torch"
            )
        loss.fused = Fused(loss.__name__, statistics._make)  # pyright: ignore[reportFunctionMemberAccess]
        return loss if prepare is None else prepared(prepare)(loss)

    return mark


def prepared(prepare: Prepare) -> Callable[[F], F]:
    """Marks a loss whose whole minibatch goes through `prepare(batch, cfg)` before it is cut into parts.

    What is relative to a minibatch belongs there, such as the normalization of advantages.
    """

    def mark(loss: F) -> F:
        loss.prepare = prepare  # pyright: ignore[reportFunctionMemberAccess]
        return loss

    return mark


def lowered(statistics: type[NamedTuple], native: NativeGradient) -> Callable[[F], F]:
    """Marks a loss over several networks, whose gradient `native(learner, batch, cfg)` gives where it can.

    It returns the numbers of the loss's statistics and the packed gradient, or None where only torch has these. The
    torch function stays the reference: a test compares the two.
    """

    def mark(loss: F) -> F:
        loss.lowered = Lowered(native, statistics._make)  # pyright: ignore[reportFunctionMemberAccess]
        return loss

    return mark


def lowered_of(loss: Callable[..., Any]) -> Lowered | None:
    """What `lowered` said of a loss; None for any other."""
    return getattr(loss, "lowered", None)


def fused_of(loss: Loss) -> Fused | None:
    """What `fused` said of a loss; None for any other."""
    return getattr(loss, "fused", None)


def prepare_of(loss: Loss) -> Prepare | None:
    """What `prepared` said of a loss; None for any other."""
    return getattr(loss, "prepare", None)


def returned(loss: Callable[..., object], result: object) -> tuple[Tensor, NamedTuple]:
    """What a loss returned, its statistics as tensors without gradients.

    Raises:
        ConfigError: it is not a scalar and a NamedTuple of scalars.
    """
    if isinstance(result, tuple) and len(result) == 2:
        value, stats = result
        if _is_scalar(value) and isinstance(stats, tuple) and hasattr(stats, "_fields"):
            named: Any = stats
            for name, number in zip(named._fields, named, strict=True):
                if not _is_scalar(number) and not isinstance(number, Real):
                    raise ConfigError(
                        f"{_name(loss)} gives {name} as {_told(number)}; {RETURNS}"
                    )
            return value, named._make(map(_detached, named))
    raise ConfigError(f"{_name(loss)} returned {_told(result)}; {RETURNS}")


def _name(loss: Callable[..., object]) -> str:
    return f"the loss {getattr(loss, '__name__', repr(loss))}"


def _told(value: object) -> str:
    if isinstance(value, torch.Tensor):
        return f"a tensor of shape {tuple(value.shape)}"
    if type(value) is tuple:
        return f"({', '.join(map(_told, value))})"
    return type(value).__name__


def _is_scalar(value: object) -> TypeGuard[Tensor]:
    return isinstance(value, torch.Tensor) and value.numel() == 1


def _detached(number: Tensor | float) -> Tensor:
    if isinstance(number, torch.Tensor):
        return number.detach()
    return torch.tensor(float(number), dtype=torch.float32)


class NormalizesAdvantage(Protocol):
    """Settings that say whether advantages are normalized."""

    @property
    def norm_adv(self) -> bool:
        """Whether they are."""
        ...


def with_normalized_advantage(
    batch: Steps, cfg: NormalizesAdvantage, *, ranks: Ranks | None = None
) -> Steps:
    """A minibatch whose advantages have mean 0 and deviation 1, if the settings say so; see `prepared`.

    Of several `ranks` those of all of their shares together have.
    """
    if not cfg.norm_adv or batch.advantage is None:
        return batch
    if ranks is not None:
        moments = moments_of(batch.advantage, batch.valid)
        whole = joined_moments(ranks.gather(moments.numpy()))
        return replace(batch, advantage=standardized(batch.advantage, whole))
    if batch.advantage.numel() < 2:
        raise ConfigError(ONE_STEP)
    return replace(batch, advantage=normalize_advantage(batch.advantage, batch.valid))


def targets_of(batch: Steps) -> tuple[Tensor, Tensor]:
    """The advantages and value targets that the algorithm gave its batch; ValueError where it gave none."""
    if batch.advantage is None or batch.target is None:
        raise ValueError(
            "this loss needs batch.advantage and batch.target; give them with replace(rollout, ...) or minibatches(...)"
        )
    return batch.advantage, batch.target
