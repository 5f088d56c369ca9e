"""Corrections of what older weights chose: by hand, by definition, and on a problem small enough to enumerate."""

from __future__ import annotations

import math
from itertools import product
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import torch

from shoal.math.importance import importance_ratio, truncated, within
from shoal.math.returns import gae, vtrace
from tests.math.test_math import GAMMA, LAMBDA, column, hand, random_population, rollout, tail

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from shoal.types import Steps

RATIOS = torch.tensor([0.125, 0.5, 1.0, 2.0, 8.0])


def test_importance_weights_by_hand() -> None:
    """Ratios as such, cut from above, and without those that are too far from 1 on either side."""
    behavior = torch.full((5,), 0.5)
    ratio = importance_ratio(RATIOS.log() + behavior, behavior)
    torch.testing.assert_close(ratio, RATIOS)
    assert truncated(RATIOS, 2).tolist() == [0.125, 0.5, 1, 2, 2]
    assert truncated(RATIOS, 1).tolist() == [0.125, 0.5, 1, 1, 1]
    assert within(RATIOS, 2).tolist() == [0, 0.5, 1, 2, 0]
    assert within(RATIOS, 1).tolist() == [0, 0, 1, 0, 0]
    assert torch.equal(truncated(RATIOS, math.inf), RATIOS)
    assert torch.equal(within(RATIOS, math.inf), RATIOS)
    assert truncated(torch.tensor([math.inf]), 1).tolist() == [1]


def test_weights_that_cannot_be() -> None:
    """Each refuses its own."""
    with pytest.raises(ValueError, match="above 0, got 0"):
        truncated(RATIOS, 0)
    with pytest.raises(ValueError, match=r"c >= 1, got c = 0\.5"):
        within(RATIOS, 0.5)


def lagging() -> tuple[Steps, torch.Tensor, torch.Tensor]:
    """Six steps of one row, and what the learner says of them.

    Truncated after step 1, terminated after step 3, cut in the middle of an episode. What the weights that acted said
    of a step, and of the next one inside an episode, is far off. Ratios 2, 1/2, 1/4, 3, 1/2, 4.
    """
    behavior = torch.tensor(column(-1, -2, -1, -2, -1, -2))
    steps = hand(
        value=column(-90, -90, -90, -90, -90, -90),
        next_value=column(-90, 20, -90, -90, -90, 16),
        log_prob=behavior.tolist(),
    )
    log_prob = behavior + torch.tensor(column(2, 1 / 2, 1 / 4, 3, 1 / 2, 4)).log()
    return steps, log_prob, torch.tensor(column(2, 4, 6, 8, 10, 12)).float()


def test_vtrace_by_hand() -> None:
    """Gamma 1/2, lambda 1/2, rho at most 2, c at most 1.

    Errors without weights: 1 + 2 - 2 = 1; 0 + 10 - 4 = 6; -2 + 4 - 6 = -4; 4 - 8 = -4; 8 + 6 - 10 = 4; 6 + 8 - 12 = 2.
    With rho = 2, 1/2, 1/4, 2, 1/2, 2 and c = 1, 1/2, 1/4, 1, 1/2, 1, from the last one:
    2 * 2 = 4; 4/2 + 4/4 * 1/2 = 2.5; -4 * 2 = -8; -4/4 - 8/4 * 1/4 = -1.5; 6/2 = 3; 1 * 2 + 3/4 = 2.75.
    """
    steps, log_prob, value = lagging()
    given: dict[str, Any] = {"gamma": 0.5, "vtrace_lambda": 0.5, "clip_rho": 2.0, "clip_c": 1.0}
    advantage, target = vtrace(steps, log_prob, value, **given)
    torch.testing.assert_close(target, torch.tensor(column(4.75, 7, 4.5, 0, 12.5, 16)))
    # rho (error + gamma lambda e'): 2 (1 + 3/4); 3; (-4 - 2)/4; -8; (4 + 1)/2; 4.
    torch.testing.assert_close(advantage, torch.tensor(column(3.5, 3, -1.5, -8, 2.5, 4)))


def test_vtrace_passes_over_invalid_steps() -> None:
    """Step 2 only reset the row, and step 4 was not the row's own: the next one that counts follows step 3.

    Gamma 1/2, lambda 1, nothing cut; step 3 goes on: 4 + 12/2 - 8 = 2, and 3 (2 + 8/2) = 18 with step 5's 4 * 2 = 8.
    """
    steps, log_prob, value = lagging()
    valid, terminated = torch.tensor(column(1, 1, 0, 1, 0, 1)).bool(), torch.zeros(6, 1, dtype=torch.bool)
    steps = hand(
        valid=valid.tolist(),
        terminated=terminated.tolist(),
        reward=column(1, 0, 1e6, 4, 1e6, 6),
        next_value=steps.next_value.tolist(),
        log_prob=steps.log_prob.tolist(),
    )
    given: dict[str, Any] = {"gamma": 0.5, "clip_rho": math.inf, "clip_c": math.inf}
    advantage, target = vtrace(steps, log_prob, value, **given)
    # Step 0: 2 (1 + 3/2) = 5.
    torch.testing.assert_close(advantage, torch.tensor(column(5.0, 3, 0, 18, 0, 8)))
    torch.testing.assert_close(target, torch.tensor(column(7.0, 7, 6, 26, 10, 20)))


