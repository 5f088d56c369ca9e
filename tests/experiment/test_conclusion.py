"""The end of a run: what its last games need, and that nothing which fails there costs the run."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any, ClassVar, Literal

import gymnasium as gym
import numpy as np
import pytest
import torch

import shoal
from shoal.envs.bounds import wide_actions
from shoal.experiment import training
from shoal.experiment.options import Options
from shoal.nets.policy import Network
from shoal.run.directory import RunDirectory
from shoal.types import ConfigError

TINY: Any = {"num_envs": 1, "num_steps": 64, "num_minibatches": 2, "total_timesteps": 128, "panel": "none"}


class Robot(gym.Env[Any, Any]):
    """There are `there` of them in the world; an episode has 10 steps, 1 a step."""

    observation_space: ClassVar[Any] = gym.spaces.Box(-1, 1, (2,), np.float32)
    action_space: ClassVar[Any] = gym.spaces.Discrete(2)
    there: ClassVar[int] = 1
    taken: ClassVar[int] = 0
    most: ClassVar[int] = 0

    def __init__(self) -> None:
        if Robot.taken == Robot.there:
            raise RuntimeError("in use")
        Robot.taken += 1
        Robot.most = max(Robot.most, Robot.taken)

    def reset(self, *, seed: int | None = None, options: Any = None) -> tuple[Any, dict[str, Any]]:
        super().reset(seed=seed)
        self.clock = 0
        return np.zeros(2, np.float32), {}

    def step(self, action: int) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        self.clock += 1
        return np.zeros(2, np.float32), 1.0, self.clock == 10, False, {}

    def close(self) -> None:
        Robot.taken -= 1


@pytest.fixture(autouse=True)
def world() -> None:
    Robot.there, Robot.taken, Robot.most = 1, 0, 0


def state_of(path: Path) -> dict[str, Any]:
    return RunDirectory(path).read_status()


def test_a_simulator_that_exists_once_is_trained_resumed_and_evaluated(tmp_path: Path) -> None:
    """The greedy games are played when the training rows are closed."""
    done = shoal.train(Robot, run_dir=str(tmp_path), **TINY)
    assert (done.greedy_return, state_of(done.path)["state"]) == (10.0, "finished")
    again = shoal.resume(done.path, factory=Robot, panel="none", total_timesteps=192)
    assert (again.greedy_return, again.steps, Robot.taken) == (10.0, 192, 0)
    assert shoal.load(done.path, factory=Robot).evaluate(episodes=3).returns.tolist() == [10.0] * 3


def test_the_last_games_take_no_more_rows_than_training(tmp_path: Path) -> None:
    """Two rows beside training's own, with an evaluation beside it: closed before the last games."""
    Robot.there = 4
    settings = TINY | {"num_envs": 2, "eval_every": 64, "eval_episodes": 2}
    assert shoal.train(Robot, run_dir=str(tmp_path), **settings).greedy_return == 10.0
    assert (Robot.taken, Robot.most) == (0, 4)


