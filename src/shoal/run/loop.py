"""Loop: batches until a run ends, and between them metrics, evaluation, checkpoints and callbacks."""

from __future__ import annotations

import time
from functools import partial
from math import ceil, prod
from typing import TYPE_CHECKING, Any, Protocol

from shoal.run.callbacks import call, tell_episodes
from shoal.run.guard.guard import Guard
from shoal.run.guard.unwatched import guard_of
from shoal.run.interrupts import CUT_SHORT
from shoal.run.learning import (
    check_learned,
    policies_of,
    steps_taken,
    take_statistics,
)
from shoal.run.parts import states_of
from shoal.run.progress import (
    Progress,
    begin_anew,
    evaluate_where_due,
    go_on,
    own_state,
)
from shoal.run.status import status_of
from shoal.run.together import Reader, agreed, begin_alike, note_exchange, with_parts
from shoal.run.watching import Watching, next_batch, stand_still
from shoal.run.writer import Writer, write_line
from shoal.stream.ending import EndingError
from shoal.types.text import decimal

if TYPE_CHECKING:
    from collections.abc import Generator, Mapping

    from torch import nn

    from shoal.learn.learner import Learner
    from shoal.run.directory import RunDirectory
    from shoal.run.interrupts import Interrupts
    from shoal.run.log import Log
    from shoal.run.run import Run
    from shoal.run.settings import Settings
    from shoal.types import Episodes

SAVE_S = 120.0
"""Seconds after which a checkpoint is written though its count of updates has not come; no bit depends on it."""
LEFT = "the loop was left"
"""The stop reason of a run whose algorithm left the loop by `break`."""


def writer_of(directory: RunDirectory | None, settings: Settings) -> Writer | None:
    """Who saves the checkpoints of a run; None where it keeps nothing."""
    if directory is None:
        return None
    s = settings
    kind = {"env": s.env, "algo": s.algo, "num_envs": str(s.num_envs)}
    kept = Writer if s.leads else Reader
    return kept(
        directory.checkpoints, kind=kind, keep_last=s.keep_last, identity=s.identity
    )


def why_to_stop(run: Run, steps: int, greedy: float) -> str:
    """Why a run ends after `steps` environment steps; empty where it goes on."""
    limit, alone = run.settings.stop_at, not run.settings.confirm_episodes
    if limit is not None and alone and run.mean_return >= limit:
        return f"mean return {decimal(run.mean_return)} reached {limit:g}"
    if limit is not None and greedy >= limit:
        return f"greedy mean return {decimal(greedy)} reached {limit:g}"
    if run.updates < run.settings.data.updates:
        return ""
    over = steps >= run.settings.total_timesteps
    return "total_timesteps" if over else ""


def save_due(run: Run, steps: int, every_updates: int) -> bool:
    """Whether a checkpoint is to follow the update that ended at `steps` environment steps."""
    every_steps = run.settings.checkpoint_every
    if every_steps:
        return steps // every_steps > run.steps_before // every_steps
    return run.updates % every_updates == 0


class Stream(Protocol):
    """What the loop needs of a stream; `steps_per_batch`, where it is not the product of its `shape`, may be more."""

    episodes: Episodes

    @property
    def env_steps(self) -> int:
        """Steps of the environment so far; answers of a language model."""
        ...

    @property
    def version(self) -> int:
        """Of the weights that were published last."""
        ...

    @property
    def shape(self) -> tuple[int, int]:
        """Steps and rows that are collected at a time."""
        ...

    def __next__(self) -> Any:
        """The next batch."""
        ...

    def publish(self) -> int:
        """Makes the weights as they are the next version."""
        ...

    def state(self) -> dict[str, Any]:
        """All that `restore` needs."""
        ...

    def restore(self, state: dict[str, Any]) -> list[str]:
        """Continues; returns what could not be continued."""
        ...


def updates_of(run: Run, stream: Stream) -> int:
    """How many updates the whole run has."""
    each = getattr(stream, "steps_per_batch", prod(stream.shape))
    steps, before = run.settings.total_timesteps, run.settings.data.updates
    return max(1, ceil(steps / each) + before)


