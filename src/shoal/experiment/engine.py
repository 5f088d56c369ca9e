"""The engine of a run: how its rows collect, as far as speed is concerned."""

from __future__ import annotations

from typing import TYPE_CHECKING

from shoal.envs.registry import are_simulated, backend_of
from shoal.experiment.language import on_tasks
from shoal.run.bottleneck import Engine
from shoal.stream.meter import cores

if TYPE_CHECKING:
    from shoal.envs.vec_env import VecEnv
    from shoal.experiment.experiment import Experiment


def engine_of(experiment: Experiment, rows: VecEnv) -> Engine:
    """How a run of these rows collects and learns."""
    options = experiment.options
    # "auto" may have left to Python what native threads step: such rows hand over their environments.
    simulated = are_simulated(experiment.source, options.backend)
    native = rows.native_pool is not None or (simulated and rows.python_rows is None)
    backend = "native" if native else backend_of(experiment.source, options.backend)
    return Engine(
        schedule=options.schedule,
        max_staleness=options.max_staleness,
        backend=backend,
        actors=options.actors,
        num_envs=options.num_envs,
        num_threads=options.threads(),
        num_workers=options.num_workers,
        cores=cores(),
        several_agents=getattr(rows.spec, "num_agents", 1) > 1,
        replay=hasattr(experiment.config, "replay"),
        task=on_tasks(experiment.algorithm),
        passes=getattr(experiment.config, "num_iterations", 1),
    )
