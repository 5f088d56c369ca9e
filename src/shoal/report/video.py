"""Videos: pictures of several rows as the tiles of a grid, and grids as the frames of an .mp4 or .gif."""

from __future__ import annotations

import importlib
import math
import secrets
import subprocess
import tempfile
from contextlib import suppress
from itertools import chain, islice
from typing import IO, TYPE_CHECKING

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
FRAME_GRAY = 64
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
    shown = drawn.repeat(times, 0).repeat(times, 1) if times > 1 else drawn
    color = "white"
    if dimmed:
        shown = np.right_shift(shown, 1, dtype=np.uint8)
        color = "#909090"
    strip = Image.new("RGB", (shown.shape[1], CAPTION_HEIGHT))
    font = ImageFont.load_default(12)
    ImageDraw.Draw(strip).text((4, 3), caption, fill=color, font=font)
    framed = np.concatenate([np.asarray(strip), shown])
    return np.pad(framed, ((0, GAP), (0, GAP), (0, 0)), constant_values=FRAME_GRAY)


def grid(tiles: Sequence[Frame]) -> Frame:
    """Tiles side by side, as near to a square as their number allows; black where there is none, both sides even."""
    columns = math.ceil(math.sqrt(len(tiles)))
    lines = math.ceil(len(tiles) / columns)
    height = max(each.shape[0] for each in tiles)
    width = max(each.shape[1] for each in tiles)
    whole = np.zeros((lines * height, columns * width, 3), np.uint8)
    for at, each in enumerate(tiles):
        line, column = divmod(at, columns)
        top, left = line * height, column * width
        whole[top : top + each.shape[0], left : left + each.shape[1]] = each
    if whole.shape[1] > MAX_WIDTH:
        factor = math.ceil(whole.shape[1] / MAX_WIDTH)
        whole = np.asarray(Image.fromarray(whole).reduce(factor))
    odd_height, odd_width = whole.shape[0] % 2, whole.shape[1] % 2
    return np.pad(whole, ((0, odd_height), (0, odd_width), (0, 0)))


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
        frames = islice(frames, None, None, every)
        frames_per_s /= every
    first = next(frames)
    draft = path.with_name(f".{secrets.token_hex(8)}.{path.name}")
    command = _command(first, frames_per_s, ENCODINGS[path.suffix], draft)
    try:
        with tempfile.TemporaryFile() as messages:
            count, status = _encode(command, chain([first], frames), messages)
            if status:
                messages.seek(0)
                said = messages.read().decode(errors="replace").strip()
                raise OSError(f"{path} was not written: {said}")
        draft.replace(path)
    finally:
        draft.unlink(missing_ok=True)
    return count


def _command(
    first: Frame,
    frames_per_s: float,
    encoding: tuple[str, ...],
    draft: Path,
) -> list[str]:
    """The encoder's command line: raw frames like the first one from stdin, into `draft`."""
    height, width = first.shape[:2]
    quiet = ("-v", "error", "-nostdin", "-y")
    raw = ("-f", "rawvideo", "-pix_fmt", "rgb24", "-s", f"{width}x{height}")
    source = ("-r", f"{frames_per_s:g}", "-i", "-")
    return [_ffmpeg(), *quiet, *raw, *source, *encoding, str(draft)]


def _encode(
    command: list[str],
    frames: Iterator[Frame],
    messages: IO[bytes],
) -> tuple[int, int]:
    """Pipes frames into the encoder: how many it took, and its exit status. It is killed where a frame fails."""
    count = 0
    encoder = subprocess.Popen(
        command,
        stdin=subprocess.PIPE,
        stderr=messages,
        start_new_session=True,
    )
    with encoder:
        pipe = encoder.stdin
        assert pipe is not None
        try:
            for frame in _of_one_size(frames):
                pipe.write(np.ascontiguousarray(frame))
                count += 1
            pipe.close()
        except BrokenPipeError:  # it has ended, and says why
            with suppress(BrokenPipeError):
                pipe.close()
        except BaseException:
            encoder.kill()
            raise
        return count, encoder.wait()


def _of_one_size(frames: Iterator[Frame]) -> Iterator[Frame]:
    """The frames; EnvError at the first one of another size than the first."""
    shape: tuple[int, ...] = ()
    for number, frame in enumerate(frames):
        shape = shape or frame.shape
        if frame.shape != shape:
            raise EnvError(
                f"frame {number} is {frame.shape}, those before {shape}; draw one size"
            )
        yield frame


def _ffmpeg() -> str:
    """The encoder that the package imageio-ffmpeg carries; ConfigError when it is not installed."""
    try:
        package = importlib.import_module("imageio_ffmpeg")
    except ModuleNotFoundError as error:
        raise ConfigError(
            "videos need imageio-ffmpeg: pip install 'shoal-rl[video]'"
        ) from error
    return str(package.get_ffmpeg_exe())
