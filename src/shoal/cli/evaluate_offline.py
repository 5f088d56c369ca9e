"""`shoal evaluate-offline`: what a trained policy would return, estimated from a log."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

import tyro

from shoal.cli.arguments import add_here, look_here, parse


@dataclass(frozen=True, slots=True)
class Given:
    """Options of `evaluate-offline`."""

    run: Annotated[tyro.conf.Positional[str], tyro.conf.arg(metavar="RUN")]
    """Run directory, or a directory of runs (the newest is used)."""
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
    confidence: float = 0.95
    """Of the intervals."""
    rate_hz: float | None = None
    """Steps a second that the log must have."""
    units: tuple[str, ...] = ()
    """Units of each number of an observation that the log must have."""
    seed: int = 0
    """Of resamples and features."""
    run_dir: str = "runs"
    """Directory in which runs are searched for as well."""
    env: str | None = None
    """The environment, as `package.module:Class`, where the run was given an object."""
    policy: str | None = None
    """The policy, as `package.module:Class`, where the run was given an object."""
    tag: Literal["", "best", "deployed"] = ""
    """Checkpoint to evaluate: the newest, `best`, or `deployed` (see `shoal stage`)."""
    trust: bool = False
    """Import and run what the file names (an environment, a policy, an algorithm), though nothing shows that you
    wrote it."""


def main(arguments: list[str], about: str) -> int:
    """Estimates; the exit status."""
    given = parse(Given, arguments, command="evaluate-offline", about=about)
    look_here(given.env, given.policy)
    if given.trust:
        add_here()
    from shoal.deploy.offline import Asked
    from shoal.experiment.agent import load
    from shoal.experiment.offline_score import evaluate_offline

    agent = load(
        given.run,
        run_dir=given.run_dir,
        policy=given.policy,
        factory=given.env,
        tag=given.tag,
        trust=given.trust,
    )
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
        asked=Asked(values=given.values, confidence=given.confidence, seed=given.seed),
    )
    print(score)
    print(f"go by {score.best}" if score.reliable else "there is no estimate to go by")
    return 0
