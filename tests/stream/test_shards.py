"""Shards: batches from the memories of actors are those of one memory, and go on where an actor is lost."""

from __future__ import annotations

import os
import signal
from contextlib import closing
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import torch
from torch.optim import Adam

from shoal.algos import r2d2
from shoal.envs.registry import make
from shoal.experiment.training import train
from shoal.learn.acting import Acting
from shoal.learn.learner import Learner
from shoal.memory.settings import FromData, Replay
from shoal.nets.network import QNet
from shoal.nets.q_network import make_q_network
from shoal.run.members import Population
from shoal.run.settings import Settings
from shoal.run.shards import sharding_of
from shoal.stream.actors import sharded as sharded_module
from shoal.stream.actors.process import ActorProcess
from shoal.stream.actors.rows import ActorRows
from shoal.stream.in_process import Wanted
from shoal.stream.meter import Meter
from shoal.stream.replay import ReplayStream
from shoal.stream.rollouts import rollouts
from shoal.stream.schedules import Async, Sync
from shoal.stream.shards import sharded
from shoal.types import ConfigError, EnvError
from tests.stream.test_actors import cartpoles
from tests.stream.test_distant_actors import cut, placed_rows
from tests.stream.test_replay import Draws, kept, pull

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from numpy.typing import NDArray

    from shoal.envs.vec_env import VecEnv

pytestmark = pytest.mark.usefixtures("warm_workers")

UNIFORM = Replay(buffer_size=96, learning_starts=40, samples_per_insert=4)
BY_PRIORITY = replace(UNIFORM, alpha=0.6)
BATCH = 16


def told_of(**settings: Any) -> Settings:
    """Of a run."""
    return Settings(env="CartPole-v1", algo="dqn", seed=1, total_timesteps=10_000, **settings)


def stream_of(
    env: VecEnv,
    settings: Replay = UNIFORM,
    *,
    agents: int = 1,
    reward_scale: float = 1.0,
    schedule: Any = None,
    meter: Meter | None = None,
) -> ReplayStream:
    """Batches from the memories of actors where there are some, else from one."""
    names = ["policy"] if agents == 1 else [f"agent{i}" for i in range(agents)]
    share = env.num_rows // agents
    rows = {name: slice(i * share, (i + 1) * share) for i, name in enumerate(names)}
    learners = {
        name: Learner(make_q_network(env.spec, QNet(hidden=(8,)), i), Adam, lr=1e-3) for i, name in enumerate(names)
    }
    who: Any = learners if agents > 1 else learners["policy"]
    cast = rows if agents > 1 else None
    draws = dict.fromkeys(names, Draws(batch_size=BATCH))
    meter, schedule, acting = meter or Meter(), schedule or Sync(), Acting(1)
    if isinstance(env, ActorRows):
        told = told_of(num_envs=env.num_rows, reward_scale=reward_scale)
        sharding = sharding_of(told, env, learners, draws, settings)
        steps = sharded(env, Wanted(who, 4, schedule, cast, acting, sharding), meter)
    else:
        steps = rollouts(env, who, num_steps=4, schedule=schedule, cast=cast, acting=acting, meter=meter)
    return ReplayStream(steps, settings, agents=draws, rows=rows, total_timesteps=10_000)


def reader_of(stream: ReplayStream, number: int = 0) -> Any:
    """Who draws for an agent."""
    inner: Any = stream
    return inner._drawers[number].reader


def collected(stream: ReplayStream, times: int) -> ReplayStream:
    """So many rollouts of the weights as they are at first."""
    for _ in range(times):
        stream.advance()
        stream.publish()
    return stream


def place_in_one(keys: NDArray[np.int64], env: ActorRows) -> NDArray[np.int64]:
    """The keys that the same steps have in one memory."""
    own, shards = np.divmod(keys, len(env.rows))
    found = np.zeros_like(own)
    for number, rows in enumerate(env.rows):
        index, row = np.divmod(own, rows.stop - rows.start)
        found = np.where(shards == number, rows.start + row + env.num_rows * index, found)
    return found


def as_given(keys: NDArray[np.int64]) -> NDArray[np.float32]:
    """An error of each step, from 0.1 to 1.7."""
    return (0.1 + keys % 7 * 0.2 + keys % 3 * 0.2).astype(np.float32)


WARM_UP = 300
"""Batches after which every step was drawn, and so has the priority that it was given."""


