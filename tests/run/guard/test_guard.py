"""The guard of a run: what it sees, what it does, what it leaves as it was, and how it goes on after a kill."""

from __future__ import annotations

import json
import math
import shutil
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import torch

import shoal
from shoal.cli.statuses import status_of
from shoal.experiment.result import Result
from shoal.learn.rate_factor import rate_factor_of, set_rate_factor
from shoal.run.directory import RunDirectory
from shoal.run.guard.notes import MOST, SAID, Intervention, Notes, read_notes, write_notes
from shoal.run.guard.seen import Finding, Seen
from shoal.run.guard.settings import Guarding
from shoal.run.log import read
from shoal.types import ConfigError
from tests.run.guard.plain import EPISODES, Published, go, guard_of, learner_of, sha_of

if TYPE_CHECKING:
    from pathlib import Path

    from shoal.learn.learner import Learner
    from shoal.run.run import Run

SHORT: dict[str, Any] = {
    "total_timesteps": 20_000,
    "num_threads": 1,
    "stop_at": math.inf,
    "final_episodes": 0,
    "panel": "none",
}


def rule_at(*updates: int, action: Any = "rollback") -> Any:
    """A rule that finds something wrong with these updates."""

    def never_happy(seen: Seen) -> Finding | None:
        return Finding("as the test says", action) if seen.update in updates else None

    return never_happy


def weights_of(policy: torch.nn.Module) -> list[float]:
    return torch.cat([x.reshape(-1) for x in policy.state_dict().values()]).tolist()


def test_a_healthy_run_keeps_its_bits(tmp_path: Path) -> None:
    on, off = (shoal.train("CartPole-v1", guard=x, run_dir=tmp_path, **SHORT) for x in ("on", "off"))
    assert weights_of(on.policy) == weights_of(off.policy)
    assert not (on.path / "guard.json").exists()


@pytest.mark.parametrize(("wrong", "good"), [(10, 7), (9, 5), (8, 5)])
def test_a_rollback_is_the_last_good_state(wrong: int, good: int, tmp_path: Path) -> None:
    """A candidate is taken at 1, 3, 5, ..., and is good two checks later."""
    run, learner, stream, shas = go(tmp_path, updates=wrong, rules=[rule_at(wrong)])
    there = read_notes(tmp_path).interventions
    assert [(x.update, x.action, x.rule) for x in there] == [(wrong, "rollback", "never_happy")]
    assert f"goes back to update {good} " in there[0].said
    assert sha_of(learner) == shas[good - 1]
    assert stream.published == 1
    assert stream.env_steps == wrong * 10  # environments go on
    assert "with 0.5 times its learning rate" in there[0].said
    assert run.stop_reason == "total_timesteps"


def test_a_state_is_not_verified_over_a_finding(tmp_path: Path) -> None:
    """The candidate of update 3 is dropped at 4, where something is found; that of 1 was good by then."""

    def halves(seen: Any) -> Any:
        return rule_at(4, action="halve")(seen)

    _, learner, _, shas = go(tmp_path, updates=7, rules=[halves, rule_at(7)])
    there = read_notes(tmp_path).interventions
    assert [(x.update, x.action) for x in there] == [(4, "halve"), (7, "rollback")]
    assert "goes back to update 1 " in there[1].said
    assert sha_of(learner) == shas[0]


def test_the_ladder_is_climbed_until_the_run_is_stopped(tmp_path: Path) -> None:
    run, learner, _, shas = go(tmp_path, updates=40, rules=[rule_at(10, 11, 12, 13, 14, 15, 16, action="skip")])
    actions = [x.action for x in read_notes(tmp_path).interventions]
    assert actions == ["skip", "halve", "rollback", "rollback", "stop"]
    assert run.updates == 14
    assert rate_factor_of(learner) == 1  # that of the best state, which was taken before
    assert sha_of(learner) == shas[6]
    assert run.stop_reason.startswith("guard: as the test says (never_happy); the run ends with the verified best")
    stopped = json.loads((tmp_path / "stopped.json").read_text())
    assert stopped["kept"] == {"policy": {"update": 7, "return": 1.0}}
    assert stopped["update"] == 14
    assert stopped["reason"] in run.stop_reason


def test_a_state_that_was_verified_closes_the_ladder(tmp_path: Path) -> None:
    go(tmp_path, updates=60, rules=[rule_at(10, 30, 50, action="halve")])
    assert [x.action for x in read_notes(tmp_path).interventions] == ["halve"] * 3


