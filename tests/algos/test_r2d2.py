"""R2D2: targets within sequences, what is learned from and what only warms up, one Q acting and learning; refusals."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import torch
from torch import nn
from torch.optim import Adam

import shoal
from shoal import algos
from shoal.algos.dqn import DQN
from shoal.algos.r2d2 import R2D2, r2d2_loss
from shoal.envs.registry import make
from shoal.learn.acting import Acting
from shoal.learn.learner import Learner
from shoal.learn.sequences import burned_in
from shoal.learn.targets import add_target
from shoal.math.q_learning import mixed_error, rescaled, sequence_target, unscaled
from shoal.memory.replay import ReplayMemory
from shoal.memory.sequences import SequenceReader
from shoal.memory.settings import Replay
from shoal.memory.states import state_layout
from shoal.nets.epsilon_greedy import EpsilonGreedy
from shoal.nets.network import QNet
from shoal.nets.policy import Output
from shoal.nets.q_network import action_values, make_q_network
from shoal.run import checkpoint
from shoal.run.log import read
from shoal.stream.rollouts import rollouts
from shoal.types import ConfigError, Sequences, map_tree, select
from tests import single_run
from tests.learn.envs import Forever
from tests.run.beats import every, weights

if TYPE_CHECKING:
    from pathlib import Path

    from shoal.run.run import Run

KINDS = ("gru", "lstm")


def network_of(recurrent: Any, **settings: Any) -> QNet:
    return QNet(hidden=(8,), recurrent=recurrent, recurrent_size=6, **settings)


def test_targets_within_a_sequence() -> None:
    """Two steps, truncated; their last observation; a terminated step; the last record.

    Values 10, 20, 40, 80, 160 and gamma 1/2, so with n = 1: 1 + 20/2, 2 + 40/2, -, 4, -; with n = 2 step 0 sees
    1 + (2 + 40/2)/2 = 12, and no other step has two before it ends.
    """
    rows = {
        "reward": [1.0, 2, 0, 4, 0],
        "discount": [0.5, 0.5, 0.5, 0, 0.5],
        "valid": [True, True, False, True, False],
        "value": [10.0, 20, 40, 80, 160],
    }
    told: dict[str, Any] = {name: torch.tensor(numbers).unsqueeze(1) for name, numbers in rows.items()}
    assert sequence_target(**told, n_step=1)[:, 0].tolist() == [11, 22, 40, 4, 160]
    assert sequence_target(**told, n_step=2)[:, 0].tolist() == [12, 22, 40, 4, 160]
    assert sequence_target(**told, n_step=9)[:, 0].tolist() == [12, 22, 40, 4, 160]


def test_targets_of_n_steps_are_the_sums_of_their_rewards() -> None:
    """Against a loop that walks ahead from each step."""
    generator = torch.Generator().manual_seed(1)
    shape = (9, 4)
    reward, value = (torch.randn(shape, generator=generator, dtype=torch.float64) for _ in range(2))
    valid = torch.rand(shape, generator=generator) < 0.8
    valid[-1] = False
    discount = 0.9 * (torch.rand(shape, generator=generator) < 0.8).double()
    found = sequence_target(reward, discount, valid, value, n_step=3)
    for first in range(9):
        for b in range(4):
            total, power, t = 0.0, 1.0, first
            while t < first + 3 and valid[t, b]:
                total += power * float(reward[t, b])
                power *= float(discount[t, b])
                t += 1
            assert float(found[first, b]) == pytest.approx(total + power * float(value[t, b]))


def test_the_priority_of_a_sequence() -> None:
    """0.9 of the greatest error and 0.1 of the mean, 0.9 * 4 + 0.1 * 2; steps that do not count are left out."""
    error = torch.tensor([[1.0, 9], [-4, 9], [100, 9], [1, 9]])
    valid = torch.tensor([[True, False], [True, False], [False, False], [True, False]])
    torch.testing.assert_close(mixed_error(error, valid), torch.tensor([3.8, 0]))


def test_rescaled_values() -> None:
    """H(3) = 1 + 0.003; the inverse gives back what it was; targets are of what values mean."""
    x = torch.tensor([-1000.0, -3, -0.1, 0, 1e-3, 1, 3, 1e4])
    assert float(rescaled(x)[6]) == pytest.approx(1.003)
    torch.testing.assert_close(unscaled(rescaled(x)), x, rtol=1e-4, atol=1e-6)
    rows = {name: torch.tensor([[a], [b]]) for name, a, b in (("reward", 2.0, 0.0), ("discount", 0.5, 0.5))}
    valid = torch.tensor([[True], [False]])
    target = sequence_target(**rows, valid=valid, value=rescaled(torch.tensor([[7.0], [2.0]])), n_step=1, rescale=True)
    torch.testing.assert_close(target, rescaled(torch.tensor([[3.0], [2.0]])), rtol=1e-5, atol=1e-6)


def drawn(recurrent: str, *, length: int = 7, batch: int = 12, **settings: Any) -> tuple[Learner, ReplayMemory, Any]:
    """A learner, the memory of what it did with some exploration, and sequences that were drawn from it."""
    env = make(lambda: Forever(5), 3)
    learner = Learner(make_q_network(env.spec, network_of(recurrent, **settings), 1), Adam, lr=1e-2)
    add_target(learner, "target")
    stream = rollouts(env, learner, num_steps=9, acting=Acting(1, values=False, states=True))
    stream.explore(np.array([0.0, 0.5, 1.0]))
    memory = ReplayMemory(env.spec, 3, capacity=300, state=state_layout(learner.policy))
    for _ in range(3):
        stream.collect()
        memory.insert(stream.slabs[0])
        stream.publish()
    return learner, memory, SequenceReader(memory, batch_size=batch, length=length, gamma=0.5).sample()


@pytest.mark.parametrize("recurrent", KINDS)
def test_acting_and_learning_have_one_q(recurrent: str) -> None:
    """Step by step from each stored state, and over the whole sequence from the first one, over ends of episodes."""
    learner, memory, _ = drawn(recurrent, dueling=recurrent == "lstm")
    batch = SequenceReader(memory, batch_size=40, length=8, seed=2).sample()
    assert batch.start[1:].any()
    assert not batch.valid[:-1].all()
    policy: Any = learner.policy
    stored: dict[int, Any] = {}
    single = SequenceReader(memory, batch_size=200, length=2, seed=3).sample()
    for b, key in enumerate(single.key.tolist()):
        stored[key] = select(single.state, slice(b, b + 1))
    with torch.no_grad():
        over = action_values(policy(batch.obs, batch.state, batch.start))
        compared = 0
        for b, key in enumerate(batch.key.tolist()):
            for t in range(7):
                state = stored.get(key + 3 * t)
                if state is None:  # a last observation has none
                    continue
                at = (slice(t, t + 1), slice(b, b + 1))
                step = action_values(policy(select(batch.obs, at), state, batch.start[at]))
                torch.testing.assert_close(step, over[at], rtol=1e-5, atol=1e-6)
                compared += 1
    assert compared > 150


@pytest.mark.parametrize("recurrent", KINDS)
def test_steps_that_warm_up_get_no_gradient(recurrent: str) -> None:
    """The gradient is that of the other steps from a constant state, which the present weights come to."""
    learner, _, batch = drawn(recurrent)
    online: Any = learner.policy
    learned = burned_in(learner, "target", batch, burn_in=3)
    assert learned.reward.shape == (4, 12)
    assert torch.equal(learned.reward, batch.reward[3:])
    state = batch.state
    for t in range(3):
        step = slice(t, t + 1)
        state = online(batch.obs[step], state, batch.start[step]).state
    map_tree(lambda a, b: torch.testing.assert_close(a, b.detach(), rtol=1e-5, atol=1e-6), learned.state, state)
    assert not any(part.requires_grad for part in leaves_of(learned.state))
    loss, _ = r2d2_loss(online(learned.obs, learned.state, learned.start), learned, R2D2())
    ours = torch.autograd.grad(loss, list(online.parameters()))
    from_start = online(batch.obs, batch.state, batch.start)
    through = r2d2_loss(tail(from_start, 3), learned, R2D2())[0]
    theirs = torch.autograd.grad(through, list(online.parameters()))
    torch.testing.assert_close(loss, through, rtol=1e-5, atol=1e-6)
    differ = [not torch.allclose(a, b, rtol=1e-3) for a, b in zip(ours, theirs, strict=True)]
    assert any(differ)
    assert learned.next_value is not None
    assert not learned.next_value.requires_grad


def leaves_of(state: Any) -> list[torch.Tensor]:
    return list(state) if isinstance(state, tuple) else [state]


def tail(output: Any, first: int) -> Any:
    """The output of a sequence's later steps alone."""
    values = output.distribution.values[first:]
    return type(output)(type(output.distribution)(values), output.value[first:], output.state)


