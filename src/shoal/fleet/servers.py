"""The environment servers of a fleet: placed, found again where one is lost, and stepped as rows."""

from __future__ import annotations

import logging
import textwrap
import time
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import shoal
from shoal.fleet.certificates import FILES, Authority
from shoal.fleet.cluster import NAMESPACE, Cluster
from shoal.fleet.env_server import EnvServer, Hello, Rows
from shoal.fleet.settings import LOCAL, Placement
from shoal.remote import rows as remote_rows
from shoal.remote.address import ENCRYPTED
from shoal.remote.settings import Remote
from shoal.types import ConfigError, EnvError, text_of

if TYPE_CHECKING:
    from shoal.envs.vec_env import VecEnv
    from shoal.remote.settings import Terms

_LOG = logging.getLogger(__name__)
ANSWER_S = 2.0
"""What a server may take to say where it is, before somebody asks again."""
HUNG_S = 25.0
"""A server that is asked for in vain for so long after a fault is stopped or hangs: it is ended, and started again."""
SERIES_S = 10.0
"""Questions that are further apart are about different faults."""
STOP_S = 2.0
MOST_SAID = 200
"""Characters of Ray's messages that ours quote."""


@dataclass(slots=True)
class Place:
    """Where a server is."""

    actor: Any
    address: str = ""
    restarts: int = 0
    trying_s: float = 0.0
    """When it was first asked for after the last fault."""
    asked_s: float = 0.0
    """And last."""


