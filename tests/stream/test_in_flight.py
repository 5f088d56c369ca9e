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
from shoal.stream.actors import actor, states
from shoal.stream.actors.actor import Keeping
from shoal.stream.actors.rows import ActorRows, ActorSettings
from shoal.stream.ending import EndingError
from shoal.stream.in_process import InProcess
from shoal.stream.meter import Meter
from shoal.stream.rollouts import rollouts
from shoal.stream.schedules import Async, Overlap, Sync
from shoal.types import map_tree
from tests.stream.slow_env import rows as slow_rows
from tests.stream.test_distant_actors import Placed

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


@pytest.mark.parametrize("moment", [0, 5, *[pytest.param(at, marks=pytest.mark.slow) for at in (1, 7, 8)]])
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
    short = SHORT if env_id == "CartPole-v1" else None
    with closing(make(env_id, 4, backend="serial", preprocessing=short)) as env:
        stream, _ = made(env, recurrent, schedule)
        whole: list[Any] = []
        ended: list[Any] = []
        for _ in range(3):
            whole.append(taken(next(stream)))
            ended.append(stream.episodes)
            stream.publish()
    with closing(make(env_id, 4, backend="serial", preprocessing=short)) as env:
        stream, collects = made(env, recurrent, schedule)
        next(stream)
        stream.publish()
        with pytest.raises(EndingError):
            collects.collect(At(moment))
        state = saved(stream.state())
        steps = len(next(iter(state["under_way"]["steps"].values()))["valid"])
        assert (steps > 0) == (moment > 0)
    with closing(make(env_id, 4, backend="serial", preprocessing=short)) as env:
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


def left(make_rows: Any, place: Any, schedule: Any, before_s: float, stuck: Path | None = None) -> tuple[Any, float]:
    """The state of a stream of two actors that is to end in the middle of its second rollout; what all took since."""
    with closing(ActorRows(make_rows, 3, ActorSettings(2), place=place)) as env:
        stream = of_actors(env, schedule)
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
        if stuck is not None and place is not None:  # a thread cannot be killed
            stuck.unlink()
        env.close()
        took_s = time.monotonic() - told[0]
    return state, took_s


PLACES = [pytest.param(Placed, id="thread"), pytest.param(None, id="process", marks=pytest.mark.slow)]


@pytest.mark.parametrize("place", PLACES)
def test_actors_go_on_in_the_middle_of_a_rollout(place: Any) -> None:
    """One actor is done, the other one is not: nobody waits, and both go on where they were, bit for bit."""
    with closing(slow_rows(3)) as env:
        whole = pulled(env, Sync(), 3)
    state, took_s = left(partial(slow_rows, step_s=0.06), place, Sync(), 0.05)
    assert took_s < 4
    assert 0 < state["actors"]["1"]["under_way"]["done"][0] < NUM_STEPS
    assert state["weights"]["all"].keys() == {"1"}
    with closing(ActorRows(slow_rows, 3, ActorSettings(2), place=place)) as env:
        again = pulled(env, Sync(), 2, state, version=1)
    for mine, theirs in zip(whole[1:], again, strict=True):
        check_same(mine, theirs)


@pytest.mark.slow
@pytest.mark.parametrize("most", [1, 2])
def test_what_is_ahead_is_neither_lost_nor_doubled(most: int) -> None:
    """Rollouts ahead, some of them under way: what the actors' rows do goes on step by step."""
    with closing(slow_rows(3)) as env:
        whole = pulled(env, Sync(), 5)
    state, took_s = left(partial(slow_rows, step_s=0.1), None, Async(most), 0.3)
    assert took_s < 4
    assert len(state["held"]["0"]) > 0
    with closing(ActorRows(slow_rows, 3, ActorSettings(2))) as env:
        again = pulled(env, Async(most), 4, state, version=1)
    for mine, theirs in zip(whole[1:], again, strict=True):
        mine["version"] = theirs["version"]  # these depend on timing, weights do not change here
        check_same(mine, theirs)


