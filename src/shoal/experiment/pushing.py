"""A run's language model where others load it: in a folder of their own, or on a hub."""

from __future__ import annotations

from pathlib import Path
from tempfile import TemporaryDirectory

from shoal.experiment.talking import model_of
from shoal.llm.model_folder import save_model
from shoal.types import ConfigError

HUB = "hub:"


def push(run: str, to: str, *, run_dir: str = "runs", private: bool = False) -> str:
    """Writes the model of a run's newest checkpoint, as transformers reads it; returns where it is.

    Args:
        run: a run directory, a folder of runs, or a run's name.
        to: a folder, or `hub:OWNER/NAME`.
        run_dir: where `run` is looked for as well.
        private: whether nobody else may load it from the hub.

    Raises:
        ConfigError: no such run, it trained no language model, the folder holds something else, or the hub refuses.
    """
    model = model_of(run, run_dir)
    if not to.startswith(HUB):
        if private:
            raise ConfigError(
                f"private is for hubs, and {to} is a folder; leave it out"
            )
        save_model(model, Path(to))
        return to
    name = to.removeprefix(HUB)
    try:
        from huggingface_hub import HfApi
    except ImportError as error:
        raise ConfigError(
            "huggingface_hub is not installed, which hubs need; pip install 'shoal-rl[llm]'"
        ) from error
    with TemporaryDirectory() as draft:
        folder = Path(draft) / "model"
        save_model(model, folder)
        hub = HfApi()
        try:
            hub.create_repo(name, private=private, exist_ok=True)
            hub.upload_folder(repo_id=name, folder_path=folder)
        except Exception as error:  # whatever the hub or the network says
            raise ConfigError(
                f"{name} was not pushed: {type(error).__name__}: {error}"
            ) from error
    return to
