"""Distillation: worth of tokens by hand, and a model that comes to answer as its teacher does."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest
import torch

import shoal
from shoal.algos.distill import Distill, distillation_loss, judged
from shoal.llm.model import TokenOutput
from shoal.llm.model_folder import save_model
from shoal.run.log import read
from shoal.types import ConfigError
from tests.experiment.test_language import sha256
from tests.llm.models import make_answer, make_model
from tests.llm.toy import Successor, toy_model

if TYPE_CHECKING:
    from pathlib import Path


def test_what_tokens_are_worth_by_hand() -> None:
    """The teacher finds the first twice as likely, the third a quarter: log 2, -log 4; the second is a reply's."""
    batch = make_answer([1], [2, 3, 4])
    mask = torch.tensor([[True, False, True]])
    old = torch.tensor([[-2.0, 0.0, -1.0]])
    batch = replace(batch, mask=mask, logprob=old)
    teacher = old + torch.tensor([[2, 9, 0.25]]).log()
    found = judged(batch, teacher, Distill())
    assert found.advantage is not None
    two, four = math.log(2), math.log(4)
    torch.testing.assert_close(found.advantage, torch.tensor([[two, 0, -four]]))
    logprob = old.clone().requires_grad_()
    value, statistics = distillation_loss(TokenOutput(logprob, torch.zeros(1, 3)), found, Distill())
    value.backward()
    torch.testing.assert_close(logprob.grad, torch.tensor([[-two / 2, 0, four / 2]]))
    assert statistics.teacher.item() == pytest.approx((four - two) / 2)


def test_a_reward_counts_beside_the_teacher() -> None:
    """Of two answers the better one gains what the worse one loses, on the tokens that the model chose."""
    one = make_answer([1], [2, 3])
    twice = {name: getattr(one, name).repeat(2, 1) for name in ("token", "mask", "logprob", "version")}
    pair = replace(
        one, **twice, prompt_of=torch.tensor([0, 0]), reward=torch.tensor([1.0, 0.0]), truncated=torch.zeros(2).bool()
    )
    found = judged(pair, pair.logprob, Distill(reward_weight=2.0)).advantage
    assert found is not None
    assert (found[0] > 1).all()
    torch.testing.assert_close(found[0], -found[1])


def distilled(tmp_path: Path, updates: int, **settings: Any) -> Any:
    """A run of the toy model with another one as its teacher."""
    for name, seed in (("pupil", 0), ("teacher", 1)):
        save_model(toy_model(seed), tmp_path / name)
    whole: dict[str, Any] = {
        "algo": "distill",
        "model": str(tmp_path / "pupil"),
        "teacher": str(tmp_path / "teacher"),
        "max_completion_length": 3,
        "learning_rate": 3e-3,
        "num_prompts": 8,
        "panel": "none",
        "final_episodes": 0,
        "stop_at": float("inf"),
        "run_dir": str(tmp_path / "runs"),
        "total_timesteps": 64 * updates,
    }
    return shoal.train(Successor, **whole | settings)


def test_a_pupil_comes_to_its_teacher(tmp_path: Path) -> None:
    """The divergence of what it says falls to a third."""
    lines = read(distilled(tmp_path, 36).path / "metrics.jsonl")
    apart = [line["loss/teacher"] for line in lines]
    assert sum(apart[-5:]) < sum(apart[:5]) / 3, (apart[:5], apart[-5:])


@pytest.mark.slow
def test_a_model_is_its_own_teacher(tmp_path: Path) -> None:
    """The task's reward moves it, the older weights hold it back: it stays nearer to them than without."""
    settings: dict[str, Any] = {"reward_weight": 0.3, "teacher": "version:-4", "learning_rate": 1e-3}
    whole = distilled(tmp_path, 12, **settings)
    lines = read(whole.path / "metrics.jsonl")
    assert abs(lines[0]["loss/teacher"]) < 1e-6
    assert max(abs(line["loss/teacher"]) for line in lines[4:]) > 1e-4
    part = distilled(tmp_path, 7, **settings)
    again = shoal.resume(part.path, factory=Successor, total_timesteps=64 * 12, panel="none")
    assert sha256(again) == sha256(whole)


def test_teachers_that_cannot_teach(tmp_path: Path) -> None:
    """None, one that is not there, and one of other tokens; no run is left."""
    save_model(make_model(), tmp_path / "other")
    for teacher, says in (
        ("", "teacher=FOLDER"),
        ("nowhere", "nowhere"),
        ("version:3", "version:-N"),
        (str(tmp_path / "other"), "other tokens"),
    ):
        with pytest.raises(ConfigError, match=says):
            distilled(tmp_path, 1, teacher=teacher)
    assert not list((tmp_path / "runs").glob("**/config.toml"))
