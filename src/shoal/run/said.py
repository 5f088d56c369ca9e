"""`answers.jsonl`: what a language model said in training, a group of answers for each line of metrics."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from shoal.run.directory import find
from shoal.run.log import open_to_append
from shoal.run.reading import open_regular, parse_json
from shoal.run.records import LINE_BYTES, lines_of
from shoal.stream.groups.shown import shown_of

if TYPE_CHECKING:
    from shoal.run.callbacks import Record
    from shoal.run.directory import RunDirectory
    from shoal.run.run import Run
    from shoal.stream.groups.groups import Groups

FILE_BYTES = 4 << 20
"""At which the file becomes `answers.old.jsonl`, in the place of the one before."""
OLD = "answers.old.jsonl"
MOST_READ = 2 * FILE_BYTES + LINE_BYTES


@dataclass(frozen=True, slots=True)
class SaidAnswer:
    """One answer."""

    text: str
    """What the model said, in a task of several turns with the replies; cut at 2000 characters."""
    reward: float | None
    """None where nothing judged it."""
    rewards: Mapping[str, float]
    """What each of several scorers gave, before its weight."""
    tokens: int
    truncated: bool
    """Whether it was cut at the most tokens."""


@dataclass(frozen=True, slots=True)
class Said:
    """A prompt of training and the first 16 answers to it."""

    update: int
    """Updates before the line of metrics that it belongs to."""
    step: int
    version: int
    """The newest weights that chose one of the tokens."""
    prompt: str
    """All that the model read before it answered, without special tokens; cut at 2000 characters."""
    answers: tuple[SaidAnswer, ...]


class AnswersFile:
    """A callback that writes the first group of the newest batch at every line of metrics, each by one write."""

    episodes = False
    """It does without the ends of episodes."""

    def __init__(self, where: RunDirectory, groups: Groups) -> None:
        """Of a run; nothing is written yet."""
        self._path, self._groups = where.answers, groups
        self._broken = False

    def __call__(self, run: Run, record: Record, /) -> None:
        """Writes; a disk that takes nothing is warned of once, and no failure of the run."""
        group = self._groups.newest
        if group is None or self._broken or not isinstance(record, dict):
            return
        said = {"update": int(record["update"]), "step": int(record["step"])}
        said |= shown_of(group, self._groups.model.tokenizer)
        try:
            append(self._path, said)
        except OSError as error:
            self._broken = True
            run.warn(f"{self._path} is not written any more: {error}")


def append(path: Path, said: dict[str, Any]) -> None:
    """Adds one line, in a new file where this one is full; what a killed process left torn is closed before."""
    data = _line(said)
    while len(data) > LINE_BYTES - 1 and said["answers"]:
        said["answers"].pop()
        data = _line(said)
    file = open_to_append(path)
    try:
        size = os.fstat(file).st_size
        if size + len(data) > FILE_BYTES:
            os.close(file)
            path.replace(path.with_name(OLD))
            file, size = open_to_append(path), 0
        torn = size > 0 and os.pread(file, 1, size - 1) != b"\n"
        os.write(file, b"\n" * torn + data)
    finally:
        os.close(file)


def read_answers(
    run: str | Path, *, last: int = 10, run_dir: str = "runs"
) -> list[Said]:
    """What a run's language model said in training, the newest last; empty where nothing is kept.

    Its texts may be a stranger's: print them by `shoal.types.text.printable`, as `shoal answers` does.

    Args:
        run: a run directory, a folder of runs (the newest), or a run's name.
        last: of how many lines of metrics.
        run_dir: where `run` is looked for as well.

    Raises:
        ConfigError: no such run, or its file is a link, no file, or too large.
    """
    where = find(str(run), Path(run_dir))
    found: list[Said] = []
    for path in (where.answers.with_name(OLD), where.answers):
        for said in _read(path):
            # A resumed run says again what came after its checkpoint.
            while found and found[-1].update >= said.update:
                found.pop()
            found.append(said)
    return found[-last:] if last > 0 else []


def _line(said: dict[str, Any]) -> bytes:
    return (json.dumps(said) + "\n").encode()


def _read(path: Path) -> list[Said]:
    """The lines of one file that are whole and are what shoal writes."""
    try:
        file = open_regular(path, at_most=MOST_READ)
    except FileNotFoundError:
        return []
    found: list[Said] = []
    with file:
        for line in lines_of(file):
            try:
                found.append(_said(parse_json(line or b"")))
            except (ValueError, TypeError, KeyError):  # torn, or not shoal's
                continue
    return found


def _said(line: Any) -> Said:
    """ValueError, TypeError or KeyError where it is something else."""
    answers: Any = line["answers"]
    return Said(
        _count(line["update"]),
        _count(line["step"]),
        _count(line["version"]),
        _text(line["prompt"]),
        tuple(_answer(one) for one in answers),
    )


def _answer(one: Any) -> SaidAnswer:
    reward, parts = one["reward"], one["rewards"]
    if not isinstance(parts, Mapping):
        raise TypeError("no table of rewards")
    named = cast("Mapping[str, Any]", parts)
    return SaidAnswer(
        _text(one["text"]),
        None if reward is None else float(reward),
        {name: float(value) for name, value in named.items()},
        _count(one["tokens"]),
        bool(one["truncated"]),
    )


def _count(value: object) -> int:
    if not isinstance(value, int) or not 0 <= value < 2**63:
        raise ValueError("no count")
    return value


def _text(value: object) -> str:
    if not isinstance(value, str):
        raise TypeError("no text")
    return value
