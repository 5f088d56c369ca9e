"""The Ray cluster of a fleet: started on this machine, or joined, and left as it was found."""

from __future__ import annotations

import logging
import os
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import textwrap
import threading
from contextlib import contextmanager, suppress
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

from shoal.fleet import reaper
from shoal.fleet.certificates import write_private
from shoal.fleet.records import Record, own_process
from shoal.fleet.settings import AUTO, CLIENT, LOCAL, check_installed
from shoal.remote.address import split_port
from shoal.types import ConfigError, text_of

if TYPE_CHECKING:
    from collections.abc import Generator, Mapping
    from types import FrameType

NAMESPACE = "shoal"
"""Of the actors' names in Ray."""
STORE_BYTES = 80 << 20
"""Of Ray's memory for objects, where we start it: batches do not go there."""
REACH_S = 5.0
"""What it may take to find out that nobody listens at an address."""
LOCAL_SETTINGS = {
    "health_check_period_ms": 1000,
    "health_check_failure_threshold": 3,
    "worker_niceness": 0,
}
"""A lost node is noticed in 3 s, not in 15; and servers, which the learner waits for, yield to nobody."""
QUIET = {
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",  # else it warns of what will change
    "RAY_USAGE_STATS_ENABLED": "0",
}
HELD = (signal.SIGINT, signal.SIGTERM)
MOST_SAID = 500
"""Characters of Ray's messages that ours quote."""
LONGEST_ROOT = 40
"""Of a folder's path, as Ray's sockets lie deep in it and a path of one ends after 107 bytes."""


class Cluster:
    """Ray as this process is connected to it; `close` disconnects, and ends what was started."""

    def __init__(self, where: str, what: str) -> None:
        """Starts or joins a cluster.

        Args:
            where: local, auto or ray://HOST:PORT.
            what: what it is for, in words, for `shoal fleet status`.

        Raises:
            ConfigError: Ray is not installed, nobody listens there, or versions differ.
        """
        self._ray = import_ray()
        self.where, self.name = where, secrets.token_hex(4)
        self._folder = _private_folder()
        self._ours = not self._ray.is_initialized()
        """Whether this process was connected to no cluster before."""
        self._before: dict[str, str | None] = {}
        self._guardian: subprocess.Popen[bytes] | None = None
        try:
            if not self._ours:
                self._check_connected()
            elif where == LOCAL:
                self._start()
            else:
                join(where)
            self._record = self._described(what)
            with suppress(OSError, RuntimeError):  # no home: nobody else finds it
                self._record.write()
        except BaseException:
            self.close()
            raise

    @property
    def folder(self) -> Path:
        """For what the fleet keeps while it lasts; nobody else may enter."""
        return self._folder

    def close(self) -> None:
        """May be called twice."""
        if self._ours and self._ray.is_initialized():
            self._ray.shutdown()
        if self._guardian is not None:
            self._guardian.kill()
            self._guardian.wait()
            self._guardian = None
            reaper.end(self.name, str(self._folder))
        shutil.rmtree(self._folder, ignore_errors=True)
        _set(self._before)
        self._before = {}
        record = getattr(self, "_record", None)
        if record is not None:
            record.remove()

    def free(self) -> dict[str, float]:
        """What nobody has taken of CPUs and named resources."""
        return _countable(self._ray.available_resources())

    def total(self) -> dict[str, float]:
        """CPUs and named resources of all nodes."""
        return _countable(self._ray.cluster_resources())

    def _start(self) -> None:
        """A cluster of this machine alone, which others need a token for."""
        token = self._folder / "token"
        write_private(token, secrets.token_hex(32).encode())
        told = {
            reaper.MARK: self.name,
            "RAY_AUTH_MODE": None,  # Ray turns it on itself, and reads it anew
            "RAY_AUTH_TOKEN": None,
            "RAY_AUTH_TOKEN_PATH": str(token),
            "HOME": os.environ.get("HOME") or str(self._folder),
            **QUIET,
        }
        self._before = _set(told)
        _forget_token()
        self._guard()
        with signals_held():
            try:
                self._ray.init(
                    address="local",
                    include_dashboard=False,
                    object_store_memory=STORE_BYTES,
                    namespace=NAMESPACE,
                    log_to_driver=False,
                    logging_level=logging.CRITICAL,
                    _temp_dir=str(self._folder / "r"),
                    _system_config=dict(LOCAL_SETTINGS),  # Ray writes into it
                )
            except Exception as error:
                raise ConfigError(
                    f"fleet='local': Ray could not be started here ({_briefly(error)})"
                ) from error
        quieten()
        # What this process starts from here on is its own.
        del os.environ[reaper.MARK]

    def _guard(self) -> None:
        """Starts the process that ends the cluster where this one is killed."""
        pid, _ = own_process()
        record = _path_of(self.name)
        command = [sys.executable, reaper.__file__, str(pid), self.name]
        environment = {
            name: value for name, value in os.environ.items() if name != reaper.MARK
        }
        self._guardian = subprocess.Popen(
            [*command, str(self._folder), record],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            env=environment,
            start_new_session=True,  # Ctrl-C is not for it
        )

    def _check_connected(self) -> None:
        if self.where != AUTO:
            raise ConfigError(
                f"fleet={self.where!r}, but this process is connected to a Ray cluster already; fleet='auto' takes "
                "that one, ray.shutdown() leaves it"
            )

    def _described(self, what: str) -> Record:
        address = self.where
        if not address.startswith(CLIENT):
            address = str(self._ray.get_runtime_context().gcs_address)
        pid, begun = own_process()
        token = str(self._folder / "token") if self.where == LOCAL else ""
        folder = str(self._folder)
        return Record(self.name, self.where, address, pid, begun, folder, token, what)


