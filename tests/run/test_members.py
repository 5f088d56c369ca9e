"""Agents that learn side by side: their settings, rows and memories, and what is refused."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import torch
from torch.optim import SGD

import shoal
from shoal.algos.dqn import DQN
from shoal.envs.registry import make
from shoal.nets.policy import Network, make_policy
from shoal.run import checkpoint
from shoal.run.members import Population, members_of, mixing_of, rows_of_members
from shoal.run.run import Run
from shoal.run.settings import Settings
from shoal.stream.rollouts import Rollouts
from shoal.types import ConfigError
from tests.inside import inside

if TYPE_CHECKING:
    from shoal.run.callbacks import Record

SMALL: dict[str, Any] = {
    "algo": "dqn",
    "total_timesteps": 400,
    "panel": "none",
    "preset": "none",
    "final_episodes": 0,
    "batch_size": 8,
    "network": {"hidden": (8,)},
    "num_threads": 1,
    "replay": {"buffer_size": 200, "learning_starts": 60, "samples_per_insert": 2.0},
}


def test_settings_of_each_agent() -> None:
    """A list gives each its number, a distribution draws them, whole numbers stay whole."""
    vary = ("learning_rate=1e-4,1e-3,3e-3", "n_step=1,2,3", "gamma=uniform(0.9, 0.95)")
    agents = members_of(DQN(), Population(vary=vary), 3, seed=1)
    assert list(agents) == ["agent0", "agent1", "agent2"]
    assert [own.learning_rate for own in agents.values()] == [1e-4, 1e-3, 3e-3]
    assert [own.n_step for own in agents.values()] == [1, 2, 3]
    assert all(0.9 <= own.gamma <= 0.95 for own in agents.values())
    assert members_of(DQN(), Population(vary=vary), 3, seed=1) == agents
    assert members_of(DQN(), Population(), 1, seed=1) == {"policy": DQN()}


def test_epsilons_are_a_ladder_unless_they_are_given() -> None:
    """0.4^1, 0.4^4.5 and 0.4^8 of three agents."""
    agents = members_of(DQN(), Population(), 3, seed=1)
    np.testing.assert_allclose([own.epsilon_end for own in agents.values()], [0.4, 0.4**4.5, 0.4**8])
    told = members_of(DQN(), Population(vary=("epsilon_end=0.1,0.2,0.3",)), 3, seed=1)
    assert [own.epsilon_end for own in told.values()] == [0.1, 0.2, 0.3]


def test_loguniform_draws_between_its_bounds() -> None:
    agents = members_of(DQN(), Population(vary=("learning_rate=loguniform(1e-5,1e-1)",)), 200, seed=1)
    rates = np.log10([own.learning_rate for own in agents.values()])
    assert -5 <= rates.min() < -4.8
    assert -1.2 < rates.max() <= -1
    assert abs(np.median(rates) + 3) < 0.5


@pytest.mark.parametrize(
    ("vary", "message"),
    [
        ("learning_rate=1e-4", "has 1 values for agents=2; give 2"),
        ("learning_rates=1e-4,1e-3", "'learning_rates' is no number among"),
        ("learning_rate=fast,slow", "could not convert"),
        ("learning_rate=loguniform(0,1)", "loguniform needs positive numbers, got 0"),
        ("gamma=uniform(1,0.9)", "1 must be below 0.9"),
        ("gamma=2,3", "gamma must"),
    ],
)
def test_bad_values_are_refused(vary: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message.replace("(", r"\(")):
        members_of(DQN(), Population(vary=(vary,)), 2, seed=1)


def test_rows_are_whole_environments() -> None:
    """Of 6 environments with 2 players each, two agents have 3 of them: 6 rows."""
    assert rows_of_members(12, 6, 2) == {"agent0": slice(0, 6), "agent1": slice(6, 12)}
    with pytest.raises(ConfigError, match="num_envs=6 environments do not divide among agents=4; num_envs=4 or 8"):
        rows_of_members(6, 6, 4)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"agents": 3}, "num_envs=8 environments do not divide among agents=3; num_envs=6 or 9 would"),
        (
            {"algo": "ppo", "agents": 2, "population": {"memory": "private"}},
            "population.memory='private' would change nothing: ppo has no replay memory",
        ),
        (
            {"algo": "ppo", "agents": 2, "num_envs": 4, "num_steps": 2, "num_minibatches": 8},
            "2 rows x 2 steps = 4 steps do not split into 8",
        ),
        ({"population": {"memory": "private"}}, "would change nothing: there is one agent"),
        ({"agents": 2, "population": {"vary": ("num_steps=1,2",)}}, "num_steps must be the same"),
        ({"agents": 2, "population": {"vary": ("gamma",)}}, "'gamma' names no values"),
    ],
)
def test_what_cannot_be(settings: dict[str, Any], message: str, run_dir: Any) -> None:
    small = SMALL if settings.get("algo") != "ppo" else {"total_timesteps": 64, "panel": "none"}
    told: dict[str, Any] = small | settings
    with pytest.raises(ConfigError, match=message):
        shoal.train("CartPole-v1", run_dir=str(run_dir), **told)


def test_whose_steps_an_agent_learns_from() -> None:
    """A number is the share of its own steps; rows of numbers are shares of every agent's."""
    assert mixing_of(Population(), 2) == mixing_of(Population(memory="private"), 1) == {}
    assert mixing_of(Population(memory="private"), 2) == {"agent0": (1, 0), "agent1": (0, 1)}
    own = mixing_of(Population(mixing=("0.5",)), 3)
    assert own == {"agent0": (0.5, 0.25, 0.25), "agent1": (0.25, 0.5, 0.25), "agent2": (0.25, 0.25, 0.5)}
    assert mixing_of(Population(mixing=("1,3", "0,2")), 2) == {"agent0": (0.25, 0.75), "agent1": (0, 1)}


