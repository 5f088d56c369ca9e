"""Tokenizer: text as tokens and back, chats by the model's own template."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from shoal.llm.tasks.task import Message
from shoal.types import ConfigError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from shoal.llm.tasks.task import Prompt

MISSING = (
    "{0} is not installed, which language models need; pip install 'shoal-rl[llm]'"
)


class Tokenizer:
    """A tokenizer.json with its chat template; `end` are the tokens that end an answer."""

    def __init__(
        self, backend: Any, *, end: Sequence[int], chat_template: str | None = None
    ) -> None:
        """Of a `tokenizers.Tokenizer`.

        Raises:
            ConfigError: no token ends an answer.
        """
        if not end:
            raise ConfigError(
                "the tokenizer names no token that ends an answer (eos_token); set one in tokenizer_config.json"
            )
        self._backend = backend
        self.end = tuple(end)
        self.chat_template = chat_template

    @classmethod
    def of_folder(cls, folder: Path) -> Tokenizer:
        """From the files that transformers writes.

        Raises:
            ConfigError: a file is missing, or `tokenizers` is not installed.
        """
        try:
            import tokenizers
        except ImportError as error:
            raise ConfigError(MISSING.format("tokenizers")) from error
        path = folder / "tokenizer.json"
        if not path.is_file():
            raise ConfigError(f"{folder} has no tokenizer.json")
        backend = tokenizers.Tokenizer.from_file(str(path))
        config = _json(folder / "tokenizer_config.json")
        generation = _json(folder / "generation_config.json")
        template = config.get("chat_template")
        beside = folder / "chat_template.jinja"
        if template is None and beside.is_file():
            template = beside.read_text(encoding="utf-8")
        return cls(
            backend, end=_ends(backend, config, generation), chat_template=template
        )

    @property
    def size(self) -> int:
        """Tokens that there are."""
        return self._backend.get_vocab_size()

    def encode(self, text: str) -> list[int]:
        """The tokens of a text; none is added."""
        return self._backend.encode(text, add_special_tokens=False).ids

    def decode(self, tokens: Sequence[int]) -> str:
        """The text of tokens; special ones, such as those that end an answer, are left out."""
        return self._backend.decode(list(tokens), skip_special_tokens=True)

    def encode_prompt(self, prompt: Prompt) -> list[int]:
        """What the model reads before it answers.

        Raises:
            ConfigError: a chat, and the model has no template for one; or the prompt is empty.
        """
        question = prompt.question
        text = question if isinstance(question, str) else self.render(question)
        tokens = self.encode(text)
        if not tokens:
            raise ConfigError(f"prompt {prompt.index} of the task is empty")
        return tokens

    def render(self, messages: Sequence[Message]) -> str:
        """A chat as text, up to where the answer begins.

        Raises:
            ConfigError: there is no chat template, or it fails.
        """
        if self.chat_template is None:
            raise ConfigError(
                "the task asks in a chat, but this model has no chat template (tokenizer_config.json or "
                "chat_template.jinja); take a model for chats, or a task of plain text"
            )
        try:
            from jinja2.sandbox import ImmutableSandboxedEnvironment
        except ImportError as error:
            raise ConfigError(MISSING.format("jinja2")) from error
        environment = ImmutableSandboxedEnvironment(
            trim_blocks=True, lstrip_blocks=True
        )
        environment.globals["raise_exception"] = _refused  # pyright: ignore[reportArgumentType]
        turns = [{"role": m.role, "content": m.content} for m in messages]
        try:
            template = environment.from_string(self.chat_template)
            return template.render(
                messages=turns, add_generation_prompt=True, bos_token="", eos_token=""
            )
        except ConfigError:
            raise
        except Exception as error:  # whatever a template does
            raise ConfigError(
                f"the model's chat template failed: {type(error).__name__}: {error}"
            ) from error

    def save(self, folder: Path) -> None:
        """Writes the files that `of_folder` and transformers read."""
        self._backend.save(str(folder / "tokenizer.json"))
        ends = [self._backend.id_to_token(token) for token in self.end]
        config: dict[str, Any] = {
            "tokenizer_class": "PreTrainedTokenizerFast",
            "eos_token": ends[0],
            "pad_token": ends[0],
        }
        if self.chat_template is not None:
            config["chat_template"] = self.chat_template
        _write(folder / "tokenizer_config.json", config)
        _write(folder / "generation_config.json", {"eos_token_id": list(self.end)})


def _refused(message: str) -> str:
    """What chat templates call `raise_exception`."""
    raise ConfigError(f"the model's chat template refuses the task's chat: {message}")


def _ends(backend: Any, *configs: dict[str, Any]) -> list[int]:
    """The tokens that end an answer, as either file names them."""
    found: list[int] = []
    for config in configs:
        name = config.get("eos_token")
        if isinstance(name, dict):
            name = name.get("content")
        if isinstance(name, str):
            token = backend.token_to_id(name)
            found += [] if token is None else [token]
        ids = config.get("eos_token_id")
        found += [ids] if isinstance(ids, int) else ids or []
    return list(dict.fromkeys(found))


def _json(path: Path) -> dict[str, Any]:
    if not path.is_file():
        return {}
    return json.loads(path.read_text(encoding="utf-8"))


def _write(path: Path, content: dict[str, Any]) -> None:
    path.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")
