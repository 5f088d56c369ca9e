"""What was not tested: an honest list, computed from what the runs are."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

from shoal.run.stage_file import STAGES

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from shoal.report.signed.gather import Told
    from shoal.report.signed.words import Words
    from shoal.run.stage_file import Criterion, Entry

SEEDS, EPISODES = 5, 100
FAITHFUL = 0.9
"""A tree's fidelity below which its rules do not stand for a policy."""
PLAYED = re.compile(r"(\d{1,9}) greedy episodes, ")
"""How the stage simulate notes what it played."""
COST = "cost"
"""In the names of criteria that are of costs."""
DRAWN = ("uniform", "loguniform", "choice", "normal")
"""How values of parameters that are drawn for each episode begin."""


def untested(told: Sequence[Told], words: Words) -> list[str]:
    """Sentences, the weightiest first."""
    return [
        *_ends(told, words),
        *_seeds(told, words),
        *_evaluation(told, words),
        *_costs(told, words),
        *_world(told, words),
        *_system(told, words),
        *_guard(told, words),
        *_reasons(told, words),
    ]


def stated_threshold(told: Sequence[Told]) -> Criterion | None:
    """What the stage simulate asked of greedy episodes, where the runs themselves have no threshold."""
    for entry in _measured(told):
        for one in entry.criteria:
            if entry.number == 0 and one.name == "greedy_return":
                return one
    return None


def cost_limit(told: Sequence[Told]) -> float | None:
    """What an episode may cost on average, where the policy was trained so."""
    limit = told[0].config.get("algorithm.cost_limit")
    return float(limit) if isinstance(limit, int | float) else None


def _ends(told: Sequence[Told], words: Words) -> Iterator[str]:
    states = [one.state for one in told if one.state != "finished"]
    if states:
        named = ", ".join(words.said(state) for state in sorted(set(states)))
        yield words("u_unfinished", count=len(states), all=len(told), states=named)
    for one in told:
        if one.damage:
            yield words("u_damaged", said=words.said(one.damage))
    versions = {str(one.status.get("versions")) for one in told}
    if len(versions) > 1:
        named = sorted({str(_version(one, "shoal")) for one in told})
        yield words("u_versions", names=", ".join(named))


def _version(told: Told, name: str) -> object:
    versions: Any = told.status.get("versions", {})
    return versions.get(name, "?")


def _seeds(told: Sequence[Told], words: Words) -> Iterator[str]:
    if len(told) == 1:
        yield words("u_one_seed")
    elif len(told) < SEEDS:
        yield words("u_few_seeds", count=len(told))


def _evaluation(told: Sequence[Told], words: Words) -> Iterator[str]:
    missing = [one for one in told if one.number("greedy_return") is None]
    if missing:
        yield words("u_not_evaluated", count=len(missing), all=len(told))
    if len(missing) < len(told):
        fewest = min(_greedy_episodes(one) for one in told)
        if fewest < EPISODES:
            yield words("u_few_episodes", count=fewest)
        yield words("u_sampled")
    stated = stated_threshold(told) is not None
    if not stated and all(one.number("threshold") is None for one in told):
        yield words("u_threshold")


def _greedy_episodes(one: Told) -> int:
    """The most greedy episodes of a run that were played at once: at its end, or in the stage simulate."""
    played = one.config.get("final_episodes")
    counts = [played if isinstance(played, int) else EPISODES]
    for entry in _measured([one]):
        said = [PLAYED.match(note) for note in entry.notes]
        counts += [int(found[1]) for found in said if found is not None]
    return max(counts)


def _measured(told: Sequence[Told]) -> list[Entry]:
    """What was measured of the policies that entered last, in the order of the stages."""
    found: list[Entry] = []
    for one in told:
        standing = [] if one.stages is None else one.stages.standing()
        found += [entry for entry in standing if entry.criteria]
    return sorted(found, key=lambda entry: entry.number)


def _costs(told: Sequence[Told], words: Words) -> Iterator[str]:
    """Where steps have a cost: whether somebody said how much there may be, and whether the real system was asked."""
    if not told[0].config.get("preprocessing.cost_key"):
        return
    measured = _measured(told)
    asked = [
        entry.number
        for entry in measured
        if any(COST in one.name for one in entry.criteria)
    ]
    if cost_limit(told) is None and not asked:
        yield words("u_cost_limit")
    if any(entry.number > 0 for entry in measured) and not any(asked):
        yield words("u_cost_real")


def _world(told: Sequence[Told], words: Words) -> Iterator[str]:
    first = told[0]
    drawn = {
        name.removeprefix("env_kwargs."): str(value)
        for name, value in first.config.items()
        if name.startswith("env_kwargs.")
    }
    ranges = {name: said for name, said in drawn.items() if said.startswith(DRAWN)}
    fixed = {name: said for name, said in drawn.items() if name not in ranges}
    if ranges:
        said = ", ".join(f"{name} {value}" for name, value in ranges.items())
        yield words("u_ranges", parameters=said)
    if fixed or not ranges:
        said = ", ".join(f"{name} {value}" for name, value in fixed.items())
        yield words("u_parameters", parameters=said or words("as_registered"))


def _system(told: Sequence[Told], words: Words) -> Iterator[str]:
    """How far the policy came towards the real system, and what it was compared with there."""
    measured = _measured(told)
    env = told[0].config.get("env", "?")
    last = measured[-1] if measured else None
    stage = STAGES[0] if last is None else last.stage
    counts = {} if last is None else {x.name: x.measured for x in last.criteria}
    match stage:
        case "replay":
            yield words("u_real_replay", env=env)
        case "shadow":
            count = f"{counts.get('episodes', 0):,.0f}"
            yield words("u_real_shadow", count=count)
        case "canary":
            count = f"{counts.get('episodes_of_the_policy', 0):,.0f}"
            yield words("u_real_canary", count=count)
        case _:
            yield words("u_real", env=env)
            yield words("u_baseline")
    if stage in ("replay", "shadow"):
        yield words("u_baseline_log")
    failed = [entry.stage for entry in measured if not entry.holds]
    for name in dict.fromkeys(failed):
        yield words("u_not_held", stage=words.said(name))


def _guard(told: Sequence[Told], words: Words) -> Iterator[str]:
    off = sum(one.config.get("guard") == "off" for one in told)
    if off:
        yield words("u_guard_off", count=off, all=len(told))
    acted = sum(one.guard.count > 0 for one in told)
    if acted:
        yield words("u_guard_acted", count=acted, all=len(told))


def _reasons(told: Sequence[Told], words: Words) -> Iterator[str]:
    explained = [one for one in told if one.explanation]
    if not explained:
        refused = told[0].origin.unexplained
        yield words("u_unexplained" if refused else "u_explained")
    for one in explained:
        tree: Any = one.explanation.get("surrogate")
        fidelity = tree.get("fidelity") if isinstance(tree, dict) else None
        if isinstance(fidelity, float) and fidelity < FAITHFUL:
            yield words("u_rules", fidelity=f"{fidelity:.2f}")
