"""What a user of another library tries first: Ctrl-C, fine-tuning, names, words of other libraries, whole floats."""

from __future__ import annotations

import re
import signal
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
import torch
from gymnasium.envs.classic_control import CartPoleEnv
from torch import nn
from torch.optim import Adam

import shoal
from shoal.envs.registry import make
from shoal.experiment.experiment import Experiment
from shoal.run import beginning, checkpoint
from shoal.run import open as open_run
from shoal.run.directory import RunDirectory, create, find

ROOT = Path(__file__).parents[2]
TINY: Any = {
    "num_envs": 8,
    "num_steps": 16,
    "num_minibatches": 2,
    "update_epochs": 1,
    "total_timesteps": 8 * 16 * 4,
    "stop_at": float("inf"),
    "panel": "none",
}
pytestmark = pytest.mark.usefixtures("few_greedy_episodes")


def weights_of(policy: nn.Module) -> dict[str, torch.Tensor]:
    return {name: tensor.clone() for name, tensor in policy.state_dict().items()}


def equal(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> bool:
    return one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)


LOOP_OVER_SEEDS = """
import shoal

for seed in (1, 2):
    print(seed, flush=True)
    shoal.train("CartPole-v1", seed=seed, name="x", total_timesteps=50_000_000, stop_at=float("inf"), panel="json")
"""


@pytest.mark.slow
@pytest.mark.parametrize("times", [1, 2])
def test_ctrl_c_ends_a_loop_over_seeds(times: int, tmp_path: Path) -> None:
    """Once, or twice quickly: the script ends by KeyboardInterrupt, no second run begins, the first can be resumed."""
    command = [sys.executable, "-c", LOOP_OVER_SEEDS]
    pipe = subprocess.PIPE
    with subprocess.Popen(command, cwd=tmp_path, stdout=pipe, stderr=pipe, text=True) as process:
        assert process.stdout is not None
        process.stdout.readline()
        process.stdout.readline()  # the first line of metrics
        for _ in range(times):
            process.send_signal(signal.SIGINT)
            time.sleep(0.0005)
        out, err = process.communicate(timeout=30)
    assert process.returncode == -signal.SIGINT
    assert "KeyboardInterrupt" in err.splitlines()[-1]
    assert "2\n" not in out.splitlines(keepends=True)
    run = RunDirectory(tmp_path / "runs/CartPole-v1/ppo/x")
    assert run.read_status()["state"] == "stopped"
    if times == 1:
        found = checkpoint.load(run.checkpoints)
        assert found is not None
        assert found.updates == run.read_status()["updates"] > 0
        assert "goes on" in err.splitlines()[-1]


def test_an_instance_is_refused_with_advice_that_works(run_dir: Path) -> None:
    """The function that the message writes keeps gymnasium.make's time limit and keywords."""
    one = gym.make("CartPole-v1", sutton_barto_reward=True)
    with pytest.raises(shoal.ConfigError, match="pass a function that makes a new one each time") as refused:
        shoal.train(one, run_dir=run_dir, **TINY)  # pyright: ignore[reportArgumentType, reportCallIssue]
    advice = str(refused.value).rpartition("such as ")[2]
    assert advice == "lambda: gymnasium.make('CartPole-v1', sutton_barto_reward=True)"
    function = eval(advice, {"gymnasium": gym})
    with pytest.raises(shoal.ConfigError, match=r"such as lambda: CartPoleEnv\(\)$"):
        shoal.train(CartPoleEnv(), run_dir=run_dir, **TINY)  # pyright: ignore[reportArgumentType, reportCallIssue]
    with closing(make(function, 1)) as rows:
        assert rows.spec.max_episode_steps == 500
    run = shoal.train(function, run_dir=run_dir, **TINY)
    assert run.greedy_return <= 0  # of the keyword: 0 a step, -1 at the end


