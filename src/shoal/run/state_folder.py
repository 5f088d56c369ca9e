"""Where this user's programs keep their state (the XDG base directories)."""

from __future__ import annotations

import os
from pathlib import Path


def state_folder() -> Path:
    """Shoal's, which may not be there yet; RuntimeError where this user has no home."""
    given = os.environ.get("XDG_STATE_HOME", "")
    base = Path(given) if os.path.isabs(given) else Path.home() / ".local/state"
    return base / "shoal"
