"""What the live panel shows of a language model besides: tokens of both sides, lengths, and how late they are."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from shoal.run.settings import Settings

DRAWN, LEARNED = "speed/tokens_drawn", "speed/tokens_learned"


def is_of_language(record: Mapping[str, float]) -> bool:
    """Whether a line of metrics is of a run on answers."""
    return DRAWN in record


def token_rows(
    record: Mapping[str, float], settings: Settings
) -> Iterator[tuple[str, str]]:
    """Rows of the panel, each with its name."""
    yield "drawn", f"{record[DRAWN]:,.0f} tokens/s"
    if LEARNED in record:
        yield "learned", f"{record[LEARNED]:,.0f} tokens/s"
    if "episode/length" in record:
        yield "length", f"{record['episode/length']:,.1f} tokens"
    if settings.schedule == "async" and "groups/staleness" in record:
        mean, most = record["groups/staleness"], record.get("groups/staleness_max", 0)
        yield "staleness", f"{mean:.1f} versions, {most:.0f} at most"
    if lost := record.get("groups/lost"):
        yield "lost", f"{lost:,.0f} answers"
