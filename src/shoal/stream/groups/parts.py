"""What the rewards of a batch are made of, where its scorer says so."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

    from shoal.stream.groups.flight import Group
    from shoal.stream.meter import Meter


def note_parts(meter: Meter, batch: Sequence[Group]) -> None:
    """Tells the mean of each part over the answers of a batch that have it, before weights."""
    found: dict[str, list[float]] = {}
    for group in batch:
        for number in sorted(group.parts):
            for name, value in group.parts[number].items():
                found.setdefault(name, []).append(value)
    for name, values in found.items():
        meter.note(f"rewards/{name}", sum(values) / len(values))
