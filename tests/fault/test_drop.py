"""`on_fault="drop"`: the rows of a worker that failed are cut and invalid for good, and the others go on."""

from typing import Any

import numpy as np
import pytest
import torch

import shoal
from shoal.envs.registry import make
from shoal.envs.workers.settings import Workers
from shoal.learn.acting import Acting
from shoal.nets.policy import Network, make_policy
from shoal.run.evaluate import SEED_OFFSET, evaluate
from shoal.types import EnvError
from tests.fault.rows import Rows, check_dropped, check_order, played, step
from tests.fault.troubles import LENGTH, Trouble

pytestmark = pytest.mark.usefixtures("warm_workers")


@pytest.mark.parametrize("sends", ["whole", "halves"])
@pytest.mark.parametrize("what", ["SIGKILL", "SIGSTOP", "raise", "NaN observation"])
def test_the_others_go_on(rows: Rows, what: str, sends: str) -> None:
    env = rows(what, at=12, on_fault="drop")
    seen = played(env, 30, halves=sends == "halves")
    assert [check_order(row, seen[row]) for row in (0, 1)] == [0, 0]
    for row in (2, 3, 4):
        check_dropped(row, seen[row], 11)
    assert [len(steps) for steps in seen.values()] == [30] * 5
    assert env.dropped.tolist() == [False, False, True, True, True]


def test_the_last_worker_is_not_dropped(rows: Rows) -> None:
    env = rows("SIGKILL", at=4, on_fault="drop", num_workers=1)
    step(env, 3)
    with pytest.raises(EnvError, match="SIGKILL") as caught:
        step(env)
    assert caught.value.__notes__ == ["shoal: it was the last worker; all others were dropped before"]


def test_reset_and_restore_bring_the_rows_back(rows: Rows) -> None:
    env = rows("SIGKILL", at=4, on_fault="drop")
    assert step(env, 6).valid.tolist() == [True, True, False, False, False]
    lost = env.restore(env.state())
    assert [sentence.split(";")[0] for sentence in lost] == [
        f"Trouble: row {row} did not come back to its saved observation and return after 0 actions" for row in (2, 3, 4)
    ]
    ready = env.recv()
    assert ready.obs[:2, 1].tolist() == [6, 6]
    assert ready.truncated.tolist() == [False, False, True, True, True]
    assert step(env, 3).valid.all()
    env.reset(40)
    assert env.recv().obs[:, 0].tolist() == [40, 41, 42, 43, 44]
    assert step(env, 12).obs[:, 1].tolist() == [12 - LENGTH] * 5


@pytest.mark.slow
@pytest.mark.parametrize(
    ("algo", "recurrent", "native"),
    [
        ("ppo", "none", True),
        ("ppo", "none", False),
        ("ppo", "gru", False),
        ("a2c", "none", True),
        ("a2c", "gru", False),
    ],
)
def test_training_goes_on_without_nan(run_dir: Any, algo: str, recurrent: Any, *, native: bool) -> None:
    """With a GRU and four minibatches, each of two minibatches is a dropped row alone."""
    trouble: dict[str, Any] = {"what": "exit", "row": 3, "at": 20}
    shape: dict[str, Any] = {"num_minibatches": 4} if algo == "ppo" else {}
    result = shoal.train(
        Trouble,
        algo=algo,
        env_kwargs=trouble,
        backend="workers",
        num_workers=2,
        on_fault="drop",
        num_envs=4,
        num_steps=16,
        total_timesteps=512,
        native=native,
        panel="none",
        stop_at=np.inf,
        run_dir=str(run_dir),
        network=Network(hidden=(8,), recurrent=recurrent),
        **shape,
    )
    assert result.steps == 512
    assert all(torch.isfinite(p).all() for p in result.policy.parameters())
    assert np.isfinite(result.greedy_return)


def test_evaluation_plays_what_dropped_rows_leave() -> None:
    trouble: dict[str, Any] = {"what": "exit", "row": (SEED_OFFSET + 1) % 2**20, "at": 5}
    env = make(Trouble, 4, backend="workers", env_kwargs=trouble, workers=Workers(2, on_fault="drop"))
    score = evaluate(make_policy(env.spec, Network(hidden=(4,)), 0), env, episodes=8, acting=Acting(0))
    env.close()
    assert score.returns.tolist() == [LENGTH] * 8
