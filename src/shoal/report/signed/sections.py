"""The sections of a report, each as blocks; what there is nothing to say of is left out."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, cast

import numpy as np

from shoal.report.html import applied, flat, shown
from shoal.report.signed.content import (
    Heading,
    Items,
    Picture,
    Plain,
    Signatures,
    Table,
    Text,
    Video,
)
from shoal.report.signed.money import money
from shoal.report.signed.untested import cost_limit, stated_threshold, untested
from shoal.report.statistics import bootstrap, iqm

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from numpy.typing import NDArray

    from shoal.report.signed.content import Block
    from shoal.report.signed.gather import Told
    from shoal.report.signed.words import Words
    from shoal.run.stage_file import Criterion, Entry, Signature

MOST_ROWS = 40
"""Interventions and evaluations that are shown."""


def summary(told: Sequence[Told], words: Words) -> list[Block]:
    """What came of it, in sentences."""
    said = [Heading(words("summary")), *map(Text, _verdict(told, words))]
    return cast("list[Block]", said)


def _verdict(told: Sequence[Told], words: Words) -> list[str]:
    greedy = [one.number("greedy_return") for one in told]
    known = np.array([score for score in greedy if score is not None])
    threshold = told[0].number("threshold")
    said: list[str] = []
    stated = stated_threshold(told)
    if threshold is None and stated is not None:
        name = "stage_threshold" if stated.holds else "stage_threshold_not"
        numbers = {"bound": shown(stated.bound), "mean": f"{stated.measured:.4g}"}
        said.append(words(name, **numbers))
    elif threshold is None:
        said.append(words("no_threshold"))
    else:
        count = int((known >= threshold).sum())
        parts = {"threshold": shown(threshold), "count": count, "all": len(told)}
        said.append(words("reached", **parts))
    if not len(known):
        return [*said, words("not_evaluated")]
    if len(known) == 1:
        one = next(one for one in told if one.number("greedy_return") is not None)
        std = one.number("greedy_std")
        parts = {"mean": f"{known[0]:.4g}", "std": "-" if std is None else f"{std:.3g}"}
        return [*said, words("greedy_one", **parts), *_costs(told, words)]
    over = words("greedy_over", **_interval(known))
    return [*said, over, *_costs(told, words)]


def _interval(values: NDArray[np.float64]) -> dict[str, str]:
    """The interquartile mean of several seeds, and its interval."""
    low, high = bootstrap(values[None], np.random.Generator(np.random.PCG64(0)))
    return {
        "mean": f"{iqm(values):.4g}",
        "low": f"{low:.4g}",
        "high": f"{high:.4g}",
    }


def _costs(told: Sequence[Told], words: Words) -> list[str]:
    """What greedy episodes cost, and whether that is below the limit; nothing where steps have no cost."""
    costs = [one.number("greedy_cost") for one in told]
    known = np.array([cost for cost in costs if cost is not None])
    if not len(known):
        return []
    worst = [one.number("greedy_cost_worst") for one in told]
    most = max((cost for cost in worst if cost is not None), default=np.nan)
    parts = {"worst": f"{most:.4g}"}
    if len(known) == 1:
        said = [words("greedy_cost_one", mean=f"{known[0]:.4g}", **parts)]
    else:
        said = [words("greedy_cost_over", **_interval(known), **parts)]
    limit = cost_limit(told)
    if limit is not None:
        met = int((known <= limit).sum())
        counts = {"limit": shown(limit), "count": met, "all": len(told)}
        said.append(words("cost_limit_met", **counts))
    return said


def task(told: Sequence[Told], words: Words) -> list[Block]:
    """What was to be learned."""
    config = told[0].config
    parameters = ", ".join(
        f"{name.removeprefix('env_kwargs.')} = {shown(value)}"
        for name, value in config.items()
        if name.startswith("env_kwargs.")
    )
    rows = [
        (words("environment"), shown(config.get("env"))),
        (words("parameters"), parameters or words("as_registered")),
        (words("algorithm"), shown(config.get("algo"))),
        (words("threshold"), shown(told[0].number("threshold"))),
        (words("budget"), shown(config.get("total_timesteps"))),
    ]
    limit = cost_limit(told)
    if limit is not None:
        rows.append((words("cost_limit"), shown(limit)))
    if "stop_at" in config:
        rows.append((words("stops_at"), shown(config["stop_at"])))
    return [Heading(words("task")), Table(rows)]


def results(told: Sequence[Told], words: Words) -> list[Block]:
    """A row a run, and what ended those that did not finish."""
    names = ("steps", "episodes", "return", "greedy_return", "greedy_std", "seconds")
    heading = ("steps", "episodes", "return", "greedy", "std", "seconds", "ended")
    if any(one.number("greedy_cost") is not None for one in told):
        names = (*names[:-1], "greedy_cost", "greedy_cost_worst", names[-1])
        heading = (*heading[:-2], "greedy_cost", "worst_cost", *heading[-2:])
    rows: list[list[str]] = []
    for one in told:
        numbers = [_short(one.number(name)) for name in names]
        ended = str(one.status.get("stop_reason", ""))
        rows.append(
            [one.run.path.name, words.said(one.state), *numbers, words.said(ended)]
        )
    titles = [words("run"), words("state"), *map(words, heading)]
    blocks: list[Block] = [Heading(words("results")), Table(rows, titles)]
    for one in told:
        if "reason" in one.status:
            blocks.append(Heading(words("what_ended"), 3))
            blocks.append(Plain(words.said(one.status["reason"])))
    return blocks


def curves(picture: bytes, told: Sequence[Told], words: Words) -> list[Block]:
    """The learning curves."""
    blocks: list[Block] = [
        Heading(words("curves")),
        Picture(picture, words("curves")),
    ]
    if len(told) > 1:
        blocks.append(Text(words("curves_over", count=len(told))))
    evaluated = [x for x in told[0].lines if x.get("eval/return") is not None]
    if len(told) == 1 and evaluated:
        names = ("step", "eval/return", "eval/std")
        titles = [words("steps"), words("return"), words("std")]
        if any(x.get("eval/cost") is not None for x in evaluated):
            names = (*names, "eval/cost", "eval/cost_worst")
            titles += [words("greedy_cost"), words("worst_cost")]
        rows = [[shown(x.get(name)) for name in names] for x in evaluated[-20:]]
        blocks += [Heading(words("evaluations"), 3), Table(rows, titles)]
    return blocks


def cost(told: Sequence[Told], words: Words) -> list[Block]:
    """Time of all runs, and money where prices are known."""
    seconds = sum(one.number("seconds") or 0.0 for one in told)
    steps = sum(one.number("steps") or 0.0 for one in told)
    parts = {"seconds": f"{seconds:,.1f}", "steps": f"{steps:,.0f}"}
    return [
        Heading(words("cost")),
        Text(words("time_of_all", **parts)),
        *money(told, words),
    ]


def guard(told: Sequence[Told], words: Words) -> list[Block]:
    """What the guard did."""
    count = sum(one.guard.count for one in told)
    blocks: list[Block] = [Heading(words("guard"))]
    if not count:
        watched = all(one.config.get("guard") == "on" for one in told)
        return [*blocks, Text(words("guard_none" if watched else "guard_off"))]
    rows = [
        [
            one.run.path.name,
            f"{x.update:,}",
            x.rule,
            *map(words.said, (x.action, x.said)),
        ]
        for one in told
        for x in one.guard.interventions
    ]
    titles = [words(name) for name in ("run", "when", "rule", "action", "said")]
    said = Text(words("guard_count", count=count))
    return [*blocks, said, Table(rows[:MOST_ROWS], titles)]


def stages(told: Sequence[Told], words: Words) -> list[Block]:
    """The check-list of the stages of the policy that entered last, and what was withdrawn."""
    blocks: list[Block] = []
    for one in told:
        if one.stages_damage:
            blocks += [Heading(words("stages")), Text(words.said(one.stages_damage))]
        if one.stages is None or not one.stages.entries:
            continue
        titles = [words(name) for name in ("stage", "criteria", "signed_by", "policy")]
        rows = [_stage_row(entry, words) for entry in one.stages.standing()]
        blocks += [Heading(words("stages")), Table(rows, titles)]
        gone = [
            words(
                "of_stage",
                stage=words.said(entry.stage),
                said=f"{_signature(entry.withdrawn)} ({entry.withdrawn.reason})",
            )
            for entry in one.stages.entries
            if entry.withdrawn is not None
        ]
        if gone:
            blocks += [Text(words("withdrawn")), Items(gone[-MOST_ROWS:])]
        alarms = [
            words("of_stage", stage=words.said(entry.stage), said=words.said(note))
            for entry in one.stages.standing()
            for note in entry.notes
            if note.startswith("ALARM")
        ]
        blocks += [Items(alarms)] if alarms else []
    return blocks


def _stage_row(entry: Entry, words: Words) -> list[str]:
    """A stage, its criteria, who signed it, and of which policy."""
    said = "; ".join(_criterion(one, words) for one in entry.criteria)
    if not entry.measured:
        said = words("not_measured")
    word = words("not_signed") if entry.signed is None else _signature(entry.signed)
    return [words.said(entry.stage), said, word, entry.policy[:12]]


def _criterion(one: Criterion, words: Words) -> str:
    """A number that must hold, and whether it does."""
    if one.least:
        said = "at_least" if one.holds else "at_least_not"
    else:
        said = "at_most" if one.holds else "at_most_not"
    return words(
        said,
        name=words.said(one.name.replace("_", " ")),
        measured=f"{one.measured:.4g}",
        bound=f"{one.bound:.4g}",
    )


def _signature(signed: Signature) -> str:
    return f"{signed.name}, {signed.at}"


def doctor(told: Sequence[Told], words: Words) -> list[Block]:
    """What the doctor finds."""
    blocks: list[Block] = [Heading(words("doctor"))]
    several = len(told) > 1
    said: list[str] = []
    for one in told:
        for finding in one.findings:
            before = f"{one.run.path.name}: " if several else ""
            advice = words("try", advice=words.said(finding.advice))
            found = words("found", what=words.said(finding.what), advice=advice)
            said.append(f"{before}{found}")
    return [*blocks, Items(said) if said else Text(words("doctor_none"))]


def explanation(told: Sequence[Told], words: Words) -> list[Block]:
    """What `shoal explain` wrote, of the first run that has it."""
    one = next((one for one in told if one.explanation), None)
    if one is None:
        return []
    found = one.explanation
    blocks: list[Block] = [Heading(words("explanation"))]
    rows = _importance(found.get("importance"))
    if rows:
        titles = [words("feature"), words("share")]
        blocks += [Text(words("importance_of")), Table(rows[:12], titles)]
    blocks += [Picture(data, name) for name, data in one.pictures.items()]
    tree: Any = found.get("surrogate")
    if isinstance(tree, dict):
        table = cast("dict[str, Any]", tree)
        parts = {
            "depth": shown(table.get("depth")),
            "fidelity": _short(table.get("fidelity")),
            "plain": _short(table.get("plain")),
            "count": shown(table.get("held_out")),
        }
        blocks.append(Text(words("fidelity", **parts)))
    changes = _texts(found.get("counterfactuals"))
    if changes:
        blocks += [Text(words("changes")), Items([*map(words.said, changes[:6])])]
    notes = _texts(found.get("notes"))
    kept = [words.said(note) for note in notes[:MOST_ROWS]]
    return [*blocks, Items(kept)] if kept else blocks


def videos(told: Sequence[Told], words: Words) -> list[Block]:
    """Videos that lie in the runs' directories."""
    found = [Video(name, data) for one in told for name, data in one.videos]
    return [Heading(words("videos")), *found] if found else []