class Servers:
    """Servers of one environment on a cluster. `close` ends them."""

    def __init__(
        self,
        cluster: Cluster,
        placement: Placement,
        rows: Rows,
        playing: Rows,
        *,
        num_envs: int,
        max_restarts: int,
    ) -> None:
        """Places them, and waits until they serve.

        Args:
            cluster: where.
            placement: how many, and what each takes.
            rows: how environments to train in are made.
            playing: and those to evaluate in.
            num_envs: of all servers together.
            max_restarts: how often Ray starts each of them again.

        Raises:
            ConfigError: there is no room, a server does not start, or the environment cannot be made there.
        """
        if placement.servers > num_envs:
            raise ConfigError(
                f"placement.servers={placement.servers}, but num_envs={num_envs}: each server needs an environment"
            )
        import ray

        self._ray: Any = ray
        self._cluster, self._playing = cluster, playing
        self._authority = Authority()
        self._authority.write_client(cluster.folder)
        self._group: Any = None
        self._places: list[Place] = []
        try:
            self._group = reserve(cluster, placement)
            each = -(-num_envs // placement.servers)
            host = "127.0.0.1" if cluster.where == LOCAL else ""
            for number in range(placement.servers):
                actor = self._actor(number, placement, max_restarts)
                self._places.append(Place(actor.remote(rows, each, host)))
            self._start(placement.wait_s)
        except BaseException:
            self.close()
            raise

    def rows(self, num_envs: int, terms: Terms) -> VecEnv:
        """Rows of `num_envs` environments, an equal part on each server; `terms` without what is the fleet's own."""
        name = ENCRYPTED + ",".join(place.address for place in self._places)
        ca, cert, key = (str(self._cluster.folder / file) for file in FILES)
        known = Remote(ca=ca, cert=cert, key=key, plane=terms.remote.plane)
        fleet = terms._replace(remote=known, locate=self.locate)
        return remote_rows.make(name, num_envs, fleet)

    def locate(self, number: int) -> str:
        """HOST:PORT of a server, which Ray may have started again elsewhere.

        Raises:
            ConfigError: it is not there yet.
            EnvError: it is gone for good.
        """
        place = self._places[number]
        self._end_hung(place)
        failed = self._ray.exceptions
        try:
            hello: Hello = self._ray.get(place.actor.hello.remote(), timeout=ANSWER_S)
            if hello.address:
                return hello.address
            place.restarts += 1
            place.address = self._ray.get(self._begin(place, hello), timeout=HUNG_S)
        except failed.ActorDiedError as error:
            raise EnvError(
                f"server {number} of the fleet has ended for good: it was stopped, or was started again as often as "
                f"max_restarts allows ({last_line(error)})"
            ) from error
        except failed.RayError as error:
            raise ConfigError(
                f"server {number} of the fleet is not there yet ({type(error).__name__})"
            ) from error
        _LOG.warning(
            "server %d of the fleet is at %s now (restart %d)",
            number,
            place.address,
            place.restarts,
        )
        return place.address

    def close(self) -> None:
        """Ends the servers and gives their room back; may be called twice."""
        stopped = [place.actor.stop.remote() for place in self._places]
        with suppress(Exception):
            self._ray.wait(stopped, num_returns=len(stopped), timeout=STOP_S)
        for place in self._places:
            with suppress(Exception):
                self._ray.kill(place.actor)
        self._places.clear()
        if self._group is not None:
            from ray.util import remove_placement_group

            with suppress(Exception):
                remove_placement_group(self._group)
            self._group = None

    def _actor(self, number: int, placement: Placement, max_restarts: int) -> Any:
        from ray.util.scheduling_strategies import PlacementGroupSchedulingStrategy

        taken = placement.bundle
        return self._ray.remote(EnvServer).options(
            name=f"{self._cluster.name}/server-{number}",
            namespace=NAMESPACE,
            num_cpus=taken.pop("CPU", 0),
            resources=taken,
            max_restarts=max_restarts,
            max_concurrency=4,
            scheduling_strategy=PlacementGroupSchedulingStrategy(
                self._group, placement_group_bundle_index=number
            ),
        )

    def _start(self, wait_s: float) -> None:
        """All serve, or ConfigError says which does not and why."""
        deadline = time.monotonic() + wait_s
        asked = [place.actor.hello.remote() for place in self._places]
        begun: list[Any] = []
        for number, (place, reply) in enumerate(zip(self._places, asked, strict=True)):
            hello: Hello = self._answer(number, reply, deadline)
            if hello.version != shoal.__version__:
                raise ConfigError(
                    f"the node {hello.host} has shoal {hello.version}, and this one {shoal.__version__}; install the "
                    "same on all nodes"
                )
            begun.append(self._begin(place, hello))
        for number, (place, reply) in enumerate(zip(self._places, begun, strict=True)):
            place.address = self._answer(number, reply, deadline)

    def _begin(self, place: Place, hello: Hello) -> Any:
        """Has a server listen, with a certificate; its address, to be waited for."""
        signed = self._authority.sign(hello.request, hello.host)
        return place.actor.serve.remote(
            signed, self._authority.certificate, self._playing, place.restarts
        )

    def _answer(self, number: int, reply: Any, deadline: float) -> Any:
        """A server's reply when the fleet starts; ConfigError where there is none in time, or an error."""
        left_s = max(deadline - time.monotonic(), 0.1)
        try:
            return self._ray.get(reply, timeout=left_s)
        except self._ray.exceptions.GetTimeoutError:
            raise ConfigError(
                f"server {number} of the fleet did not start in time; give more with placement.wait_s"
            ) from None
        except self._ray.exceptions.RayTaskError as error:
            raise ConfigError(
                f"server {number} of the fleet: {text_of(error.cause)}"
            ) from error
        except self._ray.exceptions.RayError as error:
            raise ConfigError(
                f"server {number} of the fleet did not start; shoal and the environment must be installed on its node "
                f"as they are here ({last_line(error)})"
            ) from error

    def _end_hung(self, place: Place) -> None:
        """A server that was asked for in vain for too long is ended, for Ray to start it again."""
        now = time.monotonic()
        if now - place.asked_s > SERIES_S:
            place.trying_s = now
        place.asked_s = now
        if now - place.trying_s > HUNG_S:
            place.trying_s = now
            _LOG.warning("a server of the fleet hangs or is stopped; it is ended")
            self._ray.kill(place.actor, no_restart=False)


def reserve(cluster: Cluster, placement: Placement) -> Any:
    """Room for the servers, spread over the nodes; ConfigError where there is none in time."""
    from ray.util import placement_group, remove_placement_group

    wanted = [placement.bundle] * placement.servers
    if cluster.where == LOCAL and not _fits(wanted, cluster.total()):
        raise ConfigError(no_room(cluster, placement))
    group: Any = placement_group(wanted, strategy="SPREAD")
    try:
        if group.wait(placement.wait_s):
            return group
        raise ConfigError(no_room(cluster, placement))
    except BaseException:
        remove_placement_group(group)
        raise


def no_room(cluster: Cluster, placement: Placement) -> str:
    """What was asked for, what is free, and what would help."""
    each = in_words(placement.bundle)
    return (
        f"fleet={cluster.where!r} has no room for {placement.servers} servers of {each} each: free are "
        f"{in_words(cluster.free())} of {in_words(cluster.total())}; ask for less (placement.servers, placement.cpus), "
        "or wait longer for nodes that are started on demand (placement.wait_s)"
    )


def in_words(resources: dict[str, float]) -> str:
    """`2 CPU, 1 envs`."""
    return (
        ", ".join(f"{count:g} {name}" for name, count in sorted(resources.items()))
        or "nothing"
    )


def last_line(error: Exception) -> str:
    """Of Ray's long texts, the one that says what went wrong."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    said = lines[-1] if lines else type(error).__name__
    return textwrap.shorten(said, MOST_SAID, placeholder=" ...")


def _fits(wanted: list[dict[str, float]], total: dict[str, float]) -> bool:
    """Whether so much is there at all, if nobody else had any."""
    asked: dict[str, float] = {}
    for bundle in wanted:
        for name, count in bundle.items():
            asked[name] = asked.get(name, 0.0) + count
    return all(count <= total.get(name, 0.0) for name, count in asked.items())
