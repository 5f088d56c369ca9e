"""Actors: what they collect equals one process's rollouts bit for bit; what follows where one of them fails."""

from __future__ import annotations

import os
import signal
import time
from contextlib import closing
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np
import psutil
import pytest
import torch
from torch.optim import Adam

from shoal.envs.preprocessing import Preprocessing
from shoal.envs.registry import make
from shoal.experiment.agent import load
from shoal.experiment.experiment import Experiment
from shoal.experiment.training import train
from shoal.learn.acting import Acting
from shoal.learn.learner import Learner
from shoal.memory.arena import Arena, nbytes
from shoal.nets.network import Network
from shoal.nets.policy import make_policy
from shoal.run.log import read
from shoal.stream.actors.process import ActorProcess
from shoal.stream.actors.rows import ActorRows, ActorSettings
from shoal.stream.meter import Meter
from shoal.stream.rollouts import rollouts
from shoal.stream.schedules import Async, Sync
from shoal.types import ConfigError, EnvError, errors, map_tree
from tests.bad_envs import NanAtStep
from tests.stream.test_rollouts import kept, same

if TYPE_CHECKING:
    from pathlib import Path

    from shoal.envs.vec_env import VecEnv
    from shoal.stream.rollouts import Rollouts
    from shoal.types import Spec

pytestmark = pytest.mark.usefixtures("warm_workers")

SHORT = Preprocessing(max_episode_steps=11)
"""Episodes of CartPole that are cut as well as ended."""


def cartpoles(num_envs: int, backend: str = "auto") -> VecEnv:
    """CartPole of eleven steps at most."""
    return make("CartPole-v1", num_envs, backend=backend, preprocessing=SHORT)


def pid_of(env: ActorRows, number: int) -> int:
    """Of an actor of this machine."""
    process = env.processes[number]
    assert isinstance(process, ActorProcess)
    return process.pid


def learner_of(spec: Spec, recurrent: Any = "none") -> Learner:
    """A small network from one seed."""
    torch.manual_seed(3)
    return Learner(make_policy(spec, Network(hidden=(8,), recurrent=recurrent, recurrent_size=8), 3), Adam, lr=0.1)


def stream_of(env: VecEnv, learner: Learner, **settings: Any) -> Rollouts:
    """Rollouts of seven steps."""
    settings = {"acting": Acting(5), "meter": Meter()} | settings
    return rollouts(env, learner, num_steps=7, **settings)


def moved(learner: Learner, by: float) -> None:
    """Other weights, so that a version that was not pulled is seen."""
    with torch.no_grad():
        for parameter in learner.policy.parameters():
            parameter.add_(by * torch.arange(parameter.numel()).view_as(parameter).remainder(3))


def collected(env: VecEnv, times: int, recurrent: Any, state: Any = None) -> tuple[list[Any], list[Any], Any]:
    """Rollouts with weights that change in between, their episodes, and the state after the second one."""
    learner = learner_of(env.spec, recurrent)
    stream = stream_of(env, learner)
    if state is not None:
        moved(learner, 0.01)
        moved(learner, 0.02)
        stream.restore(state)
    found: list[Any] = []
    ended: list[Any] = []
    saved: Any = None
    for number in range(2 if state is not None else 0, times):
        steps = next(stream)
        found.append(kept(steps))
        ended.append(stream.episodes)
        moved(learner, 0.01 * (number + 1))
        stream.publish()
        if number == 1:
            saved = stream.state()
    return found, ended, saved


@pytest.mark.parametrize(
    ("backend", "recurrent"),
    [("native", "none"), pytest.param("serial", "gru", marks=pytest.mark.slow)],
)
def test_what_two_actors_collect_equals_one_process(backend: str, recurrent: str) -> None:
    """Steps, final observations, episodes, versions; and again from a state."""
    with closing(cartpoles(5, backend)) as env:
        mine, my_ends, _ = collected(env, 4, recurrent)
    make_rows = partial(cartpoles, backend=backend)
    with closing(ActorRows(make_rows, 5, ActorSettings(2))) as env:
        theirs, their_ends, saved = collected(env, 4, recurrent)
    same(mine, theirs)
    assert any(steps.truncated.any() for steps in mine)
    assert any(steps.terminated.any() for steps in mine)
    for one, other in zip(my_ends, their_ends, strict=True):
        for name in ("returns", "lengths", "rows"):
            np.testing.assert_array_equal(getattr(one, name), getattr(other, name))
    assert [steps.version.unique().tolist() for steps in theirs] == [[0], [1], [2], [3]]
    if recurrent != "none":
        assert torch.equal(mine[3].state, theirs[3].state)
    with closing(ActorRows(make_rows, 5, ActorSettings(2))) as env:
        again, _, _ = collected(env, 4, recurrent, saved)
    for one, other in zip(again, theirs[2:], strict=True):
        assert torch.equal(one.obs, other.obs)
        assert torch.equal(one.action, other.action)
        assert torch.equal(one.next_value, other.next_value)


