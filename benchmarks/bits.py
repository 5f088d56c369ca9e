"""Whether a change of code changes bits: digests of the weights after 20 updates of every preset.

python benchmarks/bits.py --out bits.json               writes a file of digests; cases not run now stay as they were
python benchmarks/bits.py --against OTHER.json          compares with one, and exits with 1 where they differ
python benchmarks/bits.py --only CartPole --only a2c    only the cases whose name has one of these

Only public names of shoal are used, so the same file runs on older versions: give it to the interpreter of another
checkout. Equal digests are expected on the same kind of CPU and with the same versions of the libraries only.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import math
import os
import platform
import sys
import tempfile
import time
import warnings
from dataclasses import dataclass, field
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

import shoal
from shoal.nets.policy import Network

if TYPE_CHECKING:
    from torch import Tensor, nn

UPDATES = 20
SEED = 1
PYTHON_ROWS = ("serial", "workers")
NATIVE_AND_PYTHON_ROWS = ("native", *PYTHON_ROWS)
# An Atari game would otherwise play up to 108,000 frames in each of the greedy episodes that end a run.
SHORT_ATARI: dict[str, Any] = {"max_num_frames_per_episode": 200}
# What the presets had in 87e8447, and have no longer.
CARTPOLE: dict[str, Any] = {"update_epochs": 10, "learning_rate": 0.002}
LANDER: dict[str, Any] = {"num_steps": 512, "num_minibatches": 32, "network": {"activation": "tanh"}}


@dataclass(frozen=True, slots=True)
class Subject:
    """A preset, and what is needed to run it for a given number of updates."""

    algo: str
    env: str
    num_envs: int
    """As the preset has it."""
    num_steps: int
    """As the preset has it."""
    backends: tuple[str, ...]
    agents: int = 1
    """Rows of one environment that learn."""
    updates: int = UPDATES
    preset: str | None = None
    """Chosen by name instead of by environment."""
    env_kwargs: dict[str, Any] | None = None
    former_env: str | None = None
    """The id in versions that do not know `env`."""
    torch_too: bool = False
    """Whether torch's own update is run as well (`native=False`)."""
    settings: dict[str, Any] = field(default_factory=dict[str, Any])


SUBJECTS = (
    Subject("ppo", "CartPole-v1", 32, 64, NATIVE_AND_PYTHON_ROWS, torch_too=True, settings=CARTPOLE),
    Subject("ppo", "LunarLander-v3", 16, 512, NATIVE_AND_PYTHON_ROWS, settings=LANDER),
    Subject("ppo", "Acrobot-v1", 32, 128, NATIVE_AND_PYTHON_ROWS),
    Subject("ppo", "MountainCar-v0", 256, 64, NATIVE_AND_PYTHON_ROWS),
    Subject("ppo", "MountainCarContinuous-v0", 64, 128, NATIVE_AND_PYTHON_ROWS),
    Subject("ppo", "Pendulum-v1", 16, 128, NATIVE_AND_PYTHON_ROWS, torch_too=True),
    Subject("ppo", "mpe2.simple_spread_v3:parallel_env", 32, 25, ("serial",), agents=3),
    Subject(
        "ppo",
        "shoal.envs.agents.tictactoe:TicTacToe",
        128,
        16,
        ("serial",),
        former_env="shoal.envs.noughts:Noughts",
    ),
    Subject("ppo", "ALE/Pong-v5", 8, 128, ("ale",), updates=2, env_kwargs=SHORT_ATARI),
    Subject("ppo", "ALE/Breakout-v5", 8, 128, ("ale",), updates=2, env_kwargs=SHORT_ATARI),
    Subject("ppo", "shoal/Breakout-v0", 64, 128, ("native",)),
    Subject("ppo", "shoal/Pong-v0", 128, 64, ("native",)),
    Subject("ppo", "shoal/Snake-v0", 64, 128, ("native",)),
    Subject("a2c", "CartPole-v1", 32, 5, NATIVE_AND_PYTHON_ROWS, preset="paac"),
    Subject("a2c", "CartPole-v1", 32, 16, NATIVE_AND_PYTHON_ROWS, torch_too=True),
    Subject("a2c", "ALE/Breakout-v5", 32, 5, ("ale",), env_kwargs=SHORT_ATARI),
)


@dataclass(frozen=True, slots=True)
class Case:
    """A subject on one kind of rows."""

    name: str
    subject: Subject
    backend: str
    native: bool = True


def list_cases() -> list[Case]:
    """Every subject on each of its backends."""
    cases: list[Case] = []
    for subject in SUBJECTS:
        preset = f" ({subject.preset})" if subject.preset else ""
        title = f"{subject.algo}{preset} {subject.env}"
        cases += [Case(f"{title} {backend}", subject, backend) for backend in subject.backends]
        if subject.torch_too:
            backend = subject.backends[0]
            cases.append(Case(f"{title} {backend} torch", subject, backend, native=False))
    return cases


