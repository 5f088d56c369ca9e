"""Training: a new run from settings, an old one continued, and the figure that is quoted in the end."""

from __future__ import annotations

import math
import time
from contextlib import closing
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from torch import nn

from shoal.algos import DEFAULT
from shoal.experiment.agent import GREEDY_EPISODES, play
from shoal.experiment.experiment import Experiment
from shoal.experiment.session import check_device, opened
from shoal.report.panel import Panel, panel_of
from shoal.run import directory as directories
from shoal.run.loop import INTERRUPTED
from shoal.types import ConfigError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from types import ModuleType

    from shoal.algos import Algorithm
    from shoal.experiment.experiment import PolicySource, Source
    from shoal.run.callbacks import Callback
    from shoal.run.directory import RunDirectory
    from shoal.run.run import Run

CHANGEABLE = (
    "total_timesteps",
    "stop_at",
    "device",
    "num_threads",
    "eval_every",
    "eval_episodes",
    "num_workers",
    "step_timeout_s",
    "on_fault",
    "max_restarts",
    "own_cores",
)
"""Settings that a resumed run may change: they decide how far it goes and where, not what was learned."""


@dataclass(frozen=True, slots=True)
class Result:
    """How a run ended: its directory, the greedy return over 100 fresh episodes, and whether it met the threshold.

    A run that Ctrl-C ended was not evaluated: its greedy return is NaN.
    """

    path: Path
    policy: nn.Module
    steps: int
    seconds: float
    greedy_return: float
    greedy_seconds: float
    threshold: float | None
    stop_reason: str

    @property
    def solved(self) -> bool:
        """Whether the greedy return meets the threshold (always, without one)."""
        return not self.interrupted and (
            self.threshold is None or self.greedy_return >= self.threshold
        )

    @property
    def interrupted(self) -> bool:
        """Whether Ctrl-C ended it; `resume` goes on."""
        return self.stop_reason == INTERRUPTED


def train(
    env: Source,
    *,
    algo: str | Algorithm | ModuleType = DEFAULT,
    policy: PolicySource | None = None,
    panel: str = "auto",
    env_kwargs: Mapping[str, Any] | None = None,
    config: object = None,
    report: bool = False,
    callbacks: Sequence[Callback] = (),
    **settings: Any,
) -> Result:
    """Trains and leaves a run directory.

    Args:
        env: an id, `package.module:function`, or a callable that returns a `gymnasium.Env`.
        algo: `shoal algos` lists shoal's; one of your own is its module, or the module's name.
        policy: a torch module, a function of the Spec that makes one, or `package.module:Class`; else the default one.
        panel: auto, live, plain, json or none.
        env_kwargs: keywords for the environment; a distribution has every episode draw one.
        config: the algorithm's config; else the preset for this environment.
        report: draw curves.png and report.html into the run directory when the run has ended.
        callbacks: called as `callback(run, record)` at every line of metrics and at every episode's end.
        settings: fields of `Options` (seed, num_envs, total_timesteps, device, stop_at, run_dir, ...) and of the
            algorithm's config (learning_rate, gamma, ...).

    Raises:
        ConfigError: an unknown name (with the nearest ones) or settings that cannot work; no directory is left.
        FloatingPointError: no update is finite any more; the run directory says when, and keeps checkpoints.
        EnvError: the environment broke its contract; its own exceptions arrive unchanged.
    """
    experiment = Experiment.new(
        env,
        algo=algo,
        config=config,
        policy=policy,
        env_kwargs=env_kwargs,
        settings=settings,
    )
    return start(experiment, panel=panel, report=report, callbacks=callbacks)


def start(
    experiment: Experiment,
    *,
    panel: str = "auto",
    report: bool = False,
    callbacks: Sequence[Callback] = (),
) -> Result:
    """A new run of an experiment."""
    options = experiment.options
    check_device(options.device)
    shown = panel_of(panel)
    with closing(experiment.rows(options.num_envs)) as rows:
        where = directories.create(
            Path(options.run_dir).absolute(),  # an environment may change folders
            env=options.env,
            algo=options.algo,
            seed=options.seed,
            name=options.name,
            config=experiment.to_file(),
        )
        session = opened(
            experiment,
            rows,
            where,
            shown,
            callbacks=callbacks,
            fresh=True,
            report=report,
        )
        with session as run:
            trained = experiment.algorithm.train(experiment.config, rows, run)
            return conclude(experiment, run, trained, shown, where)


