"""A run killed between checkpoints and resumed in a new process equals the uninterrupted one, bit for bit."""

from __future__ import annotations

import hashlib
import json
import time
from itertools import product
from typing import TYPE_CHECKING, Any

import psutil
import pytest

from shoal.report.lineage import takeovers_of
from shoal.run import checkpoint
from shoal.run.log import read

if TYPE_CHECKING:
    from pathlib import Path

    from tests.fork_server import Interpreter

CHILD = """
import json, os, signal, sys
from shoal.experiment import training
from shoal.experiment.training import resume, train
from shoal.nets.network import ActorCriticNet, Network, QNet
from shoal.run.loop import Loop

task = json.loads(sys.argv[1])
write = Loop._write_line

def write_then_die(self):
    write(self)
    if self.run.updates == task["die_at"]:
        os.kill(os.getpid(), signal.SIGKILL)

Loop._write_line = write_then_die
training.GREEDY_EPISODES = 2  # training is what is compared
if task["resume"]:
    resume(task["path"], panel="none")
else:
    kinds = {"dqn": QNet, "pqn": QNet, "r2d2": QNet, "sac": ActorCriticNet, "td3": ActorCriticNet}
    kinds["ppo_sac"] = ActorCriticNet
    kind = kinds.get(task["settings"].get("algo"), Network)
    settings = task["settings"] | {"network": kind(**task["network"])}
    train(task["env"], panel="none", name="run", stop_at=1e9, **settings)
"""

CARTPOLE = {"num_envs": 8, "num_steps": 16, "total_timesteps": 8 * 16 * 50}
LANDER = {"num_envs": 4, "num_steps": 32, "total_timesteps": 4 * 32 * 30}


def weights_sha256(path: Path) -> str:
    """The hash of a run's newest weights."""
    found = checkpoint.load(path / "checkpoints")
    assert found is not None
    digest = hashlib.sha256()
    for learner in found.tree["learner"].values():
        for name, tensor in sorted(learner["networks"]["policy"]["module"].items()):
            digest.update(name.encode() + tensor.numpy().tobytes())
    return digest.hexdigest()


def metrics_sha256(path: Path) -> str:
    """The hash of all metrics but the clock's."""
    lines = [
        {k: v for k, v in line.items() if not k.startswith(("time/", "speed/"))}
        for line in read(path / "metrics.jsonl")
    ]
    assert len(lines) >= 30
    return hashlib.sha256(json.dumps(lines).encode()).hexdigest()


def run_child(interpreter: Interpreter, task: dict[str, Any], folder: Path) -> int:
    """Runs one task in a process of its own; returns how it ended."""
    return interpreter.run(CHILD, json.dumps(task), folder=folder).returncode


def resumed_cases() -> list[Any]:
    """Every mixture; those that take long and that a faster one stands for are slow."""
    cases = []
    for env, backend in (("CartPole-v1", "native"), ("LunarLander-v3", "auto"), ("LunarLander-v3", "serial")):
        for algo, recurrent in product(("ppo", "a2c"), ("none", "gru")):
            fast = (algo, recurrent, env, backend) == ("ppo", "none", "LunarLander-v3", "auto")
            marks = [] if fast else [pytest.mark.slow]
            cases.append(pytest.param(env, backend, algo, recurrent, marks=marks))
    cases.append(pytest.param("CartPole-v1", "native", "ppo x4", "gru", marks=pytest.mark.slow))
    return cases


@pytest.mark.parametrize(("env", "backend", "algo", "recurrent"), resumed_cases())
def test_killed_and_resumed_equals_uninterrupted(
    env: str, backend: str, algo: str, recurrent: str, tmp_path: Path, interpreter: Interpreter
) -> None:
    """SIGKILL between two checkpoints; weights and metrics of the resumed run equal the uninterrupted run's."""
    algo, _, agents = algo.partition(" x")
    settings: dict[str, Any] = {"algo": algo, "agents": int(agents or 1), "seed": 7, "backend": backend} | (
        CARTPOLE if env == "CartPole-v1" else LANDER
    )
    if algo == "ppo":
        settings |= {"num_minibatches": 2, "update_epochs": 2}
    network = {"recurrent": recurrent, "normalize_obs": True, "hidden": [32]}
    task = {"env": env, "settings": settings, "network": network, "die_at": -1, "resume": False}
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    assert run_child(interpreter, task | {"settings": settings | {"run_dir": str(whole)}}, tmp_path) == 0
    die_at = 23 if env == "CartPole-v1" else 17
    assert (
        run_child(interpreter, task | {"settings": settings | {"run_dir": str(killed)}, "die_at": die_at}, tmp_path)
        == -9
    )
    before = checkpoint.load(killed / env / algo / "run" / "checkpoints")
    assert before is not None
    assert 0 < before.updates < die_at
    assert run_child(interpreter, task | {"path": str(killed / env / algo / "run"), "resume": True}, tmp_path) == 0
    assert weights_sha256(whole / env / algo / "run") == weights_sha256(killed / env / algo / "run")
    assert metrics_sha256(whole / env / algo / "run") == metrics_sha256(killed / env / algo / "run")


