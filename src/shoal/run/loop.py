"""Run: everything around an algorithm and nothing inside it."""

from __future__ import annotations

import math
import os
import signal
import threading
from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
import torch

from shoal.learn.acting import Acting
from shoal.run.directory import versions
from shoal.run.evaluate import EVALUATION_STREAM, Eval, evaluate
from shoal.run.writer import DISK_FULL, Writer
from shoal.stream.meter import Meter
from shoal.types import ConfigError

if TYPE_CHECKING:
    from collections.abc import Iterator
    from types import FrameType

    from shoal.run.directory import RunDirectory
    from shoal.run.log import Log
    from shoal.types import Episodes

INTERRUPTED = "interrupted"
"""The stop reason of a run that Ctrl-C ended."""


class Stream(Protocol):
    """What the loop needs of a stream."""

    env_steps: int
    version: int
    episodes: Episodes

    def __next__(self) -> Any:
        """The next batch."""
        ...

    def state(self) -> dict[str, Any]:
        """All that `restore` needs."""
        ...

    def restore(self, state: dict[str, Any], policy: Any) -> list[str]:
        """Continues; returns what could not be continued."""
        ...


class Panel(Protocol):
    """What shows a run while it lasts."""

    def update(self, record: dict[str, Any], run: Run) -> None:
        """A line of metrics was written."""
        ...

    def warn(self, message: str) -> None:
        """Something to be told at once."""
        ...

    def finish(self, result: Any) -> None:
        """The run ended with `result`."""
        ...

    def close(self) -> None:
        """Nothing more comes."""
        ...


