"""The sentence that names the bottleneck, on literal numbers."""

from __future__ import annotations

import math
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

import shoal
from shoal.envs.agents.tictactoe import TicTacToe
from shoal.envs.registry import backend_of
from shoal.experiment import training
from shoal.report.timelines import engine_of
from shoal.run.bottleneck import Engine, Spent, bottleneck
from shoal.run.directory import RunDirectory

MEANWHILE = '; --schedule async (schedule="async" in Python) learns meanwhile'
WORKERS = '--backend workers (backend="workers" in Python) steps Python environments on all 4 cores'
ASYNC: dict[str, Any] = {"schedule": "async", "actors": 2, "num_envs": 8, "cores": 4}
CASES: list[tuple[dict[str, float], tuple[float, float] | None, dict[str, Any], str]] = [
    (
        {"learning": 6.0, "acting": 3.0},
        None,
        {"task": True},
        "60 % of the time goes into learning: shorter answers, a LoRA or a GPU shorten it",
    ),
    (
        {"learning": 6.0, "acting": 3.0},
        None,
        {"task": True, "passes": 2},
        "60 % of the time goes into learning: fewer num_iterations, shorter answers, a LoRA or a GPU shorten it",
    ),
    (
        {"learning": 2.0, "waiting": 7.0},
        None,
        {"task": True, "schedule": "async"},
        "70 % of the time goes into waiting for the sampler: raise max_staleness or language.slots",
    ),
    (
        {"environment": 8.0, "acting": 1.0, "learning": 0.5},
        None,
        {"backend": "serial", "num_envs": 8, "cores": 4},
        "stepping the environments takes 80 % of the time: " + WORKERS + MEANWHILE,
    ),
    (
        {"environment": 8.0},
        None,
        {"backend": "serial", "num_envs": 8, "cores": 4, "several_agents": True},
        "stepping the environments takes 80 % of the time: worker processes do not step games of several agents, but "
        "actors (4 for these cores) collect whole rollouts apart" + MEANWHILE,
    ),
    (
        {"environment": 8.0},
        None,
        {"backend": "serial", "num_envs": 8, "cores": 1},
        "stepping the environments takes 80 % of the time: there is one core or environment; a faster environment, or "
        "more cores and num_envs, move it",
    ),
    (
        {"environment": 8.0},
        None,
        {"backend": "vector", "num_envs": 8, "cores": 4},
        "stepping the environments takes 80 % of the time: the VectorEnv steps its rows itself, on as many cores as it "
        "takes" + MEANWHILE,
    ),
    (
        {"environment": 8.0},
        None,
        {"backend": "remote", "num_envs": 8, "cores": 4},
        "stepping the environments takes 80 % of the time: the servers step the rows: more of them, or more cores "
        "there, step faster" + MEANWHILE,
    ),
    (
        {"environment": 8.0},
        None,
        {"backend": "ale", "num_threads": 2, "num_envs": 8, "cores": 4},
        "stepping the environments takes 80 % of the time: raise num_threads, up to 4, or set actors" + MEANWHILE,
    ),
    (
        {"environment": 8.0},
        None,
        {"backend": "workers", "num_workers": 2, "num_envs": 8, "cores": 4},
        "stepping the environments takes 80 % of the time: raise num_workers, up to one for each of the 4 cores"
        + MEANWHILE,
    ),
    (
        {"environment": 8.0},
        None,
        {"backend": "workers", "num_envs": 8, "cores": 4},
        "stepping the environments takes 80 % of the time: each core has a worker already" + MEANWHILE,
    ),
    (
        {"environment": 8.0},
        None,
        {"backend": "native", "num_threads": 1, "num_envs": 8, "cores": 4},
        "stepping the environments takes 80 % of the time: raise num_threads, up to 4, or set actors" + MEANWHILE,
    ),
    (
        {"environment": 8.0},
        (0.8, 0.1),
        ASYNC | {"schedule": "sync"},
        "stepping the environments takes 80 % of the time: raise actors, up to one for each of the 4 cores" + MEANWHILE,
    ),
    (
        {"acting": 6.1, "learning": 2.0},
        None,
        {},
        "acting takes 61 % of the time: raise num_envs, so that more rows share a forward pass, or make the network "
        "smaller",
    ),
    (
        {"acting": 1.0, "learning": 7.0},
        None,
        {},
        "learning takes 70 % of the time: fewer update_epochs, larger minibatches, a smaller network or a GPU shorten "
        "it; faster environments would not",
    ),
    (
        {"acting": 1.0, "learning": 7.0},
        None,
        {"replay": True},
        "learning takes 70 % of the time: a smaller replay.samples_per_insert, a smaller network or a GPU shorten it; "
        "faster environments would not",
    ),
    (
        {"acting": 1.0, "learning": 2.0},
        None,
        {},
        "70 % of the time goes into evaluation, checkpoints and logging: larger distances between them "
        "(eval_every, checkpoint_every) shorten it",
    ),
    (
        {},
        (0.61, 0.05),
        ASYNC,
        "the learner waits 61 % of the time for rollouts, and actors 5 % to be asked: raise actors, up to one for each "
        "of the 4 cores",
    ),
    (
        {},
        (0.61, 0.05),
        ASYNC | {"actors": 4},
        "the learner waits 61 % of the time for rollouts, and actors 5 % to be asked: collecting is the bottleneck, "
        "and each core has an actor; a cheaper environment or more cores move it, or more num_envs, which share a "
        "forward pass",
    ),
    (
        {},
        (0.02, 0.7),
        ASYNC,
        "the learner waits 2 % of the time for rollouts, and actors 70 % to be asked: the update is the bottleneck; "
        "fewer update_epochs, larger minibatches, a smaller network or a GPU shorten it, and fewer actors leave it "
        "more of the cores",
    ),
    (
        {},
        (0.4, 0.45),
        ASYNC,
        "the learner waits 40 % of the time for rollouts, and actors 45 % to be asked: they wait for each other in "
        "turns; raise max_staleness",
    ),
    (
        {},
        (0.04, 0.06),
        ASYNC,
        "the learner waits 4 % of the time for rollouts, and actors 6 % to be asked: neither waits for long; a cheaper "
        "environment or more cores move the rest",
    ),
]


