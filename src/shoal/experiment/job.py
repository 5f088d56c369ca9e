"""A job: all that a run is started with, as names that a file can hold and as the objects behind them."""

from __future__ import annotations

import inspect
from dataclasses import asdict, dataclass, field, fields, replace
from difflib import get_close_matches
from math import inf, isnan
from typing import TYPE_CHECKING, Any, Literal

import gymnasium as gym
import torch
from torch import nn

from shoal import algos
from shoal.algos.presets import preset
from shoal.envs import native, randomization
from shoal.envs.pictures import RENDER_MODE
from shoal.envs.preprocessing import Shaping
from shoal.envs.registry import import_object, is_batched, make
from shoal.envs.workers.crew import Workers
from shoal.experiment.settings import resolve, split, without_none
from shoal.nets.policy import wrap
from shoal.stream.meter import cores
from shoal.stream.self_play import SelfPlay
from shoal.types import ConfigError, check_ranges

if TYPE_CHECKING:
    from shoal.envs.vec_env import VecEnv
    from shoal.types import Spec


@dataclass(frozen=True, slots=True)
class Launch:
    """What a run is started with, besides the algorithm's own settings."""

    env: str
    """An environment's id, or `package.module:function`."""
    algo: str = "ppo"
    """The algorithm; `shoal algos` lists them."""
    total_timesteps: int = 1_000_000
    """Environment steps of the whole run; more steps, more training."""
    num_envs: int = 16
    """Environments that act together; more make larger, more varied batches and faster steps."""
    schedule: Literal["sync", "overlap"] = "sync"
    """overlap: half of the rows act while the other half step."""
    act_block: int = 64
    """Rows per forward pass when acting; changes rounding, not quality."""
    grad_shards: int = 2
    """Parts of a minibatch whose gradients are computed apart; as many threads as this can help."""
    reward_scale: float = 1.0
    """Rewards are multiplied by this before learning, so that values are of the order of 1 to 10."""
    self_play: SelfPlay = field(default_factory=SelfPlay)
    """Whom the policy meets in games of several agents."""
    seed: int = 1
    """Equal settings and seeds give equal weights."""
    device: str = "cpu"
    """Where the policy learns: cpu, cuda or cuda:1."""
    num_threads: int = 0
    """Threads for native code; 0 means one a core, at most 4. It changes no result."""
    backend: str = "auto"
    """What steps the environment: native (C++), serial (Python), workers (Python in processes), or auto."""
    num_workers: int = 0
    """Processes of the backend workers; 0 means one a core. It changes no result."""
    step_timeout_s: float = 60.0
    """Seconds that a worker may take for a step of its rows before it counts as hung."""
    on_fault: Literal["raise", "restart", "drop"] = "raise"
    """When a worker dies, hangs or raises: end with its error, `restart` it, or `drop` its rows for good."""
    max_restarts: int = 3
    """Times that each worker may be restarted; then its error ends the run."""
    own_cores: bool = True
    """Workers keep to different cores; off, the kernel moves them as it likes (on a machine with other work)."""
    policy: str | None = None
    """`package.module:Class` of a torch policy of one's own."""
    stop_at: float | None = None
    """Mean return at which training stops, of the last episodes or of an evaluation beside training.

    The environment's own threshold unless given; inf never stops early.
    """
    eval_every: int = 0
    """Play greedy episodes beside training each time this many steps have passed; 0 never does."""
    eval_episodes: int = 20
    """Episodes of each evaluation beside training; more make its mean surer."""
    name: str | None = None
    """The run directory's name; date, time and seed unless given."""
    run_dir: str = "runs"
    """The folder of run directories."""
    track: Literal["none", "wandb", "trackio"] = "none"
    """Also log to `wandb` or `trackio` (extras of the package)."""
    preset: str | None = None
    """Start from the settings of this name (such as `paac`) instead of the environment's."""
    info_keys: tuple[str, ...] = ()
    """Numbers in the last info of every episode that become the metrics info/KEY (Python environments)."""
    shaping: Shaping = field(default_factory=Shaping)
    """Frame stack, sticky actions, the reward's clip, the time limit."""
    native: bool = True
    """Lower the policy to native code where that is possible; off, torch does all."""

    def __post_init__(self) -> None:
        """Refuses what cannot work, with what would."""
        if not 0 <= self.seed < 2**63:
            raise ConfigError(f"seed must lie between 0 and 2**63 - 1, got {self.seed}")
        if self.num_threads < 0:
            raise ConfigError(
                f"num_threads must be at least 1, or 0 for one a core, got {self.num_threads}"
            )
        self.workers()
        counts = ("total_timesteps", "num_envs", "act_block", "grad_shards")
        check_ranges(self, **dict.fromkeys(counts, (1, inf)), reward_scale=(1e-12, inf))
        if self.stop_at is not None and isnan(self.stop_at):
            raise ConfigError(
                "stop_at must be a number, or inf to never stop early, got nan"
            )
        if self.eval_every < 0 or self.eval_episodes < 1:
            raise ConfigError(
                "eval_every must be at least 0 and eval_episodes at least 1, "
                f"got {self.eval_every} and {self.eval_episodes}"
            )

    def threads(self) -> int:
        """The threads that native code gets."""
        return self.num_threads or min(4, cores())

    def workers(self) -> Workers:
        """How the backend workers runs; ConfigError where it cannot."""
        names = (
            "num_workers",
            "step_timeout_s",
            "on_fault",
            "max_restarts",
            "own_cores",
        )
        return Workers(**{name: getattr(self, name) for name in names})


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
    reopened: bool = False
    """Whether it was read from a run directory, which holds names only."""

    def rows(self, num_envs: int, *, playing: bool = False) -> VecEnv:
        """Rows of the environment. Evaluation plays for the environment's own rewards, over the whole of each range."""
        launch, env_kwargs = self.launch, self.env_kwargs or {}
        settings: dict[str, Any] = {
            "backend": launch.backend,
            "num_threads": launch.threads(),
        }
        shaping = replace(
            launch.shaping, reward_scale=1.0, reward_clip=None, reward_sign=False
        )
        settings |= {"shaping": shaping if playing else launch.shaping}
        settings |= {"info_keys": tuple(launch.info_keys), "workers": launch.workers()}
        try:
            env_kwargs = randomization.whole(env_kwargs) if playing else env_kwargs
            return make(self.factory, num_envs, env_kwargs=env_kwargs, **settings)
        except ConfigError as error:
            if not self.reopened or callable(self.factory):
                raise
            raise ConfigError(
                f"{error}; a run that was given a callable needs it again (factory=...)"
            ) from error

    def drawn_rows(self, num_envs: int) -> VecEnv:
        """Rows that draw themselves: Gymnasium's own, which equal the native ones bit for bit, shoal's worlds, Atari.

        Raises:
            ConfigError: the environment cannot be made with render_mode="rgb_array".
        """
        own_world = self.factory in native.ids() and self.factory not in gym.registry
        if own_world or is_batched(self.factory, self.launch.backend):
            return self.rows(num_envs, playing=True)
        own = {**(self.env_kwargs or {}), "render_mode": RENDER_MODE}
        serial = replace(
            self, launch=replace(self.launch, backend="serial"), env_kwargs=own
        )
        try:
            return serial.rows(num_envs, playing=True)
        except (ConfigError, TypeError) as error:
            raise ConfigError(
                f"{self.launch.env} cannot be drawn, made with {own}: {error}"
            ) from error

    def make_policy(self, spec: Spec) -> nn.Module:
        """The user's policy for these rows, else the algorithm's; its weights are drawn from the launch's seed.

        Raises:
            ConfigError: there is no such policy, or it is neither a module nor a function of the Spec.
        """
        chosen = self.policy
        if isinstance(chosen, str):
            if not all(chosen.partition(":")):
                raise ConfigError(
                    f"a policy is named package.module:Class, got {chosen!r}"
                )
            chosen = import_object(chosen)
        if chosen is None:
            module = algos.load(self.launch.algo)
            return algos.make_policy(module, spec, self.config, self.launch.seed)
        if not isinstance(chosen, nn.Module):
            _check_factory(chosen)
        with torch.random.fork_rng(devices=[]):
            torch.default_generator.manual_seed(self.launch.seed)
            return wrap(chosen, spec)


