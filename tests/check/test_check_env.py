"""`check_env`: each defect is found by its own check and by no other; good environments pass; nothing hangs."""

from __future__ import annotations

import json
import re
import signal
import subprocess
import sys
import threading
import time
import warnings
from functools import partial
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
from gymnasium import spaces

import shoal
from shoal.check.check_env import check_env, read_kwargs
from shoal.check.play import Played, check_scales
from shoal.check.report import CHECKS, Finding, Findings, Report, Speed, duration
from shoal.check.told import check_told
from shoal.check.watch import TimeUp, within
from shoal.types import ConfigError
from tests import bad_envs
from tests.contract import toys
from tests.fork_server import Interpreter
from tests.learn.envs import Forever, Recall

STEPS = 600
# The name of the defect, the one check that finds it, its verdict, and what it must say and advise.
DEFECTS = [
    (
        "WrongShape",
        "observation",
        "error",
        r"at reset 1 the observation has the shape \(4,\), but the space has \(3,\)",
    ),
    ("WrongType", "observation", "error", r"type float64, but the space has float32.*astype\(np\.float32\)"),
    ("NanAtStep", "finite", "error", r"at step 7 of episode \d, after the action [01], the observation holds 3 NaN"),
    ("NoObservation", "observation", "error", r"is None, a NoneType.*return np\.array"),
    ("Outside", "bounds", "warning", r"outside \[-1\.0, 1\.0\].*widen the bounds"),
    ("OneBuffer", "buffers", "warning", r"the observation returned at reset 1 changed later, from \[.*\.copy\(\)"),
    ("SharedBuffer", "shared", "error", r"the observation of one instance changed when another was stepped"),
    ("SharedState", "shared", "error", r"stepped in turn with a second instance, it comes out different: at step 2"),
    ("OwnRandomness", "determinism", "error", r"after reset with the same seed: at step 1 .*self\.np_random"),
    ("SeedIgnored", "seed", "warning", r"seeds 0 and 1 gave the same \d+ steps.*super\(\)\.reset\(seed=seed\)"),
    (
        "OwnGenerator",
        "resume",
        "warning",
        r"row 0 (ended|did not come back).*in a new instance|in a new instance, row 0",
    ),
    ("NeverEnds", "ends", "warning", r"no episode ended in 600 random steps.*max_episode_steps"),
    ("LimitTerminates", "time-limit", "warning", r"all 40 episodes were terminated at step 15 exactly.*truncated=True"),
    (
        "ActionChanged",
        "actions",
        "warning",
        r"at step 1 of episode \d.* changed the action it was given: \[.* became \[",
    ),
    ("SlowStep", "speed", "warning", r"steps per second bare.*1 M steps take \d+ min: profile step\(\)"),
    ("SlowReset", "resets", "warning", r"\d\d% of the time passes in reset\(\).*__init__"),
    ("InfiniteReward", "reward", "error", r"at step 5 of episode \d.*the reward is inf"),
    ("TextReward", "reward", "error", r"at step 1 .*the reward is '1\.0'.*return a float"),
    ("LargeReward", "reward-scale", "warning", r"mean size .*e\+07.*--reward-scale 1e-0[67]"),
    ("NoReward", "reward-scale", "warning", r"every reward was 0 in 600 random steps"),
    ("UnevenScale", "obs-scale", "warning", r"\(component 1\).*--network\.normalize-obs"),
    ("FourValues", "step", "error", r"at step 1 .*step\(\) returned 4 values.*terminated, truncated, info"),
    ("ResetWithoutInfo", "reset", "error", r"at reset 1 reset\(\) returned array.*\(observation, info\)"),
    (
        "ResetWithoutSeed",
        "reset",
        "error",
        r"at reset 1 TypeError: .*unexpected keyword.*super\(\)\.reset\(seed=seed\)",
    ),
    ("WrongFlag", "step", "error", r"truncated = None"),
    ("RaisesAtStep", "raises", "error", r"at step 6 of episode \d.*KeyError: 'coffee', in bad_envs\.py:\d+ in move"),
    ("RaisesInRows", "raises", "error", r"row 2 at step 1 of its episode.*OSError: the port is taken, in bad_envs"),
    ("HangsInStep", "hangs", "error", r"at step 4 of episode \d.*no answer after .*bad_envs\.py:\d+ in move"),
    ("HangsInReset", "hangs", "error", r"at reset 2 no answer after .*in reset \(`time\.sleep\(0\.01\)`\)"),
    ("CloseRaises", "close", "error", r"the first close\(\) raised AttributeError: no window"),
    ("NoSpace", "spaces", "error", r"action_space is None.*in __init__"),
    (
        "TextSpace",
        "spaces",
        "error",
        r"observation_space\['said'\] is Text.*no arrays of fixed size.*--preprocessing\.text words.*keep-keys",
    ),
    ("NothingToChoose", "spaces", "error", r"action_space is Box.*holds no numbers.*leave it out"),
    ("Unbounded", "action-scale", "warning", r"action_space is unbounded.*finite bounds"),
    ("NestedWrong", "observation", "error", r"has no part \['n'\]"),
    ("Doubles", "dtype", "warning", r"observation_space holds float64.*use float32"),
    (
        "RaisesWhenMade",
        "make",
        "error",
        r"while it was made: RuntimeError: no license, in bad_envs\.py:\d+ in __init__",
    ),
    ("make_one", "make", "error", r"it is the same object.*return a new environment from each call"),
    ("make_nothing", "make", "error", r"returned NoneType, expected a gymnasium\.Env"),
]

