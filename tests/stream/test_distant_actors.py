"""Actors over a connection: what they collect equals one process's rollouts; nothing is pickled on the way."""

from __future__ import annotations

import socket
import threading
import time
from contextlib import closing
from typing import TYPE_CHECKING, Any

import pytest
import torch

from shoal.remote.frames import Frames
from shoal.stream.actors.host import ActorHost
from shoal.stream.actors.messages import Introduction
from shoal.stream.actors.rows import ActorRows, ActorSettings
from shoal.stream.meter import Meter
from shoal.stream.schedules import Async
from shoal.stream.spans import KINDS, Spans
from shoal.types import ConfigError, EnvError
from tests.stream.test_actors import broken, cartpoles, collected, learner_of, moved, stream_of, unfinished
from tests.stream.test_rollouts import kept, same

if TYPE_CHECKING:
    from collections.abc import Callable

    from shoal.stream.actors.messages import Begun, Rows


class Placed:
    """An actor in a thread of this process, behind a socket."""

    def __init__(self, make: bytes, number: int, num_envs: int) -> None:
        self._listening = socket.create_server(("127.0.0.1", 0))
        self.host = ActorHost(Introduction(make, number, num_envs), self._listening)
        self.where = "in a thread"
        self.frames: Frames | None = None

    def rows(self, timeout_s: float) -> Rows:
        """As of the host."""
        return self.host.rows(timeout_s)

    def begin(self, said: bytes, timeout_s: float) -> Begun:
        """As of the host."""
        return self.host.begin(said, timeout_s)

    def connect(self, timeout_s: float) -> Frames:
        """The only connection."""
        self.host.accept(None)
        self.frames = Frames(socket.create_connection(self._listening.getsockname(), timeout_s))
        return self.frames

    def end(self) -> None:
        """The environments are closed."""
        self.host.close()
        assert self.host.ended.wait(5)


def placed_rows(make: Callable[[int], Any], num_envs: int, actors: int = 2, **settings: Any) -> ActorRows:
    """Rows of actors behind sockets."""
    return ActorRows(make, num_envs, ActorSettings(actors, **settings), place=Placed)


@pytest.mark.parametrize("recurrent", ["none", "gru"])
def test_what_two_actors_collect_equals_one_process(recurrent: str) -> None:
    """Rollouts, and again from a state that went over the connection."""
    with closing(cartpoles(5)) as env:
        mine, _, _ = collected(env, 4, recurrent)
    with closing(placed_rows(cartpoles, 5)) as env:
        theirs, _, saved = collected(env, 4, recurrent)
    same(mine, theirs)
    with closing(placed_rows(cartpoles, 5)) as env:
        again, _, _ = collected(env, 4, recurrent, saved)
    for one, other in zip(again, theirs[2:], strict=True):
        assert torch.equal(one.obs, other.obs)
        assert torch.equal(one.next_value, other.next_value)


def test_what_they_did_comes_on_the_learner_s_clock() -> None:
    """Theirs is this process's here, so what is estimated must be off by no more than it says."""
    meter = Meter()
    meter.spans = Spans()
    begun = time.perf_counter()
    with closing(placed_rows(cartpoles, 4)) as env:
        stream = stream_of(env, learner_of(env.spec), meter=meter)
        for _ in range(3):
            next(stream)
            stream.publish()
    heard = meter.spans.take_heard()
    assert [(one.number, one.pid) for one in heard] == 3 * [(0, 0), (1, 0)]
    for one in heard[2:]:  # the first ones know little yet
        spans = one.recorded.spans
        assert {"acting", "waiting"} <= {KINDS[int(kind)] for kind in spans[:, 0]}
        assert begun - one.clock_error_s <= spans[:, 1].min()
        assert spans[:, 2].max() <= time.perf_counter() + one.clock_error_s
        assert 0 <= one.clock_error_s < 1


def ahead(state: Any = None) -> tuple[list[Any], Any]:
    """Four rollouts of actors that are one ahead, learned from when all wait; and the state before the last two."""
    found: list[Any] = []
    saved: Any = None
    with closing(placed_rows(cartpoles, 4)) as env:
        learner = learner_of(env.spec)
        stream = stream_of(env, learner, schedule=Async(1))
        if state is not None:
            for _ in range(2):
                moved(learner, 0.01)
                learner.publish()
            assert not stream.restore(state)
        for number in range(0 if state is None else 2, 4):
            found.append(kept(next(stream)))
            time.sleep(0.15)
            moved(learner, 0.01)
            stream.publish()
            if number == 1:
                saved = stream.state()
    return found, saved


def test_actors_are_a_rollout_ahead() -> None:
    """Each rollout but the first is of the version before."""
    found, _ = ahead()
    assert [steps.version.unique().tolist() for steps in found] == [[0], [0], [1], [2]]


def test_what_is_under_way_is_saved() -> None:
    """A state has what was collected ahead, and goes on with it."""
    found, saved = ahead()
    again, _ = ahead(saved)
    same(found[2:], again)


def test_a_connection_that_is_cut_is_named() -> None:
    """`raise` says who; with `restart` another actor takes the rows over."""
    env = placed_rows(cartpoles, 4)
    with closing(env):
        stream = stream_of(env, learner_of(env.spec))
        next(stream)
        stream.publish()
        cut(env, 0)
        with pytest.raises(EnvError, match=r"actor 0 \(in a thread, rows 0..1\), collecting, is gone"):
            next(stream)


def test_another_takes_its_place(caplog: pytest.LogCaptureFixture) -> None:
    """With the weights of now."""
    env = placed_rows(cartpoles, 4, on_fault="restart")
    with closing(env):
        learner = learner_of(env.spec)
        stream = stream_of(env, learner)
        next(stream)
        moved(learner, 0.1)
        stream.publish()
        cut(env, 0)
        steps = next(stream)
        assert steps.version.unique().tolist() == [1]
        assert steps.start[0].tolist()[:2] == [True, True]
        assert "restart 1 of 3" in caplog.text


def cut(env: ActorRows, number: int) -> None:
    """Closes the learner's end of a connection as a network would."""
    process: Any = env.processes[number]
    process._placed.frames._socket.shutdown(socket.SHUT_RDWR)


def test_errors_arrive_in_words() -> None:
    """Of an environment, with the actor in a note; and of making it."""
    with closing(placed_rows(broken, 2, actors=1)) as env:
        stream = stream_of(env, learner_of(env.spec))
        with pytest.raises(EnvError) as raised:
            next(stream)
    assert any("in actor 0 (in a thread" in note for note in raised.value.__notes__)
    with pytest.raises(ConfigError, match="there is no such world"):
        placed_rows(unfinished, 2, actors=1)


class Slow:
    """Environments whose steps take longer than the time-out."""

    def __init__(self, num_envs: int) -> None:
        self._rows = cartpoles(num_envs, "serial")
        self.release = threading.Event()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._rows, name)

    def recv(self) -> Any:
        """Waits, but for the first time."""
        if self._rows.python_rows is not None and getattr(self, "begun", False):
            time.sleep(1.6)
        self.begun = True
        return self._rows.recv()


@pytest.mark.slow
def test_one_that_stands_still_is_found() -> None:
    """It says that it lives, and makes no step."""
    with closing(placed_rows(Slow, 2, actors=1, timeout_s=0.5)) as env:
        stream = stream_of(env, learner_of(env.spec))
        with pytest.raises(EnvError, match=r"made no step for 0\.5 s"):
            next(stream)
