"""Filming: whole greedy episodes of several environments side by side, as a video."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from shoal.envs.pictures import Pictures
from shoal.learn.acting import make_actor
from shoal.report.video import grid, tile, write_video
from shoal.run.evaluate import SEED_OFFSET

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from numpy.typing import NDArray
    from torch import nn

    from shoal.envs.vec_env import VecEnv
    from shoal.learn.acting import Acting
    from shoal.types import Bools, Floats


@dataclass(frozen=True, slots=True)
class Film:
    """A video that was written: its frames, and each row's return so far, steps, and whether its episode ended."""

    path: Path
    frames: int
    returns: Floats
    steps: NDArray[np.int64]
    ended: Bools


@dataclass(slots=True)
class Scene:
    """Where the first episodes of all rows stand, and the picture of each environment."""

    pictures: list[NDArray[np.uint8]]
    returns: Floats
    steps: NDArray[np.int64]
    ended: Bools

    def draw(self) -> NDArray[np.uint8]:
        """One frame. An environment whose episode has ended is dimmed; with several agents, returns are their mean."""
        shape = len(self.pictures), -1
        totals, steps = (
            np.mean(self.returns.reshape(shape), 1),
            np.max(self.steps.reshape(shape), 1),
        )
        ended: list[bool] = np.all(self.ended.reshape(shape), 1).tolist()
        says = [
            f"return {total:.1f}   step {step}"
            for total, step in zip(totals, steps, strict=True)
        ]
        return grid(
            [
                tile(*each[:2], dimmed=each[2])
                for each in zip(self.pictures, says, ended, strict=True)
            ]
        )


def film(
    policy: nn.Module, env: VecEnv, path: Path, *, acting: Acting, max_steps: int
) -> Film:
    """Plays the first episode of every row greedily and writes it as a video.

    Args:
        policy: acts unchanged by a snapshot.
        env: rows that draw themselves (`envs.pictures`); reset here with the seeds of an evaluation.
        path: an .mp4 or .gif.
        acting: seed and device.
        max_steps: where the film ends though some episodes have not.
    """
    pictures, rows = Pictures(env), env.num_rows
    scene = Scene(
        [], np.zeros(rows), np.zeros(rows, np.int64), np.zeros(rows, np.bool_)
    )

    def frames() -> Iterator[NDArray[np.uint8]]:
        for _ in play(policy, env, pictures, scene, acting=acting, max_steps=max_steps):
            yield scene.draw()

    count = write_video(path, frames(), frames_per_s=pictures.frames_per_s)
    return Film(path, count, scene.returns, scene.steps, scene.ended)


def play(
    policy: nn.Module,
    env: VecEnv,
    pictures: Pictures,
    scene: Scene,
    *,
    acting: Acting,
    max_steps: int,
) -> Iterator[None]:
    """Brings `scene` from step to step, until every row's first episode has ended or `max_steps` have passed."""
    start, everyone = np.ones(env.num_rows, np.bool_), slice(0, env.num_rows)
    drawn = range(
        0, env.num_rows, env.spec.num_agents
    )  # agents of one environment share a picture
    env.reset(acting.seed + SEED_OFFSET)
    ready = env.recv()
    scene.pictures[:] = [pictures.now(row) for row in drawn]
    yield
    actor = make_actor(policy, env.spec, env.num_rows, acting)
    for _ in range(max_steps):
        acted = actor.act(
            ready.obs, start, everyone, action_mask=ready.action_mask, greedy=True
        )
        env.send(everyone, acted.env_action)
        ready = env.recv()
        ended, running = ready.terminated | ready.truncated, ~scene.ended
        start[:] = ended | ~ready.valid
        ended &= ready.episode_length > 0  # a life lost ends nothing that is filmed
        scene.returns[running] += ready.reward[running]
        scene.returns[running & ended] = ready.episode_return[running & ended]
        scene.steps[running & ready.valid] += 1
        scene.ended |= ended
        for at, row in enumerate(drawn):
            if running[row]:
                shown = pictures.at_end(row) if ended[row] else pictures.now(row)
                scene.pictures[at] = scene.pictures[at] if shown is None else shown
        yield
        if scene.ended.all():
            return
