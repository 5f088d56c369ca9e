"""A real browser for the page, and the checker of its accessibility, which npm fetches and nothing here commits."""

from __future__ import annotations

import base64
import hashlib
import os
import shutil
import subprocess
import tarfile
from pathlib import Path

import pytest

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
