"""The stream `replay`: transitions drawn from a memory of past experience, for off-policy algorithms."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

from shoal.memory.reader import Mixing, Prioritized, Reader
from shoal.memory.replay import ReplayMemory
from shoal.memory.replay_block import NO_STATE
from shoal.memory.sequences import SequenceReader
from shoal.memory.shard_reader import ShardReader
from shoal.memory.states import state_layout
from shoal.stream.actors.sharded import ShardedActors
from shoal.stream.ended import Ended
from shoal.stream.shards import NothingLeftError, ShardedMemory, ShardedReader
from shoal.types import ConfigError, Episodes, Transitions

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from numpy.typing import ArrayLike

    from shoal.learn.curiosity import Bonuses
    from shoal.memory.hindsight import Hindsight
    from shoal.memory.settings import Replay
    from shoal.memory.slab import Slab
    from shoal.stream.data import DataDraws
    from shoal.stream.rollouts import Rollouts
    from shoal.types import Sequences


class DrawsBatches(Protocol):
    """Settings of an algorithm: how its rows step and what it draws."""

    @property
    def num_steps(self) -> int:
        """Steps of every row between two times of learning."""
        ...

    @property
    def batch_size(self) -> int:
        """Transitions of a batch."""
        ...

    @property
    def n_step(self) -> int:
        """Rewards of a transition, at most."""
        ...

    @property
    def gamma(self) -> float:
        """Their discount."""
        ...


@runtime_checkable
class DrawsSequences(DrawsBatches, Protocol):
    """Settings of an algorithm that draws sequences, `batch_size` of them."""

    @property
    def burn_in(self) -> int:
        """Steps of a sequence that only warm the network's state up."""
        ...

    @property
    def sequence_length(self) -> int:
        """Steps behind them, which are learned from."""
        ...


@dataclass(slots=True)
class Drawer:
    """What one agent draws from, and how much of it is due."""

    name: str
    role: int
    """Of the rollouts: which of their roles acts for it."""
    batch_size: int
    """Transitions of a batch; of sequences the steps that are learned from."""
    memory: ReplayMemory | ShardedMemory
    parts: Mapping[int, int]
    """The roles whose steps count as its own, and where in the memory the rows of each begin."""
    reader: Reader | SequenceReader | ShardedReader
    starts: int
    """Steps of its own for which it draws nothing."""
    least: int
    """Steps of its own of which one can be drawn: two of each row."""
    inserted: int = 0
    credit: float = 0.0
    """Transitions that may be drawn before rows must step again."""

    @property
    def due(self) -> bool:
        """Whether a batch may be drawn."""
        return self.credit >= self.batch_size and self.inserted >= self.least

    def insert(self, slabs: Sequence[Slab], samples_per_insert: float) -> None:
        """Moves its steps of a rollout into the memory, and counts what may be drawn for them; `slabs`: one a role."""
        before = self.inserted
        for role, first_row in self.parts.items():
            self.inserted += self.memory.insert(slabs[role], first_row=first_row)
        counted = max(0, self.inserted - self.starts) - max(0, before - self.starts)
        self.credit += counted * samples_per_insert

    def state(self) -> dict[str, Any]:
        """What `restore` needs, but for the memory."""
        return {
            "reader": self.reader.state(),
            "credit": self.credit,
            "inserted": self.inserted,
        }

    def restore(self, saved: dict[str, Any]) -> None:
        """Continues from `saved`, when the memory was restored."""
        self.reader.restore(saved["reader"])
        self.credit, self.inserted = float(saved["credit"]), int(saved["inserted"])


