"""What a log says in words and numbers, and where a criterion has nothing to say."""

import pytest

from shoal.deploy.offline import FITTED, GO_BY, OfflineScore
from shoal.deploy.stages.criteria import Canary, Replay, Shadow
from shoal.deploy.stages.lenient import lenient_canary, lenient_replay, lenient_shadow
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


@pytest.mark.parametrize(
    ("criteria", "said"),
    [
        (Replay(), []),
        (Replay(least_gain=-3.0, confidence=0.6), ["least_gain -3 is below 0", "misses the true return in 40% of"]),
        (Replay(least_effective_episodes=0), ["an estimate may rest on a single episode"]),
        (Shadow(least_agreement=0.0), []),
        (Shadow(least_agreement=0.0, most_distance=1.0, most_interventions=1.0), ["for any policy", "every action"]),
        (Canary(), []),
        (Canary(most_loss=0.5), ["up to 0.5 less than the controller"]),
    ],
)
def test_lenient_criteria_are_said(criteria: Replay | Shadow | Canary, said: list[str]) -> None:
    if isinstance(criteria, Replay):
        found = list(lenient_replay(criteria))
    elif isinstance(criteria, Shadow):
        found = list(lenient_shadow(criteria))
    else:
        found = list(lenient_canary(criteria))
    assert len(found) == len(said)
    assert all(part in one for part, one in zip(said, found, strict=True))


def test_a_lenient_gain_stands_among_the_notes() -> None:
    score = OfflineScore((estimate(GO_BY, 30.0),), estimate("the log's own episodes", 200.0), 200, 0.9, ())
    assert any("least_gain -3 is below 0" in note for note in replayed(score, Replay(least_gain=-3.0)).notes)
