"""Settings that do not apply are refused by name; defaults, presets and what a run's own file holds are not."""

from __future__ import annotations

import threading
from dataclasses import dataclass, field
from types import ModuleType
from typing import TYPE_CHECKING, Any

import gymnasium as gym
import numpy as np
import pytest
import torch
from gymnasium.vector import AsyncVectorEnv, SyncVectorEnv
from gymnasium.wrappers import RecordEpisodeStatistics, TransformReward
from torch import nn

import shoal
from shoal.algos.ppo import PPO
from shoal.cli.train import main
from shoal.envs.preprocessing import Preprocessing
from shoal.envs.registry import make
from shoal.envs.workers.settings import Workers
from shoal.experiment.applies import check_applies
from shoal.experiment.experiment import Experiment
from shoal.experiment.options import Options
from shoal.learn.acting import Acting
from shoal.nets.network import Network
from shoal.nets.policy import make_policy
from shoal.run.evaluate import evaluate
from shoal.types import ConfigError, Spec

if TYPE_CHECKING:
    from pathlib import Path

BOX = gym.spaces.Box(-1, 1, (3,), np.float32)
CHOICE = gym.spaces.Discrete(2)
IMAGE = gym.spaces.Box(0, 255, (4, 84, 84), np.uint8)


def check(settings: dict[str, Any], *, env: str = "a:b", policy: Any = None, algo: str = "ppo", **spaces: Any) -> None:
    config = settings.get("config")
    settings = {name: value for name, value in settings.items() if name != "config"}
    started = Experiment.new(env, algo=algo, settings=settings, policy=policy, config=config)
    check_applies(started, spec_of(env=env, **spaces))