class TestAsync:
    """Actors that are a rollout ahead."""

    def begun(self, max_staleness: int = 1) -> tuple[Rollouts, ActorRows, Learner]:
        """A stream of an actor."""
        env = ActorRows(cartpoles, 4, ActorSettings(1))
        learner = learner_of(env.spec)
        stream = stream_of(env, learner, schedule=Async(max_staleness))
        return stream, env, learner

    def pulled(self, stream: Rollouts, learner: Learner, times: int) -> list[Any]:
        """Rollouts, each learned from when all actors wait."""
        found: list[Any] = []
        for _ in range(times):
            found.append(kept(next(stream)))
            at_rest(stream.env)
            moved(learner, 0.01)
            stream.publish()
        return found

    @pytest.mark.slow
    def test_what_is_under_way_is_saved(self) -> None:
        """Every step is of the version before; a state has what was collected ahead, and goes on with it."""
        stream, env, learner = self.begun()
        with closing(env):
            first = self.pulled(stream, learner, 2)
            state = stream.state()
            then = self.pulled(stream, learner, 2)
        assert [steps.version.unique().tolist() for steps in first + then] == [[0], [0], [1], [2]]
        again, env, learner = self.begun()
        with closing(env):
            next(again)
            again.publish()
            for _ in range(2):
                moved(learner, 0.01)
                learner.publish()
            assert not again.restore(state)
            learner.version = 2
            same(then, self.pulled(again, learner, 2))

    @pytest.mark.slow
    @pytest.mark.parametrize("most", [1, 4])
    def test_nothing_is_older_than_allowed(self, most: int) -> None:
        """Actors that are stopped and killed at random; every step's version is at most so far behind."""
        rng = np.random.default_rng(most)
        env = ActorRows(cartpoles, 4, ActorSettings(2, on_fault="restart", max_restarts=1000))
        learner = learner_of(env.spec)
        stream = stream_of(env, learner, schedule=Async(most))
        seen: set[int] = set()
        with closing(env):
            for number in range(200):
                steps = next(stream)
                behind = number - steps.version
                seen.update(behind.unique().tolist())
                assert steps.valid.all()
                if rng.random() < 0.05:
                    os.kill(pid_of(env, int(rng.integers(2))), signal.SIGKILL)
                stream.publish()
        assert max(seen) == most
        assert min(seen) >= 0


def at_rest(env: Any) -> None:
    """Waits until no actor has anything to do."""
    counts: list[int] = []
    while not counts or counts != [process.steps for process in env.processes]:
        counts = [process.steps for process in env.processes]
        time.sleep(0.1)


class TestFaults:
    """An actor that is killed while it collects."""

    def played(self, on_fault: str, **settings: Any) -> tuple[Rollouts, ActorRows]:
        """A stream of two actors, the first of which is gone after a rollout."""
        env = ActorRows(cartpoles, 4, ActorSettings(2, on_fault=on_fault, **settings))
        stream = stream_of(env, learner_of(env.spec))
        next(stream)
        stream.publish()
        os.kill(pid_of(env, 0), signal.SIGKILL)
        return stream, env

    @pytest.mark.slow
    def test_is_named(self) -> None:
        """`raise`: the error says who, which rows, and how it ended."""
        stream, env = self.played("raise")
        with closing(env), pytest.raises(EnvError, match=r"actor 0 \(pid \d+, rows 0..1\).*SIGKILL"):
            next(stream)

    def test_another_takes_its_place(self, caplog: pytest.LogCaptureFixture) -> None:
        """`restart`: all rows go on, those of the new process in new episodes; it is said and counted."""
        stream, env = self.played("restart")
        with closing(env):
            steps = next(stream)
            assert steps.valid.all()
            assert steps.start[0].tolist()[:2] == [True, True]
            assert steps.version.unique().tolist() == [1]
            assert "restart 1 of 3" in caplog.text
            os.kill(pid_of(env, 0), signal.SIGKILL)
            stream.publish()
            next(stream)
            assert "restart 2 of 3" in caplog.text

    @pytest.mark.slow
    def test_others_go_on_without(self) -> None:
        """`drop`: no step of its rows counts, and they act no more."""
        stream, env = self.played("drop")
        with closing(env):
            steps = next(stream)
            assert steps.valid.all(0).tolist() == [False, False, True, True]
            assert not steps.valid[:, :2].any()
            stream.publish()
            assert not next(stream).valid[:, :2].any()
            assert env.dropped.tolist() == [True, True, False, False]


