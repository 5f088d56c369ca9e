"""`shoal eval`: evaluates a trained policy on new episodes, and records a video of them."""

from __future__ import annotations

import os
from dataclasses import dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING

from shoal.cli.arguments import (
    ENV_OPTIONS,
    parse,
    take_env_kwargs,
)
from shoal.cli.loading import OfPolicy, agent_of
from shoal.types import ConfigError

if TYPE_CHECKING:
    from shoal.experiment.agent import Agent
    from shoal.run.evaluate import Score


@dataclass(frozen=True, slots=True, kw_only=True)
class Given(OfPolicy):
    """Options of `eval`."""

    episodes: int = 100
    """Number of evaluation episodes, played with greedy actions."""
    max_steps: int | None = None
    """Steps after which an episode counts as endless, without a time limit; default: the run's eval_max_steps."""
    seed: int = 0
    """Seed of the evaluation episodes."""
    video: Path | None = None
    """Record the first episodes side by side, as an .mp4 or .gif file."""
    video_rows: int = 4
    """Number of episodes in the video."""
    video_steps: int = 2000
    """Maximum number of steps in the video."""

    def __post_init__(self) -> None:
        """Refuses what would change nothing."""
        of_video = [field for field in fields(self) if field.name.startswith("video_")]
        for field in of_video:
            if self.video is None and getattr(self, field.name) != field.default:
                option = field.name.replace("_", "-")
                raise ConfigError(f"--{option} is of a video; give --video FILE too")


def main(arguments: list[str], about: str) -> int:
    """Evaluates; the exit status."""
    arguments, env_kwargs = take_env_kwargs(arguments)
    about = f"{about}\n\n{ENV_OPTIONS}"
    given = parse(Given, arguments, command="eval", about=about)
    from shoal.report.video import check_target

    if given.video is not None:
        check_target(given.video)
    agent = agent_of(given, env_kwargs)
    if given.video is not None:  # before the episodes, which may take long
        from shoal.experiment.controls import check_controls

        check_controls(agent.spec, "videos are")
    score = agent.evaluate(
        episodes=given.episodes, seed=given.seed, max_steps=given.max_steps
    )
    print(
        f"mean return {score.mean:.2f}, standard deviation {score.std:.2f}, "
        f"{given.episodes} greedy episodes",
        flush=True,
    )
    if score.costs is not None:
        print(_cost(agent, score), flush=True)
    if given.video is not None:
        _record(agent, given.video, given)
    return 0


def _cost(agent: Agent, score: Score) -> str:
    """What the episodes cost, beside the limit that the policy was trained under."""
    assert score.costs is not None
    said = score.numbers("")
    line = f"mean cost {said['cost']:.4g}, standard deviation {said['cost_std']:.4g}, worst {said['cost_worst']:.4g}"
    limit = getattr(agent.config, "cost_limit", None)
    if limit is None:
        return line
    above = int((score.costs > limit).sum())
    met = "met" if said["cost"] <= limit else "missed"
    return f"{line} (limit {limit:g} on the mean {met}; {above} of {len(score.costs)} episodes are above it)"


def _record(agent: Agent, path: Path, given: Given) -> None:
    # pygame draws into memory: it must not open a window.
    os.environ.setdefault("SDL_VIDEODRIVER", "dummy")
    os.environ.setdefault("PYGAME_HIDE_SUPPORT_PROMPT", "1")
    video = agent.record_video(
        path, rows=given.video_rows, seed=given.seed, max_steps=given.video_steps
    )
    from shoal.types.text import decimal, printable

    returns = ", ".join(decimal(value) for value in video.returns)
    print(f"video: {printable(path)}, {video.frames} frames, returns {returns}")
