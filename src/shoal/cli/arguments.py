"""Arguments: parsing a command's options with tyro, and the parameters of an environment that tyro cannot know."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any, TypeVar

import tyro

from shoal.types import ConfigError

OptionsT = TypeVar("OptionsT")

ENV_PREFIX = "--env."
LISTED = ("--env-kwargs", "--env_kwargs")
ENV_OPTIONS = (
    "--env.NAME VALUE sets a parameter of the environment. uniform:LOW,HIGH, loguniform:LOW,HIGH, choice:A,B,... or "
    "normal:MEAN,STD,LOW,HIGH samples it for each episode; 'uniform:LOW,HIGH from START over STEPS' widens the range."
)


def parse(
    kind: type[OptionsT], arguments: list[str], *, command: str, about: str
) -> OptionsT:
    """The options of a command, given as a dataclass; ends the process with status 2 for a mistake, 0 after --help."""
    return tyro.cli(kind, prog=f"shoal {command}", args=arguments, description=about)


FUNCTIONS = (
    "--action-guard.constraint",
    "--action-guard.inequalities",
    "--language.held-out-scorer",
)
"""Options that may name functions, but for schedules."""


def look_here(*names: str | None) -> None:
    """Lets modules of the current folder be imported where the command line names `module:object`; no file's word does.

    It comes last, so that nothing there stands in for what is installed.
    """
    if any(name is not None and ":" in name for name in names):
        add_here()


def add_here() -> None:
    """Puts the current folder on the path, last."""
    sys.path.append(str(Path.cwd()))


def take_env_kwargs(
    arguments: list[str], *, listed: bool = False
) -> tuple[list[str], dict[str, Any]]:
    """The arguments without `--env.NAME VALUE` and `--env.NAME=VALUE`, and the environment's keywords that these set.

    An environment takes any keyword, so none of these can be an option that is known beforehand. A hyphen stands for an
    underscore, as in other options.

    Args:
        arguments: all of them.
        listed: whether the command has the option --env-kwargs too.

    Raises:
        ConfigError: a name or a value is missing, or --env-kwargs is none of the command's options.
    """
    from shoal.check.check_env import read_value

    rest: list[str] = []
    found: dict[str, Any] = {}
    left = iter(arguments)
    for argument in left:
        if argument.partition("=")[0] in LISTED and not listed:
            raise ConfigError(
                f"{argument.partition('=')[0]} is check-env's; keywords of the environment are set one by one: "
                "--env.NAME VALUE"
            )
        if not argument.startswith(ENV_PREFIX):
            rest.append(argument)
            continue
        name, equals, value = argument.removeprefix(ENV_PREFIX).partition("=")
        if not equals:
            value = next(left, "")
        if not name or not value:
            raise ConfigError(f"{argument} needs a name and a value: --env.NAME VALUE")
        found[name.replace("-", "_")] = read_value(value)  # as in other options
    return rest, found


def take_schedules(arguments: list[str]) -> tuple[list[str], dict[str, str]]:
    """The arguments without the settings `--NAME-schedule`, and those: what they name is imported before the rest.

    Raises:
        ConfigError: one has no value.
    """
    rest: list[str] = []
    found: dict[str, str] = {}
    left = iter(arguments)
    for argument in left:
        option, equals, value = argument.partition("=")
        name = option.removeprefix("--").replace("-", "_")
        if option.startswith("--") and name.endswith("_schedule"):
            found[name] = value if equals else next(left, "")
            if not found[name]:
                raise ConfigError(f"{argument} needs a value, such as module:function")
        else:
            rest.append(argument)
    return rest, found


def functions_in(arguments: list[str]) -> dict[str, str]:
    """The functions of an action guard, and a held-out scorer, that are named, by their settings."""
    found: dict[str, str] = {}
    for number, argument in enumerate(arguments):
        option, equals, value = argument.partition("=")
        if option in FUNCTIONS:
            name = option.removeprefix("--").replace("-", "_")
            found[name] = value if equals else "".join(arguments[number + 1 :][:1])
    return found


def refuse_values(arguments: list[str], unknown: list[str]) -> None:
    """ConfigError for a value too many after an option; tyro would call it an unknown option.

    Args:
        arguments: all of them.
        unknown: those that no option took.
    """
    option, values = "", list[str]()
    for argument in arguments:
        if argument.startswith("--"):
            option, values = argument, []
            continue
        values.append(argument)
        if len(values) > 1 and argument in unknown:
            raise ConfigError(f"{option} takes one value, got {' '.join(values)}")
