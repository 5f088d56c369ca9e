"""Weights of policies in stages: each is kept under its sha256, so that a run that learns on loses none of them."""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from shoal.run.drafts import write_atomic
from shoal.run.reading import check_folder, sentence
from shoal.run.stage_file import read_stages
from shoal.run.tensors import buffers_of, read
from shoal.types import ConfigError

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray
    from torch import Tensor, nn

    from shoal.run.stage_file import Entry

FOLDER = "stages"


def packed(policy: nn.Module) -> tuple[str, bytes]:
    """The weights and statistics of a policy as a safetensors file, and its sha256."""
    found: dict[str, NDArray[Any]] = {}
    for name, value in sorted(policy.state_dict().items()):
        if not isinstance(value, torch.Tensor):
            raise ConfigError(f"{name} of the policy is no tensor, and cannot be kept")
        found[name] = np.ascontiguousarray(_plain(name, value))
    data = b"".join(buffer.tobytes() for buffer in buffers_of(found))
    return hashlib.sha256(data).hexdigest(), data


def _plain(name: str, value: Tensor) -> NDArray[Any]:
    if value.dtype is torch.bfloat16:
        raise ConfigError(
            f"{name} of the policy is bfloat16; stages are of policies in float32"
        )
    return value.detach().cpu().numpy()


def file_of(run: Path, policy: str) -> Path:
    """Where a policy is kept."""
    return run / FOLDER / f"{policy}.safetensors"


def reference_of(run: Path, policy: str) -> Path:
    """Where it is kept what a policy's training observed."""
    return run / FOLDER / f"{policy}.reference.json"


def keep(run: Path, policy: str, data: bytes) -> None:
    """Writes a policy's weights, unless they are there."""
    folder = run / FOLDER
    check_folder(folder)
    folder.mkdir(exist_ok=True)
    write_atomic(file_of(run, policy), data)


def read_deployed(run: Path) -> dict[str, Tensor]:
    """The weights of the policy whose last stage is signed.

    Raises:
        ConfigError: there is none, or the file is missing or damaged.
    """
    deployed = read_stages(run).deployed
    if deployed is None:
        raise ConfigError(
            f"{run} has no policy that is deployed: none has its stage `full` signed; `shoal stage` shows where it is"
        )
    return read_kept(run, deployed)


def read_kept(run: Path, entry: Entry) -> dict[str, Tensor]:
    """The weights that entered a stage; ConfigError where the file is missing or damaged."""
    check_folder(run / FOLDER)
    path = file_of(run, entry.policy)
    try:
        arrays = read(path, size=entry.size, sha256=entry.policy)
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ConfigError(
            f"the policy in {path} is missing or damaged ({sentence(error)}); restore it from a copy"
        ) from error
    return {name: torch.from_numpy(array) for name, array in arrays.items()}
