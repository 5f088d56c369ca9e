"""Models as folders: what transformers writes is read, what is written transformers reads, and what is refused."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from shoal.llm.files import drafted_folder
from shoal.llm.loading import load_model, save_model
from shoal.llm.model import LanguageModel
from shoal.llm.model_folder import load_unweighted
from shoal.types import ConfigError
from tests.llm.models import make_answer, make_folder, make_model

WEIGHTS = "model.safetensors"


def change(path: Path, **changed: Any) -> None:
    path.write_text(json.dumps(json.loads(path.read_text()) | changed))


def chosen(model: LanguageModel) -> torch.Tensor:
    with torch.no_grad():
        return model(make_answer([5, 9, 200], [7, 7, 31, 0])).logprob


@pytest.mark.parametrize("tied", [True, False])
def test_saved_and_loaded(tmp_path: Path, *, tied: bool) -> None:
    model = make_model(tied=tied)
    with torch.no_grad():  # strides that a copy of the bytes would get wrong
        weight = model.get_parameter("model.layers.0.self_attn.q_proj.weight")
        weight.data = weight.detach().T.contiguous().T
    save_model(model, tmp_path / "model")
    save_model(model, tmp_path / "model")  # replaces itself
    assert [path.name for path in tmp_path.iterdir()] == ["model"]
    again = load_model(tmp_path / "model")
    assert all(torch.equal(value, again.state_dict()[name]) for name, value in model.state_dict().items())
    assert all(value.requires_grad for value in again.parameters())
    assert torch.equal(chosen(model), chosen(again))
    assert (again.tokenizer.end, again.tokenizer.chat_template) == (model.tokenizer.end, model.tokenizer.chat_template)
    assert again.architecture == model.architecture


def test_nothing_is_seen_of_a_model_that_could_not_be_saved(tmp_path: Path) -> None:
    folder = make_folder(tmp_path / "model")
    before = (folder / WEIGHTS).read_bytes()

    def write() -> None:
        with drafted_folder(folder) as draft:
            (draft / WEIGHTS).write_bytes(b"half")
            raise OSError("full")

    with pytest.raises(OSError, match="full"):
        write()
    assert [path.name for path in tmp_path.iterdir()] == ["model"]
    assert (folder / WEIGHTS).read_bytes() == before


def test_other_folders_are_not_overwritten(tmp_path: Path) -> None:
    (tmp_path / "thesis.txt").write_text("years of work")
    with pytest.raises(ConfigError, match="is no model"):
        save_model(make_model(), tmp_path)


def split(folder: Path) -> None:
    weights = load_file(folder / WEIGHTS)
    names = sorted(weights)
    parts = {"one.safetensors": names[::2], "two.safetensors": names[1::2]}
    for file, held in parts.items():
        save_file({name: weights[name] for name in held}, folder / file)
    index = {name: file for file, held in parts.items() for name in held}
    (folder / f"{WEIGHTS}.index.json").write_text(json.dumps({"weight_map": index}))
    (folder / WEIGHTS).unlink()


def test_shards_and_other_dtypes(tmp_path: Path) -> None:
    folder = make_folder(tmp_path / "model")
    expected = chosen(load_model(folder))
    split(folder)
    assert torch.equal(chosen(load_model(folder)), expected)
    (folder / "two.safetensors").unlink()
    with pytest.raises(ConfigError, match=r"lacks two\.safetensors"):
        load_model(folder)
    make_folder(folder)
    weights = {name: value.bfloat16() for name, value in load_file(folder / WEIGHTS).items()}
    save_file(weights, folder / WEIGHTS)
    loaded = load_model(folder)
    assert all(value.dtype == torch.float32 for value in loaded.parameters())
    assert torch.allclose(chosen(loaded), expected, atol=0.1)


def put(folder: Path, name: str, value: torch.Tensor | None) -> None:
    weights = load_file(folder / WEIGHTS)
    weights.pop(name, None)
    save_file(weights if value is None else weights | {name: value}, folder / WEIGHTS)


NORM = "model.norm.weight"
REFUSED = {
    "has no config.json": lambda folder: (folder / "config.json").unlink(),
    "is not JSON": lambda folder: (folder / "config.json").write_text("{"),
    "must hold an object": lambda folder: (folder / "config.json").write_text("[]"),
    "config.json is not JSON: it is nested too deep": lambda folder: (folder / "config.json").write_text("[" * 100_000),
    "tokenizer_config.json is not JSON": lambda folder: (folder / "tokenizer_config.json").write_text("{"),
    "generation_config.json must hold": lambda folder: (folder / "generation_config.json").write_text("[]"),
    "num_hidden_layers=1000000000 in its config.json is more than any model has": lambda folder: change(
        folder / "config.json", num_hidden_layers=10**9
    ),
    "hidden_size=1000000000 in its": lambda folder: change(folder / "config.json", hidden_size=10**9),
    "type 'gpt2'": lambda folder: change(folder / "config.json", model_type="gpt2"),
    "quantized": lambda folder: change(folder / "config.json", quantization_config={}),
    "does not say .num_attention_heads.": lambda folder: (folder / "config.json").write_text('{"model_type": "llama"}'),
    r"tokens up to 2\d\d, but .* 99 only": lambda folder: change(folder / "config.json", vocab_size=99),
    "end with token 300": lambda folder: change(folder / "generation_config.json", eos_token_id=[0, 300]),
    r"has no tokenizer\.json": lambda folder: (folder / "tokenizer.json").unlink(),
    "is not a tokenizer": lambda folder: (folder / "tokenizer.json").write_text("{}"),
    "has no weights": lambda folder: (folder / WEIGHTS).unlink(),
    "which is unpickled": lambda folder: (folder / WEIGHTS).rename(folder / "pytorch_model.bin"),
    "not a whole safetensors": lambda folder: (folder / WEIGHTS).write_bytes((folder / WEIGHTS).read_bytes()[:-9]),
    rf"lack {NORM};": lambda folder: put(folder, NORM, None),
    r"lack .*q_norm.* and \d+ more": lambda folder: change(
        folder / "config.json", model_type="qwen3", num_hidden_layers=4
    ),
    "hold more, which": lambda folder: put(folder, "more", torch.ones(1)),
    r"shape \(3,\).*asks for \(32,\)": lambda folder: put(folder, NORM, torch.ones(3)),
    "int64": lambda folder: put(folder, NORM, torch.ones(32, dtype=torch.int64)),
    r"num_hidden_layers='2' in .* whole number": lambda folder: change(folder / "config.json", num_hidden_layers="2"),
    "num_key_value_heads=-2 in": lambda folder: change(folder / "config.json", num_key_value_heads=-2),
    r"rope_theta=\[\] in .* no number above 0": lambda folder: change(folder / "config.json", rope_theta=[]),
    "within a sliding window": lambda folder: change(
        folder / "config.json", model_type="mistral", sliding_window=8, max_position_embeddings=9
    ),
    "differs from the embedding": lambda folder: put(folder, "lm_head.weight", torch.ones(300, 32)),
}


@pytest.mark.parametrize("message", REFUSED)
def test_broken_folders_are_refused(tmp_path: Path, message: str) -> None:
    folder = make_folder(tmp_path / "model")
    REFUSED[message](folder)
    with pytest.raises(ConfigError, match=message):
        load_model(folder)


def test_a_description_that_no_memory_holds_is_refused(tmp_path: Path) -> None:
    """Of a run's model whose weights come from elsewhere, before anything is allocated: 2**24 x 2**24 x 3 x 4 bytes."""
    folder = make_folder(tmp_path / "model")
    change(folder / "config.json", hidden_size=2**24, intermediate_size=2**24)
    with pytest.raises(ConfigError, match=r"the weights that .*config.json describes need .* GiB of memory"):
        load_unweighted(folder)


def test_a_head_that_is_the_embedding_may_be_written_too(tmp_path: Path) -> None:
    folder = make_folder(tmp_path / "model")
    expected = chosen(load_model(folder))
    put(folder, "lm_head.weight", load_file(folder / WEIGHTS)["model.embed_tokens.weight"])
    put(folder, "model.layers.0.self_attn.rotary_emb.inv_freq", torch.ones(4))
    assert torch.equal(chosen(load_model(folder)), expected)


def test_names_that_are_no_model() -> None:
    with pytest.raises(ConfigError, match="neither tiny nor smollm2 nor a folder"):
        load_model("Qwen/Qwen3-0.6B")
    with pytest.raises(ConfigError, match="made for a task"):
        load_model("tiny")


@pytest.mark.slow
def test_transformers_stays_out(tmp_path: Path) -> None:
    program = (
        "import sys; from shoal.llm.loading import load_model; load_model(sys.argv[1]); "
        "sys.exit('transformers' in sys.modules)"
    )
    command = [sys.executable, "-c", program, str(make_folder(tmp_path / "model"))]
    assert subprocess.run(command, check=False).returncode == 0
