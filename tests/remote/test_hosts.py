"""Two hosts, as network namespaces of this machine: one is cut off for a while, and then for good."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import threading
import time
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
import trustme

if TYPE_CHECKING:
    from collections.abc import Iterator

ROOT = Path(__file__).parents[2]
HERE, THERE = "10.91.7.1", "10.91.7.2"
CUT_S, TIMEOUT_S = 8.0, 20.0


def ip(*arguments: str) -> None:
    """CalledProcessError where this user may not."""
    subprocess.run(["ip", *arguments], check=True, capture_output=True)


@pytest.fixture
def hosts() -> Iterator[tuple[str, str]]:
    """The server's host and the learner's, with a wire between them."""
    if shutil.which("ip") is None:
        pytest.skip("there is no program ip here")
    names = [f"shoal-{os.getpid()}-{letter}" for letter in "ab"]
    with ExitStack() as stack:
        try:
            for name in names:
                ip("netns", "add", name)
                stack.callback(ip, "netns", "del", name)
            ip("link", "add", "wire-a", "netns", names[0], "type", "veth", "peer", "wire-b", "netns", names[1])
            for name, end, address in zip(names, ("wire-a", "wire-b"), (HERE, THERE), strict=True):
                ip("-n", name, "addr", "add", f"{address}/24", "dev", end)
                ip("-n", name, "link", "set", end, "up")
                ip("-n", name, "link", "set", "lo", "up")
        except subprocess.CalledProcessError as error:
            pytest.skip(f"no network namespaces can be made here: {error.stderr.decode()}")
        yield names[0], names[1]


class Program:
    """A process on a host, and what it has said."""

    def __init__(self, host: str, *arguments: str) -> None:
        command = ["ip", "netns", "exec", host, sys.executable, "-m", *arguments]
        self.process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=ROOT)
        self.lines: list[str] = []
        threading.Thread(target=self._read, daemon=True).start()

    def _read(self) -> None:
        assert self.process.stdout is not None
        self.lines.extend(iter(self.process.stdout.readline, ""))

    def wait_for(self, start: str, after: int = 0, seconds: float = 30.0) -> str:
        """The next line that starts so."""
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline:
            found = [line for line in self.lines[after:] if line.startswith(start)]
            if found:
                return found[0]
            time.sleep(0.05)
        raise AssertionError(f"no {start!r} in {self.lines[-3:]}")

    def close(self) -> None:
        """Ends it."""
        self.process.kill()
        self.process.wait()
        with suppress(AttributeError):
            self.process.stdout.close()  # pyright: ignore[reportOptionalMemberAccess]


@pytest.mark.slow
@pytest.mark.timeout(180)
def test_a_host_that_is_cut_off(hosts: tuple[str, str], tmp_path: Path) -> None:
    """For a while: no step is lost, over gRPC and over TLS; for good: the learner's error, within the time-out."""
    authority = trustme.CA()
    signed = authority.issue_cert(HERE)
    ca, cert, key, token = (str(tmp_path / name) for name in ("ca", "cert", "key", "token"))
    authority.cert_pem.write_to_path(ca)
    signed.cert_chain_pems[0].write_to_path(cert)
    signed.private_key_pem.write_to_path(key)
    Path(token).write_text("a token of more than 16", encoding="ascii")
    with ExitStack() as stack:
        guard = ["--guard.cert", cert, "--guard.key", key, "--guard.token-file", token]
        env = ["benchmarks.soak_workers:Counting", "--listen", f"{HERE}:50051"]
        server = Program(hosts[0], "shoal", "serve", *env, *guard)
        stack.callback(server.close)
        server.wait_for("64 environments")
        learners: list[Program] = []
        for plane in ("grpc", "tls"):
            asked = [f"grpcs://{HERE}:50051", ca, token, plane, str(TIMEOUT_S)]
            learners.append(Program(hosts[1], "tests.remote.far_client", *asked))
            stack.callback(learners[-1].close)
        for learner in learners:
            learner.wait_for("steps")
        ip("-n", hosts[0], "link", "set", "wire-a", "down")
        time.sleep(1.0)
        said = [len(learner.lines) for learner in learners]
        time.sleep(CUT_S - 1.0)
        assert [len(learner.lines) for learner in learners] == said
        ip("-n", hosts[0], "link", "set", "wire-a", "up")
        for learner, count in zip(learners, said, strict=True):
            learner.wait_for("steps", count, TIMEOUT_S)
        ip("-n", hosts[0], "link", "set", "wire-a", "down")
        for learner in learners:
            last = learner.wait_for("lost after", seconds=TIMEOUT_S + 15)
            assert f"the server at {HERE}:50051 gave no answer for {TIMEOUT_S:g} s" in last
            assert float(last.split()[2]) < TIMEOUT_S + 2
