"""Guard: looks at every learner between two updates, and does what the ladder says."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from shoal.run.guard.ending import GUARD, end_as_best, keep_best, look_once
from shoal.run.guard.journal import Journal
from shoal.run.guard.readings import (
    episodes_by_learner,
    note_rewards,
    numbers_of,
    seen_of,
)
from shoal.run.guard.returns import Returns
from shoal.run.guard.watch import Watch, rules_of

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from shoal.learn.learner import Learner
    from shoal.run.guard.notes import Notes
    from shoal.run.guard.seen import Action, Finding, Rule
    from shoal.run.guard.settings import Guarding
    from shoal.run.learning import Taken
    from shoal.run.loop import Stream
    from shoal.run.run import Run
    from shoal.run.settings import Settings
    from shoal.run.writer import Writer
    from shoal.types import Episodes

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
        self.every = _checks_of(stream)
        self.watches: dict[str, Watch] = {}
        for number, (name, learner) in enumerate(learners.items()):
            judged = not s.self_play.every and (s.learners > 1 or not number)
            returns = _returns_of(stream, s, judged=judged)
            rules = rules_of(cfg, learner.policy, s, with_returns=judged)
            self.watches[name] = Watch(name, learner, rules, own, cfg, returns)
        self.stopped = ""
        """Why the guard ended the run."""
        self.journal = Journal(run, stream)
        self._ended: list[Episodes] = []
        self._last_s, self._last_step = 0.0, 0
        self.looks = 0
        """Checks in which a learner had something to look at."""
        self.latest: tuple[Taken, float] | None = None
        """What the last update was looked at with, or would have been."""
        self.finished_at = -1
        """The update after which the learners became their best; -1 before."""

    @property
    def notes(self) -> Notes:
        """What it did so far."""
        return self.journal.notes

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
        self.journal.begin(stopped=bool(self.stopped))

    def look(self, taken: Taken, greedy: float, batch: Any) -> None:
        """Looks where it is due, and acts.

        Args:
            taken: the statistics of the update that is over.
            greedy: the mean return of the last evaluation.
            batch: what was learned from.
        """
        note_rewards(self.watches, self.stream, batch)
        if len(self.stream.episodes.returns):
            self._ended.append(self.stream.episodes)
        self.latest = taken, greedy
        if self.run.updates % self.every == 0 or self._skipped():
            self.check(taken, greedy)

    def check(self, taken: Taken, greedy: float) -> None:
        """Looks at each learner that has stepped, and acts."""
        ended, self._ended = self._ended, []
        shared = episodes_by_learner(ended, self.run.settings, list(self.watches))
        for name, episodes in shared.items():
            self.watches[name].returns.note(episodes, self.stream.env_steps)
        seconds, steps = self._passed()
        for watch in self.watches.values():
            made, skipped = watch.count()
            if not made + skipped:
                continue
            self.looks += 1
            beside = watch.reach.numbers()
            numbers = numbers_of(taken.get(watch.name), self.run, greedy, beside)
            seen = replace(
                seen_of(watch, numbers, taken=made, skipped=skipped),
                update=self.run.updates,
                step=self.stream.env_steps,
                seconds_a_step=seconds / steps if steps > 0 else math.nan,
                seconds=seconds,
            )
            findings = watch.look(seen)
            action = watch.decide(seen, findings)
            for found in findings:
                if found.action == "tell":
                    self.journal.add(watch.name, found.rule, "tell", found.said)
            if action is not None:
                self._act(watch, findings, action)

    def finish(self) -> bool:
        """Where it ever acted, each learner becomes its verified best; whether anything changed.

        A run that ends before its first check is looked at here, so that every rule is asked at least once.
        """
        if self.finished_at == self.run.updates:
            return False
        self.finished_at = self.run.updates
        look_once(self)
        return end_as_best(self)

    def rescue(self, writer: Writer | None, error: Exception) -> None:
        """Has the checkpoint `best` hold the verified best where the environment fails; the error says so."""
        keep_best(self, writer, error)

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
            "journal": self.journal.state(),
            "finished_at": self.finished_at,
            "looks": self.looks,
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
        self.stopped, self.finished_at = str(own["stopped"]), int(own["finished_at"])
        self.looks = int(own.get("looks", 1))  # checkpoints of earlier versions
        self.journal.restore(own["journal"])

    def _act(self, watch: Watch, findings: Sequence[Finding], action: Action) -> None:
        """Does it, writes it down and says it."""
        wrong = [found for found in findings if found.action != "tell"]
        what = "; ".join(f"{found.said} ({found.rule})" for found in wrong)
        if action == "skip":
            did = "what was not finite was skipped"
        elif action == "halve":
            watch.halve()
            did = f"{watch.name} goes on with {watch.factor:g} times its learning rate"
            if self.run.stop_reason:
                did = f"{watch.name} goes on with {watch.factor:g} times its learning rate, if the run is resumed"
        elif action == "rollback":
            kept = watch.go_back(self.stream.env_steps)
            self.stream.publish()
            did = f"{watch.name} goes back to update {kept.said}, with {watch.factor:g} times its learning rate"
        else:
            did = _ends(watch)
            self.stopped = reason = f"{GUARD}{what}; {did}"
            self.run.stop(reason)
        self.journal.add(watch.name, wrong[0].rule, action, f"{what}; {did}")

    def _skipped(self) -> bool:
        """Whether a learner has skipped a step since it was looked at."""
        return any(w.learner.skipped != w.counted[1] for w in self.watches.values())

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


def _checks_of(stream: Stream) -> int:
    """Updates from one check to the next."""
    if hasattr(stream, "answers_per_prompt"):  # drawing answers takes far longer
        return 1
    steps = getattr(stream, "steps_per_batch", math.prod(stream.shape))
    return max(1, min(MOST_UPDATES, STEPS // max(1, steps)))


def _returns_of(stream: Stream, s: Settings, *, judged: bool) -> Returns:
    """The returns of a learner's episodes; `judged`: it has some of its own, which say how good it is."""
    late = s.max_staleness if s.schedule == "async" else 0
    behind = late * math.prod(stream.shape)
    alike: int = getattr(stream, "answers_per_prompt", 0)
    if alike:
        return Returns(stream.shape[1], s.held_out, behind=behind, alike=alike)
    rows = s.num_envs * max(1, len(s.agents)) // s.learners
    alone = judged and s.learners == 1 and len(s.agents) <= 1
    return Returns(rows if judged else 0, s.held_out, behind=behind, alone=alone)


def _ends(watch: Watch) -> str:
    """With what a run ends that is stopped, in words."""
    best = watch.states.best
    if best is not None:
        return f"the run ends with the verified best of update {best.said}"
    if watch.factor < 1:
        return (
            f"the run ends at {watch.factor:g} times its learning rate without a state that was ever verified: begin "
            "again with a smaller learning_rate, or mend what is found wrong"
        )
    return (
        "the run ends without a state that was ever verified: begin again with a smaller learning_rate, or mend what "
        "is found wrong"
    )
