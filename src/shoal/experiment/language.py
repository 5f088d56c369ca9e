"""Experiments on tasks: the task, the language model that learns it, and settings that are for one of them."""

from __future__ import annotations

import sys
from dataclasses import fields
from functools import partial
from typing import TYPE_CHECKING, Any, cast

import torch

from shoal.llm.tasks.ahead import PromptsAhead
from shoal.llm.tasks.judged import JudgedTask
from shoal.llm.tasks.prompts_file import UNJUDGED
from shoal.llm.tasks.registry import is_task_name, make_task
from shoal.llm.tasks.source import TaskSource
from shoal.types import ConfigError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from torch import nn

    from shoal.algos import Algorithm
    from shoal.experiment.experiment import Experiment
    from shoal.experiment.options import Options
    from shoal.llm.model import LanguageModel
    from shoal.llm.settings import Language
    from shoal.llm.tasks.task import Task
    from shoal.llm.tokenizer import Tokenizer
    from shoal.run.directory import RunDirectory

USED = frozenset(
    {
        "env", "algo", "model", "language", "total_timesteps", "schedule", "max_staleness", "seed", "device",
        "guard", "guarding", "num_threads", "learners", "stop_at", "confirm_episodes", "eval_every", "eval_episodes",
        "final_episodes", "checkpoint_every", "keep_checkpoints", "timeline", "name", "run_dir", "track", "preset",
        "native", "init_from",
    }
)  # fmt: skip
"""The run's settings that are for tasks too."""
REPLIES = ("reply_workers", "reply_timeout_s", "reply_retries", "on_reply_failure")
"""Settings of `language` for tasks of several turns."""
ENGINE = (
    "engine_url",
    "engine_in_process",
    "engine_python",
    "engine_options",
    "engine_folder",
    "engine_timeout_s",
    "engine_tolerance",
)
"""Those for engines of others."""
ONLY = ("model", "language")
"""Those that are for tasks alone."""


def on_tasks(algorithm: Algorithm) -> bool:
    """Whether an algorithm trains language models on tasks, not policies in environments."""
    return getattr(algorithm, "SOURCE", "rows") == "tasks"


def source_of(experiment: Experiment, *, held_out: bool) -> TaskSource:
    """The task of an experiment; `held_out`: with prompts that training does not have.

    Raises:
        ConfigError: there is no such task, or one that cannot be made.
    """
    options = experiment.options
    language = options.language
    make = partial(
        make_task,
        experiment.source,
        seed=options.seed,
        kwargs=dict(experiment.env_kwargs or {}),
        held_out=held_out,
    )
    if language.prompt_workers and not held_out:
        ahead = PromptsAhead(
            make, workers=language.prompt_workers, ahead=language.prompts_ahead
        )
        task = cast("Task", ahead)
    else:
        task = make()
    if language.scorers:
        task = cast("Task", JudgedTask(task, language.scorers))
    elif getattr(task, "scoring", "") == UNJUDGED:
        raise ConfigError(
            f"{task.name}: scoring='none' leaves judging to language.scorers; name some, or another scoring"
        )
    return TaskSource(
        task,
        max_tokens=experiment.config.max_completion_length,
        language=language,
        stop=experiment.config.sampling.stop,
    )


def language_model(experiment: Experiment) -> LanguageModel:
    """The model of an experiment, with the weights that it begins with; a LoRA's are drawn from the run's seed."""
    from shoal.llm.loading import load_model
    from shoal.llm.lora import ATTENTION, LINEAR, Lora, add_lora

    name, language = experiment.options.model, experiment.options.language
    task = None
    if name == "tiny":  # of no run's own seed: all begin with one model
        kwargs = dict(experiment.env_kwargs or {})
        task = make_task(experiment.source, seed=0, kwargs=kwargs)
    model = _set_up(load_model(name, task=task, report=_tell), language)
    if language.lora_rank:
        layers = LINEAR if language.lora_layers == "all" else ATTENTION
        lora = Lora(language.lora_rank, language.lora_alpha, layers)
        with torch.random.fork_rng(devices=[]):
            torch.default_generator.manual_seed(experiment.options.seed)
            found = name if name == "smollm2" else model.origin
            add_lora(model, lora, name=found)
    return model


