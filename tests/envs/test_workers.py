"""Runs on `workers`: the same bits as `serial` for any number of processes; scripts, signals and killed parents."""

import hashlib
import os
import signal
import subprocess
import sys
import textwrap
import time
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest
import torch

import shoal
from shoal.envs.registry import make
from shoal.envs.workers.settings import Workers
from shoal.nets.policy import wrap
from shoal.stream.rollouts import rollouts
from shoal.types import ConfigError
from tests.contract.toys import Corridor
from tests.fault.troubles import Trouble

SCRIPT = """
    import sys, time
    import gymnasium as gym
    import numpy as np
    from shoal.envs.workers.settings import Workers
    from shoal.envs.registry import make

    print("main runs", flush=True)

    class Broken(Exception):
        pass

    class Walk(gym.Env):
        observation_space = gym.spaces.Box(-np.inf, np.inf, (1,), np.float32)
        action_space = gym.spaces.Discrete(2)

        def reset(self, *, seed=None, options=None):
            super().reset(seed=seed)
            self.place = 0
            return np.zeros(1, np.float32), {}

        def step(self, action):
            self.place += 1
            if self.place == LIMIT:
                raise Broken("too far")
            return np.full(1, self.place, np.float32), 1.0, False, False, {}
"""


def script(tmp_path: Path, body: str, *flags: str, **keywords: Any) -> subprocess.Popen[str]:
    """A script without a main guard, run by this interpreter; without site packages where this one has none."""
    path = tmp_path / "script.py"
    path.write_text(textwrap.dedent(SCRIPT) + textwrap.dedent(body), encoding="utf-8")
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    site = ["-S"] if sys.flags.no_site else []
    return subprocess.Popen([sys.executable, *site, *flags, str(path)], **pipes, **keywords)


def wait_gone(pids: list[int], within_s: float) -> None:
    deadline = time.monotonic() + within_s
    while any(psutil.pid_exists(pid) for pid in pids):
        assert time.monotonic() < deadline, f"{pids} are still there"
        time.sleep(0.02)


# What a shell starts in the background is born deaf to Ctrl-C; a test says what it means.
ENDLESS = """
    import signal
    signal.signal(signal.SIGINT, signal.default_int_handler)
    LIMIT = 0
    env = make(Walk, 4, backend="workers", workers=Workers(2))
    try:
        env.reset(0)
        env.recv()
        print(*env.pids, flush=True)
        while True:
            env.send(slice(0, 4), np.zeros(4, np.int64))
            env.recv()
    finally:
        env.close()
"""


def test_a_script_without_a_main_guard(tmp_path: Path) -> None:
    body = """
        LIMIT = 3
        env = make(Walk, 3, backend="workers", workers=Workers(2))
        env.reset(0)
        env.recv()
        try:
            while True:
                env.send(slice(0, 3), np.zeros(3, np.int64))
                print(env.recv().obs.ravel().tolist())
        except Broken as error:
            print("caught", error)
    """
    out, err = script(tmp_path, body).communicate(timeout=60)
    assert out.splitlines() == ["main runs", "[1.0, 1.0, 1.0]", "[2.0, 2.0, 2.0]", "caught too far"]
    assert err == ""


def test_without_site_packages_of_its_own(tmp_path: Path) -> None:
    """As where shoal is on PYTHONPATH only: the workers see what their parent sees."""
    body = """
        LIMIT = 0
        make(Walk, 2, backend="workers", workers=Workers(2)).close()
        print("done", sys.flags.no_site)
    """
    package = tmp_path / "lib" / "shoal"
    package.mkdir(parents=True)
    native = Path(sys.modules["shoal._native"].__file__ or "")
    for part in (*Path(shoal.__file__).parent.iterdir(), native):
        (package / part.name).symlink_to(part)
    paths = [str(package.parent), *filter(None, sys.path)]
    process = script(tmp_path, body, "-S", env=os.environ | {"PYTHONPATH": os.pathsep.join(paths)})
    out, err = process.communicate(timeout=60)
    assert out.splitlines() == ["main runs", "done 1"], err


def test_a_parent_killed_by_9_leaves_no_process(tmp_path: Path) -> None:
    parent = script(tmp_path, ENDLESS)
    assert parent.stdout is not None
    parent.stdout.readline()
    pids = [int(pid) for pid in parent.stdout.readline().split()]
    parent.kill()
    wait_gone(pids, within_s=5)
    parent.communicate(timeout=10)


def test_a_parent_killed_at_the_start_leaves_no_process(tmp_path: Path) -> None:
    parent = script(tmp_path, ENDLESS)
    deadline = time.monotonic() + 30
    while not (children := psutil.Process(parent.pid).children()):
        assert time.monotonic() < deadline
    parent.kill()
    wait_gone([child.pid for child in children], within_s=10)
    parent.communicate(timeout=10)


def test_ctrl_c_twice_is_clean(tmp_path: Path) -> None:
    parent = script(tmp_path, ENDLESS, start_new_session=True)
    assert parent.stdout is not None
    parent.stdout.readline()
    pids = [int(pid) for pid in parent.stdout.readline().split()]
    time.sleep(0.2)
    os.killpg(parent.pid, signal.SIGINT)
    time.sleep(0.05)
    os.killpg(parent.pid, signal.SIGINT)
    _, err = parent.communicate(timeout=20)
    wait_gone(pids, within_s=5)
    assert err.splitlines()[-1] == "KeyboardInterrupt"
    assert parent.returncode == -signal.SIGINT