def drawn(reader: Any, alpha: float, place: Callable[[NDArray[np.int64]], NDArray[np.int64]]) -> dict[int, int]:
    """How often each step is drawn when it has its priority; the weights of every batch are checked."""
    found: dict[int, int] = {}
    for _ in range(WARM_UP if alpha else 0):
        batch = reader.sample(beta=0.5)
        reader.prioritize(batch.key, as_given(place(batch.key)))
    for _ in range(600):
        batch = reader.sample(beta=0.5 if alpha else None)
        keys = place(batch.key)
        for key in keys.tolist():
            found[key] = found.get(key, 0) + 1
        value = (as_given(keys).astype(np.float64) + 1e-6) ** alpha
        np.testing.assert_allclose(batch.weight.numpy(), (value / value.min()) ** -0.5, rtol=2e-6)
    return found


def surprise(often: dict[int, int], alpha: float) -> float:
    """How many standard deviations chi-square lies above its mean, where P(i) = p_i^alpha / sum_j p_j^alpha."""
    value = (as_given(np.array([*often])).astype(np.float64) + 1e-6) ** alpha
    expected = sum(often.values()) * value / value.sum()
    chi = ((np.array([*often.values()]) - expected) ** 2 / expected).sum()
    free = len(often) - 1
    return (chi - free) / np.sqrt(2 * free)


@pytest.mark.parametrize("settings", [UNIFORM, BY_PRIORITY])
def test_steps_are_drawn_as_from_one_memory(settings: Replay) -> None:
    """Shards of one row and of two, and one memory of the same three rows: the same steps, chances and weights."""
    with closing(cartpoles(3)) as env:
        one = collected(stream_of(env, settings), 20)
        mine = drawn(reader_of(one), settings.alpha, np.copy)
    with closing(placed_rows(cartpoles, 3)) as env:
        assert [rows.stop - rows.start for rows in env.rows] == [1, 2]
        two = collected(stream_of(env, settings), 20)
        reader = reader_of(two)
        theirs = drawn(reader, settings.alpha, partial(place_in_one, env=env))
        masses, counts = reader._actors.masses["policy"], reader._actors.counts
        assert counts.sum() == len(theirs)
        assert not settings.alpha or masses.sum() != counts.sum()
    assert mine.keys() == theirs.keys()
    for found in (mine, theirs):
        assert surprise(found, settings.alpha) < 3


def test_a_batch_by_hand() -> None:
    """Two shards that weigh 1 and 3: a quarter from the first; the least chance of all has the weight 1."""
    with closing(placed_rows(cartpoles, 2)) as env:
        reader: Any = reader_of(stream_of(env, BY_PRIORITY))
        assert reader._shared_out(np.array([1.0, 3.0])).tolist() == [4, 12]
        assert reader._shared_out(np.array([0.0, 3.0])).tolist() == [0, 16]
        parts: list[tuple[int, Any]] = []
        for number, (count, least) in enumerate(((4, 0.25), (12, 1.0))):
            part = {name: np.array(array[:count]) for name, array in reader._arrays.items()}
            part["weight"], part["key"] = np.full(count, 0.5, np.float32), np.arange(count)
            parts.append((number, {"batch": part, "least": least}))
        arrays = reader.batch.weight
        reader._merge(parts, 0.5)
        assert reader.batch.weight is arrays
        # (1 / 0.25)^-0.5 = 0.5 times what it was
        assert reader.batch.weight.tolist() == [0.5] * 4 + [0.25] * 12
        assert reader.batch.key.tolist() == [0, 2, 4, 6, *range(1, 25, 2)]


def answered(stream: ReplayStream, batches: int) -> list[dict[str, Any]]:
    """Batches whose steps get priorities, in turn for all agents."""
    found: list[dict[str, Any]] = []
    for _ in range(batches):
        batch: Any = next(stream)
        found.append(kept(batch) | {"agent": stream.agent, "weight": batch.weight.clone()})
        batch.error.copy_(batch.reward + batch.obs[:, 0].abs())
        stream.prioritize(batch)
        stream.publish()
    return found


def equal(one: list[dict[str, Any]], other: list[dict[str, Any]]) -> None:
    """All of it."""
    for mine, theirs in zip(one, other, strict=True):
        for name, value in mine.items():
            same = torch.equal(value, theirs[name]) if isinstance(value, torch.Tensor) else value == theirs[name]
            assert np.all(same), name


def test_agents_in_turn_and_again_from_a_state() -> None:
    """Three agents on two shards: batches of the same steps for each one's share, and the same ones when resumed."""
    settings = replace(BY_PRIORITY, buffer_size=180)
    with closing(placed_rows(cartpoles, 6)) as env:
        stream = stream_of(env, settings, agents=3)
        answered(stream, 9)
        state = stream.state()
        then = answered(stream, 12)
        steps = stream.env_steps
    assert {batch["agent"] for batch in then} == {"agent0", "agent1", "agent2"}
    assert state["rollouts"]["actors"]["0"]["shard"]["memory"]["slots"] == 30
    with closing(placed_rows(cartpoles, 6)) as env:
        again = stream_of(env, settings, agents=3)
        again.advance()
        again.publish()
        assert not again.restore(state)
        equal(then, answered(again, 12))
        assert again.env_steps == steps
    with closing(cartpoles(6)) as env:
        one = stream_of(env, settings, agents=3)
        answered(one, 9)
        for mine, theirs in zip(answered(one, 12), then, strict=True):
            assert mine["agent"] == theirs["agent"]
        assert one.env_steps == steps


