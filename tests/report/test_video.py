"""Videos: grids whose pixels are known, files that a decoder reads back, episodes that an evaluation played too."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import gymnasium as gym
import imageio_ffmpeg
import numpy as np
import pytest
from gymnasium import spaces
from PIL import Image

import shoal
from shoal.envs.registry import make
from shoal.envs.rendering import Renderer
from shoal.envs.vec_env import Capabilities
from shoal.report import video
from shoal.report.video import (
    CAPTION_HEIGHT,
    FRAME_GRAY,
    GAP,
    MAX_WIDTH,
    MIN_WIDTH,
    check_target,
    grid,
    tile,
    write_video,
)
from shoal.types import ConfigError, EnvError
from tests.fork_server import Interpreter

RED, GREEN, BLUE = (200, 0, 0), (0, 200, 0), (0, 0, 200)
BLACK, GRAY = (0, 0, 0), (FRAME_GRAY,) * 3
TINY: dict[str, Any] = {
    "num_envs": 8,
    "num_steps": 16,
    "num_minibatches": 2,
    "update_epochs": 1,
    "total_timesteps": 128,
}


class Counting(gym.Env[Any, Any]):
    """Each episode of instance n lasts 3 steps; the picture's green is 40 x the step, its red 100 x the episode."""

    metadata = {"render_modes": ["rgb_array"], "render_fps": 10}  # noqa: RUF012 - Gymnasium's own form

    def __init__(self, render_mode: str | None = None, size: int = 2) -> None:
        self.render_mode, self.size = render_mode, size
        self.observation_space = spaces.Box(0, 1, (1,), np.float32)
        self.action_space = spaces.Discrete(2)
        self.episode = self.step_count = 0

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> Any:
        super().reset(seed=seed)
        self.episode, self.step_count = self.episode + 1, 0
        return np.zeros(1, np.float32), {}

    def step(self, action: Any) -> Any:
        self.step_count += 1
        return np.zeros(1, np.float32), 1.0, self.step_count == 3, False, {}

    def render(self) -> Any:
        return np.full((self.size, self.size, 3), (100 * self.episode, 40 * self.step_count, 0), np.uint8)


class Blind(Counting):
    """Takes a render mode and forgets it."""

    def __init__(self, render_mode: str | None = None) -> None:
        super().__init__()


class Scribbling(Counting):
    """Renders text."""

    def render(self) -> Any:
        return "SFFF"


def make_mute() -> Counting:
    """Takes no render mode."""
    return Counting()


def paint(color: tuple[int, int, int], height: int = 4, width: int = MIN_WIDTH) -> Any:
    return np.full((height, width, 3), color, np.uint8)


def read_back(path: Path) -> tuple[list[Any], float]:
    """Every frame of a video, and its frames per second."""
    command = [imageio_ffmpeg.get_ffmpeg_exe(), "-nostdin", "-i", str(path)]
    command += ["-fps_mode", "passthrough", "-f", "rawvideo", "-pix_fmt", "rgb24", "-"]
    done = subprocess.run(command, capture_output=True, check=True)
    about = re.search(rb"Video: .*? (\d+)x(\d+)[ ,].*?([\d.]+) fps", done.stderr)
    assert about is not None
    width, height = int(about[1]), int(about[2])
    return list(np.frombuffer(done.stdout, np.uint8).reshape(-1, height, width, 3)), float(about[3])


def play_rows(pictures: Renderer, steps: int) -> list[list[Any]]:
    """What each row shows after each of `steps` steps: the end of an episode that has ended, else now."""
    rows, seen = pictures.rows, []
    rows.reset(0)
    rows.recv()
    for _ in range(steps):
        rows.send(slice(0, rows.num_rows), np.zeros(rows.num_rows, np.int64))
        ended = rows.recv().terminated
        drawn = [pictures.at_end(row) if ended[row] else pictures.now(row) for row in range(rows.num_rows)]
        seen.append([tuple(one[0, 0].tolist()) for one in drawn if one is not None])
    return seen


def test_grid() -> None:
    """Three tiles of 3 x 2 stand in two columns; the fourth place is black; sides become even."""
    whole = grid([paint(color, 3, 2) for color in (RED, GREEN, BLUE)])
    assert whole.shape == (6, 4, 3)
    assert (whole[:3, :2] == RED).all()
    assert (whole[:3, 2:] == GREEN).all()
    assert (whole[3:, :2] == BLUE).all()
    assert (whole[3:, 2:] == BLACK).all()
    odd = grid([paint(RED, 3, 5)])
    assert odd.shape == (4, 6, 3)
    assert (odd[:3, :5] == RED).all()
    assert not odd[3].any()
    assert not odd[:, 5].any()
    uneven = grid([paint(RED, 2, 4), paint(GREEN, 4, 2)])
    assert (uneven[:2, :4] == RED).all()
    assert not uneven[2:, :4].any()
    assert (uneven[:, 4:6] == GREEN).all()


