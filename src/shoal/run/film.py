"""Filming: whole greedy episodes of several environments side by side, as a video."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from shoal.envs.pictures import check_drawable, frames_per_s, picture
from shoal.nets.acting import make_actor
from shoal.run.evaluate import SEED_OFFSET
from shoal.run.video import grid, tile, write_video

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from numpy.typing import NDArray
    from torch import nn

    from shoal.envs.vec_env import VecEnv
    from shoal.nets.acting import Acting
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
    """Where the episodes of all rows stand, and the picture of each."""

    pictures: list[NDArray[np.uint8]]
    returns: Floats
    steps: NDArray[np.int64]
    ended: Bools

    def draw(self) -> NDArray[np.uint8]:
        """One frame; a row whose episode has ended stands still and dimmed."""
        says = zip(self.returns.tolist(), self.steps.tolist(), strict=True)
        captions = [f"return {total:.1f}   step {step}" for total, step in says]
        drawn = zip(self.pictures, captions, self.ended.tolist(), strict=True)
        return grid([tile(seen, caption, dimmed=ended) for seen, caption, ended in drawn])


def film(policy: nn.Module, env: VecEnv, path: Path, *, acting: Acting, max_steps: int) -> Film:
    """Plays the first episode of every row greedily and writes it as a video.

    Args:
        policy: acts unchanged by a snapshot.
        env: rows that draw themselves (`envs.pictures`); reset here with the seeds of an evaluation.
        path: an .mp4 or .gif.
        acting: seed and device.
        max_steps: where the film ends though some episodes have not.
    """
    check_drawable(env)
    scene = Scene([], np.zeros(env.num_rows), np.zeros(env.num_rows, np.int64), np.zeros(env.num_rows, np.bool_))

    def frames() -> Iterator[NDArray[np.uint8]]:
        for _ in play(policy, env, scene, acting=acting, max_steps=max_steps):
            yield scene.draw()

    count = write_video(path, frames(), frames_per_s=frames_per_s(env))
    return Film(path, count, scene.returns, scene.steps, scene.ended)


def play(policy: nn.Module, env: VecEnv, scene: Scene, *, acting: Acting, max_steps: int) -> Iterator[None]:
    """Brings `scene` from step to step, until every row's first episode has ended or `max_steps` have passed."""
    rows, start = env.num_rows, np.ones(env.num_rows, np.bool_)
    everyone = slice(0, rows)
    env.reset(acting.seed + SEED_OFFSET)
    ready = env.recv()
    scene.pictures[:] = [picture(env, row) for row in range(rows)]
    yield
    actor = make_actor(policy, env.spec, rows, acting)
    for _ in range(max_steps):
        acted = actor.act(ready.obs, start, everyone, action_mask=ready.action_mask, greedy=True)
        env.send(everyone, acted.env_action)
        ready = env.recv()
        ended = ready.terminated | ready.truncated
        start[:] = ended | ~ready.valid
        running = ~scene.ended
        scene.returns[running] += ready.reward[running]
        scene.steps[running] += 1
        scene.returns[running & ended] = ready.episode_return[running & ended]
        scene.ended |= ended
        for row in np.flatnonzero(~scene.ended):
            scene.pictures[row] = picture(env, int(row))
        yield
        if scene.ended.all():
            return
