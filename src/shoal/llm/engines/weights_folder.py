"""Weights on their way to an engine: folders in memory, or where both can see them, written in turn."""

from __future__ import annotations

import shutil
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

from shoal.llm.model_folder import save_model

if TYPE_CHECKING:
    from shoal.llm.model import LanguageModel

MEMORY = Path("/dev/shm")
"""Where files are memory, on Linux."""


class WeightsFolder:
    """Two folders below one of its own: one is written while the other may still be read."""

    def __init__(self, parent: str = "") -> None:
        """In `parent`; by default in memory, where there is such a place, else where temporary files are."""
        where = parent or (str(MEMORY) if MEMORY.is_dir() else None)
        self.path = Path(tempfile.mkdtemp(prefix="shoal-weights-", dir=where))
        self._written = 0

    def write(self, model: LanguageModel) -> Path:
        """A folder with the model as it is now, a LoRA merged into it, as transformers reads it."""
        folder = self.path / str(self._written % 2)
        save_model(model, folder)
        self._written += 1
        return folder

    def close(self) -> None:
        """Deletes them."""
        shutil.rmtree(self.path, ignore_errors=True)
