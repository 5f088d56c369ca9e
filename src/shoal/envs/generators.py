"""The generators of Python environments: read at every episode's end, put back when an episode is played again."""

from __future__ import annotations

import ctypes
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Sequence

    import gymnasium as gym


class Generators:
    """What unseeded resets begin from: the state of each environment's PCG64, if that is what it draws from.

    `PCG64.state` builds nested dicts and long integers. Here the bytes of the state are copied from where NumPy keeps
    them, and spelled out as that dict only by `state_of`. Where a first look shows that NumPy keeps them otherwise,
    the dict is read after all.
    """

    def __init__(self, envs: Sequence[object]) -> None:
        """`envs`: one a row, unwrapped."""
        self._envs = envs
        self._known: list[tuple[Any, Any, Any]] = [(None, None, None)] * len(envs)

    def start_of(self, row: int) -> dict[str, Any]:
        """What a reset of `row` begins from: {"generator": what `state_of` takes}, or {} where there is no PCG64."""
        generator: Any = getattr(self._envs[row], "np_random", None)
        bits = getattr(generator, "bit_generator", None)
        known, numbers, half = self._known[row]
        if bits is not known:
            numbers, half = _memory_of(bits)
            self._known[row] = bits, numbers, half
        if numbers is not None:
            return {"generator": numbers.raw + half.raw}
        if isinstance(bits, np.random.PCG64):
            return {"generator": bits.state}
        return {}


def state_of(generator: bytes | dict[str, Any]) -> Any:
    """What `start_of` gave, as `PCG64.state` is written."""
    if isinstance(generator, dict):
        return generator

    def number(first: int, last: int) -> int:
        return int.from_bytes(generator[first:last], "little")

    return {
        "bit_generator": "PCG64",
        "state": {"state": number(0, 16), "inc": number(16, 32)},
        "has_uint32": number(32, 36),
        "uinteger": number(36, 40),
    }


def spelled_out(start: dict[str, Any]) -> dict[str, Any]:
    """What an episode began from, with a generator as `PCG64.state` is written."""
    if "generator" not in start:
        return start
    return start | {"generator": state_of(start["generator"])}


def set_generator(env: gym.Env[Any, Any], generator: bytes | dict[str, Any]) -> None:
    """Puts the environment's generator to what `start_of` or `state_of` gave."""
    bits = np.random.PCG64()
    bits.state = state_of(generator)
    env.np_random = np.random.Generator(bits)


def _memory_of(bits: object) -> tuple[Any, Any]:
    """Views of state and increment and of the half that a 32-bit draw leaves over; None where they are not there."""
    if type(bits) is not np.random.PCG64 or not _AS_KNOWN:
        return None, None
    return _views(bits)


def _views(bits: np.random.PCG64) -> tuple[Any, Any]:
    address: int = bits.ctypes.state_address
    numbers = ctypes.c_void_p.from_address(address).value
    if numbers is None:
        return None, None
    state = (ctypes.c_char * 32).from_address(numbers)
    return state, (ctypes.c_char * 8).from_address(address + 8)


def _is_as_known() -> bool:
    """Whether this NumPy keeps a PCG64 as `_views` reads it: tried on generators whose state says itself."""
    for seed in (0, 1):
        bits = np.random.PCG64(seed)
        np.random.Generator(bits).integers(10, size=1 + seed, dtype=np.int32)
        numbers, half = _views(bits)
        if numbers is None or state_of(numbers.raw + half.raw) != bits.state:
            return False
    return True


_AS_KNOWN = _is_as_known()
