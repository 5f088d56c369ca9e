"""Data: which data set a run learns from, found and looked at before the run has a directory."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from shoal.memory.data_file import DataFile
from shoal.types import ConfigError

if TYPE_CHECKING:
    from shoal.experiment.experiment import Experiment


def find_data(experiment: Experiment) -> Experiment:
    """The experiment with the whole path of its data set.

    Raises:
        ConfigError: there is none, or preprocessing changes rewards, which a data set holds as the environment gave
            them.
    """
    options = experiment.options
    hindsight = getattr(getattr(experiment.config, "replay", None), "hindsight", 0)
    if hindsight and options.preprocessing.changes_rewards:
        raise ConfigError(
            "replay.hindsight makes rewards anew, as the environment gives them, which preprocessing would not change: "
            "leave preprocessing.reward_scale, reward_clip and reward_sign out; reward_scale is for all"
        )
    _check_inserted(experiment)
    if options.data is None:
        if not options.total_timesteps:
            raise ConfigError(
                "total_timesteps=0: no step is taken, and no data set is learned from; name one (data=FOLDER, which "
                "`shoal record RUN` writes), or set total_timesteps"
            )
        return experiment
    if options.preprocessing.changes_rewards:
        raise ConfigError(
            "data holds the environment's own rewards, which preprocessing would not change: leave "
            "preprocessing.reward_scale, reward_clip and reward_sign out; reward_scale is for both"
        )
    found = DataFile.find(Path(options.data))
    return experiment.changed(data=str(found.folder.resolve()))


def _check_inserted(experiment: Experiment) -> None:
    """ConfigError where room for steps from outside would not be drawn from, or preprocessing changes rewards."""
    options = experiment.options
    size = getattr(getattr(experiment.config, "replay", None), "inserted_size", 0)
    if not size:
        return
    if not options.data_fraction:
        raise ConfigError(
            f"replay.inserted_size={size:,} makes room for steps that no batch would be drawn from: data_fraction is "
            "0; set it to their share of each batch"
        )
    if options.preprocessing.changes_rewards:
        raise ConfigError(
            "steps that are inserted have the environment's own rewards, which preprocessing would not change: leave "
            "preprocessing.reward_scale, reward_clip and reward_sign out; reward_scale is for both"
        )
