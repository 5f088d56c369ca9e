"""Groups: an endless stream of batches of answers, each of which is learned from within `max_staleness` versions."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, cast

import numpy as np
import torch

from shoal.llm.sampler.protocol import Request
from shoal.stream.groups.batch import answers_of
from shoal.stream.groups.flight import Group
from shoal.stream.groups.settings import unwanted
from shoal.stream.meter import Meter
from shoal.types import ConfigError, Episodes

if TYPE_CHECKING:
    from shoal.learn.learner import Learner
    from shoal.llm.model import LanguageModel
    from shoal.llm.sampler.protocol import Drawn, Sampler
    from shoal.llm.scorers.pool import ScorerPool
    from shoal.llm.tasks.task import Task
    from shoal.llm.tokenizer import Tokenizer
    from shoal.stream.groups.settings import DrawsGroups
    from shoal.types import Answers

BLOCK_S = 0.02
"""Seconds that it waits for scorers before it looks for finished answers again."""
MOST_REPLACED = 50
"""Groups without signal one after the other, for each that a batch needs, before the run is told to stop."""


class Groups:
    """Batches of `num_prompts` groups of `num_generations` answers, by the newest weights or older ones.

    Prompts are admitted so that every group can be learned from at most `max_staleness` versions after its admission:
    of all that were admitted, no more than (max_staleness + batches so far + 1) * num_prompts. A batch takes the groups
    that may not wait any longer, and then those that are complete, the oldest first. Nothing is sampled to be thrown
    away, but groups without signal where `dynamic_sampling` has them replaced.
    """

    def __init__(
        self,
        task: Task,
        sampler: Sampler,
        scorers: ScorerPool,
        learner: Learner,
        cfg: DrawsGroups,
        *,
        max_staleness: int = 0,
        meter: Meter | None = None,
        device: torch.device | None = None,
    ) -> None:
        """Begins with the task's first prompt.

        Args:
            task: gives prompts.
            sampler: answers them, with the learner's weights as they are published.
            scorers: judge finished answers.
            learner: whose policy is a language model.
            cfg: sizes of groups and batches, and how tokens are drawn.
            max_staleness: versions after its admission by which a group is learned from; 0: collect, learn, collect.
            meter: told where the time goes.
            device: of the batches.
        """
        self.task, self.sampler, self.scorers = task, sampler, scorers
        self.cfg, self.max_staleness = cfg, max_staleness
        self.env_steps = 0
        """Answers that were finished and scored."""
        self.episodes = Episodes.none()
        self.replaced = 0
        """Groups without signal that were replaced."""
        self.lost = 0
        """Answers whose score will never be known."""
        self._learner, self._meter = learner, meter or Meter()
        self._device = device or torch.device("cpu")
        self._flight: dict[int, Group] = {}
        self._admitted, self._cursor, self._batches = 0, 0, 0
        self._given_back = 0
        self._unwanted = unwanted(cfg)
        self._apart = bool(getattr(sampler, "apart", False))
        self._published = True

    @property
    def shape(self) -> tuple[int, int]:
        """One step of as many rows as a batch has answers."""
        return 1, self.cfg.num_prompts * self.cfg.num_generations

    @property
    def version(self) -> int:
        """Of the weights that were published last."""
        return self._learner.version

    @property
    def model(self) -> LanguageModel:
        """The learner's policy."""
        return cast("LanguageModel", self._learner.policy)

    @property
    def tokenizer(self) -> Tokenizer:
        """The model's."""
        return self.model.tokenizer

    def publish(self) -> int:
        """Makes the learner's weights those that answers are drawn with from now on; returns their version."""
        version = self._learner.publish()
        self._published = True
        if self._apart:
            self._load()
            self._admit()
            self._take_drawn(0)
        return version

    def __iter__(self) -> Groups:
        """Itself."""
        return self

    def __next__(self) -> Answers:
        """The next batch.

        Raises:
            RuntimeError: the last one was not published.
            ConfigError: a prompt is too long, or no group of many has answers that differ in their rewards.
        """
        if not self._published:
            raise RuntimeError(
                "the batch before was not published: call stream.publish() after its updates"
            )
        if self.sampler.version != self.version:
            self._load()
        self._admit()
        while (batch := self._next_batch()) is None:
            self._advance()
            self._admit()
        for group in batch:
            del self._flight[group.key]
        self._batches += 1
        self._published = False
        self._note(batch)
        with self._meter.measure("transfer"):
            answers = answers_of(batch, self._device)
        self._note_staleness(answers)
        return answers

    def state(self) -> dict[str, Any]:
        """All that `restore` needs: every group in flight, to the token."""
        self._take_drawn(0)
        return {
            "version": self.version,
            "env_steps": self.env_steps,
            "admitted": self._admitted,
            "cursor": self._cursor,
            "batches": self._batches,
            "given_back": self._given_back,
            "replaced": self.replaced,
            "lost": self.lost,
            "published": self._published,
            "groups": [group.state() for group in self._flight.values()],
            "sampler": self.sampler.state(),
        }

    def restore(self, state: dict[str, Any]) -> list[str]:
        """Continues; what was sampled is kept, what was not scored is scored."""
        self.env_steps = state["env_steps"]
        self._admitted, self._cursor = state["admitted"], state["cursor"]
        self._batches, self._given_back = state["batches"], state["given_back"]
        self.replaced, self.lost = state["replaced"], state["lost"]
        self._published = state["published"]
        self._load()
        self._flight = {}
        for saved in state["groups"]:
            prompt = self.task.prompt(int(saved["index"]))
            tokens = tuple(self.tokenizer.encode_prompt(prompt))
            group = Group.of_state(saved, prompt, tokens)
            self._flight[group.key] = group
            for number, drawn in group.drawn.items():
                if number not in group.reward:
                    self._judge(group, drawn)
        self.sampler.restore(state["sampler"])
        return []

    def close(self) -> None:
        """Ends the sampler and the scorers."""
        self.sampler.close()
        self.scorers.close()

    def _load(self) -> None:
        """Gives the sampler the weights as they are."""
        with self._meter.measure("transfer"):
            self.sampler.load(self.version, self.model)

    def _admit(self) -> None:
        """Asks for as many groups as may be in flight now."""
        learned = self._batches if self._published else self._batches - 1
        most = (self.max_staleness + learned + 1) * self.cfg.num_prompts
        requests: list[Request] = []
        while self._admitted - self._given_back < most:
            prompt = self.task.prompt(self._cursor)
            tokens = tuple(self.tokenizer.encode_prompt(prompt))
            count = self.cfg.num_generations
            group = Group(self._admitted, prompt, tokens, learned, count)
            self._flight[group.key] = group
            requests.append(Request(group.key, tokens, tuple(range(count))))
            self._admitted += 1
            self._cursor += 1
        if requests:
            self.sampler.submit(requests)

    def _advance(self) -> None:
        """Takes what the sampler has finished to the scorers, and what they have judged to its group."""
        busy = self._apart and self.scorers.pending
        with self._meter.measure("waiting" if self._apart else "acting"):
            self._take_drawn(0 if busy else None)
        block_s = BLOCK_S if busy or not self.sampler.pending else 0.0
        with self._meter.measure("environment"):
            judged = self.scorers.poll(block_s)
        for scored in judged:
            key, number = scored.key
            reward = float("nan") if scored.reward is None else scored.reward
            self.lost += scored.reward is None
            self._flight[key].reward[number] = reward
            self._settle(self._flight[key])

    def _take_drawn(self, max_steps: int | None) -> None:
        """Takes finished answers to the scorers; `max_steps=0`: those that are finished already."""
        for drawn in self.sampler.poll(max_steps):
            group = self._flight[drawn.key]
            group.drawn[drawn.number] = drawn
            self._judge(group, drawn)

    def _judge(self, group: Group, drawn: Drawn) -> None:
        text = self.tokenizer.decode(drawn.token.tolist())
        self.scorers.submit((group.key, drawn.number), group.prompt, text)

    def _settle(self, group: Group) -> None:
        """Counts a group that is complete; one that teaches nothing gives its place to another."""
        if not group.complete:
            return
        self.env_steps += len(group.rewards)
        if len(group.rewards) > 1 and not self._unwanted(group.rewards):
            return
        self.replaced += 1
        self._given_back += 1
        del self._flight[group.key]
        batches = max(1, self._batches)
        if self.replaced > MOST_REPLACED * self.cfg.num_prompts * batches:
            raise ConfigError(
                f"{self.replaced} groups of {self.task.name} had no signal: all answers of each earned the same; the "
                "task is too hard or too easy for this model, or its scorer does not tell answers apart"
            )

    def _next_batch(self) -> list[Group] | None:
        """The groups of the next batch, the oldest first; None where one is still awaited."""
        late = self._batches - self.max_staleness
        due = [group for group in self._flight.values() if group.since <= late]
        if not all(group.complete for group in due):
            return None
        ready = [group for group in self._flight.values() if group.complete]
        ready.sort(key=lambda group: (group.since > late, group.key))
        chosen = ready[: self.cfg.num_prompts]
        if len(chosen) < self.cfg.num_prompts:
            return None
        return sorted(chosen, key=lambda group: group.key)

    def _note(self, batch: list[Group]) -> None:
        """The episodes of a batch: an answer each, its reward and its tokens."""
        rewards = [reward for group in batch for reward in group.rewards]
        lengths = [
            len(group.drawn[number].token)
            for group in batch
            for number, reward in sorted(group.reward.items())
            if reward == reward
        ]
        self.episodes = Episodes(
            np.array(rewards),
            np.array(lengths, np.int64),
            {},
            np.arange(len(rewards), dtype=np.int64),
        )

    def _note_staleness(self, answers: Answers) -> None:
        """How many versions before now each token was chosen: the mean and the most."""
        late = (self.version - answers.version)[answers.mask].float()
        self._meter.note("groups/staleness", float(late.mean()))
        self._meter.note("groups/staleness_max", float(late.max()))
