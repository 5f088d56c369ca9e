"""Architecture: the sizes of a causal language model, as transformers writes them into config.json."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from shoal.types import ConfigError

if TYPE_CHECKING:
    from collections.abc import Mapping

FAMILIES = {
    "llama": {},
    "mistral": {},
    "qwen2": {"attention_bias": True},
    "qwen3": {"qk_norm": True},
    "qwen3_moe": {"qk_norm": True},
}
"""Models whose layers are the same but for what is said here, by transformers' `model_type`."""
MIXTURES = ("qwen3_moe",)
"""Those whose feed-forward layers are mixtures of experts."""
MOST_EXPERTS = 2**15 - 1
"""A routing holds their numbers in 16 bits."""

SIZES = (
    "vocab_size",
    "hidden_size",
    "intermediate_size",
    "num_hidden_layers",
    "num_attention_heads",
    "num_key_value_heads",
    "head_dim",
    "max_position_embeddings",
    "num_experts",
    "num_local_experts",
    "num_experts_per_tok",
    "moe_intermediate_size",
)
"""Whole numbers above 0 in a config.json."""
MOST, MOST_SIZE = {"num_hidden_layers": 2_000, "max_position_embeddings": 2**31}, 2**24
"""What such a number may be at most: layers, and positions, and each of the others."""
NUMBERS = ("rope_theta", "rms_norm_eps")
"""And numbers above 0."""


@dataclass(frozen=True, slots=True)
class Architecture:
    """A decoder of the Llama family: RMS norms, rotary positions, grouped queries, gated feed-forward layers."""

    vocab_size: int
    hidden_size: int
    intermediate_size: int
    num_layers: int
    num_heads: int
    num_kv_heads: int
    head_dim: int
    max_length: int
    """Positions: tokens of prompt and answer together."""
    rope_theta: float = 10_000.0
    norm_eps: float = 1e-5
    tied: bool = True
    """Whether the output head is the embedding."""
    attention_bias: bool = False
    """Of the projections to queries, keys and values."""
    qk_norm: bool = False
    """Whether queries and keys are normalized, head by head."""
    model_type: str = "llama"
    num_experts: int = 0
    """Of each layer; 0: it has one feed-forward network for all tokens."""
    experts_per_token: int = 0
    expert_size: int = 0
    """Units of an expert, which are `intermediate_size` of a layer without experts."""
    normalize_experts: bool = False
    """Whether the shares of a token's experts sum to 1."""

    @classmethod
    def of_transformers(cls, config: Mapping[str, Any], where: str) -> Architecture:
        """From a config.json.

        Args:
            config: the file, read.
            where: how messages call the model.

        Raises:
            ConfigError: another family, or a part that shoal's model does not have.
        """
        family = config.get("model_type")
        if family not in FAMILIES:
            raise ConfigError(
                f"{where} is a model of type {family!r}; shoal trains those of {', '.join(FAMILIES)}"
            )
        _refuse_kinds(config, where)
        _refuse_variants(config, where)
        heads = config["num_attention_heads"]
        rope = config.get("rope_parameters") or {}
        bias = FAMILIES[family].get("attention_bias", False)
        theta = rope.get("rope_theta", config.get("rope_theta", 10_000.0))
        return cls(
            vocab_size=config["vocab_size"],
            hidden_size=config["hidden_size"],
            intermediate_size=config["intermediate_size"],
            num_layers=config["num_hidden_layers"],
            num_heads=heads,
            num_kv_heads=config.get("num_key_value_heads") or heads,
            head_dim=config.get("head_dim") or config["hidden_size"] // heads,
            max_length=config["max_position_embeddings"],
            rope_theta=float(theta),
            norm_eps=config.get("rms_norm_eps", 1e-6),
            tied=config.get("tie_word_embeddings", False),
            attention_bias=bias,
            qk_norm=FAMILIES[family].get("qk_norm", False),
            model_type=family,
            **_experts(config, where),
        )

    def to_transformers(self) -> dict[str, Any]:
        """The config.json of this model."""
        name = {
            "llama": "LlamaForCausalLM",
            "mistral": "MistralForCausalLM",
            "qwen2": "Qwen2ForCausalLM",
            "qwen3": "Qwen3ForCausalLM",
            "qwen3_moe": "Qwen3MoeForCausalLM",
        }[self.model_type]
        experts: dict[str, Any] = {}
        if self.num_experts:
            experts = {
                "num_experts": self.num_experts,
                "num_experts_per_tok": self.experts_per_token,
                "moe_intermediate_size": self.expert_size,
                "norm_topk_prob": self.normalize_experts,
                "decoder_sparse_step": 1,
                "mlp_only_layers": [],
            }
        return experts | {
            "architectures": [name],
            "model_type": self.model_type,
            "vocab_size": self.vocab_size,
            "hidden_size": self.hidden_size,
            "intermediate_size": self.intermediate_size,
            "num_hidden_layers": self.num_layers,
            "num_attention_heads": self.num_heads,
            "num_key_value_heads": self.num_kv_heads,
            "head_dim": self.head_dim,
            "max_position_embeddings": self.max_length,
            "rope_theta": self.rope_theta,
            "rms_norm_eps": self.norm_eps,
            "tie_word_embeddings": self.tied,
            "hidden_act": "silu",
            "dtype": "float32",
            "sliding_window": None,  # some families have one unless it is denied
        }


