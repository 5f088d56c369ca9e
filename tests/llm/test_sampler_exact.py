"""Exact log-probabilities: a sampler's are the learner's bit for bit, whatever is sampled or learned beside them."""

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch

from shoal.llm.sampler.local import LocalSampler
from shoal.llm.sampler.protocol import Drawing, Request
from shoal.types import Answers
from tests.sampler_models import as_answers, learner_logprobs, make_model, make_prompt, run

PROMPTS = {key: make_prompt(key, length) for key, length in enumerate((1, 9, 4, 61, 17))}
FAMILIES: dict[str, dict[str, Any]] = {
    "llama": {"model_type": "llama", "qk_norm": False, "tied": False},
    "qwen2": {"model_type": "qwen2", "qk_norm": False, "attention_bias": True},
    "qwen3": {"num_heads": 6, "num_kv_heads": 2, "head_dim": 16},
    "without groups": {"num_kv_heads": 4},
    "experts": {
        "model_type": "qwen3_moe",
        "num_experts": 5,
        "experts_per_token": 2,
        "expert_size": 20,
        "normalize_experts": True,
    },
}


def put_together(batches: list[Answers]) -> Answers:
    """Answers to one prompt each as one batch."""

    def padded(name: str) -> Any:
        parts = [getattr(one, name) for one in batches]
        if parts[0] is None or parts[0].dim() == 1:
            return None if parts[0] is None else torch.cat(parts)
        width = max(part.shape[1] for part in parts)
        whole = parts[0].new_zeros(len(parts), width, *parts[0].shape[2:])
        for row, part in zip(whole, parts, strict=True):
            row[: part.shape[1]] = part[0]
        return whole

    fields = {name: padded(name) for name in Answers.__slots__}
    return Answers(**fields | {"prompt_of": torch.arange(len(batches))})


@pytest.mark.parametrize(
    ("family", "cut"),
    [
        ("llama", {}),
        ("qwen2", {"top_k": 7}),
        ("qwen3", {"top_p": 0.8, "temperature": 0.7}),
        ("without groups", {"min_p": 0.1}),
        ("experts", {"top_k": 7}),
    ],
    ids=str,
)
def test_log_probabilities_are_the_learners_bit_for_bit(family: str, cut: dict[str, Any]) -> None:
    drawing = Drawing(max_tokens=20, **cut)
    model = make_model(temperature=drawing.temperature, exact=True, **FAMILIES[family])
    sampler = LocalSampler(model, drawing, slots=4, seed=3, exact=True)
    sampler.submit([Request(key, prompt, (0, 1)) for key, prompt in PROMPTS.items()])
    found = run(sampler)
    batches = [as_answers(drawn, PROMPTS[key]) for (key, _), drawn in found.items()]
    together = model(put_together(batches)).logprob.detach().numpy()
    for row, ((key, _), drawn) in zip(together, found.items(), strict=True):
        np.testing.assert_array_equal(drawn.logprob, learner_logprobs(model, drawn, PROMPTS[key]))
        np.testing.assert_array_equal(drawn.logprob, row[: len(drawn.token)])
    model.exact = False
    for (key, _), drawn in found.items():
        expected = learner_logprobs(model, drawn, PROMPTS[key])
        np.testing.assert_allclose(drawn.logprob, expected, rtol=0, atol=1e-5)


def test_after_new_weights_they_are_those_of_each_version() -> None:
    models = {version: make_model(version, exact=True, end=60) for version in (0, 1, 5)}
    drawing = Drawing(max_tokens=20, top_p=0.9)
    sampler = LocalSampler(models[0], drawing, slots=4, seed=1, exact=True, reload="refill")
    sampler.submit([Request(key, prompt, (0, 1, 2)) for key, prompt in PROMPTS.items()])
    found: list[Any] = []
    for version in (1, 5):
        for _ in range(17):
            found += sampler.poll(max_steps=1)
        sampler.load(version, models[version])
    found += list(run(sampler).values())
    mixed = 0
    for drawn in found:
        mixed += len(set(drawn.version.tolist())) > 1
        for version in set(drawn.version.tolist()):
            of = drawn.version == version
            expected = learner_logprobs(models[version], drawn, PROMPTS[drawn.key])
            np.testing.assert_array_equal(drawn.logprob[of], expected[of])
    assert mixed >= 4


def test_bits_of_one_answer_alone() -> None:
    model = make_model(exact=True)
    sampler = LocalSampler(model, Drawing(max_tokens=1), slots=5, seed=1, exact=True)
    sampler.submit([Request(key, prompt, (0, 1)) for key, prompt in PROMPTS.items()])
    for (key, _), drawn in run(sampler).items():
        assert drawn.logprob.tolist() == learner_logprobs(model, drawn, PROMPTS[key]).tolist()


def test_resumed_and_forked_answers_have_the_same_bits() -> None:
    model, drawing = make_model(exact=True, end=60), Drawing(max_tokens=20, min_p=0.02)
    request = Request(3, PROMPTS[1], tuple(range(6)))
    sampler = LocalSampler(model, drawing, slots=6, seed=1, exact=True)
    sampler.submit([request])
    expected = run(sampler)
    sampler = LocalSampler(model, drawing, slots=3, seed=1, exact=True)
    sampler.submit([request])
    assert sampler.poll(max_steps=7) == []
    resumed = LocalSampler(model, drawing, slots=5, seed=1, exact=True)
    resumed.restore(sampler.state())
    for name, drawn in run(resumed).items():
        assert drawn.token.tolist() == expected[name].token.tolist()
        np.testing.assert_array_equal(drawn.logprob, expected[name].logprob)
    begun = tuple(tuple(expected[3, number].token[:number].tolist()) for number in range(6))
    resumed.submit([replace(request, begun=begun)])
    for name, drawn in run(resumed).items():
        assert drawn.token.tolist() == expected[name].token[name[1] :].tolist()
        np.testing.assert_array_equal(drawn.logprob, expected[name].logprob[name[1] :])


def test_gradients_are_those_of_the_ordinary_forward_pass() -> None:
    model = make_model(attention_bias=True, tied=False)
    drawn = LocalSampler(model, Drawing(max_tokens=12), slots=4, seed=1)
    drawn.submit([Request(key, prompt, (0,)) for key, prompt in PROMPTS.items()])
    batch = put_together([as_answers(one, PROMPTS[key]) for (key, _), one in run(drawn).items()])
    grads: list[dict[str, torch.Tensor]] = []
    for exact in (False, True):
        model.exact = exact
        model.zero_grad()
        (model(batch).logprob * torch.linspace(-1, 1, batch.token.shape[1])).sum().backward()
        grads.append({name: one.grad.clone() for name, one in model.named_parameters() if one.grad is not None})
    assert grads[0].keys() == grads[1].keys() == dict(model.named_parameters()).keys()
    for name, grad in grads[0].items():
        torch.testing.assert_close(grads[1][name], grad, rtol=1e-4, atol=1e-4)
