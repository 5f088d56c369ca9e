"""Shadow and canary: what they count, write and read again, and what is refused."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import gymnasium as gym
import numpy as np
import pytest
from gymnasium import spaces

from shoal.deploy.stages.beside import Canary, Shadow
from shoal.deploy.stages.criteria import Canary as CanaryCriteria
from shoal.deploy.stages.criteria import Criteria, Drifts, Simulate, check_costs, read_criteria
from shoal.deploy.stages.criteria import Shadow as ShadowCriteria
from shoal.deploy.stages.distance import Distance
from shoal.deploy.stages.drift import Reference
from shoal.deploy.stages.log import Header, Played, StageLog, read_log
from shoal.deploy.stages.measures import canaried, shadowed, simulated
from shoal.envs.registry import make
from shoal.run.evaluate import Score
from shoal.types import ConfigError

if TYPE_CHECKING:
    from pathlib import Path

SPEC = make("CartPole-v1", 1).spec
HEADER = Header("shadow", "a" * 64, "b" * 64, "CartPole-v1", "now")
OBS = np.zeros(4, np.float32)


class Left:
    """A policy that always pushes left, which its guard changes in each episode's first step."""

    interventions = 0

    def __init__(self) -> None:
        self.begins = True

    def act(self, obs: Any, /) -> int:
        self.interventions += self.begins
        self.begins = False
        return 0

    def reset(self) -> None:
        self.begins = True


def reference() -> Reference:
    seen = np.random.default_rng(0).normal(size=(1000, 4))
    return Reference.of(("x", "v", "angle", "w"), seen)


def begin(path: Path, **changes: Any) -> Shadow:
    log = StageLog(path, replace(HEADER, **changes))
    return Shadow(Left(), SPEC, log, reference=reference(), limits=Drifts())


def played(shadow: Shadow, *, episodes: int = 12, shift: float = 0.0) -> None:
    """Episodes of 20 steps, in a quarter of which the controller pushes left too."""
    rng = np.random.default_rng(1)
    for _ in range(episodes):
        for step in range(20):
            obs = rng.normal(size=4).astype(np.float32) + np.array([0, 0, shift, 0], np.float32)
            shadow.observe(obs, int(step % 4 > 0), 0.5, done=step == 19)


def test_a_shadow_counts(tmp_path: Path) -> None:
    with begin(tmp_path / "log") as shadow:
        played(shadow)
    with pytest.warns(UserWarning, match="written no further: it was closed; begin another log") as warned:
        played(shadow, episodes=2)
    assert len(warned) == 1
    log = read_log(tmp_path / "log", reference=reference(), expected=HEADER)
    assert len(log.episodes) == 12
    first = log.episodes[0]
    assert (first.acted, first.steps, first.total) == ("controller", 20, 10.0)
    assert (first.agreed, first.distance, first.interventions) == (5, 15.0, 1)
    assert log.seen is not None
    assert log.seen.count == 240
    found = shadowed(log, Criteria())
    assert {one.name: one.holds for one in found.criteria} == {
        "episodes": True,
        "agreement": False,
        "distance": False,
        "interventions_of_the_action_guard": False,
    }
    assert "0 of 4 features drifted" in found.notes[0]


def test_drift_is_alarmed_in_log_and_measure(tmp_path: Path) -> None:
    with begin(tmp_path / "log") as shadow:
        played(shadow, shift=3.0)
        assert shadow.drifts[0].feature == "angle"
    log = read_log(tmp_path / "log", reference=reference(), expected=HEADER)
    assert log.episodes[-1].drifted == ()  # it is read for people; measures count anew
    lines = (tmp_path / "log").read_text(encoding="utf-8").splitlines()
    assert json.loads(lines[-1])["drifted"] == ["angle"]
    criteria = Criteria(shadow=ShadowCriteria(most_drifted=0))
    found = shadowed(log, criteria)
    assert any(note.startswith("ALARM: angle has drifted") for note in found.notes)
    assert not found.criteria[-1].holds


