"""Self-play: who plays which rows, the pool of past versions, resume; games of several agents through `train`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn
from torch.optim import SGD

import shoal
from shoal.envs.registry import make
from shoal.learn.acting import Acting
from shoal.learn.learner import Learner
from shoal.nets.policy import Network, make_policy, wrap
from shoal.run.log import read
from shoal.stream.self_play import PastVersions, SelfPlay, against
from shoal.types import ConfigError
from tests.games import Ring, Shift

SHAPE = {"num_envs": 4, "num_steps": 6, "num_minibatches": 1, "update_epochs": 1}
TINY: dict[str, Any] = SHAPE | {"panel": "none", "learning_rate_schedule": "constant", "network": {"hidden": [8]}}


class Always(nn.Module):
    """One action, whatever is seen; the value is its number."""

    def __init__(self, action: int) -> None:
        super().__init__()
        self.logits = nn.Parameter(torch.zeros(5))
        self.choose(action)

    def choose(self, action: int) -> None:
        """From now on this one."""
        with torch.no_grad():
            self.logits.fill_(-1000.0)
            self.logits[action] = 0.0

    def forward(self, obs: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        return self.logits.expand(*obs.shape[:-1], 5), obs[..., 0]


def stream_of(past: SelfPlay, num_envs: int = 4, num_steps: int = 4) -> tuple[PastVersions, Always]:
    """Self-play of a policy that always does 0."""
    env = make(Ring, num_envs)
    policy = Always(0)
    stream = against(past, env, wrap(policy, env.spec), num_steps=num_steps, acting=Acting(3))
    assert isinstance(stream, PastVersions)
    return stream, policy


def done_by(stream: PastVersions, role: str) -> list[int]:
    """What a role did in the last rollout, each action once."""
    rollouts = stream._stream
    (slab,) = [slab for one, slab in zip(rollouts.roles, rollouts.slabs, strict=True) if one.name == role]
    return sorted(set(slab.action[slab.valid].tolist()))


def test_the_learner_changes_places() -> None:
    """As x in environments 0 and 2, y in 1 and 3; each opponent has the other places of two environments."""
    stream, _ = stream_of(SelfPlay(every=1))
    steps = next(stream)
    assert stream.rows.tolist() == [0, 3, 4, 7]
    played = {role.name: role.numbers.tolist() for role in stream._stream.roles}
    assert played == {"learner": [0, 3, 4, 7], "opponent_0": [1, 2], "opponent_1": [5, 6]}
    assert steps.valid.sum(0).tolist() == [2, 2, 2, 2]
    assert (stream.env_steps, stream.episodes.rows.tolist()) == (16, [0, 3, 4, 7])


def test_opponents_are_past_versions() -> None:
    """A version joins every second update, then every fourth; with latest=0 opponents are of the pool alone."""
    stream, policy = stream_of(SelfPlay(every=2, pool=3, latest=0.0))
    met: list[list[int]] = []
    for update in range(1, 15):
        next(stream)
        assert done_by(stream, "learner") == [policy.logits.argmax().item()]
        met.append(sorted({*done_by(stream, "opponent_0"), *done_by(stream, "opponent_1")}))
        policy.choose(update // 3)
        stream.publish()
    # Published by update: 0 0 1 1 1 2 2 2 3 3 3 4. In the pool: from the start 0; after update 2 0 0; 4 0 0 1; 6: full,
    # so 0 1 and every fourth from now on; 8 0 1 2; 10: no fourth; 12: full, so 0 2 and every eighth from now on.
    assert met[:4] == [[0]] * 4
    allowed = [{0}] * 4 + [{0, 1}] * 4 + [{0, 1, 2}] * 4 + [{0, 2}] * 2
    assert all(set(found) <= there for found, there in zip(met, allowed, strict=True))
    assert {1, 2} <= {action for found in met for action in found}
    assert stream.state()["every"] == 8
    assert [int(one["module.logits"].argmax()) for one in stream.state()["pool"]] == [0, 2]


def test_the_latest_policy_alone() -> None:
    """latest=1: opponents are what was published last."""
    stream, policy = stream_of(SelfPlay(every=1, latest=1.0, opponents=1))
    for update in range(1, 4):
        next(stream)
        policy.choose(update)
        stream.publish()
        next(stream)
        assert done_by(stream, "opponent_0") == [update]
        stream.publish()


def test_every_batch_has_a_step_of_the_learner() -> None:
    """Rollouts of one step in a game of turns: those in which only the opponent's step was completed are passed by."""
    env = make(Ring, 1)
    learner = Learner(wrap(Always(0), env.spec), SGD, lr=0.1)
    stream = against(SelfPlay(every=1, opponents=1), env, learner, num_steps=1, acting=Acting(3))
    for _ in range(8):
        assert next(stream).valid.any()
        stream.publish()
    assert stream.env_steps > 8


