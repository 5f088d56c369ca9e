"""Makes the Python code of the protocols in src/shoal/remote/; with --check: says whether it is as committed.

The tools are of 1.71.2, whatever protobuf and grpcio are installed beside shoal: code that they make loads on protobuf
5.29 to 7 and on grpcio from 1.71.2 on. They have a virtual environment of their own, .venv/.proto.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).parents[1]
PROTOS = (Path("shoal/remote/environments.proto"), Path("shoal/remote/policies.proto"))
MADE = ("_pb2.py", "_pb2.pyi", "_pb2_grpc.py")
TOOLS = ROOT / ".venv" / ".proto"
WANTED = ("grpcio-tools==1.71.2", "grpcio==1.71.2", "protobuf==5.29.6", "setuptools==80.9.0")


def tools() -> Path:
    """The interpreter that has the tools."""
    python = TOOLS / "bin" / "python"
    if not (TOOLS / "ready").exists():
        subprocess.run([sys.executable, "-m", "venv", "--clear", str(TOOLS)], check=True)
        pip = [str(python), "-m", "pip", "--disable-pip-version-check", "install", "-qq"]
        subprocess.run([*pip, *WANTED], check=True)
        (TOOLS / "ready").touch()
    return python


def generate(folder: Path) -> dict[Path, str]:
    """The code by where it belongs below src/."""
    outputs = [f"--{kind}_out={folder}" for kind in ("python", "pyi", "grpc_python")]
    command = [str(tools()), "-m", "grpc_tools.protoc", f"-I{ROOT / 'src'}", *outputs, *map(str, PROTOS)]
    subprocess.run(command, cwd=ROOT / "src", check=True)
    names = [proto.with_name(proto.stem + ending) for proto in PROTOS for ending in MADE]
    return {name: (folder / name).read_text(encoding="utf-8") for name in names}


def committed(name: Path) -> str:
    """What stands below src/; nothing where the protocol is new."""
    path = ROOT / "src" / name
    return path.read_text(encoding="utf-8") if path.exists() else ""


def main() -> int:
    """The exit status."""
    with tempfile.TemporaryDirectory() as folder:
        made = generate(Path(folder))
    other = [name for name, text in made.items() if committed(name) != text]
    if "--check" not in sys.argv:
        for name, text in made.items():
            (ROOT / "src" / name).write_text(text, encoding="utf-8")
    elif other:
        print(f"{', '.join(map(str, other))}: not what scripts/proto.py makes of the protocols; run it")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
