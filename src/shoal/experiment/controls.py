"""What only policies of environments can do: a language model is told so before anything is asked of it."""

from __future__ import annotations

from typing import Any

from shoal.llm.tasks.source import TaskSpec
from shoal.types import ConfigError


def check_controls(spec: Any, what: str) -> None:
    """ConfigError where a run has no policy of an environment, but a language model.

    Args:
        spec: of the run's environment, or of its task.
        what: was asked of the policy, in the message.
    """
    if isinstance(spec, TaskSpec):
        raise ConfigError(
            f"{spec.env_id} is a task of a language model, and {what} of policies that act in environments: talk to it "
            "by `shoal chat RUN`, or copy it by `shoal push RUN FOLDER`, which transformers and vLLM read"
        )
