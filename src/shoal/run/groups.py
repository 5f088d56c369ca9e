"""The stream of groups as a run gives it: a sampler, scorers, and the run's schedule."""

from __future__ import annotations

from contextlib import ExitStack
from typing import TYPE_CHECKING, Any, cast

from shoal.learn.older import beside
from shoal.llm.loading import load_teacher
from shoal.llm.model import LanguageModel
from shoal.llm.sampler.ends import check_stop
from shoal.llm.sampler.local import LocalSampler
from shoal.llm.scorers.functions import named_scorer
from shoal.llm.scorers.pool import ScorerPool
from shoal.llm.tasks.names import EXAMPLE
from shoal.llm.tasks.opponents import is_scripted
from shoal.llm.tasks.source import TaskSource
from shoal.run.said import AnswersFile
from shoal.stream.groups.groups import Groups
from shoal.stream.groups.held_out import HeldOut
from shoal.stream.groups.process import ProcessSampler
from shoal.stream.groups.rival import Rival
from shoal.stream.groups.shared import SharedGroups
from shoal.stream.groups.standing import StandingSampler
from shoal.stream.groups.turns import turns_of
from shoal.stream.schedules import Async
from shoal.types import ConfigError

if TYPE_CHECKING:
    from shoal.learn.learner import Learner
    from shoal.llm.sampler.protocol import Sampler
    from shoal.run.run import Run
    from shoal.stream.groups.settings import DrawsGroups
    from shoal.stream.groups.turns import Turns

OPPONENT = "opponent"
"""What the learner calls the model that plays against it."""


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
            f"{s.algo or 'this algorithm'} trains a language model on a task, such as {EXAMPLE}; "
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
    timing = run.settings.timing
    with ExitStack() as started:  # what has begun ends where the rest cannot
        sampler = sampler_of(run, policy, cfg)
        started.callback(sampler.close)
        scorers = source.scorer_pool(run.warn)
        started.callback(scorers.close)
        held_out = held_out_of(run)
        if held_out is not None:
            started.callback(held_out.close)
        turns = turns_in(run, source, learner, sampler, cfg)
        if turns is not None:
            started.callback(turns.close)
        made = Groups(
            source.task,
            sampler,
            scorers,
            learner,
            cfg,
            turns=turns,
            held_out=held_out,
            max_staleness=timing.max_staleness if isinstance(timing, Async) else 0,
            meter=run.meter,
        )
        started.pop_all()
    run.held.callback(made.close)
    if run.directory is not None and run.settings.language.log_answers:
        run.callbacks.append(AnswersFile(run.directory, made))
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


def turns_in(
    run: Run,
    source: TaskSource,
    learner: Learner,
    sampler: Sampler,
    cfg: DrawsGroups,
) -> Turns | None:
    """How turns follow each other in a task of several, opponents in a game included; None for a task of one.

    Raises:
        ConfigError: there is no such opponent, or it reads other tokens.
    """
    model: Any = learner.policy
    if source.spec.num_players == 1:
        pool = source.reply_pool(run.warn)
        return turns_of(source.task, model, sampler, cfg, pool=pool)
    name = run.settings.language.opponent
    scripted = is_scripted(name)
    games = source.game_pool(name if scripted else "", run.warn)
    rival = None
    if name != "self" and not scripted:
        rival = rival_of(run, name, learner, cfg)
    return turns_of(source.task, model, sampler, cfg, pool=games, rival=rival)


def rival_of(run: Run, name: str, learner: Learner, cfg: DrawsGroups) -> Rival:
    """A model that plays against the one that learns: older weights of it, or another model of the same tokens."""
    if run.settings.language.engine != "local":
        raise ConfigError(
            f"language.opponent={name!r} is a model that shoal's own sampler draws with, and another engine draws; set "
            "engine=local, or name a server: http://HOST:PORT/v1#MODEL"
        )
    pupil: Any = learner.policy
    temperature = cfg.sampling.temperature
    weights = beside(
        learner,
        OPPONENT,
        name,
        lambda: load_teacher(name, pupil, temperature, "opponent"),
    )
    return Rival(sampler_of(run, weights.module, cfg), weights)


def sampler_of(run: Run, policy: LanguageModel, cfg: DrawsGroups) -> Sampler:
    """In this process, with schedule="async" in one of its own, or on a server."""
    s = run.settings
    drawing = cfg.sampling.drawing(cfg.max_completion_length)
    check_stop(policy.tokenizer, drawing.stop)
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
