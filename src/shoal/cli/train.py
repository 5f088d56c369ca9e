"""`shoal train`: a new run, or one a seed, from an environment, an algorithm and their settings."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, make_dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, TypeVar, get_origin

import tyro

from shoal.cli.arguments import (
    ENV_OPTIONS,
    add_here,
    functions_in,
    look_here,
    refuse_values,
    take_env_kwargs,
    take_schedules,
)
from shoal.cli.statuses import MET, STATUSES, status_of
from shoal.types import ConfigError

if TYPE_CHECKING:
    from shoal.experiment.experiment import Experiment
    from shoal.experiment.options import Options

DEFAULT_ENV = "CartPole-v1"
SessionT = TypeVar("SessionT")


@dataclass(frozen=True, slots=True)
class Source:
    """The options that decide which other options there are, and what their defaults are."""

    env: str | None = None
    algo: str | None = None
    preset: str | None = None
    policy: str | None = None
    config: Path | None = None
    trust: bool = False


@dataclass(frozen=True, slots=True)
class Session:
    """Options of `train` that are no settings of a run: how many runs, and what is printed and plotted."""

    seeds: int = 1
    """Train this many runs in sequence, with seeds seed, seed + 1, ..."""
    config: Path | None = None
    """Start from this config.toml: a run's, or your own."""
    trust: bool = False
    """Import and run what that file names (an environment, a policy, an algorithm), though nothing shows that you
    wrote it."""
    json: bool = False
    """Print each line of metrics as JSON."""
    plain: bool = False
    """Print plain lines instead of the live panel."""
    report: bool = True
    """Plot curves.png and summary.html into the run directory when training ends."""

    def __post_init__(self) -> None:
        """Refuses what cannot work."""
        if self.seeds < 1:
            raise ConfigError(f"--seeds must be at least 1, got {self.seeds}")


def main(arguments: list[str], about: str) -> int:
    """Trains; the exit status."""
    about = f"{about}\n\n{ENV_OPTIONS}\n\n{STATUSES}"
    experiment, session = experiment_of(
        arguments, Session, command="train", about=about
    )
    from shoal.experiment.training import start

    options = experiment.options
    status = MET
    for number in range(session.seeds):
        own = replace(options, seed=options.seed + number)
        result = start(
            replace(experiment, options=own),
            panel=panel_name(json=session.json, plain=session.plain),
            report=session.report,
        )
        status = max(status, status_of(result))
    return status


def experiment_of(
    arguments: list[str], kind: type[SessionT], *, command: str, about: str
) -> tuple[Experiment, SessionT]:
    """The experiment that options name, with ENV or without, and the command's own options, of the dataclass `kind`.

    Raises:
        ConfigError: settings that cannot work.
    """
    arguments, env_kwargs = take_env_kwargs(arguments)
    arguments = _with_named_env(arguments)
    source = source_of(arguments)
    from shoal.algos import summaries

    _, schedules = take_schedules(arguments)
    functions = functions_in(arguments)
    look_here(source.env, source.policy, *schedules.values(), *functions.values())
    if source.trust or source.algo not in (None, *summaries()):
        add_here()
    base = starting_point(source, schedules, named=[*functions])
    about += of_tasks(base)
    options, session, config = parse_over(
        base, arguments, kind, command=command, about=about
    )
    from shoal.experiment.applies import changed_between

    experiment = replace(
        base,
        options=options,
        config=config,
        source=options.env,
        policy=options.policy,
        env_kwargs={**(base.env_kwargs or {}), **env_kwargs},
        reopened=False,
    )
    given = base.given | changed_between(base, experiment)
    return replace(experiment, given=given), session


