"""Trained policies: loading the policy of a run, acting with it, playing episodes with it."""

from __future__ import annotations

import warnings
from contextlib import closing, contextmanager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from shoal.deploy.description import Provenance
from shoal.deploy.export import export
from shoal.deploy.serving import serve_policy
from shoal.deploy.stages.weights import read_deployed
from shoal.envs.action_guard.acting import GuardActing
from shoal.envs.actions import in_own_dtypes
from shoal.envs.apart import raise_if_reused
from shoal.envs.python_env import close_after
from shoal.experiment.answering import Answers
from shoal.experiment.applies import check_applies
from shoal.experiment.controls import check_controls
from shoal.experiment.experiment import Experiment, drawn_rows, fixed_settings
from shoal.experiment.first_weights import first_policy_of, read_policy
from shoal.experiment.foreign import FOREIGN_CALLS, FOREIGN_LOAD, Told
from shoal.experiment.predicting import Predicts
from shoal.experiment.shown import batch_of, mask_of, starts_of
from shoal.experiment.staged import Staged
from shoal.experiment.trust import GUARDS, of_training
from shoal.experiment.unmasked import Unmasked, as_trained
from shoal.learn.acting import Acting
from shoal.learn.weights import load_weights
from shoal.report.recording import record_video
from shoal.report.video import check_target
from shoal.run import directory as directories
from shoal.run.evaluate import EVALUATION_STREAM, Score, evaluate
from shoal.run.origin import Identity
from shoal.run.record import free_folder, record
from shoal.types import ConfigError, check_seed, select
from shoal.types.arguments import flag_of, object_of, path_of, whole_of
from shoal.types.calls import all_worded, worded

if TYPE_CHECKING:
    from collections.abc import Generator, Mapping

    from numpy.typing import ArrayLike
    from torch import nn

    from shoal.deploy.export import Exported, Kind
    from shoal.deploy.policy_server import PolicyServer
    from shoal.envs.action_guard.settings import ActionGuard
    from shoal.envs.vec_env import VecEnv
    from shoal.experiment.experiment import PolicySource, Source
    from shoal.learn.acting import Actor
    from shoal.remote.settings import Guard
    from shoal.report.recording import Video
    from shoal.run.directory import RunDirectory
    from shoal.run.record import Recorded
    from shoal.types import Spec, Tree

GREEDY_EPISODES = 100


@worded(FOREIGN_LOAD)
def load(
    path: str | Path,
    *,
    run_dir: str = "runs",
    policy: PolicySource | None = None,
    factory: Source | None = None,
    tag: str = "",
    env_kwargs: Mapping[str, Any] | None = None,
    action_guard: ActionGuard | None = None,
    trust: bool = False,
) -> Agent:
    """The trained policy of a run: `shoal.load(run).act(obs)`.

    Args:
        path: a run directory, a folder of runs (the newest), or a run's name.
        run_dir: where `path` is looked for as well.
        policy: the policy's factory, where the run was given an object.
        factory: the environment's factory, where the run was given one.
        tag: "" for the newest checkpoint, "best" for the one with the best mean return, "deployed" for the policy whose
            last stage is signed (see `shoal stage`).
        env_kwargs: keywords for the environment that differ from the run's, such as another gravity.
        action_guard: in the place of the run's own, such as a tighter one, or where that was given a function that has
            no name.
        trust: import and run what the run's config.toml names, whoever wrote it.

    Raises:
        ConfigError: no such run, no checkpoint yet, none that is whole, one of another run or network, or the
            configuration names code that nothing shows to be this user's.
    """
    if tag not in ("", "best", "deployed"):
        raise ConfigError(
            f'tag must be "" (the newest checkpoint), "best" or "deployed", got {tag!r}'
        )
    where = directories.find(path_of("path", path), path_of("run_dir", run_dir))
    where.check()
    saved, origin = where.read_config(), where.read_origin()
    experiment = Experiment.of_file(
        saved,
        source=factory,
        policy=policy,
        origin=origin,
        trust=trust,
        named=[*of_training(saved), *(() if action_guard is None else GUARDS)],
    )
    identity = Identity(origin.run, fixed_settings(experiment))
    if action_guard is not None:
        experiment = experiment.changed(action_guard=action_guard)
    own_kwargs = {**(experiment.env_kwargs or {}), **(env_kwargs or {})}
    experiment = replace(experiment, env_kwargs=own_kwargs)
    options = experiment.options
    with closing(experiment.rows(1)) as rows:
        first = first_policy_of(experiment, where, fresh=False)
        made = first.make_policy(rows.spec)
    kind = {"env": options.env, "algo": options.algo}
    if tag == "deployed":
        load_weights(made, read_deployed(where.path))
    else:
        read_policy(where, kind=kind, identity=identity, tag=tag).load_into(made)
    provenance = _provenance(experiment, where, run=origin.run, tag=tag)
    return Agent(made, as_trained(rows.spec, where), experiment, provenance)


