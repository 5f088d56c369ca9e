"""Observations and actions of every Gymnasium space: read, refused with a path, encoded, acted, learned from."""

from __future__ import annotations

from typing import Any

import gymnasium as gym
import numpy as np
import pytest
import torch
from gymnasium import spaces
from torch import nn

from shoal import algos
from shoal.envs.registry import make
from shoal.export.vector_env import make_vec
from shoal.learn.acting import Acting, make_actor
from shoal.nets.encoder import TreeEncoder, make_encoder
from shoal.nets.heads import head, head_size
from shoal.nets.policy import Network, make_policy, wrap
from shoal.types import ConfigError, EnvError, Spec, map_tree
from tests import single_run

NOTHING: dict[str, Any] = {}
SEEN = spaces.Dict(
    {
        "eye": spaces.Box(0, 255, (2, 2), np.uint8),
        "parts": spaces.Tuple((spaces.Discrete(3, start=5), spaces.Box(-1, 1, (2,), np.float32))),
        "bits": spaces.MultiBinary(2),
        "mode": spaces.MultiDiscrete([2, 3]),
    }
)


class Nested(gym.Env[Any, Any]):
    """Every kind of leaf in one observation; ends by chance, and may return something wrong."""

    observation_space = SEEN
    action_space: Any = spaces.Discrete(2)

    def __init__(self, wrong: Any = None, at: int = 3) -> None:
        """`wrong` changes the observation of step `at`."""
        self.wrong, self.at, self.count = wrong, at, 0

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Any, dict[str, Any]]:
        """The count begins anew."""
        super().reset(seed=seed)
        self.count = 0
        return self._seen(), NOTHING

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        """One more count."""
        assert action in self.action_space
        self.count += 1
        obs = self._seen()
        if self.wrong is not None and self.count == self.at:
            obs = self.wrong(obs)
        return obs, 1.0, bool(self.np_random.random() < 0.2), False, NOTHING

    def _seen(self) -> dict[str, Any]:
        draw = self.np_random
        return {
            "eye": draw.integers(0, 256, (2, 2)).astype(np.uint8),
            "parts": (np.int64(draw.integers(5, 8)), draw.uniform(-1, 1, 2).astype(np.float32)),
            "bits": draw.integers(0, 2, 2).astype(np.int8),
            "mode": draw.integers(0, [2, 3]),
        }


def test_a_nested_observation_is_one_vector_in_layout_order() -> None:
    """Bits, eye scaled by 255, mode one-hot, then parts: Gymnasium sorts a dict's keys."""
    encoder = make_encoder(
        Spec.of("Test-v0", SEEN, spaces.Discrete(2)), Network(normalize_obs=False), torch.Generator()
    )
    obs = {
        "bits": torch.tensor([[[1, 0]]], dtype=torch.int8),
        "eye": torch.tensor([[[[0, 51], [102, 255]]]], dtype=torch.uint8),
        "mode": torch.tensor([[[1, 2]]]),
        "parts": (torch.tensor([[6]]), torch.tensor([[[0.5, -0.5]]])),
    }
    order = {"bits": [1, 0], "eye": [0, 0.2, 0.4, 1], "mode": [0, 1, 0, 0, 1], "parts": [0, 1, 0, 0.5, -0.5]}
    expected = [x for key in SEEN.spaces for x in order[key]]
    torch.testing.assert_close(encoder(obs), torch.tensor([[expected]], dtype=torch.float32))
    assert encoder.size == 16


def test_only_box_leaves_are_normalized() -> None:
    """Two observations of the last leaf, 0 and 1: mean 0.5; eight numbers of Boxes in all."""
    space = spaces.Tuple((spaces.Discrete(2), spaces.Box(-1, 1, (1,), np.float32)))
    encoder = make_encoder(
        Spec.of("Test-v0", space, spaces.Discrete(2)), Network(normalize_obs=True), torch.Generator()
    )
    assert isinstance(encoder, TreeEncoder)
    encoder.observe((torch.tensor([0, 1]), torch.tensor([[0.0], [1.0]])))
    torch.testing.assert_close(
        encoder((torch.tensor([1, 1]), torch.tensor([[0.5], [1.0]]))), torch.tensor([[0.0, 1.0, 0.0], [0, 1, 1]])
    )


