"""Options: the settings of a run besides the algorithm's own, once for every algorithm."""

from __future__ import annotations

from dataclasses import dataclass, field
from math import inf, isnan
from typing import Literal

from shoal import algos
from shoal.envs.preprocessing import Preprocessing
from shoal.envs.workers.settings import Workers
from shoal.stream.meter import cores
from shoal.stream.self_play import SelfPlay
from shoal.types import ConfigError, check_ranges


@dataclass(frozen=True, slots=True)
class Options:
    """Settings of a run besides the algorithm's own: source, engine, where it runs and what it keeps."""

    env: str
    """An environment's id, or `package.module:function`."""
    algo: str = algos.DEFAULT
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
    preprocessing: Preprocessing = field(default_factory=Preprocessing)
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
        return Workers(
            num_workers=self.num_workers,
            step_timeout_s=self.step_timeout_s,
            on_fault=self.on_fault,
            max_restarts=self.max_restarts,
            own_cores=self.own_cores,
        )
