"""What a name that is no setting of a run may have meant: a place in a table, another algorithm, the environment."""

from __future__ import annotations

import inspect
from dataclasses import fields, is_dataclass
from difflib import get_close_matches
from typing import TYPE_CHECKING, Any, cast, get_type_hints

from shoal import algos
from shoal.experiment.foreign import said_of
from shoal.experiment.settings import ELSEWHERE, lacks, names_of, refuse_outdated
from shoal.types import ConfigError

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from shoal.algos import Algorithm

COUNTERPARTS = {
    "num_minibatches": ("batch_size",),
    "batch_size": ("num_minibatches",),
    "update_epochs": ("replay.samples_per_insert",),
    "ent_coef": ("exploration_noise", "epsilon_end"),
    "exploration_noise": ("ent_coef", "epsilon_end"),
    "epsilon_start": ("ent_coef", "exploration_noise"),
    "epsilon_end": ("ent_coef", "exploration_noise"),
    "gae_lambda": ("n_step",),
    "n_step": ("gae_lambda",),
}
"""What does in another algorithm what a setting does, where that one has it."""


def check_names(
    given: Mapping[str, Any],
    options: type[Any],
    algorithm: Algorithm,
    env: object = None,
) -> None:
    """ConfigError for the first name that is no setting, neither of a run nor of its algorithm, with what it may mean.

    Args:
        given: settings by name, of the run or of the algorithm; those inside of tables are not looked at.
        options: the dataclass of the run's settings.
        algorithm: whose settings the others are.
        env: the environment; of a class or a function the arguments are looked through.
    """
    known = [*names_of(options), *names_of(algorithm.Config)]
    unknown = [name for name in given if name not in known]
    if not unknown:
        return
    refuse_outdated(unknown)
    name = unknown[0]
    kinds = (algorithm.Config, options)
    what = (
        ELSEWHERE.get(name)
        or _of_network(name, algorithm)
        or said_of(name)
        or _of_env(name, given[name], env)
        or _inside(name, given[name], kinds)
        or _of_others(name, algorithm)
    )
    if not what:
        near = get_close_matches(name, known, n=3)
        what = f"did you mean {', '.join(near)}?" if near else ""
    if not what:
        said = _shown(given[name])
        what = (
            "`shoal train --help` lists them; what the environment takes is given as "
            f"env_kwargs={{'{name}': {said}}}"
        )
    raise ConfigError(f"no setting {name!r}; {what}")


def places_of(kind: type[Any], name: str) -> Iterator[str]:
    """The dotted names, of a config and the tables in it, whose last part is `name`."""
    hints = get_type_hints(kind)
    for field in fields(kind):
        if field.name == name:
            yield name
        hint = hints[field.name]
        if isinstance(hint, type) and is_dataclass(hint):
            for place in places_of(cast("type[Any]", hint), name):
                yield f"{field.name}.{place}"


def _of_network(name: str, algorithm: Algorithm) -> str:
    """Of an algorithm's only network, which has no such setting."""
    name = name.replace("norm_obs", "normalize_obs")
    network = get_type_hints(algorithm.Config).get("network")
    what = lacks(network, name) if isinstance(network, type) else ""
    return what.replace("this network", f"the network of {algos.name_of(algorithm)}")


def _inside(name: str, value: object, kinds: tuple[type[Any], ...]) -> str:
    """The tables of these settings that have it."""
    places = [place for kind in kinds for place in places_of(kind, name)]
    written: list[str] = []
    for place in places[:3]:
        whole = f"{{'{name}': {_shown(value)}}}"
        *outer, _ = place.split(".")
        for table in reversed(outer[1:]):
            whole = f"{{'{table}': {whole}}}"
        written.append(f"{outer[0]}={whole} (--{place.replace('_', '-')})")
    return f"it stands in a table: {' or '.join(written)}" if written else ""


def _of_others(name: str, algorithm: Algorithm) -> str:
    """The other algorithms of shoal's that have it, and what is nearest to it in this one."""
    found: dict[str, list[str]] = {}
    for other in algos.summaries():
        for place in list(places_of(algos.load(other).Config, name))[:1]:
            found.setdefault(place, []).append(other)
    if not found:
        return ""
    places = [f"{place} of {', '.join(owners)}" for place, owners in found.items()]
    own = algos.name_of(algorithm)
    said = f"it is a setting of other algorithms, not of {own}: {'; '.join(places)}"
    here = [
        one
        for one in COUNTERPARTS.get(name, ())
        if one in places_of(algorithm.Config, one.rpartition(".")[2])
    ]
    if not here:
        here = get_close_matches(name, names_of(algorithm.Config), n=2, cutoff=0.7)
    return f"{said}. Nearest to it in {own}: {', '.join(here)}" if here else said


def _of_env(name: str, value: object, env: object) -> str:
    """Of an environment that is a class or a function, where it has an argument of this name."""
    if not callable(env):
        return ""
    try:
        takes = inspect.signature(env).parameters
    except (TypeError, ValueError):  # of some that are written in C
        return ""
    if name not in takes:
        return ""
    called = getattr(env, "__name__", "the environment")
    return f"it is an argument of {called}: env_kwargs={{'{name}': {_shown(value)}}}"


def _shown(value: object) -> str:
    """A plain value as Python writes it; dots in the place of others."""
    plain = value is None or isinstance(value, bool | int | float | str)
    said = repr(value) if plain else "..."
    return said if len(said) <= 40 else "..."
