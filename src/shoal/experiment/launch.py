"""The train command: from settings to a run directory, the algorithm's loop, and the figure that is quoted."""

from __future__ import annotations

import math
import time
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from shoal import algos
from shoal.algos.presets import preset
from shoal.experiment.agent import GREEDY_EPISODES, play
from shoal.experiment.job import Job, Launch, from_toml, to_toml
from shoal.experiment.settings import build, resolve, shallow, split
from shoal.report.html import write_report
from shoal.report.panel import Panel, panel_of
from shoal.run import directory as directories
from shoal.run.evaluate import Eval
from shoal.run.log import Log, TensorBoard, Tracker
from shoal.run.loop import INTERRUPTED
from shoal.run.run import Run
from shoal.run.settings import Settings
from shoal.types import ConfigError

if TYPE_CHECKING:
    from collections.abc import Callable, Generator

    from torch import nn

    from shoal.envs.vec_env import VecEnv
    from shoal.run.directory import RunDirectory

CHANGEABLE = (
    *(
        "total_timesteps",
        "stop_at",
        "device",
        "num_threads",
        "eval_every",
        "eval_episodes",
    ),
    *("num_workers", "step_timeout_s", "on_fault", "max_restarts", "own_cores"),
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
    env: str | Callable[..., Any],
    *,
    algo: str = "ppo",
    policy: nn.Module | Callable[[Any], nn.Module] | str | None = None,
    panel: str = "auto",
    env_kwargs: dict[str, Any] | None = None,
    config: Any = None,
    report: bool = False,
    **settings: Any,
) -> Result:
    """Trains and leaves a run directory.

    Args:
        env: an id, `package.module:function`, or a callable that returns a `gymnasium.Env`.
        algo: `shoal algos` lists them.
        policy: a torch module, a function of the Spec that makes one, or `package.module:Class`; else the default one.
        panel: auto, live, plain, json or none.
        env_kwargs: keywords for the environment; a distribution has every episode draw one.
        config: the algorithm's config; else the preset for this environment.
        report: draw curves.png and report.html into the run directory when the run has ended.
        settings: fields of `Launch` (seed, device, num_threads, stop_at, name, run_dir, ...) and of the algorithm's
            config (num_envs, learning_rate, total_timesteps, ...).

    Raises:
        ConfigError: an unknown name (with the nearest ones) or settings that cannot work; no directory is left.
        FloatingPointError: a loss is not finite; the run directory says when, and keeps the checkpoints before.
        EnvError: the environment broke its contract; its own exceptions arrive unchanged.
    """
    name = env if isinstance(env, str) else getattr(env, "__name__", type(env).__name__)
    module = algos.load(algo)
    tuned: dict[str, Any] = {}
    if config is None:
        tuned = preset(algo, settings.get("preset"), name)
    elif isinstance(config, module.Config):
        tuned = shallow(config)
    else:
        raise ConfigError(
            f"{algo} needs a config of type {module.Config.__name__}, got {type(config).__name__}"
        )
    named: dict[str, Any] = {"env": name, "algo": algo}
    if isinstance(policy, str):
        named["policy"] = policy
    layers = (algos.defaults(module), tuned, named, settings)
    launch, config = resolve(Launch, module.Config, *layers)
    return start(
        launch,
        config,
        panel=panel,
        env_kwargs=env_kwargs,
        factory=env,
        policy=policy,
        report=report,
    )


def start(
    launch: Launch,
    config: Any,
    *,
    panel: str = "auto",
    env_kwargs: dict[str, Any] | None = None,
    factory: Any = None,
    policy: Any = None,
    report: bool = False,
) -> Result:
    """A new run from complete settings; `factory` and `policy` are objects that stand in for the launch's names."""
    check_device(launch.device)
    module = algos.load(launch.algo)
    job = Job(
        launch,
        config,
        factory or launch.env,
        env_kwargs,
        policy if policy is not None else launch.policy,
    )
    shown = panel_of(panel)
    with closing(job.rows(launch.num_envs)) as rows:
        where = directories.create(
            Path(launch.run_dir),
            env=launch.env,
            algo=launch.algo,
            seed=launch.seed,
            name=launch.name,
            config=to_toml(launch, config, env_kwargs),
        )
        with opened(job, rows, where, shown, fresh=True, report=report) as run:
            trained = module.train(config, rows, run)
            return conclude(job, run, trained, shown, where)


