"""Parameters that every episode draws: formulas by hand, independence, records, and what is refused."""

from __future__ import annotations

import math
from functools import partial
from typing import TYPE_CHECKING, Any

import gymnasium as gym
import numpy as np
import pytest

import shoal
from shoal import Choice, Curriculum, LogUniform, Normal, Uniform
from shoal.envs.randomization import SEED_MASK, as_text, parse, split, whole
from shoal.envs.registry import make
from shoal.envs.workers.settings import Workers
from shoal.run.log import read
from shoal.types import ConfigError
from tests.fork_server import Interpreter

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = pytest.mark.usefixtures("warm_workers")

ALL = slice(None)


class Weight(gym.Env[Any, Any]):
    """Observes its mass, which counts from the reset on, and the start that reset's options may give."""

    observation_space = gym.spaces.Box(-np.inf, np.inf, (2,), np.float64)
    action_space = gym.spaces.Discrete(2)

    def __init__(self) -> None:
        self.mass, self.friction, self.name = 1.0, 0.5, "weight"

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Any, dict[str, Any]]:
        super().reset(seed=seed, options=options)
        self.turn, self.start = 0, (options or {}).get("start", 0.0)
        return np.array([self.mass, self.start]), {}

    def step(self, action: int) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        self.turn += 1
        return np.array([self.mass, self.start]), 1.0, self.turn == 4, False, {}


def drawn_by(env: Any, steps: int, key: str = "env/mass") -> list[list[float]]:
    """The values of ended episodes, by row."""
    env.reset(7)
    env.recv()
    found: list[list[float]] = [[] for _ in range(env.num_rows)]
    for _ in range(steps):
        env.send(ALL, np.zeros(env.num_rows, np.int64))
        ready = env.recv()
        for row in np.flatnonzero(ready.terminated | ready.truncated):
            found[row].append(float(ready.info[key][row]))
    return found