# What instances share, each of them overwrites too, and rows of it are refused.
IMPLIED = {"SharedBuffer": {"buffers": "warning", "rows": "error"}}


def find_faults(report: Report) -> dict[str, str]:
    return {finding.name: finding.verdict for finding in report.findings if finding.verdict != "ok"}


@pytest.fixture(autouse=True)
def _fresh() -> None:
    bad_envs.RaisesInRows.made.clear()


TAKE_LONG = ("SlowStep", "Unbounded", "Doubles")
MARKED = [pytest.param(*each, marks=[pytest.mark.slow] * (each[0] in TAKE_LONG)) for each in DEFECTS]


@pytest.mark.parametrize(("name", "check", "verdict", "told"), MARKED, ids=[defect[0] for defect in DEFECTS])
def test_each_defect_is_found_by_its_check_alone(name: str, check: str, verdict: str, told: str) -> None:
    steps, timeout_s = 200 if "Slow" in name else STEPS, 1 if "Hangs" in name else 30
    report = check_env(getattr(bad_envs, name), steps=steps, timeout_s=timeout_s)
    assert find_faults(report) == {check: verdict} | IMPLIED.get(name, {}), str(report)
    (finding,) = [finding for finding in report.findings if finding.name == check]
    assert re.search(told, f"{finding.says} {finding.advice}"), finding
    assert report.ok is (verdict != "error")


@pytest.mark.slow
def test_what_was_not_reached_is_not_called_good() -> None:
    """Steps that were never taken say nothing of finite numbers, bounds, rewards, ..."""

    class Bare(Forever):
        def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> Any:
            return super().reset(seed=seed, options=options)[0]

    report = check_env(Bare)
    seen = {finding.name: finding.verdict for finding in report.findings}
    assert seen == {"make": "ok", "spaces": "ok", "reset": "error", "close": "ok"}


def test_a_leak_is_found_with_its_line() -> None:
    try:
        report = check_env(bad_envs.Leak, steps=3000)
    finally:
        bad_envs.Leak.kept.clear()
    assert find_faults(report) == {"memory": "warning"}, str(report)
    (finding,) = report.warnings
    assert re.search(r"memory grew by \d+ MiB in 2,\d+ steps.*taken in bad_envs\.py:\d+", finding.says)
    assert re.search(r"1 M steps need 1\d\.\d GB more", finding.advice)


@pytest.mark.parametrize("env", [bad_envs.Good, bad_envs.Continuous], ids=["Good", "Continuous"])
def test_a_good_environment_has_no_faults(env: Any) -> None:
    report = check_env(env, steps=STEPS)
    assert find_faults(report) == {}, str(report)
    assert report.skipped == ()
    assert report.speed is not None
    assert report.speed.bare > 1000
    assert report.speed.rows > 1000
    assert 0 < report.speed.reset_share < 1
    assert "determinism" in [finding.name for finding in report.findings]


