"""Tokenizer: text as tokens and back, chats by the model's own template."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from shoal.llm.chat import MISSING, render_chat
from shoal.llm.files import JSON_BYTES
from shoal.llm.tasks.task import Message
from shoal.types import ConfigError
from shoal.types.files import read_object

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from shoal.llm.tasks.task import Prompt

SPECIAL = ("bos_token", "eos_token", "unk_token", "sep_token", "pad_token")
"""Names that chat templates may use."""


class Tokenizer:
    """A tokenizer.json with its chat template; `end` are the tokens that end an answer."""

    def __init__(
        self,
        backend: Any,
        *,
        end: Sequence[int],
        chat_template: str | None = None,
        config: Mapping[str, Any] | None = None,
    ) -> None:
        """Of a `tokenizers.Tokenizer`.

        Args:
            backend: it neither pads nor cuts from now on.
            end: tokens that end an answer, the usual one first.
            chat_template: in Jinja.
            config: what tokenizer_config.json says beside these; it is written again by `save`.

        Raises:
            ConfigError: no token ends an answer.
        """
        if not end:
            raise ConfigError(
                "the tokenizer names no token that ends an answer (eos_token); set one in tokenizer_config.json"
            )
        backend.no_padding()
        backend.no_truncation()
        self._backend = backend
        self.end = tuple(end)
        self.chat_template = chat_template
        self.chats: bool | None = None
        """Whether a plain question is asked in a chat; None: nobody said, so it is not."""
        self.system = ""
        """The instruction that chats begin with, unless empty."""
        last = backend.id_to_token(self.end[0])
        ends = {} if last is None else {"eos_token": last, "pad_token": last}
        self._config = dict(config or {})
        self.special = ends | _special(self._config)

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
        try:
            backend = tokenizers.Tokenizer.from_file(str(path))
        except Exception as error:  # the library raises no narrower one
            raise ConfigError(f"{path} is not a tokenizer: {error}") from error
        older = _json(folder / "special_tokens_map.json")
        config = older | _json(folder / "tokenizer_config.json")
        ends = _json(folder / "generation_config.json") or _json(folder / "config.json")
        template = config.get("chat_template")
        beside = folder / "chat_template.jinja"
        if template is None and beside.is_file():
            template = beside.read_text(encoding="utf-8")
        return cls(
            backend,
            end=_ends(backend, config, ends),
            chat_template=_default(template),
            config=config,
        )

    @property
    def size(self) -> int:
        """Tokens that there are."""
        return self._backend.get_vocab_size()

    @property
    def highest(self) -> int:
        """The last token that there is; numbers may be left out before it."""
        return max(self._backend.get_vocab().values())

    def same_as(self, other: Tokenizer) -> bool:
        """Whether both have the same tokens under the same numbers, and end answers by the same ones."""
        vocabularies = self._backend.get_vocab(), other._backend.get_vocab()
        return vocabularies[0] == vocabularies[1] and self.end == other.end

    def encode(self, text: str) -> list[int]:
        """The tokens of a text; none is added."""
        return self._backend.encode(text, add_special_tokens=False).ids

    def encode_literally(self, text: str) -> list[int]:
        """The same, but what looks like a special token is read letter by letter: for text of strangers."""
        self._backend.encode_special_tokens = True
        try:
            return self.encode(text)
        finally:
            self._backend.encode_special_tokens = False

    def decode(self, tokens: Sequence[int]) -> str:
        """The text of tokens; special ones, such as those that end an answer, are left out."""
        said = [token for token in tokens if token not in self.end]
        return self._backend.decode(said, skip_special_tokens=True)

    def text_of(self, token: int) -> str:
        """What a special token is written as; empty where there is no such token."""
        return self._backend.id_to_token(token) or ""

    def encode_prompt(self, prompt: Prompt) -> list[int]:
        """What the model reads before it answers.

        Raises:
            ConfigError: a chat, and the model has no template for one; or the prompt is empty.
        """
        question = self.asked(prompt.question)
        text = question if isinstance(question, str) else self.render(question)
        tokens = self.encode(text)
        if not tokens:
            raise ConfigError(f"prompt {prompt.index} of the task is empty")
        return tokens

    def asked(self, question: str | tuple[Message, ...]) -> str | tuple[Message, ...]:
        """A question as the model is asked it."""
        if isinstance(question, str):
            if not self.chats:
                return question
            question = (Message("user", question),)
        if not self.system or question[0].role == "system":
            return question
        return (Message("system", self.system), *question)

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
        return render_chat(self.chat_template, messages, self.special)

    def save(self, folder: Path) -> None:
        """Writes the files that `of_folder` and transformers read."""
        self._backend.save(str(folder / "tokenizer.json"))
        config: dict[str, Any] = {
            "tokenizer_class": "PreTrainedTokenizerFast",
            "clean_up_tokenization_spaces": False,
        }
        config |= self._config | self.special | {"chat_template": self.chat_template}
        _write(folder / "tokenizer_config.json", config)
        _write(folder / "generation_config.json", {"eos_token_id": list(self.end)})


def _ends(backend: Any, *configs: dict[str, Any]) -> list[int]:
    """The tokens that end an answer, as either file names them."""
    found: list[int] = []
    for config in configs:
        name = _special(config).get("eos_token")
        if name is not None:
            token = backend.token_to_id(name)
            found += [] if token is None else [token]
        ids = config.get("eos_token_id")
        found += [ids] if isinstance(ids, int) else ids or []
    return list(dict.fromkeys(found))


def _special(config: dict[str, Any]) -> dict[str, str]:
    """The special tokens that a tokenizer_config.json names; a token may be written with its settings."""
    found: dict[str, str] = {}
    for name in SPECIAL:
        token = config.get(name)
        if isinstance(token, dict):
            token = token.get("content")
        if isinstance(token, str):
            found[name] = token
    return found


def _default(template: str | list[dict[str, str]] | None) -> str | None:
    """Of several templates the one that is named so."""
    if not isinstance(template, list):
        return template
    named = {one["name"]: one["template"] for one in template}
    return named.get("default")


def _json(path: Path) -> dict[str, Any]:
    if not path.is_file():
        return {}
    return read_object(path, at_most=JSON_BYTES)


def _write(path: Path, content: dict[str, Any]) -> None:
    path.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")
