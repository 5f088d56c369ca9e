"""Stacks of frames in the replay memory: each frame is kept once, and samples are byte for byte what was inserted."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from gymnasium import spaces

from shoal.envs.preprocessing import Preprocessing
from shoal.envs.registry import make
from shoal.memory.reader import Prioritized, Reader
from shoal.memory.replay import ReplayMemory
from shoal.memory.replay_steps import StepArrays
from shoal.types import ConfigError, Spec

if TYPE_CHECKING:
    from numpy.typing import NDArray

K, ROWS, FRAME = 4, 3, (3, 5)
STARTS = ("repeated", "empty", "going on")
"""What the first stack of an episode holds: its frame alone, empty planes before it, or the last frames of the game."""


@dataclass
class Step:
    """A step as it was handed over; `final`: what it led to where it ended an episode."""

    obs: NDArray[Any]
    action: int
    reward: float
    terminated: bool = False
    truncated: bool = False
    valid: bool = True
    start: bool = False
    final: NDArray[Any] | None = None


class Games:
    """Rows of stacks at random, with every kind of start and end."""

    def __init__(self, seed: int, starts: tuple[str, ...] = STARTS, *, oddities: bool = True) -> None:
        """`oddities`: steps that only reset, and final observations that are no stack's next."""
        self.rng = np.random.default_rng(seed)
        self.starts, self.oddities = starts, oddities
        self.stacks = [self.begin(np.zeros((K, *FRAME), np.uint8)) for _ in range(ROWS)]
        self.fresh = [True] * ROWS
        self.history: list[list[Step]] = [[] for _ in range(ROWS)]

    def frame(self) -> NDArray[Any]:
        return self.rng.integers(0, 256, FRAME).astype(np.uint8)

    def begin(self, before: NDArray[Any]) -> NDArray[Any]:
        """The first stack of an episode."""
        how, first = self.rng.choice(self.starts), self.frame()
        if how == "repeated":
            return np.repeat(first[None], K, axis=0)
        rest = before[1:] if how == "going on" else np.zeros((K - 1, *FRAME), np.uint8)
        return np.concatenate([rest, first[None]])

    def step(self, row: int) -> Step:
        """One step of a row."""
        rng, stack = self.rng, self.stacks[row]
        step = Step(stack, int(rng.integers(0, 3)), float(rng.integers(-8, 9)), start=self.fresh[row])
        after = np.concatenate([stack[1:], self.frame()[None]])
        self.fresh[row] = False
        if self.oddities and rng.random() < 0.03:
            step.valid, self.stacks[row], self.fresh[row] = False, self.begin(stack), True
        elif rng.random() < 0.12:
            step.terminated = bool(rng.random() < 0.5)
            step.truncated = not step.terminated
            step.final = stack if self.oddities and rng.random() < 0.2 else after
            self.stacks[row], self.fresh[row] = self.begin(step.final), True
        else:
            self.stacks[row] = after
        self.history[row].append(step)
        return step

    def block(self, num_steps: int) -> StepArrays:
        """Steps of all rows; each has its number as its version."""
        first = len(self.history[0])
        steps = [[self.step(row) for row in range(ROWS)] for _ in range(num_steps)]

        def column(name: str, dtype: Any) -> NDArray[Any]:
            return np.array([[getattr(step, name) for step in line] for line in steps], dtype)

        finals = [step.final for line in steps for step in line if step.final is not None]
        numbers = np.arange(first, first + num_steps)[:, None] * ROWS + np.arange(ROWS)
        return StepArrays(
            obs=column("obs", np.uint8),
            action=column("action", np.int64),
            reward=column("reward", np.float32),
            terminated=column("terminated", np.bool_),
            truncated=column("truncated", np.bool_),
            final_obs=np.array(finals, np.uint8).reshape(-1, K, *FRAME),
            valid=column("valid", np.bool_),
            start=column("start", np.bool_),
            version=numbers.astype(np.int32),
        )

    def expected(self, number: int, n_step: int, gamma: float) -> tuple[Any, ...]:
        """The transition of step `number`, walked through the list."""
        at, row = divmod(number, ROWS)
        history = self.history[row]
        total, discount, count = 0.0, 1.0, 0
        after: NDArray[Any] | None = None
        while count < n_step and at + count + 1 <= len(history):
            step = history[at + count]
            following = history[at + count + 1] if at + count + 1 < len(history) else None
            if step.final is None and (following is None or not following.valid or following.start):
                break
            total += discount * step.reward
            discount *= gamma
            count += 1
            if step.final is not None:
                return history[at], total, 0.0 if step.terminated else discount, count, step.final
            assert following is not None
            after = following.obs
        return history[at], total, discount, count, after


def spec_of(space: spaces.Space[Any] | None = None) -> Spec:
    space = space or spaces.Box(0, 255, (K, *FRAME), np.uint8)
    return replace(Spec.of("Test-v0", space, spaces.Discrete(3)), frame_stack=K)


