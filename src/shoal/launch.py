"""The train command: from settings to a run directory, the algorithm's loop, and the figure that is quoted."""

from __future__ import annotations

import math
import time
from contextlib import closing, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from shoal import algos
from shoal.algos.presets import preset
from shoal.job import Job, Launch, from_toml, to_toml
from shoal.loaded import GREEDY_EPISODES, play
from shoal.run import directory as directories
from shoal.run.config import build, shallow, split
from shoal.run.log import Log, Sink, TensorBoard, Tracker
from shoal.run.loop import Run, Settings
from shoal.run.panel import panel_of

if TYPE_CHECKING:
    from collections.abc import Callable, Generator

    from torch import nn

    from shoal.envs.vec_env import VecEnv
    from shoal.run.directory import RunDirectory


@dataclass(frozen=True, slots=True)
class Result:
    """How a run ended: its directory, the greedy return over 100 fresh episodes, and whether it met the threshold."""

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
        return self.threshold is None or self.greedy_return >= self.threshold


def train(
    env: str | Callable[..., Any],
    *,
    algo: str = "ppo",
    policy: nn.Module | Callable[[Any], nn.Module] | str | None = None,
    panel: str = "auto",
    env_kwargs: dict[str, Any] | None = None,
    config: Any = None,
    **settings: Any,
) -> Result:
    """Trains and leaves a run directory.

    Args:
        env: an id, `package.module:function`, or a callable that returns a `gymnasium.Env`.
        algo: `shoal algos` lists them.
        policy: a torch module, a function of the Spec that makes one, or `package.module:Class`; else the default one.
        panel: auto, live, plain, json or none.
        env_kwargs: keywords for the environment.
        config: the algorithm's config; else the preset for this environment.
        settings: fields of `Launch` (seed, device, num_threads, stop_at, name, run_dir, ...) and of the algorithm's
            config (num_envs, learning_rate, total_timesteps, ...).

    Raises:
        ConfigError: an unknown name (with the nearest ones) or settings that cannot work; no directory is left.
    """
    name = env if isinstance(env, str) else getattr(env, "__name__", type(env).__name__)
    module = algos.load(algo)
    own, rest = split(settings, Launch)
    config = config or build(module.Config, preset(algo, own.get("preset"), name))
    config = build(type(config), shallow(config) | rest, known=(*own, *Launch.__slots__))
    if isinstance(policy, str):
        own["policy"] = policy
    return start(Launch(name, algo, **own), config, panel=panel, env_kwargs=env_kwargs, factory=env, policy=policy)


def start(
    launch: Launch,
    config: Any,
    *,
    panel: str = "auto",
    env_kwargs: dict[str, Any] | None = None,
    factory: Any = None,
    policy: Any = None,
) -> Result:
    """A new run from complete settings; `factory` and `policy` are objects that stand in for the launch's names."""
    module = algos.load(launch.algo)
    job = Job(launch, config, factory or launch.env, env_kwargs, policy if policy is not None else launch.policy)
    shown = panel_of(panel)
    with closing(job.rows(config.num_envs)) as rows:
        made = job.make_policy(rows)
        where = directories.create(
            Path(launch.run_dir),
            env=launch.env,
            algo=launch.algo,
            seed=launch.seed,
            name=launch.name,
            config=to_toml(launch, config, env_kwargs),
        )
        with opened(job, rows, where, shown) as run:
            trained = module.train(config, rows, run, made)
            return conclude(job, run, trained)


def resume(
    path: str | Path, *, run_dir: str = "runs", panel: str = "auto", policy: Any = None, factory: Any = None
) -> Result:
    """Continues a run from its newest checkpoint, exactly where the schedule is Sync."""
    where = directories.find(path, Path(run_dir))
    module, launch, config, env_kwargs = from_toml(where.read_config())
    job = Job(launch, config, factory or launch.env, env_kwargs, policy or launch.policy)
    shown = panel_of(panel)
    with closing(job.rows(config.num_envs)) as rows:
        made = job.make_policy(rows)
        with opened(job, rows, where, shown) as run:
            trained = module.train(config, rows, run, made)
            return conclude(job, run, trained)


@contextmanager
def opened(job: Job, env: VecEnv, where: RunDirectory, panel: Any) -> Generator[Run]:
    """The run of a job while its algorithm trains; a run that fails before its first update leaves no directory."""
    launch, config = job.launch, job.config
    threshold = env.spec.reward_threshold if launch.stop_at is None else launch.stop_at
    settings = Settings(
        env=launch.env,
        algo=launch.algo,
        seed=launch.seed,
        num_envs=config.num_envs,
        total_timesteps=config.total_timesteps,
        steps_per_update=config.num_envs * config.num_steps,
        stop_at=threshold,
        device=launch.device,
        num_threads=launch.threads(),
        native=launch.native,
    )
    before = where.read_status()
    sinks: list[Sink] = [TensorBoard(where.path / "tensorboard", before.get("steps", 0))]
    if launch.track != "none":
        sinks.append(Tracker(launch.track, name=str(where.path), config=where.read_config()))
    run = Run(where, settings, Log(where.metrics, sinks), panel)
    try:
        with one_torch_thread():
            yield run
    except BaseException as error:
        run.close()
        if not before and run.updates == 0:
            where.remove()
        else:
            where.write_status(where.read_status() | {"state": "failed", "reason": f"{type(error).__name__}: {error}"})
        raise
    run.close()


def conclude(job: Job, run: Run, policy: nn.Module) -> Result:
    """Plays the 100 greedy episodes, and writes how the run ended."""
    begun = time.perf_counter()
    score = play(policy, job, episodes=GREEDY_EPISODES, seed=job.launch.seed)
    seconds = time.perf_counter() - begun
    where, threshold = run.directory, run.settings.stop_at
    if threshold == math.inf:
        threshold = None
    status: dict[str, Any] = where.read_status() | {"greedy_return": score.mean, "greedy_std": score.std}
    status["threshold"] = threshold
    status |= {"state": "stopped" if run.stop_reason == "interrupted" else "finished", "stop_reason": run.stop_reason}
    where.write_status(status)
    result = Result(
        path=where.path,
        policy=policy,
        steps=status["steps"],
        seconds=status["seconds"],
        greedy_return=score.mean,
        greedy_seconds=seconds,
        threshold=threshold,
        stop_reason=run.stop_reason,
    )
    run.panel.finish(result)
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