@dataclass(frozen=True, slots=True)
class Settings:
    """How long a run goes and what it keeps; none of it is part of the algorithm."""

    env: str
    algo: str
    seed: int
    num_envs: int
    total_timesteps: int
    steps_per_update: int
    stop_at: float | None = None
    """Stop when the mean return of the last max(100, num_envs) episodes reaches this."""
    keep_last: int = 3
    device: str = "cpu"
    num_threads: int = 1
    native: bool = True
    agents: tuple[str, ...] = ()
    """The names of an environment's agents, in the order of its rows, where there are several."""

    @property
    def window(self) -> int:
        """Episodes in the mean that decides."""
        return max(100, self.num_envs)

    @property
    def total_updates(self) -> int:
        """Rollouts until total_timesteps."""
        return max(1, -(-self.total_timesteps // self.steps_per_update))

    @property
    def log_every(self) -> int:
        """Updates a line of metrics: about 500 lines a run."""
        return max(1, self.total_updates // 500)

    @property
    def checkpoint_every(self) -> int:
        """Updates a checkpoint: about 20 a run."""
        return max(1, self.total_updates // 20)


class Run:
    """One training run: its random generator, meter, log and checkpoints.

    An algorithm asks it for `rng` and `acting`, iterates `loop`, and calls `log`; the rest happens around it.
    """

    def __init__(
        self,
        directory: RunDirectory,
        settings: Settings,
        log: Log,
        panel: Panel,
        *,
        evaluation: Eval | None = None,
    ) -> None:
        """`directory` may hold checkpoints: then `loop` resumes from the newest."""
        self.directory, self.settings, self.panel, self.evaluation = (
            directory,
            settings,
            panel,
            evaluation,
        )
        self.meter = Meter()
        self.rng = np.random.Generator(
            np.random.PCG64(np.random.SeedSequence([settings.seed, 1]))
        )
        self.updates = 0
        self.stop_reason = ""
        self._log = log
        self._writer = Writer(
            directory.checkpoints, kind=self._kind(), keep_last=settings.keep_last
        )
        self._returns: deque[float] = deque(maxlen=settings.window)
        self._lengths: deque[float] = deque(maxlen=settings.window)
        self._episodes = 0
        self._best = self._greedy = -np.inf
        self._next_evaluation = 0
        self._pending: dict[str, Any] = {}
        self._counts: dict[str, int] = {}
        self._elapsed_before = 0.0
        self._last_line = (0, 0.0)
        self._interrupts = 0
        self._handler: Any = None
        self._saved = -1

    def acting(self, act_block: int) -> Acting:
        """How the policy acts in this run."""
        s = self.settings
        device = torch.device(s.device)
        return Acting(
            s.seed,
            device=device,
            native=s.native,
            num_threads=s.num_threads,
            act_block=act_block,
        )

    @property
    def mean_return(self) -> float:
        """Mean return of the last max(100, num_envs) episodes; -inf before there are that many."""
        full = len(self._returns) == self.settings.window
        return float(np.mean(self._returns)) if full else -float("inf")

    def log(self, stats: dict[str, Any]) -> None:
        """Adds numbers (or tensors, which are not read until the line is written) to the line under way."""
        for name, value in stats.items():
            self._pending[name] = self._pending.get(name, 0.0) + (
                value.detach() if isinstance(value, torch.Tensor) else value
            )
            self._counts[name] = self._counts.get(name, 0) + 1

    def loop(
        self, stream: Stream, *, state: dict[str, Any], evaluate: Eval | None = None
    ) -> Iterator[Any]:
        """Yields batches until a stop condition holds; resumes first, at once.

        Args:
            stream: where batches come from.
            state: what a checkpoint holds besides the stream: modules and optimizers; "policy" is required.
            evaluate: evaluation beside training, which changes no bit of it; the run's own unless given.

        Raises:
            ConfigError: the checkpoint belongs to something else, or every one is damaged.
            FloatingPointError: an update's loss is not finite; nothing of it is saved.
            OSError: the disk is full, or worse; older checkpoints are whole.
        """
        self._resume(stream, state)
        self.directory.write_status(self.status("running", stream))
        self.meter.start()
        self._last_line = (stream.env_steps, self.meter.elapsed())
        return self._iterate(stream, state, evaluate or self.evaluation)

    def _iterate(
        self, stream: Stream, state: dict[str, Any], evaluation: Eval | None
    ) -> Iterator[Any]:
        if evaluation is not None and not self._next_evaluation:
            self._next_evaluation = evaluation.every_steps
        self._catch_interrupts()
        try:
            while not self._finished(stream):
                batch = next(stream)
                self._note(stream.episodes)
                with self.meter.measure("learning"):
                    yield batch
                self.updates += 1
                self._check_losses(stream)
                due = (
                    evaluation is not None and stream.env_steps >= self._next_evaluation
                )
                if evaluation is not None and due:
                    self._evaluate(evaluation, stream, state["policy"])
                if due or self.updates % self.settings.log_every == 0:
                    self._write_line(stream)
                if self.updates % self.settings.checkpoint_every == 0:
                    self.save(stream, state)
            if self._counts and not self._interrupts:
                self._write_line(stream)
            if self._saved != self.updates:
                self.save(stream, state)
            self._writer.wait()
        finally:
            self._release_interrupts()

    def save(self, stream: Stream, state: dict[str, Any]) -> None:
        """Begins to write a checkpoint; when the mean return is the best so far, also as `best`."""
        mean = self.mean_return
        is_best, self._best = mean > self._best, max(mean, self._best)
        parts = {
            "state": {name: _state_of(part) for name, part in state.items()},
            "stream": stream.state(),
            "run": self._own_state(),
        }
        status = self.status("running", stream)
        self._writer.save(
            parts,
            updates=self.updates,
            best=is_best,
            before=self._log.sync,
            after=partial(self.directory.write_status, status),
        )
        self._saved = self.updates

    def status(self, state: str, stream: Stream) -> dict[str, Any]:
        """What `run.json` says."""
        s = self.settings
        return {
            "state": state,
            "env": s.env,
            "algo": s.algo,
            "seed": s.seed,
            "steps": stream.env_steps,
            "updates": self.updates,
            "episodes": self._episodes,
            "return": float(np.mean(self._returns)) if self._returns else None,
            "seconds": self._elapsed_before + self.meter.elapsed(),
            "stop_reason": self.stop_reason,
            "pid": os.getpid(),
            "versions": versions(),
        }

    def close(self) -> None:
        """Ends panel, checkpoints and log, and gives Ctrl-C back; calling it again does nothing."""
        self._release_interrupts()
        self.panel.close()
        try:
            self._writer.close()
        finally:
            self._log.close()

    def _kind(self) -> dict[str, str]:
        s = self.settings
        return {"env": s.env, "algo": s.algo, "num_envs": str(s.num_envs)}

    def _resume(self, stream: Stream, state: dict[str, Any]) -> None:
        found = self._writer.load()
        if found is None:
            self._log.rewind(0)
            return
        for name, part in state.items():
            if name not in found.tree["state"]:
                raise ConfigError(
                    f"the checkpoint of update {found.updates} holds no {name!r}"
                )
            _restore_into(part, found.tree["state"][name])
        lost = stream.restore(found.tree["stream"], state["policy"])
        own = found.tree["run"]
        self.updates = found.updates
        self.rng.bit_generator.state = own["rng"]
        self._returns.extend(own["returns"])
        self._lengths.extend(own["lengths"])
        self._episodes, self._best, self._greedy = (
            own["episodes"],
            own["best"],
            own.get("greedy", -np.inf),
        )
        self._next_evaluation = own["next_evaluation"]
        self._pending, self._counts = own["pending"], own["counts"]
        self._elapsed_before = own["elapsed"]
        if own["log_position"] > self._log.position():
            lost.append(
                f"{self.directory.metrics} has lost lines that were written before update {found.updates}"
            )
        self._log.rewind(min(own["log_position"], self._log.position()))
        self._saved = found.updates
        for message in [*found.warnings, *lost]:
            self.panel.warn(message)

    def _own_state(self) -> dict[str, Any]:
        return {
            "rng": self.rng.bit_generator.state,
            "returns": list(self._returns),
            "lengths": list(self._lengths),
            "episodes": self._episodes,
            "best": self._best,
            "greedy": self._greedy,
            "next_evaluation": self._next_evaluation,
            "pending": {name: float(value) for name, value in self._pending.items()},
            "counts": dict(self._counts),
            "elapsed": self._elapsed_before + self.meter.elapsed(),
            "log_position": self._log.position(),
        }

    def _finished(self, stream: Stream) -> bool:
        s = self.settings
        if self._interrupts:
            self.stop_reason = INTERRUPTED
        elif s.stop_at is not None and self.mean_return >= s.stop_at:
            self.stop_reason = (
                f"mean return {self.mean_return:.1f} reached {s.stop_at:g}"
            )
        elif s.stop_at is not None and self._greedy >= s.stop_at:
            self.stop_reason = (
                f"greedy mean return {self._greedy:.1f} reached {s.stop_at:g}"
            )
        elif stream.env_steps >= s.total_timesteps:
            self.stop_reason = "total_timesteps"
        return bool(self.stop_reason)

    def _note(self, episodes: Episodes) -> None:
        self._returns.extend(episodes.returns.tolist())
        self._lengths.extend(episodes.lengths.tolist())
        for key, values in episodes.info.items():
            for value in values.tolist():
                self.log({f"info/{key}": value})
        if agents := self.settings.agents:
            for row, value in zip(
                episodes.rows.tolist(), episodes.returns.tolist(), strict=True
            ):
                self.log({f"episode/return/{agents[row % len(agents)]}": value})
        self._episodes += len(episodes.returns)

    def _write_line(self, stream: Stream) -> None:
        elapsed = self.meter.elapsed()
        steps_before, elapsed_before = self._last_line
        record: dict[str, Any] = {
            "step": stream.env_steps,
            "update": self.updates,
            "version": stream.version,
        }
        record["episode/count"] = self._episodes
        if self._returns:
            record["episode/return"] = float(np.mean(self._returns))
            record["episode/return_std"] = float(np.std(self._returns))
            record["episode/length"] = float(np.mean(self._lengths))
        record |= {
            name: float(value) / self._counts[name]
            for name, value in self._pending.items()
        }
        record["speed/sps"] = (stream.env_steps - steps_before) / max(
            elapsed - elapsed_before, 1e-9
        )
        record["time/elapsed"] = self._elapsed_before + elapsed
        record |= {
            f"time/{name}": seconds for name, seconds in self.meter.seconds.items()
        }
        self._pending, self._counts = {}, {}
        self._last_line = (stream.env_steps, elapsed)
        try:
            self._log.write(record)
        except OSError as error:
            raise OSError(
                error.errno, f"{error.strerror or error}; {DISK_FULL}"
            ) from error
        self.panel.update(record, self)

    def _evaluate(self, evaluation: Eval, stream: Stream, policy: Any) -> None:
        while self._next_evaluation <= stream.env_steps:
            self._next_evaluation += evaluation.every_steps
        s = self.settings
        acting = Acting(
            s.seed, EVALUATION_STREAM, torch.device(s.device), native=s.native
        )
        score = evaluate(
            policy, evaluation.env, episodes=evaluation.episodes, acting=acting
        )
        self._greedy = score.mean
        self.log({"eval/return": score.mean, "eval/std": score.std})

    def _check_losses(self, stream: Stream) -> None:
        losses = {
            name: value
            for name, value in self._pending.items()
            if name.startswith("loss/")
        }
        if math.isfinite(float(sum(losses.values()))):
            return
        bad = {
            name: float(value)
            for name, value in losses.items()
            if not math.isfinite(float(value))
        }
        if bad:
            said = ", ".join(f"{name} is {value}" for name, value in bad.items())
            kept = (
                f"the checkpoint of update {self._saved} is kept"
                if self._saved > 0
                else "no checkpoint was written yet"
            )
            raise FloatingPointError(
                f"update {self.updates} at step {stream.env_steps:,}: {said}; {kept}; "
                "try a smaller learning_rate, or smaller rewards and observations (reward_scale, network.normalise_obs)"
            )

    def _catch_interrupts(self) -> None:
        if threading.current_thread() is not threading.main_thread():
            return

        def interrupt(signum: int, frame: FrameType | None) -> None:
            self._interrupts += 1
            if self._interrupts > 1:
                raise KeyboardInterrupt
            self.panel.warn(
                "Ctrl-C: writing a checkpoint, then ending; once more ends now"
            )

        self._handler = signal.signal(signal.SIGINT, interrupt)

    def _release_interrupts(self) -> None:
        if self._handler is not None:
            signal.signal(signal.SIGINT, self._handler)
            self._handler = None


def _state_of(part: Any) -> Any:
    if isinstance(part, Mapping):
        return {name: _state_of(one) for name, one in part.items()}
    return part.state_dict() if hasattr(part, "state_dict") else part.state()


def _restore_into(part: Any, saved: Any) -> None:
    if isinstance(part, Mapping):
        for name, one in part.items():
            _restore_into(one, saved[name])
    elif isinstance(part, torch.nn.Module):
        load_weights(part, saved)
    elif hasattr(part, "load_state_dict"):
        try:
            part.load_state_dict(saved)
        except ValueError as error:
            raise ConfigError(
                f"the checkpoint holds another optimizer: {error}"
            ) from error
    else:
        part.restore(saved)


def load_weights(policy: torch.nn.Module, saved: dict[str, Any]) -> None:
    """Copies saved weights into a policy; ConfigError when they are another network's."""
    try:
        policy.load_state_dict(saved)
    except RuntimeError as error:
        wrong = " ".join(str(error).split(":", 1)[-1].split())
        raise ConfigError(
            f"the checkpoint holds another network: {wrong[:300]}; "
            "a run that was given a policy object needs it again (policy=...)"
        ) from error
