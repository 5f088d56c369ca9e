"""An explanation as a film: an episode, and beside it what each choice came from."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import torch
from PIL import Image, ImageDraw, ImageFont

from shoal.envs.rendering import Renderer
from shoal.report.explain.decisions import Decisions
from shoal.report.explain.importance import importance_of
from shoal.report.explain.visits import visit
from shoal.report.video import grid, tile, write_video
from shoal.run.beginning import one_torch_thread
from shoal.types.text import printable

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

    from torch import nn

    from shoal.envs.vec_env import VecEnv
    from shoal.learn.acting import Acting
    from shoal.report.explain.features import Features
    from shoal.report.video import Frame
    from shoal.types import Floats

WIDTH, ROW_HEIGHT = 320, 26
"""Pixels of the panel beside the picture."""
BARS = 10
POINTS = 24


class _Watched:
    """Rows whose picture is kept before each step."""

    def __init__(self, env: VecEnv) -> None:
        self.env, self.renderer = env, Renderer(env)
        self.pictures: list[Frame] = []

    def __getattr__(self, name: str) -> object:
        return getattr(self.env, name)

    def send(self, rows: slice, action: object) -> None:
        """Draws, then steps."""
        self.pictures.append(self.renderer.now(0))
        self.env.send(rows, action)


@one_torch_thread()
def write_film(
    policy: nn.Module,
    env: VecEnv,
    path: Path,
    *,
    features: Features,
    baseline: Floats,
    acting: Acting,
    max_steps: int,
) -> int:
    """Plays the first episode of one row greedily and writes it with its attributions; how many frames there are.

    Args:
        policy: on the CPU.
        env: one row that draws itself.
        path: an .mp4 or .gif.
        features: what is explained.
        baseline: [F], from which attributions count.
        acting: seed and device.
        max_steps: where the film ends though the episode has not.

    Raises:
        ConfigError: no video can be written to `path`, or the row cannot be drawn.
    """
    watched = _Watched(env)
    visits = visit(policy, watched, episodes=1, acting=acting, max_steps=max_steps)  # pyright: ignore[reportArgumentType]
    decisions = Decisions(policy, features, visits)
    at = list(range(len(visits.reward)))
    found = importance_of(decisions, at, baseline, points=POINTS).attributions
    chosen = decisions.greedy(at, torch.from_numpy(decisions.values(at)).float())
    called = [decisions.called(one) for one in np.asarray(chosen)]

    def frames() -> Iterator[Frame]:
        for number, picture in enumerate(watched.pictures[: len(at)]):
            beside = panel(features.names, found[number], picture.shape[0])
            caption = f"step {number}   {printable(called[number], 40)}"
            yield grid([tile(_beside(picture, beside), caption)])

    rate = watched.renderer.frames_per_s
    return write_video(path, frames(), frames_per_s=rate)


def panel(names: Sequence[str], attributions: Floats, height: int) -> Frame:
    """The features with the largest attributions as bars: to the right what speaks for the choice, to the left against.

    uint8 [height, WIDTH, 3].
    """
    fitting = max(1, min(BARS, (height - 4) // ROW_HEIGHT))
    order = np.argsort(-np.abs(attributions), kind="stable")[:fitting]
    most = max(float(np.abs(attributions).max()), 1e-12)
    picture = Image.new("RGB", (WIDTH, height), "#101010")
    drawing, font = ImageDraw.Draw(picture), ImageFont.load_default(11)
    middle = WIDTH // 2
    for row, at in enumerate(order):
        top = 2 + row * ROW_HEIGHT
        length = int(attributions[at] / most * (middle - 8))
        ends = sorted((middle, middle + length))
        color = "#4c9be8" if length >= 0 else "#e8834c"
        drawing.rectangle((ends[0], top + 13, ends[1], top + 22), fill=color)
        drawing.text((6, top), printable(names[at], 40), fill="white", font=font)
    return np.asarray(picture)


def _beside(picture: Frame, panel: Frame) -> Frame:
    return np.concatenate([picture, panel], 1)