class ReplayStream:
    """Batches from a replay memory, which short rollouts fill in between.

    For every step that is inserted after `learning_starts`, `samples_per_insert` transitions are drawn, whatever the
    schedule: batches come until as many were, then the rows act and step `num_steps` times. Steps count as
    `env_steps` when what they allow is drawn, so that a run ends with all of its updates.

    Several agents draw in turn, each as much as its own steps allow: `agent` is who the batch at hand is for.
    """

    def __init__(
        self,
        rollouts: Rollouts,
        settings: Replay,
        *,
        agents: Mapping[str, DrawsBatches],
        rows: Mapping[str, slice],
        total_timesteps: int,
        mixing: Mapping[str, tuple[float, ...]] | None = None,
        file: Path | None = None,
        data: DataDraws | None = None,
    ) -> None:
        """A memory for the rows of `rollouts`, which nobody else may pull; in `file`, where one is given.

        Args:
            rollouts: one role for each agent, in their order; with one agent there may be others, which act for it.
            settings: of the memory.
            agents: what each draws, by name.
            rows: those of each role.
            total_timesteps: of the run.
            mixing: what share of each one's batches is of whose steps, in their order; none: all steps are as likely.
            file: where one memory of all lies.
            data: what an agent that is alone draws besides, or before the first step.

        Raises:
            ConfigError: a setting that cannot work, with one that would.
        """
        if data is None or not data.updates:
            _check_learns(settings, total_timesteps)
        self.settings, self.agent = settings, next(iter(agents))
        self.memory = _memory_of(rollouts, settings.buffer_size, file)
        given = (rollouts, settings, agents, rows, mixing or {}, data)
        self._drawers = _drawers_of(self.memory, *given)
        self.env_steps = self.version = 0
        self.episodes, self.ended = Episodes.none(), Ended()
        self._rollouts, self.data = rollouts, data
        self.hindsight: Hindsight | None = None
        self.bonuses: Bonuses | None = None
        """What changes the goals of batches, and what is added to their rewards for what was not seen often."""
        self._total = max(total_timesteps, 1)
        self._turn: int | None = None
        """Who the batch at hand is for; None before the first one."""
        self._left_over = file is not None
        """What the file holds is of a run that came to no checkpoint."""

    @property
    def shape(self) -> tuple[int, int]:
        """Steps and rows that are collected at a time."""
        return self._rollouts.shape

    @property
    def steps_per_batch(self) -> float:
        """Environment steps for each batch, of all agents together."""
        mean = sum(own.batch_size for own in self._drawers) / len(self._drawers)
        return mean / self.settings.samples_per_insert

    def __iter__(self) -> ReplayStream:
        """Itself."""
        return self

    def __next__(self) -> Transitions | Sequences:
        """The next batch, after as many steps as it needs; its arrays are those of every batch of that agent."""
        while True:
            while not self.due:
                self.ended.add(self.advance())
                if not self.due:
                    self.publish()
            try:
                batch = self.draw()
            except NothingLeftError:
                self.publish()
                self.ended.add(self.advance())
            else:
                self.episodes = self.ended.take(tuple(self.episodes.info))
                return batch

    @property
    def due(self) -> bool:
        """Whether a batch is to be drawn before the rows step again."""
        alone = self.data is not None and self.data.alone
        return alone or next_due(self._drawers, self._turn) is not None

    def advance(self) -> Episodes:
        """Has the rows step, and keeps what they did; returns the episodes that ended."""
        self._forget()
        self._rollouts.collect()
        for own in self._drawers:
            own.insert(self._rollouts.slabs, self.settings.samples_per_insert)
        return self._rollouts.episodes

    def draw(self) -> Transitions | Sequences:
        """The batch that is due."""
        self._forget()
        own = next_due(self._drawers, self._turn)
        if own is None:
            return self._batch(self._drawers[0].reader)
        self.agent, self._turn = own.name, own.role
        own.credit -= own.batch_size
        if next_due(self._drawers, self._turn) is None:
            self.env_steps = self._rollouts.env_steps
        try:
            return self._batch(own.reader)
        except NothingLeftError:
            own.credit += own.batch_size
            raise

    def explore(self, epsilon: ArrayLike, agent: str | None = None) -> None:
        """How often each row takes any action instead of the best, from its next step on: a number, or [rows].

        Those of `agent`, or of the one at hand; before the first batch those of all.
        """
        for own in self._drawers:
            if agent == own.name or (not agent and self._turn in (None, own.role)):
                self._rollouts.roles[own.role].explore(epsilon)

    def prioritize(self, batch: Transitions | Sequences) -> None:
        """Gives the batch's transitions priorities by its errors; nothing where they are drawn uniformly."""
        reader = self._drawers[self._turn or 0].reader
        if not self.settings.alpha:
            return
        if self.data is not None and isinstance(reader, Reader):
            assert isinstance(batch, Transitions)
            self.data.prioritize(reader, batch)
        else:
            reader.prioritize(batch.key, batch.error)

    def follow(self, agent: str, cfg: DrawsBatches) -> None:
        """Goes on with another horizon of an agent; ConfigError where the memory has no room, and nothing changes."""
        own = next(drawer for drawer in self._drawers if drawer.name == agent)
        own.reader.set_horizon(n_step=cfg.n_step, gamma=cfg.gamma)

    def publish(self) -> int:
        """Makes the weights as they are the next version that acts, and returns its number."""
        self.version = self._rollouts.publish()
        return self.version

    def state(self) -> dict[str, Any]:
        """All that `restore` needs, taken after a publish."""
        more = {"data": self.data, "hindsight": self.hindsight, "bonuses": self.bonuses}
        given = {name: part.state() for name, part in more.items() if part is not None}
        return given | {
            "rollouts": self._rollouts.state(),
            "memory": self.memory.state(),
            "agents": {own.name: own.state() for own in self._drawers},
            "turn": -1 if self._turn is None else self._turn,
            "env_steps": self.env_steps,
            "ended": self.ended.state(),
        }

    def restore(self, state: dict[str, Any]) -> list[str]:
        """Continues from `state`; returns a sentence for each episode that could not be continued."""
        if self.data is not None:
            self.data.restore(state.get("data", {}))
        lost = self._rollouts.restore(state["rollouts"])
        self._left_over = False
        self.memory.restore(state["memory"])
        lost += overwritten(self.memory)
        if self.hindsight is not None:
            self.hindsight.restore(state["hindsight"])
        if self.bonuses is not None:
            self.bonuses.restore(state["bonuses"])
        for own in self._drawers:
            own.restore(state["agents"][own.name])
        self._turn = None if state["turn"] < 0 else int(state["turn"])
        self.env_steps, self.version = int(state["env_steps"]), self._rollouts.version
        self.ended.restore(state.get("ended", []))
        return lost

    def _forget(self) -> None:
        """Clears what the file holds of a run that came to no checkpoint."""
        if self._left_over:
            self.memory.clear()
            self._left_over = False

    def _batch(
        self, reader: Reader | SequenceReader | ShardedReader
    ) -> Transitions | Sequences:
        """A batch of the memory's, with what else there is."""
        beta = beta_at(self.settings, self.env_steps / self._total)
        if isinstance(reader, SequenceReader):
            return reader.sample(beta=beta)
        if self.data is not None and isinstance(reader, ShardReader):
            own, batch = self.data.draw(reader, beta), self.data.batch
        else:
            own = batch = reader.sample(beta=beta)
        if self.hindsight is not None:
            self.hindsight.relabel(own)
        if self.bonuses is not None:
            self.bonuses.on_batch(self.agent, batch)
        return batch


