"""`shoal watch`: where runs stand, in a terminal or in a browser on this machine."""

from __future__ import annotations

import signal
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import tyro

from shoal.cli.arguments import parse
from shoal.types import ConfigError

if TYPE_CHECKING:
    from collections.abc import Sequence
    from types import FrameType


SWITCH_S = 5e-4
"""Seconds for which a thread keeps the interpreter's lock where others wait for it."""


@dataclass(frozen=True, slots=True)
class Given:
    """Options of `watch`."""

    runs: Annotated[
        tyro.conf.Positional[tuple[str, ...]], tyro.conf.arg(metavar="RUN ...")
    ]
    """Run directories, or directories of runs, whose new runs are taken up as they appear."""
    web: bool = False
    """Serve a page on this machine that shows them, and print its address."""
    port: int | None = None
    """Port of the page; the first free one from 8790 on unless given. 0 takes any that is free."""
    open: bool = False
    """Open the page in a browser of this machine."""
    run_dir: str = "runs"
    """Directory in which RUN is searched for as well."""


def main(arguments: list[str], about: str) -> int:
    """Shows; the exit status."""
    given = parse(Given, arguments, command="watch", about=about)
    asked = given.runs or (given.run_dir,)
    if not given.web and (given.port is not None or given.open):
        raise ConfigError("--port and --open are the page's: add --web")
    if given.port is not None and not 0 <= given.port < 2**16:
        raise ConfigError(f"--port is a number from 0 to 65535, got {given.port}")
    if not given.web:
        from shoal.report.watch import watch

        return watch(asked, Path(given.run_dir))
    return _serve(asked, given)


def _serve(asked: Sequence[str], given: Given) -> int:
    """The page until Ctrl-C."""
    from shoal.report.page.server import listen
    from shoal.report.page.watched import Runs

    for name in (signal.SIGTERM, signal.SIGHUP):
        if signal.getsignal(name) is not signal.SIG_IGN:  # as under nohup
            signal.signal(name, _interrupt)
    # Requests are not to wait for the thread that reads: they take the interpreter's lock many times.
    sys.setswitchinterval(SWITCH_S)
    runs = Runs(asked, Path(given.run_dir))
    try:
        with listen(runs, given.port) as server:
            print(f"{server.url}\nCtrl-C ends it", flush=True)
            if given.open:
                import webbrowser

                webbrowser.open(server.url)
            server.serve_forever(poll_interval=0.1)
    except KeyboardInterrupt:
        print("the page is closed; the runs go on")
    finally:
        runs.close()
    return 0


def _interrupt(number: int, frame: FrameType | None) -> None:
    """Ends as Ctrl-C does, whoever asks: a film that is being made ends too."""
    raise KeyboardInterrupt
