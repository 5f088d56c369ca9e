"""Fleets as far as no Ray is needed: settings, messages, certificates, records, and servers that are elsewhere."""

from __future__ import annotations

import importlib.util
import os
import stat
import subprocess
import sys
import time
from contextlib import closing
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import shoal
from shoal.cli.fleet import main as fleet_command
from shoal.envs.preprocessing import Preprocessing
from shoal.envs.registry import make, on_servers
from shoal.experiment.applies import check_applies
from shoal.experiment.experiment import Experiment
from shoal.experiment.options import Options
from shoal.fleet import reaper
from shoal.fleet.certificates import FILES, Authority, ask, write_private
from shoal.fleet.cluster import _why_not, join
from shoal.fleet.records import Record, own_process, records
from shoal.fleet.settings import Placement
from shoal.remote.server import Server
from shoal.remote.settings import Guard, Remote, Terms
from shoal.types import ConfigError, EnvError

ALL = slice(None)
HOST = "127.0.0.1"


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"fleet": "remote"}, r"must be local .*, auto .* or ray://HOST:PORT"),
        ({"fleet": "ray://head"}, "write ray://HOST:10001"),
        ({"placement": {"servers": 0}}, "servers"),
        ({"placement": {"servers": 2, "cpus": float("inf")}}, "cpus"),
        ({"placement": {"resource": "CPU"}}, "placement.resource names what nodes offer besides"),
    ],
)
def test_settings_that_cannot_be(settings: dict[str, Any], message: str) -> None:
    """Refused before anything is started."""
    with pytest.raises(ConfigError, match=message):
        shoal.train("CartPole-v1", panel="none", **settings)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"placement": {"servers": 3}}, "placement.servers=3 would change nothing: there is no fleet"),
        ({"fleet": "auto", "remote": {"ca": "x"}}, "a fleet makes certificates of its own"),
        ({"fleet": "auto", "num_workers": 3}, "the environments are on a fleet"),
    ],
)
def test_settings_that_change_nothing(settings: dict[str, Any], message: str) -> None:
    with closing(make("CartPole-v1", 1)) as rows, pytest.raises(ConfigError, match=message):
        check_applies(Experiment.new("CartPole-v1", settings=settings), rows.spec)


def test_servers_that_run_already_are_not_placed() -> None:
    with pytest.raises(ConfigError, match="names servers that run already"):
        shoal.train("grpc://127.0.0.1:1", fleet="local", panel="none")


def test_faults_are_survived_on_a_fleet_unless_it_is_said_otherwise() -> None:
    assert Options("x").fault_policy == "raise"
    assert Options("x", fleet="auto").fault_policy == "restart"
    assert Options("x", fleet="auto", on_fault="raise").fault_policy == "raise"
    assert Placement(cpus=2, resource="envs").bundle == {"CPU": 2, "envs": 1}


def test_without_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    found = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == "ray" else found(name))
    with pytest.raises(ConfigError, match=r"pip install 'shoal-rl\[fleet\]' \(not installed here: ray\)"):
        shoal.train("CartPole-v1", fleet="local", panel="none")


def test_why_a_cluster_is_not_joined() -> None:
    said = "Version mismatch: The cluster was started with:\n    Ray: 2.9\n    Python: 3.9.1\nThis process: ..."
    told = _why_not("auto", RuntimeError(said))
    assert "another version of Ray or Python than this process" in told
    assert "Ray: 2.9 Python: 3.9.1" in told
    assert "no Ray cluster runs on this machine" in _why_not("auto", ConnectionError("none found"))
    assert "RAY_AUTH_TOKEN_PATH" in _why_not("auto", RuntimeError("InvalidAuthToken"))
    with pytest.raises(ConfigError, match=r"nobody listens at ray://127\.0\.0\.1:1 "):
        join("ray://127.0.0.1:1")


@pytest.fixture
def authority(tmp_path: Path) -> Authority:
    """One, with a client's files in a folder."""
    made = Authority()
    made.write_client(tmp_path)
    return made


def remote_of(folder: Path) -> Remote:
    ca, cert, key = (str(folder / name) for name in FILES)
    return Remote(ca=ca, cert=cert, key=key)


def served(authority: Authority, folder: Path) -> Server:
    """A server with a certificate of the authority, as a fleet's."""
    folder.mkdir()
    asked = ask(HOST)
    parts = {"cert": authority.sign(asked.request, HOST), "key": asked.key, "ca": authority.certificate}
    for name, data in parts.items():
        write_private(folder / name, data)
    cert, key, ca = (str(folder / name) for name in parts)
    guard = Guard(cert=cert, key=key, client_ca=ca)
    return Server(partial(make, "CartPole-v1"), num_envs=4, listen=f"{HOST}:0", guard=guard)


