"""Costs: figures worked by hand, tables that do not fit, runs that failed, break-even, forecasts."""

from __future__ import annotations

import json
import os
import time
from math import inf
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from shoal.cli import cost as command
from shoal.report.cost.compared import costs_of
from shoal.report.cost.forecast import duration, forecast
from shoal.report.cost.machines import Owned, Rented, break_even_hours, said_of_break_even
from shoal.report.cost.money import Money
from shoal.report.cost.prices import BUNDLED, find_prices, own_path, read_prices
from shoal.report.cost.spent import cost_on, spent_by
from shoal.report.cost.telling import cost_line
from shoal.report.facts import Processors, facts_of
from shoal.run.directory import RunDirectory
from shoal.types import ConfigError

HEAD = 'date = 2026-11-01\nsource = "an invoice"\n'
OWN = """
[machines.box]
price = 240_000
years = 5
hours_per_month = 200
watts = 150
per_kwh = 30
cores = 4
"""
YEN = HEAD + 'currency = "JPY"\ndefault = "box"\n[rates]\nUSD = 150\n' + OWN
# An hour of the box: 240,000 / 60 months / 200 hours = 20, and 0.15 kW · 30 = 4.5.
BOX_HOUR = 24.5


@pytest.fixture(autouse=True)
def no_own_prices(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """No test reads the user's table."""
    monkeypatch.delenv("SHOAL_PRICES", raising=False)
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "settings"))


def table(folder: Path, text: str = YEN) -> Path:
    """A price table."""
    path = folder / "prices.toml"
    path.write_text(text)
    return path


def written(folder: Path, name: str, **status: Any) -> RunDirectory:
    """A run of two hours on four cores, two of which it kept busy."""
    path = folder / name
    path.mkdir(parents=True)
    (path / "config.toml").write_text('env = "CartPole-v1"\nalgo = "ppo"\ntotal_timesteps = 1000\n')
    usage = {"wall_s": 7200.0, "processor_s": 14400.0, "paused_s": 60.0, "cores": 4, "processor": "a processor"}
    whole = {"state": "finished", "seed": 1, "threshold": 475.0, "greedy_return": 500.0, "usage": usage} | status
    (path / "run.json").write_text(json.dumps(whole))
    return RunDirectory(path)


def test_money_as_it_is_read() -> None:
    """Yen have no decimals; less than the smallest coin is not shown as nothing."""
    shown = [Money(1234.5, "USD"), Money(1234.6, "JPY"), Money(0.0042, "USD"), Money(0.034, "JPY"), Money(0, "JPY")]
    assert [str(money) for money in shown] == ["1,234.50 USD", "1,235 JPY", "0.0042 USD", "0.034 JPY", "0 JPY"]


def test_currencies_are_not_mixed() -> None:
    """Without a rate two currencies are neither added nor compared."""
    with pytest.raises(ConfigError, match="different currencies"):
        _ = Money(1, "USD") + Money(1, "JPY")
    with pytest.raises(ConfigError, match=r"under \[rates\]: USD ="):
        Money(1, "USD").into("JPY", {})
    assert Money(2, "USD").into("JPY", {"USD": 150.0}) == Money(300, "JPY")


def test_an_hour(tmp_path: Path) -> None:
    """Of an own machine: its share of the price, and power; of a rented one: its price."""
    prices = read_prices(table(tmp_path))
    assert prices.machine("box").hour().amount == pytest.approx(BOX_HOUR)
    assert Rented("cloud", Money(0.2, "USD")).hour() == Money(0.2, "USD")


def test_cost_of_runs_and_failures(tmp_path: Path) -> None:
    """Failures cost too: what a result costs is the whole by the runs that met their threshold."""
    runs = [
        written(tmp_path, "good"),
        written(tmp_path, "missed", greedy_return=100.0),
        written(tmp_path, "crashed", state="failed", greedy_return=None),
    ]
    prices = read_prices(table(tmp_path))
    costs = costs_of(runs, prices)
    assert [cost.amount for cost in costs.costs] == [pytest.approx(2 * BOX_HOUR)] * 3
    assert costs.whole.amount == pytest.approx(6 * BOX_HOUR)
    assert costs.lost.amount == pytest.approx(2 * BOX_HOUR)
    assert costs.results == 1
    assert costs.per_result is not None
    assert costs.per_result.amount == pytest.approx(6 * BOX_HOUR)


