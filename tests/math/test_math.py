"""Returns and losses against numbers worked by hand and against their definitions as plain loops."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import torch

from shoal.math.losses import (
    approximate_kl,
    masked_mean,
    normalize_advantage,
    policy_gradient_loss,
    ppo_policy_loss,
    value_loss,
)
from shoal.math.returns import gae, n_step, q_lambda
from shoal.types import Steps


def rollout(**given: Any) -> Steps:
    """Steps [..., T, B] from nested lists; flags are false and steps valid unless given."""
    reward = torch.tensor(given["reward"], dtype=torch.float32)
    flags = {name: torch.zeros(reward.shape, dtype=torch.bool) for name in ("start", "terminated", "truncated")}
    arrays: dict[str, Any] = flags | {"valid": torch.ones(reward.shape, dtype=torch.bool)}
    arrays |= {name: torch.zeros_like(reward) for name in ("action", "log_prob", "value", "next_value")}
    arrays |= {name: torch.tensor(x, dtype=arrays.get(name, reward).dtype) for name, x in given.items()}
    arrays["version"] = torch.zeros_like(reward)
    return Steps(obs=None, final_index=-torch.ones_like(reward), final_obs=None, state=None, **arrays)


def column(*values: float) -> list[list[float]]:
    """[T, 1]."""
    return [[value] for value in values]


def hand(**changed: Any) -> Steps:
    """Six steps of one row: truncated after step 1, terminated after step 3, cut in the middle of an episode."""
    given: dict[str, Any] = {
        "reward": column(1, 0, -2, 4, 8, 6),
        "value": column(2, 4, 6, 8, 10, 12),
        "next_value": column(4, 20, 8, 0, 12, 16),
        "terminated": column(0, 0, 0, 1, 0, 0),
        "truncated": column(0, 1, 0, 0, 0, 0),
    }
    return rollout(**given | changed)


def test_gae_by_hand() -> None:
    """Gamma 1/2, lambda 1/2: an advantage is its delta plus a quarter of the next, unless the episode ended.

    Deltas: 1 + 2 - 2 = 1; 0 + 10 - 4 = 6; -2 + 4 - 6 = -4; 4 - 8 = -4; 8 + 6 - 10 = 4; 6 + 8 - 12 = 2.
    """
    advantage, target = gae(hand(), gamma=0.5, gae_lambda=0.5)
    assert advantage.tolist() == column(1 + 6 / 4, 6, -4 - 1, -4, 4 + 0.5, 2)
    assert target.tolist() == column(4.5, 10, 1, 4, 14.5, 14)


def test_gae_with_lambda_0_and_1_by_hand() -> None:
    """Lambda 0 gives the deltas; lambda 1 the discounted return less the value, for the row cut at the end."""
    deltas, _ = gae(hand(), gamma=0.5, gae_lambda=0.0)
    assert deltas.tolist() == column(1, 6, -4, -4, 4, 2)
    _, returns = gae(hand(), gamma=0.5, gae_lambda=1.0)
    # 1 + 0/2 + 20/4; 0 + 20/2; -2 + 4/2; 4; 8 + 6/2 + 16/4; 6 + 16/2.
    assert returns.tolist() == column(6, 10, 0, 4, 15, 14)


def test_a_terminated_step_never_bootstraps() -> None:
    """Whatever next_value holds there, also where the same step was truncated."""
    wild = column(4, 20, 8, 1e6, 12, 16)
    both = hand(next_value=wild, truncated=column(0, 1, 0, 1, 0, 0))
    assert torch.equal(gae(both, gamma=0.5, gae_lambda=0.5)[0], gae(hand(), gamma=0.5, gae_lambda=0.5)[0])
    assert torch.equal(n_step(both, gamma=0.5, n=3), n_step(hand(), gamma=0.5, n=3))


def test_n_step_by_hand() -> None:
    """Gamma 1/2. n = 1: r + v'/2. n = 2: the truncated and the terminated episode are cut, the rollout's end too."""
    assert n_step(hand(), gamma=0.5, n=1).tolist() == column(3, 10, 2, 4, 14, 14)
    # 1 + 0/2 + 20/4; 0 + 20/2; -2 + 4/2; 4; 8 + 6/2 + 16/4; 6 + 16/2: with n = 2 every episode here is seen whole.
    assert n_step(hand(), gamma=0.5, n=2).tolist() == column(6, 10, 0, 4, 15, 14)
    going_on = hand(terminated=column(0, 0, 0, 0, 0, 0), truncated=column(0, 0, 0, 0, 0, 0))
    # 1 + 0/2 - 2/4 + 8/8; 0 - 2/2 + 4/4 + 0/8; -2 + 4/2 + 8/4 + 12/8; 4 + 8/2 + 6/4 + 16/8; 8 + 3 + 4; 14.
    assert n_step(going_on, gamma=0.5, n=3).tolist() == column(1.5, 0, 3.5, 11.5, 15, 14)


def test_q_lambda_by_hand() -> None:
    """Gamma 1/2, lambda 1/2: the next value and the next return count alike, where both are known."""
    # From the last one: 6 + 16/2, 8 + (12 + 14)/4, 4 terminated, -2 + (8 + 4)/4, 20/2 truncated, 1 + (4 + 10)/4.
    assert q_lambda(hand(), gamma=0.5, q_lambda=0.5).tolist() == column(4.5, 10, 1, 4, 14.5, 14)
    wild = hand(next_value=column(4, 20, 8, 1e6, 12, 16), truncated=column(0, 1, 0, 1, 0, 0))
    assert q_lambda(wild, gamma=0.5, q_lambda=0.5).tolist() == column(4.5, 10, 1, 4, 14.5, 14)


def test_q_lambda_with_lambda_0_and_1() -> None:
    """Lambda 0 looks one step ahead, lambda 1 as far as it can."""
    assert torch.equal(q_lambda(hand(), gamma=0.5, q_lambda=0.0), n_step(hand(), gamma=0.5, n=1))
    assert torch.equal(q_lambda(hand(), gamma=0.5, q_lambda=1.0), n_step(hand(), gamma=0.5, n=6))


def test_invalid_steps_are_passed_over() -> None:
    """Step 2 only reset the row: its advantage is 0, its target its own value, and no other step sees it."""
    steps = hand(valid=column(1, 1, 0, 1, 1, 1), reward=column(1, 0, 1e6, 4, 8, 6))
    advantage, target = gae(steps, gamma=0.5, gae_lambda=0.5)
    assert advantage.tolist() == column(2.5, 6, 0, -4, 4.5, 2)
    assert target.tolist() == column(4.5, 10, 6, 4, 14.5, 14)
    assert n_step(steps, gamma=0.5, n=2).tolist() == column(6, 10, 6, 4, 15, 14)
    assert q_lambda(steps, gamma=0.5, q_lambda=0.5).tolist() == column(4.5, 10, 6, 4, 14.5, 14)
    cut = hand(valid=column(1, 1, 1, 1, 1, 0))
    # 8 + 12/2: what was to come is unknown, as at the end of a rollout.
    assert q_lambda(cut, gamma=0.5, q_lambda=0.5).tolist() == column(4.5, 10, 1, 4, 14, 12)


def test_another_reward_is_used_instead() -> None:
    """A normalized reward takes the place of the rollout's own."""
    steps, reward = hand(), torch.zeros(6, 1)
    # As in `hand`, but with no reward: 2 less 2, 10 less 4, and so on.
    assert gae(steps, gamma=0.5, gae_lambda=0.0, reward=reward)[0].tolist() == column(0, 6, -2, -8, -4, -4)
    assert n_step(steps, gamma=0.5, n=1, reward=reward).tolist() == column(2, 10, 4, 0, 6, 8)


