"""What must be given again: objects that a run was given, of which its file has the names alone."""

from __future__ import annotations

from typing import TYPE_CHECKING, cast

from shoal.math.rates import SUFFIX
from shoal.run.handed import environment, policy
from shoal.types import ConfigError

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping

    from shoal.run.handed import Handed
    from shoal.run.origin import Origin


def check_given_again(
    origin: Origin,
    saved: Mapping[str, object],
    given: Collection[str],
    *,
    opened: bool,
) -> None:
    """ConfigError where a run was given an environment or a policy as an object, and nobody gives it now.

    Args:
        origin: of the run, which names them.
        saved: its configuration, into which somebody may have written names of modules since.
        given: which of env and policy there are now.
        opened: whether it is of a run that is there, not of a file that a new one begins with.
    """
    lacks: dict[str, Handed] = {}
    if origin.env and "env" not in given and ":" not in str(saved.get("env")):
        lacks["env"] = environment(origin.env)
    given_policy = policy(origin.policy)
    needed = origin.policy and not given_policy.own
    if needed and "policy" not in given and not saved.get("policy"):
        lacks["policy"] = given_policy
    if not lacks:
        return
    names = {"env": "environment", "policy": "policy"}
    said = " and ".join(
        f"its {names[name]}, {one.code}," for name, one in lacks.items()
    )
    one = len(lacks) == 1
    way = _for_run if opened else _for_file
    raise ConfigError(
        f"the run was given {said} as {'an object' if one else 'objects'}, which no file holds: "
        f"{way(lacks, 'it' if one else 'them')}{_schedules(saved, given) if opened else ''}"
    )


def _schedules(saved: Mapping[str, object], given: Collection[str]) -> str:
    """How the functions among a run's schedules that no other program finds are given beside the objects."""
    table = saved.get("algorithm")
    settings = cast("Mapping[str, object]", table) if isinstance(table, dict) else {}
    lacks = [
        name
        for name, value in settings.items()
        if name.endswith(SUFFIX)
        and name not in given
        and isinstance(value, str)
        and ("<" in value or value.startswith("__main__:"))
    ]
    if not lacks:
        return ""
    in_python = ", ".join(f"{name}=..." for name in lacks)
    options = " ".join(f"--{name.replace('_', '-')} MODULE:FUNCTION" for name in lacks)
    return f"; shoal resume needs also {options}, in Python {in_python}"


def _for_run(lacks: Mapping[str, Handed], it: str) -> str:
    in_python = ", ".join(one.in_python() for one in lacks.values())
    options = " ".join(one.on_command_line() for one in lacks.values())
    return f"give {it} again, in Python {in_python}; on the command line {options}"


def _for_file(lacks: Mapping[str, Handed], it: str) -> str:
    lines = ", ".join(f'{name} = "{one.argument}"' for name, one in lacks.items())
    instead = ""
    if "policy" in lacks:
        one = lacks["policy"]
        instead = (
            f"; or give the policy, {one.in_python()} of train, {one.on_command_line()} of shoal train; for the "
            "algorithm's own take the line policy out of [origin]"
        )
    return f"name {it} in the file, {lines}{instead}"
