"""Files that are no runs, in the place of one: refused with what they are and what to give, wherever a run is named."""

from collections.abc import Callable
from pathlib import Path
from typing import Any
from zipfile import ZipFile

import pytest

import shoal
from shoal.cli import cost, export, report, resume, timeline
from shoal.cli import doctor as cli_doctor
from shoal.cli import eval as cli_eval
from shoal.types import ConfigError

ZIPPED = r"model\.zip is no run: zips, such as Stable-Baselines3's models, are not read.*train one here.*policy=module"
CALLS: dict[str, Callable[[str], object]] = {
    "init_from": lambda path: shoal.train("CartPole-v1", init_from=path, panel="none"),
    "load": shoal.load,
    "resume": lambda path: shoal.resume(path, panel="none"),
    "stages": shoal.stages,
    "offline": lambda path: shoal.evaluate_offline(path, "log"),
    "eval": lambda path: cli_eval.main([path], ""),
    "shoal resume": lambda path: resume.main([path], ""),
    "doctor": lambda path: cli_doctor.main([path], ""),
    "export": lambda path: export.main([path, "--to", "c"], ""),
    "report": lambda path: report.main([path], ""),
    "timeline": lambda path: timeline.main([path], ""),
    "cost": lambda path: cost.main([path], ""),
}


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with a zip as Stable-Baselines3 writes it."""
    monkeypatch.chdir(tmp_path)
    with ZipFile("model.zip", "w") as file:
        file.writestr("policy.pth", b"weights")
    return tmp_path


@pytest.mark.parametrize("call", CALLS.values(), ids=CALLS)
def test_a_zip_is_no_run(call: Callable[[str], object], folder: Path) -> None:
    """Nothing is left behind."""
    with pytest.raises(ConfigError, match=ZIPPED):
        call("model.zip")
    assert [path.name for path in folder.iterdir()] == ["model.zip"]


@pytest.mark.parametrize("name", ["model", "gone/model.zip"])
def test_a_zip_without_its_suffix_and_one_that_is_not_there(name: str) -> None:
    with pytest.raises(ConfigError, match=ZIPPED):
        shoal.load(name)


def test_other_files(folder: Path) -> None:
    """A file of a run is told whose it is; what is not there at all is as before."""
    (folder / "policy.pt").touch()
    with pytest.raises(
        ConfigError, match=r"policy\.pt is a file, and a run is a folder: give the folder that `shoal tr"
    ):
        shoal.load("policy.pt")
    small: dict[str, Any] = {"num_envs": 1, "num_steps": 8, "total_timesteps": 8, "final_episodes": 0, "panel": "none"}
    path = shoal.train("CartPole-v1", algo="a2c", **small).path
    for name in ("config.toml", "checkpoints/0000000001.json"):
        with pytest.raises(
            ConfigError, match=f"is a file, and a run is a folder: it lies in the run {path}: give that"
        ):
            shoal.load(path / name)
    shoal.train("CartPole-v1", algo="a2c", name="model", **small)
    assert shoal.load("model").provenance.run  # a run of that name goes before the zip
    with pytest.raises(ConfigError, match=r"no run at nothing; `shoal runs` lists them"):
        shoal.load("nothing")
    with pytest.raises(ConfigError, match=r"package\.module:Class, got 'model\.zip'; files of weights are not read"):
        shoal.train("CartPole-v1", policy="model.zip", panel="none")