@pytest.mark.parametrize(
    ("text", "made"),
    [
        ("uniform:-12,-8", Uniform(-12, -8)),
        ("loguniform:0.1,10", LogUniform(0.1, 10)),
        ("normal:1,0.5", Normal(1, 0.5)),
        ("normal:1,0.5,0,2", Normal(1, 0.5, 0, 2)),
        ("choice:1,2.5,4", Choice((1, 2.5, 4))),
        ("uniform:-12,-8 from -10 over 2e5", Curriculum(Uniform(-12, -8), -10, 200_000)),
        ("-12", None),
        ("human", None),
    ],
)
def test_texts(text: str, made: Any) -> None:
    assert parse(text) == made
    if made is not None:
        assert parse(str(made)) == made


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("uniform:-12", "write uniform:LOW,HIGH"),
        ("uniform:a,b", "write uniform:LOW,HIGH"),
        ("uniform:-8,-12", "low not above high"),
        ("uniform:0,inf", "must be finite"),
        ("loguniform:0,1", "above 0"),
        ("normal:0,0", "std above 0"),
        ("normal:0,1,5,6", "fewer than 1%"),
        ("choice:", "write choice:A,B"),
        ("uniform:1,2 from 3 over 10", "start must lie within"),
        ("uniform:1,2 from 1 over 0", "above 0"),
        ("choice:1,2 from 1 over 10", "widens a uniform"),
    ],
)
def test_texts_that_cannot_work(text: str, said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        parse(text)


def test_draws_are_those_of_numpys_generator() -> None:
    """Row 1, seeded with 8: each formula on the doubles of default_rng(8 ^ SEED_MASK)."""
    rng = np.random.default_rng(8 ^ SEED_MASK)
    drawn = drawn_by(make(Weight, 2, env_kwargs={"mass": Uniform(2, 6)}), 12)[1]
    assert drawn == [2 + 4 * rng.random() for _ in range(3)]
    rng = np.random.default_rng(8 ^ SEED_MASK)
    drawn = drawn_by(make(Weight, 2, env_kwargs={"mass": "loguniform:2,8"}), 12)[1]
    assert drawn == [math.exp(math.log(2) + (math.log(8) - math.log(2)) * rng.random()) for _ in range(3)]
    rng = np.random.default_rng(8 ^ SEED_MASK)
    drawn = drawn_by(make(Weight, 2, env_kwargs={"mass": Choice((3, 5, 9))}), 12)[1]
    assert drawn == [(3, 5, 9)[int(3 * rng.random())] for _ in range(3)]


def test_normal_draws_stay_within_their_bounds() -> None:
    """Mean 1 and spread 1 within [0, 2]: all inside, and spread as a truncated normal is (0.54)."""
    random = np.random.default_rng(0).random
    values = np.array([Normal(1, 1, 0, 2).draw(random) for _ in range(4000)])
    assert values.min() >= 0
    assert values.max() <= 2
    assert abs(values.mean() - 1) < 0.03
    assert abs(values.std() - 0.5396) < 0.02


def test_a_range_widens_with_the_steps_of_all_rows() -> None:
    """From the point 4 to [2, 8] over 32 steps of 2 rows: after 0, 4, 8, 12 steps of a row a share of 0, 1/4, ..."""
    rng = np.random.default_rng(7 ^ SEED_MASK)
    env = make(Weight, 2, env_kwargs={"mass": Curriculum(Uniform(2, 8), start=4, over_steps=32)})
    expected: list[float] = []
    for share in (0, 0.25, 0.5, 0.75, 1, 1):
        low, high = 4 - 2 * share, 4 + 4 * share
        expected.append(low + (high - low) * rng.random())
    assert drawn_by(env, 24)[0] == expected
    assert expected[0] == 4


def test_the_environment_has_the_value_before_its_reset() -> None:
    env = make(Weight, 3, env_kwargs={"mass": "uniform:2,6", "options.start": "uniform:-1,1"})
    env.reset(0)
    obs = env.recv().obs.copy()
    assert ((obs[:, 0] > 2) & (obs[:, 0] < 6) & (np.abs(obs[:, 1]) < 1)).all()
    assert len(set(obs.ravel().tolist())) == 6
    for _ in range(3):
        env.send(ALL, np.zeros(3, np.int64))
        env.recv()
    env.send(ALL, np.zeros(3, np.int64))
    ready = env.recv()
    assert ready.info["env/mass"].tolist() == obs[:, 0].tolist()
    assert ready.info["env/options.start"].tolist() == obs[:, 1].tolist()


def test_the_environments_own_draws_stay_as_they_were() -> None:
    """A parameter drawn as the one that it has anyway changes no bit."""
    plain, drawn = make("LunarLander-v3", 2), make("LunarLander-v3", 2, env_kwargs={"gravity": "choice:-10.0"})
    for env in (plain, drawn):
        env.reset(3)
        env.recv()
    for step in range(250):
        seen: list[bytes] = []
        for env in (plain, drawn):
            env.send(ALL, np.full(2, step % 4))
            ready = env.recv()
            seen.append(ready.obs.tobytes() + ready.reward.tobytes())
        assert seen[0] == seen[1]


def test_rows_and_processes_change_no_draw() -> None:
    kwargs = {"mass": "uniform:2,6"}
    alone = drawn_by(make(Weight, 5, env_kwargs=kwargs), 20)
    workers = make(Weight, 5, backend="workers", workers=Workers(2), env_kwargs=kwargs)
    assert drawn_by(workers, 20) == alone
    workers.close()
    assert drawn_by(make(Weight, 2, env_kwargs=kwargs), 20) == alone[:2]


@pytest.mark.parametrize(
    ("text", "values"),
    [
        ("uniform:5,15", 24),
        ("loguniform:5,15", 24),
        ("normal:10,2,7,13", 24),
        ("choice:5,10.0,12", 3),
        ("uniform:5,15 from 9.8 over 3000", 21),  # the first of all four rows is 9.8
        ("loguniform:5,15 from 9.8 over 3000", 21),
    ],
)
def test_native_draws_equal_pythons(text: str, values: int) -> None:
    """Pendulum's g drawn in C++ and in Python: the same values and the same swings, bit for bit."""
    kwargs = {"g": text, "max_episode_steps": 30}
    native, python = (make("Pendulum-v1", 4, backend=backend, env_kwargs=kwargs) for backend in ("native", "serial"))
    rng = np.random.default_rng(0)
    for env in (native, python):
        env.reset(2)
        env.recv()
    seen: set[float] = set()
    for step in range(200):
        action = rng.uniform(-2, 2, (4, 1)).astype(np.float32)
        for env in (native, python):
            env.send(ALL, action)
        one, other = native.recv(), python.recv()
        assert one.obs.tobytes() == other.obs.tobytes()
        assert one.reward.tobytes() == other.reward.tobytes()
        if one.truncated.any():
            assert one.info["env/g"].tolist() == other.info["env/g"].tolist()
            seen.update(one.info["env/g"].tolist())
        if step == 75:
            for env in (native, python):
                assert env.restore(env.state()) == []
                env.recv()
    assert len(seen) == values


@pytest.mark.parametrize("backend", ["serial", "auto"])
def test_a_restored_row_has_its_draws_again(backend: str) -> None:
    kwargs = {"gravity": "uniform:-11,-3", "max_episode_steps": 40}
    env, again = (make("LunarLander-v3", 3, backend=backend, env_kwargs=kwargs) for _ in range(2))
    env.reset(1)
    env.recv()
    for step in range(130):
        if step == 55:
            assert again.restore(env.state()) == []
            again.recv()
        for one in (env, again) if step >= 55 else (env,):
            one.send(ALL, np.full(3, step % 4))
        ready = env.recv()
        if step >= 55:
            other = again.recv()
            assert ready.obs.tobytes() == other.obs.tobytes()
            if ready.truncated.any():
                assert ready.info["env/gravity"].tolist() == other.info["env/gravity"].tolist()


def test_what_cannot_be_drawn_is_said() -> None:
    with pytest.raises(ConfigError, match=r"no number 'mas' .* it has mass. .* options.mas"):
        make(Weight, 1, env_kwargs={"mas": "uniform:1,2"})
    with pytest.raises(ConfigError, match="no number 'name'"):
        make(Weight, 1, env_kwargs={"name": "uniform:1,2"})
    with pytest.raises(ConfigError, match="no number 'mas'"):
        make(Weight, 1, backend="workers", env_kwargs={"mas": "uniform:1,2"})
    with pytest.raises(ConfigError, match=r"native Pendulum-v1 has no parameter 'gravity'.*serial"):
        make("Pendulum-v1", 1, env_kwargs={"gravity": "uniform:1,2"})


def test_keywords_with_distributions() -> None:
    widening = Curriculum(Uniform(1, 2), 1, 100)
    given = {"mass": widening, "friction": Choice((1,)), "name": "x"}
    assert split(given, 4) == ({"name": "x"}, {"mass": Curriculum(Uniform(1, 2), 1, 25), "friction": Choice((1,))})
    assert as_text(given) == {"mass": "uniform:1,2 from 1 over 100", "friction": "choice:1", "name": "x"}
    assert whole(given) == given | {"mass": Uniform(1, 2)}
    assert whole(as_text(given)) == as_text(given) | {"mass": Uniform(1, 2)}


def test_a_run_keeps_its_distributions(tmp_path: Path) -> None:
    """The file, the metrics, and evaluation under the whole range, or under another value."""
    settings: dict[str, Any] = {"num_envs": 4, "num_steps": 16, "num_minibatches": 2, "total_timesteps": 256}
    kwargs = {"mass": Curriculum(Uniform(2, 6), start=2, over_steps=1e9)}
    result = shoal.train(Weight, env_kwargs=kwargs, panel="none", run_dir=str(tmp_path), **settings)
    assert 'mass = "uniform:2,6 from 2 over 1000000000.0"' in (result.path / "config.toml").read_text()
    assert all(abs(line["info/env/mass"] - 2) < 1e-4 for line in read(result.path / "metrics.jsonl"))
    for given, least, most in ((None, 2.5, 6), ({"mass": "choice:9"}, 9, 9)):
        loaded = shoal.load(result.path, factory=Weight, env_kwargs=given)
        with_rows = loaded.experiment.rows(8, playing=True)
        means = [np.mean(values) for values in drawn_by(with_rows, 40)]
        assert least <= np.mean(means) <= most
        assert loaded.evaluate(episodes=4).mean == 4


@pytest.mark.slow
def test_the_command_line(tmp_path: Path, interpreter: Interpreter) -> None:
    shoal_does = partial(interpreter.shoal, folder=tmp_path)
    small = ("--num-envs", "4", "--num-steps", "16", "--num-minibatches", "2", "--total-timesteps", "128")
    train = ("train", "Pendulum-v1", "--env.g", "uniform:5,15", "--env.max_episode_steps=20", "--plain", *small)
    done = shoal_does(*train, "--name", "run", "--preprocessing.frame-stack", "2", "--stop-at", "-5000")
    assert done.returncode == 0, done.stderr
    run = tmp_path / "runs" / "Pendulum-v1" / "ppo" / "run"
    text = (run / "config.toml").read_text()
    assert 'g = "uniform:5,15"' in text
    assert "max_episode_steps = 20" in text
    assert "frame_stack = 2" in text
    returns = [shoal_does("eval", str(run), "--episodes", "5", "--env.g", g).stdout for g in ("10", "0.1")]
    assert "5 greedy episodes" in returns[0]
    assert returns[0] != returns[1]
    wrong = shoal_does("eval", str(run), "--env.gg", "10")
    assert wrong.returncode == 2
    assert "no parameter 'gg'" in wrong.stderr
    assert shoal_does("train", "Pendulum-v1", "--env.g").returncode == 2
