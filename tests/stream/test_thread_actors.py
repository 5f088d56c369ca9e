"""Actors in threads: their rollouts equal one process's bit for bit, and what follows where one of them raises."""

from __future__ import annotations

import threading
import time
from contextlib import closing
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import torch

from shoal.envs.registry import make
from shoal.learn.acting import Acting
from shoal.stream.actors.rows import ActorRows, ActorSettings
from shoal.stream.actors.slots import Slots
from shoal.stream.actors.threaded import ThreadActor
from shoal.stream.actors.weights import Weights
from shoal.stream.in_process import InProcess
from shoal.stream.rollouts import rollouts
from shoal.stream.schedules import Async
from shoal.types import ConfigError, EnvError
from tests.stream.test_actors import cartpoles, collected, learner_of, moved, stream_of
from tests.stream.test_rollouts import kept, same

if TYPE_CHECKING:
    from collections.abc import Callable

    from shoal.envs.vec_env import VecEnv
    from shoal.types import Episodes


def threads(num_envs: int = 5, actors: int = 2, **settings: Any) -> ActorRows:
    """CartPole in threads."""
    return ActorRows(cartpoles, num_envs, ActorSettings(actors, inside="threads", **settings))


def test_what_two_threads_collect_equals_one_process() -> None:
    """Steps, final observations, episodes, versions; and again from a state, in other threads."""
    with closing(cartpoles(5)) as env:
        mine, my_ends, _ = collected(env, 4, "none")
    with closing(threads()) as env:
        theirs, their_ends, saved = collected(env, 4, "none")
    same(mine, theirs)
    for one, other in zip(my_ends, their_ends, strict=True):
        for name in ("returns", "lengths", "rows"):
            np.testing.assert_array_equal(getattr(one, name), getattr(other, name))
    assert [steps.version.unique().tolist() for steps in theirs] == [[0], [1], [2], [3]]
    with closing(threads()) as env:
        again, _, _ = collected(env, 4, "none", saved)
    for one, other in zip(again, theirs[2:], strict=True):
        assert torch.equal(one.obs, other.obs)
        assert torch.equal(one.next_value, other.next_value)


@pytest.mark.parametrize("most", [0, 1, 4])
def test_rollouts_are_as_old_as_they_may_be(most: int) -> None:
    """They are collected ahead, never further than allowed, and none is overwritten meanwhile."""
    with closing(threads()) as env:
        learner = learner_of(env.spec)
        stream = stream_of(env, learner, schedule=Async(most))
        ages: list[set[int]] = []
        for number in range(12):
            steps = next(stream)
            before = kept(steps)
            ages.append(set((number - steps.version).unique().tolist()))
            at_rest(env)
            same([before], [kept(steps)])
            moved(learner, 0.01)
            stream.publish()
    assert set().union(*ages) <= set(range(most + 1))
    assert most in set().union(*ages[-2:])


def at_rest(env: ActorRows) -> None:
    """Waits until no actor seems to have anything to do."""
    counts: list[int] = []
    while counts != [actor.steps for actor in env.processes]:
        counts = [actor.steps for actor in env.processes]
        time.sleep(0.01)


def failing(actor: int, at: int) -> Callable[..., Episodes]:
    """A rollout that raises in one actor's thread, the so manieth of it."""
    collect, count = InProcess.collect, [0]

    def collected(self: InProcess, between: Any = None) -> Episodes:
        if threading.current_thread().name == f"shoal-actor-{actor}":
            count[0] += 1
            if count[0] == at:
                raise EnvError("it broke")
        return collect(self, between)

    return collected


@pytest.fixture
def broken(monkeypatch: pytest.MonkeyPatch) -> None:
    """The third rollout of actor 1 raises."""
    monkeypatch.setattr(InProcess, "collect", failing(1, 3))


@pytest.mark.usefixtures("broken")
def test_an_error_in_a_thread_ends_the_run() -> None:
    """With the actor's name, when its part is needed."""
    with closing(threads()) as env:
        stream = stream_of(env, learner_of(env.spec), schedule=Async(1))
        for _ in range(2):
            assert next(stream).valid.all()
            stream.publish()
        with pytest.raises(EnvError, match="it broke") as raised:
            next(stream)
    assert "actor 1 (a thread, rows 2..4)" in raised.value.__notes__[0]


@pytest.mark.usefixtures("broken")
@pytest.mark.parametrize("policy", ["restart", "drop"])
def test_a_run_goes_on_after_an_error_in_a_thread(policy: str) -> None:
    """Other episodes begin in its rows, or they are valid no more."""
    with closing(threads(on_fault=policy)) as env:
        stream = stream_of(env, learner_of(env.spec), schedule=Async(1))
        found: list[Any] = []
        for _ in range(6):
            found.append(kept(next(stream)))
            stream.publish()
    valid = [bool(steps.valid[:, 2:].all()) for steps in found]
    assert valid == ([True] * 6 if policy == "restart" else [True, True, False, False, False, False])
    assert all(steps.valid[:, :2].all() for steps in found)
    assert policy == "drop" or found[2].start[0, 2:].all()


def serial(num_envs: int) -> VecEnv:
    """CartPole in Python."""
    return make("CartPole-v1", num_envs, backend="serial")


def test_rows_in_python_are_refused() -> None:
    """Only one thread at a time runs Python."""
    with closing(ActorRows(serial, 4, ActorSettings(2, inside="threads"))) as env:
        learner = learner_of(env.spec)
        with pytest.raises(ConfigError, match=r"goes through Python.*actors_in=\"processes\""):
            rollouts(env, learner, num_steps=4)


@pytest.mark.slow
def test_a_policy_in_torch_has_processes_take_over() -> None:
    """With auto: what threads began is left, and nothing of it is seen."""
    with closing(ActorRows(cartpoles, 4, ActorSettings(2, inside="auto"))) as env:
        assert isinstance(env.processes[0], ThreadActor)
        stream = stream_of(env, learner_of(env.spec), acting=Acting(5, native=False))
        assert not isinstance(env.processes[0], ThreadActor)
        assert next(stream).valid.all()


def test_weights_lie_in_slots_that_are_filled_again() -> None:
    """Readers of one version share a slot; one that somebody reads is not written to."""
    learner, slots = learner_of(cartpoles(1).spec), Slots()
    first = [slots.pin("all", Weights.of(learner)) for _ in range(2)]
    assert first[0] is first[1]
    before = first[0].weights.flat.copy()
    slots.let_go(first[0])
    moved(learner, 1.0)
    learner.publish()
    second = slots.pin("all", Weights.of(learner))
    assert second is not first[1]
    np.testing.assert_array_equal(first[1].weights.flat, before)
    slots.let_go(first[1])
    moved(learner, 1.0)
    learner.publish()
    assert slots.pin("all", Weights.of(learner)) is first[1]
    assert slots.count("all") == 2
    np.testing.assert_array_equal(first[1].weights.flat, learner.flat.numpy())
