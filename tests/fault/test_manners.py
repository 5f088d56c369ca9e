"""Environments that change their spaces, share buffers, or mind being stepped after their end: `serial`, `workers`."""

import shutil
import subprocess
import sys
import textwrap
from pathlib import Path
from typing import Any, ClassVar

import gymnasium as gym
import numpy as np
import pytest
from gymnasium import spaces
from numpy.typing import NDArray

from shoal.envs.registry import make
from shoal.envs.vec_env import VecEnv
from shoal.envs.workers.rows import WorkersEnv
from shoal.envs.workers.settings import Workers
from shoal.types import EnvError, Ready

pytestmark = pytest.mark.usefixtures("warm_workers")

FOUR = slice(0, 4)
BACKENDS = ("serial", "workers")


class Odd(gym.Env[Any, Any]):
    """Observes (its seed, its step) for four steps; the one that was seeded with 1 has bad manners."""

    everyones: ClassVar[NDArray[np.float32]] = np.zeros(2, np.float32)

    def __init__(self, manner: str) -> None:
        self.observation_space = spaces.Box(-9, 9, (2,), np.float32)
        self.action_space: Any = spaces.Discrete(2)
        self.manner, self.seeded, self.count, self.episodes = manner, -1, -1, 0
        self.buffer = self.everyones if manner == "shared buffer" else np.zeros(2, np.float32)

    def observe(self) -> NDArray[np.float32]:
        self.buffer[:] = self.seeded, self.count
        return self.buffer

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> Any:
        self.seeded = self.seeded if seed is None else seed
        self.episodes, self.count = self.episodes + 1, 0
        if self.seeded == 1 and self.episodes == 2:
            if self.manner == "observation_space":
                self.observation_space = spaces.Box(-9, 9, (3,), np.float32)
            if self.manner == "action_space":
                self.action_space = spaces.Discrete(3)
            if self.manner == "equal spaces":
                self.action_space = spaces.Discrete(2)
        return self.observe(), {}

    def step(self, action: int) -> Any:
        assert 0 <= self.count < 4, "stepped after its end"
        self.count += 1
        if self.manner == "sys.exit" and self.seeded == 1:
            sys.exit(7)
        return self.observe(), 1.0, self.count == 4, False, {}


def begun(manner: str, backend: str) -> VecEnv:
    """Four rows, two in each of two processes."""
    workers = Workers(2) if backend == "workers" else None
    env = make(Odd, 4, backend=backend, env_kwargs={"manner": manner}, workers=workers)
    try:
        env.reset(0)
    except BaseException:
        env.close()
        raise
    env.recv()
    return env


def step(env: VecEnv, count: int) -> Ready:
    ready: Any = None
    for _ in range(count):
        env.send(FOUR, np.zeros(4, np.int64))
        ready = env.recv()
    return ready


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("what", ["observation_space", "action_space"])
def test_changed_spaces_are_named(what: str, backend: str) -> None:
    env = begun(what, backend)
    step(env, 3)
    with pytest.raises(EnvError, match=f"Odd: row 1 at its reset changed its {what} from .* to .*must stay") as caught:
        step(env, 1)
    if isinstance(env, WorkersEnv):
        assert f"in worker 0, pid {env.pids[0]}" in caught.value.__notes__[0]
    env.close()


@pytest.mark.parametrize("backend", BACKENDS)
def test_a_buffer_that_rows_share_is_named(backend: str) -> None:
    with pytest.raises(EnvError, match=r"row 0 at its reset .* another row's reset changed: rows share a buffer"):
        begun("shared buffer", backend)


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("manner", ["own buffer", "equal spaces"])
def test_harmless_manners(manner: str, backend: str) -> None:
    """An environment may return its own buffer each time; none is stepped after its end."""
    env = begun(manner, backend)
    ready = step(env, 4)
    assert ready.final_obs.tolist() == [[0, 4], [1, 4], [2, 4], [3, 4]]
    assert ready.obs.tolist() == [[0, 0], [1, 0], [2, 0], [3, 0]]
    assert step(env, 9).obs[:, 1].tolist() == [1] * 4
    env.close()


@pytest.mark.parametrize("backend", BACKENDS)
def test_an_environment_that_ends_the_process(backend: str) -> None:
    """Whoever called it did not ask for that: it is an error of the environment, wherever that is."""
    env = begun("sys.exit", backend)
    with pytest.raises(EnvError, match=r"row 1 at step 1 of its episode raised SystemExit \(7\) in step \(test_man"):
        step(env, 1)
    with pytest.raises(RuntimeError, match="a step failed halfway"):
        step(env, 1)
    env.close()


def test_a_full_dev_shm_does_not_matter(tmp_path: Path) -> None:
    """The block is no file there: with 0 bytes left, rows are made and stepped."""
    tries = (
        subprocess.run(["unshare", "-m", "true"], check=False, capture_output=True) if shutil.which("unshare") else None
    )
    if tries is None or tries.returncode:
        pytest.skip("this user may not unshare mounts")
    script = tmp_path / "script.py"
    script.write_text(
        textwrap.dedent(
            """
            import numpy as np
            from shoal.envs.workers.settings import Workers
            from shoal.envs.registry import make
            env = make("CartPole-v1", 4, backend="workers", workers=Workers(2))
            env.reset(0)
            env.recv()
            env.send(slice(0, 4), np.ones(4, np.int64))
            print(env.recv().reward.tolist())
            env.close()
            """
        ),
        encoding="utf-8",
    )
    fill = "mount -t tmpfs -o size=2m tmpfs /dev/shm && ! head -c 4M /dev/zero > /dev/shm/full"
    command = f"{fill} 2>/dev/null && exec {sys.executable} {script}"
    done = subprocess.run(["unshare", "-m", "sh", "-c", command], check=False, capture_output=True, text=True)
    assert (done.stdout, done.stderr) == ("[1.0, 1.0, 1.0, 1.0]\n", "")