def test_callbacks_that_cannot_do_what_they_seem_to(run_dir: Path) -> None:
    """One that takes something else, before training; one that ends a run as iterators end, with what would."""

    def ends(run: Any, record: Any) -> None:
        raise StopIteration

    def fails(run: Any, record: Any) -> None:
        raise LookupError("no such tracker")

    class Watcher:
        warn = "loudly"

        def __call__(self, run: Any, record: Any) -> None: ...

    settings: Any = TINY | {"run_dir": run_dir, "final_episodes": 0}
    called = r"a callback is called with \(run, record\), but "
    for callbacks, told in (
        ([lambda record: None], rf"{called}\S*<lambda> does not take these: too many positional arguments$"),
        ([Watcher], rf"{called}\S*Watcher does not take these: .*; an object of it may be meant"),
        ([Watcher()], "the callback .*Watcher.* has warn, which is called but is no method"),
        (["mod:watch"], f"{called}'mod:watch' cannot be called"),
        (fails, r"a list of functions \(run, record\), got \S*fails; write callbacks=\[\.\.\.\]"),
        ([ends], r"the callback \S*ends raised StopIteration in ends .*; run.stop\(reason\) ends a run"),
    ):
        with pytest.raises(shoal.ConfigError, match=told):
            shoal.train("CartPole-v1", callbacks=callbacks, **settings)
    assert not list(run_dir.rglob("config.toml"))
    with pytest.raises(LookupError, match="no such tracker") as raised:
        shoal.train("CartPole-v1", callbacks=[fails], **settings)
    assert re.fullmatch(r"shoal: raised by the callback \S*fails", raised.value.__notes__[0])


def test_fine_tuning(run_dir: Path) -> None:
    """A run begins with the weights and statistics of another one, which its record names, and has its own settings."""
    network = {"hidden": [8], "normalize_obs": True}
    first = shoal.train("CartPole-v1", run_dir=run_dir, name="first", **TINY | {"network": network})
    settings: Any = TINY | {"network": network, "learning_rate": 1e-12, "init_from": "first", "gamma": 0.5}
    tuned = shoal.train("CartPole-v1", run_dir=run_dir, name="tuned", **settings)
    for before, after in zip(first.policy.parameters(), tuned.policy.parameters(), strict=True):
        assert torch.allclose(before, after, rtol=0, atol=1e-8)
    config = RunDirectory(tuned.path).read_config()
    assert (config["init_from"], config["algorithm"]["gamma"]) == (str(first.path.resolve()), 0.5)
    began = RunDirectory(tuned.path).read_status()["began_with"]
    assert began == f"the weights of {first.path.resolve()} at update 4"
    fresh = shoal.train("CartPole-v1", run_dir=run_dir, **settings | {"init_from": None})
    assert not torch.allclose(next(iter(fresh.policy.parameters())), next(iter(first.policy.parameters())), atol=1e-3)
    with pytest.raises(shoal.ConfigError, match=r"init_from: .*first holds another network than this run has: .* give"):
        shoal.train("CartPole-v1", run_dir=run_dir, **settings | {"network": {"hidden": [9], "normalize_obs": True}})
    with pytest.raises(shoal.ConfigError, match="no run at nowhere"):
        shoal.train("CartPole-v1", run_dir=run_dir, **settings | {"init_from": "nowhere"})


def test_normalization_is_taken_over(run_dir: Path) -> None:
    """The statistics of the first run count on in the second: twice as many observations as one run sees."""
    settings: Any = TINY | {"network": {"hidden": [8], "normalize_obs": True}}
    first = shoal.train("CartPole-v1", run_dir=run_dir, name="first", **settings)
    tuned = shoal.train("CartPole-v1", run_dir=run_dir, init_from=first.path, **settings)
    counts = [
        tensor for run in (first, tuned) for name, tensor in run.policy.state_dict().items() if name.endswith("count")
    ]
    assert len(counts) == 2
    assert counts[1] == 2 * counts[0] > 0


def test_a_fine_tuned_run_is_resumed_without_its_origin(run_dir: Path) -> None:
    first = shoal.train("CartPole-v1", run_dir=run_dir, name="first", **TINY)
    tuned = shoal.train("CartPole-v1", run_dir=run_dir, name="tuned", init_from="first", **TINY)
    began = RunDirectory(tuned.path).read_status()["began_with"]
    first.path.rename(run_dir / "elsewhere")
    again = shoal.resume("tuned", run_dir=str(run_dir), panel="none", total_timesteps=8 * 16 * 6)
    assert again.steps == 8 * 16 * 6
    assert RunDirectory(tuned.path).read_status()["began_with"] == began
    assert shoal.load("tuned", run_dir=str(run_dir)).policy is not None


