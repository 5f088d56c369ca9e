"""Every extra of the package resolves under the constraints, and what it adds can be imported."""

import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
EXTRAS: dict[str, list[str]] = PROJECT["optional-dependencies"]
MODULES = {
    "atari": ["ale_py"],
    "agents": ["pettingzoo", "mpe2"],
    "mujoco": ["mujoco", "imageio"],
    "video": ["imageio_ffmpeg"],
    "data": ["h5py"],
    "remote": ["grpc", "google.protobuf"],
    "fleet": ["ray", "cryptography"],
    "llm": ["tokenizers", "jinja2", "gguf", "reasoning_gym", "math_verify"],
    "sweep": ["optuna"],
    "export": ["onnx", "onnxscript", "onnxruntime"],
    "explain": ["sklearn"],
    "report": ["fpdf", "matplotlib_fontja"],
    "action-guard": ["quadprog"],
    "wandb": ["wandb"],
    "trackio": ["trackio"],
    "mlflow": ["mlflow", "sqlalchemy", "alembic"],
}
"""What a user of an extra imports; envpool alone would be a download of 740 MB."""
NEED_311_5 = {"docs"}
"""Extras whose pinned tools refuse Python 3.11.0 to 3.11.4."""


def run_pip(*arguments: str) -> None:
    command = [sys.executable, "-m", "pip", "--disable-pip-version-check", "-qq", *arguments]
    result = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stdout + result.stderr


def test_every_extra_is_known() -> None:
    assert set(MODULES) | NEED_311_5 | {"envpool", "dev"} == set(EXTRAS)


@pytest.mark.parametrize(
    ("given", "done"),
    [
        ("cpu", "--index-url 'https://download.pytorch.org/whl/cpu' -c constraints.txt torch"),
        ("https://mirror/simple", "--index-url 'https://mirror/simple' -c constraints.txt torch"),
        ("", "without a GPU: make setup TORCH_INDEX=cpu"),
    ],
)
def test_which_torch_the_set_up_takes(given: str, done: str) -> None:
    """A dry run. PyPI's is announced where it would be downloaded, as it is gigabytes."""
    command = ["make", "-n", "-B", "setup", f"TORCH_INDEX={given}"]
    result = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert sys.platform != "linux" or done in result.stdout


@pytest.mark.slow
@pytest.mark.timeout(600)
@pytest.mark.parametrize("extra", EXTRAS)
def test_an_extra_resolves(extra: str) -> None:
    """As in an environment with nothing installed: with the package's own dependencies, under all pins."""
    if extra in NEED_311_5 and sys.version_info < (3, 11, 5):
        pytest.skip(f"the extra {extra} needs Python 3.11.5")
    wanted = PROJECT["dependencies"] + EXTRAS[extra]
    run_pip("install", "--dry-run", "--ignore-installed", "-c", "constraints.txt", *wanted)


@pytest.mark.slow
@pytest.mark.timeout(600)
@pytest.mark.parametrize("extra", MODULES)
def test_an_extra_can_be_imported(extra: str, tmp_path: Path) -> None:
    """Installed into an empty folder that comes first on the path; the package's dependencies are those here."""
    run_pip("install", "--target", str(tmp_path), "-c", "constraints.txt", *EXTRAS[extra])
    program = f"import sys; sys.path.insert(0, {str(tmp_path)!r}); import {', '.join(MODULES[extra])}"
    result = subprocess.run([sys.executable, "-W", "error", "-c", program], capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr
