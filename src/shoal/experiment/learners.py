"""Several learners: the processes beside the first one, how they begin, are looked after and end."""

from __future__ import annotations

import tempfile
import time
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import distributed

from shoal.envs.workers.pipe import pack
from shoal.envs.workers.processes import START_S, Worker, end_all
from shoal.experiment.language import on_tasks
from shoal.learn.ranks import LOOK_S, Ranks
from shoal.learn.signs import Signs
from shoal.remote.address import is_address
from shoal.stream.meter import cores
from shoal.types import ConfigError, EnvError, text_of

if TYPE_CHECKING:
    from collections.abc import Generator

    from shoal.envs.vec_env import VecEnv
    from shoal.experiment.experiment import Experiment
    from shoal.experiment.options import Options
    from shoal.run.directory import RunDirectory

WORD = "learner"
READY, ENDED = 0, 1
"""The numbers of what a learner says: that its environments are made, and how it ended."""
FOLLOWED = "the connection to another learner broke"
"""How one says that it ended because another one did."""
BLAME_S = 5.0
"""For so long it is waited for the word of the learner that failed."""
CLOSE_S = 5.0
"""For so long learners may close their environments at the end."""


@dataclass(frozen=True, slots=True)
class Introduction:
    """What a learner beside the first one is told."""

    experiment: Experiment
    where: RunDirectory
    fresh: bool
    store: str
    """The path of the file by which the ranks find each other."""


