"""LanguageModel: a causal transformer whose parameters are called as transformers calls them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, cast

import torch
from torch import nn
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint

from shoal.llm.exact import exact_hidden
from shoal.llm.feed_forward import Experts, FeedForward
from shoal.llm.layout import laid_out
from shoal.llm.logprobs import chosen_logprobs
from shoal.llm.lora import without_lora
from shoal.llm.rotary import rotated, rotations
from shoal.types import ConfigError

if TYPE_CHECKING:
    from collections.abc import Mapping
    from contextlib import AbstractContextManager

    from torch import Tensor

    from shoal.llm.architecture import Architecture
    from shoal.llm.layout import Laid
    from shoal.llm.lora import Base
    from shoal.llm.tokenizer import Tokenizer
    from shoal.types import Answers


BASE = "base_sha256"
"""In a checkpoint: of the weights beneath a LoRA."""


@dataclass(frozen=True, slots=True)
class TokenOutput:
    """What a model says of the answers of a batch, [S, L] each, as `Answers` has them; 0 where `mask` is false."""

    logprob: Tensor
    """Log-probability of each token, within what was kept, at the sampler's temperature."""
    entropy: Tensor
    """Of the distribution that it was drawn from, in nats; no gradient goes through it."""


class LanguageModel(nn.Module):
    """A decoder of the Llama family with its tokenizer; the policy of a run on a task.

    Its layers may be mixtures of experts, see `feed_forward.py`.
    Equations: Touvron et al. 2023, arXiv 2302.13971; rotary positions: Su et al. 2021, arXiv 2104.09864.
    """

    def __init__(
        self,
        architecture: Architecture,
        tokenizer: Tokenizer,
        temperature: float = 1.0,
        *,
        exact: bool = False,
    ) -> None:
        """A model with weights drawn from torch's generator.

        Args:
            architecture: its sizes.
            tokenizer: turns text into tokens and back.
            temperature: what logits are divided by when answers are drawn, and therefore when they are learned.
            exact: whether log-probabilities have the same bits however answers are put together, and as an exact
                sampler records them; slower.
        """
        super().__init__()
        self.architecture, self.tokenizer = architecture, tokenizer
        self.temperature, self.exact = temperature, exact
        self.base: Base | None = None
        """What is beneath a LoRA, where that is trained in the place of all weights."""
        self.origin = ""
        """The folder that it was loaded from."""
        self.model = Decoder(architecture)
        if not architecture.tied:
            self.lm_head = nn.Linear(
                architecture.hidden_size, architecture.vocab_size, bias=False
            )
        self.apply(_drawn)

    @property
    def head(self) -> Tensor:
        """The output head [vocab_size, hidden_size]."""
        if self.architecture.tied:
            return self.model.embed_tokens.weight
        return self.lm_head.weight

    @property
    def part_trained(self) -> bool:
        """Whether only an adapter is trained."""
        return self.base is not None

    @property
    def steps_natively(self) -> bool:
        """Whether native code takes the optimizer's steps, where it has the optimizer."""
        return not self.part_trained

    @property
    def shard_units(self) -> list[nn.Module]:
        """What is put together at a time, where the model lies in parts on several ranks."""
        return list(self.model.layers)

    def as_base(self) -> AbstractContextManager[None]:
        """The model as it was before it was adapted, within: what a divergence from it is computed with."""
        return without_lora(self)

    def learned_state(self) -> dict[str, Any]:
        """What a checkpoint holds: all weights, or those of the adapter, and which model it is for."""
        if self.base is None:
            return self.state_dict()
        own = {n: p.detach() for n, p in self.named_parameters() if p.requires_grad}
        return {BASE: self.base.sha256, **own}

    def load_learned(self, saved: Mapping[str, Any]) -> None:
        """Copies a `learned_state` in.

        Raises:
            ConfigError: it holds an adapter for another model, another adapter, or none where one is trained.
            RuntimeError: other weights, as of `load_state_dict`.
        """
        found = saved.get(BASE)
        if self.base is None and found is None:
            self.load_state_dict(saved)
            return
        if self.base is None:
            raise ConfigError(
                "the checkpoint holds a LoRA alone, and this model has none; give it the same language.lora_rank, or "
                "`shoal push` that run into a folder, and name that as the model"
            )
        name = self.base.name or "this model"
        if found is None:
            raise ConfigError(
                "the checkpoint holds all weights, and here a LoRA is trained; `shoal push` that run into a folder, "
                "and name that as the model"
            )
        if found != self.base.sha256:
            raise ConfigError(
                f"the checkpoint's LoRA was trained on other weights than {name} has now (sha256 {found[:12]}..., now "
                f"{self.base.sha256[:12]}...); put the old ones back, or train again"
            )
        own = {n: p for n, p in self.named_parameters() if p.requires_grad}
        for name, shape in sorted(_shapes(own).items() ^ _shapes(saved).items()):
            raise ConfigError(
                f"the checkpoint holds another LoRA: {name} {list(shape)} is in one of them only; keep "
                "language.lora_rank and language.lora_layers as they were"
            )
        with torch.no_grad():
            for parameter, value in own.items():
                value.copy_(saved[parameter])

    def initial_state(self, rows: int) -> None:
        """A language model remembers nothing from one answer to the next."""
        del rows

    def forward(self, batch: Answers) -> TokenOutput:
        """What the model says of every token of the answers; what they have said alike is read once."""
        laid = laid_out(batch)
        hidden = exact_hidden(self.model, laid) if self.exact else self.model(laid)
        logprob, entropy = chosen_logprobs(
            hidden.index_select(0, laid.source),
            self.head,
            laid.target,
            laid.kept,
            self.temperature,
            exact=self.exact,
        )
        shape = batch.mask.shape
        return TokenOutput(
            laid.spread(logprob, shape), laid.spread(entropy.detach(), shape)
        )


