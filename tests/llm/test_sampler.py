"""LocalSampler: its tokens beside transformers, its log-probabilities beside the learner's, batching, resume, ends."""

from typing import Any

import numpy as np
import pytest
import torch

from shoal.llm.architecture import Architecture
from shoal.llm.layout import laid_out
from shoal.llm.logprobs import unpacked
from shoal.llm.sampler.local import LocalSampler
from shoal.llm.sampler.passes import FastPass
from shoal.llm.sampler.protocol import Drawing, Drawn, Request
from shoal.types import ConfigError
from tests.sampler_models import SIZES, VOCAB, as_answers, learner_logprobs, make_model, make_prompt, run, slow_kept

PROMPTS = {key: make_prompt(key, length) for key, length in enumerate((1, 9, 4, 4, 17))}
CUTS: dict[str, dict[str, Any]] = {
    "everything": {},
    "top-k": {"top_k": 7},
    "top-p": {"top_p": 0.8},
    "min-p": {"min_p": 0.1},
    "all": {"top_k": 20, "top_p": 0.9, "min_p": 0.02, "temperature": 0.7},
}


def make_requests(numbers: tuple[int, ...] = (0, 1, 2)) -> list[Request]:
    return [Request(key, prompt, numbers) for key, prompt in PROMPTS.items()]