@pytest.mark.slow
def test_one_that_says_nothing_is_found() -> None:
    """A stopped process is named within its time-out, and `close` does not wait for it."""
    env = ActorRows(cartpoles, 4, ActorSettings(2, timeout_s=1.0))
    stream = stream_of(env, learner_of(env.spec))
    next(stream)
    stream.publish()
    pid = pid_of(env, 1)
    os.kill(pid, signal.SIGSTOP)
    begun = time.perf_counter()
    with pytest.raises(EnvError, match=r"actor 1 .*said nothing for 1 s; it is stopped"):
        next(stream)
    env.close()
    assert time.perf_counter() - begun < 6
    assert not psutil.pid_exists(pid)


def broken(num_envs: int) -> VecEnv:
    """Rows whose third step is not a number."""
    return make(NanAtStep, num_envs)


def test_an_environments_own_error_arrives() -> None:
    """As in one process, with the actor in a note; nothing is left behind."""
    env = ActorRows(broken, 2, ActorSettings(1))
    pid = pid_of(env, 0)
    with closing(env):
        stream = stream_of(env, learner_of(env.spec))
        with pytest.raises(EnvError) as raised:
            next(stream)
    assert any("in actor 0" in note for note in raised.value.__notes__)
    assert not psutil.pid_exists(pid)


def unfinished(num_envs: int) -> VecEnv:
    """No rows."""
    raise ConfigError("there is no such world")


def test_what_cannot_be_made_is_said() -> None:
    """The actor's own words."""
    with pytest.raises(ConfigError, match="there is no such world"):
        ActorRows(unfinished, 2, ActorSettings(1))


def test_more_actors_than_environments() -> None:
    """Nobody would be without rows."""
    with pytest.raises(ConfigError, match="actors=3 need as many environments, got num_envs=2"):
        ActorRows(cartpoles, 2, ActorSettings(3))


