"""What fits a replay memory that hands out sequences with recurrent states, and one that does not."""

from __future__ import annotations

from typing import TYPE_CHECKING

from shoal.stream.replay import DrawsSequences
from shoal.types import ConfigError

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from shoal.learn.learner import Learner
    from shoal.memory.settings import Replay
    from shoal.run.settings import Settings
    from shoal.stream.replay import DrawsBatches

NO_SEQUENCES = (
    "single transitions are drawn, without the memory that the network had; set network.recurrent to none, or choose "
    "an algorithm that learns from sequences (`shoal algos` lists all)"
)


def check_drawn(
    settings: Settings,
    learners: Mapping[str, Learner],
    cfgs: Mapping[str, DrawsBatches],
    replay: Replay,
    num_rows: int,
) -> bool:
    """Whether sequences are drawn, of policies that all have a memory; else none of them may have one.

    Raises:
        ConfigError: a policy or a setting of the run that does not go with it, and what would.
    """
    sequences = any(isinstance(cfg, DrawsSequences) for cfg in cfgs.values())
    recurrent = any(learner.recurrent for learner in learners.values())
    if not sequences:
        if recurrent:
            raise ConfigError(
                f"{settings.algo or 'this algorithm'} has a policy with a memory: {NO_SEQUENCES}"
            )
        return False
    if not all(learner.recurrent for learner in learners.values()):
        raise ConfigError(
            f"{settings.algo or 'this algorithm'} learns from sequences with a recurrent state, and the policy has "
            "none; set network.recurrent to gru or lstm, or give a policy whose initial_state(B) is one"
        )
    for why in _misfits(settings, replay, len(learners)):
        raise ConfigError(f"sequences of steps are drawn: {why}")
    for cfg in cfgs.values():
        if isinstance(cfg, DrawsSequences):
            _check_starts(cfg, replay, num_rows)
    return True


def _check_starts(cfg: DrawsSequences, replay: Replay, num_rows: int) -> None:
    """ConfigError where the first batch would be drawn before every row has steps for one sequence."""
    least = num_rows * (cfg.burn_in + cfg.sequence_length + 1)
    if replay.learning_starts < least:
        raise ConfigError(
            f"replay.learning_starts={replay.learning_starts:,} steps of {num_rows} rows are no whole sequence of "
            f"burn_in={cfg.burn_in} and sequence_length={cfg.sequence_length} steps each and the one behind; set it "
            f"to at least {least:,}"
        )


def _misfits(settings: Settings, replay: Replay, agents: int) -> Iterator[str]:
    """Why settings do not go with sequences, each with what would."""
    if replay.recency != 1:
        yield f"all are as likely, so replay.recency={replay.recency:g} cannot be; set it to 1"
    if replay.hindsight:
        yield "replay.hindsight changes the goals of single transitions; set it to 0"
    if settings.data.folder is not None:
        yield "a data set holds no recurrent states; leave data out"
    if replay.inserted_size:
        yield "steps from outside hold no recurrent states; set replay.inserted_size=0"
    if settings.curiosity.coef:
        yield "curiosity adds to the rewards of single transitions; set curiosity.coef=0"
    if agents > 1 and settings.population.memory != "private":
        yield (
            "the states of one agent's network mean nothing to another's; set population.memory=private, so that each "
            "agent learns from its own"
        )
