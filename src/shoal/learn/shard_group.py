"""The group of torch's by which models lie in parts on all ranks: its default one, which FSDP needs."""

from __future__ import annotations

import datetime
import os
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import torch
from torch import distributed

from shoal.types import ConfigError

if TYPE_CHECKING:
    from collections.abc import Generator

INTERFACE = "GLOO_SOCKET_IFNAME"
"""The variable that tells gloo which network to use."""
CLOSED = ("gloo", "Connection", "onnection reset", "NCCL")
"""What stands in an error of torch's where a connection broke or nothing came in time."""


def begin_shards(
    store: Any, rank: int, size: int, device: torch.device | None, within_s: float
) -> None:
    """Connects this rank with the others, which do so too.

    Args:
        store: of torch.distributed, shared by all.
        rank: this process's number, from 0.
        size: how many there are.
        device: where models lie.
        within_s: what one rank may keep the others waiting for.

    Raises:
        ConfigError: this process has such a group already.
    """
    torch_own: Any = distributed
    if torch_own.is_initialized():
        raise ConfigError(
            "language.shard needs the process group of torch.distributed, and this program has one already; end it "
            "(destroy_process_group), or leave shard out"
        )
    on_gpu = device is not None and device.type == "cuda"
    if on_gpu:
        torch.cuda.set_device(device)
    with _loopback():
        torch_own.init_process_group(
            "nccl" if on_gpu else "gloo",
            store=torch_own.PrefixStore("shards", store),
            rank=rank,
            world_size=size,
            timeout=datetime.timedelta(seconds=within_s),
            device_id=device if on_gpu else None,
        )


def end_shards() -> None:
    """Ends the connections."""
    torch_own: Any = distributed
    if torch_own.is_initialized():
        torch_own.destroy_process_group()


def is_of_connection(error: RuntimeError) -> bool:
    """Whether an error of torch's says that another rank is gone, or kept this one waiting for too long."""
    torch_own: Any = distributed
    if isinstance(error, torch_own.DistError):
        return True
    return any(word in str(error) for word in CLOSED)


@contextmanager
def _loopback() -> Generator[None]:
    """Within, gloo connects over the loopback interface, unless the user says which."""
    if INTERFACE in os.environ:
        yield
        return
    os.environ[INTERFACE] = "lo"
    try:
        yield
    finally:
        del os.environ[INTERFACE]