def _set_up(model: LanguageModel, language: Language) -> LanguageModel:
    """Tells a model how it is asked, and how its gradients are computed."""
    tokenizer = model.tokenizer
    ask_in_chat(tokenizer, language.chat, language.system)
    model.model.recompute = language.checkpoint_activations
    model.exact = language.exact
    if language.routing_replay and not model.architecture.num_experts:
        raise ConfigError(
            f"language.routing_replay=true: this model (of type {model.architecture.model_type}) has no experts; leave "
            "it out"
        )
    model.model.replay = language.routing_replay
    return model


def ask_in_chat(tokenizer: Tokenizer, chat: str, system: str) -> None:
    """Says whether plain questions are asked in a chat, and after which instruction.

    Args:
        tokenizer: the model's.
        chat: as `Language.chat`.
        system: as `Language.system`.

    Raises:
        ConfigError: the model has no template for that.
    """
    template = tokenizer.chat_template is not None
    if not template and (chat == "on" or system):
        what = f"system={system!r}" if system else "chat='on'"
        raise ConfigError(
            f"language.{what}: this model has no chat template (tokenizer_config.json or chat_template.jinja); leave "
            "it out, or take a model for chats, such as smollm2"
        )
    tokenizer.chats, tokenizer.system = template and chat != "off", system


def model_of_run(
    experiment: Experiment, where: RunDirectory, *, fresh: bool, leads: bool = True
) -> Callable[..., nn.Module]:
    """How a run comes to its model: a new one as `language_model`, which it describes in its directory (if it `leads`).

    A run that has a checkpoint needs no more than that description: its weights are in the checkpoint. But a LoRA's
    checkpoint has no others than its own: those beneath are loaded again.
    """
    language = experiment.options.language

    def make(spec: object, *, seed: int | None = None) -> nn.Module:
        from shoal.llm.model_folder import CONFIG, load_unweighted, save_model

        saved = not fresh and (where.model / CONFIG).is_file() and has_checkpoint(where)
        if saved and not language.lora_rank:
            return _set_up(load_unweighted(where.model), language)
        model = language_model(experiment)
        if leads and not saved:
            save_model(model, where.model, weights=False, adapter=True)
        return model

    return make


def has_checkpoint(where: RunDirectory) -> bool:
    """Whether there is a checkpoint, whole or not."""
    return any(where.checkpoints.glob("*.json"))


def save_trained(policy: nn.Module, where: RunDirectory) -> None:
    """Writes a run's trained model into its directory, as transformers reads it; and its LoRA beside, as peft does."""
    from shoal.llm.model_folder import save_model

    save_model(cast("LanguageModel", policy), where.model, adapter=True)


def _tell(line: str) -> None:
    """What takes long before a run begins is said where warnings are."""
    print(line, file=sys.stderr, flush=True)


def check_kind(experiment: Experiment) -> None:
    """ConfigError where an algorithm for environments gets a task, or the other way round."""
    source, algo = experiment.source, experiment.options.algo
    is_task = isinstance(source, str) and is_task_name(source)
    if is_task and not on_tasks(experiment.algorithm):
        raise ConfigError(
            f"{source} is a task for language models, which {algo} does not train; `shoal algos` lists those that do"
        )
    if experiment.policy is not None and on_tasks(experiment.algorithm):
        raise ConfigError(
            f"policy={experiment.options.policy!r}: {algo} trains a language model; name it by model=..."
        )


def idle_names() -> list[str]:
    """The settings of a run that change nothing on a task, and are refused there."""
    from shoal.experiment.options import Options

    return [one.name for one in fields(Options) if one.name not in USED]


