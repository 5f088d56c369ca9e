"""The actors of a stream: how they begin, what they are asked, and what follows where one fails."""

from __future__ import annotations

import copy
import logging
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from shoal.envs.workers.pipe import pack
from shoal.stream.actors.hearing import Hearing
from shoal.stream.actors.messages import Beginning, Request
from shoal.stream.actors.states import States, apart, steps_in, together
from shoal.stream.actors.weights import Weights
from shoal.stream.ending import EndingError
from shoal.stream.roles import casting
from shoal.stream.schedules import Async, Sync
from shoal.types import ConfigError, EnvError, text_of

if TYPE_CHECKING:
    from numpy.typing import ArrayLike, NDArray
    from torch import nn

    from shoal.learn.publishing import Published
    from shoal.stream.actors.messages import Begun
    from shoal.stream.actors.parts import Part
    from shoal.stream.actors.rows import ActorRows
    from shoal.stream.in_process import Wanted
    from shoal.stream.meter import Meter

_LOG = logging.getLogger(__name__)
ANOTHER_SEED = 1_000_003
"""What is added to the seed of rows that begin anew in another process."""


@dataclass(slots=True)
class ActedRole:
    """Rows in actors, and whose weights act in them."""

    name: str
    source: Published
    numbers: NDArray[np.int64]
    """Which rows they are [n]."""
    values: bool
    """Whether the value of what follows each step is wanted."""
    epsilon: NDArray[np.float32] | None = None
    """How often they explore, where the policy is a Q-network."""

    @property
    def count(self) -> int:
        """Rows, n."""
        return len(self.numbers)

    def explore(self, epsilon: ArrayLike) -> None:
        """How often the rows of a Q-network take any action instead of the best: a number, or [n]."""
        if self.epsilon is None:
            self.epsilon = np.zeros(self.count, np.float32)
        self.epsilon[:] = epsilon

    def columns(self, rows: slice) -> NDArray[np.intp]:
        """Which of its rows lie among these."""
        inside = (self.numbers >= rows.start) & (self.numbers < rows.stop)
        return np.flatnonzero(inside)


