"""First weights: what a policy begins with: drawn from the seed, a copy of a module's, or another run's."""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from torch import nn

from shoal.experiment.language import model_of_run, on_tasks
from shoal.learn.weights import ANOTHER, GIVE_POLICY, load_weights
from shoal.run import checkpoint
from shoal.run import directory as directories
from shoal.run.directory import RunDirectory
from shoal.run.origin import Identity
from shoal.run.reading import sentence
from shoal.types import ConfigError

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from shoal.experiment.experiment import Experiment
    from shoal.types import Spec


@dataclass(frozen=True, slots=True)
class FirstPolicy:
    """How a run comes to its policy, and what its record says of that."""

    make_policy: Callable[..., nn.Module]
    """Of a Spec, and of another `seed` for another agent of a population."""
    said: str = ""
    """Whose weights they are; empty where they are drawn from the seed."""


@dataclass(frozen=True, slots=True)
class SavedPolicy:
    """The weights and statistics of a policy, by torch's names, after so many updates."""

    state: dict[str, Any]
    updates: int

    def load_into(
        self, made: nn.Module, *, refused: str = ANOTHER, advice: str = GIVE_POLICY
    ) -> None:
        """Gives them to a module.

        Raises:
            ConfigError: it is another network, of which `refused`, the first difference and `advice` are said; or they
                are no policy's.
        """
        try:
            load_weights(made, self.state, refused=refused, advice=advice)
        except ConfigError:
            raise
        except checkpoint.BROKEN as error:
            raise no_policy(self.updates, error) from error


def no_policy(updates: int, error: Exception) -> ConfigError:
    """What is said of a checkpoint that holds something else."""
    said = f"{type(error).__name__}: {sentence(error)}"
    return ConfigError(f"the checkpoint of update {updates} holds no policy ({said})")


def first_policy_of(
    experiment: Experiment, where: RunDirectory, *, fresh: bool, leads: bool = True
) -> FirstPolicy:
    """What the policy of a run begins with; a resumed one takes its weights from its own checkpoint.

    `leads`: whether this process may write into the run's directory.

    Raises:
        ConfigError: the run that `init_from` names has no whole checkpoint.
    """
    make_policy = experiment.make_policy
    if on_tasks(experiment.algorithm):
        make_policy = model_of_run(experiment, where, fresh=fresh, leads=leads)
    if not fresh:
        said = where.read_status().get("began_with", "")
        return FirstPolicy(make_policy, said)
    source = experiment.options.init_from
    if source is not None:
        return _from_run(make_policy, RunDirectory(Path(source)))
    if isinstance(experiment.policy, nn.Module):
        name = type(experiment.policy).__qualname__
        said = f"a copy of the {name} that was given"
        return FirstPolicy(experiment.make_policy, said)
    return FirstPolicy(make_policy)


def find_source(experiment: Experiment) -> Experiment:
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
    run: RunDirectory,
    *,
    identity: Identity,
    kind: Mapping[str, str] | None = None,
    tag: str = "",
) -> SavedPolicy:
    """The policy that a run's checkpoint holds: of several learners, the one that was found best, or the first.

    Args:
        run: which one.
        identity: the run that the checkpoint must be of, and its settings.
        kind: what the checkpoint must belong to, such as its environment.
        tag: "" for the newest checkpoint, or "best".

    Raises:
        ConfigError: no checkpoint, none that is whole, or one of something else.
    """
    found = checkpoint.load(run.checkpoints, kind=kind, identity=identity, tag=tag)
    if found is None:
        why = ""
        if tag:
            why = (
                ": one is written once 100 episodes of training have ended (num_envs, where there are more); "
                "without the tag the newest is loaded"
            )
        raise ConfigError(f"{run.path} has no {tag or 'whole'} checkpoint yet{why}")
    for message in found.warnings:
        warnings.warn(message, stacklevel=3)
    try:
        learners, own = found.tree["learner"], found.tree["run"]
        kept = own.get("selection", {}).get("kept") or next(iter(learners))
        module = learners[kept]["networks"]["policy"]["module"]
        return SavedPolicy(module, found.updates)
    except (StopIteration, *checkpoint.BROKEN) as error:
        raise no_policy(found.updates, error) from error


def _from_run(make: Callable[..., nn.Module], run: RunDirectory) -> FirstPolicy:
    """The weights of a run's newest checkpoint in what `make` makes; no code that its settings name is run."""
    run.check()
    saved = read_policy(run, identity=Identity(run.read_origin().run))
    refused = f"init_from: {run.path} holds another network than this run has"
    advice = (
        "give this one the same network settings, and policy=... if that run was given one; "
        "its environment must observe and do the same as that run's"
    )

    def make_policy(spec: Spec, *, seed: int | None = None) -> nn.Module:
        made = make(spec, seed=seed)
        saved.load_into(made, refused=refused, advice=advice)
        return made

    said = f"the weights of {run.path} at update {saved.updates}"
    return FirstPolicy(make_policy, said)
