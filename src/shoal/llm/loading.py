"""Loading of models by what a user calls them: `tiny`, `smollm2`, or a folder."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from shoal.llm.lora import base_of, load_lora
from shoal.llm.model_folder import load_folder, save_model
from shoal.types import ConfigError

if TYPE_CHECKING:
    from collections.abc import Callable

    from shoal.llm.model import LanguageModel
    from shoal.llm.tasks.task import Task

NAMES = ("tiny", "smollm2")

__all__ = ["NAMES", "load_model", "save_model"]


def load_model(
    name: str | Path,
    *,
    task: Task | None = None,
    temperature: float = 1.0,
    report: Callable[[str], None] | None = None,
) -> LanguageModel:
    """A model in float32, ready to be trained.

    Args:
        name: `tiny`, a small model that is made for the task; `smollm2`, SmolLM2-135M-Instruct, which must have been
            fetched; or a folder as transformers' `save_pretrained` writes it.
        task: what `tiny` is made for.
        temperature: what the model's logits are divided by, where answers are drawn and learned.
        report: called with a line of text now and then if this takes long.

    Raises:
        ConfigError: there is no such model, or it is broken; see `load_folder` and `tiny_model`.
    """
    if name == "tiny":
        from shoal.llm.tiny import tiny_model

        if task is None:
            raise ConfigError("the model tiny is made for a task; name one")
        return tiny_model(task, temperature=temperature, report=report)
    if name == "smollm2":
        from shoal.llm.smollm import smollm2

        return smollm2(temperature=temperature)
    folder = Path(name).expanduser()
    if not folder.is_dir():
        raise ConfigError(
            f"there is no model {str(name)!r}: it is neither {' nor '.join(NAMES)} nor a folder. Models of a hub are "
            "downloaded with its own tools, into a folder that is then named here"
        )
    return load_folder(folder, temperature=temperature)


def load_teacher(
    name: str, pupil: LanguageModel, temperature: float, word: str = "teacher"
) -> LanguageModel:
    """A model beside another one: it says how likely that one's answers are, or plays against it.

    Args:
        name: as in `load_model`; `tiny` has nothing to teach.
        pupil: the other one.
        temperature: what the pupil's logits are divided by, and therefore the teacher's.
        word: what it is called in messages.

    Raises:
        ConfigError: there is no such model, or it reads other tokens.
    """
    teacher = load_model(name, temperature=temperature)
    sizes = teacher.architecture.vocab_size, pupil.architecture.vocab_size
    if not teacher.tokenizer.same_as(pupil.tokenizer) or sizes[0] != sizes[1]:
        raise ConfigError(
            f"the {word} {name} reads other tokens than the model that is trained ({sizes[0]:,} and {sizes[1]:,}); "
            "take two models of one family"
        )
    return teacher


def load_adapted(folder: Path) -> LanguageModel:
    """The model that a LoRA in a folder is for, from where that says, with it.

    Raises:
        ConfigError: there is none, or no such model; see `load_model` and `load_lora`.
    """
    name = base_of(folder)
    try:
        model = load_model(name)
    except ConfigError as error:
        raise ConfigError(
            f"{folder} holds a LoRA for the model {name}, which cannot be loaded: {error}"
        ) from error
    load_lora(model, folder)
    return model
