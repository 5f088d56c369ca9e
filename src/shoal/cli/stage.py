"""`shoal stage`: how far a policy has come towards the real system; measures a stage, signs it, goes back."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from shoal.cli.arguments import parse
from shoal.cli.loading import OfPolicy, agent_of
from shoal.cli.statuses import MET, MISSED
from shoal.types import ConfigError


@dataclass(frozen=True, slots=True, kw_only=True)
class Given(OfPolicy):
    """Options of `stage`."""

    enter: str | None = None
    """Enter this stage, or measure it anew: simulate, replay, shadow, canary or full."""
    data: Path | None = None
    """What it is measured by: for replay a data set in Minari's layout, for shadow and canary their log."""
    criteria: Path | None = None
    """TOML file with the numbers that must hold; default: see the documentation."""
    sign: str | None = None
    """Sign the current stage by this name."""
    rollback: str | None = None
    """Withdraw the newest stage, by this name; needs --reason."""
    reason: str = ""
    """Why."""


def main(arguments: list[str], about: str) -> int:
    """Shows, measures, signs or goes back; 1 where criteria that were measured do not hold."""
    given = parse(Given, arguments, command="stage", about=about)
    if sum(x is not None for x in (given.enter, given.sign, given.rollback)) > 1:
        raise ConfigError("one of --enter, --sign and --rollback at a time")
    if given.enter is None and (given.data or given.criteria):
        raise ConfigError("--data and --criteria belong to --enter STAGE")
    if bool(given.reason) != (given.rollback is not None):
        raise ConfigError(
            'a rollback has a name and a reason: --rollback "A. NAME" --reason TEXT'
        )
    if given.rollback is not None:
        return _go_back(given)
    from shoal.experiment.staging import stages

    agent = agent_of(given)
    found = stages(agent, criteria=given.criteria)
    status = MET
    if given.enter is not None:
        entry = found.enter(given.enter, given.data)
        if entry.criteria and not entry.holds:
            status = MISSED
    if given.sign is not None:
        found.sign(given.sign)
    print(found)
    return status


def _go_back(given: Given) -> int:
    """Withdraws a stage by the run's file alone, so that nothing else need be whole."""
    from shoal.deploy.stages.ladder import roll_back
    from shoal.deploy.stages.telling import told
    from shoal.run.directory import find
    from shoal.run.stage_file import read_stages

    folder = find(given.run, Path(given.run_dir)).path
    assert given.rollback is not None
    print(roll_back(folder, given.rollback, given.reason))
    stages = read_stages(folder)
    print("\n".join(told(stages, stages.entries[-1].policy)))
    return MET
