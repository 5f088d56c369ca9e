"""Lists every page of docs/worlds under one entry of the site: `shoal new-env` adds pages and edits nothing."""

from __future__ import annotations

from pathlib import Path
from typing import Any

ENTRY = "Built-in games"


def on_config(config: Any) -> Any:
    """Called by mkdocs before the navigation is read."""
    docs = Path(config.docs_dir)
    pages = [path.relative_to(docs).as_posix() for path in sorted((docs / "worlds").glob("*.md"))]
    pages.sort(key=lambda page: page != "worlds/index.md")
    list_pages(config.nav, pages)
    return config


def list_pages(entries: list[Any], pages: list[str]) -> None:
    """Puts the pages under the entry, in whichever section it stands."""
    for entry in entries:
        for name, inside in entry.items() if isinstance(entry, dict) else ():
            if name == ENTRY:
                entry[name] = pages
            elif isinstance(inside, list):
                list_pages(inside, pages)