@pytest.mark.parametrize("native", [True, False])
def test_a_given_module_is_copied(*, native: bool, run_dir: Path) -> None:
    """`policy=run.policy`: the first run's policy stays as it is; the second run's record says what it began with."""
    first = shoal.train("CartPole-v1", run_dir=run_dir, **TINY)
    before = weights_of(first.policy)
    again = shoal.train("CartPole-v1", run_dir=run_dir, policy=first.policy, native=native, **TINY)
    assert equal(weights_of(first.policy), before)
    assert not equal(weights_of(again.policy), before)
    assert again.policy is not first.policy
    assert RunDirectory(again.path).read_status()["began_with"] == "a copy of the MlpPolicy that was given"
    assert "began_with" not in RunDirectory(first.path).read_status()
    shoal.load(again.path, policy=first.policy)
    assert equal(weights_of(first.policy), before)


def test_runs_are_found_by_name(run_dir: Path) -> None:
    """A name finds its run wherever it stands below the folder; one that several runs have is refused with paths."""
    told: Any = {"algo": "a", "seed": 1, "config": {}}
    mine = create(run_dir, env="E", name="mine", **told).path
    assert find("mine", run_dir).path == mine
    other = create(run_dir, env="F", name="mine", **told).path
    with pytest.raises(shoal.ConfigError, match="several runs are called mine: ") as refused:
        find("mine", run_dir)
    assert str(mine) in str(refused.value)
    assert str(other) in str(refused.value)


def test_names_at_the_top() -> None:
    """Completion offers the public names, whatever was imported meanwhile, and each is there."""
    assert {"train", "load", "run", "ConfigError", "EnvError", "Uniform"} <= set(dir(shoal))
    assert {name for name in dir(shoal) if not name.startswith("__")} == set(shoal.__all__)
    assert shoal.run.open is open_run
    assert issubclass(shoal.ConfigError, ValueError)
    assert issubclass(shoal.EnvError, RuntimeError)
    assert all(getattr(shoal, name) is not None for name in shoal.__all__)


def test_a_result(run_dir: Path) -> None:
    """One line; metrics as columns of equal length."""
    run = shoal.train("CartPole-v1", algo="PPO", run_dir=run_dir, **TINY | {"total_timesteps": 512.0})
    assert run.path.parent.name == "ppo"
    assert repr(run).startswith(f"Result('{run.path}', steps=512, ")
    assert "\n" not in repr(run)
    frame = run.frame()
    assert frame["step"].tolist() == [128.0, 256.0, 384.0, 512.0]
    assert {len(column) for column in frame.values()} == {4}
    assert {column.dtype for column in frame.values()} == {np.dtype(np.float64)}


@pytest.mark.parametrize(
    ("given", "told"),
    [
        ({"n_steps": 8}, "no setting 'n_steps'; Stable-Baselines3's n_steps is here: num_steps$"),
        ({"n_envs": 8}, "is here: num_envs$"),
        ({"n_epochs": 8}, "is here: update_epochs$"),
        ({"batch_size": 8}, r"is here: num_minibatches = num_envs \* num_steps / batch_size$"),
        ({"clip_range": 0.1}, "is here: clip_coef$"),
        ({"policy_kwargs": {}}, "is here: network"),
        ({"callback": None}, "is here: callbacks"),
        ({"tensorboard_log": "x"}, "is here: nothing: TensorBoard's events are always"),
        ({"verbose": 1}, "is here: panel"),
        ({"zzzz": 1}, "no setting 'zzzz'; `shoal train --help` lists them; what the environment takes is given as env"),
        ({"network": {"zzzz": 1}}, "no setting 'zzzz'; `shoal train --help` lists them$"),
        ({"num_env": 1}, "did you mean num_envs(, [a-z_]+){0,2}\\?$"),
        ({"total_timesteps": 1.5}, "total_timesteps must be a whole number, got 1.5"),
        ({"num_envs": float("inf")}, "num_envs must be a whole number, got inf"),
    ],
)
def test_words_of_another_library(given: dict[str, Any], told: str) -> None:
    with pytest.raises(shoal.ConfigError, match=told):
        Experiment.new("CartPole-v1", settings=given)


