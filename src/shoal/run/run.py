"""Run: what an algorithm asks for a learner, a stream and the loop; everything around it happens there."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import ExitStack
from functools import partial
from typing import TYPE_CHECKING, Any, TypeAlias, TypeVar

import torch

from shoal.learn.acting import Acting
from shoal.learn.learner import Learner
from shoal.learn.ranks import made_in_turn
from shoal.memory.insertion import Insertion
from shoal.run.beginning import begin
from shoal.run.callbacks import checked, close_callbacks, tell
from shoal.run.explored import explored_of
from shoal.run.groups import groups_of
from shoal.run.interrupts import Interrupts, check_reason
from shoal.run.loop import Loop, writer_of
from shoal.run.members import SEED_STEP, learners_of
from shoal.run.metrics import Metrics, check_logged
from shoal.run.parts import check_parts
from shoal.run.selection import Selection
from shoal.run.streams import data_stream_of, replay_of, rollouts_of
from shoal.run.timeline import finish_timeline, recorder_of
from shoal.run.usage import Usage
from shoal.run.watching import interrupt
from shoal.stream.meter import Meter
from shoal.types import ConfigError
from shoal.types.text import shortened

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from torch import nn

    from shoal.envs.vec_env import VecEnv
    from shoal.llm.tasks.source import TaskSource, TaskSpec
    from shoal.memory.settings import Replay
    from shoal.run.callbacks import Callback
    from shoal.run.directory import RunDirectory
    from shoal.run.evaluate import Eval
    from shoal.run.guard.guard import Guard
    from shoal.run.guard.seen import Rule
    from shoal.run.log import Log
    from shoal.run.loop import Stream
    from shoal.run.ranking import Ranking
    from shoal.run.settings import Settings
    from shoal.run.writer import Writer
    from shoal.stream.data import DataStream
    from shoal.stream.explorers import ExploredReplay, HasExplorers
    from shoal.stream.groups.groups import Groups
    from shoal.stream.groups.settings import DrawsGroups
    from shoal.stream.groups.shared import SharedGroups
    from shoal.stream.members import MemberRollouts
    from shoal.stream.replay import DrawsBatches, ReplayStream
    from shoal.stream.rollouts import Rollouts
    from shoal.stream.self_play import PastVersions
    from shoal.types import Spec


ConfigT = TypeVar("ConfigT")
Learners: TypeAlias = dict[str, Learner]
"""Who learns, by name."""
REASON = 1000
"""Characters that are kept of why a run was stopped."""
OneOrMore: TypeAlias = Learner | Learners
SECOND_LOOP = "this run has its loop already: a run goes through one loop; go on in it, or begin another run"


class Run:
    """One training run: an algorithm asks it for learners and a stream, and iterates `loop`; the rest is around."""

    def __init__(
        self,
        settings: Settings,
        *,
        directory: RunDirectory | None = None,
        log: Log | None = None,
        policy: Callable[..., nn.Module] | None = None,
        callbacks: Sequence[Callback] = (),
        evaluation: Eval | None = None,
        ranking: Ranking | None = None,
        rules: Sequence[Rule] = (),
    ) -> None:
        """A run that has not begun.

        Args:
            settings: how long it goes, how rows act.
            directory: where it is kept; with checkpoints in it, `loop` resumes from the newest. None keeps nothing.
            log: where lines of metrics go.
            policy: makes the policy for a specification; `seed=` draws other weights than the first agent's.
            callbacks: called at every line of metrics and at every episode's end.
            evaluation: greedy episodes beside training.
            ranking: greedy episodes by which the agents of a population are compared.
            rules: a user's own, for the guard.
        """
        self.settings, self.directory = settings, directory
        self.guard: Guard | None = None
        """Who watches the updates of the loop; None where nobody does, and before the loop."""
        self.callbacks, self.evaluation = checked(callbacks), evaluation
        self.selection = Selection(settings, ranking)
        self.metrics = Metrics(settings.window, settings.whose_rows)
        self.meter, self.rng = Meter(self.metrics.add), settings.generator()
        self.recorder = recorder_of(self.meter, settings.timeline)
        self.updates, self.stop_reason, self.interrupted_by = 0, "", ""
        self.memory = Insertion()
        """Where steps from outside enter the replay memory."""
        self.steps_before = self.steps_at_begin = 0
        """Environment steps before the batch at hand, and before the first one of this process."""
        self.usage = Usage(directory)
        self._log, self._policy, self.rules = log, policy, rules
        self._writer = writer_of(directory, settings)
        self._interrupts = Interrupts(partial(_interrupted, self))
        self._loop: Loop | None = None
        self.held = _held_by(self, log, self._writer)
        """What ends with the run, the last first."""

    @property
    def seed(self) -> int:
        """Equal settings and seeds give equal weights."""
        return self.settings.seed

    @property
    def acting(self) -> Acting:
        """How policies act in this run."""
        return self.settings.acting

    @property
    def progress(self) -> float:
        """The share of `total_timesteps` (of updates, where there are no steps) before the batch at hand: below 1."""
        steps = self.settings.total_timesteps
        if not steps:
            return min(self.updates / self.settings.data.updates, 1 - 1e-9)
        return self.steps_before / steps

    @property
    def mean_return(self) -> float:
        """Mean return of the last max(100, num_envs) episodes; -inf before there are that many."""
        return self.metrics.mean_return

    def policy(self, spec: Spec | TaskSpec, *, member: int = 0) -> nn.Module:
        """The policy to be trained: the user's own, or the algorithm's; of several agents that of number `member`."""
        if self._policy is None:
            raise ConfigError("this run was not given a policy")
        seed = {"seed": self.seed + member * SEED_STEP} if member else {}
        return made_in_turn(self.settings.ranks, partial(self._policy, spec, **seed))

    def members(self, cfg: ConfigT) -> dict[str, ConfigT]:
        """The settings of each agent of the run by its name, as `population.vary` says; one alone is `policy`."""
        return self.selection.members(cfg)

    def learner(
        self,
        policy: nn.Module,
        optimizer: Callable[..., torch.optim.Optimizer],
        *,
        max_grad_norm: float = float("inf"),
        **settings: Any,
    ) -> Learner:
        """Who owns a policy's weights; see `Learner`."""
        return Learner(
            policy,
            optimizer,
            hardware=self.settings.hardware,
            max_grad_norm=max_grad_norm,
            before_step=self.meter.halt.check_in_update,
            **settings,
        )

    def rollouts(
        self, env: VecEnv, learner: OneOrMore, *, num_steps: int, latest: bool = False
    ) -> Rollouts | PastVersions | MemberRollouts:
        """Rollouts [num_steps, B] as schedule and opponents have them, agent after agent; `latest`: as of `Steps`."""
        return rollouts_of(self, env, learner, num_steps, latest=latest)

    def replay(
        self,
        env: VecEnv,
        learner: Learner | Mapping[str, Learner],
        cfg: DrawsBatches | Mapping[str, DrawsBatches],
        settings: Replay,
    ) -> ReplayStream:
        """Transitions, drawn as `cfg` says from a memory that `env` fills; of several agents dicts by name."""
        return replay_of(self, env, learner, cfg, settings)

    def explored(
        self, env: VecEnv, learners: Learners, cfg: HasExplorers
    ) -> ExploredReplay:
        """As `replay` for the first of two learners; the second one explores, and gets its own rollouts in between."""
        return explored_of(self, env, learners, cfg)

    def groups(
        self, task: TaskSource, learner: Learner, cfg: DrawsGroups
    ) -> Groups | SharedGroups:
        """Groups of answers to a task's prompts, scored, by a learner whose policy is a language model."""
        return groups_of(self, task, learner, cfg)

    def data(self, env: VecEnv, learner: Learner, *, batch_size: int) -> DataStream:
        """Batches of the run's data set alone, for an algorithm that takes no step."""
        return data_stream_of(self, env, learner, batch_size)

    def log(self, numbers: Mapping[str, float | torch.Tensor]) -> None:
        """Adds numbers (or tensors, which are not read before the line is written) to the line under way.

        ConfigError: a name that the run's own numbers have, or a value that is no single number.
        """
        for name, value in numbers.items():
            check_logged(name, value)
            self.metrics.add(name, value)

    def stop(self, reason: str) -> None:
        """Ends the run after the batch at hand, with a checkpoint; run.json keeps the reason (ValueError: none)."""
        check_reason(reason)
        self.stop_reason = self.stop_reason or shortened(reason, REASON)

    def warn(self, message: str) -> None:
        """Tells the user something, by every callback that takes warnings."""
        tell(self, message, how="warn")

    def loop(
        self,
        stream: Stream,
        learner: Learner | Mapping[str, Learner],
        *,
        state: Mapping[str, Any] | None = None,
    ) -> Iterator[Any]:
        """Yields batches until the run ends; resumes when the first one is asked for.

        Whatever sets the learner up is over by then, so it may be called anywhere before: no bit depends on it.

        Args:
            stream: where batches come from.
            learner: who learns, or several of them by name.
            state: what a checkpoint holds besides: parts with `state()` and `restore(saved)`, or torch's
                `state_dict()` and `load_state_dict(saved)`, by name.

        Raises:
            ConfigError: a second loop, a `state` that cannot be saved, checkpoints of something else or damaged.
            FloatingPointError: no update of a batch was finite; nothing of it is saved.
            OSError: the disk is full, or worse; older checkpoints are whole.
        """
        if self._loop is not None and self.updates:
            raise ConfigError(SECOND_LOOP)
        check_parts(state or {})
        self._loop = Loop(
            self,
            stream,
            learners_of(self.settings, learner),
            dict(state or {}),
            log=self._log,
            writer=self._writer,
            interrupts=self._interrupts,
        )
        return begin(self, stream.shape, self._loop.batches())

    def leave(self) -> list[nn.Module]:
        """Saves what a loop left by `break` has learned; returns the policies, first the one that checkpoints load.

        Raises:
            FloatingPointError: no update of its last batch was finite.
            OSError: the disk is full, or worse.
        """
        return [] if self._loop is None else self._loop.leave()

    def close(self) -> None:
        """Ends callbacks, checkpoints and log, and gives Ctrl-C back; calling it again does nothing."""
        self._interrupts.release()
        self.held.close()


def _held_by(run: Run, log: Log | None, writer: Writer | None) -> ExitStack:
    """What every run ends: its timeline and callbacks, then checkpoints, then the log."""
    held = ExitStack()
    for part in (log, writer):
        if part is not None:
            held.callback(part.close)
    held.callback(run.memory.close)
    held.callback(close_callbacks, run)
    held.callback(finish_timeline, run)
    return held


def _interrupted(run: Run, name: str) -> None:
    """What the first signal does."""
    interrupt(run, name)
    run.warn(f"{name}: writing a checkpoint, then ending; once more ends now")