@pytest.mark.slow
@pytest.mark.parametrize("env", ["Pendulum-v1", "LunarLander-v3"])
def test_preprocessed_and_randomized_runs_resume_too(env: str, tmp_path: Path, interpreter: Interpreter) -> None:
    """Draws, a range that widens, sticky actions and stacks go on where they were."""
    name = "g" if env == "Pendulum-v1" else "gravity"
    settings: dict[str, Any] = {"seed": 5, "num_minibatches": 2, "update_epochs": 2} | LANDER
    settings |= {"env_kwargs": {name: "uniform:-12,-8 from -10 over 3000"}}
    settings |= {"preprocessing": {"frame_stack": 2, "sticky_actions": 0.2, "reward_clip": [-1.0, 1.0]}}
    settings["preprocessing"]["max_episode_steps"] = 50
    task = {"env": env, "settings": settings, "network": {"hidden": [16]}, "die_at": -1, "resume": False}
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    assert run_child(interpreter, task | {"settings": settings | {"run_dir": str(whole)}}, tmp_path) == 0
    assert (
        run_child(interpreter, task | {"settings": settings | {"run_dir": str(killed)}, "die_at": 17}, tmp_path) == -9
    )
    run = killed / env / "ppo" / "run"
    assert run_child(interpreter, task | {"path": str(run), "resume": True}, tmp_path) == 0
    assert weights_sha256(whole / env / "ppo" / "run") == weights_sha256(run)
    assert metrics_sha256(whole / env / "ppo" / "run") == metrics_sha256(run)


@pytest.mark.slow
@pytest.mark.parametrize("algo", ["ppo", "a2c"])
def test_threads_change_no_bit(algo: str, tmp_path: Path, interpreter: Interpreter) -> None:
    """The weights after training with 1 and with 2 pool threads have one sha256."""
    hashes: set[str] = set()
    for threads in (1, 2):
        network = {"recurrent": "none", "normalize_obs": True}
        settings = {"algo": algo, "seed": 3, "num_threads": threads, "run_dir": str(tmp_path / str(threads))}
        settings |= {"num_envs": 96, "num_steps": 16, "total_timesteps": 96 * 16 * 40}
        task = {"env": "CartPole-v1", "settings": settings, "network": network, "die_at": -1, "resume": False}
        assert run_child(interpreter, task, tmp_path) == 0
        hashes.add(weights_sha256(tmp_path / str(threads) / "CartPole-v1" / algo / "run"))
    assert len(hashes) == 1


@pytest.mark.slow
@pytest.mark.parametrize("buffer_size", [4_000, 400])
def test_a_replay_memory_in_a_file_outlives_a_kill(buffer_size: int, tmp_path: Path, interpreter: Interpreter) -> None:
    """Checkpoints do not hold it. Where its rings did not go round since the last one, all is as if nothing was."""
    settings: dict[str, Any] = {"algo": "dqn", "seed": 7, "num_envs": 4, "num_steps": 5, "total_timesteps": 3_000}
    settings |= {"batch_size": 16, "n_step": 3, "target_update_interval": 9}
    replay = {"buffer_size": buffer_size, "learning_starts": 100, "samples_per_insert": 6.0, "alpha": 0.6, "file": True}
    settings["replay"] = replay
    task = {"env": "CartPole-v1", "settings": settings, "network": {"hidden": [16]}, "die_at": -1, "resume": False}
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    assert run_child(interpreter, task | {"settings": settings | {"run_dir": str(whole)}}, tmp_path) == 0
    doomed = task | {"settings": settings | {"run_dir": str(killed)}, "die_at": 614}
    assert run_child(interpreter, doomed, tmp_path) == -9
    run = killed / "CartPole-v1" / "dqn" / "run"
    saved = checkpoint.load(run / "checkpoints")
    assert saved is not None
    assert saved.tree["stream"]["memory"]["file"] == "replay.bin"
    assert (run / "replay.bin").stat().st_size > buffer_size * 8 * 6
    assert run_child(interpreter, task | {"path": str(run), "resume": True}, tmp_path) == 0
    other = whole / "CartPole-v1" / "dqn" / "run"
    assert (weights_sha256(other) == weights_sha256(run)) == (buffer_size == 4_000)


