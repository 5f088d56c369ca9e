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
    for entry in config.nav:
        if ENTRY in entry:
            entry[ENTRY] = pages
    return config
