"""A run so plain that every number of the guard is known: one weight, which counts updates."""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING, Any

import torch

from shoal.learn.learner import Learner
from shoal.run.guard.settings import Guarding
from tests.run.beats import Beats, make_run

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    from shoal.run.guard.guard import Guard
    from shoal.run.guard.seen import Rule
    from shoal.run.run import Run

EPISODES = 40
"""That each batch ends: more than a mean is over."""


class Published(Beats):
    """`Beats` that counts how often weights were published anew."""

    published = 0

    def publish(self) -> int:
        self.published += 1
        return self.version


def learner_of() -> Learner:
    """A weight and a bias of 0, with Adam, whose moments are moved too."""
    learner = Learner(torch.nn.Linear(1, 1), torch.optim.Adam, lr=0.5)
    with torch.no_grad():
        learner.flat.zero_()
    return learner


def sha_of(learner: Learner) -> str:
    """The sha256 of weights and moments."""
    found = hashlib.sha256()
    state: Any = learner.networks["policy"].state()
    for tensor in state["module"].values():
        found.update(tensor.numpy().tobytes())
    for moments in state["optimizer"]["state"].values():
        for moment in moments.values():
            found.update(moment.numpy().tobytes())
    return found.hexdigest()


def go(
    path: Path,
    *,
    updates: int,
    rules: Sequence[Rule] = (),
    returns: Sequence[float] = (1.0,),
    during: Callable[[Run, Learner, int], None] | None = None,
    saved: bool = False,
    guarded: bool = True,
    stream: type[Published] = Published,
    **settings: Any,
) -> tuple[Run, Learner, Published, list[str]]:
    """A run of batches of 10 steps, whose every update moves each weight by one step of Adam on a gradient of -1.

    With `saved` there is a checkpoint after each.

    Returns:
        The run, its learner, the stream, and the sha256 of weights and moments after each update's step.
    """
    told: dict[str, Any] = {"verify": 2} | settings
    cfg = Guarding(**told) if guarded else None
    run = make_run(
        path, total_timesteps=updates * 10, guarding=cfg, keep_last=100, checkpoint_every=10 if saved else 10**6
    )
    run.rules = rules
    learner, beats = learner_of(), stream(EPISODES, list(returns))
    shas: list[str] = []
    batches = run.loop(beats, learner)
    if run.guard is not None:
        run.guard.every = 1
    for _ in batches:
        network = learner.networks["policy"]
        for parameter in network.module.parameters():
            parameter.grad = -torch.ones_like(parameter)
        network.descent.step()
        learner.updates += 1
        shas.append(sha_of(learner))
        if during is not None:
            during(run, learner, run.updates + 1)
    run.close()
    return run, learner, beats, shas


def guard_of(run: Run) -> Guard:
    """The run's guard."""
    assert run.guard is not None
    return run.guard
