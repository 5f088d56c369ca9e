"""A session outlives its connections: whatever is cut, no (row, step) is lost or comes twice."""

from __future__ import annotations

import time
from contextlib import closing
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import trustme

from benchmarks.cutting_proxy import CuttingProxy
from benchmarks.soak_workers import Counting, Ledger
from shoal.envs.registry import make
from shoal.remote import rows as remote
from shoal.remote.server import Server
from shoal.remote.settings import Guard, Remote, Terms
from shoal.types import EnvError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

NUM_ROWS = 12
ALL = slice(0, NUM_ROWS)
HALVES = slice(0, 5), slice(5, NUM_ROWS)
PLANES = ("grpc", "unix", "tls")
Proxied = tuple[Server, CuttingProxy, "Callable[..., Any]"]


@pytest.fixture
def proxied(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Proxied]:
    """A server whose batches go through a proxy on one plane, and a function that makes rows there."""
    plane, files = request.param, {}
    if plane == "tls":
        authority = trustme.CA()
        signed = authority.issue_cert("127.0.0.1")
        files = {name: str(tmp_path / name) for name in ("ca", "cert", "key")}
        authority.cert_pem.write_to_path(files["ca"])
        signed.cert_chain_pems[0].write_to_path(files["cert"])
        signed.private_key_pem.write_to_path(files["key"])
    guard = Guard(files.get("cert"), files.get("key"))
    with Server(partial(make, Counting), num_envs=NUM_ROWS, listen="127.0.0.1:0", guard=guard) as server:
        batches = server.service.plane
        assert batches is not None
        own: Any = {"grpc": ("127.0.0.1", server.port), "unix": batches.path, "tls": ("127.0.0.1", batches.tls_port)}
        with CuttingProxy(own[plane], np.random.default_rng(1)) as proxy:
            name = f"grpc://127.0.0.1:{proxy.port}" if plane == "grpc" else server.name
            if plane == "unix":
                batches.path = proxy.path
            if plane == "tls":
                batches.tls_port = proxy.port

            def rows(reconnect_s: float = 10.0, **terms: Any) -> Any:
                given: Any = {"timeout_s": 10.0} | terms
                asked = Remote(ca=files.get("ca"), plane=plane, reconnect_s=reconnect_s)
                return remote.make(name, NUM_ROWS, Terms(asked, **given))

            yield server, proxy, rows


every_plane = pytest.mark.parametrize("proxied", PLANES, indirect=True)


def begun(rows: Any) -> Ledger:
    """The ledger of rows that begin."""
    rows.reset(3)
    return Ledger(rows.recv().obs)


def step(rows: Any, ledger: Ledger, part: slice = ALL) -> None:
    """Sends rows."""
    ledger.sent[part] += 1
    rows.send(part, np.zeros(part.stop - part.start, np.int64))


def play(rows: Any, ledger: Ledger, proxy: CuttingProxy, cuts: int) -> None:
    """Two sends under way, until there were so many cuts."""
    for half in HALVES:
        step(rows, ledger, half)
    end = time.monotonic() + 60
    while proxy.cuts < cuts and time.monotonic() < end:
        ready = rows.recv()
        ledger.check(ready)
        step(rows, ledger, ready.rows)
    assert proxy.cuts >= cuts
    for _ in HALVES:
        ledger.check(rows.recv())


@every_plane
def test_no_step_is_lost_or_doubled_by_connections_that_break(proxied: Proxied) -> None:
    """In the middle of messages: of requests, of replies, and of the greeting itself."""
    _, proxy, rows_of = proxied
    with closing(rows_of()) as rows:
        ledger = begun(rows)
        proxy.mean_bytes = 30_000
        proxy.cut()
        play(rows, ledger, proxy, cuts=8)
        proxy.mean_bytes = 0
        proxy.cut()
        assert rows.state()["rows"] == [NUM_ROWS]
        step(rows, ledger)
        ledger.check(rows.recv())
    assert ledger.counts["steps"] > 100
    assert not ledger.counts["cuts"]


@pytest.mark.slow
@every_plane
def test_hundreds_of_cuts(proxied: Proxied) -> None:
    """As above, for longer."""
    server, proxy, rows_of = proxied
    with closing(rows_of(timeout_s=30.0)) as rows:
        ledger = begun(rows)
        for mean_bytes in (3_000, 10_000, 100_000):
            proxy.mean_bytes = mean_bytes
            proxy.cut()
            play(rows, ledger, proxy, cuts=proxy.cuts + 60)
        proxy.mean_bytes = 0
    assert not ledger.counts["cuts"]
    wait_for_all(server)


def wait_for_all(server: Server, seconds: float = 5.0) -> None:
    """Until all environments are free."""
    deadline = time.monotonic() + seconds
    while server.service.sessions.free < NUM_ROWS:
        assert time.monotonic() < deadline
        time.sleep(0.02)


@pytest.mark.slow
@every_plane
def test_a_connection_that_breaks_while_nobody_uses_it(proxied: Proxied) -> None:
    """It is there again before the server gives the rows away, with what was under way."""
    server, proxy, rows_of = proxied
    with closing(rows_of(reconnect_s=0.7)) as rows:
        ledger = begun(rows)
        step(rows, ledger)
        time.sleep(0.1)
        proxy.cut(abruptly=False)
        time.sleep(1.8)
        assert server.service.sessions.free == 0
        ledger.check(rows.recv())
    wait_for_all(server, 1.0)


@pytest.mark.parametrize("proxied", [pytest.param("grpc", marks=pytest.mark.slow), "unix"], indirect=True)
def test_a_server_that_is_not_reached_again_in_time(proxied: Proxied) -> None:
    """The fault policy follows within the limit; without one at once; the environments are free soon after."""
    server, proxy, rows_of = proxied
    for reconnect_s, most in ((0.3, 1.0), (0.0, 0.3)):
        proxy.refusing = False
        with closing(rows_of(reconnect_s)) as rows:
            ledger = begun(rows)
            proxy.refusing = True
            proxy.cut()
            begun_s = time.monotonic()
            step(rows, ledger)
            with pytest.raises(EnvError, match="is lost"):
                rows.recv()
            assert time.monotonic() - begun_s < most
            wait_for_all(server)


@pytest.mark.parametrize("proxied", ["unix"], indirect=True)
def test_who_comes_next_waits_for_those_who_may_come_back(proxied: Proxied) -> None:
    """Whose client was killed: environments are free when it might not come back any more, not before."""
    server, proxy, rows_of = proxied
    first = rows_of(reconnect_s=0.2)
    first._servers[0]._closed.set()  # nobody looks after it: as one that was killed
    proxy.cut()
    with closing(rows_of()) as rows:
        rows.reset(1)
        assert rows.recv().valid.all()
        assert server.service.sessions.free == 0
    first._servers[0]._link.close()
    first.close()
