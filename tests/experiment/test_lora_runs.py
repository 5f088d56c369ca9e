"""Runs that train a LoRA: what is trained and kept, what samplers and others get, and that resuming loses nothing."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import pytest
import torch
from torch.optim import Adam

import shoal
from shoal.experiment.language import ask_in_chat
from shoal.experiment.pushing import push
from shoal.experiment.talking import Talk, model_of
from shoal.learn.answers import base_logprobs_of, logprobs_of
from shoal.learn.learner import POLICY, Learner
from shoal.llm.lora import Lora, adapted, add_lora, flat_weights, load_lora, merged_weights
from shoal.llm.model_folder import load_folder, save_model
from shoal.llm.sampler.local import LocalSampler
from shoal.llm.sampler.protocol import Drawing, Request
from shoal.llm.settings import Language
from shoal.llm.tasks.task import Message, Prompt
from shoal.run import checkpoint
from shoal.types import ConfigError
from tests.experiment.test_language import BATCH, SETTINGS
from tests.llm.models import make_answer, make_tokenizer
from tests.llm.toy import Successor, toy_model

if TYPE_CHECKING:
    from shoal.experiment.result import Result
    from shoal.llm.model import LanguageModel

LORA = {"lora_rank": 4, "lora_alpha": 8.0}
ANSWER = make_answer([2, 1], [3, 4, 0])


def trained(folder: Path, where: Path, updates: int, language: Any = None, **settings: Any) -> Result:
    """A run of so many batches with a LoRA."""
    whole: dict[str, Any] = SETTINGS | {"total_timesteps": BATCH * updates, "learning_rate": 1e-2} | settings
    return shoal.train(Successor, model=str(folder), run_dir=str(where), language=language or LORA, **whole)


def sha256(model: Any) -> str:
    """Of all weights."""
    parts = (value.numpy().tobytes() for value in model.state_dict().values())
    return hashlib.sha256(b"".join(parts)).hexdigest()


def make_adapted() -> LanguageModel:
    """The toy model with a LoRA that has learned something."""
    model = toy_model()
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(3)
        add_lora(model, Lora(rank=2), name="toy")
        for _, layer in adapted(model):
            torch.nn.init.normal_(layer.lora_b, std=0.3)
    return model


@pytest.fixture(scope="module")
def run(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Result:
    """A run that learned its task."""
    return trained(folder, tmp_path_factory.mktemp("runs"), 40, final_episodes=8)


def test_it_learns_and_leaves_the_base_alone(run: Result, folder: Path) -> None:
    """Only the adapter moved, and it answers better than chance."""
    assert run.greedy_return > 0.4
    base = load_folder(folder).state_dict()
    own: Any = run.policy
    assert all(torch.equal(value, base[name]) for name, value in own.state_dict().items() if name in base)


def test_others_get_the_merged_model(run: Result, folder: Path, tmp_path: Path) -> None:
    """The run's folder, the adapter in it, whoever talks to the run, and a folder that it is pushed to."""
    own: Any = run.policy
    merged = merged_weights(own)
    kept = load_folder(run.path / "model").state_dict()
    assert kept.keys() == merged.keys()
    assert all(torch.equal(kept[name], value) for name, value in merged.items())
    again = load_folder(folder)
    load_lora(again, run.path / "model" / "adapter")
    assert sha256(again) == sha256(own)
    push(str(run.path), str(tmp_path / "pushed"))
    there = load_folder(tmp_path / "pushed").state_dict()
    assert all(torch.equal(there[name], value) for name, value in merged.items())
    assert not (tmp_path / "pushed" / "adapter").exists()
    found = model_of(str(run.path), "runs")
    assert sha256(found) == sha256(own)
    said = [
        "".join(Talk(model, Drawing(max_tokens=3, temperature=0)).answer("a?"))
        for model in (found, load_folder(tmp_path / "pushed"))
    ]
    assert said[0] == said[1]


def test_checkpoints_hold_the_adapter_alone(run: Result) -> None:
    """And the name of what it stands on, by its sha256."""
    found = checkpoint.load(run.path / "checkpoints")
    assert found is not None
    network = found.tree["learner"]["policy"]["networks"]["policy"]
    assert all(name.endswith((".lora_a", ".lora_b")) for name in network["module"] if name != "base_sha256")
    assert len(network["module"]) == 1 + 2 * 7 * 2
    assert len(network["optimizer"]["state"]) == 2 * 7 * 2


EXACT = LORA | {"exact": True, "after_publish": "refill"}
"""A sampler in another process may have begun answers at a checkpoint, which are read anew then."""