def test_rewards_and_horizons() -> None:
    """Rewards are scaled where they are kept; another n and discount are of the next batch."""
    with closing(placed_rows(cartpoles, 4)) as env:
        stream = collected(stream_of(env, reward_scale=0.5), 12)
        reader = reader_of(stream)
        assert set(reader.sample().reward.tolist()) == {0.5}
        stream.follow("policy", Draws(n_step=3, gamma=1.0))
        batch = reader.sample()
        assert batch.steps.max() == 3
        assert torch.equal(batch.reward, 0.5 * batch.steps)
        with pytest.raises(ConfigError, match="n_step=20 needs 42 records"):
            stream.follow("policy", Draws(n_step=20))
        assert len(stream.memory) == reader._actors.counts.sum() > 0
        with pytest.raises(ValueError, match="error at 2 is not finite"):
            reader.prioritize(batch.key, np.array([0, 1, np.nan], np.float32))


class Heard:
    """A meter's notes."""

    def __init__(self) -> None:
        self.notes: dict[str, float] = {}
        self.meter = Meter(self.note)

    def note(self, name: str, value: float) -> None:
        """Keeps the last one."""
        self.notes[name] = value


@pytest.mark.parametrize("on_fault", ["restart", "drop"])
@pytest.mark.parametrize("settings", [UNIFORM, BY_PRIORITY])
def test_a_lost_shard(on_fault: str, settings: Replay, caplog: pytest.LogCaptureFixture) -> None:
    """It is said and counted; batches come from the other one, and from the new one when it holds something."""
    heard = Heard()
    with closing(placed_rows(cartpoles, 4, on_fault=on_fault)) as env:
        stream = stream_of(env, settings, meter=heard.meter)
        pull(stream, 7)
        before = reader_of(stream)._actors.counts.copy()
        cut(env, 0)
        batch: Any = next(stream)
        lost = int(before[0])
        assert f"is lost: {lost} steps of {before.sum()}" in caplog.text
        assert heard.notes["replay/steps_lost"] == lost > 0
        assert reader_of(stream)._actors.counts[0] == 0
        assert set(batch.key % 2) == {1}
        stream.prioritize(batch)
        stream.publish()
        for _ in range(20):
            answered(stream, 1)
        again = reader_of(stream)._actors.counts
        assert (again[0] > 0) == (on_fault == "restart")
        assert again[1] > 0


def test_keys_of_a_lost_shard_are_left_out(caplog: pytest.LogCaptureFixture) -> None:
    """What was drawn before it was lost gives nothing in its place a priority."""
    with closing(placed_rows(cartpoles, 4, on_fault="restart")) as env:
        stream = stream_of(env, BY_PRIORITY)
        pull(stream, 7)
        batch: Any = next(stream)
        assert set(batch.key % 2) == {0, 1}
        cut(env, 0)
        stream.publish()
        stream.advance()
        stream.publish()
        assert "restart 1 of 3" in caplog.text
        batch.error.fill_(5.0)
        stream.prioritize(batch)
        reader = reader_of(stream)
        reader._actors.settle()
        assert reader._actors.masses["policy"][0] == pytest.approx(reader._actors.counts[0])
        assert reader._actors.masses["policy"][1] > reader._actors.counts[1]


def test_all_shards_are_lost(caplog: pytest.LogCaptureFixture) -> None:
    """Rows step until something can be drawn again; with `raise` the run ends, saying who."""
    with closing(placed_rows(cartpoles, 2, actors=1, on_fault="restart")) as env:
        stream = stream_of(env)
        pull(stream, 6)
        due = reader_of(stream)._drawn
        cut(env, 0)
        found = pull(stream, 20)
        assert "restart 1 of 3" in caplog.text
        assert len(found) == 20
        assert reader_of(stream)._drawn >= due + 20
    with closing(placed_rows(cartpoles, 2, actors=1)) as env:
        stream = stream_of(env)
        pull(stream, 6)
        cut(env, 0)
        with pytest.raises(EnvError, match=r"actor 0 \(in a thread, rows 0..1\), .*is gone"):
            pull(stream, 6)


