"""Arrays: a policy's tensors as the float32 that other languages get."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from shoal.types import ConfigError

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from torch import Tensor


def array(tensor: Tensor) -> NDArray[np.float32]:
    """A copy of weights as float32 on the CPU, contiguous in the order of the tensor's axes.

    Raises:
        ConfigError: some are not finite.
    """
    made = np.array(tensor.detach().cpu().float().numpy(), order="C")
    if not np.isfinite(made).all():
        raise ConfigError(
            "the policy has weights that are not finite; export an earlier checkpoint (tag='best')"
        )
    return made