@pytest.mark.parametrize(("seconds", "waits", "engine", "said"), CASES)
def test_sentences(
    seconds: dict[str, float], waits: tuple[float, float] | None, engine: dict[str, Any], said: str
) -> None:
    learner, actors = waits or (None, None)
    assert bottleneck(Spent(10.0, seconds, learner, actors), Engine(**engine)) == said


@pytest.mark.parametrize(
    ("steps", "num_envs", "short"),
    [(0, 8, ""), (80_000, 8, ""), (400_000, 8, ""), (4_000_000, 8, "2"), (600_000, 8, "13"), (600_000, 64, "")],
)
def test_worker_processes_are_for_steps_that_take_a_while(steps: int, num_envs: int, short: str) -> None:
    """8 s for so many steps: on 4 cores three quarters of a step of all rows must be more than 100 us."""
    spent = Spent(10.0, {"environment": 8.0}, steps=steps)
    engine = Engine(backend="serial", num_envs=num_envs, cores=4)
    how = WORKERS
    if short:
        how = f"a step takes {short} us, too short for the backend workers, whose processes exchange every step; "
        how += "actors (4 for these cores) collect whole rollouts apart"
    assert bottleneck(spent, engine) == f"stepping the environments takes 80 % of the time: {how}{MEANWHILE}"


def test_a_schedule_that_is_there_is_not_advised() -> None:
    said = bottleneck(Spent(10.0, {"environment": 8.0}), Engine(schedule="async", max_staleness=0, num_envs=4, cores=4))
    assert said.endswith("on all 4 cores; a max_staleness of 1 or more learns meanwhile")


