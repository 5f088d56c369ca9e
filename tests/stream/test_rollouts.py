"""The stream `rollouts`: every field by hand, its paths and schedules against each other, state and restore."""

from __future__ import annotations

import copy
import time
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn
from torch.optim import Adam

from shoal.envs.registry import make
from shoal.learn.acting import Acting, PlanActor
from shoal.learn.learner import Learner
from shoal.learn.weights import pack
from shoal.nets.encoder import Encoder
from shoal.nets.policy import MlpPolicy, Network, make_policy
from shoal.stream.meter import Meter
from shoal.stream.rollouts import Rollouts, rollouts
from shoal.stream.schedules import Overlap, Sync, schedule
from shoal.types import ConfigError, EnvError, Steps, map_tree
from tests.counting import CountingPolicy, LateReset, counting_rows
from tests.inside import inside

ARRAYS = ("start", "action", "log_prob", "value", "next_value", "reward", "terminated", "truncated", "valid")
SCHEDULES = [Sync(), Overlap()]


def kept(steps: Steps) -> Steps:
    """A copy that outlives the next rollout."""

    def copied(x: Any) -> Any:
        return x.clone()

    arrays = {name: getattr(steps, name).clone() for name in (*ARRAYS, "final_index")}
    state = None if steps.state is None else map_tree(copied, steps.state)
    arrays["version"] = steps.version.clone()
    return replace(steps, obs=steps.obs.clone(), final_obs=steps.final_obs.clone(), state=state, **arrays)


def pull(stream: Rollouts, times: int) -> list[Any]:
    """That many rollouts, each answered by a publish."""
    found: list[Any] = []
    for _ in range(times):
        batch = next(stream)
        found.append({role: kept(x) for role, x in batch.items()} if isinstance(batch, dict) else kept(batch))
        stream.publish()
    return found


def finals(steps: Steps) -> torch.Tensor:
    """The final observations of the ended steps, in the order of (step, row)."""
    return steps.final_obs[steps.final_index[steps.final_index >= 0].long()]


def same(left: list[Steps], right: list[Steps]) -> None:
    """Bit for bit the same experience."""
    for mine, theirs in zip(left, right, strict=True):
        for name in ("obs", *ARRAYS):
            assert torch.equal(getattr(mine, name), getattr(theirs, name)), name
        assert torch.equal(mine.final_index >= 0, theirs.final_index >= 0)
        assert torch.equal(finals(mine), finals(theirs))


def check(steps: Steps, **expected: Any) -> None:
    """Every named field equals its literal."""
    for name, value in expected.items():
        assert getattr(steps, name).tolist() == value, name


def flags(*rows: str) -> list[list[bool]]:
    """One string a step, `x` for true."""
    return [[c == "x" for c in row] for row in rows]


@pytest.mark.parametrize("schedule", SCHEDULES)
def test_every_field_of_the_first_rollout(schedule: Any) -> None:
    """Row 0 terminates after 3 steps, row 1 is truncated after 2, row 2 is cut: 4 steps of each."""
    stream = rollouts(counting_rows(), CountingPolicy(), num_steps=4, schedule=schedule)
    steps = next(stream)
    check(
        steps,
        obs=[[[0, 0], [1, 0], [2, 0]], [[0, 1], [1, 1], [2, 1]], [[0, 2], [1, 0], [2, 2]], [[0, 0], [1, 1], [2, 3]]],
        start=flags("xxx", "...", ".x.", "x.."),
        action=[[0, 1, 2], [1, 2, 0], [2, 1, 1], [0, 2, 2]],
        log_prob=[[0, 0, 0]] * 4,
        value=[[1, 101, 201], [12, 112, 212], [23, 101, 223], [1, 112, 234]],
        # Row 1's final observation (1, 2) is worth 100 + 20 + 3: the count goes on to the end of its episode.
        next_value=[[12, 112, 212], [23, 123, 223], [0, 112, 234], [12, 123, 245]],
        reward=[[0, 0.125, 0.25], [1.125, 1.25, 1], [2.25, 0.125, 2.125], [0, 1.25, 3.25]],
        terminated=flags("...", "...", "x..", "..."),
        truncated=flags("...", ".x.", "...", ".x."),
        valid=flags("xxx", "xxx", "xxx", "xxx"),
        final_index=[[-1, -1, -1], [-1, 0, -1], [1, -1, -1], [-1, 2, -1]],
        state=[0, 0, 0],
    )
    assert finals(steps).tolist() == [[1, 2], [0, 3], [1, 2]]
    assert (steps.version.unique().tolist(), stream.env_steps) == ([0], 12)
    assert stream.episodes.returns.tolist() == [1.375, 3.375, 1.375]
    assert stream.episodes.lengths.tolist() == [2, 3, 2]


