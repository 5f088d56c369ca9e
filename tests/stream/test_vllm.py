"""vLLM itself, in an environment of its own (`python benchmarks/peers/setup_peers.py vllm`): weights pushed into it."""

from __future__ import annotations

import os
import signal
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import torch

import shoal
from shoal.llm.engines import PACKAGE, launching
from shoal.llm.engines.launching import RECEIVER, LaunchedVllm
from shoal.llm.engines.registry import make_engine
from shoal.llm.model_folder import load_folder, save_model
from shoal.llm.sampler.protocol import Drawing, Request
from shoal.run.log import read
from shoal.stream.groups.engine import EngineSampler
from shoal.types import EnvError
from tests.llm.models import make_answer, make_model
from tests.llm.toy import Successor, toy_tokenizer

if TYPE_CHECKING:
    from collections.abc import Generator

    from shoal.llm.model import LanguageModel
    from shoal.llm.sampler.protocol import Drawn

PYTHON = Path(__file__).parents[2] / "benchmarks" / "peers" / ".venvs" / "vllm" / "bin" / "python"
OPTIONS = ("--enforce-eager", "--max-num-seqs", "32")
SIZES: dict[str, Any] = {"hidden_size": 64, "num_heads": 2, "num_kv_heads": 1, "head_dim": 32}
"""Heads of 32 are the smallest that vLLM has on a CPU."""
DRAWING = Drawing(max_tokens=40)
PROMPT = (5, 17, 40)

pytestmark = [
    pytest.mark.peers,
    pytest.mark.timeout(900),
    pytest.mark.skipif(not PYTHON.exists(), reason="python benchmarks/peers/setup_peers.py vllm"),
]


def small_model(seed: int = 0) -> LanguageModel:
    return make_model(seed, **SIZES)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """It is started with weights that nobody pushes."""
    path = tmp_path_factory.mktemp("models") / "served"
    save_model(small_model(99), path)
    return path


@pytest.fixture(scope="module")
def server(folder: Path) -> Generator[LaunchedVllm]:
    made = LaunchedVllm(folder, python=str(PYTHON), options=OPTIONS)
    yield made
    made.close()


def sampler_of(server: LaunchedVllm, drawing: Drawing = DRAWING) -> EngineSampler:
    engine = make_engine("vllm", server.url, timeout_s=60)
    return EngineSampler(engine, small_model(), drawing, revive=server.revive)


def finished(sampler: EngineSampler) -> list[Drawn]:
    found: list[Drawn] = []
    while sampler.pending:
        found += sampler.poll()
    return found


def check_logprobs(drawn: Drawn, model: LanguageModel) -> None:
    with torch.no_grad():
        theirs = model(make_answer(list(PROMPT), drawn.token.tolist())).logprob[0].numpy()
    np.testing.assert_allclose(drawn.logprob, theirs, atol=1e-4)


def test_it_draws_with_the_weights_that_it_was_given(server: LaunchedVllm) -> None:
    """Version after version, a head that is the embedding included."""
    sampler = sampler_of(server)
    for version in range(3):
        model = small_model(version)
        sampler.load(version, model)
        assert sampler.check.last < 1e-4
        sampler.submit([Request(version, PROMPT, tuple(range(4)))])
        for drawn in finished(sampler):
            assert set(drawn.version.tolist()) == {version}
            check_logprobs(drawn, model)
    sampler.close()


def test_weights_change_while_it_draws(server: LaunchedVllm) -> None:
    """Answers go on; it says which tokens are whose, and no answer is lost."""
    sampler = sampler_of(server, Drawing(max_tokens=60))
    sampler.load(0, small_model())
    sampler.submit([Request(key, PROMPT, tuple(range(8))) for key in range(12)])
    found = sampler.poll()
    for version in range(1, 4):
        sampler.load(version, small_model(version))
        found += sampler.poll(0)
    found += finished(sampler)
    sampler.close()
    assert len({(one.key, one.number) for one in found}) == len(found) == 96
    assert any(len(set(one.version.tolist())) > 1 for one in found)
    assert all((np.diff(one.version) >= 0).all() for one in found)
    for one in found:
        if set(one.version.tolist()) == {0}:
            check_logprobs(one, small_model())


