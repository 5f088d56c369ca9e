"""Rollouts of agents who come and go and act in turn: whole transitions, values across gaps, statistics."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from shoal.algos import a2c, ppo
from shoal.envs.registry import make
from shoal.learn.acting import Acting
from shoal.math.returns import gae, n_step
from shoal.nets.groups import PerGroup
from shoal.nets.policy import Network, make_policy, wrap
from shoal.run.evaluate import evaluate
from shoal.stream.rollouts import Rollouts, rollouts
from shoal.stream.schedules import Overlap
from shoal.types import ConfigError, Steps, select
from tests.games import Ring, Shift
from tests.single_run import train


class Clock(nn.Module):
    """Values are 7 times the first observed number; actions at random."""

    def __init__(self) -> None:
        super().__init__()
        self.zero = nn.Parameter(torch.zeros(5))

    def forward(self, obs: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        return self.zero.expand(*obs.shape[:-1], 5), 7 * obs[..., 0]


def stream_of(factory: Any, num_envs: int, num_steps: int, **settings: Any) -> tuple[Rollouts, nn.Module]:
    """A stream of the clock."""
    env = make(factory, num_envs)
    policy = wrap(Clock(), env.spec)
    return rollouts(env, policy, num_steps=num_steps, acting=Acting(5), **settings), policy


NAMES = ("obs", "start", "action", "log_prob", "value", "reward", "terminated", "truncated")


def transitions(steps: Steps) -> list[list[dict[str, Any]]]:
    """The valid steps of each row, in order."""
    found: list[list[dict[str, Any]]] = []
    for b in range(steps.reward.shape[1]):
        valid = steps.valid[:, b]
        found.append([{name: getattr(steps, name)[t, b].tolist() for name in NAMES} for t in np.flatnonzero(valid)])
    return found


@pytest.mark.parametrize("factory", [Ring, Shift])
def test_transitions_are_whole(factory: Any) -> None:
    """What a row saw and did, what that was worth, and the value of what it saw next, from one rollout of 23 steps."""
    steps = next(stream_of(factory, 2, 23)[0])
    played = transitions(steps)
    following = [steps.next_value[steps.valid[:, b], b].tolist() for b in range(steps.reward.shape[1])]
    kinds = {"Ring": 2, "Shift": 3}
    for b, row in enumerate(played):
        agent = b % kinds[factory.__name__]
        for k, (step, value) in enumerate(zip(row, following[b], strict=True)):
            assert step["value"] == 7 * step["obs"][0]
            ended = step["terminated"] or step["truncated"]
            assert k == 0 or step["start"] == (row[k - 1]["terminated"] or row[k - 1]["truncated"])
            if factory is Shift:
                assert step["obs"][1] == agent
                assert step["reward"] == pytest.approx(step["obs"][0] + 1 + step["action"] / 10)
            if step["terminated"]:
                assert value == 0
            elif step["truncated"]:
                assert value == 7 * 3  # the agent b of Shift, cut at clock 3
            elif k + 1 < len(row):
                assert value == row[k + 1]["value"]
            assert ended or k + 1 == len(row) or value
    if factory is Ring:
        assert [len(row) for row in played] == [11, 11, 11, 11]
        x, y = played[0][:2], played[1][:2]
        ax, ay = [s["action"] for s in x], [s["action"] for s in y]
        assert [s["reward"] for s in x] == [10 * ax[0] + ay[0], 10 * ax[1] + ay[1]]
        assert [s["reward"] for s in y] == [ax[0] + 10 * ay[0] + ax[1], 10 * ay[1]]
        assert [s["obs"] for s in y] == [[1, ax[0]], [3, ax[1]]]


@pytest.mark.parametrize("num_steps", [1, 3])
def test_no_step_is_lost_between_rollouts(num_steps: int) -> None:
    """A step that ends in the next rollout is a step of that one: 30 steps at once, or in parts, are the same."""
    whole = transitions(next(stream_of(Ring, 2, 30)[0]))
    stream, _ = stream_of(Ring, 2, num_steps)
    parts: list[list[dict[str, Any]]] = [[], [], [], []]
    while stream.env_steps < 30 * 4:
        for row, found in zip(parts, transitions(next(stream)), strict=True):
            row.extend(found)
        stream.publish()
    assert parts == whole


def test_the_last_step_bootstraps_from_what_is_known() -> None:
    """After three turns: x waits for its next turn, y is on turn; values 7 * clock of what each saw last."""
    steps = next(stream_of(Ring, 1, 3)[0])
    assert steps.valid.tolist() == [[False, False], [True, False], [False, True]]
    assert steps.next_value[1, 0] == 14
    assert steps.next_value[2, 1] == 21


@pytest.mark.parametrize("factory", [Ring, Shift])
def test_advantages_bridge_invalid_steps(factory: Any) -> None:
    """GAE and n-step returns equal those of each row's transitions put side by side, by their definitions."""
    steps = next(stream_of(factory, 2, 40)[0])
    gamma, lam = 0.9, 0.8
    advantage, target = gae(steps, gamma=gamma, gae_lambda=lam)
    two = n_step(steps, gamma=gamma, n=2)
    for b in range(steps.reward.shape[1]):
        at = np.flatnonzero(steps.valid[:, b])
        reward, value, following = (getattr(steps, name)[at, b].tolist() for name in ("reward", "value", "next_value"))
        ended = (steps.terminated | steps.truncated)[at, b].tolist()
        for k in range(len(at)):
            total, weight = 0.0, 1.0
            for j in range(k, len(at)):
                total += weight * (reward[j] + gamma * following[j] - value[j])
                weight *= gamma * lam
                if ended[j]:
                    break
            assert float(advantage[at[k], b]) == pytest.approx(total, rel=1e-4, abs=1e-4)
            far = k + 1 < len(at) and not ended[k]
            expected = reward[k] + gamma * (reward[k + 1] + gamma * following[k + 1] if far else following[k])
            assert float(two[at[k], b]) == pytest.approx(expected, rel=1e-5, abs=1e-5)
    assert torch.equal(advantage[~steps.valid], torch.zeros(int((~steps.valid).sum())))
    assert torch.equal(target[~steps.valid], steps.value[~steps.valid])