def test_advice_of_the_command_line_is_taken(run_dir: Path) -> None:
    """Each spelling, as the command line and Python have it."""
    tiny: Any = {"num_envs": 4, "num_steps": 16, "num_minibatches": 2, "total_timesteps": 128, "final_episodes": 0}
    tiny["stop_at"] = math.inf
    flags = [f"--{name.replace('_', '-')}={value}" for name, value in tiny.items()]
    for advice in ("--backend workers", "--schedule async", "--actors 2"):
        command = ["train", "CartPole-v1", *advice.split(), *flags, "--run-dir", str(run_dir), "--no-report", "--json"]
        done = subprocess.run([sys.executable, "-m", "shoal", *command], capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
        name, value = advice.removeprefix("--").split()
        given: Any = {name: int(value) if value.isdigit() else value}
        shoal.train("CartPole-v1", run_dir=run_dir, panel="none", **tiny, **given)


def test_a_run_counts_the_steps_of_its_own_process(run_dir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What went before it was resumed took none of its time."""
    seen: list[float] = []

    def noted(spent: Spent, engine: Engine) -> str:
        seen.append(spent.steps)
        return ""

    monkeypatch.setattr(training, "bottleneck", noted)
    tiny: Any = {"num_envs": 4, "num_steps": 16, "num_minibatches": 2, "final_episodes": 0, "panel": "none"}
    path = shoal.train("CartPole-v1", run_dir=run_dir, total_timesteps=256, **tiny).path
    shoal.resume(path, total_timesteps=384, panel="none")
    assert seen == [256, 128]


def test_a_run_knows_that_its_environments_have_several_agents(run_dir: Path) -> None:
    """While it trains by its rows, later by its file."""
    seen: list[bool] = []
    tiny: Any = {"num_envs": 4, "num_steps": 16, "num_minibatches": 2, "final_episodes": 0, "panel": "none"}
    for env in (TicTacToe, "CartPole-v1"):
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(training, "bottleneck", lambda _, engine: seen.append(engine.several_agents) or "")
            run = RunDirectory(shoal.train(env, run_dir=run_dir, total_timesteps=128, **tiny).path)
        seen.append(engine_of(run.read_config(), run.read_origin()).several_agents)
    assert seen == [True, True, False, False]


def test_a_second_tells_nothing() -> None:
    assert bottleneck(Spent(1.0, {"learning": 0.9}), Engine()) == ""


def test_spent_by_metrics() -> None:
    """Since the run was resumed last: the seconds of its process begin anew there, those of the run go on."""
    lines: list[dict[str, Any]] = [
        {"step": 1, "time/elapsed": 1.0, "time/learning": 0.5, "speed/actors_wait": 0.9},
        {"step": 2, "time/elapsed": 9.0, "time/learning": 8.0},
        {"step": 3, "time/elapsed": 10.0, "time/learning": 0.25, "speed/actors_wait": 0.2, "speed/learner_waits": 0.5},
        {"step": 4},
        {"step": 5, "time/elapsed": 14.0, "time/learning": 3.25, "time/acting": None, "speed/actors_wait": 0.4},
    ]
    spent = Spent.of_lines(lines)
    assert spent is not None
    assert spent.elapsed_s == 4.0
    assert spent.seconds["learning"] == 3.0
    assert spent.seconds["acting"] == 0.0
    assert spent.actors_wait == pytest.approx(0.3)
    assert spent.learner_waits == 0.5
    assert spent.steps == 2
    assert Spent.of_lines(lines[:1]) is None
    assert Spent.of_lines([]) is None


@pytest.mark.parametrize(
    ("env", "asked", "found"),
    [
        ("ALE/Pong-v5", "auto", "ale"),
        ("ALE/Pong-v5", "workers", "workers"),
        ("grpc://localhost:50051", "auto", "remote"),
        ("Pendulum-v1", "auto", "serial"),
        (object, "vector", "vector"),
    ],
)
def test_the_backend_that_steps_rows(env: object, asked: str, found: str) -> None:
    assert backend_of(env, asked) == found
