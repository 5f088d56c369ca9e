"""Hindsight: new goals are those of later steps of the same episode, with the rewards and ends that belong to them."""

from __future__ import annotations

from functools import partial
from typing import Any

import numpy as np
import pytest
import torch
from gymnasium import spaces

import shoal
from shoal.memory.hindsight import Hindsight, check_goals
from shoal.memory.reader import Reader
from shoal.memory.replay import ReplayMemory
from shoal.memory.replay_steps import StepArrays
from shoal.types import ConfigError, Spec
from tests.goals import Flip

GOAL = spaces.Box(-999, 999, (1,), np.float32)
SPEC = Spec.of(
    "Line-v0",
    spaces.Dict({"achieved_goal": GOAL, "desired_goal": GOAL, "observation": spaces.Box(-9, 9, (3,), np.float64)}),
    spaces.Discrete(2),
)


class Line:
    """Reached where the goal is the same number; the reward says both."""

    def compute_reward(self, achieved: Any, desired: Any, info: Any) -> Any:
        return achieved[:, 0] * 1000 + desired[:, 0]


class EndingLine(Line):
    def compute_terminated(self, achieved: Any, desired: Any, info: Any) -> Any:
        return (achieved == desired)[:, 0]


def tree(numbers: Any) -> dict[str, Any]:
    """Observations whose achieved goal is a number, and whose desired one is -1."""
    array = np.asarray(numbers, np.float32)
    seen = np.zeros((*array.shape, 3))
    return {"achieved_goal": array[..., None], "desired_goal": np.full_like(array, -1)[..., None], "observation": seen}


def filled(steps: int = 40, rows: int = 3, capacity: int = 1_000) -> ReplayMemory:
    """Row r's step t sees 100 r + t; episodes of 5 + r steps, whose last observation is t + 1.5."""
    memory = ReplayMemory(SPEC, rows, capacity=capacity)
    t, r = np.meshgrid(np.arange(steps), np.arange(rows), indexing="ij")
    ended = (t + 1) % (5 + r) == 0
    flags = np.zeros((steps, rows), np.bool_)
    final = tree((100 * r + t + 1.5)[ended])
    for first in range(0, steps, 4):  # a few steps at a time, as rollouts come
        part = slice(first, first + 4)
        inside = ended[part]
        given = [int(ended[:first].sum()), int(ended[: first + 4].sum())]
        final_part = {name: values[slice(*given)] for name, values in final.items()}
        arrays = StepArrays(
            obs=tree((100 * r + t)[part]),
            action=np.zeros((4, rows), np.int64),
            reward=np.zeros((4, rows)),
            terminated=flags[part],
            truncated=inside,
            final_obs=final_part,
        )
        memory.insert_steps(arrays)
    return memory


