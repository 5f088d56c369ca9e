"""`make sanitize`: builds the native core under sanitizers; runs native tests and a fuzz of every binding on it.

Address and undefined behavior in one build, threads in another. A finding ends it with the sanitizer's report.
"""

import argparse
import os
import shutil
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
KINDS = {"address": ("address,undefined", "libasan.so"), "thread": ("thread", "libtsan.so")}
OPTIONS = {
    "ASAN_OPTIONS": "detect_leaks=0",
    "UBSAN_OPTIONS": "halt_on_error=1:print_stacktrace=1",
    "TSAN_OPTIONS": "halt_on_error=1:report_signal_unsafe=0",
}
TESTS = (
    "tests/envs/test_env_native.py",
    "tests/envs/test_saved_rows.py",
    "tests/envs/test_gather.py",
    "tests/envs/test_lander.py",
    "tests/math/test_math_native.py",
    "tests/memory/test_forked.py",
    "tests/memory/test_memory.py",
    "tests/remote/test_messages.py",
    "tests/test_net_learning.py",
    "tests/test_net_native.py",
    "tests/test_net_recurrent.py",
    "tests/test_net_recurrent_rollout.py",
    "tests/test_net_rollout.py",
    "tests/test_net_training.py",
    "tests/test_teams.py",
)
LOAD = """
import importlib.util, runpy, sys
import shoal
found = importlib.util.spec_from_file_location("shoal._native", sys.argv[1])
shoal._native = sys.modules["shoal._native"] = importlib.util.module_from_spec(found)
found.loader.exec_module(shoal._native)
sys.argv = sys.argv[2:]
runpy.run_module(sys.argv[0], run_name="__main__", alter_sys=True)
"""
"""Runs a module of Python's with another native core in the place of the installed one."""


def build(kind: str) -> Path:
    """The native core under a sanitizer, in a build folder of its own."""
    folder = ROOT / "build" / f"sanitize-{kind}"
    flags = f"-fsanitize={KINDS[kind][0]} -fno-sanitize-recover=all -fno-omit-frame-pointer -g1"
    tools = Path(sys.executable).parent
    configure = [tools / "cmake", "-S", ROOT, "-B", folder, "-G", "Ninja", "-DCMAKE_BUILD_TYPE=RelWithDebInfo"]
    configure += [f"-DCMAKE_MAKE_PROGRAM={tools / 'ninja'}", f"-DPython_EXECUTABLE={sys.executable}"]
    configure += [f"-DCMAKE_CXX_FLAGS={flags}", "-DSHOAL_OPTIMIZE=-O1"]
    subprocess.run(configure, check=True, stdout=subprocess.DEVNULL)
    subprocess.run([tools / "cmake", "--build", folder], check=True)
    return next(folder.glob("_native*.so"))


def find_library(name: str) -> str:
    """Where the compiler has it."""
    command = ["g++", f"-print-file-name={name}"]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()


def run(kind: str, module: Path, *command: str) -> None:
    """Runs a module of Python's on that core, with the sanitizer loaded first."""
    # The sanitizer looks for the throwing of exceptions when it starts: C++'s library has to be there by then.
    first = " ".join(find_library(name) for name in (KINDS[kind][1], "libstdc++.so.6"))
    env = OPTIONS | os.environ | {"LD_PRELOAD": first}
    # GCC's sanitizer of threads does not stand a randomized layout of memory.
    fixed = ["setarch", "-R"] if shutil.which("setarch") else []
    subprocess.run([*fixed, sys.executable, "-c", LOAD, str(module), *command], check=True, cwd=ROOT, env=env)


def main() -> None:
    """Builds and runs what the command line asks for."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--calls", type=int, default=100_000, help="of the fuzz, under each sanitizer")
    parser.add_argument("--seconds", type=float, default=float("inf"), help="after which the fuzz ends, at most")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--kind", choices=[*KINDS, "all"], default="all")
    parser.add_argument("--no-tests", action="store_true", help="only the fuzz")
    given = parser.parse_args()
    for kind in KINDS if given.kind == "all" else [given.kind]:
        print(f"Building under the sanitizers of {KINDS[kind][0]}", flush=True)
        module = build(kind)
        fuzz = ["--calls", str(given.calls), "--seconds", str(given.seconds), "--seed", str(given.seed)]
        run(kind, module, "tests.native_fuzz", *fuzz)
        if not given.no_tests:
            chosen = ["-m", "not slow and not gpu and not peers and not mutation", "-k", "not header and not resident"]
            run(kind, module, "pytest", "-q", "-p", "no:cacheprovider", "--timeout", "0", *chosen, *TESTS)


if __name__ == "__main__":
    main()
