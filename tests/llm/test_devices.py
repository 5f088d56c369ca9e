"""Device discipline, without a GPU: nothing is made on another device than its inputs', and nothing waits for a token.

Tensors of the device `meta` have shapes and no numbers. An operation on one of them and one of the CPU raises, and so
does asking for a number, as it would wait for a GPU.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import fields, replace
from typing import Any

import pytest
import torch
from torch.optim import Adam
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode

from shoal.learn.learner import Learner
from shoal.llm.layout import laid_out
from shoal.llm.logprobs import chosen_logprobs
from shoal.llm.lora import Lora, add_lora
from shoal.llm.model import LanguageModel
from shoal.llm.sampler import cache as caches
from shoal.llm.sampler.cache import Cache
from shoal.llm.sampler.draw import drawn
from shoal.llm.sampler.local import LocalSampler
from shoal.llm.sampler.passes import FastPass
from shoal.llm.sampler.protocol import Drawing, Request
from shoal.types import Answers
from tests.experiment.test_lora_runs import loss_of
from tests.llm.models import make_answer, make_model

META = torch.device("meta")
MAKERS = {torch.arange, torch.ones, torch.zeros, torch.empty, torch.full, torch.tensor, torch.rand, torch.randn}


class Syncs(TorchDispatchMode):
    """Counts what has a GPU's results brought to the CPU."""

    def __init__(self) -> None:
        super().__init__()
        self.count = Counter[str]()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        del types
        name = func.overloadpacket.__name__
        if name in ("_local_scalar_dense", "nonzero", "is_nonzero", "masked_select"):
            self.count[name] += 1
        return func(*args, **(kwargs or {}))


class Placed(TorchFunctionMode):
    """Refuses tensors whose device nobody says."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        del types
        said = kwargs or {}
        if func in MAKERS:
            assert said.get("device") is not None, f"{func.__name__}{args} is made on whatever device is the default"
        return func(*args, **said)


def on_meta(record: Any) -> Any:
    """A record of tensors, without their numbers."""
    found = {field.name: getattr(record, field.name) for field in fields(record)}
    return replace(record, **{name: value.to(META) for name, value in found.items() if value is not None})


def made(*, lora: bool) -> LanguageModel:
    model = make_model()
    if lora:
        add_lora(model, Lora(rank=2))
    return model


def answers(count: int, length: int) -> Answers:
    """Of one prompt, with what could be drawn."""
    one = make_answer([5, 9, 200], [7] * length)
    kept = torch.full((count, length, 38), 255, dtype=torch.uint8)
    rows = {name: getattr(one, name).repeat(count, *[1] * (getattr(one, name).dim() - 1)) for name in ROWS}
    return replace(one, **rows, kept=kept)


ROWS = ("prompt_of", "token", "mask", "logprob", "version", "reward", "truncated")


def test_meta_tensors_tell_devices_apart() -> None:
    """What the tests below rest on."""
    there = torch.zeros(2, device=META)
    with pytest.raises(RuntimeError, match="device"):
        torch.add(there, torch.zeros(2))
    with pytest.raises(RuntimeError, match="meta"):
        there.sum().item()


@pytest.mark.parametrize("lora", [False, True])
def test_the_learners_path_stays_on_its_device(*, lora: bool) -> None:
    """Forward and backward of laid out answers, with and without layers that are computed again."""
    model = made(lora=lora).to(META)
    laid = on_meta(laid_out(answers(3, 4)))
    for again in (False, True):
        model.model.recompute = again
        hidden = model.model(laid)
        logprob, entropy = chosen_logprobs(hidden[laid.source], model.head, laid.target, laid.kept, 0.7)
        laid.spread(logprob, (3, 4)).sum().backward()
        assert entropy.device == META
    trained = [value for value in model.parameters() if value.requires_grad]
    assert all(value.grad is not None and value.grad.device == META for value in trained)


def test_every_tensor_is_made_on_a_device_that_is_said() -> None:
    """In the layout of a batch too, whose shapes depend on its numbers."""
    model = made(lora=True)
    batch = answers(3, 4)
    with Placed():
        model(batch).logprob.sum().backward()


@pytest.mark.parametrize(
    "drawing",
    [{}, {"top_k": 5, "temperature": 0.5}, {"min_p": 0.1}, {"temperature": 0}],
    ids=["all", "top_k", "min_p", "greedy"],
)
def test_the_samplers_path_stays_on_its_device(monkeypatch: pytest.MonkeyPatch, drawing: dict[str, Any]) -> None:
    """Reading prompts, decoding, drawing, and moving slots."""
    monkeypatch.setattr(caches, "_available", lambda device: None)
    model = made(lora=True).to(META)
    cache = Cache(model.architecture, 4, META, torch.float32)
    cache.grow(10)
    weights = FastPass(model, rows=4)
    one = torch.zeros(2, dtype=torch.int64, device=META)
    cache.put(0, *weights.read(one[:, None].expand(2, 3).contiguous(), cache))
    logits = weights.decode(cache, one, one, 4)
    uniform = torch.zeros(2, dtype=torch.float64, device=META)
    token, logprob, kept = drawn(logits, uniform, Drawing(max_tokens=4, **drawing))
    assert {x.device for x in (token, logprob, kept) if x is not None} == {META}
    cache.move(one[:1], one[1:], 3)


def test_a_step_waits_as_often_for_many_tokens_as_for_few() -> None:
    """Of the learner: what is brought to the CPU does not grow with the tokens."""
    counts: list[Counter[str]] = []
    for count, length in ((2, 2), (6, 20)):
        learner = Learner(made(lora=True), Adam, lr=1e-3)
        learner.step(loss_of, answers(2, 2), None)  # Adam's moments are made
        with Syncs() as syncs:
            learner.step(loss_of, answers(count, length), None)
        counts.append(syncs.count)
    assert counts[0] == counts[1]


def test_a_token_waits_as_often_for_many_answers_as_for_few() -> None:
    """Of the sampler, in each step of its loop."""
    counts: list[Counter[str]] = []
    for count in (2, 16):
        sampler = LocalSampler(made(lora=True), Drawing(max_tokens=8), slots=16, seed=1)
        sampler.submit([Request(0, (5, 9, 200), tuple(range(count)))])
        sampler.poll(max_steps=1)
        with Syncs() as syncs:
            sampler.poll(max_steps=1)
        counts.append(syncs.count)
    assert counts[0] == counts[1]