def test_more_actors_than_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each is a process with libraries of its own; nothing is started."""
    monkeypatch.setattr(errors, "free_bytes", lambda: 1 << 30)
    with pytest.raises(ConfigError, match=r"actors=64, .* need 10\.0 GiB of memory, .* 1\.0 GiB .*set actors to less"):
        ActorRows(cartpoles, 64, ActorSettings(64))


@pytest.mark.slow
def test_parameters_of_another_shape() -> None:
    """The learner refuses them before they go anywhere."""
    with closing(ActorRows(cartpoles, 2, ActorSettings(1))) as env:
        learner = learner_of(env.spec)
        stream = stream_of(env, learner)
        next(stream)
        parameter = next(learner.policy.parameters())
        parameter.data = torch.zeros(2 * len(parameter), *parameter.shape[1:])
        stream.publish()
        with pytest.raises(ConfigError, match="must keep its shape"):
            next(stream)


@pytest.mark.slow
@pytest.mark.parametrize("schedule", [Sync(), Async(1)], ids=str)
def test_training_goes_on_soon_after_a_kill(schedule: Any) -> None:
    """A process that waits for that takes the place of the one that is gone."""
    with closing(ActorRows(cartpoles, 4, ActorSettings(2, on_fault="restart"))) as env:
        stream = stream_of(env, learner_of(env.spec), schedule=schedule)
        for _ in range(2):
            next(stream)
            stream.publish()
        time.sleep(6)  # it has imported what it needs
        os.kill(pid_of(env, 0), signal.SIGKILL)
        begun = time.perf_counter()
        for _ in range(3):
            assert next(stream).valid.all()
            stream.publish()
        assert time.perf_counter() - begun < 2


def test_rows_of_actors_are_for_rollouts(run_dir: Path) -> None:
    """Environments on servers step elsewhere already."""
    with pytest.raises(ConfigError, match="names servers; set actors=0"):
        train("grpc://127.0.0.1:1", actors=2, run_dir=str(run_dir))
    with pytest.raises(ConfigError, match=r"max_restarts=5 would change nothing"):
        train("CartPole-v1", max_restarts=5, run_dir=str(run_dir))


def test_only_training_is_in_actors() -> None:
    """Who loads or evaluates a run has rows of its own process."""
    with closing(Experiment.new("CartPole-v1", settings={"actors": 2}).rows(1)) as env:
        assert env.native_pool is not None


def trained(run_dir: Path, **settings: Any) -> dict[str, torch.Tensor]:
    """The weights of a short run."""
    settings = {"num_envs": 4, "total_timesteps": 1_500} | settings
    result = train(panel="none", stop_at=float("inf"), final_episodes=0, run_dir=str(run_dir), **settings)
    assert load(result.path).policy.state_dict().keys() == result.policy.state_dict().keys()
    return map_tree(torch.clone, dict(result.policy.state_dict()))


SLOW_CASES: list[dict[str, Any]] = [
    {"env": "CartPole-v1", "algo": "dqn"},
    {"env": "CartPole-v1", "algo": "impala", "num_steps": 32},
    {"env": "CartPole-v1", "algo": "impala", "num_steps": 32, "agents": 2, "num_minibatches": 2},
    {"env": "CartPole-v1", "algo": "ppo", "agents": 2, "num_steps": 32},
    {"env": "Pendulum-v1", "algo": "sac", "act_block": 2},
    {"env": "Pendulum-v1", "algo": "td3", "act_block": 2},
    {"env": "CartPole-v1", "algo": "r2d2", "act_block": 2},
    {"env": "CartPole-v1", "algo": "ppo", "normalize_reward": True, "num_steps": 32, "num_envs": 6},
    {"env": "CartPole-v1", "algo": "ppo", "curiosity": {"coef": 0.1}, "num_steps": 32},
    {"env": "shoal.envs.agents.tictactoe:TicTacToe", "algo": "ppo", "num_steps": 32},
    {"env": "shoal.envs.agents.tictactoe:TicTacToe", "algo": "ppo", "self_play": {"every": 2}, "num_steps": 32},
    {"env": "Pendulum-v1", "algo": "ppo_sac", "num_envs": 4, "act_block": 2},
]


@pytest.mark.slow
@pytest.mark.parametrize("case", SLOW_CASES, ids=str)
def test_weights_equal_those_of_one_process(case: dict[str, Any], run_dir: Path) -> None:
    """Whatever the algorithm, however many actors; where values in torch round as they do in one process, one."""
    own = trained(run_dir, **case)
    in_torch = "tictactoe" in case["env"]
    for actors in (1,) if in_torch else (1, 2):
        theirs = trained(run_dir, actors=actors, **case)
        assert all(torch.equal(own[name], theirs[name]) for name in own)


@pytest.mark.slow
@pytest.mark.parametrize("algo", ["ppo", "impala", "dqn"])
def test_a_staleness_of_0_is_no_schedule_of_its_own(algo: str, run_dir: Path) -> None:
    """Weights of `async` with actors, nothing ahead, are those of `sync` without."""
    case: dict[str, Any] = {"env": "CartPole-v1", "algo": algo, "num_steps": 32, "run_dir": run_dir}
    case |= {"num_steps": 4} if algo == "dqn" else {}
    own, theirs = trained(**case), trained(**case, schedule="async", max_staleness=0, actors=2)
    assert all(torch.equal(own[name], theirs[name]) for name in own)


def test_shares_of_waiting_are_shares(run_dir: Path) -> None:
    """Of actors too that are asked for a rollout without weights, as those are that run ahead."""
    case: dict[str, Any] = {"env": "CartPole-v1", "schedule": "async", "actors": 2, "max_staleness": 4}
    ended = train(**case, total_timesteps=30_000, run_dir=str(run_dir), panel="none", final_episodes=0)
    lines = list(read(ended.path / "metrics.jsonl"))
    for name in ("speed/actors_wait", "speed/learner_waits"):
        assert all(0 <= line[name] <= 1 for line in lines)


def test_what_does_not_fit_goes_with_the_message() -> None:
    """Arrays in their region where there is room, with the message otherwise; both come out as they were."""
    sizes = (4096, 2048)
    fd = os.memfd_create("test")
    os.ftruncate(fd, nbytes(sizes))
    arena = Arena(fd, sizes)
    os.close(fd)
    small, large = np.arange(4), np.arange(300, dtype=np.int64)
    packed = arena.write({"small": small, "large": large, "again": large}, 0)
    assert [size for _, size in packed.places] == [2400]
    found = arena.read(packed)
    assert found["again"].tolist() == found["large"].tolist() == large.tolist()
    assert not arena.write(large, 1).places
    assert arena.read(arena.write(large, 1)).tolist() == large.tolist()
