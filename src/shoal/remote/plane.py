"""The second plane: sessions over a Unix socket or a TLS socket in the place of gRPC's stream, which costs more."""

from __future__ import annotations

import shutil
import socket
import ssl
import tempfile
import threading
from contextlib import closing, suppress
from pathlib import Path
from typing import TYPE_CHECKING

from google.protobuf.message import DecodeError

from shoal.remote import environments_pb2 as wire
from shoal.remote.address import split_port
from shoal.remote.frames import MOST_BYTES, Frames
from shoal.remote.greetings import GREETING_S, MOST_GREETING_BYTES
from shoal.remote.messages import StepRequest, read_request, to_bytes
from shoal.remote.sessions import PONG, failure
from shoal.remote.streams import TLS, UNIX
from shoal.types import ConfigError, EnvError

if TYPE_CHECKING:
    from collections.abc import Callable

    from shoal.remote.server import Service
    from shoal.remote.settings import Guard, Remote

ENDINGS = (EOFError, TimeoutError, EnvError, OSError, DecodeError)
"""What a client may do to end its stream: go, say nothing, or send what is no message."""


class Plane:
    """Listens on a Unix socket, and on a TLS port where the server has a certificate."""

    def __init__(self, service: Service, host: str, guard: Guard) -> None:
        """Listens at once: at a path that nobody else may enter, and at a free port of `host`."""
        self._sessions, self._greetings = service.sessions, service.greetings
        self._folder = Path(tempfile.mkdtemp(prefix="shoal-"))
        self.path, self.tls_port = str(self._folder / "socket"), 0
        self._closed = threading.Event()
        self._listening = [socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)]
        self._listening[0].bind(self.path)
        self._start(self._listening[0], lambda connected: connected)
        if guard.cert is not None:
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            context.load_cert_chain(guard.cert, guard.key)
            if guard.client_ca:
                context.load_verify_locations(guard.client_ca)
                context.verify_mode = ssl.CERT_REQUIRED
            family = socket.AF_INET6 if ":" in host else socket.AF_INET
            self._listening.append(socket.socket(family, socket.SOCK_STREAM))
            self._listening[1].bind((host, 0))
            self.tls_port = int(self._listening[1].getsockname()[1])

            def encrypted(connected: socket.socket) -> socket.socket:
                return context.wrap_socket(
                    connected, server_side=True, do_handshake_on_connect=False
                )

            self._start(self._listening[1], encrypted)

    def close(self) -> None:
        """Listens no longer; sessions end with their streams."""
        self._closed.set()
        for listening in self._listening:
            with suppress(OSError):
                listening.shutdown(socket.SHUT_RDWR)
            listening.close()
        shutil.rmtree(self._folder, ignore_errors=True)

    def _start(
        self,
        listening: socket.socket,
        welcome: Callable[[socket.socket], socket.socket],
    ) -> None:
        listening.listen()
        accept = threading.Thread(
            target=self._accept, args=(listening, welcome), daemon=True
        )
        accept.start()

    def _accept(
        self,
        listening: socket.socket,
        welcome: Callable[[socket.socket], socket.socket],
    ) -> None:
        while not self._closed.is_set():
            try:
                connected, _ = listening.accept()
            except OSError:
                return
            threading.Thread(
                target=self._serve, args=(connected, welcome), daemon=True
            ).start()

    def _serve(
        self,
        connected: socket.socket,
        welcome: Callable[[socket.socket], socket.socket],
    ) -> None:
        """One client, whose first frame says whose session it is for."""
        connected.settimeout(GREETING_S)
        with suppress(OSError), welcome(connected) as welcomed:

            def cut() -> None:
                with suppress(OSError):
                    socket.socket.shutdown(welcomed, socket.SHUT_RDWR)

            with suppress(*ENDINGS, ConfigError):
                with self._greetings.waiting(cut):
                    if isinstance(welcomed, ssl.SSLSocket):
                        welcomed.do_handshake()
                    frames = Frames(welcomed)
                    frames.most_bytes = MOST_GREETING_BYTES
                    first = wire.Request.FromString(frames.receive(GREETING_S))
                frames.most_bytes = MOST_BYTES
                self._answer(frames, first)

    def _answer(self, frames: Frames, first: wire.Request) -> None:
        """A client's requests, until its stream ends."""
        name, end = first.resume.session, frames.close
        try:
            session = self._sessions.attach(name, end)
        except ConfigError as error:
            frames.send(failure(0, error).SerializeToString())
            return
        with closing(frames):
            try:
                frames.send(PONG.SerializeToString())
                idle_s = self._sessions.idle_s
                while True:
                    request = read_request(frames.receive(idle_s))
                    reply = session.answer(request)
                    if reply.number:
                        frames.send(to_bytes(reply))
                    if request.__class__ is StepRequest:
                        session.go_on(frames)
            finally:
                self._sessions.detach(name, end)


def connect(
    server: str, description: wire.Description, remote: Remote, timeout_s: float
) -> Frames | None:
    """The stream beside gRPC's that `remote.plane` wants, or the fastest; None where gRPC's is to be taken.

    Args:
        server: HOST:PORT of its gRPC.
        description: what it said of itself.
        remote: what client and server show each other.
        timeout_s: what connecting may take.

    Raises:
        ConfigError: the one that is wanted cannot be had from here.
    """
    wanted = remote.plane
    if wanted in ("auto", "unix"):
        with suppress(OSError):
            if description.socket and Path(description.socket).is_socket():
                return by_unix(description, timeout_s)
    if wanted in ("auto", "tls") and description.tls_port:
        with suppress(OSError):
            return by_tls(server, description, remote, timeout_s)
    if wanted in ("unix", "tls"):
        raise ConfigError(
            f"remote.plane={wanted!r}: the server at {server} has no such socket that can be reached from here; auto "
            "takes what there is"
        )
    return None


def by_unix(description: wire.Description, timeout_s: float) -> Frames:
    """Over the server's Unix socket; OSError where nobody listens there."""
    here = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        here.settimeout(timeout_s)
        here.connect(description.socket)
    except BaseException:
        here.close()
        raise
    return Frames(here, UNIX)


def by_tls(
    server: str, description: wire.Description, remote: Remote, timeout_s: float
) -> Frames:
    """Over the server's TLS port; OSError where nobody listens there, or somebody else."""
    host, _ = split_port(server)
    context = ssl.create_default_context(cafile=remote.ca)
    if remote.cert:
        context.load_cert_chain(remote.cert, remote.key)
    there = socket.create_connection((host, description.tls_port), timeout_s)
    with there:  # wrapping takes it over
        return Frames(context.wrap_socket(there, server_hostname=host), TLS)


def again(
    words: str,
    server: str,
    description: wire.Description,
    remote: Remote,
    timeout_s: float,
) -> Frames:
    """Another stream as the one that `connect` gave, whose `words` these are; OSError where nobody listens."""
    if words == UNIX:
        return by_unix(description, timeout_s)
    return by_tls(server, description, remote, timeout_s)