def test_other_machines(tmp_path: Path) -> None:
    """One with fewer cores than were busy takes longer; `shared` counts the share of cores."""
    spent = spent_by(written(tmp_path, "run"))
    assert spent.busy == 2.0
    one_core = Rented("one", Money(0.1, "USD"), cores=1)
    eight = Rented("eight", Money(0.8, "USD"), cores=8)
    fast = Rented("fast", Money(0.8, "USD"), cores=8, speed=2.0)
    assert cost_on(spent, one_core).amount == pytest.approx(0.1 * 2 * 2)
    assert cost_on(spent, eight).amount == pytest.approx(0.8 * 2)
    assert cost_on(spent, eight, shared=True).amount == pytest.approx(0.8 * 2 * 2 / 8)
    assert cost_on(spent, fast).amount == pytest.approx(0.8)


def test_break_even() -> None:
    """Hours at which what is lost in value a month equals rent less power."""
    yen = "JPY"
    own = Owned("box", Money(240_000, yen), 5, 200, 150, Money(30, yen))
    rented = Rented("cloud", Money(44.5, yen))
    assert break_even_hours(own, rented) == pytest.approx(4000 / 40)
    assert break_even_hours(own, rented, factor=2) == pytest.approx(4000 / 84.5)
    assert "buying pays from 100 hours" in said_of_break_even(own, rented)
    assert "buying is cheaper" in said_of_break_even(own, rented)
    cheap = Rented("cheap", Money(4.0, yen))
    assert break_even_hours(own, cheap) == inf
    assert "less than the power" in said_of_break_even(own, cheap)
    assert "renting is always cheaper" in said_of_break_even(own, Rented("low", Money(6.0, yen)))


def test_prices_of_the_user_first(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """--prices, then SHOAL_PRICES, then the settings' folder; the bundled machines stand beside."""
    assert own_path() is None
    assert find_prices().path == BUNDLED
    folder = tmp_path / "settings" / "shoal"
    folder.mkdir(parents=True)
    table(folder)
    assert find_prices().path == folder / "prices.toml"
    monkeypatch.setenv("SHOAL_PRICES", str(table(tmp_path)))
    found = find_prices()
    assert found.path == tmp_path / "prices.toml"
    assert {"box", "aws c7i.xlarge"} <= set(found.machines)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "it has no currency"),
        ('currency = "JPY"\n', "there are no machines"),
        ('currency = "JPY"\n[machines.a]\nper_hour = 1\n', "date must say"),
        (HEAD + 'currency = "JPY"\n[machines.a]\nper_hours = 1\n', "no setting machines.a.per_hours; did you mean"),
        (HEAD + 'currency = "JPY"\n[machines.a]\nprice = 1\n', "machines.a has no cores|has no years"),
        (HEAD + 'currency = "JPY"\n[machines.a]\nper_hour = -1\n', "must be at least 0, got -1"),
        (HEAD + 'currency = "JPY"\n[machines.a]\nper_hour = "1"\n', "must be a number"),
        (HEAD + 'currency = "JPY"\n[machines.a]\nper_hour = nan\n', "must be at least 0, got nan"),
        (HEAD + 'currency = "JPY"\n[machines.a]\nper_hour = 1\ncores = -1\n', "cores must be at least 0"),
        (HEAD + 'currency = "JPY"\n[machines.a]\nper_hour = 1\nspeed = 0\n', "speed must be above 0 and at most 1,000"),
        (YEN.replace("hours_per_month = 200", "hours_per_month = 1000"), "and at most 744, as the longest month has"),
        (YEN.replace("watts = 150", "watts = 1e9"), "machines.box.watts must be at least 0 and at most 10,000,000"),
        (YEN.replace("USD = 150", "JPY = 2"), "rates.JPY says what one JPY is worth in JPY"),
        (HEAD + 'currency = "JPY"\ndefault = "b"\n[machines.a]\nper_hour = 1\n', "no machine 'b'.*it has a"),
        (HEAD + 'currency = "JPY"\n[rates]\nUSD = 0\n[machines.a]\nper_hour = 1\n', "rates.USD must be above 0"),
        (HEAD + 'currency = "JPY"\nrates = 5\n[machines.a]\nper_hour = 1\n', "rates is no table"),
        (HEAD + 'currency = "JPY"\ndefault = 5\n[machines.a]\nper_hour = 1\n', "default must be a text"),
        (HEAD + 'currency = "JPY"\n[machines.a]\nper_hour = 1\nhosts = 5\n', "machines.a.hosts must be names"),
        (HEAD + 'currency = "JPY"\n[machines.a]\nper_hour = 1\nhosts = "b"\n', "machines.a.hosts must be names"),
        (HEAD + 'currency = "JPY"\n[machines.a]\nper_hour = 1\ncurrency = 5\n', "machines.a.currency must be a text"),
        (
            HEAD + 'currency = "JPY"\n[machines.a]\nper_hour = 1\nhosts = ["x"]\n'
            '[machines.b]\nper_hour = 1\nhosts = ["x"]\n',
            "host 'x' is of a and of b",
        ),
        ("currency = ", "is not TOML"),
    ],
)
def test_tables_that_do_not_fit(text: str, said: str, tmp_path: Path) -> None:
    """Each is refused by what is wrong, and where."""
    with pytest.raises(ConfigError, match=said):
        read_prices(table(tmp_path, text))