def later(number: int, steps: int = 40) -> set[float]:
    """What the episode of row number // 100 achieved after step number % 100."""
    row, t = divmod(number, 100)
    length = 5 + row
    end = min((t // length + 1) * length, steps)
    found = {float(100 * row + at) for at in range(t + 1, end)}
    return found | ({100 * row + end + 0.5} if end % length == 0 else set())


@pytest.mark.parametrize("capacity", [1_000, 60])
def test_goals_are_later_ones_of_the_same_episode(capacity: int) -> None:
    """All of them are drawn, and none else; also where the rings have gone round."""
    memory = filled(capacity=capacity)
    reader = Reader(memory, batch_size=20_000)
    hindsight = Hindsight(memory, Line(), share=1.0, gamma=0.9, seed=1, reward_scale=0.5)
    reader.sample()
    before = reader.batch.discount.clone()
    hindsight.relabel(reader.batch)
    batch = reader.batch
    drawn: dict[int, set[float]] = {}
    for number, goal in zip(batch.obs["achieved_goal"][:, 0].tolist(), batch.obs["desired_goal"][:, 0], strict=True):
        drawn.setdefault(int(number), set()).add(float(goal))
    assert drawn == {number: later(number) for number in drawn}
    assert len(drawn) > 30
    reached, desired = batch.next_obs["achieved_goal"][:, 0], batch.next_obs["desired_goal"][:, 0]
    assert torch.equal(desired, batch.obs["desired_goal"][:, 0])
    assert torch.allclose(batch.reward, 0.5 * (reached * 1000 + desired))
    assert torch.equal(batch.discount, before)


def test_the_end_of_a_new_goal() -> None:
    """Where the goal is what the step came to it ends there, and nowhere else."""
    memory = filled()
    reader = Reader(memory, batch_size=500)
    reader.sample()
    Hindsight(memory, EndingLine(), share=1.0, gamma=0.9, seed=1).relabel(reader.batch)
    batch = reader.batch
    reached = (batch.next_obs["achieved_goal"] == batch.next_obs["desired_goal"])[:, 0]
    assert torch.equal(batch.discount == 0, reached)
    assert reached.any()
    assert batch.discount[~reached].tolist() == pytest.approx([0.9] * int((~reached).sum()))


def test_the_share_of_a_batch() -> None:
    memory = filled()
    reader = Reader(memory, batch_size=4_000)
    reader.sample()
    Hindsight(memory, Line(), share=0.25, gamma=0.9, seed=1).relabel(reader.batch)
    changed = reader.batch.obs["desired_goal"][:, 0] != -1
    assert changed.float().mean() == pytest.approx(0.25, abs=0.02)
    assert torch.equal(changed, reader.batch.reward != 0)


def test_it_goes_on_from_its_state() -> None:
    memory = filled()
    reader = Reader(memory, batch_size=50)
    made = [Hindsight(memory, Line(), share=0.5, gamma=0.9, seed=1) for _ in range(2)]
    reader.sample()
    made[0].relabel(reader.batch)
    made[1].restore(made[0].state())
    state = reader.state()
    found = []
    for hindsight in made:
        reader.restore(state)
        hindsight.relabel(reader.sample())
        found.append(reader.batch.obs["desired_goal"].clone())
    assert torch.equal(*found)


def test_what_has_no_goals() -> None:
    plain = Spec.of("Plain-v0", GOAL, spaces.Discrete(2))
    with pytest.raises(ConfigError, match="needs observations with the keys achieved_goal and desired_goal"):
        check_goals(plain)


class NoRule(Flip):
    compute_reward = None  # pyright: ignore[reportAssignmentType]

    def step(self, action: Any) -> Any:
        return self._seen(), 0.0, False, False, {}


TINY: dict[str, Any] = {"algo": "dqn", "num_envs": 2, "total_timesteps": 64, "panel": "none", "final_episodes": 0}


@pytest.mark.parametrize(
    ("env", "settings", "said"),
    [
        ("CartPole-v1", {"preset": "none"}, "needs observations with the keys"),
        (NoRule, {}, r"needs the environment's compute_reward\(achieved, desired, info\) for whole arrays: NoRule has"),
        (Flip, {"n_step": 3}, "n_step=3 sums several"),
        (Flip, {"preprocessing": {"reward_sign": True}}, "makes rewards anew, as the environment gives them"),
    ],
)
def test_what_is_refused(tmp_path: Any, env: Any, settings: dict[str, Any], said: str) -> None:
    replay = {"hindsight": 0.8, "learning_starts": 16}
    with pytest.raises(ConfigError, match=said):
        shoal.train(env, replay=replay, run_dir=tmp_path, **{**TINY, **settings})


def success(hindsight: float, tmp_path: Any, *, steps: int) -> float:
    """The share of greedy episodes that end at their goal: of a return above -10, minus the number of bits."""
    replay = {"hindsight": hindsight, "learning_starts": 500, "samples_per_insert": 32}
    run = shoal.train(
        partial(Flip, 10),
        algo="dqn",
        num_envs=8,
        num_steps=2,
        total_timesteps=steps,
        gamma=0.98,
        epsilon_end=0.1,
        target_update_interval=100,
        network={"hidden": (128,)},
        replay=replay,
        final_episodes=0,
        panel="none",
        run_dir=tmp_path,
        num_threads=1,
    )
    agent = shoal.load(run.path, factory=partial(Flip, 10))
    returns = agent.evaluate(episodes=100).returns
    return float(np.mean(returns > -10))


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_bits_are_flipped_with_hindsight_alone(tmp_path: Any) -> None:
    """Ten bits: 1,024 goals, of which chance meets few."""
    assert success(0.8, tmp_path, steps=12_000) >= 0.9
    assert success(0.0, tmp_path, steps=12_000) <= 0.3


class StopAt20:
    episodes = False

    def __call__(self, run: Any, record: Any) -> None:
        if run.updates == 20:
            run.stop("enough for now")


def test_a_resumed_run_is_the_same(tmp_path: Any) -> None:
    """With a ring that goes round before and after."""
    replay = {"hindsight": 0.8, "learning_starts": 16, "samples_per_insert": 64, "buffer_size": 60}
    settings: dict[str, Any] = {**TINY, "run_dir": tmp_path, "replay": replay, "total_timesteps": 96}
    factory = partial(Flip, 4)
    whole = shoal.train(factory, name="whole", **settings)
    cut = shoal.train(factory, name="cut", callbacks=[StopAt20()], **settings)
    resumed = shoal.resume(cut.path, factory=factory, panel="none")
    pairs = zip(whole.policy.parameters(), resumed.policy.parameters(), strict=True)
    assert all(torch.equal(one, other) for one, other in pairs)
    assert cut.steps < resumed.steps == 96