@pytest.mark.parametrize("schedule", SCHEDULES)
def test_every_field_of_the_second_rollout(schedule: Any) -> None:
    """Episodes and memory go on where the first one stopped."""
    policy = CountingPolicy()
    stream = rollouts(counting_rows(), policy, num_steps=4, schedule=schedule)
    steps = pull(stream, 2)[1]
    check(
        steps,
        obs=[[[0, 1], [1, 0], [2, 4]], [[0, 2], [1, 1], [2, 5]], [[0, 0], [1, 0], [2, 6]], [[0, 1], [1, 1], [2, 7]]],
        start=flags(".x.", "...", "xx.", "..."),
        action=[[1, 1, 0], [2, 2, 1], [0, 1, 2], [1, 2, 0]],
        value=[[12, 101, 245], [23, 112, 256], [1, 101, 267], [12, 112, 278]],
        next_value=[[23, 112, 256], [0, 123, 267], [12, 112, 278], [23, 123, 289]],
        reward=[[1.125, 0.125, 4], [2.25, 1.25, 5.125], [0, 0.125, 6.25], [1.125, 1.25, 7]],
        terminated=flags("...", "x..", "...", "..."),
        truncated=flags("...", ".x.", "...", ".x."),
        final_index=[[-1, -1, -1], [0, 1, -1], [-1, -1, -1], [-1, 2, -1]],
        state=[1, 2, 4],
    )
    assert finals(steps).tolist() == [[0, 3], [1, 2], [1, 2]]
    assert steps.version.unique().tolist() == [1]
    assert (stream.version, stream.env_steps) == (2, 24)
    assert stream.episodes.returns.tolist() == [3.375, 1.375, 1.375]
    assert stream.episodes.lengths.tolist() == [3, 2, 2]


def test_a_policy_unrolled_over_the_rollout_gives_its_values_again() -> None:
    """Learning sees what acting saw: the state before step 0 and the starts are enough."""
    policy = make_policy(counting_rows().spec, Network(hidden=(8,), recurrent="lstm", normalize_obs=True), 0)
    stream = rollouts(counting_rows(), policy, num_steps=7)
    for _ in range(3):
        steps = next(stream)
        output = policy(steps.obs, steps.state, steps.start)
        torch.testing.assert_close(output.value, steps.value)
        torch.testing.assert_close(output.distribution.log_prob(steps.action), steps.log_prob)
        stream.publish()


def small(env: Any, *, seed: int = 0, **network: Any) -> nn.Module:
    """A small policy whose actions vary."""
    return make_policy(env.spec, Network(hidden=(16,), **network), seed)


ENVS = [
    ("CartPole-v1", {"max_episode_steps": 20}),
    ("CartPole-v1", {}),
    ("Pendulum-v1", {"max_episode_steps": 7}),
]


@pytest.mark.parametrize(("env_id", "limits"), ENVS)
def test_the_fused_path_equals_the_plain_one(env_id: str, limits: dict[str, Any]) -> None:
    """Whole rollouts in native code, and the stream's own loop around the same plan: bit for bit one experience."""
    found: list[list[Steps]] = []
    for fused in (True, False):
        env = make(env_id, 5, env_kwargs=limits)
        policy = small(env, normalize_obs=True)
        stream = rollouts(env, policy, num_steps=30, acting=Acting(seed=3))
        assert isinstance(inside(stream).roles[0].actor, PlanActor)
        assert inside(stream).plan is not None
        if not fused:
            inside(stream).plan = None
        found.append(pull(stream, 4))
    same(*found)
    ends = sum(int((steps.final_index >= 0).sum()) for steps in found[0])
    assert ends > 3
    assert sum(int(steps.truncated.sum()) for steps in found[0]) > 3 or not limits


