"""Mixtures of experts as runs train them: their routing crosses processes and checkpoints, and none of it is lost."""

from __future__ import annotations

import os
import signal
from contextlib import closing
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

import shoal
from shoal.llm.model_folder import load_folder, save_model
from shoal.llm.sampler.local import LocalSampler
from shoal.run.log import read
from shoal.stream.groups.process import ProcessSampler
from shoal.types import ConfigError
from tests.llm.toy import Successor, toy_model
from tests.stream.test_sampler_process import LONG, REQUESTS, check_same, finished

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]
BATCH = 4 * 6
SETTINGS: dict[str, Any] = {
    "algo": "grpo",
    "num_prompts": 4,
    "num_generations": 6,
    "max_completion_length": 3,
    "learning_rate": 3e-3,
    "panel": "none",
    "stop_at": float("inf"),
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a toy model of six experts in each layer."""
    path = tmp_path_factory.mktemp("models") / "toy"
    save_model(toy_model(experts=6), path)
    return path


def test_another_process_tells_the_same_routing() -> None:
    """Also one that was killed, whose answers another goes on with: every token has its own, and each prompt."""
    model = toy_model(experts=6)
    local = LocalSampler(model, LONG, slots=5, seed=3)
    local.submit(REQUESTS)
    wanted = finished(local)
    with closing(ProcessSampler(model, LONG, slots=5, seed=3, max_restarts=1, timeout_s=60)) as sampler:
        sampler.load(0, model)
        sampler.submit(REQUESTS)
        early = sampler.poll()
        os.kill(sampler.pid, signal.SIGKILL)
        drawn = sorted(early + finished(sampler), key=lambda one: (one.key, one.number))
    check_same(drawn, wanted)
    for mine, theirs in zip(drawn, wanted, strict=True):
        assert mine.routing is not None
        assert mine.routing.shape == (len(mine.token), 2, 2)
        np.testing.assert_array_equal(mine.routing, theirs.routing)
        np.testing.assert_array_equal(mine.prefix, theirs.prefix)


def test_a_mixture_learns_its_task(folder: Path, tmp_path: Path) -> None:
    """While another process samples; it goes on from its checkpoint, and transformers' layout has what it learned."""
    told: dict[str, Any] = {"schedule": "async", "max_staleness": 1, "language": {"routing_replay": True}}
    whole: dict[str, Any] = {"model": str(folder), **SETTINGS, **told, "final_episodes": 0}
    part = shoal.train(Successor, run_dir=str(tmp_path), total_timesteps=BATCH * 20, **whole)
    again = shoal.resume(part.path, factory=Successor, total_timesteps=BATCH * 100, final_episodes=8, panel="none")
    lines = read(again.path / "metrics.jsonl")
    assert lines[4]["episode/return"] < 0.35
    assert lines[-1]["episode/return"] > 0.6
    assert again.greedy_return > 0.6
    assert load_folder(again.path / "model").architecture.num_experts == 6


def test_replay_needs_experts_and_who_tells_of_them(folder: Path, tmp_path: Path) -> None:
    save_model(toy_model(), tmp_path / "dense")
    told: dict[str, Any] = {**SETTINGS, "total_timesteps": BATCH, "run_dir": str(tmp_path)}
    with pytest.raises(ConfigError, match="has no experts"):
        shoal.train(Successor, model=str(tmp_path / "dense"), language={"routing_replay": True}, **told)
    with pytest.raises(ConfigError, match="engine=vllm tells no routing"):
        shoal.train(Successor, model=str(folder), language={"routing_replay": True, "engine": "vllm"}, **told)
    with pytest.raises(ConfigError, match="lora_layers=attention"):
        shoal.train(Successor, model=str(folder), language={"lora_rank": 2}, **told)
