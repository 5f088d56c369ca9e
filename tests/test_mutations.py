"""Known defects of other libraries, put into a copy of shoal one line at a time: a test must fail on each."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import sysconfig
from dataclasses import dataclass
from pathlib import Path

import pytest

import shoal
from shoal import _native

ROOT = Path(__file__).parent.parent


@dataclass(frozen=True, slots=True)
class Mutation:
    """One line replaced, and the tests that must notice."""

    defect: str
    file: str
    line: str
    instead: str
    tests: str


MUTATIONS = [
    Mutation(
        "truncation treated as termination",
        "stream/rollouts.py",
        "        slab.next_value[slab.terminated] = 0",
        "        slab.next_value[slab.terminated | slab.truncated] = 0",
        "tests/stream/test_rollouts.py",
    ),
    Mutation(
        "a rollout's last step bootstraps from itself: a horizon one step short",
        "stream/rollouts.py",
        "        slab.next_value[:-1] = slab.value[1:]",
        "        slab.next_value[:-1] = slab.value[:-1]",
        "tests/stream/test_rollouts.py",
    ),
    Mutation(
        "recurrent state not reset at an episode's start",
        "nets/policy.py",
        "        keep = (~start.bool()).to(x.dtype).unsqueeze(-1)",
        "        keep = (start.bool() | ~start.bool()).to(x.dtype).unsqueeze(-1)",
        "tests/experiment/test_policies.py",
    ),
    Mutation(
        "noise counters not restored: a resumed run explores anew",
        "stream/rollouts.py",
        '            seat.actor.row_step[:] = saved["row_step"]',
        "            seat.actor.row_step[:] = 0",
        "tests/stream/test_rollouts.py",
    ),
    Mutation(
        "the learner keeps the statistics of the first version",
        "nets/lowering.py",
        "        self.refresh_normaliser()\n        obs = steps.obs.numpy()",
        "        obs = steps.obs.numpy()",
        "tests/run/test_resume.py::test_killed_and_resumed_equals_uninterrupted[CartPole-v1-native-ppo-none]",
    ),
    Mutation(
        "a flipped byte in a checkpoint is not noticed",
        "run/tensors.py",
        '        if hashlib.file_digest(file, "sha256").hexdigest() != sha256:',
        "        if not sha256:",
        "tests/run/test_checkpoint.py",
    ),
]


@pytest.mark.slow
@pytest.mark.timeout(300)
@pytest.mark.parametrize("mutation", MUTATIONS, ids=[m.defect for m in MUTATIONS])
def test_mutation_is_noticed(mutation: Mutation, tmp_path: Path) -> None:
    """The tests pass on the code as it is, and fail on the copy with one line changed."""
    package = tmp_path / "shoal"
    shutil.copytree(Path(shoal.__file__).parent, package, ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(_native.__file__, package)
    assert run_tests(mutation.tests, tmp_path) == 0
    target = package / mutation.file
    text = target.read_text()
    assert text.count(mutation.line) == 1, f"{mutation.file} no longer has the line {mutation.line!r}"
    target.write_text(text.replace(mutation.line, mutation.instead))
    assert run_tests(mutation.tests, tmp_path) == 1


def run_tests(tests: str, source: Path) -> int:
    """Runs tests in a new interpreter that finds shoal in `source`: -S keeps the editable install out."""
    path = os.pathsep.join([str(source), sysconfig.get_path("purelib"), str(ROOT)])
    command = [sys.executable, "-S", "-m", "pytest", "-q", "-x", "-p", "no:cacheprovider", tests]
    return subprocess.run(
        command, cwd=ROOT, env={**os.environ, "PYTHONPATH": path}, check=False, capture_output=True, timeout=280
    ).returncode