def of_tasks(base: Experiment) -> str:
    """What the help of a task says beside: which options are not for language models."""
    from shoal.experiment.language import idle_names, on_tasks
    from shoal.llm.tasks.registry import is_task_name

    if on_tasks(base.algorithm):
        refused = ", ".join(f"--{name.replace('_', '-')}" for name in idle_names())
        return f"\n\nA language model answers a task, and refuses what is for environments: {refused}."
    if isinstance(base.source, str) and is_task_name(base.source):
        return (
            f"\n\n{base.source} is a task for language models: the options below are of {base.options.algo}, for "
            "environments; add --algo with one that trains language models (`shoal algos`) for those that apply."
        )
    return ""


def panel_name(*, json: bool, plain: bool) -> str:
    """What shows a run, by the options --json and --plain."""
    if json:
        return "json"
    return "plain" if plain else "auto"


def _with_named_env(arguments: list[str]) -> list[str]:
    """The arguments with a leading ENV as the option --env."""
    if not arguments or arguments[0].startswith("-"):
        return arguments
    env, *rest = arguments
    again = source_of(rest).env
    if again not in (None, env):
        raise ConfigError(f"the environment is named twice: {env} and --env {again}")
    return ["--env", env, *rest]


def source_of(arguments: list[str]) -> Source:
    """The environment, algorithm, preset and file among all arguments.

    They are parsed before the rest: the algorithm decides which other options there are, and all four decide the
    defaults that the help shows.
    """
    source, _ = tyro.cli(
        Source, args=arguments, return_unknown_args=True, add_help=False
    )
    return source


def starting_point(
    source: Source,
    schedules: Mapping[str, str] | None = None,
    *,
    named: Collection[str] = (),
) -> Experiment:
    """The experiment before the options that change single settings, of which `named` will replace a file's.

    Raises:
        ConfigError: no such file, environment, algorithm or preset, or a file beside --algo or --preset.
    """
    from shoal import algos
    from shoal.experiment.experiment import Experiment, read_file

    if source.config is None:
        settings = {} if source.preset is None else {"preset": source.preset}
        env = source.env or DEFAULT_ENV
        algo = source.algo or algos.DEFAULT
        return Experiment.new(env, algo=algo, settings=settings)
    saved = read_file(source.config, algo=source.algo, preset=source.preset)
    names = {"env": source.env, "algo": source.algo, "policy": source.policy}
    given = {name: value for name, value in names.items() if value is not None}
    return Experiment.of_file(
        {"env": DEFAULT_ENV} | saved,
        given=given | dict(schedules or {}),
        trust=source.trust,
        named=named,
    )


def _named_functions() -> tyro.constructors.ConstructorRegistry:
    """What lets a setting that is a name or a function be given by its name."""
    registry = tyro.constructors.ConstructorRegistry()

    @registry.primitive_rule
    def rule(
        info: tyro.constructors.PrimitiveTypeInfo,
    ) -> tyro.constructors.PrimitiveConstructorSpec[str] | None:
        if get_origin(info.type) is not Callable:
            return None
        return tyro.constructors.PrimitiveConstructorSpec(
            nargs=1,
            metavar="MODULE:FUNCTION",
            instance_from_str=lambda given: given[0],
            is_instance=callable,
            str_from_instance=lambda function: [str(function)],
        )

    return registry


def parse_over(
    base: Experiment,
    arguments: list[str],
    kind: type[SessionT],
    *,
    command: str,
    about: str,
) -> tuple[Options, SessionT, Any]:
    """The options of the run, of this command, and the algorithm's settings: those of `base` where none is given."""
    flat = tyro.conf.arg(name="")
    kinds = {
        "options": type(base.options),
        "session": kind,
        "config": type(base.config),
    }
    parts = [(name, Annotated[part, flat]) for name, part in kinds.items()]
    form: Any = make_dataclass("Given", parts)
    default = form(base.options, kind(), base.config)
    known: Any = {
        "prog": f"shoal {command} [ENV]",
        "description": about,
        "default": default,
        "registry": _named_functions(),
    }
    given, unknown = tyro.cli(form, args=arguments, return_unknown_args=True, **known)
    if unknown:
        refuse_values(arguments, unknown)
        tyro.cli(form, args=arguments, **known)  # says what the options may have meant
    return given.options, given.session, given.config