def not_tested(told: Sequence[Told], words: Words) -> list[Block]:
    """The honest list."""
    return [Heading(words("untested")), Items(untested(told, words))]


def signatures(words: Words) -> list[Block]:
    """Lines to sign on."""
    roles = [words(name) for name in ("prepared", "checked", "approved")]
    columns = [words(name) for name in ("name", "date", "signature")]
    return [Heading(words("signatures")), Signatures(roles, columns)]


def settings(told: Sequence[Told], words: Words) -> list[Block]:
    """The settings that applied, and versions."""
    first = told[0]
    used = applied(first.config, first.origin)
    blocks: list[Block] = [Heading(words("settings")), Table(_pairs(used))]
    versions: Any = first.status.get("versions")
    if isinstance(versions, dict):
        table = cast("dict[str, object]", versions)
        blocks += [Heading(words("versions")), Table(_pairs(table))]
    return blocks


def _importance(found: object) -> list[list[str]]:
    rows: list[list[str]] = []
    for pair in cast("list[Any]", found) if isinstance(found, list) else []:
        if isinstance(pair, list) and len(cast("list[Any]", pair)) == 2:
            name, share = cast("list[Any]", pair)
            if isinstance(share, int | float):
                rows.append([str(name), f"{100 * share:.1f} %"])
    return rows


def _texts(found: object) -> list[str]:
    if not isinstance(found, list):
        return []
    return [str(text) for text in cast("list[object]", found)]


def _pairs(values: Mapping[str, object]) -> list[list[str]]:
    return [[key, shown(value)] for key, value in flat(values).items()]


def _short(value: object) -> str:
    if isinstance(value, float) and 1e4 <= abs(value) < 1e15 and value.is_integer():
        return f"{value:,.0f}"  # a count
    return (
        f"{value:,.4g}"
        if isinstance(value, float) and abs(value) < 1e4
        else shown(value)
    )
