"""What a sweep's directory says of one that is over, as it is read again."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any, cast

from shoal.experiment.sweep.confirm import Verdict
from shoal.experiment.sweep.outcome import SUMMARY
from shoal.run.reading import MANIFEST_BYTES, read_json
from shoal.types import ConfigError

if TYPE_CHECKING:
    from pathlib import Path


def read_verdict(folder: Path, count: int) -> tuple[int | None, Verdict] | None:
    """The winner's number and whether it was confirmed; None where the sweep is not over.

    Args:
        folder: the sweep's directory.
        count: of its trials; a summary of fewer is of before it went on.

    Raises:
        ConfigError: the summary is damaged.
    """
    path = folder / SUMMARY
    try:
        told = cast("dict[str, Any]", read_json(path, at_most=MANIFEST_BYTES))
        if len(told["trials"]) != count:
            return None
        number, confirmed = told["best_trial"], told["confirmed"]
        if not isinstance(number, int | None) or not isinstance(confirmed, bool | None):
            raise ValueError("the winner is no trial")
        winner = tuple(map(_counted, told.get("winner_seeds", [])))
        base = tuple(map(_counted, told.get("base_seeds", [])))
        p = told.get("p")
        return number, Verdict(
            confirmed,
            str(told["verdict"]),
            winner,
            base,
            None if p is None else float(p),
        )
    except FileNotFoundError:
        return None
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise ConfigError(
            f"{path} is damaged ({type(error).__name__}: {error}); delete it, and the sweep's command writes it again"
        ) from error


def _counted(value: object) -> float:
    """What counted on a seed; infinite where the threshold was not met."""
    return math.inf if value is None else float(cast("float", value))
