"""Talking to a language model: questions and answers, one after the other."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from shoal.experiment.first_weights import read_policy
from shoal.experiment.language import ask_in_chat
from shoal.experiment.settings import build
from shoal.llm.loading import load_adapted
from shoal.llm.lora import FOLDER as ADAPTER
from shoal.llm.model_folder import CONFIG, load_unweighted
from shoal.llm.sampler.local import LocalSampler
from shoal.llm.sampler.protocol import Request, Sampling
from shoal.llm.tasks.task import Message, Prompt
from shoal.run import directory as directories
from shoal.run.origin import Identity
from shoal.types import ConfigError, check_seed

if TYPE_CHECKING:
    from collections.abc import Iterator

    from shoal.llm.model import LanguageModel
    from shoal.llm.sampler.protocol import Drawing


def model_of(run: str, run_dir: str) -> LanguageModel:
    """The language model of a run's newest checkpoint; nothing that its configuration names is imported.

    It asks as the run asked. One with a LoRA has its own weights from where the run had them.

    Raises:
        ConfigError: no such run, it trained no language model, it has no whole checkpoint, or the model beneath its
            LoRA is gone or another.
    """
    where = directories.find(run, Path(run_dir))
    where.check()
    if not (where.model / CONFIG).is_file():
        raise ConfigError(
            f"{run} trained a policy for an environment, not a language model; `shoal eval {run}` plays it"
        )
    adapter = where.model / ADAPTER
    made = load_adapted(adapter) if adapter.is_dir() else load_unweighted(where.model)
    said: Mapping[str, Any] = where.read_config().get("language", {})
    ask_in_chat(made.tokenizer, said.get("chat", "auto"), said.get("system", ""))
    read_policy(where, identity=Identity(where.read_origin().run)).load_into(made)
    return made


def sampling_of(run: str, run_dir: str) -> Sampling:
    """How a run draws in training, as its configuration says it.

    Raises:
        ConfigError: no such run, or no sampling that could be.
    """
    saved = directories.find(run, Path(run_dir)).read_config()
    algorithm = saved.get("algorithm", {})
    given = algorithm.get("sampling", {}) if isinstance(algorithm, Mapping) else None
    if not isinstance(given, Mapping):
        raise ConfigError(f"{run}: config.toml has no table algorithm.sampling")
    return build(Sampling, cast("Mapping[str, object]", given))


class Talk:
    """A conversation, where the model has a template for chats; else every question stands alone, as plain text."""

    def __init__(
        self, model: LanguageModel, drawing: Drawing, *, seed: int = 0
    ) -> None:
        """Nothing was said yet."""
        check_seed(seed)
        self.model, self.turns = model, list[Message]()
        self._sampler = LocalSampler(model, drawing, slots=1, seed=seed)
        self._asked = 0

    def answer(self, question: str) -> Iterator[str]:
        """The parts of the answer, as they are drawn; ConfigError where there is no room for one."""
        tokenizer = self.model.tokenizer
        chat = tokenizer.chats
        if chat is None:
            chat = tokenizer.chat_template is not None
        self.turns.append(Message("user", question))
        asked = Prompt(self._asked, tuple(self.turns) if chat else question)
        token = tuple(tokenizer.encode_prompt(asked))
        self._sampler.submit([Request(self._asked, token, (0,))])
        self._asked += 1
        drawn: list[int] = []
        shown = ""
        while self._sampler.pending:
            self._sampler.poll(max_steps=1)
            progress = self._sampler.progress
            if progress is not None:
                drawn += progress.token.tolist()
            text = tokenizer.decode(drawn)
            if not text.endswith("\ufffd"):  # else a letter is not whole yet
                yield text[len(shown) :]
                shown = text
        self.turns.append(Message("assistant", shown))
