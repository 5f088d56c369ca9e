"""`check_task`: what a task must do to be trained on, tried out on it and said in plain words."""

from __future__ import annotations

import json
import time
from itertools import product
from math import isfinite
from numbers import Real
from typing import TYPE_CHECKING, Any, TypeGuard, cast

import cloudpickle  # pyright: ignore[reportMissingTypeStubs]

from shoal.check.report import WEIGHT, Finding, Report, Verdict, duration, shown
from shoal.llm.scorers.score import value_of
from shoal.llm.tasks.answers import END_TOKENS, same_text
from shoal.llm.tasks.dialogue import (
    DialogueError,
    answer_of,
    is_dialogue,
    reply_to,
)
from shoal.llm.tasks.task import Message, Prompt, Task
from shoal.types import ConfigError, text_of

if TYPE_CHECKING:
    from collections.abc import Callable

    from shoal.llm.tasks.task import Dialogue

ROLES = ("system", "user", "assistant", "tool")
SLOW_S = 0.05
"""A prompt or a score that takes longer is better made by a pool."""
FEW = 3
"""Prompts whose scores are tried out."""


def check_task(make: Callable[[], Task] | Task, *, prompts: int = 32) -> Report:
    """Tries the contract of a task out, in this process.

    Args:
        make: makes the task, twice with equal settings; or the task itself, whose making is not checked then.
        prompts: how many are asked, at least 3.

    Raises:
        ConfigError: fewer prompts. What the task does wrong is found, never raised.
    """
    if prompts < FEW:
        raise ConfigError(f"prompts must be at least {FEW}, got {prompts}")
    began = time.perf_counter()
    check = _Check(prompts)
    task = check.made(make)
    if task is not None:
        _check_prompts(check, task)
        _check_again(check, task, make)
        _check_scores(check, task)
        _check_replies(check, task)
        _check_pickle(check, task)
    name = getattr(task, "name", getattr(make, "__name__", type(make).__name__))
    return Report(
        str(name),
        tuple(check.found.values()),
        tuple(check.skipped),
        None,
        time.perf_counter() - began,
    )


class _Check:
    """What was found so far; the first of the gravest findings of a name stays."""

    def __init__(self, prompts: int) -> None:
        self.count = prompts
        self.found: dict[str, Finding] = {}
        self.skipped: list[str] = []
        self.prompts: list[Prompt] = []

    def note(self, name: str, verdict: Verdict, says: str, advice: str = "") -> None:
        before = self.found.get(name)
        if before is None or WEIGHT[before.verdict] < WEIGHT[verdict]:
            self.found[name] = Finding(name, verdict, says, advice)

    def made(self, make: Callable[[], Task] | Task) -> Task | None:
        made: Any = make
        if _is_maker(make):
            try:
                made = make()
            except Exception as error:
                self.note("make", "error", _raised(error), "return a Task")
                return None
        missing = [
            name for name in ("name", "prompt", "score") if not hasattr(made, name)
        ]
        if missing:
            says = f"{type(made).__name__} has no {' and no '.join(missing)}"
            self.note("make", "error", says, "see shoal.llm.tasks.task.Task")
            return None
        self.note("make", "ok", f"{type(made).__name__} {made.name!r}")
        return made


def _check_prompts(check: _Check, task: Task) -> None:
    """Whether prompts are asked by number, differ, and can be written into files."""
    began = time.perf_counter()
    for index in range(check.count):
        try:
            prompt = task.prompt(index)
        except Exception as error:
            says = f"prompt({index}) {_raised(error)}"
            advice = "begin again after the last one: prompt(i % n)"
            check.note("prompt", "error", says, advice)
            break
        if not _is_prompt(check, prompt, index):
            break
        check.prompts.append(prompt)
    else:
        seconds = (time.perf_counter() - began) / check.count
        check.note("prompt", "ok", f"{check.count} prompts, {duration(seconds)} each")
        if seconds > SLOW_S:
            advice = "have a pool make them ahead, or make them once into a file"
            check.note(
                "speed", "warning", f"a prompt takes {duration(seconds)}", advice
            )
    distinct = len({prompt.question for prompt in check.prompts})
    if check.prompts and distinct == 1:
        says = f"{len(check.prompts)} prompts are one and the same"
        check.note("variety", "warning", says, "make prompt(index) depend on index")
    elif check.prompts:
        says = f"{distinct} of {len(check.prompts)} prompts differ"
        check.note("variety", "ok", says)


