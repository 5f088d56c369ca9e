"""Scripted perfect players of the worlds: each sees what a policy sees, and plays for the best score there is."""

from collections.abc import Callable
from itertools import product

import numpy as np
from numpy.typing import NDArray

Observation = NDArray[np.float32]
Player = Callable[[Observation], int]


def fly(ball: list[float], bricks: set[int], *, to_brick: bool) -> tuple[int, float]:
    """Steps until a ball (x, y and their speeds) breaks a brick or comes down, and where it then is; -1: never."""
    x, y, dx, dy = ball
    bricks = set(bricks)
    for steps in range(1, 400):
        row_before = np.floor((y - 0.55) / 0.05)
        x, y = x + dx, y + dy
        if not 0 <= x <= 1:
            x, dx = (-x if x < 0 else 2 - x), -dx
        if y > 1:
            y, dy = 2 - y, -dy
        row = int(np.floor((y - 0.55) / 0.05))
        brick = row * 8 + min(int(x * 8), 7)
        if 0 <= row < 5 and brick in bricks:
            if to_brick:
                return steps, x
            bricks.remove(brick)
            dx, dy = (dx, -dy) if row != row_before else (-dx, dy)
        if y < 0:
            return (-1 if to_brick else steps), x
    return -1, x


def play_breakout() -> Player:
    """Foresees where the ball comes down, and meets it where that sends it to a brick soonest."""
    speed, reach, half = 0.04, 0.04, 0.08
    goal: list[float] = []
    flight: list[tuple[float, ...]] = []
    turns = [0]

    def choose(ball: list[float], paddle: float, bricks: set[int]) -> float:
        steps, landing = fly(ball, bricks, to_brick=False)
        places = np.unique(np.clip(paddle + reach * np.arange(-steps, steps + 1), half, 1 - half))
        places = places[np.abs(landing - places) <= 0.93 * half]
        found: list[tuple[int, float]] = []
        for place in places.tolist():
            away = 0.85 * speed * (landing - place) / half
            hit, _ = fly([landing, 0.0, away, float(np.sqrt(speed**2 - away**2))], bricks, to_brick=True)
            found += [(hit, place)] * (hit > 0)
        if found:
            return min(found)[1]
        turns[0] += 1
        return float(places[turns[0] % len(places)]) if len(places) else landing

    def act(obs: Observation) -> int:
        x, y, dx, dy, paddle = (float(value) for value in obs[:5])
        paddle = (paddle + 1) / 2
        if dy > 0:
            goal.clear()
            return 0
        if not goal or flight != [(dx, dy)]:
            flight[:] = [(dx, dy)]
            ball = [(x + 1) / 2, (y + 1) / 2, dx / 20, dy / 20]
            goal[:] = [choose(ball, paddle, set(np.flatnonzero(obs[7:]).tolist()))]
        return 0 if abs(goal[0] - paddle) < reach / 4 else 1 if goal[0] < paddle else 2

    return act


def play_pong() -> Player:
    """Returns every ball, at the angle that the opponent cannot follow."""
    half, reach = 0.08, 0.04
    goal = [0.5]
    flight = [0.0]

    def arrive(x: float, y: float, dy: float) -> tuple[int, float]:
        """Steps until a ball that goes right has crossed the line, and its height then."""
        steps = 0
        while x <= 1:
            x, y, steps = x + 0.04, y + dy, steps + 1
            if not 0 <= y <= 1:
                y, dy = (-y if y < 0 else 2 - y), -dy
        return steps, y

    def miss(height: float, place: float, opponent: float) -> float:
        """By how much the opponent misses the ball that the paddle at `place` sends back."""
        x, y, dy = 0.98, height, 0.05 * (height - place) / half
        while x >= 0:
            opponent = float(np.clip(opponent + np.clip(y - opponent, -0.02, 0.02), half, 1 - half))
            x, y = x - 0.04, y + dy
            if not 0 <= y <= 1:
                y, dy = (-y if y < 0 else 2 - y), -dy
        return abs(y - opponent)

    def act(obs: Observation) -> int:
        x, y, paddle, opponent = (float(obs[i] + 1) / 2 for i in (0, 1, 4, 5))
        if obs[2] < 0:
            flight[0] = 0.0
            return 0
        if flight[0] != obs[3]:
            flight[0] = float(obs[3])
            steps, height = arrive(x, y, 0.05 * float(obs[3]))
            places = np.unique(np.clip(paddle + reach * np.arange(-steps, steps + 1), half, 1 - half))
            off = np.abs(height - places)
            places = places[off <= max(0.95 * half, float(off.min()))]
            goal[0] = max(places.tolist(), key=lambda place: miss(height, place, opponent))
        return 0 if abs(goal[0] - paddle) < reach / 4 else 1 if goal[0] < paddle else 2

    return act


def play_snake(size: int = 6) -> Player:
    """Follows a cycle through all cells: along the top row, then down and up the columns."""
    up, right, down, left = range(4)
    turn: dict[tuple[int, int], int] = {}
    for row, column in product(range(size), range(size)):
        if row == 0:
            turn[row, column] = right if column < size - 1 else down
        elif (size - 1 - column) % 2 == 0:
            turn[row, column] = down if row < size - 1 else left
        else:
            turn[row, column] = up if row > 1 or column == 0 else left

    def act(obs: Observation) -> int:
        row, column = divmod(int(obs[36:72].argmax()), 6)
        return turn[row, column]

    return act


def play_squared() -> Player:
    """Walks up to the border and then once around it."""
    up, right, down, left = 1, 2, 3, 4
    around = [False]

    def act(obs: Observation) -> int:
        x, y = round(float(obs[0]) * 5), round(float(obs[1]) * 5)
        around[0] = (around[0] and (x, y) != (0, 0)) or y == -5
        if not around[0]:
            return up
        if y == -5 and x < 5:
            return right
        if x == 5 and y < 5:
            return down
        return left if y == 5 and x > -5 else up

    return act


def play_memory() -> Player:
    """Keeps the cue."""
    kept = [0]

    def act(obs: Observation) -> int:
        if obs[:4].any():
            kept[0] = int(obs[:4].argmax())
        return kept[0]

    return act


def play_pursuit() -> Player:
    """Every hunter walks towards the first prey that still runs, along the longer way first."""

    def act(obs: Observation) -> int:
        dx, dy = next(obs[8 + 3 * i : 10 + 3 * i] for i in range(2) if obs[10 + 3 * i])
        if not dx and not dy:
            return 0
        if abs(dx) >= abs(dy):
            return 2 if dx > 0 else 4
        return 3 if dy > 0 else 1

    return act


BEST: dict[str, tuple[float, Callable[[], Player]]] = {
    "shoal/Breakout-v0": (40, play_breakout),
    "shoal/Pong-v0": (11, play_pong),
    "shoal/Snake-v0": (35, play_snake),
    "shoal/Squared-v0": (1, play_squared),
    "shoal/Memory-v0": (1, play_memory),
    "shoal/Pursuit-v0": (1, play_pursuit),
}
"""The best score of each world, and who reaches it."""
