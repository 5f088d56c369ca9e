"""`make sanitize`: builds the native core under sanitizers; runs native tests and a fuzz of every binding on it.

Address and undefined behavior in one build, threads in another. A finding ends it with the sanitizer's report.
Leaks are not looked for: what Python, NumPy and torch keep until a process ends hides them.
"""

import argparse
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
LIBRARIES = {"address": "libasan.so", "thread": "libtsan.so"}
# Assertions: indices into vectors and spans, which may be wrong and still within the memory that holds them.
FLAGS = {"address": ["-fsanitize=address,undefined", "-D_GLIBCXX_ASSERTIONS"], "thread": ["-fsanitize=thread"]}
OPTIONS = {
    "address": {
        "ASAN_OPTIONS": "detect_leaks=0",
        "UBSAN_OPTIONS": "halt_on_error=1:print_stacktrace=1",
        "PYTHONMALLOC": "malloc",  # Python's own pools have no borders between objects
    },
    "thread": {"TSAN_OPTIONS": "halt_on_error=1:report_signal_unsafe=0"},
}
SHORT = ["-DSHOAL_OPTIMIZE=-O0", "-DSHOAL_KERNELS=baseline", "-DSHOAL_BOX2D=off"]
"""A quick build: not optimized, the kernels of one instruction set, no LunarLander (which is not fuzzed)."""
SHORT_CALLS = 15_000
"""Of the fuzz, after such a build: always the same ones, and too few to ask whether every binding was reached."""
NATIVE = (
    "tests/envs/test_env_native.py",
    "tests/envs/test_saved_rows.py",
    "tests/envs/test_gather.py",
    "tests/envs/test_lander.py",
    "tests/math/test_math_native.py",
    "tests/memory",
    "tests/nets/test_decoding.py",
    "tests/nets/test_images.py",
    "tests/nets/test_panels.py",
    "tests/remote/test_messages.py",
    "tests/test_net_learning.py",
    "tests/test_net_native.py",
    "tests/test_net_recurrent.py",
    "tests/test_net_recurrent_rollout.py",
    "tests/test_net_rollout.py",
    "tests/test_net_training.py",
    "tests/test_net_values.py",
    "tests/test_teams.py",
)
"""Tests of what the core does, also from several threads."""
USERS = ("tests/exact", "tests/learn", "tests/math", "tests/nets")
"""Tests of what is built on it, in one thread: they have nothing to tell the sanitizer of threads."""
TESTS = {"address": NATIVE + USERS, "thread": NATIVE}
# Compilers and their messages are not under test here, and the sanitizer would slow them. How much memory is touched is
# not what it is without one; and torch's own threads wait for each other in a library that it does not see.
LEFT_OUT = ("header", "compiles", "costs_nothing_until_it_is_used", "test_images_are_normalized_place_by_place")
CHOSEN = ["-m", "not slow and not gpu and not peers and not mutation", "-k", f"not {' and not '.join(LEFT_OUT)}"]
# Reports go past Python to file descriptor 2, which pytest would keep to itself.
PYTEST = ["-q", "-p", "no:cacheprovider", "--capture=sys", "--timeout", "0", "--durations", "5"]
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


@contextmanager
def stage(name: str) -> Generator[None]:
    """Says what begins, and how long it took."""
    print(f"{name} ...", flush=True)
    begun = time.monotonic()
    yield
    print(f"{name}: {time.monotonic() - begun:.0f} s", flush=True)


def build(kind: str, *, short: bool) -> Path:
    """The native core under a sanitizer, in a build folder of its own."""
    folder = ROOT / "build" / f"sanitize-{'short' if short else kind}"
    flags = " ".join([*FLAGS[kind], "-fno-sanitize-recover=all", "-fno-omit-frame-pointer", "-g1"])
    tools = Path(sys.executable).parent
    configure = [tools / "cmake", "-S", ROOT, "-B", folder, "-G", "Ninja", "-DCMAKE_BUILD_TYPE=RelWithDebInfo"]
    configure += [f"-DCMAKE_MAKE_PROGRAM={tools / 'ninja'}", f"-DPython_EXECUTABLE={sys.executable}"]
    configure += [f"-DCMAKE_CXX_FLAGS={flags}", *(SHORT if short else ["-DSHOAL_OPTIMIZE=-O1"])]
    subprocess.run(configure, check=True, stdout=subprocess.DEVNULL)
    subprocess.run([tools / "cmake", "--build", folder, *(["--", "--quiet"] if short else [])], check=True)
    return next(folder.glob("_native*.so"))


def find_library(name: str) -> str:
    """Where the compiler has it."""
    command = ["g++", f"-print-file-name={name}"]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()


def run(kind: str, module: Path, *command: str) -> None:
    """Runs a module of Python's on that core, with the sanitizer loaded first."""
    # The sanitizer looks for the throwing of exceptions when it starts: C++'s library has to be there by then.
    first = " ".join(find_library(name) for name in (LIBRARIES[kind], "libstdc++.so.6"))
    env = OPTIONS[kind] | os.environ | {"LD_PRELOAD": first}
    # GCC's sanitizer of threads does not stand a randomized layout of memory.
    fixed = ["setarch", "-R"] if shutil.which("setarch") else []
    done = subprocess.run([*fixed, sys.executable, "-c", LOAD, str(module), *command], check=False, cwd=ROOT, env=env)
    if done.returncode:
        sys.exit(f"make sanitize: {' '.join(command[:1])} ended with status {done.returncode} under {LIBRARIES[kind]}")


def main() -> None:
    """Builds and runs what the command line asks for."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--calls", type=int, default=100_000, help="of the fuzz, under each sanitizer")
    parser.add_argument("--seconds", type=float, default=float("inf"), help="after which the fuzz ends, at most")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--kind", choices=[*FLAGS, "all"], default="all")
    parser.add_argument("--no-tests", action="store_true", help="only the fuzz")
    parser.add_argument(
        "--short", action="store_true", help="address and undefined behavior, a quick build, a minute in all"
    )
    given = parser.parse_args()
    if given.short:
        given.kind, given.no_tests, given.calls = "address", True, min(given.calls, SHORT_CALLS)
    for kind in FLAGS if given.kind == "all" else [given.kind]:
        with stage(f"Building with {FLAGS[kind][0]}"):
            module = build(kind, short=given.short)
        with stage(f"Fuzzing under {LIBRARIES[kind]}"):
            fuzz = ["--calls", str(given.calls), "--seconds", str(given.seconds), "--seed", str(given.seed)]
            run(kind, module, "tests.native_fuzz", *fuzz)
        if not given.no_tests:
            with stage(f"Testing under {LIBRARIES[kind]}"):
                run(kind, module, "pytest", *PYTEST, *CHOSEN, *TESTS[kind])


if __name__ == "__main__":
    main()
