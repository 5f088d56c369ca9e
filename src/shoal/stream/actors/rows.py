"""The rows of actors, as an algorithm gets them: only rollouts can be collected in them."""

from __future__ import annotations

import os
import time
import weakref
from contextlib import suppress
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import TYPE_CHECKING, Any, Literal, NoReturn, TypeAlias

import numpy as np

from shoal.envs.vec_env import Capabilities
from shoal.envs.workers.pipe import pack
from shoal.stream.actors.distant import DistantActor
from shoal.stream.actors.process import ActorProcess
from shoal.stream.actors.slots import Slots
from shoal.stream.actors.spare import Spare
from shoal.stream.actors.threaded import ThreadActor
from shoal.types import ConfigError, EnvError, check_ranges, check_room

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from numpy.typing import NDArray

    from shoal.envs.vec_env import VecEnv
    from shoal.stream.actors.distant import Places
    from shoal.types import Bools, Ready, Tree

AnyActor: TypeAlias = ActorProcess | DistantActor | ThreadActor
"""An actor as its learner sees it."""
Inside: TypeAlias = Literal["auto", "threads", "processes"]
"""What actors of this machine are: threads of the learner's process, or processes of their own."""
MOST_ACTORS = 1024
ACTOR_BYTES = 160 << 20
"""What a process needs for itself alone, before its environments and rollouts."""
CLOSE_S = 4.0
"""What all actors may take to close their environments."""


@dataclass(frozen=True, slots=True)
class ActorSettings:
    """How many actors there are, and what becomes of one that fails."""

    actors: int
    timeout_s: float = 60.0
    """What a step may take."""
    on_fault: str = "raise"
    """raise: an actor's error ends the run; restart: another one takes its rows over; drop: the others go on."""
    max_restarts: int = 3
    """Of each."""
    inside: Inside = "processes"
    """auto: threads where rows are native and their policy acts in native code, and where an error ends the run, so
    that nobody needs to be able to end one from outside."""

    def __post_init__(self) -> None:
        """Refuses what cannot work."""
        check_ranges(self, actors=(1, MOST_ACTORS))