def _is_prompt(check: _Check, prompt: object, index: int) -> bool:
    if not isinstance(prompt, Prompt):
        says = f"prompt({index}) gave {type(prompt).__name__}"
        check.note("prompt", "error", says, "return shoal.llm.tasks.task.Prompt")
        return False
    if prompt.index != index:
        says = f"prompt({index}) has the index {prompt.index}"
        check.note("prompt", "error", says, "give it the index that was asked for")
        return False
    wrong = _wrong_question(prompt.question)
    if wrong:
        advice = "a question is a text, or a tuple of Message(role, content)"
        check.note("prompt", "error", f"prompt({index}): {wrong}", advice)
        return False
    try:
        same = json.loads(json.dumps(prompt.truth)) == prompt.truth
        why = "comes back from JSON as something else"
    except (TypeError, ValueError, RecursionError) as error:
        same, why = False, text_of(error)
    if not same:
        says = f"prompt({index}).truth = {shown(repr(prompt.truth))}: {why}"
        advice = "use texts, numbers, lists and dicts with texts for keys: it travels and is saved"
        check.note("truth", "error", says, advice)
    else:
        check.note("truth", "ok", "can be written as JSON")
    return True


def _check_again(check: _Check, task: Task, make: Callable[[], Task] | Task) -> None:
    """Whether the same numbers give the same prompts, in any order and of a task that is made again."""
    twins = [("asked again in another order", task)]
    if _is_maker(make):
        try:
            twins.append(("of a task made again", make()))
        except Exception as error:
            check.note("determinism", "error", f"the second time, it {_raised(error)}")
    for what, twin in twins:
        for prompt in reversed(check.prompts):
            try:
                again: object = twin.prompt(prompt.index)
            except Exception as error:
                again = _raised(error)
            if again != prompt:
                says = f"prompt({prompt.index}) is another one when {what}: {shown(repr(again))}"
                advice = "draw from random.Random(f'{seed}:{index}'), never from a generator that is shared"
                check.note("determinism", "error", says, advice)
                return
    check.note("determinism", "ok", "equal numbers give equal prompts")


def _check_scores(check: _Check, task: Task) -> None:
    """Whether answers of all kinds have finite scores, always the same, and the right one the highest."""
    began, scored = time.perf_counter(), 0
    for prompt in check.prompts[:FEW]:
        answers = [
            "",
            "?",
            "no idea\nat all",
            "é✓" * 20,
            "0 " * 2000,
            *END_TOKENS[:1],
        ]
        best = _solution(check, task, prompt)
        scores = [_score(check, task, prompt, answer) for answer in answers]
        scored += len(answers)
        if best:
            _check_best(check, task, prompt, best, scores)
        if scores[0]:
            says = f"the empty answer to prompt {prompt.index} earns {scores[0]:g}"
            check.note("score", "warning", says, "pay nothing for silence: it is found")
    if scored:
        seconds = (time.perf_counter() - began) / scored
        check.note("score", "ok", f"finite and repeatable, {duration(seconds)} each")
        if seconds > SLOW_S:
            advice = "score in a pool of processes"
            check.note("speed", "warning", f"a score takes {duration(seconds)}", advice)


def _score(check: _Check, task: Task, prompt: Prompt, answer: str) -> float | None:
    what = f"score of prompt {prompt.index} for {shown(repr(answer), 40)}"
    values: list[object] = []
    for _ in range(2):
        try:
            values.append(value_of(task.score(prompt, answer)))
        except Exception as error:
            check.note(
                "score",
                "error",
                f"{what} {_raised(error)}",
                "earn 0 for what cannot be read",
            )
            return None
    first, second = values
    if isinstance(first, bool) or not isinstance(first, Real) or not isfinite(first):
        check.note(
            "score",
            "error",
            f"{what} is {shown(repr(first))}",
            "return a finite number",
        )
        return None
    if first != second:
        check.note(
            "score",
            "warning",
            f"{what} is {first!r}, then {second!r}",
            "say whether that is meant",
        )
    return float(first)


