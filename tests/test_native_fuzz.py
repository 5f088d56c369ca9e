"""A short part of the fuzz of the native bindings, in a process of its own; `make sanitize` runs the long one."""

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

from shoal import _native
from tests.native_calls import Call
from tests.native_fuzz import Fuzz

ROOT = Path(__file__).parents[1]


def test_no_call_of_a_binding_aborts_or_hangs() -> None:
    command = [sys.executable, "-m", "tests.native_fuzz", "--calls", "20000", "--seed", "1"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False, timeout=60)
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("20,000 calls of"), done.stdout


def missed_by(fuzz: Fuzz, maker: Callable[[], Call]) -> set[str]:
    fuzz.makers = [maker]
    fuzz.run(30)
    return set(fuzz.missed())


def test_bindings_that_are_not_fuzzed_are_named() -> None:
    """Functions, constructors, methods, properties and operators."""
    fuzz = Fuzz(0)
    missed = missed_by(fuzz, fuzz.call_gae)
    assert missed >= {"n_step", "Tally.__init__", "Pool.send", "Pool.frame (read)", "Optimizer.eps (written)"}
    assert missed >= {"Samples.__len__", "MlpPlan.rows_per_block", "RecurrentPlan.rows_per_block"}
    assert not {name for name in missed if name.startswith("gae")}


def test_a_parameter_that_is_not_fuzzed_is_named() -> None:
    fuzz = Fuzz(0)

    def call_without_kernels() -> Call:
        what, args, kwargs = fuzz.call_convert_pixels()
        return what, args[:-1], kwargs

    missed = missed_by(fuzz, call_without_kernels)
    assert "convert_pixels: kernels" in missed
    assert "convert_pixels" not in missed


def test_calls_that_are_all_refused_do_not_count() -> None:
    fuzz = Fuzz(0)

    def call_wrongly() -> Call:
        return _native.gae, [], {}

    assert "gae" in missed_by(fuzz, call_wrongly)
