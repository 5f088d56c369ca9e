"""Guard: looks at every learner between two updates, and does what the ladder says."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from shoal.run.callbacks import tell
from shoal.run.guard.answers import ANSWERS, EVALUATION
from shoal.run.guard.clock import HEARD, STALENESS
from shoal.run.guard.notes import (
    MOST,
    Intervention,
    Notes,
    forget_notes,
    forget_stop,
    write_notes,
    write_stop,
)
from shoal.run.guard.seen import Seen
from shoal.run.guard.watch import Watch, rules_of
from shoal.run.parts import states_of
from shoal.types import Episodes

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from shoal.learn.learner import Learner
    from shoal.run.guard.seen import Finding, Rule
    from shoal.run.guard.settings import Guarding
    from shoal.run.guard.states import Kept
    from shoal.run.learning import Taken
    from shoal.run.loop import Stream
    from shoal.run.run import Run
    from shoal.run.writer import Writer

STEPS, MOST_UPDATES = 2048, 8
"""It looks once in so many environment steps, but after so many updates at the latest."""


class Guard:
    """Watches the learners of a run."""

    def __init__(
        self,
        run: Run,
        stream: Stream,
        learners: Mapping[str, Learner],
        cfg: Guarding,
        own: Sequence[Rule],
    ) -> None:
        """Watches from the first update on.

        Args:
            run: whose log and directory it writes to.
            stream: whose weights are published anew where a learner went back.
            learners: by name.
            cfg: which rules, and their limits.
            own: the user's rules.
        """
        s = run.settings
        self.run, self.stream = run, stream
        steps = getattr(stream, "steps_per_batch", math.prod(stream.shape))
        self.every = max(1, min(MOST_UPDATES, STEPS // max(1, steps)))
        rows = s.num_envs * max(1, len(s.agents)) // s.learners
        self.watches: dict[str, Watch] = {}
        for number, (name, learner) in enumerate(learners.items()):
            judged = not s.self_play.every and (s.learners > 1 or not number)
            rules = rules_of(cfg, learner.policy, s.max_staleness, with_returns=judged)
            own_rows = rows if judged else 0
            self.watches[name] = Watch(name, learner, rules, own, cfg, rows=own_rows)
        self.stopped = ""
        """Why the guard ended the run."""
        self.notes = Notes()
        self._ended: list[Episodes] = []
        self._last_s, self._last_step = 0.0, 0
        self._finished_at = -1

    @property
    def calm(self) -> bool:
        """Whether nothing was found since a state was verified: the run may be what it seems."""
        return all(watch.ladder.calm for watch in self.watches.values())

    @property
    def can_go_back(self) -> bool:
        """Whether every learner has a state to go back to, so that an update without a finite step is no end."""
        return all(watch.states.good is not None for watch in self.watches.values())

    def begin(self) -> None:
        """The clock starts; a run that the guard has ended stays so."""
        self._last_s, self._last_step = self._collecting_s(), self.stream.env_steps
        if self.stopped:
            self.run.stop(self.stopped)
        directory = self.run.directory
        if directory is None or not self.run.settings.leads:
            return
        if not self.stopped:
            forget_stop(directory)
        if self.notes.count:
            write_notes(directory, self.notes)
        else:
            forget_notes(directory)

    def look(self, taken: Taken, greedy: float) -> None:
        """Looks where it is due, and acts.

        Args:
            taken: the statistics of the update that is over.
            greedy: the mean return of the last evaluation.
        """
        if len(self.stream.episodes.returns):
            self._ended.append(self.stream.episodes)
        due = self.run.updates % self.every == 0
        if not due and not self._skipped():
            return
        self._share_out()
        seconds, steps = self._passed()
        for watch in self.watches.values():
            made, skipped = watch.count()
            if not made + skipped:
                continue
            seen = Seen(
                learner=watch.name,
                update=self.run.updates,
                step=self.stream.env_steps,
                numbers=self._numbers(taken.get(watch.name), greedy),
                taken=made,
                skipped=skipped,
                finite=watch.finite,
                mean_return=watch.returns.mean,
                mean_length=watch.returns.mean_length,
                first_return=watch.returns.first,
                best_return=_figure(watch.states.best),
                spread=_spread(watch.states.best),
                episodes=watch.returns.size,
                seconds_a_step=seconds / steps if steps > 0 else math.nan,
                seconds=seconds,
            )
            findings = watch.look(seen)
            action = watch.decide(seen, findings)
            self._tell(watch, [found for found in findings if found.action == "tell"])
            if action is not None:
                self._act(watch, findings, action)

    def finish(self) -> bool:
        """Where it ever acted, each learner becomes its verified best; whether anything changed."""
        if self._finished_at == self.run.updates:
            return False
        self._finished_at = self.run.updates
        changed = [watch for watch in self.watches.values() if watch.acted]
        changed = [watch for watch in changed if watch.states.best is not None]
        for watch in changed:
            best = watch.states.best
            assert best is not None
            watch.put(best)
            tell(
                self.run,
                f"the guard acted in this run, so {watch.name} ends as its verified best, of update {best.update:,}"
                f"{_return_of(best)}",
                how="note",
            )
        if self.stopped:
            self._write_stop()
        return bool(changed)

    def rescue(self, writer: Writer | None, error: Exception) -> None:
        """Has the checkpoint `best` hold the verified best where the environment fails; the error says so.

        The rolling ones stay as they are, so that a resumed run goes on as if nothing had failed.
        """
        kept = {name: watch.states.best for name, watch in self.watches.items()}
        if writer is None or None in kept.values():
            return
        for name, best in kept.items():
            assert best is not None
            self.watches[name].put(best)
        watch = next(iter(self.watches.values()))
        said = f"the environment failed ({type(error).__name__})"
        self._note(watch, "environment", "stop", said, warn=False)
        learners = {name: watch.learner for name, watch in self.watches.items()}
        if not writer.write_best({"learner": states_of(learners)}):
            return
        best = watch.states.best
        assert best is not None
        error.add_note(
            f"shoal: the checkpoint 'best' holds the verified best policy, of update {best.update:,}"
            f"{_return_of(best)}; `shoal resume` goes on from the newest one"
        )

    def numbers(self) -> dict[str, float]:
        """What a line of metrics says of it, once it has acted."""
        if not self.notes.count:
            return {}
        found: dict[str, float] = {"guard/interventions": self.notes.count}
        for name, watch in self.watches.items():
            suffix = f"/{name}" if len(self.watches) > 1 else ""
            found[f"guard/rate_factor{suffix}"] = watch.factor
        return found

    def parts(self) -> dict[str, Any]:
        """What a checkpoint holds of it: a part of its own for each role of the states that it keeps."""
        own = {
            "watches": {name: watch.state() for name, watch in self.watches.items()},
            "stopped": self.stopped,
            "count": self.notes.count,
            "interventions": [_as_list(x) for x in self.notes.interventions],
            "finished_at": self._finished_at,
        }
        found: dict[str, Any] = {"guard": own}
        for name, watch in self.watches.items():
            for role, kept in watch.states.parts().items():
                found.setdefault(f"guard_{role}", {})[name] = kept
        return found

    def restore(self, tree: Mapping[str, Any]) -> None:
        """Continues from a checkpoint's tree; one without a guard leaves it as it is."""
        if "guard" not in tree:
            return
        own = tree["guard"]
        for name, watch in self.watches.items():
            parts: dict[str, Any] = {}
            for key, kept in tree.items():
                role = key.removeprefix("guard_")
                if role != key and name in kept:
                    parts[role] = kept[name]
            watch.restore(own["watches"][name], parts)
        self.stopped, self._finished_at = str(own["stopped"]), int(own["finished_at"])
        listed = tuple(Intervention(*fields) for fields in own["interventions"])
        self.notes = Notes(int(own["count"]), listed)

    def _act(self, watch: Watch, findings: Sequence[Finding], action: str) -> None:
        """Does it, writes it down and says it."""
        wrong = [found for found in findings if found.action != "tell"]
        what = "; ".join(f"{found.said} ({found.rule})" for found in wrong)
        if action == "skip":
            did = "what was not finite was skipped"
        elif action == "halve":
            watch.halve()
            did = f"{watch.name} goes on with {watch.factor:g} times its learning rate"
        elif action == "rollback":
            kept = watch.go_back(self.stream.env_steps)
            self.stream.publish()
            did = (
                f"{watch.name} goes back to update {kept.update:,}{_return_of(kept)}, with {watch.factor:g} times its "
                "learning rate"
            )
        else:
            did = "the run ends"
            if watch.states.best is not None:
                did += f" with the verified best of update {watch.states.best.update:,}{_return_of(watch.states.best)}"
            self.stopped = f"guard: {what}; {did}"
            self.run.stop(self.stopped)
        self._note(watch, wrong[0].rule, action, f"{what}; {did}", warn=True)

    def _tell(self, watch: Watch, findings: Sequence[Finding]) -> None:
        """Says what changes nothing."""
        for found in findings:
            self._note(watch, found.rule, "tell", found.said, warn=False)

    def _note(
        self, watch: Watch, rule: str, action: str, said: str, *, warn: bool
    ) -> None:
        run, step = self.run, self.stream.env_steps
        made = Intervention(run.updates, step, watch.name, rule, action, said)
        before = self.notes
        listed = before.interventions
        listed = (*listed, made) if len(listed) < MOST else listed
        self.notes = Notes(before.count + 1, listed)
        if not run.settings.leads:
            return
        tell(
            run,
            f"guard: update {run.updates:,}, step {step:,}: {said}",
            how="warn" if warn else "note",
        )
        self._write_notes()

    def _write_notes(self) -> None:
        if self.run.directory is not None and self.run.settings.leads:
            write_notes(self.run.directory, self.notes)

    def _write_stop(self) -> None:
        if self.run.directory is None or not self.run.settings.leads:
            return
        kept = {name: _about(watch.states.best) for name, watch in self.watches.items()}
        about = {
            "reason": self.stopped.removeprefix("guard: "),
            "update": self.run.updates,
            "step": self.stream.env_steps,
            "kept": kept,
        }
        write_stop(self.run.directory, about)

    def _skipped(self) -> bool:
        """Whether a learner has skipped a step since it was looked at."""
        return any(w.learner.skipped != w.counted[1] for w in self.watches.values())

    def _share_out(self) -> None:
        """Hands the episodes that ended to the learners whose rows they are; of several ranks those of all."""
        ended, self._ended = _joined(self._ended), []
        s, step = self.run.settings, self.stream.env_steps
        if s.ranks is not None:
            mine = np.stack([ended.returns, ended.lengths.astype(np.float64)])
            heard = s.ranks.gather_bytes(mine.tobytes())
            both = [np.frombuffer(part).reshape(2, -1) for part in heard]
            returns, lengths = np.concatenate(both, axis=1)
            ended = Episodes(returns, lengths.astype(np.int64), {})
        if s.learners == 1:
            next(iter(self.watches.values())).returns.note(ended, step)
            return
        whose = np.array(s.whose_rows)[ended.rows % len(s.whose_rows)]
        for name, watch in self.watches.items():
            own = whose == name
            part = Episodes(ended.returns[own], ended.lengths[own], {})
            watch.returns.note(part, step)

    def _passed(self) -> tuple[float, int]:
        """Seconds and environment steps since the last call."""
        seconds, step = self._collecting_s(), self.stream.env_steps
        passed = seconds - self._last_s, step - self._last_step
        self._last_s, self._last_step = seconds, step
        return passed

    def _collecting_s(self) -> float:
        """Seconds of the run so far in all but learning."""
        spent = self.run.meter.seconds
        return sum(spent.values()) - spent["learning"]

    def _numbers(
        self,
        taken: tuple[dict[str, float | torch.Tensor], dict[str, int]] | None,
        greedy: float,
    ) -> dict[str, float]:
        """An update's means by metric, and what happens beside; tensors are read together."""
        found: dict[str, float] = {}
        if taken is not None:
            totals, counts = taken
            tensors = {name: x for name, x in totals.items() if torch.is_tensor(x)}
            if tensors:
                read = torch.stack(
                    [x.detach().float().reshape(()) for x in tensors.values()]
                )
                totals = totals | dict(zip(tensors, read.tolist(), strict=True))
            found = {name: float(x) / counts[name] for name, x in totals.items()}
        for name in (*STALENESS, HEARD, ANSWERS):
            value = self.run.metrics.mean(name)
            if value is not None:
                found[name] = value
        if math.isfinite(greedy):
            found[EVALUATION] = greedy
        return found


def _joined(parts: Sequence[Episodes]) -> Episodes:
    """Episodes of several batches."""
    if not parts:
        return Episodes.none()
    if len(parts) == 1:
        return parts[0]
    return Episodes(
        np.concatenate([x.returns for x in parts]),
        np.concatenate([x.lengths for x in parts]),
        {},
        np.concatenate([x.rows for x in parts]),
    )


def _figure(kept: Kept | None) -> float:
    return math.nan if kept is None else kept.figure


def _spread(kept: Kept | None) -> float:
    return math.nan if kept is None else kept.spread


def _return_of(kept: Kept) -> str:
    """Its verified return in words; empty where there is none."""
    return "" if math.isnan(kept.figure) else f" (mean return {kept.figure:.4g})"


def _about(kept: Kept | None) -> dict[str, float | int | None]:
    if kept is None:
        return {"update": None, "return": None}
    figure = None if math.isnan(kept.figure) else kept.figure
    return {"update": kept.update, "return": figure}


def _as_list(made: Intervention) -> list[int | str]:
    return [made.update, made.step, made.learner, made.rule, made.action, made.said]