@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize("schedule", [Sync(), pytest.param(Async(1), marks=pytest.mark.slow)], ids=str)
def test_a_step_without_end_is_not_waited_for(
    schedule: Any, place: Any, tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What came before it is saved, it is said, and the run goes on from there as if nothing had happened."""
    late_s = states.LATE_S if place is None else 0.2
    monkeypatch.setattr(states, "LATE_S", late_s)
    monkeypatch.setattr(actor, "KEEP_SHARE", 1.0)
    with closing(slow_rows(3)) as env:
        whole = pulled(env, Sync(), 4)
    stuck = tmp_path / "stuck"
    stuck.touch()
    state, took_s = left(partial(slow_rows, step_s=0.02, stuck=str(stuck), stuck_at=9), place, schedule, 0.5, stuck)
    assert took_s < 5
    assert f"in one step for more than {late_s:g} s; saved is what came before" in caplog.text
    with closing(ActorRows(slow_rows, 3, ActorSettings(2), place=place)) as env:
        again = pulled(env, schedule, 3, state, version=1)
    for mine, theirs in zip(whole[1:], again, strict=True):
        mine["version"] = theirs["version"]
        check_same(mine, theirs)


def test_rows_of_which_nothing_is_known_begin_anew(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An actor in a step without end that kept nothing: the others are saved, it is said, also when the run goes on."""
    monkeypatch.setattr(states, "LATE_S", 0.2)
    monkeypatch.setattr(Keeping, "due", lambda *_: False)
    stuck = tmp_path / "stuck"
    stuck.touch()
    state, _ = left(partial(slow_rows, stuck=str(stuck), stuck_at=9), Placed, Sync(), 0.2, stuck)
    assert state["actors"]["0"]
    assert state["actors"]["1"] == {}
    assert "when the run goes on, its episodes begin anew" in caplog.text
    with closing(ActorRows(slow_rows, 3, ActorSettings(2), place=Placed)) as env:
        stream = of_actors(env, Sync(), version=1)
        assert [lost.split(":")[0] for lost in stream.restore(state)] == ["rows 1..2"]
        steps = next(stream)
    assert steps.valid.all()
    assert steps.start[0].tolist()[1:] == [True, True]


@pytest.mark.slow
def test_a_state_in_the_middle_changes_nothing() -> None:
    """Checkpoints of rollouts under way take a step; actors go on, and the steps are the same as without."""
    with closing(slow_rows(3)) as env:
        whole = pulled(env, Sync(), 3)
    with closing(ActorRows(partial(slow_rows, step_s=0.1), 3, ActorSettings(2))) as env:
        stream = of_actors(env, Async(1))
        again: list[dict[str, Any]] = []
        under_way: list[bool] = []
        for _ in range(3):
            again.append(taken(next(stream)))
            stream.publish()
            begun = time.perf_counter()
            found = [stream.state() for _ in range(3)]
            assert time.perf_counter() - begun < 3 * 0.4
            under_way += ["under_way" in own for one in found for own in one["actors"].values()]
    assert any(under_way)
    for mine, theirs in zip(whole, again, strict=True):
        mine["version"] = theirs["version"]
        check_same(mine, theirs)


@pytest.mark.parametrize("place", PLACES)
def test_a_learner_may_be_slower_than_every_deadline(place: Any) -> None:
    """Actors wait, with all that they may collect ahead; nobody takes them for dead, and all of it is in the state."""
    settings = ActorSettings(2, timeout_s=0.3)
    with closing(ActorRows(slow_rows, 3, settings, place=place)) as env:
        stream = of_actors(env, Async(2))
        next(stream)
        time.sleep(1.0)
        stream.publish()
        stream.meter.ending.begin()
        begun = time.perf_counter()
        state = saved(stream.state())
        env.close()
        assert time.perf_counter() - begun < 3
    assert [len(parts) for parts in state["held"].values()] == [2, 2]
    with closing(ActorRows(slow_rows, 3, settings, place=place)) as env:
        again = pulled(env, Async(2), 4, state, version=1)
    with closing(slow_rows(3)) as env:
        whole = pulled(env, Sync(), 5)
    for mine, theirs in zip(whole[1:], again, strict=True):
        mine["version"] = theirs["version"]
        check_same(mine, theirs)
