"""Action masks: read from infos or observations, refused when wrong, respected in acting and in the loss."""

from __future__ import annotations

import sys
from typing import Any

import cloudpickle
import gymnasium as gym
import numpy as np
import pytest
import torch
from gymnasium import spaces

import shoal
from shoal import algos
from shoal.envs.masks import MaskReader
from shoal.envs.registry import make
from shoal.envs.workers.settings import Workers
from shoal.learn.acting import Acting
from shoal.nets.distributions import Categorical
from shoal.nets.heads import head
from shoal.nets.policy import Network, make_policy
from shoal.run.evaluate import evaluate
from shoal.stream.rollouts import rollouts
from shoal.types import ConfigError, EnvError, Spec
from tests import single_run

pytestmark = pytest.mark.usefixtures("warm_workers")

cloudpickle.register_pickle_by_value(sys.modules[__name__])  # worker processes need not import torch

BOX = spaces.Box(-1, 1, (2,), np.float32)
BOTH = spaces.Dict({"go": spaces.Discrete(3), "push": BOX, "set": spaces.MultiDiscrete([2, 2])})


class Guarded(gym.Env[Any, Any]):
    """Only the options that the mask leaves are allowed: another one raises. Half of the episodes' ends have none."""

    where = "info"
    action_space: Any = spaces.Discrete(4, start=2)
    observation_space: Any = BOX

    def __init__(self) -> None:
        self.mask = np.ones(4, np.int8)

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Any, dict[str, Any]]:
        """Draws the first mask."""
        super().reset(seed=seed)
        return self._next(ended=False)

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        """Ends by chance."""
        assert self.mask[action - 2]
        ended = bool(self.np_random.random() < 0.2)
        obs, info = self._next(ended=ended)
        return obs, 1.0, ended, False, info

    def _next(self, *, ended: bool) -> tuple[Any, dict[str, Any]]:
        self.mask = np.zeros(4, np.int8)
        if not ended:
            self.mask[self.np_random.integers(4)] = 1
            self.mask[self.np_random.integers(4)] = 1
        seen = self.np_random.uniform(-1, 1, 2).astype(np.float32)
        return (seen, {"action_mask": self.mask}) if self.where == "info" else (self._both(seen), {})

    def _both(self, seen: Any) -> dict[str, Any]:
        return {"action_mask": self.mask.copy(), "seen": seen}


class Shown(Guarded):
    """The same with its masks in the observation."""

    where = "obs"
    observation_space = spaces.Dict({"action_mask": spaces.Box(0, 1, (4,), np.int8), "seen": BOX})


def test_masked_options_have_probability_zero() -> None:
    """Two of four equal options: half each, entropy log 2, and no gradient to the others."""
    logits = torch.zeros(4, requires_grad=True)
    masked = Categorical(logits).masked(torch.tensor([True, False, False, True]))
    torch.testing.assert_close(masked.log_probs.exp(), torch.tensor([0.5, 0, 0, 0.5]))
    assert masked.entropy().item() == pytest.approx(np.log(2))
    assert [int(masked.sample(torch.tensor([u]))) for u in (0.0, 0.4, 0.6, 0.99)] == [0, 0, 3, 3]
    (masked.log_prob(torch.tensor(3)) + masked.entropy()).backward()
    assert logits.grad is not None
    assert logits.grad.tolist() == [-0.5, 0, 0, 0.5]
    only = Categorical(torch.tensor([0.0, 50, 0, 90])).masked(torch.tensor([True, False, False, False]))
    assert int(only.mode()) == 0
    assert only.log_prob(torch.tensor(0)).item() == 0


