"""The train command: from settings to a run directory, the algorithm's loop, and the figure that is quoted."""

from __future__ import annotations

import math
import os
from contextlib import contextmanager
from dataclasses import asdict, dataclass, fields, is_dataclass, replace
from difflib import get_close_matches
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from shoal import algos
from shoal.algos.presets import preset
from shoal.envs.make import import_object, make
from shoal.nets.acting import Acting, make_actor
from shoal.nets.policy import wrap
from shoal.run import checkpoint
from shoal.run import directory as directories
from shoal.run.evaluate import EVALUATION_STREAM, Score, evaluate
from shoal.run.log import Log, Sink, TensorBoard, Tracker
from shoal.run.loop import Run, Settings
from shoal.run.panel import panel_of
from shoal.types import ConfigError

if TYPE_CHECKING:
    from collections.abc import Callable, Generator

    from torch import nn

    from shoal.envs.vec_env import VecEnv
    from shoal.nets.acting import Actor
    from shoal.run.directory import RunDirectory
    from shoal.run.panel import Panel
    from shoal.types import Spec

GREEDY_EPISODES = 100


@dataclass(frozen=True, slots=True)
class Launch:
    """What a run is started with, besides the algorithm's own settings."""

    env: str
    algo: str = "ppo"
    seed: int = 1
    device: str = "cpu"
    num_threads: int = 0
    """Threads for native code; 0 means one a core, at most 4. It changes no result."""
    backend: str = "auto"
    policy: str | None = None
    """`package.module:Class` of a torch policy of one's own."""
    stop_at: float | None = None
    """Mean return at which training stops; the environment's own threshold unless given; inf never stops early."""
    name: str | None = None
    run_dir: str = "runs"
    track: str = "none"
    """Also log to `wandb` or `trackio` (extras of the package)."""
    preset: str | None = None
    """Start from the settings of this name (such as `paac`) instead of the environment's."""
    native: bool = True
    """Lower the policy to native code where that is possible; off, torch does all."""

    def threads(self) -> int:
        """The threads that native code gets."""
        return self.num_threads or min(4, os.cpu_count() or 1)


@dataclass(frozen=True, slots=True)
class Result:
    """How a run ended: its directory, the greedy return over 100 fresh episodes, and whether it met the threshold."""

    path: Path
    policy: nn.Module
    steps: int
    seconds: float
    greedy_return: float
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
    own, rest = _split(settings, Launch)
    config = config or build(module.Config, preset(algo, own.get("preset"), name))
    config = build(type(config), _flat_dict(config) | rest, known=(*own, *Launch.__slots__))
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
    saved = to_toml(launch, config, env_kwargs)
    chosen = policy if policy is not None else launch.policy
    job = Job(launch, config, factory or launch.env, env_kwargs, chosen, panel_of(panel))
    rows = job.rows(config.num_envs)
    try:
        made = job.make_policy(rows)
        root = Path(launch.run_dir)
        where = directories.create(
            root, env=launch.env, algo=launch.algo, seed=launch.seed, name=launch.name, config=saved
        )
        return _run(job, rows, where, made)
    finally:
        rows.close()


def complete(saved: dict[str, Any], **changes: Any) -> dict[str, Any]:
    """The configuration with every default filled in and `changes` of the launch, as a run of it would hold it."""
    _, launch, config, env_kwargs = from_toml(saved)
    return to_toml(replace(launch, **changes), config, env_kwargs)


def start_from(saved: dict[str, Any], *, panel: str = "auto") -> Result:
    """A new run of a configuration as TOML holds it."""
    _, launch, config, env_kwargs = from_toml(saved)
    return start(launch, config, panel=panel, env_kwargs=env_kwargs)


def resume(
    path: str | Path, *, run_dir: str = "runs", panel: str = "auto", policy: Any = None, factory: Any = None
) -> Result:
    """Continues a run from its newest checkpoint, exactly where the schedule is Sync."""
    where = directories.find(path, Path(run_dir))
    _, launch, config, env_kwargs = from_toml(where.read_config())
    job = Job(launch, config, factory or launch.env, env_kwargs, policy or launch.policy, panel_of(panel))
    rows = job.rows(config.num_envs)
    try:
        return _run(job, rows, where, job.make_policy(rows))
    finally:
        rows.close()


