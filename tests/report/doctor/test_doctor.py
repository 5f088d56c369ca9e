"""The doctor: the right first finding on broken runs, silence on healthy ones, and what it says of damage."""

from __future__ import annotations

import json
import tomllib
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from shoal import cli
from shoal.report.doctor.costs import above_limit, paid_for
from shoal.report.doctor.doctor import RULES, as_text, diagnose, examine
from shoal.report.doctor.evidence import Evidence
from shoal.report.doctor.learning import fell, no_learning
from shoal.run.directory import RunDirectory

FOLDER = Path(__file__).parent
ENTRIES: list[dict[str, Any]] = tomllib.loads((FOLDER / "configurations.toml").read_text(encoding="utf-8"))["run"]
BROKEN = [entry for entry in ENTRIES if "expect" in entry]
HEALTHY = [entry for entry in ENTRIES if "expect" not in entry]


def first_findings(entries: list[dict[str, Any]]) -> dict[str, str]:
    """By the name of a run the rule of its first finding, empty where there is none."""
    found: dict[str, str] = {}
    for entry in entries:
        findings = diagnose(RunDirectory(FOLDER / "runs" / entry["name"]))
        found[entry["name"]] = findings[0].rule if findings else ""
    return found


@pytest.mark.parametrize("late", [False, True], ids=["seen", "late"])
def test_right_about_broken_runs(late: Any) -> None:
    entries = [entry for entry in BROKEN if entry.get("late", False) is late]
    found = first_findings(entries)
    wrong = {entry["name"]: found[entry["name"]] for entry in entries if found[entry["name"]] not in entry["expect"]}
    assert wrong == {}


@pytest.mark.parametrize("late", [False, True], ids=["seen", "late"])
def test_silent_on_healthy_runs(late: Any) -> None:
    entries = [entry for entry in HEALTHY if entry.get("late", False) is late]
    assert {name: rule for name, rule in first_findings(entries).items() if rule} == {}


def test_collection_is_whole() -> None:
    assert {path.name for path in (FOLDER / "runs").iterdir()} == {entry["name"] for entry in ENTRIES}


@pytest.mark.parametrize("state", ["running", "stopped"])
def test_nothing_is_said_of_healthy_runs_that_go_on(state: str) -> None:
    """However much of them is there: what has not begun to learn, to end episodes or answers still may."""
    said: set[tuple[str, int, str]] = set()
    for name in (entry["name"] for entry in HEALTHY):
        whole = Evidence.of(RunDirectory(FOLDER / "runs" / name))
        count = len(whole.lines)
        kept = {key: x for key, x in whole.status.items() if not key.startswith("greedy")}
        for length in sorted({1, 2, 3, 5, 8, *(int(count * share / 10) for share in range(1, 10))}):
            lines = whole.lines[:length]
            status = kept | {"steps": lines[-1]["step"], "updates": lines[-1].get("update", 0), "state": state}
            found = {one.rule for one in examine(replace(whole, status=status, lines=lines))}
            said |= {(name, length, rule) for rule in found - {"interrupted"}}
    if state == "stopped":  # where these stand, they are said of
        said = {one for one in said if one[2] in ("episodes-never-end", "returns-all-equal", "answers-cut")}
    assert said == set()


def test_rules_on_nothing() -> None:
    """No rule fails where a run left nothing, or lines without the numbers that it asks for."""
    nothing = Evidence({}, {}, [])
    assert [finding.rule for finding in examine(nothing)] == ["never-began"]
    assert examine(Evidence({}, {"state": "paused", "updates": 88}, [])) == []
    assert "no-metrics" in [found.rule for found in examine(Evidence({}, {"state": "stopped", "updates": 88}, []))]
    only = {"step": 2048, "update": 1, "episode/count": 82, "episode/return": 20.0, "episode/return_std": 8.0}
    assert examine(Evidence({}, {"state": "running", "updates": 1}, [only])) == []
    for state in ("starting", "paused"):
        assert examine(Evidence({}, {"state": state}, [])) == []
    bare = Evidence({}, {"state": "finished"}, [{"step": 0}, {"step": 10, "episode/return": None}])
    for rule in RULES:
        rule(bare)


def test_the_collection_names_no_machine() -> None:
    """Neither a folder of whoever trained it, nor the seal that is valid there alone."""
    for config in (FOLDER / "runs").glob("*/config.toml"):
        origin = tomllib.loads(config.read_text(encoding="utf-8")).get("origin", {})
        assert not {"folders", "seal"} & set(origin), config.parent.name