@pytest.mark.parametrize(("family", "head_dim"), [("Llama", 16), ("Qwen2", 16), ("Qwen3", 16), ("Qwen3", 8)])
def test_greedy_equals_transformers(family: str, head_dim: int) -> None:
    transformers = pytest.importorskip("transformers")
    sizes = {"hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 4}
    sizes |= {"num_key_value_heads": 2, "head_dim": head_dim, "max_position_embeddings": 128, "vocab_size": VOCAB}
    config = getattr(transformers, f"{family}Config")(**sizes, tie_word_embeddings=True, pad_token_id=0)
    architecture = Architecture.of_transformers(config.to_dict(), family)
    model = make_model(**{name: getattr(architecture, name) for name in Architecture.__slots__})
    theirs = getattr(transformers, f"{family}ForCausalLM")(config).eval()
    weights = model.state_dict()
    theirs.load_state_dict(weights | {"lm_head.weight": weights["model.embed_tokens.weight"]})
    sampler = LocalSampler(model, Drawing(max_tokens=24, temperature=0.0), slots=4, seed=0)
    sampler.submit(make_requests((0,)))
    for (key, _), drawn in run(sampler).items():
        ids = torch.tensor([PROMPTS[key]])
        settings = {"max_new_tokens": 24, "do_sample": False, "eos_token_id": 0, "pad_token_id": 0}
        expected = theirs.generate(ids, attention_mask=torch.ones_like(ids), **settings)
        assert drawn.token.tolist() == expected[0, ids.shape[1] :].tolist()


@pytest.mark.parametrize("cut", CUTS)
def test_logprobs_and_kept_sets_are_the_models(cut: str) -> None:
    drawing = Drawing(max_tokens=20, **CUTS[cut])
    model = make_model(temperature=drawing.temperature, tied=False)
    sampler = LocalSampler(model, drawing, slots=6, seed=3)
    sampler.submit(make_requests())
    found = run(sampler)
    assert len(found) == 15
    sizes: set[int] = set()
    for (key, _), drawn in found.items():
        expected = learner_logprobs(model, drawn, PROMPTS[key])
        np.testing.assert_allclose(drawn.logprob, expected, rtol=0, atol=1e-5)
        if not CUTS[cut]:
            assert drawn.kept is None
            continue
        assert drawn.kept is not None
        kept = unpacked(torch.from_numpy(drawn.kept), VOCAB).numpy()
        assert kept[np.arange(len(kept)), drawn.token].all()
        sizes |= set(kept.sum(1).tolist())
        logits = slow_logits(model, [*PROMPTS[key], *drawn.token.tolist()])[len(PROMPTS[key]) - 1 :]
        for row, of_row in zip(kept, logits / drawing.temperature, strict=True):
            cuts = drawing.top_k, drawing.top_p, drawing.min_p
            assert set(np.flatnonzero(row).tolist()) == slow_kept(of_row, *cuts)
    assert cut == "top-k" or not CUTS[cut] or len(sizes) > 3


def slow_logits(model: Any, tokens: list[int]) -> np.ndarray:
    """Logits after each token but the last [n, V]: all prefixes through the learner's model, in double precision."""
    rest = np.array(tokens[1:])
    zeros = np.zeros(len(rest))
    drawn = Drawn(0, 0, rest, zeros.astype(np.float32), zeros.astype(np.int64), truncated=False)
    with torch.no_grad():
        hidden = model.model(laid_out(as_answers(drawn, tokens[:1])))
        return (hidden @ model.head.T).double().numpy()


def test_draws_follow_the_distribution() -> None:
    model = make_model(std=0.15)
    prompt = PROMPTS[1]
    sampler = LocalSampler(model, Drawing(max_tokens=1, top_p=0.9), slots=500, seed=5)
    sampler.submit([Request(0, prompt, tuple(range(4000)))])
    tokens = np.array([drawn.token[0] for drawn in run(sampler).values()])
    logits = slow_logits(model, [*prompt, 1])[len(prompt) - 1]
    kept = sorted(slow_kept(logits, 0, 0.9, 0.0))
    probability = np.exp(logits[kept]) / np.exp(logits[kept]).sum()
    count = np.bincount(tokens, minlength=VOCAB)[kept]
    assert count.sum() == 4000
    expected = 4000 * probability
    chi_squared = ((count - expected) ** 2 / expected).sum()
    freedom = len(kept) - 1
    assert abs(chi_squared - freedom) < 4 * np.sqrt(2 * freedom)


def test_neither_slots_nor_order_matter() -> None:
    model, drawing = make_model(), Drawing(max_tokens=20, top_p=0.9)
    requests = make_requests()
    sampler = LocalSampler(model, drawing, slots=15, seed=1)
    sampler.submit(requests)
    expected = run(sampler)
    assert len({drawn.token.tobytes() for drawn in expected.values()}) > 12
    assert len({len(drawn.token) for drawn in expected.values()}) > 3
    for slots, order in ((1, requests), (4, requests[::-1]), (7, requests)):
        sampler = LocalSampler(model, drawing, slots=slots, seed=1)
        for request in order:
            sampler.submit([request])
        assert_same(run(sampler), expected)
    other = LocalSampler(model, drawing, slots=15, seed=2)
    other.submit(requests)
    assert any((drawn.token[:3] != expected[name].token[:3]).any() for name, drawn in run(other).items())


def assert_same(found: dict[tuple[int, int], Any], expected: dict[tuple[int, int], Any]) -> None:
    assert found.keys() == expected.keys()
    for name, drawn in found.items():
        one = expected[name]
        assert drawn.token.tolist() == one.token.tolist()
        assert drawn.version.tolist() == one.version.tolist()
        assert drawn.truncated == one.truncated
        np.testing.assert_allclose(drawn.logprob, one.logprob, rtol=0, atol=1e-5)
        np.testing.assert_array_equal(drawn.kept, one.kept)


def test_a_prompt_is_read_once(monkeypatch: pytest.MonkeyPatch) -> None:
    rows: list[int] = []
    read = FastPass.read

    def counted(self: FastPass, token: torch.Tensor, cache: Any) -> tuple[torch.Tensor, torch.Tensor]:
        rows.append(len(token))
        return read(self, token, cache)

    monkeypatch.setattr(FastPass, "read", counted)
    sampler = LocalSampler(make_model(), Drawing(max_tokens=6), slots=3, seed=1)
    sampler.submit([Request(0, PROMPTS[1], tuple(range(10))), Request(1, PROMPTS[2], tuple(range(7)))])
    assert len(run(sampler)) == 17
    assert sum(rows) == 2


@pytest.mark.parametrize("slots", [2, 5, 20])
def test_resumed_answers_go_on_to_the_token(slots: int) -> None:
    model, drawing = make_model(), Drawing(max_tokens=20, min_p=0.02)
    sampler = LocalSampler(model, drawing, slots=5, seed=1)
    sampler.submit(make_requests())
    expected = run(sampler)
    first = LocalSampler(model, drawing, slots=5, seed=1)
    first.submit(make_requests())
    found: dict[tuple[int, int], Any] = {}
    for _ in range(7):
        found |= {(drawn.key, drawn.number): drawn for drawn in first.poll(max_steps=1)}
    state = first.state()
    assert len(state["logprob"]) > 7
    second = LocalSampler(model, drawing, slots=slots, seed=1)
    second.submit([Request(9, PROMPTS[1], (0,))])
    second.restore(state)
    assert second.pending == first.pending == 15 - len(found)
    assert_same(found | run(second), expected)


def test_a_fork_shares_what_came_before_the_pivot() -> None:
    model, drawing = make_model(end=60), Drawing(max_tokens=20)
    sampler = LocalSampler(model, drawing, slots=5, seed=1)
    sampler.submit([Request(0, PROMPTS[1], (0,))])
    whole = run(sampler)[0, 0]
    assert len(whole.token) == 20
    begun = tuple(whole.token[:8].tolist())
    sampler.submit([Request(0, PROMPTS[1], (0, 1, 2), (begun, begun, begun[:5]))])
    found = run(sampler)
    assert found[0, 0].token.tolist() == whole.token[8:].tolist()
    assert found[0, 1].token.tolist() != whole.token[8:].tolist()
    for number, given in ((0, begun), (1, begun), (2, begun[:5])):
        drawn = found[0, number]
        expected = learner_logprobs(model, drawn, PROMPTS[1], given)
        np.testing.assert_allclose(drawn.logprob, expected, rtol=0, atol=1e-5)
        assert drawn.truncated
        assert len(drawn.token) == 20 - len(given)


@pytest.mark.parametrize("reload", ["keep", "refill"])
def test_every_token_has_the_version_that_chose_it(reload: Any) -> None:
    old, new = make_model(0, end=60), make_model(1, end=60)
    sampler = LocalSampler(old, Drawing(max_tokens=12), slots=4, seed=1, reload=reload)
    requests = make_requests((0, 1))
    sampler.submit(requests)
    sampler.poll(max_steps=5)
    sampler.load(3, new)
    assert sampler.version == 3
    found = run(sampler)
    assert len(found) == 10
    both = 0
    for (key, _), drawn in found.items():
        changed = drawn.version == 3
        assert drawn.version.tolist() == sorted(drawn.version.tolist())
        assert set(drawn.version.tolist()) <= {0, 3}
        both += len(set(drawn.version.tolist())) == 2
        by_old = learner_logprobs(old, drawn, PROMPTS[key])
        by_new = learner_logprobs(new, drawn, PROMPTS[key])
        np.testing.assert_allclose(drawn.logprob[~changed], by_old[~changed], rtol=0, atol=1e-5)
        if reload == "refill" or changed.all():
            np.testing.assert_allclose(drawn.logprob[changed], by_new[changed], rtol=0, atol=1e-5)
        else:
            assert np.abs(drawn.logprob[changed] - by_new[changed]).max() > 1e-3
    assert both == 4


def test_a_prompt_is_read_anew_by_new_weights() -> None:
    """Answers that begin after a change have nothing of the old weights, also where they share their prompt."""
    old, new = make_model(0), make_model(1)
    sampler = LocalSampler(old, Drawing(max_tokens=6), slots=2, seed=1)
    sampler.submit([Request(0, PROMPTS[1], tuple(range(7)))])
    sampler.poll(max_steps=1)
    sampler.load(1, new)
    found = [drawn for drawn in run(sampler).values() if drawn.version[0] == 1]
    assert len(found) == 5
    for drawn in found:
        np.testing.assert_allclose(drawn.logprob, learner_logprobs(new, drawn, PROMPTS[1]), rtol=0, atol=1e-5)


def test_a_copy_of_the_weights_is_taken() -> None:
    model = make_model()
    sampler = LocalSampler(model, Drawing(max_tokens=9), slots=4, seed=1)
    sampler.submit(make_requests((0,)))
    expected = run(sampler)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.zero_()
    sampler.submit(make_requests((0,)))
    assert_same(run(sampler), expected)


def test_answers_end_at_end_tokens_stop_texts_and_limits() -> None:
    model = make_model(std=0.1, end=5)
    free = LocalSampler(model, Drawing(max_tokens=40), slots=8, seed=1)
    free.submit([Request(0, PROMPTS[1], tuple(range(40)))])
    whole = run(free)
    ended = [drawn for drawn in whole.values() if not drawn.truncated]
    assert 5 < len(ended) < 35
    assert all(drawn.token[-1] == 5 and 5 not in drawn.token[:-1] for drawn in ended)
    assert all(len(drawn.token) == 40 for drawn in whole.values() if drawn.truncated)
    stops = "J", "LM", "A"
    stopped = LocalSampler(model, Drawing(max_tokens=40, stop=stops), slots=8, seed=1)
    stopped.submit([Request(0, PROMPTS[1], tuple(range(40)))])
    reasons: set[str] = set()
    for name, drawn in run(stopped).items():
        text = model.tokenizer.decode(whole[name].token.tolist())
        places = {stop: text.find(stop) + len(stop) for stop in stops if stop in text}
        length = min(places.values(), default=len(whole[name].token))
        assert drawn.token.tolist() == whole[name].token[:length].tolist()
        assert drawn.truncated == (not places and whole[name].truncated)
        reasons |= {stop for stop, place in places.items() if place == length}
    assert {"J", "A"} <= reasons


def test_what_a_stop_text_is_completed_by() -> None:
    model = make_model(end=60)
    drawing = Drawing(max_tokens=6, temperature=0.0)
    sampler = LocalSampler(model, drawing, slots=1, seed=1)
    sampler.submit([Request(0, PROMPTS[1], (0,))])
    token = run(sampler)[0, 0].token.tolist()
    text = model.tokenizer.decode(token)
    assert text[1:3] not in text[:2]
    sampler = LocalSampler(model, Drawing(max_tokens=6, temperature=0.0, stop=(text[1:3],)), slots=1, seed=1)
    sampler.submit([Request(0, PROMPTS[1], (0, 1, 2), ((), tuple(token[:3]), tuple(token[:2])))])
    found = run(sampler)
    assert found[0, 0].token.tolist() == token[:3]
    assert not found[0, 0].truncated
    # What an answer begins with does not end it, nor do its last letters with the first ones that are drawn.
    assert found[0, 1].token.tolist() == token[3:]
    assert found[0, 2].token.tolist() == token[2:]


def test_the_context_cuts_answers() -> None:
    model = make_model(end=60)
    sampler = LocalSampler(model, Drawing(max_tokens=1000), slots=3, seed=1)
    sampler.submit([Request(0, make_prompt(1, 120), (0, 1)), Request(1, make_prompt(1, 127), (0,))])
    found = run(sampler)
    assert [len(found[name].token) for name in ((0, 0), (0, 1), (1, 0))] == [8, 8, 1]
    assert all(drawn.truncated for drawn in found.values())


@pytest.mark.parametrize(
    ("request_", "message"),
    [
        (Request(4, (), (0,)), "the prompt of request 4 is empty"),
        (Request(4, (1, VOCAB), (0,)), "outside the model's 61"),
        (Request(4, (1, -1), (0,)), "outside the model's 61"),
        (Request(4, (1,) * 128, (0,)), r"no room .* 128 tokens.* reads 128 tokens at most; shorten the prompt"),
        (Request(4, (1,), (0,), ((1,) * 8,)), r"no room .* begins with 8.* has 8 tokens at most.*raise max_tokens"),
        (Request(4, (1,), (0, 0)), "numbers of answers must differ"),
        (Request(4, (1,), (2**16,)), "between 0 and 65535"),
        (Request(4, (1,), (0, 1), ((1,),)), "asks for 2 answers and says how 1 begin"),
        (Request(2**47, (1,), (0,)), "request 140737488355328: keys must lie between"),
    ],
)
def test_what_cannot_be_answered_is_refused(request_: Request, message: str) -> None:
    sampler = LocalSampler(make_model(), Drawing(max_tokens=8), slots=2, seed=0)
    with pytest.raises(ConfigError, match=message):
        sampler.submit([Request(0, (1, 2), (0,)), request_])
    assert sampler.pending == 0
    assert sampler.poll() == []


def test_memory_that_cannot_be_had_is_named() -> None:
    model = make_model(max_length=2**30)
    with pytest.raises(ConfigError, match="slots and num_threads must be at least 1, got 0"):
        LocalSampler(model, Drawing(max_tokens=8), slots=0, seed=0)
    sampler = LocalSampler(model, Drawing(max_tokens=2**20), slots=1000, seed=0)
    with pytest.raises(ConfigError, match=r"values of 1000 slots with 1,048,640 positions each need .* fewer slots"):
        sampler.submit([Request(0, (1,), (0,))])


def test_the_cache_grows_under_answers_that_are_under_way() -> None:
    model, drawing = make_model(end=60), Drawing(max_tokens=20)
    requests = [Request(0, PROMPTS[1], (0, 1)), Request(1, make_prompt(7, 100), (0,))]
    sampler = LocalSampler(model, drawing, slots=3, seed=1)
    sampler.submit(requests)
    expected = run(sampler)
    late = LocalSampler(model, drawing, slots=3, seed=1)
    late.submit(requests[:1])
    late.poll(max_steps=5)
    late.submit(requests[1:])
    assert_same(run(late), expected)
    assert SIZES["max_length"] == 128


@pytest.mark.parametrize("drawing", [Drawing(4), Drawing(4, temperature=0), Drawing(4, top_k=5, top_p=0.9, min_p=0.1)])
def test_weights_that_give_no_finite_numbers_are_named(drawing: Drawing) -> None:
    """Nothing is drawn with them, whatever is asked."""
    model = make_model()
    sampler = LocalSampler(model, drawing, slots=2, seed=0)
    sampler.submit([Request(0, (1, 2), (0,))])
    with torch.no_grad():
        for weight in model.parameters():
            weight.fill_(1e38)
    sampler.load(7, model)
    with pytest.raises(FloatingPointError, match="no finite numbers with version 7"):
        sampler.poll()
