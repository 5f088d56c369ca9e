"""What is in flight: a rollout that is saved between two of its steps goes on as if nothing had happened."""

from __future__ import annotations

import copy
import threading
import time
from contextlib import closing
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import torch
from torch.optim import Adam

from shoal.envs.preprocessing import Preprocessing
from shoal.envs.registry import make
from shoal.learn.acting import Acting
from shoal.learn.learner import Learner
from shoal.nets.network import Network
from shoal.nets.policy import make_policy
from shoal.run.trees import Arrays, decode, encode
from shoal.stream.actors.rows import ActorRows, ActorSettings
from shoal.stream.ending import EndingError
from shoal.stream.in_process import InProcess
from shoal.stream.meter import Meter
from shoal.stream.rollouts import rollouts
from shoal.stream.schedules import Async, Overlap, Sync
from shoal.types import map_tree
from tests.stream.slow_env import rows as slow_rows

if TYPE_CHECKING:
    from pathlib import Path

    from shoal.envs.vec_env import VecEnv
    from shoal.stream.rollouts import Rollouts
    from shoal.types import Spec, Steps

NUMBERS = ("start", "terminated", "truncated", "log_prob", "value", "next_value", "reward", "version")
NUM_STEPS = 7


class At:
    """Ends a rollout at one of the moments between two steps."""

    def __init__(self, moment: int) -> None:
        self.left = moment

    def due(self) -> bool:
        self.left -= 1
        return self.left < 0

    def pause(self) -> None:
        raise EndingError


def learner_of(spec: Spec, recurrent: Any) -> Learner:
    torch.manual_seed(3)
    network = Network(hidden=(8,), recurrent=recurrent, recurrent_size=8)
    return Learner(make_policy(spec, network, 3), Adam, lr=0.1)


def made(env: VecEnv, recurrent: Any, schedule: Any) -> tuple[Rollouts, InProcess]:
    learner = learner_of(env.spec, recurrent)
    stream = rollouts(env, learner, num_steps=NUM_STEPS, schedule=schedule, acting=Acting(5, native=False))
    assert isinstance(stream.collects, InProcess)
    return stream, stream.collects


def taken(steps: Steps) -> dict[str, Any]:
    """What counts of a rollout, apart."""
    found: dict[str, Any] = {"valid": steps.valid.clone()}
    for name in ("obs", "action"):
        found[name] = map_tree(lambda x: x[steps.valid], getattr(steps, name))
    for name in NUMBERS:
        found[name] = getattr(steps, name)[steps.valid]
    ended = steps.final_index[steps.final_index >= 0].long()
    found["final_obs"] = map_tree(lambda x: x[ended], steps.final_obs)
    found["state"] = None if steps.state is None else map_tree(torch.clone, steps.state)
    return found


def check_same(mine: dict[str, Any], theirs: dict[str, Any]) -> None:
    """Bit for bit the same experience."""
    for name, tree in mine.items():
        if tree is not None:
            map_tree(lambda x, y, name=name: np.testing.assert_array_equal(x, y, name), tree, theirs[name])


def saved(state: object) -> Any:
    """As it comes back from a checkpoint."""
    arrays = Arrays()
    tree = encode(state, "stream", arrays)
    return decode(copy.deepcopy(tree), {name: x.copy() for name, x in arrays.held.items()}, {})


SHORT = Preprocessing(max_episode_steps=4)


@pytest.mark.parametrize("moment", [0, 1, 5, 7, 8])
@pytest.mark.parametrize(
    ("env_id", "recurrent", "schedule"),
    [
        ("CartPole-v1", "gru", Sync()),
        ("CartPole-v1", "none", Overlap()),
        ("shoal.envs.agents.tictactoe:TicTacToe", "none", Sync()),
    ],
)
def test_a_rollout_that_was_left_is_gone_on_with(env_id: str, recurrent: Any, schedule: Any, moment: int) -> None:
    """Between any two of its steps, in other rows, from a checkpoint; the rollout after it is the same too."""
    options = {"preprocessing": SHORT} if env_id == "CartPole-v1" else {}
    with closing(make(env_id, 4, backend="serial", **options)) as env:
        stream, _ = made(env, recurrent, schedule)
        whole: list[Any] = []
        ended: list[Any] = []
        for _ in range(3):
            whole.append(taken(next(stream)))
            ended.append(stream.episodes)
            stream.publish()
    with closing(make(env_id, 4, backend="serial", **options)) as env:
        stream, collects = made(env, recurrent, schedule)
        next(stream)
        stream.publish()
        at = At(moment)
        with pytest.raises(EndingError):
            collects.collect(at)
        state = saved(stream.state())
        steps = len(next(iter(state["under_way"]["steps"].values()))["valid"])
        assert (steps > 0) == (moment > 0)
    with closing(make(env_id, 4, backend="serial", **options)) as env:
        stream, _ = made(env, recurrent, schedule)
        next(stream)  # whatever it held before
        stream.publish()
        assert not stream.restore(state)
        for number in (1, 2):
            check_same(whole[number], taken(next(stream)))
            for name in ("returns", "lengths", "rows"):
                np.testing.assert_array_equal(getattr(ended[number], name), getattr(stream.episodes, name))
            stream.publish()