@pytest.mark.parametrize(
    ("language", "schedule"),
    [(LORA, {}), pytest.param(EXACT, {"schedule": "async", "max_staleness": 0}, marks=pytest.mark.slow)],
    ids=["sync", "async"],
)
def test_a_resumed_run_equals_one_that_was_not_stopped(
    folder: Path, tmp_path: Path, language: Any, schedule: dict[str, Any]
) -> None:
    """By the bits of its weights, and with a sampler in another process by the same bits."""
    whole = trained(folder, tmp_path / "whole", 8, language=language)
    part = trained(folder, tmp_path / "part", 4, language=language, **schedule)
    again = shoal.resume(part.path, factory=Successor, total_timesteps=8 * BATCH, panel="none")
    assert sha256(again.policy) == sha256(whole.policy)
    assert sha256(part.policy) != sha256(whole.policy)
    assert (again.path / "model" / "model.safetensors").is_file()


def test_another_base_is_refused(tmp_path: Path) -> None:
    """A run goes on beside the weights that it was trained beside, or not at all."""
    save_model(toy_model(), tmp_path / "toy")
    part = trained(tmp_path / "toy", tmp_path, 2)
    save_model(toy_model(seed=1), tmp_path / "toy")
    with pytest.raises(ConfigError, match=r"was trained on other weights than .*toy has now"):
        shoal.resume(part.path, factory=Successor, total_timesteps=4 * BATCH, panel="none")
    (tmp_path / "toy").rename(tmp_path / "elsewhere")
    with pytest.raises(ConfigError, match="which cannot be loaded: there is no model"):
        model_of(str(part.path), "runs")


def test_checkpoints_that_do_not_fit_are_refused() -> None:
    """Each with what would work."""
    model, plain = make_adapted(), toy_model()
    with pytest.raises(ConfigError, match="this model has none; give it the same"):
        plain.load_learned(model.learned_state())
    with pytest.raises(ConfigError, match="holds all weights, and here a LoRA is trained"):
        model.load_learned(plain.learned_state())
    other = toy_model()
    add_lora(other, Lora(rank=3))
    with pytest.raises(ConfigError, match="another LoRA"):
        other.load_learned(model.learned_state())


@pytest.mark.parametrize("optimizer", [Adam, torch.optim.AdamW])
def test_moments_are_the_adapters_alone(optimizer: Any) -> None:
    """And the base is not copied: what is packed is what is trained."""
    model = make_adapted()
    pointers = {name: value.data_ptr() for name, value in model.named_parameters() if not value.requires_grad}
    size = sum(value.numel() for value in model.parameters() if value.requires_grad)
    learner = Learner(model, optimizer, lr=1e-2)
    learner.step(loss_of, ANSWER, None)
    network = learner.networks[POLICY]
    assert len(network.flat) == size
    owned: Any = network.optimizer
    assert sum(state["exp_avg"].numel() for state in owned.state.values()) == size
    assert all(dict(model.named_parameters())[name].data_ptr() == at for name, at in pointers.items())


class Found(NamedTuple):
    """The loss, once more."""

    loss: torch.Tensor


def loss_of(output: Any, batch: Any, cfg: Any) -> tuple[torch.Tensor, Found]:
    """More of the answer."""
    del batch, cfg
    value = -output.logprob.sum()
    return value, Found(value)


def test_samplers_and_learner_agree() -> None:
    """Log-probabilities of answers as they were drawn, and as they are learned, within 1e-5."""
    model = make_adapted()
    for exact in (False, True):
        model.exact = exact
        sampler = LocalSampler(model, Drawing(max_tokens=6), slots=8, seed=1, exact=exact)
        sampler.submit([Request(0, (2, 1), tuple(range(8)))])
        drawn = []
        while sampler.pending:
            drawn += sampler.poll()
        for one in drawn:
            with torch.no_grad():
                now = model(make_answer([2, 1], one.token.tolist())).logprob[0]
            assert torch.allclose(now, torch.from_numpy(one.logprob), atol=0 if exact else 1e-5, rtol=0)
    plain = toy_model()
    torch.nn.utils.vector_to_parameters(flat_weights(model), plain.parameters())
    merged = merged_weights(model)
    assert all(torch.equal(value, merged[name]) for name, value in plain.state_dict().items())


def test_the_reference_is_the_base() -> None:
    """Also of a model that was adapted before: without what was learned, and without a second copy."""
    model = make_adapted()
    learner = Learner(model, Adam, lr=1e-2)
    network = learner.networks[POLICY]
    learner.step(loss_of, ANSWER, None)
    with torch.no_grad():
        of_base, now = toy_model()(ANSWER).logprob, model(ANSWER).logprob
    assert torch.equal(base_logprobs_of(network, ANSWER), of_base)
    assert torch.equal(logprobs_of(network, ANSWER), now)
    assert not torch.allclose(now, of_base, atol=1e-2)


