"""Runs on games: they resume to the bit, against whoever plays, and what does not fit is refused."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any

import pytest

import shoal
from shoal.llm.model_folder import save_model
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


def test_a_run_on_a_game(folder: Path, tmp_path: Path) -> None:
    """Games are counted, one a game, what each player earns too; evaluation plays against the game's own opponent."""
    result = trained(folder, tmp_path, 2, language={"opponent": "version:-1"}, final_episodes=4)
    lines = read(result.path / "metrics.jsonl")
    assert lines[-1]["episode/count"] == 12
    assert {"games/reward_0", "games/reward_1", "games/rule_breaks_0", "groups/lost"} <= lines[-1].keys()
    assert lines[-1]["speed/tokens_drawn"] > 0
    assert -1 <= result.greedy_return <= 1


@pytest.mark.slow
@pytest.mark.parametrize("opponent", ["version:-2", "self", "task"])
def test_a_resumed_run_equals_one_that_was_not_stopped(folder: Path, tmp_path: Path, opponent: str) -> None:
    """By the bits of its weights: those of an opponent are in the checkpoint."""
    settings: dict[str, Any] = {"language": {"opponent": opponent}}
    whole = trained(folder, tmp_path / "whole", 5, **settings)
    part = trained(folder, tmp_path / "part", 3, **settings)
    again = shoal.resume(part.path, factory=Letters, total_timesteps=5 * 6, panel="none")
    assert sha256(again) == sha256(whole)
    assert sha256(part) != sha256(whole)


@pytest.mark.slow
@pytest.mark.parametrize("opponent", ["self", "average:0.5"])
def test_async_without_staleness_equals_sync(folder: Path, tmp_path: Path, opponent: str) -> None:
    """By the bits of its weights, where they do not depend on what is drawn side by side."""
    settings: dict[str, Any] = {"language": {"opponent": opponent, "exact": True, "after_publish": "refill"}}
    sync = trained(folder, tmp_path / "sync", 3, **settings)
    other = trained(folder, tmp_path / "async", 3, schedule="async", max_staleness=0, **settings)
    assert sha256(sync) == sha256(other)


@pytest.mark.parametrize(
    ("task", "settings", "said"),
    [
        (Letters, {"language": {"opponent": "nowhere"}}, "nowhere"),
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
def test_a_model_learns_by_playing_itself(folder: Path, tmp_path: Path) -> None:
    """To keep to the rules, and to beat a player that it never met."""
    settings: dict[str, Any] = {"num_prompts": 4, "num_generations": 8, "max_completion_length": 20}
    result = trained(
        folder, tmp_path, 1, **settings, total_timesteps=32 * 80, eval_every=32 * 10, eval_episodes=8, final_episodes=8
    )
    lines = read(result.path / "metrics.jsonl")
    found = [line["eval/return"] for line in lines if "eval/return" in line]
    assert result.greedy_return > 0.9, found
    assert lines[0]["groups/truncated"] > 0.2
    assert lines[-1]["groups/truncated"] < 0.05


@pytest.mark.slow
def test_prompts_made_ahead_are_the_same(folder: Path, tmp_path: Path) -> None:
    """By the bits of the weights."""
    plain = trained(folder, tmp_path / "plain", 3)
    language = {"prompt_workers": 1, "prompts_ahead": 3}
    assert sha256(trained(folder, tmp_path / "ahead", 3, language=language)) == sha256(plain)
