"""Exported policies: the actions of Python on 10,000 observations, and how long one observation takes.

`python -m benchmarks.export` compiles every head and kind of network as C (cc -O3 -march=native), and compares its
actions with the policy's own; then it measures one observation of a policy of 64 x 64 units, beside the same policy in
torch, in shoal's native code, and in onnxruntime. The claim: the same actions, and at most 2 microseconds.
"""

from __future__ import annotations

import argparse
import importlib
import subprocess
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from gymnasium import spaces

from shoal.deploy.c.files import FLAGS
from shoal.deploy.export import export
from shoal.deploy.player import Player
from shoal.nets.network import Network
from shoal.nets.policy import make_policy
from shoal.types import Spec
from tests.deploy.cases import CASES, IMAGES, Case, observations
from tests.deploy.compiled import Compiled
from tests.deploy.test_c import torch_actions

if TYPE_CHECKING:
    from collections.abc import Callable

ROWS, ROWS_OF_IMAGES = 10_000, 200
CALLS = 2_000
LIMIT_US = 2.0


def differing(case: Case, rows: int) -> tuple[int, float]:
    """Of `rows` observations, those with another choice, and the largest difference of a number."""
    policy, spec = case.make()
    with tempfile.TemporaryDirectory() as folder:
        made = export(policy, spec, Path(folder) / "out", to="c")
        library = Compiled(made.folder, spec, flags=FLAGS)
        obs = observations(spec.observation_space, rows)
        state, theirs = library.state(rows), policy.initial_state(rows)
        chosen, apart = np.zeros(rows, np.bool_), 0.0
        for _ in range(1 if state is None else 3):
            _, ours = library.step(obs, rows, state=state)
            wanted, theirs = torch_actions(policy, obs, state=theirs)
            pairs = zip(spec.action.leaves, spec.action.flat(ours), spec.action.flat(wanted), strict=True)
            for leaf, mine, other in pairs:
                gap = np.abs(mine.reshape(rows, -1) - np.asarray(other).reshape(rows, -1))
                if leaf.dtype.kind == "f":
                    apart = max(apart, float(gap.max()))
                else:
                    chosen |= gap.any(1)
    return int(chosen.sum()), apart


def small() -> tuple[Any, Spec]:
    """A policy of two hidden layers of 64 tanh units, for 4 numbers and 2 choices."""
    spec = Spec.of("Small-v0", spaces.Box(-np.inf, np.inf, (4,), np.float32), spaces.Discrete(2))
    return make_policy(spec, Network(), 0), spec


def c_microseconds(policy: Any, spec: Spec) -> list[float]:
    """Of the example beside exported C, five times."""
    with tempfile.TemporaryDirectory() as folder:
        made = export(policy, spec, Path(folder) / "out", to="c")
        subprocess.run(["make", "-s", "-C", str(made.folder)], check=True)
        call = [str(made.folder / "example")]
        runs = [subprocess.run(call, capture_output=True, text=True, check=True) for _ in range(5)]
        return [float(one.stdout.split()[0]) for one in runs]


def microseconds(call: Callable[[], object]) -> float:
    """Of a call, the least mean of five rounds."""
    least = np.inf
    for _ in range(5):
        began = time.perf_counter()
        for _ in range(CALLS):
            call()
        least = min(least, (time.perf_counter() - began) / CALLS * 1e6)
    return least


def others(policy: Any, spec: Spec) -> dict[str, float]:
    """Microseconds of one observation elsewhere."""
    obs = np.zeros((1, 4), np.float32)
    start = np.zeros(1, np.bool_)
    native, plain = (Player(policy, spec, 1, native=native) for native in (True, False))
    found = {
        "shoal's native code, called from Python": microseconds(lambda: native.act(obs, start)),
        "torch": microseconds(lambda: plain.act(obs, start)),
    }
    try:
        runtime: Any = importlib.import_module("onnxruntime")
    except ImportError:
        return found
    with tempfile.TemporaryDirectory() as folder:
        made = export(policy, spec, Path(folder) / "out", to="onnx")
        options = runtime.SessionOptions()
        options.intra_op_num_threads = 1
        session = runtime.InferenceSession(str(made.folder / "policy.onnx"), options)
        found["onnxruntime, called from Python"] = microseconds(lambda: session.run(None, {"obs": obs}))
    return found


def main() -> None:
    """Prints both tables; the exit status says whether the claims hold."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--speed-only", action="store_true")
    given = parser.parse_args()
    torch.set_num_threads(1)
    failed = False
    if not given.speed_only:
        print("| policy | observations | other choices | largest difference |\n|---|---|---|---|")
        for name, case in (CASES | IMAGES).items():
            rows = ROWS if name in CASES else ROWS_OF_IMAGES
            count, apart = differing(case, rows)
            failed |= count > 0 or apart > 2e-5
            print(f"| {name} | {rows:,} | {count} | {apart:.1e} |", flush=True)
    policy, spec = small()
    found = c_microseconds(policy, spec)
    failed |= min(found) > LIMIT_US
    print(f"\nC, 64 x 64 tanh, one observation: least {min(found):.3f} us of {', '.join(f'{x:.3f}' for x in found)}")
    for name, value in others(policy, spec).items():
        print(f"{name}: {value:.1f} us")
    raise SystemExit(int(failed))


if __name__ == "__main__":
    main()
