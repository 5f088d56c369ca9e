"""The rows that an experiment trains in: in this process, in actors, or on a fleet."""

from __future__ import annotations

from contextlib import closing, contextmanager
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING

from shoal.envs import randomization
from shoal.envs.factories import name_of
from shoal.envs.registry import are_native
from shoal.experiment.applies import check_applies
from shoal.experiment.language import check_kind
from shoal.fleet.settings import check_installed
from shoal.remote.address import is_address
from shoal.stream.actors.rows import ActorRows
from shoal.types import ConfigError

if TYPE_CHECKING:
    from collections.abc import Generator

    from shoal.envs.vec_env import VecEnv
    from shoal.experiment.experiment import Experiment


@contextmanager
def placed(experiment: Experiment) -> Generator[tuple[Experiment, VecEnv]]:
    """The experiment where its environments are, and its rows, which are closed with this.

    Raises:
        ConfigError: a setting would change nothing; Ray is not installed, the cluster cannot be started or joined or
            has no room, or the environment cannot be made on its nodes.
    """
    check_kind(experiment)
    with (
        _on_fleet(experiment) as there,
        closing(training_rows(there)) as rows,
    ):
        check_applies(there, rows.spec)
        yield there, rows


def training_rows(experiment: Experiment) -> VecEnv:
    """The rows that it trains in, in this process or in actors; the caller closes them.

    Of several learners those of one.
    """
    if experiment.options.actors:
        return _in_actors(experiment)
    return experiment.rows(experiment.options.num_envs // experiment.options.learners)


def _in_actors(experiment: Experiment) -> ActorRows:
    """Rows in threads or processes that collect rollouts there."""
    options = experiment.options
    if is_address(experiment.source):
        raise ConfigError(
            f"actors={options.actors} step environments of their own, but {options.env} names servers; set actors=0, "
            'and schedule="sync" or "overlap": "async" has actors'
        )
    threads = max(1, options.threads() // options.actors)
    if experiment.place is not None:
        threads = max(1, int(options.placement.cpus))
    own = replace(options, actors=0, num_threads=threads, fleet=None)
    each = replace(experiment, options=own, policy=None, place=None)
    make_rows = partial(type(each).rows, each)
    acted = options.acted()
    if acted.inside == "auto" and not are_native(experiment.source, options.backend):
        acted = replace(acted, inside="processes")  # nothing in Python is made here
    return ActorRows(make_rows, options.num_envs, acted, place=experiment.place)


@contextmanager
def _on_fleet(experiment: Experiment) -> Generator[Experiment]:
    """The experiment with the fleet's servers, which end with this; as it is where it wants none."""
    options = experiment.options
    if options.fleet is None:
        yield experiment
        return
    if is_address(experiment.source):
        raise ConfigError(
            f"{experiment.source} names servers that run already; give the environment itself, which fleet="
            f"{options.fleet!r} places, or leave the fleet out"
        )
    check_installed()
    from shoal.fleet.actors import FleetActors
    from shoal.fleet.cluster import Cluster
    from shoal.fleet.env_server import Rows
    from shoal.fleet.servers import Servers

    placement = options.placement
    what = f"{options.algo} on {name_of(experiment.source)}"
    if options.actors:
        with (
            closing(Cluster(options.fleet, what)) as cluster,
            closing(FleetActors(cluster, placement, options.actors)) as actors,
        ):
            yield replace(experiment, place=actors.place)
        return
    kwargs = dict(experiment.env_kwargs or {})
    rows = Rows(
        source=experiment.source,
        backend=options.backend,
        num_threads=max(1, int(placement.cpus)),
        env_kwargs=kwargs,
        info_keys=options.info_keys,
        preprocessing=options.preprocessing,
    )
    playing = replace(
        rows,
        env_kwargs=randomization.whole(kwargs),
        preprocessing=options.preprocessing.for_playing(),
    )
    restarts = 0 if options.fault_policy == "raise" else options.max_restarts
    with (
        closing(Cluster(options.fleet, what)) as cluster,
        closing(
            Servers(
                cluster,
                placement,
                rows,
                playing,
                num_envs=options.num_envs,
                max_restarts=restarts,
            )
        ) as servers,
    ):
        yield replace(experiment, servers=servers)
