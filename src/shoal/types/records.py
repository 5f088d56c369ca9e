"""Records that flow between environments, streams and algorithms; time first."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, TypeAlias, TypeVar

import numpy as np
from numpy.typing import NDArray

from shoal.types.trees import select

if TYPE_CHECKING:
    from collections.abc import Iterable

    import torch

    from shoal.types.trees import Tree

Bools: TypeAlias = NDArray[np.bool_]
Floats: TypeAlias = NDArray[np.float64]
ScalarT = TypeVar("ScalarT", bound=np.generic)


def _some(
    x: NDArray[ScalarT] | None, rows: NDArray[np.intp]
) -> NDArray[ScalarT] | None:
    return None if x is None else x[rows]


@dataclass(slots=True)
class Ready:
    """The rows that one `recv` hands over. Arrays are views, valid until these rows are sent again.

    The same object may come again from the next `recv`, with what is new in it: copy what is to be kept.

    `obs` at an ended row is already the next episode's first observation. `final_obs`, `episode_return`,
    `episode_length` and `info` hold a value only where `terminated | truncated`. Returns are the environment's own
    rewards summed, before any preprocessing. A length of 0 marks an end for learning only, such as a life lost: the
    episode goes on and is counted when it is over. Where not all rows always act (`turn`), it marks an agent whose game
    ended before it acted: an episode of no step, which is not `valid` but counts. `over` has the episodes that count.
    """

    rows: slice
    obs: Tree
    reward: Floats
    terminated: Bools
    truncated: Bools
    valid: Bools
    final_obs: Tree
    episode_return: Floats
    episode_length: NDArray[np.int64]
    info: dict[str, Floats]
    action_mask: Bools | None = None
    """Options that each row may choose next, those of every choice side by side; None where nothing is masked."""
    turn: Bools | None = None
    """Rows whose next action counts: their agent is there, and it is its turn. None where all rows always act.

    Then `valid` says whose own step is complete: begun by the row's last action that counted, and rewarded by now.
    """
    game_over: Bools | None = None
    """Rows whose whole game ended with this step, those of agents who were not in it included; None without `turn`."""
    executed: Tree = None
    """What rows did in this step, where an action guard may change what they are sent; None where nothing does."""
    cost: Floats | None = None
    """What the step cost [rows], apart from its reward; None where steps have no cost."""
    changed: Bools | None = None
    """Where that is not what they were sent [rows]; None where nothing changes it."""

    @property
    def over(self) -> Bools:
        """Rows whose episode ended and counts [rows]."""
        ended = self.terminated | self.truncated
        if self.turn is not None:
            return ended
        return ended & self.valid & (self.episode_length > 0)


class _Found:
    """What was computed of steps and may be asked for again; no field of theirs."""

    __slots__ = ("_with_targets",)


@dataclass(frozen=True, slots=True)
class Steps(_Found):
    """A rollout: T steps of B rows, time first, with everything that an on-policy loss needs.

    `start[t, b]`: obs[t, b] is the first of its episode. `next_value[t, b]` is the value after step t under the acting
    version: of the next observation, or at an episode's end of the final one; a loss masks it where `terminated`.
    `state` is the recurrent state before step 0 ([B, ...] leaves, or None). `final_index[t, b]` points into
    `final_obs`, -1 where no episode ended. `valid` is false where a step only reset the row. `version[t, b]` is the
    version of the weights that chose the action. Rewards are multiplied by the run's `reward_scale`, or normalized.
    """

    obs: Tree
    start: torch.Tensor
    action: Tree
    log_prob: torch.Tensor
    value: torch.Tensor
    next_value: torch.Tensor
    reward: torch.Tensor
    terminated: torch.Tensor
    truncated: torch.Tensor
    valid: torch.Tensor
    final_index: torch.Tensor
    final_obs: Tree
    state: Tree
    version: torch.Tensor
    action_mask: torch.Tensor | None = None
    """The options [T, B, n] that could be chosen; `distributions.masked` applies it."""
    advantage: torch.Tensor | None = None
    """How much better each action was than its state [T, B]; an algorithm sets it before it learns."""
    target: torch.Tensor | None = None
    """What each value should have been [T, B]; likewise."""
    weight: torch.Tensor | None = None
    """How much each step counts in the policy's loss [T, B], where they do not count alike; likewise."""
    cost: torch.Tensor | None = None
    """What each step cost [T, B], as the environment says it; None where steps have no cost."""
    latest: Tree = None
    """What the rows saw after the last step [B, ...]; None unless an algorithm asked for it, and in games of turns."""

    def with_targets(
        self, advantage: torch.Tensor | None, target: torch.Tensor
    ) -> Steps:
        """These steps with what an algorithm computed for them [T, B]; for the same tensors the same object."""
        made: Steps | None = getattr(self, "_with_targets", None)
        if made is None or made.advantage is not advantage or made.target is not target:
            made = replace(self, advantage=advantage, target=target)
            object.__setattr__(self, "_with_targets", made)
        return made

    def valid_places(self) -> NDArray[np.int32]:
        """Where the valid steps stand, t * B + b."""
        valid = self.valid.cpu().numpy().reshape(-1)
        if valid.all():
            return np.arange(len(valid), dtype=np.int32)
        return valid.nonzero()[0].astype(np.int32)


