"""Explorers: who learns from which rows, what the one memory keeps, and what is refused."""

from __future__ import annotations

from dataclasses import dataclass, field, fields
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import torch
from torch.optim import SGD

from shoal.envs.registry import make
from shoal.learn.acting import Acting
from shoal.learn.curiosity import Curiosity
from shoal.memory.settings import Replay
from shoal.memory.slab import Slab
from shoal.nets.actors import PlainActor, make_stochastic
from shoal.nets.network import ActorCriticNet
from shoal.nets.policy import Network, make_policy
from shoal.run.explored import rows_of_roles
from shoal.run.run import Run
from shoal.run.settings import Settings
from shoal.stream.explorers import Explorers, append
from shoal.stream.rollouts import rollouts
from shoal.stream.self_play import SelfPlay
from shoal.types import ConfigError, Steps, map_tree
from tests.counting import counting_rows

if TYPE_CHECKING:
    from shoal.envs.vec_env import VecEnv
    from shoal.learn.learner import Learner
    from shoal.stream.explorers import ExploredReplay
    from shoal.types import Transitions

REPLAY = Replay(buffer_size=1_000, learning_starts=8, samples_per_insert=4)


@dataclass(frozen=True)
class Draws:
    """How rows step, what is drawn, and how two of four environments are explored."""

    num_steps: int = 1
    batch_size: int = 8
    n_step: int = 1
    gamma: float = 0.5
    replay: Replay = REPLAY
    explorers: Explorers = field(default_factory=lambda: Explorers(num_steps=6, num_minibatches=2))


def run_of(env: VecEnv, **settings: Any) -> Run:
    told: dict[str, Any] = {"env": "", "algo": "", "seed": 1, "total_timesteps": 1_000}
    told["num_envs"] = env.num_rows // env.spec.num_agents
    return Run(Settings(**told | settings))


def two_learners(env: VecEnv, run: Run, *, squash: bool = True, **network: Any) -> dict[str, Learner]:
    """An actor as those beside critics, and a policy with values."""
    actor = make_stochastic(env.spec, ActorCriticNet(hidden=(8,)), 1)
    explorer = make_policy(env.spec, Network(hidden=(8,), squash=squash, **network), 2)
    return {"actor": run.learner(actor, SGD, lr=0.1), "explorer": run.learner(explorer, SGD, lr=0.1)}


def explored(
    env: VecEnv, draws: Draws | None = None, *, squash: bool = True, network: Any = None, **settings: Any
) -> tuple[ExploredReplay, dict[str, Learner]]:
    run = run_of(env, **settings)
    learners = two_learners(env, run, squash=squash, **network or {})
    return run.explored(env, learners, draws or Draws()), learners


def test_who_gets_a_batch_when() -> None:
    """4 rows a time, of which 2 explore. The first 8 steps are the warm-up; from then on 4 allow two batches of 8.

    The explorers' rollouts are 6 steps of 2 rows, 24 steps of all: they come before what the last 4 of them allow.
    """
    stream, learners = explored(make("CartPole-v1", 4))
    assert (stream.shape, stream.explored_shape, stream.steps_per_batch) == ((1, 4), (6, 2), 2)
    seen: list[tuple[str, int]] = []
    for _ in range(7 + 4 + 9):
        batch = next(stream)
        assert isinstance(batch, Steps) == (stream.agent == "explorer")
        stream.publish()
        seen.append((stream.agent, stream.env_steps))
    late = [("actor", 20), ("explorer", 20), ("actor", 20), ("actor", 24)]
    assert seen[:10] == [("actor", 0), ("actor", 12), ("actor", 12), ("actor", 16), ("actor", 16), *late, ("actor", 24)]
    assert [place for place, (agent, _) in enumerate(seen) if agent == "explorer"] == [6, 19]
    assert [learner.version for learner in learners.values()] == [18, 2]


def test_rollouts_before_the_memory_is_learned_from() -> None:
    """During the warm-up explorers learn alone, and their steps count at once; afterwards none is lost."""
    draws = Draws(num_steps=3, replay=Replay(buffer_size=1_000, learning_starts=40, samples_per_insert=2))
    stream, _ = explored(make("CartPole-v1", 4), draws)
    seen: list[tuple[str, int]] = []
    for _ in range(4):
        next(stream)
        stream.publish()
        seen.append((stream.agent, stream.env_steps))
    assert seen == [("explorer", 24), ("explorer", 24), ("actor", 24), ("actor", 48)]


