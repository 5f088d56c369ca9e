"""`predict`: the call by which programs that were written for Stable-Baselines3 ask a policy."""

from __future__ import annotations

from abc import abstractmethod
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from shoal.experiment.shown import batch_of, starts_of
from shoal.learn.acting import Acting, make_actor
from shoal.learn.weights import pack
from shoal.types import assign, map_tree

if TYPE_CHECKING:
    from numpy.typing import ArrayLike, NDArray
    from torch import Tensor, nn

    from shoal.envs.action_guard.acting import GuardActing
    from shoal.experiment.experiment import Experiment
    from shoal.learn.acting import Actor
    from shoal.types import Bools, Spec, Tree

LAST, MEMORY = "last_action", "memory"
"""Of a state under an action guard that limits changes: what was done, and the policy's own state."""
NO_STATE = "the state is not what the last call of predict returned for so many observations; state=None begins anew"


class Predicts:
    """A loaded policy that can be asked as Stable-Baselines3's are; `Agent` has the rest."""

    policy: nn.Module
    spec: Spec
    experiment: Experiment
    _guard: GuardActing
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
            state: what the last call returned, for a policy with memory, or an action guard with `max_change`, which
                needs to know the action before; None: the memory is empty, and episodes begin.
            episode_start: bool, or [N]: which observations are the first of an episode; their memory is emptied.
            deterministic: the most probable action; False draws it. (There the default is False.)
            action_masks: as `act` takes them.

        Returns:
            The action, and the policy's state [N, ...] as arrays; None where it has no memory. With `max_change` a
            dict: the action that was done, `last_action` [N, ...], and the policy's state as `memory`, if it has one.

        Raises:
            EnvError: as `act`.
            ValueError: as `act`, a state of another kind or shape than the policy's, or none where `max_change` needs
                one.
        """
        _, count, _ = batch_of(self.spec, obs, self.experiment.options.preprocessing)
        actor, start = self.actor_of(count), episode_start
        if state is not None and start is None:
            start = np.zeros(count, np.bool_)
        memory = state
        if self._guard.remembers:
            memory = self._go_on(state, start, count)
        _begin(actor, memory, count)
        action = self.act(
            obs, action_mask=action_masks, start=start, greedy=deterministic
        )
        after = None if actor.state is None else map_tree(_array, actor.state)
        if not self._guard.remembers:
            return action, after
        kept = {LAST: self._guard.last_action()}
        return action, kept if after is None else kept | {MEMORY: after}

    def _go_on(self, state: Tree, start: ArrayLike | None, count: int) -> Tree:
        """The guard goes on from a state's last action; what the state holds of the policy.

        Raises:
            ValueError: it is none that `predict` returned, or there is none and not all observations begin episodes.
        """
        if state is None:
            begun = self._start if start is None else starts_of(self.spec, count, start)
            if not begun.all():
                raise ValueError(
                    "action_guard.max_change limits the change from the action before, which predict is not told: hand "
                    "back the state of the last call, or say episode_start=True (`act` remembers by itself)"
                )
            return None
        try:
            given: Any = dict(state)
            self._guard.go_on_from(given.pop(LAST), count)
        except (TypeError, ValueError, KeyError) as error:
            raise ValueError(f"{NO_STATE} ({error})") from error
        return given.get(MEMORY)


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
        raise ValueError(f"{NO_STATE} ({error})") from error
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