def resume(
    path: str | Path,
    *,
    run_dir: str = "runs",
    panel: str = "auto",
    policy: Any = None,
    factory: Any = None,
    report: bool = False,
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
        changes: total_timesteps and stop_at, to go on further than was planned; device, num_threads, eval_every and
            eval_episodes. The run's config.toml takes them over. Nothing else may change.

    Raises:
        ConfigError: no such run, a checkpoint of something else, none that is whole, or another process trains there.
    """
    where = directories.find(path, Path(run_dir))
    module, launch, config, env_kwargs = from_toml(where.read_config())
    before = (launch, config)
    own, rest = split(changes, Launch)
    for name in changes:
        if name not in CHANGEABLE:
            raise ConfigError(
                f"resume cannot change {name!r}, only {', '.join(CHANGEABLE)}; train a new run instead"
            )
    launch, config = (
        build(Launch, own, base=launch),
        build(module.Config, rest, base=config),
    )
    check_device(launch.device)
    job = Job(
        launch,
        config,
        factory or launch.env,
        env_kwargs,
        policy or launch.policy,
        reopened=True,
    )
    shown = panel_of(panel)
    with (
        closing(job.rows(launch.num_envs)) as rows,
        opened(job, rows, where, shown, fresh=False, report=report) as run,
    ):
        if (launch, config) != before:
            where.write_config(to_toml(launch, config, env_kwargs))
        trained = module.train(config, rows, run)
        return conclude(job, run, trained, shown, where)


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


@contextmanager
def opened(
    job: Job, env: VecEnv, where: RunDirectory, panel: Any, *, fresh: bool, report: bool
) -> Generator[Run]:
    """The run of a job while its algorithm trains.

    A new run (`fresh`) that fails before its first update leaves no directory; later, its status says why. The report
    is drawn when all else is done and closed, also of a run that failed, but not after the second Ctrl-C.
    """
    run: Run | None = None
    try:
        with ExitStack() as held:
            evaluation: Eval | None = None
            if job.launch.eval_every:
                rows = held.enter_context(
                    closing(job.rows(min(job.launch.eval_episodes, 20), playing=True))
                )
                evaluation = Eval(rows, job.launch.eval_every, job.launch.eval_episodes)
            held.enter_context(one_torch_thread())
            log = open_log(job, where, fresh=fresh)
            held.callback(log.close)
            run = Run(
                settings_of(job, env),
                directory=where,
                log=log,
                policy=job.make_policy,
                callbacks=[panel],
                evaluation=evaluation,
            )
            held.callback(run.close)
            yield run
    except BaseException as error:
        if fresh and (run is None or run.updates == 0):
            where.remove()
        elif run is not None:
            note_failure(where, error)
            if report and not isinstance(error, KeyboardInterrupt):
                draw_report(where, panel)
        raise
    if report:
        draw_report(where, panel)


def draw_report(where: RunDirectory, panel: Any) -> None:
    """Draws the report; a run is not lost where that fails."""
    try:
        write_report(where)
    except Exception as error:  # whatever it is: the run itself is whole
        panel.warn(
            f"no report was drawn ({type(error).__name__}: {error}); `shoal report {where.path}` tries again"
        )


def note_failure(where: RunDirectory, error: BaseException) -> None:
    """The run's status says how it ended; where even that fails, the error says so."""
    stopped = isinstance(error, KeyboardInterrupt)
    reason = "Ctrl-C" if stopped else f"{type(error).__name__}: {error}"
    try:
        where.write_status(
            where.read_status()
            | {"state": "stopped" if stopped else "failed", "reason": reason}
        )
    except OSError as second:
        error.add_note(f"shoal: {where.status} was not written: {second}")


def open_log(job: Job, where: RunDirectory, *, fresh: bool) -> Log:
    """The run's metrics, TensorBoard's events, and the tracker if there is one."""
    log = Log(where.metrics, [])
    try:
        purge_step = None if fresh else where.read_status().get("steps", 0)
        log.sinks.append(TensorBoard(where.path / "tensorboard", purge_step))
        if job.launch.track != "none":
            log.sinks.append(
                Tracker(
                    job.launch.track, name=str(where.path), config=where.read_config()
                )
            )
    except BaseException:
        log.close()
        raise
    return log


def settings_of(job: Job, env: VecEnv) -> Settings:
    """What the loop needs to know of a job."""
    launch = job.launch
    threshold = env.spec.reward_threshold if launch.stop_at is None else launch.stop_at
    return Settings(
        env=launch.env,
        algo=launch.algo,
        seed=launch.seed,
        num_envs=launch.num_envs,
        total_timesteps=launch.total_timesteps,
        agents=env.spec.agent_names,
        stop_at=threshold,
        device=launch.device,
        num_threads=launch.threads(),
        native=launch.native,
        schedule=launch.schedule,
        act_block=launch.act_block,
        grad_shards=launch.grad_shards,
        reward_scale=launch.reward_scale,
        self_play=launch.self_play,
    )


def conclude(
    job: Job, run: Run, policy: nn.Module, panel: Panel, where: RunDirectory
) -> Result:
    """Plays the 100 greedy episodes, unless Ctrl-C ended the run, and writes how it ended."""
    threshold = run.settings.stop_at
    threshold = None if threshold == math.inf else threshold
    interrupted = run.stop_reason == INTERRUPTED
    begun = time.perf_counter()
    status: dict[str, Any] = where.read_status() | {
        "threshold": threshold,
        "stop_reason": run.stop_reason,
    }
    greedy = math.nan
    if interrupted:
        status |= {"state": "stopped", "reason": "Ctrl-C"}
    else:
        score = play(policy, job, episodes=GREEDY_EPISODES, seed=job.launch.seed)
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


def complete(saved: dict[str, Any], **changes: Any) -> dict[str, Any]:
    """The configuration with every default filled in and `changes` of the launch, as a run of it would hold it."""
    _, launch, config, env_kwargs = from_toml(saved)
    return to_toml(replace(launch, **changes), config, env_kwargs)


def start_from(saved: dict[str, Any], *, panel: str = "auto") -> Result:
    """A new run of a configuration as TOML holds it."""
    _, launch, config, env_kwargs = from_toml(saved)
    return start(launch, config, panel=panel, env_kwargs=env_kwargs)


@contextmanager
def one_torch_thread() -> Generator[None]:
    """One intra-op thread for torch while a run lasts: its bits and its speed both need it."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)
