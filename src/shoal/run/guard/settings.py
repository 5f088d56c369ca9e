"""Settings of the guard: which rules watch a run, and from where on they act."""

from __future__ import annotations

from dataclasses import dataclass
from difflib import get_close_matches
from math import inf

from shoal.types import ConfigError, check_positive, check_ranges

RULES = (
    "finite",
    "kl",
    "entropy",
    "value",
    "gradient",
    "return",
    "speed",
    "heartbeat",
    "staleness",
    "length",
    "hacking",
    "drift",
)
"""The names of all rules."""
RULES_OF = {
    "kl": ("kl",),
    "drift": ("drift",),
    "entropy": ("entropy",),
    "explosion": ("value", "gradient"),
    "band": ("return",),
    "slowdown": ("speed", "heartbeat"),
}
"""The rules that read each limit."""


@dataclass(frozen=True, slots=True)
class Guarding:
    """When the guard acts; its rules hold for every algorithm and read what that reports."""

    rules: tuple[str, ...] = ()
    """Rules that watch; each must have something to read in this run. Empty: all that have."""
    without: tuple[str, ...] = ()
    """Rules that are switched off."""
    kl: float = 0.3
    """The mean KL divergence of an update's policies from the one that acted, above which the guard acts."""
    drift: float = 0.5
    """Of language models: the KL divergence of the learner from what drew the answers, above which it acts."""
    entropy: float = 0.02
    """It acts where the entropy falls below this share of what it was within the last checks."""
    explosion: float = 50.0
    """It acts where the value loss or the gradient's norm is three times as large as ever, and so many times as large
    as of late; but not where rewards were found that lie far beyond all before."""
    band: float = 0.8
    """It acts where so much of what was gained since the start, up to the verified best return, is lost again."""
    slowdown: float = 5.0
    """It tells where environment steps take so many times as long as they did, or one actor as the others."""
    held_out: str = ""
    """One of info_keys, such as is_success, that nothing is learned from: the guard acts where it falls while returns
    rise, and the best state is the best by it. Language models have language.held_out_scorer."""
    verify: int = 10
    """Checks without a finding after which a copy of the weights counts as good; more are surer and older."""
    memory_gib: float = 1.0
    """Memory for copies of weights and optimizers; where they need more, the guard cannot go back."""

    def __post_init__(self) -> None:
        """Refuses what cannot work."""
        for name in (*self.rules, *self.without):
            _check_name(name)
        both = sorted(set(self.rules) & set(self.without))
        if both:
            raise ConfigError(
                f"guarding.rules and guarding.without both name {both[0]!r}; take it out of one of them"
            )
        check_ranges(self, kl=(1e-9, inf), drift=(1e-9, inf), entropy=(1e-9, 0.99))
        check_ranges(self, explosion=(1.5, inf), band=(0.01, 1.0), slowdown=(1.1, inf))
        check_ranges(self, verify=(1, 10_000))
        check_positive(self, "memory_gib")
        for name, rules in RULES_OF.items():
            if getattr(self, name) == inf:
                raise ConfigError(
                    f"guarding.{name} must be finite, got inf; guarding.without = {list(rules)} switches off what "
                    "reads it"
                )

    def watches(self, name: str) -> bool:
        """Whether a rule is switched on."""
        if self.rules:
            return name in self.rules
        return name not in self.without


def _check_name(name: str) -> None:
    """ConfigError for a rule that does not exist."""
    if name not in RULES:
        near = get_close_matches(name, RULES, n=1)
        meant = (
            f"did you mean {near[0]!r}?" if near else f"there are {', '.join(RULES)}"
        )
        raise ConfigError(f"the guard has no rule {name!r}; {meant}")
