"""Panels: the kinds, what the live one shows and leaves, and the arithmetic of its figures."""

import io
import json
import math
import sys
from dataclasses import dataclass, replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from rich.console import Console

from shoal.memory.settings import FromData
from shoal.report.live import Live, core_shares_line, shares, sparkline
from shoal.report.panel import Json, Plain, Silent, panel_of, result_line
from shoal.run.callbacks import EpisodeEnd, wants_episodes
from shoal.run.settings import Settings
from shoal.stream import meter
from shoal.stream.meter import Meter
from shoal.types import ConfigError

FIRST = {
    "step": 1000,
    "update": 1,
    "episode/count": 40,
    "episode/return": 20.0,
    "loss/policy": 0.5,
    "speed/sps": 1000.0,
    "time/elapsed": 1.0,
    "time/environment": 0.1,
    "time/acting": 0.2,
    "time/learning": 0.3,
    "time/waiting": 0.0,
    "time/transfer": 0.0,
}
SECOND = FIRST | {
    "step": 25_000,
    "episode/count": 1234,
    "episode/return": 321.54,
    "loss/policy": -0.0123,
    "loss/value": 4.5,
    "speed/sps": 12_000.0,
    "time/elapsed": 3.0,
    "time/environment": 0.3,
    "time/acting": 0.7,
    "time/learning": 1.3,
    "time/transfer": 0.1,
}


@dataclass(frozen=True)
class Result:
    path: Path = Path("runs/x")
    steps: int = 65_536
    seconds: float = 1.52
    greedy_return: float = 499.96
    greedy_cost: float = math.nan
    greedy_cost_worst: float = math.nan
    cost_limit: float | None = None
    greedy_episodes: int = 100
    mean_return: float = 400.0
    threshold: float | None = 475.0
    solved: bool = True
    bottleneck: str = ""


def make_run(device: str = "cpu", stop_at: float | None = 475.0) -> Any:
    settings = Settings("CartPole-v1", "ppo", 7, 8, 100_000, stop_at=stop_at, device=device)
    return SimpleNamespace(settings=settings, meter=Meter())


def make_console() -> Console:
    return Console(record=True, file=io.StringIO(), force_terminal=True, width=100, height=40)


def shown(run: Any, *records: dict[str, Any]) -> str:
    console = make_console()
    live = Live(console)
    for record in records:
        live(run, record)
        live._next = -1.0
    text = console.export_text()
    live.close()
    return text


def test_kinds(monkeypatch: pytest.MonkeyPatch) -> None:
    kinds = {"live": Live, "plain": Plain, "json": Json, "none": Silent}
    assert {name: type(panel_of(name)) for name in kinds} == kinds
    for terminal, kind in ((True, Live), (False, Plain)):
        monkeypatch.setattr(sys, "stdout", SimpleNamespace(isatty=lambda terminal=terminal: terminal))
        assert type(panel_of("auto")) is kind
    with pytest.raises(ConfigError, match=r"no panel 'fancy'; there are auto, live, plain, json, none"):
        panel_of("fancy")


def test_live_shows_the_figures() -> None:
    text = shown(make_run(), FIRST, SECOND)
    last = text[text.rindex("╭") :]
    for figure in (
        "CartPole-v1 · ppo · seed 7 · cpu",
        "25,000 of 100,000 steps",
        "25 %",
        "0:06 left",  # 75,000 steps at 24,000 steps in 2 s
        "12,000 steps/s",
        "1,234",
        "321.5, stops at 475",
        "▁█",
        "policy -0.0123",
        "value 4.5",
    ):
        assert figure in last
    bars = {name: line for line in last.splitlines() for name in meter.ACTIVITIES if f" {name} " in line}
    assert {name: int(line.rstrip("│ ").split()[-2]) for name, line in bars.items()} == {
        "environment": 10,
        "acting": 25,
        "learning": 50,
        "waiting": 10,
        "transfer": 5,
    }
    assert "GPU" not in last


def test_live_shows_tokens_of_both_sides() -> None:
    """Of a language model: what is drawn and learned, how long answers are and how late."""
    run = make_run()
    run.settings = replace(run.settings, schedule="async")
    record = SECOND | {
        "episode/length": 12.25,
        "speed/tokens_drawn": 5210.4,
        "speed/tokens_learned": 4980.0,
        "groups/staleness": 0.75,
        "groups/staleness_max": 1.0,
        "groups/lost": 3.0,
    }
    text = shown(run, record)
    for row in ("12,000 answers/s", "5,210 tokens/s", "4,980 tokens/s", "12.2 tokens", "0.8 versions, 1 at most"):
        assert row in text
    assert "3 answers" in text


