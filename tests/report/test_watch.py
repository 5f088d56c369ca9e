"""Watching in a terminal and by the command line: what is shown of which runs, ports that are taken, ends."""

from __future__ import annotations

import io
import json
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from typing import TYPE_CHECKING

import pytest
from rich.console import Console

from shoal.cli import watch as command
from shoal.report.page import server
from shoal.report.page.watched import Runs
from shoal.report.watch import watch
from shoal.types import ConfigError
from tests.report.page.conftest import write_run

if TYPE_CHECKING:
    from pathlib import Path


def shown(*asked: Path) -> str:
    """What a terminal of 100 columns shows."""
    file = io.StringIO()
    assert watch([str(path) for path in asked], asked[0].parent, Console(file=file, width=100)) == 0
    return file.getvalue()


def test_one_run(tmp_path: Path) -> None:
    """The figures of the live panel, from the directory alone."""
    run = write_run(
        tmp_path / "a", status={"state": "stopped", "reason": "SIGTERM", "greedy_return": 61.5, "greedy_cost": 7.5}
    )
    acted = {"update": 3, "step": 30, "learner": "", "rule": "kl", "action": "halved", "said": "It was 0.3."}
    (run.path / "guard.json").write_text(json.dumps({"count": 1, "interventions": [acted]}))
    text = shown(tmp_path / "a")
    for said in (
        "Toy-v0 · ppo · seed 3 · cpu",
        "900 of 10,000 steps",
        "9 %",
        "stopped (SIGTERM)",
        "200 steps/s",
        "greedy",
        "61.5",
        "greedy cost  7.5",
        "learning",
        "60 %",
        "guard acted once",
        "update 3: kl, halved: It was 0.3.",
        "value 0.8353",
    ):
        assert said in text, said


def test_several_runs(tmp_path: Path) -> None:
    """A row each; what cannot be read of one stands below."""
    write_run(tmp_path / "runs" / "a")
    damaged = write_run(tmp_path / "runs" / "b")
    damaged.status.write_text("{")
    text = shown(tmp_path / "runs")
    assert "a    finished     900     9 %" in text
    assert "b    unreadable" in text
    assert "! b: " in text


def test_hostile_names(tmp_path: Path) -> None:
    """Neither rich's markup nor a terminal's codes are obeyed."""
    write_run(tmp_path / "[red]x[/red]", env="[bold]y[/bold]", status={"state": "\x1b[2Jz", "reason": "\x1b]0;t\x07"})
    text = shown(tmp_path / "[red]x[/red]")
    assert "[bold]y[/bold]" in text
    assert "\\x1b[2Jz" in text
    assert "\x1b" not in text
    assert "\x07" not in text


def test_nothing_to_watch(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="no run at"):
        shown(tmp_path / "none")


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--port", "1"], "--port and --open are the page's: add --web"),
        (["--open"], "add --web"),
        (["--web", "--port", "70000"], "from 0 to 65535"),
        (["--web", "none"], "no run at none"),
    ],
)
def test_bad_options(arguments: list[str], said: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=said):
        command.main([*arguments, "--run-dir", str(tmp_path)], "")


def test_ports(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """One that is taken: the next one, or a sentence where it was asked for."""
    write_run(tmp_path / "a")
    runs = Runs([str(tmp_path / "a")], tmp_path)
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(ConfigError, match=f"port {port} is taken or not yours to open; --port 0"):
            server.listen(runs, port)
        monkeypatch.setattr(server, "PORT", port)
        with server.listen(runs) as found:
            assert found.server_port != port
            assert found.server_address[0] == "127.0.0.1"
        monkeypatch.setattr(server, "TRIED", 1)
        with pytest.raises(ConfigError, match="are taken; --port 0"):
            server.listen(runs)
    runs.close()


@pytest.mark.parametrize("name", ["SIGINT", "SIGTERM"])
def test_the_command_ends(name: str, tmp_path: Path) -> None:
    """It prints an address that answers, and ends by Ctrl-C and by SIGTERM within a second, with status 0."""
    if signal.getsignal(getattr(signal, name)) is signal.SIG_IGN:
        pytest.skip(f"{name} is ignored by whoever runs the tests, and so by what they start")
    write_run(tmp_path / "a")
    arguments = [sys.executable, "-m", "shoal", "watch", str(tmp_path / "a"), "--web", "--port", "0"]
    with subprocess.Popen(
        arguments,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=os.environ | {"PYTHONUNBUFFERED": "1"},
    ) as process:
        assert process.stdout is not None
        url = process.stdout.readline().strip()
        with urllib.request.urlopen(url, timeout=10) as answer:
            assert b"<title>shoal</title>" in answer.read()
        begun = time.monotonic()
        process.send_signal(getattr(signal, name))
        output, errors = process.communicate(timeout=20)
        assert time.monotonic() - begun < 5
    assert (process.returncode, errors) == (0, "")
    assert "the runs go on" in output
