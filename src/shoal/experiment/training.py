"""Training: a new run from settings, an old one continued, and the figure that is quoted in the end."""

from __future__ import annotations

import math
import time
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Unpack, overload

from torch import nn

from shoal.envs.factories import name_of
from shoal.experiment.agent import GREEDY_EPISODES, play
from shoal.experiment.continued import (
    check_changed,
    check_names,
    length_told,
)
from shoal.experiment.engine import engine_of
from shoal.experiment.experiment import Experiment, with_actors
from shoal.experiment.explaining import why_unexplained
from shoal.experiment.first_weights import find_source
from shoal.experiment.language import on_tasks, save_trained
from shoal.experiment.learners import check_learners
from shoal.experiment.offline import find_data
from shoal.experiment.placed import placed
from shoal.experiment.result import Result
from shoal.experiment.session import check_device, opened
from shoal.experiment.trust import GUARD, GUARDS, is_given_again, seal, seal_again
from shoal.report.panel import Panel, panel_of
from shoal.run import directory as directories
from shoal.run.bottleneck import Spent, bottleneck
from shoal.run.interrupts import CUT_SHORT, INTERRUPTED
from shoal.run.origin import Origin
from shoal.types import ConfigError
from shoal.types.arguments import flag_of, path_of

if TYPE_CHECKING:
    from collections.abc import Sequence
    from types import ModuleType

    from shoal.algos import Algorithm
    from shoal.envs.vec_env import VecEnv
    from shoal.experiment.experiment import PolicySource, Source
    from shoal.experiment.keywords import Changes, Settings
    from shoal.run.callbacks import Callback
    from shoal.run.directory import RunDirectory
    from shoal.run.evaluate import Score
    from shoal.run.guard.seen import Rule
    from shoal.run.run import Run


LAMBDA = "<lambda>"
"""The name of a function without one."""