def _refuse_kinds(config: Mapping[str, Any], where: str) -> None:
    """ConfigError for a size that is no number above 0; what is left out is looked for elsewhere."""
    rope = config.get("rope_parameters")
    if rope is not None and not isinstance(rope, dict):
        raise ConfigError(f"{where}: rope_parameters in its config.json is no object")
    given = {**config, **(rope or {})}
    for name in (*SIZES, *NUMBERS):
        size = given.get(name)
        number = isinstance(size, int if name in SIZES else int | float)
        if size is not None and (not number or isinstance(size, bool) or not size > 0):
            kind = "whole number" if name in SIZES else "number"
            raise ConfigError(
                f"{where}: {name}={size!r} in its config.json is no {kind} above 0"
            )
        if name in SIZES and size is not None and size > MOST.get(name, MOST_SIZE):
            raise ConfigError(
                f"{where}: {name}={size} in its config.json is more than any model has"
            )


def _experts(config: Mapping[str, Any], where: str) -> dict[str, Any]:
    """What a config.json says of experts; ConfigError where only some layers have them."""
    if config["model_type"] not in MIXTURES:
        return {}
    if config.get("decoder_sparse_step", 1) != 1 or config.get("mlp_only_layers"):
        raise ConfigError(
            f"{where}: a mixture of experts in some layers only is not supported (decoder_sparse_step, mlp_only_layers)"
        )
    each = config["num_experts_per_tok"]
    # transformers 5 writes the latter, models from before have the former
    experts = config.get("num_experts") or config["num_local_experts"]
    if not 1 <= each <= experts <= MOST_EXPERTS:
        raise ConfigError(
            f"{where}: {each} of {experts} experts for each token (num_experts_per_tok, num_experts) cannot be; there "
            f"are at least as many as a token has, and {MOST_EXPERTS:,} at most"
        )
    return {
        "num_experts": experts,
        "experts_per_token": each,
        "expert_size": config["moe_intermediate_size"],
        "normalize_experts": bool(config.get("norm_topk_prob", False)),
    }


def _refuse_variants(config: Mapping[str, Any], where: str) -> None:
    """ConfigError for a part of the model that is not computed here."""
    rope = config.get("rope_parameters") or config.get("rope_scaling") or {}
    kind = rope.get("rope_type", rope.get("type", "default"))
    if kind != "default":
        raise ConfigError(
            f"{where}: rotary positions of type {kind!r} are not supported, only those without scaling"
        )
    if config.get("hidden_act", "silu") != "silu":
        raise ConfigError(
            f"{where}: hidden_act={config['hidden_act']!r} is not supported, only silu"
        )
    sliding = config.get("use_sliding_window", config.get("model_type") == "mistral")
    window = config.get("sliding_window")
    if sliding and window and window < config["max_position_embeddings"]:
        raise ConfigError(
            f"{where}: attention within a sliding window is not supported"
        )
    if config.get("attention_bias") or config.get("mlp_bias"):
        raise ConfigError(
            f"{where}: biases of the attention's or the feed-forward layers' output are not supported"
        )