def test_live_without_episodes_or_threshold() -> None:
    record = {k: v for k, v in FIRST.items() if k != "episode/return"} | {"loss/value": float("nan")}
    text = shown(make_run(stop_at=None), record)
    assert "return    -  " in text
    assert "stops at" not in text
    assert "value nan" in text


def test_live_counts_updates_where_no_step_is_taken() -> None:
    run = make_run()
    run.settings = replace(run.settings, total_timesteps=0, data=FromData("set", updates=200))
    text = shown(run, FIRST | {"update": 0}, FIRST | {"update": 50})
    assert "50 of 200 updates" in text
    assert "25 %" in text


def test_live_draws_rarely(monkeypatch: pytest.MonkeyPatch) -> None:
    now = [0.0]
    monkeypatch.setattr("shoal.report.live.time.monotonic", lambda: now[0])
    live = Live(make_console())
    drawn: list[float] = []
    draw = live.draw
    monkeypatch.setattr(live, "draw", lambda run: (drawn.append(now[0]), draw(run))[1])
    run = make_run()
    for number in range(2000):
        now[0] = number / 2000
        live(run, FIRST)
    live.close()
    assert len(drawn) == 8
    assert drawn[:3] == [0.0, 0.125, 0.25]


def test_live_warnings_are_counted_and_survive(capsys: pytest.CaptureFixture[str]) -> None:
    console = make_console()
    live = Live(console)
    live.warn("before the first record")
    assert capsys.readouterr().err == "warning: before the first record\n"
    live(make_run(), FIRST)
    for message in ("slow", "slow", "odd"):
        live.warn(message)
    live(make_run(), SECOND)
    text = console.export_text()
    assert "! slow (×2)" in text
    assert "! odd" in text
    live.close()
    live.close()
    assert capsys.readouterr().err == "warning: slow (×2)\nwarning: odd\n"


def test_greedy_returns_stand_beside_those_of_training(capsys: pytest.CaptureFixture[str]) -> None:
    """The last one of an evaluation, also in lines that have none of their own."""
    evaluated = FIRST | {"eval/return": 432.1}
    text = shown(make_run(), evaluated, SECOND)
    last = text[text.rindex("╭") :]
    assert "432.1" in next(line for line in last.splitlines() if " greedy " in line)
    plain = Plain(every_s=0.0)
    for record in (FIRST, evaluated, SECOND):
        plain(make_run(), record)
    before, *after = capsys.readouterr().out.splitlines()
    assert "greedy" not in before
    assert [line.endswith("steps/s  greedy return    432.1") for line in after] == [True, True]


@pytest.mark.parametrize("kind", ["live", "plain"])
def test_warnings_without_their_colors(kind: str, capsys: pytest.CaptureFixture[str]) -> None:
    """Other codes, which could steer a terminal, are shown as text."""
    panel_of(kind).warn("\x1b[33mWARN: odd\x1b[0m\x1b]0;title")
    assert capsys.readouterr().err == "warning: WARN: odd\\x1b]0;title\n"


def test_a_note_stands_above_the_panel() -> None:
    console = make_console()
    live = Live(console)
    live.note("first rollout under way: 128 steps of 16 rows")
    assert console.export_text() == "first rollout under way: 128 steps of 16 rows\n"


def test_live_leaves_a_summary() -> None:
    console = make_console()
    live = Live(console)
    live(make_run(), SECOND)
    console.export_text()
    live.finish(Result())
    live.close()
    lines = [line for line in console.export_text().splitlines() if line.strip() and line[0] not in "│╭╰"]
    assert lines == [
        "step     25,000  return    321.5        12,000 steps/s",
        "greedy return 500.0 over 100 episodes (threshold 475 met), 65,536 steps, 1.5 s: runs/x",
    ]


def test_result_line() -> None:
    missed = Result(greedy_return=10.0, solved=False)
    assert "greedy return 10.0 over 100 episodes (threshold 475 missed)" in result_line(missed)
    assert "threshold" not in result_line(Result(threshold=None))
    costly = result_line(Result(greedy_cost=5.5, greedy_cost_worst=9.0, cost_limit=5.0))
    assert "(threshold 475 met), greedy cost 5.5 an episode, at worst 9 (limit 5 missed), 65,536 steps" in costly
    unplayed = Result(greedy_return=math.nan, solved=False)
    assert "no greedy return, mean return 400.0 (threshold 475 missed)" in result_line(unplayed)