def random_population(m: int, num_steps: int, rows: int) -> Steps:
    """Steps [m, T, B] with ends and invalid steps at random."""
    rng = np.random.default_rng(7)
    shape = (m, num_steps, rows)
    floats = {name: rng.standard_normal(shape).tolist() for name in ("reward", "value", "next_value")}
    chances = {"terminated": 0.1, "truncated": 0.1, "valid": 0.85}
    flags = {name: (rng.random(shape) < chance).tolist() for name, chance in chances.items()}
    return rollout(**floats, **flags)


def tail(steps: Steps, m: int, t: int, b: int) -> list[tuple[int, int, int]]:
    """The valid steps from t on, to the end of the episode or of the rollout."""
    found: list[tuple[int, int, int]] = []
    for k in range(t, steps.reward.shape[1]):
        at = (m, k, b)
        if steps.valid[at]:
            found.append(at)
            if steps.terminated[at] or steps.truncated[at]:
                break
    return found


def bootstrap(steps: Steps, at: tuple[int, int, int]) -> float:
    """The value after a step: 0 where it terminated."""
    return 0.0 if steps.terminated[at] else float(steps.next_value[at])


GAMMA, LAMBDA = (0.9, 0.99, 1.0), (0.95, 0.0, 1.0)


def test_gae_of_a_population_equals_its_definition() -> None:
    """A_t is the sum of (gamma lambda)^k delta_t+k to the episode's end; each member has its own gamma and lambda."""
    steps = random_population(3, 9, 4)
    advantage, target = gae(steps, gamma=torch.tensor(GAMMA), gae_lambda=torch.tensor(LAMBDA))
    assert advantage.shape == (3, 9, 4)
    torch.testing.assert_close(target, advantage + steps.value)
    for m, t, b in np.ndindex(3, 9, 4):
        expected = 0.0
        for k, at in enumerate(tail(steps, m, t, b) if steps.valid[m, t, b] else []):
            delta = float(steps.reward[at]) + GAMMA[m] * bootstrap(steps, at) - float(steps.value[at])
            expected += (GAMMA[m] * LAMBDA[m]) ** k * delta
        assert float(advantage[m, t, b]) == pytest.approx(expected, abs=1e-5)