def test_a_run_with_a_divergence_holds_one_model(folder: Path, tmp_path: Path) -> None:
    """It adds no network; a large one keeps the model where it was."""
    free, held = (trained(folder, tmp_path / str(beta), 4, beta=beta) for beta in (1e-9, 100.0))
    found = checkpoint.load(held.path / "checkpoints")
    assert found is not None
    assert set(found.tree["learner"]["policy"]["networks"]) == {"policy"}
    with torch.no_grad():
        base = toy_model()(ANSWER).logprob
        moved = [(one.policy(ANSWER).logprob - base).abs().max() for one in (free, held)]
    assert moved[1] < moved[0]


def test_layers_computed_twice_give_the_same_bits() -> None:
    """And the gradient of each parameter."""
    models = [make_adapted(), make_adapted()]
    models[1].model.recompute = True
    for model in models:
        model(ANSWER).logprob.sum().backward()
    for one, other in zip(*(model.parameters() for model in models), strict=True):
        assert (one.grad is None) == (other.grad is None)
        assert one.grad is None or torch.equal(one.grad, other.grad)


def test_a_run_with_layers_computed_twice(folder: Path, tmp_path: Path) -> None:
    """Has the same weights."""
    runs = [
        trained(folder, tmp_path / str(again), 2, language=LORA | {"checkpoint_activations": again})
        for again in (False, True)
    ]
    assert sha256(runs[0].policy) == sha256(runs[1].policy)


def test_plain_questions_in_a_chat() -> None:
    """By the model's template, after the instruction."""
    tokenizer = make_tokenizer()
    assert tokenizer.decode(tokenizer.encode_prompt(Prompt(0, "2?"))) == "2?"
    ask_in_chat(tokenizer, "auto", "Be brief.")
    asked = [tokenizer.encode_prompt(Prompt(0, question)) for question in ("2?", (Message("user", "2?"),))]
    rendered = tokenizer.render([Message("system", "Be brief."), Message("user", "2?")])
    assert asked == [tokenizer.encode(rendered)] * 2
    own = (Message("system", "Mine."), Message("user", "2?"))
    assert tokenizer.encode_prompt(Prompt(0, own)) == tokenizer.encode(tokenizer.render(own))
    ask_in_chat(tokenizer, "off", "")
    assert tokenizer.encode_prompt(Prompt(0, "2?")) == tokenizer.encode("2?")
    bare = make_tokenizer(None)
    ask_in_chat(bare, "auto", "")
    assert bare.encode_prompt(Prompt(0, "2?")) == bare.encode("2?")
    for chat, system in (("on", ""), ("auto", "Be brief.")):
        with pytest.raises(ConfigError, match="no chat template"):
            ask_in_chat(bare, chat, system)


def model_is_there(run: Any, record: Any) -> None:
    """In the run's directory, from its beginning on."""
    del record
    assert (run.directory.model / "adapter" / "adapter_config.json").is_file()


def test_a_run_begins_with_the_lora_of_another(run: Result, folder: Path, tmp_path: Path) -> None:
    """As it was, and its model is found while it is under way; all weights are not taken for a LoRA."""
    own: Any = run.policy
    again = trained(folder, tmp_path, 1, init_from=str(run.path), learning_rate=1e-12, callbacks=[model_is_there])
    for value, before in zip(again.policy.state_dict().values(), own.state_dict().values(), strict=True):
        torch.testing.assert_close(value, before, rtol=0, atol=1e-9)  # one step, at the least rate there is
    whole = trained(folder, tmp_path, 1, language={"slots": 32})
    with pytest.raises(ConfigError, match="holds all weights, and here a LoRA is trained"):
        trained(folder, tmp_path, 1, init_from=str(whole.path))


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"lora_alpha": 8.0}, "all weights are trained; set language.lora_rank"),
        ({"lora_rank": -1}, "lora_rank must be"),
        ({"lora_rank": 2, "lora_alpha": 0.0}, "lora_alpha must be above 0"),
        ({"system": "Be brief."}, "no chat template"),
        ({"chat": "off", "system": "Be brief."}, "chat is off"),
    ],
)
def test_what_does_not_fit_is_refused(folder: Path, tmp_path: Path, settings: dict[str, Any], said: str) -> None:
    """In words, and no directory is left."""
    with pytest.raises(ConfigError, match=said):
        trained(folder, tmp_path, 1, language=settings)
    assert not list(tmp_path.glob("**/config.toml"))


def test_a_lora_begins_with_the_runs_seed(folder: Path, tmp_path: Path) -> None:
    """Equal seeds, equal matrices; they are no other run's."""
    one, again, other = (trained(folder, tmp_path / str(k), 1, seed=s) for k, s in enumerate((1, 1, 2)))
    assert sha256(one.policy) == sha256(again.policy) != sha256(other.policy)
    assert Language().lora_rank == 0
