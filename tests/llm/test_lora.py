"""LoRA: what is trained, that merging changes nothing, and the files that peft reads."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from shoal.llm.lora import Lora, LoraLinear, adapted, add_lora, load_lora, merge_lora, merged_weights, save_lora
from shoal.llm.model import LanguageModel
from shoal.types import ConfigError
from tests.llm.models import make_answer, make_model

ANSWER = make_answer([5, 9, 200], [7, 7, 31, 0])


def chosen(model: LanguageModel) -> torch.Tensor:
    with torch.no_grad():
        return model(ANSWER).logprob


def make_adapted(lora: Lora | None = None, **changed: Any) -> LanguageModel:
    """A model whose adapter has learned something."""
    model = make_model(**changed)
    add_lora(model, lora or Lora(rank=2))
    with torch.no_grad():
        for _, layer in adapted(model):
            layer.lora_b.normal_(std=0.3)
    return model


def test_of_a_layer_by_hand() -> None:
    layer = torch.nn.Linear(2, 1)
    with torch.no_grad():
        layer.weight.copy_(torch.tensor([[1.0, 2.0]]))
        layer.bias.fill_(0.5)
    lora = LoraLinear(layer, Lora(rank=1, alpha=3.0))
    x = torch.tensor([[10.0, 100.0]])
    assert lora(x).item() == 210.5
    with torch.no_grad():
        lora.lora_a.copy_(torch.tensor([[1.0, -1.0]]))
        lora.lora_b.fill_(2.0)
    assert lora(x).item() == 210.5 + 3 * 2 * (10 - 100)
    assert lora.merged.tolist() == [[1 + 6, 2 - 6]]


def test_only_the_adapter_is_trained() -> None:
    model = make_model()
    before, weights = chosen(model), {name: value.clone() for name, value in model.state_dict().items()}
    add_lora(model, Lora(rank=2, layers=("q_proj", "v_proj")))
    assert torch.equal(chosen(model), before)
    trained = {name for name, value in model.named_parameters() if value.requires_grad}
    assert len(trained) == 2 * 2 * 2
    assert all(name.endswith(("_proj.lora_a", "_proj.lora_b")) for name in trained)
    optimizer = torch.optim.SGD([value for value in model.parameters() if value.requires_grad], lr=1.0)
    model(ANSWER).logprob.sum().neg().backward()
    optimizer.step()
    assert chosen(model).sum() > before.sum()
    now = model.state_dict()
    assert all(torch.equal(now[name], value) for name, value in weights.items())


@pytest.mark.parametrize("family", ["llama", "qwen2"])
def test_merging_changes_nothing(family: str) -> None:
    model = make_adapted(attention_bias=family == "qwen2", model_type=family)
    before, weights = chosen(model), merged_weights(model)
    plain = make_model(1, attention_bias=family == "qwen2", model_type=family)
    plain.load_state_dict(weights)
    assert torch.allclose(chosen(plain), before, atol=1e-5)
    merge_lora(model)
    assert list(adapted(model)) == []
    assert list(model.state_dict()) == list(make_model(attention_bias=family == "qwen2").state_dict())
    assert all(torch.equal(value, weights[name]) for name, value in model.state_dict().items())
    assert all(value.requires_grad for value in model.parameters())


def test_saved_and_loaded(tmp_path: Path) -> None:
    model = make_adapted(Lora(rank=2, alpha=5.0, layers=("q_proj", "down_proj")))
    save_lora(model, tmp_path / "adapter", "base")
    again = make_model()
    load_lora(again, tmp_path / "adapter")
    assert torch.equal(chosen(again), chosen(model))


def test_refused(tmp_path: Path) -> None:
    model = make_adapted()
    save_lora(model, tmp_path / "adapter", "base")
    with pytest.raises(ConfigError, match="already"):
        add_lora(model, Lora())
    with pytest.raises(ConfigError, match="no LoRA to save"):
        save_lora(make_model(), tmp_path / "none", "base")
    with pytest.raises(ConfigError, match="holds no adapter"):
        load_lora(make_model(), tmp_path)
    other = make_model(num_layers=1)
    before = chosen(other)
    with pytest.raises(ConfigError, match="for another model"):
        load_lora(other, tmp_path / "adapter")
    assert torch.equal(chosen(other), before)
    path = tmp_path / "adapter" / "adapter_config.json"
    config = json.loads(path.read_text())
    for changed, message in (
        ({"use_dora": True}, "use_dora"),
        ({"peft_type": "IA3"}, "IA3"),
        ({"bias": "all"}, "bias"),
        ({"r": None}, "r of the adapter in .* must be a whole number from 1 to 4096, got None"),
        ({"r": 10**9}, "r of the adapter in .* must be a whole number from 1 to 4096"),
        ({"lora_alpha": "x"}, "lora_alpha of the adapter in .* must be a finite number"),
        ({"target_modules": None}, "does not list its target_modules: it has None"),
        ({"target_modules": [3]}, "does not list its target_modules"),
    ):
        path.write_text(json.dumps(config | changed))
        with pytest.raises(ConfigError, match=message):
            load_lora(make_model(), tmp_path / "adapter")
    path.write_text("[" * 100_000)
    with pytest.raises(ConfigError, match="is not JSON: it is nested too deep"):
        load_lora(make_model(), tmp_path / "adapter")
    path.write_text(json.dumps(config))
    weights = path.with_name("adapter_model.safetensors")
    weights.write_bytes(weights.read_bytes()[:-9])
    with pytest.raises(ConfigError, match="is not a whole safetensors file"):
        load_lora(make_model(), tmp_path / "adapter")
    with pytest.raises(ConfigError, match="rank"):
        Lora(rank=0)
    with pytest.raises(ConfigError, match="lm_head"):
        Lora(layers=("lm_head",))
