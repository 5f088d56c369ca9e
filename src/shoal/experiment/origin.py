"""Origin: what a run's policy begins with: weights drawn from its seed, a copy of a module, another run's weights."""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from torch import nn

from shoal.learn.weights import load_weights
from shoal.run import checkpoint
from shoal.run import directory as directories
from shoal.run.directory import RunDirectory
from shoal.types import ConfigError

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from shoal.experiment.experiment import Experiment
    from shoal.types import Spec


@dataclass(frozen=True, slots=True)
class Origin:
    """How a run comes to its policy, and what its record says of that."""

    make_policy: Callable[[Spec], nn.Module]
    said: str = ""
    """Whose weights they are; empty where they are drawn from the seed."""


@dataclass(frozen=True, slots=True)
class SavedPolicy:
    """The weights and statistics of a policy, by torch's names, after so many updates."""

    state: dict[str, Any]
    updates: int


def origin_of(experiment: Experiment, where: RunDirectory, *, fresh: bool) -> Origin:
    """What the policy of a run begins with; a resumed one takes its weights from its own checkpoint.

    Raises:
        ConfigError: the run that `init_from` names has no whole checkpoint.
    """
    if not fresh:
        said = where.read_status().get("began_with", "")
        return Origin(experiment.make_policy, said)
    source = experiment.options.init_from
    if source is not None:
        return _from_run(experiment, RunDirectory(Path(source)))
    if isinstance(experiment.policy, nn.Module):
        name = type(experiment.policy).__qualname__
        return Origin(experiment.make_policy, f"a copy of the {name} that was given")
    return Origin(experiment.make_policy)


def find_origin(experiment: Experiment) -> Experiment:
    """The experiment with the whole path of the run that `init_from` names.

    Raises:
        ConfigError: there is no such run.
    """
    options = experiment.options
    if options.init_from is None:
        return experiment
    found = directories.find(options.init_from, Path(options.run_dir))
    return experiment.changed(init_from=str(found.path.resolve()))


def read_policy(
    run: RunDirectory, *, kind: Mapping[str, str] | None = None, tag: str = ""
) -> SavedPolicy:
    """The policy that a run's checkpoint holds: of several learners, that of the first, which is who is evaluated.

    Args:
        run: which one.
        kind: what the checkpoint must belong to, such as its environment.
        tag: "" for the newest checkpoint, or "best".

    Raises:
        ConfigError: no checkpoint, none that is whole, or one of something else than `kind`.
    """
    found = checkpoint.load(run.checkpoints, kind=kind, tag=tag)
    if found is None:
        raise ConfigError(f"{run.path} has no {tag or 'whole'} checkpoint yet")
    for message in found.warnings:
        warnings.warn(message, stacklevel=3)
    first = next(iter(found.tree["learner"].values()))
    return SavedPolicy(first["networks"]["policy"]["module"], found.updates)


def _from_run(experiment: Experiment, run: RunDirectory) -> Origin:
    saved = read_policy(run)

    def make_policy(spec: Spec) -> nn.Module:
        made = experiment.make_policy(spec)
        try:
            load_weights(made, saved.state)
        except ConfigError as error:
            raise ConfigError(
                f"init_from: {run.path} holds another network than this run has; give this one the same "
                "network settings, and policy=... if that run was given one"
            ) from error
        return made

    return Origin(make_policy, f"the weights of {run.path} at update {saved.updates}")