def resume(
    path: str | Path,
    *,
    run_dir: str = "runs",
    panel: str = "auto",
    policy: PolicySource | None = None,
    factory: Source | None = None,
    report: bool = False,
    callbacks: Sequence[Callback] = (),
    **changes: Any,
) -> Result:
    """Continues a run from its newest checkpoint, exactly where the schedule is Sync; a finished one ends at once.

    Args:
        path: a run directory, or a folder of runs (the newest).
        run_dir: where `path` is looked for as well.
        panel: auto, live, plain, json or none.
        policy: the policy, where the run was given an object.
        factory: the environment, where the run was given a callable.
        report: draw curves.png and report.html when the run has ended.
        callbacks: as in `train`.
        changes: total_timesteps and stop_at, to go on further than was planned; device, num_threads, eval_every,
            eval_episodes, and how workers run. The run's config.toml takes them over. Nothing else may change.

    Raises:
        ConfigError: no such run, a checkpoint of something else, none that is whole, or another process trains there.
    """
    where = directories.find(path, Path(run_dir))
    where = replace(where, path=where.path.absolute())
    saved = where.read_config()
    before = Experiment.of_file(saved, source=factory, policy=policy)
    for name in changes:
        if name not in CHANGEABLE:
            raise ConfigError(
                f"resume cannot change {name!r}, only {', '.join(CHANGEABLE)}; train a new run instead"
            )
    experiment = before.changed(**changes)
    check_device(experiment.options.device)
    shown = panel_of(panel)
    with closing(experiment.rows(experiment.options.num_envs)) as rows:
        session = opened(
            experiment,
            rows,
            where,
            shown,
            callbacks=callbacks,
            fresh=False,
            report=report,
        )
        with session as run:
            if experiment.options != before.options:
                where.write_config(experiment.to_file())
            trained = experiment.algorithm.train(experiment.config, rows, run)
            return conclude(experiment, run, trained, shown, where)


def conclude(
    experiment: Experiment,
    run: Run,
    policy: nn.Module,
    panel: Panel,
    where: RunDirectory,
) -> Result:
    """Ends a loop that was left, plays the 100 greedy episodes unless Ctrl-C ended the run, writes how it ended.

    Raises:
        ConfigError: the algorithm returned no policy, or never went through its loop.
    """
    run.leave()
    check_trained(experiment, policy, where)
    threshold = run.settings.stop_at
    threshold = None if threshold == math.inf else threshold
    interrupted = run.stop_reason == INTERRUPTED
    begun = time.perf_counter()
    status = where.read_status()
    status |= {"threshold": threshold, "stop_reason": run.stop_reason}
    greedy = math.nan
    if interrupted:
        status |= {"state": "stopped", "reason": "Ctrl-C"}
    else:
        seed = experiment.options.seed
        score = play(policy, experiment, episodes=GREEDY_EPISODES, seed=seed)
        greedy = score.mean
        status |= {
            "state": "finished",
            "greedy_return": greedy,
            "greedy_std": score.std,
        }
    where.write_status(status)
    result = Result(
        path=where.path,
        policy=policy,
        steps=status["steps"],
        seconds=status["seconds"],
        greedy_return=greedy,
        greedy_seconds=time.perf_counter() - begun,
        threshold=threshold,
        stop_reason=run.stop_reason,
    )
    if interrupted:
        run.warn(
            f"stopped at step {result.steps:,}; `shoal resume {where.path}` goes on"
        )
    else:
        panel.finish(result)
    return result


def check_trained(experiment: Experiment, policy: object, where: RunDirectory) -> None:
    """ConfigError unless the algorithm went through `run.loop` and returned its policy."""
    name = f"{experiment.algorithm.__name__}.train"
    if not isinstance(policy, nn.Module):
        raise ConfigError(
            f"{name} returned {type(policy).__name__}, not the trained policy, a torch.nn.Module; "
            "let it end with `return learner.policy`"
        )
    if "steps" not in where.read_status():
        raise ConfigError(
            f"{name} returned without a pass through run.loop; "
            "it trains in `for rollout in run.loop(stream, learner):`"
        )
    if not hasattr(policy, "initial_state"):
        raise ConfigError(
            f"{name} returned {type(policy).__name__}, which cannot act; "
            "let it end with `return learner.policy`"
        )


def complete(saved: Mapping[str, Any], **changes: Any) -> dict[str, Any]:
    """The configuration with every default filled in and `changes` of the run, as a run of it would hold it."""
    return Experiment.of_file(saved, given=changes).to_file()


def start_from(saved: Mapping[str, Any], *, panel: str = "auto") -> Result:
    """A new run of a configuration as TOML holds it."""
    return start(Experiment.of_file(saved), panel=panel)
