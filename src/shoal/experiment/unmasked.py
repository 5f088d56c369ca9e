"""Policies that were trained with action masks, and what they are asked without them."""

from __future__ import annotations

import warnings
from dataclasses import replace
from typing import TYPE_CHECKING

from shoal.envs.masks import masks_beside
from shoal.llm.tasks.source import TaskSpec

if TYPE_CHECKING:
    from shoal.run.directory import RunDirectory
    from shoal.types import Spec, Tree


def as_trained(spec: Spec, run: RunDirectory) -> Spec:
    """The spec with what only a reset would tell: whether masks come beside the observations."""
    if isinstance(spec, TaskSpec):
        return spec
    return replace(spec, masked=spec.masked or run.is_masked)


class Unmasked:
    """Warns once of an action that is asked for without a mask, where there were masks in training."""

    def __init__(self, spec: Spec) -> None:
        """Of the environment that the policy was trained in."""
        self._spec = spec
        self._silent = isinstance(spec, TaskSpec) or not masks_beside(spec)

    def note(self, given: Tree) -> None:
        """A call of `act` with this mask, or None."""
        if self._silent or given is not None:
            return
        self._silent = True
        warnings.warn(
            f"{self._spec.env_id} has action masks, and without one act may choose what is not allowed: "
            'act(obs, action_mask=info["action_mask"])',
            stacklevel=3,
        )
