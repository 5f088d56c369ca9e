"""The backend `mujoco`: what it takes and refuses, saved rows, runs with the bits of the backend `serial`."""

import hashlib
from contextlib import closing
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
from gymnasium.envs.registration import EnvSpec
from numpy.typing import NDArray

import shoal
from shoal.envs.mujoco.rows import Simulations
from shoal.envs.mujoco.tasks import READERS
from shoal.envs.preprocessing import Preprocessing
from shoal.envs.randomization import Choice
from shoal.envs.registry import make
from shoal.envs.rendering import Renderer
from shoal.envs.serial import SerialEnv
from shoal.envs.vec_env import VecEnv
from shoal.experiment.engine import engine_of
from shoal.experiment.experiment import Experiment
from shoal.types import ConfigError, EnvError

mujoco = pytest.importorskip("mujoco")

BOTH = slice(0, 2)
SHORT = {"max_episode_steps": 20}
CHEETAH = "HalfCheetah-v5"


@pytest.fixture(autouse=True)
def elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """MuJoCo writes its warnings into a file in the current folder."""
    monkeypatch.chdir(tmp_path)


def started(env_id: str, backend: str, **settings: Any) -> VecEnv:
    rows = make(env_id, 2, backend=backend, **settings)
    rows.reset(5)
    rows.recv()
    return rows


def drive(rows: VecEnv, steps: int, seed: int) -> list[NDArray[Any]]:
    """What random actions come to."""
    rng, seen = np.random.default_rng(seed), list[NDArray[Any]]()
    space: Any = rows.spec.action_space
    for _ in range(steps):
        rows.send(BOTH, rng.uniform(space.low, space.high, (2, *space.shape)).astype(np.float32))
        ready = rows.recv()
        lengths = np.where(ready.over, ready.episode_length, 0)
        seen += [np.copy(part) for part in (ready.obs, ready.reward, ready.over, lengths)]
    return seen


@pytest.mark.parametrize("saved_by", ["mujoco", "serial"])
@pytest.mark.parametrize("restored_by", ["mujoco", "serial"])
@pytest.mark.parametrize("env_id", ["Ant-v5", "Humanoid-v5"])
def test_rows_go_on_where_they_were_saved(env_id: str, saved_by: str, restored_by: str) -> None:
    """Also on the other backend: both save what an episode began from, and its actions."""
    rows = started(env_id, saved_by, env_kwargs={"max_episode_steps": 30})
    drive(rows, 40, seed=0)
    state = rows.state()
    there = make(env_id, 2, backend=restored_by, env_kwargs={"max_episode_steps": 30})
    assert there.restore(state) == []
    there.recv()
    pairs = zip(drive(rows, 40, seed=1), drive(there, 40, seed=1), strict=True)
    assert all(np.array_equal(one, other) for one, other in pairs)


def test_a_saved_row_that_does_not_come_back_is_cut() -> None:
    rows = started("Hopper-v5", "mujoco")
    drive(rows, 5, seed=0)
    state = rows.state()
    state["actions"][1] = -state["actions"][1]
    (told,) = rows.restore(state)
    assert "row 1 did not come back to its saved observation" in told
    assert rows.recv().truncated.tolist() == [False, True]


@pytest.mark.usefixtures("few_greedy_episodes")
@pytest.mark.parametrize("env_id", ["HalfCheetah-v5", "Ant-v5"])
def test_runs_learn_the_same_weights(env_id: str) -> None:
    """Whichever backend, and with any number of threads."""

    def weights_of(**settings: Any) -> str:
        small: dict[str, Any] = {
            "num_envs": 4,
            "num_steps": 32,
            "total_timesteps": 512,
            "panel": "none",
            "stop_at": np.inf,
        }
        result = shoal.train(env_id, env_kwargs=SHORT, **small | settings)
        digest = hashlib.sha256()
        for name, tensor in sorted(result.policy.state_dict().items()):
            digest.update(name.encode() + tensor.numpy().tobytes())
        return digest.hexdigest()

    learned = {
        weights_of(backend="serial"),
        weights_of(num_threads=1),
        weights_of(backend="mujoco", num_threads=2),
        weights_of(schedule="overlap"),
    }
    assert len(learned) == 1


@pytest.mark.parametrize("env_id", READERS)
def test_auto_takes_it(env_id: str) -> None:
    rows = make(env_id, 1)
    assert isinstance(rows, Simulations)
    assert rows.spec == make(env_id, 1, backend="serial").spec


UNLIKE: list[tuple[dict[str, Any], str]] = [
    ({"info_keys": ("x_position",)}, "has no info_keys"),
    ({"env_kwargs": {"frame_skip": Choice((4, 5))}}, "has no parameters that episodes draw"),
    ({"env_kwargs": {"forward_reward_weight": np.float32(1)}}, "forward_reward_weight is .*float32"),
    ({"env_kwargs": {"render_mode": "human"}}, "draws in every step"),
]


