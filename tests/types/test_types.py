"""The packed layout: leaves, aligned offsets, views without copies, trees and their errors, in worked numbers."""

from typing import Any

import numpy as np
import pytest
from gymnasium import spaces

from shoal.types import ConfigError, Layout, Leaf, Spec, map_tree
from shoal.types.text import cell, decimal

NESTED = spaces.Dict(
    {
        "camera": spaces.Box(0, 255, (3, 5), np.uint8),
        "inner": spaces.Tuple((spaces.Discrete(4), spaces.Box(-1, 1, (7,), np.float32))),
        "keys": spaces.MultiBinary(3),
        "mode": spaces.MultiDiscrete([2, 3]),
    }
)


def test_leaves_of_a_nested_space() -> None:
    assert Layout.of(NESTED).leaves == (
        Leaf(("camera",), np.dtype(np.uint8), (3, 5)),
        Leaf(("inner", 0), np.dtype(np.int64), ()),
        Leaf(("inner", 1), np.dtype(np.float32), (7,)),
        Leaf(("keys",), np.dtype(np.int8), (3,)),
        Leaf(("mode",), np.dtype(np.int64), (2,)),
    )


@pytest.mark.parametrize(
    ("batch", "offsets", "nbytes"),
    [
        # bytes of the leaves: 15, 8, 28, 3 and 16 a row, each leaf rounded up to 64
        ((1,), [0, 64, 128, 192, 256], 320),
        # 5 rows: 75, 40, 140, 15, 80
        ((5,), [0, 128, 192, 384, 448], 576),
        # 2 x 16 rows: 480, 256, 896, 96, 512
        ((2, 16), [0, 512, 768, 1664, 1792], 2304),
        ((0,), [0, 0, 0, 0, 0], 0),
        # no batch: one row
        ((), [0, 64, 128, 192, 256], 320),
    ],
)
def test_offsets(batch: tuple[int, ...], offsets: list[int], nbytes: int) -> None:
    assert Layout.of(NESTED).offsets(batch) == (offsets, nbytes)


def test_views_lie_in_the_block() -> None:
    layout = Layout.of(NESTED)
    block = np.zeros(576, np.uint8)
    tree = layout.view(block, 5)
    assert tree["camera"].shape == (5, 3, 5)
    assert tree["inner"][0].shape == (5,)
    assert tree["inner"][1].shape == (5, 7)
    assert (tree["keys"].shape, tree["mode"].shape) == ((5, 3), (5, 2))
    for array, offset in zip(layout.flat(tree), [0, 128, 192, 384, 448], strict=True):
        assert np.shares_memory(array, block)
        assert array.__array_interface__["data"][0] - block.__array_interface__["data"][0] == offset
        assert array.flags.c_contiguous
    tree["inner"][1][4, 6] = 1.0
    assert block[192 + 4 * (4 * 7 + 6) : 192 + 140].view(np.float32).tolist() == [1.0]
    block[448:456] = [1, 0, 0, 0, 0, 0, 0, 0]
    assert tree["mode"][0].tolist() == [1, 0]
    assert int(block.astype(bool).sum()) == 3


def test_views_of_several_axes() -> None:
    block = np.zeros(2304, np.uint8)
    tree = Layout.of(NESTED).view(block, 2, 16)
    assert tree["camera"].shape == (2, 16, 3, 5)
    tree["camera"][1, 15, 2, 4] = 9
    assert block[479] == 9


def test_a_short_block_is_refused() -> None:
    with pytest.raises(ValueError, match=r"a block of \(5,\) rows needs 576 bytes, got 575"):
        Layout.of(NESTED).view(np.zeros(575, np.uint8), 5)


def test_allocate_is_zeroed() -> None:
    tree = Layout.of(NESTED).allocate(3)
    assert [float(np.abs(leaf).sum()) for leaf in Layout.of(NESTED).flat(tree)] == [0.0] * 5
    assert tree["inner"][1].dtype == np.float32


