"""Engines by the name that `language.engine` has for them."""

from __future__ import annotations

from typing import TYPE_CHECKING

from shoal.llm.engines.connection import Connection
from shoal.llm.engines.openai import OpenAi
from shoal.llm.engines.sglang import Sglang
from shoal.llm.engines.vllm import Vllm
from shoal.types import ConfigError

if TYPE_CHECKING:
    from shoal.llm.engines.protocol import Engine


def make_engine(name: str, url: str, *, timeout_s: float) -> Engine:
    """The server at an address.

    Args:
        name: vllm, sglang, or openai, which takes no weights.
        url: http://HOST:PORT.
        timeout_s: how long it may say nothing.

    Raises:
        ConfigError: there is no such engine, or the address is none.
    """
    connection = Connection(url, timeout_s=timeout_s)
    if name == "vllm":
        return Vllm(connection)
    if name == "sglang":
        return Sglang(connection)
    if name == "openai":
        return OpenAi(connection)
    raise ConfigError(f"there is no engine {name!r}, only vllm, sglang and openai")
