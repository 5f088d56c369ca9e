"""`shoal record`: writes episodes of a trained policy as a data set in Minari's layout."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from shoal.cli.arguments import (
    ENV_OPTIONS,
    parse,
    take_env_kwargs,
)
from shoal.cli.loading import OfPolicy, agent_of


@dataclass(frozen=True, slots=True, kw_only=True)
class Given(OfPolicy):
    """Options of `record`."""

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


def main(arguments: list[str], about: str) -> int:
    """Records; the exit status."""
    arguments, env_kwargs = take_env_kwargs(arguments)
    about = f"{about}\n\n{ENV_OPTIONS}"
    given = parse(Given, arguments, command="record", about=about)
    from shoal.types.text import printable

    agent = agent_of(given, env_kwargs)
    made = agent.record(
        given.out,
        episodes=given.episodes,
        greedy=not given.sample,
        seed=given.seed,
        max_steps=given.max_steps,
    )
    cost = "" if made.mean_cost is None else f", mean cost {made.mean_cost:.4g}"
    print(
        f"{printable(made.path)}: {made.episodes:,} episodes, {made.steps:,} steps, mean return "
        f"{made.mean_return:.2f}{cost}"
    )
    return 0
