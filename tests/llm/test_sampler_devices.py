"""The sampler's arithmetic on another device than the CPU: that of torch whose tensors have shapes and no numbers."""

from typing import Any

import pytest
import torch

from shoal.llm.sampler import cache as caches
from shoal.llm.sampler.cache import Cache
from shoal.llm.sampler.draw import drawn
from shoal.llm.sampler.exact import ExactPass
from shoal.llm.sampler.passes import FastPass, Pass
from shoal.llm.sampler.protocol import Drawing
from tests.sampler_models import VOCAB, make_model

CUTS: list[dict[str, Any]] = [{}, {"top_k": 5}, {"top_p": 0.9}, {"min_p": 0.1, "temperature": 0.5}]


@pytest.mark.parametrize("family", [{}, {"qk_norm": False, "attention_bias": True, "tied": False}], ids=str)
@pytest.mark.parametrize("kind", ["fast", "exact"])
def test_no_tensor_is_left_on_another_device(
    kind: str, family: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Most operations on tensors of two devices raise, and so does whatever would wait for a number of the device."""
    monkeypatch.setattr(caches, "_available", lambda device: 2**40)
    model = make_model(**family).to("meta")
    with torch.no_grad():
        cache = Cache(model.architecture, 4, torch.device("meta"), torch.float32)
        cache.grow(64)
        assert cache.native is None
        made: Pass = FastPass(model, rows=4) if kind == "fast" else ExactPass(model)
        token = torch.zeros(3, 9, dtype=torch.int64, device="meta")
        key, value = made.read(token, cache)
        assert key.device.type == value.device.type == "meta"
        cache.put(0, key, value)
        cache.move(token[:1, 0], token[:1, 1], 5)
        if kind == "exact":  # which asks for positions: the CPU knows them
            return
        logits = made.decode(cache, token[:, 0], token[:, 0], 10)
        assert logits.shape == (3, VOCAB)
        uniform = torch.zeros(3, device="meta")
        for cut in CUTS:
            chosen, logprob, kept = drawn(logits, uniform, Drawing(9, **cut))
            assert chosen.device.type == logprob.device.type == "meta"
            assert kept is None or kept.device.type == "meta"