@dataclass(frozen=True, slots=True)
class Transitions:
    """B transitions drawn from a replay memory, each of up to n steps of one row.

    The tensors are the reader's own: its next sample overwrites them, and `key` and `error` say what to prioritize.
    """

    obs: Tree
    """[B, ...]: where the first step was chosen."""
    action: Tree
    """[B, ...]: as the policy chose it."""
    reward: torch.Tensor
    """[B]: sum_i<k gamma^i r_t+i over the k steps of the transition."""
    discount: torch.Tensor
    """[B]: what the value of `next_obs` is multiplied by: gamma^k, 0 where the last step terminated."""
    next_obs: Tree
    """[B, ...]: what followed the last step; the final observation where the episode ended there."""
    steps: torch.Tensor
    """[B], int32: k, fewer than n where the episode ended or the memory knows no more yet."""
    weight: torch.Tensor
    """[B]: of each in the loss; 1 without priorities."""
    version: torch.Tensor
    """[B], int32: of the weights that chose the first action."""
    target: torch.Tensor
    """[B]: what the value of the action should be; an algorithm fills it in."""
    error: torch.Tensor
    """[B]: the loss leaves here by how much it was not."""
    key: NDArray[np.int64]
    """[B]: which record each begins with, row + num_rows * index; no later record has the same."""
    action_mask: torch.Tensor | None = None
    """[B, n]: the options that the first action was chosen among."""
    next_action_mask: torch.Tensor | None = None
    """[B, n]: those of `next_obs`; all of them at an episode's end."""

    def with_target(self, target: torch.Tensor) -> Transitions:
        """These transitions, with `target` [B] filled in, or of several numbers each [B, N] in its place."""
        if target.shape != self.target.shape:
            return replace(self, target=target)
        self.target.copy_(target)
        return self