@pytest.mark.parametrize("network", [{}, {"recurrent": "gru"}])
def test_few_rows_act_on_every_thread(network: dict[str, Any]) -> None:
    """Blocks of a fused rollout are as small as the team of threads asks for, of whole environments; no bit changes."""
    found: list[list[Steps]] = []
    for threads in (1, 3):
        env = make("CartPole-v1", 40, num_threads=threads)
        stream = rollouts(env, small(env, **network), num_steps=9, acting=Acting(seed=3, num_threads=threads))
        assert inside(stream).plan is not None
        found.append(pull(stream, 3))
    same(*found)
    plan = inside(stream).plan
    assert plan is not None
    native = plan.native
    for agents, count in ((0, 40), (-1, 40), (1, -1)):
        with pytest.raises(ValueError, match="num_agents must be at least 1 and count at least 0, not"):
            native.rows_per_block(agents, count)
    if not network:
        assert [native.rows_per_block(1, count) for count in (8, 16, 24, 30, 40, 400)] == [8, 8, 8, 10, 14, 64]
        assert [native.rows_per_block(4, count) for count in (8, 16, 40, 48, 400)] == [8, 8, 16, 16, 64]


@pytest.mark.parametrize("network", [{}, {"recurrent": "gru"}])
def test_stepping_inside_a_fused_rollout_is_the_environment_s_time(network: dict[str, Any]) -> None:
    """Both activities have their part, and together they are the time of the rollouts."""
    env = make("shoal/Breakout-v0" if not network else "CartPole-v1", 4)
    meter = Meter()
    stream = rollouts(env, small(env, **network), num_steps=20, acting=Acting(seed=3), meter=meter)
    assert inside(stream).plan is not None
    begun = time.perf_counter()
    pull(stream, 3)
    elapsed = time.perf_counter() - begun
    assert meter.seconds["environment"] > 0
    assert meter.seconds["acting"] > 0
    assert meter.seconds["environment"] + meter.seconds["acting"] <= elapsed


