"""GRPO's loss as a whole: the papers' formulas by a loop over tokens, in NumPy, and whatever parts a batch has."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import torch
from torch.optim import SGD

from shoal.algos.grpo import GRPO, grpo_loss, judged
from shoal.learn.answers import weighted
from shoal.learn.corrections import Correction
from shoal.learn.hardware import Hardware
from shoal.learn.learner import Learner
from shoal.llm.model import TokenOutput
from tests.llm.toy import toy_answers, toy_model

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray

    from shoal.types import Answers

GROUPS = np.array([0, 0, 0, 1, 1, 1])
REWARDS = np.array([1.0, 0.0, 0.5, 0.0, 1.0, 0.25])
MASK = np.arange(5) < np.array([3, 1, 4, 2, 5, 3])[:, None]
MASK[2, 1] = MASK[4, 2] = False
COUNTS = MASK.sum(1)
PLACES = np.argwhere(MASK)
RNG = np.random.default_rng(3)
DREW, MOVED, TAUGHT, BEGAN = (RNG.normal(0, size, MASK.shape) for size in (0.3, 0.25, 0.4, 0.5))
OLD = np.where(MASK, -1.5 + BEGAN, 0.0)
"""Log-probabilities by the weights that drew."""
PROXIMAL = np.where(MASK, OLD + DREW, 0.0)
"""By those that the update began with."""
NOW = np.where(MASK, PROXIMAL + MOVED, 0.0)
REFERENCE = np.where(MASK, NOW + TAUGHT, 0.0)
BUDGET, BELOW, ABOVE, MOST = 5, 0.1, 0.15, 1.1


def clipped(ratio: Any, advantage: Any) -> float:
    """min(r A, clip(r) A)."""
    return min(ratio * advantage, min(max(ratio, 1 - BELOW), 1 + ABOVE) * advantage)


def advantages(*, scaled: bool) -> NDArray[np.float64]:
    """A reward less its group's mean, over the group's deviation or not."""
    found = np.zeros(6)
    for group in (0, 1):
        own = REWARDS[group == GROUPS]
        found[group == GROUPS] = (own - own.mean()) / (own.std(ddof=1) + 1e-4 if scaled else 1)
    return found


SCALED, CENTERED = advantages(scaled=True), advantages(scaled=False)


def grpo(now: NDArray[np.float64]) -> float:
    """Shao et al. 2024, eq. 3 and 4: the mean of answers' means, less 0.04 KL."""
    total = 0.0
    for i, t in PLACES:
        x = REFERENCE[i, t] - now[i, t]
        gain = clipped(np.exp(now[i, t] - PROXIMAL[i, t]), SCALED[i]) - 0.04 * (np.exp(x) - x - 1)
        total += gain / COUNTS[i]
    return -total / 6


def dr_grpo(now: NDArray[np.float64]) -> float:
    """Liu et al. 2025: neither an answer's length nor the group's deviation divides."""
    total = sum(clipped(np.exp(now[i, t] - PROXIMAL[i, t]), CENTERED[i]) for i, t in PLACES)
    return -total / (6 * BUDGET)


def gspo(now: NDArray[np.float64]) -> float:
    """Zheng et al. 2025, eq. 5 to 7: the geometric mean of an answer's ratios is clipped."""
    ratio = np.exp(((now - PROXIMAL) * MASK).sum(1) / COUNTS)
    return -sum(clipped(s, a) for s, a in zip(ratio, SCALED, strict=True)) / 6


def cispo(now: NDArray[np.float64]) -> float:
    """Chen et al. 2025, eq. 4 and 5: weights are clipped, no gradient is."""
    weight = np.clip(np.exp(NOW - PROXIMAL), 1 - BELOW, 1 + ABOVE)
    return -(weight * SCALED[:, None] * now * MASK).sum() / MASK.sum()


def truncated_importance(now: NDArray[np.float64]) -> float:
    """DAPO's loss, answers weighted by min(prod pi_prox / pi_old, c)."""
    weight = np.minimum(np.exp(((PROXIMAL - OLD) * MASK).sum(1)), MOST)
    total = sum(weight[i] * clipped(np.exp(now[i, t] - PROXIMAL[i, t]), SCALED[i]) for i, t in PLACES)
    return -total / MASK.sum()


