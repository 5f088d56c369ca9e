"""Keywords of `train` and `resume` as types; scripts/keywords.py writes this file from the settings."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal, TypedDict

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from os import PathLike

    from shoal.envs.action_guard.settings import ActionGuard
    from shoal.envs.preprocessing import Preprocessing
    from shoal.fleet.settings import Placement
    from shoal.learn.corrections import Correction
    from shoal.learn.curiosity import Curiosity
    from shoal.llm.sampler.protocol import Sampling
    from shoal.llm.settings import Language
    from shoal.memory.settings import Replay
    from shoal.nets.network import ActorCriticNet, Network, QNet
    from shoal.remote.settings import Remote
    from shoal.run.guard.settings import Guarding
    from shoal.run.members import Population
    from shoal.stream.explorers import Explorers
    from shoal.stream.groups.settings import Curriculum
    from shoal.stream.self_play import SelfPlay


class Settings(TypedDict, total=False):
    """Settings of a run and of shoal's algorithms, as they may be given."""

    total_timesteps: int | float
    num_envs: int | float
    schedule: Literal["sync", "overlap", "async"]
    max_staleness: int | float
    act_block: int | float
    grad_shards: int | float
    reward_scale: float
    normalize_reward: bool
    agents: int | float
    population: Population | Mapping[str, Any]
    curiosity: Curiosity | Mapping[str, Any]
    self_play: SelfPlay | Mapping[str, Any]
    seed: int | float
    device: str
    num_threads: int | float
    backend: str
    num_workers: int | float
    actors: int | float
    actors_in: Literal["auto", "threads", "processes"]
    learners: int | float
    step_timeout_s: float
    on_fault: Literal["auto", "raise", "restart", "drop"]
    max_restarts: int | float
    own_cores: bool
    remote: Remote | Mapping[str, Any]
    fleet: str | None
    placement: Placement | Mapping[str, Any]
    model: str
    language: Language | Mapping[str, Any]
    init_from: str | PathLike[str] | None
    data: str | PathLike[str] | None
    data_fraction: float
    offline_updates: int | float
    stop_at: float | None
    confirm_episodes: int | float
    eval_every: int | float
    eval_episodes: int | float
    eval_max_steps: int | float
    final_episodes: int | float | None
    checkpoint_every: int | float
    keep_checkpoints: int | float
    guard: Literal["on", "off"]
    guarding: Guarding | Mapping[str, Any]
    timeline: int | float
    name: str | None
    run_dir: str | PathLike[str]
    track: Literal["none", "wandb", "trackio", "mlflow"]
    preset: str | None
    info_keys: Sequence[str]
    preprocessing: Preprocessing | Mapping[str, Any]
    action_guard: ActionGuard | Mapping[str, Any]
    native: bool
    num_steps: int | float
    learning_rate: float
    learning_rate_schedule: str | Callable[[float], float]
    alpha: float
    rmsprop_eps: float
    gamma: float
    norm_adv: bool
    ent_coef: float
    ent_coef_schedule: str | Callable[[float], float]
    vf_coef: float
    max_grad_norm: float
    network: Network | Mapping[str, Any] | QNet | ActorCriticNet
    batch_size: int | float
    actor: bool
    actor_network: ActorCriticNet | Mapping[str, Any]
    num_prompts: int | float
    num_generations: int | float
    max_completion_length: int | float
    sampling: Sampling | Mapping[str, Any]
    dynamic_sampling: bool
    curriculum: Curriculum | Mapping[str, Any]
    correction: Correction | Mapping[str, Any]
    teacher: str
    reward_weight: float
    n_step: int | float
    adam_eps: float
    target_update_interval: int | float
    tau: float
    epsilon_start: float
    epsilon_end: float
    exploration_fraction: float
    double: bool
    huber: bool
    replay: Replay | Mapping[str, Any]
    num_iterations: int | float
    num_minibatches: int | float
    advantage: Literal["group", "batch", "centered", "leave_one_out"]
    loss_normalization: Literal["sequence", "token", "constant"]
    ratio_of: Literal["token", "sequence"]
    surrogate: Literal["clip", "weight", "none"]
    epsilon: float
    epsilon_high: float
    beta: float
    overlong_cache: int | float
    mask_truncated_completions: bool
    update_epochs: int | float
    vtrace_lambda: float
    clip_rho: float
    clip_c: float
    corrected: bool
    replay_fraction: float
    gae_lambda: float
    clip_coef: float
    clip_coef_schedule: str | Callable[[float], float]
    clip_vloss: bool
    target_kl: float | None
    decoupled_clip: float | None
    cost_limit: float
    multiplier_init: float
    multiplier_learning_rate: float
    multiplier_gain: float
    cost_learning_rate: float
    cost_gamma: float
    cost_gae_lambda: float
    critic_learning_rate: float
    critic_learning_rate_schedule: str | Callable[[float], float]
    target_entropy: float | None
    explorers: Explorers | Mapping[str, Any]
    q_lambda: float
    sequence_length: int | float
    burn_in: int | float
    rescale_values: bool
    autotune: bool
    policy_frequency: int | float
    exploration_noise: float
    policy_noise: float
    noise_clip: float


class Changes(TypedDict, total=False):
    """Settings that a resumed run may change."""

    total_timesteps: int | float
    stop_at: float | None
    confirm_episodes: int | float
    device: str
    num_threads: int | float
    eval_every: int | float
    eval_episodes: int | float
    eval_max_steps: int | float
    final_episodes: int | float | None
    checkpoint_every: int | float
    keep_checkpoints: int | float
    timeline: int | float
    guard: Literal["on", "off"]
    num_workers: int | float
    step_timeout_s: float
    on_fault: Literal["auto", "raise", "restart", "drop"]
    max_restarts: int | float
    own_cores: bool
    fleet: str | None
    learners: int | float
    language: Language | Mapping[str, Any]
    action_guard: ActionGuard | Mapping[str, Any]
    learning_rate_schedule: str | Callable[[float], float]
    ent_coef_schedule: str | Callable[[float], float]
    clip_coef_schedule: str | Callable[[float], float]
    critic_learning_rate_schedule: str | Callable[[float], float]