def test_self_play_is_restored_exactly() -> None:
    """Pool, opponents and generator go on as they would have."""

    def fresh() -> tuple[PastVersions, nn.Module]:
        env = make("shoal.envs.agents.tictactoe:TicTacToe", 4)
        policy = make_policy(env.spec, Network(hidden=(8,)), 1)
        stream = against(SelfPlay(every=1, pool=3), env, policy, num_steps=5, acting=Acting(2))
        assert isinstance(stream, PastVersions)
        return stream, policy

    def update(stream: PastVersions, policy: nn.Module) -> torch.Tensor:
        steps = next(stream)
        with torch.no_grad():
            for parameter in policy.parameters():
                parameter.mul_(1.1)
        stream.publish()
        return steps.action[steps.valid].clone()

    stream, policy = fresh()
    for _ in range(4):
        update(stream, policy)
    state, weights = stream.state(), {name: x.clone() for name, x in policy.state_dict().items()}
    expected = [update(stream, policy) for _ in range(6)]
    again, other = fresh()
    other.load_state_dict(weights)
    assert again.restore(state) == []
    assert again.version == 4
    for actions in expected:
        assert torch.equal(update(again, other), actions)


@pytest.mark.usefixtures("few_greedy_episodes")
@pytest.mark.parametrize(
    ("env", "settings"),
    [
        ("shoal.envs.agents.tictactoe:TicTacToe", {"self_play": {"every": 1, "opponents": 2}}),
        ("shoal.envs.agents.tictactoe:TicTacToe", {"self_play": {"every": 0}}),
        ("mpe2.simple_spread_v3:parallel_env", {}),
    ],
)
def test_a_resumed_run_equals_the_whole(env: str, settings: dict[str, Any], tmp_path: Path) -> None:
    """Four updates, and two and two: the same weights and lines of metrics."""
    agents = (
        1 if settings.get("self_play", {}).get("every") else {"shoal.envs.agents.tictactoe:TicTacToe": 2}.get(env, 3)
    )
    steps = {name: count * agents * 4 * 6 for name, count in (("half", 2), ("whole", 4))}
    whole = shoal.train(env, total_timesteps=steps["whole"], run_dir=str(tmp_path / "a"), **TINY, **settings)
    part = shoal.train(env, total_timesteps=steps["half"], run_dir=str(tmp_path / "b"), **TINY, **settings)
    parts = shoal.resume(part.path, total_timesteps=steps["whole"], panel="none")
    for left, right in zip(whole.policy.state_dict().values(), parts.policy.state_dict().values(), strict=True):
        assert torch.equal(left, right)
    lines = [read(path / "metrics.jsonl") for path in (whole.path, parts.path)]
    kept = [[{k: v for k, v in line.items() if k.split("/")[0] not in ("time", "speed")} for line in x] for x in lines]
    assert kept[0] == kept[1]
    assert whole.steps == parts.steps == steps["whole"]


def test_returns_of_each_agent_are_metrics(tmp_path: Path) -> None:
    """Lengths and returns of Shift: agent c's episodes are worth more than a's."""
    result = shoal.train(Shift, total_timesteps=4 * 3 * 6 * 2, run_dir=str(tmp_path), **TINY)
    line = read(result.path / "metrics.jsonl")[-1]
    assert 3 <= line["episode/return/a"] <= 3.8
    assert 6 <= line["episode/return/b"] <= 7.2
    assert 9 <= line["episode/return/c"] <= 10.2
    assert line["episode/count"] == 4 * 3 * 3


def test_what_cannot_work_is_refused() -> None:
    """One agent alone, more opponents than environments, impossible numbers."""
    policy = make_policy(make("CartPole-v1", 2).spec, Network(hidden=(8,)), 1)
    with pytest.raises(ConfigError, match=r"self_play\.every=1, but CartPole-v1 has one agent alone"):
        against(SelfPlay(every=1), make("CartPole-v1", 2), policy, num_steps=2)
    with pytest.raises(ConfigError, match=r"self_play\.opponents=3 need as many environments, got num_envs=2"):
        against(SelfPlay(every=1, opponents=3), make(Ring, 2), policy, num_steps=2)
    with pytest.raises(ConfigError, match="latest must be between 0 and 1, got 2"):
        SelfPlay(latest=2.0)