def test_the_loss_by_hand() -> None:
    """One step, whose value is 1 and target 0.5 + 0.5 * 3 by the target's value of what the network prefers after."""
    values = torch.tensor([[[1.0, 0.0]], [[4.0, 5.0]]], requires_grad=True)
    slow = torch.tensor([[[9.0, 9.0]], [[7.0, 3.0]]])
    batch = Sequences(
        obs=torch.zeros(2, 1, 1),
        action=torch.tensor([[0], [0]]),
        reward=torch.tensor([[0.5], [0.0]]),
        discount=torch.tensor([[0.5], [0.5]]),
        start=torch.zeros(2, 1, dtype=torch.bool),
        valid=torch.tensor([[True], [False]]),
        state=torch.zeros(1, 2),
        weight=torch.ones(1),
        error=torch.zeros(1),
        key=np.zeros(1, np.int64),
        version=torch.zeros(2, 1, dtype=torch.int32),
    )
    output = make_output(values)
    with pytest.raises(ValueError, match=r"needs batch.next_value; burned_in"):
        r2d2_loss(output, batch, R2D2())
    loss, stats = r2d2_loss(output, batch.with_next_values(slow), R2D2())
    assert loss.item() == 0.5 * (1 - 2) ** 2
    assert stats.q.item() == 1
    loss.backward()
    assert values.grad is not None
    assert values.grad.tolist() == [[[-1, 0]], [[0, 0]]]
    assert batch.error.tolist() == [1]
    masked = select(slow > 8, slice(None))
    masked[1] = torch.tensor([[True, False]])
    only_first = replace(batch, action_mask=masked, next_value=slow)
    loss, _ = r2d2_loss(output, only_first, R2D2())
    assert loss.item() == 3 - 0.5  # the target is 0.5 + 0.5 * 7 = 4: an error of 3, counted linearly beyond 1


