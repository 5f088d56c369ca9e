"""The stream of groups as a run gives it: a sampler, scorers, and the run's schedule."""

from __future__ import annotations

from contextlib import ExitStack
from functools import partial
from typing import TYPE_CHECKING, Any, cast

from shoal.llm.model import LanguageModel
from shoal.llm.sampler.local import LocalSampler
from shoal.llm.scorers.functions import named_scorer
from shoal.llm.scorers.pool import ScorerPool
from shoal.llm.tasks.source import TaskSource
from shoal.stream.groups.groups import Groups
from shoal.stream.groups.held_out import HeldOut
from shoal.stream.groups.process import ProcessSampler
from shoal.stream.groups.standing import StandingSampler
from shoal.stream.schedules import Async
from shoal.types import ConfigError

if TYPE_CHECKING:
    from shoal.learn.learner import Learner
    from shoal.llm.sampler.protocol import Sampler
    from shoal.run.run import Run
    from shoal.stream.groups.settings import DrawsGroups


def groups_of(
    run: Run, source: TaskSource, learner: Learner, cfg: DrawsGroups
) -> Groups:
    """Groups of answers to the task's prompts, drawn and learned from as `cfg` says.

    Raises:
        ConfigError: the source is no task, the policy no language model, or the schedule none for them.
    """
    s = run.settings
    if not isinstance(cast("Any", source), TaskSource):
        raise ConfigError(
            f"{s.algo or 'this algorithm'} trains a language model on a task, such as reasoning-gym:chain_sum; "
            f"{s.env} is an environment"
        )
    policy: Any = learner.policy
    if not isinstance(policy, LanguageModel):
        raise ConfigError(
            f"a task is answered by a language model, and the policy is a {type(policy).__name__}; name one: "
            "model='tiny', or the folder of one"
        )
    if s.schedule == "overlap":
        raise ConfigError(
            'schedule="overlap" is for environments; a language model has sync or async'
        )
    policy.temperature = cfg.sampling.temperature
    timing = s.timing
    with ExitStack() as started:  # what has begun ends where the rest cannot
        sampler = sampler_of(run, policy, cfg)
        started.callback(sampler.close)
        scorers = ScorerPool(
            partial(_scorer_of, source),
            name=source.spec.env_id,
            workers=s.language.scorer_workers,
            timeout_s=s.language.scorer_timeout_s,
            retries=s.language.scorer_retries,
            on_failure=s.language.on_scorer_failure,
        )
        started.callback(scorers.close)
        held_out = held_out_of(run)
        if held_out is not None:
            started.callback(held_out.close)
        made = Groups(
            source.task,
            sampler,
            scorers,
            learner,
            cfg,
            replies=source.reply_pool(run.warn),
            held_out=held_out,
            max_staleness=timing.max_staleness if isinstance(timing, Async) else 0,
            meter=run.meter,
        )
        started.pop_all()
    run.held.callback(made.close)
    return made


def held_out_of(run: Run) -> HeldOut | None:
    """What judges answers beside training; None where nothing does.

    Where a failing scorer does not end the run, an answer that this one fails at is left out: a 0 would be a fall.

    Raises:
        ConfigError: there is no such function, or it takes something else than a prompt and an answer.
    """
    language = run.settings.language
    if not language.held_out_scorer:
        return None
    raises = language.on_scorer_failure == "raise"
    scorers = ScorerPool(
        named_scorer(language.held_out_scorer),
        name=f"held-out scorer {language.held_out_scorer}",
        workers=language.scorer_workers,
        timeout_s=language.scorer_timeout_s,
        retries=language.scorer_retries,
        on_failure="raise" if raises else "drop",
    )
    return HeldOut(scorers, answers=language.held_out_answers, tell=run.warn)


def sampler_of(run: Run, policy: LanguageModel, cfg: DrawsGroups) -> Sampler:
    """In this process, with schedule="async" in one of its own, or on a server."""
    s = run.settings
    drawing = cfg.sampling.drawing(cfg.max_completion_length)
    if s.language.engine != "local":
        from shoal.run.engines import engine_sampler

        return engine_sampler(run, policy, drawing)
    if not isinstance(s.timing, Async):
        return LocalSampler(
            policy,
            drawing,
            slots=s.language.slots,
            seed=s.seed,
            reload=s.language.after_publish,
            exact=policy.exact,
        )
    sampler = ProcessSampler(
        policy,
        drawing,
        slots=s.language.slots,
        seed=s.seed,
        refill=s.language.after_publish == "refill",
        tell=run.warn,
    )
    sampler.ending = run.meter.ending
    run.meter.halt.parties.append(StandingSampler(sampler))
    return sampler


def _scorer_of(source: TaskSource) -> Any:
    """What judges the answers, in whatever process."""
    return source.task.score
