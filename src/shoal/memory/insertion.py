"""Insertion: where steps from outside enter the replay memory of a run that goes on (`run.memory`)."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING, Any

from shoal.memory.data import read_data
from shoal.memory.inserted_steps import GivenSteps, steps_in_order
from shoal.memory.log_checks import Expected, folder_of
from shoal.memory.outside import NO_ROOM
from shoal.types import ConfigError

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    from shoal.memory.outside import Outside
    from shoal.types import Spec, Tree


class Insertion:
    """The way into a memory of steps from outside, of which each batch has its share (`data_fraction`).

    What is inserted is never overwritten by the run's own steps, only by what is inserted later, where
    `replay.inserted_size` is full. It counts neither as environment steps nor for `samples_per_insert`. A checkpoint
    holds it. Call it from a callback or from the algorithm's own loop: a resumed run then has it at the same place.
    """

    def __init__(self) -> None:
        """A way that leads nowhere yet."""
        self.data_sha256 = ""
        """Of the data set that is learned from; empty without one."""
        self._why_not = (
            "this run has no replay memory so far: algorithms on rollouts have none (`shoal algos` lists those on "
            "replay), and others make theirs by run.replay"
        )
        self._outside: Outside | None = None
        self._thread = 0
        self._ended = False

    def close(self) -> None:
        """The run has ended: what was inserted stays counted, and nothing more can be."""
        self._ended = True

    def refuse(self, why: str = NO_ROOM) -> None:
        """Every insert says why it cannot be, from here on."""
        self._outside, self._why_not = None, why

    def open(
        self,
        outside: Outside,
        from_env: Callable[[Tree], Tree],
        *,
        reward_scale: float,
    ) -> None:
        """Leads to a memory, by the thread that calls this; actions become what the policy keeps by `from_env`."""
        self._outside, self._from_env = outside, from_env
        self._reward_scale = reward_scale
        self._thread = threading.get_ident()

    @property
    def num_inserted(self) -> int:
        """Steps that were inserted so far."""
        return 0 if self._outside is None else self._outside.num_inserted

    @property
    def numbers(self) -> dict[str, float]:
        """What a line of metrics says of it; nothing where nothing can be inserted."""
        if self._outside is None:
            return {}
        return {"replay/inserted": self.num_inserted}

    @property
    def unused(self) -> str:
        """What a user should be told where there is room, and nothing was inserted; empty else."""
        if self._outside is None or self.num_inserted:
            return ""
        return (
            "replay.inserted_size made room for steps from outside, and nothing was inserted: no step came from there; "
            "call run.memory.insert in a callback, or leave it out"
        )

    def insert(
        self,
        *,
        obs: Tree,
        action: Tree,
        reward: Any,
        next_obs: Tree,
        terminated: Any,
        truncated: Any,
    ) -> int:
        """Inserts steps of episodes in their order: arrays [T, ...], or [T, B, ...] of B rows, time first.

        They are as the environment gives and takes them: its own rewards (`reward_scale` is applied here) and actions.
        Where the last step given of a row does not end its episode, learning goes on from its `next_obs`, as after a
        time limit.

        Args:
            obs: before each step, arrays or trees as the observation space nests them.
            action: what was done.
            reward: [T] or [T, B].
            next_obs: after each step; where the episode goes on, the `obs` of the step behind it.
            terminated: whether the episode ended there.
            truncated: whether it was cut there, or steps behind are missing.

        Returns:
            How many steps were inserted.

        Raises:
            ConfigError: the run takes none, or arrays are not of its spaces; it names the first wrong step, and nothing
                is inserted.
        """
        outside = self._at_hand()
        given = GivenSteps(obs, action, reward, next_obs, terminated, truncated)
        steps = steps_in_order(
            given,
            outside.memory.spec,
            self._from_env,
            reward_scale=self._reward_scale,
        )
        return outside.insert(steps)

    def insert_data(
        self,
        folder: str | Path,
        *,
        rate_hz: float | None = None,
        units: Sequence[str] = (),
    ) -> int:
        """Inserts all episodes of a data set in Minari's layout; returns how many steps they have.

        Args:
            folder: one that `shoal record` or Minari wrote, or a log of a real machine in that layout.
            rate_hz: steps a second that it must say it has; None: any.
            units: of each number of an observation, which it must say; (): any.

        Raises:
            ConfigError: the run takes none; no folder, rate or units; the data set is damaged, of other spaces, units
                or rates; nothing is inserted.
        """
        outside = self._at_hand()
        data = read_data(
            folder_of("memory.insert_data", folder),
            outside.memory.spec,
            self._from_env,
            reward_scale=self._reward_scale,
            expected=Expected(rate_hz, units),
        )
        return outside.insert(data.steps)

    def _at_hand(self) -> Outside:
        """The memory; ConfigError where there is none, the run has ended, or it is another thread's."""
        if self._ended:
            raise ConfigError(
                "memory.insert: the run has ended, so nothing would learn from it any more; insert while it goes on, "
                "in a callback, or `shoal resume` it further with a larger total_timesteps"
            )
        if self._outside is None:
            raise ConfigError(f"memory.insert: {self._why_not}")
        if threading.get_ident() != self._thread:
            raise ConfigError(
                "memory.insert: called from another thread than the run's, which would insert at another moment each "
                "time; put steps into a queue.Queue, and insert them in a callback"
            )
        return self._outside


def check_insertable(spec: Spec) -> None:
    """ConfigError where an environment's steps hold more than what is inserted says of them."""
    if spec.masked or spec.num_agents > 1:
        why = "action masks" if spec.masked else "several agents"
        raise ConfigError(
            f"replay.inserted_size: {spec.env_id} has {why}, which steps from outside do not hold; set it to 0"
        )
