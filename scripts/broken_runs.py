"""Trains the doctor's collection: broken and healthy runs, shortened to what their directories need to tell.

    python scripts/broken_runs.py             # those that are not there yet
    python scripts/broken_runs.py NAME ...    # these, anew

What they are stands in tests/report/doctor/configurations.toml; each is trained in a process of its own.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import tomllib
from pathlib import Path
from typing import Any

import tomli_w

ROOT = Path(__file__).resolve().parents[1]
FOLDER = ROOT / "tests" / "report" / "doctor"
LINES, DIGITS = 32, 5
"""Of metrics.jsonl: the lines that stay, evenly spread, and the digits of their numbers."""


def read_all() -> dict[str, dict[str, Any]]:
    """The collection's runs by name."""
    text = (FOLDER / "configurations.toml").read_text(encoding="utf-8")
    return {entry["name"]: entry for entry in tomllib.loads(text)["run"]}


def train(entry: dict[str, Any], into: Path) -> None:
    """Trains one of them, to its end or to the update at which it is killed."""
    import shoal

    settings = dict(entry.get("settings", {}))
    killed_at = entry.get("killed_at")
    if entry.get("toy"):
        from tests.report.doctor.tasks import save_toy

        settings["model"] = save_toy(into / "toy")

    def kill(run: Any, record: Any) -> None:
        if killed_at is not None and run.updates >= killed_at:
            os.kill(os.getpid(), signal.SIGKILL)

    shoal.train(
        entry["env"],
        algo=entry["algo"],
        env_kwargs=entry.get("env_kwargs"),
        panel="none",
        callbacks=[kill],
        run_dir=str(into),
        name=entry["name"],
        num_threads=1,
        guard="off",  # it would mend what is to be found
        **settings,
    )


def shorten(run: Path, to: Path) -> None:
    """Copies what a reader of a run needs: settings, status and some lines of metrics, without this machine's paths."""
    shutil.rmtree(to, ignore_errors=True)
    to.mkdir(parents=True)
    config = tomllib.loads((run / "config.toml").read_text(encoding="utf-8"))
    config["run_dir"] = "runs"
    config["model"] = Path(config["model"]).name
    for of_this_machine in ("folders", "seal"):
        config.get("origin", {}).pop(of_this_machine, None)
    (to / "config.toml").write_text(tomli_w.dumps(config), encoding="utf-8")
    if (run / "run.json").exists():
        status = (run / "run.json").read_text(encoding="utf-8").replace(str(ROOT), "shoal")
        (to / "run.json").write_text(status + "\n", encoding="utf-8")
    lines = (run / "metrics.jsonl").read_text(encoding="utf-8").splitlines()
    last = len(lines) - 1
    kept = sorted({round(number * last / (LINES - 1)) for number in range(LINES)}) if lines else []
    with (to / "metrics.jsonl").open("w", encoding="utf-8") as file:
        for number in kept:
            rounded = {name: _rounded(value) for name, value in json.loads(lines[number]).items()}
            file.write(json.dumps(rounded) + "\n")


def _rounded(value: Any) -> Any:
    return float(f"{value:.{DIGITS}g}") if isinstance(value, float) else value


def main(names: list[str]) -> None:
    """Trains what is named, or missing."""
    entries = read_all()
    if names[:1] == ["--one"]:
        sys.path.insert(0, str(ROOT))
        train(entries[names[1]], Path(names[2]))
        return
    missing = [name for name in entries if not (FOLDER / "runs" / name).exists()]
    for name in names or missing:
        with tempfile.TemporaryDirectory() as into:
            command = [sys.executable, __file__, "--one", name, into]
            ended = subprocess.run(command, capture_output=True, text=True, check=False)
            found = list(Path(into).glob(f"*/*/{name}"))
            if not found:
                sys.exit(f"{name}: {ended.stderr[-2000:]}")
            shorten(found[0], FOLDER / "runs" / name)
        print(f"{name}: ended with {ended.returncode}", flush=True)


if __name__ == "__main__":
    main(sys.argv[1:])
