"""What is in flight: a rollout that is saved between two of its steps goes on as if nothing had happened."""

from __future__ import annotations

import copy
from contextlib import closing
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import torch
from torch.optim import Adam

from shoal.envs.preprocessing import Preprocessing
from shoal.envs.registry import make
from shoal.learn.acting import Acting
from shoal.learn.learner import Learner
from shoal.nets.network import Network
from shoal.nets.policy import make_policy
from shoal.run.trees import Arrays, decode, encode
from shoal.stream.ending import EndingError
from shoal.stream.in_process import InProcess
from shoal.stream.rollouts import rollouts
from shoal.stream.schedules import Overlap, Sync
from shoal.types import map_tree

if TYPE_CHECKING:
    from shoal.envs.vec_env import VecEnv
    from shoal.stream.rollouts import Rollouts
    from shoal.types import Spec, Steps

NUMBERS = ("start", "terminated", "truncated", "log_prob", "value", "next_value", "reward", "version")
NUM_STEPS = 7


class At:
    """Ends a rollout at one of the moments between two steps."""

    def __init__(self, moment: int) -> None:
        self.left = moment

    def due(self) -> bool:
        self.left -= 1
        return self.left < 0

    def pause(self) -> None:
        raise EndingError


def learner_of(spec: Spec, recurrent: Any) -> Learner:
    torch.manual_seed(3)
    network = Network(hidden=(8,), recurrent=recurrent, recurrent_size=8)
    return Learner(make_policy(spec, network, 3), Adam, lr=0.1)


def made(env: VecEnv, recurrent: Any, schedule: Any) -> tuple[Rollouts, InProcess]:
    learner = learner_of(env.spec, recurrent)
    stream = rollouts(env, learner, num_steps=NUM_STEPS, schedule=schedule, acting=Acting(5, native=False))
    assert isinstance(stream.collects, InProcess)
    return stream, stream.collects


def taken(steps: Steps) -> dict[str, Any]:
    """What counts of a rollout, apart."""
    found: dict[str, Any] = {"valid": steps.valid.clone()}
    for name in ("obs", "action"):
        found[name] = map_tree(lambda x: x[steps.valid], getattr(steps, name))
    for name in NUMBERS:
        found[name] = getattr(steps, name)[steps.valid]
    ended = steps.final_index[steps.final_index >= 0].long()
    found["final_obs"] = map_tree(lambda x: x[ended], steps.final_obs)
    found["state"] = None if steps.state is None else map_tree(torch.clone, steps.state)
    return found


def check_same(mine: dict[str, Any], theirs: dict[str, Any]) -> None:
    """Bit for bit the same experience."""
    for name, tree in mine.items():
        if tree is not None:
            map_tree(lambda x, y, name=name: np.testing.assert_array_equal(x, y, name), tree, theirs[name])


def saved(state: object) -> Any:
    """As it comes back from a checkpoint."""
    arrays = Arrays()
    tree = encode(state, "stream", arrays)
    return decode(copy.deepcopy(tree), {name: x.copy() for name, x in arrays.held.items()}, {})


SHORT = Preprocessing(max_episode_steps=4)


@pytest.mark.parametrize("moment", [0, 1, 5, 7, 8])
@pytest.mark.parametrize(
    ("env_id", "recurrent", "schedule"),
    [
        ("CartPole-v1", "gru", Sync()),
        ("CartPole-v1", "none", Overlap()),
        ("shoal.envs.agents.tictactoe:TicTacToe", "none", Sync()),
    ],
)
def test_a_rollout_that_was_left_is_gone_on_with(env_id: str, recurrent: Any, schedule: Any, moment: int) -> None:
    """Between any two of its steps, in other rows, from a checkpoint; the rollout after it is the same too."""
    options = {"preprocessing": SHORT} if env_id == "CartPole-v1" else {}
    with closing(make(env_id, 4, backend="serial", **options)) as env:
        stream, _ = made(env, recurrent, schedule)
        whole: list[Any] = []
        ended: list[Any] = []
        for _ in range(3):
            whole.append(taken(next(stream)))
            ended.append(stream.episodes)
            stream.publish()
    with closing(make(env_id, 4, backend="serial", **options)) as env:
        stream, collects = made(env, recurrent, schedule)
        next(stream)
        stream.publish()
        at = At(moment)
        with pytest.raises(EndingError):
            collects.collect(at)
        state = saved(stream.state())
        steps = len(next(iter(state["under_way"]["steps"].values()))["valid"])
        assert (steps > 0) == (moment > 0)
    with closing(make(env_id, 4, backend="serial", **options)) as env:
        stream, _ = made(env, recurrent, schedule)
        next(stream)  # whatever it held before
        stream.publish()
        assert not stream.restore(state)
        for number in (1, 2):
            check_same(whole[number], taken(next(stream)))
            for name in ("returns", "lengths", "rows"):
                np.testing.assert_array_equal(getattr(ended[number], name), getattr(stream.episodes, name))
            stream.publish()
