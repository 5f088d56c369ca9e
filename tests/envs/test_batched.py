"""Libraries that batch themselves: what they do is handed over as it is, and what must not pass is refused."""

import warnings
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
import torch
from gymnasium.vector import AsyncVectorEnv, AutoresetMode, SyncVectorEnv, VectorEnv
from gymnasium.vector.utils import batch_space
from gymnasium.wrappers.utils import RunningMeanStd
from torch import nn

from shoal.envs.libraries.batched import BatchedEnv
from shoal.envs.registry import make
from shoal.export.vector_env import make_vec
from shoal.learn.acting import Acting
from shoal.nets.policy import Network, PlainPolicy, make_policy
from shoal.run.evaluate import evaluate
from shoal.stream.rollouts import rollouts
from shoal.types import ConfigError, EnvError
from tests.contract.toys import Lamps
from tests.toy_library import Lives


class Clock(VectorEnv[Any, Any, Any]):
    """Rows count their steps and end after 3, reset as Gymnasium's NEXT_STEP says; `spoil` changes what is returned."""

    metadata = {"autoreset_mode": AutoresetMode.NEXT_STEP}  # noqa: RUF012
    single_observation_space = gym.spaces.Box(0, 9, (2,), np.float32)
    single_action_space = gym.spaces.Discrete(2)

    def __init__(self, num_envs: int, spoil: Any = None) -> None:
        self.num_envs, self.spoil = num_envs, spoil
        self.observation_space = batch_space(self.single_observation_space, num_envs)
        self.clock = np.zeros(num_envs)
        self.ended = np.zeros(num_envs, np.bool_)

    def reset(self, *, seed: Any = None, options: Any = None) -> tuple[Any, dict[str, Any]]:
        self.clock[:] = np.arange(self.num_envs) % 2
        self.ended[:] = False
        return self.seen(), {}

    def step(self, actions: Any) -> Any:
        self.clock = np.where(self.ended, 0, self.clock + 1)
        reward = np.where(self.ended, 7.0, 1.0)  # the step that only resets has no reward, whatever is returned
        self.ended = self.clock == 3
        made = [self.seen(), reward, self.ended.copy(), np.zeros(self.num_envs, np.bool_), {}]
        return tuple(made if self.spoil is None else self.spoil(made))

    def seen(self) -> Any:
        return np.stack([self.clock, self.clock], axis=1).astype(np.float32)


def stepped(env: BatchedEnv, actions: list[int]) -> Any:
    env.send(slice(0, env.num_rows), np.array(actions))
    return env.recv()


def started(env: Any) -> Any:
    env.reset(0)
    env.recv()
    return env


def test_a_step_that_only_resets_is_not_valid() -> None:
    """Row 0 begins at 0 and ends with its third step, row 1 begins at 1 and ends with its second."""
    env = started(make(Clock, 2, backend="vector"))
    found: list[list[Any]] = []
    for _ in range(5):
        ready = stepped(env, [0, 0])
        found.append([x.tolist() for x in (ready.obs[:, 0], ready.reward, ready.terminated, ready.valid)])
        if ready.terminated[0]:
            assert ready.final_obs[0].tolist() == [3, 3]
            assert (ready.episode_return[0], ready.episode_length[0]) == (3, 3)
    assert found == [
        [[1, 2], [1, 1], [False, False], [True, True]],
        [[2, 3], [1, 1], [False, True], [True, True]],
        [[3, 0], [1, 0], [True, False], [True, False]],
        [[0, 1], [0, 1], [False, False], [False, True]],
        [[1, 2], [1, 1], [False, False], [True, True]],
    ]


