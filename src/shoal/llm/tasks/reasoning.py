"""The tasks of reasoning-gym by name: items without an end, and no pay for what merely contains the answer."""

from __future__ import annotations

import dataclasses
import importlib
import os
import random
import re
import warnings
from functools import partial
from typing import TYPE_CHECKING, Any

from shoal.llm.tasks.answers import EXTRACTS, extracted, same_text
from shoal.llm.tasks.names import REASONING
from shoal.llm.tasks.task import Prompt
from shoal.types import ConfigError, text_of
from shoal.types.values import decode, encode

if TYPE_CHECKING:
    from collections.abc import Mapping

SCORINGS = ("auto", "exact", "task")
BLOCK = 500
"""Items of one data set, the library's own default: some tasks make all of them at once, or refuse more."""
MAX_SEED = 2**31 - 1
ATTEMPTS = 5
"""Seeds that are tried where a task does not come to an item."""
RESEED = 1_500_000_001
"""Between the seeds of two attempts; those of a run lie below."""
HASHED = (
    "isomorphic_strings",
    "knight_swap",
    "polynomial_multiplication",
    "ransom_note",
    "word_ladder",
)
"""Tasks that walk through sets of strings: their items differ with Python's hashes of strings."""
SHARING = ("list_functions", "pool_matrix")
"""Tasks that draw from the process's own generators: what they gave would depend on what was drawn before."""
ONE_RIGHT = ("color_cube_rotation", "tsumego")
"""Tasks with one right answer, a word, whose own scorers pay for others too."""
_LITERAL = re.compile(r"[-+]?[0-9,]+|True|False|Yes|No", re.IGNORECASE)
"""Answers that have no second way of being right."""


class ReasoningTask:
    """One task of reasoning-gym. Item i is seeded with seed + i: equal settings give equal prompts."""

    def __init__(
        self,
        dataset: str,
        *,
        seed: int = 0,
        scoring: str = "auto",
        extract: str = "whole",
        settings: Mapping[str, object] | None = None,
    ) -> None:
        """Imports reasoning-gym, which takes a second or two; no item is made yet.

        Args:
            dataset: the task's name in reasoning-gym, such as `chain_sum`.
            seed: of the items, from 0 to 2**31 - 1.
            scoring: `exact` pays 1 for the answer and 0 for anything else; `task` pays what the task's own scorer pays,
                which for many tasks is a share to any text that contains the answer. `auto` is `exact` where one answer
                alone is right (an integer, true or false, or a task without a scorer of its own), else `task`.
            extract: the part of an answer that is scored: `whole`, `last_line`, `last_number`, `tag`
                (`<answer>...</answer>`) or `boxed` (LaTeX).
            settings: keywords of the task's configuration, such as max_terms; all but seed and size.

        Raises:
            ConfigError: reasoning-gym is missing, there is no such task, or a setting cannot work.
        """
        self.name = REASONING + dataset
        _check(self.name, seed, scoring, extract)
        self.seed, self.scoring, self.extract = seed, scoring, extract
        self.settings = dict(settings or {})
        self.num_failures = 0
        """Answers for which the task's own scorer raised or gave no number; they earned 0."""
        self._dataset = dataset
        self._blocks: dict[tuple[int, int], Any] = {}
        self._first = self._made_block(0, 0)
        base: Any = importlib.import_module("reasoning_gym.dataset").ProceduralDataset
        inherits = type(self._first).score_answer is base.score_answer
        self._one_right = inherits or dataset in ONE_RIGHT

    def __reduce__(self) -> tuple[Any, ...]:
        """To another process go the settings: the data of some tasks is large."""
        made = partial(
            ReasoningTask,
            self._dataset,
            seed=self.seed,
            scoring=self.scoring,
            extract=self.extract,
            settings=self.settings,
        )
        return made, ()

    def prompt(self, index: int) -> Prompt:
        """The item of this number; its truth is the answer, or for the task's own scorer what that reads.

        Raises:
            RuntimeError: the task did not come to an item, five times.
        """
        item = self._item(index)
        answer = item["answer"]
        if self._is_exact(answer):
            truth: object = answer
        else:
            entry = {"answer": answer, "metadata": item["metadata"]}
            truth = encode(entry, "truth", _no_leaf, holder=f"{self.name}'s truth")
        return Prompt(index=index, question=str(item["question"]), truth=truth)

    def score(self, prompt: Prompt, answer: str) -> float:
        """What an answer earns, from 0 to 1; 0, with a warning the first time, where the task's own scorer raises."""
        given = extracted(answer, self.extract)
        if isinstance(prompt.truth, str):
            return float(same_text(prompt.truth, given))
        if not given:  # some tasks pay for silence
            return 0.0
        entry = decode(prompt.truth, _no_mark)
        try:
            score = self._first.score_answer(given, entry)
            if score is None or not 0 <= score <= 1:
                raise ValueError(f"it gave {score!r}")
            return float(score)
        except Exception as error:
            self._count_failure(prompt, error)
            return 0.0

    def solution(self, prompt: Prompt) -> str:
        """The answer that earns the most.

        Raises:
            ConfigError: the task judges answers and does not know one, as rubiks_cube does.
        """
        truth = prompt.truth
        answer = truth if isinstance(truth, str) else truth["answer"]
        if not isinstance(answer, str):
            raise ConfigError(
                f"{self.name} judges answers without knowing one: nothing can be trained on its solutions"
            )
        return answer

    def _is_exact(self, answer: object) -> bool:
        if not isinstance(answer, str):
            if self.scoring == "exact":
                raise ConfigError(
                    f"{self.name} judges answers without knowing one; use scoring='task'"
                )
            return False
        if self.scoring != "auto":
            return self.scoring == "exact"
        return self._one_right or _LITERAL.fullmatch(answer.strip()) is not None

    def _item(self, index: int) -> dict[str, Any]:
        if index < 0:
            raise ValueError(
                f"{self.name}: prompts are counted from 0, asked for {index}"
            )
        number, place = divmod(index, BLOCK)
        failure: Exception | None = None
        for attempt in range(ATTEMPTS):
            try:
                return self._made_item(self._block(number, attempt), place)
            except Exception as error:
                failure = error
        raise RuntimeError(
            f"{self.name}: reasoning-gym came to no prompt {index} with seed={self.seed} in {ATTEMPTS} attempts "
            f"({type(failure).__name__}: {text_of(failure)}); other settings of the task may be easier to meet"
        ) from failure

    def _block(self, number: int, attempt: int) -> Any:
        """The data set of a block; the last two are kept, as groups at a border ask for both."""
        key = number, attempt
        if key not in self._blocks:
            while len(self._blocks) > 1:
                self._blocks.pop(next(iter(self._blocks)))
            self._blocks[key] = self._made_block(number, attempt)
        return self._blocks[key]

    def _made_item(self, dataset: Any, place: int) -> dict[str, Any]:
        if self._dataset not in SHARING:
            return dataset[place]
        import numpy as np

        before = random.getstate(), np.random.get_state()  # noqa: NPY002
        random.seed(dataset.seed + place)
        try:
            return dataset[place]
        finally:
            random.setstate(before[0])
            np.random.set_state(before[1])  # noqa: NPY002

    def _made_block(self, number: int, attempt: int) -> Any:
        # NumPy's generators take 32 bits.
        seed = (self.seed + number * BLOCK + attempt * RESEED) % 2**32
        return _create(self.name, self._dataset, self.settings, seed)

    def _count_failure(self, prompt: Prompt, error: Exception) -> None:
        self.num_failures += 1
        if self.num_failures == 1:
            warnings.warn(
                f"{self.name}: the task's own scorer failed on an answer to prompt {prompt.index} "
                f"({type(error).__name__}: {text_of(error)}); such answers earn 0 and are counted in num_failures",
                stacklevel=3,
            )