def test_a_canary_acts_in_its_share(tmp_path: Path) -> None:
    def run(name: str) -> list[str]:
        log = StageLog(tmp_path / name, replace(HEADER, kind="canary", share=0.3))
        canary = Canary(Left(), SPEC, log, reference=None, limits=Drifts(), share=0.3, seed=7)
        for _ in range(200):
            for step in range(3):
                done = canary.act(OBS, 1)
                assert done == (0 if canary.policy_acts else 1)
                canary.observe(1.0 + (done == 0), done=step == 2)
        canary.close()
        found = read_log(tmp_path / name, reference=None, expected=replace(HEADER, kind="canary"))
        assert all(one.total == (6.0 if one.acted == "policy" else 3.0) for one in found.episodes)
        told = canaried(found, Criteria())
        gain = next(one for one in told.criteria if one.name == "gain_at_least")
        assert gain.measured == pytest.approx(3.0)
        assert gain.holds
        return [one.acted for one in found.episodes]

    who = run("one")
    assert 40 <= who.count("policy") <= 80
    assert who == run("two")


def test_a_canary_that_loses(tmp_path: Path) -> None:
    log = StageLog(tmp_path / "log", replace(HEADER, kind="canary"))
    canary = Canary(Left(), SPEC, log, reference=None, limits=Drifts(), share=0.5, seed=0)
    for _ in range(40):
        done = canary.act(OBS, 1)
        canary.observe(float(done), done=True)
    found = canaried(read_log(log.path, reference=None, expected=replace(HEADER, kind="canary")), Criteria())
    gain = next(one for one in found.criteria if one.name == "gain_at_least")
    assert gain.measured == -1.0
    assert not gain.holds
    canary.act(OBS, 1)
    with pytest.raises(RuntimeError, match="ends each step"):
        canary.act(OBS, 1)
    canary.close()
    with pytest.raises(ConfigError, match="between 0 and 1"):
        Canary(Left(), SPEC, log, reference=None, limits=Drifts(), share=1.0, seed=0)


COSTLY = replace(SPEC, costs=True)


def test_costs_of_the_controller_and_of_the_policy(tmp_path: Path) -> None:
    """A step of the controller costs 1, of the policy 3; an episode with a step that does not say it has no cost."""
    shadow = Shadow(Left(), COSTLY, StageLog(tmp_path / "s", HEADER), reference=None, limits=Drifts())
    canary_log = StageLog(tmp_path / "c", replace(HEADER, kind="canary"))
    canary = Canary(Left(), COSTLY, canary_log, reference=None, limits=Drifts(), share=0.5, seed=0)
    for episode in range(20):
        for step in range(2):
            shadow.observe(OBS, 1, 0.0, cost=1.0 + episode, done=step == 1)
            mine = canary.act(OBS, 1) == 0
            canary.observe(0.0, cost=3.0 if mine else 1.0, done=step == 1)
    seen = read_log(tmp_path / "s", reference=None, expected=HEADER)
    assert [one.cost for one in seen.episodes[:2]] == [2.0, 4.0]
    found = shadowed(seen, Criteria(shadow=ShadowCriteria(most_cost=20.0)))
    (cost,) = (one for one in found.criteria if one.name == "cost_of_the_controller")
    assert (cost.measured, cost.bound, cost.holds) == (21.0, 20.0, False)
    assert "mean cost 21, standard deviation 11.53, worst 40 of an episode of the controller" in found.notes
    log = read_log(tmp_path / "c", reference=None, expected=replace(HEADER, kind="canary"))
    for limit, wanted, holds in ((5.0, None, False), (5.0, 6.0, True)):
        criteria = Criteria(canary=CanaryCriteria(most_cost=wanted))
        (cost,) = (one for one in canaried(log, criteria, limit).criteria if one.name == "cost_at_most")
        assert (cost.measured, cost.holds) == (6.0, holds)
    assert "worst 6 of an episode of the policy" in str(canaried(log, Criteria()).notes)
    shadow.observe(OBS, 1, 0.0, cost=1.0)
    shadow.observe(OBS, 1, 0.0, done=True)
    shadow.close()
    canary.close()
    seen = read_log(tmp_path / "s", reference=None, expected=HEADER)
    assert seen.episodes[-1].cost is None
    with pytest.raises(ConfigError, match=r"not every episode of the log says what it cost; hand over `cost=`"):
        shadowed(seen, Criteria(shadow=ShadowCriteria(most_cost=20.0)))
    assert "nothing is said of the limit of 5" in str(
        canaried(replace(log, episodes=without(log.episodes)), Criteria(), 5)
    )
    with begin(tmp_path / "free") as free, pytest.raises(ValueError, match="CartPole-v1 have no cost"):
        free.observe(OBS, 1, 0.0, cost=1.0)


