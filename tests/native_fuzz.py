"""Calls of every native binding with arguments that are right, or wrong in one place: no call may abort or hang.

`python -m tests.native_fuzz --calls 100000 --seed 0` runs on; tests/test_native_fuzz.py holds a short part of it.
A binding that no right call reached, or a parameter that none gave, ends it with exit status 1.
"""

from __future__ import annotations

import argparse
import inspect
import re
import sys
import time
import warnings
from collections import Counter
from functools import partial
from typing import TYPE_CHECKING, Any

from shoal import _native
from tests.native_calls import EXPECTED, Call, Calls

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

ENOUGH = 20_000
"""Calls after which every binding was reached."""
ONLY_WRONG = {"add_environments"}
"""Right calls need a compiled extension: tests/envs/test_new_env.py makes them."""


def bindings() -> dict[Any, str]:
    """Every function of the native core, methods and properties too, and its name."""
    found: dict[Any, str] = {}
    for owner in (_native, *(one for one in vars(_native).values() if inspect.isclass(one))):
        start = "" if owner is _native else f"{owner.__name__}."
        for name, one in vars(owner).items():
            parts = {"": one}
            if isinstance(one, property):
                parts = {" (read)": one.fget, " (written)": one.fset}
            found |= {part: start + name + end for end, part in parts.items() if hasattr(part, "__nb_signature__")}
    return found


def called(what: Any) -> tuple[Any, int, set[str]]:
    """The binding behind something callable, how many arguments it holds, and the names of others."""
    if isinstance(what, partial):
        inner, count, names = called(what.func)
        return inner, count + len(what.args), names | set(what.keywords)
    what = inspect.unwrap(what)
    if inspect.isclass(what):
        return vars(what)["__init__"], 0, set()
    return getattr(what, "__func__", what), 0, set()


def parameters(binding: Any) -> Iterator[list[str]]:
    """Names of its parameters but self, for each of its overloads; those without one are numbered."""
    for signature, *_ in binding.__nb_signature__:
        inside = signature[signature.index("(") + 1 : signature.rindex(") ->")]
        while "[" in inside:
            inside = re.sub(r"\[[^\[\]]*\]", "", inside)
        names = [part.split(":")[0].strip() for part in inside.split(",")]
        yield [name for name in names if name not in ("self", "*", "/", "")]


class Fuzz(Calls):
    """Makes calls from a seed, right and wrong ones, and counts them."""

    def __init__(self, seed: int) -> None:
        """No call is made yet."""
        super().__init__(seed)
        self.counts: Counter[str] = Counter()
        self.given: dict[Any, set[str]] = {}
        self.makers: list[Callable[[], Call]] = [
            getattr(self, name) for name in sorted(dir(self)) if name.startswith("call_")
        ]

    def run(self, calls: int, seconds: float = float("inf")) -> int:
        """Makes so many calls, or as many as the time allows; how many."""
        end = time.monotonic() + seconds
        done = 0
        while done < calls and time.monotonic() < end:
            maker = self.makers[self.rng.integers(len(self.makers))]
            what, args, kwargs = maker()
            right = not (args or kwargs) or self.rng.random() < 0.3
            if not right:
                args, kwargs = self.spoil(args, kwargs)
            name = maker.__name__[5:]
            try:
                made = what(*args, **kwargs)
            except EXPECTED:
                self.counts[f"{name} refused"] += 1
            else:
                self.counts[name] += 1
                self.keep(name, made, args)
                if right:
                    self.note(what, len(args), set(kwargs))
            done += 1
        return done

    def note(self, what: Any, count: int, names: set[str]) -> None:
        """Keeps which parameters a right call gave."""
        binding, held, others = called(what)
        for all_names in parameters(binding):
            self.given.setdefault(binding, set()).update(all_names[: held + count], names, others)

    def missed(self) -> list[str]:
        """What no right call reached or gave: names of bindings, or of a binding and its parameters."""
        missed = []
        for binding, name in bindings().items():
            if binding not in self.given:
                missed.append(name)
                continue
            wanted = {one for names in parameters(binding) for one in names}
            missed += [f"{name}: {one}" for one in sorted(wanted - self.given[binding])]
        return [name for name in missed if name not in ONLY_WRONG]


def main() -> int:
    """Runs the calls that the command line asks for, and says how many of each kind there were."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--calls", type=int, default=100_000)
    parser.add_argument("--seconds", type=float, default=float("inf"))
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args()
    warnings.simplefilter("ignore")  # NumPy's, of numbers that are spoiled
    fuzz = Fuzz(given.seed)
    done = fuzz.run(given.calls, given.seconds)
    refused = sum(count for name, count in fuzz.counts.items() if name.endswith("refused"))
    kinds = len({name.removesuffix(" refused") for name in fuzz.counts})
    print(f"{done:,} calls of {kinds} kinds, {refused:,} refused, seed {given.seed}")
    missed = fuzz.missed() if done >= ENOUGH else []
    if missed:
        print(f"Not fuzzed (tests/native_calls.py makes the calls): {'; '.join(missed)}", file=sys.stderr)
    return 1 if missed else 0


if __name__ == "__main__":
    sys.exit(main())
