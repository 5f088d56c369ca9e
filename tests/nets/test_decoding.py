"""Attention of a decode step in native code beside a slow reference in double precision."""

from typing import Any

import numpy as np
import pytest

from shoal import _native
from shoal.nets.decoding import decode_attention

SHAPES = [(64, 6, 2, 32, 64, 40), (5, 9, 3, 64, 64, 64), (3, 16, 2, 16, 32, 7), (2, 4, 4, 128, 192, 150)]
"""Rows, heads of queries, heads of keys, their size, capacity, positions that are in use."""


def make_arrays(shape: tuple[int, ...], *, seed: int = 0) -> dict[str, np.ndarray]:
    rows, heads, shared, size, capacity, used = shape
    rng = np.random.default_rng(seed)

    def normal(*sizes: int) -> np.ndarray:
        return rng.standard_normal(sizes, np.float32)

    angle = rng.random((capacity, size // 2)).repeat(2, axis=1) * 6
    signs = np.tile([-1, 1], size // 2)
    return {
        "qkv": normal(rows, heads + 2 * shared, size),
        "norm": 1 + 0.3 * normal(heads + shared, size),
        "turns": np.stack([np.cos(angle), signs * np.sin(angle)], 1).astype(np.float32),
        "position": np.append(rng.integers(0, used, rows - 1), used - 1),
        "key": normal(rows + 1, shared, capacity, size),
        "value": normal(rows + 1, shared, capacity, size),
        "out": np.zeros((rows, heads, size), np.float32),
    }


def turn(head: np.ndarray, norm: np.ndarray | None, turns: np.ndarray) -> np.ndarray:
    """A head of a query or key, normalized and turned by complex numbers."""
    if norm is not None:
        head = head / np.sqrt((head**2).mean() + 1e-6) * norm
    pairs = (head[::2] + 1j * head[1::2]) * (turns[0, ::2] + 1j * turns[1, 1::2])
    return np.stack([pairs.real, pairs.imag], -1).ravel()


def attend_slowly(given: dict[str, np.ndarray], *, normalized: bool) -> dict[str, np.ndarray]:
    exact = {name: array.astype(np.float64) if array.dtype == np.float32 else array for name, array in given.items()}
    key, value, out = (exact[name].copy() for name in ("key", "value", "out"))
    heads, shared = out.shape[1], key.shape[1]
    for row, at in enumerate(exact["position"]):
        turned = [
            turn(head, exact["norm"][h] if normalized else None, exact["turns"][at])
            for h, head in enumerate(exact["qkv"][row, : heads + shared])
        ]
        key[row, :, at] = turned[heads:]
        value[row, :, at] = exact["qkv"][row, heads + shared :]
        for h in range(heads):
            of = h // (heads // shared)
            score = key[row, of, : at + 1] @ turned[h] / np.sqrt(out.shape[2])
            share = np.exp(score - score.max())
            out[row, h] = share / share.sum() @ value[row, of, : at + 1]
    return {"key": key, "value": value, "out": out}


@pytest.mark.parametrize("kernels", _native.kernel_names())
@pytest.mark.parametrize("norm", ["normalized", "plain"])
@pytest.mark.parametrize("shape", SHAPES)
def test_equals_a_slow_reference(shape: tuple[int, ...], norm: str, kernels: str) -> None:
    given = make_arrays(shape)
    normalized = norm == "normalized"
    expected = attend_slowly(given, normalized=normalized)
    arrays: dict[str, Any] = given | ({} if normalized else {"norm": None})
    _native.decode_attention(**arrays, eps=1e-6, kernels=kernels)
    for name, array in expected.items():
        np.testing.assert_allclose(given[name], array, rtol=0, atol=3e-6)


def test_a_row_does_not_depend_on_others() -> None:
    whole, some = make_arrays(SHAPES[0]), make_arrays(SHAPES[0])
    decode_attention(*ordered(whole))
    for name in ("qkv", "position", "out"):
        some[name] = some[name][:3].copy()
    # What stands behind a row's position does not count.
    for row, at in enumerate(some["position"]):
        some["key"][row, :, at + 1 :] = 1e30
        some["value"][row, :, at + 1 :] = 1e30
    decode_attention(*ordered(some))
    np.testing.assert_array_equal(some["out"], whole["out"][:3])


def ordered(arrays: dict[str, np.ndarray]) -> tuple[Any, ...]:
    names = "qkv", "norm", "turns", "position", "key", "value", "out"
    qkv, norm, *rest = (arrays[name] for name in names)
    return qkv, norm, 1e-6, *rest


def test_scores_of_any_size() -> None:
    given = make_arrays(SHAPES[2])
    given["qkv"] *= 1e4
    expected = attend_slowly(given, normalized=False)
    decode_attention(given["qkv"], None, 1e-6, *ordered(given)[3:])
    np.testing.assert_allclose(given["out"], expected["out"], rtol=1e-5)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"position": np.full(5, 64)}, "position 64 of row 0 lies outside the cache"),
        ({"position": np.full(5, -1)}, "position -1 of row 0"),
        ({"position": np.zeros(5, np.int32)}, "position must be an array of int64"),
        ({"qkv": np.zeros((5, 15, 65), np.float32)}, "qkv must"),
        ({"norm": np.zeros((9, 64), np.float32)}, "norm must"),
        ({"turns": np.zeros((63, 2, 64), np.float32)}, "turns must"),
        ({"key": np.zeros((4, 3, 64, 64), np.float32)}, "more rows than slots"),
        ({"key": np.zeros((6, 2, 64, 64), np.float32)}, "multiple of those of keys"),
        ({"key": np.zeros((6, 3, 63, 64), np.float32)}, "multiples of 16"),
        ({"value": np.zeros((6, 3, 32, 64), np.float32)}, "value must"),
        ({"out": np.zeros((5, 9, 64))}, "out must be an array of float32"),
        ({"out": np.zeros((5, 9, 8), np.float32)}, "multiples of 16"),
        ({"eps": float("nan")}, "eps must be finite"),
    ],
)
def test_wrong_arrays_are_refused(change: dict[str, Any], message: str) -> None:
    arrays: dict[str, Any] = make_arrays(SHAPES[1]) | {"eps": 1e-6} | change
    with pytest.raises(ValueError, match=message):
        _native.decode_attention(**arrays)
