"""Masks in observations hold in whatever is deployed, as they do in training, beside the masks of callers."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, cast

import numpy as np
import pytest
from gymnasium import spaces

import shoal
from shoal.deploy.export import Kind, export
from shoal.deploy.player import Player
from shoal.deploy.policy_server import PolicyServer
from shoal.envs.masks import MaskReader
from shoal.experiment.shown import mask_of
from tests.deploy.cases import BOTH, Case, observations
from tests.deploy.compiled import Compiled
from tests.deploy.test_c import ROWS, allowed, assert_same, torch_actions
from tests.deploy.test_graphs import Graph

if TYPE_CHECKING:
    from pathlib import Path

    from shoal.types import Spec

SEEN = spaces.Box(-1, 1, (3,), np.float32)
BYTES = spaces.Box(0, 1, (4,), np.int8)
MASKS = {
    "one": (spaces.Discrete(4, start=2), BYTES),
    # An array for all choices of one leaf, one for each of another, and none of the leaves that may do anything.
    "nested": (
        spaces.Dict({**BOTH.spaces, "keys": cast("Any", spaces.MultiDiscrete([2, 3])), "zoom": spaces.Discrete(2)}),
        spaces.Dict(
            {
                "on": spaces.MultiBinary(4),
                "keys": spaces.Tuple((spaces.MultiBinary(2), spaces.Box(0, 1, (3,), cast("Any", np.bool_)))),
                "pick": spaces.MultiBinary(3),
            }
        ),
    ),
}


def masked_case(name: str) -> Case:
    action, mask = MASKS[name]
    return Case(action, observation=spaces.Dict({"seen": SEEN, "action_mask": mask}))


def seen_by(spec: Spec, rows: int) -> Any:
    """Observations whose masks leave an option of every choice."""
    obs = observations(cast("spaces.Dict", spec.observation_space)["seen"], rows)
    mask = allowed(spec, rows)
    if isinstance(spec.action_space, spaces.Discrete):
        return {"seen": obs, "action_mask": mask.astype(np.int8)}
    # Leaves of the action in their order: keys 2 + 3, on 4, pick 3, turn 2, zoom 2.
    keys, on, pick = mask[:, :5], mask[:, 5:9], mask[:, 9:12]
    parts = {"keys": (keys[:, :2].astype(np.int8), keys[:, 2:]), "on": on.astype(np.int8), "pick": pick.astype(np.int8)}
    return {"seen": obs, "action_mask": parts}


def by_torch(policy: Any, spec: Spec, obs: Any, mask: Any = None) -> Any:
    held = MaskReader(spec).observed(obs, len(obs["seen"]), mask)
    return torch_actions(policy, obs, mask=held)[0]


def binds(spec: Spec, free: Any, held: Any) -> bool:
    pairs = zip(spec.action.flat(free), spec.action.flat(held), strict=True)
    return any(np.any(one != other) for one, other in pairs)


@pytest.mark.parametrize("name", ["nested", pytest.param("one", marks=pytest.mark.slow)])
def test_in_c(name: str, tmp_path: Path) -> None:
    policy, spec = masked_case(name).make()
    library = Compiled(export(policy, spec, tmp_path / "out", to="c").folder, spec)
    obs = seen_by(spec, ROWS)
    wanted = by_torch(policy, spec, obs)
    assert binds(spec, torch_actions(policy, obs)[0], wanted)
    status, action = library.step(obs, ROWS)
    assert status == 0
    assert_same(spec, action, wanted)
    more = allowed(spec, ROWS)
    both = MaskReader(spec).observed(obs, ROWS, more)
    assert both is not None
    blocked = np.array([MaskReader(spec).blocked(both[row : row + 1]) >= 0 for row in range(ROWS)])
    few = {"seen": obs["seen"][~blocked], "action_mask": rows_of(obs["action_mask"], ~blocked)}
    status, action = library.step(few, int((~blocked).sum()), mask=more[~blocked])
    assert status == 0
    assert_same(spec, action, by_torch(policy, spec, few, more[~blocked]))
    nothing = {"seen": obs["seen"], "action_mask": rows_of(obs["action_mask"], ..., times=0)}
    assert library.step(nothing, ROWS)[0] == 4


def rows_of(tree: Any, which: Any, times: int = 1) -> Any:
    if isinstance(tree, dict):
        return {key: rows_of(part, which, times) for key, part in tree.items()}
    if isinstance(tree, tuple):
        return tuple(rows_of(part, which, times) for part in tree)
    return (tree[which] * times).astype(tree.dtype)


@pytest.mark.slow
@pytest.mark.parametrize("name", MASKS)
@pytest.mark.parametrize("kind", ["onnx", "torchscript", "torch-export"])
def test_in_graphs(name: str, kind: Kind, tmp_path: Path) -> None:
    policy, spec = masked_case(name).make()
    export(policy, spec, tmp_path / "out", to=kind)
    graph = Graph(tmp_path / "out", spec)
    assert "action_mask" not in graph.inputs
    obs = seen_by(spec, ROWS)
    action, _ = graph(obs, ROWS)
    assert_same(spec, action, by_torch(policy, spec, obs))


def test_in_a_served_policy() -> None:
    policy, spec = masked_case("nested").make()
    obs = seen_by(spec, 40)
    wanted = by_torch(policy, spec, obs)
    assert binds(spec, torch_actions(policy, obs)[0], wanted)
    with PolicyServer(policy, spec) as server, shoal.remote_policy(server.name, spec=spec) as client:
        assert_same(spec, client.act(obs), wanted)


def test_what_a_player_refuses() -> None:
    policy, spec = masked_case("one").make()
    obs, start = seen_by(spec, 2), np.ones(2, np.bool_)
    player = Player(policy, spec, 2)
    obs["action_mask"][1] = 0
    with pytest.raises(ValueError, match="the action mask of row 1 leaves no option"):
        player.act(obs, start)
    obs["action_mask"][1] = [1, 2, 0, 0]
    with pytest.raises(ValueError, match="the observations have an action_mask with other numbers than 0 and 1"):
        player.act(obs, start)


def test_a_mask_beside_the_observation_is_not_dropped() -> None:
    """What both leave may be chosen."""
    _, spec = masked_case("one").make()
    obs = {"seen": np.zeros((1, 3), np.float32), "action_mask": np.array([[1, 1, 0, 0]], np.int8)}
    np.testing.assert_array_equal(mask_of(spec, obs, 1, None), [[True, True, False, False]])
    np.testing.assert_array_equal(mask_of(spec, obs, 1, [[0, 1, 1, 1]]), [[False, True, False, False]])
    with pytest.raises(ValueError, match="leaves no option"):
        mask_of(spec, obs, 1, [[0, 0, 1, 1]])
    with pytest.raises(ValueError, match="expected 1 action masks, got 2"):
        mask_of(spec, obs, 1, [[1, 1, 1, 1]] * 2)
