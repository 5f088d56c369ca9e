"""Configuration files: completed with every default, and trained."""

from __future__ import annotations

from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from shoal.experiment.experiment import Experiment
from shoal.experiment.training import start
from shoal.experiment.trust import check_alone
from shoal.fleet.settings import check_installed
from shoal.run.origin import Origin
from shoal.types import ConfigError
from shoal.types.arguments import path_of
from shoal.types.text import printable

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from shoal.experiment.result import Result
    from shoal.report.compare import Missing


def complete(
    saved: Mapping[str, Any], *, trust: bool = False, **changes: Any
) -> dict[str, Any]:
    """The configuration with every default filled in and `changes` of the run, as a run of it would hold it."""
    check_alone(saved, trust=trust, given=[*changes])
    whole = Experiment.of_file(saved, given=changes, trust=trust).to_file()
    return whole | Origin.of_file(saved, Path("config.toml")).table()


def start_from(
    saved: Mapping[str, Any], *, panel: str = "auto", trust: bool = False
) -> Result:
    """A new run of a configuration as TOML holds it."""
    check_alone(saved, trust=trust)
    return start(Experiment.of_file(saved, trust=trust), panel=panel)


@dataclass(frozen=True, slots=True)
class FileTrainer:
    """What trains configuration files for `compare`."""

    trust: bool
    """Whether what they name is imported, whoever wrote it."""

    def complete(self, saved: Mapping[str, Any], /, **changes: Any) -> dict[str, Any]:
        """As `complete`."""
        return complete(saved, trust=self.trust, **changes)

    def train_all(self, missing: Sequence[Missing], /) -> list[Path]:
        """One after another."""
        paths: list[Path] = []
        for one in missing:
            print(f"training {printable(one.what)}", flush=True)
            paths.append(start_from(one.config, trust=self.trust).path)
        return paths


@dataclass(frozen=True, slots=True)
class FleetTrainer:
    """What trains configuration files for `compare` on a fleet, as many at a time as it has room for."""

    trust: bool
    fleet: str
    """local, auto or ray://HOST:PORT."""
    cpus: float = 1.0
    """Of each run."""
    retries: int = 2
    """Of a run that fails or is lost."""
    wait_s: float = 60.0
    """Seconds until the first of them must have room."""

    def complete(self, saved: Mapping[str, Any], /, **changes: Any) -> dict[str, Any]:
        """As `complete`; run directories by their whole paths, and as many threads as a run has CPUs."""
        whole = complete(saved, trust=self.trust, **changes)
        if whole.get("fleet") is not None:
            raise ConfigError(
                "the configuration has a fleet of its own, and whole runs are trained on one here; take fleet out of it"
            )
        whole["run_dir"] = str(path_of("run_dir", whole["run_dir"]).absolute())
        whole["num_threads"] = whole["num_threads"] or max(1, int(self.cpus))
        return whole

    def train_all(self, missing: Sequence[Missing], /) -> list[Path]:
        """Side by side.

        Raises:
            ConfigError: there is no room, or a configuration cannot work.
            EnvError: a run failed or was lost as often as may be; the others are finished.
        """
        if not missing:
            return []
        check_installed()
        from shoal.fleet.cluster import Cluster
        from shoal.fleet.trainings import Job, run_all

        jobs = [
            Job(printable(one.what), _train_quietly, (one.config, self.trust))
            for one in missing
        ]
        with closing(Cluster(self.fleet, f"{len(jobs)} runs to compare")) as cluster:
            done = run_all(
                cluster, jobs, cpus=self.cpus, retries=self.retries, wait_s=self.wait_s
            )
        return [Path(path) for path in done]


def _train_quietly(saved: dict[str, Any], trust: bool) -> str:  # noqa: FBT001
    """Trains on a node of a fleet; the run's path, on the file system that all share."""
    return str(start_from(saved, panel="none", trust=trust).path)