def test_halving_multiplies_whatever_rate_is_set() -> None:
    learner = learner_of()
    set_rate_factor(learner, 0.25)
    learner.learning_rate = 0.8
    assert learner.learning_rate == 0.8
    assert learner.networks["policy"].descent.owned.param_groups[0]["lr"] == 0.2
    other = learner_of()
    other.restore(learner.state())
    assert rate_factor_of(other) == 0.25
    assert other.learning_rate == 0.8
    other.restore(learner_of().state())
    assert rate_factor_of(other) == 1
    assert other.learning_rate == 0.5


def test_a_run_that_it_acted_in_ends_as_the_verified_best(tmp_path: Path) -> None:
    """Returns rise to update 12 and fall from there: no band is left, but the end is not the best."""
    returns = [*range(10, 130, 10), *range(120, 60, -5)]
    run, learner, _, shas = go(tmp_path, updates=24, returns=returns, rules=[rule_at(4, action="halve")])
    best = guard_of(run).watches["policy"].states.best
    assert best is not None
    assert best.figure == min(returns[best.update - 1], returns[best.update + 1]) == 110
    assert sha_of(learner) == shas[best.update - 1] != shas[-1]


def test_where_the_rate_is_not_lowered_any_more_and_nothing_was_verified_the_run_is_stopped(tmp_path: Path) -> None:
    run, learner, _, shas = go(tmp_path, updates=26, rules=[rule_at(*range(1, 27), action="halve")])
    made = read_notes(tmp_path).interventions
    assert [one.action for one in made] == ["halve"] * 10 + ["stop"]
    assert run.updates == 11
    assert "at 0.000976562 times its learning rate without a state that was ever verified" in run.stop_reason
    stopped = json.loads((tmp_path / "stopped.json").read_text())
    assert stopped["kept"] == {"policy": {"update": None, "return": None}}
    assert sha_of(learner) == shas[-1]


def test_where_the_rate_is_not_lowered_any_more_a_learner_goes_back(tmp_path: Path) -> None:
    """It was verified between its findings, so that each of them was the first again."""
    go(tmp_path, updates=100, rules=[rule_at(*range(9, 100, 8), action="halve")])
    actions = [x.action for x in read_notes(tmp_path).interventions]
    assert actions == ["halve"] * 10 + ["rollback"] * 2


@pytest.mark.parametrize(
    ("reason", "threshold", "reached", "status"),
    [
        ("guard: x", None, 0.0, 3),
        ("guard: x", 5.0, 4.0, 3),
        ("guard: x", 5.0, 6.0, 0),
        ("total_timesteps", None, 0.0, 0),
        ("total_timesteps", 5.0, 4.0, 1),
    ],
)
def test_exit_status(reason: str, threshold: float | None, reached: float, status: int, tmp_path: Path) -> None:
    given = Result(tmp_path, torch.nn.Linear(1, 1), 1, 1.0, reached, 1.0, threshold, reason)
    assert status_of(given) == status


def test_the_best_state_is_the_best_by_its_held_out_value(tmp_path: Path) -> None:
    """Returns rise all the way; what is held out rises to update 8 and falls from there."""

    class Judged(Published):
        def __next__(self) -> int:
            version = super().__next__()
            held = np.full(EPISODES, float(8 - abs(8 - version)))
            self.episodes = replace(self.episodes, info={"held_out": held})
            return version

    rules = [rule_at(4, action="halve")]
    told: dict[str, Any] = {"returns": list(range(40)), "rules": rules, "held_out": "held_out", "stream": Judged}
    run, learner, _, shas = go(tmp_path, updates=20, **told)
    best = guard_of(run).watches["policy"].states.best
    assert best is not None
    assert best.update == 7
    assert best.held == 7
    assert sha_of(learner) == shas[6]


def test_it_warns_writes_a_line_and_counts(tmp_path: Path) -> None:
    said: list[str] = []

    class Told:
        def __call__(self, run: Run, record: Any) -> None:
            pass

        def warn(self, message: str) -> None:
            said.append(message)

    rules = [rule_at(3, action="halve"), rule_at(5, action="tell")]
    told: dict[str, Any] = SHORT | {"panel": "plain", "callbacks": [Told()], "rules": rules}
    result = shoal.train("CartPole-v1", run_dir=tmp_path, **told)
    assert [x.split(": ", 2)[2] for x in said] == [
        "as the test says (never_happy); policy goes on with 0.5 times its learning rate"
    ]
    last = read(result.path / "metrics.jsonl")[-1]
    assert last["guard/interventions"] == 2
    assert last["guard/rate_factor"] == 0.5
    assert last["train/learning_rate"] == 0.0015
    assert read_notes(result.path).count == 2


