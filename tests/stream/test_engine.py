"""Answers drawn by a server: by the weights that it was given, none lost where it breaks off, none taken on trust."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

import numpy as np
import pytest
import torch

from shoal.llm.engines.prefill import prefill_logprobs
from shoal.llm.engines.registry import make_engine
from shoal.llm.sampler.protocol import Drawing, Request
from shoal.stream.groups.engine import EngineSampler
from shoal.stream.groups.pushing import Terms
from shoal.types import ConfigError, EnvError
from tests.llm.engine_server import EngineServer
from tests.llm.models import make_answer
from tests.llm.toy import toy_model

if TYPE_CHECKING:
    from collections.abc import Callable, Generator

    from shoal.llm.model import LanguageModel
    from shoal.llm.sampler.protocol import Drawn, Sampler

DRAWING = Drawing(max_tokens=40)
REQUESTS = [Request(key, (2 + key, 1), (0, 1, 2)) for key in range(4)]
KINDS = ("vllm", "sglang")


@pytest.fixture
def server() -> Generator[EngineServer]:
    made = EngineServer(toy_model(), DRAWING)
    yield made
    made.close()


def sampler_of(
    server: EngineServer,
    kind: str = "vllm",
    *,
    timeout_s: float = 60.0,
    max_failures: int = 5,
    tell: Callable[[str], None] | None = None,
) -> EngineSampler:
    engine = make_engine(kind, server.url, timeout_s=60)
    terms = Terms(timeout_s=timeout_s, max_failures=max_failures)
    return EngineSampler(engine, toy_model(), server.drawing, terms, tell=tell)


def finished(sampler: Sampler) -> list[Drawn]:
    found: list[Drawn] = []
    while sampler.pending:
        found += sampler.poll()
    return sorted(found, key=lambda one: (one.key, one.number))


def check_logprobs(drawn: Drawn, models: dict[int, LanguageModel], prompt: tuple[int, ...]) -> None:
    """Each token's is the one that its version's weights give it, where all are of one version."""
    (version,) = set(drawn.version.tolist())
    with torch.no_grad():
        theirs = models[version](make_answer(list(prompt), drawn.token.tolist())).logprob[0].numpy()
    np.testing.assert_allclose(drawn.logprob, theirs, atol=1e-5)


@pytest.mark.parametrize("kind", KINDS)
def test_answers_are_those_of_the_weights_that_were_sent(server: EngineServer, kind: str) -> None:
    """Not of those that the server was started with."""
    sampler = sampler_of(server, kind)
    model = toy_model(3)
    sampler.load(7, model)
    sampler.submit(REQUESTS)
    drawn = finished(sampler)
    sampler.close()
    assert [(one.key, one.number) for one in drawn] == [(k, n) for k in range(4) for n in range(3)]
    for one in drawn:
        assert one.truncated == (one.token[-1] != 0)
        assert len(one.token) <= DRAWING.max_tokens
        check_logprobs(one, {7: model}, (2 + one.key, 1))


@pytest.mark.parametrize("kind", KINDS)
def test_weights_change_between_two_tokens(server: EngineServer, kind: str) -> None:
    """Answers under way go on with the new ones; the server says which tokens are whose."""
    server.faults.slow_s = 0.01
    sampler = sampler_of(server, kind)
    sampler.load(0, toy_model())
    sampler.submit([Request(key, (2, 1), (0, 1, 2, 3)) for key in range(20)])
    found = sampler.poll()
    for version in range(1, 4):
        sampler.load(version, toy_model())
        found += sampler.poll(0)
    found += finished(sampler)
    sampler.close()
    assert len(found) == 80
    assert any(len(set(one.version.tolist())) > 1 for one in found)
    assert all((np.diff(one.version) >= 0).all() for one in found)
    assert {0, 3} <= {version for one in found for version in one.version.tolist()}


@pytest.mark.parametrize("kind", KINDS)
def test_what_could_be_drawn_is_known(kind: str) -> None:
    """With top-k, as bits for each token."""
    server = EngineServer(toy_model(), Drawing(max_tokens=10, top_k=3))
    sampler = sampler_of(server, kind)
    sampler.load(0, toy_model())
    sampler.submit(REQUESTS[:1])
    for one in finished(sampler):
        assert one.kept is not None
        sets = np.unpackbits(one.kept, axis=1, bitorder="little")
        assert (sets.sum(1) == 3).all()
        assert all(bits[token] for bits, token in zip(sets, one.token, strict=True))
    sampler.close()
    server.close()


def test_a_head_that_was_not_pushed_is_noticed(server: EngineServer) -> None:
    """By the prefill after the push, though all other weights are new."""
    sampler = sampler_of(server)
    sampler.load(0, toy_model())
    assert sampler.check.first is not None
    assert sampler.check.first < 1e-5
    server.faults.keeps_head = True
    with pytest.raises(EnvError, match=r"version 1 .*off by .*older output head where it is the embedding"):
        sampler.load(1, toy_model(1))
    assert not server.paused
    sampler.close()


def test_a_small_change_of_the_head_is_noticed_too(server: EngineServer) -> None:
    """The limit follows from how well the engine agreed at first."""
    sampler = sampler_of(server)
    model = toy_model()
    sampler.load(0, model)
    server.faults.keeps_head = True
    with torch.no_grad():
        model.head.add_(0.02 * torch.randn_like(model.head))
    with pytest.raises(EnvError, match=r"may be by 0\.001"):
        sampler.load(1, model)
    sampler.close()


@pytest.mark.parametrize("kind", KINDS)
def test_the_rest_of_a_broken_answer_is_asked_for(server: EngineServer, kind: str) -> None:
    """Every answer comes once; tokens that were heard stay."""
    told: list[str] = []
    sampler = sampler_of(server, kind, tell=told.append)
    sampler.load(0, toy_model())
    server.faults.breaks_after = 5
    server.faults.statuses = [503, 500]
    sampler.submit(REQUESTS)
    drawn = finished(sampler)
    sampler.close()
    assert [(one.key, one.number) for one in drawn] == [(k, n) for k in range(4) for n in range(3)]
    assert any("asked for the rest" in line for line in told)
    assert server.requests > len(REQUESTS)
    for one in drawn:
        assert one.truncated == (one.token[-1] != 0)
        check_logprobs(one, {0: toy_model()}, (2 + one.key, 1))


@pytest.mark.parametrize(
    ("kind", "heeds"),
    [("vllm", True), pytest.param("sglang", True, marks=pytest.mark.slow), ("sglang", False)],
)
def test_a_text_ends_answers_whether_or_not_the_server_heeds_it(kind: str, *, heeds: bool) -> None:
    """Also where the answer broke off in between, and the server was asked for the rest."""
    drawing = Drawing(max_tokens=40, stop=("c", "g"))
    server = EngineServer(toy_model(), drawing if heeds else DRAWING)
    server.faults.breaks_after = 5
    sampler = EngineSampler(make_engine(kind, server.url, timeout_s=60), toy_model(), drawing)
    sampler.load(0, toy_model())
    sampler.submit(REQUESTS)
    drawn = finished(sampler)
    sampler.close()
    server.close()
    assert len(drawn) == 12
    stops = toy_model().tokenizer.encode("cg")
    ended = [one for one in drawn if one.token[-1] in stops]
    assert len(ended) > 3
    assert not any(one.truncated for one in ended)
    assert not any(set(stops) & set(one.token[:-1].tolist()) for one in drawn)
    assert all(one.token[-1] == 0 for one in drawn if one not in ended and not one.truncated)
    for one in drawn:
        check_logprobs(one, {0: toy_model()}, (2 + one.key, 1))


def test_a_server_that_is_started_anew_gets_the_weights_again() -> None:
    """It comes back with those of its own, which are not the run's."""
    first = EngineServer(toy_model(), DRAWING)
    first.faults.slow_s = 0.01
    sampler = sampler_of(first)
    model = toy_model(4)
    sampler.load(2, model)
    sampler.submit(REQUESTS)
    time.sleep(0.1)
    port = first.port
    first.close()
    second = EngineServer(toy_model(), DRAWING, port=port)
    drawn = finished(sampler)
    sampler.close()
    second.close()
    assert second.taken == 1
    assert len(drawn) == 12
    for one in drawn:
        check_logprobs(one, {2: model}, (2 + one.key, 1))


