"""Runs on games: they resume to the bit, against whoever plays, and what does not fit is refused."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any

import pytest

import shoal
from shoal.llm.model_folder import save_model
from shoal.llm.tasks.nim import Nim
from shoal.run.log import read
from shoal.types import ConfigError
from tests.experiment.test_language import sha256
from tests.llm.letters import Letters
from tests.llm.toy import Successor, toy_model

if TYPE_CHECKING:
    from pathlib import Path

    from shoal.experiment.result import Result

SETTINGS: dict[str, Any] = {
    "algo": "grpo",
    "num_prompts": 2,
    "num_generations": 3,
    "max_completion_length": 30,
    "learning_rate": 3e-3,
    "panel": "none",
    "final_episodes": 0,
    "stop_at": float("inf"),
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the toy model."""
    path = tmp_path_factory.mktemp("models") / "toy"
    save_model(toy_model(), path)
    return path


def trained(folder: Path, where: Path, updates: int, task: Any = Letters, **settings: Any) -> Result:
    """A run of so many batches."""
    whole: dict[str, Any] = {"model": str(folder), **SETTINGS, "total_timesteps": 6 * updates, **settings}
    return shoal.train(task, run_dir=str(where), **whole)


def test_a_run_against_older_weights_resumes_to_the_bit(folder: Path, tmp_path: Path) -> None:
    """The opponent's weights are in the checkpoint, and so are its turns; games are counted, one a game."""
    settings: dict[str, Any] = {"language": {"opponent": "version:-2"}}
    whole = trained(folder, tmp_path / "whole", 5, **settings)
    part = trained(folder, tmp_path / "part", 3, **settings)
    again = shoal.resume(part.path, factory=Letters, total_timesteps=5 * 6, panel="none")
    assert sha256(again) == sha256(whole)
    assert sha256(part) != sha256(whole)
    lines = read(whole.path / "metrics.jsonl")
    assert lines[-1]["episode/count"] == 30
    assert {"games/reward_0", "games/reward_1", "games/rule_breaks_0", "groups/lost"} <= lines[-1].keys()


@pytest.mark.slow
@pytest.mark.parametrize("opponent", ["self", "average:0.5", "task"])
def test_async_without_staleness_equals_sync(folder: Path, tmp_path: Path, opponent: str) -> None:
    """By the bits of its weights: rivals in other processes draw the same."""
    settings: dict[str, Any] = {"language": {"opponent": opponent}, "final_episodes": 4}
    sync = trained(folder, tmp_path / "sync", 4, **settings)
    other = trained(folder, tmp_path / "async", 4, schedule="async", max_staleness=0, **settings)
    assert sha256(sync) == sha256(other)


@pytest.mark.parametrize(
    ("task", "settings", "said"),
    [
        (Letters, {"language": {"opponent": "version:10"}}, "version:-N"),
        (Letters, {"language": {"opponent": "average:1.5"}}, "average:DECAY"),
        (Letters, {"language": {"opponent": "nowhere"}}, "nowhere"),
        (Letters, {"language": {"opponent": "nowhere.module:move"}}, "nowhere"),
        (Letters, {"language": {"opponent": ""}}, "name somebody"),
        (Successor, {"language": {"opponent": "first"}}, "it is for games of several players"),
        (partial(Letters, num_players=1), {}, "num_players, from 2"),
    ],
)
def test_what_does_not_fit_is_refused(folder: Path, tmp_path: Path, task: Any, settings: Any, said: str) -> None:
    """Each with what would work."""
    with pytest.raises(ConfigError, match=said):
        trained(folder, tmp_path, 1, task, **settings)


@pytest.mark.slow
def test_tiny_learns_nim_by_playing_itself(tmp_path: Path) -> None:
    """It begins with moves at random, and comes to beat the best player from most starts that can be won."""
    result = shoal.train(
        Nim,
        algo="grpo",
        model="tiny",
        num_prompts=16,
        num_generations=8,
        max_completion_length=64,
        total_timesteps=16 * 8 * 150,
        learning_rate=3e-4,
        final_episodes=64,
        stop_at=float("inf"),
        panel="none",
        run_dir=str(tmp_path),
    )
    assert result.greedy_return > 0.0
