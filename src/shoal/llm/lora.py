"""LoRA: a model that is trained through small matrices beside its own (Hu et al. 2021, arXiv 2106.09685).

Files have the layout of peft, whose import takes seconds and which is not needed here.
"""

from __future__ import annotations

import hashlib
import json
import math
import re
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, cast

import torch
from torch import nn
from torch.nn import functional as F

from shoal.llm.files import JSON_BYTES, drafted_folder
from shoal.types import ConfigError
from shoal.types.arguments import number_of, shown, whole_of
from shoal.types.files import read_object

if TYPE_CHECKING:
    from collections.abc import Generator, Iterator
    from pathlib import Path

    from torch import Tensor

    from shoal.llm.model import LanguageModel

CONFIG, WEIGHTS = "adapter_config.json", "adapter_model.safetensors"
FOLDER = "adapter"
"""Of the adapter, in the folder of a model into which it was merged."""
PREFIX = "base_model.model."
"""What peft puts before every name."""
LINEAR = (
    "q_proj",
    "k_proj",
    "v_proj",
    "o_proj",
    "gate_proj",
    "up_proj",
    "down_proj",
)
"""Layers that can be adapted, by the end of their names."""
ATTENTION = LINEAR[:4]
MOST_RANK = 4_096
"""Of an adapter that is read; more than this is no small matrix."""
LEARNED = (".lora_a", ".lora_b")
"""How the names of an adapter's own parameters end."""


@dataclass(frozen=True, slots=True)
class Lora:
    """Which layers are adapted, and by how much."""

    rank: int = 8
    alpha: float = 16.0
    """The product of both matrices counts alpha / rank times."""
    layers: tuple[str, ...] = LINEAR

    def __post_init__(self) -> None:
        """Refuses what cannot work."""
        if self.rank < 1:
            raise ConfigError(f"a LoRA's rank must be at least 1, got {self.rank}")
        unknown = [name for name in self.layers if name not in LINEAR]
        if unknown or not self.layers:
            raise ConfigError(
                f"a LoRA adapts some of {', '.join(LINEAR)}, got {', '.join(unknown) or 'none'}"
            )


@dataclass(frozen=True, slots=True)
class Base:
    """The model beneath a LoRA, whose weights stay as they are."""

    name: str
    """As `load_model` finds it again; empty where nobody said."""
    sha256: str
    """Of its weights, by `digest`."""


class LoraLinear(nn.Linear):
    """x W^T + bias + alpha / rank x A^T B^T; only A and B are trained."""

    active = True
    """Whether B A counts; else the layer is what it was before it was adapted."""

    def __init__(self, layer: nn.Linear, lora: Lora) -> None:
        """Adapts a layer, whose parameters it keeps; B is 0, so that nothing changes yet."""
        super().__init__(
            layer.in_features, layer.out_features, bias=False, device="meta"
        )
        self.weight, self.bias = layer.weight, layer.bias
        self.requires_grad_(False)  # noqa: FBT003 (torch's)
        self.scale = lora.alpha / lora.rank
        new = self.weight.new_empty
        self.lora_a = nn.Parameter(new(lora.rank, layer.in_features))
        self.lora_b = nn.Parameter(new(layer.out_features, lora.rank).zero_())
        nn.init.kaiming_uniform_(self.lora_a, a=math.sqrt(5))

    def forward(self, input: Tensor) -> Tensor:
        """[..., in_features] to [..., out_features]."""
        if not self.active:
            return super().forward(input)
        added = F.linear(F.linear(input, self.lora_a), self.lora_b)
        return super().forward(input) + self.scale * added

    @property
    def merged(self) -> Tensor:
        """W + alpha / rank B A."""
        return self.weight + self.scale * (self.lora_b @ self.lora_a)


