"""Groups: an endless stream of batches of answers, each of which is learned from within `max_staleness` versions."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any, cast

import numpy as np

from shoal.stream.groups.batch import answers_of
from shoal.stream.groups.gathering import Gathering
from shoal.stream.groups.held_out import HELD_OUT
from shoal.stream.groups.parts import note_parts
from shoal.stream.groups.turns import turns_of
from shoal.stream.meter import Meter
from shoal.types import Episodes

if TYPE_CHECKING:
    from collections.abc import Sequence

    from torch import Tensor

    from shoal.learn.learner import Learner
    from shoal.llm.model import LanguageModel
    from shoal.llm.sampler.protocol import Sampler
    from shoal.llm.scorers.pool import ScorerPool
    from shoal.llm.tasks.task import Task
    from shoal.stream.groups.flight import Group
    from shoal.stream.groups.games import Games
    from shoal.stream.groups.gathering import Turns
    from shoal.stream.groups.held_out import HeldOut
    from shoal.stream.groups.settings import DrawsGroups
    from shoal.types import Answers, Floats

NOT_PUBLISHED = (
    "the batch before was not published: call stream.publish() after its updates"
)


class Groups:
    """Batches of `num_prompts` groups of `num_generations` answers, by the newest weights or older ones.

    Nothing is sampled to be thrown away: prompts are admitted as `Flight` says. But groups whose answers all earn the
    same are replaced by others where `dynamic_sampling` is on.
    """

    def __init__(  # noqa: PLR0913 (each is a part of its own)
        self,
        task: Task,
        sampler: Sampler,
        scorers: ScorerPool,
        learner: Learner,
        cfg: DrawsGroups,
        *,
        turns: Turns | None = None,
        held_out: HeldOut | None = None,
        max_staleness: int = 0,
        meter: Meter | None = None,
    ) -> None:
        """Begins with the task's first prompt.

        Args:
            task: gives prompts.
            sampler: answers them, with the learner's weights as they are published.
            scorers: judge finished answers.
            learner: whose policy is a language model.
            cfg: sizes of groups and batches, and how tokens are drawn.
            turns: where the task has several, as `turns_of` makes them, which it does here where they are None.
            held_out: judges answers that are learned from, by another scorer.
            max_staleness: versions after its admission by which a group is learned from; 0: collect, learn, collect.
            meter: told where the time goes.
        """
        self.episodes = Episodes.none()
        self._learner, self._cfg, self._meter = learner, cfg, meter or Meter()
        self._held_out = held_out
        self.gathering = Gathering(
            task,
            self.model.tokenizer,
            sampler,
            scorers,
            cfg,
            turns=turns or turns_of(task, self.model, sampler, cfg),
            max_staleness=max_staleness,
            meter=self._meter,
        )
        self._batches, self._published = 0, True
        self.newest: Group | None = None
        """The first group of the last batch."""
        self._since, self._drawn = self._meter.clock(), 0
        """When the batch before was handed over, and the tokens drawn until then."""

    @property
    def shape(self) -> tuple[int, int]:
        """One step of as many rows as a batch has answers."""
        return 1, self._cfg.num_prompts * self._cfg.num_generations

    @property
    def answers_per_prompt(self) -> int:
        """Answers of a group, which are alike."""
        return self._cfg.num_generations

    @property
    def env_steps(self) -> int:
        """Answers in the batches so far, and in groups that were replaced."""
        return self.gathering.scored

    @property
    def version(self) -> int:
        """Of the weights that were published last."""
        return self._learner.version

    @property
    def replaced(self) -> int:
        """Groups that taught nothing, and gave their place to others."""
        return self.gathering.flight.given_back

    @property
    def model(self) -> LanguageModel:
        """The learner's policy."""
        return cast("LanguageModel", self._learner.policy)

    def publish(self) -> int:
        """Makes the learner's weights those that answers are drawn with from now on; returns their version."""
        version = self._learner.publish()
        self._published = True
        if self.gathering.turns is not None:
            self.gathering.turns.follow()
        if self.gathering.apart:
            self._load()
            self.gathering.admit(self._batches)
            self.gathering.take_drawn(0)
        return version

    def __iter__(self) -> Groups:
        """Itself."""
        return self

    def __next__(self) -> Answers:
        """The next batch.

        Raises:
            RuntimeError: the last one was not published.
            ConfigError: a prompt is too long, or next to no group has answers that differ in their rewards.
            EnvError: the sampler or a scorer died too often.
            EndingError: nobody waits any longer; `state` has what is under way.
        """
        if not self._published:
            raise RuntimeError(NOT_PUBLISHED)
        gathering = self.gathering
        if gathering.sampler.version != self.version:
            self._load()
        gathering.admit(self._batches)
        while (batch := gathering.take(self._batches)) is None:
            self._meter.ending.check()
            gathering.advance()
            gathering.admit(self._batches)
        self._batches += 1
        self._published, self.newest = False, batch[0]
        self.episodes = replace(episodes_of(batch), info=self._judged(batch))
        gathering.scored += len(self.episodes.returns)
        with self._meter.measure("transfer"):
            answers = answers_of(batch, self._learner.hardware.device)
        late = (self.version - answers.version) * answers.mask
        answers = replace(answers, age=late)
        self._note(answers, late)
        note_parts(self._meter, batch)
        return answers

    def state(self) -> dict[str, Any]:
        """All that `restore` needs: every group in flight, to the token."""
        return {
            "batches": self._batches,
            "published": self._published,
            "gathering": self.gathering.state(),
        }

    def restore(self, state: dict[str, Any]) -> list[str]:
        """Continues; the learner was restored before."""
        self._batches, self._published = state["batches"], state["published"]
        self._load()
        self.gathering.restore(state["gathering"])
        return []

    def close(self) -> None:
        """Ends the sampler and the scorers."""
        self.gathering.close()
        if self._held_out is not None:
            self._held_out.close()

    def _judged(self, batch: Sequence[Group]) -> dict[str, Floats]:
        """What the held-out scorer says of a batch's answers, as their info; empty where there is none."""
        if self._held_out is None:
            return {}
        with self._meter.measure("environment"):
            return {HELD_OUT: self._held_out.judge(batch, self.gathering.text_of)}

    def _load(self) -> None:
        """Gives the sampler the weights as they are."""
        with self._meter.measure("transfer"):
            self.gathering.sampler.load(self.version, self.model)

    def _note(self, answers: Answers, late: Tensor) -> None:
        """How many versions before now tokens were chosen, the mean and the most; and what was not learned from."""
        learned = answers.mask.sum()
        self._note_speed(float(learned))
        self._meter.note("groups/staleness", float(late.sum() / learned))
        self._meter.note("groups/staleness_max", float(late.max()))
        self._meter.note("groups/truncated", float(answers.truncated.float().mean()))
        self._meter.note("groups/replaced", self.replaced)
        self._meter.note("groups/lost", self.gathering.num_lost)
        climb, turns = self.gathering.climb, self.gathering.turns
        if climb is not None:
            self._meter.note("curriculum/level", climb.level)
            if climb.earned(climb.level):
                self._meter.note("curriculum/reward", climb.mean(climb.level))
        if turns is not None:
            self._meter.note("groups/turns", float(answers.turns.float().mean()))
            self._meter.note("groups/replies_failed", turns.failed)
        if answers.player is not None:
            self._note_players(answers.player, answers.reward)

    def _note_speed(self, learned: float) -> None:
        """Tokens per second of both sides since the batch before: what was drawn, and what is learned from."""
        now, drawn = self._meter.clock(), self.gathering.drawn
        seconds = max(now - self._since, 1e-9)
        self._meter.note("speed/tokens_drawn", (drawn - self._drawn) / seconds)
        self._meter.note("speed/tokens_learned", learned / seconds)
        self._since, self._drawn = now, drawn

    def _note_players(self, player: Tensor, reward: Tensor) -> None:
        """What each player of a game earned in a batch, the mean; and how often it broke the rules."""
        games = cast("Games", self.gathering.turns)
        for number, count in enumerate(games.rule_breaks):
            own = reward[player == number]
            if len(own):
                self._meter.note(f"games/reward_{number}", float(own.mean()))
            self._meter.note(f"games/rule_breaks_{number}", count)


def episodes_of(batch: Sequence[Group]) -> Episodes:
    """An episode for each answer: its reward, and its tokens, those of replies too, as its length.

    A game is one episode: the mean of what its learning players have earned, and the tokens of all of them.
    """
    returns: list[float] = []
    lengths: list[int] = []
    for group in batch:
        games: dict[int, list[int]] = {}
        for number, reward in group.reward.items():
            if reward == reward:
                games.setdefault(number // group.num_players, []).append(number)
        for game in sorted(games):
            numbers = sorted(games[game])
            rewards = [group.reward[number] for number in numbers]
            returns.append(sum(rewards) / len(rewards))
            drawn = [group.drawn[number] for number in numbers if number in group.drawn]
            lengths.append(sum(len(one.token) for one in drawn))
    return Episodes(
        np.array(returns),
        np.array(lengths, np.int64),
        {},
        np.arange(len(returns), dtype=np.int64),
    )
