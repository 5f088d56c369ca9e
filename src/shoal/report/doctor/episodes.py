"""Rules of episodes: whether there are any, whether they differ, and whether a greedy policy does better."""

from __future__ import annotations

from typing import TYPE_CHECKING

from shoal.report.doctor.course import FEW, WINDOW
from shoal.report.doctor.finding import CAUSE, NOTHING, SYMPTOM, Finding

if TYPE_CHECKING:
    from shoal.report.doctor.evidence import Evidence

ENDLESS = 3_000
"""Steps of each environment without an end, from which on it is said that episodes do not end."""
HALF = 0.5
"""Of a run's steps: before that one that goes on may still meet another return."""
SHORT, SURE = 0.4, 5.0
"""Of what was gained, and standard errors: what greedy episodes lack beside those of training."""
GREEDY = 20
"""Greedy episodes that a mean beside training is of, where nothing else is known."""


def never_end(run: Evidence) -> Finding | None:
    """No episode ended."""
    steps = run.number("steps") or (run.lines[-1]["step"] if run.lines else 0)
    envs = max(1.0, run.setting("num_envs", 1))
    each = steps / envs
    if run.course.episodes or not run.lines or each < 1:
        return None
    numbers = {"steps": float(steps), "num_envs": envs, "steps_of_each": each}
    limited = run.setting("preprocessing.max_episode_steps") > each
    if each < ENDLESS and (limited or not run.reached(1.0)):
        return None
    what = (
        f"no episode ended in {steps:,.0f} steps ({each:,.0f} of each of {envs:,.0f} environments), so that nothing is "
        "known of returns"
    )
    advice = (
        "check that the environment returns terminated or truncated; a time limit ends each episode: "
        "preprocessing.max_episode_steps"
    )
    return Finding("episodes-never-end", NOTHING + 5, what, advice, numbers)


def too_few(run: Evidence) -> Finding | None:
    """There are too few episodes to judge."""
    count = run.course.episodes
    if run.groups or not 0 < count < FEW:
        return None
    what = f"only {count} episodes ended: returns of so few say nothing about learning"
    advice = "more total_timesteps, or a shorter preprocessing.max_episode_steps"
    numbers = {"episodes": float(count), "steps": run.number("steps") or 0.0}
    return Finding("too-few-episodes", NOTHING, what, advice, numbers)


def all_equal(run: Evidence) -> Finding | None:
    """Every episode has the same return: there is nothing to learn from."""
    spreads, returns = run.values("episode/return_std"), run.values("episode/return")
    if run.groups or not run.course.known or not len(spreads):
        return None
    if not run.reached(HALF):
        return None
    size = max(1e-9, float(abs(returns).max()))
    if spreads.max() > 1e-6 * size or returns.max() - returns.min() > 1e-6 * size:
        return None
    length = run.late("episode/length") or 0.0
    numbers = {"episode/return": float(returns[-1]), "episode/length": length}
    if "began_with" in run.status:
        return None
    limit = run.setting("preprocessing.max_episode_steps")
    if limit and abs(length - limit) < 0.5:
        what = (
            f"every episode ends at the time limit of {limit:,.0f} steps with the same return, {returns[-1]:g}: no "
            "reward that differs is ever reached"
        )
        advice = "a longer preprocessing.max_episode_steps, so that the goal can be reached within an episode"
        return Finding("time-limit", NOTHING + 1, what, advice, numbers)
    if run.course.well:
        return None
    what = (
        f"all of {run.course.episodes:,} episodes have the same return, {returns[-1]:g}, and end after {length:g} "
        "steps: the policy has never seen that something is better"
    )
    advice = (
        "more exploration (curiosity.coef for a bonus on what is new, a larger ent_coef, more num_envs), or rewards "
        "that lead towards the goal"
    )
    return Finding("returns-all-equal", NOTHING + 1, what, advice, numbers)


def acts_at_random(run: Evidence) -> Finding | None:
    """What it does in training is mostly random, and its greedy choice is far better."""
    course = run.course
    if course.greedy is None or not course.known or course.well:
        return None
    better = course.greedy - course.last
    if better < 2 * max(course.spread, course.last_spread, 1e-9):
        return None
    numbers = {"greedy_return": course.greedy, "episode/return": course.last}
    epsilon = run.setting("epsilon_end", -1)
    if epsilon >= 0.3:
        what = (
            f"the policy acts at random in {100 * epsilon:.0f} % of the steps until the end: greedy it reaches "
            f"{course.greedy:.4g}, in training {course.last:.4g}"
        )
        advice = "a smaller epsilon_end, such as 0.02: it never sees where its own choices lead"
        numbers["epsilon_end"] = epsilon
        return Finding("acts-at-random", CAUSE + 10, what, advice, numbers)
    what = f"greedy actions reach {course.greedy:.4g}, sampled ones {course.last:.4g}: the policy is far from decided"
    advice = "a smaller ent_coef, a larger learning_rate or more steps; judge it by its greedy episodes (eval_every)"
    if run.groups:
        advice = "a lower sampling.temperature or more steps; judge it by its greedy answers (eval_every)"
    return Finding("greedy-far-from-sampled", SYMPTOM + 5, what, advice, numbers)


def greedy_worse(run: Evidence) -> Finding | None:
    """Sampled actions are good, and the most probable ones are not."""
    course, found = run.course, _greedy(run)
    if run.groups or found is None or not course.learned:
        return None
    greedy, error = found
    lacks = course.last - greedy
    spread = max(course.last_spread, 1e-9) / min(course.episodes, WINDOW) ** 0.5
    if lacks < SHORT * course.gain or lacks < SURE * (error**2 + spread**2) ** 0.5:
        return None
    numbers = {"greedy_return": greedy, "episode/return": course.last}
    entropy = run.late("loss/entropy")
    what = (
        f"greedy actions reach {greedy:.4g}, sampled ones {course.last:.4g}: what it learned is good by its chance "
        "moves, not by its most probable ones"
    )
    if entropy is not None:
        numbers["loss/entropy"] = entropy
        what = (
            f"greedy actions reach {greedy:.4g}, sampled ones {course.last:.4g}, at an entropy of {entropy:.3g} nats: "
            "what it learned is good by its chance moves, not by its most probable ones"
        )
    advice = (
        "a smaller ent_coef or more steps, so that it decides; network.squash where actions lie at their bounds; "
        "action masks for what is not allowed; else let it act as it was trained: agent.act(obs, greedy=False)"
    )
    if run.config.get("algorithm.network.recurrent", "none") == "none":
        advice = (
            "network.recurrent or preprocessing.frame_stack, as it may not see where it is; a smaller ent_coef or more "
            "steps, so that it decides; network.squash where actions lie at their bounds; action masks for what is not "
            "allowed; else let it act as it was trained: agent.act(obs, greedy=False)"
        )
    return Finding("greedy-worse-than-sampled", CAUSE + 9, what, advice, numbers)


def _greedy(run: Evidence) -> tuple[float, float] | None:
    """The mean of the last greedy episodes and its standard error; None where there were none."""
    mean, std = run.course.greedy, run.number("greedy_std")
    count = run.setting("final_episodes", WINDOW)
    if not isinstance(mean, int | float):
        mean, std = run.late("eval/return"), run.late("eval/std")
        count = run.setting("eval_episodes", GREEDY)
    if mean is None:
        return None
    return float(mean), (std or 0.0) / max(1.0, count) ** 0.5