def rows_on(servers: list[Server], remote: Remote, **terms: Any) -> Any:
    name = "grpcs://" + ",".join(server.address for server in servers)
    return on_servers(name, 4, None, (), Preprocessing(), terms=Terms(remote, 10.0, **terms))


def test_who_has_no_certificate_of_the_fleet_is_refused(authority: Authority, tmp_path: Path) -> None:
    """Neither without one nor with another fleet's; and a certificate is for one address."""
    with served(authority, tmp_path / "server") as server:
        with closing(rows_on([server], remote_of(tmp_path))) as rows:
            rows.reset(1)
            assert rows.recv().obs.shape == (4, 4)
        with pytest.raises(ConfigError, match="no server of environments answers"):
            rows_on([server], Remote(ca=str(tmp_path / "ca.pem")))
        other = tmp_path / "other"
        other.mkdir()
        Authority().write_client(other)
        (other / "ca.pem").write_bytes(authority.certificate)
        with pytest.raises(ConfigError, match="no server of environments answers"):
            rows_on([server], remote_of(other))
    with pytest.raises(ConfigError, match="asked for a certificate of another address"):
        authority.sign(ask("10.0.0.1").request, HOST)
    modes = {stat.S_IMODE((tmp_path / name).stat().st_mode) for name in FILES}
    assert modes == {0o600}


def test_a_lost_server_is_stepped_where_it_is_now(authority: Authority, tmp_path: Path) -> None:
    """It is asked for until it is there; the rows of the other one have lost nothing."""
    first, second = (served(authority, tmp_path / name) for name in ("a", "b"))
    asked: list[int] = []
    moved: list[Server] = []

    def locate(number: int) -> str:
        asked.append(number)
        if len(asked) < 2:
            raise ConfigError("not there yet")
        moved.append(served(authority, tmp_path / "c"))
        return moved[0].address

    with (
        first,
        second,
        closing(rows_on([first, second], remote_of(tmp_path), on_fault="restart", locate=locate)) as rows,
    ):
        rows.reset(3)
        rows.recv()
        second.stop(0.0)
        ends = np.zeros(4, int)
        for _ in range(5):
            rows.send(ALL, np.zeros(4, np.int64))
            ready = rows.recv()
            ends += ready.truncated
            assert ready.valid[:2].all()
        assert asked == [1, 1]
        assert ends.tolist() == [0, 0, 1, 1]
        moved[0].stop(0.0)

        def gone(_: int) -> str:
            raise EnvError("it has ended for good")

        rows._recovery._terms = rows._recovery._terms._replace(locate=gone)
        rows.send(ALL, np.zeros(4, np.int64))
        with pytest.raises(EnvError, match="ended for good"):
            rows.recv()


def test_records_of_fleets(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """They are this user's alone; those of learners that are gone are removed."""
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))
    pid, begun = own_process()
    mine = Record("a", "local", "1.2.3.4:5", pid, begun, "folder", "token", "ppo on CartPole-v1")
    gone = Record("b", "local", "1.2.3.4:5", pid, begun - 1, "folder", "token", "another process's number")
    mine.write()
    gone.write()
    assert stat.S_IMODE(mine.path.stat().st_mode) == 0o600
    (tmp_path / "shoal" / "fleets" / "c.json").write_text("{}")
    assert records() == [mine]
    assert [path.name for path in mine.path.parent.iterdir()] == ["a.json"]
    mine.remove()


@pytest.mark.parametrize("what", ["status", "logs", "stop"])
def test_where_no_fleet_runs(
    what: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))
    assert fleet_command([what], "about") == 1
    assert "no fleet runs here" in capsys.readouterr().out


def test_what_a_fleet_started_is_ended(tmp_path: Path) -> None:
    """By its name in the environment, and by where its output goes; not what others started."""
    folder = tmp_path / "fleet"
    folder.mkdir()
    sleep = [sys.executable, "-c", "import time; time.sleep(60)"]
    marked = subprocess.Popen(sleep, env=os.environ | {reaper.MARK: "f1"})
    with open(folder / "log", "w") as log:
        writing = subprocess.Popen(sleep, stdout=log)
    others = subprocess.Popen(sleep, env=os.environ | {reaper.MARK: "f2"})
    try:
        deadline = time.monotonic() + 5
        while len(reaper.started("f1", str(folder))) < 2:
            assert time.monotonic() < deadline
            time.sleep(0.01)
        reaper.end("f1", str(folder), patience_s=0.0)
        assert marked.wait(5) == writing.wait(5) == -9
        assert others.poll() is None
        assert not folder.exists()
    finally:
        others.kill()
        others.wait()
