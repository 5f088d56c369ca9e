"""States of actors when a run is saved: asked for in the middle of what they do, and not waited for without end."""

from __future__ import annotations

import logging
import time
from math import inf
from typing import TYPE_CHECKING, Any, cast

import numpy as np

from shoal.types import ConfigError, text_of

if TYPE_CHECKING:
    from collections.abc import Mapping

    from shoal.stream.actors.pool import ActorPool

_LOG = logging.getLogger(__name__)
LATE_S = 3.0
"""An actor that is in one step for longer is late: the state counts that it kept by itself."""
KEPT_S = 1.0
"""What looking for that may take."""


class States:
    """Those of all actors at one moment; all are asked before the first one is waited for."""

    def __init__(self, pool: ActorPool) -> None:
        """Asks them."""
        self._pool, self._last = pool, pool.ending.asked
        self._late_s = time.monotonic() + LATE_S
        self._tasks = {number: self._ask(number) for number in pool.numbers}

    def of(self, number: int) -> dict[str, Any] | None:
        """An actor's; empty where it is not known, None where the actor was dropped meanwhile.

        Raises:
            EnvError: as of a rollout; where the run is to end, it is said instead.
        """
        pool = self._pool
        timeout_s = pool.env.settings.timeout_s
        while number in pool.numbers:
            process = pool.env.processes[number]
            try:
                found = process.state(self._tasks[number], timeout_s, self._late_s)
                if found is None:
                    found = self._of_late(number, timeout_s)
            except Exception as error:  # the environment's own too
                if self._last:
                    _LOG.warning(
                        "%s; when the run goes on, its episodes begin anew",
                        text_of(error),
                    )
                    return {}
                pool.settle(number, error)
                if number in pool.numbers:
                    self._tasks[number] = self._ask(number)
                continue
            return found
        return None

    def _of_late(self, number: int, timeout_s: float) -> dict[str, Any]:
        """What an actor kept before its step; where it kept nothing, the step is waited for if the run goes on."""
        process = self._pool.env.processes[number]
        process.late = self._last
        found = process.kept(KEPT_S)
        if found is not None:
            if self._last:
                said = "%s is in one step for more than %g s; saved is what came before, which it goes on from"
                _LOG.warning(said, process, LATE_S)
            return found
        if self._last:
            said = "%s is in one step for more than %g s; when the run goes on, its episodes begin anew"
            _LOG.warning(said, process, LATE_S)
            return {}
        found = process.state(self._tasks[number], timeout_s, inf)
        assert found is not None
        return found

    def _ask(self, number: int) -> int:
        return self._pool.env.processes[number].ask_state(last=self._last)


def state_of(pool: ActorPool) -> dict[str, Any]:
    """All that `restore_to` needs: of every actor's rows, of who acts in them, and of what it is in the middle of."""
    states = States(pool)
    found = {str(number): states.of(number) for number in pool.numbers}
    epsilon = {
        role.name: role.epsilon for role in pool.roles if role.epsilon is not None
    }
    return {
        "actors": found,
        "weights": apart(found),
        "restarts": list(pool.restarts),
        "epsilon": epsilon,
    }


def restore_to(pool: ActorPool, state: Mapping[str, Any]) -> list[str]:
    """Has actors continue from `state`; a sentence for each episode that could not be continued.

    Raises:
        ConfigError: it is of more or fewer actors.
    """
    saved, env = state["actors"], pool.env
    if len(state["restarts"]) != len(env.processes):
        raise ConfigError(
            f"the checkpoint is of {len(state['restarts'])} actors, and these rows have {len(env.processes)}"
        )
    lost: list[str] = []
    for number in pool.numbers:
        own = saved.get(str(number))
        pool.restarts[number] = int(state["restarts"][number])
        if own is None:
            pool.drop(number)
        elif own:
            whole = together(own, state.get("weights", {}))
            # Rows in Python take every step of their episodes again, and say nothing until they have.
            timeout_s = env.settings.timeout_s * (1 + steps_in(whole["env"]))
            lost += env.processes[number].restore(whole, timeout_s)
            pool.forget(number)
        else:
            rows = env.rows[number]
            pool.begin_anew(number)
            lost.append(
                f"rows {rows.start}..{rows.stop - 1}: their actor was in a step when the run was saved, "
                "so their episodes begin anew"
            )
    for role in pool.roles:
        if role.name in state.get("epsilon", {}):
            role.explore(state["epsilon"][role.name])
    return lost


def apart(states: Mapping[str, dict[str, Any] | None]) -> dict[str, dict[str, Any]]:
    """Takes the weights that actors act with out of their states, and leaves the versions: each is saved once.

    Returns:
        By role and version.
    """
    every: dict[str, dict[str, Any]] = {}
    for state in states.values():
        if not state:
            continue
        for name, own in state.get("weights", {}).items():
            version = str(own["version"])
            every.setdefault(name, {})[version] = own
            state["weights"][name] = version
    return every


def together(
    state: Mapping[str, Any], weights: Mapping[str, Mapping[str, Any]]
) -> dict[str, Any]:
    """An actor's state with the weights that `apart` took out."""
    versions = state.get("weights", {})
    if not versions:
        return dict(state)
    return {**state, "weights": {n: weights[n][v] for n, v in versions.items()}}


def steps_in(rows: Any) -> int:
    """Steps that the episodes in a state of rows have come to, of all rows together."""
    if not isinstance(rows, dict):
        return 0
    state = cast("dict[str, Any]", rows)
    own = int(np.sum(state["lengths"])) if "lengths" in state else 0
    return own + sum(steps_in(part) for part in state.values())
