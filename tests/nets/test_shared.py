"""One trunk for actor and critic: its numbers by hand, what it learns, what it is refused with, and resume."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from gymnasium import spaces
from torch.optim import SGD

import shoal
from shoal.envs.registry import make
from shoal.learn.acting import TorchActor
from shoal.learn.learner import Learner
from shoal.nets.policy import Network, SharedPolicy, make_policy
from shoal.stream.rollouts import rollouts
from shoal.types import ConfigError, Spec
from tests.inside import inside
from tests.run.test_resume import weights_sha256

SPEC = Spec.of("Test-v0", spaces.Box(-1, 1, (2,), np.float32), spaces.Discrete(2))


def shared(**network: Any) -> SharedPolicy:
    """A small policy with one trunk."""
    policy = make_policy(SPEC, Network(hidden=(2,), share=True, **network), 1)
    assert isinstance(policy, SharedPolicy)
    return policy


def test_numbers_by_hand() -> None:
    """relu(x W) = [3, 0] for the observation [1, 2]; logits and value are linear in it."""
    policy = shared(activation="relu")
    numbers = {"body.0.weight": [[1, 1], [1, -1]], "body.0.bias": [0, 0], "actor.0.weight": [[1, 5], [2, 5]]}
    numbers |= {"actor.0.bias": [0.5, 0], "critic.0.weight": [[-2, 7]], "critic.0.bias": [1]}
    policy.load_state_dict({name: torch.tensor(x).float() for name, x in numbers.items()})
    output: Any = policy(torch.tensor([[[1.0, 2.0]]]), None, torch.zeros(1, 1))
    assert output.value.tolist() == [[-5]]
    expected = torch.tensor([[[3.5, 6.0]]]).log_softmax(-1)
    torch.testing.assert_close(output.distribution.log_probs, expected)


def test_both_losses_move_the_trunk() -> None:
    """A loss of the values alone, then of the actions alone; torch runs it, acting too."""
    env = make("CartPole-v1", 2)
    policy: Any = make_policy(env.spec, Network(hidden=(4,), share=True), 1)
    learner = Learner(policy, SGD, lr=0.1)
    stream = rollouts(env, learner, num_steps=4)
    assert learner.networks["policy"].plan is None
    assert isinstance(inside(stream).roles[0].actor, TorchActor)
    steps = next(stream)
    for part in ("value", "policy"):
        output = policy(steps.obs, steps.state, steps.start)
        policy.zero_grad()
        loss = output.value.square().mean() if part == "value" else output.distribution.log_prob(steps.action).mean()
        loss.backward()
        assert policy.body[0].weight.grad.abs().sum() > 0, part


def test_what_shares_already_is_refused() -> None:
    """Recurrent networks and images have one trunk without being told."""
    with pytest.raises(ConfigError, match=r"a recurrent network has one trunk .*; leave share out"):
        Network(share=True, recurrent="gru")
    image = Spec.of("Test-v0", spaces.Box(0, 255, (48, 48, 3), np.uint8), spaces.Discrete(2))
    with pytest.raises(ConfigError, match=r"an image has one trunk .*; leave network.share out"):
        make_policy(image, Network(share=True), 1)


@pytest.mark.parametrize("algo", ["ppo", "a2c"])
@pytest.mark.usefixtures("few_greedy_episodes")
def test_a_resumed_run_equals_a_whole_one(algo: str, run_dir: Path) -> None:
    """Stopped after 2 of 5 updates."""
    settings: dict[str, Any] = {"num_envs": 4, "num_steps": 8, "total_timesteps": 5 * 4 * 8, "stop_at": float("inf")}
    settings |= {"num_minibatches": 2, "update_epochs": 1} if algo == "ppo" else {}
    settings |= {"network": {"hidden": [8], "share": True, "normalize_obs": True}, "panel": "none", "run_dir": run_dir}

    def stop(run: Any, record: Any) -> None:
        if run.updates == 2:
            run.stop("two")

    whole = shoal.train("CartPole-v1", algo=algo, name="whole", **settings).path
    halves = shoal.train("CartPole-v1", algo=algo, name="halves", callbacks=[stop], **settings).path
    shoal.resume(halves, panel="none")
    assert weights_sha256(halves) == weights_sha256(whole)
    assert isinstance(shoal.load(halves).policy, SharedPolicy)
