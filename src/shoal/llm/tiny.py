"""`tiny`: a small model that shoal itself trains on a task's format, and keeps in a cache."""

from __future__ import annotations

import hashlib
import json
import time
from dataclasses import asdict
from typing import TYPE_CHECKING, TypeAlias, cast

import torch

from shoal.llm.files import cache_folder, locked
from shoal.llm.model import LanguageModel
from shoal.llm.model_folder import load_folder, save_model
from shoal.llm.pieces import make_tokenizer
from shoal.llm.pretraining import (
    Example,
    answers_to,
    one_thread,
    pretrain,
)
from shoal.llm.scorers.score import value_of
from shoal.llm.tasks.game import is_game
from shoal.llm.tiny_game import key_of, make_tiny_game
from shoal.llm.tiny_settings import Tiny, architecture_of
from shoal.types import ConfigError

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from shoal.llm.pretraining import Pretraining
    from shoal.llm.tasks.task import Prompt, Task

_Make: TypeAlias = "Callable[[Task, Tiny, Callable[[str], None]], LanguageModel]"
RECIPE = 3
"""Counted up when equal settings come to give another model."""
FIRST, HELD_OUT = 2**24, 2**25
"""Numbers of the first prompt that the model is shown and of the first that it is measured on; runs ask from 0 on."""
FINGERPRINT = 64
"""Prompts of either kind that tell one task from another."""


def tiny_model(
    task: Task,
    settings: Tiny | None = None,
    *,
    temperature: float = 1.0,
    report: Callable[[str], None] | None = None,
) -> LanguageModel:
    """The small model for a task: from the cache, or made now and put there.

    Equal settings and an equal task give the same bits on the same kind of CPU. Two processes that want one make it
    once.

    Args:
        task: it must have solutions.
        settings: sizes and pre-training.
        temperature: what the model's logits are divided by, where answers are drawn and learned.
        report: called with a line of text now and then.

    Raises:
        ConfigError: the task has no `solution`, or the game no `legal`.
    """
    settings = settings or Tiny()
    say = report or _silent
    make, key = make_tiny, _key
    if is_game(task):
        make = cast("_Make", make_tiny_game)
        key = cast("Callable[[Task, Tiny], str]", key_of)
    folder = cache_folder() / f"tiny-{key(task, settings)}"
    if not folder.is_dir():
        lock = folder.with_name(f"{folder.name}.lock")
        with locked(
            lock, lambda: say(f"another process makes the model of {task.name}")
        ):
            if not folder.is_dir():
                save_model(make(task, settings, say), folder)
    return load_folder(folder, temperature=temperature)


def make_tiny(
    task: Task, settings: Tiny, report: Callable[[str], None]
) -> LanguageModel:
    """Trains the model, without a look at the cache; see `tiny_model`."""
    shown = settings.pretraining
    prompts = [task.prompt(FIRST + index) for index in range(shown.examples)]
    solutions = [_solution(task, prompt) for prompt in prompts]
    generator = torch.Generator().manual_seed(settings.seed)
    texts = _plain(task, prompts)
    few = slice(FINGERPRINT * 16)
    tokenizer = make_tokenizer(texts[few] + solutions[few])
    asked = [tuple(tokenizer.encode_prompt(prompt)) for prompt in prompts]
    right, spoiled = (
        [
            Example(prompt, (*tokenizer.encode(text), tokenizer.end[0]))
            for prompt, text in zip(asked, said, strict=True)
        ]
        for said in (solutions, _spoiled(solutions, shown.wrong, generator))
    )
    with one_thread(), torch.random.fork_rng(devices=[]):
        torch.manual_seed(settings.seed)
        model = LanguageModel(architecture_of(settings, tokenizer), tokenizer)
        most = max(len(example.answer) for example in right)
        measure = _Measurement(task, model, shown, most, report)
        skill, success = pretrain(model, right, spoiled, shown, generator, measure)
    report(
        f"tiny knows {task.name} to {skill:.0%}, and begins with {success:.0%} of its answers right"
    )
    if skill < shown.skill:
        report(
            f"the model of {task.name} learned to be right in {skill:.0%} of its answers only; "
            "it may be too small for the task"
        )
    return model


class _Measurement:
    """The share of right answers to held-out prompts."""

    def __init__(
        self,
        task: Task,
        model: LanguageModel,
        settings: Pretraining,
        most: int,
        report: Callable[[str], None],
    ) -> None:
        self.task, self.model, self.most, self.report = task, model, most, report
        self.asked = [task.prompt(HELD_OUT + i) for i in range(settings.measured)]
        self.prompts = [tuple(model.tokenizer.encode_prompt(p)) for p in self.asked]
        self.best = [value_of(task.score(p, _solution(task, p))) for p in self.asked]
        self.generator = torch.Generator().manual_seed(0)
        self.every, self.began = settings.every, time.monotonic()

    def __call__(self, update: int) -> float:
        answers = answers_to(self.model, self.prompts, self.most, self.generator)
        texts = [self.model.tokenizer.decode(answer) for answer in answers]
        given = map(self.task.score, self.asked, texts)
        scores = map(value_of, given)
        right = [got >= most for got, most in zip(scores, self.best, strict=True)]
        success = sum(right) / len(right)
        if update % self.every == 0:
            passed = time.monotonic() - self.began
            self.report(
                f"pre-training of tiny on {self.task.name}: {update} updates, {success:.0%} right, {passed:.0f} s"
            )
        return success


def _spoiled(
    solutions: list[str], wrong: float, generator: torch.Generator
) -> list[str]:
    """A share of the solutions exchanged among themselves."""
    number = round(wrong * len(solutions))
    chosen = torch.randperm(len(solutions), generator=generator)[:number].tolist()
    said = list(solutions)
    for index, other in zip(chosen, chosen[1:] + chosen[:1], strict=True):
        said[index] = solutions[other]
    return said


def _solution(task: Task, prompt: Prompt) -> str:
    solution = getattr(task, "solution", None)
    if solution is None:
        raise ConfigError(
            f"the model tiny learns from a task's solutions, and {task.name} has none (solution(prompt) -> str); "
            "take another model"
        )
    return solution(prompt)


def _plain(task: Task, prompts: Sequence[Prompt]) -> list[str]:
    texts: list[str] = []
    for prompt in prompts:
        if not isinstance(prompt.question, str):
            raise ConfigError(
                f"the model tiny has no chat template, and {task.name} asks in a chat; let it ask in plain text"
            )
        texts.append(prompt.question)
    return texts


def _key(task: Task, settings: Tiny) -> str:
    """A hash of what decides the model: the recipe, its settings, and prompts and solutions of the task."""
    numbers = [*range(FIRST, FIRST + FINGERPRINT)]
    numbers += range(HELD_OUT, HELD_OUT + FINGERPRINT)
    prompts = [task.prompt(number) for number in numbers]
    content = {
        "recipe": RECIPE,
        "settings": asdict(settings),
        "task": task.name,
        "prompts": _plain(task, prompts),
        "solutions": [_solution(task, prompt) for prompt in prompts],
    }
    text = json.dumps(content, sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:24]


def _silent(line: str) -> None:
    del line
