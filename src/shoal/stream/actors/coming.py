"""An actor that is to take the place of another one: it starts while the learner and the others go on."""

from __future__ import annotations

from concurrent.futures import Future
from threading import Thread
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from shoal.stream.actors.messages import Beginning
    from shoal.stream.actors.rows import ActorRows, AnyActor
    from shoal.stream.ending import Ending

LOOK_S = 0.1
"""Whoever waits for it looks once in so many seconds whether the run is to end."""


class Coming:
    """One that starts, in a thread of its own."""

    def __init__(self, env: ActorRows, number: int, said: Beginning) -> None:
        """Begins to start it.

        Args:
            env: whose rows it takes over.
            number: of the actor.
            said: how it is to collect.
        """
        self._env, self._number, self._said = env, number, said
        self._spare = env.take_spare()
        self._begun: Future[AnyActor] = Future()
        Thread(target=self._start, name="shoal-starts-actor", daemon=True).start()

    def result(self, ending: Ending) -> AnyActor:
        """The actor, its rows reset.

        Raises:
            EnvError: it could not be started; the environment's own exceptions arrive unchanged.
            EndingError: nobody waits any longer.
        """
        while True:
            try:
                return self._begun.result(LOOK_S)
            except TimeoutError:
                if self._begun.done():
                    raise
                ending.check()

    def _start(self) -> None:
        env, number = self._env, self._number
        try:
            fresh = env.started(number, self._spare)
            try:
                fresh.described()
                fresh.begin(self._said, env.settings.timeout_s)
            except BaseException:
                env.abandon(fresh)
                raise
        except BaseException as error:
            self._begun.set_exception(error)
        else:
            self._begun.set_result(fresh)
