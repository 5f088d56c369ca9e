"""Films of a run: the videos that lie in its directory, and a new one of its newest policy, made on request alone."""

from __future__ import annotations

import os
import subprocess
import sys
from contextlib import suppress
from dataclasses import dataclass
from threading import Lock, Thread
from typing import TYPE_CHECKING

import psutil

from shoal.run.reading import check_folder, open_regular
from shoal.types import ConfigError
from shoal.types.text import printable

if TYPE_CHECKING:
    from io import BufferedReader
    from pathlib import Path

    from shoal.run.directory import RunDirectory

FOLDER = "videos"
KINDS = {".mp4": "video/mp4", ".webm": "video/webm", ".gif": "image/gif"}
MOST_FILMS = 24
"""Of a run: of more, the newest."""
FILM_BYTES = 1 << 30
ROWS, STEPS = 4, 1000
"""Episodes side by side, and steps of each, of a new film."""
NICE = 10
"""How much a film gives way to training."""


@dataclass(frozen=True, slots=True)
class Film:
    """A file that can be played."""

    name: str
    kind: str
    written_s: float
    size: int


def list_films(run: RunDirectory) -> list[Film]:
    """The films of a run, the newest first: regular files of its directory and of `videos/`, none through a link."""
    found: list[Film] = []
    for inside, folder in (("", run.path), (f"{FOLDER}/", run.path / FOLDER)):
        if inside and folder.is_symlink():
            continue
        with suppress(OSError), os.scandir(folder) as entries:
            for entry in entries:
                kind = KINDS.get(os.path.splitext(entry.name)[1].lower())
                draft = entry.name.startswith(".")
                if kind is None or draft or not entry.is_file(follow_symlinks=False):
                    continue
                about = entry.stat(follow_symlinks=False)
                name = f"{inside}{entry.name}"
                found.append(Film(name, kind, about.st_mtime, about.st_size))
    found.sort(key=lambda film: film.written_s, reverse=True)
    return found[:MOST_FILMS]


def open_film(run: RunDirectory, name: str) -> tuple[Film, BufferedReader]:
    """A film of `list_films`, open for reading.

    Raises:
        ConfigError: there is no such film, or it cannot be read.
    """
    for film in list_films(run):
        if film.name == name:
            try:
                return film, open_regular(run.path / name, at_most=FILM_BYTES)
            except FileNotFoundError:
                break
    raise ConfigError(f"there is no film {printable(name, 80)!r} of this run")


class Filming:
    """Makes films, one at a time, each in a process of its own that gives way to training."""

    def __init__(self) -> None:
        """Nothing is made yet."""
        self._lock = Lock()
        self._process: subprocess.Popen[bytes] | None = None
        self._waiting: Thread | None = None
        self._run: Path | None = None
        self._said = ""
        self._closed = False

    def begin(self, run: RunDirectory, steps: int) -> None:
        """Begins a film of the newest checkpoint.

        Args:
            run: whose.
            steps: of training, which name the file.

        Raises:
            ConfigError: another one is being made.
        """
        with self._lock:
            if self._closed or self._process is not None:
                raise ConfigError("one film is being made; wait for it")
            folder = run.path / FOLDER
            check_folder(folder)
            folder.mkdir(exist_ok=True)
            target = folder / f"step-{steps}.mp4"
            command = [sys.executable, "-m", "shoal", "eval", str(run.path.absolute())]
            command += ["--episodes", "1", "--video", str(target.absolute())]
            command += ["--video-rows", f"{ROWS}", "--video-steps", f"{STEPS}"]
            # A session of its own: Ctrl-C is the server's, which ends it.
            process = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
            self._process, self._run, self._said = process, run.path, ""
            self._waiting = Thread(target=self._wait, args=[process], daemon=True)
            self._waiting.start()
        with suppress(psutil.Error):
            psutil.Process(process.pid).nice(NICE)

    def state_of(self, run: RunDirectory) -> str:
        """`making`, nothing, or why the last film of this run was not made."""
        with self._lock:
            if self._run != run.path:
                return ""
            return "making" if self._process is not None else self._said

    def close(self) -> None:
        """Ends what is being made."""
        with self._lock:
            self._closed = True
            process, waiting = self._process, self._waiting
            if process is not None:
                process.terminate()
        if process is not None and waiting is not None:
            waiting.join(3.0)
            if waiting.is_alive():
                process.kill()
                waiting.join()

    def _wait(self, process: subprocess.Popen[bytes]) -> None:
        """Waits for a film's process, and keeps what it said last where it failed."""
        output, _ = process.communicate()
        lines = output.decode(errors="replace").split("\n")
        told = [line for line in lines if line.strip()]
        with self._lock:
            self._process = None
            if process.returncode:
                self._said = printable(told[-1] if told else "no film was made", 400)