def make_output(values: torch.Tensor) -> Output:
    return Output(EpsilonGreedy(values), values.amax(-1), None)


@pytest.mark.parametrize(("recurrent", "n_step"), [pytest.param("gru", 1, marks=pytest.mark.slow), ("lstm", 3)])
def test_q_values_that_are_known(recurrent: Any, n_step: int) -> None:
    """Reward 1 for ever at gamma 0.8 is worth 5: a truncation as an end would make it less, n steps as 1 more."""
    module = algos.load("r2d2")
    replay = Replay(buffer_size=500, learning_starts=80, samples_per_insert=16)
    shape = {"num_steps": 5, "batch_size": 16, "target_update_interval": 8, "learning_rate": 1e-2, "gamma": 0.8}
    length = {"sequence_length": 6, "burn_in": 2, "n_step": n_step}
    cfg = module.Config(replay=replay, network=network_of(recurrent), **shape, **length)
    policy: Any
    policy, _ = single_run.train(module, cfg, make(lambda: Forever(4), 8), updates=60)
    output = policy(torch.ones(4, 1, 1), policy.initial_state(1), torch.zeros(4, 1))
    torch.testing.assert_close(action_values(output), torch.full((4, 1, 2), 5.0), rtol=0, atol=0.4)


SHORT: dict[str, Any] = {
    "algo": "r2d2",
    "num_envs": 2,
    "total_timesteps": 200,
    "panel": "none",
    "final_episodes": 0,
    "sequence_length": 4,
    "burn_in": 2,
    "batch_size": 4,
    "network": {"hidden": (8,), "recurrent_size": 8},
}
SMALL = {"learning_starts": 40, "buffer_size": 100, "samples_per_insert": 4}


class HaltError(Exception):
    """Raised by a callback, as a run that was cut off."""


