"""Explorers: a policy that acts in some of the rows and learns from its own rollouts, beside one that replays all."""

from __future__ import annotations

from dataclasses import dataclass, field
from math import inf
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from shoal.memory.begun import first_steps, put_first_steps
from shoal.memory.slab import BOOLS, FLOATS, Slab
from shoal.nets.policy import Network
from shoal.stream.replay import DrawsBatches
from shoal.types import (
    ConfigError,
    Episodes,
    assign,
    check_finite,
    check_positive,
    check_ranges,
    select,
)

if TYPE_CHECKING:
    from collections.abc import Callable

    from shoal.memory.settings import Replay
    from shoal.stream.replay import ReplayStream
    from shoal.stream.rollouts import Rollouts
    from shoal.types import Sequences, Steps, Transitions

PER_STEP = (*BOOLS, *FLOATS, "version")


def squashed() -> Network:
    """The default network, whose actions of a Box are kept before the tanh."""
    return Network(squash=True)


@dataclass(frozen=True, slots=True)
class Explorers:
    """A policy that explores for a replay memory, and learns on-policy from its own rollouts."""

    share: float = 0.5
    """Share of the environments that it acts in; more explore by it and leave fewer to the actor."""
    num_steps: int = 128
    """Steps of each of its environments per rollout; more see further ahead and update less often."""
    num_minibatches: int = 4
    """Minibatches per epoch, one gradient step each; more give smaller minibatches and noisier steps."""
    update_epochs: int = 4
    """Epochs per rollout; more reuse the data better but move the policy further from it."""
    learning_rate: float = 3e-4
    """Adam's step size; larger learns faster but less stably."""
    gae_lambda: float = 0.95
    """GAE's lambda; closer to 1 gives less bias and more variance in the advantages."""
    clip_coef: float = 0.2
    """Clip range of the probability ratio; larger allows larger policy updates."""
    norm_adv: bool = True
    """Normalize the advantages of each minibatch."""
    ent_coef: float = 0.0
    """Entropy bonus coefficient; larger explores longer."""
    vf_coef: float = 0.5
    """Value loss coefficient; larger fits values faster, at the policy's cost where they share layers."""
    max_grad_norm: float = 0.5
    """Gradients are clipped to this global norm; larger allows larger and less stable steps."""
    network: Network = field(default_factory=squashed)
    """Architecture of its policy; `squash` is on, as the actor beside it keeps its actions before the tanh."""

    def __post_init__(self) -> None:
        """Refuses what cannot work, with what would."""
        counts = ("num_steps", "num_minibatches", "update_epochs")
        check_ranges(self, **dict.fromkeys(counts, (1, inf)))
        check_ranges(self, share=(0, 1), gae_lambda=(0, 1), vf_coef=(0, inf))
        check_positive(self, "learning_rate", "clip_coef", "max_grad_norm")
        check_finite(self, "learning_rate", "ent_coef", "vf_coef")
        if self.network.recurrent != "none":
            raise ConfigError(
                f'explorers.network.recurrent="{self.network.recurrent}": explorers have no memory, as the actor that '
                'learns from their steps has none; set it to "none"'
            )


class HasExplorers(DrawsBatches, Protocol):
    """Settings of an algorithm whose memory explorers fill too."""

    @property
    def replay(self) -> Replay:
        """Of the memory."""
        ...

    @property
    def explorers(self) -> Explorers:
        """Of the explorers."""
        ...


