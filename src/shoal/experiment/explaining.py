"""Explaining the policy of a run: its own environment, discount and scale of rewards."""

from __future__ import annotations

from contextlib import closing
from typing import TYPE_CHECKING

from shoal.experiment.experiment import drawn_rows
from shoal.learn.acting import Acting
from shoal.llm.tasks.source import TaskSpec
from shoal.report.explain.explain import Asked, Values, explain
from shoal.report.explain.features import has_numbers
from shoal.report.explain.film import write_film
from shoal.run.evaluate import EVALUATION_STREAM
from shoal.run.origin import AGENTS, CHOICES, LANGUAGE
from shoal.types import ConfigError

if TYPE_CHECKING:
    from pathlib import Path

    from shoal.experiment.agent import Agent
    from shoal.experiment.experiment import Experiment
    from shoal.report.explain.explain import Explanation
    from shoal.types import Spec

MOST_ROWS = 20


def explain_run(
    agent: Agent,
    asked: Asked | None = None,
    *,
    seed: int = 0,
    max_steps: int | None = None,
) -> Explanation:
    """Why a trained policy does what it does, by greedy episodes that training never saw.

    Args:
        agent: what `shoal.load` gave.
        asked: how many episodes and steps, names of features, the tree's depth.
        seed: of the episodes.
        max_steps: an episode that goes on after as many is cut; None: the run's `eval_max_steps`.

    Raises:
        ConfigError: a language model, several agents, wrong names, or scikit-learn is not installed.
    """
    experiment, asked = agent.experiment, asked or Asked()
    _check(experiment)
    options = experiment.options
    count = min(asked.episodes, MOST_ROWS, options.num_envs)
    with closing(experiment.rows(count, playing=True)) as rows:
        return explain(
            agent.policy.cpu(),
            rows,
            acting=Acting(seed, EVALUATION_STREAM, native=options.native),
            asked=asked,
            values=_values(experiment),
            max_steps=options.eval_max_steps if max_steps is None else max_steps,
        )


def why_unexplained(spec: Spec | TaskSpec) -> str:
    """Why `explain_run` refuses what acts there, as a run's file says it; empty where it does not."""
    if isinstance(spec, TaskSpec):
        return LANGUAGE
    if spec.num_agents > 1:
        return AGENTS
    return "" if has_numbers(spec) else CHOICES


def film_of(
    agent: Agent, found: Explanation, path: Path, *, seed: int = 0, max_steps: int = 600
) -> int:
    """A film of one greedy episode with what each choice came from; how many frames it has.

    Raises:
        ConfigError: an image as observation, no such folder, no imageio-ffmpeg, or no rendering.
    """
    if found.features.image is not None:
        raise ConfigError(
            "a film shows bars of features, and this policy sees an image: saliency.png shows where it looks"
        )
    if max_steps < 1:
        raise ConfigError(f"a film needs at least one step, got {max_steps}")
    experiment = agent.experiment
    with closing(drawn_rows(experiment, 1)) as rows:
        return write_film(
            agent.policy,
            rows,
            path,
            features=found.features,
            baseline=found.seen.mean(0),
            acting=Acting(seed, EVALUATION_STREAM, native=experiment.options.native),
            max_steps=max_steps,
        )


def _check(experiment: Experiment) -> None:
    if hasattr(experiment.config, "num_generations"):
        raise ConfigError(
            f"{experiment.options.env} is a task of a language model, whose tokens are no features: read what it "
            "answers with `shoal chat RUN`"
        )


def _values(experiment: Experiment) -> Values:
    """What the critic's values are of; unscaled where the algorithm has no discount."""
    options = experiment.options
    gamma = getattr(experiment.config, "gamma", 1.0)
    scale = None if options.normalize_reward else options.reward_scale
    return Values(gamma=float(gamma), scale=scale)