def _solution(check: _Check, task: Any, prompt: Prompt) -> str:
    if not hasattr(task, "solution"):
        if "solution" not in check.skipped:
            check.skipped.append("solution")
        return ""
    try:
        best = task.solution(prompt)
    except ConfigError as error:
        check.note(
            "solution",
            "warning",
            text_of(error),
            "nothing, where answers are judged",
        )
        return ""
    except Exception as error:
        check.note(
            "solution",
            "error",
            f"solution of prompt {prompt.index} {_raised(error)}",
            "return a text",
        )
        return ""
    if not isinstance(best, str):
        check.note("solution", "error", f"it is {shown(repr(best))}", "return a text")
        return ""
    return best


def _check_best(
    check: _Check, task: Task, prompt: Prompt, best: str, others: list[float | None]
) -> None:
    right = _score(check, task, prompt, best)
    if right is None:
        return
    highest = max((score for score in others if score is not None), default=right)
    if right < highest or (right <= 0 and highest <= 0):
        says = f"the solution of prompt {prompt.index} earns {right:g}, and another answer {highest:g}"
        check.note("solution", "error", says, "let solution and score agree")
        return
    check.note("solution", "ok", f"it earns {right:g}")
    floor = min((score for score in others if score is not None), default=0.0)
    for wrong in (f"not {best}", f"{best}{best}"):
        if same_text(best, wrong):  # 00 is 0
            continue
        paid = _score(check, task, prompt, wrong)
        if paid is not None and paid > max(floor, 0.0):
            says = f"{shown(repr(wrong), 40)} earns {paid:g} where {shown(repr(best), 40)} is right"
            advice = "extract the answer and compare it whole: a policy finds what else is paid"
            check.note("contains", "warning", says, advice)
    check.note("contains", "ok", "what merely contains the answer earns nothing")


def _check_replies(check: _Check, task: Task) -> None:
    """Whether a task of several turns replies to whatever is said, always the same."""
    try:
        if not is_dialogue(task):
            return
    except ConfigError as error:
        check.note("replies", "error", text_of(error), "give it both, or neither")
        return
    dialogue, began, asked = cast("Dialogue", task), time.perf_counter(), 0
    for prompt, said in product(check.prompts[:FEW], ("", "?", "no idea\nat all")):
        turns = (Message("assistant", said),)
        try:
            first = reply_to(dialogue, prompt, turns)
            again = reply_to(dialogue, prompt, turns)
            answer_of(dialogue, prompt, turns)
        except DialogueError as error:
            advice = "reply to whatever a model may say"
            check.note("replies", "error", text_of(error), advice)
            return
        asked += 2
        if first != again:
            says = f"prompt {prompt.index} has two replies to {said!r}"
            advice = "a resumed run asks again: make replies depend on prompt and turns"
            check.note("replies", "error", says, advice)
            return
    seconds = (time.perf_counter() - began) / max(1, asked)
    check.note("replies", "ok", f"up to {dialogue.max_turns} turns, repeatable")
    if seconds > SLOW_S:
        advice = "have processes reply: language.reply_workers"
        check.note("speed", "warning", f"a reply takes {duration(seconds)}", advice)


def _check_pickle(check: _Check, task: Task) -> None:
    """Whether it can go to processes that score."""
    try:
        cloudpickle.loads(cloudpickle.dumps(task))
    except Exception as error:
        advice = "open files and connections when they are needed first; or score in this process (workers=0)"
        check.note(
            "workers",
            "warning",
            f"it cannot go to other processes: it {_raised(error)}",
            advice,
        )
    else:
        check.note("workers", "ok", "it can go to other processes")


def _is_maker(
    make: Callable[[], Task] | Task,
) -> TypeGuard[Callable[[], Task]]:
    """Whether it makes tasks: a class has what a task has, and is none."""
    return callable(make) and (isinstance(make, type) or not isinstance(make, Task))


def _raised(error: BaseException) -> str:
    return f"raised {type(error).__name__}: {shown(text_of(error))}"


def _wrong_question(question: object) -> str:
    """What is wrong with a question; nothing where all is well."""
    if isinstance(question, str):
        return "" if question else "the question is empty"
    if not isinstance(question, tuple) or not question:
        return f"the question is {shown(repr(question))}"
    for message in question:
        if not isinstance(message, Message):
            return f"a message is {shown(repr(message))}"
        if message.role not in ROLES:
            return f"a message's role is {message.role!r}, none of {', '.join(ROLES)}"
    return ""
