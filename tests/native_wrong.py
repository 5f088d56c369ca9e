"""Values that are wrong in one place: what the fuzz of the native bindings puts where a right one stood."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np

INTS = (-(2**63), -(2**31), -1, 0, 1, 2, 7, 1000, 2**31, 2**32 + 1, 2**63 - 1, 2**64)
FLOATS = (-1.0, 0.0, 1e-300, 1e300, float("inf"), float("-inf"), float("nan"))
TEXTS = ("", "x", "CartPole-v1", "gaussian", "uniform", "\0", "ü" * 99)
DTYPES = (np.float32, np.float64, np.int64, np.int32, np.uint64, np.uint32, np.uint8, np.bool_, np.complex64, object)


class Wrong:
    """Draws values from a seed."""

    def __init__(self, seed: int) -> None:
        """Nothing is drawn yet."""
        self.rng = np.random.default_rng(seed)

    def spoil(self, args: list[Any], kwargs: dict[str, Any]) -> tuple[list[Any], dict[str, Any]]:
        """The arguments with one of them, or two, wrong."""
        args, kwargs = list(args), dict(kwargs)
        for _ in range(self.rng.integers(1, 3)):
            at = int(self.rng.integers(len(args) + len(kwargs))) if args or kwargs else -1
            if 0 <= at < len(args):
                args[at] = self.wrong(args[at])
            elif at >= 0:
                key = list(kwargs)[at - len(args)]
                kwargs[key] = self.wrong(kwargs[key])
        return args, kwargs

    def pick(self, values: Any) -> Any:
        """One of them."""
        return values[self.rng.integers(len(values))]

    def wrong(self, value: Any) -> Any:
        """Something else in the place of a value."""
        if self.rng.random() < 0.1:
            return self.pick([None, 3, "x", [], {}, b"", np.zeros(0), object()])
        match value:
            case np.ndarray():
                return self.wrong_array(value)
            case list():
                return self.pick([[], [-1], [0] * 70, [2**40], value * 2, [self.wrong(part) for part in value]])
            case tuple():
                return tuple(self.wrong(part) for part in value)
            case dict():
                return self.pick(
                    [{}, {"": 1.0}, value | {"y": 2.0}, {key: self.wrong(part) for key, part in value.items()}]
                )
            case SimpleNamespace():
                name = self.pick(list(vars(value)))
                return SimpleNamespace(**vars(value) | {name: self.wrong(vars(value)[name])})
            case _:
                return self.wrong_scalar(value)

    def wrong_scalar(self, value: Any) -> Any:
        match value:
            case bool():
                return self.pick([None, 2, not value])
            case int():
                return self.pick(INTS)
            case float():
                return self.pick(FLOATS)
            case str():
                return self.pick(TEXTS)
            case _:
                return self.pick([None, 1, "x"])

    def wrong_array(self, array: Any) -> Any:
        """Another dtype or shape, numbers of any kind, or memory that lies otherwise."""
        if array.dtype.hasobject:  # spoiled before: its bytes are references
            return self.other_shape(array)
        ways = (self.other_dtype, self.other_shape, self.elsewhere, self.other_bytes, self.other_number)
        return self.pick(ways)(array)

    def other_dtype(self, array: Any) -> Any:
        with np.errstate(all="ignore"):
            return array.astype(self.pick(DTYPES))

    def other_shape(self, array: Any) -> Any:
        if not array.ndim or not len(array):
            return array.reshape(-1)
        return self.pick([array[:-1], np.concatenate([array, array]), array[None], array.reshape(-1)])

    def elsewhere(self, array: Any) -> Any:
        """The same numbers, not aligned, not contiguous, or not to be written."""
        memory = np.zeros(array.nbytes + 1, np.uint8)
        memory[1:] = np.frombuffer(array.tobytes(), np.uint8)
        held = array.copy()
        held.flags.writeable = False
        apart = np.repeat(array, 2, axis=-1)[..., ::2] if array.ndim else array
        return self.pick([memory[1:].view(array.dtype).reshape(array.shape), held, apart])

    def other_bytes(self, array: Any) -> Any:
        memory = self.rng.integers(0, 256, array.nbytes, np.uint8)
        if array.dtype == np.bool_:
            memory &= 1
        return memory.view(array.dtype).reshape(array.shape)

    def other_number(self, array: Any) -> Any:
        spoiled = array.copy()
        if spoiled.size and spoiled.dtype.kind == "f":
            with np.errstate(all="ignore"):
                spoiled.flat[self.rng.integers(spoiled.size)] = self.pick(FLOATS)
        elif spoiled.size and spoiled.dtype.kind in "iu":
            low, high = np.iinfo(spoiled.dtype).min, np.iinfo(spoiled.dtype).max
            spoiled.flat[self.rng.integers(spoiled.size)] = self.pick([low, high, high // 2])
        return spoiled

    def floats(self, *shape: int) -> Any:
        return self.rng.normal(size=shape).astype(np.float32)

    def flags(self, *shape: int) -> Any:
        return self.rng.random(shape) < 0.2