def test_weights_that_are_not_finite_are_replaced(tmp_path: Path) -> None:
    """Where a state was verified; before, the run ends as it does without a guard."""

    def during(run: Run, learner: Learner, update: int) -> None:
        if update == 10:
            with torch.no_grad():
                learner.flat.fill_(math.nan)

    _, learner, _, _ = go(tmp_path, updates=12, during=during)
    assert [(x.update, x.rule) for x in read_notes(tmp_path).interventions] == [(10, "finite")]
    assert torch.isfinite(learner.flat).all()


def test_an_update_without_a_finite_step_climbs_the_ladder(tmp_path: Path) -> None:
    def during(run: Run, learner: Learner, update: int) -> None:
        if update in (10, 11):
            learner.skipped, learner.updates = learner.skipped + 1, learner.updates - 1

    go(tmp_path / "late", updates=13, during=during)
    assert [x.action for x in read_notes(tmp_path / "late").interventions] == ["skip", "halve"]

    def at_once(run: Run, learner: Learner, update: int) -> None:
        learner.skipped, learner.updates = learner.skipped + 1, learner.updates - 1

    with pytest.raises(FloatingPointError, match="in any of 1 gradient steps"):
        go(tmp_path / "soon", updates=13, during=at_once)


def test_a_run_goes_on_with_its_guard(tmp_path: Path) -> None:
    """Killed before, between and after what the guard does, a run ends as the one that was not."""
    rules = [rule_at(9, 10, 11, action="halve")]
    told: dict[str, Any] = {"rules": rules, "returns": [float(x % 7) for x in range(40)], "without": ("return",)}
    _, whole, _, _ = go(tmp_path / "whole", updates=20, saved=True, **told)
    assert [x.action for x in read_notes(tmp_path / "whole").interventions] == ["halve", "rollback", "rollback"]
    for killed_after in (6, 9, 10, 11, 12, 17):
        there = tmp_path / str(killed_after)
        shutil.copytree(tmp_path / "whole", there)
        for manifest in (there / "checkpoints").glob("*.json"):
            if manifest.stem == "best" or int(manifest.stem) > killed_after:
                manifest.unlink()
        _, resumed, _, _ = go(there, updates=20, **told)
        assert sha_of(resumed) == sha_of(whole)
        assert rate_factor_of(resumed) == rate_factor_of(whole)
        assert read_notes(there) == read_notes(tmp_path / "whole")


