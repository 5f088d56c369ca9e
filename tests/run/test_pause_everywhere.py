"""Pausing wherever rows step and answers are drawn: actors, learners, agents, servers, a sampler in another process."""

from __future__ import annotations

import time
from functools import partial
from threading import Thread
from typing import TYPE_CHECKING, Any

import pytest

from shoal.envs.registry import make
from shoal.experiment.training import resume
from shoal.llm.model_folder import save_model
from shoal.remote.server import Server
from shoal.run import control
from shoal.run.directory import RunDirectory
from tests.llm.toy import toy_model
from tests.run.pausing import Pauser
from tests.run.test_ctrl_c import CASES, metrics_of, said
from tests.run.test_pause import IDLE, NATIVE, PPO, SLOW, trained
from tests.run.test_resume import weights_sha256

if TYPE_CHECKING:
    from pathlib import Path

    from shoal.run.run import Run

GROUPS: dict[str, Any] = {
    "env": "tests.llm.toy:Successor",
    "algo": "grpo",
    "num_prompts": 3,
    "num_generations": 4,
    "max_completion_length": 4,
    "learning_rate": 1e-3,
}
OTHERS: dict[str, dict[str, Any]] = {
    "overlap": {**NATIVE, "schedule": "overlap"},
    "learners": {**NATIVE, "num_envs": 8, "learners": 2},
    "slow-learners": {"env": SLOW, "env_kwargs": {"step_s": 0.02}, **PPO, "learners": 2},
    "agents": {**NATIVE, "agents": 2, "num_envs": 8},
    "processes": {"env": SLOW, "env_kwargs": {"step_s": 0.02}, **PPO, "backend": "workers", "num_workers": 2},
}


def compared(folder: Path, case: dict[str, Any], *, after_s: float, end: str = "continue") -> Pauser:
    """A run that was paused beside one that never was: the same bits."""
    pauser = Pauser(after_s=after_s, end=end)
    whole = trained(folder / "whole", case, updates=5)
    if end == "stop":
        with pytest.warns(UserWarning, match="shoal resume"):
            path = trained(folder / "paused", case, updates=5, callbacks=[pauser])
        assert RunDirectory(path).read_status()["state"] == "stopped"
        resume(path, panel="none")
    else:
        path = trained(folder / "paused", case, updates=5, callbacks=[pauser])
    pauser.joined()
    assert pauser.noticed_s < 1.0
    assert pauser.busy < IDLE
    assert weights_sha256(whole) == weights_sha256(path)
    assert metrics_of(whole) == metrics_of(path)
    return pauser


@pytest.mark.slow
@pytest.mark.parametrize("end", ["continue", "stop"])
@pytest.mark.parametrize("case", CASES, ids=said)
def test_actors(case: dict[str, Any], end: str, tmp_path: Path) -> None:
    """In the middle of a rollout, of processes too."""
    env = SLOW + ("Continuous" if case["algo"] == "sac" else "")
    own = {"env": env, "env_kwargs": {"step_s": 0.02}, "num_envs": 4, **case}
    compared(tmp_path, own, after_s=0.15, end=end)


@pytest.mark.slow
@pytest.mark.parametrize("name", OTHERS)
def test_others(name: str, tmp_path: Path) -> None:
    """However rows are spread."""
    case = OTHERS[name]
    compared(tmp_path, case, after_s=0.1 if "env_kwargs" in case else 0.0)


@pytest.mark.slow
def test_learners_stop(tmp_path: Path) -> None:
    """While all stand still: they end together."""
    compared(tmp_path, OTHERS["learners"], after_s=0.0, end="stop")


@pytest.mark.slow
def test_servers(tmp_path: Path) -> None:
    """A server's session outlives a pause that is longer than it waits for a word."""
    with Server(partial(make, SLOW, env_kwargs={"step_s": 0.01}), num_envs=4, listen="127.0.0.1:0") as server:
        case = {**PPO, "env": f"grpc://{server.address}"}
        compared(tmp_path, case, after_s=0.05)


@pytest.mark.slow
@pytest.mark.parametrize("end", ["continue", "stop"])
@pytest.mark.parametrize("schedule", ["sync", "async"])
def test_language_models(schedule: str, end: str, tmp_path: Path) -> None:
    """Between two tokens, here or in a sampler's process."""
    save_model(toy_model(), tmp_path / "model")
    case = {**GROUPS, "model": str(tmp_path / "model"), "schedule": schedule, "max_staleness": 0}
    case["language"] = {
        "exact": True,
        "after_publish": "refill",
    }  # an answer that is read anew has the bits that it had
    if schedule == "sync":
        case.pop("max_staleness")
    compared(tmp_path, case | {"total_timesteps": 12 * 40}, after_s=0.0, end=end)


@pytest.mark.slow
def test_learners_that_wait_for_each_other(tmp_path: Path) -> None:
    """Whichever of them stands still first: the run says within a second that it does, again and again."""
    paused: list[float] = []
    errors: list[BaseException] = []

    def often(run: Run) -> None:
        assert run.directory is not None
        try:
            for _ in range(12):
                begun = time.monotonic()
                control.pause(run.directory)
                assert control.wait_until(run.directory, 5.0, lambda now: now.get("state") == "paused") is not None
                paused.append(time.monotonic() - begun)
                control.go_on(run.directory)
                time.sleep(0.3)
        except BaseException as error:
            errors.append(error)
        run.stop("paused often")

    threads: list[Thread] = []

    def begin(run: Run, record: Any) -> None:
        if not threads:
            threads.append(Thread(target=often, args=(run,)))
            threads[0].start()

    begin.episodes = False  # pyright: ignore[reportFunctionMemberAccess]
    trained(tmp_path, OTHERS["learners"], updates=20_000, callbacks=[begin])
    threads[0].join()
    assert not errors
    assert len(paused) == 12
    assert max(paused) < 2.0