def test_words_that_both_libraries_have() -> None:
    made = Experiment.new(
        "CartPole-v1", settings={"gae_lambda": 0.8, "device": "cpu", "total_timesteps": np.float64(1e4)}
    )
    assert (made.config.gae_lambda, made.options.total_timesteps) == (0.8, 10_000)
    assert type(made.options.total_timesteps) is int


def test_a_run_without_directory_takes_whole_floats_too() -> None:
    assert open_run(total_timesteps=1e4).settings.total_timesteps == 10_000  # pyright: ignore[reportArgumentType]
    with pytest.raises(shoal.ConfigError, match=r"num_envs must be a whole number of at least 1, got 1\.5"):
        open_run(num_envs=1.5)  # pyright: ignore[reportArgumentType]


def test_a_configuration_file_in_python(run_dir: Path, tmp_path: Path) -> None:
    """`config=PATH` is `--config PATH`: the file, below it the defaults, above it what is given; never the preset."""
    file = tmp_path / "own.toml"
    file.write_text(
        'algo = "a2c"\nenv = "Acrobot-v1"\nseed = 4\n[algorithm]\ngamma = 0.5\n[env_kwargs]\ngravity = 9.0\n'
    )
    made = Experiment.new("CartPole-v1", config=file, env_kwargs={"length": 0.4}, settings={"seed": 5})
    assert (made.options.env, made.options.algo, made.options.seed) == ("CartPole-v1", "a2c", 5)
    assert made.config.gamma == 0.5
    assert made.env_kwargs == {"gravity": 9.0, "length": 0.4}
    assert Experiment.new("CartPole-v1", algo="A2C", config=str(file), settings={}).options.seed == 4
    beside: list[dict[str, Any]] = [{"algo": "ppo", "settings": {}}, {"settings": {"preset": "paac"}}]
    for given in beside:
        with pytest.raises(shoal.ConfigError, match=r"own\.toml decides the algorithm and its settings"):
            Experiment.new("CartPole-v1", config=file, **given)
    first = shoal.train("CartPole-v1", run_dir=run_dir, name="a", **TINY)
    again = shoal.train(
        "CartPole-v1", config=first.path / "config.toml", run_dir=run_dir, name="b", panel="none", env_kwargs=None
    )
    assert equal(weights_of(again.policy), weights_of(first.policy))


def test_no_preset() -> None:
    """`preset="none"` starts from the algorithm's defaults, where the environment has a preset."""
    plain = Experiment.new("CartPole-v1", settings={"preset": "none"})
    assert plain.config == plain.algorithm.Config()
    assert Experiment.new("CartPole-v1", settings={}).config != plain.config


def test_checkpoints_as_often_as_is_asked(run_dir: Path) -> None:
    """Every 256 steps are updates 2, 4, 6 and so on; the newest two stay. A resumed run may change both."""
    settings: Any = TINY | {"total_timesteps": 128 * 9, "checkpoint_every": 256, "keep_checkpoints": 2}
    run = shoal.train("CartPole-v1", run_dir=run_dir, **settings)
    assert [path.stem for path in checkpoint.rolling(run.path / "checkpoints")] == ["0000000008", "0000000009"]
    shoal.resume(run.path, panel="none", total_timesteps=128 * 13, checkpoint_every=300, keep_checkpoints=4)
    kept = [int(path.stem) for path in checkpoint.rolling(run.path / "checkpoints")]
    assert kept == [9, 10, 12, 13]  # 1,280 passes 1,200 and 1,536 passes 1,500
    for name in ("checkpoint_every", "keep_checkpoints"):
        with pytest.raises(shoal.ConfigError, match=f"{name} must be >= "):
            Experiment.new("CartPole-v1", settings={name: -1})


class Slow(gym.Wrapper[Any, Any, Any, Any]):
    """CartPole whose steps take a while."""

    def step(self, action: Any) -> Any:
        time.sleep(0.002)
        return self.env.step(action)


def make_slow() -> gym.Env[Any, Any]:
    return Slow(gym.make("CartPole-v1"))


