"""Says in one sentence what a machine lacks to build shoal: run by `make setup` before anything is installed."""

import importlib.util
import os
import shutil
import subprocess
import sys
import sysconfig
import tempfile

JOB_BYTES = 3 * 2**29
"""Memory of a compiler at the largest of the sources."""
PROGRAM = """
#include <concepts>
#include <cstddef>
#include <span>
template <class T> concept Steps = requires(T t) { { t.step() } -> std::same_as<int>; };
struct Env { int step() const { return 20; } };
static_assert(Steps<Env>);
int main() { return std::span<const int>{}.size() == 0 ? 0 : 1; }
"""


def find_lack() -> str:
    """One sentence with what is missing and the way out; empty when nothing is."""
    if sys.platform == "win32":
        return "shoal runs on Linux and on macOS; on Windows, use the Windows Subsystem for Linux."
    version = "{}.{}".format(*sys.version_info[:2])
    if tuple(sys.version_info) < (3, 11):
        return "shoal needs Python 3.11 or newer, this is " + version + "; name another: make setup PYTHON=python3.12"
    include = sysconfig.get_paths()["include"]
    if not os.path.exists(os.path.join(include, "Python.h")):
        return "Python.h of Python " + version + " is missing; install its headers (python3-dev on Debian and Ubuntu)."
    if importlib.util.find_spec("ensurepip") is None:
        return "Python " + version + " cannot make virtual environments; install python3-venv."
    return find_compiler_lack()


def find_compiler_lack() -> str:
    """The same for the C++ compiler, by compiling a program that needs C++20."""
    compiler = os.environ.get("CXX") or next((c for c in ("c++", "g++", "clang++") if shutil.which(c)), "")
    if not compiler:
        return "No C++ compiler was found; install one (g++ 11 or newer, clang++ 14 or newer) or set CXX."
    with tempfile.TemporaryDirectory() as folder:
        source = os.path.join(folder, "check.cpp")
        with open(source, "w", encoding="utf-8") as file:
            file.write(PROGRAM)
        command = [*compiler.split(), "-std=c++20", source, "-o", os.path.join(folder, "check")]
        try:
            result = subprocess.run(command, capture_output=True, text=True, check=False)
        except OSError as error:
            return "The C++ compiler " + compiler + " cannot be run: " + str(error)
    if result.returncode:
        return (
            compiler
            + " cannot build C++20; install g++ 11 or newer, or clang++ 14 or newer, or set CXX.\n"
            + result.stderr
        )
    return ""


def jobs() -> int:
    """Compilers that may run side by side: one a core, and as many as memory holds; 0 where it holds none."""
    path = os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "src", "shoal", "types", "room.py")
    found = importlib.util.spec_from_file_location("room", path)
    assert found is not None
    assert found.loader is not None
    room = importlib.util.module_from_spec(found)
    found.loader.exec_module(room)
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    free = room.free_bytes()
    return cores if free is None else min(cores, free // JOB_BYTES)


def print_jobs() -> str:
    """Prints how many compilers may run; one sentence where there is not the memory for one."""
    count = jobs()
    if not count:
        return (
            "Building shoal takes "
            + str(JOB_BYTES / 2**30)
            + " GiB of memory, more than this machine has free, or its container's limit leaves; "
            + "allow more, or set CMAKE_BUILD_PARALLEL_LEVEL=1 to try."
        )
    print(count)
    return ""


if __name__ == "__main__":
    sys.exit((print_jobs() if sys.argv[1:] == ["--jobs"] else find_lack()) or 0)
