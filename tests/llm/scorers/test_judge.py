"""A judge over HTTP, against servers on this machine that do what servers do."""

from __future__ import annotations

import json
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING, Any

import pytest

from shoal.llm.scorers.judge import Judge, JudgeError, JudgeSettings
from shoal.llm.scorers.score import Score, call
from shoal.llm.stage.work import Failed
from shoal.llm.tasks.task import Prompt
from shoal.types import ConfigError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

PROMPT = Prompt(7, "2 + 2 =", "4")
Reply = tuple[int, bytes]


def completion(text: Any) -> bytes:
    return json.dumps({"choices": [{"message": {"role": "assistant", "content": text}}]}).encode()


class Http(ThreadingHTTPServer):
    def handle_error(self, request: Any, client_address: Any) -> None:
        """Clients leave in the middle."""


class Server:
    """A server that answers by `reply`, and keeps what it was asked."""

    def __init__(self) -> None:
        self.asked: list[dict[str, Any]] = []
        self.headers: list[dict[str, str]] = []
        self.reply: Callable[[str], Reply] = lambda _: (200, completion("Grade: 10"))
        self.extra: dict[str, str] = {}
        self.drips = False
        server = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                server.asked.append(body)
                server.headers.append(dict(self.headers))
                status, reply = server.reply(body["messages"][0]["content"])
                self.send_response(status)
                for name, value in server.extra.items():
                    self.send_header(name, value)
                self.send_header("Content-Length", str(len(reply)))
                self.end_headers()
                for byte in reply if server.drips else ():
                    self.wfile.write(bytes([byte]))
                    time.sleep(0.02)
                if not server.drips:
                    self.wfile.write(reply)

            def log_message(self, format: str, *_: Any) -> None:
                """Nothing is printed."""

        self.http = Http(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.http.server_port}/v1"
        self.thread = threading.Thread(target=self.http.serve_forever, args=(0.01,))
        self.thread.start()


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    monkeypatch.setenv("no_proxy", "*")
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    made = Server()
    yield made
    made.http.shutdown()
    made.http.server_close()
    made.thread.join()


def judge_of(url: str, **given: Any) -> Judge:
    settings: dict[str, Any] = {"model": "judge-1", "pause_s": 0.01, "timeout_s": 5.0}
    return Judge(JudgeSettings(url, **(settings | given)))


def test_grades(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "secret")
    server.reply = lambda _: (200, completion("It could be Grade: 1, but it is right.\nGrade: **7.5**"))
    judge = judge_of(server.url, max_tokens=99)
    assert judge(PROMPT, "4 {truth} {x}<|im_end|>") == 0.75
    [asked] = server.asked
    content = asked.pop("messages")[0]["content"]
    assert asked == {"model": "judge-1", "max_tokens": 99, "temperature": 0.0}
    assert "<question>\n2 + 2 =\n</question>\n<reference>\n4\n</reference>\n<answer>\n4 {truth} {x}\n</ans" in content
    assert server.headers[0]["Authorization"] == "Bearer secret"


def test_own_template_and_pattern(server: Server) -> None:
    server.reply = lambda text: (200, completion(f"{text} -> <score>3</score>"))
    judge = judge_of(server.url, template="{answer}?", pattern="<score>([0-9])</score>", highest=4.0)
    assert judge(PROMPT, "x") == 0.75
    assert server.asked[0]["messages"][0]["content"] == "x?"
    assert "Authorization" not in server.headers[0]


def test_several_at_once_fail_alone(server: Server) -> None:
    barrier = threading.Barrier(3, timeout=5)

    def reply(text: str) -> Reply:
        barrier.wait()
        return 200, completion("no grade" if "bad" in text else "Grade: 5")

    server.reply = reply
    judge = judge_of(server.url, concurrency=3)
    good, bad, other = call(judge, [(PROMPT, answer) for answer in ("a", "bad", "c")])
    assert good == other == Score(0.5)
    assert isinstance(bad, Failed)
    assert bad.text.endswith("/v1/chat/completions: the reply holds no grade: 'no grade'")


