"""Slow second versions of two worlds as plain Gymnasium environments, written from their rules."""

from typing import Any

import gymnasium as gym
import numpy as np
from gymnasium import spaces
from numpy.typing import NDArray

MASK = 2**64 - 1


class Draws:
    """SplitMix64, seeded with the next word of a row's own generator."""

    def __init__(self, rng: np.random.Generator) -> None:
        self.state = int(rng.bit_generator.random_raw())

    def word(self) -> int:
        """The next 64 bits."""
        self.state = (self.state + 0x9E3779B97F4A7C15) & MASK
        word = self.state
        for shift, factor in ((30, 0xBF58476D1CE4E5B9), (27, 0x94D049BB133111EB)):
            word = (word ^ (word >> shift)) * factor & MASK
        return word ^ (word >> 31)

    def below(self, n: int) -> int:
        """0, 1, ..., n - 1."""
        return (self.word() >> 32) * n >> 32

    def uniform(self, low: float, high: float) -> float:
        """A number in [low, high)."""
        return low + (high - low) * ((self.word() >> 11) * 2.0**-53)


class World(gym.Env[NDArray[np.float32], np.int64]):
    """What both share: a time limit, and counting its steps."""

    max_episode_steps = 0

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> Any:
        """Starts an episode."""
        super().reset(seed=seed)
        self.steps = 0
        self.draws = Draws(self.np_random)
        self.begin()
        return self.look(), {}

    def step(self, action: Any) -> Any:
        """Plays a step."""
        reward, terminated = self.play(int(action))
        self.steps += 1
        return self.look(), reward, terminated, self.steps >= self.max_episode_steps, {}

    def begin(self) -> None:
        """The first state."""
        raise NotImplementedError

    def play(self, action: int) -> tuple[float, bool]:
        """Reward, and whether the episode terminated."""
        raise NotImplementedError

    def look(self) -> NDArray[np.float32]:
        """The observation."""
        raise NotImplementedError


class SlowSnake(World):
    """The snake as a list of cells (row, column), the tail first."""

    observation_space = spaces.Box(0, 1, (123,), np.float32)
    action_space = spaces.Discrete(4)

    def __init__(self, size: int = 6, patience: int = 72, max_episode_steps: int = 630) -> None:
        self.size, self.patience, self.max_episode_steps = size, patience, max_episode_steps

    def draw_free(self) -> tuple[int, int]:
        """A free cell, each as likely."""
        cells = [(row, column) for row in range(self.size) for column in range(self.size)]
        free = [cell for cell in cells if cell not in self.snake]
        return free[self.draws.below(len(free))]

    def begin(self) -> None:
        """A head alone, and food."""
        self.snake: list[tuple[int, int]] = []
        self.snake.append(self.draw_free())
        self.food: tuple[int, int] | None = self.draw_free()
        self.fasted = 0

    def play(self, action: int) -> tuple[float, bool]:
        """One cell on."""
        row, column = self.snake[-1]
        head = (row + (-1, 0, 1, 0)[action], column + (0, 1, 0, -1)[action])
        if not all(0 <= place < self.size for place in head):
            return 0, True
        if head != self.food:
            del self.snake[0]
        if head in self.snake:
            # The head that hit stays where it was; without a body of its own it cannot hit anything.
            return 0, True
        self.snake.append(head)
        if head != self.food:
            self.fasted += 1
            return 0, self.fasted == self.patience
        self.fasted = 0
        full = len(self.snake) == self.size**2
        self.food = None if full else self.draw_free()
        return 1, full

    def look(self) -> NDArray[np.float32]:
        """When each cell will be left, where the head is, where food is."""
        planes = np.zeros((3, 6, 6), np.float32)
        planes[0, self.size :, :] = planes[0, :, self.size :] = 1
        for number, cell in enumerate(self.snake):
            planes[0][cell] = np.float32(number + 1) / np.float32(36)
        planes[1][self.head] = 1
        if self.food:
            planes[2][self.food] = 1
        hunger = np.float32(self.fasted) / np.float32(self.patience)
        return np.concatenate([planes.reshape(-1), *(self.foresee(move) for move in range(4)), [hunger, *self.way()]])

    def way(self) -> list[np.float32]:
        """How far food is to the right and down, from 0 to 1."""
        (row, column), goal = self.head, self.food or self.head
        return [np.float32(5 + goal[1] - column) / np.float32(10), np.float32(5 + goal[0] - row) / np.float32(10)]

    def foresee(self, move: int) -> NDArray[np.float32]:
        """Whether a move kills, the share of the free cells that can be reached after it, and whether the tail can."""
        steps = ((-1, 0), (0, 1), (1, 0), (0, -1))
        head = (self.head[0] + steps[move][0], self.head[1] + steps[move][1])
        stays = self.snake if head == self.food else self.snake[1:]
        if head in stays or not all(0 <= place < self.size for place in head):
            return np.array([1, 0, 0], np.float32)
        after = [*stays, head]
        reached, edge, tail = {head}, [head], after[0] == head
        while edge:
            row, column = edge.pop()
            for down, across in steps:
                cell = (row + down, column + across)
                tail = tail or cell == after[0]
                if all(0 <= place < self.size for place in cell) and cell not in after and cell not in reached:
                    reached.add(cell)
                    edge.append(cell)
        free = self.size**2 - len(after)
        share = np.float32(len(reached) - 1) / np.float32(free) if free else 1
        return np.array([0, share, tail], np.float32)

    @property
    def head(self) -> tuple[int, int]:
        """Where the head is."""
        return self.snake[-1]