def next_due(drawers: Sequence[Drawer], turn: int | None) -> Drawer | None:
    """The one who draws next, after the one whose turn it is; None where rows must step."""
    count = len(drawers)
    last = -1 if turn is None else turn
    for ahead in range(1, count + 1):
        own = drawers[(last + ahead) % count]
        if own.due:
            return own
    return None


def overwritten(memory: ReplayMemory | ShardedMemory) -> list[str]:
    """What is said where a restored memory's file lost records after its checkpoint."""
    gone = 0 if memory.gone is None else int(memory.gone.sum())
    if not gone:
        return []
    return [
        f"{gone:,} of the {len(memory):,} records of {memory.file} were overwritten after the checkpoint; "
        "the run goes on without them"
    ]


def _memory_of(
    rollouts: Rollouts, capacity: int, file: Path | None
) -> ReplayMemory | ShardedMemory:
    """A memory for what rollouts record, the recurrent state before each step included where they do."""
    if isinstance(rollouts.collects, ShardedActors):
        return ShardedMemory(rollouts.collects)
    env, state = rollouts.env, NO_STATE
    if rollouts.acting.states:
        state = state_layout(rollouts.roles[0].source.policy)
    return ReplayMemory(
        env.spec, env.num_rows, capacity=capacity, file=file, state=state
    )