@pytest.mark.parametrize(("settings", "why"), UNLIKE[:3])
def test_what_it_would_do_otherwise_is_left_to_serial(settings: dict[str, Any], why: str) -> None:
    assert type(make(CHEETAH, 1, **settings)) is SerialEnv
    with pytest.raises(ConfigError, match=f"{why}.*backend='serial'"):
        make(CHEETAH, 1, backend="mujoco", **settings)


LEFT_TO_GYMNASIUM: list[tuple[str, dict[str, Any], str]] = [
    ("Hopper-v5", {"terminate_when_unhealthy": "no"}, "terminate_when_unhealthy is 'no', which is no bool"),
    ("Hopper-v5", {"healthy_reward": -1}, "healthy_reward is -1, .* give -1.0"),
    ("Hopper-v5", {"xml_file": "inverted_pendulum.xml"}, "its model has fewer places than its class looks at"),
    ("Walker2d-v5", {"healthy_z_range": 3}, "its step would fail: 'int' object is not iterable"),
    ("Walker2d-v5", {"healthy_z_range": (0, 1, 2)}, r"healthy_z_range is \(0, 1, 2\), which are not two numbers"),
    ("Ant-v5", {"main_body": "nobody"}, "its step would fail: .*Invalid name 'nobody'"),
    (CHEETAH, {"frame_skip": 2.0}, "its step would fail: 'float' object cannot be interpreted as an integer"),
    (CHEETAH, {"ctrl_cost_weight": 10**400}, "its step would fail: int too large"),
]


@pytest.mark.parametrize(("env_id", "keywords", "why"), LEFT_TO_GYMNASIUM)
def test_odd_keywords_are_left_to_gymnasium(env_id: str, keywords: dict[str, Any], why: str) -> None:
    """Which fails in a step of its own, or takes them otherwise."""
    assert type(make(env_id, 1, env_kwargs=keywords)) is SerialEnv
    with pytest.raises(ConfigError, match=f"^{env_id}: {why}.*backend='serial'"):
        make(env_id, 1, backend="mujoco", env_kwargs=keywords)