class Decoder(nn.Module):
    """Embedding, layers and the last norm."""

    def __init__(self, a: Architecture) -> None:
        super().__init__()
        self.architecture = a
        self.embed_tokens = nn.Embedding(a.vocab_size, a.hidden_size)
        self.layers = nn.ModuleList(Layer(a) for _ in range(a.num_layers))
        self.norm = RMSNorm(a.hidden_size, a.norm_eps)
        self.recompute = False
        """Whether layers are computed again for the gradient, in place of keeping what they computed."""
        self.replay = False
        """Whether tokens go to the experts that they went to when they were drawn, where that is known."""

    def forward(self, laid: Laid) -> Tensor:
        """The last hidden state of every token [N, hidden_size]."""
        x = self.embed_tokens(laid.token)
        angles = rotations(laid.position, self.architecture)
        again = self.recompute and torch.is_grad_enabled()
        for number, layer in enumerate(self.layers):
            routing = None
            if self.replay and laid.routing is not None:
                routing = laid.routing[:, number]
            given = x, angles, laid, routing
            if again:
                x = cast("Tensor", checkpoint(layer, *given, use_reentrant=False))
            else:
                x = layer(*given)
        return self.norm(x)


class Layer(nn.Module):
    """Attention and a gated feed-forward layer, each after a norm and added to what came in."""

    def __init__(self, a: Architecture) -> None:
        super().__init__()
        self.input_layernorm = RMSNorm(a.hidden_size, a.norm_eps)
        self.self_attn = Attention(a)
        self.post_attention_layernorm = RMSNorm(a.hidden_size, a.norm_eps)
        self.mlp = (
            Experts(a)
            if a.num_experts
            else FeedForward(a.hidden_size, a.intermediate_size)
        )

    def forward(
        self,
        x: Tensor,
        angles: tuple[Tensor, Tensor],
        laid: Laid,
        routing: Tensor | None = None,
    ) -> Tensor:
        """[N, hidden_size] to the same; `routing`: the experts that are taken [N, experts_per_token]."""
        x = x + self.self_attn(self.input_layernorm(x), angles, laid)
        return x + self.mlp(self.post_attention_layernorm(x), routing)


class Attention(nn.Module):
    """Grouped queries with rotary positions."""

    def __init__(self, a: Architecture) -> None:
        super().__init__()
        self.architecture = a
        inner, shared = a.num_heads * a.head_dim, a.num_kv_heads * a.head_dim
        bias = a.attention_bias
        self.q_proj = nn.Linear(a.hidden_size, inner, bias=bias)
        self.k_proj = nn.Linear(a.hidden_size, shared, bias=bias)
        self.v_proj = nn.Linear(a.hidden_size, shared, bias=bias)
        self.o_proj = nn.Linear(inner, a.hidden_size, bias=False)
        if a.qk_norm:
            self.q_norm = RMSNorm(a.head_dim, a.norm_eps)
            self.k_norm = RMSNorm(a.head_dim, a.norm_eps)

    def forward(self, x: Tensor, angles: tuple[Tensor, Tensor], laid: Laid) -> Tensor:
        """[N, hidden_size] to the same; tokens see those before them in their own answer and its prompt."""
        a = self.architecture
        q = self.q_proj(x).view(-1, a.num_heads, a.head_dim)
        k = self.k_proj(x).view(-1, a.num_kv_heads, a.head_dim)
        v = self.v_proj(x).view(-1, a.num_kv_heads, a.head_dim)
        if a.qk_norm:
            q, k = self.q_norm(q), self.k_norm(k)
        q, k = rotated(q, angles), rotated(k, angles)
        return self.o_proj(laid.attend(q, k, v))


class RMSNorm(nn.Module):
    """x / sqrt(mean(x^2) + eps) * weight over the last axis."""

    def __init__(self, size: int, eps: float) -> None:
        super().__init__()
        self.weight, self.eps = nn.Parameter(torch.ones(size)), eps

    def forward(self, x: Tensor) -> Tensor:
        """The same shape."""
        return F.rms_norm(x, self.weight.shape, self.weight, self.eps)


def _shapes(saved: Mapping[str, Any]) -> dict[str, tuple[int, ...]]:
    return {name: tuple(x.shape) for name, x in saved.items() if name != BASE}


def _drawn(layer: nn.Module) -> None:
    """Normal weights of deviation 0.02, biases 0."""
    if isinstance(layer, nn.Linear | nn.Embedding):
        nn.init.normal_(layer.weight, std=0.02)
        bias: Any = getattr(layer, "bias", None)
        if bias is not None:
            nn.init.zeros_(bias)
