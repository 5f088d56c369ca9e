"""An actor: rows of its own in which it collects rollouts, with the weights that its learner sends."""

from __future__ import annotations

import os
import time
from collections import deque
from typing import TYPE_CHECKING, Any, Protocol, TypeAlias

from shoal.envs import forks
from shoal.envs.told import told_before
from shoal.envs.workers.pipe import unpack
from shoal.stream.actors.messages import WORD, Begun, Op
from shoal.stream.actors.parts import Part, part_of, room_of
from shoal.stream.actors.shard import Shard
from shoal.stream.actors.weights import Pulled, Weights
from shoal.stream.in_process import InProcess, Wanted
from shoal.stream.meter import Meter
from shoal.stream.spans import Recorded, Spans

if TYPE_CHECKING:
    from collections.abc import Callable

    from shoal.envs.vec_env import VecEnv
    from shoal.stream.actors.messages import Beginning, Introduction, Request

SPARE = 1 << 16
"""Bytes of a region beside its large arrays."""
Answer: TypeAlias = "tuple[int, bool, Any]"
"""The number of a task, whether it went well, and what came of it."""


class Carrier(Protocol):
    """What arrays travel in."""

    def write(self, value: object, region: int) -> Any:
        """A value as it is sent; its arrays may lie in a region until the next one does."""
        ...

    def read(self, packed: Any) -> Any:
        """The value that was sent; its arrays are not to be kept."""
        ...

    def read_copy(self, packed: Any) -> Any:
        """The value that was sent."""
        ...

    def count(self) -> None:
        """Shows that something goes on."""
        ...


class Asks(Protocol):
    """Where a learner's requests come from."""

    def poll(self) -> bool:
        """Whether there is one."""
        ...

    def receive(self) -> tuple[int, Any]:
        """The next one: an `Op`, and what it is about."""
        ...

    def send(self, answer: Answer) -> None:
        """What has come of one."""
        ...


def rows_of(said: Introduction) -> VecEnv:
    """The environments that an actor was told to make."""
    make: Callable[[int], VecEnv] = unpack(said.make)
    if not said.number:
        return make(said.num_envs)
    with told_before():  # the first actor has said it
        return make(said.num_envs)


class Requests:
    """What the learner asks, in its order; weights that came meanwhile are there before the next rollout."""

    def __init__(self, pipe: Asks) -> None:
        """Over the actor's pipe."""
        self._pipe = pipe
        self._waiting: deque[tuple[Op, Any]] = deque()

    def next(self) -> tuple[list[Any], Op, Any]:
        """Weights that came, the oldest first; then what is asked, and with what. To close comes before all else."""
        weights: list[Any] = []
        while not self._waiting or self._pipe.poll():
            op, value = self._pipe.receive()
            if op == Op.WEIGHTS:
                weights.append(value)
            elif op == Op.CLOSE:
                return [], Op.CLOSE, value
            else:
                self._waiting.append((Op(op), value))
        return weights, *self._waiting.popleft()


def serve(
    actor: Actor, pipe: Asks, number: int, failed: Callable[[Exception], Any]
) -> None:
    """Answers until it is told to close; `failed` gives what is sent of an exception."""
    pid, requests = os.getpid(), Requests(pipe)
    while True:
        weights, op, (task, value) = requests.next()
        try:
            actor.take(weights)
            answer = (task, True, actor.answer(op, value))
        except Exception as error:
            answer = (task, False, failed(error))
        forks.end_if_forked(pid, f"{WORD} {number}'s {op.name.lower()}")
        pipe.send(answer)
        if op is Op.CLOSE:
            return


