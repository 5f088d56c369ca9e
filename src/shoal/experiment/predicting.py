"""`predict`: the call by which programs that were written for Stable-Baselines3 ask a policy."""

from __future__ import annotations

from abc import abstractmethod
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from shoal.experiment.shown import batch_of
from shoal.learn.acting import Acting, make_actor
from shoal.learn.weights import pack
from shoal.types import assign, map_tree

if TYPE_CHECKING:
    from numpy.typing import ArrayLike, NDArray
    from torch import Tensor, nn

    from shoal.experiment.experiment import Experiment
    from shoal.learn.acting import Actor
    from shoal.types import Bools, Spec, Tree


class Predicts:
    """A loaded policy that can be asked as Stable-Baselines3's are; `Agent` has the rest."""

    policy: nn.Module
    spec: Spec
    experiment: Experiment
    _actor: Actor | None
    _acting: nn.Module | None
    """The policy that acts."""
    _start: Bools
    """Which of its observations begin an episode next."""

    @abstractmethod
    def act(
        self,
        obs: Tree,
        *,
        action_mask: Tree = None,
        start: ArrayLike | None = None,
        greedy: bool = True,
    ) -> Tree:
        """The action for one observation, or actions [N] for a batch."""

    def actor_of(self, count: int) -> Actor:
        """What acts for so many observations; of another number than before it begins anew."""
        another = self._acting is not self.policy or len(self._start) != count
        if self._actor is None or another:
            acting = Acting(
                self.experiment.options.seed, native=self.experiment.options.native
            )
            self._actor = make_actor(self.policy, self.spec, count, acting)
            self._acting = self.policy
            self._start = np.ones(count, np.bool_)
        else:  # whoever holds `policy` may have changed it
            self._actor.update(self.policy, pack(self.policy))
        return self._actor

    def predict(
        self,
        obs: Tree,
        state: Tree = None,
        episode_start: ArrayLike | None = None,
        *,
        deterministic: bool = True,
        action_masks: Tree = None,
    ) -> tuple[Tree, Tree]:
        """`act` under Stable-Baselines3's name: the action for one observation or actions [N], and what to hand back.

        Args:
            obs: one observation, or a batch [N, ...].
            state: what the last call returned, for a policy with memory; None: its memory is empty.
            episode_start: bool, or [N]: which observations are the first of an episode; their memory is emptied.
            deterministic: the most probable action; False draws it. (There the default is False.)
            action_masks: as `act` takes them.

        Returns:
            The action, and the policy's state [N, ...] as arrays; None where it has no memory.

        Raises:
            EnvError: as `act`.
            ValueError: as `act`, or a state of another kind or shape than the policy's.
        """
        _, count, _ = batch_of(self.spec, obs, self.experiment.options.preprocessing)
        actor, start = self.actor_of(count), episode_start
        _begin(actor, state, count)
        if state is not None and start is None:
            start = np.zeros(count, np.bool_)
        action = self.act(
            obs, action_mask=action_masks, start=start, greedy=deterministic
        )
        return action, None if actor.state is None else map_tree(_array, actor.state)


def _begin(actor: Actor, state: Tree, count: int) -> None:
    """The actor goes on with a state, or with an empty one.

    Raises:
        ValueError: it is of another kind or shape than the policy's.
    """
    if actor.state is None:
        if state is not None:
            raise ValueError("the policy has no memory: its state is None")
        return
    if state is None:
        initial: Any = actor.snapshot.policy.initial_state
        assign(actor.state, slice(0, count), initial(count))
        return
    try:
        given = map_tree(_checked, actor.state, state)
    except (TypeError, ValueError, KeyError, AttributeError) as error:
        raise ValueError(
            "the state is not what the last call of predict returned for so many observations; state=None begins "
            f"anew ({error})"
        ) from error
    assign(actor.state, slice(0, count), given)


def _checked(own: Tensor, given: ArrayLike) -> Tensor:
    """A part of a state as a tensor like the policy's own."""
    values = given.detach().cpu().numpy() if isinstance(given, torch.Tensor) else given
    made = torch.as_tensor(np.array(values), dtype=own.dtype, device=own.device)
    if not made.isfinite().all():
        raise ValueError("it holds numbers that are not finite")
    if made.shape != own.shape:
        raise ValueError(f"expected {tuple(own.shape)}, got {tuple(made.shape)}")
    return made


def _array(part: Tensor) -> NDArray[Any]:
    """A copy, which later calls leave alone."""
    return part.detach().cpu().numpy().copy()
