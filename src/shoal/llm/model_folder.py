"""Folders of models in the layout of transformers: config.json, safetensors, the tokenizer's files."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from shoal.llm.architecture import Architecture
from shoal.llm.chat import MISSING
from shoal.llm.files import JSON_BYTES, drafted_folder
from shoal.llm.lora import FOLDER as ADAPTER
from shoal.llm.lora import merged_weights, save_lora
from shoal.llm.model import LanguageModel
from shoal.llm.tokenizer import Tokenizer
from shoal.types import ConfigError, check_room
from shoal.types.files import read_object

if TYPE_CHECKING:
    from collections.abc import Mapping

    from torch import Tensor

CONFIG, WEIGHTS, INDEX = (
    "config.json",
    "model.safetensors",
    "model.safetensors.index.json",
)
HEAD = "lm_head.weight"
IGNORED = "rotary_emb.inv_freq"
"""A table that old files hold and that is computed."""
NAMED = 5
"""Names that a message lists at most."""


def load_folder(
    folder: Path, *, temperature: float = 1.0, dtype: torch.dtype = torch.float32
) -> LanguageModel:
    """The model in a folder that transformers' `save_pretrained`, or `save_model`, wrote.

    Args:
        folder: with config.json, model.safetensors or its shards, and tokenizer.json.
        temperature: what the model's logits are divided by, where answers are drawn and learned.
        dtype: of the parameters, whatever the files hold.

    Raises:
        ConfigError: a file is missing or broken, another family of models, weights that do not fit, or a tokenizer that
            does not belong to the model.
    """
    config = _read(folder / CONFIG)
    if "quantization_config" in config:
        raise ConfigError(
            f"{folder} holds a quantized model, which cannot be trained; take its original in safetensors"
        )
    with torch.device("meta"):
        model = _described(folder, config, temperature)
    weights = _weights(folder, dtype)
    _check_weights(weights, model, folder)
    model.load_state_dict(weights, assign=True)
    model.origin = str(folder.resolve())
    return model


def load_unweighted(folder: Path) -> LanguageModel:
    """A model as a folder describes it, whose weights come from elsewhere; errors as of `load_folder`."""
    config = _read(folder / CONFIG)
    with torch.device("meta"):
        sketch = _described(folder, config, 1.0)
    nbytes = sum(x.nbytes for x in sketch.state_dict().values())
    check_room(
        nbytes, f"the weights that {folder / CONFIG} describes", "use another model"
    )
    return _described(folder, config, 1.0)


def _described(
    folder: Path, config: Mapping[str, Any], temperature: float
) -> LanguageModel:
    try:
        architecture = Architecture.of_transformers(config, str(folder))
    except KeyError as error:
        raise ConfigError(f"{folder / CONFIG} does not say {error}") from error
    tokenizer = Tokenizer.of_folder(folder)
    _check_tokenizer(tokenizer, architecture, folder)
    return LanguageModel(architecture, tokenizer, temperature)


def save_model(
    model: LanguageModel, folder: Path, *, weights: bool = True, adapter: bool = False
) -> None:
    """Writes a model so that transformers, and `load_folder`, read it; a crash leaves what was there, or the new model.

    What a LoRA has learned is merged into the weights.

    Args:
        model: its parameters keep their dtype.
        folder: a model that stands there is replaced.
        weights: whether they are written too.
        adapter: whether a LoRA, where there is one, is written into `adapter/` there too, as peft reads it.

    Raises:
        ConfigError: the folder holds something else than a model.
    """
    empty = folder.is_dir() and not any(folder.iterdir())
    if folder.exists() and not empty and not (folder / CONFIG).is_file():
        raise ConfigError(
            f"{folder} is there and is no model; a model is saved into a folder of its own"
        )
    from safetensors.torch import save_file

    config = model.architecture.to_transformers()
    end = list(model.tokenizer.end)
    config["eos_token_id"] = end[0] if len(end) == 1 else end
    config["dtype"] = str(model.head.dtype).removeprefix("torch.")
    held = {
        name: value.detach().cpu().contiguous()
        for name, value in (merged_weights(model) if weights else {}).items()
    }
    with drafted_folder(folder) as draft:
        text = json.dumps(config, indent=2) + "\n"
        (draft / CONFIG).write_text(text, encoding="utf-8")
        if weights:
            save_file(held, draft / WEIGHTS, metadata={"format": "pt"})
        model.tokenizer.save(draft)
        if adapter and model.base is not None:
            save_lora(model, draft / ADAPTER, model.base.name)


def _weights(folder: Path, dtype: torch.dtype) -> dict[str, Tensor]:
    """Every tensor of a folder, in memory of its own."""
    try:
        from safetensors import SafetensorError, safe_open
    except ImportError as error:
        raise ConfigError(MISSING.format("safetensors")) from error
    weights: dict[str, Tensor] = {}
    for path in _weight_files(folder):
        try:
            with safe_open(path, framework="pt") as file:
                for name in file.keys():  # noqa: SIM118 (it is no dict)
                    weights[name] = _floating(file.get_tensor(name), name, path, dtype)
        except SafetensorError as error:
            raise ConfigError(
                f"{path} is not a whole safetensors file: {error}"
            ) from error
    return weights


def _floating(value: Tensor, name: str, path: Path, dtype: torch.dtype) -> Tensor:
    if value.dtype not in (torch.float32, torch.bfloat16, torch.float16, torch.float64):
        raise ConfigError(
            f"{path}: {name} is of dtype {value.dtype}, which cannot be trained; take the model's original weights"
        )
    return value.to(dtype, copy=True)


def _weight_files(folder: Path) -> list[Path]:
    if (folder / INDEX).is_file():
        index = _read(folder / INDEX).get("weight_map")
        if not isinstance(index, dict):
            raise ConfigError(f"{folder / INDEX} has no weight_map")
        names = sorted({Path(str(name)).name for name in index.values()})
        missing = [name for name in names if not (folder / name).is_file()]
        if missing:
            raise ConfigError(
                f"{folder} lacks {_listed(missing)}, which {INDEX} names; the download was not finished"
            )
        return [folder / name for name in names]
    if (folder / WEIGHTS).is_file():
        return [folder / WEIGHTS]
    pickled = [*folder.glob("*.bin"), *folder.glob("*.pt*"), *folder.glob("*.ckpt")]
    if pickled:
        raise ConfigError(
            f"{folder} holds its weights in {pickled[0].name}, which is unpickled, and so can run anything, when it is "
            f"read; shoal does not. Save it as {WEIGHTS}: transformers' save_pretrained does"
        )
    raise ConfigError(f"{folder} has no weights: neither {WEIGHTS} nor {INDEX}")


def _check_weights(
    weights: dict[str, Tensor], model: LanguageModel, folder: Path
) -> None:
    """Drops what models of this layout do not need, and refuses what differs in names or shapes."""
    wanted = dict(model.state_dict())
    for name in [name for name in weights if name.endswith(IGNORED)]:
        del weights[name]
    head = weights.get(HEAD)
    if model.architecture.tied and head is not None:
        del weights[HEAD]
        if not torch.equal(head, weights.get("model.embed_tokens.weight", head)):
            raise ConfigError(
                f"{folder}: {HEAD} differs from the embedding, but {CONFIG} says that they are one "
                "(tie_word_embeddings); set it to false"
            )
    missing, extra = sorted(wanted.keys() - weights), sorted(weights.keys() - wanted)
    if missing or extra:
        parts = [f"lack {_listed(missing)}"] if missing else []
        parts += [f"hold {_listed(extra)}, which it has no place for"] if extra else []
        raise ConfigError(
            f"the weights in {folder} {' and '.join(parts)}; {CONFIG} describes another model"
        )
    for name, value in weights.items():
        shape = tuple(wanted[name].shape)
        if tuple(value.shape) != shape:
            raise ConfigError(
                f"{folder}: {name} has the shape {tuple(value.shape)}, but {CONFIG} asks for {shape}"
            )


def _check_tokenizer(
    tokenizer: Tokenizer, architecture: Architecture, folder: Path
) -> None:
    size = architecture.vocab_size
    if tokenizer.highest >= size:
        raise ConfigError(
            f"the tokenizer in {folder} has tokens up to {tokenizer.highest}, but the model has an embedding for "
            f"{size} only (vocab_size); they do not belong together"
        )
    outside = [token for token in tokenizer.end if not 0 <= token < size]
    if outside:
        raise ConfigError(
            f"{folder}: answers are to end with token {outside[0]} (eos_token_id), but the model has {size} tokens"
        )


def _read(path: Path) -> Mapping[str, Any]:
    if not path.is_file():
        raise ConfigError(
            f"{path.parent} has no {path.name}; a model is a folder as transformers' save_pretrained writes it"
        )
    return read_object(path, at_most=JSON_BYTES)


def _listed(names: list[str]) -> str:
    more = f" and {len(names) - NAMED} more" if len(names) > NAMED else ""
    return ", ".join(names[:NAMED]) + more