def test_more_than_a_message_holds(monkeypatch: pytest.MonkeyPatch) -> None:
    """A shard elsewhere that could not be saved is refused at once."""
    monkeypatch.setattr(sharded_module, "MOST_BYTES", 4_000)
    with (
        closing(placed_rows(cartpoles, 2, actors=1)) as env,
        pytest.raises(ConfigError, match=r"actor 0 \(in a thread, rows 0..1\) would keep .* set actors to 2 times"),
    ):
        stream_of(env)


def test_a_state_of_another_form_is_refused() -> None:
    """Of a run with one memory, and of another number of shards."""
    with closing(cartpoles(2)) as env:
        one = stream_of(env)
        pull(one, 1)
        state = one.state()
    with closing(placed_rows(cartpoles, 2)) as env:
        stream = stream_of(env)
        with pytest.raises(ConfigError, match=r"go on with replay\.shards=false"):
            stream.restore(state)
        pull(stream, 1)
        mine = stream.state()
        mine["memory"]["shards"] = 3
        with pytest.raises(ConfigError, match="of 3 shards, and this run has 2"):
            stream.restore(mine)


REFUSED: list[tuple[dict[str, Any], dict[str, Any], str]] = [
    ({}, {"file": True}, "set replay.file or this to false"),
    ({}, {"hindsight": 0.5}, "set replay.hindsight=0"),
    ({"data": FromData("somewhere")}, {}, "leave data out"),
    ({"population": Population(memory="private")}, {}, "leave population.mixing and population.memory"),
    ({"population": Population(mixing=("0.8",))}, {}, "leave population.mixing and population.memory"),
]


def test_what_does_not_go_with_shards(run_dir: Path) -> None:
    """Each with a sentence that says what would."""
    with closing(placed_rows(cartpoles, 2, actors=1)) as env:
        draws = {"agent0": Draws(), "agent1": Draws()}
        for settings, replay, why in REFUSED:
            told = told_of(num_envs=2, **settings)
            with pytest.raises(ConfigError, match=f"^replay.shards: .*{why}"):
                sharding_of(told, env, {}, draws, replace(UNIFORM, **replay))
        with pytest.raises(ConfigError, match="sequences are drawn from one memory"):
            sharding_of(told_of(num_envs=2), env, {}, {"policy": r2d2.Config()}, UNIFORM)
        net = make_q_network(env.spec, QNet(hidden=(8,), normalize_obs=True), 1)
        seeing = {"agent0": Learner(net, Adam, lr=1e-3)}
        with pytest.raises(ConfigError, match=r"set network\.normalize_obs=false"):
            sharding_of(told_of(num_envs=2), env, seeing, draws, UNIFORM)
        with pytest.raises(ConfigError, match='set max_staleness=0, or schedule="sync"'):
            stream_of(env, schedule=Async(1))
    short: dict[str, Any] = {"total_timesteps": 2_000, "panel": "none", "run_dir": str(run_dir)}
    with pytest.raises(ConfigError, match="set actors to 1 or more"):
        train("CartPole-v1", algo="dqn", replay={"shards": True}, **short)
    with pytest.raises(ConfigError, match="learns from its explorers' rollouts"):
        train("Pendulum-v1", algo="ppo_sac", replay={"shards": True}, num_envs=2, **short)
    with pytest.raises(ConfigError, match="these rows live in none"):
        sharded(make("CartPole-v1", 1), Wanted({}, 1, Sync(), None, Acting(1)), Meter())


@pytest.mark.slow
@pytest.mark.parametrize("alpha", [0.0, 0.6])
def test_a_run_whose_actor_is_killed(
    alpha: float, run_dir: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Three agents on two shards: one of the processes is killed in the middle, and the run goes on to its end."""
    started: list[ActorProcess] = []
    killed: list[int] = []
    begin = ActorProcess.__init__

    def note(actor: ActorProcess, *given: Any, **named: Any) -> None:
        begin(actor, *given, **named)
        started.append(actor)

    def kill(run: Any, _: Any) -> None:
        if not killed and run.progress > 0.4:
            killed.append(started[-1].pid)
            os.kill(killed[0], signal.SIGKILL)

    monkeypatch.setattr(ActorProcess, "__init__", note)

    replay = {"shards": True, "alpha": alpha, "learning_starts": 500, "buffer_size": 3_000}
    settings: dict[str, Any] = {"num_envs": 6, "agents": 3, "actors": 2, "num_steps": 4, "total_timesteps": 6_000}
    result = train(
        "CartPole-v1",
        algo="dqn",
        on_fault="restart",
        callbacks=[kill],
        replay=replay,
        panel="none",
        final_episodes=5,
        stop_at=float("inf"),
        run_dir=str(run_dir),
        **settings,
    )
    assert result.steps >= 6_000
    assert killed
    assert "is lost" in caplog.text
    lines = (result.path / "metrics.jsonl").read_text()
    assert "replay/steps_lost" in lines
