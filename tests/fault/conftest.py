"""The fixture of the fault tests: five rows in workers, closed and looked after."""

import sys
import time
from collections.abc import Iterator
from typing import Any

import pytest

from shoal.envs.registry import make
from shoal.envs.workers.rows import WorkersEnv
from shoal.envs.workers.settings import Workers
from tests.fault.rows import TIMEOUT_S, Rows
from tests.fault.troubles import Trouble, left_behind


def at_rest() -> Any:
    """What is there before a test: gRPC closes the sockets of tests before it a moment after they have ended."""
    seen = left_behind()
    if "grpc" in sys.modules:
        for _ in range(50):
            time.sleep(0.1)
            before, seen = seen, left_behind()
            if seen == before:
                break
    return seen


@pytest.fixture
def rows() -> Iterator[Rows]:
    """Makes five rows in two workers (rows 0 and 1; 2 to 4) after the first recv; closes them and looks around."""
    before = at_rest()
    made: list[WorkersEnv] = []

    def begin(what: str, at: int = 3, num_rows: int = 5, **settings: Any) -> WorkersEnv:
        waits = what == "SIGSTOP" or "hang" in what
        settings = {"num_workers": 2, "step_timeout_s": TIMEOUT_S if waits else 60.0} | settings
        trouble = {"what": what, "at": at}
        env = make(Trouble, num_rows, backend="workers", env_kwargs=trouble, workers=Workers(**settings))
        assert isinstance(env, WorkersEnv)
        made.append(env)
        env.reset(0)
        env.recv()
        return env

    yield begin
    for env in made:
        begun = time.perf_counter()
        env.close()
        env.close()
        assert time.perf_counter() - begun < 5
    for now, earlier in zip(left_behind(), before, strict=True):
        assert now <= earlier  # less, where what a test before it left has ended meanwhile