class Small(nn.Module):
    """A policy of somebody's own."""

    def __init__(self, spec: Spec) -> None:
        super().__init__()
        self.body = nn.Linear(3, 3)

    def forward(self, obs: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        made = self.body(obs)
        return made[..., :2], made[..., 2]


def spec_of(*, seen: Any = BOX, action: Any = CHOICE, env: str = "a:b", limit: int | None = None) -> Spec:
    return Spec.of(env, seen, action, max_episode_steps=limit)


@pytest.mark.parametrize(
    ("settings", "spaces", "said"),
    [
        ({"num_workers": 2}, {}, r"num_workers=2 would change nothing: it is for backend='workers', but.*'auto'"),
        ({"step_timeout_s": 1.0}, {}, "step_timeout_s=1.0 would"),
        ({"on_fault": "restart", "backend": "serial"}, {}, "on_fault='restart' would.*'serial'"),
        ({"max_restarts": 9}, {}, "max_restarts=9"),
        ({"own_cores": False}, {}, "own_cores=False"),
        ({"backend": "workers", "max_restarts": 9}, {}, "max_restarts=9.*on_fault is 'raise'"),
        ({"ent_coef_schedule": "linear"}, {}, r"ent_coef_schedule='linear'.*ent_coef is 0.*set it"),
        ({"decoupled_clip": 2.0}, {}, r"decoupled_clip=2\.0.*for older ones, with schedule=\"async\""),
        ({"eval_episodes": 5}, {}, "eval_episodes=5.*set eval_every"),
        ({"confirm_episodes": 5}, {}, "confirm_episodes=5.*nothing ends training early; set stop_at"),
        ({"confirm_episodes": 5, "stop_at": np.inf}, {}, "confirm_episodes=5.*set stop_at"),
        ({"self_play": {"pool": 3}}, {}, r"self_play\.pool=3.*self_play\.every"),
        ({"network": {"recurrent_size": 9}}, {}, r"network\.recurrent_size=9.*gru or lstm"),
        ({"network": {"squash": True}}, {}, r"network\.squash=True.*for Box actions, but these are Discrete"),
        ({"network": {"log_std_init": -1.0}}, {}, r"network\.log_std_init=-1\.0.*for Box actions"),
        (
            {"network": {"image": "nips"}},
            {},
            r"network\.image='nips'.*no observation of a:b goes.*: float32 \(3,\)",
        ),
        ({"network": {"image": "flat"}}, {}, r"network\.image='flat'.*no observation"),
        ({"network": {"precision": "bfloat16", "image": "flat"}}, {"seen": IMAGE}, r"network\.precision='bfloat16'"),
        ({"network": {"normalize_obs": True}}, {"seen": CHOICE}, r"network\.normalize_obs=True.*is a Box"),
        ({"network": {"hidden": (9,)}}, {"seen": IMAGE}, r"network\.hidden=\(9,\).*straight to the heads"),
        ({"network": {"activation": "relu", "recurrent": "gru"}}, {"seen": IMAGE}, r"network\.activation='relu'"),
        ({"network": {"activation": "relu", "hidden": ()}}, {}, r"network\.activation='relu'.*hidden has no layer"),
        ({"network": {"share": True}}, {"seen": IMAGE}, r"network\.share=True"),
        ({"network": {"sde_interval": 4}}, {}, r"network\.sde_interval=4.*for Box actions"),
        (
            {"network": Network(image="flat")},
            {"seen": gym.spaces.Box(0, 255, (9, 9), np.uint8)},
            r"network\.image='flat'",
        ),
        ({"config": PPO(network=Network(squash=True))}, {}, r"network\.squash=True"),
        ({"eval_max_steps": 9}, {"limit": 200}, r"eval_max_steps=9.*end after 200 steps"),
        ({"grad_shards": 3, "native": False}, {}, "grad_shards=3 would.*this policy learns in torch"),
        ({"grad_shards": 3}, {"policy": Small}, "grad_shards=3"),
        ({"grad_shards": 3, "network": {"squash": True}}, {"action": BOX}, "grad_shards=3"),
        ({"grad_shards": 3, "network": {"recurrent": "gru"}}, {"seen": IMAGE}, "grad_shards=3"),
        ({"network": {"hidden": (9,)}}, {"policy": "my:Net"}, r"network\.hidden=\(9,\).*default network, but policy="),
    ],
)
def test_what_would_change_nothing_is_refused(settings: dict[str, Any], spaces: dict[str, Any], said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        check(settings, **spaces)


@pytest.mark.parametrize(
    ("algo", "settings", "seen", "said"),
    [
        ("sac", {"network": {"image": "nature"}}, BOX, r"network\.image='nature'.*no observation of a:b goes"),
        ("td3", {"network": {"image": "flat"}}, BOX, r"network\.image='flat'.*no observation of a:b goes"),
        ("ppo_sac", {"network": {"precision": "bfloat16"}}, BOX, r"network\.precision='bfloat16'"),
        ("sac", {"network": {"hidden": (9,)}}, IMAGE, r"network\.hidden=\(9,\).*straight to the heads"),
        ("td3", {"network": {"hidden": (), "activation": "tanh"}}, BOX, r"network\.activation='tanh'.*no layer"),
        ("sac", {"autotune": False, "target_entropy": -2.0}, BOX, r"target_entropy=-2\.0.*autotune is off"),
        ("td3", {"policy_noise": 0.0, "noise_clip": 0.1}, BOX, r"noise_clip=0\.1.*policy_noise is 0"),
        ("td3", {"noise_clip": 0.0, "policy_noise": 0.1}, BOX, r"policy_noise=0\.1.*noise_clip is 0"),
    ],
)
def test_what_changes_nothing_of_an_actor_with_critics_is_refused(
    algo: str, settings: dict[str, Any], seen: Any, said: str
) -> None:
    with pytest.raises(ConfigError, match=said):
        check(settings, algo=algo, seen=seen, action=BOX)


@pytest.mark.parametrize(
    ("algo", "settings", "seen"),
    [
        ("sac", {"network": {"image": "impala", "precision": "bfloat16", "num_critics": 3}}, IMAGE),
        ("sac", {"network": {"hidden": (9,), "activation": "tanh"}, "target_entropy": -2.0}, BOX),
        ("sac", {"autotune": False, "ent_coef": 0.1}, BOX),
        ("td3", {"policy_noise": 0.0}, BOX),
        ("td3", {"policy_noise": 0.1, "noise_clip": 0.1}, BOX),
    ],
)
def test_what_an_actor_with_critics_takes_is_not_refused(algo: str, settings: dict[str, Any], seen: Any) -> None:
    check(settings, algo=algo, seen=seen, action=BOX)


@pytest.mark.parametrize(
    ("settings", "spaces"),
    [
        ({}, {}),
        ({"num_workers": 2, "backend": "workers"}, {}),
        ({"grad_shards": 3, "network": {"recurrent": "gru"}}, {}),
        ({"grad_shards": 3, "native": False}, {"seen": IMAGE}),
        ({"grad_shards": 2, "native": False}, {}),
        ({"backend": "workers", "on_fault": "restart", "max_restarts": 9}, {}),
        ({"eval_every": 10, "eval_episodes": 5}, {}),
        ({"confirm_episodes": 5, "stop_at": 3.0}, {}),
        ({"decoupled_clip": 2.0, "schedule": "async"}, {}),
        ({"eval_max_steps": 300, "final_episodes": 0}, {"limit": 200}),
        ({"self_play": {"every": 1, "pool": 3}}, {}),
        ({"network": {"recurrent": "gru", "recurrent_size": 9}}, {}),
        ({"network": {"squash": True, "log_std_init": -1.0}}, {"action": BOX}),
        ({"network": {"image": "impala", "precision": "bfloat16"}}, {"seen": IMAGE}),
        ({"network": {"image": "flat", "hidden": (9,)}}, {"seen": IMAGE}),
        ({"network": {"image": "nature", "hidden": (9,)}}, {"seen": gym.spaces.Dict(a=IMAGE, b=BOX)}),
        # The preset of ALE/* has layers for images; nobody asked for them.
        ({}, {"env": "ALE/Boxing-v5", "seen": gym.spaces.Box(0, 255, (128,), np.uint8)}),
        ({"preset": "ALE/*"}, {"policy": "my:Net"}),
        ({"network": {"image": "flat"}}, {"seen": gym.spaces.Box(-1, 1, (12_000,), np.float32)}),
    ],
)
def test_what_applies_and_what_nobody_gave_is_taken(settings: dict[str, Any], spaces: dict[str, Any]) -> None:
    check(settings, **spaces)


@pytest.mark.parametrize(
    ("settings", "spaces", "said"),
    [
        ({"replay": {"beta": 0.6}}, {}, r"replay\.beta=0\.6 would change nothing.*set replay\.alpha"),
        (
            {"exploration_fraction": 0.5, "epsilon_start": 0.1, "epsilon_end": 0.1},
            {},
            r"exploration_fraction=0\.5.*both 0\.1",
        ),
        ({"exploration_fraction": 0.5, "preset": "rainbow"}, {}, r"exploration_fraction=0\.5.*both 0"),
        ({"network": {"precision": "bfloat16"}}, {}, r"network\.precision='bfloat16'.*no observation of a:b"),
        ({"network": {"image": "nips"}}, {}, r"network\.image='nips'"),
        ({"network": {"hidden": (9,)}}, {"seen": IMAGE}, r"network\.hidden=\(9,\).*straight to the heads"),
        ({"network": {"normalize_obs": True}}, {"seen": CHOICE}, r"network\.normalize_obs=True.*is a Box"),
        ({"network": {"activation": "tanh", "hidden": ()}}, {}, r"network\.activation='tanh'.*no layer"),
        ({"network": {"dueling": True}}, {"policy": "my:Net"}, r"network\.dueling=True.*policy= brings its own"),
    ],
)
def test_what_a_q_network_or_its_memory_ignores_is_refused(
    settings: dict[str, Any], spaces: dict[str, Any], said: str
) -> None:
    with pytest.raises(ConfigError, match=said):
        check(settings, algo="dqn", **spaces)


def test_what_a_q_network_and_its_memory_use_is_taken() -> None:
    """Noisy layers may explore beside epsilon; a preset may hold what applies elsewhere."""
    check({"replay": {"alpha": 0.6, "beta": 0.6}}, algo="dqn")
    check({"preset": "rainbow", "exploration_fraction": 0.5, "epsilon_start": 0.1}, algo="dqn")
    check({"network": {"noisy": True, "dueling": True}, "exploration_fraction": 0.5}, algo="dqn")
    check({"network": {"image": "nips", "precision": "bfloat16"}}, algo="dqn", seen=IMAGE)
    with pytest.raises(ConfigError, match=r"huber=False would change nothing.*network\.quantiles=0"):
        check({"network": {"quantiles": 8}, "huber": False}, algo="dqn")


def test_what_a_file_holds_is_not_given() -> None:
    """A run's file holds every setting, and may be the start of a run in another environment."""
    network = {"recurrent": "none", "recurrent_size": 9, "squash": True, "image": "nips"}
    saved: dict[str, Any] = {
        "env": "CartPole-v1",
        "eval_episodes": 5,
        "num_workers": 2,
        "algorithm": {"network": network},
    }
    read = Experiment.of_file(saved, trust=True)
    check_applies(read, spec_of())
    with pytest.raises(ConfigError, match=r"eval_episodes=6 would"):
        check_applies(Experiment.of_file(saved, trust=True, given={"eval_episodes": 6}), spec_of())
    with pytest.raises(ConfigError, match=r"num_workers=3 would"):
        check_applies(read.changed(num_workers=3), spec_of())


def test_training_refuses_before_it_makes_a_directory(tmp_path: Path) -> None:
    runs = tmp_path / "runs"
    with pytest.raises(ConfigError, match="eval_episodes=3 would change nothing"):
        shoal.train("CartPole-v1", eval_episodes=3, panel="none", run_dir=str(runs))
    with pytest.raises(ConfigError, match="max_restarts=5 would change nothing"):
        main(["--max-restarts", "5", "--run-dir", str(runs)], "")
    assert not runs.exists()


def test_other_settings_that_cannot_be(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"preset='CartPole-v1' beside config"):
        Experiment.new("CartPole-v1", config=PPO(), settings={"preset": "CartPole-v1"})
    with pytest.raises(ConfigError, match=r"reward_sign keeps nothing of reward_scale=2"):
        Preprocessing(reward_sign=True, reward_scale=2)
    with pytest.raises(ConfigError, match=r"batch_rows=2.*is for backend='workers', but this is 'serial'"):
        make(Idle, 2, backend="serial", workers=Workers(batch_rows=2))
    with pytest.raises(ConfigError, match="max_episode_steps at least 0"):
        Preprocessing(max_episode_steps=10**18)
    with pytest.raises(ConfigError, match=r"stop_at must be a number.*got -inf"):
        Options("a:b", stop_at=-np.inf)
    with pytest.raises(ConfigError, match="num_steps must lie within 64 bits"):
        PPO(num_steps=10**20)
    with pytest.raises(ConfigError, match="seed must lie within 64 bits"):
        Experiment.new("a:b", settings={"seed": 10**20})
    with pytest.raises(ConfigError, match="gamma must be a number, got 'high'"):
        PPO(gamma="high")  # pyright: ignore[reportArgumentType]
    file = tmp_path / "file"
    file.touch()
    with pytest.raises(ConfigError, match=r"cannot be a folder: .*file is a file"):
        shoal.train("CartPole-v1", panel="none", run_dir=str(file / "runs"))


class Idle(gym.Env[Any, Any]):
    """Never ends by itself."""

    observation_space, action_space = BOX, CHOICE

    def reset(self, *, seed: int | None = None, options: Any = None) -> Any:
        super().reset(seed=seed)
        return np.zeros(3, np.float32), {}

    def step(self, action: Any) -> Any:
        return np.zeros(3, np.float32), 1.0, False, False, {}


def wrapped(*limits: int) -> Any:
    env: Any = Idle()
    for limit in limits:
        env = TransformReward(gym.wrappers.TimeLimit(env, limit), lambda reward: reward)
    return RecordEpisodeStatistics(env)


def steps_of(rows: Any) -> int:
    rows.reset(0)
    ready, count = rows.recv(), 0
    while not ready.truncated[0]:
        rows.send(slice(0, 1), np.zeros(1, np.int64))
        ready, count = rows.recv(), count + 1
    rows.close()
    return count


@pytest.mark.parametrize(
    ("backend", "limits", "asked", "right"),
    [
        ("serial", (50,), 200, 200),
        ("serial", (50, 70), 60, 60),
        ("serial", (50, 70), 0, 50),
        ("serial", (70, 50), 0, 50),
        ("workers", (50, 70), 60, 60),
    ],
)
def test_the_limit_asked_for_is_the_fact(backend: str, limits: tuple[int, ...], asked: int, right: int) -> None:
    seen = Preprocessing(max_episode_steps=asked)
    rows = make(lambda: wrapped(*limits), 1, backend=backend, preprocessing=seen)
    assert rows.spec.max_episode_steps == right
    assert steps_of(rows) == right


class Slow(gym.wrappers.TimeLimit):
    """A time limit of somebody's own."""


def test_a_limit_that_cannot_be_taken_off_is_named() -> None:
    with pytest.raises(ConfigError, match=r"max_episode_steps=200 would change nothing.*after 50 steps"):
        make(lambda: Slow(Idle(), 50), 1, preprocessing=Preprocessing(max_episode_steps=200))
    assert make(lambda: Slow(Idle(), 50), 1).spec.max_episode_steps == 50


class Endless(Slow):
    """One that ends nothing."""

    def step(self, action: Any) -> Any:
        obs, reward, terminated, _, info = self.env.step(action)
        return obs, reward, terminated, False, info


def taken_back() -> Any:
    """A limit of Gymnasium's that a wrapper takes back."""
    return TakesBack(gym.wrappers.TimeLimit(Idle(), 30))


class TakesBack(gym.Wrapper[Any, Any, Any, Any]):
    def step(self, action: Any) -> Any:
        return *self.env.step(action)[:3], False, {}


def test_a_limit_of_one_s_own_that_ends_nothing_is_none() -> None:
    """Neither refused where another is asked for, nor in the way of `eval_max_steps`, whose advice works."""
    rows = make(lambda: Endless(Idle(), 50), 1, preprocessing=Preprocessing(max_episode_steps=200))
    assert (rows.spec.max_episode_steps, steps_of(rows)) == (200, 200)
    rows = make(lambda: Endless(Idle(), 50_000), 1)
    assert rows.spec.max_episode_steps is None
    policy = make_policy(rows.spec, Network(hidden=()), 0)
    with pytest.warns(UserWarning, match=r"not ended after 20 steps.*set eval_max_steps"):
        assert evaluate(policy, rows, episodes=1, acting=Acting(0), max_steps=20).mean == 20
    rows = make(taken_back, 1)
    with pytest.warns(UserWarning, match=r"not ended after 30 steps.*of 30 steps is taken back.*max_episode_steps"):
        assert evaluate(policy, rows, episodes=1, acting=Acting(0), max_steps=20).mean == 30
    assert steps_of(make(taken_back, 1, preprocessing=Preprocessing(max_episode_steps=40))) == 40


@pytest.mark.parametrize("kind", [SyncVectorEnv, AsyncVectorEnv])
def test_the_limit_in_a_vector_environment_is_known(kind: Any) -> None:
    rows = make(lambda num_envs: kind([lambda: wrapped(50)] * num_envs), 1, backend="vector")
    assert rows.spec.max_episode_steps == 50
    rows.close()
    with pytest.raises(ConfigError, match=r"keeps its own time limit.*env_kwargs"):
        make("CartPole-v1", 1, backend="vector", preprocessing=Preprocessing(max_episode_steps=9))


def test_a_limit_under_wrappers_is_not_endless(tmp_path: Path) -> None:
    """Evaluation goes to the end of what it knows to end, and its own limit is a setting."""
    settings: dict[str, Any] = {
        "num_envs": 2,
        "num_steps": 32,
        "num_minibatches": 2,
        "total_timesteps": 64,
        "final_episodes": 2,
    }
    settings |= {"update_epochs": 1, "panel": "none", "run_dir": str(tmp_path)}
    run = shoal.train(lambda: wrapped(30), **settings)
    assert run.greedy_return == 30
    with pytest.warns(UserWarning, match=r"not ended after 20 steps.*eval_max_steps"):
        run = shoal.train(Idle, eval_max_steps=20, **settings)
    assert run.greedy_return == 20


def test_a_policy_of_the_default_s_form_may_come_with_its_network() -> None:
    """The run is loaded without the object then."""
    network = Network(hidden=(8,))
    policy = make_policy(spec_of(), network, 0)
    check({"network": {"hidden": (8,)}}, policy=policy)
    with pytest.raises(ConfigError, match=r"network\.hidden=\(9,\) would change nothing: it belongs to the default"):
        check({"network": {"hidden": (9,)}}, policy=policy)


@dataclass(frozen=True)
class Width:
    units: int = 4


@dataclass(frozen=True)
class Own:
    """Names that shoal has too, with another meaning."""

    network: Width = field(default_factory=Width)
    warmup: int = 0
    warmup_schedule: str = "constant"
    lasting: Any = None


def test_an_algorithm_of_one_s_own_may_use_the_same_names() -> None:
    """What it holds is not copied: it may hold what cannot be."""
    own: Any = ModuleType("own_algorithm")
    own.Config, own.train = Own, lambda cfg, env, run: None
    settings = {"warmup_schedule": "cosine", "network": Width(8), "lasting": threading.Lock()}
    started = Experiment.new("a:b", algo=own, settings=settings)
    check_applies(started, spec_of())
    assert started.to_file()["algorithm"]["warmup_schedule"] == "cosine"


class Continuing(gym.Wrapper[Any, Any, Any, Any]):
    """An episode under it ends; its own does not."""

    def step(self, action: Any) -> Any:
        obs, reward, terminated, truncated, info = self.env.step(action)
        if terminated or truncated:
            obs, info = self.env.reset()
        return obs, reward, False, False, info


def test_a_limit_that_a_wrapper_takes_back_does_not_hold_evaluation_up() -> None:
    rows = make(lambda: Continuing(gym.make("CartPole-v1", max_episode_steps=20)), 1)
    policy = make_policy(rows.spec, Network(hidden=(4,)), 0)
    with pytest.warns(UserWarning, match="has not ended after 30 steps"):
        assert evaluate(policy, rows, episodes=1, acting=Acting(0), max_steps=30).mean == 30
    rows.close()