class Actor:
    """An actor's rows, and what it does with them."""

    def __init__(
        self, env: VecEnv, make_carrier: Callable[[tuple[int, ...]], Carrier]
    ) -> None:
        """`make_carrier`: makes what arrays travel in, of regions that are so large."""
        self._env, self._make_carrier = env, make_carrier
        self._sources: dict[str, Pulled] = {}
        self._collects: InProcess | None = None
        self._carrier: Carrier | None = None
        self._meter = Meter()
        self._shard: Shard | None = None
        """Its own steps, where they do not travel."""
        self._free_s = self._asked_s = time.perf_counter()
        """Since when nothing was asked, and when something was again."""
        self._waited_s = self._cpu_s = 0.0

    def answer(self, op: Op, value: Any) -> Any:
        """What comes of a request."""
        match op:
            case Op.BEGIN:
                return self.begin(unpack(value))
            case Op.COLLECT:
                return self.collect(value)
            case Op.STATE:
                collects, carrier = self._begun()
                state = collects.state()
                if self._shard is not None:
                    state["shard"] = self._shard.state()
                return carrier.write(state, 0)
            case Op.RESTORE:
                return self.restore(value)
            case Op.SAMPLE | Op.PRIORITIZE:
                return self.serve_shard(op, value)
            case Op.CLOSE:
                return self._env.close()
            case Op.WEIGHTS:  # has no answer, see `take`
                raise ValueError(op)

    def take(self, weights: list[Any]) -> None:
        """Takes versions over, the oldest first: each has those of the roles that were changed."""
        self._asked_s = time.perf_counter()
        if not weights:
            return
        with self._meter.show("publishing"):
            for packed in weights:
                found: dict[str, Weights] = self._begun()[1].read(packed)
                for name, given in found.items():
                    self._sources[name].take(given)

    def begin(self, said: Beginning) -> Begun:
        """Resets the rows, and makes the memory."""
        self._sources = {name: Pulled(p) for name, p in said.policies.items()}
        if said.cast is None:
            (policies,) = self._sources.values()
        else:
            policies = self._sources
        self._meter = meter = Counting()
        meter.spans = Spans() if said.recorded else None
        wanted = Wanted(policies, said.num_steps, said.schedule, said.cast, said.acting)
        self._collects = InProcess(self._env, wanted, self._meter)
        if said.sharding is None:
            part = sum(room_of(slab) for slab in self._collects.slabs) + SPARE
        else:
            self._shard = Shard(self._collects, said.sharding)
            part = self._shard.room + SPARE
        weights = [said.weight_bytes + SPARE] * said.weight_regions
        sizes = (*weights, *[part] * (said.ahead + 1))
        self._carrier = meter.carrier = self._make_carrier(sizes)
        in_turns = self._collects.roles[0].held is not None
        return Begun(self._env.spec, in_turns, sizes)

    def collect(self, asked: Request) -> Any:
        """One rollout, as it travels."""
        collects, carrier = self._begun()
        for role in collects.roles:
            if role.name in asked.epsilon:
                role.explore(asked.epsilon[role.name])
            role.values = asked.values.get(role.name, role.values)
        before = dict(self._meter.seconds)
        begun_s = time.perf_counter()
        self._stop_waiting()
        self._meter.add("waiting", self._waited_s, shown=False)
        self._waited_s = 0.0
        episodes = collects.collect()
        seconds = {name: x - before[name] for name, x in self._meter.seconds.items()}
        if self._shard is None:
            part = part_of(collects, episodes, seconds, self._recorded(begun_s))
        else:
            held, ended = self._shard.insert(collects.slabs), collects.ended_at
            recorded = self._recorded(begun_s)
            part = Part({}, episodes, ended, seconds, recorded, held)
        with self._meter.show("transfer"):  # comes with the next part
            packed = carrier.write(part, asked.region)
        self._free_s = time.perf_counter()
        return packed

    def _stop_waiting(self) -> None:
        """Something was asked."""
        self._waited_s += self._asked_s - self._free_s
        if self._meter.spans is not None:
            self._meter.spans.add("waiting", self._free_s, self._asked_s)

    def _recorded(self, begun_s: float) -> Recorded | None:
        """What was done since the last part; None where nothing is recorded."""
        if self._meter.spans is None:
            return None
        spans, left_out = self._meter.spans.take()
        before_s, self._cpu_s = self._cpu_s, time.process_time()
        spent_s = self._cpu_s - before_s
        return Recorded(spans, left_out, spent_s, begun_s, time.perf_counter())

    def restore(self, packed: Any) -> list[str]:
        """Continues from a state; what could not be continued."""
        collects, carrier = self._begun()
        state = carrier.read_copy(packed)
        if self._shard is not None:
            self._shard.restore(state["shard"])
        return collects.restore(state)

    def serve_shard(self, op: Op, asked: dict[str, Any]) -> Any:
        """Draws from its own steps, or gives some of them priorities."""
        self._stop_waiting()
        carrier = self._begun()[1]
        assert self._shard is not None
        with self._meter.show("transfer"):
            if op is Op.SAMPLE:
                packed = carrier.write(self._shard.sample(asked), asked["region"])
            else:
                packed = carrier.write(self._shard.prioritize(asked), 0)
        self._free_s = time.perf_counter()
        return packed

    def _begun(self) -> tuple[InProcess, Carrier]:
        assert self._collects is not None
        assert self._carrier is not None
        return self._collects, self._carrier


class Counting(Meter):
    """A meter that shows the learner that steps go on."""

    carrier: Carrier | None = None

    def add(self, activity: str, seconds: float, *, shown: bool = True) -> None:
        """As of any meter."""
        super().add(activity, seconds, shown=shown)
        if self.carrier is not None:
            self.carrier.count()
