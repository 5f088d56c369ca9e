"""A sweep's file: what it means, what is refused before anything runs, and what its directory holds."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from shoal.experiment.sweep import sweep as sweeping
from shoal.experiment.sweep.plan import for_trials, keep_plan, kept_plan, read_plan
from shoal.experiment.sweep.settings import SweepSettings
from shoal.experiment.sweep.sweep import show, sweep
from shoal.stream.meter import cores
from shoal.types import ConfigError
from tests.experiment.sweep.fake import RATES, make_plan


def refuse(said: str, whole: dict[str, Any]) -> None:
    with pytest.raises(ConfigError, match=said):
        read_plan(whole)


def with_sweep(**table: Any) -> dict[str, Any]:
    return {"env": "CartPole-v1", "sweep": {"trials": 4, **table}, "space": RATES}


def test_a_file_starts_from_the_preset_that_train_would_take() -> None:
    plan = make_plan()
    assert plan.base.config.learning_rate == 0.003
    assert plan.base.options.num_envs == 32
    bare = read_plan({**with_sweep(), "preset": "none"})
    assert bare.base.options.num_envs == 16
    own = read_plan({**with_sweep(), "num_envs": 8, "algorithm": {"gamma": 0.95}})
    assert (own.base.options.num_envs, own.base.config.gamma) == (8, 0.95)


def test_trials_have_one_thread_and_equal_steps() -> None:
    plan = make_plan()
    own = for_trials(plan.base, plan.settings).options
    assert (own.num_threads, own.stop_at, own.final_episodes) == (1, float("inf"), 100)
    timed = make_plan(objective="seconds_to_threshold")
    assert for_trials(timed.base, timed.settings).options.stop_at is None
    assert make_plan(parallel=0).settings.at_a_time() == cores()


def test_what_cannot_work_is_refused_in_words() -> None:
    refuse(r"no table \[sweep\]", {"env": "CartPole-v1"})
    refuse("names no environment", {"sweep": {"trials": 4}})
    refuse("no search space", {"env": "CartPole-v1", "sweep": {"trials": 4}})
    refuse("has no budget", {"env": "CartPole-v1", "sweep": {}, "space": RATES})
    refuse("trials must be between 1 and 1e\\+06, got 0", with_sweep(trials=0))
    refuse("seconds must be above 0", with_sweep(seconds=0))
    refuse("seconds must be finite", with_sweep(seconds=float("inf")))
    refuse("patience must be between 0 and 1000", with_sweep(patience=1e9))
    refuse("no objective 'reward'; .*There are return", with_sweep(objective="reward"))
    refuse("did you mean seconds_to_threshold", with_sweep(objective="seconds_to_treshold"))
    refuse("money is seconds times a price", with_sweep(objective=["return", "money"]))
    refuse("objective is one of return", with_sweep(objective="seconds"))
    refuse("no setting 'trails'; did you mean trials", with_sweep(trails=3))
    refuse(r"\[sweep\]: no setting 'zzz'; There are trials, seconds, .*max_failures$", with_sweep(zzz=3))
    refuse(r"\[sweep\]: num_envs is a setting of training; it stands at the top of the file", with_sweep(num_envs=3))
    refuse(
        r"\[space.gamma\]: no setting 'zzz'; There are low, high, .*choices",
        with_sweep() | {"space": {"gamma": {"low": 0.9, "high": 0.99, "zzz": 1}}},
    )
    refuse(r"\[sweep\]: trials must be a whole number", with_sweep(trials="many"))
    refuse(f"more than the {cores()} cores", with_sweep(parallel=cores() + 1))
    refuse(f"this machine has {cores()}", with_sweep(cpus=cores() + 1))
    refuse("patience must be at least 1", with_sweep(patience=0.5))
    refuse("no setting|unknown keys", {**with_sweep(), "learning_rat": 1})
    refuse("space must hold tables", {**with_sweep(), "space": 3})
    refuse(r"actors = 2 processes .*cpus = 1", {**with_sweep(), "actors": 2})
    refuse(r"placed on a fleet by \[sweep\] fleet", {**with_sweep(), "fleet": "local"})
    refuse("would change nothing", {**with_sweep(), "space": {"max_staleness": {"low": 2, "high": 3}}})
    refuse("no environment", {**with_sweep(), "env": "CartPol-v1"})


def test_seconds_to_a_threshold_need_one() -> None:
    own = {**with_sweep(objective="seconds_to_threshold"), "env": "Pendulum-v1"}
    refuse("needs a return that counts as solved", own)
    assert read_plan({**own, "stop_at": -200}).threshold == -200


def test_a_directory_holds_its_plan_and_refuses_another(tmp_path: Path) -> None:
    folder = tmp_path / "one"
    folder.mkdir()
    plan = make_plan(search=["gamma"])
    keep_plan(folder, plan)
    again = kept_plan(folder)
    assert again.space == plan.space
    assert again.table() == plan.table()
    keep_plan(folder, make_plan(search=["gamma"], trials=64, confirm_seeds=9))  # a larger budget
    assert kept_plan(folder).settings.trials == 64
    other = {"learning_rate": {"low": 1e-4, "high": 1e-3, "log": True}}
    with pytest.raises(ConfigError, match=r"another sweep, which differs in space\.learning_rate\.high"):
        keep_plan(folder, make_plan(other, search=["gamma"]))
    with pytest.raises(ConfigError, match=r"differs in sweep\.seeds"):
        keep_plan(folder, make_plan(search=["gamma"], seeds=2))


def test_a_directory_of_something_else_is_refused(tmp_path: Path) -> None:
    (tmp_path / "precious").write_text("mine")
    with pytest.raises(ConfigError, match="holds no sweep"):
        sweep(with_sweep(), out=tmp_path, panel="none")
    with pytest.raises(ConfigError, match="no directory of a sweep"):
        sweep(tmp_path, panel="none")
    with pytest.raises(ConfigError, match="no directory of a sweep"):
        show(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["precious"]
    with pytest.raises(ConfigError, match="no file"):
        sweep(tmp_path / "nothing.toml", out=tmp_path / "out", panel="none")
    with pytest.raises(ConfigError, match="panel of a sweep"):
        sweep(with_sweep(), out=tmp_path, panel="live")


def test_two_sweeps_do_not_share_a_directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sweeping, "LOCK_S", 0.1)
    folder = tmp_path / "one"
    with (
        sweeping.locked(folder),
        pytest.raises(ConfigError, match="another process sweeps"),
        sweeping.locked(folder),
    ):
        pass


def test_every_setting_of_a_sweep_is_described() -> None:
    page = (Path(__file__).parents[3] / "docs" / "sweeps.md").read_text(encoding="utf-8")
    for name in SweepSettings.__dataclass_fields__:
        assert f"`{name}`" in page, name


def test_names_of_code_are_the_caller_s_own_or_need_trust(tmp_path: Path) -> None:
    """A mapping is the caller's; a file is not, and neither are the values of its space."""
    own = {**with_sweep(), "env": f"{__name__}:small_pole"}
    refuse(r"which would be imported and run, .* If you trust the file: --trust, or trust=True in Python$", own)
    assert read_plan(own, ours=True).base.options.env == own["env"]
    assert read_plan(own, trust=True).base.options.env == own["env"]
    rates = {"learning_rate_schedule": {"choices": ["linear", f"{__name__}:half"]}}
    space = {**with_sweep(), "space": rates}
    refuse(r"\[space.learning_rate_schedule\] names '.*:half', which its trials would import", space)
    assert len(read_plan(space, ours=True).space) == 1


def small_pole() -> Any:
    """An environment."""
    import gymnasium as gym

    return gym.make("CartPole-v1")


def half(done: float) -> float:
    """A schedule."""
    return 0.5
