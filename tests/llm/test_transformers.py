"""Beside transformers: the same folders give the same logits, tokens and chats, in both directions."""

from pathlib import Path
from typing import Any

import pytest
import torch

from shoal.llm.loading import load_model, save_model
from shoal.llm.model import LanguageModel
from shoal.llm.tasks.task import Message
from shoal.types import ConfigError
from tests.llm.models import CHATML, TEXTS, WITH_SYSTEM, make_answer, make_backend, make_model

pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning")]
FAMILIES = {
    "llama": ("LlamaConfig", "LlamaForCausalLM"),
    "mistral": ("MistralConfig", "MistralForCausalLM"),
    "qwen2": ("Qwen2Config", "Qwen2ForCausalLM"),
    "qwen3": ("Qwen3Config", "Qwen3ForCausalLM"),
    "qwen3_moe": ("Qwen3MoeConfig", "Qwen3MoeForCausalLM"),
}
EXPERTS = {"num_experts": 5, "num_experts_per_tok": 2, "moe_intermediate_size": 24, "norm_topk_prob": True}
CHATS = (
    (Message("user", "What is 1 + 1?"),),
    (Message("system", "Be brief. "), Message("user", " <b>Hi</b>"), Message("assistant", "Hi"), Message("user", "é?")),
    (Message("user", "Add."), Message("tool", "3"), Message("assistant", "3")),
)


def make_theirs(family: str, *, tied: bool) -> Any:
    import transformers

    config, model = (getattr(transformers, name) for name in FAMILIES[family])
    torch.manual_seed(1)
    return model(
        config(
            vocab_size=304,
            hidden_size=32,
            intermediate_size=48,
            num_hidden_layers=2,
            num_attention_heads=4,
            num_key_value_heads=2,
            head_dim=8,
            max_position_embeddings=64,
            tie_word_embeddings=tied,
            initializer_range=0.2,
            eos_token_id=0,
            rope_parameters={"rope_type": "default", "rope_theta": 5000.0},
            **{"sliding_window": None} if family == "mistral" else {},
            **EXPERTS if family == "qwen3_moe" else {},
        )
    ).eval()


def make_their_tokenizer(template: str) -> Any:
    import transformers

    return transformers.PreTrainedTokenizerFast(
        tokenizer_object=make_backend(), eos_token="<|im_end|>", bos_token="<s>", chat_template=template
    )


def compare(ours: LanguageModel, theirs: Any) -> None:
    prompt, answer = [5, 9, 200, 41], [7, 7, 31, 0]
    with torch.no_grad():
        logits = theirs(torch.tensor([prompt + answer])).logits[0]
        expected = logits[3:-1].log_softmax(-1).gather(1, torch.tensor(answer)[:, None])[:, 0]
        found = ours(make_answer(prompt, answer)).logprob[0]
    assert torch.allclose(found, expected, atol=1e-5)


def compare_tokenizers(ours: Any, theirs: Any) -> None:
    for text in TEXTS:
        assert ours.encode(text) == theirs.encode(text, add_special_tokens=False)
        assert ours.decode([*ours.encode(text), 0]) == text
        assert theirs.decode([*ours.encode(text), 0], skip_special_tokens=True) == text
    assert list(ours.end) == [theirs.eos_token_id]


@pytest.mark.parametrize("tied", [True, False])
@pytest.mark.parametrize("family", FAMILIES)
def test_what_transformers_wrote_is_read(tmp_path: Path, family: str, *, tied: bool) -> None:
    theirs, tokenizer = make_theirs(family, tied=tied), make_their_tokenizer(CHATML)
    theirs.save_pretrained(tmp_path, max_shard_size="40KB" if tied else "5GB")
    tokenizer.save_pretrained(tmp_path)
    ours = load_model(tmp_path)
    compare(ours, theirs)
    compare_tokenizers(ours.tokenizer, tokenizer)


@pytest.mark.parametrize("family", FAMILIES)
def test_transformers_reads_what_is_written(tmp_path: Path, family: str) -> None:
    import transformers

    bias, norm = family == "qwen2", family in ("qwen3", "qwen3_moe")
    experts: dict[str, Any] = {}
    if family == "qwen3_moe":
        experts = {"num_experts": 5, "experts_per_token": 2, "expert_size": 24, "normalize_experts": True}
    ours = make_model(
        model_type=family, attention_bias=bias, qk_norm=norm, tied=not bias, rope_theta=700.0, norm_eps=1e-4, **experts
    )
    save_model(ours, tmp_path / "model")
    theirs = transformers.AutoModelForCausalLM.from_pretrained(tmp_path / "model")
    assert theirs.dtype == torch.float32
    assert theirs.generation_config.eos_token_id == [0]
    compare(ours, theirs.eval())
    tokenizer = transformers.AutoTokenizer.from_pretrained(tmp_path / "model")
    compare_tokenizers(ours.tokenizer, tokenizer)
    assert ours.tokenizer.render(CHATS[1]) == render_theirs(tokenizer, CHATS[1])


def render_theirs(tokenizer: Any, chat: tuple[Message, ...]) -> str:
    turns = [{"role": one.role, "content": one.content} for one in chat]
    return tokenizer.apply_chat_template(turns, tokenize=False, add_generation_prompt=True)


@pytest.mark.parametrize("template", [CHATML, WITH_SYSTEM])
@pytest.mark.parametrize("chat", CHATS)
def test_chats(tmp_path: Path, template: str, chat: tuple[Message, ...]) -> None:
    theirs = make_their_tokenizer(template)
    make_theirs("llama", tied=True).save_pretrained(tmp_path)
    theirs.save_pretrained(tmp_path)
    ours = load_model(tmp_path).tokenizer
    text = ours.render(chat)
    assert text == render_theirs(theirs, chat)
    assert ours.encode(text) == theirs.encode(text, add_special_tokens=False)


def test_templates_that_fail(tmp_path: Path) -> None:
    tokenizer = make_model().tokenizer
    for template, message in (
        ("{{ raise_exception('only one turn') }}", "refuses the task's chat: only one turn"),
        ("{{ messages[9].role }}", "UndefinedError"),
        ("{% for %}", "TemplateSyntaxError"),
        ("{{ ''.__class__.__mro__ }}", "SecurityError"),
        (None, "no chat template"),
    ):
        tokenizer.chat_template = template
        with pytest.raises(ConfigError, match=message):
            tokenizer.render(CHATS[0])
