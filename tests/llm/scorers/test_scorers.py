"""Scorers: functions, mathematics, sums, steps and reward models."""

from __future__ import annotations

import sys
import threading
from typing import TYPE_CHECKING, Any

import pytest
import torch

from shoal.llm.scorers import math
from shoal.llm.scorers.functions import named_scorer, task_scorer
from shoal.llm.scorers.math import MathVerifier, same_expression
from shoal.llm.scorers.pool import ScorerPool
from shoal.llm.scorers.reward_model import RewardModel
from shoal.llm.scorers.score import Score, call, read_score
from shoal.llm.scorers.steps import StepRewards
from shoal.llm.scorers.weighted import WeightedSum
from shoal.llm.stage.work import Failed
from shoal.llm.tasks.task import Message, Prompt
from shoal.types import ConfigError
from tests.llm.scorers.as_told import Batches, exact

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

PROMPT = Prompt(7, "2 + 2 =", "4")


class Echo:
    name = "echo"

    def prompt(self, index: int) -> Prompt:
        return Prompt(index, f"{index}", f"{index}")

    def score(self, prompt: Prompt, answer: str) -> float:
        return float(answer == prompt.truth)


def of_length(_: Prompt, answer: str) -> float:
    return -0.1 * len(answer)


async def waiting() -> float:
    return 1.0


def bounded(*, most: int) -> Any:
    return lambda _, answer: float(len(answer) <= most)


def test_scores_are_numbers() -> None:
    assert read_score(1) == Score(1.0)
    assert read_score(Score(1, {"a": 2}, (3,))) == Score(1.0, {"a": 2.0}, (3.0,))
    for given, message in (
        (float("inf"), "the score is inf, which is not finite"),
        ([1.0], r"the score is no number, but list \[1.0\]"),
        (1j, "no number, but complex"),
        (waiting(), "no number, but what an async function returns"),
        (10**400, r"the score lies beyond 1e\+15"),
        (-1e16, r"the score lies beyond -1e\+15"),
        (Score(1.0, {"a": float("nan")}), "part 'a' of the score is nan"),
        (Score(1.0, steps=(0.0, None)), "step 1 of the score is no number"),  # pyright: ignore[reportArgumentType]
    ):
        with pytest.raises(ValueError, match=message):
            read_score(given)