@pytest.mark.parametrize("name", ["_get_rew", "dt", "do_simulation"])
def test_functions_put_into_the_class_are_left_to_gymnasium(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    kind: Any = type(gym.make(CHEETAH).unwrapped)
    part = next(part for part in kind.__mro__ if name in vars(part))
    monkeypatch.setattr(part, name, property(lambda _: 1.0) if name == "dt" else lambda *_: (0.0, {}))
    assert type(make(CHEETAH, 1)) is SerialEnv
    with pytest.raises(ConfigError, match=f"its {name} is {__name__}'s; backend='serial'"):
        make(CHEETAH, 1, backend="mujoco")


def test_a_render_mode_that_draws_in_steps_is_refused() -> None:
    settings, why = UNLIKE[3]
    with pytest.raises(ConfigError, match=f"{why}.*backend='serial'"):
        make(CHEETAH, 1, backend="mujoco", **settings)


def test_callbacks_in_python_are_refused() -> None:
    mujoco.set_mjcb_time(lambda: 0.0)
    try:
        with pytest.raises(ConfigError, match="set_mjcb_time has put a function"):
            make(CHEETAH, 1, backend="mujoco")
        assert type(make(CHEETAH, 1)) is SerialEnv
    finally:
        mujoco.set_mjcb_time(None)


def test_another_class_under_the_same_id_is_left_to_serial(monkeypatch: pytest.MonkeyPatch) -> None:
    hopper = gym.spec("Hopper-v5").entry_point
    monkeypatch.setitem(gym.registry, CHEETAH, EnvSpec(CHEETAH, entry_point=hopper))
    assert type(make(CHEETAH, 1)) is SerialEnv
    with pytest.raises(ConfigError, match="not as Gymnasium's own class"):
        make(CHEETAH, 1, backend="mujoco")


def test_unknown_ids_and_keywords_are_refused() -> None:
    with pytest.raises(ConfigError, match=r"backend='mujoco' steps Ant-v5, .*not 'Reacher-v5'; backend='serial'"):
        make("Reacher-v5", 1, backend="mujoco")
    with pytest.raises(TypeError, match="unexpected keyword argument 'frame_skips'"):
        make(CHEETAH, 1, backend="mujoco", env_kwargs={"frame_skips": 3})
    with pytest.raises(ConfigError, match="backend='mujoco' does not make; use backend='serial'"):
        shoal.make_vec(CHEETAH, 1, backend="mujoco")


def test_vector_environments_keep_their_infos() -> None:
    vector = shoal.make_vec(CHEETAH, 2)
    vector.reset(seed=0)
    assert "x_velocity" in vector.step(vector.action_space.sample())[4]
    vector.close()


@pytest.mark.parametrize(
    ("keywords", "stepped"), [({}, "native"), ({"forward_reward_weight": np.float32(1)}, "serial")]
)
def test_a_slow_step_is_advised_threads(keywords: dict[str, Any], stepped: str) -> None:
    """And worker processes only where Python steps the rows after all."""
    experiment = Experiment.new(CHEETAH, settings={"algo": "ppo"})
    with closing(make(CHEETAH, 1, env_kwargs=keywords)) as rows:
        assert engine_of(experiment, rows).backend == stepped


def test_another_time_limit() -> None:
    rows = started(CHEETAH, "mujoco", preprocessing=Preprocessing(max_episode_steps=7))
    assert max(map(np.max, drive(rows, 10, seed=0)[3::4])) == 7
    assert rows.spec.max_episode_steps == 7


def test_what_is_not_finite_is_refused_or_stands_back() -> None:
    """A hopper that ends in NaN: MuJoCo itself begins such simulations anew, so that it is put there from outside."""

    def fall(rows: Any) -> Any:
        drive(rows, 2, seed=0)
        rows.envs[1].model.opt.timestep = 1e100  # the first of four simulated steps throws it out of all bounds
        rows.send(BOTH, np.ones((2, 3), np.float32))
        return rows.recv()

    with pytest.raises(EnvError, match=r"Hopper-v5: row 1 at step 3 of its episode returned the .*final_nan"):
        fall(started("Hopper-v5", "mujoco", env_kwargs={"frame_skip": 1}))


@pytest.mark.parametrize("backend", ["mujoco", "serial"])
def test_the_last_finite_observation_stands_in(backend: str) -> None:
    """The pole flies out of all bounds, which ends its episode; the other row goes on."""
    seen = Preprocessing(final_nan="last_finite")
    rows: Any = started("InvertedPendulum-v5", backend, preprocessing=seen, env_kwargs={"frame_skip": 1})
    before = drive(rows, 2, seed=0)[-4]
    rows.envs[1].model.opt.timestep = 1e100
    rows.send(BOTH, np.zeros((2, 1), np.float32))
    ready = rows.recv()
    assert np.abs(rows.envs[0].data.qpos).max() < 1
    assert (ready.terminated.tolist(), ready.truncated.tolist()) == ([False, True], [False, False])
    assert ready.final_obs[1].tolist() == before[1].tolist()
    assert (ready.reward.tolist(), ready.episode_return[1], ready.episode_length[1]) == ([1, 0], 2, 3)
    assert np.abs(ready.obs).max() < 1  # of row 1 the next episode's first


@pytest.mark.parametrize("backend", ["mujoco", "serial"])
def test_what_ends_no_episode_must_be_finite(backend: str) -> None:
    """A cheetah's episodes never end in a fall, so that nothing stands in."""
    seen = Preprocessing(final_nan="last_finite")
    rows: Any = started(CHEETAH, backend, preprocessing=seen, env_kwargs={"frame_skip": 1})
    drive(rows, 2, seed=0)
    rows.envs[1].model.opt.timestep = 1e100
    rows.send(BOTH, np.zeros((2, 6), np.float32))
    with pytest.raises(EnvError, match=r"HalfCheetah-v5: row 1 at step 3 of its episode returned the observation"):
        rows.recv()


def test_an_error_of_mujoco_names_the_row(tmp_path: Path) -> None:
    """Python's own calls of MuJoCo turn its errors into exceptions; the native ones do too."""
    model = Path(gym.__file__).parent / "envs/mujoco/assets/ant.xml"
    small = tmp_path / "ant.xml"
    text = model.read_text(encoding="utf-8").replace("<option", '<size memory="16K"/><option', 1)
    small.write_text(text, encoding="utf-8")
    rows = started("Ant-v5", "mujoco", num_threads=2, env_kwargs={"xml_file": str(small)})
    with pytest.raises(EnvError, match=r"Ant-v5: row \d: MuJoCo failed: .*out of memory"):
        drive(rows, 300, seed=0)
    rows.reset(5)
    rows.recv()
    drive(rows, 1, seed=0)


def test_rows_render(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each row's picture shows the simulation that native threads have stepped."""

    def picture(renderer: Any, mode: str | None) -> NDArray[np.uint8]:
        assert mode == "rgb_array"
        return np.frombuffer(renderer.data.qpos.tobytes(), np.uint8).reshape(1, -1, 3)

    monkeypatch.setattr("gymnasium.envs.mujoco.mujoco_rendering.MujocoRenderer.render", picture)
    drawing = {"render_mode": "rgb_array"}
    rows = started(CHEETAH, "mujoco", num_threads=2, env_kwargs=drawing)
    plain = started(CHEETAH, "serial", env_kwargs=drawing)
    assert rows.capabilities == plain.capabilities
    pictures = Renderer(rows)
    first = [pictures.now(row) for row in (0, 1)]
    drive(rows, 3, seed=0)
    drive(plain, 3, seed=0)
    for row in (0, 1):
        assert pictures.now(row).tolist() == plain.render(row).tolist() != first[row].tolist()
    assert pictures.at_end(0) is None


def test_rows_that_draw_nothing_say_so() -> None:
    rows = make(CHEETAH, 1, backend="mujoco")
    assert not rows.capabilities.can_render
    with pytest.raises(ConfigError, match="cannot be rendered"):
        rows.render(0)
    with pytest.raises(ConfigError, match=r"cannot be rendered.*backend='serial'"):
        Renderer(rows)