class ActorPool:
    """All actors of an environment's rows, collecting for one stream."""

    def __init__(
        self, env: ActorRows, wanted: Wanted, ahead: int, meter: Meter
    ) -> None:
        """Has all rows reset.

        Args:
            env: the actors' rows.
            wanted: what they are to collect.
            ahead: rollouts that may be collected before the one that is learned from.
            meter: where what they did goes, where that is recorded, and whether the run is to end.
        """
        if env.in_use:
            raise ConfigError(
                "these rows are collected by another stream already; actors serve one"
            )
        env.in_use = True
        self.env, self._wanted, self.ahead = env, wanted, ahead
        sources, places = casting(wanted.policies, wanted.cast, env.num_rows)
        every = np.arange(env.num_rows)
        self.roles = [
            ActedRole(name, sources[name], every[rows], wanted.acting.values)
            for name, rows in places.items()
        ]
        count = len(env.processes)
        self._sent: list[dict[str, int]] = [{} for _ in range(count)]
        """Which version of each role's weights an actor has."""
        self.restarts = [0] * count
        self._asked = [0] * count
        """Rollouts, of each actor since it began."""
        self.under_way = [0] * count
        """Those that were not taken."""
        spans = meter.spans
        self._heard = None if spans is None else Hearing(spans, env.processes)
        self.ending = meter.ending
        begun = [self._begin(number) for number in range(count)]
        env.spec, self.in_turns = begun[0].spec, begun[0].in_turns

    @property
    def numbers(self) -> list[int]:
        """The actors that were not dropped."""
        return [
            number
            for number, rows in enumerate(self.env.rows)
            if not self.env.dropped[rows.start]
        ]

    def publish(self, number: int) -> None:
        """Sends an actor the weights that it does not have, for the rollouts that it has not begun."""
        sent = self._sent[number]
        weights: dict[str, Weights] = {}
        for role in self.roles:
            there = len(role.columns(self.env.rows[number]))
            if there and sent.get(role.name) != role.source.version:
                weights[role.name] = Weights.of(role.source)
                sent[role.name] = role.source.version
        if weights:
            self.env.processes[number].give(weights)

    def ask(self, number: int) -> None:
        """Has an actor collect one more rollout, with the newest weights that it has when it begins."""
        epsilon: dict[str, NDArray[np.float32]] = {}
        values: dict[str, bool] = {}
        for role in self.roles:
            columns = role.columns(self.env.rows[number])
            if not len(columns):
                continue
            values[role.name] = role.values
            if role.epsilon is not None:
                epsilon[role.name] = role.epsilon[columns]
        first = self.ahead + 2
        region = first + self._asked[number] % (self.ahead + 1)
        self._asked[number] += 1
        self.under_way[number] += 1
        self.env.processes[number].ask(Request(region, epsilon, values))
        if self._heard is not None:
            self._heard.asked(number)

    def answer(self, number: int) -> Part | None:
        """The oldest rollout that an actor was asked for, by it or another one in its place; None where it is dropped.

        Raises:
            EnvError: the actor is gone or silent, and nothing may take its place; the environment's own exceptions
                arrive unchanged.
            EndingError: nobody waits any longer.
        """
        while number in self.numbers:
            process = self.env.processes[number]
            try:
                part = process.collected(self.env.settings.timeout_s, self.ending)
            except EndingError:
                raise
            except Exception as error:  # the environment's own too
                self.settle(number, error)
                continue
            self.under_way[number] -= 1
            if self._heard is not None:
                self._heard.take(number, part)
            return part
        return None

    def state(self) -> dict[str, Any]:
        """All that `restore` needs: of every actor's rows, of who acts in them, and of what it is in the middle of.

        Also what came and was not taken: `arrived`, of each actor.
        """
        states = States(self)
        found = {str(number): states.of(number) for number in self.numbers}
        weights = apart(found)
        epsilon = {
            role.name: role.epsilon for role in self.roles if role.epsilon is not None
        }
        return {
            "actors": found,
            "weights": weights,
            "restarts": list(self.restarts),
            "epsilon": epsilon,
        }

    def restore(self, state: dict[str, Any]) -> list[str]:
        """Continues from `state`; a sentence for each episode that could not be continued."""
        saved = state["actors"]
        if len(state["restarts"]) != len(self.env.processes):
            raise ConfigError(
                f"the checkpoint is of {len(state['restarts'])} actors, and these rows have {len(self.env.processes)}"
            )
        lost: list[str] = []
        for number in self.numbers:
            own = saved.get(str(number))
            self.restarts[number] = int(state["restarts"][number])
            if own is None:
                self._drop(number)
            elif own:
                process = self.env.processes[number]
                whole = together(own, state.get("weights", {}))
                # Rows in Python take every step of their episodes again, and say nothing until they have.
                timeout_s = self.env.settings.timeout_s * (1 + steps_in(whole["env"]))
                lost += process.restore(whole, timeout_s)
                self._sent[number].clear()
            else:
                lost.append(self._begin_anew(number))
        for role in self.roles:
            if role.name in state.get("epsilon", {}):
                role.explore(state["epsilon"][role.name])
        return lost

    def _begin_anew(self, number: int) -> str:
        """Has other episodes begin in rows whose state is not known; a sentence about it."""
        self.restarts[number] += 1
        self.env.replace(number)
        self._begin(number)
        rows = self.env.rows[number]
        return (
            f"rows {rows.start}..{rows.stop - 1}: their actor was in a step when the run was saved, "
            "so their episodes begin anew"
        )

    def _begin(self, number: int) -> Begun:
        """Has an actor reset its rows, with the policies of the roles that it has rows of."""
        process, rows = self.env.processes[number], self.env.rows[number]
        own = [role for role in self.roles if len(role.columns(rows))]
        wanted = self._wanted
        acting = replace(
            wanted.acting,
            seed=wanted.acting.seed + ANOTHER_SEED * self.restarts[number],
            device=torch.device("cpu"),
            num_threads=max(1, wanted.acting.num_threads // len(self.env.processes)),
            first_row=rows.start,
        )
        cast = {
            role.name: (role.numbers[role.columns(rows)] - rows.start).tolist()
            for role in own
        }
        said = Beginning(
            policies={role.name: _own_copy(role.source.policy) for role in own},
            cast=None if wanted.cast is None else cast,
            num_steps=wanted.num_steps,
            schedule=Sync() if isinstance(wanted.schedule, Async) else wanted.schedule,
            acting=acting,
            ahead=self.ahead,
            weight_bytes=sum(Weights.of(role.source).nbytes for role in own),
            recorded=self._heard is not None,
            sharding=wanted.sharding,
        )
        if self._heard is not None:
            self._heard.begin(number)
        self._sent[number] = {}
        return process.begin(said, self.env.settings.timeout_s)

    def settle(self, number: int, error: Exception) -> None:
        """Does what `on_fault` says of an actor that failed."""
        match self.env.settings.on_fault:
            case "raise":
                raise error
            case "drop":
                self._go_on_without(number, error)
            case _:
                self._restart(number, error)

    def _restart(self, number: int, error: Exception) -> None:
        """Another process takes the rows over, whose episodes begin anew, as long as the budget lasts."""
        most = self.env.settings.max_restarts
        while self.restarts[number] < most:
            self.restarts[number] += 1
            count = self.restarts[number]
            _LOG.warning("%s; restart %d of %d", text_of(error), count, most)
            try:
                self.env.replace(number)
                self._begin(number)
                self.publish(number)
                left, self.under_way[number] = self.under_way[number], 0
                for _ in range(left):
                    self.ask(number)
                return
            except EnvError as again:
                error = again
        error.add_note(f"shoal: after {most} restarts, as max_restarts allows")
        raise error

    def _go_on_without(self, number: int, error: Exception) -> None:
        self._drop(number)
        if not self.numbers:
            error.add_note("shoal: it was the last actor; all others were dropped")
            raise error
        left = int((~self.env.dropped).sum())
        _LOG.warning("%s; it is dropped, and %d rows go on", text_of(error), left)

    def _drop(self, number: int) -> None:
        self.env.dropped[self.env.rows[number]] = True
        self.env.processes[number].end()


def _own_copy(policy: nn.Module) -> nn.Module:
    """A policy as it travels: on the CPU, its parameters apart, without gradients.

    Raises:
        ConfigError: it cannot be pickled.
    """
    own = copy.deepcopy(policy).cpu().requires_grad_(requires_grad=False)
    for parameter in own.parameters():
        parameter.data = parameter.data.clone()
    try:
        pack(own)
    except Exception as error:
        raise ConfigError(
            f"the policy cannot be sent to actors: {type(error).__name__}: {text_of(error)}; set actors=0, or make it "
            "of what can be pickled"
        ) from error
    return own
