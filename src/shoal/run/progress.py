"""Progress: how far a run has come besides its weights, and how it goes on from a checkpoint or begins."""

from __future__ import annotations

from dataclasses import dataclass
from math import inf
from typing import TYPE_CHECKING, Any

from shoal.run.checkpoint import BROKEN
from shoal.run.directory import versions
from shoal.run.evaluate import play_beside
from shoal.run.learning import policies_of
from shoal.run.parts import restore_into
from shoal.run.reading import sentence
from shoal.run.records import read_metrics
from shoal.run.together import part_of
from shoal.types import ConfigError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from shoal.run.checkpoint import Checkpoint
    from shoal.run.directory import RunDirectory
    from shoal.run.evaluate import Eval
    from shoal.run.log import Log
    from shoal.run.loop import Loop
    from shoal.run.run import Run


@dataclass(slots=True)
class Progress:
    """What a loop counts besides its updates."""

    best: float = -inf
    """The best mean return at a checkpoint."""
    greedy: float = -inf
    """The mean return of the last evaluation beside training."""
    next_evaluation: int = 0
    """The step at which the next one is due."""
    next_confirmation: int = 0
    """How many episodes must have ended before the mean return is confirmed again."""
    elapsed_before: float = 0.0
    """Seconds of training before the run was resumed."""
    saved: int = -1
    """The update of the last checkpoint."""
    masked: bool = False
    """Whether a batch has had action masks beside its observations."""

    def note(self, batch: object) -> None:
        """What one batch tells of all."""
        if not self.masked and getattr(batch, "action_mask", None) is not None:
            obs = getattr(batch, "obs", None)
            self.masked = not (isinstance(obs, dict) and "action_mask" in obs)

    def take_best(self, mean: float) -> bool:
        """Whether a mean return is the best so far."""
        is_best, self.best = mean > self.best, max(mean, self.best)
        return is_best

    def state(self, elapsed: float) -> dict[str, Any]:
        """All that `restore` needs, `elapsed` seconds after the run was begun or resumed."""
        return {
            "best": self.best,
            "greedy": self.greedy,
            "next_evaluation": self.next_evaluation,
            "next_confirmation": self.next_confirmation,
            "masked": self.masked,
            "elapsed": self.elapsed_before + elapsed,
        }

    def restore(self, state: Mapping[str, Any], updates: int) -> None:
        """Continues from the checkpoint of `updates`."""
        self.best, self.greedy = float(state["best"]), float(state["greedy"])
        self.next_evaluation = int(state["next_evaluation"])
        self.next_confirmation = int(state.get("next_confirmation", 0))
        self.masked = bool(state.get("masked", False))
        self.elapsed_before, self.saved = float(state["elapsed"]), updates


def go_on(loop: Loop, found: Checkpoint, log: Log | None) -> None:
    """Continues from a checkpoint; the metrics are cut when all else is restored.

    Raises:
        ConfigError: it does not fit what the run is made of.
    """
    run, updates, tree = loop.run, found.updates, found.tree
    try:
        restore_into(loop.learners, tree["learner"], updates)
        of_rank = part_of(run.settings.ranks, tree)
        lost = loop.stream.restore(of_rank["stream"])
        own = tree["run"]
        run.rng.bit_generator.state = of_rank["rng"]
        run.metrics.restore(own["metrics"])
        loop.progress.restore(own, updates)
        loop.guard.restore(tree)
        if "selection" in own:
            run.selection.restore(own["selection"], loop.stream)
        position, sha256 = int(own["log_position"]), own.get("log_sha256")
        ends = frozenset(own.get("log_ends", ()))
        other = of_rank["other"]
    except ConfigError:
        raise
    except BROKEN as error:
        raise ConfigError(
            f"the checkpoint of update {updates} does not fit this run ({type(error).__name__}: {sentence(error)}); "
            f"move {updates:010d}.json away to go on from the one before"
        ) from error
    restore_into(loop.parts, other, updates)
    run.updates = updates
    if log is not None:
        lost += log.cut(position, sha256, updates, ends=ends)
    messages = [*found.warnings, *lost, *_other_versions(found)]
    if run.directory is not None and not found.warnings:
        messages += _lost_checkpoint(run.directory, updates)
    for message in messages:
        run.warn(message)


