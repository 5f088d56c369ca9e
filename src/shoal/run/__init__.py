"""Runs: the loop around an algorithm, its checkpoints, log and directory, evaluation."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from torch import nn

    from shoal.run.callbacks import Callback
    from shoal.run.run import Run
    from shoal.types import Spec


def open(  # noqa: PLR0913 (each is a choice of its own)
    *,
    seed: int = 1,
    total_timesteps: int = 1_000_000,
    num_envs: int = 16,
    stop_at: float | None = None,
    device: str = "cpu",
    native: bool = True,
    policy: Callable[[Spec], nn.Module] | None = None,
    callbacks: Sequence[Callback] = (),
    data_fraction: float = 0.5,
) -> Run:
    """A run without a directory, for scripts and notebooks: nothing is written, nothing is resumed.

    Args:
        seed: of weights, noise and environments.
        total_timesteps: environment steps until `run.loop` ends.
        num_envs: environments that act together; the mean return is over max(100, num_envs) episodes.
        stop_at: mean return at which the loop ends.
        device: cpu, cuda or cuda:1.
        native: lower the policy to native code where that is possible.
        policy: makes the policy that `run.policy(spec)` returns; the default network unless given.
        callbacks: called as `callback(run, record)` at every line of metrics and at every episode's end.
        data_fraction: share of each batch of a replay memory that is drawn from what `run.memory.insert` inserted.

    Raises:
        ConfigError: a setting that cannot work.
    """
    from shoal.memory.settings import FromData
    from shoal.nets.policy import Network, make_policy
    from shoal.run.run import Run
    from shoal.run.settings import Settings
    from shoal.stream.meter import cores

    def default(spec: Spec) -> nn.Module:
        return make_policy(spec, Network(), int(seed))

    _check(seed, total_timesteps, num_envs, stop_at)
    settings = Settings(
        env="",
        algo="",
        seed=int(seed),
        num_envs=int(num_envs),
        total_timesteps=int(total_timesteps),
        stop_at=stop_at,
        device=device,
        native=native,
        num_threads=min(4, cores()),
        data=FromData(fraction=data_fraction),
    )
    return Run(settings, policy=policy or default, callbacks=callbacks)


def _check(
    seed: object, total_timesteps: object, num_envs: object, stop_at: object
) -> None:
    """ConfigError where a run cannot be of these."""
    from math import isnan
    from numbers import Real

    import numpy as np

    from shoal.types import ConfigError

    least = {"seed": (seed, 0), "num_envs": (num_envs, 1)}
    least["total_timesteps"] = (total_timesteps, 1)
    for name, (value, low) in least.items():
        number = isinstance(value, int | float | np.integer | np.floating)
        if not number or value % 1 or not low <= value < 2**63:
            raise ConfigError(
                f"{name} must be a whole number of at least {low}, got {value!r}"
            )
    if stop_at is not None and (not isinstance(stop_at, Real) or isnan(stop_at)):
        raise ConfigError(
            f"stop_at must be a number, or None to go on to the end, got {stop_at!r}"
        )
