"""A run directory written by hand, a page that serves it, and a client that says exactly what it is told to."""

from __future__ import annotations

import json
import math
from contextlib import ExitStack
from dataclasses import dataclass, field
from http.client import HTTPConnection
from threading import Thread
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import tomli_w

from shoal.report.page.gate import Gate
from shoal.report.page.server import Server
from shoal.report.page.watched import Runs
from shoal.run.directory import RunDirectory
from tests.report.page.chromium import Tab, find_chromium

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

TOKEN = "the-token-of-this-test"
CONFIG = {"env": "Toy-v0", "algo": "ppo", "seed": 3, "total_timesteps": 10_000, "device": "cpu"}
STATUS: dict[str, object] = {"state": "finished", "steps": 300, "return": 40.0, "stop_reason": "stop_at"}


def line(number: int) -> dict[str, Any]:
    """A line of metrics."""
    return {
        "step": 100 * number,
        "update": number,
        "episode/return": float(number % 7),
        "loss/value": math.exp(-number / 50),
        "time/elapsed": 0.5 * number,
        "time/learning": 0.3 * number,
        "time/environment": 0.1 * number,
        "speed/sps": 200.0,
    }


def write_run(path: Path, lines: int = 10, status: dict[str, object] | None = None, **config: object) -> RunDirectory:
    """A run directory of so many lines."""
    path.mkdir(parents=True)
    (path / "config.toml").write_text(tomli_w.dumps(CONFIG | config))
    (path / "metrics.jsonl").write_text("".join(json.dumps(line(n)) + "\n" for n in range(lines)))
    (path / "run.json").write_text(json.dumps(STATUS if status is None else status))
    return RunDirectory(path)


@dataclass
class Answered:
    """What the server answered."""

    status: int
    headers: dict[str, str]
    data: bytes

    def json(self) -> Any:
        return json.loads(self.data)

    def curves(self) -> list[dict[str, Any]]:
        """The heads of curves, each with its `values` [points, 2]."""
        length = int.from_bytes(self.data[:4], "little")
        heads = json.loads(self.data[4 : 4 + length])
        assert (4 + length) % 8 == 0
        values = np.frombuffer(self.data, "<f8", offset=4 + length).reshape(-1, 2)
        for head in heads:
            head["values"], values = values[: head["points"]], values[head["points"] :]
        assert len(values) == 0
        return heads


@dataclass
class Page:
    """A page that is served."""

    server: Server
    runs: Runs
    headers: dict[str, str] = field(default_factory=lambda: {"Authorization": f"Bearer {TOKEN}"})

    @property
    def origin(self) -> str:
        return f"http://127.0.0.1:{self.server.server_port}"

    def ask(
        self,
        path: str,
        headers: dict[str, str] | None = None,
        body: bytes | None = None,
        method: str | None = None,
    ) -> Answered:
        """One request; `headers` stand instead of those with the token."""
        connection = HTTPConnection("127.0.0.1", self.server.server_port, timeout=10)
        try:
            sent = self.headers if headers is None else headers
            connection.request(method or ("GET" if body is None else "POST"), path, body, sent)
            answer = connection.getresponse()
            return Answered(answer.status, dict(answer.getheaders()), answer.read())
        finally:
            connection.close()

    def post(self, path: str, value: object, **headers: str) -> Answered:
        """A request of the page itself."""
        sent = self.headers | {"Origin": self.origin} | headers
        return self.ask(path, sent, json.dumps(value).encode())

    def state(self, *numbers: int) -> Any:
        """What the page is told of the runs, these looked at."""
        return self.ask("/api/state?" + "&".join(f"run={number}" for number in numbers)).json()


@pytest.fixture
def serve() -> Iterator[Callable[..., Page]]:
    """Serves folders; closed at the end of the test."""
    with ExitStack() as stack:

        def served(*asked: Path) -> Page:
            runs = Runs([str(path) for path in asked], asked[0].parent)
            stack.callback(runs.close)
            server = stack.enter_context(Server(runs, 0, Gate(TOKEN)))
            thread = Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
            thread.start()
            stack.callback(thread.join, 5.0)
            stack.callback(server.shutdown)
            return Page(server, runs)

        yield served


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    path = find_chromium()
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        found = playwright.chromium.launch(executable_path=path, args=["--no-sandbox"])
        yield found
        found.close()


@pytest.fixture
def open_tab(browser: Any) -> Iterator[Callable[..., Tab]]:
    with ExitStack() as stack:

        def opened(page: Page, **options: Any) -> Tab:
            tab = Tab(browser, page.origin, TOKEN, **options)
            stack.callback(tab.context.close)
            return tab

        yield opened
