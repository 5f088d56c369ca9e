"""Room: what the machine and its control groups leave, and the sentences of what needs more."""

from pathlib import Path
from typing import Any

import pytest

from shoal.envs.preprocessing import Preprocessing
from shoal.envs.registry import make
from shoal.envs.workers.settings import Workers
from shoal.nets.network import Network
from shoal.nets.policy import make_policy
from shoal.types import ConfigError
from shoal.types.room import free_bytes

GIB = 2**30


def write(root: Path, files: dict[str, str]) -> Path:
    for name, text in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="ascii")
    return root


MACHINE = {"proc/meminfo": "MemTotal: 9000000 kB\nMemAvailable: 4194304 kB\nSwapFree: 1048576 kB\n"}


def test_what_the_machine_has_free(tmp_path: Path) -> None:
    assert free_bytes(write(tmp_path, MACHINE)) == 5 * GIB


def test_the_limits_of_a_group_and_of_those_above_it(tmp_path: Path) -> None:
    """The outer group leaves 3 - 2 GiB and half a GiB of files; the inner one has no limit."""
    groups = {
        "proc/self/cgroup": "0::/outer/inner\n",
        "sys/fs/cgroup/outer/memory.max": str(3 * GIB),
        "sys/fs/cgroup/outer/memory.current": str(2 * GIB),
        "sys/fs/cgroup/outer/memory.stat": f"anon 5\ninactive_file {GIB // 2}\n",
        "sys/fs/cgroup/outer/inner/memory.max": "max\n",
        "sys/fs/cgroup/outer/inner/memory.current": "7\n",
    }
    assert free_bytes(write(tmp_path, MACHINE | groups)) == 3 * GIB // 2


def test_a_container_sees_its_group_at_the_mount(tmp_path: Path) -> None:
    groups = {
        "proc/self/cgroup": "0::/somewhere/outside\n",
        "sys/fs/cgroup/memory.max": str(2 * GIB),
        "sys/fs/cgroup/memory.current": str(GIB),
    }
    assert free_bytes(write(tmp_path, MACHINE | groups)) == GIB


def test_groups_of_version_one(tmp_path: Path) -> None:
    groups = {
        "proc/self/cgroup": "4:cpu:/x\n3:memory:/box\n",
        "sys/fs/cgroup/memory/box/memory.limit_in_bytes": str(2 * GIB),
        "sys/fs/cgroup/memory/box/memory.usage_in_bytes": str(3 * GIB),
    }
    assert free_bytes(write(tmp_path, MACHINE | groups)) == 0


def test_a_system_that_does_not_say(tmp_path: Path) -> None:
    assert free_bytes(tmp_path) is None


@pytest.mark.parametrize(
    ("num_envs", "given", "message"),
    [
        (10**9, {}, r"1,000,000,000 rows of CartPole-v1 need [\d,.]+ GiB of memory, and this process may take .* less"),
        (10**12, {"backend": "serial"}, r"1,000,000,000,000 rows of CartPole-v1 need"),
        (10**7, {"preprocessing": Preprocessing(frame_stack=1024)}, r"10,000,000 rows of CartPole-v1 need"),
    ],
)
def test_rows_that_need_more_than_there_is(num_envs: int, given: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        make("CartPole-v1", num_envs, **given)


def test_rows_in_processes_that_need_more_than_there_is(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("shoal.types.errors.free_bytes", lambda: 10)
    with pytest.raises(ConfigError, match=r"the shared arrays of 2 rows need .* set num_envs to less"):
        make("CartPole-v1", 2, backend="workers", workers=Workers(2))


@pytest.mark.parametrize("recurrent", ["none", "gru"])
def test_layers_that_need_more_than_there_is(recurrent: Any) -> None:
    spec = make("CartPole-v1", 1).spec
    with pytest.raises(ConfigError, match=r"layers of \[4, 1000000, 1000000.* numbers need .* smaller hidden layers"):
        make_policy(spec, Network(hidden=(10**6, 10**6), recurrent=recurrent), 0)