@pytest.mark.parametrize(("recurrent", "alpha"), [("gru", 0.0), ("lstm", 0.6)])
def test_a_run_that_was_cut_off_goes_on_exactly(
    recurrent: str, alpha: float, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """From update 14, in the middle of episodes and of a ring that went round: weights and metrics are the same."""
    every(monkeypatch, save=7)
    settings: dict[str, Any] = SHORT | {
        "network": {"hidden": (8,), "recurrent_size": 8, "recurrent": recurrent},
        "name": "run",
    }
    settings["replay"] = SMALL | {"buffer_size": 40, "learning_starts": 30, "samples_per_insert": 3, "alpha": alpha}

    def halt(run: Run, _: Any) -> None:
        if run.updates == 19:
            raise HaltError

    whole = shoal.train("shoal/Memory-v0", run_dir=str(tmp_path / "whole"), **settings)
    with pytest.raises(HaltError):
        shoal.train("shoal/Memory-v0", run_dir=str(tmp_path / "cut"), callbacks=[halt], **settings)
    path = tmp_path / "cut" / whole.path.relative_to(tmp_path / "whole")
    assert newest(path).updates == 14
    resumed = shoal.resume(path, panel="none")
    ours, theirs = (weights(found) for found in map(newest, (whole.path, resumed.path)))
    assert all(torch.equal(ours[name], theirs[name]) for name in ours)
    assert metrics_of(whole.path) == metrics_of(resumed.path)


def newest(path: Path) -> checkpoint.Checkpoint:
    found = checkpoint.load(path / "checkpoints")
    assert found is not None
    return found


def metrics_of(path: Path) -> list[dict[str, Any]]:
    """The lines of metrics, less the clock's numbers."""
    lines = read(path / "metrics.jsonl")
    return [{k: v for k, v in line.items() if not k.startswith(("time/", "speed/"))} for line in lines]


def test_agents_with_memories_of_their_own(tmp_path: Path) -> None:
    """Two agents with private memories; the states of one are of no use to another."""
    settings: dict[str, Any] = SHORT | {"agents": 2, "replay": SMALL, "run_dir": str(tmp_path)}
    with pytest.raises(ConfigError, match=r"mean nothing to another's; set population\.memory=private"):
        shoal.train("shoal/Memory-v0", **settings)
    run = shoal.train("shoal/Memory-v0", **settings, population={"memory": "private", "evaluation_episodes": 2})
    assert run.steps >= 200


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"replay": SMALL | {"recency": 2.0}}, r"replay\.recency=2 cannot be; set it to 1"),
        ({"replay": SMALL | {"hindsight": 0.5}}, r"replay\.hindsight changes the goals of single transitions"),
        ({"replay": SMALL | {"learning_starts": 13}}, r"learning_starts=13 .* set it to at least 14"),
        ({"replay": SMALL | {"buffer_size": 26, "learning_starts": 20}}, r"\(replay\.buffer_size\) to at least 28"),
        ({"replay": SMALL, "curiosity": {"coef": 0.1}}, "curiosity adds to the rewards of single transitions"),
        ({"replay": SMALL, "policy": nn.Linear(5, 4), "network": {}}, "the policy has none; set network.recurrent"),
        ({"replay": SMALL, "preprocessing": {"frame_stack": 2}}, "set preprocessing.frame_stack to 1"),
    ],
)
def test_what_does_not_go_with_sequences(settings: dict[str, Any], message: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=message):
        shoal.train("shoal/Memory-v0", run_dir=str(tmp_path), **(SHORT | settings))


@pytest.mark.parametrize(
    ("kind", "settings", "message"),
    [
        (R2D2, {"network": QNet()}, 'needs no sequences: set network.recurrent to gru or lstm, or choose algo="dqn"'),
        (R2D2, {"network": network_of("gru", noisy=True)}, "network.noisy and network.quantiles do not go with them"),
        (R2D2, {"burn_in": -1}, "burn_in must be"),
        (R2D2, {"sequence_length": 0}, "sequence_length must be"),
        (DQN, {"network": network_of("lstm")}, 'needs sequences with the states .* choose algo="r2d2"'),
    ],
)
def test_settings_that_cannot_work(kind: Any, settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        kind(**settings)


def test_a_network_of_ones_own_with_a_memory_is_not_learned_from_single_transitions(tmp_path: Path) -> None:
    spec = make("shoal/Memory-v0", 1).spec
    policy = make_q_network(spec, network_of("gru"), 1)
    settings: dict[str, Any] = SHORT | {"algo": "dqn", "policy": policy, "network": {}, "run_dir": str(tmp_path)}
    for name in ("sequence_length", "burn_in"):
        del settings[name]
    with pytest.raises(ConfigError, match="dqn has a policy with a memory: single transitions are drawn"):
        shoal.train("shoal/Memory-v0", **settings)
    own: dict[str, Any] = SHORT | {"policy": policy, "run_dir": str(tmp_path), "replay": SMALL}
    del own["network"]
    result = shoal.train("shoal/Memory-v0", **own)
    assert result.steps >= 200
