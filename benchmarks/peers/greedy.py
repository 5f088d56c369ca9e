"""Greedy episodes on Gymnasium's own environment, played alike for every library: same seeds, rewards as they are.

This runs inside a peer's virtual environment too, so it needs nothing but Gymnasium.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import gymnasium

SEED = 20_000_000
"""Far from the seeds of training; episode n of a run is reset with SEED + n."""
MOST_STEPS = 20_000
"""Where an episode without an end is cut off."""


def play(
    env_id: str, act: Callable[[Any], Any], episodes: int, *, begin: Callable[[], None] = lambda: None
) -> list[float]:
    """The return of each of `episodes` episodes; `act` chooses the action for one observation.

    `begin` is called before each episode, for a policy with memory.
    """
    env = gymnasium.make(env_id)
    returns: list[float] = []
    for episode in range(episodes):
        begin()
        obs, _ = env.reset(seed=SEED + episode)
        total, steps, over = 0.0, 0, False
        while not over and steps < MOST_STEPS:
            obs, reward, terminated, truncated, _ = env.step(act(obs))
            total, steps = total + float(reward), steps + 1
            over = terminated or truncated
        returns.append(round(total, 2))
    env.close()
    return returns


def play_together(env_id: str, act: Callable[[Any], Any], episodes: int) -> float:
    """The mean return of `play`'s episodes, played side by side: `act` chooses for a list of observations at once."""
    envs = [gymnasium.make(env_id) for _ in range(episodes)]
    rows = {number: env.reset(seed=SEED + number)[0] for number, env in enumerate(envs)}
    total, steps = 0.0, 0
    while rows and steps < MOST_STEPS:
        actions = act(list(rows.values()))
        for number, action in zip(list(rows), actions, strict=True):
            obs, reward, terminated, truncated, _ = envs[number].step(action)
            total += float(reward)
            rows[number] = obs
            if terminated or truncated:
                del rows[number]
        steps += 1
    for env in envs:
        env.close()
    return round(total / episodes, 2)