def evaluate_where_due(loop: Loop) -> bool:
    """Plays greedy episodes beside training where they are due; whether they were.

    Where they fail, that is said, and training goes on without any.
    """
    evaluation = loop.evaluation
    if evaluation is None:
        return False
    episodes = max(_periodic_episodes(loop, evaluation), _confirming_episodes(loop))
    if not episodes:
        return False
    policy, *_ = policies_of(loop.learners, loop.run.selection.kept)
    try:
        loop.progress.greedy = play_beside(loop.run, evaluation, policy, episodes)
    except Exception as error:  # whatever it is: what is learned is whole
        loop.evaluation = None
        loop.run.warn(_no_more(loop, error))
        return False
    return True


def _no_more(loop: Loop, error: Exception) -> str:
    """What is said where episodes beside training failed."""
    s = loop.run.settings
    ends = ""
    if s.confirm_episodes and s.stop_at is not None:
        ends = ", and nothing confirms that stop_at is reached"
    notes = [note.removeprefix("shoal: ") for note in getattr(error, "__notes__", ())]
    why = "; ".join([f"{type(error).__name__}: {error}", *notes])
    return (
        f"step {loop.stream.env_steps:,}: greedy episodes beside training failed ({why}); "
        f"training goes on without them{ends}. `shoal resume` begins them again"
    )


def _periodic_episodes(loop: Loop, evaluation: Eval) -> int:
    """Greedy episodes that are due every so many steps; 0: not now."""
    progress, steps = loop.progress, loop.stream.env_steps
    if not evaluation.every_steps or steps < progress.next_evaluation:
        return 0
    while progress.next_evaluation <= steps:
        progress.next_evaluation += evaluation.every_steps
    return evaluation.episodes


def _confirming_episodes(loop: Loop) -> int:
    """Greedy episodes that are to confirm a mean return which has reached `stop_at`; 0: not now.

    Where they do not, they are played again when the mean is over new episodes only.
    """
    run, progress = loop.run, loop.progress
    s, ended = run.settings, run.metrics.episodes
    if not s.confirm_episodes or s.stop_at is None or run.mean_return < s.stop_at:
        return 0
    if ended < progress.next_confirmation:
        return 0
    progress.next_confirmation = ended + s.window
    return s.confirm_episodes


def own_state(loop: Loop, log: Log | None) -> dict[str, Any]:
    """What a checkpoint holds of the run itself, and `go_on` takes over."""
    run = loop.run
    return {
        "rng": run.rng.bit_generator.state,
        "metrics": run.metrics.state(),
        **loop.progress.state(run.meter.elapsed()),
        "selection": run.selection.state(),
        "log_position": 0 if log is None else log.position(),
        "log_sha256": "" if log is None else log.sha256(),
        "log_ends": [] if log is None else log.ends(),
    }


def begin_anew(run: Run, directory: RunDirectory, log: Log | None) -> None:
    """A run without a checkpoint: a new one, or one that was killed before its first; what it wrote is moved aside.

    Raises:
        ConfigError: it has had a checkpoint: it must not begin anew over its lines.
    """
    status = directory.read_status()
    updates = status.get("updates", 0)
    where, told = directory.checkpoints, directory.status.name
    if "updates" not in status:
        lines = read_metrics(directory.metrics).lines
        updates = max((line.get("update") or 0 for line in lines), default=0)
        told = directory.metrics.name
    if updates:
        raise ConfigError(
            f"no checkpoint (such as {updates:010d}.json) in {where}, but {told} "
            f"says that the run made {updates} updates; restore the folder from a copy, or train a new run"
        )
    if log is None or not log.position():
        return
    log.rewind(0)
    run.warn(
        "there is no checkpoint yet: the run begins anew, and its lines so far are in metrics.old.jsonl"
    )


def _other_versions(found: Checkpoint) -> list[str]:
    """What a checkpoint was written with, where that differs from what goes on with it."""
    here = versions()
    differing = [
        f"{name} {was}, now {here[name]}"
        for name, was in found.versions.items()
        if name in here and was != here[name]
    ]
    if not differing:
        return []
    said = "; ".join(differing)
    return [f"trained with {said}: what follows may differ in its last bits"]


def _lost_checkpoint(directory: RunDirectory, updates: int) -> list[str]:
    """What is to be said where run.json knows a later checkpoint than the newest that is there."""
    try:
        made = directory.read_status().get("updates", 0)
    except ConfigError:
        return []
    if made <= updates:
        return []
    return [
        f"run.json says that the run made {made} updates, but the newest checkpoint is of update {updates}: "
        f"{made:010d}.json is lost, and the updates since are made again"
    ]
