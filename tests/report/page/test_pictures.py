"""The whole page of fixed runs looks as in the committed pictures: light, dark, and at a phone's width."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from tests.report.page import pictures

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from tests.report.page.chromium import Tab
    from tests.report.page.conftest import Page

pytestmark = [pytest.mark.slow, pytest.mark.timeout(180)]


@pytest.fixture
def view(
    tmp_path: Path, serve: Callable[..., Page], browser: Any, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Callable[[str], Tab]]:
    """Opens the page as one of the pictures shows it."""
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path))  # no price table of whoever runs this
    page = serve(pictures.write_scene(tmp_path))
    opened: list[Tab] = []

    def make(name: str) -> Tab:
        opened.append(pictures.open_view(browser, page.origin, pictures.VIEWS[name]))
        return opened[-1]

    yield make
    for tab in opened:
        tab.context.close()


@pytest.mark.parametrize("name", list(pictures.VIEWS))
def test_it_looks_the_same(view: Callable[[str], Tab], name: str, tmp_path: Path) -> None:
    tab = view(name)
    taken = pictures.take(tab)
    found = pictures.differences(taken, name)
    if found:
        pictures.keep(taken, name, tmp_path / "pictures")
    assert found == [], f"{tmp_path / 'pictures'} has what it looks like now; `python -m tests.report.page.pictures`"
    assert tab.wrong == []


@pytest.mark.parametrize(
    ("fault", "said"),
    [
        ("#guard-section { display: none !important }", "are gone"),
        ("main { padding-left: 40px !important }", "was at"),
        (".split { height: 1.6rem !important }", "was at"),
        (":root { --back: #e8e8e8 !important }", "colors differ"),
        ("#charts canvas { opacity: 0 !important }", "of the picture differ"),
        ("p, th, td, li { color: transparent !important }", "of the picture differ"),
    ],
)
def test_faults_are_seen(view: Callable[[str], Tab], fault: str, said: str) -> None:
    """A section that is gone, one that is elsewhere, other colors, charts without lines, text that nobody can read."""
    tab = view("light")
    tab.tab.add_style_tag(content=fault)
    found = pictures.differences(pictures.take(tab), "light")
    assert any(said in one for one in found), found