@pytest.mark.parametrize(
    ("status", "reply", "message"),
    [
        (200, completion("I would rather not"), "the reply holds no grade: 'I would rather not'"),
        (200, completion("Grade: 11"), "the grade 11 is not between 0 and 10"),
        (200, completion(None), "the reply is no chat completion"),
        (200, b"<html>", "the reply is no chat completion: '<html>'"),
        (200, b'{"choices": []}', "the reply is no chat completion"),
        (200, b"[" * 100_000, "the reply is no chat completion"),
        (200, b"x" * (2**20 + 1), "the reply has more than 1,048,576 bytes"),
        (401, b"no such key", "it answered 401 Unauthorized: no such key"),
        (404, b"", "it answered 404 Not Found"),
    ],
)
def test_what_another_try_does_not_mend(server: Server, status: int, reply: bytes, message: str) -> None:
    server.reply = lambda _: (status, reply)
    with pytest.raises(JudgeError, match=message):
        judge_of(server.url)(PROMPT, "4")
    assert len(server.asked) == 1


def test_other_tries(server: Server) -> None:
    replies = iter([(503, b"loading"), (429, b""), (200, completion("Grade: 2"))])
    server.reply = lambda _: next(replies)
    assert judge_of(server.url)(PROMPT, "4") == 0.2
    server.reply = lambda _: (500, b"")
    with pytest.raises(JudgeError, match="it answered 500 Internal Server Error, 3 times"):
        judge_of(server.url, retries=2)(PROMPT, "4")
    assert len(server.asked) == 6


def test_a_server_says_when_to_come_again(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    paused: list[float] = []
    monkeypatch.setattr(time, "sleep", paused.append)
    server.reply = lambda _: (429, b"")
    for after, pauses in (("7", [7.0, 7.0, 7.0]), ("99999", [30.0] * 3), ("soon", [0.5, 1.0, 2.0])):
        server.extra = {"Retry-After": after}
        paused.clear()
        with pytest.raises(JudgeError, match="4 times"):
            judge_of(server.url, pause_s=0.5)(PROMPT, "4")
        assert paused == pauses


def test_a_redirection_is_not_followed(server: Server) -> None:
    server.extra = {"Location": f"{server.url}/elsewhere"}
    server.reply = lambda _: (302, b"")
    with pytest.raises(JudgeError, match="it answered 302"):
        judge_of(server.url)(PROMPT, "4")
    assert len(server.asked) == 1


def test_servers_that_do_not_answer(server: Server) -> None:
    hung = threading.Event()
    server.reply = lambda _: (200, completion(str(hung.wait(5))))
    with pytest.raises(JudgeError, match=r"no answer \(TimeoutError: .*, 1 times"):
        judge_of(server.url, timeout_s=0.1, retries=0)(PROMPT, "4")
    hung.set()
    server.drips = True
    server.reply = lambda _: (200, completion("Grade: 10") * 10)
    began = time.monotonic()
    with pytest.raises(JudgeError, match=r"took more than 0.2 s"):
        judge_of(server.url, timeout_s=0.2, retries=0)(PROMPT, "4")
    assert time.monotonic() - began < 3
    with pytest.raises(JudgeError, match=r"no answer \(ConnectionRefusedError"):
        judge_of("http://127.0.0.1:9/v1", retries=0)(PROMPT, "4")


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"base_url": "ftp://x"}, "base_url is http://HOST:PORT/v1 or https"),
        ({"base_url": "http:///v1"}, "base_url is http://HOST:PORT/v1 or https"),
        ({"base_url": "https://me:word@host/v1"}, "must hold no password"),
        ({"base_url": "http://10.0.0.1/v1"}, "unencrypted to another machine; use https, or say insecure=True"),
        ({"template": "{question}"}, r"must contain \{answer\}"),
        ({"pattern": "("}, r"pattern='\('"),
        ({"pattern": "Grade"}, "must have one group, the number; 'Grade' has 0"),
        ({"concurrency": 0}, "concurrency must be between"),
        ({"timeout_s": 0.0}, "timeout_s must be"),
    ],
)
def test_wrong_settings(given: dict[str, Any], message: str) -> None:
    settings: dict[str, Any] = {"base_url": "https://host/v1", "model": "m"}
    with pytest.raises(ConfigError, match=message):
        JudgeSettings(**(settings | given))
    JudgeSettings("http://10.0.0.1/v1", "m", insecure=True)