def without(episodes: list[Played]) -> list[Played]:
    """Episodes of which nobody says what they cost."""
    return [replace(one, cost=None) for one in episodes]


def test_costs_in_the_simulator() -> None:
    score = Score(np.array([3.0, 5.0]), np.ones(2), np.array([1.0, 4.0]))
    names = [one.name for one in simulated(score, Simulate(), 4.0).criteria]
    assert names == ["greedy_return"]
    for wanted, limit, holds in ((Simulate(), 2.0, False), (Simulate(most_cost=2.5), 2.0, True)):
        found = simulated(score, wanted, 4.0, limit)
        assert (found.criteria[1].name, found.criteria[1].measured) == ("greedy_cost", 2.5)
        assert found.criteria[1].holds == holds
    assert "worst 4" in found.notes[1]
    with pytest.raises(ConfigError, match=r"simulate.most_cost is of costs, and the steps of Tank have none"):
        check_costs(Criteria(simulate=Simulate(most_cost=1.0)), "Tank", costs=False)
    with pytest.raises(ConfigError, match=r"canary.most_cost must not be negative"):
        Criteria(canary=CanaryCriteria(most_cost=-1.0))


def test_what_a_step_cannot_be(tmp_path: Path) -> None:
    with begin(tmp_path / "log") as shadow:
        rewards: list[Any] = [float("nan"), None]
        for reward in rewards:
            with pytest.raises(ValueError, match="finite"):
                shadow.observe(OBS, 1, reward)
        for action in ([1, 2], "left", None):
            with pytest.raises(ValueError, match="expected a finite action"):
                shadow.observe(OBS, action, 0.0)
        for action in (7, -1, 0.5):
            with pytest.raises(ValueError, match="outside Discrete"):
                shadow.observe(OBS, action, 0.0)
        played(shadow, episodes=1)  # what was refused counts for nothing
    (episode,) = read_log(tmp_path / "log", reference=None, expected=HEADER).episodes
    assert episode.agreed <= episode.steps == 20


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"kind": "canary"}, "log of the stage canary"),
        ({"policy": "c" * 64}, "of another policy, cccccccccccc"),
        ({"spec": "c" * 64, "env": "Other-v0"}, r"other observations or actions \(Other-v0\)"),
    ],
)
def test_logs_of_something_else(tmp_path: Path, changes: dict[str, str], said: str) -> None:
    with begin(tmp_path / "log", **changes) as shadow:
        played(shadow, episodes=1)
    with pytest.raises(ConfigError, match=said):
        read_log(tmp_path / "log", reference=None, expected=HEADER)


@pytest.mark.parametrize(
    ("number", "old", "new", "said"),
    [
        (0, "shoal-stage-log-1", "x", "does not begin"),
        (2, '"steps": 20', '"steps": 2', "more events"),
        (1, '"steps": 20', '"steps": true', "count is none"),
        (1, '"total": 10.0', '"total": NaN', "not finite"),
        (1, '"controller"', '"somebody"', "nobody acted"),
        (1, '"bins": [[', '"bins": [[1, ', "inhomogeneous"),
        (1, "{", "[", "Expecting"),
    ],
)
def test_damaged_logs(tmp_path: Path, number: int, old: str, new: str, said: str) -> None:
    path = tmp_path / "log"
    with begin(path) as shadow:
        played(shadow, episodes=3)
    lines = path.read_text(encoding="utf-8").splitlines(keepends=True)
    assert old in lines[number]
    lines[number] = lines[number].replace(old, new, 1)
    path.write_text("".join(lines), encoding="utf-8")
    with pytest.raises(ConfigError, match=rf"line {number + 1}, is damaged.*{said}"):
        read_log(path, reference=reference(), expected=HEADER)