def check_learners(experiment: Experiment) -> None:
    """ConfigError where several learners cannot share what a run does, with what would work."""
    options, count = experiment.options, experiment.options.learners
    if count == 1:
        return
    said = f"learners={count}"
    if on_tasks(experiment.algorithm):
        _check_devices(options.device, count)
        return
    if options.num_envs % count:
        less = max(count, options.num_envs // count * count)
        raise ConfigError(
            f"num_envs={options.num_envs} environments do not divide among {said}; num_envs={less} or {less + count} "
            "would"
        )
    if getattr(experiment.config, "replay", None) is not None:
        raise ConfigError(
            f"{said} share rollouts, and {options.algo} learns from a replay memory; set learners=1, or choose an "
            "algorithm on rollouts (`shoal algos` lists all)"
        )
    if options.data is not None or options.offline_updates:
        raise ConfigError(
            f"{said} share rollouts, and a data set is learned from by one; leave data and offline_updates out, or "
            "set learners=1"
        )
    others = {
        "agents": options.agents > 1,
        'schedule="async"': options.schedule == "async",
        "actors": options.actors > 0,
        "fleet": options.fleet is not None,
        "self_play.every": options.self_play.every > 0,
        "curiosity.coef": options.curiosity.coef > 0,
        "environments on servers": is_address(experiment.source),
    }
    for name, there in others.items():
        if there:
            raise ConfigError(
                f"{said} do not go with {name} yet: each learner steps its share of the environments in its own "
                "process; leave one of them out"
            )
    _check_devices(options.device, count)


def _check_devices(name: str, count: int) -> None:
    """ConfigError unless each learner has a GPU of its own, where they are to learn on GPUs."""
    device = torch.device(name)
    if device.type != "cuda":
        return
    if device.index:
        raise ConfigError(
            f"device={name!r} with learners={count}: each takes a GPU, from the first one on; set device='cuda'"
        )
    there = torch.cuda.device_count()
    if there < count:
        raise ConfigError(
            f"learners={count} on device='cuda' need a GPU each, and there are {there}; set learners={max(there, 1)}, "
            "or device='cpu'"
        )


def device_of(name: str, rank: int) -> str:
    """The device of a rank: of GPUs, its own."""
    return f"cuda:{rank}" if torch.device(name).type == "cuda" else name


@contextmanager
def beside(
    experiment: Experiment, env: VecEnv, where: RunDirectory, *, fresh: bool
) -> Generator[Ranks | None]:
    """This process as the first of several learners, the others of which begin here and end with this; None alone.

    Args:
        experiment: what is trained.
        env: this process's rows.
        where: the run's directory, which the others read.
        fresh: whether the run is a new one.

    Raises:
        ConfigError: as the others' environments raise it.
        EnvError: one of them did not begin; later, from whatever is exchanged, one is gone, or hangs.
    """
    options = experiment.options
    if options.learners == 1:
        yield None
        return
    with ExitStack() as held:
        signs = held.enter_context(Signs.made(options.learners))
        folder = tempfile.TemporaryDirectory(prefix="shoal-learners-")
        held.enter_context(folder)
        path = str(Path(folder.name) / "ranks")
        said = _packed(Introduction(experiment, where, fresh, path))
        workers: list[Worker] = []
        held.callback(end_all, workers)
        for rank in range(1, options.learners):
            workers.append(_started(rank, getattr(env, "num_rows", 0), signs.file))
            workers[-1].send((rank, said))
        for worker in workers:
            worker.receive(START_S, task=READY, doing="making its environments or task")
        watch = Watch(workers, signs, options.step_timeout_s)
        try:
            ranks = connect(path, 0, options, options.device, watch)
        except RuntimeError as error:  # one ended, or did not come
            watch.lost(error)
            raise
        folder.cleanup()  # all are connected; nothing stays behind if this is killed
        held.callback(ranks.close)
        held.callback(end_all, workers)  # first: to close waits for what is under way
        yield ranks
        _wait_for(workers)


def _packed(said: Introduction) -> bytes:
    """What learners are told; ConfigError where it cannot be sent to a process."""
    try:
        return pack(said)
    except Exception as error:
        raise ConfigError(
            f"the environment, the policy or a setting cannot be sent to other learners: {type(error).__name__}: "
            f"{text_of(error)}; set learners=1, or make it of what can be pickled"
        ) from error


def _started(rank: int, num_rows: int, signs: int) -> Worker:
    """A process for a rank of so many rows; `signs`: the descriptor of the memory for its signs."""
    rows = slice(rank * num_rows, (rank + 1) * num_rows)
    work = "shoal.experiment.learner_process"
    return Worker(rank, rows, signs, work=work, word=WORD)


def connect(
    path: str, rank: int, options: Options, device: str, watch: Watch | Signs
) -> Ranks:
    """Connects a rank with the others, by a file that all of them know."""
    torch_own: Any = distributed
    size = options.learners
    store = torch_own.FileStore(path, size)
    store.set_timeout(timedelta(seconds=START_S))
    ranks = Ranks(
        store,
        rank,
        size,
        device=torch.device(device_of(device, rank)),
        watch=watch,
        within_s=START_S,
        shards_within_s=options.step_timeout_s if options.language.shard else 0,
    )
    ranks.largest([0])
    return ranks


def _wait_for(workers: list[Worker]) -> None:
    """Until they have closed their environments."""
    end = time.monotonic() + CLOSE_S
    while any(w.alive for w in workers) and time.monotonic() < end:
        time.sleep(0.01)


class Watch:
    """Looks after the learners beside this one while it waits for them."""

    def __init__(self, workers: list[Worker], signs: Signs, timeout_s: float) -> None:
        """Nothing may stand still in one of them for `timeout_s` while this process waits for it."""
        self._workers, self._signs, self._timeout_s = workers, signs, timeout_s
        self._seen: dict[int, tuple[int, float]] = {}
        """How far each was when it was seen to move, and when that was."""

    def waits(self, *, begun: bool) -> None:
        """This rank begins to wait for others, or is done."""
        if begun:
            self._seen.clear()

    def count(self) -> None:
        """This rank is the one that looks."""

    def look(self) -> None:
        """The wait goes on; EnvError where a learner is gone, or hangs."""
        for worker in self._workers:
            if not worker.alive:
                self.lost(EnvError("it is gone"))
        still = [w for w in self._workers if self._stands(w.number)]
        if not still:
            return
        working = [w for w in still if not self._signs.waits_at(w.number)]
        if not working and len(still) < len(self._workers):
            return  # those wait for one that goes on
        worker = next(iter(working), None) or _stopped(still)
        what = f"said nothing for {self._timeout_s:g} s{worker.stack()}"
        worker.kill()
        raise EnvError(f"{worker}, learning, {what}")

    def lost(self, error: Exception) -> None:
        """A connection broke: raises what is known of the learner that was at fault."""
        end = time.monotonic() + BLAME_S
        followed: set[int] = set()
        while time.monotonic() < end and len(followed) < len(self._workers):
            for worker in self._workers:
                if worker.number in followed:
                    continue
                if worker.pipe.poll() or not worker.alive:
                    # What failed there is raised here, as is that it is gone.
                    worker.receive(LOOK_S, task=ENDED, doing="learning")
                    followed.add(worker.number)
            time.sleep(0.01)
        raise EnvError(
            f"the connection between learners broke: {text_of(error)}"
        ) from error

    def _stands(self, rank: int) -> bool:
        """Whether nothing has gone on in a learner for too long."""
        now, count = time.monotonic(), self._signs.count_of(rank)
        before = self._seen.get(rank)
        if before is None or before[0] != count:
            self._seen[rank] = count, now
            return False
        return now - before[1] > self._timeout_s


def _stopped(workers: list[Worker]) -> Worker:
    """Of some that all wait, the one that is stopped; else the first."""
    for worker in workers:
        if "stopped" in worker.stack():
            return worker
    return workers[0]


def too_many(count: int) -> str:
    """A sentence where there are more learners than cores; else empty."""
    there = cores()
    if count <= there:
        return ""
    return (
        f"learners={count} are more than the {there} cores that this process may use: they take turns, and learn no "
        "faster than fewer would"
    )
