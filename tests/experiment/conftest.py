"""What several tests of runs share."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the toy model."""
    from shoal.llm.model_folder import save_model
    from tests.llm.toy import toy_model

    path = tmp_path_factory.mktemp("models") / "toy"
    save_model(toy_model(), path)
    return path
