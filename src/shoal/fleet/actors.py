"""The actors of a run on a cluster: where each is placed, and another in its place where one is lost."""

from __future__ import annotations

import socket
import ssl
from contextlib import suppress
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import shoal
from shoal.fleet.actor import FleetActor
from shoal.fleet.certificates import FILES, Authority
from shoal.fleet.cluster import NAMESPACE, Cluster
from shoal.fleet.servers import last_line, reserve
from shoal.fleet.settings import LOCAL, Placement
from shoal.remote.address import split_port
from shoal.remote.frames import Frames
from shoal.stream.actors.messages import Begun, Introduction, Rows
from shoal.types import ConfigError, EnvError

if TYPE_CHECKING:
    from shoal.fleet.env_server import Hello

STOP_S = 2.0


class FleetActors:
    """Room for the actors of one run on a cluster. `close` gives it back."""

    def __init__(self, cluster: Cluster, placement: Placement, count: int) -> None:
        """Takes the room.

        Args:
            cluster: where.
            placement: what each actor takes, and how long the room may take to be there.
            count: of actors.

        Raises:
            ConfigError: there is no room.
        """
        import ray

        self.ray: Any = ray
        self.cluster = cluster
        self.placement = replace(placement, servers=count)
        self.authority = Authority()
        self.authority.write_client(cluster.folder)
        self._placed: list[int] = [0] * count
        """How often each was placed."""
        self._group: Any = reserve(cluster, self.placement)

    def place(self, make: bytes, number: int, num_envs: int) -> PlacedActor:
        """Starts an actor, or another one in its place."""
        count, self._placed[number] = self._placed[number], self._placed[number] + 1
        return PlacedActor(self, Introduction(make, number, num_envs), count)

    def started(self, said: Introduction, restarts: int) -> Any:
        """The handle of a new actor of Ray."""
        from ray.util.scheduling_strategies import PlacementGroupSchedulingStrategy

        taken = self.placement.bundle
        host = "127.0.0.1" if self.cluster.where == LOCAL else ""
        wanted = self.ray.remote(FleetActor).options(
            name=f"{self.cluster.name}/actor-{said.number}-{restarts}",
            namespace=NAMESPACE,
            num_cpus=taken.pop("CPU", 0),
            resources=taken,
            max_restarts=0,
            max_concurrency=4,
            scheduling_strategy=PlacementGroupSchedulingStrategy(
                self._group, placement_group_bundle_index=said.number
            ),
        )
        return wanted.remote(said, host, restarts)

    def close(self) -> None:
        """Gives the room back, and ends what is left there; may be called twice."""
        if self._group is None:
            return
        from ray.util import remove_placement_group

        with suppress(Exception):  # the cluster may be gone
            remove_placement_group(self._group)
        self._group = None


class PlacedActor:
    """One actor on a node of a cluster."""

    def __init__(self, fleet: FleetActors, said: Introduction, restarts: int) -> None:
        """Has Ray start it."""
        self._fleet, self._number = fleet, said.number
        self._actor = fleet.started(said, restarts)
        self.where = "on the fleet"

    def rows(self, timeout_s: float) -> Rows:
        """What its rows are."""
        wait_s = max(timeout_s, self._fleet.placement.wait_s)
        hello: Hello = self._asked(wait_s, "start", self._actor.hello)
        self.where = f"at {hello.address}"
        if hello.version != shoal.__version__:
            raise ConfigError(
                f"the node {hello.host} has shoal {hello.version}, and this one {shoal.__version__}; install the same "
                "on all nodes"
            )
        return self._asked(wait_s, "make its environments", self._actor.rows)

    def begin(self, said: bytes, timeout_s: float) -> Begun:
        """Has it reset them."""
        return self._asked(timeout_s, "reset its environments", self._actor.begin, said)

    def connect(self, timeout_s: float) -> Frames:
        """A connection that is encrypted, and of which both sides have shown a certificate of this fleet."""
        fleet = self._fleet
        hello: Hello = self._asked(timeout_s, "say where it is", self._actor.hello)
        signed = fleet.authority.sign(hello.request, hello.host)
        known = fleet.authority.certificate
        self._asked(timeout_s, "listen", self._actor.accept, signed, known)
        ca, cert, key = (str(fleet.cluster.folder / name) for name in FILES)
        context = ssl.create_default_context(cafile=ca)
        context.load_cert_chain(cert, key)
        host, port = split_port(hello.address)
        host = host.strip("[]")
        try:
            there = socket.create_connection((host, port), timeout_s)
            with there:  # wrapping takes it over
                wrapped = context.wrap_socket(there, server_hostname=host)
        except OSError as error:
            raise EnvError(
                f"actor {self._number} of the fleet cannot be reached at {hello.address} ({error})"
            ) from error
        return Frames(wrapped, "a TLS socket")

    def end(self) -> None:
        """Has it close its environments, and ends it, whatever it is doing."""
        ray = self._fleet.ray
        with suppress(Exception):  # it may be gone, or its node
            ray.wait([self._actor.stop.remote()], timeout=STOP_S)
            ray.kill(self._actor)

    def _asked(self, timeout_s: float, what: str, method: Any, *given: object) -> Any:
        """What it answers to a call.

        Raises:
            ConfigError: its environments cannot be made, or it is not there in time.
            EnvError: it is gone, or its environment raised.
        """
        failed = self._fleet.ray.exceptions
        who = f"actor {self._number} of the fleet ({self.where})"
        try:
            return self._fleet.ray.get(method.remote(*given), timeout=timeout_s)
        except failed.GetTimeoutError:
            raise EnvError(f"{who} did not {what} within {timeout_s:g} s") from None
        except failed.RayTaskError as error:
            cause = error.cause
            if isinstance(cause, ConfigError | EnvError):
                raise cause from error
            raise EnvError(f"{who}: {type(cause).__name__}: {cause}") from error
        except failed.RayError as error:
            raise EnvError(f"{who} is gone ({last_line(error)})") from error
