"""What runs on fleets, seen from another terminal: its state, its last words, and its end."""

from __future__ import annotations

import os
import signal
import time
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

from shoal.fleet import reaper
from shoal.fleet.cluster import NAMESPACE, import_ray, join
from shoal.fleet.records import records
from shoal.fleet.settings import LOCAL

if TYPE_CHECKING:
    from collections.abc import Generator

    from shoal.fleet.env_server import About
    from shoal.fleet.records import Record

ANSWER_S = 5.0
"""What a part of a fleet may take to say how it is."""
IN_ORDER_S = 60.0
"""What a learner may take to end after its update, with a checkpoint, when it is asked to."""
AT_ONCE_S = 20.0
"""What it may take when it is asked again."""
LOOK_S = 0.1


class Part(NamedTuple):
    """A server or a training of a fleet."""

    fleet: str
    name: str
    about: About | None
    """None where it gave no answer."""


@dataclass(frozen=True, slots=True)
class Cluster:
    """A cluster on which somebody's fleets are."""

    address: str
    """auto, HOST:PORT or ray://HOST:PORT."""
    token_file: str = ""


def clusters(where: str | None) -> list[Cluster]:
    """The one that is named, else those of the fleets whose learners run on this machine."""
    if where not in (None, LOCAL):
        return [Cluster(where)]
    found = [Cluster(record.address, record.token_file) for record in records()]
    return list(dict.fromkeys(found))


def parts(cluster: Cluster) -> list[Part]:
    """All servers and trainings of fleets on a cluster; ConfigError where it cannot be joined."""
    with _joined(cluster) as ray:
        return [
            Part(fleet, name, _asked(ray, actor.about))
            for fleet, name, actor in _actors(ray)
        ]


def logs(cluster: Cluster, lines: int) -> list[tuple[str, list[str]]]:
    """The last lines of each server and training, by name."""
    with _joined(cluster) as ray:
        found: list[tuple[str, list[str]]] = []
        for fleet, name, actor in _actors(ray):
            said = _asked(ray, actor.log, lines)
            found.append((f"{fleet}/{name}", said or ["(no answer)"]))
        return found


def stop(where: str | None) -> list[str]:
    """Ends fleets: those of this machine's learners, each of which writes a checkpoint first; and what `where` has.

    Returns:
        A sentence for each.
    """
    own = [record for record in records() if where in (None, record.where)]
    said = [_stop_learner(record) for record in own]
    if where not in (None, LOCAL):
        with _joined(Cluster(where)) as ray:
            for fleet, name, actor in _actors(ray):
                ray.kill(actor)
                said.append(
                    f"{fleet}/{name} on {where} is ended; its learner goes on from its last checkpoint when it is "
                    "resumed"
                )
    return said


def _stop_learner(record: Record) -> str:
    name = f"fleet {record.name} ({record.what}, process {record.learner})"
    for number, patience_s, how in (
        (signal.SIGINT, IN_ORDER_S, "has ended after its update"),
        (signal.SIGINT, AT_ONCE_S, "has ended at once"),
        (signal.SIGKILL, AT_ONCE_S, "did not end, and was killed"),
    ):
        with suppress(ProcessLookupError):
            os.kill(record.learner, number)
        if _gone(record, patience_s):
            return f"{name} {how}"
    return f"{name} does not end: it is stopped in the kernel"


def _gone(record: Record, patience_s: float) -> bool:
    deadline = time.monotonic() + patience_s
    while record.lives or reaper.started(record.name, record.folder):
        if time.monotonic() > deadline:
            return False
        time.sleep(LOOK_S)
    record.remove()
    return True


@contextmanager
def _joined(cluster: Cluster) -> Generator[Any]:
    """Ray, connected to a cluster."""
    if cluster.token_file:
        os.environ |= {
            "RAY_AUTH_MODE": "token",
            "RAY_AUTH_TOKEN_PATH": cluster.token_file,
        }
    ray = import_ray()
    join(cluster.address)
    try:
        yield ray
    finally:
        ray.shutdown()


def _actors(ray: Any) -> list[tuple[str, str, Any]]:
    """The fleet, the name and the handle of each actor of ours."""
    found: list[tuple[str, str, Any]] = []
    for listed in ray.util.list_named_actors(all_namespaces=True):
        fleet, _, name = str(listed["name"]).partition("/")
        if listed["namespace"] != NAMESPACE or not name:
            continue
        with suppress(ValueError):  # it has ended meanwhile
            actor = ray.get_actor(listed["name"], namespace=NAMESPACE)
            found.append((fleet, name, actor))
    return sorted(found, key=lambda part: part[:2])


def _asked(ray: Any, method: Any, *given: object) -> Any:
    """What an actor answers; None where it does not in time."""
    with suppress(ray.exceptions.RayError):
        return ray.get(method.remote(*given), timeout=ANSWER_S)
    return None
