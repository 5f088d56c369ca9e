"""Environment servers beside bare transports: steps a second of a null environment, 64 rows a message, on loopback.

    python -m benchmarks.transport [--rounds 5] [--seconds 2]

Servers are processes of their own. Sides, in an order drawn anew in each round: `echo`, a bare gRPC stream whose server
sends as many bytes back as ours does; `grpc`, `tls` and `unix`, our rows over each plane; `unary`, our `Call`, 64
rows at a time; `unary-1`, a call for each step of a single row, as the "Rust parallel RL" system has it. All but the
unary ones keep two messages under way. The echo stream has no environment and packs nothing: it is the limit of gRPC's
stream in Python. Medians over the rounds; appends to benchmarks/results/transport.jsonl.
"""

from __future__ import annotations

import argparse
import json
import queue
import subprocess
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING, Any

import grpc
import numpy as np
import trustme
from gymnasium import spaces

from benchmarks import machine
from shoal.envs.in_flight import InFlight
from shoal.envs.outputs import Outputs
from shoal.envs.preprocessing import Preprocessing
from shoal.envs.registry import on_servers
from shoal.envs.vec_env import Capabilities
from shoal.remote import environments_pb2 as wire
from shoal.remote.batches import Batch, ready_layout
from shoal.remote.environments_pb2_grpc import EnvironmentsStub
from shoal.remote.server import Server
from shoal.remote.sessions import PROTOCOL
from shoal.remote.settings import Guard, Remote, Terms
from shoal.types import Spec

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

RESULT = Path(__file__).parent / "results" / "transport.jsonl"
ROWS = 64
SIDES = ("echo", "grpc", "tls", "unix", "unary", "unary-1")
SPEC = Spec.of("Null-v0", spaces.Box(-1, 1, (4,), np.float32), spaces.Discrete(2))
UP, DOWN = Batch(SPEC.action, ROWS).nbytes, Batch(ready_layout(SPEC, masked=False), ROWS).nbytes


class NullRows:
    """Rows that do nothing: what is left is the transport."""

    native_pool = python_rows = None
    spec, capabilities = SPEC, Capabilities()

    def __init__(self, num_rows: int) -> None:
        self.num_rows = num_rows
        self.dropped = np.zeros(num_rows, np.bool_)
        self._out, self._in_flight = Outputs(SPEC, num_rows), InFlight(num_rows)

    def reset(self, seed: int | Sequence[int]) -> None:
        """As of a VecEnv."""
        self._in_flight.stop()
        self._in_flight.begin()

    def restart(self, *_: Any, **__: Any) -> None:
        """As of a VecEnv."""
        raise NotImplementedError

    def send(self, rows: slice, action: Any) -> None:
        """As of a VecEnv."""
        self._in_flight.send(rows)

    def recv(self) -> Any:
        """As of a VecEnv."""
        return self._out.view(self._in_flight.recv())

    def state(self) -> dict[str, Any]:
        """As of a VecEnv."""
        return {}

    def restore(self, state: dict[str, Any]) -> list[str]:
        """As of a VecEnv."""
        return []

    def render(self, row: int) -> Any:
        """As of a VecEnv."""
        raise NotImplementedError

    def close(self) -> None:
        """As of a VecEnv."""
        return


def serve(folder: Path) -> None:
    """Both servers, encrypted and not, and the echo; says where, and waits until its input ends."""
    guard = Guard(cert=str(folder / "cert"), key=str(folder / "key"))
    with (
        Server(NullRows, num_envs=10_000, listen="127.0.0.1:0") as plain,
        Server(NullRows, num_envs=10_000, listen="127.0.0.1:0", guard=guard) as encrypted,
    ):
        bare = grpc.server(ThreadPoolExecutor(4))
        down = bytes(DOWN)

        def echo(requests: Iterator[bytes], _: Any) -> Iterator[bytes]:
            for _request in requests:
                yield down

        handlers = {"Echo": grpc.stream_stream_rpc_method_handler(echo)}
        bare.add_generic_rpc_handlers((grpc.method_handlers_generic_handler("bare", handlers),))
        port = bare.add_insecure_port("127.0.0.1:0")
        bare.start()
        print(json.dumps({"plain": plain.name, "encrypted": encrypted.name, "echo": port}), flush=True)
        sys.stdin.read()
        bare.stop(0.0)


def counted(step: Callable[[], None], seconds: float, rows: int) -> float:
    """Steps of rows a second."""
    for _ in range(50):
        step()
    count, begun = 0, time.perf_counter()
    while time.perf_counter() - begun < seconds:
        for _ in range(10):
            step()
        count += 10
    return rows * count / (time.perf_counter() - begun)


