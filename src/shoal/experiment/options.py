"""Options: the settings of a run besides the algorithm's own, once for every algorithm."""

from __future__ import annotations

from dataclasses import dataclass, field
from math import inf
from typing import Literal, TypeAlias

from shoal import algos
from shoal.envs.action_guard.settings import ActionGuard
from shoal.envs.preprocessing import Preprocessing
from shoal.envs.workers.settings import Workers
from shoal.fleet.settings import Placement, check_where
from shoal.learn.curiosity import Curiosity
from shoal.llm.settings import Language
from shoal.memory.settings import FromData
from shoal.remote.settings import Remote
from shoal.run.evaluate import MAX_STEPS
from shoal.run.guard.settings import Guarding
from shoal.run.members import Population
from shoal.run.timeline import MOST_UPDATES
from shoal.stream.actors.rows import MOST_ACTORS, ActorSettings
from shoal.stream.meter import cores
from shoal.stream.schedules import schedule
from shoal.stream.self_play import SelfPlay
from shoal.types import ConfigError, check_finite, check_ranges, check_seed

FaultPolicy: TypeAlias = Literal["raise", "restart", "drop"]
MOST_THREADS = 1024
"""Threads, shards or worker processes: far more than a machine has cores."""
MOST_LEARNERS = 256
"""Processes that learn together on one machine."""
CHANGEABLE = (
    "total_timesteps",
    "stop_at",
    "confirm_episodes",
    "device",
    "num_threads",
    "eval_every",
    "eval_episodes",
    "eval_max_steps",
    "final_episodes",
    "checkpoint_every",
    "keep_checkpoints",
    "timeline",
    "guard",
    "num_workers",
    "step_timeout_s",
    "on_fault",
    "max_restarts",
    "own_cores",
    "fleet",
    "learners",
)
"""Settings that a resumed run may change: they decide how far it goes and where, not what was learned."""
CHANGEABLE_PARTS = {
    "language": (
        "prompt_workers",
        "prompts_ahead",
        "scorer_workers",
        "scorer_timeout_s",
        "scorer_retries",
        "on_scorer_failure",
        "reply_workers",
        "reply_timeout_s",
        "reply_retries",
        "on_reply_failure",
        "engine_timeout_s",
    )
}
"""Of nested settings, those that it may change: what becomes of a scorer, a reply or a server that fails."""
PLACES = ("name", "run_dir", "track", "preset")
"""Settings that only say where a run lies and what it was started from."""