def loaded(name: str, given: Agent | str | Path) -> Agent:
    """A policy that is given as itself, or as its run; ConfigError for something else."""
    if isinstance(given, str | Path):
        return load(given)
    return object_of(name, given, Agent, "load(RUN), or the path of a run")


def _provenance(
    experiment: Experiment, where: RunDirectory, *, run: str, tag: str
) -> Provenance:
    """What an export says of a policy's run."""
    options = experiment.options
    return Provenance(
        run,
        options.algo,
        tag,
        options.preprocessing,
        options.action_guard,
        where.path,
    )


@all_worded(FOREIGN_CALLS)
class Agent(Predicts, Staged, Answers, Told):
    """A trained policy, ready to act; `experiment` has the source, settings and objects of its run."""

    def __init__(
        self,
        policy: nn.Module,
        spec: Spec,
        experiment: Experiment,
        provenance: Provenance | None = None,
    ) -> None:
        """Made by `load`."""
        self.policy, self.spec, self.experiment = policy, spec, experiment
        self.provenance = provenance or Provenance()
        self._actor: Actor | None = None
        self._acting: nn.Module | None = None
        self._start = np.ones(0, np.bool_)
        self._guard = GuardActing(experiment.options.action_guard, spec)
        self._unmasked = Unmasked(spec)

    @property
    def interventions(self) -> int:
        """Actions of `act` that the run's action guard changed."""
        return self._guard.interventions

    @property
    def config(self) -> object:
        """The settings of the run's algorithm."""
        return self.experiment.config

    def act(
        self,
        obs: Tree,
        *,
        action_mask: Tree = None,
        start: ArrayLike | None = None,
        greedy: bool = True,
    ) -> Tree:
        """The action for one observation, or actions [N] for a batch [N, ...], as the action space samples them.

        `start` (bool, or [N]) marks first observations of an episode for a policy with memory; by default the first
        call after `load` or `reset` is one. Another number of observations than before begins anew.
        `action_mask` is what `info["action_mask"]` says; for a batch, a list of one a row. Masks in the observation
        need no mention; with both, what both leave may be chosen. The run's action guard holds here too;
        `interventions` counts what it changed.

        Raises:
            EnvError: the guard's own function gave what cannot be done, or nothing is allowed.
            ValueError: other shapes or kinds than the environment's, numbers that are not finite, or no such `start`.
        """
        greedy = flag_of("greedy", greedy)
        preprocessing = self.experiment.options.preprocessing
        batch, count, alone = batch_of(self.spec, obs, preprocessing)
        if alone and action_mask is not None:
            action_mask = [action_mask]
        self._unmasked.note(action_mask)
        mask = mask_of(self.spec, batch, count, action_mask)
        actor = self.actor_of(count)
        if start is not None:
            self._start[:] = starts_of(self.spec, count, start)
        action = actor.act(
            batch, self._start, slice(0, count), action_mask=mask, greedy=greedy
        ).env_action
        action = self._guard.hold(batch, action, self._start)
        self._start[:] = False
        action = in_own_dtypes(self.spec, action)
        return select(action, 0) if alone else action

    def reset(self) -> None:
        """The next observation begins an episode."""
        self._start[:] = True

    def evaluate(
        self,
        *,
        episodes: int = GREEDY_EPISODES,
        seed: int = 0,
        max_steps: int | None = None,
    ) -> Score:
        """Greedy episodes on fresh rows; one that goes on after `max_steps` counts as it is.

        Without `max_steps` it is the run's `eval_max_steps`. ConfigError where the environment's own time limit is as
        long or shorter.
        """
        experiment = self.experiment
        if max_steps is not None:
            experiment = experiment.changed(eval_max_steps=max_steps)
            check_applies(experiment, self.spec)
        return play(self.policy, experiment, episodes=episodes, seed=seed)

    def record(
        self,
        folder: str | Path | None = None,
        *,
        episodes: int = GREEDY_EPISODES,
        greedy: bool = True,
        seed: int = 0,
        max_steps: int | None = None,
    ) -> Recorded:
        """Episodes as a data set in Minari's layout, which `train(data=...)` takes; the first ones of `evaluate`.

        Args:
            folder: of the data set; None: datasets/ENV/ALGO-v0, or the next number that is free.
            episodes: how many.
            greedy: the mode of the policy's distribution; False draws actions from it, as training does.
            seed: of the episodes.
            max_steps: an episode that goes on after as many is cut; None: the run's `eval_max_steps`.

        Raises:
            ConfigError: the folder is there, h5py is not installed, or episodes have masks or several agents.
        """
        check_controls(self.spec, "data sets are")
        options = self.experiment.options
        to = free_folder(options.env, options.algo)
        to = to if folder is None else path_of("folder", folder)
        episodes = whole_of("episodes", episodes, 1)
        most = options.eval_max_steps if max_steps is None else max_steps
        greedy = flag_of("greedy", greedy)
        count = min(episodes, 20, options.num_envs)
        with closing(self.experiment.rows(count, playing=True)) as rows:
            return record(
                self.policy,
                rows,
                to,
                episodes=episodes,
                acting=_evaluating(self.policy, self.experiment, seed),
                greedy=greedy,
                max_steps=whole_of("max_steps", most, 1),
                algo=options.algo,
            )

    def export(
        self,
        folder: str | Path | None = None,
        *,
        to: Kind,
        name: str = "policy",
        masks: bool | None = None,
    ) -> Exported:
        """The policy as files that run without shoal: C source, ONNX or TorchScript; None: exports/ENV/ALGO-TO-v0.

        `name` begins the names of files, and in C those of functions and types. `masks`: whether a graph reads action
        masks; None: where the environment has them.

        Raises:
            ConfigError: the folder is there, a package is missing, or what `to` cannot express.
        """
        check_controls(self.spec, "exports are")
        if folder is None:
            algo = f"{self.provenance.algo}-{to}"
            folder = free_folder(self.spec.env_id, algo, "exports")
        origin = self.provenance
        policy, spec = self.policy, self.spec
        return export(
            policy, spec, folder, to=to, provenance=origin, name=name, masks=masks
        )

    def serve(
        self,
        *,
        listen: str = "127.0.0.1:0",
        guard: Guard | None = None,
        most_rows: int = 4096,
    ) -> PolicyServer:
        """A server of the policy in this process, which `shoal.remote_policy` asks; `with` or `stop()` ends it.

        `guard` says who may connect, `most_rows` how many observations a client's step may have.

        Raises:
            ConfigError: gRPC is missing, the address is taken, or others can reach it and are not asked who they are.
        """
        check_controls(self.spec, "policy servers are")
        return serve_policy(
            self.policy,
            self.spec,
            listen=listen,
            guard=guard,
            most_rows=most_rows,
            provenance=self.provenance,
            native=self.experiment.options.native,
        )

    def record_video(
        self, path: str | Path, *, rows: int = 4, seed: int = 0, max_steps: int = 2000
    ) -> Video:
        """A video of greedy episodes side by side, the first ones of `evaluate` with this seed; .mp4 or .gif.

        It ends when every row's first episode has, or after `max_steps`; a row that has ended stands still, dimmed.

        Raises:
            ConfigError: an unknown suffix, no such folder, no imageio-ffmpeg, or an environment without rendering.
        """
        check_controls(self.spec, "videos are")
        rows, max_steps = whole_of("rows", rows, 1), whole_of("max_steps", max_steps, 1)
        path = path_of("path", path)
        check_target(path)
        acting = _evaluating(self.policy, self.experiment, seed)
        with closing(drawn_rows(self.experiment, rows)) as drawn:
            return record_video(
                self.policy, drawn, path, acting=acting, max_steps=max_steps
            )