@pytest.mark.parametrize("env_id", ["Pendulum-v1", "CartPole-v1"])
def test_the_memory_holds_what_the_environments_did(env_id: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of rows of both roles; an action as the actor keeps it is, handed to an environment, what this one was given."""
    env = make(env_id, 4)
    sent: dict[bytes, Any] = {}
    before: dict[bytes, int] = {}
    shown, send, recv = [np.zeros(0)], env.send, env.recv

    def receive() -> Any:
        ready = recv()
        shown[0] = np.array(ready.obs)
        return ready

    def given(rows: slice, action: Any) -> None:
        for row, (obs, own) in enumerate(zip(shown[0], np.array(action), strict=True)):
            sent[obs.tobytes()], before[obs.tobytes()] = own, row
        send(rows, action)

    monkeypatch.setattr(env, "recv", receive)
    monkeypatch.setattr(env, "send", given)
    stream, learners = explored(env)
    rows: set[int] = set()
    for _ in range(60):
        batch: Any = next(stream)
        stream.publish()
        if stream.agent == "actor":
            actor: Any = learners["actor"].policy
            kept = actor(batch.obs, None, None).distribution.to_env(batch.action)
            for obs, action in zip(batch.obs.numpy(), kept.detach().numpy(), strict=True):
                np.testing.assert_allclose(sent[obs.tobytes()], action, rtol=1e-5)
                rows.add(before[obs.tobytes()])
    assert rows == {0, 1, 2, 3}


@pytest.mark.parametrize(("native", "num_steps"), [(True, 1), (True, 3), (False, 2)])
def test_explorers_learn_from_whole_rollouts_of_their_own(num_steps: int, *, native: bool) -> None:
    """Gathered from short ones, they equal those of a stream of rollouts of that length, in every field."""
    draws = Draws(num_steps=num_steps, explorers=Explorers(num_steps=30, num_minibatches=2))
    stream, learners = explored(make("CartPole-v1", 4), draws, native=native, reward_scale=0.5)
    env = make("CartPole-v1", 4)
    whole = two_learners(env, run_of(env, native=native))
    cast = {"actor": slice(0, 2), "explorer": slice(2, 4)}
    other = rollouts(env, whole, num_steps=30, cast=cast, acting=Acting(1, native=native))
    for _ in range(3):
        steps: Any = next(stream)
        while stream.agent == "actor":
            stream.publish()
            steps = next(stream)
        expected: Any = next(other)["explorer"]
        used = int(expected.final_index.max()) + 1
        assert used > 0
        for name in (one.name for one in fields(Steps) if one.name not in ("state", "final_obs", "reward")):
            mine, theirs = getattr(steps, name), getattr(expected, name)
            assert mine is theirs is None or torch.equal(mine, theirs), name
        assert torch.equal(steps.final_obs[:used], expected.final_obs[:used])
        assert torch.equal(steps.reward, 0.5 * expected.reward)
        with torch.no_grad():  # what explorers learn is what they act with next, the actor's weights are its own
            for learner in (learners["explorer"], whole["explorer"]):
                learner.flat.mul_(1.5)
        stream.publish()
        other.publish()


def test_a_reset_that_takes_a_step_ends_the_episode_before() -> None:
    """The step before one that only reset its row ends, cut, where a rollout is put together from single steps."""
    spec = counting_rows().spec
    whole, parts = Slab(spec, 3, 2), [Slab(spec, 1, 2) for _ in range(3)]
    for t, part in enumerate(parts):
        part.clear()
        part.valid[0] = [True, t != 1]
        append(whole, part, t)
    assert whole.truncated.tolist() == [[False, True], [False, False], [False, False]]
    assert whole.valid.tolist() == [[True, True], [True, False], [True, True]]


def copied(batch: Steps | Transitions) -> dict[str, Any]:
    """What outlives the next batch."""
    names = ("obs", "action", "reward")
    return {name: map_tree(lambda x: x.clone(), getattr(batch, name)) for name in names}


@pytest.mark.parametrize("env_id", ["Pendulum-v1", "CartPole-v1"])
def test_a_restored_stream_goes_on(env_id: str) -> None:
    """Saved in the middle of an explorers' rollout, which has ends of episodes in it, it goes on bit for bit."""
    draws = Draws(explorers=Explorers(num_steps=40, num_minibatches=2))
    (one, learners), (two, others) = (explored(make(env_id, 4), draws) for _ in range(2))
    for _ in range(70):
        next(one)
        one.publish()
    for name, learner in learners.items():
        others[name].restore(learner.state())
    saved = one.state()
    assert 30 < saved["filled"] < 40
    assert two.restore(saved) == []
    for _ in range(40):
        drawn: list[Any] = [next(one), next(two)]
        mine, theirs = map(copied, drawn)
        assert (one.agent, one.env_steps) == (two.agent, two.env_steps)
        for name, tensor in mine.items():
            assert torch.equal(tensor, theirs[name]), name
        assert one.publish() == two.publish()


def test_publish_comes_between_two_pulls() -> None:
    stream, _ = explored(make("CartPole-v1", 4))
    while not isinstance(next(stream), Steps):
        stream.publish()
    with pytest.raises(RuntimeError, match="publish after every update"):
        next(stream)


def test_episodes_are_the_actors() -> None:
    """Those of rows 0 and 1; the explorers' returns are logged under their name."""
    env = make("CartPole-v1", 4)
    run = run_of(env)
    stream = run.explored(env, two_learners(env, run), Draws())
    rows: set[int] = set()
    for _ in range(300):
        next(stream)
        stream.publish()
        rows |= set(stream.episodes.rows.tolist())
    assert rows == {0, 1}
    assert 8 < run.metrics.take_means()["episode/return/explorer"] < 60


def test_rows_are_whole_environments() -> None:
    """Of 6 environments of 2 players a third explores: 4 rows."""
    assert rows_of_roles(12, 6, 1 / 3, ("a", "b")) == {"a": slice(0, 8), "b": slice(8, 12)}
    with pytest.raises(ConfigError, match=r"are 0, which leaves no explorers; set it between 0.25 and 0.75"):
        rows_of_roles(4, 4, 0.0, ("a", "b"))
    with pytest.raises(ConfigError, match="are 4, which leaves none to the actor"):
        rows_of_roles(4, 4, 1.0, ("a", "b"))
    with pytest.raises(ConfigError, match="num_envs=1 cannot be divided"):
        rows_of_roles(1, 1, 0.5, ("a", "b"))


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"learners": 2}, "leave agents=2 out"),
        ({"curiosity": Curiosity(coef=1.0)}, "set it to 0"),
        ({"self_play": SelfPlay(every=1)}, "set self_play.every=0"),
        ({"reward_gamma": 0.9}, "choose reward_scale"),
        ({"schedule": "overlap"}, 'needs schedule="sync"'),
    ],
)
def test_what_a_run_cannot_have(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        explored(make("CartPole-v1", 4), **settings)


def test_lengths_that_do_not_fit() -> None:
    with pytest.raises(ConfigError, match=r"is not a multiple of num_steps=4.*; explorers.num_steps=4 is"):
        explored(make("CartPole-v1", 4), Draws(num_steps=4))
    cut = Explorers(num_steps=6, num_minibatches=7)
    with pytest.raises(ConfigError, match="do not split into 7 minibatches"):
        explored(make("CartPole-v1", 4), Draws(explorers=cut))
    with pytest.raises(ConfigError, match=r'explorers have no memory.*; set it to "none"'):
        Explorers(network=Network(recurrent="gru"))


def test_one_memory_holds_one_form_of_actions() -> None:
    """A clipped Gaussian's numbers are not those before a tanh; of an actor of the user's own too."""
    with pytest.raises(ConfigError, match=r"as SquashedNormal does and the explorers as Normal.*network.squash"):
        explored(make("Pendulum-v1", 4), squash=False)
    env = make("Pendulum-v1", 4)
    run = run_of(env)

    class Own(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layer = torch.nn.Linear(3, 1)

        def forward(self, obs: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
            return self.layer(obs), self.layer(obs)

    learners = two_learners(env, run) | {"actor": run.learner(PlainActor(Own(), env.spec), SGD, lr=0.1)}
    assert next(run.explored(env, learners, Draws())) is not None
    clipped = make_policy(env.spec, Network(hidden=(8,)), 1)
    with pytest.raises(ConfigError, match="as Normal does and the explorers as SquashedNormal"):
        run.explored(env, two_learners(env, run) | {"actor": run.learner(clipped, SGD, lr=0.1)}, Draws())
