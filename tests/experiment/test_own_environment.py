"""An environment of one's own, with costs and names: both reach evaluation, stages, explanation and report."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import gymnasium as gym
import numpy as np
import pytest
from gymnasium import spaces

import shoal
from shoal import cli
from shoal.deploy.stages.criteria import Criteria, Replay, Simulate
from shoal.deploy.stages.drift import Reference
from shoal.deploy.stages.weights import reference_of
from shoal.report.signed.gather import gather
from shoal.report.signed.sections import summary, task
from shoal.report.signed.words import Words
from shoal.run.directory import RunDirectory
from shoal.run.log import read
from shoal.types import ConfigError

if TYPE_CHECKING:
    from pathlib import Path

pytest.importorskip("h5py")
SETTINGS: dict[str, Any] = {
    "algo": "ppo_lagrangian",
    "cost_limit": 5.0,
    "preprocessing": {"cost_key": "cost"},
    "num_envs": 2,
    "num_steps": 32,
    "num_minibatches": 2,
    "update_epochs": 1,
    "total_timesteps": 128,
    "eval_every": 64,
    "eval_episodes": 2,
    "final_episodes": 4,
    "network": {"hidden": (8,)},
    "num_threads": 1,
    "panel": "none",
    "stop_at": np.inf,
}


class Tank(gym.Env[Any, Any]):
    """Step t of an episode of three costs t; to pump is worth 1."""

    metadata = {"feature_names": ["level", "inflow"], "action_names": ["wait", "pump"]}  # noqa: RUF012
    observation_space = spaces.Box(-9, 9, (2,), np.float32)
    action_space = spaces.Discrete(2)

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> Any:
        super().reset(seed=seed)
        self.steps = 0
        return self._look(), {}

    def step(self, action: Any) -> Any:
        self.steps += 1
        return self._look(), float(action), False, self.steps == 3, {"cost": float(self.steps)}

    def _look(self) -> Any:
        return self.np_random.normal(size=2).astype(np.float32)


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return shoal.train(Tank, run_dir=tmp_path_factory.mktemp("runs"), **SETTINGS).path


def test_costs_stand_beside_returns(
    run: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    status = json.loads((run / "run.json").read_text(encoding="utf-8"))
    assert [status[f"greedy_cost{part}"] for part in ("", "_std", "_worst")] == [6.0, 0.0, 6.0]
    lines = read(run / "metrics.jsonl")
    assert {line["eval/cost_worst"] for line in lines if "eval/return" in line} == {6.0}
    monkeypatch.setattr("sys.argv", ["shoal", "eval", str(run), "--env", f"{__name__}:Tank", "--episodes", "3"])
    with pytest.raises(SystemExit) as left:
        cli.main()
    assert left.value.code == 0
    said = "mean cost 6, standard deviation 0, worst 6 (limit 5 on the mean missed; 3 of 3 episodes are above it)"
    assert said in capsys.readouterr().out
    told, words = gather([RunDirectory(run)]), Words()
    assert "The limit of 5 on the mean cost of an episode was kept by 0 of 1 runs" in str(summary(told, words))
    assert "('limit on the mean cost of an episode', '5')" in str(task(told, words))


def test_a_limit_holds_in_stages(run: Path, tmp_path: Path) -> None:
    """Without a criterion the limit that was learned under counts; estimates of costs need them in the log."""
    agent = shoal.load(run, factory=Tank)
    wanted = Criteria(simulate=Simulate(episodes=4, least_return=0.0))
    entry = shoal.stages(agent, criteria=wanted).enter("simulate")
    assert [(one.name, one.holds) for one in entry.criteria] == [("greedy_return", True), ("greedy_cost", False)]
    replay = Replay(gamma=0.9, greedy=False, values=False, least_gain=-9.0)
    wanted = Criteria(Simulate(episodes=4, least_return=0.0, most_cost=6.0), replay)
    stages = shoal.stages(agent, criteria=wanted)
    assert stages.enter("simulate").holds
    stages.sign("A. Sato")
    reference = Reference.read(reference_of(run, stages.policy))
    assert reference is not None
    assert reference.names == ("level", "inflow")
    recorded = agent.record(tmp_path / "log", episodes=30, greedy=False)
    assert recorded.mean_cost == 6.0
    log = recorded.path
    for criteria, holds in ((replay, False), (replace(replay, most_cost=6.5), True)):
        entry = shoal.stages(agent, criteria=replace(wanted, replay=criteria)).enter("replay", log)
        cost = next(one for one in entry.criteria if one.name == "upper_bound_of_the_estimated_cost")
        assert (round(cost.measured, 6), cost.holds) == (6.0, holds)


def test_criteria_of_costs_where_there_are_none(tmp_path: Path) -> None:
    settings: dict[str, Any] = SETTINGS | {"algo": "ppo", "final_episodes": 0}
    for name in ("cost_limit", "preprocessing", "eval_every", "eval_episodes"):
        del settings[name]
    free = shoal.train(Tank, run_dir=tmp_path, **settings)
    agent = shoal.load(free.path, factory=Tank)
    with pytest.raises(ConfigError, match=r"simulate.most_cost is of costs, and the steps of Tank have none"):
        shoal.stages(agent, criteria=Criteria(simulate=Simulate(most_cost=1.0)))
