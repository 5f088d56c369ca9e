"""The page in a real Chromium: what is drawn, what a hostile run does there, keys, colors, and axe's rules."""

from __future__ import annotations

import json
import shutil
import socket
import subprocess
import sys
import time
from contextlib import contextmanager, suppress
from threading import Thread
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from tests.report.page.chromium import Tab, read_axe
from tests.report.page.conftest import TOKEN, Page, line, write_run

if TYPE_CHECKING:
    from collections.abc import Callable, Generator
    from pathlib import Path

pytestmark = [pytest.mark.slow, pytest.mark.timeout(180)]
LIGHT, DARK = {"color_scheme": "light"}, {"color_scheme": "dark"}
FIRST_COLOR = {"light": (0x1F, 0x6F, 0xB4), "dark": (0x6C, 0xB2, 0xF5)}


def places(picture: Any, color: tuple[int, int, int]) -> Any:
    """Where a color is: [n, 2] of row and column."""
    return np.argwhere((abs(picture - np.array(color)) < 24).all(2))


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_a_curve_is_where_its_numbers_are(
    tmp_path: Path, serve: Callable[..., Page], open_tab: Callable[..., Tab], scheme: str
) -> None:
    """loss/value falls from the upper left to the lower right, in the color of the first run."""
    write_run(tmp_path / "a", lines=200)
    tab = open_tab(serve(tmp_path / "a"), color_scheme=scheme)
    found = places(tab.picture("loss/value"), FIRST_COLOR[scheme])
    assert len(found) > 200
    rows, columns = found[:, 0], found[:, 1]
    left, right = rows[columns < columns.min() + 10].mean(), rows[columns > columns.max() - 10].mean()
    assert left < 40 < 140 < right
    assert np.corrcoef(rows, columns)[0, 1] > 0.8
    assert tab.wrong == []


def test_it_is_live(tmp_path: Path, serve: Callable[..., Page], open_tab: Callable[..., Tab]) -> None:
    """A line that is written is drawn and said, without loading; nobody else is asked, and the token is hidden."""
    run = write_run(tmp_path / "runs" / "a", lines=20)
    page = serve(tmp_path / "runs")
    tab = open_tab(page)
    assert tab.tab.url == f"{page.origin}/"
    label = tab.tab.locator('figure[data-key="episode/return"] canvas')
    tab.until("document.querySelector('[data-key=\"episode/return\"] canvas').ariaLabel?.includes('a 5')")
    with run.metrics.open("a") as file:
        file.write(json.dumps(line(20) | {"episode/return": 321.5}) + "\n")
    tab.until("document.querySelector('[data-key=\"episode/return\"] canvas').ariaLabel.includes('321.5')")
    assert "321.5" in label.get_attribute("aria-label")
    assert {url.split("/")[2] for url in tab.asked} == {page.origin.split("/")[2]}
    shutil.rmtree(tmp_path / "runs" / "a")
    tab.until("document.querySelector('#runs .state').textContent === 'deleted'")
    assert tab.wrong == []


def test_the_server_ends(tmp_path: Path, serve: Callable[..., Page], open_tab: Callable[..., Tab]) -> None:
    """The page says that nobody answers, and keeps its curves."""
    write_run(tmp_path / "a")
    page = serve(tmp_path / "a")
    tab = open_tab(page)
    page.server.shutdown()
    page.server.server_close()
    page.runs.close()
    tab.tab.route("**/api/**", lambda route: route.abort())  # a connection that is kept open would still be answered
    tab.until("document.querySelector('#connection').textContent.includes('does not answer')")
    assert len(places(tab.picture("loss/value"), FIRST_COLOR["light"])) > 100


