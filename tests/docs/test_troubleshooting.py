"""The messages of docs/troubleshooting.md are those that users get: each is brought about, or its source is named."""

import re
import shutil
import sys
import time
from collections.abc import Callable
from importlib.metadata import EntryPoint
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
from gymnasium.envs.registration import EnvSpec
from torch import nn

import shoal
from shoal.envs import packages, registry
from shoal.run import beginning
from shoal.run.directory import RunDirectory
from tests.docs.tables import read_code, read_rows
from tests.extensions import capsule

ROWS = [cells for cells in read_rows("troubleshooting.md", 3) if cells[0].startswith("`")]
ROOT = Path(__file__).parents[2]
FROM_ELSEWHERE = {"worker …", "No space left on device …"}
"""The system's, and those that docs/faults.md lists with their tests."""


class Broken(gym.Env[Any, Any]):
    """Gives what is not finite, in its first step."""

    observation_space = gym.spaces.Box(-1, 1, (2,), np.float32)
    action_space = gym.spaces.Discrete(2)

    def __init__(self, what: str = "") -> None:
        self.what = what

    def reset(self, *, seed: int | None = None, options: Any = None) -> tuple[Any, Any]:
        return np.zeros(2, np.float32), {}

    def step(self, action: int) -> tuple[Any, float, bool, bool, Any]:
        obs = np.full(2, np.nan if self.what == "observation" else 0, np.float32)
        return obs, np.nan if self.what == "reward" else 0.0, True, False, {}


class Told(Broken):
    """Observes a text."""

    observation_space = gym.spaces.Dict(said=gym.spaces.Text(8))


class Counted(Broken):
    """Observes integers."""

    observation_space = gym.spaces.Discrete(3)

    def reset(self, *, seed: int | None = None, options: Any = None) -> tuple[Any, Any]:
        return 0, {}


class Slow(Broken):
    """Takes its time."""

    def step(self, action: int) -> tuple[Any, float, bool, bool, Any]:
        time.sleep(0.005)
        return super().step(action)


class Notes:
    """A callback that keeps what is said without being an error."""

    def __init__(self) -> None:
        self.said: list[str] = []

    def __call__(self, run: Any, record: object) -> None:
        """Takes no notice of metrics."""

    def note(self, message: str) -> None:
        self.said.append(message)


class Wider(nn.Module):
    """A policy that is not the default one."""

    def __init__(self, spec: Any) -> None:
        super().__init__()
        self.both = nn.Linear(4, 3)

    def forward(self, obs: Any) -> Any:
        return self.both(obs).split([2, 1], -1)


class Narrow(Wider):
    """Made for observations of another width."""

    def __init__(self, spec: Any) -> None:
        super().__init__(spec)
        self.both = nn.Linear(5, 3)


def train(env: Any = "CartPole-v1", **settings: Any) -> Any:
    small: dict[str, Any] = {
        "num_envs": 4,
        "num_steps": 8,
        "num_minibatches": 2,
        "update_epochs": 1,
        "total_timesteps": 64,
    }
    merged: dict[str, Any] = small | {"panel": "none", "stop_at": float("inf")} | settings
    return shoal.train(env, **merged)


def resume(run: Any, **changes: Any) -> Any:
    return shoal.resume(run.path, panel="none", **changes)


def damaged() -> Any:
    run = train()
    for part in RunDirectory(run.path).checkpoints.iterdir():
        part.write_bytes(b"")
    return resume(run)


def deleted() -> Any:
    run = train()
    shutil.rmtree(RunDirectory(run.path).checkpoints)
    return resume(run)


def copied() -> Any:
    other, run = (RunDirectory(train(env).path) for env in ("CartPole-v1", "Acrobot-v1"))
    shutil.rmtree(run.checkpoints)
    shutil.copytree(other.checkpoints, run.checkpoints)
    return resume(run)


