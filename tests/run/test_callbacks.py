"""What a callback answers: nothing; what was meant by anything else is said, at lines and at ends of episodes."""

import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import shoal
from shoal.run.callbacks import EpisodeEnd
from shoal.run.directory import list_runs
from shoal.types import ConfigError

SMALL: dict[str, Any] = {"num_envs": 2, "num_steps": 32, "total_timesteps": 128, "panel": "none", "final_episodes": 0}


def trained(folder: Path, callback: Any, **settings: Any) -> Any:
    return shoal.train("CartPole-v1", algo="a2c", run_dir=folder, callbacks=[callback], **SMALL | settings)


@pytest.mark.parametrize("kind", [EpisodeEnd, dict])
@pytest.mark.parametrize("schedule", ["sync", "overlap"])
def test_false_is_refused_wherever_it_is_returned(kind: type, schedule: str, tmp_path: Path) -> None:
    """With whose it was, and what ends a run."""

    def answers(run: Any, record: Any) -> Any:
        return False if isinstance(record, kind) else None

    with pytest.raises(ConfigError, match=r"answers returned False.*run.stop\(reason\) ends a run, with a checkpoint"):
        trained(tmp_path, answers, schedule=schedule)


def test_a_later_false_leaves_a_run_that_says_so(tmp_path: Path) -> None:
    """It has failed, and its status says why; without the callback it goes on."""

    def answers(run: Any, record: Any) -> Any:
        return np.bool_(0) if isinstance(record, dict) and record["step"] >= 192 else None

    with pytest.raises(ConfigError, match="returned False"):
        trained(tmp_path, answers, name="cut", total_timesteps=256)
    [run] = list_runs(tmp_path)
    status = run.read_status()
    assert status["state"] == "failed"
    assert "returned False" in status["reason"]
    assert shoal.resume(run.path, panel="none").steps == 256


def test_async_callbacks_are_refused(tmp_path: Path) -> None:
    """They would never have run; nothing is left that was never awaited."""

    async def answers(run: Any, record: Any) -> None:
        raise AssertionError

    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with pytest.raises(ConfigError, match="answers is async, and nobody awaits it"):
            trained(tmp_path, answers)


def test_generators_are_refused(tmp_path: Path) -> None:
    """Nothing of them would have run."""

    def answers(run: Any, record: Any) -> Any:
        yield record

    async def later(run: Any, record: Any) -> Any:
        yield record

    for callback in (answers, later):
        with pytest.raises(ConfigError, match="has a yield, so that calling it runs nothing of it"):
            trained(tmp_path, callback)


def test_other_answers_are_nobody_s(tmp_path: Path) -> None:
    """What an expression happens to be worth, such as a lambda's, means nothing."""
    seen: dict[str, object] = {}
    assert trained(tmp_path, lambda run, record: seen.setdefault("first", record)).steps == 128
    assert seen
