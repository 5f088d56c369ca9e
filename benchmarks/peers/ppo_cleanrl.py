"""Time CleanRL's own ppo.py, unchanged, from the checkout that CLEANRL_DIR names.

The script prints its rate once an iteration; only the moments of those lines are used, so that the
rate excludes imports and the first iterations.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from worker import emit, keep_to_cores

WARMUP_ITERATIONS = 5


def find_script() -> Path:
    """Return the path of ppo.py in the checkout; raise with the remedy where there is none."""
    folder = os.environ.get("CLEANRL_DIR")
    if not folder:
        raise SystemExit("CLEANRL_DIR is not set: name a checkout of CleanRL")
    script = Path(folder).expanduser() / "cleanrl" / "ppo.py"
    if not script.is_file():
        raise SystemExit(f"CLEANRL_DIR has no cleanrl/ppo.py: {script}")
    return script


def command(script: Path, args: argparse.Namespace) -> list[str]:
    """Return its command line; the budget covers the warm-up, and the last iteration to be timed."""
    batch = args.num_envs * args.num_steps
    total = args.steps + (WARMUP_ITERATIONS + 1) * batch
    values = {
        "env-id": "CartPole-v1",
        "total-timesteps": total,
        "num-envs": args.num_envs,
        "num-steps": args.num_steps,
        "num-minibatches": args.num_minibatches,
        "update-epochs": args.update_epochs,
        "seed": args.seed,
    }
    options = [text for name, value in values.items() for text in (f"--{name}", str(value))]
    return [sys.executable, "-u", str(script), *options, "--no-cuda"]


def speed(script: Path, args: argparse.Namespace) -> dict[str, Any]:
    """Run the script and time its iterations after the warm-up."""
    moments: list[float] = []
    log: list[str] = []
    environ = os.environ | {"OMP_NUM_THREADS": str(args.threads), "MKL_NUM_THREADS": str(args.threads)}
    with (
        tempfile.TemporaryDirectory() as folder,
        subprocess.Popen(
            command(script, args), cwd=folder, env=environ, text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT
        ) as process,
    ):
        for line in process.stdout or ():
            log.append(line)
            if line.startswith("SPS:"):
                moments.append(time.perf_counter())
    timed = moments[WARMUP_ITERATIONS:]
    if process.returncode or len(timed) < 2:
        raise SystemExit(f"ppo.py ended with {process.returncode}:\n{''.join(log[-20:])}")
    steps, seconds = (len(timed) - 1) * args.num_envs * args.num_steps, timed[-1] - timed[0]
    return {"steps": steps, "seconds": seconds, "sps": steps / seconds}


def main() -> None:
    """Measure and print the result."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--num_envs", type=int, default=4)
    parser.add_argument("--num_steps", type=int, default=128)
    parser.add_argument("--num_minibatches", type=int, default=4)
    parser.add_argument("--update_epochs", type=int, default=4)
    parser.add_argument("--steps", type=int, default=65_536)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--cores", type=int, default=2)
    parser.add_argument("--seed", type=int, default=1)
    args = parser.parse_args()
    args.cores = keep_to_cores(args.cores)
    emit(speed(find_script(), args), vars(args), "torch", "gymnasium", "numpy")


if __name__ == "__main__":
    main()
