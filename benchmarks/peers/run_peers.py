"""Run peers one after another, each in its own environment, and collect what they report.

    python benchmarks/peers/run_peers.py --out peers.json [PEER | PEER/TASK ...] [--list]

`measure` is what a benchmark calls to put one peer beside shoal in the same run.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import select
import signal
import subprocess
import sys
import tempfile
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
if str(HERE) not in sys.path:
    sys.path.insert(0, str(HERE))

from setup_peers import build_environment, is_ready, load_peers, venv_python  # noqa: E402

SUSPECT_BELOW = 0.8
DEFAULT_TIMEOUT_S = 180.0


def worker_options(settings: dict[str, Any]) -> list[str]:
    """Return settings as command-line options: lists joined by commas, truths as 0 and 1."""
    options: list[str] = []
    for key, value in settings.items():
        if isinstance(value, bool):
            text = str(int(value))
        elif isinstance(value, list | tuple):
            text = ",".join(map(str, value))
        else:
            text = str(value)
        options += [f"--{key}", text]
    return options


def worker_environment(settings: dict[str, Any]) -> dict[str, str]:
    """Return the worker's environment: no CUDA, and the thread pools at the size asked for."""
    threads = str(settings.get("threads", 1))
    names = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")
    return build_environment() | dict.fromkeys(names, threads) | {"PYTHONUNBUFFERED": "1", "PYTHONWARNINGS": "ignore"}


def run_worker(command: list[str], environ: dict[str, str], timeout_s: float) -> tuple[int | None, str, str]:
    """Run a worker in a folder and a session of its own; return its status (None: timed out) and output.

    Whatever the worker started is ended with it.
    """
    with tempfile.TemporaryDirectory(prefix="peer-") as folder:
        process = subprocess.Popen(
            command, cwd=folder, env=environ, text=True, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
            stderr=subprocess.PIPE, start_new_session=True,
        )  # fmt: skip
        status: int | None
        try:
            out, err = process.communicate(timeout=timeout_s)
            status = process.returncode
        except subprocess.TimeoutExpired:
            end_group(process.pid)
            out, err = process.communicate()
            status = None
        except BaseException:
            end_group(process.pid)
            process.wait()
            raise
        end_group(process.pid)
    return status, out, err


def end_group(group: int) -> None:
    """Kill a worker's process group, if any of it is left."""
    try:
        os.killpg(group, signal.SIGKILL)
    except ProcessLookupError:
        return


def last_json(text: str) -> dict[str, Any] | None:
    """Return the JSON object on the last line that is one."""
    for line in reversed(text.splitlines()):
        if line.startswith("{"):
            try:
                return json.loads(line)
            except json.JSONDecodeError:
                continue
    return None


def unavailable(peer: str, entry: dict[str, Any]) -> str | None:
    """Return why a peer cannot run here, or None."""
    needed = entry.get("needs_env")
    if needed and not os.environ.get(needed):
        return f"{needed} is not set"
    if not is_ready(peer, entry):
        return f"run `python benchmarks/peers/setup_peers.py {peer}`"
    return None


def measure(peer: str, task: str, *, timeout_s: float | None = None, **overrides: object) -> dict[str, Any]:
    """Run one task of one peer and return its record; `overrides` replace settings of the task.

    `status` is "ok", "failed" (with `error`) or "not available". `suspect` is true where the rate is
    below 80 % of the figure expected on two quiet cores, and null where no such figure applies: none
    is known, or the settings were overridden (a shorter time or other seeds do not count).
    """
    entry = load_peers()[peer]
    chosen = entry["tasks"][task]
    settings = chosen["settings"] | overrides
    same_work = all(key in ("seconds", "seeds", "steps") for key in overrides)
    expected = (chosen["expected_sps"] or None) if same_work else None
    record: dict[str, Any] = {
        "peer": peer, "task": task, "settings": settings, "source": chosen["source"], "expected_sps": expected,
        "suspect": None, "steps": None, "seconds": None, "sps": None, "versions": {}, "load": os.getloadavg()[0],
    }  # fmt: skip
    if reason := unavailable(peer, entry):
        return record | {"status": "not available", "error": reason}
    command = [str(venv_python(peer)), str(HERE / chosen["script"]), *worker_options(settings)]
    limit_s = timeout_s or chosen.get("timeout_s", DEFAULT_TIMEOUT_S)
    start = time.perf_counter()
    status, out, err = run_worker(command, worker_environment(settings), limit_s)
    record["process_seconds"] = round(time.perf_counter() - start, 3)
    result = last_json(out)
    if status is None:
        return record | {"status": "failed", "error": f"no result within {limit_s:g} s\n{err[-2000:]}"}
    if status or result is None:
        said = (err or out).strip() or "nothing said"
        return record | {"status": "failed", "error": f"exit status {status}: {said.splitlines()[-1]}\n{said[-2000:]}"}
    record |= result
    record["suspect"] = result["sps"] < SUSPECT_BELOW * expected if expected else None
    return record | {"status": "ok"}