def test_vtrace_of_the_policy_that_acted_is_gae() -> None:
    """Ratios of 1, and values as they were."""
    steps = random_population(3, 9, 4)
    following = torch.zeros_like(steps.value)
    for m, t, b in np.ndindex(3, 9, 4):
        at, *later = tail(steps, m, t, b) or [(m, t, b)]
        ended = steps.terminated[at] or steps.truncated[at] or not later
        following[m, t, b] = steps.next_value[at] if ended else steps.value[later[0]]
    steps = rollout(
        **{name: getattr(steps, name).tolist() for name in ("reward", "value", "terminated", "truncated", "valid")},
        next_value=following.tolist(),
    )
    given: dict[str, Any] = {"gamma": torch.tensor(GAMMA)}
    expected = gae(steps, gae_lambda=torch.tensor(LAMBDA), **given)
    found = vtrace(steps, steps.log_prob, steps.value, vtrace_lambda=torch.tensor(LAMBDA), **given)
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize(("clip_rho", "clip_c"), [(1.0, 1.0), (2.0, 0.5), (math.inf, math.inf)])
def test_vtrace_of_a_population_equals_its_definition(clip_rho: float, clip_c: float) -> None:
    """Equation 1 as it stands in the paper, with products of c, for each member's own gamma and lambda."""
    steps = random_population(3, 9, 4)
    rng = np.random.default_rng(3)
    log_prob, value = (torch.from_numpy(rng.standard_normal((3, 9, 4))).float() for _ in range(2))
    given: dict[str, Any] = {"gamma": torch.tensor(GAMMA), "vtrace_lambda": torch.tensor(LAMBDA)}
    advantage, target = vtrace(steps, log_prob, value, clip_rho=clip_rho, clip_c=clip_c, **given)
    ratio = log_prob.exp()  # those who acted had 0
    for m, t, b in np.ndindex(3, 9, 4):
        taken = tail(steps, m, t, b) if steps.valid[m, t, b] else []
        expected, factor, first = 0.0, 1.0, 0.0
        for k, at in enumerate(taken):
            follows = float(value[taken[k + 1]]) if k + 1 < len(taken) else float(steps.next_value[at])
            follows = 0.0 if steps.terminated[at] else follows
            delta = float(steps.reward[at]) + GAMMA[m] * follows - float(value[at])
            weighted = factor * min(clip_rho, float(ratio[at])) * delta
            expected += weighted
            factor *= GAMMA[m] * LAMBDA[m] * min(clip_c, float(ratio[at]))
            first = delta if k == 0 else first
        assert float(target[m, t, b]) == pytest.approx(float(value[m, t, b]) + expected, abs=1e-3, rel=1e-4)
        if taken:
            rho, c = (min(clip, float(ratio[taken[0]])) for clip in (clip_rho, clip_c))
            later = (expected - rho * first) / c
            assert float(advantage[m, t, b]) == pytest.approx(rho * (first + later), abs=1e-3, rel=1e-4)
        else:
            assert advantage[m, t, b] == 0