def test_any_numbers() -> None:
    """Numbers of strangers break no rule, whatever they are."""
    rng = np.random.default_rng(0)
    sizes = [0.0, -1.0, 1e-300, 1e99, -1e99, 0.5, 3, None]
    names = sorted({name for run in (FOLDER / "runs").iterdir() for name in Evidence.of(RunDirectory(run)).lines[-1]})
    settings = sorted({name for run in (FOLDER / "runs").iterdir() for name in Evidence.of(RunDirectory(run)).config})
    for _ in range(200):
        lines: list[dict[str, Any]] = []
        for step in range(int(rng.integers(0, 5))):
            chosen = [str(name) for name in rng.choice(names, 12)]
            lines.append({"step": step} | {name: sizes[rng.integers(len(sizes))] for name in chosen if name != "step"})
        config = {str(name): (*sizes, "text", True)[rng.integers(10)] for name in rng.choice(settings, 30)}
        status = {"state": "finished", "threshold": sizes[rng.integers(8)], "updates": int(rng.integers(0, 99))}
        as_text(examine(Evidence(config, status, lines)))


@pytest.mark.parametrize("broken", ["", "{", '{"state": 3}'])
def test_damaged_status(tmp_path: Path, broken: str, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "config.toml").write_text('env = "CartPole-v1"\n', encoding="utf-8")
    (tmp_path / "run.json").write_text(broken, encoding="utf-8")
    with pytest.raises(SystemExit, match="2"):
        run_command("doctor", str(tmp_path))
    assert "run.json" in capsys.readouterr().err


def test_damaged_metrics_are_not_none(tmp_path: Path) -> None:
    """Lines that cannot be read are damage, not a run that ended before its first update."""
    (tmp_path / "config.toml").write_text('env = "x"\n', encoding="utf-8")
    (tmp_path / "run.json").write_text('{"state": "finished", "steps": 3}', encoding="utf-8")
    (tmp_path / "metrics.jsonl").write_text("{\n" * 4, encoding="utf-8")
    names = [found.rule for found in diagnose(RunDirectory(tmp_path))]
    assert "damaged-metrics" in names
    assert "never-began" not in names


@pytest.mark.parametrize("lines", [0, 3])
def test_a_run_whose_status_is_not_there_is_not_healthy(tmp_path: Path, lines: int) -> None:
    """A directory that was copied without it, or that a run left before its first update."""
    (tmp_path / "config.toml").write_text('env = "x"\n', encoding="utf-8")
    text = '{"step": 4096, "episode/count": 400, "episode/return": 9.0}\n' * lines
    (tmp_path / "metrics.jsonl").write_text(text, encoding="utf-8")
    first = diagnose(RunDirectory(tmp_path))[0]
    assert first.rule == "nothing-to-judge-by"
    assert ("by the 3 lines" if lines else "neither a run.json") in first.what


def test_hostile_text_is_harmless(tmp_path: Path) -> None:
    (tmp_path / "config.toml").write_text('env = "x"\n', encoding="utf-8")
    status = {"state": "failed", "reason": "\x1b[2Jgone\n<script>", "steps": 3}
    (tmp_path / "run.json").write_text(json.dumps(status), encoding="utf-8")
    said = as_text(diagnose(RunDirectory(tmp_path)))
    assert "\\x1b[2Jgone\\n<script>" in said[0]


def test_advice_for_a_module_of_the_users_own_names_no_setting_of_the_network() -> None:
    found = Evidence.of(RunDirectory(FOLDER / "runs" / "rate-too-low"))
    own = no_learning(replace(found, config={**found.config, "policy": "nets:Mine"}))
    assert own is not None
    assert "network." not in own.advice
    assert "normalize_reward" in own.advice


@pytest.mark.parametrize(
    ("greedy", "trained", "weights", "said"),
    [
        (6.0, 7.0, [1.0, 1.0, 2.0, 3.0], "the multiplier still grows"),
        (6.0, 7.0, [3.0, 3.0, 3.0, 3.0], "a cost_limit below the one"),
        (6.0, 4.0, [3.0, 3.0, 3.0, 3.0], "evaluate with sampled actions"),
        (None, 7.0, [], "a cost_limit below"),
        (5.2, 7.0, [], ""),
        (None, 5.0, [], ""),
    ],
)
def test_costs_above_their_limit(greedy: float | None, trained: float, weights: list[float], said: str) -> None:
    lines = [{"step": 1, "info/cost": trained}, *({"constraint/multiplier": weight} for weight in weights)]
    config = {"algorithm.cost_limit": 5.0}
    found = above_limit(Evidence(config, {"greedy_cost": greedy}, lines))
    assert (found is not None) == bool(said)
    if found is not None:
        assert said in found.advice
        assert f"costs {found.numbers['cost']:g} on average, above the limit of 5" in found.what
    assert above_limit(Evidence({}, {"greedy_cost": greedy}, lines)) is None