@pytest.mark.parametrize("mode", list(AutoresetMode))
def test_every_mode_equals_the_library_itself(mode: AutoresetMode) -> None:
    def rows(num_envs: int) -> SyncVectorEnv:
        return SyncVectorEnv([Lamps] * num_envs, autoreset_mode=mode)

    env, library = make(rows, 3, backend="vector"), rows(3)
    env.reset(4)
    ready, (obs, _) = env.recv(), library.reset(seed=4)
    assert ready.obs.tolist() == obs.tolist()
    rng, ends, waiting = np.random.default_rng(0), 0, np.zeros(3, np.bool_)
    for _ in range(80):
        actions = rng.integers(0, (3, 2), (3, 2))
        env.send(slice(0, 3), actions)
        ready = env.recv()
        obs, reward, terminated, truncated, infos = library.step(actions.copy())
        ended = terminated | truncated
        last = obs.copy()
        if ended.any() and mode is AutoresetMode.SAME_STEP:
            last[ended] = np.stack(list(infos["final_obs"][ended]))
        if ended.any() and mode is AutoresetMode.DISABLED:
            obs = library.reset(options={"reset_mask": ended})[0]
        assert ready.obs.tolist() == obs.tolist()
        assert ready.final_obs[ended].tolist() == last[ended].tolist()
        assert ready.terminated.tolist() == terminated.tolist()
        assert ready.truncated.tolist() == truncated.tolist()
        assert ready.reward.tolist() == np.where(waiting, 0, reward).tolist()
        assert ready.valid.tolist() == (~waiting).tolist()
        waiting = ended & (mode is AutoresetMode.NEXT_STEP)
        ends += int(ended.sum())
    assert ends > 5


def nan_observation(made: list[Any]) -> list[Any]:
    made[0][1, 0] = np.nan
    return made


def nan_reward(made: list[Any]) -> list[Any]:
    made[1][0] = np.nan
    return made


def large_reward(made: list[Any]) -> list[Any]:
    return [made[0], made[1] * -1e39, *made[2:]]


def other_shape(made: list[Any]) -> list[Any]:
    return [made[0][:, :1], *made[1:]]


def one_reward(made: list[Any]) -> list[Any]:
    return [made[0], 1.0, *made[2:]]


def text_rewards(made: list[Any]) -> list[Any]:
    return [made[0], np.array(["1.0", "2.0"]), *made[2:]]


def complex_rewards(made: list[Any]) -> list[Any]:
    return [made[0], made[1] + 0j, *made[2:]]


def short_flags(made: list[Any]) -> list[Any]:
    return [*made[:3], np.zeros(1, np.bool_), made[4]]


def text_flags(made: list[Any]) -> list[Any]:
    return [*made[:2], np.array(["False", "False"]), *made[3:]]


@pytest.mark.parametrize(
    ("spoil", "words"),
    [
        (nan_observation, "row 1 at step 1 of its episode returned the observation"),
        (nan_reward, "row 0 at step 1 of its episode returned the reward nan"),
        (large_reward, r"row 0 at step 1 of its episode returned the reward -1e\+39, but float32"),
        (other_shape, r"observations of shape \(2, 1\) and type float32, but its space says \(2, 2\) and float32"),
        (one_reward, r"reward of shape \(\) and type float64, expected numbers \(2,\)"),
        (text_rewards, r"reward of shape \(2,\) and type <U3, expected numbers \(2,\)"),
        (complex_rewards, r"reward of shape \(2,\) and type complex128, expected numbers"),
        (short_flags, r"truncated of type bool and shape \(1,\), expected bools \(2,\)"),
        (text_flags, r"terminated of type <U5 and shape \(2,\), expected bools"),
    ],
)
def test_what_a_library_returns_is_checked(spoil: Any, words: str) -> None:
    env = started(make(Clock, 2, backend="vector", env_kwargs={"spoil": spoil}))
    with pytest.raises(EnvError, match=words):
        stepped(env, [0, 1])
    with pytest.raises(RuntimeError, match="a step failed halfway"):
        env.send(slice(0, 2), np.array([0, 0]))
    env.reset(0)
    assert not env.recv().reward.any()


def unnamed(num_envs: int) -> Any:
    env = Clock(num_envs)
    env.metadata = {}
    return env


def one_more(num_envs: int) -> Any:
    return Clock(num_envs + 1)


def no_vector(num_envs: int) -> Any:
    return Lamps()


def spaceless(num_envs: int) -> Any:
    env = Clock(num_envs)
    env.single_action_space = None  # pyright: ignore[reportAttributeAccessIssue]
    return env


