"""A run's policy where it is used: exported, served, and evaluated from a log, by Python and by the command line."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import torch

import shoal
from shoal import cli
from shoal.deploy.offline import FITTED, GO_BY, Asked, OfflineScore
from shoal.experiment.agent import Agent
from shoal.math.off_policy_evaluation import Estimate
from shoal.types import ConfigError
from tests.deploy.compiled import Compiled

if TYPE_CHECKING:
    from collections.abc import Callable


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A short run with a recurrent policy."""
    result = shoal.train(
        "CartPole-v1",
        algo="ppo",
        num_envs=8,
        num_steps=16,
        total_timesteps=2_048,
        network={"recurrent": "gru", "recurrent_size": 8, "hidden": [16]},
        run_dir=str(tmp_path_factory.mktemp("runs")),
        panel="none",
        final_episodes=2,
    )
    assert result.path is not None
    return str(result.path)


@pytest.fixture
def agent(run: str) -> Agent:
    return shoal.load(run)


@pytest.fixture
def command(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> Callable[..., Any]:
    """Runs a command in this process, in an empty folder: exit status, stdout, stderr."""
    monkeypatch.chdir(tmp_path)

    def call(*arguments: str) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["shoal", *arguments])
        with pytest.raises(SystemExit) as ended:
            cli.main()
        said = capsys.readouterr()
        assert isinstance(ended.value.code, int)
        return ended.value.code, said.out, said.err

    return call


def played(agent: Agent, count: int) -> np.ndarray:
    """Observations like those of episodes."""
    return np.random.default_rng(0).normal(0, 0.3, (count, 4)).astype(np.float32)


def test_a_c_library_acts_as_the_agent(agent: Agent, tmp_path: Path) -> None:
    made = agent.export(tmp_path / "cart", to="c", name="cart")
    library = Compiled(made.folder, agent.spec, prefix="cart")
    obs, state = played(agent, 500), library.state(500)
    agent.reset()
    for _ in range(4):
        status, action = library.step(obs, 500, state=state)
        assert status == 0
        np.testing.assert_array_equal(action, agent.act(obs))
    said = json.loads((made.folder / "spec.json").read_text())
    assert said["run"]
    assert (said["env"], said["algo"], said["kind"]) == ("CartPole-v1", "ppo", "c")
    assert said["spec_sha256"] == made.spec_sha256


def test_the_agent_remembers_where_actions_are_masked(agent: Agent) -> None:
    obs, mask = played(agent, 50), [np.ones(2, np.bool_)] * 50
    remembered: list[Any] = []
    for masks in (None, mask):
        agent.reset()
        for _ in range(4):
            agent.act(obs, action_mask=masks)
        assert agent._actor is not None
        remembered.append(agent._actor.state.clone())
    torch.testing.assert_close(*remembered, rtol=0, atol=1e-6)
    agent.reset()
    agent.act(obs)
    assert not torch.allclose(agent._actor.state, remembered[0], atol=1e-3)


def test_a_server_acts_as_the_agent(agent: Agent) -> None:
    obs = played(agent, 50)
    agent.reset()
    with agent.serve() as server, shoal.remote_policy(server.name, spec=agent.spec) as client:
        for _ in range(4):
            np.testing.assert_array_equal(client.act(obs), agent.act(obs))


@pytest.mark.slow
def test_a_log_of_its_own_draws(agent: Agent, tmp_path: Path) -> None:
    agent.record(tmp_path / "log", episodes=40, greedy=False)
    log = tmp_path / "log"
    own = shoal.evaluate_offline(agent, log, gamma=0.9, greedy=False)
    by_name = {one.method: one for one in own.estimates}
    weighted = by_name["weighted importance sampling"]
    assert weighted.mean == pytest.approx(own.logged.mean, rel=1e-3)
    assert weighted.effective_episodes == pytest.approx(40, rel=1e-3)
    assert by_name["weighted doubly robust"].mean == pytest.approx(own.logged.mean, rel=0.1)
    assert own.logged.mean == pytest.approx(10 * (1 - 0.9**20), abs=1.5)
    told = shoal.evaluate_offline(agent, log, behavior=agent, gamma=0.9, greedy=False)
    assert told.best.mean == pytest.approx(own.best.mean, rel=0.01)
    greedy = shoal.evaluate_offline(agent, log, asked=Asked(values=False))
    assert greedy.gamma == 0.99
    assert len(greedy.estimates) == 2
    assert greedy.estimates[0].effective_episodes < 40


