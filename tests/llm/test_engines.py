"""Parts of engines: the check after a push, what replies must hold, how vLLM is started."""

from __future__ import annotations

import json
import os
import signal
import sys
import threading
from http.server import BaseHTTPRequestHandler, HTTPServer
from typing import TYPE_CHECKING

import psutil
import pytest

from shoal.llm.engines.connection import API_KEY, Connection, EngineError, LostEngineError
from shoal.llm.engines.launching import LaunchedVllm, vllm_command, vllm_environment
from shoal.llm.engines.prefill import PrefillCheck, prefill_logprobs, probe_tokens
from shoal.llm.engines.reading import logprobs_of, spans_of, tokens_of
from shoal.llm.sampler.book import bits_of_sets
from shoal.types import EnvError
from tests.llm.toy import toy_model

if TYPE_CHECKING:
    from collections.abc import Generator
    from pathlib import Path

OURS = [-1.0, -2.0, -3.0, -4.0]


def test_an_engine_that_rounds_coarsely_may_go_on_so() -> None:
    """0.05 at first: up to 0.1, the tolerance, where five times would be 0.25."""
    check = PrefillCheck("vLLM", 0.1)
    check.compare(0, [-1.05, -1.95, -3.05, -3.95], OURS)
    assert check.first == pytest.approx(0.05)
    check.compare(1, [-1.08, -1.92, -3.08, -3.92], OURS)
    assert check.last == pytest.approx(0.08)
    with pytest.raises(EnvError, match=r"version 2 .*4 tokens are off by 0\.12 on average \(0\.05 after the first"):
        check.compare(2, [-1.12, -1.88, -3.12, -3.88], OURS)


def test_an_exact_engine_must_stay_exact() -> None:
    """Within 0.001 nats, whatever the tolerance."""
    check = PrefillCheck("vLLM", 0.1)
    check.compare(0, OURS, OURS)
    check.compare(1, [-1.0009, -2.0, -3.0, -4.0], OURS)
    with pytest.raises(EnvError, match=r"may be by 0\.001"):
        check.compare(2, [-1.002, -2.002, -3.002, -4.002], OURS)


def test_every_token_is_compared() -> None:
    """One that is off by 0.6 is 0.15 on average, wherever it stands."""
    for place in range(4):
        theirs = [x - 0.6 * (number == place) for number, x in enumerate(OURS)]
        with pytest.raises(EnvError, match=r"off by 0\.15 on average"):
            PrefillCheck("vLLM", 0.1).compare(0, theirs, OURS)


def test_no_number_is_no_agreement() -> None:
    with pytest.raises(EnvError, match="off by nan"):
        PrefillCheck("vLLM", 0.1).compare(0, [float("nan")] * 4, OURS)


def test_the_probe_is_of_the_models_tokens() -> None:
    """Always the same ones; their log-probabilities are those at temperature 1, and none is above 0."""
    model = toy_model()
    token = probe_tokens(model)
    assert len(token) == 32
    assert set(token) <= set(range(10))
    at_one = prefill_logprobs(model, token)
    model.temperature = 0.5
    assert prefill_logprobs(model, token) == at_one
    assert len(at_one) == 31
    assert max(at_one) <= 0


@pytest.mark.parametrize(
    ("given", "message"),
    [([0.0], "1 log-probabilities for 2"), ([0.0, None], "None is no"), ([0.0, float("nan")], "nan is no")],
)
def test_log_probabilities_that_cannot_be_learned_from(given: list[float], message: str) -> None:
    with pytest.raises(EngineError, match=message):
        logprobs_of(given, 2, "here")


def test_what_replies_hold() -> None:
    assert logprobs_of([-1, 1e-6], 2, "here") == [-1.0, 0.0]
    assert spans_of([{"version": 3, "start": 0, "end": 2}], "here") == [("3", 0, 2)]
    assert spans_of(None, "here") is None
    with pytest.raises(EngineError, match="weight_versions"):
        spans_of([{"start": 0}], "here")
    with pytest.raises(EngineError, match="tokens"):
        tokens_of([1.5], "here")
    assert bits_of_sets([[0, 9], [3]], 2).tolist() == [[1, 2], [8, 0]]


def test_vllm_listens_here_alone(tmp_path: Path) -> None:
    """Whoever reaches it can change its weights."""
    command = vllm_command("python", tmp_path, port=8000, options=("--max-num-seqs", "8"))
    assert command[command.index("--host") + 1] == "127.0.0.1"
    assert command[-2:] == ["--max-num-seqs", "8"]
    environment = vllm_environment(tmp_path)
    assert (tmp_path / "shoal_vllm_receiver.py").is_file()
    assert environment["PYTHONPATH"] == str(tmp_path)


SERVER = """#!{python}
import http.server, json, sys

class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(200)
        self.end_headers()
        self.wfile.write(json.dumps({{"data": []}}).encode())

if {works}:
    port = int(sys.argv[sys.argv.index("--port") + 1])
    http.server.HTTPServer(("127.0.0.1", port), Handler).serve_forever()
print("no such model")
sys.exit(3)
"""


def interpreter(folder: Path, *, works: bool) -> str:
    """What stands for a Python with vLLM."""
    path = folder / "python"
    path.write_text(SERVER.format(python=sys.executable, works=works), encoding="utf-8")
    path.chmod(0o755)
    return str(path)


def test_a_server_of_the_runs_own_is_started_again_and_ended(tmp_path: Path) -> None:
    server = LaunchedVllm(tmp_path, python=interpreter(tmp_path, works=True))
    first = server.pid
    server.revive()
    assert server.pid == first
    os.kill(first, signal.SIGKILL)
    server.revive()
    second = server.pid
    assert second != first
    assert Connection(server.url, timeout_s=5).get("/v1/models") == {"data": []}
    server.close()
    assert not psutil.pid_exists(second)
    assert not server.folder.exists()


def test_a_server_that_ends_at_once_is_shown(tmp_path: Path) -> None:
    """With the end of what it wrote."""
    with pytest.raises(EnvError, match=r"ended with status 3 before it answered:\nno such model"):
        LaunchedVllm(tmp_path, python=interpreter(tmp_path, works=False))


class _Handler(BaseHTTPRequestHandler):
    def log_message(self, format: str, *args: object) -> None:
        """Says nothing."""

    def do_GET(self) -> None:
        kind = self.path.strip("/")
        status = {"gone": 302, "busy": 503}.get(kind, 200)
        data = b"<html>" if kind == "page" else json.dumps(self.headers.get("Authorization")).encode()
        self.send_response(status)
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)


@pytest.fixture
def url() -> Generator[str]:
    server = HTTPServer(("127.0.0.1", 0), _Handler)
    thread = threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True)
    thread.start()
    yield f"http://127.0.0.1:{server.server_address[1]}"
    server.shutdown()
    server.server_close()


def test_a_key_is_sent_where_there_is_one(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(API_KEY, raising=False)
    assert Connection(f"{url}/v1", timeout_s=5).get("/key") is None
    monkeypatch.setenv(API_KEY, "secret")
    assert Connection(url, timeout_s=5).get("/key") == "Bearer secret"


def test_replies_that_are_none(url: str) -> None:
    """A redirection is not followed: another address gets neither key nor prompts."""
    connection = Connection(url, timeout_s=5)
    with pytest.raises(EngineError, match="no JSON"):
        connection.get("/page")
    with pytest.raises(EngineError, match="answered 302"):
        connection.get("/gone")
    with pytest.raises(LostEngineError, match="answered 503") as raised:
        connection.get("/busy")
    assert raised.value.status == 503