class Larger(gym.Env[Any, Any]):
    """The README's."""

    observation_space = gym.spaces.Box(-1, 1, (2,), np.float32)
    action_space = gym.spaces.Discrete(2)

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> Any:
        super().reset(seed=seed)
        self.turn, self.numbers = 0, self.np_random.uniform(-1, 1, 2).astype(np.float32)
        return self.numbers, {}

    def step(self, action: Any) -> Any:
        reward = float(self.numbers.argmax() == action)
        self.turn, self.numbers = self.turn + 1, self.np_random.uniform(-1, 1, 2).astype(np.float32)
        return self.numbers, reward, self.turn == 10, False, {}


@pytest.mark.parametrize(
    ("env", "warned"),
    [
        ("CartPole-v1", set()),
        pytest.param("Pendulum-v1", {"obs-scale", "reward-scale"}, marks=pytest.mark.slow),
        pytest.param("LunarLander-v3", {"bounds", "obs-scale"}, marks=pytest.mark.slow),
        pytest.param("FrozenLake-v1", set(), marks=pytest.mark.slow),
        pytest.param("Taxi-v4", set(), marks=pytest.mark.slow),
        (Larger, {"time-limit"}),
        pytest.param(toys.Corridor, set(), marks=pytest.mark.slow),
        (toys.Lamps, {"actions", "dtype"}),
        (toys.make_pointer, {"buffers"}),
        (Recall, {"time-limit", "obs-scale", "resets"}),  # a reset costs more than its five steps
        (Forever, {"seed"}),
    ],
)
def test_environments_that_train_have_no_errors(env: Any, warned: set[str]) -> None:
    report = check_env(env, steps=1500)
    assert report.ok, str(report)
    # "speed": how fast a machine is that has other work is no property of the environment.
    assert {finding.name for finding in report.warnings} <= warned | {"speed"}, str(report)


def test_a_hang_in_another_thread_is_found() -> None:
    made: list[Report] = []

    def check() -> None:
        made.append(check_env(bad_envs.HangsInReset, steps=STEPS, timeout_s=0.5))

    thread = threading.Thread(target=check)
    thread.start()
    thread.join(30)
    assert find_faults(made[0]) == {"hangs": "error"}
    assert "at reset 2" in made[0].errors[0].says


def test_another_timer_goes_on_after_a_check() -> None:
    rung: list[int] = []
    handler = signal.signal(signal.SIGALRM, lambda number, _: rung.append(number))
    before = signal.setitimer(signal.ITIMER_REAL, 0.3)
    try:
        with pytest.raises(TimeUp, match=r"time\.sleep"):
            within(0.05, lambda: time.sleep(5), beat=lambda: 0)
        assert within(1.0, lambda: 7, beat=lambda: 0) == 7
        assert rung == []
        time.sleep(0.5)
        assert rung == [signal.SIGALRM]
    finally:
        signal.signal(signal.SIGALRM, handler)
        signal.setitimer(signal.ITIMER_REAL, *before)


def test_what_blocks_python_ends_with_its_process() -> None:
    """A loop in C, which keeps the interpreter's lock: no signal is handled, so the process ends, its stack printed."""
    program = (
        "from collections import deque; from itertools import repeat\n"
        "from shoal.check.watch import within\n"
        "def block():\n"
        "    deque(repeat(0), maxlen=0)\n"
        "within(0.2, block, beat=lambda: 0, ends_at_s=0.8)\n"
    )
    began = time.monotonic()
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False, timeout=50)
    assert time.monotonic() - began < 30
    assert done.returncode == 1
    assert re.search(r"Timeout \(0:00:00\.8.*line 4 in block", done.stderr, re.DOTALL), done.stderr


def test_slow_steps_are_no_hang() -> None:
    """As long as steps are taken, the limit of one call begins anew."""
    beats = iter(range(100))
    assert within(0.05, lambda: time.sleep(0.3), beat=lambda: next(beats)) is None


def test_spaces_that_differ_from_instance_to_instance() -> None:
    sizes = iter(range(2, 90))

    def make() -> gym.Env[Any, Any]:
        env = bad_envs.Good()
        env.action_space = spaces.Discrete(next(sizes))
        return env

    report = check_env(make, steps=50)
    assert find_faults(report) == {"spaces": "error"}
    assert "row 1 has another action_space than row 0" in report.errors[0].says