def test_a_server_that_stays_away_is_named(server: EngineServer) -> None:
    """After as long as it may be away."""
    sampler = sampler_of(server, timeout_s=0.5)
    sampler.load(0, toy_model())
    server.faults.slow_s = 0.05
    sampler.submit(REQUESTS)
    server.close()
    with pytest.raises(EnvError, match=rf"vllm \({server.url}\) is away for 0.5 s.*Refused"):
        finished(sampler)
    sampler.close()


def test_one_that_breaks_off_again_and_again_is_named(server: EngineServer) -> None:
    """Not asked for ever."""
    sampler = sampler_of(server, max_failures=2)
    sampler.load(0, toy_model())
    server.faults.statuses = [500] * 50
    sampler.submit(REQUESTS[:1])
    with pytest.raises(EnvError, match=r"broke off 3 times in a row.*answered 500.*told to fail"):
        finished(sampler)
    sampler.close()


def test_a_hung_server_is_asked_again(server: EngineServer) -> None:
    """When it said nothing for too long."""
    told: list[str] = []

    def tell(line: str) -> None:
        told.append(line)
        server.paused = False

    sampler = sampler_of(server, timeout_s=0.3, tell=tell)
    sampler.load(0, toy_model())
    server.paused = True
    sampler.submit(REQUESTS[:1])
    assert len(finished(sampler)) == 3
    sampler.close()
    assert "said nothing for 0.3 s" in told[0]


