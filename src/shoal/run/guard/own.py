"""Rules of a user's own: what they must be, and what they may return."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Protocol, cast

from shoal.run.guard.seen import ACTIONS, Finding
from shoal.types import RAISED, ConfigError, misfit, refuse_leaving
from shoal.types.text import printable

if TYPE_CHECKING:
    from shoal.run.guard.seen import Rule, Seen

NAME, SENTENCE = 80, 300
"""Characters that are kept of a rule's name, and of what it says."""


class HasGuard(Protocol):
    """Settings of a run, as far as they decide whether rules of its user's own are called."""

    @property
    def guard(self) -> str:
        """Whether there is a guard: on or off."""
        ...

    @property
    def learners(self) -> int:
        """Processes that learn together."""
        ...


def finding_of(rule: Rule, seen: Seen) -> Finding | None:
    """What a user's rule says, in one line and under its name; an error is told whose it is."""
    name = printable(getattr(rule, "__name__", type(rule).__name__), NAME)
    try:
        said: Any = rule(seen)
    except RAISED as error:
        refuse_leaving(
            error,
            f"the guard's rule {name}",
            "it returns None where all is well, else a sentence or a Finding",
        )
        error.add_note(f"shoal: raised by the guard's rule {name}")
        raise
    if said is None:
        return None
    if isinstance(said, str):
        return Finding(printable(said, SENTENCE), "halve", name)
    known = isinstance(said, Finding) and said.action in ACTIONS
    if known and isinstance(cast("object", said.said), str):
        return replace(said, said=printable(said.said, SENTENCE), rule=name)
    shown = printable(repr(said), SENTENCE)
    raise ConfigError(
        f"the guard's rule {name} returned {shown}; it returns None where all is well, else a sentence or a Finding, "
        f"with one of the actions {', '.join(ACTIONS)}"
    )


def checked_rules(rules: object, options: HasGuard) -> list[Rule]:
    """A user's rules; ConfigError unless they are a list of what can be called, and there is a guard to call them."""
    if not isinstance(rules, Iterable):
        raise ConfigError(
            f"rules is a list of functions (seen), got {rules!r}; write rules=[...]"
        )
    found = list(cast("Iterable[Rule]", rules))
    for rule in found:
        name = getattr(rule, "__qualname__", repr(rule))
        if not callable(rule):
            raise ConfigError(
                f"a rule is called with what was seen, but {name} cannot be called"
            )
        if why := misfit(rule, None):
            raise ConfigError(
                f"a rule is called with what was seen alone, but {name} does not take that: {why}"
            )
    if found and options.learners > 1:
        raise ConfigError(
            f"rules are functions of this process, but learners={options.learners} are processes that must find the "
            "same; leave rules out, or set learners=1"
        )
    if found and options.guard == "off":
        raise ConfigError(
            "rules are the guard's, which is off; set guard='on', or leave them out"
        )
    return found
