"""Trust: which names of a configuration file may be imported, and the seal of the runs that this user made.

Importing runs code. Shoal's own names, registered Gymnasium ids and names that the command line or the call gives are
imported; what else a file names is imported for a run that this user's own `train` wrote on this machine, which its
seal shows, or where the user says so (`--trust`, `trust=True`).
"""

from __future__ import annotations

import hashlib
import hmac
import importlib.util
import inspect
import json
import os
import secrets
import stat
import sys
import sysconfig
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, cast

import gymnasium as gym
from torch import nn

from shoal import algos
from shoal.envs.factories import import_object
from shoal.llm.tasks.names import is_task_name
from shoal.run.drafts import draft_of, open_draft
from shoal.run.origin import Origin
from shoal.run.reading import read_bytes
from shoal.run.state_folder import state_folder
from shoal.types import ConfigError
from shoal.types.arguments import flag_of

if TYPE_CHECKING:
    from collections.abc import Collection, Sequence

KEY_BYTES = 32
SCHEDULE = "_schedule"
"""How the settings of an algorithm end that may name a function."""
GUARD = "action_guard"
"""The table of a configuration with settings that may name functions too."""
GUARDS = (f"{GUARD}.constraint", f"{GUARD}.inequalities")
LANGUAGE = "language"
"""And that of language models."""
SCORER = f"{LANGUAGE}.held_out_scorer"
SCORERS = f"{LANGUAGE}.scorers"
OWN = (
    "shoal.envs.agents.tictactoe:TicTacToe",
    "shoal.envs.costs.crossing:Crossing",
    "shoal.llm.tasks.nim:Nim",
)
"""Environments and tasks of shoal's own that are named by their modules."""
KINDS: dict[str, tuple[type[object], ...]] = {
    "env": (gym.Env, gym.vector.VectorEnv),
    "policy": (nn.Module,),
}
"""The classes that a name of a file may be of, where it is no function."""
OF_TRAIN = ("algo", SCORERS, SCORER)
"""Those that only `shoal train` lets a user name: a run that is opened has its own."""
GIVE = {
    "env": "ENV of shoal train, --env of resume, eval and export, or factory=...",
    "policy": "--policy of shoal train, resume, eval and export, or policy=...",
    "algo": "--algo of shoal train",
}


def imported_by(settings: Mapping[str, object]) -> dict[str, str]:
    """The names in a configuration whose modules are imported when a run of it begins, by setting.

    Raises:
        ConfigError: a name that is no text.
    """
    names: dict[str, str] = {}
    for setting in ("env", "algo", "policy", "preset"):
        name = settings.get(setting)
        if name is None:
            continue
        if not isinstance(name, str):
            raise ConfigError(f"{setting} must be a string, got {name!r}")
        own = ":" not in name or name in OWN or is_task_name(name)
        if setting == "algo":
            own = name in algos.summaries()
        if not own or setting == "policy":
            names[setting] = name
    names.pop("preset", None)
    for place in ("algorithm", GUARD, LANGUAGE):
        table = settings.get(place)
        if isinstance(table, Mapping):
            given = cast("Mapping[str, object]", table).items()
            names |= {
                _called(place, setting): str(name)
                for setting, name in given
                if _is_named(_called(place, setting), name)
            }
    return names | _scorers_of(settings)


def _scorers_of(settings: Mapping[str, object]) -> dict[str, str]:
    """The functions that judge a language model's answers, each as a setting of its own."""
    table = settings.get(LANGUAGE)
    given: object = table.get("scorers") if isinstance(table, Mapping) else None
    if not isinstance(given, list | tuple):
        return {}
    texts = [str(one).partition("=")[0] for one in cast("Sequence[object]", given)]
    return {f"{SCORERS}.{at}": name for at, name in enumerate(texts) if ":" in name}


def _setting(part: str) -> str:
    """The setting that a part of `imported_by` is of: of several scorers each is a part."""
    return SCORERS if part.startswith(f"{SCORERS}.") else part


