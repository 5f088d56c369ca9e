"""What a log says in words and numbers, and where a criterion has nothing to say."""

import pytest

from shoal.deploy.offline import FITTED, GO_BY, OfflineScore
from shoal.deploy.stages.criteria import Replay
from shoal.deploy.stages.measures import replayed
from shoal.math.off_policy_evaluation import Estimate


def estimate(method: str, effective: float) -> Estimate:
    return Estimate(method, 5.0, 4.0, 6.0, 0.95, effective)


@pytest.mark.parametrize(("effective", "asked"), [(30.0, True), (0.2, False)])
def test_effective_episodes_are_asked_of_importance_sampling_alone(effective: float, *, asked: bool) -> None:
    """Fitted values rest on all episodes, whatever they are worth: 200 of them would hold, beside a note of 0.2."""
    estimates = estimate(FITTED, 200.0), estimate(GO_BY, effective)
    score = OfflineScore(estimates, estimate("the log's own episodes", 200.0), 200, 0.9, ())
    found = {one.name: one.measured for one in replayed(score, Replay()).criteria}
    assert found["logged_episodes"] == 200
    assert found.get("effective_episodes") == (effective if asked else None)
