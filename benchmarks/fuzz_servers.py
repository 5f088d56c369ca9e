"""Mutated messages to a server on each plane: it must not crash, hang, or allocate more than messages may have.

    python -m benchmarks.fuzz_servers [--messages N] [--seed S]

A server of Snake (rows in native code, with indices in their state) runs in a process of its own, with a certificate.
Messages of every kind (requests and greetings; over gRPC the unary calls too) have bytes changed, removed, inserted or
repeated, numbers that are none of theirs, and lengths that lie; each goes to the server over gRPC, a Unix socket and a
TLS socket. After every few hundred and at the end a good client must get the rows that it gets here. Appends a line for
each plane to benchmarks/results/fuzz_servers.jsonl; exits 1, with the mistake, where something was wrong.
"""

from __future__ import annotations

import argparse
import json
import queue
import signal
import socket
import ssl
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from contextlib import closing, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import grpc
import numpy as np
import psutil

from benchmarks.soak_servers import certificates
from shoal.envs.registry import make
from shoal.remote import environments_pb2 as wire
from shoal.remote import rows as remote
from shoal.remote.environments_pb2_grpc import EnvironmentsStub
from shoal.remote.frames import LENGTH
from shoal.remote.sessions import PROTOCOL
from shoal.remote.settings import Remote, Terms
from shoal.remote.streams import NAME
from shoal.types import ConfigError

if TYPE_CHECKING:
    from numpy.random import Generator

RESULT = Path(__file__).parent / "results" / "fuzz_servers.jsonl"
ENV, NUM_ENVS, ROWS = "shoal/Snake-v0", 64, 2
IDLE_S = 2.0
WAIT_S = 0.05
"""For a reply to what may have none: half of a message, or a ping without a number."""
OPEN_WAIT_S = 20.0
CHECK_EVERY = 500
LIMIT_MIB = 128
"""What the server may grow by: nothing that is sent has more than a few KiB."""


class Messages:
    """Good requests, and what becomes of them."""

    def __init__(self, state: bytes, action: bytes, rng: Generator) -> None:
        """`state`: of such rows; `action`: packed, for all of them."""
        self._state, self._action, self._rng = state, action, rng

    def good(self, number: int) -> bytes:
        """One of any kind."""
        step = wire.Step(first=0, count=ROWS, action=self._action)
        opening = wire.OpenRequest(protocol=PROTOCOL, num_envs=ROWS, resume_s=1.0)
        kinds: list[dict[str, Any]] = [
            {"step": step},
            {"step": step},
            {"reset": wire.Reset(seeds=[1, 2])},
            {"save": wire.Save()},
            {"restore": wire.Restore(state=self._state)},
            {"ping": wire.Ping()},
            {"open": opening},
            {"resume": wire.Resume(session="nobody")},
        ]
        what = kinds[int(self._rng.integers(len(kinds)))]
        if self._rng.random() < 0.15:
            number = [0, 1, number - 1, number + 1, 2**64 - 1, 2**63][int(self._rng.integers(6))]
        return wire.Request(number=max(number, 0), **what).SerializeToString()

    def mutated(self, data: bytes) -> bytes:
        """A few changes, anywhere or near the end."""
        rng, found = self._rng, bytearray(data)
        for _ in range(int(rng.integers(1, 4))):
            at = int(rng.integers(len(found) + 1))
            match int(rng.integers(7)):
                case 0 | 1 if at < len(found):
                    found[at] ^= 1 << int(rng.integers(8))
                case 2 if at < len(found):
                    found[at] = int(rng.choice([0, 1, 127, 128, 255]))
                case 3:
                    del found[at:]
                case 4:
                    found[at:at] = rng.bytes(int(rng.integers(1, 16)))
                case 5:
                    found[at:at] = found[: int(rng.integers(len(found) + 1))]
                case _:
                    del found[at : at + int(rng.integers(1, 9))]
        return bytes(found)


class Wires(Protocol):
    """A connection of one plane."""

    def send(self, data: bytes, length: int) -> None:
        """A message, after a length where the plane has one; OSError where the server has ended it."""
        ...

    def receive(self, seconds: float) -> bytes:
        """TimeoutError where nothing comes, EOFError where the server has ended it."""
        ...

    def close(self) -> None:
        """Ends it."""
        ...


