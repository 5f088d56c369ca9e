"""Gathering: prompts go to the sampler, finished answers to the scorers, rewards to their groups."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from shoal.llm.sampler.protocol import Request
from shoal.llm.sampler.slots import NUMBERS
from shoal.stream.groups.flight import Flight
from shoal.types import ConfigError

if TYPE_CHECKING:
    from shoal.llm.sampler.protocol import Drawn, Sampler
    from shoal.llm.scorers.pool import ScorerPool
    from shoal.llm.tasks.task import Prompt, Task
    from shoal.llm.tokenizer import Tokenizer
    from shoal.stream.groups.flight import Group
    from shoal.stream.groups.settings import DrawsGroups
    from shoal.stream.meter import Meter

BLOCK_S = 0.02
"""Seconds that it waits for scorers before it looks for finished answers again."""
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
        max_staleness: int,
        meter: Meter,
    ) -> None:
        """Nothing is asked for yet; see `Groups`."""
        self.task, self.tokenizer = task, tokenizer
        self.sampler, self.scorers = sampler, scorers
        self.flight = Flight(cfg.num_prompts, max_staleness)
        self.scored = 0
        """Answers that are counted: those of batches that were handed over, and of groups that were replaced."""
        self.lost = 0
        """Answers whose score will never be known."""
        self.apart = bool(getattr(sampler, "apart", False))
        """Whether the sampler goes on while the learner learns."""
        self._cfg, self._meter = cfg, meter

    def admit(self, published: int) -> None:
        """Asks for as many groups as may be in flight when the weights of so many batches are published."""
        requests: list[Request] = []
        count = self._cfg.num_generations
        for _ in range(self.flight.room(published)):
            prompt, token = self.prompt_of(self.flight.admitted)
            group = self.flight.admit(prompt, token, count, published)
            requests.append(Request(group.key, token, tuple(range(count))))
        if requests:
            self.sampler.submit(requests)

    def advance(self) -> None:
        """Takes what the sampler has finished to the scorers, and what they have judged to its group."""
        judging = self.apart and self.scorers.pending > 0
        with self._meter.measure("waiting" if self.apart else "acting"):
            self.take_drawn(0 if judging else None)
        block_s = BLOCK_S if judging or not self.sampler.pending else 0.0
        with self._meter.measure("environment"):
            judged = self.scorers.poll(block_s)
        for one in judged:
            key, number = divmod(one.key, NUMBERS)
            group = self.flight.groups[key]
            self.lost += one.reward is None
            group.reward[number] = float("nan") if one.reward is None else one.reward
            if group.complete:
                self._settle(group)

    def take_drawn(self, max_steps: int | None) -> None:
        """Takes finished answers to the scorers; with `max_steps=0` those that are finished already."""
        for drawn in self.sampler.poll(max_steps):
            group = self.flight.groups[drawn.key]
            group.drawn[drawn.number] = drawn
            self._judge(group, drawn)

    def prompt_of(self, index: int) -> tuple[Prompt, tuple[int, ...]]:
        """A prompt of the task by its number, and its tokens."""
        prompt = self.task.prompt(index)
        return prompt, tuple(self.tokenizer.encode_prompt(prompt))

    def state(self) -> dict[str, Any]:
        """All that `restore` needs: every answer in flight, to the token."""
        self.take_drawn(0)
        return {
            "scored": self.scored,
            "lost": self.lost,
            "flight": self.flight.state(),
            "sampler": self.sampler.state(),
        }

    def restore(self, state: dict[str, Any]) -> None:
        """Continues; what was drawn is kept, what was not judged is judged."""
        self.scored, self.lost = state["scored"], state["lost"]
        self.flight.restore(state["flight"], self.prompt_of)
        self.sampler.restore(state["sampler"])
        for group in self.flight.groups.values():
            for number, drawn in group.drawn.items():
                if number not in group.reward:
                    self._judge(group, drawn)

    def close(self) -> None:
        """Ends the sampler and the scorers."""
        self.sampler.close()
        self.scorers.close()

    def _judge(self, group: Group, drawn: Drawn) -> None:
        text = self.tokenizer.decode(drawn.token.tolist())
        self.scorers.submit(group.key * NUMBERS + drawn.number, group.prompt, text)

    def _settle(self, group: Group) -> None:
        """Counts a group that is complete; one that teaches nothing gives its place to another."""
        rewards = [reward for _, reward in group.scored]
        equal = len(rewards) > 1 and min(rewards) == max(rewards)
        if len(rewards) > 1 and not (equal and self._cfg.dynamic_sampling):
            return
        self.scored += len(rewards)
        self.flight.give_back(group)
        replaced, admitted = self.flight.given_back, self.flight.admitted
        if replaced > MOST_REPLACED * (admitted - replaced + 1):
            raise ConfigError(
                f"{replaced} of {admitted} groups of {self.task.name} had no signal: all answers of each earned the "
                "same; the task is too hard or too easy for this model, or its scorer does not tell answers apart"
            )