@pytest.mark.parametrize(
    ("mixing", "message"),
    [
        (("1,1",), "is not of agents=2, each with 2 shares"),
        (("1,1", "1"), "is not of agents=2"),
        (("1.5",), "is not of agents=2"),
        (("1,-1", "1,1"), "shares are 0 or more"),
        (("0,0", "1,1"), "one of each agent's above 0"),
        (("nan,1", "1,1"), "shares are 0 or more"),
        (("half,half", "1,1"), "could not convert"),
    ],
)
def test_bad_shares_are_refused(mixing: tuple[str, ...], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        mixing_of(Population(mixing=mixing), 2)


def test_private_memories_are_not_mixed() -> None:
    with pytest.raises(ConfigError, match="leave one of them out"):
        Population(memory="private", mixing=("0.5",))


@pytest.mark.parametrize("memory", ["shared", "private"])
def test_each_agent_learns_as_much_as_its_steps_allow(memory: str, run_dir: Any) -> None:
    """400 steps of 4 rows, 60 before learning, 2 samples a step in batches of 8: 85 updates, 42 of each agent."""
    settings: dict[str, Any] = SMALL | {"agents": 2, "num_envs": 4, "population": {"memory": memory}}
    settings["replay"] = settings["replay"] | {"alpha": 0.6}
    run = shoal.train("CartPole-v1", run_dir=str(run_dir), **settings)
    lines = [json.loads(line) for line in (run.path / "metrics.jsonl").read_text().splitlines()]
    assert lines[-1]["update"] == 84
    assert lines[-1]["step"] == 400
    named = {key for line in lines for key in line if key.startswith(("loss/value/", "episode/return/"))}
    assert named == {f"{kind}/agent{i}" for kind in ("loss/value", "episode/return") for i in (0, 1)}
    assert shoal.load(run.path).act(np.zeros(4, np.float32)) in (0, 1)


@pytest.mark.parametrize("algo", ["ppo", "a2c", "impala", "pqn"])
def test_on_policy_agents_learn_from_their_own_rows(algo: str, run_dir: Any) -> None:
    """3 rollouts of 16 steps of 2 x 2 rows: 3 updates of each agent, by its own learning rate."""
    settings: dict[str, Any] = {"num_envs": 4, "num_steps": 16, "total_timesteps": 192, "agents": 2}
    settings |= {"population": {"vary": ("learning_rate=1e-4,1e-2",)}, "learning_rate_schedule": "constant"}
    settings |= {key: SMALL[key] for key in ("panel", "preset", "final_episodes", "num_threads")}
    run = shoal.train("CartPole-v1", algo=algo, run_dir=str(run_dir), **settings)
    lines = [json.loads(line) for line in (run.path / "metrics.jsonl").read_text().splitlines()]
    assert [line["update"] for line in lines] == [1, 2, 3, 4, 5, 6]
    assert [line["step"] for line in lines] == [0, 64, 64, 128, 128, 192]
    assert [line["train/learning_rate/agent1"] for line in lines] == [1e-2] * 6
    assert [any("loss/value/agent0" in key for key in line) for line in lines] == [True, False] * 3
    assert run.steps == 192


def test_a_run_that_ended_between_two_agents_goes_on(run_dir: Any) -> None:
    """Stopped after the fifth of 12 updates, when agent1's rollout waits; the weights are those of a whole run."""
    settings: dict[str, Any] = {"num_envs": 4, "num_steps": 16, "total_timesteps": 384, "agents": 2, "name": "run"}
    settings |= {key: SMALL[key] for key in ("panel", "preset", "final_episodes", "num_threads")}
    settings |= {"network": {"hidden": (8,), "normalize_obs": True}}
    whole = shoal.train("CartPole-v1", algo="ppo", run_dir=str(run_dir / "whole"), **settings)

    def stop(run: Run, record: Record) -> None:
        if run.updates == 5:
            run.stop("enough")

    parts = shoal.train("CartPole-v1", algo="ppo", run_dir=str(run_dir / "parts"), callbacks=[stop], **settings)
    found = checkpoint.load(parts.path / "checkpoints")
    assert found is not None
    assert list(found.tree["stream"]["waiting"]) == ["agent1"]
    shoal.resume(parts.path, panel="none")
    trees = [checkpoint.load(run.path / "checkpoints") for run in (whole, parts)]
    weights = [tree.tree["learner"] for tree in trees if tree is not None]
    assert [tree.updates for tree in trees if tree is not None] == [12, 12]
    for name in ("agent0", "agent1"):
        one, two = (each[name]["networks"]["policy"]["module"] for each in weights)
        assert all(torch.equal(one[key], two[key]) for key in one)


@pytest.mark.parametrize(
    ("algo", "env", "varied"),
    [("dqn", "CartPole-v1", "epsilon_start"), ("pqn", "CartPole-v1", "epsilon_start"),
     ("td3", "Pendulum-v1", "exploration_noise")],
)  # fmt: skip
def test_each_agent_explores_as_its_settings_say_before_it_learns(
    algo: str, env: str, varied: str, run_dir: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two agents, of which the first never explores and the second always does, until the first batch."""
    seen: dict[str, set[float]] = {}
    collect = Rollouts.collect

    def watched(stream: Rollouts) -> None:
        if stream.env_steps == 0:
            epsilons = {role.name: role.actor.epsilon for role in inside(stream).roles}
            seen.update({name: set(own.tolist()) for name, own in epsilons.items() if own is not None})
        collect(stream)

    monkeypatch.setattr(Rollouts, "collect", watched)
    left_out = ("batch_size", "replay") if algo == "pqn" else ()
    settings: dict[str, Any] = {name: value for name, value in SMALL.items() if name not in left_out}
    settings |= {"algo": algo, "total_timesteps": 80, "population": {"vary": (f"{varied}=0,1",)}}
    shoal.train(env, run_dir=run_dir, agents=2, num_envs=2, **settings)
    assert seen == {"agent0": {0.0}, "agent1": {1.0}}


def test_an_algorithm_of_one_agent_says_so() -> None:
    """It gives the loop one learner where there are to be two."""
    env = make("CartPole-v1", 2)
    run = Run(Settings(env="", algo="mine", seed=1, num_envs=2, total_timesteps=100, learners=2))
    learner = run.learner(make_policy(env.spec, Network(hidden=(8,)), 0), SGD, lr=0.01)
    with pytest.raises(ConfigError, match="mine trains 1 of agents=2: an algorithm of several"):
        run.loop(run.rollouts(env, learner, num_steps=4), learner)
