"""Mutated messages on each plane: a short part of what benchmarks/fuzz_servers.py does with 10,000."""

from __future__ import annotations

import tempfile
from contextlib import closing
from functools import partial

import numpy as np
import pytest

from benchmarks.fuzz_servers import ENV, NUM_ENVS, ROWS, Fuzz, fuzz, played, still_good
from benchmarks.soak_servers import certificates
from shoal.envs.registry import make
from shoal.remote.server import Server
from shoal.remote.settings import Guard

slow = pytest.mark.slow
PLANES = ("grpc", "unix", "tls")


@pytest.mark.parametrize("plane", ["unix", pytest.param("grpc", marks=slow), pytest.param("tls", marks=slow)])
def test_a_server_outlives_mutated_messages(plane: str) -> None:
    """A good client gets its rows afterwards, and nothing is held by those that were none."""
    with tempfile.TemporaryDirectory() as folder:
        files = certificates(folder) if plane == "tls" else {}
        guard = Guard(files.get("cert"), files.get("key"), idle_s=2.0)
        with Server(partial(make, ENV), num_envs=NUM_ENVS, listen="127.0.0.1:0", guard=guard) as server:
            with closing(Fuzz(plane, server.address, files.get("ca"), np.random.default_rng(5))) as mutants:
                mutants.run(40)
                assert sum(mutants.counts.values()) >= 40
            with closing(make(ENV, ROWS)) as here:
                expected = played(here)
            still_good(server.name, files.get("ca"), plane, expected)


@pytest.mark.slow
@pytest.mark.parametrize("plane", PLANES)
def test_a_thousand_mutated_messages(plane: str) -> None:
    """To a server in a process of its own: no crash, no hang, no memory, no threads and no environments lost."""
    with tempfile.TemporaryDirectory() as folder:
        line = fuzz(plane, [7], 1_000, certificates(folder))
    assert not line["mistake"]
