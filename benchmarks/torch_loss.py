"""A loss in torch on native networks beside torch alone: the algorithm of docs/algorithms.md, native or not.

python -m benchmarks.torch_loss

The page's own code is trained on CartPole with the default network; each rollout is one batch, of 256 or of 1,024
steps. The two sides take turns in one process; the ratio is the median over the rounds.
"""

from __future__ import annotations

import importlib.util
import json
import math
import re
import statistics
import sys
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING

import shoal
from benchmarks import machine

if TYPE_CHECKING:
    from types import ModuleType

PAGE = Path(__file__).parents[1] / "docs" / "algorithms.md"
RESULT = Path(__file__).parent / "results" / "torch_loss.json"
ROUNDS = 5
STEPS = 150_000
BAR = 3.0
SHAPES = {256: (8, 32), 1024: (32, 32)}
"""Environments and steps of a rollout, by the size of the batch."""


def algorithm_of_the_page(folder: Path) -> ModuleType:
    """The page's block of Python that is a whole algorithm, as a module."""
    blocks = re.findall(r"^```python\n(.*?)^```$", PAGE.read_text(encoding="utf-8"), re.DOTALL | re.MULTILINE)
    (source,) = [block for block in blocks if "\ndef train(" in block]
    path = folder / "reinforce_of_the_page.py"
    path.write_text(source, encoding="utf-8")
    spec = importlib.util.spec_from_file_location(path.stem, path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[path.stem] = module
    spec.loader.exec_module(module)
    return module


def train(module: ModuleType, batch: int, folder: str, *, native: bool) -> float:
    """Steps per second of one training."""
    num_envs, num_steps = SHAPES[batch]
    result = shoal.train(
        "CartPole-v1",
        algo=module,
        native=native,
        num_envs=num_envs,
        num_steps=num_steps,
        num_threads=2,
        total_timesteps=STEPS,
        stop_at=math.inf,
        panel="none",
        run_dir=folder,
    )
    return result.steps / result.seconds


def main() -> None:
    """Measures both sizes, prints and writes."""
    rows: list[dict[str, object]] = []
    with tempfile.TemporaryDirectory() as folder:
        module = algorithm_of_the_page(Path(folder))
        for batch in SHAPES:
            rates: dict[bool, list[float]] = {True: [], False: []}
            for _ in range(ROUNDS):
                for native, found in rates.items():
                    found.append(train(module, batch, folder, native=native))
            ours, theirs = statistics.median(rates[True]), statistics.median(rates[False])
            ratios = [a / b for a, b in zip(rates[True], rates[False], strict=True)]
            ratio = statistics.median(ratios)
            rounds = ", ".join(f"{x:.2f}" for x in ratios)
            claim = f"loss in torch on native networks, batches of {batch:,} steps"
            note = f"the same with native=False; the algorithm of docs/algorithms.md; rounds {rounds}"
            rows.append({"claim": claim, "ours": ours, "theirs": theirs, "ratio": ratio, "bar": BAR, "note": note})
            print(f"{claim}: {ours:,.0f} beside {theirs:,.0f} steps/s, {ratio:.2f} x (rounds {rounds}; bar {BAR})")
    rows = [row | {"unit": "steps/s"} for row in rows]
    result = {
        "name": "torch_loss",
        "date": time.strftime("%Y-%m-%d"),
        "machine": machine.describe(),
        "versions": machine.versions(),
        "rows": rows,
    }
    RESULT.write_text(json.dumps(result, indent=1) + "\n")


if __name__ == "__main__":
    main()
