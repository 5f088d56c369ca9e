"""What only policies of environments can do is refused in words where a run has a language model."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

import shoal
from shoal.experiment.offline_score import evaluate_offline
from shoal.types import ConfigError
from tests.experiment.test_language import trained
from tests.llm.toy import Successor

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

ASKED: dict[str, Callable[[Any, Path], object]] = {
    "act": lambda agent, _: agent.act("a?"),
    "predict": lambda agent, _: agent.predict([0.0]),
    "record": lambda agent, at: agent.record(at / "data"),
    "export": lambda agent, at: agent.export(at / "out", to="onnx"),
    "serve": lambda agent, _: agent.serve(),
    "video": lambda agent, at: agent.record_video(at / "two.gif"),
    "offline": evaluate_offline,
}


def test_what_is_of_environments_is_refused(folder: Path, tmp_path: Path) -> None:
    """With where a language model goes on instead."""
    run = trained(folder, tmp_path, 1)
    agent = shoal.load(run.path, factory=Successor)
    for ask in ASKED.values():
        with pytest.raises(ConfigError, match=r"successor is a task of a language model.*shoal push RUN FOLDER"):
            ask(agent, tmp_path)
