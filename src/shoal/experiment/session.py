"""Session: the directory, log, threads, evaluation rows and callbacks of a run while its algorithm trains."""

from __future__ import annotations

import math
import time
from contextlib import ExitStack, closing, contextmanager
from typing import TYPE_CHECKING, Any, TypeVar, cast

import torch

from shoal.envs import packages
from shoal.envs.apart import check_apart
from shoal.envs.bounds import SQUASH, wide_actions
from shoal.experiment.experiment import fixed_settings
from shoal.experiment.first_weights import first_policy_of
from shoal.experiment.learners import beside, too_many
from shoal.math.rates import find_functions
from shoal.memory.settings import FromData
from shoal.nets.images import image_net, lacks_bfloat16
from shoal.report.html import write_report
from shoal.run.beginning import one_torch_thread
from shoal.run.callbacks import checked
from shoal.run.control import announced
from shoal.run.evaluate import Eval
from shoal.run.exporters import TensorBoard, exporter_of
from shoal.run.exporting import Beside
from shoal.run.guard.own import checked_rules
from shoal.run.log import Log
from shoal.run.origin import Identity
from shoal.run.ranking import Ranking
from shoal.run.run import Run
from shoal.run.settings import Settings
from shoal.types import RAISED, ConfigError, leaf_spaces, refuse_end
from shoal.types.arguments import path_of
from shoal.types.text import shortened

if TYPE_CHECKING:
    from collections.abc import Generator, Sequence

    from shoal.envs.vec_env import VecEnv
    from shoal.experiment.experiment import Experiment
    from shoal.learn.ranks import Ranks
    from shoal.report.panel import Panel
    from shoal.run.callbacks import Callback
    from shoal.run.directory import RunDirectory
    from shoal.run.guard.seen import Rule

Playing = TypeVar("Playing", Eval | None, Ranking | None)
FAILURE = 4000
"""Characters that run.json keeps of the error that ended a run."""
EVALUATION_ROWS = 20
"""Rows of an evaluation beside training, at most."""


@contextmanager
def opened(
    experiment: Experiment,
    env: VecEnv,
    where: RunDirectory,
    panel: Panel,
    *,
    callbacks: Sequence[Callback],
    rules: Sequence[Rule] = (),
    fresh: bool,
    report: bool,
) -> Generator[Run]:
    """The run of an experiment while its algorithm trains.

    A new run (`fresh`) that fails before its first update leaves no directory, and one that is resumed stays as it was
    where it does not come to its checkpoint; later, its status says why. The report is drawn when all else is done and
    closed, also of a run that failed, but not after the second Ctrl-C.
    """
    run: Run | None = None
    try:
        find_functions(experiment.config, resumed=not fresh)
        with announced(where.path), ExitStack() as held:
            ranks = held.enter_context(beside(experiment, env, where, fresh=fresh))
            evaluation = _held(held, evaluation_of(experiment), env)
            ranking = _held(held, ranking_of(experiment), env)
            held.enter_context(one_torch_thread())
            log = open_log(experiment, where, fresh=fresh)
            held.callback(log.close)
            first = first_policy_of(experiment, where, fresh=fresh)
            run = Run(
                settings_of(
                    experiment,
                    env,
                    run=where.read_origin().run,
                    began_with=first.said,
                    ranks=ranks,
                ),
                directory=where,
                log=log,
                policy=first.make_policy,
                callbacks=[cast("Callback", panel), *checked(callbacks)],
                evaluation=evaluation,
                ranking=ranking,
                rules=checked_rules(rules, experiment.options),
            )
            held.callback(run.close)
            if said := too_many(experiment.options.learners):
                run.warn(said)
            for warn in (warn_of_wide_actions, warn_of_guard, warn_of_slow_layers):
                warn(experiment, env, run)
            yield run
    except BaseException as raised:
        shown = panel if report else None
        error = _ended_by(raised, run, where, fresh=fresh, panel=shown)
        if error is raised:
            raise
        raise error from raised
    if report:
        draw_report(where, panel)


def _ended_by(
    raised: BaseException,
    run: Run | None,
    where: RunDirectory,
    *,
    fresh: bool,
    panel: Panel | None,
) -> BaseException:
    """With what a run failed, which its status says once it has learned something; `panel`: a report is drawn too."""
    error = refuse_end(raised)
    if run is not None and run.updates:
        note_failure(where, error, run)
        if panel is not None and not isinstance(error, KeyboardInterrupt):
            draw_report(where, panel)
    elif fresh:
        where.remove()
    return error