def test_fewer_logprobs_are_refused(server: EngineServer) -> None:
    """They could not be learned from."""
    sampler = sampler_of(server)
    sampler.load(0, toy_model())
    server.faults.drops_logprobs = True
    sampler.submit(REQUESTS)
    with pytest.raises(EnvError, match="0 log-probabilities for 1 tokens"):
        finished(sampler)
    sampler.close()


def test_tokens_of_another_model_are_refused(server: EngineServer) -> None:
    sampler = sampler_of(server)
    sampler.load(0, toy_model())
    server.faults.adds_to_tokens = 10
    sampler.submit(REQUESTS)
    with pytest.raises(EnvError, match=r"drew token 1\d, and the model has 10: it serves another model"):
        finished(sampler)
    sampler.close()


def test_a_prompt_beyond_its_context_is_refused(server: EngineServer) -> None:
    """Before anything is asked for; shorter ones are cut where the server's context ends."""
    server.max_length = 12
    sampler = sampler_of(server)
    sampler.load(0, toy_model())
    with pytest.raises(ConfigError, match=r"request 0 has 12 tokens, and the engine reads 12 at most"):
        sampler.submit([Request(0, (2,) * 12, (0,))])
    assert sampler.pending == 0
    sampler.close()


def test_a_state_goes_on_with_what_was_drawn(server: EngineServer) -> None:
    """In another sampler, to the token."""
    server.faults.slow_s = 0.005
    sampler = sampler_of(server)
    sampler.load(0, toy_model())
    sampler.submit(REQUESTS)
    early = sampler.poll()
    state = sampler.state()
    begun = {(one.key, one.number): one for one in sampler._book.answers()}
    sampler.close()
    other = sampler_of(server)
    other.load(0, toy_model())
    other.restore(state)
    rest = finished(other)
    other.close()
    assert len(early) + len(rest) == 12
    for one in rest:
        before = begun[one.key, one.number]
        drawn = list(before.token[before.given :])
        assert one.token[: len(drawn)].tolist() == drawn


def test_a_server_that_takes_no_weights_draws_with_its_own(server: EngineServer) -> None:
    """As a model that stays as it is: what it says of tokens is right, and no run trains with it."""
    sampler = sampler_of(server, "openai")
    sampler.submit(REQUESTS)
    for one in finished(sampler):
        check_logprobs(one, {-1: toy_model()}, (2 + one.key, 1))
    token = [2, 1, 4, 5, 0]
    theirs = make_engine("openai", server.url, timeout_s=10).prefill(token, "")
    np.testing.assert_allclose(theirs, prefill_logprobs(toy_model(), token), atol=1e-5)
    with pytest.raises(EnvError, match="takes no weights"):
        sampler.load(0, toy_model())
    sampler.close()


def test_text_is_not_tokenized_again(server: EngineServer) -> None:
    """A server that says no token's number is of no use."""
    server.faults.drops_ids = True
    sampler = sampler_of(server, "openai")
    sampler.submit(REQUESTS[:1])
    with pytest.raises(EnvError, match=r"says no token's number"):
        finished(sampler)
    sampler.close()


@pytest.mark.parametrize(
    ("url", "message"),
    [
        ("localhost:8000", "http://HOST:PORT"),
        ("http://me:secret@localhost:1", "must hold no password"),
        ("http://example.com:8000", "unencrypted"),
    ],
)
def test_addresses_that_cannot_be_meant(url: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        make_engine("vllm", url, timeout_s=1)


def test_no_server(server: EngineServer) -> None:
    """It is said when the run begins."""
    server.close()
    with pytest.raises(EnvError, match=r"no vllm answers.*start it"):
        sampler_of(server)
