"""A server of environments as an actor of Ray, which a learner elsewhere steps over its own sockets."""

from __future__ import annotations

import logging
import os
import time
from collections import deque
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, NamedTuple

import shoal
from shoal.envs.preprocessing import Preprocessing
from shoal.envs.registry import make
from shoal.fleet.certificates import Asked, ask, files_of
from shoal.remote.server import Server
from shoal.remote.sessions import Playing
from shoal.remote.settings import Guard
from shoal.types import text_of

if TYPE_CHECKING:
    from collections.abc import Callable

    from shoal.envs.vec_env import VecEnv

MOST_PLAYING = 4096
"""Environments that a server makes for evaluation, when they are asked for."""
NODE_LETTERS = 8
LINES = 200
"""Of its log that a server keeps."""


@dataclass(frozen=True, slots=True)
class Rows:
    """How a server makes its environments: what `make` is given."""

    source: str | Callable[..., Any]
    backend: str
    num_threads: int
    env_kwargs: dict[str, Any] = field(default_factory=dict)
    info_keys: tuple[str, ...] = ()
    preprocessing: Preprocessing = field(default_factory=Preprocessing)

    def make(self, num_envs: int) -> VecEnv:
        """Rows of so many environments."""
        return make(
            self.source,
            num_envs,
            backend=self.backend,
            num_threads=self.num_threads,
            env_kwargs=self.env_kwargs,
            info_keys=self.info_keys,
            preprocessing=self.preprocessing,
        )


class Hello(NamedTuple):
    """What a server says when it is asked where it is."""

    host: str
    request: bytes
    """For its certificate, in PEM."""
    address: str
    """HOST:PORT where it serves; empty as long as it has no certificate."""
    version: str
    """Of shoal."""


class About(NamedTuple):
    """What `shoal fleet status` shows of a server, or of a training."""

    what: str
    address: str
    node: str
    pid: int
    restarts: int
    seconds: float
    """Since it was started, or started again."""


class Lines(logging.Handler):
    """The last lines of what a process had to say."""

    def __init__(self) -> None:
        """Takes shoal's log, and warnings."""
        super().__init__()
        self._kept: deque[str] = deque(maxlen=LINES)
        self.setFormatter(logging.Formatter("%(asctime)s %(message)s", "%H:%M:%S"))
        for name in ("shoal", "py.warnings"):
            logging.getLogger(name).addHandler(self)
        logging.getLogger("shoal").setLevel(logging.INFO)
        logging.captureWarnings(capture=True)

    def emit(self, record: logging.LogRecord) -> None:
        """Keeps a line."""
        self._kept.append(self.format(record))

    def last(self, count: int) -> list[str]:
        """So many at most, oldest first."""
        return list(self._kept)[-count:]


class EnvServer:
    """One of a fleet's servers. Ray calls its methods in threads, so that it answers while environments are stepped."""

    def __init__(self, rows: Rows, num_envs: int, host: str) -> None:
        """Makes a key; it serves when that is signed.

        Args:
            rows: how environments are made.
            num_envs: environments to train in.
            host: where it listens; empty: at its node's own address.
        """
        self._lines = Lines()
        self._log = logging.getLogger("shoal.fleet")
        self._rows, self._num_envs = rows, num_envs
        self._host = host or node_address()
        self._asked: Asked = ask(self._host)
        self._server: Server | None = None
        self._restarts, self._begun_s = 0, time.monotonic()

    def hello(self) -> Hello:
        """Where it is."""
        address = "" if self._server is None else self._server.address
        return Hello(self._host, self._asked.request, address, shoal.__version__)

    def serve(
        self, certificate: bytes, authority: bytes, playing: Rows, restarts: int
    ) -> str:
        """Makes environments and listens; HOST:PORT.

        Args:
            certificate: its own, signed.
            authority: who signs clients' certificates.
            playing: how environments for evaluation are made.
            restarts: how often it was started again.

        Raises:
            ConfigError: the environment cannot be made on this node.
        """
        self._restarts = restarts
        name = f"[{self._host}]" if ":" in self._host else self._host
        try:
            with files_of(certificate, self._asked.key, authority) as files:
                cert, key, clients = files
                self._server = Server(
                    self._rows.make,
                    num_envs=self._num_envs,
                    listen=f"{name}:0",
                    guard=Guard(cert=cert, key=key, client_ca=clients),
                    playing=Playing(playing.make, MOST_PLAYING),
                )
        except Exception as error:
            self._log.error("%s", text_of(error))
            raise
        self._log.info(
            "serves %d environments at %s", self._num_envs, self._server.address
        )
        return self._server.address

    def about(self) -> About:
        """How it is."""
        address = "" if self._server is None else self._server.address
        return About(
            f"{self._num_envs} environments",
            address,
            node(),
            os.getpid(),
            self._restarts,
            time.monotonic() - self._begun_s,
        )

    def log(self, lines: int) -> list[str]:
        """The last lines of its log."""
        return self._lines.last(lines)

    def stop(self) -> None:
        """Ends its sessions and closes its environments."""
        if self._server is not None:
            self._server.stop(0.5)


def node_address() -> str:
    """The IP address of this node, as Ray knows it."""
    from ray.util import get_node_ip_address

    return str(get_node_ip_address())


def node() -> str:
    """This node's address, and the beginning of Ray's name for it."""
    import ray

    ray_module: Any = ray
    name = ray_module.get_runtime_context().get_node_id()
    return f"{node_address()} {name[:NODE_LETTERS]}"
