"""Recording: whole greedy episodes of several environments side by side, as a video."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from shoal.envs.rendering import Renderer
from shoal.learn.acting import make_actor
from shoal.report.video import grid, tile, write_video
from shoal.run.evaluate import SEED_OFFSET, mark_starts
from shoal.types.text import decimal

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from numpy.typing import NDArray
    from torch import nn

    from shoal.envs.vec_env import VecEnv
    from shoal.learn.acting import Acting
    from shoal.report.video import Frame
    from shoal.types import Bools, Floats, Ready


@dataclass(frozen=True, slots=True)
class Video:
    """A video that was written: its frames, and each row's return so far, steps, and whether its episode ended."""

    path: Path
    frames: int
    returns: Floats
    steps: NDArray[np.int64]
    ended: Bools


@dataclass(slots=True)
class Progress:
    """Where the first episodes of all rows stand, and the picture of each environment."""

    pictures: list[Frame]
    returns: Floats
    steps: NDArray[np.int64]
    ended: Bools

    def add(self, ready: Ready) -> None:
        """Counts a step of the rows whose first episode goes on."""
        running = ~self.ended
        # A life lost ends nothing that is shown; an agent who was not in the game has ended with it.
        over = ready.over
        done = running & over
        self.returns[running] += ready.reward[running]
        self.returns[done] = ready.episode_return[done]
        self.steps[running & ready.valid] += 1
        self.ended |= over
        if ready.game_over is not None:
            self.ended |= ready.game_over

    def draw(self) -> Frame:
        """One frame. An environment whose episode has ended is dimmed; with several agents, returns are their mean."""
        shape = len(self.pictures), -1
        returns = np.mean(self.returns.reshape(shape), 1)
        steps = np.max(self.steps.reshape(shape), 1)
        ended = np.all(self.ended.reshape(shape), 1)
        tiles: list[Frame] = []
        for at, picture in enumerate(self.pictures):
            caption = f"return {decimal(returns[at])}   step {steps[at]}"
            tiles.append(tile(picture, caption, dimmed=bool(ended[at])))
        return grid(tiles)


def record_video(
    policy: nn.Module,
    env: VecEnv,
    path: Path,
    *,
    acting: Acting,
    max_steps: int,
) -> Video:
    """Plays the first episode of every row greedily and writes it as a video.

    Args:
        policy: acts unchanged by a snapshot.
        env: rows that draw themselves (`envs.rendering`); reset here with the seeds of an evaluation.
        path: an .mp4 or .gif.
        acting: seed and device.
        max_steps: where the video ends though some episodes have not.

    Raises:
        ConfigError: no video can be written to `path`; see `report.video.check_target`.
    """
    renderer = Renderer(env)
    rows = env.num_rows
    progress = Progress(
        [],
        np.zeros(rows),
        np.zeros(rows, np.int64),
        np.zeros(rows, np.bool_),
    )

    def frames() -> Iterator[Frame]:
        for _ in play(
            policy,
            env,
            renderer,
            progress,
            acting=acting,
            max_steps=max_steps,
        ):
            yield progress.draw()

    count = write_video(path, frames(), frames_per_s=renderer.frames_per_s)
    return Video(path, count, progress.returns, progress.steps, progress.ended)


def play(
    policy: nn.Module,
    env: VecEnv,
    renderer: Renderer,
    progress: Progress,
    *,
    acting: Acting,
    max_steps: int,
) -> Iterator[None]:
    """Moves `progress` from step to step, until every row's first episode has ended or `max_steps` have passed."""
    everyone = slice(0, env.num_rows)
    start = np.ones(env.num_rows, np.bool_)
    # Agents of one environment share a picture.
    drawn = range(0, env.num_rows, env.spec.num_agents)
    env.reset(acting.seed + SEED_OFFSET)
    ready = env.recv()
    progress.pictures[:] = [renderer.now(row) for row in drawn]
    yield
    actor = make_actor(policy, env.spec, env.num_rows, acting)
    for _ in range(max_steps):
        acted = actor.act(
            ready.obs,
            start,
            everyone,
            action_mask=ready.action_mask,
            greedy=True,
        )
        turn = None if ready.turn is None else ready.turn.copy()
        env.send(everyone, acted.env_action)
        ready = env.recv()
        mark_starts(start, ready, turn)
        running = ~progress.ended
        progress.add(ready)
        for at, row in enumerate(drawn):
            if not running[row]:
                continue
            if not progress.ended[row]:
                progress.pictures[at] = renderer.now(row)
                continue
            last = renderer.at_end(row)
            if last is not None:
                progress.pictures[at] = last
        yield
        if progress.ended.all():
            return