def digest_of(tensors: list[Tensor]) -> str:
    """The sha256 of the tensors' kinds, shapes and bytes, in order."""
    digest = hashlib.sha256()
    for tensor in tensors:
        array = tensor.detach().cpu().contiguous()
        digest.update(f"{array.dtype} {tuple(array.shape)}".encode())
        digest.update(array.numpy().tobytes())
    return digest.hexdigest()


def digest_policy(policy: nn.Module) -> str:
    """The sha256 of all parameters, then all buffers."""
    return digest_of([*policy.parameters(), *policy.buffers()])


def name_env(subject: Subject) -> str:
    """The subject's id as the version of shoal that runs knows it."""
    if subject.former_env is None:
        return subject.env
    module, _, _ = subject.env.partition(":")
    path = Path(shoal.__file__).parent.parent.joinpath(*module.split(".")).with_suffix(".py")
    return subject.env if path.exists() else subject.former_env


def run_case(case: Case) -> dict[str, Any]:
    """Trains for the subject's updates: the digest, the steps and the greedy return."""
    subject = case.subject
    settings = dict(subject.settings)
    if "network" in settings:
        settings["network"] = Network(**settings["network"])
    if subject.preset is not None:
        settings["preset"] = subject.preset
    if case.backend == "workers":
        settings["num_workers"] = 2
    begun = time.perf_counter()
    with tempfile.TemporaryDirectory() as folder:
        result = shoal.train(
            name_env(subject),
            algo=subject.algo,
            backend=case.backend,
            native=case.native,
            env_kwargs=subject.env_kwargs,
            seed=SEED,
            num_threads=2,
            panel="none",
            run_dir=folder,
            stop_at=math.inf,
            total_timesteps=subject.updates * subject.num_envs * subject.num_steps * subject.agents,
            **settings,
        )
    return {
        "weights": digest_policy(result.policy),
        "updates": subject.updates,
        "steps": result.steps,
        "greedy_return": result.greedy_return,
        "seconds": round(time.perf_counter() - begun, 1),
    }


def describe_machine() -> dict[str, str]:
    """What equal bits depend on besides the code."""
    named = ("torch", "numpy", "gymnasium")
    versions = {name: version(name) for name in named}
    return {"machine": platform.machine(), "python": platform.python_version(), **versions}


def write_records(path: Path, records: dict[str, dict[str, Any]]) -> None:
    """Puts the records among those that the file already has, in the order of the cases."""
    known = json.loads(path.read_text(encoding="utf-8"))["cases"] if path.exists() else {}
    known |= records
    names = [case.name for case in list_cases() if case.name in known]
    ordered = {name: known[name] for name in names}
    whole = {"date": time.strftime("%Y-%m-%d"), "on": describe_machine(), "cases": ordered}
    path.write_text(json.dumps(whole, indent=1) + "\n", encoding="utf-8")


def run_cases(only: list[str], out: Path | None) -> dict[str, dict[str, Any]]:
    """Runs the cases whose name contains one of `only` (all, where it is empty); a failure is a record too."""
    records: dict[str, dict[str, Any]] = {}
    for case in list_cases():
        if only and not any(part in case.name for part in only):
            continue
        try:
            records[case.name] = run_case(case)
        except Exception as error:  # whatever a version raises is its result for that case
            records[case.name] = {"error": f"{type(error).__name__}: {error}"}
        print(f"{case.name}: {json.dumps(records[case.name])}", flush=True)
        if out is not None:
            write_records(out, records)
    return records


def compare(ours: dict[str, dict[str, Any]], theirs: dict[str, dict[str, Any]]) -> list[str]:
    """A sentence for every case whose weights or steps differ, failed, or stand in one of the files only."""
    differences: list[str] = []
    for name, record in ours.items():
        other = theirs.get(name)
        if other is None:
            differences.append(f"{name}: not in the other file")
        elif "error" in record:
            differences.append(f"{name}: {record['error']}")
        elif record["weights"] != other.get("weights"):
            returns = f"greedy return {record['greedy_return']:.2f} against {other.get('greedy_return')}"
            differences.append(f"{name}: other weights ({returns})")
        elif record["steps"] != other["steps"]:
            differences.append(f"{name}: {record['steps']} steps against {other['steps']}")
    return differences


def main() -> int:
    """Runs, writes and compares as the command line says."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, help="write the digests here")
    parser.add_argument("--against", type=Path, help="compare with the digests in this file")
    parser.add_argument("--only", action="append", default=[], help="part of a case's name; may be given again")
    options = parser.parse_args()
    warnings.simplefilter("ignore")  # a run of 20 updates is short on purpose
    records = run_cases(options.only, options.out)
    if options.against is None:
        return 0
    saved = json.loads(options.against.read_text(encoding="utf-8"))
    differences = compare(records, saved["cases"])
    print(f"{len(records) - len(differences)} of {len(records)} cases are equal bit for bit")
    for sentence in differences:
        print(f"  {sentence}")
    if differences and saved["on"] != describe_machine():
        print(f"the other file was written on {saved['on']}, this is {describe_machine()}")
    return 1 if differences else 0


if __name__ == "__main__":
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    sys.exit(main())
