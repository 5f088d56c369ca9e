"""An actor: rows of its own in which it collects rollouts, with the weights that its learner sends."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any, Protocol

from shoal.envs.told import told_before
from shoal.envs.workers.pipe import unpack
from shoal.stream.actors.messages import STATE_REGION, STATE_REGIONS, Begun, Op
from shoal.stream.actors.parts import Part, part_of, room_of
from shoal.stream.actors.shard import Shard
from shoal.stream.actors.trees import weights_tree
from shoal.stream.actors.weights import Pulled, Weights
from shoal.stream.in_process import InProcess, Wanted
from shoal.stream.meter import Meter
from shoal.stream.spans import Recorded, Spans

if TYPE_CHECKING:
    from collections.abc import Callable

    from shoal.envs.vec_env import VecEnv
    from shoal.stream.actors.messages import Beginning, Introduction, Request
    from shoal.stream.under_way import Between

SPARE = 1 << 16
"""Bytes of a region beside its large arrays."""
STATE_SPARE = 16 << 20
"""The same of a region for states; memory that is not written is not taken."""
KEEP_SHARE = 0.02
"""What keeping states may take of an actor's time."""
KEEP_S = 1.0
"""In the middle of a rollout a state is kept once in so many seconds; a native call that is shorter is waited for."""


class Carrier(Protocol):
    """What arrays travel in."""

    slabs_in_turn: bool
    """Whether a rollout travels as the slabs that it is in, so that the next one needs others."""

    def write(self, value: object, region: int) -> Any:
        """A value as it is sent; its arrays may lie in a region until the next one does."""
        ...

    def read(self, packed: Any) -> Any:
        """The value that was sent; its arrays are not to be kept."""
        ...

    def let_go(self, packed: Any) -> None:
        """What was read is needed no more."""
        ...

    def read_copy(self, packed: Any) -> Any:
        """The value that was sent."""
        ...

    def keep(self, value: object) -> object:
        """Puts a value where the learner finds it whatever the actor does, in the place of the one before."""
        ...

    def count(self) -> None:
        """Shows that something goes on."""
        ...


def rows_of(said: Introduction) -> VecEnv:
    """The environments that an actor was told to make."""
    make: Callable[[int], VecEnv] = unpack(said.make)
    if not said.number:
        return make(said.num_envs)
    with told_before():  # the first actor has said it
        return make(said.num_envs)


