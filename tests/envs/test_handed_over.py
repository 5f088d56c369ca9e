"""Actions reach environments as Gymnasium's vector environments hand them over; observations may be lists."""

from __future__ import annotations

from contextlib import nullcontext
from typing import TYPE_CHECKING, Any

import gymnasium as gym
import numpy as np
import pytest
from gymnasium import spaces

import shoal
from shoal.envs.registry import make
from shoal.envs.workers.settings import Workers
from shoal.experiment.training import train
from shoal.types import EnvError, map_tree
from tests.strict_worlds import ACTIONS, SEEN, Protocol, PythonsInt, Seen, Strict

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = pytest.mark.usefixtures("warm_workers")

SHORT: dict[str, Any] = {"num_envs": 2, "num_steps": 8, "num_minibatches": 2, "total_timesteps": 32, "panel": "none"}


@pytest.mark.parametrize("kind", ACTIONS)
def test_gymnasium_hands_actions_over_so(kind: str) -> None:
    """The oracle: the environment refuses nothing of SyncVectorEnv."""
    env = gym.vector.SyncVectorEnv([lambda: Strict(kind)] * 2)
    env.reset()
    env.step(env.action_space.sample())


@pytest.mark.parametrize("kind", ACTIONS)
def test_training_evaluation_video_and_act(kind: str, tmp_path: Path) -> None:
    run = train(Strict, env_kwargs={"kind": kind}, run_dir=str(tmp_path), eval_every=16, eval_episodes=2, **SHORT)
    assert run.greedy_return == 2
    agent = shoal.load(run.path, factory=Strict)
    env = Strict(kind)
    obs, _ = env.reset(seed=0)
    for greedy in (True, False):
        obs = env.step(agent.act(obs, greedy=greedy))[0]
    if kind in ("discrete", "multi-int8"):
        video = agent.record_video(tmp_path / "v.gif", rows=2, max_steps=2)
        assert list(video.returns) == [2, 2]


@pytest.mark.parametrize("kind", ["discrete-int32", "multi-int8", "dict"])
def test_workers(kind: str) -> None:
    rows = make(Strict, 2, backend="workers", env_kwargs={"kind": kind}, workers=Workers(num_workers=1))
    rows.reset(0)
    rows.recv()
    action = map_tree(lambda x: x, rows.spec.action.allocate(2))
    rows.send(slice(0, 2), action)
    assert rows.recv().reward.tolist() == [1, 1]
    rows.close()


@pytest.mark.parametrize("kind", ACTIONS)
@pytest.mark.slow
def test_check_env(kind: str) -> None:
    report = shoal.check_env(Strict, env_kwargs={"kind": kind}, steps=50)
    assert not report.errors


def test_vector_environments_get_their_own_dtype() -> None:
    def vector(num_envs: int) -> Any:
        return gym.vector.SyncVectorEnv([lambda: Strict("multi-int32")] * num_envs)

    rows = make(vector, 2, backend="vector")
    rows.reset(0)
    rows.recv()
    rows.send(slice(0, 2), np.zeros((2, 2), np.int64))
    assert rows.recv().reward.tolist() == [1, 1]


def test_an_environment_that_takes_python_s_int_is_told() -> None:
    rows = make(PythonsInt, 1)
    rows.reset(0)
    rows.recv()
    rows.send(slice(0, 1), np.zeros(1, np.int64))
    with pytest.raises(TypeError, match="no int") as caught:
        rows.recv()
    assert "takes int(action)" in caught.value.__notes__[-1]


@pytest.mark.parametrize("backend", ["serial", "workers"])
@pytest.mark.parametrize("kind", SEEN)
def test_lists_and_protocol_arrays_are_observations(kind: str, backend: str) -> None:
    space, seen = SEEN[kind]
    if not isinstance(seen, Protocol):
        with pytest.warns(UserWarning, match="Casting") if "Box" in str(space) else nullcontext():
            assert space.contains(seen)
    if backend == "workers" and kind not in ("box-protocol", "dict-lists"):
        pytest.skip("the same code as serial's")
    workers = Workers(num_workers=1) if backend == "workers" else None
    rows = make(Seen, 2, backend=backend, env_kwargs={"kind": kind}, workers=workers)
    rows.reset(0)
    for _ in range(4):
        ready = rows.recv()
        for leaf, array in zip(rows.spec.observation.leaves, rows.spec.observation.flat(ready.obs), strict=True):
            own: Any = seen
            for key in leaf.path:
                own = own[key]
            expected = np.asarray(own, dtype=leaf.dtype)
            np.testing.assert_array_equal(array, [expected, expected])
        rows.send(slice(0, 2), np.zeros(2, np.int64))
    rows.close()


@pytest.mark.parametrize(
    ("kind", "seen", "says"),
    [
        ("binary-int64", np.array([1, 0, 2]), r"holds 2 at \[2\], outside 0 to 1"),
        ("binary-int64", np.array([1, 0, 256]), r"holds 256 at \[2\], outside 0 to 1"),
        ("binary-list", [1, 0], r"of shape \(2,\) .*return the shape \(3,\)"),
        ("binary-list", [1.0, 0.0, 1.0], "return the type int8"),
        ("box-list", np.zeros(2), r"type float64, .*return it with \.astype\(np\.float32\)"),
        ("box-list", [[0.5], 0.5], r"return the shape \(2,\)"),
        ("box-list", ["a", "b"], "return the type float32"),
        ("image-lists", [[0, 256], [0, 0]], "return the type uint8"),
    ],
)
def test_what_no_space_holds_is_refused_by_what_is_wrong(kind: str, seen: Any, says: str) -> None:
    rows = make(Seen, 1, env_kwargs={"kind": kind, "seen": seen})
    with pytest.raises(EnvError, match=says):
        rows.reset(0)


def test_every_space_of_actions_is_held() -> None:
    assert {type(space) for space in ACTIONS.values()} == {
        spaces.Discrete,
        spaces.MultiDiscrete,
        spaces.MultiBinary,
        spaces.Box,
        spaces.Tuple,
        spaces.Dict,
    }