def names() -> list[str]:
    """What may stand after `reasoning-gym:`; ConfigError where the package is missing."""
    return sorted(_library().DATASETS)


def _check(name: str, seed: int, scoring: str, extract: str) -> None:
    if not 0 <= seed <= MAX_SEED:
        raise ConfigError(f"{name}: seed must be between 0 and {MAX_SEED}, got {seed}")
    if scoring not in SCORINGS:
        raise ConfigError(
            f"{name}: scoring is one of {', '.join(SCORINGS)}, got {scoring!r}"
        )
    if extract not in EXTRACTS:
        raise ConfigError(
            f"{name}: extract is one of {', '.join(EXTRACTS)}, got {extract!r}"
        )
    if name.removeprefix(REASONING) in HASHED and not _hashes_stay():
        raise ConfigError(
            f"{name}: its items depend on Python's hashes of strings, which differ from process to process, so that a "
            "resumed run would ask other prompts; start it with PYTHONHASHSEED=0 in the environment"
        )


def _hashes_stay() -> bool:
    return os.environ.get("PYTHONHASHSEED", "random") != "random"


def _create(name: str, dataset: str, settings: Mapping[str, object], seed: int) -> Any:
    """A data set of the library.

    Raises:
        ConfigError: there is none, or it does not take these settings.
    """
    library = _library()
    if dataset not in library.DATASETS:
        from shoal.envs.factories import near

        hint = near(dataset, list(library.DATASETS))
        raise ConfigError(
            f"{name}: reasoning-gym has no task {dataset!r}"
            f"{hint or f'; it has {len(library.DATASETS)}, such as chain_sum, gcd, countdown'}"
        )
    if dataset == "composite":
        raise ConfigError(
            f"{name} is a mixture of other tasks; name one of them, or give a function that returns a Task of your own"
        )
    known = [field.name for field in dataclasses.fields(library.DATASETS[dataset][1])]
    known = [key for key in known if key not in ("seed", "size")]
    for key in settings:
        if key not in known:
            raise ConfigError(
                f"{name} has no keyword {key!r}; it takes {', '.join(known)}, and scoring and extract"
            )
    try:
        return library.create_dataset(dataset, seed=seed, size=BLOCK, **settings)
    except Exception as error:
        given = ", ".join(f"{key}={value!r}" for key, value in settings.items())
        raise ConfigError(
            f"{name}: reasoning-gym refuses {given or 'its own defaults'}: {type(error).__name__}: {text_of(error)}"
        ) from error


def _library() -> Any:
    """The module that knows all data sets."""
    try:
        with warnings.catch_warnings():
            # Its sources warn when they are compiled first, of escapes in strings.
            warnings.simplefilter("ignore")
            importlib.import_module("reasoning_gym")
            return importlib.import_module("reasoning_gym.factory")
    except ImportError as error:
        raise ConfigError(
            f'tasks of reasoning-gym need a package that is not installed here: {error}; pip install "shoal-rl[llm]"'
        ) from error


def _no_leaf(value: object, at: str) -> None:
    """Nothing is held beside the JSON."""


def _no_mark(value: dict[str, Any]) -> None:
    """Likewise, the other way."""