def uncounted(num_envs: int) -> Any:
    env = Clock(num_envs)
    del env.num_envs
    return env


def wrongly_reset(num_envs: int) -> Any:
    env = Clock(num_envs)
    env.metadata = {"autoreset_mode": "sometimes"}
    return env


@pytest.mark.parametrize(
    ("env", "words"),
    [
        (unnamed, "set metadata"),
        (spaceless, "lacks single_action_space, which every gymnasium.vector.VectorEnv has"),
        (uncounted, "lacks num_envs"),
        (wrongly_reset, "autoreset_mode.* got 'sometimes'"),
        (one_more, "made 3 environments, asked for 2"),
        (no_vector, "returned Lamps, expected a gymnasium.vector.VectorEnv"),
        (Lamps, "is called with num_envs"),
        ("NoSuchEnv-v0", "no vector environment 'NoSuchEnv-v0'"),
    ],
)
def test_what_is_no_vector_environment_is_refused(env: Any, words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        make(env, 2, backend="vector")


def test_where_libraries_do_not_belong() -> None:
    with pytest.raises(ConfigError, match="backend='vector' runs it"):
        make(lambda: Clock(2), 2)
    with pytest.raises(ConfigError, match="hand over no infos"):
        make(Clock, 2, backend="vector", info_keys=("x",))
    with pytest.raises(ConfigError, match="a vector environment already"):
        make_vec(Clock, 2, backend="vector")
    with pytest.raises(ConfigError, match="by their id"):
        make(Clock, 2, backend="envpool")


def test_a_vector_environment_by_its_id() -> None:
    env = started(make("CartPole-v1", 3, backend="vector"))
    assert env.spec.max_episode_steps == 500
    assert stepped(env, [0, 1, 0]).reward.tolist() == [1, 1, 1]
    with pytest.raises(ConfigError, match=r"took no list of seeds .*; seed it with one number"):
        env.reset([3, 1, 2])
    env.close()


def test_rows_that_take_one_integer_are_resumed() -> None:
    """CartPole's own vector environment: each row is cut as truncated, said so, and the next episodes go on."""
    env = started(make("CartPole-v1", 2, backend="vector"))
    before = stepped(env, [0, 1])
    last = before.obs.copy()
    said = env.restore(env.state())
    assert said == [f"CartPole-v1: row {row} cannot be saved; its episode is cut as truncated" for row in (0, 1)]
    ready = env.recv()
    assert ready.truncated.all()
    assert (ready.final_obs.tolist(), ready.episode_length.tolist()) == (last.tolist(), [1, 1])
    assert stepped(env, [0, 1]).valid.all()


def test_a_partial_reset_that_begins_other_rows_is_named() -> None:
    """CartPole's own vector environment ignores reset_mask: rows in the middle of an episode would begin anew."""
    env = started(make("CartPole-v1", 3, backend="vector"))
    first = np.array([True, False, False])
    with pytest.raises(EnvError, match="also began row 1 anew, which the mask leaves out"):
        env.restart([None] * 3, first, held=~first)

    def rows(num_envs: int) -> SyncVectorEnv:
        return SyncVectorEnv([Lamps] * num_envs, autoreset_mode=AutoresetMode.DISABLED)

    kept = started(make(rows, 3, backend="vector"))
    kept.restart([None] * 3, first, held=~first)
    kept.recv()


def normalized(num_envs: int) -> Any:
    vector = SyncVectorEnv([Lamps] * num_envs)
    return gym.wrappers.vector.NormalizeObservation(vector)


def paid(num_envs: int) -> Any:
    return SyncVectorEnv([lambda: gym.wrappers.NormalizeReward(Lamps())] * num_envs)


def test_wrappers_with_statistics_of_their_own_are_named() -> None:
    """Their state is in no checkpoint and in no other row: our own way is named."""
    with pytest.warns(UserWarning, match=r"NormalizeObservation keeps running .*--network\.normalize-obs"):
        make(normalized, 2, backend="vector")
    with pytest.warns(UserWarning, match=r"NormalizeReward keeps running .* in units that differ"):
        make(paid, 2, backend="vector")
    with pytest.warns(UserWarning, match="NormalizeObservation keeps running"):
        make(lambda: gym.wrappers.TimeLimit(gym.wrappers.NormalizeObservation(Lamps()), 5), 2)


class Scaled(gym.ObservationWrapper[Any, Any, Any]):
    """A copy of a normalizing wrapper, as many projects keep one."""

    def __init__(self) -> None:
        super().__init__(Lamps())
        self.running = RunningMeanStd()

    def observation(self, observation: Any) -> Any:
        return observation


class Held(gym.Env[Any, Any]):
    """Has an environment that normalizes under another name than `env`."""

    def __init__(self) -> None:
        self.task = gym.wrappers.NormalizeReward(Lamps())
        self.observation_space, self.action_space = self.task.observation_space, self.task.action_space


def in_processes(num_envs: int) -> Any:
    return AsyncVectorEnv([lambda: gym.wrappers.NormalizeObservation(Lamps())] * num_envs)


@pytest.mark.parametrize(
    ("env", "backend", "said"),
    [
        (Scaled, "serial", r"Scaled keeps running .*--network\.normalize-obs"),
        (Held, "serial", r"NormalizeReward keeps running .*--normalize-reward"),
        (in_processes, "vector", r"of its environments \(obs_rms\) keeps running .*--network\.normalize-obs"),
    ],
)
def test_statistics_are_found_wherever_they_are_kept(env: Any, backend: str, said: str) -> None:
    with pytest.warns(UserWarning, match=said):
        make(env, 2, backend=backend).close()


def test_a_life_lost_is_an_end_for_learning_only() -> None:
    """Two steps, a life, one step, the second life: a game of 4 steps and 12 points; rewards to learn from are 1."""
    env = started(BatchedEnv(Lives(1)))
    seen = [stepped(env, [action]) for action in (0,)]
    assert not seen[0].terminated
    found: list[tuple[Any, ...]] = []
    for action in (1, 0, 1, 0):
        r = stepped(env, [action])
        found.append((r.obs[0, 0], r.reward[0], bool(r.terminated[0]), r.final_obs[0, 0]))
        found[-1] += (r.episode_return[0], r.episode_length[0]) if r.terminated[0] else ()
    assert found == [
        (2, 1, True, 2, 0, 0),
        (3, 1, False, 2),
        (0, 1, True, 4, 12, 4),
        (1, 1, False, 4),
    ]
    assert env.restore(env.state()) == []


class Always(nn.Module):
    def __init__(self, action: int) -> None:
        super().__init__()
        self.logits = nn.Parameter(torch.eye(2)[action])

    def forward(self, obs: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        return self.logits.expand(len(obs), 2), obs[:, 0]


def test_evaluation_and_streams_count_whole_games() -> None:
    """Action 1 in every step: games of 2 steps and 6 points, an end for learning in each step."""
    env = BatchedEnv(Lives(2))
    policy = PlainPolicy(Always(1), env.spec)
    score = evaluate(policy, env, episodes=5, acting=Acting(0))
    assert score.returns.tolist() == [6] * 5
    assert score.lengths.tolist() == [2] * 5
    stream = rollouts(env, make_policy(env.spec, Network(), 0), num_steps=40)
    steps = next(stream)
    ends = int(steps.terminated.sum())
    assert abs(ends - 2 * len(stream.episodes.returns)) <= 2  # at most one life of each row is still being played for
    assert set(stream.episodes.returns / stream.episodes.lengths) == {3.0}
    assert not steps.next_value[steps.terminated].any()


def test_a_failing_resume_names_rows_and_begins_with_other_seeds() -> None:
    library = Lives(3)
    env = started(BatchedEnv(library))
    stepped(env, [0, 1, 0])
    state = env.state()
    state["obs"][1] += 1
    assert env.restore(state) == [
        "Lives-v0: row 1 did not come back to its saved observation; its episode is cut as truncated"
    ]
    ready = env.recv()
    assert ready.truncated.tolist() == [False, True, False]
    assert (ready.final_obs[1, 0], ready.episode_return[1], ready.episode_length[1]) == (2, 3, 1)
    assert ready.obs[:, 0].tolist() == [1, 0, 1]
    assert not set(library.seeds) & {0, 1, 2}
    with pytest.raises(ConfigError, match=r"observations \(3, 1\), but this environment has \(2, 1\)"):
        BatchedEnv(Lives(2)).restore(state)


@pytest.mark.parametrize("mode", list(AutoresetMode))
def test_choices_outside_their_space_are_refused(mode: AutoresetMode) -> None:
    """As `serial` does; Gymnasium's vector environments hand them over as they are."""

    class Off(gym.Env[Any, Any]):
        observation_space = gym.spaces.Dict(
            {"near": gym.spaces.Box(0, 9, (1,), np.float32), "room": gym.spaces.Discrete(3, start=2)}
        )
        action_space = gym.spaces.Discrete(2)

        def reset(self, **keywords: Any) -> Any:
            return {"near": np.zeros(1, np.float32), "room": 4}, {}

        def step(self, action: Any) -> Any:
            return {"near": np.zeros(1, np.float32), "room": 5}, 0.0, False, False, {}

    env = started(make(lambda num_envs: SyncVectorEnv([Off] * num_envs, autoreset_mode=mode), 2, backend="vector"))
    env.send(slice(0, 2), np.zeros(2, np.int64))
    with pytest.raises(EnvError, match=r"row 0 returned the observation\['room'\] 5, outside 2 to 4"):
        env.recv()


def test_one_environment_in_two_places_is_refused() -> None:
    """A SyncVectorEnv of a function that hands out one object steps it once for each row."""
    one = Lamps()
    with pytest.raises(ConfigError, match="rows 0 and 1 are the same object"):
        make(lambda num_envs: SyncVectorEnv([lambda: one] * num_envs), 2, backend="vector")


@pytest.mark.parametrize("backend", ["serial", "vector"])
def test_data_that_run_out_are_an_error(backend: str) -> None:
    """A StopIteration of an environment would end a loop over rollouts in silence."""

    class Feed(Lamps):
        def step(self, action: Any) -> Any:
            raise StopIteration("the feed is over")

    def many(num_envs: int) -> SyncVectorEnv:
        return SyncVectorEnv([Feed] * num_envs)

    env = started(make(Feed if backend == "serial" else many, 2, backend=backend))
    stream = rollouts(env, make_policy(env.spec, Network(), 0), num_steps=2)
    with pytest.raises(EnvError, match=r"step.* StopIteration \(the feed is over\) in .*; an environment whose data"):
        list(stream)


@pytest.mark.parametrize("mode", [AutoresetMode.SAME_STEP, AutoresetMode.NEXT_STEP])
@pytest.mark.parametrize("copies", [True, False])
def test_last_observations_that_were_overwritten_are_said(mode: AutoresetMode, *, copies: bool) -> None:
    """Gymnasium's SAME_STEP hands the array over when the environment's reset has changed it: 0 instead of 2."""

    class Reuses(gym.Env[Any, Any]):
        observation_space, action_space = gym.spaces.Box(0, 9, (1,)), gym.spaces.Discrete(2)

        def __init__(self) -> None:
            self.obs = np.zeros(1, np.float32)

        def reset(self, **keywords: Any) -> Any:
            self.obs[:] = 0
            return self.obs.copy() if copies else self.obs, {}

        def step(self, action: Any) -> Any:
            self.obs += 1
            return self.obs.copy() if copies else self.obs, 0.0, False, bool(self.obs[0] == 2), {}

    env = started(make(lambda num_envs: SyncVectorEnv([Reuses] * num_envs, autoreset_mode=mode), 2, backend="vector"))
    finals: list[float] = []
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        for _ in range(6):
            ready = stepped(env, [0, 0])
            finals += ready.final_obs[ready.truncated, 0].tolist()
    wrong = mode is AutoresetMode.SAME_STEP and not copies
    assert set(finals) == ({0.0} if wrong else {2.0})
    assert [str(one.message).partition(";")[0] for one in caught] == [
        "<lambda>: final_obs has been the next episode's first observation at each end so far"
    ] * wrong
