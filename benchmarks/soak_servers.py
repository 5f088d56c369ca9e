"""A soak of `remote`: servers are killed, stopped and cut off at random, and no step of any row may be lost or doubled.

    python -m benchmarks.soak_servers [--seed S] [--minutes M]

Two servers in processes of their own, behind a proxy; rows observe which episode they are in and which step it is, and
the parent keeps a ledger of what each must be handed next. A thread kills a server (SIGKILL; it is started again at
once), stops it for a while (SIGSTOP, some of them for longer than the time-out), cuts all connections, or lets nothing
through for a while. Sessions outlive what they can; where they cannot, `on_fault="restart"` cuts the episodes. A third
of the time each: batches over gRPC, over Unix sockets, over TLS sockets, with two sends under way. Appends a line with
seed, counts and duration to benchmarks/results/soak_servers.jsonl; exits 1, with the mistake, where ledger and rows
differ.
"""

from __future__ import annotations

import argparse
import json
import logging
import os
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from contextlib import ExitStack, closing
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import psutil
import trustme

from benchmarks.cutting_proxy import CuttingProxy
from benchmarks.soak_workers import NUM_ROWS, Ledger
from shoal.remote import plane as planes
from shoal.remote import rows as remote
from shoal.remote.settings import Remote, Terms

if TYPE_CHECKING:
    from shoal.remote.frames import Frames

RESULT = Path(__file__).parent / "results" / "soak_servers.jsonl"
PLANES = ("grpc", "unix", "tls")
HALVES = slice(0, 5), slice(5, NUM_ROWS)
TIMEOUT_S, RECONNECT_S, IDLE_S = 4.0, 3.0, 6.0
FAULT_EVERY_S = 1.5
FAULTS = {"SIGKILL": 0.15, "SIGSTOP": 0.2, "connections cut": 0.4, "nothing comes through": 0.25}
LEARNS_ONCE_IN = 3_000
"""Receives after which the parent does something else for a while."""


def free_port() -> int:
    """One that nobody listens at now."""
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return int(found.getsockname()[1])


class Served:
    """A server in a process of its own, with a proxy before it."""

    def __init__(self, files: dict[str, str], rng: np.random.Generator) -> None:
        """Waits until it listens."""
        port = free_port()
        self._command = [
            sys.executable, "-m", "shoal", "serve", "benchmarks.soak_workers:Counting", "--num-envs", str(4 * NUM_ROWS),
            "--listen", f"127.0.0.1:{port}", "--guard.idle-s", str(IDLE_S),
        ]  # fmt: skip
        if files:
            self._command += ["--guard.cert", files["cert"], "--guard.key", files["key"]]
        self.proxy = CuttingProxy(("127.0.0.1", port), rng)
        self.start()
        assert self.process.stdout is not None
        self.process.stdout.readline()

    def start(self) -> None:
        """Starts the process, once more too."""
        self.process = subprocess.Popen(self._command, stdout=subprocess.PIPE, cwd=Path(__file__).parents[1])

    def kill(self) -> None:
        """As a machine that fails."""
        self.process.kill()
        self.process.communicate()

    def close(self) -> None:
        """Ends it all."""
        os.kill(self.process.pid, signal.SIGCONT)
        self.kill()
        self.proxy.close()


class Between:
    """Proxies before the servers' second planes, made when somebody connects there."""

    def __init__(self, rng: np.random.Generator) -> None:
        """Puts itself in the way of this process's clients."""
        self._rng, self._of = rng, dict[Any, CuttingProxy]()
        self._by_unix, self._by_tls = planes.by_unix, planes.by_tls
        planes.by_unix, planes.by_tls = self._unix, self._tls

    @property
    def all(self) -> list[CuttingProxy]:
        """Those that there are."""
        return list(self._of.values())

    def close(self) -> None:
        """Ends it all."""
        planes.by_unix, planes.by_tls = self._by_unix, self._by_tls
        for proxy in self.all:
            proxy.close()

    def _before(self, target: Any) -> CuttingProxy:
        if target not in self._of:
            self._of[target] = CuttingProxy(target, self._rng)
        return self._of[target]

    def _unix(self, description: Any, timeout_s: float) -> Frames:
        other = type(description)(socket=self._before(description.socket).path)
        return self._by_unix(other, timeout_s)

    def _tls(self, server: str, description: Any, asked: Remote, timeout_s: float) -> Frames:
        other = type(description)(tls_port=self._before(("127.0.0.1", description.tls_port)).port)
        return self._by_tls(server, other, asked, timeout_s)


class Resumed(logging.Handler):
    """Counts what the library says of its faults."""

    def __init__(self, counts: Counter[str]) -> None:
        super().__init__(logging.WARNING)
        self._counts = counts

    def emit(self, record: logging.LogRecord) -> None:
        """Of the two kinds."""
        if "is there again" in record.msg:
            self._counts["sessions resumed"] += 1
        elif "restart" in record.msg:
            self._counts["new sessions asked for"] += 1