def test_each_agents_episodes_are_known() -> None:
    """Rows of ended episodes, in the order they end: a, b and c of both environments."""
    stream, _ = stream_of(Shift, 2, 4)
    steps = next(stream)
    assert stream.episodes.rows.tolist() == [0, 3, 1, 4, 2, 5]
    assert stream.episodes.lengths.tolist() == [2, 2, 3, 3, 3, 3]
    sums = [float(steps.reward[:, row].sum()) for row in (0, 3, 1, 4, 2, 5)]
    assert stream.episodes.returns.tolist() == pytest.approx(sums)


@pytest.mark.parametrize("factory", [Ring, Shift, "mpe2.simple_spread_v3:parallel_env"])
def test_a_restored_stream_goes_on_bit_for_bit(factory: Any) -> None:
    """Saved while agents wait for their turn."""

    def fresh() -> Rollouts:
        env = make(factory, 2)
        policy = make_policy(env.spec, Network(hidden=(8,)), 1)
        return rollouts(env, policy, num_steps=7, acting=Acting(2))

    stream = fresh()
    next(stream)
    stream.publish()
    state = stream.state()
    expected = next(stream)
    expected = {name: select(getattr(expected, name), expected.valid).clone() for name in (*NAMES, "next_value")}
    again = fresh()
    assert again.restore(state) == []
    steps = next(again)
    for name, values in expected.items():
        assert torch.equal(select(getattr(steps, name), steps.valid), values), name


def test_halves_are_whole_environments() -> None:
    """Overlap cuts between environments, and gives the same transitions as Sync."""
    whole = transitions(next(stream_of(Ring, 3, 20)[0]))
    assert transitions(next(stream_of(Ring, 3, 20, schedule=Overlap())[0])) == whole
    with pytest.raises(ConfigError, match='schedule="overlap" needs at least 4 rows'):
        stream_of(Ring, 1, 20, schedule=Overlap())