def of_actors(env: VecEnv, schedule: Any, version: int = 0) -> Rollouts:
    """A stream of rows that may live in actors."""
    learner = learner_of(env.spec, "none")
    learner.version = version
    return rollouts(env, learner, num_steps=NUM_STEPS, schedule=schedule, acting=Acting(5), meter=Meter())


def pulled(env: VecEnv, schedule: Any, times: int, state: Any = None, version: int = 0) -> list[dict[str, Any]]:
    """So many rollouts, from a state or the beginning."""
    stream = of_actors(env, schedule, version)
    if state is not None:
        assert not stream.restore(state)
    found: list[dict[str, Any]] = []
    for _ in range(times):
        found.append(taken(next(stream)))
        stream.publish()
    return found


def left(make_rows: Any, schedule: Any, before_s: float, pulls: int = 1) -> tuple[Any, float]:
    """The state of a stream of two actors that is to end in the middle of its next rollout; what all took since."""
    with closing(ActorRows(make_rows, 3, ActorSettings(2))) as env:
        stream = of_actors(env, schedule)
        for _ in range(pulls):
            next(stream)
            stream.publish()
        told: list[float] = []

        def end() -> None:
            told.append(time.monotonic())
            stream.meter.ending.begin()

        threading.Timer(before_s, end).start()
        with pytest.raises(EndingError):
            next(stream)
        state = saved(stream.state())
        env.close()
        took_s = time.monotonic() - told[0]
    return state, took_s


def test_actors_go_on_in_the_middle_of_a_rollout() -> None:
    """One actor is done, the other one is not: nobody waits, and both go on where they were, bit for bit."""
    with closing(slow_rows(3)) as env:
        whole = pulled(env, Sync(), 3)
    state, took_s = left(partial(slow_rows, step_s=0.06), Sync(), 0.05)
    assert took_s < 3
    assert 0 < state["actors"]["1"]["under_way"]["done"][0] < NUM_STEPS
    assert state["weights"]["all"].keys() == {"1"}
    with closing(ActorRows(slow_rows, 3, ActorSettings(2))) as env:
        again = pulled(env, Sync(), 2, state, version=1)
    for mine, theirs in zip(whole[1:], again, strict=True):
        check_same(mine, theirs)


@pytest.mark.slow
@pytest.mark.parametrize("most", [1, 2])
def test_what_is_ahead_is_neither_lost_nor_doubled(most: int) -> None:
    """Rollouts ahead, some of them under way: what the actors' rows do goes on step by step."""
    with closing(slow_rows(3)) as env:
        whole = pulled(env, Sync(), 5)
    state, took_s = left(partial(slow_rows, step_s=0.1), Async(most), 0.3)
    assert took_s < 3
    assert len(state["held"]["0"]) > 0
    with closing(ActorRows(slow_rows, 3, ActorSettings(2))) as env:
        again = pulled(env, Async(most), 4, state, version=1)
    for mine, theirs in zip(whole[1:], again, strict=True):
        mine["version"] = theirs["version"]  # these depend on timing, weights do not change here
        check_same(mine, theirs)


@pytest.mark.slow
@pytest.mark.parametrize("schedule", [Sync(), Async(1)], ids=str)
def test_a_step_without_end_is_not_waited_for(schedule: Any, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """What came before it is saved, it is said, and the run goes on from there as if nothing had happened."""
    with closing(slow_rows(3)) as env:
        whole = pulled(env, Sync(), 4)
    stuck = tmp_path / "stuck"
    stuck.touch()
    state, took_s = left(partial(slow_rows, stuck=str(stuck), stuck_at=9), schedule, 0.5)
    assert took_s < 5
    assert "in one step for more than 3 s; saved is what came before" in caplog.text
    with closing(ActorRows(slow_rows, 3, ActorSettings(2))) as env:
        again = pulled(env, schedule, 3, state, version=1)
    for mine, theirs in zip(whole[1:], again, strict=True):
        mine["version"] = theirs["version"]
        check_same(mine, theirs)


@pytest.mark.slow
def test_a_state_in_the_middle_changes_nothing() -> None:
    """Checkpoints of rollouts under way take a step; actors go on, and the steps are the same as without."""
    with closing(slow_rows(3)) as env:
        whole = pulled(env, Sync(), 3)
    with closing(ActorRows(partial(slow_rows, step_s=0.1), 3, ActorSettings(2))) as env:
        stream = of_actors(env, Async(1))
        again: list[dict[str, Any]] = []
        for _ in range(3):
            again.append(taken(next(stream)))
            stream.publish()
            begun = time.perf_counter()
            states = [stream.state() for _ in range(3)]
            assert time.perf_counter() - begun < 3 * 0.4
    assert any("under_way" in own for own in states[-1]["actors"].values())
    for mine, theirs in zip(whole, again, strict=True):
        mine["version"] = theirs["version"]
        check_same(mine, theirs)