def test_ctrl_c_is_for_the_parent_to_handle() -> None:
    """A terminal sends it to every process; the workers go on."""
    env: Any = make("CartPole-v1", 2, backend="workers", workers=Workers(2))
    env.reset(0)
    env.recv()
    for pid in env.pids:
        os.kill(pid, signal.SIGINT)
    env.send(slice(0, 2), np.zeros(2, np.int64))
    assert env.recv().valid.all()
    env.close()


def test_limited_memory_is_a_sentence(tmp_path: Path) -> None:
    body = """
        import resource
        LIMIT = 0
        Walk.observation_space = gym.spaces.Box(0, 1, (1000, 1000), np.float32)
        resource.setrlimit(resource.RLIMIT_FSIZE, (2**20, 2**20))
        try:
            make(Walk, 2, backend="workers", workers=Workers(2))
        except ValueError as error:
            print(error)
    """
    out, err = script(tmp_path, body).communicate(timeout=60)
    assert out.splitlines()[1].startswith("Walk: 2 rows need 16,00"), err
    assert "set num_envs to less than 2" in out


def weights_of(**settings: Any) -> str:
    """The sha256 of what a short run of PPO on Gymnasium's own CartPole learns."""
    small: dict[str, Any] = {
        "num_envs": 8,
        "num_steps": 32,
        "total_timesteps": 1024,
        "seed": 3,
        "panel": "none",
        "stop_at": np.inf,
    }
    result = shoal.train("CartPole-v1", **small | settings)
    digest = hashlib.sha256()
    for name, tensor in sorted(result.policy.state_dict().items()):
        digest.update(name.encode() + tensor.numpy().tobytes())
    return digest.hexdigest()


@pytest.mark.usefixtures("few_greedy_episodes")
@pytest.mark.parametrize("count", [pytest.param(1, marks=pytest.mark.slow), 2, pytest.param(4, marks=pytest.mark.slow)])
def test_weights_are_those_of_the_serial_backend(count: int, run_dir: Path) -> None:
    serial = weights_of(backend="serial", run_dir=str(run_dir))
    assert weights_of(backend="workers", num_workers=count, run_dir=str(run_dir)) == serial


@pytest.mark.usefixtures("few_greedy_episodes")
def test_a_run_that_loses_a_worker_goes_on(run_dir: Path) -> None:
    made: dict[str, Any] = {"what": "SIGKILL", "row": 2, "at": 40}
    small: dict[str, Any] = {"num_envs": 4, "num_steps": 16, "total_timesteps": 512, "seed": 1, "panel": "none"}
    small |= {"backend": "workers", "num_workers": 2, "stop_at": np.inf, "run_dir": str(run_dir)}
    result = shoal.train(Trouble, env_kwargs=made, on_fault="restart", **small)
    assert result.steps == 512
    with pytest.raises(shoal.types.EnvError, match="SIGKILL"):
        shoal.train(Trouble, env_kwargs=made, **small)


class Constant(torch.nn.Module):
    """Values an observation at its seed, which names the row and its restarts."""

    def __init__(self) -> None:
        super().__init__()
        self.logits = torch.nn.Parameter(torch.zeros(2))

    def forward(self, obs: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        return self.logits.expand(*obs.shape[:-1], 2), obs[..., 1]


def test_a_cut_episode_ends_with_its_last_step() -> None:
    """Row 2 dies in step 4: step 3 is its last and bootstraps from what it came to; step 4 is only a reset."""
    settings = Workers(3, on_fault="restart")
    env = make(Trouble, 3, backend="workers", env_kwargs={"what": "exit", "at": 4}, workers=settings)
    stream = rollouts(env, wrap(Constant(), env.spec), num_steps=6)
    steps = next(stream)
    env.close()
    assert steps.valid[:, 2].tolist() == [True, True, True, False, True, True]
    assert steps.truncated[:, 2].tolist() == [False, False, True, False, False, False]
    assert steps.final_obs[steps.final_index[2, 2]].tolist() == [2, 3, 1]
    assert steps.next_value[:, 2].tolist() == [1, 2, 3, 0, 1, 2]
    assert steps.start[:, 2].tolist() == [True, False, False, False, True, False]
    assert steps.valid[:, :2].all()


def test_declared_infos_arrive(run_dir: Path) -> None:
    env, twin = (make(InfoCorridor, 4, backend=backend, info_keys=("score",)) for backend in ("workers", "serial"))
    seen: list[list[Any]] = []
    for rows in (env, twin):
        rng = np.random.default_rng(0)
        rows.reset(0)
        rows.recv()
        seen.append([])
        for _ in range(60):
            rows.send(slice(0, 4), rng.integers(1, 3, 4))
            ready = rows.recv()
            ended = ready.terminated | ready.truncated
            seen[-1].append(ready.info["score"][ended].tolist())
        rows.close()
    assert seen[0] == seen[1]
    assert sum(map(len, seen[0])) > 5


class InfoCorridor(Corridor):
    """A corridor with a number in its infos."""

    def step(self, action: int) -> Any:
        made = super().step(action)
        return (*made[:4], {"score": float(self.place)})


def test_make_vec_says_what_to_use() -> None:
    with pytest.raises(ConfigError, match="backend='serial'"):
        shoal.make_vec("CartPole-v1", 2, backend="workers")
