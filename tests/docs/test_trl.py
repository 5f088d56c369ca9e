"""docs/trl.md is tried row by row, with a toy model; names of TRL's are refused with shoal's."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

import pytest

import shoal
from shoal.algos import distill, grpo
from shoal.experiment.foreign import FOREIGN_LLM
from shoal.experiment.options import Options
from shoal.llm.settings import Language
from tests.docs.tables import DOCS, read_code, read_rows
from tests.llm.toy import Successor, toy_model

if TYPE_CHECKING:
    from pathlib import Path

    from shoal.llm.tasks.task import Prompt

ROWS = read_rows("trl.md", 3)
KNOWN = [name for kind in (Options, grpo.Config, distill.Config) for name in kind.__dataclass_fields__]
OF_LANGUAGE = [f"language.{name}" for name in Language.__dataclass_fields__]


def right(prompt: Prompt, answer: str) -> float:
    """A reward function."""
    return float(answer == prompt.truth)


def short(_: Prompt, answer: str) -> float:
    """Another one."""
    return -float(len(answer))


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the toy model."""
    from shoal.llm.model_folder import save_model

    path = tmp_path_factory.mktemp("models") / "toy"
    save_model(toy_model(), path)
    return path


def train(folder: Path, run_dir: Path, **given: Any) -> Any:
    """`shoal.train` for two batches."""
    whole: dict[str, Any] = {"algo": "grpo", "num_prompts": 4, "num_generations": 4, "max_completion_length": 3}
    whole |= {"total_timesteps": 32, "final_episodes": 0, "panel": "none", "run_dir": str(run_dir)}
    return shoal.train(Successor, model=str(folder), **whole | given)


@pytest.mark.slow
@pytest.mark.parametrize("cells", ROWS, ids=lambda cells: cells[0][:40])
def test_row(cells: list[str], folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What stands between backticks is a setting that trains, a call, or a name that there is."""
    monkeypatch.chdir(tmp_path)
    run = train(folder, tmp_path / "runs")
    names = {"shoal": shoal, "run": run}
    for code in read_code(cells[1]):
        if code.startswith("shoal.resume"):
            eval(code.replace(")", ", factory=Successor, panel='none')"), names | {"Successor": Successor})
        elif "eval_file" in code or code == "model=FOLDER":
            continue  # of files, in tests of tasks and of models
        elif re.match(r"\w+=", code):
            ours = code.replace("my_rewards", __name__)
            given: dict[str, Any] = {"run_dir": tmp_path / "own", **eval(f"dict({ours})")}
            train(folder, **given)
        elif re.fullmatch(r"language\.\w+", code):
            assert code in OF_LANGUAGE


def test_the_other_name_is_refused(folder: Path, tmp_path: Path) -> None:
    """The message says shoal's; every such name is on the page, and none of them is a setting here."""
    said = " ".join(there for there, _, _ in ROWS)
    assert [name for name in FOREIGN_LLM if name not in said or name in KNOWN] == []
    for name, here in FOREIGN_LLM.items():
        with pytest.raises(shoal.ConfigError, match=re.escape(f"TRL's {name} is here: {here}")):
            train(folder, tmp_path, **{name: 1})


def test_defaults_are_as_the_page_says() -> None:
    """Those that differ from TRL's, and those that are the same."""
    cfg, text = grpo.Config(), (DOCS / "trl.md").read_text(encoding="utf-8")
    assert f"`max_completion_length` {cfg.max_completion_length} (256 there)" in text
    assert (cfg.learning_rate, cfg.beta, cfg.epsilon, cfg.num_generations) == (1e-4, 0.0, 0.2, 8)
    assert (cfg.num_iterations, cfg.loss_normalization, cfg.learning_rate_schedule) == (1, "token", "constant")