def test_wide_grid_is_reduced() -> None:
    """Two pictures of 1,600 make 3,200 pixels: reduced by 2."""
    whole = grid([paint(RED, 8, 1600), paint(GREEN, 8, 1600)])
    assert whole.shape == (4, 1600, 3)
    assert whole.shape[1] <= MAX_WIDTH
    assert (whole[:, :800] == RED).all()
    assert (whole[:, 800:] == GREEN).all()


def test_tile() -> None:
    """A picture of 80 pixels is enlarged twice, each pixel to a square; the caption's words stand above it."""
    drawn = paint(RED, 3, 80)
    drawn[1, 1] = BLUE
    whole = tile(drawn, "return 1.0")
    assert whole.shape == (CAPTION_HEIGHT + 6 + GAP, 160 + GAP, 3)
    strip, shown = whole[:CAPTION_HEIGHT, :-GAP], whole[CAPTION_HEIGHT:-GAP, :-GAP]
    assert strip.any()
    assert not np.array_equal(strip, tile(drawn, "return 2.0")[:CAPTION_HEIGHT, :-GAP])
    assert (shown[2:4, 2:4] == BLUE).all()
    assert (shown == BLUE).all(-1).sum() == 4
    assert (whole[-GAP:] == GRAY).all()
    assert (whole[:, -GAP:] == GRAY).all()
    dimmed = tile(drawn, "", dimmed=True)
    assert (dimmed[CAPTION_HEIGHT, 0] == (100, 0, 0)).all()
    assert not dimmed[:CAPTION_HEIGHT, :-GAP].any()


@pytest.mark.parametrize("suffix", [".mp4", ".gif"])
def test_files_are_read_back(tmp_path: Path, suffix: str) -> None:
    """Frames, size, speed and colors come back; nothing else is left in the folder."""
    path = tmp_path / f"out{suffix}"
    colors = [RED, GREEN, BLUE, (240, 240, 240), BLACK]
    assert write_video(path, (paint(c, 32, 64) for c in colors), frames_per_s=10) == 5
    frames, per_s = read_back(path)
    assert per_s == pytest.approx(10)
    assert [frame.shape for frame in frames] == [(32, 64, 3)] * 5
    for frame, color in zip(frames, colors, strict=True):
        assert np.abs(frame[16, 32].astype(int) - color).max() <= 6
    assert [file.name for file in tmp_path.iterdir()] == [path.name]
    if suffix == ".gif":
        with Image.open(path) as image:
            assert (image.size, image.info["loop"], image.info["duration"]) == ((64, 32), 0, 100)


def test_fast_gif(tmp_path: Path) -> None:
    """Of 60 frames a second every other is shown, at 30: viewers cannot show more than 50."""
    path = tmp_path / "out.gif"
    assert write_video(path, (paint((40 * n, 0, 0), 16, 16) for n in range(6)), frames_per_s=60) == 3
    frames, per_s = read_back(path)
    assert per_s == pytest.approx(30, abs=4)  # a GIF counts hundredths of a second
    assert [int(frame[8, 8, 0]) for frame in frames] == pytest.approx([0, 80, 160], abs=3)


