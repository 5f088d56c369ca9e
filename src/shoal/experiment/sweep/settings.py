"""Settings of a sweep: its budget, what counts as good, and how many processes train at a time."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from difflib import get_close_matches

from shoal.experiment.settings import names_of
from shoal.fleet.settings import check_where
from shoal.stream.meter import cores
from shoal.types import ConfigError, check_finite, check_positive, check_ranges

RETURN, THRESHOLD, SECONDS = "return", "seconds_to_threshold", "seconds"
OBJECTIVES = {
    RETURN: "mean greedy return after total_timesteps; larger is better",
    THRESHOLD: "seconds of training until the threshold is met; less is better",
    SECONDS: "seconds of training for total_timesteps, beside return; less is better",
}
"""What a sweep can aim at."""


@dataclass(frozen=True, slots=True)
class SweepSettings:
    """The table [sweep] of a sweep's file."""

    trials: int | None = None
    """Trials, those included that failed or were stopped early."""
    seconds: float | None = None
    """Begin no trial after this many seconds of searching."""
    objective: str | tuple[str, ...] = RETURN
    """What counts: return, seconds_to_threshold, or both return and seconds, whose Pareto front is sought."""
    search: tuple[str, ...] = ()
    """Settings whose ranges are inferred from their values."""
    seeds: int = 1
    """Runs of each trial, with seeds seed, seed + 1, ...; more say more of a trial and leave fewer of them."""
    parallel: int = 0
    """Trials at a time; 0: as many as there are cores for, or room on the fleet."""
    cpus: int = 1
    """Threads of each trial."""
    fleet: str | None = None
    """Train on a Ray cluster: local, auto or ray://HOST:PORT; its nodes must see the sweep's directory."""
    retries: int = 2
    """How often a trial whose node is lost is begun again, on a fleet."""
    prune: bool = True
    """Stop a trial whose return is below the median of the others at equal environment steps."""
    patience: float = 2.0
    """With seconds_to_threshold: stop a run at this many times the seconds of the best trial; 0: never."""
    episodes: int = 100
    """Greedy episodes at the end of each run."""
    finalists: int = 3
    """The best trials that are run again on other seeds, of which the best one is confirmed."""
    final_seeds: int = 3
    """Seeds of each finalist; 0: the best trial is confirmed as it is."""
    confirm_seeds: int = 5
    """Fresh seeds on which the winner is compared with the settings that the sweep began from; 0: it is not."""
    max_failures: int = 5
    """Stop when so many trials in a row have failed."""

    def __post_init__(self) -> None:
        """Refuses what cannot work, with what would."""
        if self.trials is None and self.seconds is None:
            raise ConfigError(
                "[sweep] has no budget; set trials, such as trials = 32, or seconds, such as seconds = 600"
            )
        if self.trials is not None:
            check_ranges(self, trials=(1, 1_000_000))
        if self.seconds is not None:
            check_positive(self, "seconds")
            check_finite(self, "seconds")
        for name in self.objectives:
            _check_objective(name)
        if self.objectives not in ((RETURN,), (THRESHOLD,), (RETURN, SECONDS)):
            said = ", ".join(self.objectives) or "none"
            raise ConfigError(
                f"[sweep] objective is one of return and seconds_to_threshold, or [{RETURN!r}, {SECONDS!r}] for a "
                f"Pareto front, got {said}"
            )
        check_ranges(self, seeds=(1, 1000), parallel=(0, 4096), cpus=(1, 1024))
        check_ranges(self, retries=(0, 100), episodes=(1, 1_000_000))
        check_ranges(self, finalists=(1, 100), final_seeds=(0, 1000))
        check_ranges(self, confirm_seeds=(0, 1000), max_failures=(1, 1_000_000))
        check_ranges(self, patience=(0, 1000))
        if self.patience and self.patience < 1:
            raise ConfigError(
                f"[sweep] patience must be at least 1, or 0: never; got {self.patience:g}"
            )
        self._check_place()

    def _check_place(self) -> None:
        """ConfigError where cores would have more than one thread each."""
        if self.fleet is not None:
            check_where(self.fleet)
            return
        if self.cpus > cores():
            raise ConfigError(
                f"[sweep] cpus = {self.cpus}, but this machine has {cores()}; set cpus = {cores()}"
            )
        if self.parallel * self.cpus > cores():
            raise ConfigError(
                f"[sweep] parallel = {self.parallel} trials of {self.cpus} threads need more than the {cores()} cores "
                f"here, and all would be slow; set parallel = {cores() // self.cpus}, or 0"
            )

    @property
    def objectives(self) -> tuple[str, ...]:
        """The names of what counts, one or two."""
        if isinstance(self.objective, str):
            return (self.objective,)
        return self.objective

    @property
    def aim(self) -> str:
        """What a winner must be better at: the objective, or the seconds of a Pareto front."""
        return self.objectives[-1]

    @property
    def to_threshold(self) -> bool:
        """Whether runs end at the threshold."""
        return self.objectives == (THRESHOLD,)

    def at_a_time(self) -> int:
        """Trials at a time on this machine."""
        return self.parallel or max(1, cores() // self.cpus)


def check_names(
    table: Mapping[str, object], kind: type[object], *, training: Collection[str] = ()
) -> None:
    """ConfigError naming the first that is no field of `kind`, and where it belongs if it is one of `training`."""
    known = names_of(kind)
    for name in table:
        if name in known:
            continue
        if name in training:
            raise ConfigError(
                f"{name} is a setting of training; it stands at the top of the file, above the tables"
            )
        near = get_close_matches(name, known, n=3)
        meant = f"did you mean {', '.join(near)}? " if near else ""
        raise ConfigError(f"no setting {name!r}; {meant}There are {', '.join(known)}")


def _check_objective(name: str) -> None:
    if name in OBJECTIVES:
        return
    if name in ("money", "cost"):
        raise ConfigError(
            f"[sweep] no objective {name!r}: on one machine money is seconds times a price, so seconds rank alike; "
            "`shoal cost` says what the sweep has cost in money"
        )
    near = get_close_matches(name, OBJECTIVES, n=1, cutoff=0.4)
    meant = f"did you mean {near[0]}? " if near else ""
    known = "; ".join(f"{known}: {about}" for known, about in OBJECTIVES.items())
    raise ConfigError(f"[sweep] no objective {name!r}; {meant}There are {known}")
