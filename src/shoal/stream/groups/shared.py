"""Shared groups: of several learners the first one draws answers, and gives every batch to all of them.

So there is one sampler, fed by one published version, and whatever a batch decides (advantages, what a token counts,
when a run ends) is decided alike by all. What they share is the work of learning from it: see `learn/answer_parts.py`.
"""

from __future__ import annotations

import json
from dataclasses import fields
from typing import TYPE_CHECKING, Any

import torch

from shoal.stream.ending import EndingError
from shoal.types import Answers, Episodes

if TYPE_CHECKING:
    from shoal.learn.learner import Learner
    from shoal.learn.ranks import Ranks
    from shoal.stream.groups.groups import Groups
    from shoal.stream.groups.settings import DrawsGroups

ENDING = "ending"
"""What the first learner says in the place of a batch where nobody waits for one any longer."""


class SharedGroups:
    """The stream of groups on each of several ranks; `Groups` where there is one."""

    def __init__(
        self, ranks: Ranks, learner: Learner, cfg: DrawsGroups, drawn: Groups | None
    ) -> None:
        """On this rank.

        Args:
            ranks: who learns together.
            learner: this rank's, whose weights are those of all.
            cfg: sizes of groups and batches.
            drawn: the first rank's own stream; None on others.
        """
        self.episodes = Episodes.none()
        """Those of the last batch, on the first rank; it counts and tells them."""
        self.drawn, self._ranks, self._learner, self._cfg = drawn, ranks, learner, cfg
        self._env_steps = 0
        ranks.led = True

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
        return self._env_steps

    @property
    def version(self) -> int:
        """Of the weights that were published last."""
        return self._learner.version

    def publish(self) -> int:
        """Makes the weights, which are the same on all ranks, those that answers are drawn with from now on."""
        if self.drawn is None:
            return self._learner.publish()
        return self.drawn.publish()

    def __iter__(self) -> SharedGroups:
        """Itself."""
        return self

    def __next__(self) -> Answers:
        """The next batch, which all ranks get.

        Raises:
            EndingError: on all ranks, where nobody waits any longer.
            Exception: on the first rank, as `Groups` raises it; the others end with it.
        """
        if self.drawn is None:
            return self._taken()
        try:
            batch = next(self.drawn)
        except EndingError:
            self._tell(ENDING)
            raise
        self.episodes, self._env_steps = self.drawn.episodes, self.drawn.env_steps
        there = {name: x for name, x in _tensors(batch).items() if x is not None}
        shapes = {name: [_word(x.dtype), *x.shape] for name, x in there.items()}
        self._tell({"env_steps": self._env_steps, "tensors": shapes})
        for tensor in there.values():
            self._ranks.take_over(tensor)
        return batch

    def state(self) -> dict[str, Any]:
        """All that `restore` needs, on the first rank: every group in flight, to the token; nothing on others."""
        return {} if self.drawn is None else self.drawn.state()

    def restore(self, state: dict[str, Any]) -> list[str]:
        """Continues from the first rank's state; the learner was restored before."""
        said: list[str] = []
        if self.drawn is not None:
            said = self.drawn.restore(state)
            self._env_steps = self.drawn.env_steps
        steps = torch.tensor([self._env_steps])
        self._ranks.take_over(steps)
        self._env_steps = int(steps[0])
        return said

    def close(self) -> None:
        """Ends the sampler and the scorers."""
        if self.drawn is not None:
            self.drawn.close()

    def _tell(self, what: object) -> None:
        self._ranks.gather_bytes(json.dumps(what).encode())

    def _taken(self) -> Answers:
        """The batch that the first rank gives."""
        said = json.loads(self._ranks.gather_bytes(b"")[0])
        if said == ENDING:
            raise EndingError
        self._env_steps = int(said["env_steps"])
        device = self._learner.hardware.device
        found: dict[str, Any] = dict.fromkeys(_names())
        for name, (dtype, *shape) in said["tensors"].items():
            kind: torch.dtype = getattr(torch, dtype)
            found[name] = torch.empty(shape, dtype=kind, device=device)
            self._ranks.take_over(found[name])
        return Answers(**found)


def _names() -> list[str]:
    return [field.name for field in fields(Answers)]


def _tensors(batch: Answers) -> dict[str, torch.Tensor | None]:
    return {name: getattr(batch, name) for name in _names()}


def _word(dtype: torch.dtype) -> str:
    """int64, as torch calls it."""
    return str(dtype).removeprefix("torch.")