@pytest.mark.parametrize("n", [1, 3, 9, 20])
def test_n_step_of_a_population_equals_its_definition(n: int) -> None:
    """R_t is up to n discounted rewards and the discounted value after the last; each member has its own gamma."""
    steps = random_population(3, 9, 4)
    target = n_step(steps, gamma=torch.tensor(GAMMA), n=n)
    for m, t, b in np.ndindex(3, 9, 4):
        expected = float(steps.value[m, t, b])
        if steps.valid[m, t, b]:
            taken = tail(steps, m, t, b)[:n]
            expected = sum(GAMMA[m] ** k * float(steps.reward[at]) for k, at in enumerate(taken))
            expected += GAMMA[m] ** len(taken) * bootstrap(steps, taken[-1])
        assert float(target[m, t, b]) == pytest.approx(expected, abs=1e-5)


def test_q_lambda_of_a_population_equals_its_definition() -> None:
    """The mean of all n-step returns, each with lambda times the weight of the one before; the last has the rest."""
    steps = random_population(3, 9, 4)
    target = q_lambda(steps, gamma=torch.tensor(GAMMA), q_lambda=torch.tensor(LAMBDA))
    for m, t, b in np.ndindex(3, 9, 4):
        expected = float(steps.value[m, t, b])
        if steps.valid[m, t, b]:
            taken, total, expected = tail(steps, m, t, b), 0.0, 0.0
            for k, at in enumerate(taken):
                total += GAMMA[m] ** k * float(steps.reward[at])
                weight = LAMBDA[m] ** k * (1 if k + 1 == len(taken) else 1 - LAMBDA[m])
                expected += weight * (total + GAMMA[m] ** (k + 1) * bootstrap(steps, at))
        assert float(target[m, t, b]) == pytest.approx(expected, abs=1e-5)


def test_one_gamma_serves_every_member() -> None:
    """A number equals a tensor of that number."""
    steps = random_population(3, 9, 4)
    same = torch.full((3,), 0.9, dtype=torch.float64)
    assert torch.equal(n_step(steps, gamma=0.9, n=4), n_step(steps, gamma=same, n=4))
    assert torch.equal(gae(steps, gamma=0.9, gae_lambda=0.5)[0], gae(steps, gamma=same, gae_lambda=same / 1.8)[0])