def test_masks_nest_as_actions_do() -> None:
    """Leaves side by side: go 3, push 2 (always free), set 2 + 2; what is left out is free."""
    spec = Spec.of("Test-v0", BOX, BOTH)
    reader = MaskReader(spec)
    given = {"go": [1, 0, 1], "set": (np.array([0, 1]), np.array([1, 1]))}
    assert reader.read(given, 1).astype(int).tolist() == [[1, 0, 1, 1, 1, 0, 1, 1, 1]]
    assert reader.read({"set": np.array([1, 0, 0, 1])}, 1).astype(int).tolist() == [[1, 1, 1, 1, 1, 1, 0, 0, 1]]
    joint: Any = head(BOTH, squash=False)(torch.zeros(9), torch.zeros(2))
    masked = joint.masked(torch.from_numpy(reader.read(given, 1)[0]))
    assert masked.entropy().item() == pytest.approx(2 * np.log(2) + 1 + np.log(2 * np.pi))
    assert reader.blocked(reader.read({"go": [1, 0, 0]}, 1)) == -1
    assert reader.blocked(reader.read({"set": [1, 1, 0, 0]}, 1)) == 0


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"go": [1, 0]}, r"action_mask\['go'\] of 2 numbers, but Discrete\(3\) needs 3"),
        ({"push": [1, 1]}, r"action_mask\['push'\] for Box"),
        ({"go": [1, 2, 0]}, r"action_mask\['go'\] with other numbers than 0 and 1"),
        (np.ones(9), "should lie in a dict, but lies in a ndarray"),
    ],
)
def test_wrong_masks_are_refused(given: Any, message: str) -> None:
    """The path and what would be right."""
    with pytest.raises(ValueError, match=message):
        MaskReader(Spec.of("Test-v0", BOX, BOTH)).read(given, 1)


def test_a_dict_in_the_place_of_a_mask_is_named() -> None:
    """Such as the whole info: by its keys, with what would be right."""
    reader = MaskReader(Spec.of("Test-v0", BOX, spaces.Discrete(3)))
    told = r"an action_mask that is a dict with the keys 'action_mask', 'lives', but Discrete\(3\) needs an array of 3"
    with pytest.raises(ValueError, match=told):
        reader.read({"action_mask": [1, 0, 1], "lives": 3}, 1)
    assert reader.read([1, 0, 1], 1).tolist() == [[True, False, True]]


def test_an_observation_with_an_impossible_mask_is_refused() -> None:
    """Before anything runs."""

    class Env(Shown):
        action_space = spaces.Discrete(5)

    with pytest.raises(ConfigError, match="an action_mask of 4 numbers, but Discrete"):
        make(Env, 1)


@pytest.mark.parametrize("kind", [Guarded, Shown])
def test_a_row_without_any_option_is_named(kind: Any) -> None:
    """Masks of ended episodes' last observations do not count; those of rows that go on do."""

    class Stuck(kind):
        def step(self, action: Any) -> Any:
            """No option and no end."""
            obs, info = self._next(ended=True)
            return obs, 1.0, False, False, info

    rows = make(Stuck, 2)
    rows.reset(0)
    mask = rows.recv().action_mask
    assert mask is not None
    rows.send(slice(0, 2), mask.argmax(1) + 2)
    with pytest.raises(EnvError, match="row 0 at step 1 of its episode gave an action_mask without any option"):
        rows.recv()


def test_a_mask_that_stops_coming_is_named() -> None:
    """An info without it would make every option legal."""

    class Forgets(Guarded):
        def step(self, action: Any) -> Any:
            """Without its info."""
            return np.zeros(2, np.float32), 1.0, False, False, {}

    rows = make(Forgets, 1)
    rows.reset(0)
    mask = rows.recv().action_mask
    assert mask is not None
    rows.send(slice(0, 1), mask.argmax(1) + 2)
    with pytest.raises(EnvError, match=r"row 0 at step 1 .* gave no info\['action_mask'\]"):
        rows.recv()