def add_lora(model: LanguageModel, lora: Lora, *, name: str = "") -> None:
    """Adapts a model in place; its other parameters are frozen. A is drawn from torch's generator.

    Args:
        model: whose linear layers are adapted.
        lora: which, and by how much.
        name: what `load_model` finds the model by, as it is now.

    Raises:
        ConfigError: it is adapted already.
    """
    if any(True for _ in adapted(model)):
        raise ConfigError("the model has a LoRA already; merge that first (merge_lora)")
    own = [name for name in lora.layers if name not in ATTENTION]
    if model.architecture.num_experts and own:
        raise ConfigError(
            f"a LoRA of experts ({', '.join(own)}) is not supported, as peft has no layers for each; adapt the "
            "attention: language.lora_layers=attention"
        )
    model.base = Base(name, digest(model))
    model.requires_grad_(False)  # noqa: FBT003 (torch's)
    chosen = [
        (name, layer)
        for name, layer in model.named_modules()
        if isinstance(layer, nn.Linear) and name.rpartition(".")[2] in lora.layers
    ]
    for name, layer in chosen:
        _put(model, name, LoraLinear(layer, lora))


def adapted(model: nn.Module) -> Iterator[tuple[str, LoraLinear]]:
    """The adapted layers by their names."""
    for name, layer in model.named_modules():
        if isinstance(layer, LoraLinear):
            yield name, layer


@torch.no_grad()
def merged_weights(model: LanguageModel) -> dict[str, Tensor]:
    """The model's parameters with what was learned added, under the names of a model without LoRA.

    Only those that differ are new copies.
    """
    weights = {
        name: value
        for name, value in model.state_dict().items()
        if not name.endswith(LEARNED)
    }
    return weights | {f"{name}.weight": layer.merged for name, layer in adapted(model)}


def weight_of(layer: nn.Linear) -> Tensor:
    """What a linear layer multiplies by [out_features, in_features], with what was learned beside it."""
    return layer.merged if isinstance(layer, LoraLinear) else layer.weight


@torch.no_grad()
def flat_weights(model: LanguageModel) -> Tensor:
    """A new flat copy of the merged weights, on the CPU, in the order in which a model without LoRA packs its own."""
    layers = {f"{name}.weight": layer for name, layer in adapted(model)}
    own = {
        name: value
        for name, value in model.named_parameters()
        if not name.endswith(LEARNED)
    }
    flat = torch.empty(
        sum(value.numel() for value in own.values()), dtype=model.head.dtype
    )
    first = 0
    for (
        name,
        value,
    ) in (
        own.items()
    ):  # one layer after another: merged ones are not all in memory at once
        merged = layers[name].merged if name in layers else value
        flat[first : first + value.numel()].copy_(merged.reshape(-1))
        first += value.numel()
    return flat


@torch.no_grad()
def digest(model: LanguageModel) -> str:
    """The sha256 of a model's own weights, by their names; an adapter is left out."""
    found = hashlib.sha256()
    for name, value in sorted(model.state_dict().items()):
        if not name.endswith(LEARNED):
            found.update(f"{name} {list(value.shape)} {value.dtype}".encode())
            plain = value.detach().cpu().contiguous().reshape(-1)
            found.update(plain.view(torch.uint8).numpy())
    return found.hexdigest()


@contextmanager
def without_lora(model: LanguageModel) -> Generator[None]:
    """The model as it was before it was adapted, within."""
    layers = [layer for _, layer in adapted(model)]
    for layer in layers:
        layer.active = False
    try:
        yield
    finally:
        for layer in layers:
            layer.active = True


def merge_lora(model: LanguageModel) -> None:
    """Adds what was learned to the model's own weights, in place; all of them are trained from then on."""
    merge_layers(model)
    model.base = None
    model.requires_grad_(True)  # noqa: FBT003 (torch's)


def merge_layers(module: nn.Module) -> None:
    """Puts plain layers, with what was learned, in the place of those that are adapted."""
    for name, layer in list(adapted(module)):
        plain = nn.Linear(
            layer.in_features, layer.out_features, bias=False, device="meta"
        )
        plain.weight = nn.Parameter(layer.merged.detach())
        plain.bias = layer.bias
        _put(module, name, plain)