def idle_with_tasks(experiment: Experiment, spec: Any) -> Iterator[tuple[str, str]]:
    """The settings that change nothing on a task, each with why."""
    for name in sorted(experiment.given):
        first = name.partition(".")[0]
        watched = name == "step_timeout_s" and experiment.options.learners > 1
        if first not in USED and not watched and hasattr(experiment.options, first):
            yield name, "it is for environments, and a language model answers a task"
    options = experiment.options
    if options.schedule != "async":
        yield "max_staleness", 'it is for schedule="async"'
    if options.learners == 1:
        yield "language.shard", "one learner holds all; set learners too"
    if not options.language.lora_rank:
        for name in ("language.lora_alpha", "language.lora_layers"):
            yield name, "all weights are trained; set language.lora_rank, such as 8"
    if experiment.config.curriculum.by == "task":
        why = 'prompts are asked in the task\'s own order; set curriculum.by="success"'
        for name in ("raise_at", "window", "review"):
            yield f"curriculum.{name}", why
    yield from _idle_judging(options)
    yield from _idle_learning(experiment)
    yield from _idle_replies(options, spec)


def _idle_judging(options: Options) -> Iterator[tuple[str, str]]:
    """Of scorers, and of evaluation."""
    if not options.language.held_out_scorer:
        why = "there is no held-out scorer; set language.held_out_scorer too"
        yield "language.held_out_answers", why
    if not options.eval_every:
        yield "eval_episodes", "set eval_every too, the answers between two evaluations"
    if not options.language.scorer_workers:
        why = "the training process judges, where nothing can end a call that hangs; set language.scorer_workers too"
        yield "language.scorer_timeout_s", why


def _idle_learning(experiment: Experiment) -> Iterator[tuple[str, str]]:
    """Of losses and their corrections."""
    options, config = experiment.options, experiment.config
    if options.schedule != "async" or not options.max_staleness:
        newest = "the newest weights draw every answer; it is for schedule='async' with max_staleness above 0"
        yield "correction.version_decay", newest
        if not options.language.exact:
            yield "language.after_publish", newest
    if config.correction.outside == "none":
        for name in ("bound", "level"):
            yield f"correction.{name}", "correction.outside is none"
    steps = getattr(config, "num_iterations", 0) * getattr(config, "num_minibatches", 0)
    if steps == 1:
        for name in ("epsilon", "epsilon_high"):
            yield (
                name,
                "a batch has one gradient step, before which no probability has changed; set num_iterations or "
                "num_minibatches too",
            )
    elif getattr(config, "surrogate", "") == "none":
        for name in ("epsilon", "epsilon_high"):
            yield name, "surrogate is none, and bounds no change"


def _idle_replies(options: Options, spec: Any) -> Iterator[tuple[str, str]]:
    if not options.language.prompt_workers:
        why = "the training process makes each prompt when it is asked; set language.prompt_workers too"
        yield "language.prompts_ahead", why
    yield from _idle_engine(options.language)
    yield from _idle_players(spec)
    if not spec.replies:
        for name in REPLIES:
            yield f"language.{name}", "the task has one turn, and replies to none"
    elif not options.language.reply_workers:
        why = "the training process replies, where nothing can end a reply that hangs; set language.reply_workers too"
        yield "language.reply_timeout_s", why


def _idle_players(spec: Any) -> Iterator[tuple[str, str]]:
    if spec.num_players == 1:
        for name in ("opponent", "eval_opponent"):
            yield f"language.{name}", "it is for games of several players"


def _idle_engine(language: Language) -> Iterator[tuple[str, str]]:
    if language.engine == "local":
        for name in ENGINE:
            yield f"language.{name}", "shoal's own sampler draws; set language.engine"
    elif language.engine_in_process:
        yield (
            "language.engine_timeout_s",
            "it is for servers, and vLLM draws in process",
        )
    else:
        why = "a server draws, and has a number of its own (vLLM: --max-num-seqs)"
        yield "language.slots", why


def idle_without_tasks(experiment: Experiment) -> Iterator[tuple[str, str]]:
    """The settings that change nothing in an environment, each with why."""
    for name in sorted(experiment.given):
        if name.partition(".")[0] in ONLY:
            yield name, "it is for language models, which learn tasks"
