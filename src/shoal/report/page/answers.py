"""What the page is told: where the runs stand, and their curves in as many points as it can show."""

from __future__ import annotations

import json
import struct
from dataclasses import asdict
from typing import TYPE_CHECKING, Any, cast

import numpy as np

from shoal.report.page.buckets import bucketed, level_of
from shoal.report.page.films import list_films
from shoal.run import control
from shoal.run.following import AXES

if TYPE_CHECKING:
    from collections.abc import Mapping

    from shoal.report.page.films import Filming
    from shoal.report.page.watched import Runs, Watched
    from shoal.types import Floats

ORDERS = {"pause": control.pause, "continue": control.go_on, "stop": control.stop}
MOST_CURVES = 2000
"""Curves of one request."""
MOST_WIDTH = 4096


def state(runs: Runs, filming: Filming, looked: set[int]) -> dict[str, Any]:
    """Where all runs stand, and of those that are looked at, which numbers, films and timelines they have."""
    watched = {one.number for one in runs.look(looked)}
    said: list[dict[str, Any]] = []
    for one in runs.listed():
        about: dict[str, Any] = {"run": one.number, "name": one.name}
        about |= asdict(one.facts())
        if one.number in watched:
            about |= _details(one, filming)
        said.append(about)
    return {"left_out": runs.left_out, "runs": said}


def _details(watched: Watched, filming: Filming) -> dict[str, Any]:
    follower = watched.follower
    films = list_films(watched.run)
    return {
        "lines": len(follower),
        "generation": follower.generation,
        "keys": follower.keys(),
        "timeline": watched.has_timeline(),
        "films": [{"name": film.name, "written_s": film.written_s} for film in films],
        "filming": filming.state_of(watched.run),
    }


def give_order(runs: Runs, asked: Mapping[str, object]) -> str:
    """Asks a run to pause, to continue or to stop; what is to be said.

    Args:
        runs: all of them.
        asked: `run`, and `order`, one of ORDERS.

    Raises:
        ConfigError: it does not run, or the folder is another's.
    """
    order = asked.get("order")
    if not isinstance(order, str) or order not in ORDERS:
        raise ValueError(f"order is one of {', '.join(ORDERS)}")
    watched = runs.one(asked.get("run"))
    ORDERS[order](watched.run)
    watched.forget()
    return f"asked to {order}"


def curves(runs: Runs, asked: Mapping[str, object]) -> bytes:
    """Curves, as a JSON table and the numbers that it counts.

    Args:
        runs: all of them.
        asked: `axis`, a name of AXES; `width`, in how many parts a curve is to be shown; `curves`, a list of tables
            with `run`, `key`, and what the page has of it already: `generation`, `level` and `since`, the first bucket
            that it has not; or `from` and `to`, the part of the axis that it shows.

    Returns:
        Four bytes with the length of the JSON text, the text, filled up with blanks to a multiple of eight bytes, and
        x and y of each curve in turn as 64-bit floats, little-endian. The text is a list of a table each: `run`,
        `key`, `generation`, `level`, `since`, `points`.

    Raises:
        ValueError: what was asked for means nothing.
    """
    axis = asked.get("axis")
    if not isinstance(axis, str) or axis not in AXES:
        raise ValueError(f"axis is one of {', '.join(AXES)}")
    width = min(_count(asked.get("width"), "width"), MOST_WIDTH)
    wanted = asked.get("curves")
    if not isinstance(wanted, list) or len(cast("list[object]", wanted)) > MOST_CURVES:
        raise ValueError(f"curves is a list of at most {MOST_CURVES:,}")
    tables = [_table(one) for one in cast("list[object]", wanted)]
    numbers = {_count(one.get("run"), "run") for one in tables}
    by_number = {one.number: one for one in runs.look(numbers)}
    heads: list[dict[str, Any]] = []
    bodies: list[Floats] = []
    for table in tables:
        watched = by_number.get(_count(table.get("run"), "run"))
        if watched is not None:
            head, body = _curve(watched, table, axis, max(width, 16))
            heads.append(head)
            bodies.append(body)
    text = json.dumps(heads).encode()
    text += b" " * (-(len(text) + 4) % 8)
    every = np.concatenate(bodies) if bodies else np.empty((0, 2))
    return struct.pack("<I", len(text)) + text + every.astype("<f8").tobytes()


def _curve(
    watched: Watched, table: Mapping[str, object], axis: str, width: int
) -> tuple[dict[str, Any], Floats]:
    key = str(table.get("key", ""))
    generation, x, y = watched.follower.series(key, axis)
    head: dict[str, Any] = {
        "run": watched.number,
        "key": key,
        "generation": generation,
    }
    if "from" in table:
        x, y, level = _part(x, y, table, width)
        since = 0
    else:
        level = level_of(len(y), width)
        known = table.get("generation") == generation and table.get("level") == level
        since = _count(table.get("since"), "since") if known else 0
    points = bucketed(x, y, level, since)
    head |= {"level": level, "since": since, "points": len(points)}
    return head, points


def _part(
    x: Floats, y: Floats, table: Mapping[str, object], width: int
) -> tuple[Floats, Floats, int]:
    """The part of a curve between two places, and one bucket more on each side; and its level."""
    begin, end = (_float(table.get(name), name) for name in ("from", "to"))
    first, last = np.searchsorted(x, [begin, end])
    level = level_of(int(max(last - first, 0)), width)
    size = 1 << level
    first = max(0, first // size - 1) * size
    last = min(len(x), (last // size + 2) * size)
    return x[first:last], y[first:last], level


def _table(value: object) -> Mapping[str, object]:
    if not isinstance(value, dict):
        raise ValueError("a curve is asked for by a table")
    return cast("dict[str, object]", value)


def _count(value: object, name: str) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value < 2**53:
        raise ValueError(f"{name} is a whole number from 0")
    return value


def _float(value: object, name: str) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise ValueError(f"{name} is a number")
    return float(value)
