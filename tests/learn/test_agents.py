"""Learning with several agents: a team that shares its policy, and a player who meets its own past."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

import shoal
from benchmarks.self_play import at_random, learned, match
from tests.games import Ring

pytestmark = pytest.mark.usefixtures("all_greedy_episodes")

if TYPE_CHECKING:
    from pathlib import Path


def test_agents_in_turn_learn_what_their_own_steps_are_worth(run_dir: Path) -> None:
    """In Ring an action is worth ten times itself to who acts: always 4 makes 88 a game for each of two agents."""
    shape: dict[str, Any] = {
        "num_envs": 32,
        "num_steps": 16,
        "num_minibatches": 4,
        "update_epochs": 6,
        "learning_rate": 5e-3,
    }
    result = shoal.train(Ring, run_dir=str(run_dir), panel="none", total_timesteps=15_000, reward_scale=0.05, **shape)
    assert result.greedy_return >= 87


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_self_play_beats_a_player_at_random(run_dir: Path) -> None:
    """The preset for a fifth of its steps; an untrained policy wins about 45 % of its games."""
    settings: dict[str, Any] = {"panel": "none", "stop_at": math.inf, "total_timesteps": 150_000}
    result = shoal.train("shoal.envs.agents.tictactoe:TicTacToe", run_dir=str(run_dir), seed=1, **settings)
    played = match(learned(shoal.load(result.path)), at_random(np.random.default_rng(1)), 500)
    assert played["won"] >= 0.75
