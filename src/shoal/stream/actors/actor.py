"""An actor: a process that collects rollouts in rows of its own, with the weights that its learner sends."""

from __future__ import annotations

import os
import sys
import time
from collections import deque
from dataclasses import dataclass, field
from enum import IntEnum
from typing import TYPE_CHECKING, Any

import torch

from shoal.envs import forks
from shoal.envs.told import told_before
from shoal.envs.workers.failures import failure_of
from shoal.envs.workers.pipe import pack, unpack
from shoal.envs.workers.worker import STRAY, Pipe
from shoal.memory.arena import Arena, Packed, nbytes
from shoal.stream.actors.parts import part_of, room_of
from shoal.stream.actors.weights import Pulled, Weights
from shoal.stream.in_process import InProcess, Wanted
from shoal.stream.meter import Meter

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray
    from torch import nn

    from shoal.envs.vec_env import Capabilities, VecEnv
    from shoal.learn.acting import Acting
    from shoal.stream.schedules import Schedule
    from shoal.types import Spec

WORD = "actor"
SPARE = 1 << 16
"""Bytes of a region beside its large arrays."""


class Op(IntEnum):
    """What a learner asks for; all but WEIGHTS have an answer."""

    BEGIN = 1
    WEIGHTS = 2
    COLLECT = 3
    STATE = 4
    RESTORE = 5
    CLOSE = 6


@dataclass(frozen=True, slots=True)
class Introduction:
    """What a new process is told."""

    make: bytes
    """Packed: makes the rows of so many environments."""
    number: int
    num_envs: int


@dataclass(frozen=True, slots=True)
class Rows:
    """What it answers: its rows."""

    spec: Spec
    num_rows: int
    capabilities: Capabilities


@dataclass(frozen=True, slots=True)
class Beginning:
    """How it is to collect."""

    policies: dict[str, nn.Module]
    """By role."""
    cast: dict[str, list[int]] | None
    """Of its own rows, counted from 0; None: one role plays all."""
    num_steps: int
    schedule: Schedule
    acting: Acting
    ahead: int
    """Rollouts that may be collected before the one that is learned from."""
    weight_bytes: int
    """Of all policies."""

    @property
    def weight_regions(self) -> int:
        """Versions that may be on their way or read; the arena's first regions are theirs."""
        return self.ahead + 2


@dataclass(frozen=True, slots=True)
class Begun:
    """What it answers."""

    spec: Spec
    """As the first reset showed it."""
    in_turns: bool
    sizes: tuple[int, ...]
    """Of the arena's regions."""


@dataclass(frozen=True, slots=True)
class Request:
    """One rollout."""

    region: int
    """Where it is to lie."""
    epsilon: dict[str, NDArray[Any]] = field(default_factory=dict)
    """Of roles that explore from now on."""
    values: dict[str, bool] = field(default_factory=dict)
    """Whether `next_value` is wanted, by role."""


def main(given: dict[str, Any]) -> None:
    """The whole life of an actor, started by `supervisor.main` with its file descriptors."""
    pipe = Pipe(given["pipe"])
    said: Introduction = pipe.receive()
    forks.tell.append(lambda told: pipe.send(pack((STRAY, False, told))))
    torch.set_num_threads(1)
    try:
        env = _rows_of(said)
    except Exception as error:
        pipe.send(pack((0, False, failure_of(error, said.number, WORD))))
        return
    pipe.send(pack((0, True, Rows(env.spec, env.num_rows, env.capabilities))))
    _serve(ActorRows(env, given["block"]), pipe, said.number)
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(0)


def _rows_of(said: Introduction) -> VecEnv:
    make: Callable[[int], VecEnv] = unpack(said.make)
    if not said.number:
        return make(said.num_envs)
    with told_before():  # the first actor has said it
        return make(said.num_envs)


