"""Conversion of a GGUF file (https://github.com/ggml-org/ggml/blob/master/docs/gguf.md) into a model of shoal's."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from shoal.llm.architecture import Architecture
from shoal.llm.chat import MISSING
from shoal.llm.model import LanguageModel
from shoal.llm.tokenizer import Tokenizer
from shoal.types import ConfigError

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray

OUTER = {
    "token_embd": "model.embed_tokens",
    "output_norm": "model.norm",
    "output": "lm_head",
}
INNER = {
    "attn_norm": "input_layernorm",
    "attn_q": "self_attn.q_proj",
    "attn_k": "self_attn.k_proj",
    "attn_v": "self_attn.v_proj",
    "attn_output": "self_attn.o_proj",
    "ffn_norm": "post_attention_layernorm",
    "ffn_gate": "mlp.gate_proj",
    "ffn_up": "mlp.up_proj",
    "ffn_down": "mlp.down_proj",
}
"""Layers by their names in the file."""
CONTROL = 3
"""The type of tokens that are special."""


def read_gguf(path: Path) -> LanguageModel:
    """The model in a GGUF file of Llama's architecture, its weights made float32.

    Raises:
        ConfigError: the package gguf is not installed, another architecture, or a tokenizer that is not byte-level BPE
            with its digits apart.
    """
    try:
        from gguf import GGUFReader, dequantize
    except ImportError as error:
        raise ConfigError(MISSING.format("gguf")) from error
    reader = GGUFReader(path)
    fields = {name: field.contents() for name, field in reader.fields.items()}
    tied = all(tensor.name != "output.weight" for tensor in reader.tensors)
    architecture = _architecture(fields, path, tied=tied)
    weights: dict[str, torch.Tensor] = {}
    for tensor in reader.tensors:
        name = _name(tensor.name, path)
        value = dequantize(tensor.data, tensor.tensor_type).astype(np.float32)
        if "q_proj" in name:
            value = _halves(value, architecture.num_heads)
        if "k_proj" in name:
            value = _halves(value, architecture.num_kv_heads)
        weights[name] = torch.from_numpy(np.ascontiguousarray(value))
    with torch.device("meta"):
        model = LanguageModel(architecture, _tokenizer(fields, path))
    model.load_state_dict(weights, assign=True)
    return model


def _architecture(fields: dict[str, Any], path: Path, *, tied: bool) -> Architecture:
    if fields["general.architecture"] != "llama":
        raise ConfigError(
            f"{path} is of the architecture {fields['general.architecture']}; only llama is converted"
        )
    heads = fields["llama.attention.head_count"]
    hidden = fields["llama.embedding_length"]
    return Architecture(
        vocab_size=len(fields["tokenizer.ggml.tokens"]),
        hidden_size=hidden,
        intermediate_size=fields["llama.feed_forward_length"],
        num_layers=fields["llama.block_count"],
        num_heads=heads,
        num_kv_heads=fields.get("llama.attention.head_count_kv", heads),
        head_dim=hidden // heads,
        max_length=fields["llama.context_length"],
        rope_theta=float(fields.get("llama.rope.freq_base", 10_000.0)),
        norm_eps=round(fields["llama.attention.layer_norm_rms_epsilon"], 9),
        tied=tied,
    )


def _name(name: str, path: Path) -> str:
    """A tensor's name as transformers has it."""
    parts = name.split(".")
    if len(parts) == 2 and parts[0] in OUTER:
        return f"{OUTER[parts[0]]}.{parts[1]}"
    if len(parts) == 4 and parts[0] == "blk" and parts[2] in INNER:
        return f"model.layers.{parts[1]}.{INNER[parts[2]]}.{parts[3]}"
    raise ConfigError(f"{path} holds {name}, which models here have no place for")


def _halves(weight: NDArray[np.float32], heads: int) -> NDArray[np.float32]:
    """Rows of a projection [heads * d, n] whose rotary pairs stand side by side, with pairs d / 2 apart instead."""
    rows, columns = weight.shape
    pairs = weight.reshape(heads, rows // heads // 2, 2, columns)
    return pairs.swapaxes(1, 2).reshape(rows, columns)


def _tokenizer(fields: dict[str, Any], path: Path) -> Tokenizer:
    from tokenizers import AddedToken, decoders, models, pre_tokenizers
    from tokenizers import Tokenizer as Backend

    kind = (fields["tokenizer.ggml.model"], fields.get("tokenizer.ggml.pre"))
    if kind != ("gpt2", "smollm"):
        raise ConfigError(
            f"{path} has a tokenizer of the kind {kind}; it is not converted"
        )
    tokens = fields["tokenizer.ggml.tokens"]
    merges = [tuple(pair.split(" ", 1)) for pair in fields["tokenizer.ggml.merges"]]
    vocabulary = {token: number for number, token in enumerate(tokens)}
    backend = Backend(models.BPE(vocabulary, merges))
    backend.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Digits(individual_digits=True),
            pre_tokenizers.ByteLevel(add_prefix_space=False),
        ]
    )
    backend.decoder = decoders.ByteLevel()
    types = fields["tokenizer.ggml.token_type"]
    special = [
        AddedToken(token, special=True, normalized=False)
        for token, kind in zip(tokens, types, strict=True)
        if kind == CONTROL
    ]
    backend.add_special_tokens(special)
    named = {"bos": "bos", "eos": "eos", "unknown": "unk", "padding": "pad"}
    ids = {
        short: fields.get(f"tokenizer.ggml.{long}_token_id")
        for long, short in named.items()
    }
    config = {f"{name}_token": tokens[i] for name, i in ids.items() if i is not None}
    return Tokenizer(
        backend,
        end=[fields["tokenizer.ggml.eos_token_id"]],
        chat_template=fields.get("tokenizer.chat_template"),
        config=config,
    )
