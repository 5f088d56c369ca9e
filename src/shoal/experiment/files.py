"""Configuration files: completed with every default, and trained."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from shoal.experiment.experiment import Experiment
from shoal.experiment.training import start
from shoal.run.origin import Origin

if TYPE_CHECKING:
    from collections.abc import Mapping

    from shoal.experiment.training import Result


def complete(
    saved: Mapping[str, Any], *, trust: bool = False, **changes: Any
) -> dict[str, Any]:
    """The configuration with every default filled in and `changes` of the run, as a run of it would hold it."""
    whole = Experiment.of_file(saved, given=changes, trust=trust).to_file()
    return whole | Origin.of_file(saved, Path("config.toml")).table()


def start_from(
    saved: Mapping[str, Any], *, panel: str = "auto", trust: bool = False
) -> Result:
    """A new run of a configuration as TOML holds it."""
    return start(Experiment.of_file(saved, trust=trust), panel=panel)


@dataclass(frozen=True, slots=True)
class FileTrainer:
    """What trains configuration files for `compare`."""

    trust: bool
    """Whether what they name is imported, whoever wrote it."""

    def complete(self, saved: Mapping[str, Any], /, **changes: Any) -> dict[str, Any]:
        """As `complete`."""
        return complete(saved, trust=self.trust, **changes)

    def start_from(self, saved: Mapping[str, Any], /) -> Result:
        """As `start_from`."""
        return start_from(saved, trust=self.trust)
