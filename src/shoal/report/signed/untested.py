"""What was not tested: an honest list, computed from what the runs are."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from shoal.report.signed.gather import Told
    from shoal.report.signed.words import Words

SEEDS, EPISODES = 5, 100
FAITHFUL = 0.9
"""A tree's fidelity below which its rules do not stand for a policy."""
DRAWN = ("uniform", "loguniform", "choice", "normal")
"""How values of parameters that are drawn for each episode begin."""


def untested(told: Sequence[Told], words: Words) -> list[str]:
    """Sentences, the weightiest first."""
    return [
        *_ends(told, words),
        *_seeds(told, words),
        *_evaluation(told, words),
        *_world(told, words),
        *_reasons(told, words),
    ]


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
        played = [one.config.get("final_episodes") for one in told]
        known = [count for count in played if isinstance(count, int)]
        fewest = min(known, default=EPISODES)
        if fewest < EPISODES:
            yield words("u_few_episodes", count=fewest)
        yield words("u_sampled")
    if all(one.number("threshold") is None for one in told):
        yield words("u_threshold")


def _compared(one: Told) -> bool:
    """Whether something of the real system was measured: a log of its controller, or more."""
    standing = [] if one.stages is None else one.stages.standing()
    return any(entry.number > 0 and entry.measured for entry in standing)


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
    if not any(_compared(one) for one in told):
        yield words("u_real", env=first.config.get("env", "?"))
    yield words("u_baseline")


def _reasons(told: Sequence[Told], words: Words) -> Iterator[str]:
    explained = [one for one in told if one.explanation]
    if not explained:
        yield words("u_explained")
    for one in explained:
        tree: Any = one.explanation.get("surrogate")
        fidelity = tree.get("fidelity") if isinstance(tree, dict) else None
        if isinstance(fidelity, float) and fidelity < FAITHFUL:
            yield words("u_rules", fidelity=f"{fidelity:.2f}")
