"""The stream of groups as a run gives it: a sampler, scorers, and the run's schedule."""

from __future__ import annotations

from contextlib import ExitStack
from functools import partial
from typing import TYPE_CHECKING, Any, cast

from shoal.llm.model import LanguageModel
from shoal.llm.sampler.local import LocalSampler
from shoal.llm.scorers.pool import ScorerPool
from shoal.llm.tasks.source import TaskSource
from shoal.stream.groups.groups import Groups
from shoal.stream.groups.process import ProcessSampler
from shoal.stream.groups.shared import SharedGroups
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
) -> Groups | SharedGroups:
    """Groups of answers to the task's prompts, drawn and learned from as `cfg` says; of several learners by the first.

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
    drawn = _drawn(run, source, policy, learner, cfg) if s.leads else None
    if s.ranks is not None:
        return SharedGroups(s.ranks, learner, cfg, drawn)
    assert drawn is not None
    return drawn


def _drawn(
    run: Run,
    source: TaskSource,
    policy: LanguageModel,
    learner: Learner,
    cfg: DrawsGroups,
) -> Groups:
    """The groups that this process draws."""
    s, timing = run.settings, run.settings.timing
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
        made = Groups(
            source.task,
            sampler,
            scorers,
            learner,
            cfg,
            replies=source.reply_pool(run.warn),
            max_staleness=timing.max_staleness if isinstance(timing, Async) else 0,
            meter=run.meter,
        )
        started.pop_all()
    run.held.callback(made.close)
    return made


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