def test_the_sets_of_top_k_are_known(server: LaunchedVllm) -> None:
    """And log-probabilities are within them."""
    sampler = sampler_of(server, Drawing(max_tokens=10, top_k=5, top_p=0.9))
    sampler.load(0, small_model())
    sampler.submit([Request(0, PROMPT, (0, 1))])
    for one in finished(sampler):
        assert one.kept is not None
        sets = np.unpackbits(one.kept, axis=1, bitorder="little").sum(1)
        assert ((sets >= 1) & (sets <= 5)).all()
    sampler.close()


def test_texts_end_answers(server: LaunchedVllm) -> None:
    """At the token that completes one, which stays; it is told of them, and they are looked for here too."""
    tokenizer, stops = small_model().tokenizer, ("e", "a", "th")
    sampler = sampler_of(server, Drawing(max_tokens=40, stop=stops))
    sampler.load(0, small_model())
    sampler.submit([Request(key, PROMPT, tuple(range(8))) for key in range(4)])
    found = finished(sampler)
    sampler.close()
    assert len(found) == 32
    for one in found:
        text, before = (tokenizer.decode(part.tolist()) for part in (one.token, one.token[:-1]))
        assert not any(stop in before for stop in stops)
        ended = any(stop in text for stop in stops)
        assert one.truncated == (not ended and one.token[-1] not in tokenizer.end)
        check_logprobs(one, small_model())
    assert sum(not one.truncated for one in found) > 8


def test_one_that_is_killed_is_started_again(server: LaunchedVllm) -> None:
    """With the weights of the run, and the tokens that it had drawn."""
    sampler = sampler_of(server, Drawing(max_tokens=60))
    model = small_model(7)
    sampler.load(3, model)
    sampler.submit([Request(key, PROMPT, tuple(range(8))) for key in range(12)])
    early = sampler.poll()
    os.killpg(server.pid, signal.SIGKILL)
    found = early + finished(sampler)
    sampler.close()
    assert len({(one.key, one.number) for one in found}) == len(found) == 96
    for one in found:
        assert set(one.version.tolist()) == {3}
        check_logprobs(one, model)


def test_a_model_is_trained_with_it(folder: Path, tmp_path: Path) -> None:
    """From the command's settings alone; weights are pushed while it draws, and the loss sees which drew what."""
    model = load_folder(folder)
    model.tokenizer = toy_tokenizer()
    save_model(model, tmp_path / "model")
    result = shoal.train(
        Successor,
        algo="grpo",
        model=str(tmp_path / "model"),
        schedule="async",
        max_staleness=2,
        num_prompts=4,
        num_generations=6,
        max_completion_length=8,
        total_timesteps=24 * 12,
        run_dir=str(tmp_path),
        panel="none",
        final_episodes=0,
        language={"engine": "vllm", "engine_python": str(PYTHON), "engine_options": " ".join(OPTIONS)},
    )
    lines = read(result.path / "metrics.jsonl")
    assert 0 < max(line["groups/staleness_max"] for line in lines) <= 2
    assert result.steps == 24 * 12


def test_a_head_that_it_keeps_is_noticed(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As vLLM does on a CPU, where the head is the embedding and nobody packs it anew."""
    source = (PACKAGE / "vllm_receiver.py").read_text(encoding="utf-8")
    line = "        _pack_tied_head(self.model)\n"
    assert line in source
    (tmp_path / "vllm_receiver.py").write_text(source.replace(line, ""), encoding="utf-8")
    monkeypatch.setattr(launching, "PACKAGE", tmp_path)
    server = LaunchedVllm(folder, python=str(PYTHON), options=OPTIONS)
    assert line not in (server.folder / f"{RECEIVER}.py").read_text(encoding="utf-8")
    try:
        sampler = sampler_of(server)
        with pytest.raises(EnvError, match="older output head where it is the embedding"):
            sampler.load(0, small_model())
        sampler.close()
    finally:
        server.close()