@dataclass(frozen=True, slots=True)
class Job:
    """A launch with the objects that stand in for its names."""

    launch: Launch
    config: Any
    factory: Any
    env_kwargs: dict[str, Any] | None
    policy: Any
    panel: Panel

    def rows(self, num_envs: int) -> VecEnv:
        """Rows of the environment."""
        launch = self.launch
        threads = launch.threads()
        return make(self.factory, num_envs, backend=launch.backend, num_threads=threads, env_kwargs=self.env_kwargs)

    def make_policy(self, rows: VecEnv) -> nn.Module | None:
        """The user's policy for these rows, if there is one."""
        chosen = import_object(self.policy) if isinstance(self.policy, str) else self.policy
        return None if chosen is None else wrap(chosen, rows.spec)


def _run(job: Job, env: VecEnv, where: RunDirectory, policy: nn.Module | None) -> Result:
    launch, config = job.launch, job.config
    threshold = launch.stop_at if launch.stop_at not in (None, math.inf) else env.spec.reward_threshold
    settings = Settings(
        env=launch.env,
        algo=launch.algo,
        seed=launch.seed,
        num_envs=config.num_envs,
        total_timesteps=config.total_timesteps,
        steps_per_update=config.num_envs * config.num_steps,
        stop_at=None if launch.stop_at == math.inf else threshold,
        device=launch.device,
        num_threads=launch.threads(),
        native=launch.native,
    )
    fresh = not any(where.checkpoints.iterdir())
    sinks: list[Sink] = [TensorBoard(where.path / "tensorboard", 0)]
    if launch.track != "none":
        sinks.append(Tracker(launch.track, name=str(where.path), config=where.read_config()))
    run = Run(where, settings, Log(where.metrics, sinks), job.panel)
    try:
        with one_torch_thread():
            trained = algos.load(launch.algo).train(config, env, run, policy)
            score = play(trained, job, episodes=GREEDY_EPISODES, seed=launch.seed)
    except BaseException as error:
        run.close()
        if fresh and run.updates == 0:
            where.remove()
        else:
            where.write_status(where.read_status() | {"state": "failed", "reason": f"{type(error).__name__}: {error}"})
        raise
    status: dict[str, Any] = where.read_status() | {"greedy_return": score.mean, "greedy_std": score.std}
    status |= {"threshold": threshold}
    status |= {"state": "stopped" if run.stop_reason == "interrupted" else "finished", "stop_reason": run.stop_reason}
    where.write_status(status)
    result = Result(where.path, trained, status["steps"], status["seconds"], score.mean, threshold, run.stop_reason)
    run.panel.finish(result)
    run.close()
    return result


def load(path: str | Path, *, run_dir: str = "runs", policy: Any = None, factory: Any = None, tag: str = "") -> Loaded:
    """The trained policy of a run: `shoal.load(run).act(obs)`.

    Args:
        path: a run directory, or a folder of runs (the newest).
        run_dir: where `path` is looked for as well.
        policy: the policy's factory, where the run was given an object.
        factory: the environment's factory, where the run was given one.
        tag: "" for the newest checkpoint, "best" for the best.
    """
    where = directories.find(path, Path(run_dir))
    module, launch, config, env_kwargs = from_toml(where.read_config())
    job = Job(launch, config, factory or launch.env, env_kwargs, policy or launch.policy, panel_of("none"))
    rows = job.rows(1)
    made = job.make_policy(rows) or module.make_policy(rows.spec, config.network, launch.seed)
    rows.close()
    found = checkpoint.load(where.checkpoints, kind={"env": launch.env, "algo": launch.algo}, tag=tag)
    if found is None:
        raise ConfigError(f"{where.path} has no checkpoint {tag!r} yet")
    made.load_state_dict(found.tree["state"]["policy"])
    return Loaded(made, rows.spec, job)


