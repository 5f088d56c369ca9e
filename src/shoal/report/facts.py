"""Facts: where a run stands, as a terminal and a browser show it, from its directory and nothing else."""

from __future__ import annotations

import math
import platform
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import psutil

from shoal.report.cost.telling import cost_line
from shoal.report.interventions import Interventions, read_interventions
from shoal.run.control import (
    PAUSE,
    PAUSED,
    STARTING,
    STOP,
    asked_by,
    is_starting,
    was_killed_at_start,
)
from shoal.run.directory import find_all
from shoal.run.records import HUGE
from shoal.run.status import GOING, is_running
from shoal.stream.meter import ACTIVITIES
from shoal.types.text import printable

if TYPE_CHECKING:
    from collections.abc import Mapping

    from shoal.run.directory import RunDirectory
    from shoal.run.following import Follower
    from shoal.run.records import Line

NAME = 80
"""Letters of a name that are shown."""
SENTENCE = 400
"""Letters of what is said of a run."""


@dataclass(slots=True)
class Facts:
    """Where a run stands. Texts are printable; numbers are finite, or None where they are not known."""

    env: str = "?"
    algo: str = "?"
    seed: int | None = None
    device: str = ""
    state: str = "unknown"
    """As `shoal runs` says it; `deleted` where the directory is gone, `unreadable` where its files are damaged."""
    reason: str = ""
    """Why it ended."""
    problems: list[str] = field(default_factory=list[str])
    """What cannot be read of it, in sentences."""
    steps: int | None = None
    total: int | None = None
    counted: str = "steps"
    """What `steps` and `total` count: environment steps, or updates where the run takes no step."""
    speed: float | None = None
    left_s: float | None = None
    elapsed_s: float | None = None
    updates: int | None = None
    episodes: int | None = None
    mean_return: float | None = None
    greedy_return: float | None = None
    mean_cost: float | None = None
    """Of an episode, as the environment says it; None where its steps have no cost."""
    greedy_cost: float | None = None
    threshold: float | None = None
    stop_at: float | None = None
    shares: dict[str, float] = field(default_factory=dict[str, float])
    """The part of the time that each activity took in the process that trains now."""
    cpu_cores: float | None = None
    """Cores that the run's process keeps busy; None where it is not running on this machine."""
    processes: int | None = None
    """That process and its children."""
    losses: dict[str, float] = field(default_factory=dict[str, float])
    orders: list[str] = field(default_factory=list[str])
    """What it can be asked to do: pause, continue, stop."""
    asked: str = ""
    """What it was asked, and has not done yet."""
    guard: Interventions = field(default_factory=Interventions)
    cost: str = ""
    """So far, by the user's own prices; empty where there are none."""


class Processors:
    """How much of the processors a run's process and its children use, between one reading and the next."""

    def __init__(self) -> None:
        """Nothing is read yet."""
        self._before: tuple[int, float, float] | None = None
        self._shown: tuple[float | None, int | None] = None, None

    def read(self, pid: int) -> tuple[float | None, int | None]:
        """Cores in use since the last call, which is at least half a second ago, and the number of processes."""
        now = time.monotonic()
        before = self._before
        if before is not None and before[0] == pid and now - before[2] < 0.5:
            return self._shown
        try:
            root = psutil.Process(pid)
            family = [root, *root.children(recursive=True)]
        except psutil.Error:
            return None, None
        spent_s = 0.0
        for process in family:
            try:
                used = process.cpu_times()
            except psutil.Error:  # it has ended since
                continue
            spent_s += used.user + used.system
        busy: float | None = None
        if before is not None and before[0] == pid:
            busy = max(0.0, spent_s - before[1]) / (now - before[2])
        self._before = pid, spent_s, now
        self._shown = busy, len(family)
        return self._shown


def find_named(asked: str, root: Path) -> list[tuple[RunDirectory, Path]]:
    """The runs of a name, each with its path below the folder that was asked for, or below that of runs.

    Raises:
        ConfigError: there is none, or several runs have the name.
    """
    found: list[tuple[RunDirectory, Path]] = []
    for run in find_all(asked, root):
        short = run.path
        for base in (Path(asked), root / asked, root):
            if run.path != base and run.path.is_relative_to(base):
                short = run.path.relative_to(base)
                break
        found.append((run, short))
    return found


def facts_of(
    run: RunDirectory, follower: Follower | None, processors: Processors
) -> Facts:
    """Where a run stands; what cannot be read becomes a sentence in `problems`.

    Args:
        run: its directory, which may be damaged, or gone.
        follower: of its metrics; None where they were not read.
        processors: remembers what was read of its process.
    """
    found = Facts()
    if not run.path.is_dir():
        found.state = "deleted"
        if follower is not None:
            _take_line(found, follower)
        return found
    try:
        _take_config(found, run.read_config())
        status = run.read_status()
        _take_status(found, status)
        if is_starting(run):
            _take_start(found, run)
        elif found.state in GOING:
            _take_process(found, run, status, processors)
        elif was_killed_at_start(run):
            found.state, found.reason = "interrupted", "killed at its start"
        found.guard = read_interventions(run)
        found.cost = cost_line(run)
    except (ValueError, OSError) as error:
        found.state = "unreadable" if found.state == "unknown" else found.state
        found.problems.append(printable(error, SENTENCE))
    if follower is not None:
        _take_line(found, follower)
        if follower.warning:
            found.problems.append(printable(follower.warning, SENTENCE))
    return found


