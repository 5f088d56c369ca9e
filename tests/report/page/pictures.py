"""Pictures of the whole page of fixed runs, and whether a page of today looks like the committed ones.

    python -m tests.report.page.pictures     # takes them anew, after a change that is meant; then look at them

Fonts and their smoothing differ between machines. So the page is shown in DejaVu Sans, which matplotlib brings, and two
things are compared: the boxes of what stands on it, within some pixels, and the picture in cells of 4 × 4 pixels, in
which smoothing disappears. Labels in charts, which scripts write in the system's own font, are left out.
"""

from __future__ import annotations

import base64
import json
import math
import tempfile
from contextlib import ExitStack
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from threading import Thread
from typing import TYPE_CHECKING, Any

import numpy as np
from matplotlib import get_data_path
from PIL import Image

from shoal.report.page.gate import Gate
from shoal.report.page.server import Server
from shoal.report.page.watched import Runs
from shoal.run.timeline import FORMAT, KINDS, LEARNER
from tests.report.page.chromium import Tab, find_chromium
from tests.report.page.conftest import TOKEN, write_run

if TYPE_CHECKING:
    from collections.abc import Mapping

    from numpy.typing import NDArray

FOLDER = Path(__file__).parent / "pictures"
VIEWS: dict[str, dict[str, Any]] = {
    "light": {"color_scheme": "light"},
    "dark": {"color_scheme": "dark"},
    "phone": {"color_scheme": "light", "viewport": {"width": 390, "height": 2000}},
}
CELL = 4
"""Pixels of a side."""
FAR, SHARE, MEAN = 48, 0.004, 4.0
"""A cell differs whose color is so far off, of 255; of all of them that many may, and all may by that in the mean."""
NEAR_PX = 4.0
"""By which a box may be elsewhere, or larger."""
LABELS_PX = (64, 26)
"""Left and below a chart's lines: where its labels stand."""
BOXES = """
() => [...document.querySelectorAll(
    "h1, h2, #connection, #runs tr, #runs td, .swatch, progress, #guard li, .tools, .tools > *, details, figure,"
    + " canvas, .split, .part, .time p, #timeline button, #timeline canvas, #timeline li"
)].filter((one) => one.checkVisibility()).map((one) => {
    const box = one.getBoundingClientRect();
    const name = one.closest("[data-key]")?.dataset.key ?? (one.id || one.className || "");
    return [one.tagName.toLowerCase() + " " + name, box.x + scrollX, box.y + scrollY, box.width, box.height];
})
"""


@dataclass
class Taken:
    """A page as it is."""

    boxes: list[list[Any]]
    """Of each element its name, left, top, width and height."""
    picture: NDArray[np.float32]
    """In cells: [height, width, 3]."""
    canvases: list[list[float]]
    """Of each chart the same as a box, without its name."""


def write_scene(folder: Path) -> Path:
    """Two runs: one that is over, and one that the guard ended, with a timeline."""
    runs = folder / "runs"
    done: dict[str, object] = {"state": "finished", "steps": 12_000, "return": 3.0, "greedy_return": 5.5}
    write_run(runs / "first", lines=120, status=done, total_timesteps=12_000)
    reason = "guard: the weights are not finite (finite); the run ends"
    failed: dict[str, object] = {"state": "failed", "steps": 6000, "return": 2.0, "reason": reason}
    second = write_run(runs / "second", lines=60, status=failed, total_timesteps=12_000, seed=4)
    lines = [
        {"step": 100 * n, "loss/value": 1 + math.sin(n / 9), "episode/return": n / 30, "time/elapsed": n}
        for n in range(60)
    ]
    second.metrics.write_text("".join(json.dumps(line) + "\n" for line in lines))
    acted = {"update": 60, "step": 6000, "learner": "", "rule": "finite", "action": "stop", "said": reason}
    (second.path / "guard.json").write_text(json.dumps({"count": 1, "interventions": [acted]}))
    traces = [
        {"timeline": FORMAT, "kinds": list(KINDS)},
        {"update": 4, "begun": 1000, "ended": 2000, "cores": {"0": 900}},
        {"process": LEARNER, "pid": 7, "cpu": 900, "left_out": 0, "spans": [[2, 1000, 1600], [3, 1600, 2000]]},
    ]
    second.timeline.write_text("".join(json.dumps(line) + "\n" for line in traces))
    return runs