class Chain:
    """Two states, two actions; each action leads to either state or to the end, with a reward of its own."""

    gamma = 0.8
    steps = 3
    target = np.array([[0.7, 0.3], [0.2, 0.8]])
    """pi(a | s)."""
    behavior = np.array([[0.25, 0.75], [0.6, 0.4]])
    """mu(a | s)."""
    leads = np.array([[[0.5, 0.3, 0.2], [0.1, 0.6, 0.3]], [[0.4, 0.4, 0.2], [0.2, 0.1, 0.7]]])
    """P(s' | s, a); the third is the end."""
    reward = np.array([[1.0, -2.0], [3.0, 0.5]])

    def value_of(self, policy: NDArray[Any]) -> NDArray[Any]:
        """The policy's values of both states: (1 - gamma P)^-1 r."""
        moves = np.einsum("sa,sak->sk", policy, self.leads)[:, :2]
        return np.linalg.solve(np.eye(2) - self.gamma * moves, (policy * self.reward).sum(1))

    def ahead(self, policy: NDArray[Any], value: NDArray[Any], steps: int) -> NDArray[Any]:
        """What `steps` steps of the policy and then `value` come to, for each state."""
        for _ in range(steps):
            value = (policy * self.action_values(value)).sum(1)
        return value

    def action_values(self, value: NDArray[Any]) -> NDArray[Any]:
        """Q(s, a) = r + gamma E[value of what follows]."""
        return self.reward + self.gamma * self.leads[:, :, :2] @ value

    def enumerated(self, value: NDArray[Any]) -> tuple[Steps, torch.Tensor, torch.Tensor, NDArray[Any]]:
        """All that three steps from state 0 can be, a row each: what the learner says of it, and mu's probabilities."""
        columns: list[dict[str, list[Any]]] = []
        chances: list[float] = []
        for choices in product(range(2), range(3), repeat=self.steps):
            column, chance = self.played(choices, value)
            if chance > 0:
                columns.append(column)
                chances.append(chance)
        arrays = {name: np.array([column[name] for column in columns]).T.tolist() for name in columns[0]}
        now = {name: torch.tensor(arrays.pop(name)).float() for name in ("now", "of_target")}
        return rollout(**arrays), now["of_target"], now["now"], np.array(chances)

    def played(self, choices: tuple[int, ...], value: NDArray[Any]) -> tuple[dict[str, list[Any]], float]:
        """One course of events; what comes after its end is not valid, and counts once."""
        names = ("reward", "now", "next_value", "log_prob", "of_target", "terminated", "valid")
        column: dict[str, list[Any]] = {name: [] for name in names}
        state, chance, over = 0, 1.0, False
        for action, follows in zip(choices[::2], choices[1::2], strict=True):
            if over:
                chance *= float(action == follows == 0)
                step = (1e6, 1e6, 1e6, 1e6, 1e6, False, False)
            else:
                mu, pi = self.behavior[state, action], self.target[state, action]
                chance *= mu * self.leads[state, action, follows]
                over = follows == 2
                after = 1e6 if over else value[follows]
                step = (self.reward[state, action], value[state], after, math.log(mu), math.log(pi), over, True)
                state = follows
            for name, number in zip(names, step, strict=True):
                column[name].append(number)
        return column, chance


CHAIN = Chain()


@pytest.mark.parametrize("value", [(0.0, 0.0), (5.0, -3.0)])
def test_vtrace_without_clips_is_unbiased(value: tuple[float, float]) -> None:
    """What the behavior policy's steps come to on average is what the target policy's would, whatever the values."""
    held = np.array(value)
    steps, log_prob, now, chance = CHAIN.enumerated(held)
    assert chance.sum() == pytest.approx(1)
    advantage, target = vtrace(steps, log_prob, now, gamma=CHAIN.gamma, clip_rho=math.inf, clip_c=math.inf)
    expected = CHAIN.ahead(CHAIN.target, held, CHAIN.steps)[0]
    assert (chance * target[0].numpy()).sum() == pytest.approx(expected, abs=1e-5)
    # Of each first action: pi(a|s) (Q(s, a) - v(s)), Q by two more steps of the target policy.
    later = CHAIN.action_values(CHAIN.ahead(CHAIN.target, held, CHAIN.steps - 1))[0]
    for action in range(2):
        chosen = (steps.reward[0] == CHAIN.reward[0, action]).numpy()
        found = (chance * advantage[0].numpy())[chosen].sum()
        assert found == pytest.approx(CHAIN.target[0, action] * (later[action] - held[0]), abs=1e-5)


def test_vtrace_keeps_the_target_policys_values() -> None:
    """They are its fixed point where nothing is cut, and no other where rho is."""
    own = CHAIN.value_of(CHAIN.target)
    steps, log_prob, now, chance = CHAIN.enumerated(own)
    for clip_c in (0.5, 1.0, math.inf):
        _, target = vtrace(steps, log_prob, now, gamma=CHAIN.gamma, clip_rho=math.inf, clip_c=clip_c)
        assert (chance * target[0].numpy()).sum() == pytest.approx(own[0], abs=1e-5)
    _, target = vtrace(steps, log_prob, now, gamma=CHAIN.gamma, clip_rho=1.0)
    assert abs((chance * target[0].numpy()).sum() - own[0]) > 0.1


def test_vtrace_with_rho_cut_keeps_those_of_the_policy_between() -> None:
    """pi_rho(a|s), which is min(rho mu, pi) over its sum (Espeholt et al. 2018, eq. 3)."""
    between = np.minimum(CHAIN.behavior, CHAIN.target)
    own = CHAIN.value_of(between / between.sum(1, keepdims=True))
    steps, log_prob, now, chance = CHAIN.enumerated(own)
    for clip_c in (0.5, 1.0):
        _, target = vtrace(steps, log_prob, now, gamma=CHAIN.gamma, clip_rho=1.0, clip_c=clip_c)
        assert (chance * target[0].numpy()).sum() == pytest.approx(own[0], abs=1e-5)