@overload
def train(
    env: Source,
    *,
    algo: str | None = None,
    policy: PolicySource | None = None,
    panel: str = "auto",
    env_kwargs: Mapping[str, Any] | None = None,
    config: object = None,
    report: bool = False,
    callbacks: Sequence[Callback] = (),
    rules: Sequence[Rule] = (),
    trust: bool = False,
    **settings: Unpack[Settings],
) -> Result: ...
@overload
def train(env: Source, *, algo: Algorithm | ModuleType, **settings: Any) -> Result: ...
def train(
    env: Source,
    *,
    algo: str | Algorithm | ModuleType | None = None,
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
        algo: `shoal algos` lists shoal's; one of your own is its module, or the
            module's name.
        policy: a torch module, of which a copy is trained, a function of the Spec that makes one, or
            `package.module:Class`; else the default one.
        panel: auto, live, plain, json or none.
        env_kwargs: keywords for the environment; a distribution has every episode draw one.
        config: the algorithm's config, or the path of a TOML file such as a run's config.toml; else the preset for this
            environment.
        report: draw curves.png and summary.html into the run directory when the run has ended.
        callbacks: called as `callback(run, record)` at every line of metrics and at every episode's end.
        rules: of your own for the guard, called as `rule(seen)`: None where all is well, else what is wrong.
        trust: import and run what the file `config` names, whoever wrote it.
        settings: fields of `Options` (seed, num_envs, total_timesteps, device, stop_at, run_dir, init_from, ...) and of
            the algorithm's config (learning_rate, gamma, ...).

    Raises:
        ConfigError: an unknown name (with the nearest ones), settings that cannot work, or code that a file names and
            nothing shows to be this user's; no directory is left.
        FloatingPointError: no update is finite any more; the run directory says when, and keeps checkpoints.
        EnvError: the environment broke its contract; its own exceptions arrive unchanged.
        KeyboardInterrupt: Ctrl-C, when the update is over and its checkpoint written; a second one at once.
    """
    trust = flag_of("trust", settings.pop("trust", False))
    rules = settings.pop("rules", ())
    experiment = Experiment.new(
        env,
        algo=algo,
        config=config,
        policy=policy,
        env_kwargs=env_kwargs,
        settings=settings,
        trust=trust,
    )
    return start(
        experiment, panel=panel, report=report, callbacks=callbacks, rules=rules
    )


def start(
    experiment: Experiment,
    *,
    panel: str = "auto",
    report: bool = False,
    callbacks: Sequence[Callback] = (),
    rules: Sequence[Rule] = (),
) -> Result:
    """A new run of an experiment."""
    report = flag_of("report", report)
    check_learners(experiment)
    experiment = with_actors(find_data(find_source(experiment)))
    options = experiment.options
    check_device(options.device)
    shown = panel_of(panel)
    check_run_dir(path_of("run_dir", options.run_dir))
    with placed(experiment) as (there, rows):
        experiment = there
        if options.normalize_reward:  # in the place of a preset's scale
            experiment = replace(experiment, options=replace(options, reward_scale=1.0))
        saved = experiment.to_file()
        origin = Origin.new(
            env=experiment.source,
            policy=experiment.policy,
            unexplained=why_unexplained(rows.spec),
        )
        where = directories.create(
            path_of(
                "run_dir", options.run_dir
            ).absolute(),  # an environment may change folders
            env=options.env,
            algo=options.algo,
            seed=options.seed,
            name=options.name,
            config=saved | seal(origin, saved).table(),
        )
        if options.name not in (None, where.path.name):
            shown.warn(
                f"the name {options.name} is taken, and stays that of the older run; this one is {where.path.name}"
            )
        session = opened(
            experiment,
            rows,
            where,
            shown,
            callbacks=callbacks,
            rules=rules,
            fresh=True,
            report=report,
        )
        with session as run:
            trained = experiment.algorithm.train(experiment.config, rows, run)
            result = conclude(experiment, rows, run, trained, shown, where)
    return uninterrupted(result)


def resume(  # noqa: PLR0913 (each is a choice of its own)
    path: str | Path,
    *,
    run_dir: str = "runs",
    panel: str = "auto",
    policy: PolicySource | None = None,
    factory: Source | None = None,
    report: bool = False,
    callbacks: Sequence[Callback] = (),
    rules: Sequence[Rule] = (),
    trust: bool = False,
    **changes: Unpack[Changes],
) -> Result:
    """Continues a run from its newest checkpoint, exactly where the schedule is Sync; a finished one ends at once.

    Args:
        path: a run directory, a folder of runs (the newest), or a run's name.
        run_dir: where `path` is looked for as well.
        panel: auto, live, plain, json or none.
        policy: the policy, where the run was given an object.
        factory: the environment, where the run was given a callable.
        report: draw curves.png and summary.html when the run has ended.
        callbacks: as in `train`.
        rules: as in `train`.
        trust: import and run what the run's config.toml names, whoever wrote it.
        changes: total_timesteps, stop_at and confirm_episodes; device, num_threads, guard, eval_every, eval_episodes,
            final_episodes, checkpoint_every, keep_checkpoints, how workers run, and learners of language models:
            config.toml takes them over. Nothing else may, but what was given as a function be given again.

    Raises:
        ConfigError: no such run, no whole checkpoint of it, another process trains there, fewer total_timesteps than
            are done, or another's code.
        KeyboardInterrupt: as in `train`.
    """
    where = directories.find(path_of("path", path), path_of("run_dir", run_dir))
    where = replace(where, path=where.path.absolute())
    where.check()
    before, experiment, config = reopen(
        where, dict(changes), policy=policy, factory=factory, trust=trust
    )
    shown = panel_of(panel)
    with placed(experiment) as (experiment, rows):
        session = opened(
            experiment,
            rows,
            where,
            shown,
            callbacks=callbacks,
            rules=rules,
            fresh=False,
            report=flag_of("report", report),
        )
        with session as run:
            if config is not None:
                where.write_config(config)
            warn_of_other(experiment, factory, run)
            with length_told(before, experiment, run):
                trained = experiment.algorithm.train(experiment.config, rows, run)
            result = conclude(experiment, rows, run, trained, shown, where)
    return uninterrupted(result)


def warn_of_other(experiment: Experiment, factory: Source | None, run: Run) -> None:
    """Says where a run goes on in an environment of another name."""
    if factory is None:
        return
    before, now = (
        name.rpartition(":")[2] for name in (experiment.options.env, name_of(factory))
    )
    if before != now and LAMBDA not in (before, now):
        run.warn(
            f"this run was trained in {before} up to here and goes on in {now}, as factory says"
        )


def reopen(
    where: RunDirectory,
    changes: Mapping[str, Any],
    *,
    policy: PolicySource | None,
    factory: Source | None,
    trust: bool,
) -> tuple[Experiment, Experiment, dict[str, Any] | None]:
    """The experiment of a run, with the changes of `resume`, and what config.toml is to hold then; None: as it is.

    Raises:
        ConfigError: a change of what stays, fewer steps than are done, or names that may not be imported.
    """
    saved, origin = where.read_config(), where.read_origin()
    functions = [name for name in changes if is_given_again(saved, name, changes)]
    named = [*functions, *(GUARDS if GUARD in functions else ())]
    before = Experiment.of_file(
        saved,
        source=factory,
        policy=policy,
        origin=origin,
        trust=trust,
        named=named,
    )
    check_names(changes, functions)
    experiment = before.changed(**changes)
    check_changed(before, experiment, where)
    check_learners(experiment)
    check_device(experiment.options.device)
    whole = experiment.to_file()
    if whole == before.to_file():
        return before, experiment, None
    origin = seal_again(origin, saved, whole, given=named)
    return before, experiment, whole | origin.table()


def uninterrupted(result: Result) -> Result:
    """The result of a run; KeyboardInterrupt where Ctrl-C ended it, now that all is written: a loop over runs ends.

    One that `shoal stop` ended has a result: a loop over runs goes on.
    """
    if result.stop_reason == INTERRUPTED:
        raise KeyboardInterrupt(
            f"training stopped; resume({str(result.path)!r}) goes on"
        )
    return result


def conclude(
    experiment: Experiment,
    rows: VecEnv,
    run: Run,
    policy: nn.Module,
    panel: Panel,
    where: RunDirectory,
) -> Result:
    """Ends a loop that was left, writes how the run ended, plays the greedy episodes unless Ctrl-C ended it.

    Those are played on rows of their own when the run's are closed and its status says that it is finished: what fails
    there is said, and nothing is lost by it. ConfigError: the algorithm returned no policy, or one that is not saved,
    or never went through its loop.
    """
    kept = run.leave()
    check_trained(experiment, policy, where, kept)
    policy = kept[0]
    if on_tasks(experiment.algorithm):
        save_trained(policy, where)
    status = where.read_status()
    spent = Spent.of_meter(run.meter, status["steps"] - run.steps_at_begin)
    found = bottleneck(spent, engine_of(experiment, rows))
    close_rows(rows, run)
    stop_at = run.settings.stop_at
    threshold = None if stop_at == math.inf else stop_at
    begun = time.perf_counter()
    status |= {"threshold": threshold, "ended_at": time.time()}
    status["stop_reason"] = run.stop_reason
    given = experiment.options.final_episodes
    episodes = GREEDY_EPISODES if given is None else given
    greedy = {"greedy_return": math.nan}
    if run.stop_reason in CUT_SHORT:
        status |= {"state": "stopped", "reason": run.interrupted_by}
        where.write_status(status)
    else:
        status["state"] = "finished"
        where.write_status(status)
        score = play_greedily(experiment, run, policy, episodes=episodes)
        if score is not None:
            greedy = score.numbers("greedy_")
            used = run.usage.now(run.meter.halt.stood_s)
            status |= {**greedy, "usage": used}
            where.write_status(status)
    result = Result(
        path=where.path,
        policy=policy,
        steps=status["steps"],
        seconds=status["seconds"],
        greedy_seconds=time.perf_counter() - begun,
        threshold=threshold,
        stop_reason=run.stop_reason,
        mean_return=run.mean_return,
        greedy_episodes=episodes,
        cost_limit=getattr(experiment.config, "cost_limit", None),
        **greedy,
        agent=run.selection.kept,
        bottleneck=found,
    )
    _tell_end(result, run, panel)
    return result


def _tell_end(result: Result, run: Run, panel: Panel) -> None:
    """Shows the figure that is quoted, or how an interrupted run goes on."""
    if result.stop_reason in CUT_SHORT:
        run.warn(
            f"stopped at step {result.steps:,} ({run.interrupted_by}); `shoal resume {result.path}` goes on"
        )
    else:
        panel.finish(result)


def close_rows(rows: VecEnv, run: Run) -> None:
    """Closes a run's rows, and those of its evaluations; what fails is told, as the run itself is whole."""
    beside = (run.evaluation, run.selection.ranking)
    for env in (rows, *(one.env for one in beside if one is not None)):
        try:
            env.close()
        except Exception as error:  # the environment's own, whatever it is
            run.warn(
                f"an environment was not closed ({type(error).__name__}: {error}); the run itself is whole"
            )


def play_greedily(
    experiment: Experiment, run: Run, policy: nn.Module, *, episodes: int
) -> Score | None:
    """The greedy episodes at the end of a run; None where there are none, or where they failed, which is said."""
    if not episodes:
        return None
    told = None if run.evaluation is None else run.evaluation.told
    seed = run.settings.seed
    try:
        return play(policy, experiment, episodes=episodes, seed=seed, told=told)
    except (Exception, KeyboardInterrupt) as error:  # whatever it is: the run is whole
        run.warn(
            f"the run is finished, but its greedy episodes were not played to their end ({type(error).__name__}: "
            f"{error}); final_episodes=0 leaves them out"
        )
        return None


def check_run_dir(root: Path) -> None:
    """ConfigError where the folder of runs, or one above it, is a file."""
    there = next((at for at in (root, *root.parents) if at.exists()), None)
    if there is not None and not there.is_dir():
        raise ConfigError(
            f"run_dir={str(root)!r} cannot be a folder: {there} is a file"
        )


def check_trained(
    experiment: Experiment,
    policy: object,
    where: RunDirectory,
    kept: list[nn.Module],
) -> None:
    """ConfigError unless the algorithm went through `run.loop` and returned its policy, which checkpoints kept."""
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
    if not any(policy is own for own in kept):
        raise ConfigError(
            f"{name} returned another module than the policy that its checkpoints hold, that of a learner; "
            "let it end with `return learner.policy`"
        )