def called_the_same() -> Any:
    for env in ("CartPole-v1", "Acrobot-v1"):
        train(env, name="twice")
    return shoal.load("twice")


def late() -> None:
    notes = Notes()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(beginning, "PATIENCE_S", 0.01)
        train(Slow, callbacks=[notes])
    raise RuntimeError(notes.said[0])


def without_package() -> Any:
    def lack(**_: object) -> Any:
        raise gym.error.DependencyNotInstalled("pygame is not installed")

    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(gym.registry, "Lacking-v0", EnvSpec("Lacking-v0", entry_point=lack))
        return train("Lacking-v0")


def without_compiler() -> None:
    program: dict[str, Any] = {"__name__": "check_machine"}
    exec((ROOT / "scripts" / "check_machine.py").read_text("utf-8"), program)
    raise RuntimeError(program["find_compiler_lack"]())


def without_box2d() -> None:
    registry._check_absence("LunarLander-v3", "native")


def of_another_shoal() -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(EntryPoint, "load", lambda _: capsule("shoal 0.0.9"))
        packages.load(EntryPoint("fruit_catch", "fruit_catch._native:environments", packages.GROUP))


def without_encoder() -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(sys.modules, "imageio_ffmpeg", None)
        shoal.load(train().path).record_video("walk.gif")


CAUSES: list[Callable[[], Any]] = [
    without_compiler,
    without_box2d,
    of_another_shoal,
    without_package,
    lambda: train("CartPol-v1"),
    lambda: train(gym.make("CartPole-v1")),
    lambda: train(Told),
    late,
    lambda: train("my_envs:Grid"),
    lambda: train(Broken, env_kwargs={"what": "observation"}),
    lambda: train(Broken, env_kwargs={"what": "reward"}),
    lambda: train(n_steps=8),
    lambda: train(num_envs=32, num_steps=64, num_minibatches=7),
    lambda: train(num_envs=32, num_minibatches=7, network={"recurrent": "gru"}),
    lambda: train(device="cuda"),
    lambda: train(algo="my_algo.py"),
    lambda: train(policy=lambda size, actions: None),
    lambda: train(policy=Wider, env=Counted),
    lambda: train(policy=Narrow),
    lambda: train(algo="trpo"),
    lambda: train(learning_rate_schedule="kl"),
    lambda: train(norm_adv=False, reward_scale=1e30),
    lambda: shoal.load("nowhere"),
    lambda: resume(train(), learning_rate=1.0),
    lambda: shoal.load(train(Broken).path),
    lambda: shoal.load(train(policy=Wider).path),
    lambda: shoal.load(train(policy=train(network={"hidden": (8,)}).policy).path),
    lambda: train(init_from=train().path, network={"hidden": (8,)}),
    called_the_same,
    copied,
    damaged,
    deleted,
    without_encoder,
    lambda: shoal.load(train().path).record_video("walk.avi"),
    lambda: shoal.load(train(Broken).path, factory=Broken).record_video("walk.gif"),
]


@pytest.mark.usefixtures("few_greedy_episodes")
def test_every_message_is_real(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("CXX", raising=False)
    monkeypatch.setenv("PATH", str(tmp_path))
    told: list[str] = []
    for cause in CAUSES:
        with pytest.raises(Exception) as caught:  # noqa: PT011 - what it says is compared below
            cause()
        told.append(str(caught.value))
    patterns = {read_code(cells[0])[0] for cells in ROWS} - FROM_ELSEWHERE
    matched = {pattern: [text for text in told if matches(text, pattern)] for pattern in patterns}
    assert not [pattern for pattern, texts in matched.items() if not texts], told
    assert not set(told) - {text for texts in matched.values() for text in texts}


def matches(text: str, pattern: str) -> bool:
    """Whether a message is what the page shows, where `…` stands for anything."""
    parts = map(re.escape, pattern.split("…"))
    return re.fullmatch(".*".join(parts), text.replace("`", ""), re.DOTALL) is not None
