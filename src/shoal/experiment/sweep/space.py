"""Search spaces: which settings are varied, over which values, and how a value is drawn."""

from __future__ import annotations

import json
import math
from dataclasses import dataclass
from difflib import get_close_matches
from typing import TYPE_CHECKING, Any, cast

from shoal.experiment.options import CHANGEABLE, PLACES
from shoal.experiment.settings import build, flat, whole_tree
from shoal.experiment.sweep.kinds import accepts, hint_of, is_number, is_whole, nested
from shoal.experiment.sweep.settings import check_names
from shoal.types import ConfigError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from optuna.trial import Trial

    from shoal.experiment.experiment import Experiment

KEPT = (
    *CHANGEABLE,
    *PLACES,
    "env",
    "algo",
    "seed",
    "policy",
    "init_from",
    "data",
    "actors",
    "agents",
)
"""Settings that all trials share, or they could not be compared."""
TABLES = ("placement", "remote", "population")
DIGITS = 4
"""Significant digits of a drawn number."""


@dataclass(frozen=True, slots=True)
class Range:
    """One table [space.NAME] as it is written."""

    low: float | None = None
    """Smallest value."""
    high: float | None = None
    """Largest value."""
    log: bool = False
    """Draw the logarithm evenly."""
    log1m: bool = False
    """Draw the logarithm of 1 - x evenly, for what lies near 1, such as gamma."""
    step: float | None = None
    """Only low, low + step, ..."""
    factor: int | None = None
    """Only low, low * factor, low * factor^2, ..."""
    choices: tuple[Any, ...] = ()
    """Only these values."""


@dataclass(frozen=True, slots=True)
class Parameter:
    """A setting that is varied, checked."""

    name: str
    """Dotted, such as network.hidden."""
    range: Range
    whole: bool
    """Whether it is a whole number."""

    @property
    def key(self) -> str:
        """How the study calls it."""
        return f"1 - {self.name}" if self.range.log1m else self.name

    @property
    def values(self) -> list[object]:
        """The grid of a factor, or the choices; empty where it is a range."""
        own = self.range
        if own.choices:
            return list(own.choices)
        if own.factor is None or own.low is None or own.high is None:
            return []
        count = math.floor(math.log(own.high / own.low, own.factor) + 1e-9)
        grid = [own.low * own.factor**power for power in range(count + 1)]
        return [int(value) if self.whole else value for value in grid]

    def ends(self) -> list[tuple[str, object]]:
        """The values that must be possible, by what they are called in the file."""
        if self.range.choices:
            return [("choices", value) for value in self.range.choices]
        low, high = self.range.low, self.range.high
        named = [("low", low), ("high", self.values[-1] if self.values else high)]
        if not self.whole:
            return [(name, value) for name, value in named]
        return [(name, int(cast("float", value))) for name, value in named]

    def draw(self, trial: Trial) -> object:
        """What the study draws for a trial, or has drawn for it."""
        own = self.range
        if own.choices:
            return trial.suggest_categorical(self.key, [_label(x) for x in own.choices])
        if own.factor is not None:
            return trial.suggest_int(self.key, 0, len(self.values) - 1)
        assert own.low is not None
        assert own.high is not None
        if self.whole:
            low, high, step = int(own.low), int(own.high), int(own.step or 1)
            high = low + (high - low) // step * step
            return trial.suggest_int(self.key, low, high, log=own.log, step=step)
        if own.log1m:
            low, high = _rounded(1 - own.high), _rounded(1 - own.low)
            return trial.suggest_float(self.key, low, high, log=True)
        if own.step is None:
            return trial.suggest_float(self.key, own.low, own.high, log=own.log)
        count = math.floor((own.high - own.low) / own.step + 1e-9)
        high = own.low + count * own.step
        return trial.suggest_float(self.key, own.low, high, step=own.step)

    def value_of(self, drawn: object) -> object:
        """The setting's value for what the study has drawn."""
        own = self.range
        if own.choices:
            labels = [_label(value) for value in own.choices]
            return own.choices[labels.index(str(drawn))]
        if own.factor is not None:
            return self.values[int(cast("int", drawn))]
        if self.whole:
            return int(cast("int", drawn))
        number = _rounded(float(cast("float", drawn)))
        return round(1 - number, 12) if own.log1m else number

    def drawn_for(self, value: object) -> object | None:
        """What the study would have drawn for a value; None where the space lacks it."""
        own = self.range
        if own.choices or own.factor is not None:
            for place, known in enumerate(self.values):
                if _label(known) == _label(value):
                    return _label(known) if own.choices else place
            return None
        low, high = own.low, own.high
        if not is_number(value) or low is None or high is None:
            return None
        number = cast("float", value)
        if not low <= number <= high:
            return None
        if own.step is not None and not ((number - low) / own.step).is_integer():
            return None
        if self.whole:
            return int(number)
        return _rounded(1 - number) if own.log1m else float(number)


