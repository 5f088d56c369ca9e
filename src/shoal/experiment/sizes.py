"""Sizes: what a configuration asks of the memory at least, refused before anything of it is made."""

from __future__ import annotations

from itertools import pairwise
from typing import TYPE_CHECKING

from shoal.memory.room import free_bytes
from shoal.nets.network import Network
from shoal.types import ConfigError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from shoal.experiment.options import Options

ROW_BYTES = 512
"""At least: the state of an environment, what it hands over, its generator."""
OBSERVATION_BYTES = 8
"""At least: one number, as it is and as it is stacked."""
STEP_BYTES = 40
"""Of one step in the memory of a rollout, besides its observation: action, reward, values, flags."""
COPIES = 4
"""Of the weights while they are learned: themselves, their gradients, two moments."""


def check_rows(options: Options, config: object, num_envs: int) -> None:
    """ConfigError where `num_envs` environments and the network cannot fit into the memory that is free."""
    stack = options.preprocessing.frame_stack
    row = ROW_BYTES + 2 * OBSERVATION_BYTES * stack
    _check(
        {
            f"num_envs={num_envs:,}, frame_stack={stack:,}": num_envs * row,
            "network": _weights(config) * 4,
        }
    )


def check_training(options: Options, config: object) -> None:
    """ConfigError where rows, the memory of a rollout and learning cannot fit into the memory that is free."""
    stack = options.preprocessing.frame_stack
    steps = getattr(config, "num_steps", 1)
    steps = steps if isinstance(steps, int) else 1
    row = ROW_BYTES + 2 * OBSERVATION_BYTES * stack
    step = STEP_BYTES + OBSERVATION_BYTES * stack
    rollout = options.num_envs * steps * step
    _check(
        {
            f"num_envs={options.num_envs:,}": options.num_envs * row,
            f"num_steps={steps:,} of {options.num_envs:,} environments": rollout,
            "network": _weights(config) * 4 * COPIES,
        }
    )


def _weights(config: object) -> int:
    """The weights between the layers of an algorithm's network, at least, of its actor and its critic."""
    network = getattr(config, "network", None)
    if not isinstance(network, Network):
        return 0
    between = sum(low * high for low, high in pairwise(network.hidden))
    if network.recurrent == "none":
        return 2 * between
    return between + 6 * network.recurrent_size**2


def _check(needed: Mapping[str, int]) -> None:
    total, free = sum(needed.values()), free_bytes()
    if total <= free:
        return
    most = max(needed, key=lambda name: needed[name])
    raise ConfigError(
        f"this needs at least {_gib(total)} of memory, {_gib(free)} are free; "
        f"most of it for {most} ({_gib(needed[most])}): make that smaller"
    )


def _gib(size: int) -> str:
    return f"{size / 2**30:,.1f} GiB" if size < 2**80 else "more than 2^50 GiB"