def test_instances_that_behave_differently() -> None:
    """Each instance alone is deterministic; a second one steps another way from the same seed."""
    strengths = iter(range(1, 90))

    class Windy(bad_envs.Good):
        def __init__(self) -> None:
            super().__init__()
            self.wind = 0.01 * next(strengths)

        def move(self, action: Any) -> None:
            super().move(action)
            self.point[0] += self.wind

    report = check_env(Windy, steps=50)
    assert find_faults(report)["determinism"] == "error"
    assert "in another instance" in report.errors[0].says


def test_an_action_with_one_open_bound() -> None:
    class HalfOpen(bad_envs.Continuous):
        def __init__(self) -> None:
            super().__init__()
            self.action_space = spaces.Box(-1, np.inf, (1,), np.float32)

        def step(self, action: Any) -> Any:
            return super().step(np.clip(action, -1, 1))

    report = check_env(HalfOpen, steps=50)
    assert report.ok  # training takes it
    assert find_faults(report)["action-scale"] == "warning"
    assert "action_space is unbounded" in str(report)


def test_bad_usage() -> None:
    with pytest.raises(ConfigError, match="did you mean CartPole-v1"):
        check_env("CartPol-v1")
    with pytest.raises(ConfigError, match="shoal/Pong-v0 is native, and check-env plays environments in Python"):
        check_env("shoal/Pong-v0")
    with pytest.raises(ConfigError, match="no keyword 'lenght'"):
        check_env(bad_envs.Good, env_kwargs={"lenght": 3})
    with pytest.raises(ConfigError, match="steps must be at least 1"):
        check_env(bad_envs.Good, steps=0)
    with pytest.raises(ConfigError, match="pass a function that makes a new one"):
        check_env(bad_envs.Good())  # pyright: ignore[reportArgumentType]


def test_keywords_are_read_as_toml_or_text() -> None:
    given = ["length=4", "map=8x8", "wind=true", "size=[1, 2]", 'name="a b"', "left=a=b"]
    read = {"length": 4, "map": "8x8", "wind": True, "size": [1, 2], "name": "a b", "left": "a=b"}
    assert read_kwargs(given) == read
    with pytest.raises(ConfigError, match="takes name=value, got 'length'"):
        read_kwargs(["length"])


@pytest.mark.slow
def test_spaces_of_other_kinds() -> None:
    class Bits(bad_envs.Good):
        def __init__(self) -> None:
            super().__init__()
            self.action_space = spaces.MultiBinary(3)

        def move(self, action: Any) -> None:
            super().move(int(action[0]))

    class Square(bad_envs.Continuous):
        def __init__(self) -> None:
            super().__init__()
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                self.action_space = spaces.Box(np.array([[-1], [0]]), np.array([[1], [0]]), (2, 1), np.float32)

    assert find_faults(check_env(Bits, steps=100)) == {}
    assert find_faults(check_env(bad_envs.Nested, steps=100)) == {}
    report = check_env(Square, steps=100)
    assert find_faults(report) == {"spaces": "error"}
    assert "low 0.0 and high 0.0 at [1, 0]" in report.errors[0].says


def test_names_and_costs_are_told() -> None:
    found, env = Findings(), toys.Pointer()
    env.metadata = {"feature_names": ["x", "y", "vx", "vy"]}
    played = Played(steps=2, costs=2, obs=[np.zeros(4), np.arange(4.0)])
    check_told(found, env, "Toy", played)
    check_scales(found, played)
    told = {one.name: one.says for one in found.all}
    assert told["names"] == "has feature names x, y, vx, vy"
    assert "--preprocessing.cost-key cost" in told["cost"]
    assert "0.5 (y) to 1.5 (vy)" in told["obs-scale"]
    env.metadata = {"action_names": ["left"]}
    wrong = Findings()
    check_told(wrong, env, "Toy", Played(steps=2, costs=1))
    assert [one.verdict for one in wrong.all] == ["warning"]