class Requests:
    """What the learner asks, in its order; weights that came meanwhile are there before the next rollout."""

    def __init__(self, pipe: Pipe) -> None:
        """Over the actor's pipe."""
        self._pipe = pipe
        self._waiting: deque[tuple[Op, Any]] = deque()

    def next(self) -> tuple[list[Packed], Op, Any]:
        """Weights that came, the oldest first; then what is asked, and with what. To close comes before all else."""
        weights: list[Packed] = []
        while not self._waiting or self._pipe.poll():
            op, value = self._pipe.receive()
            if op == Op.WEIGHTS:
                weights.append(value)
            elif op == Op.CLOSE:
                return [], Op.CLOSE, value
            else:
                self._waiting.append((Op(op), value))
        return weights, *self._waiting.popleft()


def _serve(rows: ActorRows, pipe: Pipe, number: int) -> None:
    """Answers until it is told to close."""
    pid, requests = os.getpid(), Requests(pipe)
    while True:
        weights, op, (task, value) = requests.next()
        try:
            rows.take(weights)
            answer = (task, True, rows.answer(op, value))
        except Exception as error:
            answer = (task, False, failure_of(error, number, WORD))
        forks.end_if_forked(pid, f"{WORD} {number}'s {op.name.lower()}")
        pipe.send(pack(answer))
        if op is Op.CLOSE:
            return


class ActorRows:
    """An actor's rows, and what it does with them."""

    def __init__(self, env: VecEnv, block: int) -> None:
        """`block`: the descriptor of the arena's memory."""
        self._env, self._block = env, block
        self._sources: dict[str, Pulled] = {}
        self._collects: InProcess | None = None
        self._arena: Arena | None = None
        self._meter = Meter()
        self._free_s = time.perf_counter()
        """Since when nothing was asked."""

    def answer(self, op: Op, value: Any) -> Any:
        """What comes of a request."""
        match op:
            case Op.BEGIN:
                return self.begin(unpack(value))
            case Op.COLLECT:
                return self.collect(value)
            case Op.STATE:
                assert self._collects is not None
                assert self._arena is not None
                return self._arena.write(self._collects.state(), 0)
            case Op.RESTORE:
                return self.restore(value)
            case Op.CLOSE:
                return self._env.close()
            case Op.WEIGHTS:  # has no answer, see `take`
                raise ValueError(op)

    def take(self, weights: list[Packed]) -> None:
        """Takes versions over, the oldest first: each has those of the roles that were changed."""
        for packed in weights:
            assert self._arena is not None
            found: dict[str, Weights] = self._arena.read(packed)
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
        wanted = Wanted(policies, said.num_steps, said.schedule, said.cast, said.acting)
        self._collects = InProcess(self._env, wanted, self._meter)
        part = sum(room_of(slab) for slab in self._collects.slabs) + SPARE
        weights = [said.weight_bytes + SPARE] * said.weight_regions
        sizes = (*weights, *[part] * (said.ahead + 1))
        os.ftruncate(self._block, nbytes(sizes))
        self._arena = Arena(self._block, sizes)
        meter.arena = self._arena
        in_turns = self._collects.roles[0].held is not None
        return Begun(self._env.spec, in_turns, sizes)

    def collect(self, asked: Request) -> Packed:
        """One rollout."""
        collects, arena = self._collects, self._arena
        assert collects is not None
        assert arena is not None
        for role in collects.roles:
            if role.name in asked.epsilon:
                role.explore(asked.epsilon[role.name])
            role.values = asked.values.get(role.name, role.values)
        before = dict(self._meter.seconds)
        waited_s = time.perf_counter() - self._free_s
        episodes = collects.collect()
        seconds = {name: x - before[name] for name, x in self._meter.seconds.items()}
        seconds["waiting"] = waited_s
        packed = arena.write(part_of(collects, episodes, seconds), asked.region)
        self._free_s = time.perf_counter()
        return packed

    def restore(self, packed: Packed) -> list[str]:
        """Continues from a state."""
        assert self._collects is not None
        assert self._arena is not None
        return self._collects.restore(self._arena.read_copy(packed))


class Counting(Meter):
    """A meter that shows the learner that steps go on."""

    arena: Arena | None = None

    def add(self, activity: str, seconds: float) -> None:
        """Adds `seconds` to `activity`."""
        super().add(activity, seconds)
        if self.arena is not None:
            self.arena.count()