def test_a_rule_that_is_asked_for_needs_something_to_read(tmp_path: Path) -> None:
    told: dict[str, Any] = SHORT | {"algo": "a2c", "guarding": {"rules": ["kl"]}}
    with pytest.raises(ConfigError, match=r"guarding.rules names 'kl', which reads loss/approx_kl, but"):
        shoal.train("CartPole-v1", run_dir=tmp_path, **told)
    with pytest.raises(ConfigError, match=r"no rule 'kll'; did you mean 'kl'"):
        Guarding(rules=("kll",))
    with pytest.raises(ConfigError, match="both name 'kl'"):
        Guarding(rules=("kl",), without=("kl",))


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"band": 2.0}, "band must be between 0.01 and 1, got 2"),
        ({"memory_gib": 0}, "memory_gib must be above 0"),
        ({"verify": 1.5}, "verify must be a whole number"),
        ({"kl": float("inf")}, r"kl must be finite, got inf; guarding.without = \['kl'\]"),
        ({"explosion": float("inf")}, r"guarding.without = \['value', 'gradient'\]"),
        ({"entropy": 0.0}, "entropy must be between 1e-09 and 0.99"),
    ],
)
def test_limits_that_no_rule_can_have(settings: dict[str, Any], said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        Guarding(**settings)


def test_rules_of_a_user_are_checked(tmp_path: Path) -> None:
    def two(seen: Seen, more: int) -> None: ...

    def wrong(seen: Seen) -> Any:
        return 3

    def raises(seen: Seen) -> Any:
        raise ZeroDivisionError

    cases: list[tuple[Any, dict[str, Any], str]] = [
        ([two], {}, "called with what was seen alone"),
        ([3], {}, "cannot be called"),
        (3, {}, "rules is a list"),
        ([rule_at(1)], {"guard": "off"}, "the guard's, which is off"),
        ([wrong], {}, "returned 3"),
    ]
    for rules, more, said in cases:
        with pytest.raises(ConfigError, match=said):
            shoal.train("CartPole-v1", run_dir=tmp_path, rules=rules, **SHORT, **more)
    with pytest.raises(ZeroDivisionError) as caught:
        shoal.train("CartPole-v1", run_dir=tmp_path, rules=[raises], **SHORT)
    assert caught.value.__notes__ == ["shoal: raised by the guard's rule raises"]


def test_a_run_that_was_stopped_stays_stopped(tmp_path: Path) -> None:
    """Resumed, it ends at once; without a guard it goes on from the verified best."""
    first, learner, _, _ = go(tmp_path, updates=40, rules=[rule_at(10, action="stop")])
    assert first.updates == 10
    again, resumed, _, _ = go(tmp_path, updates=40)
    assert (again.updates, again.stop_reason) == (10, first.stop_reason)
    assert sha_of(resumed) == sha_of(learner)
    assert (tmp_path / "stopped.json").exists()
    free, on, _, _ = go(tmp_path, updates=20, guarded=False)
    assert (free.updates, free.stop_reason) == (20, "total_timesteps")
    assert not (tmp_path / "stopped.json").exists()
    assert sha_of(on) != sha_of(learner)


@pytest.mark.parametrize("updates", [1, 7])
def test_a_short_run_is_looked_at_once(tmp_path: Path, updates: int) -> None:
    """At its end, where no check was due; what a rule says may end it as the guard would have, and is kept in short."""
    told: dict[str, Any] = SHORT | {"num_envs": 4, "num_steps": 8, "num_minibatches": 2}
    told["total_timesteps"] = updates * 32
    seen: list[int] = []

    def rule(seen_: Seen) -> str:
        seen.append(seen_.update)
        return "much\x1b[31m to\nsay " * 1000

    with pytest.warns(UserWarning, match="much.*goes on with 0.5 times its learning rate, if the run is resumed"):
        result = shoal.train("CartPole-v1", run_dir=tmp_path, rules=[rule], **told)
    assert seen == [updates]
    [made] = read_notes(result.path).interventions
    assert made.said.startswith(r"much\x1b[31m to\nsay much")
    assert len(made.said) < 400
    assert result.stop_reason == "total_timesteps"
    with pytest.warns(UserWarning, match="as the test says"):
        ended = shoal.train("CartPole-v1", run_dir=tmp_path, rules=[rule_at(updates, action="stop")], **told)
    assert ended.stop_reason.startswith("guard: as the test says")
    assert (ended.path / "stopped.json").exists()


def test_a_run_that_takes_no_step_says_that_its_rules_were_not_called(tmp_path: Path) -> None:
    said: list[str] = []

    class Listening:
        episodes = False

        def __call__(self, run: Run, record: Any) -> None: ...

        def warn(self, message: str) -> None:
            said.append(message)

    def during(run: Run, learner: Learner, update: int) -> None:
        learner.updates = 0
        if update == 1:
            run.callbacks.append(Listening())

    go(tmp_path, updates=3, rules=[rule_at(1)], during=during)
    assert len(said) == 1
    assert "no gradient step was taken in 3 updates, so the guard looked at nothing and never called" in said[0]


def test_many_long_sentences_are_read_back(tmp_path: Path) -> None:
    """In whatever script, half a pair of surrogates included; the file stays as small as its reader allows."""
    made = tuple(
        Intervention(x, x, "policy", "own", "halve", "\U0001f409" * (SAID - 1) + "\ud800") for x in range(MOST)
    )
    write_notes(RunDirectory(tmp_path), Notes(MOST, made))
    assert read_notes(tmp_path).interventions == made


def test_a_guard_that_cannot_go_back_says_so(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    told: dict[str, Any] = SHORT | {"total_timesteps": 4096, "panel": "plain", "guarding": {"memory_gib": 1e-6}}
    shoal.train("CartPole-v1", run_dir=tmp_path, **told)
    said = capsys.readouterr().out
    assert (
        "GiB, and guarding.memory_gib is 1e-06: the guard can halve its rate and stop the run, but not go back" in said
    )
