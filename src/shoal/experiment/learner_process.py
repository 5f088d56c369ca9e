"""The process of a learner beside the first one: the same algorithm on its share of the environments."""

from __future__ import annotations

import os
import sys
from contextlib import ExitStack, closing
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import torch

from shoal.envs import forks
from shoal.envs.told import told_before
from shoal.envs.workers.failures import failure_of
from shoal.envs.workers.pipe import pack, unpack
from shoal.envs.workers.worker import STRAY, Pipe
from shoal.experiment.first_weights import first_policy_of
from shoal.experiment.learners import (
    ENDED,
    FOLLOWED,
    READY,
    WORD,
    Introduction,
    connect,
    device_of,
)
from shoal.experiment.placed import training_rows
from shoal.experiment.session import settings_of
from shoal.learn.ranks import LostError
from shoal.learn.signs import Signs
from shoal.run.beginning import one_torch_thread
from shoal.run.run import Run
from shoal.stream.meter import Meter

if TYPE_CHECKING:
    from collections.abc import Callable

READY_SAID = pack((READY, True, None))


def main(given: dict[str, Any]) -> None:
    """Its whole life, started by `supervisor.main` with its file descriptors."""
    pipe = Pipe(given["pipe"])
    rank, packed = pipe.receive()
    forks.tell.append(lambda told: pipe.send(pack((STRAY, False, told))))
    torch.set_num_threads(1)
    try:
        said: Introduction = unpack(packed)
        learn(said, rank, given["block"], ready=lambda: pipe.send(READY_SAID))
        answer = (ENDED, True, None)
    except LostError:
        answer = (ENDED, True, FOLLOWED)
    except BaseException as error:
        failure = failure_of(error, rank, WORD)
        pipe.send(pack((READY, False, failure)))
        answer = (ENDED, False, failure)
    pipe.send(pack(answer))
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(0)


def learn(
    said: Introduction, rank: int, block: int, *, ready: Callable[[], None]
) -> None:
    """Trains, with the other ranks, until the run ends.

    Args:
        said: what all learners are told.
        rank: which of them this is.
        block: descriptor of the memory for its signs.
        ready: called when its environments are made.
    """
    own = device_of(said.experiment.options.device, rank)
    options = replace(said.experiment.options, device=own)
    experiment = replace(said.experiment, options=options)
    signs = Signs(block, options.learners, rank)
    with ExitStack() as held:
        held.enter_context(one_torch_thread())
        with told_before():  # the first learner has said it
            rows = held.enter_context(closing(training_rows(experiment)))
        # Torch imports a good part of itself for the first optimizer, which must not look like a learner that hangs.
        torch.optim.Adam([torch.zeros(1, requires_grad=True)])
        ready()
        ranks = connect(said.store, rank, options, own, signs)
        held.callback(ranks.close)
        first = first_policy_of(experiment, said.where, fresh=said.fresh, leads=False)
        settings = settings_of(
            experiment,
            rows,
            run=said.where.read_origin().run,
            began_with=first.said,
            ranks=ranks,
        )
        run = Run(
            replace(settings, timeline=0),
            directory=said.where,
            policy=first.make_policy,
        )
        run.meter = Counting(run.metrics.add, signs)
        run.meter.halt.parties.append(Standing(signs))
        held.callback(run.close)
        experiment.algorithm.train(experiment.config, rows, run)
        run.leave()


class Standing:
    """Shows the first learner that this one stands still with the run, and does not hang."""

    def __init__(self, signs: Signs) -> None:
        """`signs`: where it shows it."""
        self._signs = signs

    def stand(self) -> None:
        """The run stands still."""
        self._signs.count()

    def attend(self) -> None:
        """It does so yet."""
        self._signs.count()

    def go_on(self) -> None:
        """It goes on."""
        self._signs.count()


class Counting(Meter):
    """A meter that shows the first learner that something goes on."""

    def __init__(self, note: Callable[[str, float], None], signs: Signs) -> None:
        """`signs`: where it shows it."""
        super().__init__(note)
        self._signs = signs

    def add(self, activity: str, seconds: float, *, shown: bool = True) -> None:
        """As of any meter."""
        super().add(activity, seconds, shown=shown)
        self._signs.count()
