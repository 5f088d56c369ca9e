"""Starting, resuming and loading runs: what is refused and how, and that a configuration reproduces its run."""

from __future__ import annotations

import hashlib
import os
import re
import sys
import tomllib
from pathlib import Path
from typing import TYPE_CHECKING, Any

import gymnasium as gym
import numpy as np
import pytest
import tomli_w
import torch
from torch import nn

import shoal
from shoal.algos.a2c import A2C
from shoal.algos.ppo import PPO
from shoal.experiment import files
from shoal.experiment.experiment import Experiment
from shoal.experiment.options import Options
from shoal.experiment.settings import build, resolve
from shoal.nets.policy import Network
from shoal.run import checkpoint, directory
from shoal.run.directory import RunDirectory, create, find, list_runs, read_toml
from shoal.run.log import Log
from shoal.types import ConfigError

if TYPE_CHECKING:
    from collections.abc import Callable

TINY: Any = {
    "num_envs": 8,
    "num_steps": 16,
    "num_minibatches": 2,
    "update_epochs": 1,
    "total_timesteps": 8 * 16 * 5,
    "stop_at": float("inf"),
    "panel": "none",
}


class OwnPolicy(nn.Module):
    """A plain torch policy for CartPole."""

    def __init__(self, spec: Any) -> None:
        super().__init__()
        self.body = nn.Linear(4, 8)
        self.logits, self.value = nn.Linear(8, 2), nn.Linear(8, 1)

    def forward(self, obs: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        hidden = torch.tanh(self.body(obs))
        return self.logits(hidden), self.value(hidden)


def needs_more(spec: Any, size: int) -> nn.Module:
    """No policy factory: it wants more than the Spec."""
    return nn.Linear(size, 2)


NUMBER = 3


def weights_sha256(path: Path) -> str:
    """The hash of a run's newest weights."""
    found = checkpoint.load(path / "checkpoints")
    assert found is not None
    weights = sorted(found.tree["learner"]["policy"]["networks"]["policy"]["module"].items())
    return hashlib.sha256(b"".join(name.encode() + tensor.numpy().tobytes() for name, tensor in weights)).hexdigest()


@pytest.mark.parametrize(
    ("env", "settings", "told"),
    [
        ("CartPol-v1", {}, "no environment 'CartPol-v1'.*did you mean CartPole-v1"),
        ("CartPole-v1", {"algo": "pp0"}, "no algorithm 'pp0'; did you mean ppo"),
        ("CartPole-v1", {"learning_rat": 1.0}, "no setting 'learning_rat'; did you mean learning_rate"),
        ("CartPole-v1", {"sed": 1}, "no setting 'sed'; did you mean seed"),
        ("CartPole-v1", {"network": {"hiden": [4]}}, "no setting 'hiden'; did you mean hidden"),
        ("CartPole-v1", {"num_envs": "8"}, "num_envs must be a whole number, got '8'"),
        ("CartPole-v1", {"num_envs": 8.5}, "num_envs must be a whole number, got 8.5"),
        ("CartPole-v1", {"num_envs": True}, "num_envs must be a whole number, got True"),
        ("CartPole-v1", {"learning_rate": float("nan")}, "learning_rate must be a number, got nan"),
        ("CartPole-v1", {"learning_rate": float("inf")}, "learning_rate must be finite, got inf"),
        ("CartPole-v1", {"ent_coef": float("-inf")}, "ent_coef must be finite, got -inf"),
        ("CartPole-v1", {"vf_coef": float("inf")}, "vf_coef must be finite, got inf"),
        ("CartPole-v1", {"reward_scale": float("inf")}, "reward_scale must be finite, got inf"),
        ("CartPole-v1", {"norm_adv": 1}, "norm_adv must be true or false, got 1"),
        (
            "CartPole-v1",
            {"learning_rate_schedule": "step"},
            "learning_rate_schedule must be one of constant, linear, cosine, kl, .* got 'step'",
        ),
        ("CartPole-v1", {"anneal": "linear"}, "anneal is called learning_rate_schedule now"),
        ("CartPole-v1", {"network": {"hidden": 64}}, "hidden must be a list, got 64"),
        ("CartPole-v1", {"num_minibatches": 7}, "num_minibatches=4 would"),
        ("CartPole-v1", {"num_envs": 0}, "must be >= 1"),
        ("CartPole-v1", {"preset": "pac"}, "ppo has no preset 'pac'; it has CartPole-v1"),
        ("CartPole-v1", {"config": A2C()}, "ppo needs a config of type PPO, or .*, got A2C"),
        ("CartPole-v1", {"seed": -1}, "seed must be a whole number from 0 to"),
        ("CartPole-v1", {"num_threads": -1}, "num_threads must be at least 1"),
        ("CartPole-v1", {"eval_every": -5}, "eval_every must be at least 0"),
        ("CartPole-v1", {"confirm_episodes": -1}, "confirm_episodes must be >= 0"),
        ("CartPole-v1", {"backend": "nativ"}, "unknown backend 'nativ'"),
        ("CartPole-v1", {"track": "neptune"}, "track must be one of none, wandb, trackio, mlflow, got 'neptune'"),
        ("CartPole-v1", {"device": "gpu"}, "no device 'gpu'; use cpu, cuda or cuda:1"),
        ("CartPole-v1", {"device": "meta"}, "shoal trains on cpu or cuda, not on 'meta'"),
        ("CartPole-v1", {"device": "cuda:99"}, "device='cuda:99', but"),
        ("CartPole-v1", {"panel": "fancy"}, "no panel 'fancy'"),
        ("CartPole-v1", {"name": "a/b"}, "a run's name is made of letters"),
        ("CartPole-v1", {"name": ".."}, "a run's name is made of letters"),
        ("CartPole-v1", {"policy": "nowhere.such:Policy"}, "no module 'nowhere'"),
        ("CartPole-v1", {"policy": "own.py:OwnPolicy"}, "not by its file; write own:OwnPolicy"),
        ("CartPole-v1", {"policy": f"{__name__}.py"}, "a policy is named package.module:Class"),
        ("CartPole-v1", {"policy": "MlpPolicy"}, "leave out policy='MlpPolicy'"),
        ("CartPole-v1", {"policy": "own:OwnPolic"}, "has no 'OwnPolic'; did you mean.*OwnPolicy"),
        ("CartPole-v1", {"policy": "own:NUMBER"}, "3 is neither a torch.nn.Module nor a function of the Spec"),
        ("CartPole-v1", {"policy": "own:needs_more"}, "needs_more is called with the Spec alone, but .*'size'"),
        ("CartPole-v1", {"policy": lambda spec: 3}, "the policy factory returned int, expected a torch.nn.Module"),
        ("Pendulum-v1", {"policy": "own:OwnPolicy"}, "the policy gave shapes|mat1 and mat2"),
        ("CartPole-v1", {"env_kwargs": {"gravity": object()}}, "gravity|cannot hold"),
        (lambda: 3, {}, "returned int, expected a gymnasium.Env"),
    ],
)
def test_mistakes_leave_nothing(
    env: Any, settings: dict[str, Any], told: str, run_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each mistake has its message, and there is no run directory afterwards."""
    monkeypatch.setitem(sys.modules, "own", sys.modules[__name__])
    with pytest.raises((ConfigError, RuntimeError), match=told):
        shoal.train(env, run_dir=run_dir, **TINY | settings)
    assert not run_dir.exists() or not list(run_dir.iterdir())


def test_no_cuda_device(run_dir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without a GPU, the error says that torch finds none, and what to do."""
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 0)
    with pytest.raises(ConfigError, match="finds no CUDA device here; use device='cpu'"):
        shoal.train("CartPole-v1", device="cuda", run_dir=run_dir)
    assert not run_dir.exists()


def test_missing_tracker_leaves_nothing(run_dir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A tracker that is not installed is refused after the directory was made; it is gone again."""
    monkeypatch.setitem(sys.modules, "trackio", None)
    with pytest.raises(ConfigError, match=r"pip install 'shoal-rl\[trackio\]'"):
        shoal.train("CartPole-v1", run_dir=run_dir, track="trackio", **TINY)
    assert not run_dir.exists()


def test_configuration_reproduces_the_run(run_dir: Path, tmp_path: Path) -> None:
    """A run started from the config.toml of another has the same configuration and, bit for bit, the same weights."""
    network = {"hidden": [32, 16], "normalize_obs": True}
    settings: Any = TINY | {
        "target_kl": 0.5,
        "network": network,
        "env_kwargs": {"sutton_barto_reward": True},
        "seed": 5,
    }
    first = shoal.train("CartPole-v1", run_dir=run_dir, **settings)
    saved = RunDirectory(first.path).read_config()
    assert saved["stop_at"] == float("inf")
    assert saved["env_kwargs"] == {"sutton_barto_reward": True}
    assert saved["algorithm"]["network"]["hidden"] == [32, 16]
    again = files.start_from(saved | {"run_dir": str(tmp_path / "again")}, panel="none")
    assert weights_sha256(again.path) == weights_sha256(first.path)
    assert again.greedy_return == first.greedy_return
    assert RunDirectory(again.path).read_config() == saved | {"run_dir": str(tmp_path / "again")}
    other = files.start_from(saved | {"seed": 6}, panel="none")
    assert weights_sha256(other.path) != weights_sha256(first.path)


@pytest.mark.parametrize(
    "config", [PPO(target_kl=0.1), PPO(network=Network(recurrent="lstm")), A2C(learning_rate_schedule="constant")]
)
def test_toml_round_trip(config: Any) -> None:
    """Options and config come back equal from TOML, infinity and missing values included."""
    algo = type(config).__name__.lower()
    for stop_at in (None, float("inf"), -120.5):
        settings: Any = {"stop_at": stop_at, "num_threads": 2, "eval_every": 10, "name": "x", "native": False}
        env_kwargs = {"a": [1, {"b": 2}]}
        started = Experiment.new("a:b", algo=algo, config=config, env_kwargs=env_kwargs, settings=settings)
        text = tomli_w.dumps(started.to_file())
        read = Experiment.of_file(tomllib.loads(text), named=["env"])
        assert (read.algorithm, read.options, read.config) == (started.algorithm, started.options, config)
        assert (read.source, read.env_kwargs) == ("a:b", env_kwargs)


def test_own_configuration() -> None:
    """One's own file may leave things out; a preset that it names fills them; mistakes have their nearest names."""
    own = Experiment.of_file({"env": "X", "algo": "a2c", "preset": "paac", "num_envs": 4})
    assert (own.options.env, own.options.num_envs) == ("X", 4)
    assert (own.config.learning_rate, own.config.max_grad_norm) == (0.0224, 40.0)
    assert Experiment.of_file({"env": "CartPole-v1"}).config == PPO()
    for saved, told in (
        ({"env": "X", "algoritm": {}}, r"algoritm.*did you mean.*algo"),
        ({"algo": "ppo"}, "names no env"),
        ({"env": 3}, "env must be a string, got 3"),
        ({"env": "X", "num_envs": [8]}, "num_envs must be a whole number"),
        ({"env": "X", "algorithm": {"gamma": "high"}}, "gamma must be a number"),
        ({"env": "X", "algorithm": {"gama": 0.9}}, "no setting 'gama'; did you mean.*gamma"),
    ):
        with pytest.raises(ConfigError, match=told):
            Experiment.of_file(saved)


def test_nested_settings_start_from_the_preset(run_dir: Path) -> None:
    """One setting of the network keeps the preset's others; numbers of any kind are taken."""
    base = PPO(network=Network(normalize_obs=True, log_std_init=0.5))
    built = build(PPO, {"network": {"hidden": [8]}, "num_steps": np.int64(24), "learning_rate": 1}, base=base)
    assert built.network == Network(hidden=(8,), normalize_obs=True, log_std_init=0.5)
    assert (type(built.num_steps), type(built.learning_rate)) == (int, float)
    assert build(Options, {"env": "X", "run_dir": run_dir}).run_dir == str(run_dir)


def test_later_layers_win() -> None:
    """Defaults of the algorithm, a preset, a file, what was given; nested settings are merged name by name."""
    preset = {"num_envs": 8, "gamma": 0.9, "network": {"hidden": [8], "normalize_obs": True}}
    file = {"gamma": 0.8, "network": {"hidden": [4]}, "self_play": {"every": 3}}
    layers = ({"num_envs": 32, "env": "X"}, preset, file, {"self_play": {"pool": 5}, "num_steps": 7})
    options, config = resolve(Options, PPO, *layers)
    assert (options.num_envs, options.self_play.every, options.self_play.pool) == (8, 3, 5)
    assert (config.gamma, config.num_steps) == (0.8, 7)
    assert config.network == Network(hidden=(4,), normalize_obs=True)


def test_finished_run_ends_at_once(run_dir: Path) -> None:
    """Resuming a finished run trains nothing and quotes the same figure."""
    done = shoal.train("CartPole-v1", run_dir=run_dir, **TINY)
    lines = (done.path / "metrics.jsonl").read_bytes()
    again = shoal.resume(done.path, panel="none")
    assert (again.greedy_return, again.steps, again.stop_reason) == (done.greedy_return, 640, "total_timesteps")
    assert (done.path / "metrics.jsonl").read_bytes() == lines
    assert RunDirectory(done.path).read_status()["state"] == "finished"


def test_resume_goes_further(run_dir: Path) -> None:
    """A finished run with more total_timesteps equals a run that had them from the start, where nothing is annealed."""
    short = shoal.train("CartPole-v1", run_dir=run_dir, name="short", **TINY)
    long = shoal.train("CartPole-v1", run_dir=run_dir, name="long", **TINY | {"total_timesteps": 8 * 16 * 9})
    resumed = shoal.resume(short.path, panel="none", total_timesteps=8 * 16 * 9)
    assert resumed.steps == 8 * 16 * 9
    assert weights_sha256(short.path) == weights_sha256(long.path)
    assert RunDirectory(short.path).read_config() == RunDirectory(long.path).read_config() | {"name": "short"}
    stopped = shoal.resume(short.path, panel="none", total_timesteps=10**6, stop_at=5)
    assert stopped.stop_reason.endswith("reached 5")
    assert resumed.steps <= stopped.steps < 10**6
    assert shoal.resume(short.path, panel="none").steps == stopped.steps


@pytest.mark.parametrize("change", [{"num_envs": 16}, {"learning_rate": 1.0}, {"seed": 2}, {"nonsense": 1}])
def test_resume_changes_nothing_else(run_dir: Path, change: dict[str, Any]) -> None:
    """What was learned with cannot be changed in the middle; the message lists what can."""
    path = shoal.train("CartPole-v1", run_dir=run_dir, **TINY).path
    with pytest.raises(
        ConfigError, match=f"resume cannot change '{next(iter(change))}', only total_timesteps, stop_at"
    ):
        shoal.resume(path, panel="none", **change)


def test_resume_beside_itself(run_dir: Path) -> None:
    """A run that another process trains is refused, and its status is left alone."""
    path = shoal.train("CartPole-v1", run_dir=run_dir, **TINY).path
    log = Log(path / "metrics.jsonl", [])
    before = RunDirectory(path).read_status()
    with pytest.raises(ConfigError, match="another process trains in"):
        shoal.resume(path, panel="none")
    log.close()
    assert RunDirectory(path).read_status() == before


def test_damaged_checkpoint_is_said_aloud(run_dir: Path) -> None:
    """Resume and load pass over a damaged newest checkpoint, say so, and end with the same weights."""
    path = shoal.train("CartPole-v1", run_dir=run_dir, **TINY).path
    whole = weights_sha256(path)
    newest = checkpoint.files_of(path / "checkpoints" / "0000000005.json")[0]
    newest.write_bytes(newest.read_bytes()[:-1] + b"?")
    with pytest.warns(UserWarning, match="0000000005.json is damaged .*using the one before"):
        shoal.load(path)
    with pytest.warns(UserWarning, match=r"0000000005.json is damaged"):
        shoal.resume(path, panel="none")
    assert weights_sha256(path) == whole
    for damaged in (path / "checkpoints").glob("*.safetensors"):
        damaged.write_bytes(b"")
    for attempt in (lambda: shoal.load(path), lambda: shoal.resume(path, panel="none")):
        with pytest.raises(ConfigError, match=r"is whole: .*train again"):
            attempt()
    assert path.exists()


def test_policies_of_ones_own(run_dir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A policy given by name is found again; one given as an object is asked for."""
    monkeypatch.setitem(sys.modules, "own", sys.modules[__name__])
    named = shoal.train("CartPole-v1", run_dir=run_dir, policy="own:OwnPolicy", **TINY)
    assert shoal.load(named.path).act(np.zeros(4)) in (0, 1)
    assert shoal.resume(named.path, panel="none").greedy_return == named.greedy_return
    given = shoal.train("CartPole-v1", run_dir=run_dir, name="given", policy=OwnPolicy(None), **TINY)
    before = RunDirectory(given.path).read_status()
    for attempt in (lambda: shoal.load(given.path), lambda: shoal.resume(given.path, panel="none")):
        with pytest.raises(ConfigError, match=r"its policy, OwnPolicy\(...\), as an object, which no file holds"):
            attempt()
    assert RunDirectory(given.path).read_status() == before
    assert shoal.load(given.path, policy=OwnPolicy).act(np.zeros(4)) in (0, 1)


def test_environment_given_as_a_callable(run_dir: Path) -> None:
    """Without the callable, the error says to pass it again; with it, the run is resumed."""
    make: Callable[[], Any] = lambda: gym.make("CartPole-v1")  # noqa: E731
    path = shoal.train(make, run_dir=run_dir, **TINY).path
    assert path.parent.parent.name == "_lambda_"
    for attempt in (lambda: shoal.load(path), lambda: shoal.resume(path, panel="none")):
        with pytest.raises(ConfigError, match=r"its environment, YOURS, .*factory=YOURS.*--env MODULE:YOURS"):
            attempt()
    assert shoal.resume(path, panel="none", factory=make).steps == 640
    assert shoal.load(path, factory=make).act(np.zeros(4)) in (0, 1)


def test_act(run_dir: Path) -> None:
    """One observation gives one action, a batch gives as many; the same ones; what cannot be is refused."""
    loaded = shoal.load(shoal.train("CartPole-v1", run_dir=run_dir, **TINY).path)
    obs = np.random.default_rng(0).uniform(-1, 1, (6, 4))
    batch = loaded.act(obs)
    assert batch.shape == (6,)
    assert batch.dtype == np.int64
    assert [int(loaded.act(one)) for one in obs] == batch.tolist()
    assert loaded.act(obs[0].tolist()) == batch[0]
    assert loaded.act(torch.as_tensor(obs, dtype=torch.float32)).tolist() == batch.tolist()
    for wrong, told in (
        (np.zeros(3), r"expected an observation \(4,\) or \[N, ...\], got \(3,\)"),
        (np.zeros((2, 2, 4)), r"got \(2, 2, 4\)"),
        (np.zeros((0, 4)), r"got \(0, 4\)"),
        (np.array([0, 0, np.nan, 0]), "not finite"),
        (["a", "b", "c", "d"], "expected an observation of type float32"),
    ):
        with pytest.raises(ValueError, match=told):
            loaded.act(wrong)
    seeds: list[Any] = [-1, 1.5]
    for seed in seeds:
        with pytest.raises(ConfigError, match="seed must be a whole number from 0 to"):
            loaded.evaluate(episodes=1, seed=seed)
    with pytest.raises(ConfigError, match=r'tag must be "" .* "best" or "deployed"'):
        shoal.load(run_dir, tag="newest")
    with pytest.raises(
        ConfigError, match=r"no best checkpoint yet: one is written once 100 episodes .* without the tag"
    ):
        shoal.load(run_dir, tag="best")


def test_act_with_memory(run_dir: Path) -> None:
    """A recurrent policy remembers until `reset` or `start`; rows of a batch remember apart."""
    settings: Any = TINY | {"network": {"recurrent": "gru"}, "num_minibatches": 1}
    loaded = shoal.load(shoal.train("CartPole-v1", run_dir=run_dir, **settings).path)
    obs = np.random.default_rng(0).uniform(-1, 1, (5, 3, 4))

    def logits(step: int) -> Any:
        loaded.act(obs[step])
        assert loaded._actor is not None
        return loaded._actor.state.clone()

    first = [logits(t) for t in range(5)]
    assert not torch.equal(logits(0), first[0])
    loaded.reset()
    assert all(torch.equal(logits(t), first[t]) for t in range(5))
    loaded.act(obs[0], start=[True, False, True])
    assert loaded._actor is not None
    mixed = loaded._actor.state
    assert torch.equal(mixed[[0, 2]], first[0][[0, 2]])
    assert not torch.equal(mixed[1], first[0][1])


@pytest.mark.usefixtures("all_greedy_episodes")
def test_loaded_evaluation(run_dir: Path) -> None:
    """The seed of the run gives the figure of the run; another seed plays others; no episodes are refused."""
    done = shoal.train("CartPole-v1", run_dir=run_dir, **TINY)
    loaded = shoal.load(done.path)
    assert loaded.evaluate(seed=1).mean == done.greedy_return
    assert len(loaded.evaluate(episodes=7, seed=2).returns) == 7
    with pytest.raises(ConfigError, match="episodes must be a whole number from 1 to"):
        loaded.evaluate(episodes=0)


def test_names_that_are_taken(run_dir: Path) -> None:
    """A second run of a name gets a number, and the first is as it was."""
    told: Any = {"env": "a b:c", "algo": "ppo", "seed": 1, "name": "x"}
    paths = [create(run_dir, config={"seed": number}, **told).path for number in range(3)]
    assert [path.relative_to(run_dir) for path in paths] == [Path("a_b_c/ppo") / n for n in ("x", "x-1", "x-2")]
    assert [RunDirectory(path).read_config()["seed"] for path in paths] == [0, 1, 2]
    assert not list(run_dir.glob("*/*/.*"))
    unnamed = create(run_dir, config={}, **told | {"name": None}).path.name
    assert unnamed.endswith("-1")


def test_run_directory_appears_whole(run_dir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where writing the configuration fails, nothing is there: no draft, no run."""

    def fail(path: Path, data: bytes) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(directory, "write_atomic", fail)
    with pytest.raises(OSError, match="No space left"):
        create(run_dir, env="E", algo="a", seed=1, name=None, config={})
    assert list_runs(run_dir) == []
    assert not list(run_dir.glob("*/*/*"))
    assert not list(run_dir.glob("*/*/.*"))


def test_find(run_dir: Path, tmp_path: Path) -> None:
    """A run by its path, by its path below the runs' folder, or the newest of a folder; drafts are no runs."""
    told: Any = {"env": "E", "algo": "a", "seed": 1, "config": {}}
    first, second = (create(run_dir, name=name, **told).path for name in ("b", "a"))
    (run_dir / "E" / "a" / ".c.1").mkdir()
    (run_dir / "E" / "a" / ".c.1" / "config.toml").touch()
    assert find(first, run_dir).path == first
    assert find("E/a/b", run_dir).path == first
    assert find("E", run_dir).path == find(run_dir, tmp_path).path == second
    with pytest.raises(ConfigError, match="no run at nowhere; `shoal runs` lists them"):
        find("nowhere", run_dir)
    with pytest.raises(ConfigError, match=r"has no whole checkpoint yet|names no env"):
        shoal.load(first)


def test_damaged_files(tmp_path: Path) -> None:
    """TOML that is none, or a status that is none, is refused by name."""
    bad = tmp_path / "config.toml"
    for data in (b"a = ", b"\xff"):
        bad.write_bytes(data)
        with pytest.raises(ConfigError, match=r"config\.toml is not TOML"):
            read_toml(bad)
    with pytest.raises(ConfigError, match=r"no file .*missing\.toml"):
        read_toml(tmp_path / "missing.toml")
    run = RunDirectory(tmp_path)
    assert run.read_status() == {}
    for text in ('{"state"', "[1]", ""):
        run.status.write_text(text)
        with pytest.raises(ConfigError, match=re.escape(f"{run.status} is damaged; delete it")):
            run.read_status()


class Mover(gym.Env[Any, Any]):
    """Goes to another folder in its first step."""

    observation_space = gym.spaces.Box(-1, 1, (1,), np.float32)
    action_space = gym.spaces.Discrete(2)

    def __init__(self, to: str) -> None:
        self.to = to

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> Any:
        super().reset(seed=seed)
        return np.zeros(1, np.float32), {}

    def step(self, action: int) -> Any:
        os.chdir(self.to)
        return np.zeros(1, np.float32), 1.0, bool(self.np_random.random() < 0.2), False, {}


@pytest.mark.usefixtures("few_greedy_episodes")
def test_an_environment_may_change_folders(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A run's relative directory stays where it was, at the start and when the run is resumed."""
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path)
    made = {"to": str(tmp_path / "elsewhere")}
    small: Any = {"num_envs": 2, "num_steps": 16, "num_minibatches": 1, "update_epochs": 1, "panel": "none"}
    result = shoal.train(Mover, env_kwargs=made, run_dir="runs", total_timesteps=96, stop_at=float("inf"), **small)
    assert result.path.is_relative_to(tmp_path / "runs")
    os.chdir(tmp_path)
    place = result.path.relative_to(tmp_path)
    more = shoal.resume(str(place), total_timesteps=160, factory=Mover, panel="none")
    assert (more.path, more.steps) == (result.path, 160)
    assert list((tmp_path / "elsewhere").iterdir()) == []