@pytest.mark.parametrize(
    ("alpha", "agents"),
    [
        pytest.param(0.0, 1, marks=pytest.mark.slow),
        pytest.param(0.6, 1, marks=pytest.mark.slow),
        pytest.param(0.6, 2, marks=pytest.mark.slow),
    ],
)
def test_a_replay_memory_outlives_a_kill(alpha: float, agents: int, tmp_path: Path, interpreter: Interpreter) -> None:
    """DQN whose rings go round: killed between two checkpoints, in the middle of what one rollout allows."""
    settings: dict[str, Any] = {"algo": "dqn", "seed": 7, "num_envs": 4, "num_steps": 5, "total_timesteps": 3_000}
    settings |= {"agents": agents}
    settings |= {"batch_size": 16, "n_step": 3, "target_update_interval": 9}
    settings |= {"replay": {"buffer_size": 400, "learning_starts": 100, "samples_per_insert": 6.0, "alpha": alpha}}
    task = {"env": "CartPole-v1", "settings": settings, "network": {"hidden": [16]}, "die_at": -1, "resume": False}
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    assert run_child(interpreter, task | {"settings": settings | {"run_dir": str(whole)}}, tmp_path) == 0
    doomed = task | {"settings": settings | {"run_dir": str(killed)}, "die_at": 614}
    assert run_child(interpreter, doomed, tmp_path) == -9
    run = killed / "CartPole-v1" / "dqn" / "run"
    assert run_child(interpreter, task | {"path": str(run), "resume": True}, tmp_path) == 0
    assert weights_sha256(whole / "CartPole-v1" / "dqn" / "run") == weights_sha256(run)
    assert metrics_sha256(whole / "CartPole-v1" / "dqn" / "run") == metrics_sha256(run)


@pytest.mark.slow
@pytest.mark.parametrize(("alpha", "agents"), [(0.0, 1), (0.6, 2)])
def test_shards_outlive_a_kill(alpha: float, agents: int, tmp_path: Path, interpreter: Interpreter) -> None:
    """DQN whose steps two actors keep: their memories, and who draws from them, come back with the learner."""
    settings: dict[str, Any] = {"algo": "dqn", "seed": 7, "num_envs": 4, "num_steps": 5, "total_timesteps": 3_000}
    settings |= {"agents": agents, "actors": 2}
    settings |= {"batch_size": 16, "n_step": 3, "target_update_interval": 9}
    replay = {"buffer_size": 400, "learning_starts": 100, "samples_per_insert": 6.0, "alpha": alpha, "shards": True}
    settings["replay"] = replay
    task = {"env": "CartPole-v1", "settings": settings, "network": {"hidden": [16]}, "die_at": -1, "resume": False}
    whole, killed = (tmp_path / name / "CartPole-v1" / "dqn" / "run" for name in ("whole", "killed"))
    assert run_child(interpreter, task | {"settings": settings | {"run_dir": str(tmp_path / "whole")}}, tmp_path) == 0
    doomed = task | {"settings": settings | {"run_dir": str(tmp_path / "killed")}, "die_at": 614}
    assert run_child(interpreter, doomed, tmp_path) == -9
    assert run_child(interpreter, task | {"path": str(killed), "resume": True}, tmp_path) == 0
    assert weights_sha256(whole) == weights_sha256(killed)
    assert metrics_sha256(whole) == metrics_sha256(killed)


@pytest.mark.slow
@pytest.mark.parametrize(("recurrent", "file"), [("gru", False), ("lstm", False), ("lstm", True)])
def test_sequences_outlive_a_kill(recurrent: str, *, file: bool, tmp_path: Path, interpreter: Interpreter) -> None:
    """R2D2 whose rings go round: the states of its records, those that act, and what is drawn."""
    settings: dict[str, Any] = {"algo": "r2d2", "seed": 7, "num_envs": 4, "num_steps": 5, "total_timesteps": 1_200}
    settings |= {"batch_size": 4, "sequence_length": 5, "burn_in": 3, "target_update_interval": 9}
    buffer_size = 8_000 if file else 400
    settings["replay"] = {"buffer_size": buffer_size, "learning_starts": 100, "samples_per_insert": 4.0, "file": file}
    settings["replay"] |= {"alpha": 0.6 if recurrent == "lstm" else 0.0}
    network = {"hidden": [16], "recurrent": recurrent, "recurrent_size": 8}
    task = {"env": "CartPole-v1", "settings": settings, "network": network, "die_at": -1, "resume": False}
    whole, killed = (tmp_path / name / "CartPole-v1" / "r2d2" / "run" for name in ("whole", "killed"))
    for path, die_at, status in ((whole, -1, 0), (killed, 163, -9)):
        own = {"settings": settings | {"run_dir": str(path.parents[2])}, "die_at": die_at}
        assert run_child(interpreter, task | own, tmp_path) == status
    saved = checkpoint.load(killed / "checkpoints")
    assert saved is not None
    assert 0 < saved.updates < 163
    assert run_child(interpreter, task | {"path": str(killed), "resume": True}, tmp_path) == 0
    assert weights_sha256(whole) == weights_sha256(killed)
    assert metrics_sha256(whole) == metrics_sha256(killed)