@pytest.mark.parametrize("kind", [Guarded, Shown])
@pytest.mark.parametrize("schedule", ["sync", "overlap"])
@pytest.mark.parametrize("algo", ["ppo", "a2c"])
def test_masks_hold_while_acting_learning_and_evaluating(kind: Any, schedule: Any, algo: str) -> None:
    """The environment asserts it; log-probabilities of old and new policy agree before the first update."""
    module = algos.load(algo)
    shape = {"num_minibatches": 1, "update_epochs": 1} if algo == "ppo" else {}
    cfg = module.Config(num_steps=8, network=Network(hidden=(8,)), **shape)
    policy, logged = single_run.train(module, cfg, make(kind, 4), updates=3, schedule=schedule)
    if algo == "ppo":
        assert logged["loss/approx_kl"][0] == pytest.approx(0, abs=1e-6)
    assert max(logged["loss/entropy"]) < np.log(2)
    assert evaluate(policy, make(kind, 3), episodes=6, acting=Acting(0)).mean >= 1


@pytest.mark.parametrize("kind", [Guarded, Shown])
def test_masks_come_from_processes(kind: Any) -> None:
    """The same steps as serial's; a worker that is replaced finds out anew that its infos hold masks."""
    settings = {"serial": None, "workers": Workers(2, on_fault="restart")}
    rows = {name: make(kind, 4, backend=name, workers=settings[name]) for name in BACKENDS}
    policy = make_policy(rows["serial"].spec, Network(hidden=(8,)), 0)
    streams = {name: rollouts(env, policy, num_steps=12) for name, env in rows.items()}
    steps = {name: next(stream) for name, stream in streams.items()}
    assert rows["workers"].spec.masked
    for name in ("action", "action_mask", "reward", "terminated"):
        assert torch.equal(getattr(steps["workers"], name), getattr(steps["serial"], name))
    workers: Any = rows["workers"]
    workers.pool.workers[0].kill()
    streams["workers"].publish()
    after = next(streams["workers"])
    assert after.valid.sum() == 4 * 12 - 2
    assert after.action_mask.gather(-1, after.action.unsqueeze(-1)).all()
    for env in rows.values():
        env.close()


BACKENDS = ("serial", "workers")


def test_infos_that_differ_between_processes_are_named() -> None:
    """Row 0 has a mask, rows 2 and 3 have none."""

    class Half(Guarded):
        def reset(
            self, *, seed: int | None = None, options: dict[str, Any] | None = None
        ) -> tuple[Any, dict[str, Any]]:
            obs, info = super().reset(seed=seed)
            return obs, {} if seed in (2, 3) else info

    rows = make(Half, 4, backend="workers", workers=Workers(2))
    with pytest.raises(EnvError, match=r"worker 1 .*rows 2\.\.3\) gave no info\['action_mask'\], unlike row 0"):
        rows.reset(0)
    rows.close()


def test_steps_carry_the_masks_that_acted() -> None:
    """The chosen option is always among them; in the observation they are the same numbers."""
    rows = make(Shown, 3)
    steps = next(rollouts(rows, make_policy(rows.spec, Network(hidden=(8,)), 0), num_steps=12))
    assert torch.equal(steps.action_mask, steps.obs["action_mask"].bool())
    assert steps.action_mask.gather(-1, steps.action.unsqueeze(-1)).all()


def test_a_loaded_policy_takes_masks(run_dir: Any) -> None:
    """One observation with a mask, and two."""
    settings: dict[str, Any] = {"num_envs": 4, "num_steps": 8, "num_minibatches": 4, "total_timesteps": 64}
    run = shoal.train(Guarded, panel="none", run_dir=str(run_dir), **settings)
    loaded = shoal.load(run.path, factory=Guarded)
    obs = np.zeros((2, 2), np.float32)
    for option in range(4):
        mask = np.arange(4) == option
        assert loaded.act(obs[0], action_mask=mask) == option + 2
        assert loaded.act(obs, action_mask=[mask, ~mask])[0] == option + 2
    with pytest.warns(UserWarning, match="without one act may choose what is not allowed"):
        assert loaded.act(obs[0]) in (2, 3, 4, 5)
    with pytest.raises(ValueError, match="the action mask of row 0 leaves no option"):
        loaded.act(obs[0], action_mask=np.zeros(4))
