"""Shoal's own worlds: small cases worked by hand, the best scores, pictures, several agents."""

import numpy as np
import pytest

from shoal.envs.make import make
from tests.players import BEST


@pytest.mark.parametrize("env_id", BEST)
def test_a_perfect_player_reaches_the_best_score(env_id: str) -> None:
    """Every episode of it, and nobody can do better: each brick, bite, target, cue or prey is counted once."""
    best, player = BEST[env_id]
    env = make(env_id, 12)
    players = [player() for _ in range(env.num_rows)]
    returns: dict[int, float] = {}
    env.reset(0)
    ready = env.recv()
    for _ in range(env.spec.max_episode_steps or 100):
        actions = np.array([act(obs) for act, obs in zip(players, ready.obs, strict=True)])
        env.send(slice(0, env.num_rows), actions)
        ready = env.recv()
        for row in np.flatnonzero(ready.terminated | ready.truncated).tolist():
            returns.setdefault(row, float(ready.episode_return[row]))
        if len(returns) == env.num_rows:
            break
    assert returns == dict.fromkeys(returns, best)
    assert len(returns) == env.num_rows
    assert env.spec.reward_threshold == pytest.approx(0.9 * best)