@pytest.mark.parametrize("agents", [2, pytest.param(4, marks=pytest.mark.slow)])
def test_a_population_outlives_a_kill(agents: int, tmp_path: Path, interpreter: Interpreter) -> None:
    """Agents who copied each other before the checkpoint that the killed run goes on from, and after it."""
    settings: dict[str, Any] = {"algo": "dqn", "seed": 7, "num_envs": 4, "num_steps": 5, "total_timesteps": 1_500}
    settings |= {"batch_size": 16, "target_update_interval": 9, "agents": agents}
    settings |= {"replay": {"buffer_size": 400, "learning_starts": 100, "samples_per_insert": 6.0, "alpha": 0.6}}
    vary = ["learning_rate=loguniform(1e-5,1e-2)", "gamma=uniform(0.5,0.99)", "n_step=" + "3,1,2,4"[: 2 * agents - 1]]
    settings["population"] = {"vary": vary, "exploit_interval": 300, "evaluation_episodes": 10, "significance": 0.5}
    task = {"env": "CartPole-v1", "settings": settings, "network": {"hidden": [16]}, "die_at": -1, "resume": False}
    whole, killed = (tmp_path / name / "CartPole-v1" / "dqn" / "run" for name in ("whole", "killed"))
    for path, die_at, status in ((whole, -1, 0), (killed, 230, -9)):
        own = {"settings": settings | {"run_dir": str(path.parents[2])}, "die_at": die_at}
        assert run_child(interpreter, task | own, tmp_path) == status
    saved = checkpoint.load(killed / "checkpoints")
    assert saved is not None
    steps = [taken.step for taken in takeovers_of(read(whole / "metrics.jsonl"))]
    assert min(steps) < saved.tree["stream"]["env_steps"] < max(steps)
    assert run_child(interpreter, task | {"path": str(killed), "resume": True}, tmp_path) == 0
    assert weights_sha256(whole) == weights_sha256(killed)
    assert metrics_sha256(whole) == metrics_sha256(killed)


def actors_running() -> list[int]:
    """Processes that collect for a learner."""
    running = psutil.process_iter(["cmdline"])
    return [p.pid for p in running if any("shoal.stream.actors.local" in word for word in p.info["cmdline"] or ())]


@pytest.mark.slow
@pytest.mark.parametrize("algo", ["ppo", "dqn"])
@pytest.mark.parametrize("schedule", ["sync", "async"])
@pytest.mark.parametrize("actors_in", ["threads", "processes"])
def test_runs_with_actors_outlive_a_kill(
    actors_in: str, schedule: str, algo: str, tmp_path: Path, interpreter: Interpreter
) -> None:
    """The rows of every actor, and who acts in them; they are gone with the learner that was killed."""
    settings: dict[str, Any] = {"algo": algo, "seed": 7, "actors": 2, "schedule": schedule, "max_staleness": 0}
    settings["actors_in"] = actors_in
    if schedule == "sync":
        del settings["max_staleness"]
    if algo == "ppo":
        settings |= {"num_minibatches": 2, "update_epochs": 2} | CARTPOLE
    else:
        settings |= {"num_envs": 4, "num_steps": 5, "total_timesteps": 3_000, "batch_size": 16}
        settings["replay"] = {"buffer_size": 400, "learning_starts": 100, "samples_per_insert": 6.0, "alpha": 0.6}
    task = {"env": "CartPole-v1", "settings": settings, "network": {"hidden": [16]}, "die_at": -1, "resume": False}
    whole, killed = (tmp_path / name / "CartPole-v1" / algo / "run" for name in ("whole", "killed"))
    for path, die_at, status in ((whole, -1, 0), (killed, 23 if algo == "ppo" else 614, -9)):
        own = {"settings": settings | {"run_dir": str(path.parents[2])}, "die_at": die_at}
        assert run_child(interpreter, task | own, tmp_path) == status
        deadline = time.monotonic() + 5
        while actors_running():
            assert time.monotonic() < deadline
            time.sleep(0.05)
    assert run_child(interpreter, task | {"path": str(killed), "resume": True}, tmp_path) == 0
    assert weights_sha256(whole) == weights_sha256(killed)
    assert metrics_sha256(whole) == metrics_sha256(killed)