def test_two_watchers(tmp_path: Path, serve: Callable[..., Page], open_tab: Callable[..., Tab]) -> None:
    """Two tabs of one page, and two servers, in one browser: nobody takes another's cookie."""
    write_run(tmp_path / "a")
    first, second = serve(tmp_path / "a"), serve(tmp_path / "a")
    tabs = [open_tab(first), open_tab(first), open_tab(second)]
    other = tabs[0].context.new_page()
    other.goto(f"{second.origin}/?token={TOKEN}")
    tabs[0].tab.wait_for_timeout(1500)
    assert [tab.tab.locator("#connection").text_content() for tab in tabs] == ["live"] * 3
    assert [tab.wrong for tab in tabs] == [[]] * 3


@contextmanager
def relayed(port: int) -> Generator[int]:
    """What `ssh -L` does: whoever connects to the port that is given reaches the other one."""
    listening = socket.create_server(("127.0.0.1", 0))
    held, threads = [listening], list[Thread]()

    def start(work: Callable[..., None], *given: socket.socket) -> None:
        threads.append(Thread(target=work, args=given))
        threads[-1].start()

    def copy(source: socket.socket, target: socket.socket) -> None:
        with suppress(OSError):
            while data := source.recv(1 << 16):
                target.sendall(data)

    def accept() -> None:
        with suppress(OSError):
            while True:
                near, _ = listening.accept()
                far = socket.create_connection(("127.0.0.1", port))
                held.extend((near, far))
                start(copy, near, far)
                start(copy, far, near)

    start(accept)
    yield listening.getsockname()[1]
    for one in held:
        with suppress(OSError):
            one.shutdown(socket.SHUT_RDWR)
        one.close()
    for thread in threads:
        thread.join(5)


def test_tunnel(tmp_path: Path, serve: Callable[..., Page], browser: Any) -> None:
    """Through a tunnel, at another port and as localhost: curves, which are asked for with an Origin, arrive."""
    write_run(tmp_path / "a")
    page = serve(tmp_path / "a")
    with relayed(page.server.server_port) as port:
        tab = browser.new_page()
        tab.goto(f"http://localhost:{port}/?token={TOKEN}")
        end = time.monotonic() + 10
        while not tab.evaluate("performance.getEntriesByName('curves').length"):
            assert time.monotonic() < end
            tab.wait_for_timeout(50)
        assert tab.locator("#connection").text_content() == "live"
        tab.close()


def test_keys_and_zoom(tmp_path: Path, serve: Callable[..., Page], open_tab: Callable[..., Tab]) -> None:
    """By keys alone: into a part, in all its points, along it, and back."""
    write_run(tmp_path / "a", lines=5000)
    tab = open_tab(serve(tmp_path / "a"))
    tab.tab.wait_for_timeout(1500)
    whole = tab.picture("loss/value")
    tab.tab.locator('figure[data-key="loss/value"] canvas').focus()
    for _ in range(8):
        tab.tab.keyboard.press("+")
    tab.tab.wait_for_timeout(600)
    near = tab.picture("loss/value")
    assert (near != whole).any()
    tab.tab.keyboard.press("ArrowRight")
    assert (tab.picture("loss/value") != near).any()
    tab.tab.keyboard.press("0")
    assert (tab.picture("loss/value") == whole).mean() > 0.95
    assert tab.wrong == []


def test_hostile(tmp_path: Path, serve: Callable[..., Page], open_tab: Callable[..., Tab]) -> None:
    """Names, keys, reasons and what the guard said hold markup and scripts: all of it is text, nothing runs."""
    markup = "<img src=x onerror=alert(1)><script>alert(2)</script>"
    run = write_run(
        tmp_path / "runs" / "<img src=x onerror=alert(3)>",
        env=markup,
        status={"state": "<b>failed</b>", "reason": markup},
    )
    with run.metrics.open("a") as file:
        file.write(json.dumps({"step": 2000, f"loss/{markup}": 1.0, "__proto__": 1.0, "constructor/x": 2.0}) + "\n")
    acted = {"update": 1, "step": 2, "learner": "", "rule": markup, "action": "javascript:alert(4)", "said": markup}
    (run.path / "guard.json").write_text(json.dumps({"count": 1, "interventions": [acted]}))
    (run.path / "videos").mkdir()
    (run.path / "videos" / '"><img src=x onerror=alert(5)>.mp4').write_bytes(b"no film")
    tab = open_tab(serve(tmp_path / "runs"))
    tab.tab.wait_for_timeout(1500)
    for element in tab.tab.locator("button").all():
        element.click()
    tab.tab.wait_for_timeout(300)
    assert tab.tab.locator("img").count() == 0
    assert tab.tab.locator("script").count() == 1
    assert tab.tab.locator("#guard strong").text_content() == f"{markup}, javascript:alert(4)"
    assert markup in tab.tab.locator("#runs .about").first.text_content()
    assert [said for said in tab.wrong if "alert" in said or "dialog" in said or "policy" in said.lower()] == []


