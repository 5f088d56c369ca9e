"""A job: all that a run is started with, as names that a file can hold and as the objects behind them."""

from __future__ import annotations

import os
from dataclasses import asdict, dataclass, fields
from difflib import get_close_matches
from typing import TYPE_CHECKING, Any

from shoal import algos
from shoal.envs.make import import_object, make
from shoal.nets.policy import wrap
from shoal.run.config import build, split, without_none
from shoal.types import ConfigError

if TYPE_CHECKING:
    from torch import nn

    from shoal.envs.vec_env import VecEnv


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
class Job:
    """A launch with the objects that stand in for its names."""

    launch: Launch
    config: Any
    factory: Any
    """The environment: the launch's name, or a callable."""
    env_kwargs: dict[str, Any] | None = None
    policy: Any = None
    """A module, a function of the Spec, or `package.module:Class`; None for the default policy."""

    def rows(self, num_envs: int) -> VecEnv:
        """Rows of the environment."""
        launch = self.launch
        threads = launch.threads()
        return make(self.factory, num_envs, backend=launch.backend, num_threads=threads, env_kwargs=self.env_kwargs)

    def make_policy(self, rows: VecEnv) -> nn.Module | None:
        """The user's policy for these rows, if there is one."""
        chosen = import_object(self.policy) if isinstance(self.policy, str) else self.policy
        return None if chosen is None else wrap(chosen, rows.spec)


def to_toml(launch: Launch, config: Any, env_kwargs: dict[str, Any] | None) -> dict[str, Any]:
    """The configuration of a run as TOML holds it: no nulls, tables for nested parts."""
    whole = asdict(launch) | {"algorithm": asdict(config)}
    if env_kwargs:
        whole["env_kwargs"] = env_kwargs
    return without_none(whole)


def from_toml(saved: dict[str, Any]) -> tuple[Any, Launch, Any, dict[str, Any] | None]:
    """The algorithm's module, the launch, the algorithm's config and the environment's keywords."""
    own, rest = split(saved, Launch)
    unknown = set(rest) - {"algorithm", "env_kwargs"}
    if unknown:
        near = get_close_matches(sorted(unknown)[0], [f.name for f in fields(Launch)], n=3)
        raise ConfigError(f"unknown keys {sorted(unknown)} in the configuration; did you mean {near}?")
    if "env" not in own:
        raise ConfigError("the configuration names no env")
    module = algos.load(own.get("algo", "ppo"))
    return module, Launch(**own), build(module.Config, rest.get("algorithm", {})), rest.get("env_kwargs")