def test_a_plain_array_is_its_own_tree() -> None:
    layout = Layout.of(spaces.Box(-1, 1, (4,), np.float32))
    assert layout.single == Leaf((), np.dtype(np.float32), (4,))
    assert layout.offsets((4096,)) == ([0], 65_536)
    array = layout.allocate(2)
    assert isinstance(array, np.ndarray)
    assert array.shape == (2, 4)
    assert layout.flat(array)[0] is array


@pytest.mark.parametrize(
    ("space", "leaf"),
    [
        (spaces.Discrete(3, start=-1), Leaf((), np.dtype(np.int64), ())),
        (spaces.MultiDiscrete(np.array([[2, 3], [4, 5]])), Leaf((), np.dtype(np.int64), (2, 2))),
        (spaces.MultiBinary([2, 2]), Leaf((), np.dtype(np.int8), (2, 2))),
        (spaces.Box(0, 1, (), np.float64), Leaf((), np.dtype(np.float64), ())),
    ],
)
def test_plain_spaces(space: spaces.Space[Any], leaf: Leaf) -> None:
    assert Layout.of(space).single == leaf


@pytest.mark.parametrize("space", [NESTED, spaces.Dict({"only": spaces.Discrete(2)})])
def test_single_refuses_a_tree(space: spaces.Space[Any]) -> None:
    with pytest.raises(ConfigError, match="expected one plain array, but the space has the leaves"):
        _ = Layout.of(space).single


@pytest.mark.parametrize(
    "space",
    [
        spaces.Text(5),
        spaces.Sequence(spaces.Discrete(2)),
        spaces.Graph(spaces.Discrete(2), None),
        spaces.OneOf([spaces.Discrete(2)]),
    ],
)
def test_spaces_without_fixed_arrays(space: spaces.Space[Any]) -> None:
    with pytest.raises(ConfigError, match=r"at \['part'\] has no fixed-size arrays; use Box, Discrete"):
        Layout.of(spaces.Dict({"part": space}))


def test_tree_and_flat_are_inverse() -> None:
    layout = Layout.of(NESTED)
    assert layout.tree([1, 2, 3, 4, 5]) == {"camera": 1, "inner": (2, 3), "keys": 4, "mode": 5}
    assert layout.flat({"mode": 5, "keys": 4, "inner": (2, 3), "camera": 1}) == [1, 2, 3, 4, 5]
    with pytest.raises(ValueError, match="shorter"):
        layout.tree([1, 2])


def test_map_tree() -> None:
    one, other = {"a": 1, "b": (2, 3)}, {"a": 10, "b": (20, 30)}
    assert map_tree(lambda x, y: x + y, one, other) == {"a": 11, "b": (22, 33)}
    assert map_tree(lambda x: -x, 4) == -4


def test_spec() -> None:
    spec = Spec.of("Toy-v0", NESTED, spaces.Discrete(2), max_episode_steps=9, info_keys=("score",))
    assert spec.observation == Layout.of(NESTED)
    assert spec.action.single.dtype == np.int64
    assert (spec.max_episode_steps, spec.reward_threshold, spec.num_agents, spec.info_keys) == (9, None, 1, ("score",))


def test_a_cell_quotes_formulas_and_leaves_figures_as_they_are() -> None:
    """A return below 0 with its cost behind it is no formula; what a spreadsheet would calculate is one."""
    figures = ("-237.8, cost 0.0", "-3 ± 1", "-5 %", "-2 to -1", "-1,024", "-", "0.5")
    assert [cell(text) for text in figures] == list(figures)
    formulas = ("=1+1", "-1+cmd|' /C calc'!A0", "-SUM(A1)", "-5 A1", "@x", "+", "- x")
    assert [cell(text) for text in formulas] == [f"'{text}" for text in formulas]


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        (500.0, "500.0"), (-84.26, "-84.3"), (9.97, "9.97"), (9.999, "10.0"), (1.0, "1.0"), (0.0, "0.0"),
        (-0.8531, "-0.853"), (0.04127, "0.0413"), (2e9, "2e+09"), (float("nan"), "nan"), (float("-inf"), "-inf"),
    ],
)  # fmt: skip
def test_decimals_of_returns(value: float, shown: str) -> None:
    """Returns of about 1 are told from each other."""
    assert decimal(value) == shown