@pytest.mark.slow
@pytest.mark.parametrize("recurrent", ["none", "gru"])
def test_what_v_trace_corrects_outlives_a_kill(recurrent: str, tmp_path: Path, interpreter: Interpreter) -> None:
    """IMPALA, whose learner is asked about whole rollouts, with several epochs each, and old ones among them."""
    settings: dict[str, Any] = {"algo": "impala", "seed": 7, "num_minibatches": 2, "update_epochs": 2} | CARTPOLE
    settings["replay_fraction"] = 0.4 if recurrent == "none" else 0.0
    network = {"hidden": [16], "recurrent": recurrent, "normalize_obs": True}
    task = {"env": "CartPole-v1", "settings": settings, "network": network, "die_at": -1, "resume": False}
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    assert run_child(interpreter, task | {"settings": settings | {"run_dir": str(whole)}}, tmp_path) == 0
    doomed = task | {"settings": settings | {"run_dir": str(killed)}, "die_at": 23}
    assert run_child(interpreter, doomed, tmp_path) == -9
    run = killed / "CartPole-v1" / "impala" / "run"
    assert run_child(interpreter, task | {"path": str(run), "resume": True}, tmp_path) == 0
    assert weights_sha256(whole / "CartPole-v1" / "impala" / "run") == weights_sha256(run)
    assert metrics_sha256(whole / "CartPole-v1" / "impala" / "run") == metrics_sha256(run)


@pytest.mark.slow
@pytest.mark.parametrize("layer_norm", [True, False])
def test_q_learning_on_rollouts_outlives_a_kill(*, layer_norm: bool, tmp_path: Path, interpreter: Interpreter) -> None:
    """PQN in the middle of its exploration: weights, RAdam's moments and epsilon."""
    settings: dict[str, Any] = {"algo": "pqn", "seed": 7, "exploration_fraction": 0.9, "num_minibatches": 2} | CARTPOLE
    network = {"hidden": [16], "layer_norm": layer_norm}
    task = {"env": "CartPole-v1", "settings": settings, "network": network, "die_at": -1, "resume": False}
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    assert run_child(interpreter, task | {"settings": settings | {"run_dir": str(whole)}}, tmp_path) == 0
    doomed = task | {"settings": settings | {"run_dir": str(killed)}, "die_at": 23}
    assert run_child(interpreter, doomed, tmp_path) == -9
    run = killed / "CartPole-v1" / "pqn" / "run"
    assert run_child(interpreter, task | {"path": str(run), "resume": True}, tmp_path) == 0
    assert weights_sha256(whole / "CartPole-v1" / "pqn" / "run") == weights_sha256(run)
    assert metrics_sha256(whole / "CartPole-v1" / "pqn" / "run") == metrics_sha256(run)


@pytest.mark.slow
@pytest.mark.parametrize("algo", ["sac", "td3", "ppo_sac"])
def test_actors_beside_critics_outlive_a_kill(algo: str, tmp_path: Path, interpreter: Interpreter) -> None:
    """The actor, its critics, their targets, the temperature and the noise of updates; 1 and 2 threads alike.

    Beside explorers too, who are killed in the middle of a rollout.
    """
    settings: dict[str, Any] = {"algo": algo, "seed": 7, "num_envs": 4, "total_timesteps": 500, "batch_size": 16}
    if algo == "ppo_sac":
        settings["explorers"] = {"num_steps": 24, "network": {"hidden": [8]}}
    settings |= {"replay": {"buffer_size": 400, "learning_starts": 100, "samples_per_insert": 8.0}}
    task = {"env": "Pendulum-v1", "settings": settings, "network": {"hidden": [16]}, "die_at": -1, "resume": False}
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    own = {"run_dir": str(whole), "num_threads": 2}
    assert run_child(interpreter, task | {"settings": settings | own}, tmp_path) == 0
    doomed = task | {"settings": settings | {"run_dir": str(killed), "num_threads": 1}, "die_at": 114}
    assert run_child(interpreter, doomed, tmp_path) == -9
    run = killed / "Pendulum-v1" / algo / "run"
    assert run_child(interpreter, task | {"path": str(run), "resume": True}, tmp_path) == 0
    assert weights_sha256(whole / "Pendulum-v1" / algo / "run") == weights_sha256(run)
    assert metrics_sha256(whole / "Pendulum-v1" / algo / "run") == metrics_sha256(run)