class ActorRows:
    """Rows that live in actors. Actor after actor has a contiguous part of them; `run.rollouts` collects there."""

    native_pool = None
    python_rows = None

    def __init__(
        self,
        make: Callable[[int], VecEnv],
        num_envs: int,
        settings: ActorSettings,
        *,
        place: Callable[[bytes, int, int], Places] | None = None,
    ) -> None:
        """Starts them.

        Args:
            make: makes the rows of so many environments, in an actor.
            num_envs: of all.
            settings: how many actors there are.
            place: starts an actor elsewhere, of packed `make`, its number, and its environments; None: here.

        Raises:
            ConfigError: fewer environments than actors, more actors than there is memory for, or environments that
                cannot be made.
        """
        count = settings.actors
        self.threaded = place is None and may_be_threads(settings)
        """Whether they are threads of this process."""
        _check_count(count, num_envs, here=place is None and not self.threaded)
        self.settings, self._slots = settings, Slots()
        bounds = [num_envs * i // count for i in range(count + 1)]
        self.envs = [last - first for first, last in pairwise(bounds)]
        self._make, self._place = pack(make), place
        self.processes: list[AnyActor] = []
        self._fresh: list[AnyActor] = []
        """Those that start to take the place of others."""
        self._spares: list[Spare] = []
        ended = (self.processes, self._fresh, self._spares)
        self._at_exit = weakref.finalize(self, _end, ended, os.getpid())
        self.rows: list[slice] = []
        """Of each actor."""
        try:
            for i, (first, last) in enumerate(pairwise(bounds)):
                self.processes.append(self._start(i, slice(first, last)))
            found = [process.described() for process in self.processes]
        except BaseException:
            self._at_exit()
            raise
        self.spec = found[0].spec
        """What a row observes and does."""
        agents = self.spec.num_agents
        self.num_rows = num_envs * agents
        for process, (first, last) in zip(
            self.processes, pairwise(bounds), strict=True
        ):
            process.rows = slice(first * agents, last * agents)
            self.rows.append(process.rows)
        self.capabilities = replace(
            Capabilities(), whole_sends=True, can_save=found[0].capabilities.can_save
        )
        self.dropped: Bools = np.zeros(self.num_rows, np.bool_)
        self.in_use = False
        """Whether a stream collects here already."""

    def _start(self, number: int, rows: slice, spare: Spare | None = None) -> AnyActor:
        if self._place is None:
            given = self._make, number, rows, self.envs[number]
            if self.threaded:
                return ThreadActor(*given, self._slots)
            return ActorProcess(*given, spare)
        placed = self._place(self._make, number, self.envs[number])
        return DistantActor(placed, number, rows)

    def leave_threads(self, why: str) -> None:
        """Has processes take the place of threads before anything was collected.

        Raises:
            ConfigError: they are to be threads; `why` says why they cannot be.
        """
        if self.settings.inside == "threads":
            raise ConfigError(
                f'actors_in="threads": {why}, and only one thread at a time runs Python; set actors_in="processes"'
            )
        self.threaded = False
        _check_count(len(self.rows), sum(self.envs), here=True)
        fresh = [self.started(number) for number in range(len(self.rows))]
        for number, process in enumerate(fresh):
            process.described()
            self.processes[number].ask_to_close()
            self.put(number, process)

    def keep_spare(self) -> None:
        """Has a process ready that may become an actor, where one may have to take another's place here.

        To start one takes seconds, most of them for imports.
        """
        settings = self.settings
        wanted = settings.on_fault == "restart" and settings.max_restarts > 0
        wanted = wanted and not self.threaded
        while self._spares and not self._spares[-1].worker.alive:
            self._spares.pop().end()
        if wanted and self._place is None and not self._spares:
            self._spares.append(Spare())

    def take_spare(self) -> Spare | None:
        """The process that is ready, if there is one; `keep_spare` starts another."""
        return self._spares.pop() if self._spares else None

    def started(self, number: int, spare: Spare | None = None) -> AnyActor:
        """A process for an actor's rows, which makes its environments by now; `put` has it take them over.

        It is `spare`, where there is one.
        """
        fresh = self._start(number, self.rows[number], spare)
        self._fresh.append(fresh)
        if not self._at_exit.alive:
            self.abandon(fresh)
            raise EnvError(f"{fresh} was ended: its rows were closed meanwhile")
        return fresh

    def abandon(self, fresh: AnyActor) -> None:
        """Ends a new process that takes nothing over."""
        with suppress(ValueError):  # `close` was faster
            self._fresh.remove(fresh)
        fresh.end()

    def put(self, number: int, fresh: AnyActor) -> None:
        """Puts a new process in the place of one, which is ended."""
        self.processes[number].end()
        self.processes[number] = fresh
        self._fresh.remove(fresh)

    def reset(self, seed: int | Sequence[int]) -> NoReturn:
        """Not here: a stream of rollouts does that."""
        _refuse()

    def restart(
        self,
        seeds: Sequence[int | None],
        rows: Bools,
        *,
        held: Bools,
        options: dict[str, Any] | None = None,
    ) -> NoReturn:
        """Not here."""
        _refuse()

    def recv(self) -> Ready:
        """Not here."""
        _refuse()

    def send(self, rows: slice, action: Tree) -> NoReturn:
        """Not here."""
        _refuse()

    def state(self) -> NoReturn:
        """Not here: a stream of rollouts saves them."""
        _refuse()

    def restore(self, state: dict[str, Any]) -> NoReturn:
        """Not here."""
        _refuse()

    def render(self, row: int) -> NDArray[np.uint8]:
        """Not here."""
        _refuse()

    def close(self) -> None:
        """Has the actors close their environments, for so long at most, and ends them; may be called twice."""
        if not self._at_exit.alive:
            return
        deadline = time.monotonic() + CLOSE_S
        asked = [process for process in self.processes if not process.late]
        for process in asked:
            process.ask_to_close()
        for process in asked:
            with suppress(Exception):  # one that fails to close is ended
                process.closed(max(0.0, deadline - time.monotonic()))
        self._at_exit()


def may_be_threads(settings: ActorSettings) -> bool:
    """Whether actors of this machine are to be threads, as far as rows and policies allow it."""
    match settings.inside:
        case "auto":
            return settings.on_fault == "raise"
        case inside:
            return inside == "threads"


def _check_count(count: int, num_envs: int, *, here: bool) -> None:
    """ConfigError for fewer environments than actors, or more actors `here` than there is memory for."""
    if num_envs < count:
        raise ConfigError(
            f"actors={count} need as many environments, got num_envs={num_envs}"
        )
    if here:
        what = f"actors={count}, each of them a process with torch,"
        check_room(count * ACTOR_BYTES, what, "set actors to less")


def _refuse() -> NoReturn:
    raise ConfigError(
        "these rows live in actors, where whole rollouts are collected: take them from run.rollouts or run.replay, "
        "or set actors=0"
    )


def _end(lists: tuple[list[Any], ...], pid: int) -> None:
    """Ends all that is in the lists; not in a child that was forked."""
    if os.getpid() != pid:
        return
    for every in lists:
        while every:
            every.pop().end()
