"""`shoal check-env`: tests a custom environment and reports problems."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field
from typing import Annotated, Literal

import tyro

from shoal.cli.arguments import look_here, parse, take_env_kwargs
from shoal.llm.tasks.names import is_task_name
from shoal.types import ConfigError

ENV_KWARGS = "--env.NAME VALUE sets a keyword of the constructor, as in training; so does --env-kwargs NAME=VALUE."
STATUSES = "Exit status: 0, no errors; 1, errors; 2, invalid options."


@dataclass(frozen=True, slots=True)
class Kept:
    """What is checked of the observations, as training is to see them."""

    keep_keys: tuple[str, ...] = ()
    """Check only these keys of a Dict observation."""
    text: Literal["none", "characters", "words"] = "none"
    """Texts in observations as integers, as in training."""
    text_length: int = 0
    """Characters or words of a text that are kept; 0: 64 characters or 16 words."""
    one_hot: tuple[int, ...] = ()
    """Options of each whole number along the last axis of a Box, as in training."""


@dataclass(frozen=True, slots=True)
class Given:
    """Options of `check-env`."""

    env: Annotated[tyro.conf.Positional[str], tyro.conf.arg(metavar="ENV")]
    """Gymnasium id, or package.module:function (or :Class), of a PettingZoo environment too."""
    env_kwargs: tuple[str, ...] = ()
    """Keyword arguments of the constructor, as name=value."""
    steps: int = 5000
    """Random steps in the longest check."""
    seed: int = 0
    """Seed of the environment and of the random actions."""
    timeout: float = 30.0
    """Seconds after which a call that does not return counts as hung."""
    backend: Literal["serial", "workers", "vector"] = "serial"
    """`workers` also steps the environment in worker processes; `vector`: ENV makes a gymnasium.vector.VectorEnv."""
    preprocessing: Kept = field(default_factory=Kept)
    """What is checked of the observations."""
    json: bool = False
    """Print one JSON object instead of the table."""


def main(arguments: list[str], about: str) -> int:
    """Tests; the exit status."""
    about = f"{about}\n\n{ENV_KWARGS}\n\n{STATUSES}"
    arguments, env_kwargs = take_env_kwargs(arguments, listed=True)
    given = parse(Given, arguments, command="check-env", about=about)
    look_here(given.env)
    if is_task_name(given.env):
        raise ConfigError(
            f"{given.env} is a task of a language model, no environment: shoal.llm.tasks.check_task tries out tasks"
        )
    from shoal.check.check_env import check_env, read_kwargs
    from shoal.envs.preprocessing import Preprocessing

    report = check_env(
        given.env,
        env_kwargs=read_kwargs(given.env_kwargs) | env_kwargs,
        steps=given.steps,
        seed=given.seed,
        timeout_s=given.timeout,
        backend=given.backend,
        preprocessing=Preprocessing(**asdict(given.preprocessing)),
        hard=True,
    )
    if given.json:
        print(json.dumps(report.record()))
    else:
        from rich.console import Console

        report.show(Console(highlight=False))
    return 0 if report.ok else 1