class Socket:
    """A stream of frames, whose lengths may be wrong."""

    def __init__(self, connected: socket.socket) -> None:
        connected.settimeout(5.0)
        self._socket, self._had = connected, b""

    def send(self, data: bytes, length: int) -> None:
        """At once."""
        self._socket.sendall(LENGTH.pack(length) + data)

    def receive(self, seconds: float) -> bytes:
        """One frame."""
        deadline = time.monotonic() + seconds
        while True:
            if len(self._had) >= LENGTH.size:
                end = LENGTH.size + LENGTH.unpack(self._had[: LENGTH.size])[0]
                if len(self._had) >= end:
                    found, self._had = self._had[LENGTH.size : end], self._had[end:]
                    return found
            self._socket.settimeout(max(deadline - time.monotonic(), 1e-3))
            try:
                more = self._socket.recv(65_536)
            except TimeoutError:
                raise
            except OSError as error:
                raise EOFError from error
            finally:
                self._socket.settimeout(5.0)
            if not more:
                raise EOFError
            self._had += more

    def close(self) -> None:
        """At once."""
        self._socket.close()


class Call:
    """A gRPC stream of bytes that nobody serializes."""

    def __init__(self, channel: Any) -> None:
        self._asked: queue.SimpleQueue[bytes | None] = queue.SimpleQueue()
        self._found: queue.SimpleQueue[bytes | None] = queue.SimpleQueue()
        self._call = channel.stream_stream(f"/{NAME}/Session")(iter(self._asked.get, None))
        threading.Thread(target=self._read, daemon=True).start()

    def _read(self) -> None:
        with suppress(grpc.RpcError):
            for reply in self._call:
                self._found.put(reply)
        self._found.put(None)

    def send(self, data: bytes, length: int) -> None:
        """The length is gRPC's."""
        self._asked.put(data)

    def receive(self, seconds: float) -> bytes:
        """One reply."""
        try:
            found = self._found.get(timeout=seconds)
        except queue.Empty:
            raise TimeoutError from None
        if found is None:
            raise EOFError
        return found

    def close(self) -> None:
        """Cancels it."""
        self._asked.put(None)
        self._call.cancel()