def _take_start(found: Facts, run: RunDirectory) -> None:
    """What may be asked of a run that makes ready to train."""
    found.state, found.reason, found.orders = STARTING, "", ["pause", "stop"]
    _take_orders(found, run)


def _take_orders(found: Facts, run: RunDirectory) -> None:
    """What was asked of a run, and has not happened yet."""
    if asked_by(run.path / STOP) is not None:
        found.asked, found.orders = "asked to stop", []
    elif asked_by(run.path / PAUSE) is not None and found.state != PAUSED:
        found.asked, found.orders = "asked to pause", ["continue", "stop"]


def _take_process(
    found: Facts,
    run: RunDirectory,
    status: Mapping[str, Any],
    processors: Processors,
) -> None:
    """Whether the process of a run that says it goes on does, and what it takes."""
    host = status.get("host", platform.node())
    if host != platform.node():
        said = f"on {printable(host, NAME)}, whose processes cannot be seen from here"
        found.reason = said
    elif is_running(run):
        found.cpu_cores, found.processes = processors.read(int(status["pid"]))
        found.orders = ["pause", "stop"]
        if found.state == PAUSED:
            found.orders = ["continue", "stop"]
        _take_orders(found, run)
    else:
        found.state = "interrupted"


def _take_config(found: Facts, config: Mapping[str, Any]) -> None:
    found.env = printable(config.get("env", "?"), NAME)
    found.algo = printable(config.get("algo", "?"), NAME)
    found.device = printable(config.get("device", ""), NAME)
    found.seed = _whole(config.get("seed"))
    found.stop_at = _number(config.get("stop_at"))
    found.total = _whole(config.get("total_timesteps"))
    if not found.total:
        found.counted = "updates"
        data = config.get("data")
        if isinstance(data, dict):
            found.total = _whole(cast("dict[str, object]", data).get("updates"))


def _take_status(found: Facts, status: Mapping[str, Any]) -> None:
    found.state = printable(status.get("state", "unknown"), NAME)
    said = status.get("reason") or status.get("stop_reason") or ""
    if "paused_by" in status:
        said = f"paused by {status['paused_by']}"
    found.reason = printable(said, SENTENCE)
    found.steps = status.get("steps")
    found.updates = status.get("updates")
    found.episodes = status.get("episodes")
    found.mean_return = _number(status.get("return"))
    found.greedy_return = _number(status.get("greedy_return"))
    found.greedy_cost = _number(status.get("greedy_cost"))
    found.threshold = _number(status.get("threshold"))
    found.elapsed_s = _number(status.get("seconds"))
    if found.counted == "updates":
        found.steps = found.updates


def _take_line(found: Facts, follower: Follower) -> None:
    """What the last line says, which is newer than run.json while a run goes on."""
    last, first = follower.last(), follower.since_start()
    if not last:
        return
    counted = "step" if found.counted == "steps" else "update"
    done = _whole(last.get(counted))
    if done is not None:
        found.steps = max(done, found.steps or 0)
    found.updates = _latest(_whole(last.get("update")), found.updates)
    found.episodes = _latest(_whole(last.get("episode/count")), found.episodes)
    found.elapsed_s = _latest(_number(last.get("time/elapsed")), found.elapsed_s)
    found.mean_return = _latest(_number(last.get("episode/return")), found.mean_return)
    if found.greedy_return is None:
        found.greedy_return = _number(last.get("eval/return"))
    found.mean_cost = _number(last.get("info/cost"))
    if found.greedy_cost is None:
        found.greedy_cost = _number(last.get("eval/cost"))
    found.speed = _number(last.get("speed/sps"))
    found.shares = shares_of(first, last)
    found.losses = {
        key.removeprefix("loss/"): value
        for key, value in last.items()
        if key.startswith("loss/") and value is not None
    }
    if found.state == "running":
        found.left_s = _left(found, first, last, counted)


def shares_of(first: Line, last: Line) -> dict[str, float]:
    """The part of the time from one line to another that each activity took; waiting is the remainder.

    Empty where the lines do not tell. Where they are one, the parts of the time since the process's start.
    """
    if first.get("step") == last.get("step"):
        first = {}
    spent: dict[str, float] = {}
    for name in ACTIVITIES:
        key = f"time/{name}"
        ended, begun = last.get(key), first.get(key)
        if ended is not None:
            spent[name] = max(0.0, ended - (begun or 0.0))
    if not spent:
        return {}
    elapsed = (last.get("time/elapsed") or 0.0) - (first.get("time/elapsed") or 0.0)
    if first:
        measured = sum(spent.values()) - spent.get("waiting", 0.0)
        spent["waiting"] = max(0.0, elapsed - measured)
    total = max(sum(spent.values()), 1e-9)
    return {name: seconds / total for name, seconds in spent.items()}


def _left(found: Facts, first: Line, last: Line, counted: str) -> float | None:
    """Seconds until the run has counted to its end, at the speed since its process began."""
    done, begun = _number(last.get(counted)), _number(first.get(counted))
    ended_s = _number(last.get("time/elapsed"))
    begun_s = _number(first.get("time/elapsed"))
    if done is None or begun is None or ended_s is None or begun_s is None:
        return None
    seconds, steps = ended_s - begun_s, done - begun
    if seconds <= 0 or steps <= 0 or not found.total:
        return None
    return max(0.0, found.total - done) * seconds / steps


def _latest(new: Any, old: Any) -> Any:
    return old if new is None else new


def _number(value: object) -> float | None:
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    return float(value) if math.isfinite(value) and abs(value) < HUGE else None


def _whole(value: object) -> int | None:
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    return int(value) if math.isfinite(value) and abs(value) < 2**63 else None
