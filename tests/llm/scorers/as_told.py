"""Scorers that do what the answers say; processes import no more than this."""

from __future__ import annotations

import os
import signal
import time
from math import nan
from pathlib import Path
from random import Random
from typing import Any

from shoal.llm.scorers.score import Score
from shoal.llm.tasks.task import Prompt

PROMPT = Prompt(7, "2 + 2 =", "4")


def exact(prompt: Prompt, answer: str) -> float:
    return float(answer == prompt.truth)


def as_told(_: Prompt, answer: str) -> Any:  # noqa: C901
    """Does what the answer says."""
    match answer.split():
        case ["raise"]:
            raise OverflowError("too much")
        case ["nan"]:
            return nan
        case ["none"]:
            return None
        case ["text"]:
            return "1"
        case ["hang"]:
            time.sleep(600)
        case ["die"]:
            os.kill(os.getpid(), signal.SIGSEGV)
        case ["exit"]:
            os._exit(3)
        case ["once", path]:  # fails the first time, in whichever process
            if not Path(path).exists():
                Path(path).touch()
                raise ConnectionError("flaky")
        case ["once-die", path]:
            if not Path(path).exists():
                Path(path).touch()
                os.kill(os.getpid(), signal.SIGKILL)
        case ["sleep", seconds]:
            time.sleep(float(seconds))
        case ["parts"]:
            return Score(1.5, {"format": 0.5, "right": 1.0}, (0.0, 1.0))
        case _:
            pass
    return 1.0


class Batches:
    """Takes up to four at once; those that say so take their time, or fail alone, all together or with the process."""

    batch_size = 4

    def __init__(self) -> None:
        self.sizes: list[int] = []

    def __call__(self, prompt: Prompt, answer: str) -> float:
        raise NotImplementedError

    def score_batch(self, pairs: list[tuple[Prompt, str]]) -> list[Any]:
        self.sizes.append(len(pairs))
        if any(answer == "slow" for _, answer in pairs):
            time.sleep(0.5)
        if any(answer == "all" for _, answer in pairs):
            raise ValueError("the batch")
        if any(answer == "die" for _, answer in pairs):
            os.kill(os.getpid(), signal.SIGKILL)
        return [ValueError("this one") if answer == "one" else float(len(answer)) for _, answer in pairs]


def fails_to_load() -> Any:
    raise FileNotFoundError("no weights")


def once(path: str) -> Any:
    """Made once only."""
    if Path(path).exists():
        raise FileNotFoundError("the weights are gone")
    Path(path).touch()
    return as_told


def dies_while_starting(path: str, *, times: int) -> Any:
    """Is there the first time; the next ones its process is killed while it makes the scorer."""
    starts = int(Path(path).read_text()) if Path(path).exists() else 0
    Path(path).write_text(str(starts + 1))
    if 0 < starts <= times:
        os.kill(os.getpid(), signal.SIGKILL)
    return as_told


def flaky_scorer() -> Any:
    """One that does what it should, most of the time."""
    chance = Random(os.getpid())

    def score(_: Prompt, answer: str) -> float:
        drawn = chance.random()
        if drawn < 0.01:
            time.sleep(600)
        if drawn < 0.03:
            os._exit(1)
        if drawn < 0.08:
            raise ConnectionError("flaky")
        time.sleep(0.01 * chance.random())
        return float(answer)

    return score