def _called(place: str, setting: str) -> str:
    """A setting of a table by the name that it has in messages: those of the algorithm by their own."""
    return setting if place == "algorithm" else f"{place}.{setting}"


def _is_named(setting: str, value: object) -> bool:
    """Whether a setting names a function; what no module has under a name is never imported."""
    if not isinstance(value, str) or "<" in value:
        return False
    return is_function(setting, value) or (setting == SCORER and ":" in value)


def is_function(setting: str, value: object) -> bool:
    """Whether a setting that may be one is a function, or the name of one."""
    named = isinstance(value, str) and ":" in value
    may_be = setting.endswith(SCHEDULE) or setting in GUARDS
    return may_be and (named or callable(value))


def is_given_again(
    saved: Mapping[str, object], name: str, changes: Mapping[str, object]
) -> bool:
    """Whether a setting that was a function, of which config.toml has the name only, is given as a function again.

    So are those of an action guard, all of which is given again.
    """
    if name == GUARD:
        held = saved.get(GUARD)
        return isinstance(held, dict) and any(
            f"{GUARD}.{own}" in GUARDS for own in held
        )
    table = saved.get("algorithm")
    was = table.get(name) if isinstance(table, dict) else None
    return is_function(name, was) and is_function(name, changes[name])


def of_training(settings: Mapping[str, object]) -> list[str]:
    """The settings of a configuration whose functions only training calls: schedules, and a held-out scorer."""
    table = settings.get("algorithm")
    names = table if isinstance(table, Mapping) else {}
    return [SCORER, *(str(name) for name in names if str(name).endswith(SCHEDULE))]


def check(
    settings: Mapping[str, object],
    origin: Origin,
    *,
    trust: bool,
    given: Collection[str] = (),
    nameable: bool = True,
    opened: bool = False,
) -> None:
    """Lets the names of a configuration be imported, or refuses; a sealed run's folders go on the path.

    Args:
        settings: the configuration, read from a file.
        origin: what the file says of the run.
        trust: whether the user trusts the file.
        given: settings that the user has named, so that the file does not.
        nameable: whether whoever calls this lets the user name them, as a sweep does not.
        opened: whether it is of a run that is there, some of whose names nobody can give again.

    Raises:
        ConfigError: the file names what would be imported, and nothing shows that this user wrote it; or, where it
            is trusted, an object that is no environment's or policy's.
    """
    trust = flag_of("trust", trust)
    named = imported_by(settings)
    names = {part: name for part, name in named.items() if _setting(part) not in given}
    if not names:
        return
    fixed = opened and any(_setting(part) in OF_TRAIN for part in names)
    nameable = nameable and not fixed
    if _is_sealed(origin, named):
        sys.path += [path for path in origin.folders if path not in sys.path]
    elif trust:
        for setting, name in names.items():
            if setting != "algo":
                way = _way(setting) if nameable else ""
                _check_object(setting, name, KINDS.get(setting, ()), way)
    else:
        said = ", ".join(f"{name!r} ({part})" for part, name in names.items())
        ways = f"; or name it yourself: {'; '.join(dict.fromkeys(map(_way, names)))}"
        raise ConfigError(
            f"the configuration names {said}, which would be imported and run, and no seal shows that you trained it "
            f"on this machine. If you trust the file: --trust, or trust=True in Python{ways if nameable else ''}"
        )


def check_alone(
    saved: Mapping[str, object], *, trust: bool, given: Collection[str] = ()
) -> None:
    """`check` of a configuration file whose names the user cannot give themselves, as in a sweep or a comparison."""
    origin = Origin.of_file(saved, Path("config.toml"))
    check(saved, origin, trust=trust, given=given, nameable=False)