def test_functions_and_tasks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert task_scorer(Echo())()(Prompt(3, "3", "3"), "3") == 1.0
    assert named_scorer(of_length)()(PROMPT, "four") == -0.4
    assert named_scorer(bounded, most=2)()(PROMPT, "four") == 0.0
    (tmp_path / "my_scorers.py").write_text("def always(prompt, answer): return 1.0\nNUMBER = 3\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    assert named_scorer("my_scorers:always")()(PROMPT, "x") == 1.0
    wrong: list[tuple[Any, dict[str, Any], str]] = [
        ("my_scorers", {}, "no scorer 'my_scorers'; write package.module:function"),
        ("my_scorers:allways", {}, "did you mean my_scorers:always"),
        ("my_scorers:NUMBER", {}, "NUMBER is a int; a scorer is a function"),
        (bounded, {}, "bounded is called with a prompt and an answer: "),
        (bounded, {"least": 2}, "bounded is called with least: "),
    ]
    for source, kwargs, message in wrong:
        with pytest.raises(ConfigError, match=message):
            named_scorer(source, **kwargs)


@pytest.mark.parametrize(
    ("truth", "answer", "same"),
    [
        ("1/2", r"\frac{2}{4}", True),
        ("1/2", "0.5", True),
        ("10", r"10\%", False),
        (r"10\%", "10 %", True),
        ("x + 1", "$1 + x$", True),
        ("4", "44", False),
        ("4", "", False),
        ("4", "4" + " " * 3000, False),
        ("4", "no idea", False),
        ("4", "The answer is, all in all, 4.", True),
        ("4", "Two lines.\nThe last one says 4", True),
        ("x + 1", "x + 2", False),
        ("1", "x + 1", False),
        ("sqrt(2)", r"$\sqrt{2}$", True),
    ],
)
def test_mathematics(truth: str, answer: str, *, same: bool) -> None:
    assert same_expression(truth, answer) is same


def test_mathematics_in_a_thread() -> None:
    """With the library's own time-outs this raises."""
    found: list[float] = []
    verifier = MathVerifier(extract="boxed")
    prompt = Prompt(0, "x?", ["3", r"\frac{1}{2}"])
    answers = (r"so \boxed{0.5}<|im_end|>", r"\boxed{4}", "3")
    thread = threading.Thread(target=lambda: found.extend(verifier(prompt, answer) for answer in answers))
    thread.start()
    thread.join()
    assert found == [1.0, 0.0, 0.0]


def test_mathematics_without_the_package(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "math_verify", None)
    with pytest.raises(ConfigError, match=r'pip install "shoal-rl\[llm\]"'):
        math.load()
    with pytest.raises(ConfigError, match="extract is one of"):
        MathVerifier(extract="own")


def test_weighted_sums() -> None:
    both = WeightedSum({"right": (exact, 1.0), "length": (of_length, 0.5)})
    score = both(PROMPT, "4")
    assert (score.value, score.parts) == (pytest.approx(0.95), {"right": 1.0, "length": -0.1})
    pool = ScorerPool(lambda: both, workers=0, on_failure="zero", retries=0)
    pool.submit(0, PROMPT, "4")
    [scored] = pool.poll()
    assert scored.parts == score.parts


def test_a_sum_with_a_part_that_fails_has_no_score() -> None:
    batches = Batches()
    both = WeightedSum({"right": (exact, 1.0), "batched": (batches, 2.0)})
    assert both.batch_size == 4
    scores = call(both, [(PROMPT, answer) for answer in ("4", "one", "dddd")])
    assert scores[0] == Score(3.0, {"right": 1.0, "batched": 1.0})
    assert isinstance(scores[1], Failed)
    assert scores[1].text == "ValueError: scorer 'batched' failed: ValueError: this one"
    assert scores[2] == Score(8.0, {"right": 0.0, "batched": 4.0})
    assert batches.sizes == [3]
    with pytest.raises(ValueError, match="scorer 'batched' failed"):
        both(PROMPT, "one")


def test_wrong_sums() -> None:
    with pytest.raises(ConfigError, match="at least one"):
        WeightedSum({})
    with pytest.raises(ConfigError, match="weight of scorer 'right' must be finite, got nan"):
        WeightedSum({"right": (exact, float("nan"))})


def by_length(_: Prompt, steps: Sequence[str]) -> list[float]:
    return [float(len(step)) for step in steps]


@pytest.mark.parametrize(("reduce", "value"), [("min", 1.0), ("mean", 2.0), ("sum", 6.0), ("prod", 6.0), ("last", 2.0)])
def test_steps(reduce: str, value: float) -> None:
    scorer = StepRewards(by_length, reduce=reduce)
    assert scorer(PROMPT, "a\n\n ccc \nbb</s>\n") == Score(value, steps=(1.0, 3.0, 2.0))
    assert scorer(PROMPT, " \n") == Score(0.0)


def test_wrong_steps() -> None:
    assert StepRewards(by_length, split=r"\n\n+")(PROMPT, "a\nb\n\nc").steps == (3.0, 1.0)
    with pytest.raises(ConfigError, match="reduce is one of min, mean"):
        StepRewards(by_length, reduce="max")
    with pytest.raises(ConfigError, match="split="):
        StepRewards(by_length, split="(")
    with pytest.raises(ValueError, match="1001 steps, at most 1000"):
        StepRewards(by_length)(PROMPT, "a\n" * 1001)
    with pytest.raises(ValueError, match="gave 1 numbers for 2 steps"):
        StepRewards(lambda *_: [1.0])(PROMPT, "a\nb")


def test_reward_models() -> None:
    seen: list[str] = []

    def rewards(texts: Sequence[str]) -> Any:
        seen.extend(texts)
        return torch.tensor([[float(len(text))] for text in texts])

    model = RewardModel(rewards, batch_size=2)
    chat = Prompt(1, (Message("system", "Be short."), Message("user", "2 + 2?")))
    pool = ScorerPool(lambda: model, workers=0)
    for key, prompt in enumerate((PROMPT, chat, PROMPT)):
        pool.submit(key, prompt, " 4")
    assert seen == []
    assert [scored.reward for scored in pool.poll()] == [9.0, 44.0, 9.0]
    assert seen[1] == "system: Be short.\nuser: 2 + 2?\nassistant:  4"
    assert model(PROMPT, "") == 7.0
    with pytest.raises(ValueError, match="gave 1 numbers for 2 texts"):
        RewardModel(lambda _: [1.0]).score_batch([(PROMPT, ""), (PROMPT, "")])
    with pytest.raises(ConfigError, match="batch_size must be at least 1"):
        RewardModel(rewards, batch_size=0)