def harass(
    servers: list[Served], between: Between, rng: np.random.Generator, over: threading.Event, counts: Counter[str]
) -> None:
    """One fault after the other, at random moments."""
    while not over.wait(rng.exponential(FAULT_EVERY_S)):
        what = str(rng.choice(list(FAULTS), p=list(FAULTS.values())))
        server = servers[int(rng.integers(len(servers)))]
        proxies = [server.proxy, *between.all]
        counts[what] += 1
        match what:
            case "SIGKILL":
                server.kill()
                server.start()
                over.wait(8.0)  # it must be there before the next one
            case "SIGSTOP":
                os.kill(server.process.pid, signal.SIGSTOP)
                over.wait(rng.uniform(0, 1.5 * TIMEOUT_S))
                os.kill(server.process.pid, signal.SIGCONT)
            case "connections cut":
                for proxy in proxies:
                    proxy.cut(abruptly=bool(rng.integers(2)))
            case _:
                for proxy in proxies:
                    proxy.passing.clear()
                over.wait(rng.uniform(0, TIMEOUT_S))
                for proxy in proxies:
                    proxy.passing.set()


def step(rows: Any, ledger: Ledger, part: slice) -> None:
    """Sends rows; none of them may be under way."""
    ledger.sent[part] += 1
    assert ledger.sent.max() == 1
    rows.send(part, np.zeros(part.stop - part.start, np.int64))


def play(rows: Any, ledger: Ledger, rng: np.random.Generator, seconds: float) -> None:
    """Two sends under way for so long."""
    for half in HALVES:
        step(rows, ledger, half)
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        ready = rows.recv()
        ledger.check(ready)
        if rng.random() < 1 / LEARNS_ONCE_IN:
            time.sleep(rng.uniform(0, 2 * RECONNECT_S))
        step(rows, ledger, ready.rows)
    while ledger.sent.any():
        ledger.check(rows.recv())


def soak(plane: Any, seed: list[int], seconds: float, files: dict[str, str]) -> dict[str, int]:
    """Steps rows over one plane for so long; the counts."""
    rng, other, third = (np.random.default_rng(child) for child in np.random.SeedSequence(seed).spawn(3))
    used = files if plane == "tls" else {}
    over, faults = threading.Event(), Counter[str]()
    handler = Resumed(faults)
    logging.getLogger("shoal").addHandler(handler)
    with ExitStack() as stack:
        stack.callback(logging.getLogger("shoal").removeHandler, handler)
        between = stack.enter_context(closing(Between(third)))
        servers = [stack.enter_context(closing(Served(used, third))) for _ in range(2)]
        name = ("grpcs://" if used else "grpc://") + ",".join(f"127.0.0.1:{one.proxy.port}" for one in servers)
        asked = Remote(ca=used.get("ca"), plane=plane, reconnect_s=RECONNECT_S)
        terms = Terms(asked, TIMEOUT_S, "restart", 10**9)
        rows = stack.enter_context(closing(remote.make(name, NUM_ROWS, terms)))
        rows.reset(int(rng.integers(2**40)))
        ledger = Ledger(rows.recv().obs)
        thread = threading.Thread(target=harass, args=(servers, between, other, over, faults))
        thread.start()
        try:
            play(rows, ledger, rng, seconds)
        finally:
            over.set()
            thread.join()
    return dict(sorted((ledger.counts + faults).items()))


def certificates(folder: str) -> dict[str, str]:
    """An authority and a server's certificate, as files."""
    authority = trustme.CA()
    signed = authority.issue_cert("127.0.0.1")
    files = {name: f"{folder}/{name}.pem" for name in ("ca", "cert", "key")}
    blobs = authority.cert_pem, signed.cert_chain_pems[0], signed.private_key_pem
    for path, blob in zip(files.values(), blobs, strict=True):
        blob.write_to_path(path)
    return files


def main() -> None:
    """Runs and writes the line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--minutes", type=float, default=10.0)
    args = parser.parse_args()
    logging.getLogger("shoal").propagate = False
    begun, mistake = time.monotonic(), ""
    counts: dict[str, dict[str, int]] = {}
    with tempfile.TemporaryDirectory() as folder:
        files = certificates(folder)
        for number, plane in enumerate(PLANES):
            try:
                counts[plane] = soak(plane, [args.seed, number], args.minutes * 60 / len(PLANES), files)
            except Exception as error:
                mistake = f"{plane}: {type(error).__name__}: {error}"
                break
            print(plane, counts[plane], flush=True)
    left = len(psutil.Process().children(recursive=True))
    line = {"seed": args.seed, "minutes": args.minutes, "seconds": round(time.monotonic() - begun, 1)}
    line |= {"rows": NUM_ROWS, "servers": 2, "counts": counts, "processes_left": left, "mistake": mistake}
    with RESULT.open("a", encoding="utf-8") as file:
        file.write(json.dumps(line) + "\n")
    print(json.dumps(line))
    sys.exit(bool(mistake or left))


if __name__ == "__main__":
    main()