WRONG: list[tuple[Any, str]] = [
    (lambda o: o | {"eye": o["eye"].astype(np.int64)}, r"\['eye'\] of shape \(2, 2\) and type int64"),
    (lambda o: o | {"eye": o["eye"][0]}, r"\['eye'\] of shape \(2,\)"),
    (lambda o: o | {"parts": (np.int64(8), o["parts"][1])}, r"\['parts'\]\[0\] .*8.*not in its own Discrete"),
    (lambda o: o | {"parts": o["parts"][:1]}, r"\['parts'\] that must be a tuple of 2 parts, but has 1 parts"),
    (lambda o: o | {"parts": (o["parts"][0], np.array([0, np.nan], np.float32))}, r"\['parts'\]\[1\] \[ *0\. +nan\]"),
    (lambda o: o | {"bits": np.array([0, 2], np.int8)}, r"\['bits'\] of shape \(2,\)"),
    (lambda o: o | {"mode": np.array([0, 3])}, r"\['mode'\] of shape \(2,\)"),
    (lambda o: {k: v for k, v in o.items() if k != "bits"}, "must be a dict with the keys"),
    (lambda _: np.zeros(3), "must be a dict with the keys .* but is a ndarray"),
]


@pytest.mark.parametrize(("wrong", "message"), WRONG, ids=[message for _, message in WRONG])
def test_a_wrong_leaf_is_named_with_row_step_and_path(wrong: Any, message: str) -> None:
    """Row 0 goes wrong at its third step."""
    made = iter([wrong, None])
    rows = make(lambda: Nested(next(made), at=1), 2)
    rows.reset(0)
    rows.recv()
    rows.send(slice(0, 2), np.zeros(2, np.int64))
    with pytest.raises(EnvError, match=rf"row 0 at step 1 .*{message}"):
        rows.recv()


@pytest.mark.parametrize(
    "space",
    [
        spaces.Text(5),
        spaces.Graph(spaces.Discrete(2), None),
        spaces.Sequence(spaces.Discrete(2)),
        spaces.Dict({"words": spaces.Text(5)}),
        spaces.Dict({}),
    ],
)
def test_spaces_without_fixed_arrays_are_refused(space: Any) -> None:
    """With the path, and what would work."""
    with pytest.raises(ConfigError, match=r"no fixed-size arrays; use Box|an empty Dict"):
        Spec.of("Test-v0", space, spaces.Discrete(2))


EMPTY = spaces.Box(0, 1, (0,), np.float32)


@pytest.mark.parametrize(
    ("seen", "done", "message"),
    [
        (EMPTY, spaces.Discrete(2), r"Of: the observation space .* holds no numbers; give it at least one"),
        (spaces.Dict({"a": EMPTY}), spaces.Discrete(2), "holds no numbers"),
        (spaces.Box(0, 255, (84, 0, 3), np.uint8), spaces.Discrete(2), "holds no numbers"),
        (SEEN, EMPTY, r"the action space .* has at \[\] nothing to choose; leave it out"),
        (SEEN, spaces.Dict({"a": spaces.Discrete(2), "b": EMPTY}), r"has at \['b'\] nothing to choose"),
        (SEEN, spaces.MultiDiscrete([]), "nothing to choose"),
    ],
)
def test_spaces_without_numbers_are_refused(seen: Any, done: Any, message: str) -> None:
    """Before a policy is made for them; an empty leaf beside others is nothing to see, and allowed."""
    with pytest.raises(ConfigError, match=message):
        Spec.of("Of", seen, done)


def test_an_empty_leaf_beside_others_is_nothing_to_see() -> None:
    """Normalized or not, the other leaf's numbers are the whole vector."""
    spec = Spec.of("Of", spaces.Dict({"a": EMPTY, "b": spaces.Box(-9, 9, (2,))}), spaces.Discrete(2))
    obs: Any = {"a": torch.zeros(3, 0), "b": torch.tensor([[1.0, 2.0], [3.0, 2.0], [5.0, 2.0]])}
    encoder = make_encoder(spec, Network(normalize_obs=True), torch.Generator())
    encoder.observe(obs)
    assert encoder(obs).tolist() == [[pytest.approx(x, abs=1e-4), 0] for x in (-(1.5**0.5), 0, 1.5**0.5)]


def assert_equal_trees(left: Any, right: Any) -> None:
    """Same structure, same dtypes and values."""

    def same(x: Any, y: Any) -> None:
        assert x.dtype == y.dtype
        np.testing.assert_array_equal(x, y)

    map_tree(same, left, right)


def test_make_vec_equals_sync_vector_env() -> None:
    """The same observations and ends as SyncVectorEnv's, batched in the same way."""
    ours = make_vec(Nested, 3)
    theirs = gym.vector.SyncVectorEnv([Nested] * 3, autoreset_mode=gym.vector.AutoresetMode.SAME_STEP)
    assert ours.observation_space == theirs.observation_space
    assert_equal_trees(ours.reset(seed=3)[0], theirs.reset(seed=3)[0])
    for _ in range(50):
        action = np.ones(3, np.int64)
        mine, other = ours.step(action), theirs.step(action)
        for one, two in zip(mine[:4], other[:4], strict=True):
            assert_equal_trees(one, two)


