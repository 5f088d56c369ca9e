"""A real browser for the page, tabs in it, and the checker of its accessibility, which npm fetches."""

from __future__ import annotations

import base64
import hashlib
import os
import shutil
import subprocess
import tarfile
import time
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

NAMES = ("chromium", "chromium-browser", "google-chrome")
AXE, SHA512 = "4.14.1", "FHfa+lmNjQZfJz1q8wKqIDwC6DExcHt/pkjNQb09a3NPjCKg2rhu5qb2S4r76ASyFNNtuFooJpZe37OgudVGtQ=="


def find_chromium() -> str:
    """Where the browser is; skips the test where there is none."""
    pytest.importorskip("playwright", reason="no playwright: pip install -e '.[dev]'")
    for name in NAMES:
        if path := shutil.which(name):
            return path
    pytest.skip("no Chromium: apt-get install chromium")


def read_axe() -> str:
    """axe-core's source, of one version and one sha512, from a folder of this user or from npm."""
    cache = Path(os.environ.get("XDG_CACHE_HOME", "~/.cache")).expanduser() / "shoal"
    packed = cache / f"axe-core-{AXE}.tgz"
    if not packed.exists():
        if shutil.which("npm") is None:
            pytest.skip("no npm, which fetches axe-core: apt-get install npm")
        cache.mkdir(parents=True, exist_ok=True)
        command = ["npm", "pack", f"axe-core@{AXE}", "--pack-destination", str(cache), "--silent"]
        try:
            subprocess.run(command, check=True, capture_output=True, timeout=60, cwd=cache)
        except (subprocess.SubprocessError, OSError) as error:
            pytest.skip(f"npm cannot fetch axe-core {AXE}: {error}")
    digest = base64.b64encode(hashlib.sha512(packed.read_bytes()).digest()).decode()
    assert digest == SHA512, f"{packed} is not axe-core {AXE}: delete it"
    with tarfile.open(packed) as archive:
        file = archive.extractfile("package/axe.min.js")
        assert file is not None
        return file.read().decode()


class Tab:
    """A page in the browser, with everything that went wrong in it."""

    def __init__(self, browser: Any, origin: str, token: str, **options: Any) -> None:
        self.context = browser.new_context(**{"viewport": {"width": 1280, "height": 1000}, **options})
        self.tab = self.context.new_page()
        self.wrong: list[str] = []
        self.tab.on("pageerror", lambda error: self.wrong.append(f"{error}"))
        self.tab.on("console", lambda said: self.wrong.append(said.text) if said.type == "error" else None)
        self.tab.on("dialog", lambda dialog: (self.wrong.append("a dialog"), dialog.dismiss()))
        self.asked: list[str] = []
        self.tab.on("request", lambda request: self.asked.append(request.url))
        self.tab.goto(f"{origin}/?token={token}")
        self.until("performance.getEntriesByName('curves').length > 0")

    def until(self, condition: str) -> None:
        """Waits until it holds there; at most ten seconds. The page's own policy forbids to wait inside it."""
        end = time.monotonic() + 10
        while not self.tab.evaluate(condition):
            assert time.monotonic() < end, f"never: {condition}; {self.wrong}"
            self.tab.wait_for_timeout(30)

    def picture(self, key: str) -> Any:
        """A chart as pixels [height, width, 3]."""
        chart = self.tab.locator(f'figure[data-key="{key}"] canvas')
        chart.scroll_into_view_if_needed()
        self.tab.wait_for_timeout(300)
        return np.asarray(Image.open(BytesIO(chart.screenshot())).convert("RGB")).astype(int)
