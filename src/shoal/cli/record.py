"""`shoal record`: writes episodes of a trained policy as a data set in Minari's layout."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro

from shoal.cli.arguments import (
    ENV_OPTIONS,
    add_here,
    look_here,
    parse,
    take_env_kwargs,
)


@dataclass(frozen=True, slots=True)
class Given:
    """Options of `record`."""

    run: Annotated[tyro.conf.Positional[str], tyro.conf.arg(metavar="RUN")]
    """Run directory, or a directory of runs (the newest is used)."""
    run_dir: str = "runs"
    """Directory in which RUN is searched for as well."""
    env: str | None = None
    """The environment, as `package.module:Class`, where the run was given an object."""
    policy: str | None = None
    """The policy, as `package.module:Class`, where the run was given an object."""
    episodes: int = 100
    """Number of episodes."""
    out: Path | None = None
    """Folder of the data set; default: datasets/ENV/ALGO-v0, or the next number that is free."""
    sample: bool = False
    """Actions as in training, drawn from the policy, instead of greedy ones."""
    max_steps: int | None = None
    """Steps after which an episode is cut, without a time limit; default: the run's eval_max_steps."""
    seed: int = 0
    """Seed of the episodes."""
    tag: str = ""
    """Checkpoint to play: the newest, or `best`."""
    trust: bool = False
    """Import and run what the file names (an environment, a policy, an algorithm), though nothing shows that you
    wrote it."""


def main(arguments: list[str], about: str) -> int:
    """Records; the exit status."""
    arguments, env_kwargs = take_env_kwargs(arguments)
    about = f"{about}\n\n{ENV_OPTIONS}"
    given = parse(Given, arguments, command="record", about=about)
    look_here(given.env, given.policy)
    if given.trust:
        add_here()
    from shoal.experiment.agent import load
    from shoal.types.text import printable

    agent = load(
        given.run,
        run_dir=given.run_dir,
        policy=given.policy,
        factory=given.env,
        tag=given.tag,
        env_kwargs=env_kwargs,
        trust=given.trust,
    )
    made = agent.record(
        given.out,
        episodes=given.episodes,
        greedy=not given.sample,
        seed=given.seed,
        max_steps=given.max_steps,
    )
    print(
        f"{printable(made.path)}: {made.episodes:,} episodes, {made.steps:,} steps, mean return {made.mean_return:.2f}"
    )
    return 0
