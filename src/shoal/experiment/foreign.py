"""Settings of other libraries, and what is to be written here instead."""

from __future__ import annotations

from typing import TYPE_CHECKING

SB3 = "Stable-Baselines3"
CLEANRL = "CleanRL"
TRL = "TRL"
FOREIGN = {
    "n_envs": "num_envs",
    "n_steps": "num_steps",
    "n_epochs": "update_epochs",
    "batch_size": "num_minibatches = num_envs * num_steps / batch_size",
    "clip_range": "clip_coef",
    "clip_range_vf": "clip_vloss=True",
    "normalize_advantage": "norm_adv",
    "policy_kwargs": "network, such as network={'hidden': [128, 128]}",
    "net_arch": "network={'hidden': [...]}",
    "callback": "callbacks, a list of functions (run, record)",
    "tensorboard_log": "nothing: TensorBoard's events are always in the run directory",
    "verbose": "panel, such as panel='none'",
    "progress_bar": "panel='live'",
    "use_sde": "network={'sde_interval': ...}",
    "sde_sample_freq": "network={'sde_interval': ...}",
    "activation_fn": "network={'activation': 'relu'}",
    "buffer_size": "replay={'buffer_size': ...}",
    "learning_starts": "replay={'learning_starts': ...}",
    "train_freq": "replay={'samples_per_insert': batch_size * gradient_steps / train_freq}",
    "gradient_steps": "replay={'samples_per_insert': batch_size * gradient_steps / train_freq}",
    "exploration_initial_eps": "epsilon_start",
    "exploration_final_eps": "epsilon_end",
    "action_noise": "exploration_noise, its deviation",
    "policy_delay": "policy_frequency",
    "target_policy_noise": "policy_noise",
    "target_noise_clip": "noise_clip",
    "vec_env_cls": "backend='serial', or 'workers' for processes",
    "norm_obs": "network={'normalize_obs': True}",
    "norm_reward": "normalize_reward=True",
    "eval_freq": "eval_every",
    "n_eval_episodes": "eval_episodes",
    "save_freq": "checkpoint_every",
    "reset_num_timesteps": "shoal.resume(run.path, total_timesteps=...)",
}
"""Settings of Stable-Baselines3, of its VecNormalize, `make_vec_env` and callbacks too."""
FOREIGN_CLEANRL = {
    "env_id": "env, the first argument",
    "exp_name": "name",
    "cuda": "device, such as device='cuda'",
    "torch_deterministic": "nothing: a run with the same seed and settings gives the same bits",
    "capture_video": "nothing while it trains: shoal.load(run).record_video(path) films the policy",
    "wandb_project_name": "track='wandb'",
    "wandb_entity": "track='wandb'",
    "save_model": "nothing: checkpoints are in the run directory",
    "upload_model": "shoal push, for language models; checkpoints are in the run directory",
    "hf_entity": "shoal push, for language models",
    "anneal_lr": "learning_rate_schedule='linear'",
    "minibatch_size": "num_minibatches = num_envs * num_steps / minibatch_size",
    "num_iterations": "total_timesteps = num_iterations * num_envs * num_steps",
    "start_e": "epsilon_start",
    "end_e": "epsilon_end",
    "target_network_frequency": "target_update_interval",
    "train_frequency": "replay={'samples_per_insert': batch_size / train_frequency}",
    "policy_lr": "learning_rate",
    "q_lr": "critic_learning_rate",
    "alpha": "ent_coef",
}
"""Settings of CleanRL that have another name here."""
FOREIGN_ATTRIBUTES = {
    "predict": "shoal.load(result.path).predict(obs)",
    "act": "shoal.load(result.path).act(obs)",
    "evaluate": "shoal.load(result.path).evaluate()",
    "learn": "shoal.resume(run, total_timesteps=...) trains on",
    "save": "nothing: the run directory holds it, and shoal.load(run) reads it",
    "load": "shoal.load(run)",
    "get_env": "shoal.make_vec(env_id, num_envs=...)",
    "set_env": "nothing: shoal.load(run, env_kwargs={...}) changes the environment's keywords",
    "get_parameters": "policy.state_dict()",
    "set_parameters": "shoal.train(env, policy=module), or init_from=run",
    "get_vec_normalize_env": "nothing: the policy itself normalizes",
    "num_timesteps": "result.steps",
}
"""Attributes of models there, which neither a result nor a loaded policy has."""
FOREIGN_VALUES = {
    (
        "ent_coef",
        "auto",
    ): "autotune=True where an algorithm has it; ent_coef is the first temperature",
    ("target_entropy", "auto"): "the default: leave it out",
}
"""Words that stand there for numbers."""
_GREEDY = "greedy"
_OF_RUN = "nothing: the run knows its environment; shoal.load(run, env_kwargs={...}) changes its keywords"
_OF_SCORE = (
    "nothing: `returns` and `lengths` of what evaluate gives are those of each episode"
)
FOREIGN_LOAD = {
    "env": "factory, where the run was given a callable; else the run knows its environment",
    "device": "nothing: a loaded policy acts on the CPU",
    "custom_objects": "policy, where the run was given an object",
    "print_system_info": "nothing: config.toml and run.json of a run hold it",
    "verbose": "nothing: leave it out",
}
"""Arguments with which models are loaded there."""
FOREIGN_CALLS = {
    "act": {
        "observation": "obs",
        "deterministic": _GREEDY,
        "state": "agent.predict, or leave it out: the agent keeps it",
        "episode_start": "start",
        "action_masks": "action_mask",
    },
    "predict": {"observation": "obs", "mask": "episode_start"},
    "evaluate": {
        "n_eval_episodes": "episodes",
        "deterministic": "nothing: evaluation is greedy; agent.record(greedy=False) draws actions",
        "env": _OF_RUN,
        "eval_env": _OF_RUN,
        "model": _OF_RUN,
        "render": "agent.record_video(path)",
        "callback": "nothing: leave it out",
        "reward_threshold": "nothing: compare the mean of what evaluate gives",
        "return_episode_rewards": _OF_SCORE,
        "warn": "nothing: leave it out",
    },
    "record": {"n_episodes": "episodes", "deterministic": _GREEDY, "env": _OF_RUN},
    "record_video": {
        "video_length": "max_steps",
        "video_folder": "path, of the file",
        "name_prefix": "path, of the file",
        "n_envs": "rows",
        "env": _OF_RUN,
    },
}
"""Arguments of methods of models, of `evaluate_policy` and VecVideoRecorder, by the method here."""
_SAMPLING = "sampling={{'{}': ...}}"
FOREIGN_LLM = {
    "reward_funcs": "language={'scorers': [my_module.function, ...]}",
    "reward_weights": "language={'scorers': [(my_module.function, 0.5), ...]}",
    "train_dataset": "the first argument, a task: shoal.train('jsonl:prompts.jsonl', ...)",
    "eval_dataset": "env_kwargs={'eval_file': 'others.jsonl'}",
    "tools": "a task of your own with reply(prompt, turns)",
    "peft_config": "language={'lora_rank': 8, 'lora_alpha': 16.0}",
    "loss_type": "loss_normalization: sequence (all answers count alike), token (all tokens) or constant; 'cispo' is "
    "surrogate='weight'",
    "scale_rewards": "advantage: 'group', 'batch', or 'centered' for none",
    "importance_sampling_level": "ratio_of",
    "generation_batch_size": "num_prompts = generation_batch_size / num_generations",
    "per_device_train_batch_size": "num_prompts, and language={'micro_tokens': ...} for what fits into memory",
    "gradient_accumulation_steps": "nothing: a step is of the whole batch, cut by language={'micro_tokens': ...}",
    "steps_per_generation": "num_minibatches",
    "num_train_epochs": "total_timesteps, which counts answers",
    "max_steps": "total_timesteps = max_steps * num_prompts * num_generations",
    "lr_scheduler_type": "learning_rate_schedule",
    "warmup_steps": "learning_rate_schedule, a function of the share that is done",
    "warmup_ratio": "learning_rate_schedule, a function of the share that is done",
    "generation_kwargs": "sampling={'temperature': ..., 'top_p': ..., 'stop': ['</answer>']}",
    "temperature": _SAMPLING.format("temperature"),
    "top_p": _SAMPLING.format("top_p"),
    "top_k": _SAMPLING.format("top_k"),
    "min_p": _SAMPLING.format("min_p"),
    "max_prompt_length": "nothing: prompts are never cut, and one that leaves no room for an answer is refused",
    "use_vllm": "language={'engine': 'vllm'}",
    "vllm_mode": "language={'engine_in_process': True}, or False for a server",
    "vllm_server_base_url": "language={'engine_url': ...}",
    "vllm_importance_sampling_correction": "correction={'outside': 'truncate'}, or 'none'",
    "vllm_importance_sampling_mode": "correction={'level': ..., 'outside': ...}",
    "vllm_importance_sampling_cap": "correction={'bound': ...}",
    "off_policy_mask_threshold": "correction={'off_policy_bound': ...}",
    "gradient_checkpointing": "language={'checkpoint_activations': True}",
    "sync_ref_model": "nothing for beta, whose reference stays; distillation has teacher='average:0.99'",
    "eval_steps": "eval_every, in answers",
    "save_steps": "checkpoint_every, in answers",
    "output_dir": "run_dir and name",
    "report_to": "track",
    "bf16": "nothing yet: language models are trained in float32",
}
"""Settings of TRL, for language models."""


def said_of_value(name: str, value: object) -> str:
    """What is to be written here for a value that Stable-Baselines3's setting of this name takes; else empty."""
    if isinstance(value, str) and (name, value) in FOREIGN_VALUES:
        return f"{SB3}'s {name}={value!r} is here: {FOREIGN_VALUES[name, value]}"
    return ""


def said_of(name: str) -> str:
    """What is to be written here for a setting of another library; empty where it is of none."""
    for library, names in (
        (SB3, FOREIGN),
        (CLEANRL, FOREIGN_CLEANRL),
        (TRL, FOREIGN_LLM),
    ):
        if name in names:
            return f"{library}'s {name} is here: {names[name]}"
    return ""


class Told:
    """Has an AttributeError say what is to be written here, where other libraries' models have the attribute."""

    __slots__ = ()
    if not TYPE_CHECKING:  # whose checkers are to find what is not there

        def __getattr__(self, name: str) -> None:
            """AttributeError."""
            said = f"{type(self).__name__!r} object has no attribute {name!r}"
            if name in FOREIGN_ATTRIBUTES:
                said += f"; {SB3}'s {name} is here: {FOREIGN_ATTRIBUTES[name]}"
            raise AttributeError(said, name=name, obj=self)
