"""What the guard's workers share: failures inside a learner, a listener, and the options of all."""

from __future__ import annotations

import argparse
import json
import math
import os
import re
import sys
import tempfile
import warnings
from collections.abc import Callable, Iterable
from typing import Any

import torch
from broken_env import IN_ENV
from worker import seed_list, versions

IN_LEARNER = ("learning_rate", "entropy", "nan_weights", "optimizer", "gradient")
FAILURES = ("none", *IN_LEARNER, *IN_ENV, "slow_worker")
"""`none` comes first: what a library says without a failure is not said about one."""
TIMES = 1000
BEFORE = 1
"""Updates of the resumed run before the failure, as in benchmarks/guard.py."""
EPISODES = 100


def corrupt(name: str, parameters: Iterable[torch.Tensor], head: Iterable[torch.Tensor], optimizer: Any) -> None:
    """A failure of IN_LEARNER, as benchmarks/guard.py has it; the learning rate and the clipping are the caller's."""
    with torch.no_grad():
        if name == "entropy":
            for parameter in head:
                parameter.mul_(100)
        if name == "nan_weights":
            for parameter in parameters:
                parameter.fill_(math.nan)
        if name == "optimizer":
            for state in optimizer.state.values():
                state["exp_avg"].normal_()
                state["exp_avg_sq"].zero_()
    if name == "gradient":
        for parameter in parameters:
            parameter.register_hook(larger)


def larger(gradient: torch.Tensor) -> torch.Tensor:
    """A gradient a thousand times as large."""
    return TIMES * gradient


class Listener:
    """Keeps every line that this process and its children write to stdout and stderr, warnings too."""

    def __enter__(self) -> Listener:
        """From now on."""
        sys.stdout.flush()
        sys.stderr.flush()
        self.file = tempfile.TemporaryFile(mode="w+", errors="replace")
        self.before = [os.dup(1), os.dup(2)]
        os.dup2(self.file.fileno(), 1)
        os.dup2(self.file.fileno(), 2)
        self.caught = warnings.catch_warnings()
        self.caught.__enter__()
        warnings.simplefilter("always")
        return self

    def __exit__(self, *error: object) -> None:
        """No longer."""
        sys.stdout.flush()
        sys.stderr.flush()
        self.caught.__exit__(None, None, None)
        for number, copy in zip((1, 2), self.before, strict=True):
            os.dup2(copy, number)
            os.close(copy)
        self.file.seek(0)
        self.lines = list(dict.fromkeys(map(plain, self.file.read().splitlines())))
        self.file.close()


def plain(line: str) -> str:
    """A line without colours, times, processes, numbers and folders, so that the same is said in the same words."""
    line = re.sub(r"\x1b\[[0-9;]*m", "", line)
    line = re.sub(r"(/[\w.+-]+)+/", "", line)
    return re.sub(r"0x[0-9a-f]+|\b[0-9a-f]{8,}\b|\d+", "#", line).strip()[:300]


def about(lines: list[str], known: set[str]) -> list[str]:
    """The first lines of a failure that were not said without one; of a program's lines, those that warn."""
    new = [line for line in lines if line and line not in known]
    warned = [line for line in new if re.search(r"warn|error|nan|inf\b", line, re.IGNORECASE)]
    return (warned or new)[:6]


def write(row: dict[str, Any], *packages: str) -> None:
    """Prints the row of a failure as a line."""
    print(json.dumps(row | {"versions": versions(*packages)}), flush=True)


def figure(play: Callable[[], float]) -> float | str:
    """What a policy reaches, or why it cannot act."""
    try:
        return play()
    except Exception as error:  # whatever acting with NaN raises
        return plain(f"{type(error).__name__}: {error}")[:120]


def parser(doc: str | None) -> argparse.ArgumentParser:
    """The options that all workers have."""
    made = argparse.ArgumentParser(description=doc)
    made.add_argument("--env", default="CartPole-v1")
    made.add_argument("--bar", type=float, default=475.0)
    made.add_argument("--looks", type=int, default=2, help="in a row above the bar, until a policy is good")
    made.add_argument("--updates", type=int, default=60, help="with the failure")
    made.add_argument("--every", type=int, default=10, help="updates between two looks for the best policy")
    made.add_argument("--failures", type=lambda text: text.split(","), default=list(FAILURES))
    made.add_argument("--seeds", type=seed_list, default=[1])
    made.add_argument("--threads", type=int, default=1)
    return made
