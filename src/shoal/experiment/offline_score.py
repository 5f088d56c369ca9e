"""Offline evaluation of a run's policy: what it would return, from a log that others played."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from shoal.deploy.offline import Asked
from shoal.deploy.offline import evaluate_offline as evaluate
from shoal.deploy.progress import Progress
from shoal.experiment.agent import Agent, loaded
from shoal.experiment.controls import check_controls
from shoal.memory.log_checks import Expected, folder_of
from shoal.types import ConfigError
from shoal.types.arguments import flag_of, number_of
from shoal.types.calls import worded

if TYPE_CHECKING:
    from collections.abc import Sequence

    from shoal.deploy.offline import OfflineScore


@worded()
def evaluate_offline(
    agent: Agent | str | Path,
    data: str | Path,
    *,
    behavior: Agent | str | Path | None = None,
    gamma: float | None = None,
    greedy: bool = True,
    rate_hz: float | None = None,
    units: Sequence[str] = (),
    asked: Asked | None = None,
) -> OfflineScore:
    """Estimates of the mean discounted return of a policy's episodes, from a log, with intervals.

    What takes longer than five seconds says on stderr how far it is.

    Args:
        agent: a loaded policy, or its run.
        data: the log, a data set in Minari's layout.
        behavior: the policy that played the log, drawing its actions, or its run; None: as the log says.
        gamma: discount; None: the run's own, 0.99 where it has none; of costs, which limits are on the sum of, 1.
        greedy: whether the policy would take the mode of its distribution.
        rate_hz: steps a second that the log must have.
        units: of each number of an observation, which the log must have.
        asked: confidence, seed, whether values are fitted, and whether costs are estimated instead of rewards.

    Raises:
        ConfigError: a log of other spaces, units or rates, or damaged; a run of other spaces; no way to any estimate.
    """
    agent = loaded("agent", agent)
    check_controls(agent.spec, "logs are")
    acted = None if behavior is None else loaded("behavior", behavior)
    if acted is not None:
        _check_same(agent, acted)
    asked = asked or Asked()
    own = 1.0 if asked.costs else getattr(agent.config, "gamma", 0.99)
    known = own if gamma is None else gamma
    folder = folder_of("evaluate_offline", data)
    known = number_of("gamma", known, 0.0, 1.0)
    if rate_hz is not None:
        rate_hz = number_of("rate_hz", rate_hz, 1e-9, 1e12)
    greedy = flag_of("greedy", greedy)
    expected = Expected(rate_hz, units)
    wanted = replace(asked, gamma=known, greedy=greedy, expected=expected)
    played = None if acted is None else acted.policy
    progress = Progress("off-policy evaluation")
    return evaluate(
        agent.policy, agent.spec, folder, wanted, behavior=played, progress=progress
    )


def _check_same(agent: Agent, acted: Agent) -> None:
    ours, theirs = (
        (one.spec.observation_space, one.spec.action_space) for one in (agent, acted)
    )
    if ours != theirs:
        raise ConfigError(
            f"the policy that acted sees {theirs[0]} and does {theirs[1]}, the one that is asked about sees {ours[0]} "
            f"and does {ours[1]}: no log is of both"
        )