@pytest.mark.parametrize("recurrent", ["none", "gru"])
@pytest.mark.parametrize("algo", ["ppo", "a2c"])
@pytest.mark.parametrize("schedule", ["sync", "overlap"])
def test_nested_observations_are_learned_from(algo: str, recurrent: Any, schedule: Any) -> None:
    """Three updates change the weights; the normalizers have seen every step."""
    module = algos.load(algo)
    network = Network(hidden=(8,), recurrent=recurrent, recurrent_size=4, normalize_obs=True)
    shape = {"num_minibatches": 2} if algo == "ppo" else {}
    cfg = module.Config(num_steps=5, network=network, **shape)
    rows = make(Nested, 4)
    before = [p.clone() for p in make_policy(rows.spec, network, 1).parameters()]
    policy: Any
    policy, _ = single_run.train(module, cfg, rows, updates=3, schedule=schedule)
    assert any(not torch.equal(p, q) for p, q in zip(before, policy.parameters(), strict=True))
    assert float(policy.encoder.leaves[1].normalizer.count) == 60


class Own(nn.Module):
    """A user's module that reads the leaves by name."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(2, 3)

    def forward(self, obs: Any) -> Any:
        """Logits and value of [N] observations."""
        assert obs["eye"].dtype == torch.uint8
        assert obs["parts"][0].shape == obs["mode"].shape[:1]
        out = self.layer(obs["parts"][1])
        return out[:, :2], out[:, 2]


def test_a_plain_module_gets_named_tensors() -> None:
    """Leaves of [T, B] observations arrive as [N, ...]."""
    rows = make(Nested, 2)
    policy = wrap(Own(), rows.spec)
    rows.reset(0)
    obs = map_tree(torch.from_numpy, rows.recv().obs)
    assert policy(map_tree(lambda x: x[None], obs), None, None).value.shape == (1, 2)


def test_saved_rows_go_on_exactly() -> None:
    """State and restore of nested observations."""
    rows: Any
    rows, twin = make(Nested, 3), make(Nested, 3)
    rows.reset(1)
    rows.recv()
    for _ in range(7):
        rows.send(slice(0, 3), np.zeros(3, np.int64))
        rows.recv()
    assert twin.restore(rows.state()) == []
    assert_equal_trees(twin.recv().obs, rows.out.obs)


DONE = spaces.Dict(
    {
        "a": spaces.Discrete(2, start=3),
        "b": spaces.Tuple((spaces.Box(-1, 1, (1, 2), np.float64), spaces.MultiBinary(2))),
        "c": spaces.MultiDiscrete(np.array([[2, 3]])),
    }
)


class Doing(Nested):
    """The same observations, with actions of every kind."""

    action_space = DONE


def test_a_joint_distribution_is_the_product_of_its_leaves() -> None:
    """Uniform logits and a standard Gaussian: five uniform numbers in layout order, then two normal ones."""
    assert head_size(DONE) == 2 + 2 + 4 + 5
    joint: Any = head(DONE, squash=False)(torch.zeros(13), torch.zeros(2))
    assert (joint.noise, joint.num_uniform, joint.noise_size) == ("joint", 5, 7)
    action = joint.sample(torch.tensor([0.6, 0.2, 0.7, 0.9, 0.5, 0.5, -2.0]))
    assert map_tree(torch.Tensor.tolist, action) == {"a": 1, "b": ([[0.5, -2.0]], [0, 1]), "c": [[1, 1]]}
    given = joint.to_env(action)
    assert map_tree(torch.Tensor.tolist, given) == {"a": 4, "b": ([[0.5, -1.0]], [0, 1]), "c": [[1, 1]]}
    assert [x.dtype for x in (given["a"], *given["b"])] == [torch.int64, torch.float64, torch.int8]
    # choices: 2, 2, 2, 2 and 3; the Gaussian at (0.5, -2)
    expected = -4 * np.log(2) - np.log(3) - 0.5 * (0.25 + 4) - np.log(2 * np.pi)
    assert joint.log_prob(action).item() == pytest.approx(expected)
    assert joint.entropy().item() == pytest.approx(4 * np.log(2) + np.log(3) + 1 + np.log(2 * np.pi))


def test_joint_noise_does_not_depend_on_the_block() -> None:
    """Rows in one forward and in blocks of two choose the same actions, within their space."""
    rows = make(Doing, 5)
    rows.reset(0)
    obs = rows.recv().obs
    policy = make_policy(rows.spec, Network(hidden=(8,)), 0)
    start = np.ones(5, np.bool_)
    whole, parts = (make_actor(policy, rows.spec, 5, Acting(3, act_block=size)) for size in (64, 2))
    for _ in range(20):
        one, two = whole.act(obs, start, slice(0, 5)), parts.act(obs, start, slice(0, 5))
        assert_equal_trees(one.env_action["a"], two.env_action["a"])
        assert_equal_trees(one.env_action["b"][1], two.env_action["b"][1])
        np.testing.assert_allclose(one.action["b"][0], two.action["b"][0], rtol=1e-5, atol=1e-6)
        rows.send(slice(0, 5), one.env_action)
        rows.recv()


BAD: list[tuple[Any, str]] = [
    (lambda a: a | {"a": np.array([3, 5, 3])}, r"action\['a'\] 5 of row 1 is outside Discrete"),
    (lambda a: a | {"b": (a["b"][0], np.array([[0, 0], [0, 0], [0, 2]]))}, r"action\['b'\]\[1\] \[0 2\] of row 2"),
    (lambda a: a | {"b": (a["b"][0] * np.nan, a["b"][1])}, r"action\['b'\]\[0\] .* of row 0 is outside Box"),
    (lambda a: a | {"c": a["c"][0]}, r"rows 0..2 need actions\['c'\] of shape \(3, 1, 2\), got \(1, 2\)"),
    (lambda a: a | {"a": np.zeros(3)}, r"need actions\['a'\] of type int64, got float64"),
    (lambda a: a | {"b": a["b"][:1]}, r"action\['b'\] that must be a tuple of 2 parts, but has 1 parts"),
    (lambda _: np.zeros(3), "rows 0..2 got an action that must be a dict"),
]


@pytest.mark.parametrize(("wrong", "message"), BAD, ids=[message for _, message in BAD])
def test_a_wrong_action_is_named_with_row_and_path(wrong: Any, message: str) -> None:
    """Nothing is stepped, and the good action is taken afterwards."""
    rows = make(Doing, 3)
    rows.reset(0)
    rows.recv()
    bits = np.zeros((3, 2), np.int8)
    good: Any = {"a": np.array([3, 4, 3]), "b": (np.zeros((3, 1, 2)), bits), "c": np.zeros((3, 1, 2), np.int64)}
    with pytest.raises(ValueError, match=message):
        rows.send(slice(0, 3), wrong(good))
    rows.send(slice(0, 3), good)
    rows.recv()


def test_make_vec_takes_nested_actions_as_sync_vector_env_does() -> None:
    """In both modes, from actions that the batched space draws."""
    for mode in gym.vector.AutoresetMode.SAME_STEP, gym.vector.AutoresetMode.NEXT_STEP:
        ours = make_vec(Doing, 3, autoreset="same_step" if mode.name == "SAME_STEP" else "next_step")
        theirs = gym.vector.SyncVectorEnv([Doing] * 3, autoreset_mode=mode)
        assert ours.action_space == theirs.action_space
        ours.action_space.seed(1)
        assert_equal_trees(ours.reset(seed=3)[0], theirs.reset(seed=3)[0])
        for _ in range(30):
            action = ours.action_space.sample()
            mine, other = ours.step(action), theirs.step(action)
            for one, two in zip(mine[:4], other[:4], strict=True):
                assert_equal_trees(one, two)


@pytest.mark.parametrize("space", [DONE, DONE["b"], DONE["c"], spaces.MultiBinary(3), spaces.Box(-1, 1, (2, 2))])
@pytest.mark.parametrize("algo", ["ppo", "a2c"])
def test_every_action_space_is_learned_in(algo: str, space: Any) -> None:
    """Two updates; the environment itself asserts that each action lies in its space."""

    class Env(Nested):
        action_space = space

    module = algos.load(algo)
    shape = {"num_minibatches": 2} if algo == "ppo" else {}
    cfg = module.Config(num_steps=5, network=Network(hidden=(8,)), **shape)
    _, logged = single_run.train(module, cfg, make(Env, 4), updates=2)
    assert np.isfinite(logged["loss/entropy"]).all()


def test_nested_actions_are_played_again() -> None:
    """A saved row goes on from the actions of its episode."""
    rows: Any
    rows, twin = make(Doing, 2), make(Doing, 2)
    space = make_vec(Doing, 2).action_space
    rows.reset(1)
    rows.recv()
    for _ in range(4):
        rows.send(slice(0, 2), space.sample())
        rows.recv()
    assert twin.restore(rows.state()) == []
    assert_equal_trees(twin.recv().obs, rows.out.obs)