@dataclass(frozen=True, slots=True)
class Sequences:
    """B sequences of L records that follow each other in one row of a replay memory, time first.

    A record is a step, or the last observation of an episode, which takes a place of its own: what step t led to is
    always `obs[t + 1]`. Episodes may end inside; where `start` is true a network zeroes its state.
    """

    obs: Tree
    """[L, B, ...]."""
    action: Tree
    """[L, B, ...]: as the policy chose it; of no meaning where not `valid`."""
    reward: torch.Tensor
    """[L, B]: 0 where not `valid`."""
    discount: torch.Tensor
    """[L, B]: what the value of the next observation is multiplied by: gamma, 0 where the step terminated."""
    start: torch.Tensor
    """[L, B]: whether an observation is the first of its episode."""
    valid: torch.Tensor
    """[L, B]: a step that led to the next record: no last observation, and not the last record of all."""
    state: Tree
    """[B, ...]: the recurrent state that the actor had before the first step."""
    weight: torch.Tensor
    """[B]: of each sequence in the loss; 1 without priorities."""
    error: torch.Tensor
    """[B]: the loss leaves here by how much each sequence's values were not what they should be."""
    key: NDArray[np.int64]
    """[B]: which record each begins with, row + num_rows * index."""
    version: torch.Tensor
    """[L, B], int32: of the weights that chose the actions."""
    action_mask: torch.Tensor | None = None
    """[L, B, n]: the options that an action was chosen among; all of them at an episode's last observation."""
    next_value: torch.Tensor | None = None
    """[L, B, n]: an algorithm's values of the actions at each record, by its target network."""

    def after(self, count: int, state: Tree) -> Sequences:
        """These without their first `count` records, after which a network's memory is `state`."""
        kept: dict[str, Tree] = {}
        for name in self.__slots__:
            tree = getattr(self, name)
            whole = name in ("state", "weight", "error", "key")
            if not whole and tree is not None:
                kept[name] = select(tree, slice(count, None))
        return replace(self, state=state, **kept)

    def with_next_values(self, values: torch.Tensor) -> Sequences:
        """The same with `next_value` [L, B, n]."""
        return replace(self, next_value=values)


@dataclass(frozen=True, slots=True)
class Acted:
    """What acting once gives for n rows: the environment's actions, and what a loss needs of them."""

    env_action: Tree
    """As the environment takes them."""
    action: Tree
    """As the policy chose them, before clipping."""
    log_prob: NDArray[np.float32] | None
    """[n]; None where a policy has no distribution (greedy choices of a Q-network)."""
    value: NDArray[np.float32] | None
    """[n]; None where a policy has no value."""


@dataclass(frozen=True, slots=True)
class ActedStep:
    """What is known of a step of n rows when a policy has acted: all that a memory keeps of it by then."""

    obs: Tree
    start: Bools
    action: Tree
    log_prob: NDArray[np.float32] | None
    value: NDArray[np.float32] | None
    action_mask: Bools | None
    version: int | NDArray[np.int32]
    """Of the weights that chose."""
    state: Tree = None
    """The recurrent state before the step, where a memory keeps it."""

    def at(self, rows: NDArray[np.intp]) -> ActedStep:
        """The same of some of the rows."""
        version = self.version
        return ActedStep(
            obs=select(self.obs, rows),
            start=self.start[rows],
            action=select(self.action, rows),
            log_prob=_some(self.log_prob, rows),
            value=_some(self.value, rows),
            action_mask=_some(self.action_mask, rows),
            version=version if isinstance(version, int) else version[rows],
            state=None if self.state is None else select(self.state, rows),
        )


@dataclass(frozen=True, slots=True)
class Episodes:
    """Finished episodes, in the order of (step, row): returns, lengths, declared info values, and whose they were."""

    returns: Floats
    lengths: NDArray[np.int64]
    info: dict[str, Floats]
    rows: NDArray[np.int64] = field(default_factory=lambda: np.zeros(0, np.int64))

    @classmethod
    def none(cls, info_keys: Iterable[str] = ()) -> Episodes:
        """No episode, of an environment that declares these info values."""
        return cls(
            np.zeros(0), np.zeros(0, np.int64), {key: np.zeros(0) for key in info_keys}
        )

    def among(self, rows: NDArray[np.int64]) -> Episodes:
        """Those of some rows."""
        own = np.isin(self.rows, rows)
        info = {key: values[own] for key, values in self.info.items()}
        return Episodes(self.returns[own], self.lengths[own], info, self.rows[own])