@pytest.mark.parametrize("count", [0, 3])
def test_how_many_last_games_is_a_setting(count: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without any, training's mean return decides whether the threshold was met."""
    asked: list[int] = []
    play = training.play

    def played(*args: Any, episodes: int, **settings: Any) -> Any:
        asked.append(episodes)
        return play(*args, episodes=episodes, **settings)

    monkeypatch.setattr(training, "play", played)
    settings = TINY | {"total_timesteps": 1088, "stop_at": 9.5, "final_episodes": count}
    done = shoal.train(Robot, run_dir=str(tmp_path), **settings)
    assert asked == [count] * (count > 0)
    assert (done.solved, done.mean_return, math.isnan(done.greedy_return)) == (True, 10.0, count == 0)
    assert ("greedy_return" in state_of(done.path)) == (count > 0)
    with pytest.raises(ConfigError, match="final_episodes must be at least 0"):
        Options("CartPole-v1", final_episodes=-1)


@pytest.mark.parametrize("error", [RuntimeError, KeyboardInterrupt])
def test_a_failure_of_the_last_games_leaves_a_finished_run(
    error: type[BaseException], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Said, and the result is there; so is its exit status by the mean return."""

    def fails(*_: Any, **__: Any) -> Any:
        raise error("gone")

    monkeypatch.setattr(training, "play", fails)
    done = shoal.train(Robot, run_dir=str(tmp_path), **TINY | {"panel": "plain", "stop_at": 99.0})
    assert state_of(done.path)["state"] == "finished"
    assert (math.isnan(done.greedy_return), done.solved, done.stop_reason) == (True, False, "total_timesteps")
    said = capsys.readouterr()
    assert f"the run is finished, but its greedy episodes were not played to their end ({error.__name__}" in (
        said.out + said.err
    )
    assert "no greedy return" in said.out


class Second(Robot):
    """The environments made after training's `sound` first ones break at their `last`-th reset."""

    made: ClassVar[int] = 0
    sound: ClassVar[int] = 1
    last: ClassVar[int] = 4

    def __init__(self) -> None:
        Second.made += 1
        self.number, self.begun = Second.made, 0

    def reset(self, *, seed: int | None = None, options: Any = None) -> tuple[Any, dict[str, Any]]:
        self.begun += 1
        if self.number > Second.sound and self.begun >= Second.last:
            raise RuntimeError("lost the second robot")
        return super().reset(seed=seed)

    def close(self) -> None:
        if Second.last == 0:
            raise RuntimeError("the brake is stuck")


@pytest.fixture
def second() -> None:
    Second.made, Second.sound, Second.last = 0, 1, 4


@pytest.mark.usefixtures("second")
@pytest.mark.parametrize("settings", [{"eval_every": 64, "eval_episodes": 2}, {"confirm_episodes": 2, "stop_at": 9.5}])
def test_episodes_beside_training_that_fail_do_not_end_it(settings: dict[str, Any], tmp_path: Path) -> None:
    """Two episodes are played once or twice, then the evaluation's environment breaks; training's never does."""
    if "stop_at" in settings:
        Second.last = 2
    whole = TINY | {"total_timesteps": 1280, "final_episodes": 0} | settings
    with pytest.warns(
        UserWarning, match="beside training failed .RuntimeError: lost the second robot; .*; training goes"
    ):
        done = shoal.train(Second, run_dir=str(tmp_path), **whole)
    assert (state_of(done.path)["state"], done.steps, done.stop_reason) == ("finished", 1280, "total_timesteps")
    assert done.mean_return == 10.0


@pytest.mark.usefixtures("second")
def test_a_failing_rank_of_agents_leaves_a_finished_run(tmp_path: Path) -> None:
    """The last checkpoint is written, the first agent kept, and resume ranks them when the robots are well again."""
    Second.sound = 2
    settings = TINY | {"num_envs": 2, "agents": 2, "final_episodes": 1, "population": {"evaluation_episodes": 5}}
    with pytest.warns(UserWarning, match=r"the agents were not ranked|were not played to their end") as told:
        done = shoal.train(Second, run_dir=str(tmp_path), **settings)
    assert "not ranked (RuntimeError: lost the second robot): agent0 is kept" in str(told[0].message)
    assert (state_of(done.path)["state"], done.steps, done.agent) == ("finished", 128, "agent0")
    Second.last = 10**6
    again = shoal.resume(done.path, factory=Second, panel="none")
    assert (again.greedy_return, again.agent) == (10.0, done.agent)


@pytest.mark.usefixtures("second")
def test_an_environment_that_cannot_be_closed_costs_nothing(tmp_path: Path) -> None:
    """The result, its greedy figure and the status are those of a run that was trained to its end."""
    Second.sound, Second.last = 10**6, 0
    with pytest.warns(UserWarning, match="not closed.*the brake is stuck") as told:
        done = shoal.train(Second, run_dir=str(tmp_path), **TINY | {"final_episodes": 3})
    assert len(told) == 2
    assert (state_of(done.path)["state"], done.greedy_return) == ("finished", 10.0)


@pytest.mark.parametrize("settings", [{"eval_every": 64}, {"confirm_episodes": 5, "stop_at": 9.5}])
def test_what_a_second_simulator_is_made_for_is_said(settings: dict[str, Any], tmp_path: Path) -> None:
    with pytest.raises(RuntimeError, match="in use") as caught:
        shoal.train(Robot, run_dir=str(tmp_path), **TINY | settings)
    assert "beside training's own" in caught.value.__notes__[-1]
    assert next(iter(settings)) in caught.value.__notes__[-1]
    assert not list(tmp_path.iterdir())


def test_a_callback_that_cannot_be_closed_costs_nothing(tmp_path: Path) -> None:
    """The others are closed too."""
    closed: list[str] = []

    class Closes:
        def __init__(self, *, fails: bool) -> None:
            self.fails = fails

        def __call__(self, run: Any, record: Any) -> None:
            pass

        def close(self) -> None:
            if self.fails:
                raise OSError("no such window")
            closed.append("closed")

    both: Any = [Closes(fails=True), Closes(fails=False)]
    with pytest.warns(UserWarning, match="the callback Closes was not closed: OSError: no such window"):
        done = shoal.train(Robot, run_dir=str(tmp_path), callbacks=both, **TINY)
    assert (state_of(done.path)["state"], closed) == ("finished", ["closed"])


@pytest.mark.parametrize("squash", [False, True])
def test_wide_actions_are_said_to_need_squash(
    *, squash: bool, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Bounds of 100 are not explored by a Gaussian of width 1; 10 is not wide."""

    class Wide(Robot):
        action_space: ClassVar[Any] = gym.spaces.Box(-100, 10, (1,), np.float32)

    network = Network(hidden=(4,), squash=squash)
    shoal.train(Wide, run_dir=str(tmp_path), **TINY | {"panel": "plain", "network": network})
    said = "actions reach as far as 100, but a policy begins with actions of about -1 to 1; --network.squash"
    assert (said in capsys.readouterr().err) == (not squash)
    assert not wide_actions(gym.spaces.Box(-10, 10, (1,), np.float32))
    nested = gym.spaces.Dict(push=gym.spaces.Box(-11, 1, (1,), np.float32))
    assert wide_actions(nested).startswith("actions['push'] reach as far as 11")


@pytest.mark.parametrize(
    ("low", "high", "told"),
    [
        (5, 9, "actions lie between 5 and 9, but a policy begins with actions of about -1 to 1"),
        (-3, -1, "actions lie between -3 and -1, "),
        (0, 0.001, "actions lie between 0 and 0.001, "),
        ([-1, 2], [1, 4], "actions lie between 2 and 4, "),
        (0, 2, ""),
        (-0.4, 0.4, ""),
    ],
)
def test_actions_that_a_policy_hardly_reaches(low: Any, high: Any, told: str) -> None:
    """Beside -1 to 1, or within so little of it that almost all of what is chosen is clipped to a bound."""
    ends: list[Any] = [np.broadcast_to(np.array(x, np.float32), (2,)) for x in (low, high)]
    said = wide_actions(gym.spaces.Box(*ends, dtype=np.float32))
    assert said.startswith(told)
    assert bool(said) == bool(told)


@pytest.mark.parametrize(("there", "precision"), [(False, "bfloat16"), (True, "bfloat16"), (False, "float32")])
def test_half_precision_is_said_to_be_slow_where_the_cpu_lacks_it(
    *,
    there: bool,
    precision: Literal["float32", "bfloat16"],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    class Pictures(Robot):
        observation_space: ClassVar[Any] = gym.spaces.Box(0, 255, (8, 8, 1), np.uint8)

        def reset(self, *, seed: int | None = None, options: Any = None) -> tuple[Any, dict[str, Any]]:
            super().reset(seed=seed)
            return np.zeros((8, 8, 1), np.uint8), {}

        def step(self, action: int) -> tuple[Any, float, bool, bool, dict[str, Any]]:
            return np.zeros((8, 8, 1), np.uint8), *super().step(action)[1:]

    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: {"avx2": True, "amx_bf16": False, "avx512_bf16": there})
    network = Network(image="impala", precision=precision)
    few = {"num_steps": 4, "total_timesteps": 4, "final_episodes": 1}
    shoal.train(Pictures, run_dir=str(tmp_path), **TINY | few | {"panel": "plain", "network": network})
    said = "the layers for images compute in bfloat16, for which this CPU has no instructions"
    assert (said in capsys.readouterr().err) == (precision == "bfloat16" and not there)