def _held(held: ExitStack, playing: Playing, env: VecEnv) -> Playing:
    """What plays beside training, if anything does, on rows that are closed with `held`."""
    if playing is not None:
        held.enter_context(closing(playing.env))
        check_apart(env, cast("VecEnv", playing.env))
    return playing


def evaluation_of(experiment: Experiment) -> Eval | None:
    """The evaluation beside training, on rows of its own, which the caller closes; None where there is none."""
    options = experiment.options
    periodic = options.eval_episodes if options.eval_every else 0
    confirming = 0 if options.stop_at == math.inf else options.confirm_episodes
    most = max(periodic, confirming)
    if not most:
        return None
    names = {"eval_every": periodic, "confirm_episodes": confirming}
    asked = " and ".join(name for name, count in names.items() if count)
    return Eval(
        _rows_beside(experiment, most, f"{asked} evaluate there: leave it out"),
        options.eval_every,
        options.eval_episodes,
        options.eval_max_steps,
    )


def ranking_of(experiment: Experiment) -> Ranking | None:
    """How the agents of a population are compared, on rows of their own, which the caller closes.

    None for an agent that is alone, and where nobody wants to know who is best.
    """
    options = experiment.options
    at_end = options.final_episodes != 0
    if options.agents == 1 or not (at_end or options.population.exploit_interval):
        return None
    episodes = options.population.evaluation_episodes
    why = "agents are compared there: set final_episodes=0 and no population.exploit_interval"
    rows = _rows_beside(experiment, episodes, why)
    return Ranking(rows, episodes, options.eval_max_steps, at_end=at_end)


def _rows_beside(experiment: Experiment, episodes: int, why: str) -> VecEnv:
    """Rows for so many episodes at a time beside training's own; an error that says what they are for."""
    count = min(episodes, EVALUATION_ROWS)
    try:
        return experiment.rows(count, playing=True)
    except RAISED as error:
        error.add_note(
            f"shoal: raised while {count} more environments were made beside training's own; {why} where there "
            "cannot be so many"
        )
        raise


def warn_of_wide_actions(experiment: Experiment, env: VecEnv, run: Run) -> None:
    """Says where the policy's own Gaussian hardly explores its actions, and what does."""
    network = getattr(experiment.config, "network", None)
    if experiment.policy is not None or getattr(network, "squash", True):
        return
    if wide := wide_actions(env.spec.action_space):
        run.warn(f"{wide}; {SQUASH}")


def warn_of_guard(experiment: Experiment, env: VecEnv, run: Run) -> None:
    """Says where an action guard has built-in environments step outside of native rollouts."""
    name = experiment.source
    built_in = isinstance(name, str) and packages.has(name)
    native = built_in and experiment.options.backend in ("auto", "native")
    if env.spec.guarded and native and experiment.options.native:
        run.warn(
            "action_guard: every action passes it in Python, so rollouts are not collected in one native call, and "
            "collecting takes longer"
        )


def warn_of_slow_layers(experiment: Experiment, env: VecEnv, run: Run) -> None:
    """Says where layers for images compute in bfloat16 on a CPU that is slow at it, and what is faster."""
    network = getattr(experiment.config, "network", None)
    if network is None or experiment.policy is not None:
        return
    half = getattr(network, "precision", "float32") == "bfloat16"
    on_cpu = torch.device(experiment.options.device).type == "cpu"
    if not (half and on_cpu and lacks_bfloat16()):
        return
    parts = [part for _, part in leaf_spaces(env.spec.observation_space)]
    if any(image_net(env.spec.seeing(part), network.image) for part in parts):
        run.warn(
            "the layers for images compute in bfloat16, for which this CPU has no instructions: "
            "--network.precision float32 is several times as fast here"
        )


def open_log(experiment: Experiment, where: RunDirectory, *, fresh: bool) -> Log:
    """The run's metrics, TensorBoard's events, and the tracker if there is one."""
    log = Log(where.metrics, [])
    try:
        where.sweep()
        purge_step = None if fresh else where.read_status().get("steps", 0) + 1
        events = TensorBoard(where.path / "tensorboard", purge_step)
        track = experiment.options.track
        if track != "none":
            config = where.read_config()
            root = path_of("run_dir", experiment.options.run_dir)
            name = str(where.path)
            exporter = exporter_of(track, name=name, config=config, root=root)
            log.sinks.append(Beside(exporter))
        log.sinks.append(Beside(events, must=True))
    except BaseException:
        log.close()
        raise
    return log


