"""Chats as text, by the template that a model brings, as transformers renders it."""

from __future__ import annotations

import json
from datetime import datetime
from functools import cache
from typing import TYPE_CHECKING, Any

from shoal.types import ConfigError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from shoal.llm.tasks.task import Message

MISSING = (
    "{0} is not installed, which language models need; pip install 'shoal-rl[llm]'"
)


def render_chat(
    template: str, messages: Sequence[Message], special: Mapping[str, str]
) -> str:
    """A chat as text, up to where the answer begins.

    Args:
        template: in Jinja, run in its sandbox: it comes with a model, which anyone may have written.
        messages: the chat.
        special: the tokenizer's special tokens, such as `bos_token`, which templates name.

    Raises:
        ConfigError: the template refuses the chat or fails, or jinja2 is not installed.
    """
    turns = [{"role": one.role, "content": one.content} for one in messages]
    try:
        return _compiled(template).render(
            messages=turns,
            tools=None,
            documents=None,
            add_generation_prompt=True,
            **special,
        )
    except ConfigError:
        raise
    except Exception as error:  # whatever a template does
        raise ConfigError(
            f"the model's chat template failed: {type(error).__name__}: {error}"
        ) from error


@cache
def _compiled(template: str) -> Any:
    """What transformers lets templates use, less the marks of what an assistant said."""
    try:
        from jinja2.ext import loopcontrols
        from jinja2.sandbox import ImmutableSandboxedEnvironment
    except ImportError as error:
        raise ConfigError(MISSING.format("jinja2")) from error
    environment = ImmutableSandboxedEnvironment(
        trim_blocks=True, lstrip_blocks=True, extensions=[loopcontrols]
    )
    environment.filters["tojson"] = _to_json
    environment.globals["raise_exception"] = _refuse  # pyright: ignore[reportArgumentType]
    environment.globals["strftime_now"] = _now  # pyright: ignore[reportArgumentType]
    return environment.from_string(template)


def _refuse(message: str) -> str:
    """What templates call `raise_exception`."""
    raise ConfigError(f"the model's chat template refuses the task's chat: {message}")


def _to_json(value: object, indent: int | None = None) -> str:
    """Jinja's own filter would write < as an HTML entity."""
    return json.dumps(value, ensure_ascii=False, indent=indent)


def _now(form: str) -> str:
    """Today, which some templates tell the model."""
    return datetime.now().strftime(form)  # local time, as transformers takes it