def measure_rows(name: str, seconds: float, remote: Remote) -> float:
    """Two halves of 64 rows under way."""
    with closing(on_servers(name, 2 * ROWS, None, (), Preprocessing(), terms=Terms(remote))) as rows:
        rows.reset(0)
        rows.recv()
        action = np.zeros(ROWS, np.int64)
        halves = [slice(0, ROWS), slice(ROWS, 2 * ROWS)]
        rows.send(halves[0], action)
        rows.send(halves[1], action)
        turn = 0

        def step() -> None:
            nonlocal turn
            rows.recv()
            rows.send(halves[turn], action)
            turn = 1 - turn

        return counted(step, seconds, ROWS)


def measure_echo(port: int, seconds: float) -> float:
    """As many bytes, two messages under way."""
    requests: queue.SimpleQueue[bytes | None] = queue.SimpleQueue()
    with grpc.insecure_channel(f"127.0.0.1:{port}") as channel:
        replies = channel.stream_stream("/bare/Echo")(iter(requests.get, None))
        up = bytes(UP)
        requests.put(up)
        requests.put(up)

        def step() -> None:
            next(replies)
            requests.put(up)

        rate = counted(step, seconds, ROWS)
        requests.put(None)
        replies.cancel()
    return rate


def measure_unary(name: str, seconds: float, count: int) -> float:
    """A call for each step of `count` rows."""
    with grpc.insecure_channel(name.removeprefix("grpc://")) as channel:
        stub = EnvironmentsStub(channel)
        session = stub.Open(wire.OpenRequest(protocol=PROTOCOL, num_envs=count)).session
        number = 0

        def call(**what: Any) -> None:
            nonlocal number
            number += 1
            stub.Call(wire.SessionRequest(session=session, request=wire.Request(number=number, **what)))

        call(reset=wire.Reset(seeds=[0] * count))
        step = wire.Step(first=0, count=count, action=Batch(SPEC.action, count).block.tobytes())
        rate = counted(lambda: call(step=step), seconds, count)
        stub.Close(wire.SessionRequest(session=session))
    return rate


def measure(side: str, at: dict[str, Any], folder: Path, seconds: float) -> float:
    """Steps a second of one side."""
    match side:
        case "echo":
            return measure_echo(at["echo"], seconds)
        case "unary" | "unary-1":
            return measure_unary(at["plain"], seconds, ROWS if side == "unary" else 1)
        case "tls":
            return measure_rows(at["encrypted"], seconds, Remote(ca=str(folder / "ca"), plane="tls"))
        case _:
            return measure_rows(at["plain"], seconds, Remote(plane="grpc" if side == "grpc" else "unix"))


def main() -> None:
    """Runs what the command line names."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--serve", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=2.0)
    parser.add_argument("--sides", nargs="+", choices=SIDES, default=SIDES)
    options = parser.parse_args()
    if options.serve:
        serve(options.serve)
        return
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        authority = trustme.CA()
        signed = authority.issue_cert("127.0.0.1")
        authority.cert_pem.write_to_path(str(folder / "ca"))
        signed.cert_chain_pems[0].write_to_path(str(folder / "cert"))
        signed.private_key_pem.write_to_path(str(folder / "key"))
        command = [sys.executable, "-m", "benchmarks.transport", "--serve", name]
        with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
            assert process.stdout is not None
            at = json.loads(process.stdout.readline())
            rates: dict[str, list[float]] = {side: [] for side in options.sides}
            rng = np.random.default_rng(0)
            for _ in range(options.rounds):
                for side in rng.permutation(options.sides).tolist():
                    rates[side].append(measure(side, at, folder, options.seconds))
            process.communicate()
    medians = {side: float(np.median(found)) for side, found in rates.items()}
    row = {
        "date": time.strftime("%Y-%m-%d"),
        "rows": ROWS,
        "bytes": [UP, DOWN],
        "steps_per_s": medians,
        "rounds": rates,
    }
    with RESULT.open("a") as file:
        file.write(json.dumps(row | {"machine": machine.describe()}) + "\n")
    for side, rate in medians.items():
        print(f"{side:>8} {rate:>12,.0f} steps/s  ({min(rates[side]):,.0f} to {max(rates[side]):,.0f})")
    if {"echo", "grpc"} <= set(medians):
        ratios = np.array(rates["grpc"]) / np.array(rates["echo"])  # a round's, in which the machine was the same
        print(f"grpc is {np.median(ratios):.2f} x the bare echo ({ratios.min():.2f} to {ratios.max():.2f})")


if __name__ == "__main__":
    main()