def settings_of(
    experiment: Experiment,
    env: VecEnv,
    *,
    run: str,
    began_with: str,
    ranks: Ranks | None = None,
) -> Settings:
    """What a run of an experiment knows of itself.

    Args:
        experiment: what is trained.
        env: its rows.
        run: its id.
        began_with: whose weights it began with.
        ranks: the processes that learn together, where there are several.
    """
    options = experiment.options
    threshold = options.stop_at
    if threshold is None:
        threshold = env.spec.reward_threshold
    return Settings(
        env=options.env,
        algo=options.algo,
        seed=options.seed,
        num_envs=options.num_envs,
        total_timesteps=options.total_timesteps,
        agents=env.spec.agent_names,
        stop_at=threshold,
        confirm_episodes=options.confirm_episodes,
        device=options.device,
        num_threads=options.threads(),
        native=options.native,
        schedule=options.schedule,
        max_staleness=options.max_staleness,
        act_block=options.act_block,
        grad_shards=options.grad_shards,
        reward_scale=options.reward_scale,
        reward_gamma=reward_gamma_of(experiment),
        self_play=options.self_play,
        learners=options.agents,
        population=options.population,
        curiosity=options.curiosity,
        language=options.language,
        data=FromData(options.data, options.data_fraction, options.offline_updates),
        checkpoint_every=options.checkpoint_every,
        keep_last=options.keep_checkpoints,
        timeline=options.timeline,
        guarding=options.guarding if options.guard == "on" else None,
        began_with=began_with,
        identity=Identity(run, fixed_settings(experiment)),
        ranks=ranks,
    )


def reward_gamma_of(experiment: Experiment) -> float | None:
    """The discount of the returns by which rewards are normalized; None where they are not.

    Raises:
        ConfigError: the algorithm has no discount.
    """
    if not experiment.options.normalize_reward:
        return None
    gamma = getattr(experiment.config, "gamma", None)
    if gamma is None:
        raise ConfigError(
            f"normalize_reward needs a discount, but {experiment.options.algo} has no setting gamma; "
            "set normalize_reward=False"
        )
    return gamma


def draw_report(where: RunDirectory, panel: Panel) -> None:
    """Draws the report; a run is not lost where that fails."""
    try:
        write_report(where)
    except Exception as error:  # whatever it is: the run itself is whole
        panel.warn(
            f"no report was drawn ({type(error).__name__}: {error}); `shoal report {where.path}` tries again"
        )


def note_failure(where: RunDirectory, error: BaseException, run: Run) -> None:
    """The run's status says how it ended; where even that fails, the error says so."""
    stopped = isinstance(error, KeyboardInterrupt)
    said = shortened(f"{type(error).__name__}: {error}", FAILURE)
    reason = "Ctrl-C" if stopped else said
    ended = {
        "state": "stopped" if stopped else "failed",
        "reason": reason,
        "ended_at": time.time(),
        "usage": run.usage.now(run.meter.halt.stood_s),
    }
    try:
        where.write_last_status(_known_status(where) | ended)
    except OSError as second:
        if where.path.is_dir():
            error.add_note(f"shoal: {where.status} was not written: {second}")
            return
        error.add_note(
            f"shoal: {where.path} is gone: it was deleted or moved while the run went on. If it was moved, "
            "`shoal resume` goes on from its checkpoints there"
        )


def _known_status(where: RunDirectory) -> dict[str, Any]:
    """Where the run stood; empty where that is damaged."""
    try:
        known = where.read_status()
    except ConfigError:
        return {}
    return {key: x for key, x in known.items() if not key.startswith("paused_")}


def check_device(name: str) -> None:
    """Raises ConfigError unless torch can use the device here."""
    try:
        device = torch.device(name)
    except RuntimeError as error:
        raise ConfigError(f"no device {name!r}; use cpu, cuda or cuda:1") from error
    if device.type not in ("cpu", "cuda"):
        raise ConfigError(f"shoal trains on cpu or cuda, not on {name!r}")
    there = torch.cuda.device_count() if device.type == "cuda" else 1
    if not there:
        raise ConfigError(
            f"device={name!r}, but torch {torch.__version__} finds no CUDA device here; use device='cpu'"
        )
    if (device.index or 0) >= there:
        raise ConfigError(
            f"device={name!r}, but the last one here is '{device.type}:{there - 1}'"
        )
