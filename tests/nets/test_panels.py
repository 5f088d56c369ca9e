"""Products with weights in panels beside double precision."""

from typing import Any

import numpy as np
import pytest

from shoal import _native
from shoal.nets.panels import WIDTH, in_panels, panel_product

SHAPES = [(1, 7, 32), (13, 70, 96), (25, 33, 64), (0, 5, 32), (2, 0, 32)]
"""Rows, inputs, outputs."""


def arrays(rows: int, inputs: int, out: int) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(0)

    def uniform(*sizes: int) -> np.ndarray:
        return rng.uniform(-1, 1, sizes).astype(np.float32)

    return {"x": uniform(rows, inputs), "w": uniform(out, inputs), "bias": uniform(out), "other": uniform(rows, out)}


@pytest.mark.parametrize("kernels", _native.kernel_names())
@pytest.mark.parametrize("shape", SHAPES)
def test_equals_double_precision(shape: tuple[int, int, int], kernels: str) -> None:
    """With and without a bias, and with all that may follow."""
    given = arrays(*shape)
    x, w, bias, other = (given[name].astype(np.float64) for name in ("x", "w", "bias", "other"))
    panels = np.full((len(w) // WIDTH, shape[1], WIDTH), np.nan, np.float32)
    _native.pack_panels(given["w"], panels, kernels)
    for added in (None, given["bias"]):
        made = x @ w.T + (0 if added is None else bias)
        finished = {"keep": made, "swish": made / (1 + np.exp(-made)), "times": made * other, "plus": made + other}
        for finish, expected in finished.items():
            beside = given["other"] if finish in ("times", "plus") else None
            out = np.full(expected.shape, np.nan, np.float32)
            _native.panel_product(given["x"], panels, added, beside, finish, out, kernels)
            np.testing.assert_allclose(out, expected, rtol=1e-6, atol=3e-6)


def test_a_row_does_not_depend_on_others() -> None:
    """However many there are, a row has the same bits."""
    given = arrays(25, 70, 96)
    panels, whole = in_panels(given["w"]), np.empty((25, 96), np.float32)
    panel_product(given["x"], panels, None, None, "swish", whole)
    for count in range(1, 25):
        some = np.empty((count, 96), np.float32)
        panel_product(given["x"][25 - count :].copy(), panels, None, None, "swish", some)
        np.testing.assert_array_equal(some, whole[25 - count :])


def test_sums_of_any_size() -> None:
    """Far above 0 the swish of a number is itself, far below 0; NaN stays NaN."""
    panels, out = in_panels(np.full((32, 1), 1e20, np.float32)), np.empty((3, 32), np.float32)
    panel_product(np.array([[1], [-1], [np.nan]], np.float32), panels, None, None, "swish", out)
    np.testing.assert_allclose(out[:, 0], [1e20, 0, np.nan], rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"out": np.zeros((3, 33), np.float32)}, "multiple of 32, not 33"),
        ({"out": np.zeros((3, 64))}, "out must be an array of float32"),
        ({"x": np.zeros((2, 5), np.float32)}, "x must have shape"),
        ({"panels": np.zeros((2, 4, 32), np.float32)}, "panels must have shape"),
        ({"bias": np.zeros(32, np.float32)}, "bias must have shape"),
        ({"other": np.zeros((3, 32), np.float32)}, "other must have shape"),
        ({"other": None}, "times and plus need another array"),
        ({"finish": "keep"}, "keep and swish none"),
        ({"finish": "gelu"}, "finish must be keep, swish, times or plus, not 'gelu'"),
    ],
)
def test_wrong_arrays_are_refused(change: dict[str, Any], message: str) -> None:
    sizes = {"x": (3, 5), "panels": (2, 5, 32), "bias": (64,), "other": (3, 64), "out": (3, 64)}
    given: dict[str, Any] = {name: np.zeros(size, np.float32) for name, size in sizes.items()}
    given |= {"finish": "times"} | change
    with pytest.raises(ValueError, match=message):
        _native.panel_product(**given)


def test_outputs_that_do_not_fill_panels_are_refused() -> None:
    with pytest.raises(ValueError, match="multiple of 32, not 40"):
        in_panels(np.zeros((40, 5), np.float32))