def test_a_torn_line_is_left_out(tmp_path: Path) -> None:
    path = tmp_path / "log"
    with begin(path) as shadow:
        played(shadow, episodes=3)
    path.write_bytes(path.read_bytes()[:-5])
    assert len(read_log(path, reference=None, expected=HEADER).episodes) == 2
    with pytest.raises(ConfigError, match="is there already"):
        begin(path)
    path.write_bytes(b"")
    with pytest.raises(ConfigError, match="no log of a stage"):
        read_log(path, reference=None, expected=HEADER)


def test_a_full_log_ends_and_the_shadow_goes_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("shoal.deploy.stages.log.MOST_EPISODES", 2)
    with begin(tmp_path / "log") as shadow:
        played(shadow, episodes=2)
        with pytest.warns(UserWarning, match="written no further: it has 2 episodes"):
            played(shadow, episodes=1)
        played(shadow, episodes=1)
    assert len(read_log(tmp_path / "log", reference=None, expected=HEADER).episodes) == 2


def test_a_threshold_is_needed() -> None:
    score = Score(np.array([3.0, 5.0]), np.ones(2))
    with pytest.raises(ConfigError, match="write `least_return`"):
        simulated(score, Simulate(), None)
    assert simulated(score, Simulate(), 4.0).criteria[0].holds
    assert not simulated(score, Simulate(least_return=4.5), 4.0).criteria[0].holds


def test_distances() -> None:
    cart = Distance(SPEC)
    assert (cart(0, 0), cart(0, 1)) == (0.0, 1.0)
    pendulum = Distance(make("Pendulum-v1", 1).spec)
    assert pendulum([2.0], [1.0]) == 0.25
    assert not pendulum.agrees(0.25)
    assert pendulum.agrees(pendulum([2.0], [1.9]))
    assert isinstance(gym.make("Pendulum-v1").action_space, spaces.Box)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("[moon]\nx = 1", "no criterion 'moon'"),
        ("[shadow]\nleast = 1", "no criterion 'least'"),
        ("shadow = 1", "shadow is a table"),
        ("[shadow]\nleast_agreement = 2.0", "between 0 and 1"),
        ("[shadow]\nleast_episodes = 2.5", "whole number"),
        ("[shadow]\nleast_agreement = 'a'", "finite number"),
        ("[replay]\ngreedy = 1", "greedy must be true or false, got 1"),
        ("[replay]\nleast_gain = true", "finite number"),
        ("[simulate]\nseed = -1", "simulate.seed must be a whole number from 0 to"),
        ("[simulate]\nseed = 1.5", "simulate.seed must be a whole number from 0 to"),
        ("[shadow]\nmost_drifted = 1.5", "shadow.most_drifted must be a whole number from 0 to"),
        ("[canary]\nmost_drifted = -1", "canary.most_drifted must be a whole number from 0 to"),
        ("[drift]\nmost_psi = 0", "drift.most_psi must be above 0"),
        ("[canary]\nmost_loss = -1.0", "not be negative"),
        ("[replay]\nconfidence = 1.0", "between 0.5 and 1"),
        ("[simulate]\nleast_return = nan", "finite number"),
        ("[replay]\nrate_hz = 0", "replay.rate_hz must be a positive number, got 0"),
        ("[replay]\nrate_hz = true", "must be a positive number, got True"),
        ("[replay]\nunits = [1]", "replay.units must be texts"),
        ("[replay]\nunits = 'm'", "replay.units must be texts"),
    ],
)
def test_criteria_that_are_none(tmp_path: Path, text: str, said: str) -> None:
    (tmp_path / "c.toml").write_text(text, encoding="utf-8")
    with pytest.raises(ConfigError, match=said):
        read_criteria(tmp_path / "c.toml")


def test_criteria_in_part(tmp_path: Path) -> None:
    (tmp_path / "c.toml").write_text("[shadow]\nleast_agreement = 0.5\n[drift]\nmost_psi = 1", encoding="utf-8")
    made = read_criteria(tmp_path / "c.toml")
    assert made.shadow == ShadowCriteria(least_agreement=0.5)
    assert made.drift.most_psi == 1
    assert made.canary == Criteria().canary
    (tmp_path / "c.toml").write_text("[replay]\nrate_hz = 20\nunits = ['m', 'm/s']", encoding="utf-8")
    asked = read_criteria(tmp_path / "c.toml").replay
    assert (asked.rate_hz, asked.units) == (20, ("m", "m/s"))