class ExploredReplay:
    """Batches of a memory that two policies fill, and in between the rollouts of the one that explores.

    `agent` is who the batch at hand is for: transitions of all rows for the first role, `Steps` of its own rows for the
    second one. Rows step `num_steps` of the first one's settings at a time; the explorers' rollout is handed over when
    it has its length, before what may be drawn then. `episodes` are those of the first role's rows.
    """

    def __init__(
        self,
        replay: ReplayStream,
        rollouts: Rollouts,
        num_steps: int,
        note: Callable[[str, float], None],
    ) -> None:
        """Of rollouts with these two roles, which `replay` draws from for the first one and nobody else may pull.

        Args:
            replay: the memory of all rows.
            rollouts: what fills it.
            num_steps: of the explorers' rollouts.
            note: gets the returns of the explorers' episodes, episode/return/ROLE.

        Raises:
            ConfigError: rollouts of this length are not made of whole ones of the stream.
        """
        self._learning, self._exploring = rollouts.roles
        self._learning.values = False  # no rollout of its own is learned from
        every = rollouts.num_steps
        if num_steps % every:
            raise ConfigError(
                f"explorers.num_steps={num_steps} is not a multiple of num_steps={every}, by which all environments "
                f"step; explorers.num_steps={max(1, num_steps // every) * every} is"
            )
        self.replay = replay
        """Where the transitions come from."""
        self.agent = self._learning.name
        self.env_steps = self.version = 0
        self.episodes = Episodes.none(rollouts.env.spec.info_keys)
        self._rollouts, self._note = rollouts, note
        self._slab = Slab(
            rollouts.env.spec,
            num_steps,
            self._exploring.count,
            pinned=rollouts.acting.device.type == "cuda",
        )
        self._slab.clear()
        self._filled = 0
        """Steps of the explorers' rollout so far."""
        self._at_hand: Steps | None = None

    @property
    def shape(self) -> tuple[int, int]:
        """Steps and rows that are collected at a time."""
        return self._rollouts.shape

    @property
    def explored_shape(self) -> tuple[int, int]:
        """Steps and rows of the explorers' rollout."""
        return self._slab.num_steps, self._slab.num_rows

    @property
    def steps_per_batch(self) -> float:
        """Environment steps for each batch of transitions."""
        return self.replay.steps_per_batch

    def __iter__(self) -> ExploredReplay:
        """Itself."""
        return self

    def __next__(self) -> Transitions | Sequences | Steps:
        """The next batch of the one who is next, after as many steps as it needs."""
        if self._at_hand is not None:
            raise RuntimeError(
                "pulled the next batch before publish(): publish after every update"
            )
        while not self.replay.due:
            self.replay.ended.add(self.replay.advance())
            if self._gather():
                return self._hand_over()
            if not self.replay.due:
                self.version = self._rollouts.answered()
        self._tell()
        self.agent = self._learning.name
        batch = self.replay.draw()
        self.env_steps = self.replay.env_steps
        return batch

    def prioritize(self, batch: Transitions) -> None:
        """As of `ReplayStream`."""
        self.replay.prioritize(batch)

    def publish(self) -> int:
        """Makes the weights of whoever the batch at hand was for the next that act; returns how often that was."""
        role = self._learning if self._at_hand is None else self._exploring
        role.source.publish(self._at_hand)
        self._at_hand = None
        self.version = self._rollouts.answered()
        return self.version

    def state(self) -> dict[str, Any]:
        """All that `restore` needs, taken after a publish: the explorers' rollout so far too."""
        return {
            "replay": self.replay.state(),
            "explored": first_steps(self._slab, self._filled),
            "filled": self._filled,
            "env_steps": self.env_steps,
        }

    def restore(self, state: dict[str, Any]) -> list[str]:
        """Continues from `state`; returns a sentence for each episode that could not be continued."""
        lost = self.replay.restore(state["replay"])
        self._filled = int(state["filled"])
        put_first_steps(self._slab, state["explored"])
        self._at_hand = None
        self.env_steps, self.version = int(state["env_steps"]), self._rollouts.version
        return lost

    def _gather(self) -> bool:
        """Takes what the explorers did into their rollout; whether it has its length."""
        part = self._rollouts.slabs[1]
        append(self._slab, part, self._filled)
        self._filled += part.num_steps
        return self._filled == self._slab.num_steps

    def _hand_over(self) -> Steps:
        """The explorers' rollout; the next one is begun when their rows step again."""
        self._tell()
        self.agent = self._exploring.name
        device = self._rollouts.acting.device
        with self._rollouts.meter.measure("transfer"):
            self._at_hand = self._slab.steps(state=None, device=device)
        self._filled = 0
        if not self.replay.due:
            self.replay.env_steps = self._rollouts.env_steps
        self.env_steps = self.replay.env_steps
        return self._at_hand

    def _tell(self) -> None:
        """Tells the episodes of both roles apart."""
        ended = self.replay.ended.take(tuple(self.episodes.info))
        learning, exploring = self._learning.numbers, self._exploring.numbers
        for value in ended.among(exploring).returns.tolist():
            self._note(f"episode/return/{self._exploring.name}", value)
        self.episodes = ended.among(learning)


def append(whole: Slab, part: Slab, t: int) -> None:
    """Takes the steps of a slab over into a longer one, from its step t on; with t = 0 it begins anew."""
    if not t:
        whole.clear()
    at = slice(t, t + part.num_steps)
    for name in PER_STEP:
        getattr(whole, name)[at] = getattr(part, name)
    assign(whole.obs, at, part.obs)
    assign(whole.action, at, part.action)
    if whole.action_mask is not None:
        whole.action_mask[at] = part.action_mask
    ended = part.final_index >= 0
    whole.final_index[at] = np.where(ended, part.final_index + whole.num_final, -1)
    final = slice(whole.num_final, whole.num_final + part.num_final)
    assign(whole.final_obs, final, select(part.final_obs, slice(0, part.num_final)))
    whole.num_final = final.stop
    if t:  # a first step that only reset its row cut the episode of the step before
        over = whole.terminated[t - 1] | whole.truncated[t - 1]
        whole.truncated[t - 1] |= ~part.valid[0] & whole.valid[t - 1] & ~over
