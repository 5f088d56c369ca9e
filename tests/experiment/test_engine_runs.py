"""Runs whose answers are drawn by a server: they learn, go on after it broke off, and resume."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

import shoal
from shoal.llm.sampler.protocol import Drawing
from shoal.run.log import read
from shoal.types import ConfigError, EnvError
from tests.experiment.test_language import BATCH
from tests.experiment.test_language import trained as trained_on_letters
from tests.llm.engine_server import EngineServer
from tests.llm.toy import Successor, toy_model

if TYPE_CHECKING:
    from collections.abc import Generator

    from shoal.experiment.training import Result


@pytest.fixture
def server() -> Generator[EngineServer]:
    """It begins with other weights than the run."""
    made = EngineServer(toy_model(9), Drawing(max_tokens=3))
    yield made
    made.close()


def trained(folder: Path, where: Path, server: EngineServer, updates: int, **settings: Any) -> Result:
    """A run of so many batches."""
    engine = {"engine": "vllm", "engine_url": server.url} | settings.pop("language", {})
    return trained_on_letters(folder, where, updates, language=engine, **settings)


@pytest.mark.parametrize("engine", ["vllm", pytest.param("sglang", marks=pytest.mark.slow)])
def test_every_batch_is_drawn_by_the_newest_weights(
    folder: Path, tmp_path: Path, server: EngineServer, engine: str
) -> None:
    """In sync: they are given to the server after every batch."""
    result = trained(folder, tmp_path, server, 6, language={"engine": engine})
    lines = read(result.path / "metrics.jsonl")
    assert max(line["groups/staleness_max"] for line in lines) == 0
    assert server.taken >= 6


@pytest.mark.slow
@pytest.mark.parametrize("schedule", ["sync", "async"])
def test_a_model_learns_from_answers_of_a_server(
    folder: Path, tmp_path: Path, server: EngineServer, schedule: str
) -> None:
    """From next to nothing to more than half of what can be had; the noise depends on the order of requests."""
    result = trained(folder, tmp_path, server, 150, schedule=schedule)
    lines = read(result.path / "metrics.jsonl")
    assert lines[4]["episode/return"] < 0.3
    assert lines[-1]["episode/return"] > 0.55


def test_versions_of_a_server_reach_the_loss(folder: Path, tmp_path: Path, server: EngineServer) -> None:
    """It draws while the run learns, some tokens by older weights; never by older ones than may be."""
    server.faults.slow_s = 0.001
    result = trained(folder, tmp_path, server, 8, schedule="async", max_staleness=2)
    lines = read(result.path / "metrics.jsonl")
    assert 0 < max(line["groups/staleness_max"] for line in lines) <= 2


def test_a_run_goes_on_where_its_server_broke_off(folder: Path, tmp_path: Path, server: EngineServer) -> None:
    """And a resumed one with what was in flight: every answer is learned from once."""
    server.faults.breaks_after = 2
    with pytest.warns(UserWarning, match="broke off"):
        part = trained(folder, tmp_path, server, 3, schedule="async", max_staleness=1)
    again = shoal.resume(part.path, factory=Successor, total_timesteps=6 * BATCH, panel="none")
    lines = read(again.path / "metrics.jsonl")
    assert again.steps == lines[-1]["episode/count"] == 6 * BATCH


def test_a_run_ends_where_the_head_is_not_pushed(folder: Path, tmp_path: Path, server: EngineServer) -> None:
    """Whether the server began with the run's weights or not."""
    server.faults.keeps_head = True
    with pytest.raises(EnvError, match="older output head"):
        trained(folder, tmp_path, server, 3)


@pytest.mark.parametrize(
    ("language", "message"),
    [
        ({"engine": "openai"}, "takes no weights"),
        ({"engine": "sglang", "engine_url": ""}, "needs engine_url"),
        ({"engine_url": ""}, "this environment has no vLLM"),
        ({"engine_url": "", "engine_python": "/nowhere/python"}, "is no program"),
        ({"engine_options": "--max-num-seqs 8"}, "leave engine_url out"),
        ({"exact": True, "after_publish": "refill"}, "only shoal's own sampler"),
        ({"engine": "local"}, "engine=local draws here"),
        ({"engine_tolerance": 0.0}, "must be above 0"),
        ({"slots": 8}, "has a number of its own"),
        ({"engine": "local", "engine_url": "", "engine_timeout_s": 5.0}, "set language.engine"),
        ({"engine_in_process": True}, "engine_url is for a server"),
        ({"engine_in_process": True, "engine_url": ""}, "has no vLLM that can be imported"),
    ],
)
def test_what_an_engine_cannot_do(
    folder: Path, tmp_path: Path, server: EngineServer, language: dict[str, Any], message: str
) -> None:
    """Refused before anything is asked."""
    with pytest.raises(ConfigError, match=message):
        trained(folder, tmp_path, server, 1, language=language)
    assert server.requests == 0