def test_ppo_policy_loss_by_hand() -> None:
    """Ratios 1, 2, 1/2, 2, 1/2 with clip 0.2: clipped only where that lowers the objective."""
    ratio = torch.tensor([1.0, 2.0, 0.5, 2.0, 0.5])
    advantage = torch.tensor([3.0, 3.0, 3.0, -3.0, -3.0])
    loss = ppo_policy_loss(ratio.log() - 1, -torch.ones(5), advantage, 0.2)
    torch.testing.assert_close(loss, torch.tensor([-3.0, -3.6, -1.5, 6.0, 2.4]))


def test_ppo_policy_loss_stops_its_gradient_when_clipped() -> None:
    """The derivative by log_prob is -A r where it counts, 0 where the ratio has moved far enough."""
    log_prob = torch.tensor([2.0, 0.5, 2.0]).log().requires_grad_()
    ppo_policy_loss(log_prob, torch.zeros(3), torch.tensor([3.0, 3.0, -3.0]), 0.2).sum().backward()
    torch.testing.assert_close(log_prob.grad, torch.tensor([0.0, -1.5, 6.0]))


def test_value_loss_by_hand() -> None:
    """Half the square; with clip 0.5 around the old value 0 the larger of the two."""
    value, target = torch.tensor([2.0, 2.0, 0.25]), torch.tensor([3.0, 0.0, 1.25])
    assert value_loss(value, target).tolist() == [0.5, 2.0, 0.5]
    # Clipped to 0.5, 0.5, 0.25: errors 2.5, 0.5, 1 against 1, 2, 1.
    assert value_loss(value, target, torch.zeros(3), 0.5).tolist() == [3.125, 2.0, 0.5]


def test_approximate_kl_by_hand() -> None:
    """With r the ratio, r - 1 - log r is 0 at r = 1, 1 - log 2 at 2, log 2 - 1/2 at 1/2."""
    kl = approximate_kl(torch.tensor([1.0, 2.0, 0.5]).log(), torch.zeros(3))
    torch.testing.assert_close(kl, torch.tensor([0.0, 1 - math.log(2), math.log(2) - 0.5]))


def test_policy_gradient_loss_by_hand() -> None:
    """-log pi A, whose gradient never reaches the advantage."""
    log_prob = torch.tensor([-0.5, -2.0], requires_grad=True)
    advantage = torch.tensor([4.0, -1.0], requires_grad=True)
    loss = policy_gradient_loss(log_prob, advantage)
    assert loss.tolist() == [2.0, -2.0]
    loss.sum().backward()
    assert log_prob.grad is not None
    assert log_prob.grad.tolist() == [-4.0, 1.0]
    assert advantage.grad is None


def test_masked_mean_by_hand() -> None:
    """Means of valid elements, whole or for each member; 0 where nothing is valid."""
    x = torch.tensor([[[1.0, 2.0], [3.0, 10.0]], [[5.0, 6.0], [7.0, 8.0]]])
    valid = torch.tensor([[[1, 1], [1, 0]], [[0, 0], [0, 0]]], dtype=torch.bool)
    assert float(masked_mean(x, None)) == 42 / 8
    assert float(masked_mean(x, valid)) == 2.0
    assert masked_mean(x, valid, axes=2).tolist() == [2.0, 0.0]
    assert masked_mean(x, None, axes=2).tolist() == [4.0, 6.5]


def test_normalize_advantage_by_hand() -> None:
    """1, 2, 3 have mean 2 and deviation 1; a member's statistics are its own; invalid elements do not count."""
    x = torch.tensor([[[1.0, 2.0, 3.0, 99.0]], [[10.0, 30.0, 50.0, 70.0]]])
    valid = torch.tensor([[[1, 1, 1, 0]], [[1, 1, 1, 1]]], dtype=torch.bool)
    ours = normalize_advantage(x, valid, axes=2)
    torch.testing.assert_close(ours[0, 0, :3], torch.tensor([-1.0, 0.0, 1.0]))
    deviation = math.sqrt((900 + 100 + 100 + 900) / 3)
    torch.testing.assert_close(ours[1, 0], torch.tensor([-30.0, -10.0, 10.0, 30.0]) / deviation)
    whole = normalize_advantage(x[1])
    torch.testing.assert_close(whole, (x[1] - x[1].mean()) / x[1].std())
    assert normalize_advantage(torch.tensor([5.0])).tolist() == [0.0]