def test_native_acting_equals_torch() -> None:
    """The same actions in a whole rollout, values and log-probabilities within 1e-5."""
    found: list[Steps] = []
    for native in (True, False):
        env = make("CartPole-v1", 5)
        policy = small(env, normalize_obs=True)
        found.append(pull(rollouts(env, policy, num_steps=50, acting=Acting(3, native=native)), 2)[1])
    assert torch.equal(found[0].action, found[1].action)
    for name in ("log_prob", "value", "next_value"):
        torch.testing.assert_close(getattr(found[0], name), getattr(found[1], name), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("native", [True, False])
def test_overlap_equals_sync_and_itself(*, native: bool) -> None:
    """A policy without memory, one row a forward: the schedule changes no experience."""
    found: list[list[Steps]] = []
    for way in (Sync(), Overlap(), Overlap()):
        env = make("CartPole-v1", 5)
        policy = small(env)
        acting = Acting(seed=3, native=native, act_block=1)
        found.append(pull(rollouts(env, policy, num_steps=25, schedule=way, acting=acting), 3))
    same(found[1], found[2])
    for name in ("obs", *ARRAYS):
        if native or name not in ("next_value", "log_prob", "value"):
            for sync, overlap in zip(found[0], found[1], strict=True):
                assert torch.equal(getattr(sync, name), getattr(overlap, name)), name


def test_another_seed_gives_another_experience() -> None:
    """Environment and noise both follow the acting seed."""
    found: list[Steps] = []
    for seed in (1, 1, 2):
        env = make("CartPole-v1", 5)
        policy = small(env)
        found += pull(rollouts(env, policy, num_steps=25, acting=Acting(seed)), 1)
    assert torch.equal(found[0].action, found[1].action)
    assert not torch.equal(found[0].obs[0], found[2].obs[0])
    assert not torch.equal(found[0].action, found[2].action)


def test_publish_comes_between_two_pulls() -> None:
    """Pulling twice raises; versions count publishes, whether or not a batch came between."""
    policy = CountingPolicy()
    stream = rollouts(counting_rows(), policy, num_steps=2)
    assert next(stream).version.unique().tolist() == [0]
    with pytest.raises(RuntimeError, match="before publish"):
        next(stream)
    assert [stream.publish(), stream.publish()] == [1, 2]
    assert next(stream).version.unique().tolist() == [2]
    assert iter(stream) is stream


def test_acting_uses_the_published_weights() -> None:
    """A change of the weights shows in the actions after `publish`, not before."""
    policy = CountingPolicy()
    stream = rollouts(counting_rows(), policy, num_steps=1)
    policy.shift.data.fill_(1.0)
    assert next(stream).action.tolist() == [[0, 1, 2]]
    stream.publish()
    assert next(stream).action.tolist() == [[2, 0, 1]]


def test_statistics_are_merged_at_publish() -> None:
    """Frozen while a version acts; then the mean of all that was seen, once, and acting uses it."""
    env = make("CartPole-v1", 4)
    policy = small(env, normalize_obs=True)
    assert isinstance(policy, MlpPolicy)
    layer = policy.encoder.normalizer
    assert layer is not None
    stream = rollouts(env, Learner(policy, Adam, lr=0.1), num_steps=10)
    first = next(stream).obs.clone()
    assert float(layer.count) == 0
    stream.publish()
    stream.publish()
    assert float(layer.count) == 40
    torch.testing.assert_close(layer.mean, first.mean((0, 1)))
    steps = next(stream)
    torch.testing.assert_close(policy(steps.obs, None, steps.start).value, steps.value, rtol=1e-5, atol=1e-5)


def test_a_policy_in_eval_mode_keeps_its_statistics() -> None:
    """As with torch's own normalization layers: a frozen opponent stays frozen."""
    env = make("CartPole-v1", 4)
    policy = small(env, normalize_obs=True).eval()
    pull(rollouts(env, Learner(policy, Adam, lr=0.1), num_steps=10), 1)
    assert isinstance(policy, MlpPolicy)
    assert policy.encoder.normalizer is not None
    assert float(policy.encoder.normalizer.count) == 0


class Encoded(CountingPolicy):
    """A user's policy that happens to have an encoder of its own."""

    def __init__(self) -> None:
        super().__init__()
        self.encoder = nn.Identity()


def test_a_user_s_own_encoder_is_left_alone() -> None:
    """Only shoal's encoders keep statistics."""
    learner = Learner(Encoded(), Adam, lr=0.1)
    assert pull(rollouts(counting_rows(), learner, num_steps=2), 2)[1].version.unique().tolist() == [1]


@pytest.mark.parametrize("network", [{}, {"normalize_obs": True}, {"recurrent": "gru"}, {"recurrent": "lstm"}])
@pytest.mark.parametrize("way", SCHEDULES)
@pytest.mark.parametrize("backend", ["native", "serial"])
def test_a_restored_stream_goes_on_bit_for_bit(backend: str, way: Any, network: dict[str, Any]) -> None:
    """Saved after two rollouts, continued in a new environment, stream and policy object."""

    def fresh() -> tuple[Rollouts, Learner]:
        env = make("CartPole-v1", 3, backend=backend)
        learner = Learner(small(env, **network), Adam, lr=0.1)
        return rollouts(env, learner, num_steps=13, schedule=way, acting=Acting(seed=5)), learner

    stream, learner = fresh()
    pull(stream, 2)
    state, saved = stream.state(), copy.deepcopy(learner.state())
    expected = pull(stream, 3)
    again, other = fresh()
    next(again)
    other.restore(saved)
    assert again.restore(state) == []
    assert (again.version, again.env_steps) == (2, 2 * 13 * 3)
    continued = pull(again, 3)
    same(expected, continued)
    assert [steps.version.unique().tolist() for steps in continued] == [[2], [3], [4]]
    if network.get("recurrent") == "gru":
        assert torch.equal(expected[0].state, continued[0].state)


@pytest.mark.parametrize("schedule", SCHEDULES)
def test_a_restored_stream_knows_which_rows_start(schedule: Any) -> None:
    """Row 1 ended with the last step that was saved; a stream that had gone elsewhere begins its episode."""
    policy = CountingPolicy()
    stream = rollouts(counting_rows(), policy, num_steps=4, schedule=schedule)
    pull(stream, 1)
    state = stream.state()
    expected = pull(stream, 1)
    again = rollouts(counting_rows(), policy, num_steps=3, schedule=schedule)
    pull(again, 1)
    again.restore(state)
    steps = next(again)
    check(steps, start=flags(".x.", "...", "xx."), state=[1, 2, 4], value=expected[0].value[:3].tolist())


def test_steps_that_only_reset_are_marked_and_skipped() -> None:
    """Two steps to the end, one that only resets, and again; the policy's memory begins after it."""
    policy: Any = CountingPolicy()
    policy.encoder = Encoder(counting_rows().spec, normalize=True)
    stream = rollouts(LateReset(), Learner(policy, Adam, lr=0.1), num_steps=5)
    check(
        next(stream),
        obs=[[[0, 0]], [[0, 1]], [[0, 2]], [[0, 0]], [[0, 1]]],
        start=flags("x", ".", "x", "x", "."),
        valid=flags("x", "x", ".", "x", "x"),
        terminated=flags(".", "x", ".", ".", "x"),
        reward=[[1], [1], [0], [1], [1]],
        # The invalid step's own value is of no account: 20 for its step and 1 for the count.
        value=[[1], [12], [21], [1], [12]],
        next_value=[[12], [0], [1], [12], [0]],
    )
    assert stream.episodes.lengths.tolist() == [2, 2]
    stream.publish()
    assert policy.encoder.normalizer is not None
    assert policy.encoder.normalizer.total_mean.tolist() == [0, 0.5]


@pytest.mark.parametrize("nan_at", [1, 2])
def test_nan_observations_are_refused(nan_at: int) -> None:
    """In the middle of an episode, and as its final observation; the row is named."""
    stream = rollouts(counting_rows(nan_at=nan_at), CountingPolicy(), num_steps=4)
    with pytest.raises(EnvError, match="row 1"):
        next(stream)


@pytest.mark.parametrize("schedule", [Sync(), Overlap()])
def test_nan_observations_of_native_rows_are_refused(schedule: Any) -> None:
    """The rollout is finished, fused or not; then the row is named."""
    env: Any = make("CartPole-v1", 3)
    stream = rollouts(env, small(env), num_steps=4, schedule=schedule)
    env.obs[1, 2] = np.nan
    with pytest.raises(EnvError, match="row 1"):
        next(stream)


def test_impossible_settings_are_refused() -> None:
    """No steps, one row to overlap, an unknown schedule."""
    with pytest.raises(ConfigError, match="num_steps must be at least 1, got 0"):
        rollouts(counting_rows(), CountingPolicy(), num_steps=0)
    with pytest.raises(
        ConfigError, match=r'schedule="overlap" needs at least 2 rows.*--num-envs 2, or --schedule sync'
    ):
        rollouts(counting_rows(1), CountingPolicy(), num_steps=2, schedule=Overlap())
    with pytest.raises(ConfigError, match="unknown schedule 'asynch'; use sync, overlap or async"):
        schedule("asynch")


def test_publishing_needs_no_second_packing() -> None:
    """The learner's flat buffer is the one that the stream was made with."""
    env = make("CartPole-v1", 2)
    policy = small(env)
    stream = rollouts(env, policy, num_steps=2)
    assert pack(policy).data_ptr() == inside(stream).roles[0].source.flat.data_ptr()


@pytest.mark.parametrize("native", [True, False])
def test_steps_that_an_algorithm_leaves_out_come_again(*, native: bool) -> None:
    """`valid` changed in place holds for this rollout alone, even where nothing of it is left."""
    env = make("CartPole-v1", 4)
    acting = Acting(0, native=native)
    stream = rollouts(env, Learner(make_policy(env.spec, Network(), 0), Adam), num_steps=5, acting=acting)
    for _ in range(3):
        steps = next(stream)
        assert int(steps.valid.sum()) >= 19
        steps.valid[:] = False
        stream.publish()