class Fuzz:
    """One plane's messages to a server."""

    def __init__(self, plane: str, address: str, ca: str | None, rng: Generator) -> None:
        """`address`: HOST:PORT of its gRPC; `ca`: file with its authority, where connections are encrypted."""
        self._plane, self._ca, self._rng = plane, ca, rng
        if ca is None:
            self._channel = grpc.insecure_channel(address)
        else:
            credentials = grpc.ssl_channel_credentials(Path(ca).read_bytes())
            self._channel = grpc.secure_channel(address, credentials)
        self._stub: Any = EnvironmentsStub(self._channel)
        self.about = self._stub.Describe(wire.DescribeRequest(protocol=PROTOCOL), timeout=5.0)
        self.messages = Messages(*self._samples(), rng)
        self.counts = Counter[str]()

    def close(self) -> None:
        """Ends the channel."""
        self._channel.close()

    def _samples(self) -> tuple[bytes, bytes]:
        """A state and an action of good rows."""
        action = np.zeros(8 * ROWS, np.uint8)
        name = self._open()
        reset = wire.Request(number=1, reset=wire.Reset(seeds=[1, 2]))
        save = wire.Request(number=2, save=wire.Save())
        self._stub.Call(wire.SessionRequest(session=name, request=reset), timeout=5.0)
        reply = self._stub.Call(wire.SessionRequest(session=name, request=save), timeout=5.0)
        self._stub.Close(wire.SessionRequest(session=name), timeout=5.0)
        return reply.state.state, action.tobytes().ljust(64, b"\0")

    def _open(self) -> str:
        """A session; the server may have none left before those that mutants opened are idle."""
        deadline = time.monotonic() + OPEN_WAIT_S
        while True:
            try:
                return self._stub.Open(wire.OpenRequest(protocol=PROTOCOL, num_envs=ROWS), timeout=5.0).session
            except grpc.RpcError:
                if time.monotonic() > deadline:
                    raise
                time.sleep(0.1)

    def _connect(self) -> Wires:
        if self._plane == "grpc":
            return Call(self._channel)
        if self._plane == "unix":
            here = socket.socket(socket.AF_UNIX)
            here.connect(self.about.socket)
            return Socket(here)
        context = ssl.create_default_context(cafile=self._ca)
        there = socket.create_connection(("127.0.0.1", self.about.tls_port), 5.0)
        return Socket(context.wrap_socket(there, server_hostname="127.0.0.1"))

    def run(self, count: int) -> None:
        """So many mutated messages, on as many streams as they end."""
        left = count
        while left > 0:
            with closing(self._connect()) as wires:
                left -= self._stream(wires, left)
            if self._plane == "grpc" and self._rng.random() < 0.3:
                left -= self._unary()

    def _stream(self, wires: Wires, most: int) -> int:
        """Mutants on one stream until it ends; how many."""
        greeting = wire.Request(resume=wire.Resume(session=self._open())).SerializeToString()
        if self._rng.random() < 0.2:
            self._one(wires, self.messages.mutated(greeting))
            return 1
        first = wire.Request(number=1, reset=wire.Reset(seeds=[1, 2])).SerializeToString()
        for data in (greeting, first):
            wires.send(data, len(data))
            wires.receive(5.0)
        for sent in range(1, most + 1):
            data = self.messages.good(sent + 1)
            if self._rng.random() < 0.9:
                data = self.messages.mutated(data)
            if not self._one(wires, data):
                return sent
        return most

    def _one(self, wires: Wires, data: bytes) -> bool:
        """Sends one; whether the stream goes on."""
        length = len(data)
        if self._rng.random() < 0.05:
            length = int(self._rng.choice([0, 1, length + 3, 2**20, 256 << 20, 2**31, 2**32 - 1]))
        try:
            wires.send(data, length)
            reply = wires.receive(WAIT_S)
        except TimeoutError:
            self.counts["no reply"] += 1
            return self._plane == "grpc" or length == len(data)
        except (EOFError, OSError):
            self.counts["stream ended"] += 1
            return False
        self.counts[str(wire.Reply.FromString(reply).WhichOneof("what"))] += 1
        return True

    def _unary(self) -> int:
        """One call that may be anything."""
        name = self._open()
        request = wire.Request(number=1, reset=wire.Reset(seeds=[1, 2]))
        kinds: dict[str, Any] = {
            "Describe": wire.DescribeRequest(protocol=PROTOCOL),
            "Open": wire.OpenRequest(protocol=PROTOCOL, num_envs=ROWS),
            "Call": wire.SessionRequest(session=name, request=request),
            "Close": wire.SessionRequest(session=name),
        }
        method, good = list(kinds.items())[int(self._rng.integers(len(kinds)))]
        data = self.messages.mutated(good.SerializeToString())
        try:
            self._channel.unary_unary(f"/{NAME}/{method}")(data, timeout=5.0)
            self.counts["call answered"] += 1
        except grpc.RpcError as error:
            code: Any = error.code()
            assert code is not grpc.StatusCode.DEADLINE_EXCEEDED, f"{method} hangs"
            self.counts["call refused"] += 1
        self._stub.Close(wire.SessionRequest(session=name), timeout=5.0)
        return 1


def played(rows: Any) -> bytes:
    """What 50 steps come to."""
    rows.reset(3)
    parts = [rows.recv().obs.tobytes()]
    for step in range(50):
        rows.send(slice(None), np.full(rows.num_rows, step % 3))
        ready = rows.recv()
        parts += [ready.obs.tobytes(), ready.reward.tobytes()]
    return b"".join(parts)


def still_good(name: str, ca: str | None, plane: Any, expected: bytes) -> None:
    """A good client gets its rows; AssertionError where they are others, or late."""
    begun = time.monotonic()
    while True:
        try:
            rows = remote.make(name, ROWS, Terms(Remote(ca=ca, plane=plane), timeout_s=5.0))
            break
        except ConfigError:  # mutants have all of them, until they are idle
            if time.monotonic() - begun > OPEN_WAIT_S:
                raise
            time.sleep(0.1)
    with closing(rows):
        assert played(rows) == expected, "rows are others than here"


class Memory:
    """The most that a process has had since it was asked last."""

    def __init__(self, pid: int) -> None:
        self._process, self._over = psutil.Process(pid), threading.Event()
        self.most = self._process.memory_info().rss
        threading.Thread(target=self._look, daemon=True).start()

    def _look(self) -> None:
        with suppress(psutil.NoSuchProcess):
            while not self._over.wait(0.02):
                self.most = max(self.most, self._process.memory_info().rss)

    def close(self) -> None:
        """Looks no longer."""
        self._over.set()


