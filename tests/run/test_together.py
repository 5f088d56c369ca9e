"""Loops of several ranks: what they learn is what one process learns, and they go on and end alike."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any, NamedTuple

import pytest
import torch

from shoal import algos
from shoal.envs.registry import make
from shoal.run.callbacks import EpisodeEnd
from shoal.run.run import Run
from shoal.run.settings import Settings
from shoal.run.together import begin_alike, check_alike
from shoal.types import ConfigError
from tests.learn.paths import learner_of, rollout_of
from tests.learn.ranks import together

if TYPE_CHECKING:
    from shoal.learn.ranks import Ranks

ROWS, STEPS = 6, 16


class Ended(NamedTuple):
    """How a run ended."""

    weights: torch.Tensor
    """With statistics."""
    episodes: int
    returns: list[float]
    updates: int
    reason: str
    rows: set[int]
    """In which episodes ended."""


def trained(
    ranks: Ranks | None,
    algo: str,
    own: dict[str, Any],
    *,
    env: str = "CartPole-v1",
    updates: int = 3,
    stops: int | None = None,
    **settings: Any,
) -> Ended:
    """One rank's run of some updates; `stops`: the rank that stops it after the first."""
    size = 1 if ranks is None else ranks.size
    module = algos.load(algo)
    cfg = module.Config(**own)
    rows = make(env, ROWS // size, num_threads=1)
    told = Settings(env, algo, 1, ROWS, updates * ROWS * cfg.num_steps, ranks=ranks, **settings)

    ended: set[int] = set()

    def stop(run: Run, record: Any) -> None:
        if isinstance(record, EpisodeEnd):
            ended.add(record.row)
        if ranks is not None and ranks.rank == stops:
            run.stop("that is enough")

    run = Run(told, policy=lambda spec: algos.make_policy(module, spec, cfg, 1), callbacks=[stop])
    policy = module.train(cfg, rows, run)
    rows.close()
    weights = torch.cat([x.double().flatten() for x in policy.state_dict().values()])
    return Ended(weights, run.metrics.episodes, sorted(run.metrics.returns), run.updates, run.stop_reason, ended)


NORMALIZED: dict[str, Any] = {"reward_gamma": 0.99}
CASES: dict[str, tuple[str, dict[str, Any], dict[str, Any]]] = {
    "ppo": ("ppo", {"num_steps": STEPS, "num_minibatches": 1}, NORMALIZED),
    "torch": ("ppo", {"num_steps": STEPS, "num_minibatches": 1}, {"native": False}),
    "overlap": ("ppo", {"num_steps": STEPS, "num_minibatches": 1}, {"schedule": "overlap"}),
    "a2c": ("a2c", {"num_steps": STEPS, "learning_rate": 1e-3, "norm_adv": True}, {}),
    "pqn": ("pqn", {"num_steps": STEPS, "num_minibatches": 1, "update_epochs": 1}, {}),
    "impala": ("impala", {"num_steps": STEPS, "num_minibatches": 1}, {}),
}


@pytest.mark.parametrize("case", CASES)
def test_two_ranks_learn_what_one_process_does(case: str) -> None:
    """Weights, statistics of observations and rewards, episodes: to float tolerance; the ranks alike bit for bit."""
    algo, own, settings = CASES[case]
    if case == "ppo":
        own = own | {"network": algos.load(algo).Config().network.__class__(normalize_obs=True, recurrent="gru")}
    run = partial(trained, algo=algo, own=own, **settings)
    alone = run(None)
    one, other = together(2, run)
    assert torch.equal(one.weights, other.weights)
    torch.testing.assert_close(one.weights, alone.weights, rtol=1e-4, atol=1e-5)
    assert alone.episodes == one.episodes == other.episodes > 0
    assert alone.rows == one.rows == other.rows
    assert alone.returns == one.returns == other.returns
    assert one.updates == 3


def test_three_ranks_stay_alike() -> None:
    """With shuffled minibatches, epochs that end by KL, and images, whose gradients are cut up in torch."""
    own = {"num_steps": STEPS, "num_minibatches": 4, "target_kl": 1e-4}
    found = together(3, partial(trained, algo="ppo", own=own, env="shoal/Breakout-v0", updates=2))
    assert all(torch.equal(found[0].weights, other.weights) for other in found[1:])
    assert [ended.updates for ended in found] == [2, 2, 2]


@pytest.mark.parametrize("stops", [0, 1])
def test_where_one_rank_stops_all_do(stops: int) -> None:
    """After the same update; each says why."""
    own = {"num_steps": STEPS, "num_minibatches": 1}
    found = together(2, partial(trained, algo="ppo", own=own, updates=50, stops=stops))
    assert [ended.updates for ended in found] == [1, 1]
    reasons = [ended.reason for ended in found]
    assert reasons[stops] == "that is enough"
    assert reasons[1 - stops] == f"learner {stops} stopped"


def test_learners_that_drift_apart_are_noticed() -> None:
    """They begin with the first one's weights; what changes one of them alone is an error."""

    def drift(ranks: Ranks) -> str:
        policy, _ = rollout_of("categorical", num_rows=2)
        learner = learner_of("native", policy, ranks=ranks)
        learner.flat.add_(ranks.rank)
        begin_alike(ranks, {"policy": learner})
        if ranks.rank:
            learner.flat[3] += 1e-6
        with pytest.raises(ConfigError, match="learners 0 and 1 have drifted apart") as caught:
            check_alike(ranks, {"policy": learner})
        return str(caught.value)

    one, other = together(2, drift)
    assert one == other
