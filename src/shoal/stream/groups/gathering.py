"""Gathering: prompts go to the sampler, finished answers to the scorers, rewards to their groups."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from shoal.llm.sampler.protocol import Request
from shoal.llm.sampler.slots import NUMBERS
from shoal.llm.tasks.asked import prompt_of
from shoal.stream.groups.curriculum import climb_of
from shoal.stream.groups.flight import Asked, Flight
from shoal.types import ConfigError

if TYPE_CHECKING:
    from collections.abc import Callable

    from shoal.llm.sampler.protocol import Sampler
    from shoal.llm.scorers.pool import ScorerPool
    from shoal.llm.tasks.task import Task
    from shoal.llm.tokenizer import Tokenizer
    from shoal.stream.groups.flight import Group
    from shoal.stream.groups.settings import DrawsGroups
    from shoal.stream.groups.turns import Turns
    from shoal.stream.meter import Meter

BLOCK_S = 0.02
"""Seconds that it waits for scorers and replies before it looks for finished answers again."""
STEPS = 4
"""Tokens of each answer that are drawn between two looks for replies or an end, where this process draws them."""
MOST_REPLACED = 50
"""Groups without signal, for each that the batches so far needed, at which a run is told that it cannot go on."""


class Gathering:
    """A task's prompts on their way to being groups that can be learned from."""

    def __init__(
        self,
        task: Task,
        tokenizer: Tokenizer,
        sampler: Sampler,
        scorers: ScorerPool,
        cfg: DrawsGroups,
        *,
        turns: Turns | None,
        max_staleness: int,
        meter: Meter,
    ) -> None:
        """Nothing is asked for yet; see `Groups`. `turns`: of a task of several."""
        self.task, self.tokenizer = task, tokenizer
        self.sampler, self.scorers = sampler, scorers
        self.turns = turns
        self.flight = Flight(cfg.num_prompts, max_staleness)
        self.scored = 0
        """Answers that are counted: those of batches that were handed over, and of groups that were replaced."""
        self.lost = 0
        """Answers whose score will never be known."""
        self.drawn = 0
        """Tokens that the sampler drew, of turns that are finished, in this process's life."""
        self.apart = bool(getattr(sampler, "apart", False))
        """Whether the sampler goes on while the learner learns."""
        self.climb = climb_of(cfg.curriculum, task)
        """Which prompts are asked; None: one after another."""
        self._cfg, self._meter = cfg, meter

    @property
    def num_lost(self) -> int:
        """Answers that nothing is learned from: their score will never be known, or their game was called off."""
        return self.lost + (0 if self.turns is None else self.turns.lost)

    def admit(self, published: int) -> None:
        """Asks for as many groups as may be in flight when the weights of so many batches are published."""
        new: list[Group] = []
        count = self._cfg.num_generations
        for _ in range(self.flight.room(published)):
            climb, admitted = self.climb, self.flight.admitted
            busy = self.apart and (new or self.sampler.pending)
            if busy and climb is None and not self._is_made(admitted):
                break
            index = admitted if climb is None else climb.next_index()
            learners = (0,) if self.turns is None else self.turns.learners(admitted)
            asked = self.ask(index)
            new.append(self.flight.admit(asked, count, published, learners))
        if new and self.turns is not None:
            self.turns.begin(new, count)
        elif new:
            numbers = tuple(range(count))
            requests = [Request(one.key, one.token, numbers) for one in new]
            self.sampler.submit(requests)

    def take(self, batches: int) -> list[Group] | None:
        """The groups of the batch after so many; None where one is still awaited."""
        batch = self.flight.take(batches)
        if batch is not None and self.climb is not None:
            for group in batch:
                self.climb.note(group)
        return batch

    def advance(self) -> None:
        """Takes what the sampler has finished to the scorers, and what they have judged to its group."""
        turns = self.turns
        awaited = 0 if turns is None else turns.pending
        elsewhere = self.apart and self.scorers.pending + awaited > 0
        most = 0 if elsewhere else None if self.apart else STEPS
        with self._meter.measure("waiting" if self.apart else "acting"):
            self.take_drawn(most)
        block_s = BLOCK_S if elsewhere or not self.sampler.pending else 0.0
        with self._meter.measure("environment"):
            if turns is not None and turns.pending:
                for group, number in turns.poll(self.flight.groups, block_s):
                    self._take(group, number)
                block_s = 0.0
            judged = self.scorers.poll(block_s)
        for one in judged:
            key, number = divmod(one.key, NUMBERS)
            group = self.flight.groups[key]
            self.lost += one.reward is None
            group.reward[number] = float("nan") if one.reward is None else one.reward
            if one.parts and one.reward is not None:
                group.parts[number] = one.parts
            if group.complete:
                self._settle(group)

    def take_drawn(self, max_steps: int | None) -> None:
        """Takes finished answers to the scorers, or to their replies; with `max_steps=0` those finished already."""
        for drawn in self.sampler.poll(max_steps):
            self.drawn += len(drawn.token)
            group, turns = self.flight.groups[drawn.key], self.turns
            if turns is None:
                group.drawn[drawn.number] = drawn
            elif not turns.take(group, drawn):
                continue
            self._take(group, drawn.number)

    def ask(self, index: int) -> Asked:
        """A prompt of the task by its number, and its tokens."""
        if self.turns is not None:
            return self.turns.ask(index)
        prompt = prompt_of(self.task, index)
        return Asked(prompt, tuple(self.tokenizer.encode_prompt(prompt)))

    def state(self) -> dict[str, Any]:
        """All that `restore` needs: every answer in flight, to the token."""
        self.take_drawn(0)
        turns = self.turns
        return {
            "scored": self.scored,
            "lost": self.lost,
            "flight": self.flight.state(),
            "sampler": self.sampler.state(),
            "conversations": None if turns is None else turns.state(),
            "climb": None if self.climb is None else self.climb.state(),
        }

    def restore(self, state: dict[str, Any]) -> None:
        """Continues; what was drawn is kept, what was not judged is judged."""
        self.scored, self.lost = state["scored"], state["lost"]
        self.flight.restore(state["flight"], self.ask)
        self.sampler.restore(state["sampler"])
        if self.turns is not None:
            self.turns.restore(state["conversations"], self.flight.groups)
        if self.climb is not None:
            self.climb.restore(state["climb"])
        for group in self.flight.groups.values():
            for number in group.drawn:
                if number not in group.reward:
                    self._judge(group, number)

    def close(self) -> None:
        """Ends the sampler, the scorers and what replies."""
        self.sampler.close()
        self.scorers.close()
        if self.turns is not None:
            self.turns.close()

    def _is_made(self, index: int) -> bool:
        """Whether a prompt can be had without waiting; so can all of a task that does not say."""
        ready: Callable[[int], bool] | None = getattr(self.task, "ready", None)
        return ready is None or ready(index)

    def _take(self, group: Group, number: int) -> None:
        """A finished answer is judged, unless its game has said what it earned."""
        if number not in group.reward:
            self._judge(group, number)
        elif group.complete and group.key in self.flight.groups:
            self._settle(group)

    def text_of(self, group: Group, number: int) -> str:
        """What of a finished answer is scored."""
        text = group.text.get(number)
        if text is None:
            text = self.tokenizer.decode(group.drawn[number].token.tolist())
        return text

    def _judge(self, group: Group, number: int) -> None:
        text = self.text_of(group, number)
        self.scorers.submit(group.key * NUMBERS + number, group.prompt, text)

    def _settle(self, group: Group) -> None:
        """Counts a group that is complete; one that teaches nothing gives its place to another."""
        wanted = group.has_signal or not self._cfg.dynamic_sampling
        if group.has_pair and wanted:
            return
        self.scored += group.num_episodes
        if self.climb is not None:
            self.climb.note(group)
        self.flight.give_back(group)
        replaced, admitted = self.flight.given_back, self.flight.admitted
        if replaced > MOST_REPLACED * (admitted - replaced + 1):
            why = (
                "all answers of each earned the same; the task is too hard or too easy for this model, or its scorer "
                "does not tell answers apart"
            )
            if self.num_lost:
                why = (
                    f"{self.num_lost} answers were left out, as nothing could judge them (the first one was said), "
                    "and what is left of a group earned the same"
                )
            raise ConfigError(
                f"{replaced} of {admitted} groups of {self.task.name} had no signal: {why}"
            )