@pytest.mark.parametrize("n_step", [1, 3])
@pytest.mark.parametrize("prioritized", [None, Prioritized(uniform_mix=0.5)])
def test_against_lists(n_step: int, prioritized: Prioritized | None) -> None:
    """Random episodes with every kind of start and end, in blocks of any length, while the rings go round."""
    games, rng = Games(n_step), np.random.default_rng(n_step)
    memory = ReplayMemory(spec_of(), ROWS, capacity=ROWS * 101)
    reader = Reader(memory, batch_size=64, n_step=n_step, gamma=0.5, prioritized=prioritized)
    for _ in range(18):
        memory.insert_steps(games.block(int(rng.integers(1, 40))))
        for _ in range(6):
            batch = reader.sample()
            for b, number in enumerate(batch.version.tolist()):
                step, total, discount, count, after = games.expected(number, n_step, 0.5)
                assert step.valid
                assert batch.obs[b].numpy().tobytes() == step.obs.tobytes()
                assert batch.next_obs[b].numpy().tobytes() == after.tobytes()
                got = (batch.action[b], batch.reward[b], batch.discount[b], batch.steps[b])
                assert tuple(map(float, got)) == (step.action, total, discount, count)
    seen = {number for _ in range(100) for number in reader.sample().version.tolist()}
    length = len(games.history[0])
    recent = range((length - 20) * ROWS, length * ROWS)
    wanted = {at for at in recent if games.history[at % ROWS][at // ROWS].valid}
    assert {at for at in wanted if games.expected(at, 1, 0.5)[3] == 1} <= seen


def test_frames_are_kept_once() -> None:
    """A step takes one record, an end one more, and a first stack as many more as its other frames: by hand."""
    memory = ReplayMemory(spec_of(), 1, capacity=400)
    frames = np.arange(21, dtype=np.uint8)[:, None, None] * np.ones(FRAME, np.uint8)
    stacks = np.array([frames[np.clip(np.arange(at - K + 1, at + 1), 0, None)] for at in range(21)])
    never = np.zeros((10, 1), np.bool_)
    at_last = never.copy()
    at_last[-1] = True

    def insert(first: int, terminated: NDArray[np.bool_]) -> int:
        obs, final = stacks[first : first + 10, None], stacks[first + 10 : first + 11]
        actions, rewards = np.zeros((10, 1), np.int64), np.zeros((10, 1), np.float32)
        ends = final if terminated.any() else None
        memory.insert_steps(StepArrays(obs, actions, rewards, terminated, never, ends))
        return len(memory)

    assert insert(0, never) == 3 + 10
    assert insert(10, at_last) == 13 + 10 + 1
    assert insert(0, never) == 24 + 3 + 10
    assert insert(5, never) == 37 + 3 + 10  # frame 4 does not come after frame 9
    words = memory.ring.shape[2]
    assert words == 1 + 2 + 1 + 2  # number, head, action, and 15 bytes of one frame


@pytest.mark.parametrize("env_id", ["CartPole-v1", "shoal/Breakout-v0"])
def test_real_rows(env_id: str) -> None:
    """What preprocessing stacks comes back; only first stacks take more than a record a step."""
    env = make(env_id, 2, preprocessing=Preprocessing(frame_stack=K))
    memory = ReplayMemory(env.spec, 2, capacity=2_000)
    rng = np.random.default_rng(0)
    env.reset(0)
    ready = env.recv()
    seen: dict[int, NDArray[Any]] = {}
    ends, over = 0, np.zeros(2, np.bool_)
    for number in range(150):
        obs = np.array(ready.obs)
        seen |= {2 * number + row: obs[row] for row in range(2)}
        action = rng.integers(0, 2, 2)
        env.send(slice(0, 2), action)
        ready = env.recv()
        over = ready.terminated | ready.truncated
        ends += int(over.sum())
        flags = (ready.terminated[None].copy(), ready.truncated[None].copy())
        version = np.array([[2 * number, 2 * number + 1]], np.int32)
        final = np.array(ready.final_obs)[over]
        steps = StepArrays(obs[None], action[None], np.zeros((1, 2)), *flags, final, version=version)
        memory.insert_steps(steps)
    env.close()
    assert len(memory) == 300 + ends + (K - 1) * (2 + ends - int(over.sum()))
    reader = Reader(memory, batch_size=256)
    for _ in range(5):
        batch = reader.sample()
        for b, number in enumerate(batch.version.tolist()):
            assert batch.obs[b].numpy().tobytes() == seen[number].tobytes()
            if number + 2 in seen and batch.discount[b] > 0:
                assert batch.next_obs[b].numpy().tobytes() == seen[number + 2].tobytes()


def test_a_restored_memory_goes_on_with_its_stacks() -> None:
    games = Games(5)
    memory, other = (ReplayMemory(spec_of(), ROWS, capacity=ROWS * 90) for _ in range(2))
    memory.insert_steps(games.block(120))
    other.restore(memory.state())
    more = games.block(20)
    for each in (memory, other):
        each.insert_steps(more)
    np.testing.assert_array_equal(memory.heads, other.heads)
    np.testing.assert_array_equal(memory.ring, other.ring)


def test_other_stacks_are_refused() -> None:
    memory = ReplayMemory(spec_of(), ROWS, capacity=300)
    whole = ReplayMemory(replace(spec_of(), frame_stack=1), ROWS, capacity=300)
    with pytest.raises(ConfigError, match="its settings must be the same"):
        whole.restore(memory.state())
    with pytest.raises(ConfigError, match="needs 18 records of each row, and the memory has room for 16"):
        Reader(ReplayMemory(spec_of(), ROWS, capacity=1), batch_size=4, n_step=5)