def numbers_of(
    run: Run, stream: Stream, learners: Mapping[str, Learner]
) -> dict[str, float]:
    """The numbers of a line but its speed and the time since the run began; means begin anew."""
    record: dict[str, float] = {
        "step": stream.env_steps,
        "update": run.updates,
        "version": stream.version,
    }
    record |= run.metrics.episode_numbers()
    record |= run.metrics.take_means() | run.memory.numbers
    if skipped := steps_taken(learners)[1]:
        record["learner/skipped"] = skipped
    return record | {f"time/{name}": x for name, x in run.meter.seconds.items()}


class Loop:
    """One run of an algorithm over a stream; see `Run.loop`."""

    def __init__(
        self,
        run: Run,
        stream: Stream,
        learners: Mapping[str, Learner],
        parts: dict[str, Any],
        *,
        log: Log | None,
        writer: Writer | None,
        interrupts: Interrupts,
    ) -> None:
        """Made by `Run.loop`; `parts` is what a checkpoint holds besides learners, stream and run."""
        self.run, self.stream, self.learners, self.parts = run, stream, learners, parts
        self._log, self._writer, self._interrupts = log, writer, interrupts
        self.evaluation = run.evaluation
        updates = updates_of(run, stream)
        self._log_every = max(1, updates // 500)
        self._save_every = max(1, updates // 20)
        self.progress = Progress()
        self._watching = Watching(run, self._status)
        self._last_line, self._saved_at = (0, 0.0), 0.0
        self._ranks = run.settings.ranks
        self._late = False
        """Whether the ranks have agreed to save after the next update, be its count what it may."""
        self.guard = guard_of(run, stream, self.learners)
        run.guard = self.guard if isinstance(self.guard, Guard) else None
        self._at_hand: tuple[tuple[int, int], int, Any] | None = None
        self._learned: tuple[int, int] | None = None

    def resume(self) -> None:
        """Continues from the newest checkpoint, if there is one, and starts the clock.

        Raises:
            ConfigError: it belongs to something else, or every one is damaged or gone.
        """
        found = self._writer.load() if self._writer is not None else None
        progress, evaluation = self.progress, self.evaluation
        if found is not None:
            go_on(self, found, self._log)
        elif self.run.directory is not None:
            begin_anew(self.run, self.run.directory, self._log)
        if self._ranks is not None:
            begin_alike(self._ranks, self.learners)
        if evaluation is not None and not progress.next_evaluation:
            progress.next_evaluation = evaluation.every_steps
        self.guard.begin()
        kept = found is not None or self._writer is None
        self.run.meter.halt.at_risk = not kept and self._ranks is None
        self._watching.write()
        self.run.meter.start()
        self._last_line = (self.stream.env_steps, self.run.meter.elapsed())
        self.run.steps_at_begin, self._saved_at = self._last_line[0], time.monotonic()

    def batches(self) -> Generator[Any]:
        """Batches until a stop condition holds; continues from the newest checkpoint before the first."""
        self.resume()
        run, stream = self.run, self.stream
        self._interrupts.catch()
        try:
            self._watching.start()
            while not self._finished():
                run.steps_before = stream.env_steps
                try:
                    batch = next_batch(self)
                except EndingError:
                    self._finished()  # of several learners all are to know why
                    self.progress.saved = -1  # what is under way is saved too
                    break
                except Exception as error:  # the environment's own, whatever it is
                    self.guard.rescue(self._writer, error)
                    raise
                run.metrics.note(stream.episodes)
                tell_episodes(run, stream.episodes, stream.env_steps)
                self._at_hand = steps_taken(self.learners), stream.version, batch
                with run.meter.measure("learning"):
                    yield batch
                self._count()
                with run.meter.show("evaluation"):
                    due = evaluate_where_due(self)
                    due |= run.selection.compare(run, stream, self.learners)
                if due or run.updates % self._log_every == 0:
                    self._write_line()
                if save_due(run, stream.env_steps, self._save_every):
                    self.save(may_be_best=self.guard.calm)
                elif self._is_late():
                    self.save(may_be_best=False)
                if run.recorder is not None:
                    run.recorder.take(run.updates)
            self._end()
        finally:
            self._watching.close()
            self._interrupts.release()
            if self._writer is not None:
                self._writer.close()

    def leave(self) -> list[nn.Module]:
        """Ends a loop that was left by `break` (its batch counts if it was used); saves what came after it."""
        if self._at_hand is not None:
            if self._at_hand[:2] != (steps_taken(self.learners), self.stream.version):
                self._count()
            self.run.stop(LEFT)
            self._end()
        elif self._learned not in (None, steps_taken(self.learners)):
            self.progress.saved = -1
            self._end()
        return policies_of(self.learners, self.run.selection.kept)

    def _count(self) -> None:
        """Counts the batch at hand as an update."""
        run, at_hand, self._at_hand = self.run, self._at_hand, None
        assert at_hand is not None
        run.updates += 1
        if not self.guard.can_go_back:
            where = f"update {run.updates} at step {self.stream.env_steps:,}"
            check_learned(self.learners, at_hand[0], where, self.progress.saved)
        taken = take_statistics(run.metrics, self.learners)
        self.guard.look(taken, self.progress.greedy, at_hand[2])
        note_exchange(run)

    def _end(self) -> None:
        """The last line and the last checkpoint, on the disk; then the status, which says why it ended."""
        self._at_hand, self._learned = None, steps_taken(self.learners)
        if self.run.stop_reason not in CUT_SHORT:
            if unused := self.run.memory.unused:
                self.run.warn(unused)
            changed = self.guard.finish()
            if self.run.selection.finish(self.run, self.learners) or changed:
                self.progress.saved = -1
            if not self.run.metrics.empty:
                self._write_line()
        if self.progress.saved != self.run.updates:
            self.save()
        if self._writer is not None:
            self._writer.wait()
        self._watching.write()

    def save(self, *, may_be_best: bool = True) -> None:
        """Begins to write a checkpoint; when the mean return is the best so far, also as `best`.

        What is saved because time has passed `may_be_best` not, or the clock would decide which one that is.
        """
        is_best = may_be_best and self.progress.take_best(self.run.mean_return)
        self.progress.saved, self._saved_at = self.run.updates, time.monotonic()
        self._late = self.run.meter.halt.at_risk = False
        if self._writer is None:
            return
        with self.run.meter.show("saving"):
            parts = {
                "learner": states_of(self.learners),
                "stream": self.stream.state(),
                "run": own_state(self, self._log),
                "other": states_of(self.parts),
            }
            parts |= self.guard.parts()
            if self._ranks is not None:
                parts = with_parts(self._ranks, self.learners, parts)
            self._writer.save(
                parts,
                updates=self.run.updates,
                best=is_best,
                before=None if self._log is None else self._log.sync,
                after=partial(self._watching.write, self._status()),
            )

    def _finished(self) -> bool:
        stand_still(self)
        if reason := why_to_stop(self.run, self.stream.env_steps, self.progress.greedy):
            self.run.stop(reason)
        if self._ranks is not None:
            late = time.monotonic() - self._saved_at > SAVE_S
            self._late = agreed(self.run, self._ranks, late=late)
        return bool(self.run.stop_reason)

    def _is_late(self) -> bool:
        """Whether so much time has passed without a checkpoint that one is to follow this update."""
        if self._ranks is not None:
            return self._late
        return time.monotonic() - self._saved_at > SAVE_S

    def _write_line(self) -> None:
        run, stream = self.run, self.stream
        elapsed = run.meter.elapsed()
        steps_before, elapsed_before = self._last_line
        seconds = max(elapsed - elapsed_before, 1e-9)
        record = numbers_of(run, stream, self.learners)
        record["speed/sps"] = (stream.env_steps - steps_before) / seconds
        record["time/elapsed"] = self.progress.elapsed_before + elapsed
        record |= self.guard.numbers()
        self._last_line = (stream.env_steps, elapsed)
        if self._log is not None:
            write_line(self._log, record)
        for callback in run.callbacks:
            call(callback, run, record)

    def _status(self) -> dict[str, Any]:
        return status_of(self.run, self.stream.env_steps, self.progress)