@pytest.mark.parametrize(("panel", "told"), [("plain", "first"), ("json", '{"note": "first'), ("none", "")])
def test_a_slow_first_rollout_is_announced(
    panel: str, told: str, run_dir: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Where no rollout has come for a while, a line says that it is under way; a quick one says nothing."""
    monkeypatch.setattr(beginning, "PATIENCE_S", 0.02)
    settings: Any = TINY | {"num_envs": 2, "panel": panel, "total_timesteps": 32}
    shoal.train(make_slow, run_dir=run_dir, **settings)
    first = capsys.readouterr().out.partition("\n")[0]
    assert ("first rollout under way: 16 steps of 2 rows" in first) == bool(told)
    assert first.startswith(told)
    monkeypatch.setattr(beginning, "PATIENCE_S", 30.0)
    shoal.train("CartPole-v1", run_dir=run_dir, **settings)
    assert "under way" not in capsys.readouterr().out


def test_torch_has_one_thread_while_a_loop_lasts() -> None:
    """In a run without a directory too, however it is left; before and after, threads are as they were."""
    torch.set_num_threads(2)
    try:
        run = open_run(num_envs=2, total_timesteps=64)
        env = make("CartPole-v1", 2)
        learner = run.learner(run.policy(env.spec), Adam, lr=1e-3)
        stream = run.rollouts(env, learner, num_steps=8)
        for _ in run.loop(stream, learner):
            assert torch.get_num_threads() == 1
            break
        assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(1)


def test_a_missing_package_is_a_sentence(run_dir: Path) -> None:
    """A registered environment whose module, or whose constructor, lacks a package."""

    def lacking(**_: Any) -> gym.Env[Any, Any]:
        raise gym.error.DependencyNotInstalled("imageio is not installed")

    for entry_point, told in (("no_such_package.envs:Env", "no_such_package"), (lacking, "imageio is not installed")):
        gym.register("Lacking-v0", entry_point)
        try:
            with pytest.raises(shoal.ConfigError, match=f"Lacking-v0 needs a package that is not .* here: .*{told}"):
                shoal.train("Lacking-v0", run_dir=run_dir, **TINY)
        finally:
            gym.registry.pop("Lacking-v0")


def test_python_m_shoal() -> None:
    told = subprocess.run([sys.executable, "-m", "shoal", "algos"], capture_output=True, text=True, check=True)
    assert "custom algorithms are given by module" in told.stdout


THREE_MISTAKES = """
import shoal

run = shoal.train(
    "CartPole-v1", total_timesteps=1e4, network={"hidden": [8]}, callbacks=[], learning_rate_schedule="linear"
)
print(run.greedy_return)
shoal.train("CartPole-v1", learning_rat=3)
shoal.train("CartPole-v1", algo="ppo", num_envs="8")
shoal.resume(run.path, gamma=0.5)
"""


@pytest.mark.slow
def test_a_type_checker_finds_mistakes_in_settings(tmp_path: Path) -> None:
    """Pyright on a user's script: a misspelt setting, one of another type, one that resume cannot change; no more."""
    script = tmp_path / "mistakes.py"
    script.write_text(THREE_MISTAKES)
    command = [sys.executable, "-m", "pyright", "--pythonpath", sys.executable, str(script)]
    told = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False).stdout
    found = sorted({int(line.split(":")[1]) for line in told.splitlines() if " - error: " in line})
    assert found == [8, 9, 10], told


def test_runs_in_threads_of_one_process(run_dir: Path) -> None:
    """They begin in one second and get directories of their own; torch's threads are as they were."""
    torch.set_num_threads(2)
    settings: Any = TINY | {"num_envs": 2, "total_timesteps": 32, "run_dir": run_dir}
    try:
        with ThreadPoolExecutor(4) as pool:
            runs = [pool.submit(shoal.train, "CartPole-v1", **settings) for _ in range(4)]
        assert len({run.result().path for run in runs}) == 4
        with ThreadPoolExecutor(1) as pool:
            assert pool.submit(torch.get_num_threads).result() == 2
    finally:
        torch.set_num_threads(1)


def test_a_run_counts_with_its_rows() -> None:
    run = open_run(num_envs=2, total_timesteps=64)
    env = make("CartPole-v1", 4)
    learner = run.learner(run.policy(env.spec), Adam, lr=1e-3)
    with pytest.raises(shoal.ConfigError, match=r"num_envs=2, but its rows are of 4 environments; .*num_envs=4"):
        run.rollouts(env, learner, num_steps=8)
    env.close()
