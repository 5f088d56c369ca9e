"""An algorithm trained for a given number of updates, without a directory; every line of metrics is kept."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from shoal import algos
from shoal.run.run import Run
from shoal.run.settings import Settings

if TYPE_CHECKING:
    from torch import nn

    from shoal.envs.vec_env import VecEnv


class Lines:
    """A callback that keeps each metric's values, one a line."""

    episodes = False

    def __init__(self) -> None:
        self.logged: dict[str, list[float]] = {}

    def __call__(self, run: Run, record: Any) -> None:
        for name, value in record.items():
            self.logged.setdefault(name, []).append(value)


def train(
    module: algos.Algorithm,
    cfg: Any,
    env: VecEnv,
    *,
    updates: int = 1,
    policy: nn.Module | None = None,
    **settings: Any,
) -> tuple[nn.Module, dict[str, list[float]]]:
    """So many updates with a line after each; without a `policy` the algorithm makes its own.

    Returns:
        The policy, and each metric's values.
    """
    told: dict[str, Any] = {"env": env.spec.env_id, "algo": module.__name__, "seed": 1}
    told |= {"num_envs": env.num_rows // env.spec.num_agents}
    told |= {"total_timesteps": updates * cfg.num_steps * env.num_rows}
    lines = Lines()

    def make_policy(spec: Any) -> nn.Module:
        return algos.make_policy(module, spec, cfg, 1) if policy is None else policy

    run = Run(Settings(**told | settings), policy=make_policy, callbacks=[lines])
    trained = module.train(cfg, env, run)
    run.close()
    return trained, lines.logged