def take(tab: Tab) -> Taken:
    """The whole page as it stands in a tab, its timeline shown, all in one font; nothing moves any more."""
    font = base64.b64encode((Path(get_data_path()) / "fonts" / "ttf" / "DejaVuSans.ttf").read_bytes()).decode()
    source = f"@font-face {{ font-family: fixed; src: url(data:font/ttf;base64,{font}) }}"
    tab.tab.add_style_tag(content=f"{source} * {{ font-family: fixed !important; transition: none !important }}")
    tab.tab.evaluate("document.fonts.ready.then(() => true)")
    tab.tab.get_by_role("button", name="Show second").click()
    tab.until("document.querySelector('#timeline canvas') !== null")
    tab.tab.mouse.move(1, 1)
    width = tab.tab.viewport_size["width"]
    height = tab.tab.evaluate("document.documentElement.scrollHeight")
    tab.tab.set_viewport_size({"width": width, "height": height})  # charts are drawn where they are seen
    before = b""
    while (now := tab.tab.screenshot()) != before:
        before = now
        tab.tab.wait_for_timeout(600)
    boxes = tab.tab.evaluate(BOXES)
    picture = np.asarray(Image.open(BytesIO(now)).convert("RGB"), np.float32)
    rows, columns = picture.shape[0] // CELL, picture.shape[1] // CELL
    cells = picture[: rows * CELL, : columns * CELL].reshape(rows, CELL, columns, CELL, 3).mean((1, 3))
    return Taken(boxes, cells, [box[1:] for box in boxes if box[0].startswith("canvas")])


def differences(taken: Taken, name: str) -> list[str]:
    """What is other than in the committed picture of this name; nothing where it looks the same."""
    known = json.loads((FOLDER / f"{name}.json").read_text(encoding="utf-8"))
    names, now = [box[0] for box in known], [box[0] for box in taken.boxes]
    if names != now:
        gone, new = sorted(set(names) - set(now)), sorted(set(now) - set(names))
        return [f"other elements: {gone} are gone, {new} are new, {len(names)} were there and {len(now)} are"]
    found = [
        f"{before[0]} was at {before[1:]}, and is at {box[1:]}"
        for before, box in zip(known, taken.boxes, strict=True)
        if max(abs(x - y) for x, y in zip(before[1:], box[1:], strict=True)) > NEAR_PX
    ]
    picture = np.asarray(Image.open(FOLDER / f"{name}.png").convert("RGB"), np.float32)
    if picture.shape != taken.picture.shape:
        return [*found, f"the picture was {picture.shape}, and is {taken.picture.shape}"]
    off = np.where(_labels(taken), 0, np.abs(picture - taken.picture).max(2))
    if off.mean() > MEAN:
        found.append(f"colors differ by {off.mean():.1f} of 255 in the mean")
    far = off > FAR
    if far.mean() > SHARE:
        rows, columns = np.nonzero(far)
        place = [int(CELL * x) for x in (columns.min(), rows.min(), columns.max(), rows.max())]
        found.append(f"{100 * far.mean():.2f} % of the picture differ, between x, y = {place[:2]} and {place[2:]}")
    return found


def _labels(taken: Taken) -> NDArray[np.bool_]:
    """The cells in which charts have labels."""
    hidden = np.zeros(taken.picture.shape[:2], np.bool_)
    for left, top, width, height in taken.canvases:
        x, y, right, bottom = (int(pixels // CELL) for pixels in (left, top, left + width, top + height))
        aside, below = (pixels // CELL for pixels in LABELS_PX)
        hidden[y : bottom + 1, x : x + aside] = True
        hidden[bottom - below : bottom + 1, x : right + 1] = True
    return hidden


def keep(taken: Taken, name: str, folder: Path = FOLDER) -> None:
    """Writes what was taken as the picture that others are compared with."""
    folder.mkdir(exist_ok=True)
    rounded = [[box[0], *(round(x, 1) for x in box[1:])] for box in taken.boxes]
    lines = ",\n".join(json.dumps(box) for box in rounded)
    (folder / f"{name}.json").write_text(f"[\n{lines}\n]\n", encoding="utf-8")
    Image.fromarray(taken.picture.round().astype(np.uint8)).save(folder / f"{name}.png", optimize=True)


def open_view(browser: Any, origin: str, options: Mapping[str, Any]) -> Tab:
    """A tab of the page; its policy is not asked, so that the font can be set."""
    return Tab(browser, origin, TOKEN, bypass_csp=True, device_scale_factor=1, **options)


def main() -> None:
    """Takes all pictures anew."""
    from playwright.sync_api import sync_playwright

    with tempfile.TemporaryDirectory() as folder, ExitStack() as stack:
        runs = Runs([str(write_scene(Path(folder)))], Path(folder))
        stack.callback(runs.close)
        server = stack.enter_context(Server(runs, 0, Gate(TOKEN)))
        Thread(target=server.serve_forever, daemon=True).start()
        stack.callback(server.shutdown)
        playwright = stack.enter_context(sync_playwright())
        browser = playwright.chromium.launch(executable_path=find_chromium(), args=["--no-sandbox"])
        for name, options in VIEWS.items():
            keep(take(open_view(browser, f"http://127.0.0.1:{server.server_port}", options)), name)
        browser.close()


if __name__ == "__main__":
    main()