@dataclass(frozen=True, slots=True)
class Options:
    """Settings of a run besides the algorithm's own: source, engine, where it runs and what it keeps."""

    env: str
    """Environment id, or `package.module:function`."""
    algo: str = algos.DEFAULT
    """Algorithm; `shoal algos` lists them."""
    total_timesteps: int = 1_000_000
    """Total number of environment steps to train for."""
    num_envs: int = 16
    """Number of parallel environments; more give larger, more varied batches and more steps per second."""
    schedule: Literal["sync", "overlap", "async"] = "sync"
    """overlap: the policy acts for half of the environments while the other half step; async: actors collect while the
    learner learns."""
    max_staleness: int = 1
    """With schedule="async": how many rollouts late a step may be learned from; larger waits less and needs more
    correction. With 0 it equals sync."""
    act_block: int = 64
    """Rows per forward pass when acting; changes rounding, not quality."""
    grad_shards: int = 2
    """Shards of a minibatch whose gradients are computed separately, on up to as many threads."""
    reward_scale: float = 1.0
    """Factor on rewards before learning; choose it so that values are of the order of 1 to 10."""
    normalize_reward: bool = False
    """Divide rewards by the running standard deviation of discounted returns before learning, clipped to +-10."""
    agents: int = 1
    """Agents that learn side by side each with weights of its own and an equal share of the environments."""
    population: Population = field(default_factory=Population)
    """With several agents: what they share, and in what they differ."""
    curiosity: Curiosity = field(default_factory=Curiosity)
    """Bonus on rewards for observations that were not seen often (random network distillation)."""
    self_play: SelfPlay = field(default_factory=SelfPlay)
    """Self-play against past versions of the policy, in environments with several agents."""
    seed: int = 1
    """Random seed; equal settings and seeds give equal weights."""
    device: str = "cpu"
    """Torch device to train on: cpu, cuda or cuda:1."""
    num_threads: int = 0
    """Threads for native code; 0 means one per core, at most 4. Does not change results."""
    backend: str = "auto"
    """Environment backend: native (C++), serial (Python), mujoco (stepped by native threads), workers (Python
    processes), remote (grpc://...), ale, envpool, vector or auto."""
    num_workers: int = 0
    """Subprocesses of the workers backend; 0 means one per core. Does not change results."""
    actors: int = 0
    """Threads or processes that collect rollouts beside the learner, each with an equal share of the environments and a
    copy of the policy; 0: the training process collects, and with schedule="async" one a core does. Does not change
    results where the policy acts in native code."""
    actors_in: Literal["auto", "threads", "processes"] = "auto"
    """Where actors collect: `threads` of the training process (native environments whose policy acts in native code),
    or `processes` of their own; auto: threads where they can be and on_fault is raise. Does not change results."""
    learners: int = 1
    """Processes that learn together, each from an equal share of the environments, or of a language model's answers;
    gradients are their mean. A resumed run may change it where a language model learns."""
    step_timeout_s: float = 60.0
    """Seconds that a worker, a server or an actor may take to step its environments before it counts as hung."""
    on_fault: Literal["auto", "raise", "restart", "drop"] = "auto"
    """Where a worker, server or actor dies, hangs or raises: `raise` the error, `restart` it, or `drop` its rows for
    good; auto: restart on a fleet, else raise."""
    max_restarts: int = 3
    """Maximum restarts of each worker, server or actor; after that its error ends the run."""
    own_cores: bool = True
    """Pin workers to separate CPU cores; turn it off on a machine that runs other work."""
    remote: Remote = field(default_factory=Remote)
    """For environments on servers: certificates, token, and for how long a lost connection is sought again."""
    fleet: str | None = None
    """Ray cluster that runs the environments: local (started on this machine), auto (the one that runs here) or
    ray://HOST:PORT."""
    placement: Placement = field(default_factory=Placement)
    """On a fleet: how many environment servers, and what each takes."""
    model: str = "tiny"
    """Language model that learns a task: tiny (small, pre-trained on the task's own format), smollm2, or the folder of
    one that transformers wrote."""
    language: Language = field(default_factory=Language)
    """For language models: how answers are drawn and judged."""
    policy: str | None = None
    """Custom torch policy, as `package.module:Class`."""
    init_from: str | None = None
    """Begin with the weights and normalization statistics of this run's policy; every setting stays this run's own."""
    data: str | None = None
    """Data set that `shoal record` or Minari wrote, to be learned from too, by algorithms with a replay memory."""
    data_fraction: float = 0.5
    """Share of each batch that is drawn from the data set, and from steps that are inserted; more rely on it longer."""
    offline_updates: int = 0
    """Gradient steps on the data set alone, before the first environment step; with total_timesteps=0 all of them."""
    stop_at: float | None = None
    """Stop at this mean return of recent or evaluation episodes; default: the environment's threshold; inf: never."""
    confirm_episodes: int = 0
    """Greedy episodes whose mean must reach stop_at too, before that of recent episodes ends training; 0: none."""
    eval_every: int = 0
    """Evaluate with greedy actions every this many environment steps; 0: never."""
    eval_episodes: int = 20
    """Episodes of each periodic evaluation; more make its mean less noisy."""
    eval_max_steps: int = MAX_STEPS
    """Steps after which a greedy episode counts as endless, in environments without a time limit."""
    final_episodes: int | None = None
    """Greedy episodes when training is over, whose mean is the final figure; default: 100; 0: none."""
    checkpoint_every: int = 0
    """Write a checkpoint every this many environment steps; 0: about 20 per run."""
    keep_checkpoints: int = 3
    """Number of newest checkpoints to keep, besides `best`."""
    guard: Literal["on", "off"] = "on"
    """Watch every update, and where learning breaks skip it, halve the learning rate, go back, or stop."""
    guarding: Guarding = field(default_factory=Guarding)
    """Which rules the guard has, and from where on they act."""
    timeline: int = 0
    """Record who did what when in the last updates, so many, for `shoal timeline`; 0: in none."""
    name: str | None = None
    """Name of the run directory; default: date, time and seed."""
    run_dir: str = "runs"
    """Directory that holds the run directories."""
    track: Literal["none", "wandb", "trackio", "mlflow"] = "none"
    """Also log to Weights & Biases (`wandb`), `trackio` or `mlflow`; each is an optional extra."""
    preset: str | None = None
    """Start from this preset (such as `paac`) instead of the environment's own; none: from the defaults."""
    info_keys: tuple[str, ...] = ()
    """Numeric keys of each episode's final info to log as info/KEY (Python environments)."""
    preprocessing: Preprocessing = field(default_factory=Preprocessing)
    """Frame stacking, sticky actions, reward scaling and clipping, time limit."""
    action_guard: ActionGuard = field(default_factory=ActionGuard)
    """Bounds on actions and on their change, and constraints, wherever the policy acts."""
    native: bool = True
    """Run the policy in native code where that is supported; off: everything runs in torch."""

    def __post_init__(self) -> None:
        """Refuses what cannot work, with what would."""
        check_seed(self.seed)
        if not 0 <= self.num_threads <= MOST_THREADS:
            raise ConfigError(
                f"num_threads must be at least 1 and at most {MOST_THREADS}, or 0: one a core; got {self.num_threads}"
            )
        check_ranges(self, num_workers=(0, MOST_THREADS), act_block=(1, 65536))
        check_ranges(self, actors=(0, MOST_ACTORS), timeline=(0, MOST_UPDATES))
        check_ranges(self, learners=(1, MOST_LEARNERS))
        schedule(self.schedule, self.max_staleness)
        self.workers()
        counts = (
            *(() if self.offline_updates else ("total_timesteps",)),
            "num_envs",
            "agents",
            "keep_checkpoints",
            "eval_max_steps",
        )
        check_ranges(self, **dict.fromkeys(counts, (1, inf)), reward_scale=(1e-12, inf))
        check_ranges(self, grad_shards=(1, MOST_THREADS), checkpoint_every=(0, inf))
        check_finite(self, "reward_scale")
        check_ranges(self, total_timesteps=(0, inf), offline_updates=(0, inf))
        check_ranges(self, confirm_episodes=(0, inf))
        FromData(self.data, self.data_fraction, self.offline_updates)
        if self.stop_at is not None and not self.stop_at > -inf:
            raise ConfigError(
                f"stop_at must be a number, or inf to never stop early, got {self.stop_at}"
            )
        if self.eval_every < 0 or self.eval_episodes < 1:
            raise ConfigError(
                "eval_every must be at least 0 and eval_episodes at least 1, "
                f"got {self.eval_every} and {self.eval_episodes}"
            )

        if self.fleet is not None:
            check_where(self.fleet)
        if self.final_episodes is not None and self.final_episodes < 0:
            raise ConfigError(
                f"final_episodes must be at least 0 (none are played), got {self.final_episodes}"
            )

    def threads(self) -> int:
        """The threads that native code gets, in each learner where there are several."""
        return max(1, (self.num_threads or min(4, cores())) // self.learners)

    @property
    def fault_policy(self) -> FaultPolicy:
        """What follows where a worker or server fails."""
        if self.on_fault == "auto":
            return "raise" if self.fleet is None else "restart"
        return self.on_fault

    def workers(self) -> Workers:
        """How the backend workers runs; ConfigError where it cannot."""
        number, alone = self.num_workers, self.learners == 1
        if not alone:
            number = max(1, (number or cores()) // self.learners)
        return Workers(
            num_workers=number,
            step_timeout_s=self.step_timeout_s,
            on_fault=self.fault_policy,
            max_restarts=self.max_restarts,
            own_cores=self.own_cores and alone,
        )

    def acted(self) -> ActorSettings:
        """How actors collect, where there are some."""
        return ActorSettings(
            self.actors,
            timeout_s=self.step_timeout_s,
            on_fault=self.fault_policy,
            max_restarts=self.max_restarts,
            inside=self.actors_in,
        )