class SlowPong(World):
    """The game of two paddles in plain floats."""

    observation_space = spaces.Box(-1, 1, (8,), np.float32)
    action_space = spaces.Discrete(3)

    def __init__(self, max_episode_steps: int = 2000, paddle_speed: float = 0.04, opponent_speed: float = 0.02) -> None:
        self.max_episode_steps = max_episode_steps
        self.paddle_speed, self.opponent_speed = paddle_speed, opponent_speed

    def begin(self) -> None:
        """Nil all."""
        self.score = [0, 0]
        self.serve()

    def serve(self) -> None:
        """From the middle to either side."""
        self.paddle = self.opponent = 0.5
        self.ball = [0.5, self.draws.uniform(0.2, 0.8)]
        self.right = self.draws.below(2) == 1
        self.rise = self.draws.uniform(-0.6, 0.6) * 0.05

    def play(self, action: int) -> tuple[float, bool]:
        """Paddles, then the ball, then whether it is returned."""
        self.paddle = min(max(self.paddle + (0.0, -self.paddle_speed, self.paddle_speed)[action], 0.08), 0.92)
        chase = min(max(self.ball[1] - self.opponent, -self.opponent_speed), self.opponent_speed)
        self.opponent = min(max(self.opponent + chase, 0.08), 0.92)
        self.ball[0] += 0.04 if self.right else -0.04
        self.ball[1] += self.rise
        if self.ball[1] < 0:
            self.ball[1], self.rise = -self.ball[1], -self.rise
        elif self.ball[1] > 1:
            self.ball[1], self.rise = 2 - self.ball[1], -self.rise
        over, under = self.ball[0] > 1, self.ball[0] < 0
        if not over and not under:
            return 0, False
        offset = (self.ball[1] - (self.paddle if over else self.opponent)) / 0.08
        if abs(offset) <= 1:
            self.ball[0] = 2 - self.ball[0] if over else -self.ball[0]
            self.right, self.rise = not self.right, 0.05 * offset
            return 0, False
        self.score[over] += 1
        self.serve()
        return (-1 if over else 1), 11 in self.score

    def look(self) -> NDArray[np.float32]:
        """Ball, its way, paddles, points."""
        places = [2 * self.ball[0] - 1, 2 * self.ball[1] - 1, 1.0 if self.right else -1.0, self.rise / 0.05]
        places += [2 * self.paddle - 1, 2 * self.opponent - 1]
        points = np.array(self.score, np.float32) / np.float32(11)
        return np.concatenate([np.array(places, np.float32), points])