def gradient(of: Callable[[NDArray[np.float64]], float]) -> NDArray[np.float64]:
    """By differences."""
    found = np.zeros(MASK.shape)
    for i, t in PLACES:
        step = np.zeros(MASK.shape)
        step[i, t] = 1e-5
        found[i, t] = (of(NOW + step) - of(NOW - step)) / 2e-5
    return found


UNCORRECTED = {"correction": Correction(outside="none")}
PAPERS: dict[str, tuple[Callable[[NDArray[np.float64]], float], dict[str, Any]]] = {
    "GRPO": (grpo, UNCORRECTED | {"loss_normalization": "sequence", "beta": 0.04}),
    "Dr. GRPO": (dr_grpo, UNCORRECTED | {"loss_normalization": "constant", "advantage": "centered"}),
    "GSPO": (gspo, UNCORRECTED | {"loss_normalization": "sequence", "ratio_of": "sequence"}),
    "CISPO": (cispo, UNCORRECTED | {"surrogate": "weight"}),
    "truncated": (truncated_importance, {"correction": Correction(level="sequence", bound=MOST)}),
}


def settings(**given: Any) -> GRPO:
    """Two groups of three."""
    whole: dict[str, Any] = {"num_prompts": 2, "num_generations": 3, "max_completion_length": BUDGET}
    whole.update({"epsilon": BELOW, "epsilon_high": ABOVE}, **given)
    return GRPO(**whole)


def batch(*, reference: bool) -> Answers:
    """The answers, with what was said of them before the step."""
    said = [[2, 3, 0, 0, 0], [4, 0, 0, 0, 0], [5, 6, 7, 2, 0], [3, 3, 0, 0, 0], [9, 1, 2, 3, 4], [3, 4, 5, 0, 0]]
    made = toy_answers([[2, 1], [3, 3, 1]], GROUPS.tolist(), said, torch.from_numpy(MASK))
    return replace(
        made,
        logprob=torch.from_numpy(OLD),
        reward=torch.from_numpy(REWARDS),
        proximal_logprob=torch.from_numpy(PROXIMAL),
        reference_logprob=torch.from_numpy(REFERENCE) if reference else None,
    )


@pytest.mark.parametrize("name", PAPERS)
def test_losses_are_those_of_the_papers(name: str) -> None:
    """In value, and in the gradient of every token; some of which are clipped."""
    formula, given = PAPERS[name]
    cfg = settings(**given)
    now = torch.from_numpy(NOW).requires_grad_()
    answers = weighted(judged(batch(reference=cfg.beta > 0), cfg), cfg)
    value, _ = grpo_loss(TokenOutput(now, torch.zeros_like(now)), answers, cfg)
    expected = gradient(formula)
    np.testing.assert_allclose(value.item(), formula(NOW), atol=1e-6)
    np.testing.assert_allclose(torch.autograd.grad(value, now)[0], expected, atol=1e-6)
    assert np.abs(expected).max() > 0.01
    assert name == "CISPO" or (expected[MASK] == 0).any() or cfg.beta > 0


@pytest.mark.parametrize("name", PAPERS)
@pytest.mark.parametrize("most_tokens", [1, 12])
def test_a_step_does_not_depend_on_the_parts(name: str, most_tokens: int) -> None:
    """Weights and statistics after it, whatever is read at a time."""
    cfg = settings(**PAPERS[name][1])
    found: list[tuple[Learner, Any]] = []
    for most in (1000, most_tokens):
        learner = Learner(toy_model(), SGD, lr=1.0, hardware=Hardware(micro_tokens=most))
        answers = weighted(judged(batch(reference=cfg.beta > 0), cfg), cfg)
        found.append((learner, learner.step(grpo_loss, answers, cfg)))
    (whole, said), (cut, of_parts) = found
    assert not torch.equal(whole.flat, toy_model_flat())
    torch.testing.assert_close(cut.flat, whole.flat, rtol=1e-4, atol=1e-5)
    for one, other in zip(of_parts, said, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-5)


def toy_model_flat() -> torch.Tensor:
    """The weights before the step."""
    return Learner(toy_model(), SGD, lr=1.0).flat.clone()
