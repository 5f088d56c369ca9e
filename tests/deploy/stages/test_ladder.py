"""Who may enter a stage, sign it and go back: nobody past a missing signature or a criterion that does not hold."""

from __future__ import annotations

from itertools import pairwise

import pytest

from shoal.deploy.stages.ladder import check_may_enter, rolled_back, signed
from shoal.deploy.stages.telling import told
from shoal.run.stage_file import STAGES, Criterion, Entry, Stages
from shoal.types import ConfigError

OLD, NEW = "a" * 64, "b" * 64


def entered(stages: Stages, stage: str, policy: str = OLD, *, measured: float | None = 1.0) -> Stages:
    """With one more entry; its criterion is at least 0.5."""
    criteria = () if measured is None else (Criterion("agreement", measured, 0.5),)
    check_may_enter(stages, stage, policy)
    return stages.added(Entry(stage, "now", policy, 8, "a test", criteria=criteria))


def climbed(upto: str, policy: str = OLD, stages: Stages | None = None) -> Stages:
    """All stages signed up to one, that included."""
    made = stages or Stages()
    for stage in STAGES[: STAGES.index(upto) + 1]:
        made = signed(entered(made, stage, policy), policy, "A. Sato")
    return made


def test_every_stage_needs_the_one_before_signed() -> None:
    with pytest.raises(
        ConfigError, match=r"replay cannot be entered: this policy, aaaaaaaaaaaa, never entered simulate"
    ):
        check_may_enter(Stages(), "replay", OLD)
    for before, stage in pairwise(STAGES):
        made = climbed(before)
        check_may_enter(made, stage, OLD)
        again = entered(made, before)
        with pytest.raises(ConfigError, match=f"{stage} cannot be entered: {before} is not signed"):
            check_may_enter(again, stage, OLD)
    with pytest.raises(ConfigError, match=r"no stage 'moon'"):
        check_may_enter(Stages(), "moon", OLD)


def test_what_does_not_hold_is_neither_signed_nor_passed() -> None:
    made = entered(climbed("replay"), "shadow", measured=0.25)
    with pytest.raises(ConfigError, match=r"shadow cannot be signed.*agreement: 0.25, must be at least 0.5"):
        signed(made, OLD, "A. Sato")
    with pytest.raises(ConfigError, match=r"canary cannot be entered: shadow was measured, and agreement: 0.25"):
        check_may_enter(made, "canary", OLD)
    made = entered(climbed("replay"), "shadow", measured=None)
    with pytest.raises(ConfigError, match=r"not measured yet"):
        signed(made, OLD, "A. Sato")


def test_names() -> None:
    made = entered(Stages(), "simulate")
    for name in ("", "  ", "x" * 101, "A\x1b[2J"):
        with pytest.raises(ConfigError, match=r"has a name"):
            signed(made, OLD, name)
    made = signed(made, OLD, "<b>A. Sato</b>")
    assert any("<b>A. Sato</b>" in line for line in told(made, OLD))
    with pytest.raises(ConfigError, match=r"signed already, by <b>A. Sato</b>"):
        signed(made, OLD, "B")


def test_a_policy_that_changed_begins_anew() -> None:
    made = climbed("shadow")
    with pytest.raises(ConfigError, match=r"the signature of A. Sato is of another policy, aaaaaaaaaaaa, and void"):
        check_may_enter(made, "canary", NEW)
    with pytest.raises(ConfigError, match=r"nothing to sign.*void for this one: it has changed since"):
        signed(made, NEW, "A. Sato")
    assert sum("void for this one" in line for line in told(made, NEW)) == 3
    assert climbed("simulate", NEW, made).standing(NEW)[-1].stage == "simulate"
    check_may_enter(made, "canary", OLD)


def test_entering_again_takes_later_stages_away() -> None:
    made = entered(climbed("shadow"), "replay", measured=0.0)
    assert [one.stage for one in made.standing(OLD)] == ["simulate", "replay"]
    with pytest.raises(ConfigError, match=r"shadow cannot be entered: replay was measured"):
        check_may_enter(made, "shadow", OLD)


def test_rollback_goes_to_the_stage_before() -> None:
    made = entered(climbed("shadow"), "canary", measured=None)
    made = entered(made, "canary")
    made, said = rolled_back(made, "B. Ito", "it shook")
    assert said.startswith("canary of the policy aaaaaaaaaaaa")
    assert [one.stage for one in made.standing(OLD)] == ["simulate", "replay", "shadow"]
    assert any(
        "withdrawn: canary of aaaaaaaaaaaa, by B. Ito" in line and "it shook" in line for line in told(made, OLD)
    )
    for name, reason in (("", "why"), ("B", ""), ("B", "\x1b")):
        with pytest.raises(ConfigError, match=r"name|reason"):
            rolled_back(made, name, reason)
    with pytest.raises(ConfigError, match=r"nothing to go back from"):
        rolled_back(Stages(), "B", "why")


def test_rollback_brings_the_policy_before_back() -> None:
    first = climbed("full")
    assert first.deployed is not None
    second = climbed("full", NEW, first)
    assert second.deployed is not None
    assert second.deployed.policy == NEW
    back, _ = rolled_back(second, "B", "worse")
    assert back.deployed is not None
    assert back.deployed.policy == OLD
    assert "deployed: aaaaaaaaaaaa" in "\n".join(told(back, NEW))