def save_lora(model: LanguageModel, folder: Path, base: str) -> None:
    """Writes the adapter alone, as peft reads it; a crash leaves what was there, or the new one.

    Args:
        model: adapted.
        folder: an adapter that stands there is replaced.
        base: what the model without it is called, for readers.

    Raises:
        ConfigError: the model has no LoRA.
    """
    from safetensors.torch import save_file

    layers = dict(adapted(model))
    if not layers:
        raise ConfigError("the model has no LoRA to save")
    rank = len(next(iter(layers.values())).lora_a)
    config: dict[str, Any] = {
        "peft_type": "LORA",
        "task_type": "CAUSAL_LM",
        "base_model_name_or_path": base,
        "r": rank,
        "lora_alpha": next(iter(layers.values())).scale * rank,
        "lora_dropout": 0.0,
        "bias": "none",
        "fan_in_fan_out": False,
        "inference_mode": True,
        "target_modules": sorted({name.rpartition(".")[2] for name in layers}),
    }
    weights: dict[str, Tensor] = {}
    for name, layer in layers.items():
        weights[f"{PREFIX}{name}.lora_A.weight"] = layer.lora_a.detach().contiguous()
        weights[f"{PREFIX}{name}.lora_B.weight"] = layer.lora_b.detach().contiguous()
    with drafted_folder(folder) as draft:
        text = json.dumps(config, indent=2) + "\n"
        (draft / CONFIG).write_text(text, encoding="utf-8")
        save_file(weights, draft / WEIGHTS, metadata={"format": "pt"})


def load_lora(model: LanguageModel, folder: Path) -> None:
    """Adapts a model by what `save_lora` or peft wrote.

    Raises:
        ConfigError: there is no adapter, it is of another kind or for another model.
    """
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    config = _config(folder)
    lora = _read(config, folder)
    try:
        given = load_file(folder / WEIGHTS)
    except SafetensorError as error:
        raise ConfigError(
            f"{folder / WEIGHTS} is not a whole safetensors file: {error}"
        ) from error
    add_lora(model, lora, name=config.get("base_model_name_or_path") or "")
    wanted: dict[str, nn.Parameter] = {}
    for name, layer in adapted(model):
        wanted[f"{PREFIX}{name}.lora_A.weight"] = layer.lora_a
        wanted[f"{PREFIX}{name}.lora_B.weight"] = layer.lora_b
    shapes = [
        {name: tuple(value.shape) for name, value in some.items()}
        for some in (wanted, given)
    ]
    if shapes[0] != shapes[1]:
        merge_lora(model)  # B is 0 still
        odd = sorted(dict(shapes[0].items() ^ shapes[1].items()))
        raise ConfigError(
            f"the adapter in {folder} is for another model: {odd[0]} differs"
        )
    with torch.no_grad():
        for name, parameter in wanted.items():
            parameter.copy_(given[name])


def base_of(folder: Path) -> str:
    """What the model beneath an adapter is called; ConfigError where there is no adapter."""
    return _config(folder).get("base_model_name_or_path") or ""


def _config(folder: Path) -> dict[str, Any]:
    if not (folder / CONFIG).is_file() or not (folder / WEIGHTS).is_file():
        raise ConfigError(f"{folder} holds no adapter: {CONFIG} and {WEIGHTS}")
    return read_object(folder / CONFIG, at_most=JSON_BYTES)


def _read(config: dict[str, Any], folder: Path) -> Lora:
    """The settings of an adapter; variants that compute something else are refused."""
    variants = ("use_dora", "use_rslora", "modules_to_save", "fan_in_fan_out")
    odd = [name for name in variants if config.get(name)]
    odd += [name for name in ("rank_pattern", "alpha_pattern") if config.get(name)]
    odd += ["bias"] if config.get("bias", "none") != "none" else []
    if config.get("peft_type") != "LORA" or odd:
        what = ", ".join(odd) or f"peft_type {config.get('peft_type')}"
        raise ConfigError(f"the adapter in {folder} is no plain LoRA: {what}")
    layers = config.get("target_modules")
    if isinstance(layers, str):
        layers = [name for name in LINEAR if re.search(name, layers)]
    if not isinstance(layers, list) or not all(
        isinstance(name, str) for name in cast("list[object]", layers)
    ):
        raise ConfigError(
            f"the adapter in {folder} does not list its target_modules: it has {shown(layers)}"
        )
    named = cast("list[str]", layers)
    ends = {name.rpartition(".")[2] for name in named}  # peft may list every layer
    rank = whole_of(f"r of the adapter in {folder}", config.get("r"), 1, MOST_RANK)
    alpha = number_of(
        f"lora_alpha of the adapter in {folder}", config.get("lora_alpha"), 0.0, 1e6
    )
    return Lora(rank, alpha, tuple(sorted(ends)))


def _put(model: nn.Module, name: str, layer: nn.Linear) -> None:
    parent, _, own = name.rpartition(".")
    setattr(model.get_submodule(parent), own, layer)