def play(
    policy: nn.Module,
    experiment: Experiment,
    *,
    episodes: int,
    seed: int,
    told: set[str] | None = None,
) -> Score:
    """Greedy episodes on fresh rows, where the policy is; `told` as in `evaluate`. A failing close is warned of."""
    episodes = whole_of("episodes", episodes, 1)
    count = min(episodes, 20, experiment.options.num_envs)
    with _closing_at_last(experiment.rows(count, playing=True)) as rows:
        try:
            return evaluate(
                policy,
                rows,
                episodes=episodes,
                acting=_evaluating(policy, experiment, seed),
                max_steps=experiment.options.eval_max_steps,
                told=told,
            )
        except Exception as error:
            raise_if_reused(rows, error)
            raise


@contextmanager
def _closing_at_last(rows: VecEnv) -> Generator[VecEnv]:
    """Closes rows that have done all that they are for: where that fails, nothing of it is lost."""
    try:
        yield rows
    except BaseException as error:
        close_after(error, [rows])
        raise
    try:
        rows.close()
    except Exception as error:  # the environment's own, whatever it is
        warnings.warn(
            f"{rows.spec.env_id}: an environment was not closed ({type(error).__name__}: {error}); its episodes count",
            stacklevel=4,
        )


def _evaluating(policy: nn.Module, experiment: Experiment, seed: int) -> Acting:
    check_seed(seed)
    device = next((p.device for p in policy.parameters()), torch.device("cpu"))
    return Acting(seed, EVALUATION_STREAM, device, native=experiment.options.native)
