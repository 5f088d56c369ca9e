"""Exported C policies, compiled and called from Python."""

import ctypes
import json
import subprocess
from pathlib import Path
from typing import Any

import numpy as np

from shoal.deploy.names import fields_of, is_plain
from shoal.types import Layout, Spec

FLAGS = "-std=c99 -O1 -ffp-contract=fast -Wall -Wextra -Wpedantic -Werror"


class Compiled:
    """The library of an export folder."""

    def __init__(self, folder: Path, spec: Spec, *, prefix: str = "policy", flags: str = FLAGS) -> None:
        library = folder / f"lib{prefix}.so"
        source = folder / f"{prefix}.c"
        command = ["cc", *flags.split(), "-fPIC", "-shared", str(source), "-o", str(library), "-lm"]
        subprocess.run(command, check=True, timeout=600)
        self.library = ctypes.CDLL(str(library))
        self.spec, self.prefix = spec, prefix
        self.calls = json.loads((folder / "spec.json").read_text())["calls"]
        self.message = getattr(self.library, f"{prefix}_message")
        self.message.restype = ctypes.c_char_p

    def state(self, rows: int) -> Any:
        """Zeros, one row each as C lays them out; None where there is no state."""
        types = {"float": np.float32, "double": np.float64, "int32_t": np.int32}
        parts = [(name, types[kind], (size,)) for name, (kind, size) in self.calls["state"].items()]
        return np.zeros(rows, np.dtype(parts, align=True)) if parts else None

    def step(
        self, obs: Any, rows: int, *, mask: Any = None, state: Any = None, noise: Any = None, length: int | None = None
    ) -> tuple[int, Any]:
        """The status, and the actions as a tree."""
        observed = packed(self.spec.observation, obs, rows)
        action = np.zeros(rows, row_type(self.spec.action))
        if length is None:
            plain = is_plain(self.spec.observation)
            length = int(np.prod(self.spec.observation.single.shape)) if plain else observed.dtype.itemsize
        given = [pointer(observed), ctypes.c_size_t(length), ctypes.c_size_t(rows)]
        if self.calls["options"]:
            given.append(pointer(None if mask is None else np.ascontiguousarray(mask, np.uint8)))
        if self.calls["state"]:
            given.append(pointer(state))
        if sum(self.calls["noise"].values()):
            given.append(pointer(None if noise is None else np.ascontiguousarray(noise, np.float32)))
        status = getattr(self.library, f"{self.prefix}_step_batch")(*given, pointer(action))
        return status, unpacked(self.spec.action, action)


def pointer(array: Any) -> Any:
    if array is None:
        return ctypes.c_void_p(None)
    made: Any = ctypes.c_void_p(array.ctypes.data)
    made.array = array
    return made


def row_type(layout: Layout) -> np.dtype:
    """One row as C lays it out."""
    if is_plain(layout):
        leaf = layout.single
        return np.dtype((leaf.dtype, leaf.shape))
    names = fields_of(layout)
    parts = [(name, leaf.dtype, leaf.shape) for name, leaf in zip(names, layout.leaves, strict=True)]
    return np.dtype(parts, align=True)


def packed(layout: Layout, tree: Any, rows: int) -> np.ndarray:
    if is_plain(layout):
        return np.ascontiguousarray(tree, layout.single.dtype)
    made = np.zeros(rows, row_type(layout))
    for name, value in zip(fields_of(layout), layout.flat(tree), strict=True):
        made[name] = value
    return made


def unpacked(layout: Layout, rows: np.ndarray) -> Any:
    if is_plain(layout):
        return rows
    return layout.tree([rows[name] for name in fields_of(layout)])
