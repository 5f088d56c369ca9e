"""Staging the policy of a run: measured in each stage, signed by name, taken back."""

from __future__ import annotations

from contextlib import closing
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from shoal.deploy.description import sha256_of
from shoal.deploy.offline import Asked
from shoal.deploy.stages.criteria import Criteria, check_costs, read_criteria
from shoal.deploy.stages.drift import (
    REFERENCE_EPISODES,
    Reference,
    numbers_of,
    watched,
)
from shoal.deploy.stages.ladder import (
    check_may_enter,
    check_stage,
    roll_back,
    signed,
)
from shoal.deploy.stages.log import Header, read_log
from shoal.deploy.stages.measures import (
    Measured,
    canaried,
    replayed,
    shadowed,
    simulated,
)
from shoal.deploy.stages.telling import told
from shoal.deploy.stages.weights import keep, packed, reference_of
from shoal.experiment.agent import Agent, loaded
from shoal.experiment.offline_score import evaluate_offline
from shoal.experiment.staged import check_policy
from shoal.learn.acting import Acting
from shoal.memory.data_file import DataFile
from shoal.nets.normalizer import Normalizer
from shoal.report.explain.visits import visit
from shoal.run.directory import RunDirectory
from shoal.run.evaluate import EVALUATION_STREAM
from shoal.run.stage_file import Entry, change_stages, now, read_stages
from shoal.run.tensors import sha256_of_file
from shoal.types import ConfigError
from shoal.types.arguments import object_of, path_of
from shoal.types.calls import all_worded, worded
from shoal.types.text import printable

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from torch import nn

    from shoal.run.stage_file import Stages as Entries

    Array = NDArray[np.float64]


@worded()
def stages(
    agent: Agent | str | Path, *, criteria: Criteria | str | Path | None = None
) -> Stages:
    """The stages of a run's policy, from the simulator to the real system.

    Args:
        agent: a loaded policy, or its run.
        criteria: what must hold, or the TOML file that says it; None: the defaults.

    Raises:
        ConfigError: no such run or checkpoint, a language model, several agents, a damaged stages.json, or criteria
            that are none.
    """
    agent = loaded("agent", agent)
    origin = "measured by the default criteria"
    if isinstance(criteria, str | Path):
        origin = printable(f"measured by the criteria of {Path(criteria).name}", 500)
        criteria = read_criteria(Path(criteria))
    elif criteria is not None:
        write = "Criteria(simulate=Simulate(episodes=50)), or the path of a TOML file"
        criteria = object_of("criteria", criteria, Criteria, write)
        origin = "measured by criteria given in Python"
    return Stages(agent, criteria or Criteria(), origin)


