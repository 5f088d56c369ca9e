"""Actions that an environment took, as a policy would have kept them had it chosen them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch

from shoal.nets import distributions
from shoal.types import map_tree

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray
    from torch import nn

    from shoal.types import Spec, Tree


def inverse_of(
    policy: nn.Module, spec: Spec, device: torch.device
) -> Callable[[Tree], Tree]:
    """The function from actions [n, ...] of the environment, as arrays, to what the policy keeps of such ones.

    It depends on the action space alone, not on weights, so it may be kept.

    Raises:
        ConfigError: by that function, where a custom distribution has no `from_env(action)`.
    """

    def as_tensor(array: Any) -> torch.Tensor:
        return torch.as_tensor(array, device=device)

    def as_array(tensor: torch.Tensor) -> NDArray[Any]:
        return tensor.cpu().numpy()

    made: Any = policy
    obs = map_tree(as_tensor, spec.observation.allocate(1, 1))
    start = torch.ones((1, 1), dtype=torch.bool, device=device)
    with torch.no_grad():
        distribution = made(obs, made.initial_state(1), start).distribution

    def inverse(action: Tree) -> Tree:
        with torch.no_grad():
            given = map_tree(as_tensor, action)
            return map_tree(as_array, distributions.from_env(distribution, given))

    return inverse