def test_machines_that_are_not_there(tmp_path: Path) -> None:
    """A table without the machine is refused with the names that it has; so is a run of an unknown host."""
    run = written(tmp_path, "run", host="elsewhere")
    prices = read_prices(table(tmp_path))
    with pytest.raises(ConfigError, match=r"no machine 'bok'.*did you mean box\? it has box"):
        costs_of([run], prices, ran_on="bok")
    with pytest.raises(ConfigError, match=r"ran on the host elsewhere.*a table of your own.*--prices FILE"):
        costs_of([run], read_prices(BUNDLED))
    text = YEN.replace("USD = 150", "EUR = 150")
    with pytest.raises(ConfigError, match="without a rate"):
        costs_of([run], read_prices(table(tmp_path, text)).beside(read_prices(BUNDLED)), against=["aws c7i.xlarge"])
    left = costs_of([run], read_prices(table(tmp_path, text)).beside(read_prices(BUNDLED)))
    assert "aws c7i.xlarge" in left.left_out["USD"]


def test_a_run_that_was_killed_costs_until_its_last_word(tmp_path: Path) -> None:
    """Its last status is older than its last line of metrics."""
    run = written(tmp_path, "run", state="running", pid=2**22 + 5)
    run.metrics.write_text("")
    now = time.time()
    os.utime(run.status, (now - 3600, now - 3600))
    os.utime(run.metrics, (now, now))
    spent = spent_by(run)
    assert spent.state == "interrupted"
    assert spent.wall_s == pytest.approx(7200 + 3600, abs=1)


def test_status_of_earlier_versions_and_hostile_ones(tmp_path: Path) -> None:
    """Without usage the seconds of training count; nonsense is as if it were not there."""
    old = written(tmp_path, "old", usage={"wall_s": "many"}, seconds=100.0)
    assert (spent_by(old).wall_s, spent_by(old).busy) == (100.0, 0.0)
    assert spent_by(written(tmp_path, "odd", usage={"wall_s": -5}, seconds=7.0)).wall_s == 7.0
    with pytest.raises(ConfigError, match="usage cannot be"):
        spent_by(written(tmp_path, "list", usage=[1]))