def _label(value: object) -> str:
    return json.dumps(value)


def _rounded(number: float) -> float:
    return float(f"{number:.{DIGITS}g}")


def changes_of(
    space: Sequence[Parameter], drawn: Mapping[str, object]
) -> dict[str, object]:
    """The values of settings, by dotted names, of what a trial has drawn."""
    return {one.name: one.value_of(drawn[one.key]) for one in space}


def changed(base: Experiment, values: Mapping[str, object]) -> Experiment:
    """An experiment with these values, by dotted names; ConfigError where they cannot work."""
    return base.changed(**nested(values))


def read_space(
    base: Experiment, tables: object, inferred: Mapping[str, Range]
) -> list[Parameter]:
    """The search space of a file: its tables [space.NAME], and the ranges that were inferred.

    Raises:
        ConfigError: no space, no such setting (with the nearest ones), or a range that cannot work, in words.
    """
    if not isinstance(tables, dict):
        raise ConfigError(
            f"space must hold tables, [space.learning_rate] with low and high below, got {tables!r}"
        )
    ranges = dict(inferred)
    for name, table in flat_tables(cast("dict[str, object]", tables)).items():
        if name in inferred:
            raise ConfigError(
                f"{name} stands in search, which infers its range, and in [space.{name}]; leave one of them out"
            )
        try:
            check_names(table, Range)
            ranges[name] = build(Range, table)
        except ConfigError as error:
            raise ConfigError(f"[space.{name}]: {error}") from error
    if not ranges:
        raise ConfigError(
            'the file has no search space; name settings in [sweep], such as search = ["learning_rate"], or give '
            "ranges: [space.learning_rate] with low = 1e-4, high = 1e-2 and log = true"
        )
    return [_checked(base, name, own) for name, own in ranges.items()]


def flat_tables(tables: Mapping[str, object], at: str = "") -> dict[str, Any]:
    """The tables [space.NAME] by dotted names; [space.network.hidden] is one of network.hidden."""
    found: dict[str, Any] = {}
    known = set(Range.__dataclass_fields__)
    for name, table in tables.items():
        if not isinstance(table, dict):
            raise ConfigError(
                f"[space.{at}{name}] must be a table with low and high, or choices, got {table!r}"
            )
        inner = cast("dict[str, object]", table)
        below = [value for value in inner.values() if isinstance(value, dict)]
        if below and not known & set(inner):
            found |= flat_tables(inner, f"{at}{name}.")
        else:
            found[f"{at}{name}"] = inner
    return found


def check_name(base: Experiment, name: str, where: str) -> None:
    """ConfigError unless it is a setting that may differ between trials."""
    known = flat(whole_tree(base.options)) | flat(whole_tree(base.config))
    if name.startswith("env_kwargs"):
        raise ConfigError(
            f"{where}: the environment's keywords decide the task, and trials of one task are compared; search a "
            "setting of training"
        )
    if name not in known:
        near = get_close_matches(name, known, n=3)
        meant = f"did you mean {', '.join(near)}?" if near else "`shoal train --help`"
        if not near:
            meant += " lists them"
        raise ConfigError(f"{where}: no setting {name!r}; {meant}")
    if name in KEPT or name.partition(".")[0] in TABLES:
        raise ConfigError(
            f"{where}: {name} is the same for all trials of a sweep, which could not be compared otherwise; search a "
            "setting of the algorithm, or num_envs"
        )