def test_panels_end_with_the_bottleneck(capsys: pytest.CaptureFixture[str]) -> None:
    said = "learning takes 70 % of the time: fewer update_epochs shorten it"
    console = make_console()
    Live(console).finish(Result(bottleneck=said))
    assert console.export_text().splitlines()[-1] == said
    Plain().finish(Result(bottleneck=said))
    assert capsys.readouterr().out.splitlines()[-1] == said
    Json().finish(Result(bottleneck=said))
    assert json.loads(capsys.readouterr().out)["bottleneck"] == said


def test_core_shares() -> None:
    assert core_shares_line([0.914, 1.0]) == "91 % 100 % busy"
    assert core_shares_line([1.0, 0.5, 0.75, 0.75, 1.0]) == "80 % busy, the least 50 %"


def test_shares() -> None:
    assert shares(FIRST, SECOND) == pytest.approx(
        {"environment": 0.1, "acting": 0.25, "learning": 0.5, "waiting": 0.1, "transfer": 0.05}
    )
    assert shares(FIRST, FIRST) == pytest.approx(
        {"environment": 0.1, "acting": 0.2, "learning": 0.3, "waiting": 0.4, "transfer": 0.0}
    )


def test_sparkline() -> None:
    assert sparkline([0, 1, 2, 3, 4, 5, 6, 7], 8) == "▁▂▃▄▅▆▇█"
    assert sparkline([0, 0, 7, 7, 3, 4], 3) == "▁█▅"
    assert sparkline([5.0, 5.0], 8) == "▁▁"
    assert sparkline([float("nan")], 8) == ""


def test_gpu_without_nvml(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda device: (2**30, 4 * 2**30))
    monkeypatch.setattr(torch.cuda, "utilization", lambda device: 37)
    assert meter.gpu_use("cuda") == "37 %, 3.0 of 4.0 GiB"
    assert "37 %, 3.0 of 4.0 GiB" in shown(make_run("cuda"), FIRST)

    def missing(device: str) -> int:
        raise ModuleNotFoundError("nvidia-ml-py does not seem to be installed")

    monkeypatch.setattr(torch.cuda, "utilization", missing)
    assert meter.gpu_use("cuda") == "3.0 of 4.0 GiB (no NVML: pip install nvidia-ml-py shows the use)"


def test_plain_and_json(capsys: pytest.CaptureFixture[str]) -> None:
    plain = Plain()
    plain(make_run(), FIRST)
    plain(make_run(), SECOND)  # within two seconds: not shown
    plain.warn("careful")
    plain.finish(Result())
    out, err = capsys.readouterr()
    assert out.splitlines() == [
        "step      1,000  return     20.0         1,000 steps/s",
        "greedy return 500.0 over 100 episodes (threshold 475 met), 65,536 steps, 1.5 s: runs/x",
    ]
    assert err == "warning: careful\n"
    Json()(make_run(), FIRST | {"loss/value": float("nan")})
    Json().warn("careful")
    Json().finish(Result())
    record, warning, result = map(json.loads, capsys.readouterr().out.splitlines())
    assert record == FIRST | {"loss/value": None}
    assert warning == {"warning": "careful"}
    assert (result["greedy_return"], result["solved"], result["run"]) == (499.96, True, "runs/x")


@pytest.mark.parametrize("kind", ["live", "plain", "json", "none"])
def test_panels_pass_over_ends_of_episodes(kind: str, capsys: pytest.CaptureFixture[str]) -> None:
    panel = panel_of(kind)
    assert not wants_episodes(panel)
    panel(make_run(), EpisodeEnd(step=8, row=0, agent="", episode_return=1.0, length=1, info={}))
    panel.close()
    assert capsys.readouterr() == ("", "")


def test_silent_warns(capsys: pytest.CaptureFixture[str]) -> None:
    silent = panel_of("none")
    silent(make_run(), FIRST)
    with pytest.warns(UserWarning, match=r"^careful \\x1b\]0;title$"):
        silent.warn("\x1b[33mcareful\x1b[0m \x1b]0;title")
    assert capsys.readouterr() == ("", "")