def curve(slope: float, *, noise: float = 0.0, count: int = 60) -> list[dict[str, Any]]:
    """Lines of metrics, one each ten seconds."""
    rng = np.random.default_rng(0)
    found: list[dict[str, Any]] = []
    for number in range(1, count + 1):
        at = 10.0 * number
        value = 20 + slope * at + noise * rng.standard_normal()
        found.append({"step": 100 * number, "time/elapsed": at, "episode/return": value})
    return found


def test_forecast() -> None:
    """A straight line is gone on with; noise widens the interval; a flat one says nothing."""
    straight = forecast(curve(0.2), 200.0, 20_000)
    assert straight is not None
    assert straight.likely_s == pytest.approx((200 - 20) / 0.2 - 590, rel=0.02)
    assert straight.at_end_s == pytest.approx(1400)
    noisy = forecast(curve(0.2, noise=10.0), 200.0, 20_000)
    assert noisy is not None
    assert noisy.soonest_s < straight.likely_s < noisy.latest_s
    flat = forecast(curve(0.0), 200.0, 20_000)
    assert flat is not None
    assert flat.likely_s == inf
    assert "no forecast" in flat.said()
    falling = forecast(curve(-0.01), 200.0, 20_000)
    assert falling is not None
    assert "no forecast" in falling.said()
    reached = forecast(curve(0.5), 200.0, 20_000)
    assert reached is not None
    assert reached.reached
    assert forecast(curve(0.2, count=5), 200.0, 20_000) is None
    assert [duration(s) for s in (40, 600, 7200, 2e5, inf)] == ["40 s", "10 min", "2.0 h", "2.3 days", "never"]


def test_command(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A folder of runs: each, the whole, the failures, other machines, the break-even, and where prices are from."""
    written(tmp_path / "runs", "good")
    written(tmp_path / "runs", "bad", state="failed", greedy_return=None)
    assert command.main([str(tmp_path / "runs"), "--prices", str(table(tmp_path))], "") == 0
    shown = capsys.readouterr().out
    for part in (
        "on box, 24 JPY an hour: 2 runs, 4 hours, 98 JPY",
        "1 of them failed or were interrupted, which took 49 JPY of it",
        "1 met the threshold: 98 JPY for each, failures included",
        "aws c7i.xlarge",
        "box against aws c7i.xlarge: buying pays from",
        "an invoice, 2026-11-01",
    ):
        assert part in shown
    against = ["--machine", "box", "--against", "aws c7i.xlarge"]
    assert command.main([str(tmp_path / "runs"), "--prices", str(table(tmp_path)), *against], "") == 0
    shown = capsys.readouterr().out
    assert "box against aws c7i.xlarge: buying pays from" in shown
    assert "aws g5.xlarge" not in shown
    with pytest.raises(ConfigError, match="at least one run"):
        command.main([], "")


def test_a_damaged_run_is_named_and_not_counted(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The others are; where none can be read there is nothing to count."""
    written(tmp_path / "runs", "good")
    bad = written(tmp_path / "runs", "bad")
    (bad.path / "run.json").write_text("{", encoding="utf-8")
    assert command.main([str(tmp_path / "runs"), "--prices", str(table(tmp_path))], "") == 0
    shown = capsys.readouterr().out
    assert "1 run, 2 hours, 49 JPY" in shown
    assert "not counted: " in shown
    assert "run.json" in shown
    with pytest.raises(ConfigError, match=r"run\.json"):
        costs_of([bad], read_prices(table(tmp_path)))


def test_shown_where_prices_are_configured(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """In the report's table, the panel and the page; nowhere without a table of the user's."""
    run = written(tmp_path, "run")
    assert cost_line(run) == ""
    monkeypatch.setenv("SHOAL_PRICES", str(table(tmp_path)))
    assert cost_line(run) == "49 JPY (2.0 h on box, prices of 2026-11-01)"
    assert facts_of(run, None, Processors()).cost.startswith("49 JPY")
    monkeypatch.setenv("SHOAL_PRICES", str(tmp_path / "none.toml"))
    assert cost_line(run) == ""