def _check_object(
    setting: str, name: str, kinds: tuple[type[object], ...], way: str
) -> None:
    """ConfigError unless a name of a file is a class of one of these kinds, or a function of its module."""
    module, _, attribute = name.partition(":")
    if not attribute.isidentifier():  # a registered id, after its module
        return
    found: object = import_object(name)
    fits = inspect.isfunction(found) and found.__module__ == module
    if inspect.isclass(found):
        fits = issubclass(found, kinds)
    if not fits:
        said = " or ".join(f"{kind.__module__}.{kind.__name__}" for kind in kinds)
        neither = f"neither a {said} nor a function" if kinds else "no function"
        instead = "name such a one in the file"
        if way:
            instead = f"name it yourself if it is meant: {way}"
        raise ConfigError(
            f"the configuration names {name!r} as its {setting}, which is {neither} that is "
            f"defined in {module}; {instead}"
        )


def _way(setting: str) -> str:
    """How a user names what a file names."""
    setting = _setting(setting)
    option = f"--{setting.replace('_', '-')}, or {setting}=..."
    return GIVE.get(setting, option)


def seal(origin: Origin, settings: Mapping[str, object]) -> Origin:
    """The origin of a run that this user begins, with the seal that lets its names be imported again.

    Without a state folder that can be written there is none, and the run is opened with `--trust`.
    """
    names = imported_by(settings)
    if not names:
        return origin
    sealed = replace(origin, folders=_folders_of(names))
    key = _key(make=True)
    return sealed if key is None else replace(sealed, seal=_mac(key, sealed, names))


def seal_again(
    origin: Origin,
    saved: Mapping[str, object],
    now: Mapping[str, object],
    *,
    given: Collection[str],
) -> Origin:
    """The origin of a run whose settings have become `now`: its seal covers the names that the user has given.

    Where the file `saved` named anything else without a seal, there is none now either.
    """
    before = imported_by(saved)
    if imported_by(now) == before:
        return origin
    others = {_setting(part) for part in before} - set(given)
    return origin if others and not _is_sealed(origin, before) else seal(origin, now)


def _is_sealed(origin: Origin, names: Mapping[str, str]) -> bool:
    if not origin.run or not origin.seal.isascii():
        return False
    key = _key(make=False)
    return key is not None and hmac.compare_digest(
        origin.seal, _mac(key, origin, names)
    )


def _mac(key: bytes, origin: Origin, names: Mapping[str, str]) -> str:
    said = json.dumps([origin.run, sorted(names.items()), list(origin.folders)])
    return hmac.new(key, said.encode(), hashlib.sha256).hexdigest()


def _folders_of(names: Mapping[str, str]) -> tuple[str, ...]:
    """Where the modules of these names lie, unless they are installed."""
    installed = {sysconfig.get_path(name) for name in ("purelib", "platlib", "stdlib")}
    found: list[str] = []
    for name in names.values():
        places = _places_of(name.partition(":")[0].partition(".")[0])
        folder = str(Path(places[0]).absolute().parent)
        if places[0] and folder not in (*installed, *found):
            found.append(folder)
    return tuple(found)


def _places_of(package: str) -> list[str]:
    """The folders of a package, or the file of a module, imported or not; [""] where it has none."""
    module = sys.modules.get(package)
    places: list[str] = list(getattr(module, "__path__", ()))
    file = getattr(module, "__file__", None)
    if module is None and (found := importlib.util.find_spec(package)) is not None:
        places, file = list(found.submodule_search_locations or ()), found.origin
    return places or [file or ""]


def _key(*, make: bool) -> bytes | None:
    """This user's key on this machine; None where there is none, or it is not only this user's."""
    try:
        path = state_folder() / "key"
        if make and not path.exists():
            _make_key(path)
        found = path.lstat()
        if found.st_uid != os.geteuid() or stat.S_IMODE(found.st_mode) & 0o077:
            return None
        key = read_bytes(path, at_most=KEY_BYTES)
    except (OSError, RuntimeError, ConfigError):  # no home, no room, no right
        return None
    return key if len(key) == KEY_BYTES else None


def _make_key(path: Path) -> None:
    """Writes a new key, unless another process was quicker."""
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    draft = draft_of(path)
    try:
        with open_draft(draft, mode=0o600) as file:
            file.write(secrets.token_bytes(KEY_BYTES))
            os.fsync(file.fileno())
        with suppress(FileExistsError):
            os.link(draft, path)
    finally:
        draft.unlink(missing_ok=True)
