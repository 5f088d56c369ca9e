"""`shoal explain`: why a trained policy does what it does."""

from __future__ import annotations

import os
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
    """Options of `explain`."""

    feature_names: str = ""
    """Names of the numbers of an observation with commas between; else known ones, or their places."""
    episodes: int = 20
    """Number of greedy episodes, of which a quarter is held out from the tree."""
    states: int = 256
    """Number of steps, evenly spread, of which attributions and smallest changes are computed."""
    depth: int = 4
    """Depth of the decision tree; more is truer and harder to read."""
    seed: int = 0
    """Seed of the episodes."""
    max_steps: int | None = None
    """Steps after which an episode is cut; default: the run's eval_max_steps."""
    film: Path | None = None
    """Also film an episode with what each choice came from, as an .mp4 or .gif file."""
    film_steps: int = 600
    """Maximum number of steps in the film."""


def main(arguments: list[str], about: str) -> int:
    """Explains; the exit status."""
    arguments, env_kwargs = take_env_kwargs(arguments)
    about = f"{about}\n\n{ENV_OPTIONS}"
    given = parse(Given, arguments, command="explain", about=about)
    from shoal.experiment.explaining import explain_run, film_of
    from shoal.report.explain.explain import Asked
    from shoal.report.explain.text import as_text
    from shoal.report.explain.writing import FOLDER, write_explanation
    from shoal.report.video import check_target
    from shoal.run.directory import find
    from shoal.types.text import printable

    if given.film is not None:
        check_target(given.film)
        os.environ.setdefault("SDL_VIDEODRIVER", "dummy")
        os.environ.setdefault("PYGAME_HIDE_SUPPORT_PROMPT", "1")
    asked = Asked(
        episodes=given.episodes,
        states=given.states,
        depth=given.depth,
        feature_names=given.feature_names,
    )
    agent = agent_of(given, env_kwargs)
    found = explain_run(agent, asked, seed=given.seed, max_steps=given.max_steps)
    folder = find(given.run, Path(given.run_dir)).path / FOLDER
    written = write_explanation(found, folder)
    for line in (*as_text(found), *map(str, written)):
        print(printable(line))
    if given.film is not None:
        frames = film_of(
            agent, found, given.film, seed=given.seed, max_steps=given.film_steps
        )
        print(f"film: {printable(given.film)}, {frames} frames")
    return 0
