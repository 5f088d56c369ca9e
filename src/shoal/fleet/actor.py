"""An actor of a run as an actor of Ray: it collects rollouts on its node, and its learner connects to it."""

from __future__ import annotations

import logging
import os
import socket
import ssl
import time

import shoal
from shoal.fleet.certificates import Asked, ask, files_of
from shoal.fleet.env_server import About, Hello, Lines, node, node_address
from shoal.stream.actors.host import ActorHost
from shoal.stream.actors.messages import Begun, Introduction, Rows

MAKES_S = 600.0
"""What making environments may take."""


class FleetActor:
    """One of a fleet's actors. Ray calls its methods in threads, so that it answers while rollouts are collected.

    What holds classes or functions goes by these methods; weights and rollouts go over a socket that only the learner
    of the same fleet may connect to.
    """

    def __init__(self, said: Introduction, host: str, restarts: int) -> None:
        """Begins to make environments, and a key.

        Args:
            said: how they are made.
            host: where it listens; empty: at its node's own address.
            restarts: how many were there before it.
        """
        self._lines = Lines()
        self._log = logging.getLogger("shoal.fleet")
        self._said, self._restarts = said, restarts
        self._host = host or node_address()
        self._asked: Asked = ask(self._host)
        family = socket.AF_INET6 if ":" in self._host else socket.AF_INET
        self._listening = socket.create_server((self._host, 0), family=family)
        name = f"[{self._host}]" if ":" in self._host else self._host
        self._address = f"{name}:{self._listening.getsockname()[1]}"
        self._actor = ActorHost(said, self._listening)
        self._begun_s = time.monotonic()

    def hello(self) -> Hello:
        """Where it is."""
        return Hello(self._host, self._asked.request, self._address, shoal.__version__)

    def rows(self) -> Rows:
        """What its rows are, when they are made; their exception where they cannot be."""
        return self._actor.rows(MAKES_S)

    def begin(self, said: bytes) -> Begun:
        """Has it reset its rows; `said` is a packed `Beginning`."""
        return self._actor.begin(said, MAKES_S)

    def accept(self, certificate: bytes, authority: bytes) -> None:
        """Lets the learner connect.

        Args:
            certificate: its own, signed.
            authority: who signs the learner's.
        """
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.verify_mode = ssl.CERT_REQUIRED
        with files_of(certificate, self._asked.key, authority) as (cert, key, learners):
            context.load_cert_chain(cert, key)
            context.load_verify_locations(learners)
        self._actor.accept(context)
        self._log.info(
            "collects in %d environments at %s", self._said.num_envs, self._address
        )

    def about(self) -> About:
        """How it is."""
        return About(
            f"actor, {self._said.num_envs} environments",
            self._address,
            node(),
            os.getpid(),
            self._restarts,
            time.monotonic() - self._begun_s,
        )

    def log(self, lines: int) -> list[str]:
        """The last lines of its log."""
        return self._lines.last(lines)

    def stop(self) -> None:
        """Closes its environments."""
        self._actor.close()
