"""Groups in flight: prompts that were admitted, their answers as they are finished, and what these have earned."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from shoal.llm.sampler.protocol import Drawn

if TYPE_CHECKING:
    from collections.abc import Mapping

    from shoal.llm.tasks.task import Prompt


@dataclass(slots=True)
class Group:
    """One prompt and its answers."""

    key: int
    """Which admission it was, counted from 0."""
    prompt: Prompt
    token: tuple[int, ...]
    """The prompt's tokens."""
    since: int
    """Batches whose weights were published when it was admitted."""
    wanted: int
    """Answers that were asked for."""
    drawn: dict[int, Drawn] = field(default_factory=dict)
    """Finished answers by their number."""
    reward: dict[int, float] = field(default_factory=dict)
    """What they have earned; NaN where that will never be known."""

    @property
    def complete(self) -> bool:
        """Whether every answer is finished and scored."""
        return len(self.reward) == self.wanted

    @property
    def rewards(self) -> list[float]:
        """What is known, in the order of the answers."""
        pairs = sorted(self.reward.items())
        return [value for _, value in pairs if value == value]

    def state(self) -> dict[str, Any]:
        """The group without its prompt, which the task gives again."""
        drawn = [
            {
                "number": one.number,
                "token": one.token,
                "logprob": one.logprob,
                "version": one.version,
                "truncated": one.truncated,
                "kept": one.kept,
            }
            for one in self.drawn.values()
        ]
        return {
            "key": self.key,
            "index": self.prompt.index,
            "since": self.since,
            "wanted": self.wanted,
            "drawn": drawn,
            "scored": sorted(self.reward),
            "reward": [self.reward[number] for number in sorted(self.reward)],
        }

    @classmethod
    def of_state(
        cls, state: Mapping[str, Any], prompt: Prompt, token: tuple[int, ...]
    ) -> Group:
        """The group as it was, with its prompt."""
        key = int(state["key"])
        group = cls(key, prompt, token, int(state["since"]), int(state["wanted"]))
        for one in state["drawn"]:
            number = int(one["number"])
            group.drawn[number] = Drawn(
                key,
                number,
                one["token"],
                one["logprob"],
                one["version"],
                bool(one["truncated"]),
                one["kept"],
            )
        pairs = zip(state["scored"], state["reward"], strict=True)
        group.reward = {int(number): float(reward) for number, reward in pairs}
        return group
