"""Takes weights from a file into vLLM while it decodes. This file alone goes to vLLM: it imports nothing of shoal.

vLLM brings weights over CUDA's ways only. This one takes them from a safetensors file, such as one in memory
(/dev/shm), on any device: `--worker-extension-cls shoal_vllm_receiver.Receiver` imports it in every worker, and
`--weight-transfer-config '{"backend": "shoal"}'` chooses it. Tested with vLLM 0.32.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from safetensors import safe_open
from vllm.distributed.weight_transfer.base import (
    WeightTransferEngine,
    WeightTransferInitInfo,
    WeightTransferUpdateInfo,
)
from vllm.distributed.weight_transfer.factory import WeightTransferEngineFactory
from vllm.model_executor.model_loader.reload import (
    finalize_layerwise_reload,
    initialize_layerwise_reload,
)

if TYPE_CHECKING:
    from collections.abc import Iterator

    from torch import Tensor

BACKEND = "shoal"


class Receiver:
    """What a worker is extended by: nothing, but its import registers the transfer below."""


@dataclass
class Beginning(WeightTransferInitInfo):
    """Nothing needs to be agreed on."""


@dataclass
class Weights(WeightTransferUpdateInfo):
    """A version of weights."""

    path: str
    """A safetensors file with transformers' names."""


class FileTransfer(WeightTransferEngine[Beginning, Weights]):
    """Weights from a file, layer by layer, as vLLM reloads them."""

    init_info_cls = Beginning
    update_info_cls = Weights
    supports_draft_weight_update = False

    def init_transfer_engine(self, init_info: Beginning) -> None:
        """Nothing is to be prepared."""

    def start_weight_update(self) -> None:
        """Has every layer collect what it gets."""
        initialize_layerwise_reload(self.model)

    def update_weights(self, update_info: dict[str, Any]) -> None:
        """As the base class does, which waits for an accelerator also where there is none."""
        self.receive_weights(self.parse_update_info(update_info))
        if torch.accelerator.is_available():
            torch.accelerator.synchronize()

    def receive_weights(self, update_info: Weights) -> None:
        """Loads a file."""
        self.model.load_weights(_read(update_info.path))

    def finish_weight_update(self) -> None:
        """Puts every layer together as it computes; an output head that is the embedding too."""
        finalize_layerwise_reload(self.model, self.model_config)
        _pack_tied_head(self.model)

    def shutdown(self) -> None:
        """Nothing is held."""


def _read(path: str) -> Iterator[tuple[str, Tensor]]:
    with safe_open(path, framework="pt") as file:
        for name in file.keys():  # noqa: SIM118 (no mapping)
            yield name, file.get_tensor(name)


def _pack_tied_head(model: torch.nn.Module) -> None:
    """On a CPU a head keeps a packed copy of its weights, which reloading does not renew where they are shared."""
    head: Any = getattr(model, "lm_head", None)
    inner: Any = getattr(model, "model", None)
    embedding: Any = getattr(inner, "embed_tokens", None)
    if head is None or embedding is None or head is embedding:
        return
    if not getattr(model.config, "tie_word_embeddings", False):
        return
    head.weight = embedding.weight
    head.quant_method.process_weights_after_loading(head)


if BACKEND not in WeightTransferEngineFactory._registry:
    WeightTransferEngineFactory.register_engine(BACKEND, FileTransfer)