def _drawers_of(
    memory: ReplayMemory | ShardedMemory,
    rollouts: Rollouts,
    settings: Replay,
    agents: Mapping[str, DrawsBatches],
    rows: Mapping[str, slice],
    mixing: Mapping[str, tuple[float, ...]],
    data: DataDraws | None,
) -> list[Drawer]:
    """Who draws: each agent, in their order."""
    blocks = tuple(own.stop for own in rows.values())
    parts = {role: own.start for role, own in enumerate(rows.values())}
    drawers: list[Drawer] = []
    for role, (name, cfg) in enumerate(agents.items()):
        seed = rollouts.acting.seed + role
        if isinstance(memory, ShardedMemory):
            reader = ShardedReader(memory, name, seed)
        else:
            shares = mixing.get(name, ())
            mixed = Mixing(blocks if shares else (), shares, settings.recency)
            reader = _reader(memory, cfg, settings, seed, data, mixed, rows[name])
        alone = len(agents) == 1
        own = parts if alone else {role: parts[role]}
        starts = settings.learning_starts // len(agents)
        count = memory.num_rows if alone else rows[name].stop - rows[name].start
        size = _learned_steps(cfg)
        drawers.append(
            Drawer(name, role, size, memory, own, reader, starts, least=2 * count)
        )
    return drawers


def _learned_steps(cfg: DrawsBatches) -> int:
    """Steps of a batch that are learned from."""
    if isinstance(cfg, DrawsSequences):
        return cfg.batch_size * cfg.sequence_length
    return cfg.batch_size


def beta_at(settings: Replay, over: float) -> float | None:
    """The exponent of the weights when this share of the run is over; None without priorities."""
    if not settings.alpha:
        return None
    return settings.beta + (1 - settings.beta) * min(1.0, over)


def _check_learns(settings: Replay, total_timesteps: int) -> None:
    """Refuses a run that ends before it learns."""
    if total_timesteps <= settings.learning_starts:
        raise ConfigError(
            f"nothing would be learned: total_timesteps={total_timesteps:,} are over before "
            f"learning_starts={settings.learning_starts:,}"
        )


def _reader(
    memory: ReplayMemory,
    cfg: DrawsBatches,
    settings: Replay,
    seed: int,
    data: DataDraws | None,
    mixing: Mixing,
    rows: slice,
) -> Reader | SequenceReader:
    """Who draws for an agent, with its own horizon; sequences from its own `rows` alone."""
    if isinstance(cfg, DrawsSequences):
        return SequenceReader(
            memory,
            batch_size=cfg.batch_size,
            length=cfg.burn_in + cfg.sequence_length + 1,
            gamma=cfg.gamma,
            seed=seed,
            rows=rows,
            prioritized=Prioritized(settings.alpha) if settings.alpha else None,
            stride=max(1, cfg.sequence_length // 2),
        )
    kind = Reader if data is None else ShardReader  # which draws parts of batches
    return kind(
        memory,
        batch_size=cfg.batch_size,
        n_step=cfg.n_step,
        gamma=cfg.gamma,
        seed=seed,
        prioritized=Prioritized(settings.alpha) if settings.alpha else None,
        mixing=mixing,
        into=None if data is None else data.batch,
    )