@pytest.mark.parametrize(
    "options", [LIGHT, DARK, {"viewport": {"width": 390, "height": 800}}], ids=["light", "dark", "phone"]
)
def test_axe(tmp_path: Path, serve: Callable[..., Page], open_tab: Callable[..., Tab], options: dict[str, Any]) -> None:
    """axe-core finds nothing wrong: names, roles, contrast, order of headings, what keys reach."""
    source = read_axe()
    write_run(tmp_path / "runs" / "a", lines=50, status={"state": "failed", "reason": "an error"})
    run = write_run(tmp_path / "runs" / "b", lines=50, status={"state": "nonsense", "steps": -1})
    acted = {"update": 1, "step": 2, "learner": "", "rule": "kl", "action": "halved", "said": "It was 0.3."}
    (run.path / "guard.json").write_text(json.dumps({"count": 70, "interventions": [acted]}))
    size = options.get("viewport")
    tab = open_tab(serve(tmp_path / "runs"), **{name: one for name, one in options.items() if name != "viewport"})
    if size is not None:
        tab.tab.set_viewport_size(size)
    tab.tab.wait_for_timeout(1500)
    tab.tab.evaluate(source + "; undefined")
    found = tab.tab.evaluate("axe.run(document, { resultTypes: ['violations', 'incomplete'] })")
    wrong = {rule["id"]: [node["html"][:200] for node in rule["nodes"]] for rule in found["violations"]}
    assert wrong == {}
    wide = tab.tab.evaluate("document.documentElement.scrollWidth - innerWidth")
    assert wide <= 0, "the page is wider than its window"


def test_buttons(tmp_path: Path, serve: Callable[..., Page], open_tab: Callable[..., Tab]) -> None:
    """A real run is paused, goes on, and is stopped by the page's buttons; to stop takes two presses."""
    command = [sys.executable, "-m", "shoal", "train", "CartPole-v1", "--total-timesteps", "50000000"]
    command += ["--stop-at", "inf", "--num-threads", "1", "--final-episodes", "0", "--name", "a"]
    with subprocess.Popen([*command, "--run-dir", str(tmp_path)], stdout=subprocess.DEVNULL) as training:
        try:
            status = tmp_path / "CartPole-v1" / "ppo" / "a" / "run.json"
            end = time.monotonic() + 60
            while not (status.exists() and status.with_name("metrics.jsonl").stat().st_size):
                assert time.monotonic() < end
                assert training.poll() is None
                time.sleep(0.1)
            tab = open_tab(serve(status.parent))
            state = "document.querySelector('#runs .state').textContent"
            for button, becomes in (("Pause", "paused"), ("Continue", "running")):
                tab.tab.get_by_role("button", name=f"{button} a").click()
                tab.until(f"{state} === '{becomes}'")
            stop = tab.tab.get_by_role("button", name="Stop a")
            stop.click()
            tab.tab.wait_for_timeout(1500)
            assert training.poll() is None
            tab.tab.get_by_role("button", name="Stop a now").click()
            tab.until(f"{state} === 'stopped'")
            training.wait(20)
            assert tab.wrong == []
        finally:
            training.kill()