def _checked(base: Experiment, name: str, own: Range) -> Parameter:
    """A parameter; ConfigError for a range that cannot work."""
    where = f"[space.{name}]"
    check_name(base, name, where)
    hint = hint_of(base, name)
    if own.choices:
        if {own.low, own.high, own.step, own.factor} != {None} or own.log or own.log1m:
            raise ConfigError(f"{where}: choices stand alone, without low and high")
        if len({_label_or_refuse(where, value) for value in own.choices}) < 2:
            raise ConfigError(f"{where}: choices need at least two different values")
    else:
        _check_range(where, name, own, hint)
    made = Parameter(name, own, whole=not own.choices and is_whole(hint))
    for said, value in made.ends():
        if why := accepts(base, name, value):
            raise ConfigError(f"{where} {said}: {why}")
    return made


def _label_or_refuse(where: str, value: object) -> str:
    try:
        return _label(value)
    except TypeError as error:
        raise ConfigError(f"{where}: {value!r} cannot be a choice") from error


def _check_range(where: str, name: str, own: Range, hint: object) -> None:
    """ConfigError for bounds that are none."""
    low, high = own.low, own.high
    if low is None or high is None:
        raise ConfigError(f"{where} needs low and high, or choices")
    if not is_number(hint=hint):
        raise ConfigError(f"{where}: {name} is no number; give choices")
    if not (math.isfinite(low) and math.isfinite(high) and low < high):
        raise ConfigError(
            f"{where}: low must be below high, both finite, got {low:g} and {high:g}"
        )
    _check_scale(where, own, low, high)
    if is_whole(hint):
        if own.log1m:
            raise ConfigError(f"{where}: {name} is a whole number; leave log1m out")
        for said, value in (("low", low), ("high", high), ("step", own.step or 1.0)):
            if not float(value).is_integer():
                raise ConfigError(
                    f"{where}: {name} is a whole number, and {said} is {value:g}"
                )


def _check_scale(where: str, own: Range, low: float, high: float) -> None:
    """ConfigError where bounds do not fit how values between them are drawn."""
    ways = [own.log, own.log1m, own.step is not None, own.factor is not None]
    if sum(ways) > 1:
        raise ConfigError(f"{where}: give one of log, log1m, step and factor")
    if (own.log or own.factor is not None) and low <= 0:
        raise ConfigError(
            f"{where}: low must be above 0 on a logarithmic scale, got {low:g}; raise it, or leave log out"
        )
    if own.log1m and high >= 1:
        raise ConfigError(
            f"{where}: high must be below 1 with log1m, got {high:g}; 0.999, say"
        )
    if own.step is not None and not 0 < own.step <= high - low:
        raise ConfigError(
            f"{where}: step must be above 0 and at most high - low, got {own.step:g}"
        )
    if own.factor is not None and (own.factor < 2 or low * own.factor > high):
        raise ConfigError(
            f"{where}: factor must be at least 2, and low * factor at most high, got {own.factor}"
        )


def as_tables(space: Sequence[Parameter]) -> dict[str, Any]:
    """The space as a file holds it, with what was inferred spelled out."""
    found: dict[str, Any] = {}
    for one in space:
        plain = {
            name: getattr(one.range, name)
            for name in Range.__dataclass_fields__
            if getattr(one.range, name) not in (None, False, ())
        }
        if one.range.choices:
            plain["choices"] = list(one.range.choices)
        elif one.range.low == 0:
            plain["low"] = 0.0
        found[one.name] = plain
    return nested(found)