def _check_factory(chosen: Any) -> None:
    name = getattr(chosen, "__name__", repr(chosen))
    if not callable(chosen):
        raise ConfigError(
            f"the policy {name} is neither a torch.nn.Module nor a function of the Spec"
        )
    try:
        inspect.signature(chosen).bind(None)
    except TypeError as error:
        raise ConfigError(
            f"the policy {name} is called with the Spec alone, but {error}"
        ) from error


def to_toml(
    launch: Launch, config: Any, env_kwargs: dict[str, Any] | None
) -> dict[str, Any]:
    """The configuration of a run as TOML holds it: no nulls, tables for nested parts, the preset spelled out."""
    whole = asdict(launch) | {"preset": None, "algorithm": asdict(config)}
    if env_kwargs:
        whole["env_kwargs"] = randomization.as_text(env_kwargs)
    return without_none(whole)


def from_toml(saved: dict[str, Any]) -> tuple[Any, Launch, Any, dict[str, Any] | None]:
    """The algorithm's module, the launch, the algorithm's config and the environment's keywords.

    What the table [algorithm] leaves out is as the preset named in the file says, else as the algorithm's class says.
    """
    own, rest = split(saved, Launch)
    unknown = set(rest) - {"algorithm", "env_kwargs"}
    if unknown:
        near = get_close_matches(
            sorted(unknown)[0], [f.name for f in fields(Launch)], n=3
        )
        raise ConfigError(
            f"unknown keys {sorted(unknown)} in the configuration; did you mean {near}?"
        )
    if "env" not in own:
        raise ConfigError("the configuration names no env")
    algo, name = own.get("algo", "ppo"), own.get("preset")
    module = algos.load(algo)
    named = preset(algo, name, own["env"]) if name else {}
    layers = (algos.defaults(module), named, own, rest.get("algorithm", {}))
    launch, config = resolve(Launch, module.Config, *layers)
    return module, launch, config, rest.get("env_kwargs")
