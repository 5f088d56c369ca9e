"""The live page in Chromium: seconds until its first picture, and frames while ten runs of 10,000 lines are moved.

    python -m benchmarks.page [--runs N] [--lines N] [--pictures FOLDER]

Writes runs, starts `shoal watch --web` on their folder, and opens the page twice: as soon as its address is printed,
when nothing is read yet, and again. Then all charts are dragged to and fro for some seconds, zoomed into, and drawn
while every run writes ten lines a second. A frame's time is from one animation frame to the next; a long task is one
that holds the page for more than 50 ms, as browsers count them. The browser draws without a graphics card here.
Adds a line to benchmarks/results/page.jsonl, and with --pictures pictures of the page; exits 1 where a bar is missed.
"""

from __future__ import annotations

import argparse
import json
import math
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, TextIO

import numpy as np

from benchmarks import machine

if TYPE_CHECKING:
    from collections.abc import Generator

    from playwright.sync_api import Browser, Page

RESULT = Path(__file__).parent / "results" / "page.jsonl"
FIRST_S, FRAME_MS, TASK_MS = 1.0, 34.0, 100.0
"""Bars: the first picture, 95 % of frames while charts are dragged, and the longest task then."""
MOVED_S = 4.0
CHROMIUM = ("chromium", "chromium-browser", "google-chrome")
FLAGS = ["--no-sandbox"]  # in a container there is no user to change to
WATCH = """
window.told = { frames: [], tasks: [] };
new PerformanceObserver((list) => list.getEntries().forEach((one) => told.tasks.push(one.duration)))
    .observe({ entryTypes: ["longtask"] });
let last = performance.now();
const next = (now) => { told.frames.push(now - last); last = now; requestAnimationFrame(next); };
requestAnimationFrame(next);
"""
DRAWN = """
new Promise((done) => {
    const look = () => {
        const [mark] = performance.getEntriesByName("curves");
        if (mark) done(mark.startTime);
        else setTimeout(look, 5);
    };
    look();
})
"""
"""Milliseconds from the request until curves were drawn first."""
TAKE = "(() => { const kept = told; window.told = { frames: [], tasks: [] }; return kept; })()"


def line(number: int, lines: int, rng: random.Random, run: int) -> dict[str, float]:
    """A line of metrics as PPO on CartPole writes it."""
    share = number / lines
    learned = 500 * (1 - math.exp(-5 * share * (1 + run / 10)))
    return {
        "step": 2048 * number,
        "update": number,
        "version": number,
        "episode/count": 10 * number,
        "episode/return": learned + rng.gauss(0, 15),
        "episode/return_std": 45 + rng.gauss(0, 3),
        "episode/length": learned + rng.gauss(0, 15),
        "speed/sps": 120_000 + rng.gauss(0, 4000),
        "time/elapsed": 0.017 * number,
        "time/environment": 0.005 * number,
        "time/acting": 0.003 * number,
        "time/learning": 0.006 * number,
        "time/transfer": 0.0,
        "time/waiting": 0.0,
        "loss/policy": rng.gauss(-0.01, 0.005),
        "loss/value": math.exp(rng.gauss(3 - 3 * share, 0.4)),
        "loss/entropy": 0.69 * (1 - 0.8 * share) + rng.gauss(0, 0.01),
        "loss/grad_norm": abs(rng.gauss(0.5, 0.2)),
        "loss/approx_kl": abs(rng.gauss(0.01, 0.003)),
        "loss/clip_fraction": abs(rng.gauss(0.1, 0.04)),
        "train/learning_rate": 3e-4 * max(0.0, 1 - share),
    }


def write_runs(root: Path, runs: int, lines: int) -> list[Path]:
    """So many runs of so many lines, a seed each; their folders."""
    folders: list[Path] = []
    for run in range(runs):
        folder = root / "CartPole-v1" / "ppo" / f"seed-{run + 1:02d}"
        folder.mkdir(parents=True)
        settings = {"env": "CartPole-v1", "algo": "ppo", "seed": run + 1, "device": "cpu"}
        settings |= {"total_timesteps": 2048 * lines}
        toml = "".join(f"{name} = {json.dumps(value)}\n" for name, value in settings.items())
        (folder / "config.toml").write_text(toml, encoding="utf-8")
        rng = random.Random(run)
        made = (json.dumps(line(number, lines, rng, run)) + "\n" for number in range(lines))
        (folder / "metrics.jsonl").write_text("".join(made), encoding="utf-8")
        status = {"state": "stopped", "steps": 2048 * lines, "updates": lines, "return": 490.0}
        (folder / "run.json").write_text(json.dumps(status), encoding="utf-8")
        folders.append(folder)
    return folders


def find_chromium() -> str:
    """Where Chromium is; SystemExit where it is not."""
    for name in CHROMIUM:
        if path := shutil.which(name):
            return path
    raise SystemExit("no Chromium here: apt-get install chromium")