def import_ray() -> Any:
    """The module; ConfigError where it is not installed."""
    for name, value in QUIET.items():
        os.environ.setdefault(name, value)
    check_installed()
    import ray

    return ray


def join(where: str) -> None:
    """Connects this process to a cluster that runs.

    Args:
        where: auto, HOST:PORT, or ray://HOST:PORT.

    Raises:
        ConfigError: there is none, it does not let us in, or its versions differ.
    """
    ray = import_ray()
    asked = where
    if where == AUTO:
        where = os.environ.get("RAY_ADDRESS", AUTO)
    if where != AUTO:
        _check_listens(where)
    settings: dict[str, object] = {"namespace": NAMESPACE, "log_to_driver": False}
    try:
        with signals_held():
            ray.init(address=where, logging_level=logging.CRITICAL, **settings)
        quieten()
    except Exception as error:
        with suppress(Exception):
            ray.shutdown()
        raise ConfigError(_why_not(asked, error)) from error


def _say_nothing(*_: object, **__: object) -> None:
    """In the place of Ray's printing of its processes' messages."""


def quieten() -> None:
    """Ray prints what its processes complain of on this one's standard output, where metrics go as JSON."""
    from ray._private import worker

    told: Any = worker
    if hasattr(told, "print_to_stdstream"):
        told.print_to_stdstream = _say_nothing


@contextmanager
def signals_held() -> Generator[None]:
    """Ctrl-C and SIGTERM wait until Ray has started or was joined; a second one ends that at once.

    An exception in the middle of it may be lost in Ray, and Ray would take SIGTERM for itself for good.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    came: list[int] = []

    def hold(number: int, _: FrameType | None) -> None:
        came.append(number)
        if len(came) > 1:
            raise KeyboardInterrupt

    caught = [number for number in HELD if signal.getsignal(number) != signal.SIG_IGN]
    before = {number: signal.signal(number, hold) for number in caught}
    from ray._private import utils

    ours: Any = utils
    theirs = ours.set_sigterm_handler
    ours.set_sigterm_handler = _say_nothing
    try:
        yield
    finally:
        ours.set_sigterm_handler = theirs
        for number, handler in before.items():
            signal.signal(number, handler)
    if came:
        os.kill(os.getpid(), came[0])


def _why_not(where: str, error: Exception) -> str:
    """Why a cluster was not joined, and what would help."""
    said = _briefly(error)
    if "ersion mismatch" in said:
        own = f"{version('ray')} and Python {sys.version.split()[0]}"
        return (
            f"fleet={where!r}: the cluster has another version of Ray or Python than this process ({own}): {said}; "
            "use an environment with the cluster's versions here, or start the cluster from this one"
        )
    if where == AUTO and isinstance(error, ConnectionError):
        return (
            "fleet='auto': no Ray cluster runs on this machine; `ray start --head` starts one, and fleet='local' one "
            f"that ends with the run ({said})"
        )
    if "oken" in said or "nauthenticated" in said.lower():
        return (
            f"fleet={where!r}: the cluster asks for a token, and it is not this one; give it by "
            f"RAY_AUTH_MODE=token and RAY_AUTH_TOKEN_PATH ({said})"
        )
    return f"fleet={where!r}: no Ray cluster could be joined there ({said})"


def _briefly(error: Exception) -> str:
    """An error of Ray's, whose texts may be pages long, in a line."""
    said = f"{type(error).__name__}: {text_of(error)}"
    return textwrap.shorten(said, MOST_SAID, placeholder=" ...")


def _check_listens(address: str) -> None:
    """ConfigError where nobody listens; Ray itself tries for minutes."""
    host, port = split_port(address.rpartition("://")[2])
    try:
        socket.create_connection((host, port), REACH_S).close()
    except OSError as error:
        raise ConfigError(
            f"nobody listens at {address} ({error.strerror or error}); a Ray cluster's client port is 10001 at its head"
        ) from error


def _private_folder() -> Path:
    root = tempfile.gettempdir()
    if len(root) > LONGEST_ROOT:
        root = "/tmp"
    return Path(tempfile.mkdtemp(prefix="shoal-", dir=root))


def _path_of(name: str) -> str:
    """Where a fleet's record will be."""
    with suppress(RuntimeError):
        return str(Record(name, "", "", 0, 0.0, "", "", "").path)
    return os.devnull


def _countable(resources: dict[str, float]) -> dict[str, float]:
    """Without those that stand for one node, and bytes."""
    return {
        name: count
        for name, count in resources.items()
        if name not in ("memory", "object_store_memory")
        and not name.startswith(("node:", "bundle", "CPU_group", "accelerator_type"))
        and "_group_" not in name
    }


def _forget_token() -> None:
    """Of a cluster that this process was connected to before."""
    with suppress(ImportError, AttributeError):
        from ray import _raylet

        loader: Any = _raylet
        loader.AuthenticationTokenLoader.instance().reset_cache()


def _set(variables: Mapping[str, str | None]) -> dict[str, str | None]:
    """Sets variables of the environment, or takes them out; what they were."""
    before = {name: os.environ.get(name) for name in variables}
    for name, value in variables.items():
        os.environ.pop(name, None)
        if value is not None:
            os.environ[name] = value
    return before