@all_worded({})
class Stages:
    """Where the policy of a run stands, and what moves it; `print` shows it."""

    def __init__(self, agent: Agent, criteria: Criteria, origin: str) -> None:
        """Made by `stages`; `origin`: where the criteria are from, as a note of what is measured by them."""
        check_policy(agent.spec, agent.experiment)
        check_costs(criteria, agent.spec.env_id, costs=agent.spec.costs)
        folder = agent.provenance.folder
        if folder is None:
            raise ConfigError("this policy is of no run directory")
        self.agent, self.criteria, self.folder = agent, criteria, folder
        self._origin = origin
        self.policy, self._data = packed(agent.policy)
        self.entries  # noqa: B018 - a damaged file is said at once

    @property
    def _cost_limit(self) -> float | None:
        """What an episode may cost on average, where the policy was trained so."""
        return getattr(self.agent.config, "cost_limit", None)

    @property
    def entries(self) -> Entries:
        """What was measured, signed and withdrawn so far, as the file says it now."""
        return read_stages(self.folder)

    @property
    def current(self) -> Entry | None:
        """The stage that this policy is in."""
        standing = self.entries.standing(self.policy)
        return standing[-1] if standing else None

    def __str__(self) -> str:
        """Lines of text."""
        return "\n".join(told(self.entries, self.policy))

    def enter(self, stage: str, data: str | Path | None = None) -> Entry:
        """Enters a stage, or measures it anew; what came after it no longer counts.

        Args:
            stage: simulate, replay, shadow, canary or full.
            data: of replay a data set in Minari's layout, of shadow and canary a log of theirs; these two can be
                entered without one, and measured when there is.

        Raises:
            ConfigError: the stage before lacks something, data are missing, or they are of something else.
        """
        check_stage(stage)
        if data is not None:
            data = path_of("data", data)
        check_may_enter(self.entries, stage, self.policy)
        self._check_data(stage, data)
        entry = Entry(stage, now(), self.policy, len(self._data))
        if stage == "simulate":
            entry = self._simulated(entry)
        elif stage == "replay":
            entry = self._replayed(entry, Path(data or ""))
        elif data is not None:
            entry = self._logged(entry, Path(data))
        if entry.criteria:
            entry = replace(entry, notes=(*entry.notes, self._origin))
        keep(self.folder, self.policy, self._data)
        change_stages(self.folder, partial(self._entered, entry))
        return entry

    def _entered(self, entry: Entry, now_there: Entries) -> Entries:
        """What is there meanwhile with one more; measuring takes time, in which a stage may have been withdrawn."""
        check_may_enter(now_there, entry.stage, self.policy)
        return now_there.added(entry)

    def sign(self, name: str) -> Entry:
        """Signs the current stage by name; ConfigError where its criteria do not hold, or it is signed."""
        change_stages(self.folder, lambda found: signed(found, self.policy, name))
        entry = self.current
        assert entry is not None
        return entry

    def rollback(self, name: str, reason: str) -> str:
        """Withdraws the newest stage, of whichever policy it is; what was withdrawn, in a sentence.

        Where that was the stage `full`, the policy that was deployed before is again: `load(run, tag="deployed")`.
        """
        return roll_back(self.folder, name, reason)

    def _check_data(self, stage: str, data: str | Path | None) -> None:
        if stage == "replay" and data is None:
            raise ConfigError(
                "replay is measured by a log of the controller, a data set in Minari's layout: --data FOLDER"
            )
        if stage in ("simulate", "full") and data is not None:
            raise ConfigError(f"{stage} takes no data; leave them out")

    def _simulated(self, entry: Entry) -> Entry:
        agent, wanted = self.agent, self.criteria.simulate
        threshold = RunDirectory(self.folder).read_status().get("threshold")
        if threshold is None:
            threshold = agent.spec.reward_threshold
        score = agent.evaluate(episodes=wanted.episodes, seed=wanted.seed)
        found = simulated(score, wanted, threshold, self._cost_limit)
        entry = _filled(entry, found, f"simulator of {agent.spec.env_id}")
        keep(self.folder, self.policy, self._data)
        reference = _reference(agent, seed=wanted.seed)
        if reference is not None and self._may_replace_reference():
            reference.write(reference_of(self.folder, self.policy))
        return entry

    def _may_replace_reference(self) -> bool:
        """Whether nothing that is signed was measured by what is kept of training, or that is damaged."""
        try:
            kept = Reference.read(reference_of(self.folder, self.policy))
        except ConfigError:
            return True
        mine = [one for one in self.entries.entries if one.policy == self.policy]
        stands = [one for one in mine if one.signed and one.withdrawn is None]
        return kept is None or not any(one.number for one in stands)

    def _replayed(self, entry: Entry, data: Path) -> Entry:
        wanted = self.criteria.replay
        asked = Asked(values=wanted.values, confidence=wanted.confidence)
        score = evaluate_offline(
            self.agent,
            data,
            gamma=wanted.gamma,
            greedy=wanted.greedy,
            rate_hz=wanted.rate_hz,
            units=wanted.units,
            asked=asked,
        )
        most = wanted.most_cost
        if most is None and self._says_costs(data):
            most = self._cost_limit
        cost = None
        if most is not None:
            asked = replace(asked, costs=True)
            spent = evaluate_offline(
                self.agent, data, greedy=wanted.greedy, asked=asked
            )
            cost = spent, float(most)
        digest = DataFile.find(data).sha256()
        return _filled(entry, replayed(score, wanted, cost), str(data), digest)

    def _says_costs(self, data: Path) -> bool:
        """Whether every episode of a log says what its steps cost."""
        episodes = DataFile.find(data).episodes(self.agent.spec)
        return all(episode.costs is not None for episode in episodes)

    def _logged(self, entry: Entry, data: Path) -> Entry:
        spec, stage = self.agent.spec, entry.stage
        expected = Header(stage, self.policy, sha256_of(spec), spec.env_id, "")
        reference = Reference.read(reference_of(self.folder, self.policy))
        log = read_log(data, reference=reference, expected=expected)
        if stage == "shadow":
            found = shadowed(log, self.criteria)
        else:
            found = canaried(log, self.criteria, self._cost_limit)
        return _filled(entry, found, str(data), sha256_of_file(data))


def _filled(entry: Entry, found: Measured, source: str, data: str = "") -> Entry:
    notes = tuple(printable(note, 1000) for note in found.notes)
    return replace(
        entry,
        source=printable(source, 500),
        data=data,
        criteria=found.criteria,
        notes=notes,
    )


def _reference(agent: Agent, *, seed: int) -> Reference | None:
    """What the numbers of an observation were like in training; None of images."""
    spec, experiment = agent.spec, agent.experiment
    names = watched(spec)
    if not names:
        return None
    options = experiment.options
    count = min(REFERENCE_EPISODES, options.num_envs)
    with closing(experiment.rows(count, playing=True)) as rows:
        seen = visit(
            agent.policy,
            rows,
            episodes=REFERENCE_EPISODES,
            acting=Acting(seed, EVALUATION_STREAM, native=options.native),
            max_steps=options.eval_max_steps,
        )
    moments = _moments(agent.policy, len(names))
    return Reference.of(names, numbers_of(spec, seen.leaves), moments)


def _moments(policy: nn.Module, size: int) -> tuple[Array, Array] | None:
    """Mean and deviation of each number over all of training, where the policy normalizes just these."""
    layers = [
        layer
        for layer in policy.modules()
        if isinstance(layer, Normalizer) and layer.total_mean.shape == (size,)
    ]
    if not layers:
        return None
    layer = layers[0]  # towers of their own see the same
    count = float(layer.count)
    if count < 2:
        return None
    mean = layer.total_mean.detach().cpu().numpy()
    return mean.copy(), np.sqrt((layer.total_m2 / count).detach().cpu().numpy())