class Target:
    """The server, in a process of its own."""

    def __init__(self, plane: str, files: dict[str, str]) -> None:
        """Waits until it listens."""
        command = [sys.executable, "-X", "faulthandler", "-m", "shoal", "serve", ENV, "--num-envs", str(NUM_ENVS)]
        command += ["--listen", "127.0.0.1:0", "--guard.idle-s", str(IDLE_S)]
        self.ca = files["ca"] if plane == "tls" else None
        if self.ca:
            command += ["--guard.cert", files["cert"], "--guard.key", files["key"]]
        self.process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        assert self.process.stdout is not None
        self.address = self.process.stdout.readline().split(" at ")[1].split(";")[0]
        self.name = ("grpcs://" if self.ca else "grpc://") + self.address
        self.said: list[str] = []
        """On its standard error."""
        self._drain = threading.Thread(target=lambda: self.said.extend(self.process.stderr or ()), daemon=True)
        self._drain.start()

    def end(self) -> str:
        """Tells it to end; the mistake where it does not."""
        mistake = ""
        self.process.terminate()
        try:
            self.process.wait(20)
        except subprocess.TimeoutExpired:
            mistake = "it does not end when it is told to"
            self.process.send_signal(signal.SIGABRT)  # it says where it is
            self.process.wait()
        self._drain.join()
        for pipe in (self.process.stdout, self.process.stderr):
            if pipe is not None:
                pipe.close()
        return mistake


def pelt(target: Target, plane: Any, seed: list[int], count: int, found: dict[str, Any]) -> None:
    """Sends the messages; AssertionError where the server crashes, hangs, grows or keeps something."""
    with closing(make(ENV, ROWS)) as here:
        expected = played(here)
    still_good(target.name, target.ca, plane, expected)
    process = psutil.Process(target.process.pid)
    before, threads = process.memory_info().rss, process.num_threads()
    with (
        closing(Fuzz(plane, target.address, target.ca, np.random.default_rng(seed))) as mutants,
        closing(Memory(target.process.pid)) as memory,
    ):
        for first in range(0, count, CHECK_EVERY):
            mutants.run(min(CHECK_EVERY, count - first))
            assert target.process.poll() is None, f"the server ended with {target.process.poll()}"
            still_good(target.name, target.ca, plane, expected)
        found["counts"] = dict(sorted(mutants.counts.items()))
    found |= {"mib_before": before >> 20, "mib_most": memory.most >> 20}
    assert memory.most - before < LIMIT_MIB << 20, f"it has grown by {(memory.most - before) >> 20} MiB"
    time.sleep(2 * IDLE_S)
    with closing(Fuzz(plane, target.address, target.ca, np.random.default_rng(seed))) as mutants:
        free = mutants.about.free_envs
    assert free == NUM_ENVS, f"{NUM_ENVS - free} environments are lost"
    assert process.num_threads() <= threads + 16, f"{process.num_threads()} threads, {threads} before"


def fuzz(plane: Any, seed: list[int], count: int, files: dict[str, str]) -> dict[str, Any]:
    """One plane; the line for it."""
    target = Target(plane, files)
    found: dict[str, Any] = {"plane": plane, "seed": seed[0], "messages": count}
    begun, mistake = time.monotonic(), ""
    try:
        pelt(target, plane, seed, count, found)
    except Exception as error:
        mistake = f"{type(error).__name__}: {error}"
    mistake = mistake or target.end()
    if mistake:
        target.end()
        print("".join(target.said[-200:]), file=sys.stderr)
    return found | {"seconds": round(time.monotonic() - begun, 1), "mistake": mistake}


def main() -> None:
    """Runs and writes the lines."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--messages", type=int, default=10_000)
    args = parser.parse_args()
    bad = False
    with tempfile.TemporaryDirectory() as folder:
        files = certificates(folder)
        for number, plane in enumerate(("grpc", "unix", "tls")):
            line = fuzz(plane, [args.seed, number], args.messages, files)
            with RESULT.open("a", encoding="utf-8") as file:
                file.write(json.dumps(line) + "\n")
            print(json.dumps(line), flush=True)
            bad = bad or bool(line["mistake"])
    sys.exit(bad)


if __name__ == "__main__":
    main()