@contextmanager
def served(root: Path) -> Generator[tuple[str, float]]:
    """The page's address, and the seconds until it was printed."""
    begun = time.perf_counter()
    command = [sys.executable, "-m", "shoal", "watch", str(root), "--web", "--port", "0"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        url = process.stdout.readline().strip()
        try:
            yield url, time.perf_counter() - begun
        finally:
            process.send_signal(signal.SIGINT)
            process.wait(10)


def open_page(browser: Browser, url: str) -> tuple[Page, float]:
    """The page, and the seconds from the request until curves were drawn."""
    page = browser.new_page(viewport={"width": 1280, "height": 1000})
    page.goto(url)
    return page, page.evaluate(DRAWN) / 1000


class Clock:
    """Processor seconds of a page's thread, whatever else the machine does."""

    def __init__(self, page: Page) -> None:
        self._session = page.context.new_cdp_session(page)
        self._session.send("Performance.setTimeDomain", {"timeDomain": "threadTicks"})
        self._session.send("Performance.enable")
        self._before = self._read()

    def _read(self) -> float:
        told = self._session.send("Performance.getMetrics")
        return {one["name"]: one["value"] for one in told["metrics"]}["TaskDuration"]

    def since(self) -> float:
        """Since the last call."""
        now = self._read()
        passed, self._before = now - self._before, now
        return passed


def forget(page: Page, clock: Clock) -> None:
    """What was seen until now counts no more."""
    page.evaluate(TAKE)
    clock.since()


def frames(page: Page, clock: Clock) -> dict[str, float]:
    """What was seen since the last time, in milliseconds."""
    told: Any = page.evaluate(TAKE)
    times = np.array(told["frames"][1:])
    return {
        "processor_ms_per_frame": 1000 * clock.since() / len(times),
        "frames": len(times),
        "median_ms": float(np.median(times)),
        "p95_ms": float(np.percentile(times, 95)),
        "most_ms": float(times.max()),
        "long_tasks": len(told["tasks"]),
        "longest_task_ms": max(told["tasks"], default=0.0),
    }


def drag(page: Page, clock: Clock) -> dict[str, float]:
    """Zooms in, and drags a chart to and fro, as all of them move with it."""
    box = page.locator("canvas").first.bounding_box()
    assert box is not None
    x, y = box["x"] + box["width"] / 2, box["y"] + box["height"] / 2
    for _ in range(3):
        page.locator("#closer").click()
    page.wait_for_timeout(500)
    forget(page, clock)
    page.mouse.move(x, y)
    page.mouse.down()
    begun = time.perf_counter()
    while (passed := time.perf_counter() - begun) < MOVED_S:
        page.mouse.move(x + 150 * math.sin(3 * passed), y)
    page.mouse.up()
    return frames(page, clock)


def zoom(page: Page, clock: Clock) -> dict[str, float]:
    """In and out by the keyboard, ten times a second."""
    page.locator("canvas").first.focus()
    forget(page, clock)
    begun = time.perf_counter()
    while time.perf_counter() - begun < MOVED_S:
        for key in "++--":
            page.keyboard.press(key)
            page.wait_for_timeout(100)
    page.keyboard.press("0")
    return frames(page, clock)


def grow(page: Page, clock: Clock, folders: list[Path], lines: int) -> dict[str, float]:
    """While every run writes ten lines a second."""
    rng = random.Random(99)
    files: list[TextIO] = [(folder / "metrics.jsonl").open("a", encoding="utf-8") for folder in folders]
    forget(page, clock)
    for number in range(int(MOVED_S * 10)):
        for run, file in enumerate(files):
            file.write(json.dumps(line(lines + number, lines, rng, run)) + "\n")
            file.flush()
        page.wait_for_timeout(100)
    for file in files:
        file.close()
    return frames(page, clock)


def take_pictures(browser: Browser, url: str, folder: Path) -> None:
    """The page in the light and in the dark."""
    for scheme in ("light", "dark"):
        page = browser.new_page(viewport={"width": 1280, "height": 1000}, color_scheme=scheme)
        page.goto(url)
        page.wait_for_timeout(2500)
        page.screenshot(path=folder / f"page-{scheme}.png")
        page.close()


def main() -> int:
    """Measures; 1 where a bar is missed."""
    from playwright.sync_api import sync_playwright

    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=10)
    parser.add_argument("--lines", type=int, default=10_000)
    parser.add_argument("--pictures", type=Path)
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder, sync_playwright() as playwright:
        root = Path(folder)
        folders = write_runs(root, given.runs, given.lines)
        browser = playwright.chromium.launch(executable_path=find_chromium(), args=FLAGS)
        with served(root) as (url, started_s):
            page, cold_s = open_page(browser, url)
            page.wait_for_timeout(8000)  # until all lines are read
            page.close()
            page, warm_s = open_page(browser, url)
            page.wait_for_timeout(1500)
            page.evaluate(WATCH)
            clock = Clock(page)
            page.wait_for_timeout(2000)
            found: dict[str, Any] = {"still": frames(page, clock)}
            found["dragged"] = drag(page, clock)
            found["zoomed"] = zoom(page, clock)
            found["growing"] = grow(page, clock, folders, given.lines)
            if given.pictures is not None:
                take_pictures(browser, url, given.pictures)
        found |= {"runs": given.runs, "lines": given.lines, "browser": browser.version}
        browser.close()
    found |= {"started_s": started_s, "first_picture_cold_s": cold_s, "first_picture_s": warm_s}
    found["machine"] = machine.describe()
    print(json.dumps(found, indent=1))
    with RESULT.open("a", encoding="utf-8") as file:
        file.write(json.dumps(found) + "\n")
    dragged = found["dragged"]
    met = max(cold_s, warm_s) < FIRST_S and dragged["p95_ms"] < FRAME_MS and dragged["longest_task_ms"] < TASK_MS
    return 0 if met else 1


if __name__ == "__main__":
    sys.exit(main())