class LivePeer:
    """A peer's task that stays ready and steps in slices, so that it can alternate with others from slice to slice.

    Its worker takes `--slices 1` and answers as `worker.answer_slices` does.
    """

    def __init__(self, peer: str, task: str, *, timeout_s: float = DEFAULT_TIMEOUT_S, **overrides: object) -> None:
        """Starts the worker and waits for a first slice; LookupError says why it is not available."""
        entry = load_peers()[peer]
        if reason := unavailable(peer, entry):
            raise LookupError(f"{peer}: {reason}")
        chosen = entry["tasks"][task]
        settings = chosen["settings"] | overrides | {"slices": 1}
        self.name, self.timeout_s = f"{peer}/{task}", timeout_s
        self._folder = tempfile.TemporaryDirectory(prefix="peer-")
        self._said = Path(self._folder.name) / "stderr"
        with self._said.open("w") as said:
            self._process = subprocess.Popen(
                [str(venv_python(peer)), str(HERE / chosen["script"]), *worker_options(settings)],
                cwd=self._folder.name, env=worker_environment(settings), text=True, stdin=subprocess.PIPE,
                stdout=subprocess.PIPE, stderr=said, start_new_session=True,
            )  # fmt: skip
        try:
            self.slice(0.0)
        except RuntimeError as error:
            self.close()
            raise LookupError(str(error)) from None

    def slice(self, seconds: float) -> tuple[int, float]:
        """Rows that it stepped in about `seconds`, and the exact time; RuntimeError when it ends, or hangs."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        try:
            self._process.stdin.write(f"{seconds}\n")
            self._process.stdin.flush()
        except BrokenPipeError:
            raise RuntimeError(self._ended()) from None
        if not select.select([self._process.stdout], [], [], seconds + self.timeout_s)[0]:
            raise RuntimeError(f"{self.name} did not answer within {seconds + self.timeout_s:g} s")
        line = self._process.stdout.readline()
        if not line.startswith("["):
            raise RuntimeError(self._ended())
        count, spent = json.loads(line)
        return count, spent

    def close(self) -> None:
        """Ends the worker and whatever it started."""
        end_group(self._process.pid)
        self._process.communicate()
        self._folder.cleanup()

    def _ended(self) -> str:
        said = self._said.read_text().strip() or "nothing said"
        return f"{self.name} ended: {said.splitlines()[-1]}"


def choose(names: list[str], peers: dict[str, dict[str, Any]]) -> list[tuple[str, str]]:
    """Return the (peer, task) pairs that names such as `sb3` or `sb3/cartpole_solve` stand for; raise if unknown."""
    pairs: list[tuple[str, str]] = []
    with_tasks = {peer: entry for peer, entry in peers.items() if entry.get("tasks")}
    for name in names or list(with_tasks):
        peer, _, task = name.partition("/")
        tasks = list(peers.get(peer, {}).get("tasks", {}))
        if not tasks or (task and task not in tasks):
            known = [f"{p}/{t}" for p, entry in with_tasks.items() for t in entry["tasks"]]
            raise ValueError(f"unknown {name!r}; known are {', '.join(known)}")
        pairs += [(peer, chosen) for chosen in ([task] if task else tasks)]
    return pairs


def machine() -> dict[str, Any]:
    """Return what the figures depend on: processor, cores, system, Python, date."""
    model = platform.processor()
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.is_file():
        found = [line.partition(":")[2].strip() for line in cpuinfo.read_text().splitlines() if "model name" in line]
        model = found[0] if found else model
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    date = datetime.now(UTC).isoformat(timespec="seconds")
    return {"cpu": model, "cores": cores, "system": platform.platform(), "date": date}


def describe(record: dict[str, Any]) -> str:
    """Return one line for a record."""
    name = f"{record['peer']}/{record['task']}"
    if record["status"] != "ok":
        return f"{name:42s} {record['status']}: {record['error'].splitlines()[0]}"
    mark = "  SUSPECT" if record["suspect"] else ""
    expected = f" (expected {record['expected_sps']:,})" if record["expected_sps"] else ""
    return f"{name:42s} {record['sps']:>14,.0f} steps/s{expected}{mark}"


def main(argv: list[str] | None = None) -> int:
    """Run the chosen tasks, write the JSON after each, and return the number that failed."""
    peers = load_peers()
    parser = argparse.ArgumentParser(description="Run peers one after another.")
    parser.add_argument("names", nargs="*", help="PEER or PEER/TASK; all but long training runs if none is given")
    parser.add_argument("--out", type=Path, help="file to write the records to")
    parser.add_argument("--list", action="store_true", help="print the tasks and stop")
    args = parser.parse_args(argv)
    try:
        pairs = choose(args.names, peers)
    except ValueError as error:
        parser.error(str(error))
    if not args.names:
        pairs = [(peer, task) for peer, task in pairs if not peers[peer]["tasks"][task].get("long")]
    if args.list:
        print("\n".join(f"{peer}/{task}" for peer, task in pairs))
        return 0
    records: list[dict[str, Any]] = []
    for peer, task in pairs:
        records.append(measure(peer, task))
        print(describe(records[-1]), flush=True)
        if args.out:
            args.out.write_text(json.dumps({"machine": machine(), "records": records}, indent=1) + "\n")
    return sum(record["status"] == "failed" for record in records)


if __name__ == "__main__":
    sys.exit(main())