def test_bad_targets(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What can be known to fail is said before anything is played."""
    with pytest.raises(ConfigError, match=r"ends in \.mp4 or \.gif, got '.*out\.avi'"):
        check_target(tmp_path / "out.avi")
    with pytest.raises(ConfigError, match=r"no folder .*nowhere for the video out\.mp4; make it first"):
        check_target(tmp_path / "nowhere" / "out.mp4")
    (tmp_path / "folder.gif").mkdir()
    with pytest.raises(ConfigError, match=r"folder\.gif is a folder"):
        check_target(tmp_path / "folder.gif")
    monkeypatch.setitem(sys.modules, "imageio_ffmpeg", None)
    with pytest.raises(ConfigError, match=r"pip install 'shoal-rl\[video\]'"):
        check_target(tmp_path / "out.mp4")


def test_failures_leave_no_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Frames of two sizes, an episode that raises, an encoder that fails: an error each, and no file."""
    path = tmp_path / "out.mp4"
    with pytest.raises(EnvError, match=r"frame 1 is \(4, 4, 3\), those before \(2, 2, 3\)"):
        write_video(path, iter([paint(RED, 2, 2), paint(RED, 4, 4)]), frames_per_s=10)

    def raising() -> Any:
        yield paint(RED, 16, 16)
        raise KeyError("coffee")

    with pytest.raises(KeyError):
        write_video(path, raising(), frames_per_s=10)
    monkeypatch.setitem(video.ENCODINGS, ".mp4", ("-c:v", "no_such_codec"))
    with pytest.raises(OSError, match=r"out\.mp4 was not written: .*no_such_codec"):
        write_video(path, (paint(RED, 512, 512) for _ in range(20)), frames_per_s=10)
    assert list(tmp_path.iterdir()) == []


def test_pictures() -> None:
    """A row is drawn where it stands; where its episode ended, as the end left it and not as the next one begins."""
    with pytest.raises(ConfigError, match=r"render_mode=None; its metadata lists the render_modes rgb_array"):
        Renderer(make(Counting, 1))
    rows = make(Counting, 2, backend="serial", env_kwargs={"render_mode": "rgb_array"})
    pictures = Renderer(rows)
    assert pictures.frames_per_s == 10
    green = [40, 80, 120, 40, 80, 120]
    episode = [1, 1, 1, 2, 2, 2]
    assert play_rows(pictures, 6) == [[(100 * e, g, 0)] * 2 for e, g in zip(episode, green, strict=True)]
    rows.close()


def test_what_cannot_be_rendered() -> None:
    """Rows of C++ without a drawing, a forgotten render mode, and a picture that is none."""
    with pytest.raises(ConfigError, match="CartPole-v1 cannot be rendered on this backend; backend='serial'"):
        Renderer(make("CartPole-v1", 1))
    drawn = {"render_mode": "rgb_array"}
    with pytest.raises(ConfigError, match="Blind cannot be rendered: made with render_mode='rgb_array'"):
        Renderer(make(Blind, 1, env_kwargs=drawn))
    rows = make(Scribbling, 1, env_kwargs=drawn)
    with pytest.raises(EnvError, match=r"Scribbling: row 0: render\(\) returned an array <U4 \(\); return an array"):
        Renderer(rows).now(0)


def test_rows_that_draw_themselves() -> None:
    """Other rows offer `render(row)` and say so."""

    class Own:
        capabilities = Capabilities(can_render=True, frames_per_s=7)
        python_rows = None
        spec = make("CartPole-v1", 1).spec

        def render(self, row: int) -> Any:
            return paint((row, 0, 0), 2, 2)

    rows: Any = Own()
    pictures = Renderer(rows)
    assert (pictures.frames_per_s, pictures.now(3).tolist()) == (7, [[[3, 0, 0]] * 2] * 2)
    assert pictures.at_end(3) is None


def test_film_of_a_run(tmp_path: Path) -> None:
    """The video shows the evaluation's episodes of the native CartPole: same returns, a frame for each step."""
    run = shoal.train("CartPole-v1", run_dir=str(tmp_path / "runs"), panel="none", **TINY)
    agent = shoal.load(run.path)
    path = tmp_path / "out.mp4"
    recorded = agent.record_video(path, rows=3, seed=2)
    assert recorded.ended.all()
    assert recorded.returns.tolist() == agent.evaluate(episodes=3, seed=2).returns.tolist()
    assert recorded.steps.tolist() == recorded.returns.tolist()  # CartPole pays 1 a step
    assert recorded.frames == 1 + recorded.steps.max()
    frames, per_s = read_back(path)
    assert (len(frames), per_s) == (recorded.frames, 50)  # CartPole's own render_fps
    height, width = CAPTION_HEIGHT + 400 + GAP, 600 + GAP
    assert {frame.shape for frame in frames} == {(2 * height, 2 * width, 3)}
    first, last = int(np.argmin(recorded.steps)), frames[-1]
    top, left = first // 2 * height, first % 2 * width
    assert np.abs(last[top + CAPTION_HEIGHT + 5, left + 5].astype(int) - 127).max() <= 6  # white, dimmed
    assert last[height + CAPTION_HEIGHT + 5, width + 5].max() <= 6  # no fourth row
    short = agent.record_video(path, rows=1, seed=2, max_steps=4)
    assert (short.frames, short.steps.tolist(), short.ended.tolist()) == (5, [4], [False])


def test_film_of_what_draws_nothing(tmp_path: Path) -> None:
    """An environment that takes no render mode is refused, with the reason and before a file is begun."""
    run = shoal.train(make_mute, run_dir=str(tmp_path / "runs"), panel="none", **TINY)
    agent = shoal.load(run.path, factory=make_mute)
    with pytest.raises(ConfigError, match=r"make_mute cannot be rendered, .*'rgb_array'}: make_mute has no keyword"):
        agent.record_video(tmp_path / "out.mp4")
    with pytest.raises(ConfigError, match=r"rows must be a whole number from 1 to .*, got 0"):
        agent.record_video(tmp_path / "out.mp4", rows=0)
    recorded = shoal.load(run.path, factory=Counting).record_video(tmp_path / "out.mp4", rows=2)
    assert (recorded.frames, recorded.returns.tolist(), recorded.steps.tolist()) == (4, [3, 3], [3, 3])
    assert [file.name for file in tmp_path.iterdir() if file.is_file()] == ["out.mp4"]


def test_command(tmp_path: Path, interpreter: Interpreter) -> None:
    """`shoal eval --video` writes the file and says so; a bad name is refused before anything is played."""
    run = shoal.train("CartPole-v1", run_dir=str(tmp_path / "runs"), panel="none", **TINY)
    options = ["--episodes", "2", "--video", "out.gif", "--video-rows", "2", "--video-steps", "3"]
    done = interpreter.shoal("eval", str(run.path), *options, folder=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "video: out.gif, 4 frames, returns 3.0, 3.0\n" in done.stdout
    assert len(read_back(tmp_path / "out.gif")[0]) == 4
