"""`shoal evaluate-offline`: what a trained policy would return, estimated from a log."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro

from shoal.cli.arguments import parse
from shoal.cli.loading import OfPolicy, agent_of


@dataclass(frozen=True, slots=True, kw_only=True)
class Given(OfPolicy):
    """Options of `evaluate-offline`."""

    data: Annotated[tyro.conf.Positional[Path], tyro.conf.arg(metavar="DATA")]
    """The log: a data set in Minari's layout, such as `shoal record --sample` writes."""
    behavior: str | None = None
    """The run whose policy played the log, drawing its actions; default: as the log says."""
    gamma: float | None = None
    """Discount; default: the run's own."""
    sample: bool = False
    """Of the policy that draws its actions, instead of the greedy one."""
    values: bool = True
    """Fit values of states and actions, which fitted Q evaluation and doubly robust estimates need."""
    costs: bool = False
    """Estimate what episodes cost, from the `cost` among the log's infos, instead of what they return."""
    confidence: float = 0.95
    """Of the intervals."""
    rate_hz: float | None = None
    """Steps a second that the log must have."""
    units: tuple[str, ...] = ()
    """Units of each number of an observation that the log must have."""
    seed: int = 0
    """Of resamples and features."""


def main(arguments: list[str], about: str) -> int:
    """Estimates; the exit status."""
    given = parse(Given, arguments, command="evaluate-offline", about=about)
    from shoal.deploy.offline import Asked
    from shoal.experiment.agent import load
    from shoal.experiment.offline_score import evaluate_offline

    agent = agent_of(given)
    acted = None
    if given.behavior is not None:
        acted = load(
            given.behavior,
            run_dir=given.run_dir,
            factory=given.env,
            trust=given.trust,
        )
    score = evaluate_offline(
        agent,
        given.data,
        behavior=acted,
        gamma=given.gamma,
        greedy=not given.sample,
        rate_hz=given.rate_hz,
        units=given.units,
        asked=Asked(
            values=given.values,
            confidence=given.confidence,
            seed=given.seed,
            costs=given.costs,
        ),
    )
    if given.costs:
        print("what an episode costs, in the place of what it returns:")
    print(score)
    print(f"go by {score.best}" if score.reliable else "there is no estimate to go by")
    return 0
