"""What a loaded policy does beside a real controller."""

from __future__ import annotations

from itertools import count
from pathlib import Path
from typing import TYPE_CHECKING, Any

from shoal.deploy.description import sha256_of
from shoal.deploy.stages.beside import Canary, Shadow
from shoal.deploy.stages.criteria import Criteria, Drifts
from shoal.deploy.stages.drift import Reference
from shoal.deploy.stages.ladder import lacks
from shoal.deploy.stages.log import Header, StageLog
from shoal.deploy.stages.weights import FOLDER, packed, reference_of
from shoal.run.reading import check_folder
from shoal.run.stage_file import now, read_stages
from shoal.types import ConfigError, check_seed
from shoal.types.arguments import number_of, object_of, path_of

if TYPE_CHECKING:
    from torch import nn

    from shoal.deploy.description import Provenance
    from shoal.deploy.stages.log import Kind
    from shoal.experiment.experiment import Experiment
    from shoal.types import Spec, Tree


class Staged:
    """A policy of a run that can stand beside a controller; `Agent` has the rest."""

    policy: nn.Module
    spec: Spec
    provenance: Provenance
    experiment: Experiment

    def shadow(
        self, log: str | Path | None = None, *, drift: Drifts | None = None
    ) -> Shadow:
        """The policy beside a real controller, without effect: `shadow.observe(obs, action, reward, done=...)`.

        Args:
            log: a new file that `shoal stage RUN --enter shadow --data` reads; None: stages/shadow-N.jsonl of the run.
            drift: from which drift on it is alarmed.

        Raises:
            ConfigError: a language model, several agents, the file is there, or the run's stages are damaged.
        """
        limits = _limits(drift)
        file, reference = self._begun("shadow", log, 0.0)
        return Shadow(
            self._another(),
            self.spec,
            file,
            reference=reference,
            limits=limits,
        )

    def canary(
        self,
        share: float,
        seed: int = 0,
        log: str | Path | None = None,
        *,
        drift: Drifts | None = None,
    ) -> Canary:
        """The policy in a share of the episodes: `canary.act(obs, action)`, then `canary.observe(reward, done=...)`.

        Args:
            share: of the episodes, in (0, 1).
            seed: which episodes these are.
            log: a new file that `shoal stage RUN --enter canary --data` reads; None: stages/canary-N.jsonl of the run.
            drift: from which drift on it is alarmed.

        Raises:
            ConfigError: this policy has not entered the stage `canary`, which takes a signature of `shadow`; or as of
                `shadow`.
        """
        share = number_of("share", share, 0.0, 1.0)
        if not 0 < share < 1:
            raise ConfigError(f"share must lie between 0 and 1, got {share:g}")
        check_seed(seed)
        self._check_entered("canary")
        limits = _limits(drift)
        file, reference = self._begun("canary", log, share)
        return Canary(
            self._another(),
            self.spec,
            file,
            reference=reference,
            limits=limits,
            share=share,
            seed=int(seed),
        )

    def _another(self) -> _Acting:
        """A policy with a memory of its own, so that whoever else asks this one disturbs nothing."""
        made: Any = type(self)
        return _Acting(made(self.policy, self.spec, self.experiment, self.provenance))

    def _folder(self) -> Path:
        if self.provenance.folder is None:
            raise ConfigError(
                "this policy is of no run directory, which stages are kept in"
            )
        return self.provenance.folder

    def _check_entered(self, stage: str) -> None:
        folder, (policy, _) = self._folder(), packed(self.policy)
        standing = read_stages(folder).standing(policy)
        if not any(entry.stage == stage for entry in standing):
            where = f"it is in {standing[-1].stage}" if standing else "it entered none"
            missing = lacks(standing[-1]) if standing else ""
            why = f", which {missing}" if missing else ""
            raise ConfigError(
                f"the policy {policy[:12]} may not act on the real system: it has not entered the stage {stage}; "
                f"{where}{why} (`shoal stage RUN`)"
            )

    def _begun(
        self, kind: Kind, log: str | Path | None, share: float
    ) -> tuple[StageLog, Reference | None]:
        check_policy(self.spec, self.experiment)
        folder, (policy, _) = self._folder(), packed(self.policy)
        check_folder(folder / FOLDER)
        reference = Reference.read(reference_of(folder, policy))
        named = None if log is None else path_of("log", log)
        path = named or _free(folder / FOLDER, kind)
        env = self.spec.env_id
        header = Header(kind, policy, sha256_of(self.spec), env, now(), share)
        return StageLog(path, header), reference


def _limits(drift: Drifts | None) -> Drifts:
    """From which drift on it is alarmed; ConfigError for something else."""
    if drift is None:
        return Drifts()
    limits = object_of("drift", drift, Drifts, "Drifts(most_psi=0.25)")
    return Criteria(drift=limits).drift


class _Acting:
    """A loaded policy, for one row."""

    def __init__(self, agent: Any) -> None:
        self._agent = agent

    @property
    def interventions(self) -> int:
        """Actions that the guard changed."""
        return self._agent.interventions

    def act(self, obs: Tree, /) -> Tree:
        """The greedy action."""
        return self._agent.act(obs)

    def reset(self) -> None:
        """An episode begins."""
        self._agent.reset()


def check_policy(spec: Spec, experiment: Experiment) -> None:
    """ConfigError where a policy cannot climb stages."""
    if hasattr(experiment.config, "num_generations"):
        raise ConfigError(
            f"{spec.env_id} is a task of a language model; stages are of policies that control a system"
        )
    if spec.num_agents > 1 or spec.masked:
        why = "several agents" if spec.num_agents > 1 else "action masks"
        raise ConfigError(
            f"{spec.env_id} has {why}; stages are of one policy without masks"
        )


def _free(folder: Path, kind: str) -> Path:
    return next(
        path
        for number in count()
        if not (path := folder / f"{kind}-{number}.jsonl").exists()
    )