def test_logs_of_another_world_are_refused(agent: Agent, tmp_path: Path) -> None:
    agent.record(tmp_path / "log", episodes=4, greedy=False)
    file = tmp_path / "log" / "data" / "metadata.json"
    about = json.loads(file.read_text())
    with pytest.raises(ConfigError, match="does not say its rate"):
        shoal.evaluate_offline(agent, tmp_path / "log", rate_hz=50)
    file.write_text(json.dumps({**about, "rate_hz": 50}))
    shoal.evaluate_offline(agent, tmp_path / "log", rate_hz=50)
    with pytest.raises(ConfigError, match="has 50 steps a second, and the policy acts 20 times"):
        shoal.evaluate_offline(agent, tmp_path / "log", rate_hz=20)
    with pytest.raises(ConfigError, match="does not say its units"):
        shoal.evaluate_offline(agent, tmp_path / "log", units=["m", "m/s", "rad", "rad/s"])
    file.write_text(json.dumps({**about, "units": ["m", "m/s", "deg", "deg/s"]}))
    with pytest.raises(ConfigError, match=r"in m, m/s, deg, deg/s, and the policy was trained in m, m/s, rad, rad/s"):
        shoal.evaluate_offline(agent, tmp_path / "log", units=["m", "m/s", "rad", "rad/s"])
    file.write_text(json.dumps({**about, "env_id": "Acrobot-v1"}))
    with pytest.raises(ConfigError, match="is a log of Acrobot-v1, and the policy acts in CartPole-v1"):
        shoal.evaluate_offline(agent, tmp_path / "log")
    file.write_text(json.dumps({**about, "observation_space": about["action_space"]}))
    with pytest.raises(ConfigError, match="is not of CartPole-v1: its observation space has"):
        shoal.evaluate_offline(agent, tmp_path / "log")
    with pytest.raises(ConfigError, match="no data set at"):
        shoal.evaluate_offline(agent, tmp_path / "nothing")


@pytest.mark.slow
def test_greedy_logs_say_no_probabilities(agent: Agent, tmp_path: Path) -> None:
    agent.record(tmp_path / "log", episodes=6)
    score = shoal.evaluate_offline(agent, tmp_path / "log")
    assert [one.method for one in score.estimates] == ["fitted Q evaluation"]
    assert "does not say how likely its actions were" in score.warnings[0]
    with pytest.raises(
        ConfigError, match=r"leave out asked=Asked\(values=False\) of shoal.deploy.offline, `--no-values`"
    ):
        shoal.evaluate_offline(agent, tmp_path / "log", asked=Asked(values=False))


@pytest.mark.slow
def test_commands(run: str, agent: Agent, command: Callable[..., Any], tmp_path: Path) -> None:
    status, out, err = command("export", run, "--to", "c", "--out", str(tmp_path / "c"))
    assert (status, err) == (0, "")
    assert "policy.c, policy_layers.h, policy_weights.h, example.c, Makefile, spec.json" in out
    status, _, err = command("export", run, "--to", "c", "--out", str(tmp_path / "c"))
    assert status == 2
    assert "is there already" in err
    (tmp_path / "link").symlink_to(tmp_path / "nowhere")
    with pytest.raises(ConfigError, match="is there already"):
        agent.export(tmp_path / "link", to="c")
    with pytest.raises(ConfigError, match="nested cannot be made: File exists; name a folder"):
        agent.export(tmp_path / "c" / "policy.c" / "nested", to="c")
    agent.record(tmp_path / "log", episodes=6, greedy=False)
    status, out, err = command("evaluate-offline", run, str(tmp_path / "log"), "--sample")
    assert (status, err) == (0, "")
    assert "per-decision weighted importance sampling: " in out
    assert "go by" in out


@pytest.mark.slow
def test_serve_policy_until_it_is_ended(run: str, agent: Agent) -> None:
    call = [sys.executable, "-m", "shoal", "serve-policy", run, "--listen", "127.0.0.1:0"]
    with subprocess.Popen(call, stdout=subprocess.PIPE, text=True) as server:
        try:
            assert server.stdout is not None
            said = server.stdout.readline()
            address = said.split('"')[1]
            with shoal.remote_policy(address, spec=agent.spec) as client:
                assert client.act(played(agent, 3)).shape == (3,)
        finally:
            server.terminate()
        assert server.wait(10) == 0


def test_an_estimate_of_too_few_episodes_is_not_to_go_by() -> None:
    def score(*estimates: Estimate) -> OfflineScore:
        return OfflineScore(estimates, estimates[0], 30, 0.9, ())

    few, enough = (Estimate(GO_BY, 1.0, 0.5, 1.5, 0.95, count) for count in (0.1, 25.0))
    fitted = Estimate(FITTED, 2.0, 1.5, 2.5, 0.95, 30)
    assert not score(few).reliable
    assert score(enough).reliable
    assert score(few, fitted).reliable
    assert score(few, fitted).best is fitted
