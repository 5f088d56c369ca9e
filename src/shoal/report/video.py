"""Videos: pictures of several rows as the tiles of a grid, and grids as the frames of an .mp4 or .gif."""

from __future__ import annotations

import importlib
import math
import os
import subprocess
import tempfile
from contextlib import suppress
from itertools import chain, islice
from typing import TYPE_CHECKING, Any

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from shoal.types import ConfigError, EnvError

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

    from numpy.typing import NDArray

    Frame = NDArray[np.uint8]

CAPTION_HEIGHT, GAP = 20, 2
MIN_WIDTH, MAX_WIDTH = 160, 1920
"""Pixels: of a picture, which smaller pictures are enlarged to, and of a grid, which larger ones are reduced to."""
FRAME_GREY = 64
MAX_GIF_FRAMES_PER_S = 50.0
"""Viewers show faster ones slowly, so frames are left out."""
ENCODINGS = {
    ".mp4": (
        "-c:v",
        "libx264",
        "-crf",
        "23",
        "-pix_fmt",
        "yuv420p",
        "-movflags",
        "+faststart",
    ),
    # A palette for each frame: one for all would be known only after the last.
    ".gif": (
        "-vf",
        "split[a][b];[a]palettegen=stats_mode=single[p];[b][p]paletteuse=new=1",
        "-loop",
        "0",
    ),
}


def check_target(path: Path) -> None:
    """ConfigError unless a video can be written to `path`: its suffix, its folder, the package that writes it."""
    if path.suffix not in ENCODINGS:
        raise ConfigError(
            f"a video's name ends in {' or '.join(ENCODINGS)}, got {str(path)!r}"
        )
    if not path.parent.is_dir():
        raise ConfigError(
            f"no folder {path.parent} for the video {path.name}; make it first"
        )
    if path.is_dir():
        raise ConfigError(f"{path} is a folder; give the video another name")
    _ffmpeg()


def tile(drawn: Frame, caption: str, *, dimmed: bool = False) -> Frame:
    """A picture under its caption, with a line to its right and below it.

    A small picture is enlarged by a whole factor; a dimmed one has half its brightness.
    """
    times = max(1, math.ceil(MIN_WIDTH / drawn.shape[1]))
    shown = drawn if times == 1 else drawn.repeat(times, 0).repeat(times, 1)
    if dimmed:
        shown = np.right_shift(shown, 1, dtype=np.uint8)
    strip = Image.new("RGB", (shown.shape[1], CAPTION_HEIGHT))
    grey = "#909090" if dimmed else "white"
    ImageDraw.Draw(strip).text(
        (4, 3), caption, fill=grey, font=ImageFont.load_default(12)
    )
    framed = np.concatenate([np.asarray(strip), shown])
    return np.pad(framed, ((0, GAP), (0, GAP), (0, 0)), constant_values=FRAME_GREY)


def grid(tiles: Sequence[Frame]) -> Frame:
    """Tiles side by side, as near to a square as their number allows; black where there is none, both sides even."""
    columns = math.ceil(math.sqrt(len(tiles)))
    height, width = (max(each.shape[axis] for each in tiles) for axis in (0, 1))
    size = math.ceil(len(tiles) / columns) * height, columns * width
    whole = np.zeros((*size, 3), np.uint8)
    for at, each in enumerate(tiles):
        top, left = at // columns * height, at % columns * width
        whole[top : top + each.shape[0], left : left + each.shape[1]] = each
    if size[1] > MAX_WIDTH:
        whole = np.asarray(
            Image.fromarray(whole).reduce(math.ceil(size[1] / MAX_WIDTH))
        )
    return np.pad(whole, ((0, whole.shape[0] % 2), (0, whole.shape[1] % 2), (0, 0)))


def write_video(path: Path, frames: Iterator[Frame], *, frames_per_s: float) -> int:
    """Writes frames of one size as they come, and returns how many; the file appears whole or not at all.

    Raises:
        ConfigError: see `check_target`.
        EnvError: frames of several sizes.
        OSError: the encoder failed; the message is its own.
    """
    check_target(path)
    if path.suffix == ".gif" and frames_per_s > MAX_GIF_FRAMES_PER_S:
        every = math.ceil(frames_per_s / MAX_GIF_FRAMES_PER_S)
        frames, frames_per_s = islice(frames, None, None, every), frames_per_s / every
    first = next(frames)
    height, width = first.shape[:2]
    draft = path.with_name(f".{os.getpid()}.{path.name}")
    raw = (
        "-f",
        "rawvideo",
        "-pix_fmt",
        "rgb24",
        "-s",
        f"{width}x{height}",
        "-r",
        f"{frames_per_s:g}",
        "-i",
        "-",
    )
    command = [
        _ffmpeg(),
        "-v",
        "error",
        "-nostdin",
        "-y",
        *raw,
        *ENCODINGS[path.suffix],
        str(draft),
    ]
    count = 0
    try:
        with (
            tempfile.TemporaryFile() as said,
            subprocess.Popen(
                command, stdin=subprocess.PIPE, stderr=said, start_new_session=True
            ) as encoder,
        ):
            assert encoder.stdin is not None
            try:
                for frame in chain([first], frames):
                    if frame.shape != first.shape:
                        raise EnvError(
                            f"frame {count} is {frame.shape}, those before {first.shape}; draw one size"
                        )
                    encoder.stdin.write(np.ascontiguousarray(frame))
                    count += 1
                encoder.stdin.close()
                ended = encoder.wait()
            except BrokenPipeError:  # it has ended, and says why
                with suppress(BrokenPipeError):
                    encoder.stdin.close()
                ended = encoder.wait()
            except BaseException:
                encoder.kill()
                raise
            if ended:
                said.seek(0)
                raise OSError(
                    f"{path} was not written: {said.read().decode(errors='replace').strip()}"
                )
        draft.replace(path)
    finally:
        draft.unlink(missing_ok=True)
    return count


def _ffmpeg() -> str:
    """The encoder that the package imageio-ffmpeg carries; ConfigError when it is not installed."""
    try:
        package: Any = importlib.import_module("imageio_ffmpeg")
    except ModuleNotFoundError as error:
        raise ConfigError(
            "videos need imageio-ffmpeg: pip install 'shoal-rl[video]'"
        ) from error
    return str(package.get_ffmpeg_exe())