def test_a_return_that_was_paid_for_a_limit() -> None:
    """Costs came under their limit and the return went down: that is what was learned."""
    costs, returns = [30.0] * 5 + [2.0] * 5, [50.0] * 5 + [-39.0] * 5
    lines = [
        {"step": 1000 * n, "episode/count": 10 * n, "episode/return": gained, "episode/return_std": 5.0, "info/cost": x}
        for n, (gained, x) in enumerate(zip(returns, costs, strict=True), 1)
    ]
    status = {"state": "finished", "env_steps": 10_000}
    config = {"algorithm.cost_limit": 4.0, "total_timesteps": 10_000}
    found = paid_for(Evidence(config, status, lines))
    assert found is not None
    assert "an episode cost 30 at first and 2 at the end. The mean return was 50 and is -39" in found.what
    assert no_learning(Evidence(config, status, lines)) is None
    assert fell(Evidence(config, status, lines)) is None
    assert paid_for(Evidence({}, status, lines)) is None
    costly = [line | {"info/cost": 30.0} for line in lines]
    assert paid_for(Evidence(config, status, costly)) is None


@pytest.mark.parametrize(("last", "spread", "silent"), [(71.0, 3.5, True), (71.0, 40.0, False), (52.0, 3.5, False)])
def test_returns_that_became_alike_at_a_higher_mean_were_learned(last: float, spread: float, silent: Any) -> None:
    """Those of random episodes may scatter by more than can be gained."""
    returns, spreads = np.linspace(48, last, 20), np.linspace(44, spread, 20)
    lines = [
        {"step": at, "episode/return": mean, "episode/return_std": std, "episode/count": 50 * at}
        for at, (mean, std) in enumerate(zip(returns, spreads, strict=True), 1)
    ]
    found = no_learning(Evidence({}, {"state": "finished", "steps": 20}, lines))
    assert (found is None) == silent


@pytest.mark.parametrize(
    ("last", "said"), [(-0.84, "little was learned: the mean return rose"), (-1.25, "nothing was learned")]
)
@pytest.mark.parametrize("normalized", [False, True])
def test_little_is_not_nothing(last: float, said: str, normalized: Any) -> None:
    """Seven standard errors of a mean of 100 episodes are no chance; what is set already is not advised."""
    lines = [
        {"step": at, "episode/return": mean, "episode/return_std": 0.606, "episode/count": 100 * at}
        for at, mean in enumerate(np.linspace(-1.282, last, 20), 1)
    ]
    config = {"algorithm.network.normalize_obs": normalized}
    found = no_learning(Evidence(config, {"state": "finished", "steps": 20}, lines))
    assert found is not None
    assert found.what.startswith(said)
    assert ("network.normalize_obs" in found.advice) != normalized


@pytest.mark.parametrize(("last", "said"), [(0.605, ""), (0.2, "no-learning"), (0.156, "no-learning")])
def test_answers_that_are_right_or_wrong_scatter_however_much_was_learned(last: float, said: str) -> None:
    """And what a language model is advised names no setting of environments."""
    returns = np.linspace(0.156, last, 20)
    lines = [
        {"step": 64 * at, "episode/return": mean, "episode/return_std": 0.45, "groups/truncated": 0.0}
        | {"episode/count": 64 * at, "loss/entropy": 0.5 / at**3}
        for at, mean in enumerate(returns, 1)
    ]
    config = {"algorithm.num_generations": 8, "total_timesteps": 1280}
    status = {"state": "finished", "steps": 1280, "updates": 20, "greedy_return": 2.0}
    found = [one for rule in RULES if (one := rule(Evidence(config, status, lines))) is not None]
    assert ("no-learning" in {one.rule for one in found}) == bool(said)
    foreign = ("num_envs", "num_steps", "network.", "preset", "ent_coef", "learning_rate_schedule", "reward_scale")
    assert [one.advice for one in found if any(name in one.advice for name in foreign)] == []


def test_command(capsys: pytest.CaptureFixture[str]) -> None:
    run_command("doctor", str(FOLDER / "runs" / "rate-too-high"))
    assert capsys.readouterr().out.startswith("1. updates change the policy too much")
    run_command("doctor", str(FOLDER / "runs" / "rate-too-high"), "--json")
    told = json.loads(capsys.readouterr().out)
    assert told["findings"][0]["rule"] == "learning-rate-too-high"
    assert told["findings"][0]["numbers"]["loss/approx_kl"] > 1


def run_command(*arguments: str) -> None:
    """Runs a command as the terminal does; SystemExit where its status is not 0."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("sys.argv", ["shoal", *arguments])
        try:
            cli.main()
        except SystemExit as ended:
            if ended.code:
                raise