def test_findings_keep_the_first_and_the_worst() -> None:
    found = Findings()
    found.ok("seed", "fine")
    found.warn("seed", "first", "")
    found.warn("seed", "second", "")
    assert [finding.says for finding in found.all] == ["first"]
    found.error("seed", "worse", "")
    found.ok("seed", "fine")
    found.ok("make", "told first")
    assert [(finding.verdict, finding.says) for finding in found.all] == [("ok", "told first"), ("error", "worse")]


def test_every_check_is_documented_in_order() -> None:
    page = (Path(__file__).parents[2] / "docs" / "check-env.md").read_text(encoding="utf-8")
    rows = [
        line.split("|")[1]
        for line in page.splitlines()
        if re.match(r"\| `[a-z-]+`(, `[a-z-]+`)* \| (error|warn)", line)
    ]
    assert re.findall(r"`([a-z-]+)`", " ".join(rows)) == list(CHECKS)


def test_report_as_text_and_record() -> None:
    findings = (Finding("make", "ok", "made twice"), Finding("ends", "warning", "never", "give it a limit"))
    report = Report("X-v0", findings, ("resume",), Speed(0.1, 20_000, 25_000, 8, 0.25, 0.0), 1.5)
    assert str(report).splitlines() == [
        "X-v0: 1 warning, 1 checks passed, 1.5 s",
        "  ok       make: made twice",
        "  warning  ends: never",
        "           give it a limit",
        "  Not checked, because of the above: resume.",
        "  1 M steps take about 40 s in `serial`, without learning.",
    ]
    record: Any = report.record()
    assert record["ok"] is True
    assert record["speed"]["million_s"] == 40
    assert json.loads(json.dumps(record))["findings"][1]["advice"] == "give it a limit"
    assert [duration(s) for s in (0.0004, 40, 720, 12_600)] == ["0.4 ms", "40 s", "12 min", "3.5 h"]


def test_export() -> None:
    assert shoal.check_env is check_env


def test_command(tmp_path: Path, interpreter: Interpreter) -> None:
    run_command = partial(interpreter.shoal, "check-env", folder=tmp_path)
    source = (
        "import time\n"
        "from gymnasium.envs.classic_control import CartPoleEnv\n"
        "class Own(CartPoleEnv):\n"
        "    def __init__(self, bad=False):\n"
        "        super().__init__()\n"
        "        self.bad = bad\n"
        "    def step(self, action):\n"
        "        obs, *rest = super().step(action)\n"
        "        return (obs[:2] if self.bad else obs), *rest\n"
    )
    (tmp_path / "own_env.py").write_text(source)
    done = run_command("own_env:Own", "--steps", "400")
    assert (done.returncode, done.stderr) == (0, "")
    assert "own_env:Own: no errors, no warnings" in done.stdout
    assert re.search(r"1 M steps take about .* in `serial`", done.stdout)
    done = run_command("own_env:Own", "--steps", "400", "--env-kwargs", "bad=true", "--json")
    assert (done.returncode, done.stderr) == (1, "")
    record = json.loads(done.stdout)
    assert [f["name"] for f in record["findings"] if f["verdict"] == "error"] == ["observation"]
    assert record["skipped"] == ["determinism", "rows", "speed", "resume"]
    done = run_command("own_env:Own", "--env-kwargs", "bat=true")
    assert done.returncode == 2
    assert done.stderr == "shoal check-env: own_env:Own has no keyword 'bat'; did you mean bad?\n"
    assert run_command("Nothing-v7").returncode == 2


def test_torch_stays_out() -> None:
    program = "import sys; from shoal.check.check_env import check_env; check_env('CartPole-v1', steps=50); "
    program += "sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", program], check=False).returncode == 0


@pytest.mark.parametrize("place", ["__init__", "reset", "step", "close"])
def test_an_environment_that_leaves_the_process_fails_its_check(place: str) -> None:
    """`sys.exit(0)` ended the check with the exit status of one that found nothing."""

    def leave(*_: object, **__: object) -> None:
        sys.exit(0)

    report = check_env(type("Leaves", (bad_envs.Good,), {place: leave}), steps=STEPS)
    name = {"__init__": "make", "close": "close"}.get(place, "raises")
    (finding,) = [finding for finding in report.findings if finding.name == name]
    assert (finding.verdict, report.ok, "SystemExit" in finding.says) == ("error", False, True)
