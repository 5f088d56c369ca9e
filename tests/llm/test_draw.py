"""The sets that tokens are drawn from beside slow references, for small and large vocabularies."""

from typing import Any

import numpy as np
import pytest
import torch

from shoal.llm.sampler.draw import drawn, kept_tokens
from shoal.llm.sampler.protocol import Drawing
from tests.sampler_models import slow_kept

CUTS: list[dict[str, Any]] = [
    {"top_p": 0.3},
    {"top_p": 0.95},
    {"top_k": 3},
    {"top_k": 200, "top_p": 0.9},
    {"top_k": 10**6, "min_p": 0.3},
    {"top_p": 0.8, "min_p": 0.01},
]


@pytest.mark.parametrize("size", [50, 5000])
@pytest.mark.parametrize("cut", CUTS, ids=str)
def test_kept_sets_equal_a_slow_reference(size: int, cut: dict[str, Any]) -> None:
    rng = np.random.default_rng(0)
    # From flat rows, of which top-p keeps most, to steep ones, of which it keeps a single token.
    logits = (rng.standard_normal((8, size)) * np.geomspace(0.1, 30, 8)[:, None]).astype(np.float32)
    drawing = Drawing(1, **cut)
    kept = kept_tokens(torch.from_numpy(logits), drawing).numpy()
    for row, of in zip(kept, logits.astype(np.float64), strict=True):
        expected = slow_kept(of, drawing.top_k, drawing.top_p, drawing.min_p)
        assert set(np.flatnonzero(row).tolist()) == expected


@pytest.mark.parametrize("size", [50, 5000])
def test_a_rows_set_does_not_depend_on_others(size: int) -> None:
    scale = torch.tensor([[0.1], [1], [2], [3], [5], [9]])
    logits = scale * torch.randn(6, size, generator=torch.Generator().manual_seed(1))
    drawing = Drawing(1, top_p=0.9)
    whole = kept_tokens(logits, drawing)
    for row in range(6):
        assert torch.equal(kept_tokens(logits[row : row + 1], drawing)[0], whole[row])


def test_what_is_as_probable_as_the_last_is_kept_too() -> None:
    logits = torch.tensor([[2.0, 1.0, 1.0, 0.0, 1.0]])
    for drawing in (Drawing(1, top_k=2), Drawing(1, top_p=0.5)):
        assert kept_tokens(logits, drawing).tolist() == [[True, True, True, False, True]]
    # The most probable one is always kept.
    assert kept_tokens(logits, Drawing(1, top_p=1e-9)).tolist() == [[True, False, False, False, False]]


def test_draws_by_hand() -> None:
    probability = torch.tensor([0.1, 0.4, 0.2, 0.3])
    logits = probability.log().expand(6, -1)
    uniform = torch.tensor([0.0, 0.09, 0.11, 0.49, 0.51, 1 - 2**-24])
    token, logprob, kept = drawn(logits, uniform, Drawing(1))
    assert token.tolist() == [0, 0, 1, 1, 2, 3]
    torch.testing.assert_close(logprob, probability.log()[token])
    assert kept is None
    token, logprob, kept = drawn(logits, uniform, Drawing(1, top_p=0.6))
    assert token.tolist() == [1, 1, 1, 1, 1, 3]
    torch.testing.assert_close(logprob, (probability / 0.7).log()[token])
    assert kept is not None
    assert kept[0].tolist() == [False, True, False, True]
    # At temperature 2 probabilities are as their square roots.
    root = probability.sqrt() / probability.sqrt().sum()
    token, logprob, _ = drawn(logits, uniform, Drawing(1, temperature=2.0))
    torch.testing.assert_close(logprob.exp(), root[token])
    token, logprob, _ = drawn(logits, uniform, Drawing(1, temperature=0.0))
    assert token.tolist() == [1] * 6
    torch.testing.assert_close(logprob.exp(), torch.full((6,), 0.4))


def test_a_token_without_a_chance_is_never_drawn() -> None:
    logits = torch.full((2, 300), -torch.inf)
    logits[:, 150] = 0.0
    logits[1, 151] = -30.0
    for uniform in (0.0, 0.5, 1 - 2**-24):
        token, logprob, _ = drawn(logits, torch.full((2,), uniform), Drawing(1))
        assert token.tolist() == [150, 150]
        assert logprob.tolist() == [0.0, 0.0]
