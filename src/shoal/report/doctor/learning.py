"""Rules of the course of a run: that nothing was learned, that it was lost again, that it ended too early."""

from __future__ import annotations

from typing import TYPE_CHECKING

from shoal.report.doctor.costs import paid_for
from shoal.report.doctor.finding import SYMPTOM, Finding

if TYPE_CHECKING:
    from shoal.report.doctor.evidence import Evidence


LATE = 0.9
"""Of a run's steps: before that one that goes on may still begin to learn."""


def no_learning(run: Evidence) -> Finding | None:
    """The return went nowhere."""
    course = run.course
    if not course.unwell or course.learned or course.lines < 2:
        return None
    if course.settled or not run.reached(LATE) or paid_for(run) is not None:
        return None
    if course.improved:
        what = (
            f"little was learned: the mean return rose from {course.first:.4g} to {course.last:.4g} in "
            f"{course.episodes:,} episodes, by less than their standard deviation at first, {course.spread:.3g}"
        )
    else:
        what = (
            f"nothing was learned: the mean return was {course.first:.4g} at first and is {course.last:.4g} after "
            f"{course.episodes:,} episodes (their standard deviation is {course.spread:.3g})"
        )
    advice = "a preset of a similar environment, another learning_rate, more steps"
    if run.config.get("algorithm.network.normalize_obs") is False:
        advice += ", network.normalize_obs"
    if run.groups:
        advice = (
            "easier prompts, or a score with steps between nothing and all; read what it answers with `shoal "
            "answers RUN`; a larger learning_rate; more num_prompts or num_generations; more total_timesteps"
        )
    elif run.config.get(
        "policy"
    ):  # of a module of the user's own no setting of the network is read
        advice = (
            "normalize_reward, or a smaller vf_coef, where your module shares layers between policy and value; "
            "observations of about -1 to 1; another learning_rate; more steps; the default network beside yours"
        )
    return Finding("no-learning", SYMPTOM, what, advice, _numbers(run))


def fell(run: Evidence) -> Finding | None:
    """What was learned was lost again."""
    course = run.course
    if not course.unwell or not course.fell or paid_for(run) is not None:
        return None
    what = f"what was learned was lost again: the mean return reached {course.best:.4g} and is {course.last:.4g}"
    advice = "a smaller learning_rate or learning_rate_schedule=linear; the checkpoint `best` holds what was reached"
    if run.groups:
        advice = "a smaller learning_rate, or beta above 0; the checkpoint `best` holds what was reached"
    return Finding("return-fell", SYMPTOM + 1, what, advice, _numbers(run))


def below_threshold(run: Evidence) -> Finding | None:
    """It learned, and stays below what was wanted."""
    course = run.course
    if not course.unwell or not course.learned or course.fell or course.rising:
        return None
    if course.threshold is None:
        return None
    reached = course.last if course.greedy is None else course.greedy
    what = (
        f"it learned, from a mean return of {course.first:.4g} to {reached:.4g}, and stays below the threshold of "
        f"{course.threshold:g}"
    )
    advice = "learning_rate_schedule=linear, more total_timesteps, a larger network, or another seed"
    if run.groups:
        advice = "more total_timesteps, more num_generations, a larger model, or another seed"
    return Finding("below-threshold", SYMPTOM - 6, what, advice, _numbers(run))


def ended_early(run: Evidence) -> Finding | None:
    """It was still learning when it ended."""
    course = run.course
    if not course.unwell or not course.rising:
        return None
    what = (
        f"the mean return was still rising when the run ended, by {course.recent:.4g} in the last fifth of its steps, "
        f"to {course.last:.4g}"
    )
    advice = "more total_timesteps: `shoal resume RUN --total-timesteps N`"
    return Finding("ended-early", SYMPTOM - 5, what, advice, _numbers(run))


def _numbers(run: Evidence) -> dict[str, float]:
    course = run.course
    found = {"first": course.first, "best": course.best, "last": course.last}
    return {**found, "episodes": float(course.episodes)}
