"""Crossing: a point goes from goal to goal, and the straight way leads through a disc where steps have a cost."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import gymnasium as gym
import numpy as np
from gymnasium import spaces

if TYPE_CHECKING:
    from numpy.typing import NDArray

SIDE, RADIUS, REACHED = 1.0, 0.45, 0.15
"""The half side of the square; the radius of the disc in its middle; how near a goal counts as reached."""
SPEED, PUSH, STEPS = 0.15, 0.05, 100
"""The most that a point moves in a step, and what an action adds to it; steps of an episode."""
FAR = 0.75
"""Goals lie on a circle of this radius around the middle, opposite each other."""


class Crossing(gym.Env[Any, Any]):
    """A point that is pushed across a square, with a cost of 1 for every step in the disc in its middle.

    Observes (x, y, velocity x, velocity y, goal x - x, goal y - y), float32. Acts by a push in x and y, each in
    [-1, 1]. The reward is by how much the goal came nearer, and 1 where it was reached; the next goal is then on the
    other side, within a sixth of a turn. `step()` returns six values, in Safety-Gymnasium's order: observation, reward,
    cost, terminated, truncated, info.
    """

    observation_space = spaces.Box(-4.0, 4.0, (6,), np.float32)
    action_space = spaces.Box(-1.0, 1.0, (2,), np.float32)

    def __init__(self) -> None:
        """Nothing is drawn before `reset`."""
        self._place = self._speed = self._goal = (0.0, 0.0)
        self._angle, self._steps = 0.0, 0

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[NDArray[np.float32], dict[str, Any]]:
        """Puts the point at rest on the circle of goals, and the goal on the other side."""
        super().reset(seed=seed)
        self._angle = float(self.np_random.uniform(-math.pi, math.pi))
        self._place, self._speed, self._steps = _on_circle(self._angle), (0.0, 0.0), 0
        self._aim()
        return self._seen(), {}

    def step(  # pyright: ignore[reportIncompatibleMethodOverride]
        self, action: NDArray[np.float32]
    ) -> tuple[NDArray[np.float32], float, float, bool, bool, dict[str, Any]]:
        """Pushes the point; six values, the third of them the cost."""
        before = math.dist(self._place, self._goal)
        pushed = [
            speed + PUSH * float(push)
            for speed, push in zip(self._speed, action, strict=True)
        ]
        moved = [
            place + max(-SPEED, min(SPEED, speed))
            for place, speed in zip(self._place, pushed, strict=True)
        ]
        place = tuple(max(-SIDE, min(SIDE, x)) for x in moved)
        self._speed = (place[0] - self._place[0], place[1] - self._place[1])
        self._place = (place[0], place[1])
        self._steps += 1
        reward = before - math.dist(self._place, self._goal)
        if math.dist(self._place, self._goal) < REACHED:
            reward += 1.0
            self._aim()
        cost = float(math.hypot(*self._place) < RADIUS)
        return self._seen(), reward, cost, False, self._steps >= STEPS, {}

    def _aim(self) -> None:
        """The next goal, on the other side."""
        self._angle += math.pi + float(self.np_random.uniform(-1, 1)) * math.pi / 3
        self._goal = _on_circle(self._angle)

    def _seen(self) -> NDArray[np.float32]:
        (x, y), (goal_x, goal_y) = self._place, self._goal
        return np.array([x, y, *self._speed, goal_x - x, goal_y - y], np.float32)


def _on_circle(angle: float) -> tuple[float, float]:
    return FAR * math.cos(angle), FAR * math.sin(angle)
