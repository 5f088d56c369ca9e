"""The policy of a run from its simulator to a system: measured, signed, run beside a controller, taken back."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import shoal
from shoal import cli
from shoal.deploy.stages.criteria import Canary, Criteria, Replay, Shadow, Simulate
from shoal.deploy.stages.weights import reference_of
from shoal.memory.data_file import DataWriter, Episode
from shoal.types import ConfigError

pytest.importorskip("h5py")
TINY: dict[str, Any] = {
    "num_envs": 2,
    "num_steps": 32,
    "num_minibatches": 2,
    "total_timesteps": 128,
    "network": {"hidden": (8,), "normalize_obs": True},
    "panel": "none",
    "final_episodes": 0,
    "stop_at": np.inf,
}
EASY = Criteria(
    Simulate(episodes=4, least_return=1.0),
    Replay(least_gain=-100.0, least_effective_episodes=1.0, gamma=0.9, greedy=False, values=False),
    Shadow(least_episodes=5, least_agreement=0.0, most_distance=1.0),
    Canary(least_episodes=2, most_loss=500.0),
)


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    result = shoal.train("CartPole-v1", algo="ppo", run_dir=tmp_path_factory.mktemp("runs"), **TINY)
    assert result.path is not None
    return result.path


@pytest.fixture
def run(trained: Path, tmp_path: Path) -> Path:
    shutil.copytree(trained, tmp_path / "run")
    return tmp_path / "run"


def record(folder: Path, episodes: int = 24) -> Path:
    """Random episodes of the real system."""
    env = shoal.make_env("CartPole-v1")
    writer = DataWriter(folder, shoal.envs.registry.make("CartPole-v1", 1).spec, {"env_id": "CartPole-v1"})
    rng = np.random.default_rng(1)
    for seed in range(episodes):
        seen, actions, over = [env.reset(seed=seed)[0]], [], False
        while not over:
            actions.append(int(rng.integers(2)))
            obs, _, over, *_ = env.step(actions[-1])
            seen.append(obs)
        ends = np.arange(1, len(actions) + 1) == len(actions)
        likely = np.full(len(actions), np.log(0.5))
        writer.add(Episode(np.stack(seen), np.array(actions), np.ones(len(actions)), ends, ends & False, likely))
    writer.close()
    return folder


def drive(beside: Any, episodes: int) -> Path:
    """A controller that pushes after the pole, with a policy beside it that watches or acts."""
    env = shoal.make_env("CartPole-v1")
    acts = hasattr(beside, "share")
    for seed in range(episodes):
        obs, over = env.reset(seed=seed)[0], False
        while not over:
            wanted = int(obs[2] + 0.3 * obs[3] > 0)
            action = beside.act(obs, wanted) if acts else wanted
            seen, reward, terminated, truncated, _ = env.step(action)
            over = terminated or truncated
            if acts:
                beside.observe(float(reward), done=over)
            else:
                beside.observe(obs, action, float(reward), done=over)
            obs = seen
    beside.close()
    return beside.log.path


def test_from_the_simulator_to_the_system(run: Path, tmp_path: Path) -> None:
    log = record(tmp_path / "log")
    found = shoal.stages(run, criteria=EASY)
    assert found.current is None
    with pytest.raises(ConfigError, match="never entered simulate"):
        found.enter("replay", log)
    assert found.enter("simulate").holds
    with pytest.raises(ConfigError, match="simulate is not signed"):
        found.enter("replay", log)
    found.sign("A. Sato")
    entry = found.enter("replay", log)
    assert entry.holds
    assert len(entry.data) == 64
    assert entry.notes[-1] == "measured by criteria given in Python"
    found.sign("A. Sato")
    with pytest.raises(ConfigError, match=r"may not act on the real system.*it is in replay"):
        found.agent.canary(0.5)
    found.enter("shadow")
    beside = drive(found.agent.shadow(), 6)
    assert found.enter("shadow", beside).holds
    assert "features drifted from all observations of training" in str(found)
    with pytest.raises(ConfigError, match="shadow is not signed"):
        found.enter("canary")
    found.sign("B. Ito")
    found.enter("canary")
    acting = drive(found.agent.canary(0.5, seed=2), 12)
    with pytest.raises(ConfigError, match="log of the stage shadow"):
        found.enter("canary", beside)
    found.enter("canary", acting)
    found.sign("B. Ito")
    with pytest.raises(ConfigError, match="no policy that is deployed"):
        shoal.load(run, tag="deployed")
    found.enter("full")
    found.sign("C. Mori")
    _check_reference(run, tmp_path / "again", found.policy)
    _check_deployed(run, found)


def _check_reference(run: Path, copied: Path, policy: str) -> None:
    """What signed stages were measured by stays, with whatever seed the simulator is entered again; unless damaged."""
    shutil.copytree(run, copied)
    reference = reference_of(copied, policy)
    kept = reference.read_bytes()
    for damaged in (False, True):
        if damaged:
            reference.write_bytes(b"{")
        other = replace(EASY, simulate=Simulate(episodes=4, least_return=1.0, seed=3))
        shoal.stages(copied, criteria=other).enter("simulate")
        assert (reference.read_bytes() == kept) is not damaged


def _check_deployed(run: Path, found: Any) -> None:
    """The policy of before acts on when a later one is withdrawn; its weights outlive the checkpoints."""
    before = {name: value.clone() for name, value in found.agent.policy.state_dict().items()}
    agent = shoal.load(run)
    with torch.no_grad():
        next(iter(agent.policy.parameters())).add_(0.01)
    changed = shoal.stages(agent, criteria=EASY)
    assert changed.current is None
    assert "void for this one" in str(changed)
    with pytest.raises(ConfigError, match="void for this one"):
        changed.enter("replay", "nowhere")
    changed.enter("simulate")
    deployed = shoal.load(run, tag="deployed").policy.state_dict()
    assert all(torch.equal(before[name], deployed[name]) for name in before)
    said = changed.rollback("D. Abe", "it hums")
    assert said.startswith("simulate")
    said = changed.rollback("D. Abe", "it hums still")
    assert said.startswith("full")
    assert found.current.stage == "canary"
    assert "by D. Abe" in str(found)
    with pytest.raises(ConfigError, match="no policy that is deployed"):
        shoal.load(run, tag="deployed")


def test_a_kept_policy_that_is_damaged(run: Path) -> None:
    found = shoal.stages(run, criteria=EASY)
    found.enter("simulate")
    entry = found.current
    assert entry is not None
    from shoal.deploy.stages.weights import file_of, read_kept

    read_kept(run, entry)
    path = file_of(run, entry.policy)
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(data)
    with pytest.raises(ConfigError, match="missing or damaged"):
        read_kept(run, entry)


def test_logs_of_other_spaces(run: Path, tmp_path: Path) -> None:
    found = shoal.stages(run, criteria=EASY)
    found.enter("simulate")
    found.sign("A")
    writer = DataWriter(tmp_path / "other", shoal.envs.registry.make("Acrobot-v1", 1).spec, {})
    writer.close()
    with pytest.raises(ConfigError, match="is not of CartPole-v1"):
        found.enter("replay", tmp_path / "other")
    log = record(tmp_path / "log", 2)
    for replay, said in (
        (Replay(rate_hz=50.0), "does not say its rate, and 50 steps a second are expected"),
        (Replay(units=("m", "m/s", "rad", "rad/s")), "does not say its units, and m, m/s, rad, rad/s are expected"),
    ):
        with pytest.raises(ConfigError, match=said):
            shoal.stages(run, criteria=replace(EASY, replay=replay)).enter("replay", log)
    with pytest.raises(ConfigError, match="--data FOLDER"):
        found.enter("replay")
    with pytest.raises(ConfigError, match="takes no data"):
        found.enter("simulate", tmp_path)
    assert found.current is not None
    assert found.current.signed is not None


def test_command(run: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    criteria = run.parent / "criteria.toml"
    criteria.write_text("[simulate]\nepisodes = 2\nleast_return = 1\n", encoding="utf-8")

    def call(*arguments: str) -> tuple[Any, str]:
        monkeypatch.setattr("sys.argv", ["shoal", "stage", str(run), *arguments])
        with pytest.raises(SystemExit) as ended:
            cli.main()
        said = capsys.readouterr()
        return ended.value.code, said.out + said.err

    assert call()[0] == 0
    assert "nothing to sign" in call("--sign", "A")[1]
    status, said = call("--enter", "moon")
    assert status == 2
    assert "no stage 'moon'" in said
    status, said = call("--enter", "simulate")  # its threshold is that of CartPole-v1
    assert status == 1
    assert "DOES NOT HOLD" in said
    assert call("--sign", "A")[0] == 2
    assert call("--enter", "simulate", "--criteria", str(criteria))[0] == 0
    assert call("--sign", "A\x1b[2J")[0] == 2
    status, said = call("--sign", "<b>A. Sato</b>")
    assert status == 0
    assert "signed by <b>A. Sato</b>" in said
    assert call("--rollback", "B", "--enter", "full", "--reason", "x")[0] == 2
    assert call("--rollback", "B")[0] == 2
    assert call("--data", str(run))[0] == 2
    shutil.rmtree(run / "checkpoints")  # going back needs the file of stages alone
    status, said = call("--rollback", "B. Ito", "--reason", "it shook")
    assert status == 0
    assert "withdrawn: simulate" in said
    (run / "stages.json").write_text("{", encoding="utf-8")
    status, said = call("--rollback", "B. Ito", "--reason", "it shook")
    assert status == 2
    assert "no signature in it counts" in said
