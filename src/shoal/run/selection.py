"""Selection: population-based training between two updates, and whose policy a run with several agents keeps."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any, Protocol, TypeVar, cast, runtime_checkable

import numpy as np

from shoal.learn.copying import take_over
from shoal.run.callbacks import tell
from shoal.run.exploit import copies_of, inherited, perturbed
from shoal.run.members import members_of
from shoal.types import ConfigError
from shoal.types.text import decimal

if TYPE_CHECKING:
    from collections.abc import Mapping

    from shoal.learn.learner import Learner
    from shoal.run.exploit import Copy
    from shoal.run.ranking import Ranking
    from shoal.run.run import Run
    from shoal.run.settings import Settings
    from shoal.types import Floats

ConfigT = TypeVar("ConfigT")
AT_END = 2**40
"""The number of the comparison at the end of a run, above those of all others."""


@runtime_checkable
class FollowsSettings(Protocol):
    """A stream that knows some of the agents' settings: it is told when they change between two batches."""

    def follow(self, agent: str, cfg: Any) -> None:
        """Goes on with these settings of an agent; ConfigError where it cannot, and nothing is changed."""
        ...


class Selection:
    """The agents' settings as they are now; ranks agents by greedy returns, and lets bad ones copy good ones.

    Everything is drawn from the run's seed and the number of the comparison: a resumed run goes on with the same.
    """

    def __init__(self, settings: Settings, ranking: Ranking | None) -> None:
        """Without a `ranking` agents are never compared."""
        self.agents: dict[str, Any] = {}
        """The settings of each agent, which the algorithm looks up at each step."""
        self.kept = ""
        """Whose policy was the best when agents were last ranked; empty before."""
        self.ranking = ranking
        self._settings = settings
        self._compared = 0
        self._next = settings.population.exploit_interval
        self._ranked_at = -1

    def members(self, cfg: ConfigT) -> dict[str, ConfigT]:
        """The settings of each agent by its name."""
        s = self._settings
        self.agents = members_of(cfg, s.population, s.learners, seed=s.seed)
        return cast("dict[str, ConfigT]", self.agents)

    def compare(self, run: Run, stream: Any, learners: Mapping[str, Learner]) -> bool:
        """Compares the agents where that is due, and lets the bad ones copy; whether it was due."""
        population, steps = self._settings.population, int(stream.env_steps)
        every = population.exploit_interval
        if self.ranking is None or not every or steps < self._next:
            return False
        self._next += every * (1 + (steps - self._next) // every)
        self._compared += 1
        returns = self._rank(run, learners, self._compared)
        rng = np.random.default_rng([self._settings.seed, 5, self._compared])
        copies = copies_of(returns, population, rng)
        for copy in copies:
            take_over(learners[copy.child], learners[copy.parent])
            before = self.agents[copy.child]
            self._change(copy, stream, rng)
            self._note(run, copy, before, returns, steps)
        if copies:
            stream.publish()
        return True

    def finish(self, run: Run, learners: Mapping[str, Learner]) -> bool:
        """Ranks the agents of a run that ends; whether that was to do. Where their episodes fail, that is said."""
        ranking = self.ranking
        if ranking is None or not ranking.at_end or self._ranked_at == run.updates:
            return False
        try:
            returns = self._rank(run, learners, AT_END)
        except Exception as error:  # whatever it is: what was learned is whole
            self.kept = self.kept or next(iter(learners))
            run.warn(
                f"the agents were not ranked ({type(error).__name__}: {error}): {self.kept} is kept; `shoal resume` "
                "ranks them again"
            )
            return False
        self._ranked_at = run.updates
        mean = float(returns[self.kept].mean())
        tell(
            run,
            f"{self.kept} is kept, the best of {len(learners)} agents: greedy return {decimal(mean)} over "
            f"{ranking.episodes} episodes",
            how="note",
        )
        return True

    def state(self) -> dict[str, Any]:
        """All that `restore` needs."""
        varied = self._settings.population.varied if self._compared else ()
        return {
            "kept": self.kept,
            "compared": self._compared,
            "next": self._next,
            "ranked_at": self._ranked_at,
            "settings": {
                agent: {name: getattr(cfg, name) for name in varied}
                for agent, cfg in self.agents.items()
            },
        }

    def restore(self, state: Mapping[str, Any], stream: Any) -> None:
        """Continues from `state`, with the settings that the agents had then."""
        self.kept, self._compared = str(state["kept"]), int(state["compared"])
        self._next, self._ranked_at = int(state["next"]), int(state["ranked_at"])
        for agent, values in state["settings"].items():
            if values:
                self._set(agent, replace(self.agents[agent], **values), stream)

    def _rank(
        self, run: Run, learners: Mapping[str, Learner], number: int
    ) -> dict[str, Floats]:
        """The returns of all agents, whose means are logged; the best one is kept from now on."""
        assert self.ranking is not None
        policies = {name: learner.policy for name, learner in learners.items()}
        returns, steps = self.ranking.play(policies, self._settings, number)
        means = {name: float(values.mean()) for name, values in returns.items()}
        self.kept = max(means, key=means.__getitem__)
        run.log({f"population/return/{name}": mean for name, mean in means.items()})
        run.log({"population/evaluation_steps": steps})
        return returns

    def _change(self, copy: Copy, stream: Any, rng: np.random.Generator) -> None:
        """The child's new settings: its parent's, perturbed where the stream can go on with that."""
        population = self._settings.population
        child, parent = self.agents[copy.child], self.agents[copy.parent]
        taken = inherited(child, parent, population)
        try:
            self._set(copy.child, perturbed(taken, population, rng), stream)
        except ConfigError:  # more steps than the memory has room for
            self._set(copy.child, taken, stream)

    def _set(self, agent: str, cfg: Any, stream: Any) -> None:
        if isinstance(stream, FollowsSettings):
            stream.follow(agent, cfg)
        self.agents[agent] = cfg

    def _note(
        self,
        run: Run,
        copy: Copy,
        before: Any,
        returns: Mapping[str, Floats],
        steps: int,
    ) -> None:
        """Logs who took over from whom, with its settings before and after, and says so."""
        after, child = self.agents[copy.child], copy.child
        place = list(self.agents).index(copy.parent)
        run.log(
            {
                f"population/parent/{child}": place,
                f"population/p_value/{child}": copy.p_value,
            }
        )
        changes: list[str] = []
        for name in self._settings.population.varied:
            old, new = getattr(before, name), getattr(after, name)
            run.log(
                {
                    f"population/{name}/{child}": new,
                    f"population/{name}/{child}/before": old,
                }
            )
            changes.append(f"{name} {old:.3g} -> {new:.3g}")
        worse, better = (float(returns[x].mean()) for x in (child, copy.parent))
        tell(
            run,
            f"step {steps:,}: {child} ({decimal(worse)}) takes over from {copy.parent} ({decimal(better)}): "
            + ", ".join(changes),
            how="note",
        )
