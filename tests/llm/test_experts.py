"""Mixtures of experts: a router's choice by hand, and that the sampler's reaches the loss and is replayed."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import torch

from shoal.llm.architecture import Architecture
from shoal.llm.feed_forward import NOT_KNOWN, Experts, mixed, route
from shoal.llm.lora import Lora, add_lora
from shoal.llm.sampler.local import LocalSampler
from shoal.llm.sampler.protocol import Drawing, Request
from shoal.llm.tasks.task import Prompt
from shoal.stream.groups.batch import answers_of
from shoal.stream.groups.flight import Group, drawn_of, parts_of
from shoal.types import ConfigError
from tests.sampler_models import make_model, make_prompt, run

if TYPE_CHECKING:
    from shoal.llm.model import LanguageModel
    from shoal.types import Answers

SIZES: dict[str, Any] = {
    "model_type": "qwen3_moe",
    "num_experts": 5,
    "experts_per_token": 2,
    "expert_size": 20,
    "normalize_experts": True,
}
CONFIG: dict[str, Any] = make_model(**SIZES).architecture.to_transformers()


def test_the_most_probable_experts_are_chosen() -> None:
    """Probabilities 1/8, 1/2, 1/8, 1/4; a replayed choice counts what the router says of it."""
    logits = torch.tensor([[1.0, 4.0, 1.0, 2.0]]).log()
    chosen, share = route(logits, 2, normalize=False)
    assert chosen.tolist() == [[1, 3]]
    torch.testing.assert_close(share, torch.tensor([[0.5, 0.25]]))
    torch.testing.assert_close(route(logits, 2, normalize=True)[1], torch.tensor([[2 / 3, 1 / 3]]))
    chosen, share = route(logits, 2, normalize=True, replayed=torch.tensor([[0, 3]], dtype=torch.int16))
    assert chosen.tolist() == [[0, 3]]
    torch.testing.assert_close(share, torch.tensor([[1 / 3, 2 / 3]]))
    nothing = torch.full((1, 2), NOT_KNOWN, dtype=torch.int16)
    assert route(logits, 2, normalize=True, replayed=nothing)[0].tolist() == [[1, 3]]


def test_each_token_gets_the_sum_of_its_experts() -> None:
    """Experts that multiply by 1, 10 and 100, of which nobody chose the last."""
    x = torch.tensor([[1.0], [2.0], [3.0]])
    chosen = torch.tensor([[0, 1], [1, 0], [1, 0]])
    share = torch.tensor([[0.5, 0.5], [0.25, 0.75], [1.0, 0.0]])
    experts = [lambda x, by=by: x * by for by in (1.0, 10.0, 100.0)]
    assert mixed(x, chosen, share, experts).tolist() == [[5.5], [6.5], [30.0]]


def test_every_expert_has_a_gradient() -> None:
    """Zeros where no token came: an optimizer moves the same parameters however a batch is cut."""
    experts: Any = Experts(make_model(**SIZES).architecture)
    experts(torch.randn(1, 32)).sum().backward()
    assert sum(not one.gate_proj.weight.grad.any() for one in experts.experts) == 3
    assert experts.gate.weight.grad is not None


def drawn_batch(model: LanguageModel) -> Answers:
    """Three answers to each of two prompts, through a checkpoint."""
    prompts = {key: make_prompt(key, length) for key, length in enumerate((9, 4))}
    sampler = LocalSampler(model, Drawing(max_tokens=20), slots=4, seed=3)
    sampler.submit([Request(key, prompt, (0, 1, 2)) for key, prompt in prompts.items()])
    groups = {key: Group(key, Prompt(key, "", ""), token, 0, 3) for key, token in prompts.items()}
    sampler.poll(3)
    again = LocalSampler(model, Drawing(max_tokens=20), slots=4, seed=3)
    again.restore(sampler.state())
    for (key, number), one in run(again).items():
        groups[key].drawn[number] = drawn_of(key, parts_of(one))
        groups[key].reward[number] = 1.0
    return answers_of(list(groups.values()), torch.device("cpu"))


def test_the_routing_of_what_was_drawn_is_replayed() -> None:
    """Sampler and learner agree; another router chooses others, unless the recorded ones are replayed."""
    model = make_model(**SIZES)
    batch = drawn_batch(model)
    logprob = model(batch).logprob.detach()
    assert batch.routing is not None
    assert batch.prompt_routing is not None
    learned = batch.routing[batch.mask]
    assert learned.min() >= 0
    assert (batch.prompt_routing[0, :8, 0] >= 0).all()
    assert len(learned[:, 0].unique(dim=0)) > 3
    model.model.replay = True
    torch.testing.assert_close(model(batch).logprob.detach(), logprob, rtol=0, atol=1e-6)
    changed: Any = make_model(**SIZES)
    with torch.no_grad():
        for layer in changed.model.layers:
            layer.mlp.gate.weight.add_(0.05 * torch.randn_like(layer.mlp.gate.weight))
    free = changed(batch).logprob.detach()
    changed.model.replay = True
    replayed = changed(batch).logprob.detach()
    assert not torch.equal(free, replayed)
    assert torch.equal(changed(replace(batch, routing=None)).logprob.detach(), free)
    changed(batch).logprob.sum().backward()
    assert changed.model.layers[0].mlp.gate.weight.grad.any()


def test_log_probabilities_of_the_sampler_are_the_learners() -> None:
    """Within rounding, as the learner's own forward pass gives them."""
    model = make_model(**SIZES)
    batch = drawn_batch(model)
    np.testing.assert_allclose(model(batch).logprob.detach(), batch.logprob, rtol=0, atol=1e-5)


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"decoder_sparse_step": 2}, "in some layers only is not supported"),
        ({"mlp_only_layers": [1]}, "in some layers only is not supported"),
        ({"num_experts_per_tok": 6}, "6 of 5 experts for each token"),
    ],
)
def test_what_is_no_such_mixture_is_refused(changed: dict[str, Any], said: str) -> None:
    assert Architecture.of_transformers(CONFIG, "here") == make_model(**SIZES).architecture
    with pytest.raises(ConfigError, match=said):
        Architecture.of_transformers(CONFIG | changed, "here")


def test_adapters_of_experts_are_refused() -> None:
    """Those of the attention are not."""
    with pytest.raises(ConfigError, match="lora_layers=attention"):
        add_lora(make_model(**SIZES), Lora(2))
    add_lora(make_model(**SIZES), Lora(2, layers=("q_proj",)))
