"""Loading: the options that every command has which asks a trained policy, and what comes of them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any, Literal

import tyro

from shoal.cli.arguments import add_here, look_here

if TYPE_CHECKING:
    from collections.abc import Mapping

    from shoal.experiment.agent import Agent


@dataclass(frozen=True, slots=True, kw_only=True)
class OfPolicy:
    """Which policy a command asks."""

    run: Annotated[tyro.conf.Positional[str], tyro.conf.arg(metavar="RUN")]
    """Run directory, or a directory of runs (the newest is used)."""
    run_dir: str = "runs"
    """Directory in which RUN is searched for as well."""
    env: str | None = None
    """The environment, as `package.module:Class`, where the run was given an object."""
    policy: str | None = None
    """The policy, as `package.module:Class`, where the run was given an object."""
    tag: Literal["", "best", "deployed"] = ""
    """Checkpoint of the run: the newest, `best`, or `deployed` (see `shoal stage`)."""
    trust: bool = False
    """Import and run what the file names (an environment, a policy, an algorithm), though nothing shows that you
    wrote it."""


def agent_of(given: OfPolicy, env_kwargs: Mapping[str, Any] | None = None) -> Agent:
    """The policy that options name; imports torch.

    Args:
        given: the options.
        env_kwargs: parameters of its environment that differ from the run's.

    Raises:
        ConfigError: no such run or checkpoint, a damaged one, or names of code that nobody trusts.
    """
    look_here(given.env, given.policy)
    if given.trust:
        add_here()
    from shoal.experiment.agent import load

    return load(
        given.run,
        run_dir=given.run_dir,
        policy=given.policy,
        factory=given.env,
        tag=given.tag,
        env_kwargs=env_kwargs,
        trust=given.trust,
    )