class Loaded:
    """A trained policy, ready to act."""

    def __init__(self, policy: nn.Module, spec: Spec, job: Job) -> None:
        """Made by `load`."""
        self.policy, self.spec, self._job = policy, spec, job
        self._actor: Actor | None = None
        self._start = np.ones(0, np.bool_)

    def act(self, obs: Any, *, start: Any = None, greedy: bool = True) -> Any:
        """The action for one observation, or actions [N] for a batch [N, ...], as the environment takes them.

        `start` (bool, or [N]) marks first observations of an episode for a policy with memory; by default the first
        call after `load` or `reset` is one.
        """
        leaf = self.spec.observation.single
        array = np.asarray(obs, leaf.dtype)
        alone = array.shape == leaf.shape
        batch = array[None] if alone else array
        if batch.shape[1:] != leaf.shape:
            raise ValueError(f"{self.spec.env_id}: expected an observation {leaf.shape} or [N, ...], got {array.shape}")
        if self._actor is None or len(self._start) != len(batch):
            acting = Acting(self._job.launch.seed, native=self._job.launch.native)
            self._actor = make_actor(self.policy, self.spec, len(batch), acting)
            self._start = np.ones(len(batch), np.bool_)
        if start is not None:
            self._start[:] = start
        action = self._actor.act(batch, self._start, slice(0, len(batch)), greedy=greedy).env_action
        self._start[:] = False
        return action[0] if alone else action

    def reset(self) -> None:
        """The next observation begins an episode."""
        self._start[:] = True

    def evaluate(self, *, episodes: int = GREEDY_EPISODES, seed: int = 0) -> Score:
        """Greedy episodes on fresh rows."""
        return play(self.policy, self._job, episodes=episodes, seed=seed)


def play(policy: nn.Module, job: Job, *, episodes: int, seed: int) -> Score:
    """Greedy episodes on fresh rows."""
    launch = job.launch
    rows = job.rows(min(episodes, 20))
    acting = Acting(seed, EVALUATION_STREAM, torch.device(launch.device), native=launch.native)
    try:
        return evaluate(policy, rows, episodes=episodes, acting=acting)
    finally:
        rows.close()


@contextmanager
def one_torch_thread() -> Generator[None]:
    """One intra-op thread for torch while a run lasts: its bits and its speed both need it."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def build(kind: Any, values: dict[str, Any], *, known: tuple[str, ...] = ()) -> Any:
    """A config dataclass from plain values, nested ones from dicts; ConfigError names the nearest fields."""
    names = {f.name: f for f in fields(kind)}
    for name in values:
        if name not in names:
            near = get_close_matches(name, [*names, *known], n=3) or list(names)
            raise ConfigError(f"no setting {name!r}; did you mean {', '.join(near)}?")
    default = kind()
    converted: dict[str, Any] = {}
    for name, value in values.items():
        current = getattr(default, name)
        if is_dataclass(current) and isinstance(value, dict):
            converted[name] = replace(current, **build_values(current, value))  # pyright: ignore[reportArgumentType]
        else:
            converted[name] = tuple(value) if isinstance(value, list) else value
    return replace(default, **converted)


def build_values(current: Any, value: dict[str, Any]) -> dict[str, Any]:
    """The changed fields of a nested config, checked."""
    built = build(type(current), _flat_dict(current) | value)
    return {f.name: getattr(built, f.name) for f in fields(built)}


def _flat_dict(config: Any) -> dict[str, Any]:
    return {f.name: getattr(config, f.name) for f in fields(config)}


def _split(settings: dict[str, Any], kind: Any) -> tuple[dict[str, Any], dict[str, Any]]:
    names = {f.name for f in fields(kind)}
    return {k: v for k, v in settings.items() if k in names}, {k: v for k, v in settings.items() if k not in names}


def to_toml(launch: Launch, config: Any, env_kwargs: dict[str, Any] | None) -> dict[str, Any]:
    """The configuration of a run as TOML holds it: no nulls, tables for nested parts."""
    whole = asdict(launch) | {"algorithm": asdict(config)}
    if env_kwargs:
        whole["env_kwargs"] = env_kwargs
    return _without_none(whole)


def from_toml(saved: dict[str, Any]) -> tuple[Any, Launch, Any, dict[str, Any] | None]:
    """The algorithm's module, the launch, the algorithm's config and the environment's keywords."""
    own, rest = _split(saved, Launch)
    unknown = set(rest) - {"algorithm", "env_kwargs"}
    if unknown:
        near = get_close_matches(sorted(unknown)[0], [f.name for f in fields(Launch)], n=3)
        raise ConfigError(f"unknown keys {sorted(unknown)} in the configuration; did you mean {near}?")
    if "env" not in own:
        raise ConfigError("the configuration names no env")
    module = algos.load(own.get("algo", "ppo"))
    return module, Launch(**own), build(module.Config, rest.get("algorithm", {})), rest.get("env_kwargs")


def _without_none(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _without_none(part) for key, part in value.items() if part is not None}
    return list(value) if isinstance(value, tuple) else value