class Actor:
    """An actor's rows, and what it does with them."""

    def __init__(
        self,
        env: VecEnv,
        make_carrier: Callable[[tuple[int, ...]], Carrier],
        cpu_s: Callable[[], float] = time.process_time,
    ) -> None:
        """Its own.

        Args:
            env: its rows.
            make_carrier: makes what arrays travel in, of regions that are so large.
            cpu_s: the processor's seconds that it has spent.
        """
        self._env, self._make_carrier, self._clock = env, make_carrier, cpu_s
        self._sources: dict[str, Pulled] = {}
        self._collects: InProcess | None = None
        self._carrier: Carrier | None = None
        self._meter = Meter()
        self._shard: Shard | None = None
        """Its own steps, where they do not travel."""
        self._free_s = self._asked_s = time.perf_counter()
        """Since when nothing was asked, and when something was again."""
        self._waited_s = self._cpu_s = 0.0
        self._collected = 0
        """Rollouts since it began."""
        self._keeping = Keeping()

    def answer(self, op: Op, value: Any) -> Any:
        """What comes of a request."""
        match op:
            case Op.BEGIN:
                return self.begin(unpack(value))
            case Op.STATE:
                return self._begun()[1].write(self.state(), STATE_REGION)
            case Op.RESTORE:
                return self.restore(value)
            case Op.SAMPLE | Op.PRIORITIZE:
                return self.serve_shard(op, value)
            case Op.CLOSE:
                return self._env.close()
            case Op.WEIGHTS | Op.COLLECT | Op.KEPT | Op.PAUSE | Op.GO_ON:
                # See `take`, `collect`, `keep`, and `Serving`.
                raise ValueError(op)

    def take(self, weights: list[Any]) -> None:
        """Takes versions over, the oldest first: each has those of the roles that were changed."""
        self._asked_s = time.perf_counter()
        if not weights:
            return
        with self._meter.show("publishing"):
            for packed in weights:
                carrier = self._begun()[1]
                found: dict[str, Weights] = carrier.read(packed)
                for name, given in found.items():
                    self._sources[name].take(given)
                carrier.let_go(packed)

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
        room = sum(room_of(slab) for slab in self._collects.slabs)
        can_save = self._env.capabilities.can_save
        self._keeping.wanted = can_save and said.sharding is None
        if said.sharding is None:
            part = room + SPARE
        else:
            self._shard = Shard(self._collects, said.sharding)
            part = self._shard.room + SPARE
        weights = [said.weight_bytes + SPARE] * said.weight_regions
        whole = room + said.weight_bytes + STATE_SPARE
        sizes = (*weights, *[part] * (said.ahead + 1), *[whole] * STATE_REGIONS)
        self._carrier = meter.carrier = self._make_carrier(sizes)
        if self._carrier.slabs_in_turn:
            self._collects.add_slabs(said.ahead)
        in_turns = self._collects.roles[0].held is not None
        return Begun(self._env.spec, in_turns, sizes, native=self._collects.native)

    def collect(self, asked: Request, between: Between) -> Any:
        """One rollout, as it travels; what is wanted `between` two of its steps is done there."""
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
        self._keeping.begin()
        episodes = collects.collect(between)
        self._keeping.end(native=collects.native)
        seconds = {name: x - before[name] for name, x in self._meter.seconds.items()}
        if self._shard is None:
            part = part_of(collects, episodes, seconds, self._recorded(begun_s))
        else:
            held, ended = self._shard.insert(collects.slabs), collects.ended_at
            recorded = self._recorded(begun_s)
            part = Part({}, episodes, ended, seconds, recorded, held)
        with self._meter.show("transfer"):  # comes with the next part
            packed = carrier.write(part, asked.region)
        self._collected += 1
        self._free_s = time.perf_counter()
        return packed

    def state(self) -> dict[str, Any]:
        """All that `restore` needs; of a rollout that is under way the weights that act in it too."""
        collects, _ = self._begun()
        state = collects.state()
        if collects.under_way:
            acting = {role.name: Weights.acting(role) for role in collects.roles}
            state["weights"] = weights_tree(acting)
        if self._shard is not None:
            state["shard"] = self._shard.state()
        return state

    def keeping_due(self, now_s: float) -> bool:
        """Whether a state is to be kept, in case the next step does not end."""
        return self._keeping.due(now_s)

    def keep(self) -> None:
        """Keeps one where the learner finds it."""
        before_s = time.thread_time()
        kept = {"collected": self._collected, "state": self.state()}
        self._begun()[1].keep(kept)
        self._keeping.done(time.thread_time() - before_s)

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
        before_s, self._cpu_s = self._cpu_s, self._clock()
        spent_s = self._cpu_s - before_s
        return Recorded(spans, left_out, spent_s, begun_s, time.perf_counter())

    def restore(self, packed: Any) -> list[str]:
        """Continues from a state; what could not be continued."""
        collects, carrier = self._begun()
        state = carrier.read_copy(packed)
        for name, saved in state.get("weights", {}).items():
            self._sources[name].take(Weights(**saved))
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


class Keeping:
    """When an actor keeps its state: as a rollout begins, then again and again, as long as it costs little."""

    wanted = False

    def __init__(self) -> None:
        """None was kept."""
        self._begun_s = self._kept_s = self._cost_s = 0.0
        self._fresh = False
        """Whether none was kept in this rollout."""
        self._short = False
        """Whether a rollout is one native call, which is over soon."""

    def begin(self) -> None:
        """A rollout begins."""
        self._fresh, self._begun_s = True, time.perf_counter()

    def end(self, *, native: bool) -> None:
        """It is over."""
        self._short = native and time.perf_counter() - self._begun_s < KEEP_S

    def due(self, now_s: float) -> bool:
        """Whether a state is to be kept now."""
        if not self.wanted or self._short:
            return False
        least_s = 0.0 if self._fresh else KEEP_S
        return now_s - self._kept_s >= max(self._cost_s / KEEP_SHARE, least_s)

    def done(self, cost_s: float) -> None:
        """One was kept, which took so long."""
        self._kept_s, self._fresh = time.perf_counter(), False
        self._cost_s = cost_s


class Counting(Meter):
    """A meter that shows the learner that steps go on."""

    carrier: Carrier | None = None

    def add(self, activity: str, seconds: float, *, shown: bool = True) -> None:
        """As of any meter."""
        super().add(activity, seconds, shown=shown)
        if self.carrier is not None:
            self.carrier.count()