def test_roles_of_scattered_rows_equal_no_cast() -> None:
    """The rows of x and of y as roles: a slice with a step, and numbers out of order."""
    env = make(Ring, 3)
    policy = make_policy(env.spec, Network(hidden=(8,)), 1)
    alone = Acting(4, native=False, act_block=1)
    expected = next(rollouts(make(Ring, 3), policy, num_steps=20, acting=alone))
    cast = {"x": slice(0, 6, 2), "y": [5, 1, 3]}
    batch = next(rollouts(env, {"x": policy, "y": policy}, num_steps=20, cast=cast, acting=alone))
    for role, rows in (("x", [0, 2, 4]), ("y", [5, 1, 3])):
        for name in (*NAMES, "next_value"):
            assert torch.equal(getattr(batch[role], name), getattr(expected, name)[:, rows]), name


def test_a_memory_is_refused_where_agents_act_in_turn() -> None:
    """Its state would move on while others act."""
    env = make(Ring, 2)
    with pytest.raises(ConfigError, match="a game of turns, which policies with a memory cannot play yet"):
        rollouts(env, make_policy(env.spec, Network(hidden=(8,), recurrent="gru"), 1), num_steps=3)


def test_evaluation_counts_every_agent() -> None:
    """Three games each on two environments of three agents: 18 episodes, of lengths 2, 3 and 3."""
    env = make(Shift, 2)
    score = evaluate(wrap(Clock(), env.spec), env, episodes=6, acting=Acting(1))
    assert score.lengths.tolist() == [2, 2, 2, 3, 3, 3, 3, 3, 3] * 2


@pytest.mark.parametrize("native", [False, True])
@pytest.mark.parametrize("algo", [ppo, a2c])
def test_a_rollout_without_a_whole_step_teaches_nothing(algo: Any, *, native: bool) -> None:
    """After the first turn no step is complete: nothing is updated; weights and losses stay finite from there on."""
    env = make(Ring, 1)
    policy = make_policy(env.spec, Network(hidden=(8,), normalize_obs=True), 1)
    extra = {"num_minibatches": 1, "norm_adv": False} if algo is ppo else {}
    cfg = algo.Config(num_steps=1, **extra)
    _, logged = train(algo, cfg, env, updates=3, policy=policy, native=native)
    assert len(logged["train/learning_rate"]) == 2
    assert all(torch.isfinite(p).all() for p in policy.parameters())
    assert all(np.isfinite(values).all() for values in logged.values())


@pytest.mark.parametrize("continuous", [False, True])
def test_groups_have_networks_of_their_own(*, continuous: bool) -> None:
    """What the speakers learn from changes nothing of the listeners' networks, and one update trains both."""
    kwargs = {"continuous_actions": continuous}
    env = make("mpe2.simple_speaker_listener_v4:parallel_env", 4, env_kwargs=kwargs)
    module = PerGroup(env.spec, hidden=(8,))
    before = [[p.clone() for p in tower.parameters()] for tower in (*module.actors, *module.critics)]
    cfg = ppo.PPO(num_steps=6, num_minibatches=2)
    train(ppo, cfg, env, updates=2, policy=wrap(module, env.spec))
    after = [list(tower.parameters()) for tower in (*module.actors, *module.critics)]
    assert all(
        not torch.equal(x, y) for old, new in zip(before, after, strict=True) for x, y in zip(old, new, strict=True)
    )
    module.zero_grad()
    obs = torch.randn(5, 13)
    obs[:, -2:] = torch.tensor([1.0, 0.0])
    *_, value = module(obs)
    value.sum().backward()
    assert all(p.grad is None or not p.grad.any() for p in module.critics[1].parameters())
    assert any(p.grad is not None and p.grad.any() for p in module.critics[0].parameters())
    with pytest.raises(ConfigError, match="all have the same spaces"):
        PerGroup(make(Ring, 1).spec)
