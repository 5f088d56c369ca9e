"""Experiment: a source of rows, settings, and the objects that stand in for what a file can only name."""

from __future__ import annotations

import copy
import json
import os
from collections.abc import Callable, Mapping
from contextlib import nullcontext
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias, cast

import gymnasium as gym
import torch
from torch import nn

from shoal import algos
from shoal.algos.presets import preset
from shoal.envs import packages, randomization
from shoal.envs.action_guard.guarded import guarded
from shoal.envs.costs.rows import costed
from shoal.envs.factories import import_object, name_of
from shoal.envs.registry import is_batched, make, on_servers
from shoal.envs.rendering import RENDER_MODE
from shoal.envs.told import told_before
from shoal.experiment.applies import names_in
from shoal.experiment.given_again import check_given_again
from shoal.experiment.language import language_model, on_tasks, source_of
from shoal.experiment.misnamed import check_names
from shoal.experiment.options import CHANGEABLE, CHANGEABLE_PARTS, PLACES, Options
from shoal.experiment.settings import (
    UNSET,
    build,
    flat,
    layers_of_file,
    resolve,
    shallow,
    split,
    unset_in,
    whole_tree,
    without_none,
)
from shoal.experiment.stored import with_env_kwargs, with_tuples
from shoal.experiment.trust import check, is_function
from shoal.nets.given import check_factory
from shoal.nets.policy import wrap
from shoal.remote.address import is_address
from shoal.remote.settings import Terms
from shoal.run.origin import Origin
from shoal.run.reading import read_toml
from shoal.stream.meter import cores
from shoal.types import ConfigError

if TYPE_CHECKING:
    from collections.abc import Collection, Sequence
    from types import ModuleType

    from shoal.algos import Algorithm
    from shoal.envs.preprocessing import Preprocessing
    from shoal.envs.vec_env import VecEnv
    from shoal.fleet.servers import Servers
    from shoal.stream.actors.distant import Places
    from shoal.types import Spec

Source: TypeAlias = "str | Callable[..., Any]"
"""An environment's id, `package.module:function`, or a callable that makes environments."""
PolicySource: TypeAlias = "str | nn.Module | Callable[[Spec], nn.Module]"
"""`package.module:Class`, a module, or a function of the Spec."""


@dataclass(frozen=True, slots=True)
class Experiment:
    """All that a run is started with."""

    options: Options
    config: Any
    """The algorithm's settings, an instance of its Config."""
    algorithm: Algorithm
    source: Source
    env_kwargs: Mapping[str, Any] | None = None
    policy: PolicySource | None = None
    """The user's policy; None for the algorithm's own."""
    reopened: bool = False
    """Whether it was read from a run directory, which holds names only."""
    given: frozenset[str] = frozenset()
    """The dotted names of the settings that were given by hand, not by a preset or a file."""
    servers: Servers | None = None
    """Where its environments are while a fleet runs them."""
    place: Callable[[bytes, int, int], Places] | None = None
    """What starts its actors on a fleet."""

    @classmethod
    def new(
        cls,
        env: Source,
        *,
        algo: str | Algorithm | ModuleType | None = None,
        config: object = None,
        policy: PolicySource | None = None,
        env_kwargs: Mapping[str, Any] | None = None,
        settings: Mapping[str, Any],
        trust: bool = False,
    ) -> Experiment:
        """From an environment and what was given: the algorithm's defaults < its preset < `config` < `settings`.

        Args:
            env: an id, `package.module:function`, or a callable that makes environments.
            algo: its name or module; the default one unless given.
            config: the algorithm's settings, or the path of a configuration file, which takes the preset's place.
            policy: the user's own.
            env_kwargs: keywords for the environment.
            settings: of the run and of the algorithm.
            trust: import what a configuration file names, whoever wrote it.

        Raises:
            ConfigError: an unknown name (with the nearest ones), settings that cannot work, or names of a file that may
                not be imported.
        """
        name = name_of(env)
        if isinstance(config, str | os.PathLike):
            path = Path(os.fspath(cast("str", config)))
            read = _of_path(path, env, algo, policy, settings, trust=trust)
            whole = {**(read.env_kwargs or {}), **(env_kwargs or {})}
            return replace(read, env_kwargs=whole)
        if trust:
            raise ConfigError(
                "trust is of what a configuration file names; leave it out without config='FILE.toml'"
            )
        algorithm = algos.load(algos.DEFAULT if algo is None else algo)
        algo_name = algos.name_of(algorithm)
        tuned, given = _below(algorithm, config, settings, name)
        tuned, env_kwargs = _with_keywords(tuned, env_kwargs)
        named: dict[str, Any] = {"env": name, "algo": algo_name}
        if isinstance(policy, str):
            named["policy"] = policy
        layers = (algos.defaults(algorithm), tuned, named, settings)
        options, own = _resolve(algorithm, layers, env)
        chosen = policy or options.policy
        return cls(options, own, algorithm, env, env_kwargs, chosen, given=given)

    @classmethod
    def of_file(
        cls,
        saved: Mapping[str, Any],
        *,
        given: Mapping[str, Any] | None = None,
        source: Source | None = None,
        policy: PolicySource | None = None,
        origin: Origin | None = None,
        trust: bool = False,
        named: Collection[str] = (),
    ) -> Experiment:
        """From a configuration as TOML holds it: defaults < the preset that it names < the file < `given`.

        Args:
            saved: a config.toml, read.
            given: settings that win over the file's, named by the user.
            source: the environment, where the run was given a callable.
            policy: the policy, where the run was given an object.
            origin: the run's; else what `saved` says of it.
            trust: import what the file names, whoever wrote it.
            named: settings of `saved` that the user gives, instead of the file.

        Raises:
            ConfigError: unknown or outdated names, settings that cannot work, or names that may not be imported.
        """
        own, table, env_kwargs = layers_of_file(with_tuples(saved), Options)
        given = given or {}
        env = given.get("env", own.get("env"))
        if env is None:
            raise ConfigError("the configuration names no env")
        objects = {"env": source, "policy": policy}
        mine = [name for name, made in objects.items() if made is not None]
        known = origin or Origin.of_file(saved, Path("config.toml"))
        whole, opened = {**own, "algorithm": table}, origin is not None
        by_name = (*mine, *given, *names_in(given), *named)
        check(whole, known, trust=trust, given=by_name, opened=opened)
        check_given_again(known, whole, given=by_name, opened=opened)
        algorithm = algos.load(own.get("algo", algos.DEFAULT))
        name = own.get("preset")
        tuned = preset(algos.name_of(algorithm), name, env) if name else {}
        tuned, env_kwargs = _with_keywords(tuned, env_kwargs)
        layers = (algos.defaults(algorithm), tuned, own, table, given)
        options, config = _resolve(algorithm, layers, source)
        return cls(
            options,
            config,
            algorithm,
            source or options.env,
            env_kwargs,
            policy or options.policy,
            reopened=True,
            given=names_in(given),
        )

    def to_file(self) -> dict[str, Any]:
        """The configuration as TOML holds it: tables for nested parts, the preset spelled out, no nulls.

        A setting that is None is left out; where its default is something else, the list `unset` names it.
        """
        whole = whole_tree(self.options) | {
            "preset": None,
            "algorithm": whole_tree(self.config),
        }
        lower = algos.defaults(self.algorithm)
        unset = unset_in(self.options, lower)
        unset += unset_in(self.config, lower, "algorithm.")
        unset += unset_in(self.env_kwargs or {}, path="env_kwargs.")
        if unset:
            whole[UNSET] = sorted(unset)
        if self.env_kwargs:
            whole = with_env_kwargs(whole, self.env_kwargs)
        return without_none(whole)

    def changed(self, **settings: Any) -> Experiment:
        """The same with other settings, of the run or of the algorithm."""
        own, rest = split(settings, Options)
        options = build(Options, own, base=self.options)
        config = build(self.algorithm.Config, rest, base=self.config)
        given = self.given | names_in(settings)
        return replace(self, options=options, config=config, given=given)

    def rows(self, num_envs: int, *, playing: bool = False) -> VecEnv:
        """Rows of the environment. Evaluation plays for the environment's own rewards, over the whole of each range."""
        if on_tasks(self.algorithm):
            return cast("Any", source_of(self, held_out=playing))
        options = self.options
        env_kwargs = dict(self.env_kwargs or {})
        preprocessing = options.preprocessing
        try:
            if playing:
                env_kwargs = randomization.whole(env_kwargs)
                preprocessing = preprocessing.for_playing()
            with told_before() if playing else nullcontext():
                return _rows_of(
                    self, num_envs, env_kwargs, preprocessing, playing=playing
                )
        except ConfigError as error:
            if not (self.reopened and is_unknown(self.source)):
                raise
            raise ConfigError(
                f"{error}; a run that was given a callable needs it again (factory=..., or --env module:Class)"
            ) from error

    def make_policy(self, spec: Spec, *, seed: int | None = None) -> nn.Module:
        """The user's policy for these rows, else the algorithm's; its weights are drawn from the seed.

        `seed`: another one than the run's, for another agent of a population.

        Raises:
            ConfigError: there is no such policy, or it is neither a module nor a function of the Spec.
        """
        seed = self.options.seed if seed is None else seed
        if on_tasks(self.algorithm):
            return language_model(self)
        chosen = self.policy
        if chosen is None:
            return algos.make_policy(self.algorithm, spec, self.config, seed)
        if isinstance(chosen, str):
            chosen = _imported(chosen)
        if isinstance(chosen, nn.Module):
            chosen = copy.deepcopy(chosen)  # training must not change the user's own
        else:
            check_factory(chosen)
        with torch.random.fork_rng(devices=[]):
            torch.default_generator.manual_seed(seed)
            return wrap(chosen, spec, plain=algos.plain_policy(self.algorithm))


def _rows_of(
    experiment: Experiment,
    num_envs: int,
    env_kwargs: dict[str, Any],
    preprocessing: Preprocessing,
    *,
    playing: bool,
) -> VecEnv:
    """The rows with their costs, behind the run's action guard."""
    made = _bare_rows(experiment, num_envs, env_kwargs, preprocessing, playing=playing)
    guard = experiment.options.action_guard
    sticky = preprocessing.sticky_actions > 0
    return guarded(costed(made), guard, sticky=sticky, playing=playing)


def _bare_rows(
    experiment: Experiment,
    num_envs: int,
    env_kwargs: dict[str, Any],
    preprocessing: Preprocessing,
    *,
    playing: bool,
) -> VecEnv:
    options = experiment.options
    terms = Terms(
        options.remote,
        options.step_timeout_s,
        options.fault_policy,
        options.max_restarts,
        playing,
    )
    if experiment.servers is not None:
        return experiment.servers.rows(num_envs, terms)
    if is_address(experiment.source):
        return on_servers(
            experiment.source,
            num_envs,
            env_kwargs,
            options.info_keys,
            preprocessing,
            backend=options.backend,
            terms=terms,
        )
    return make(
        experiment.source,
        num_envs,
        env_kwargs=env_kwargs,
        backend=options.backend,
        num_threads=options.threads(),
        preprocessing=preprocessing,
        info_keys=options.info_keys,
        workers=options.workers() if options.backend == "workers" else None,
    )


def with_actors(experiment: Experiment) -> Experiment:
    """The same with an actor for each core, or server of a fleet, where its schedule needs some and none were named."""
    options = experiment.options
    if options.schedule != "async" or options.actors or on_tasks(experiment.algorithm):
        return experiment
    most = cores() if options.fleet is None else options.placement.servers
    most = min(most, options.num_envs)
    return replace(experiment, options=replace(options, actors=most))


def is_unknown(source: Source) -> bool:
    """Whether it is a name of no environment, as that of a callable that a run was given."""
    if not isinstance(source, str):
        return False
    return not (":" in source or packages.has(source) or source in gym.registry)


def drawn_rows(experiment: Experiment, num_envs: int) -> VecEnv:
    """Rows that draw themselves: Gymnasium's own, which equal the native ones bit for bit, shoal's worlds, Atari.

    Raises:
        ConfigError: the environment cannot be made with render_mode="rgb_array".
    """
    source = experiment.source
    own_world = isinstance(source, str) and packages.has(source)
    own_world = own_world and source not in gym.registry
    if own_world or is_batched(experiment.source, experiment.options.backend):
        return experiment.rows(num_envs, playing=True)
    kwargs = {**(experiment.env_kwargs or {}), "render_mode": RENDER_MODE}
    options = replace(experiment.options, backend="serial")
    serial = replace(experiment, options=options, env_kwargs=kwargs, servers=None)
    try:
        return serial.rows(num_envs, playing=True)
    except (ConfigError, TypeError) as error:
        raise ConfigError(
            f"{experiment.options.env} cannot be rendered, made with {kwargs}: {error}; an environment that draws "
            "itself takes the keyword render_mode and returns uint8 [height, width, 3] from render()"
        ) from error


def fixed_settings(experiment: Experiment) -> dict[str, Any]:
    """The settings that a resumed run must share with its checkpoints, by dotted names, as JSON holds them.

    Of a function none has more than that it is one: it may be given again.
    """
    own = whole_tree(experiment.options)
    of_rows = not on_tasks(experiment.algorithm)
    for name in (*CHANGEABLE, *PLACES):
        if not (name == "learners" and of_rows):  # each has rows of its own there
            del own[name]
    for name, parts in CHANGEABLE_PARTS.items():
        for part in parts:
            del own[name][part]
    env_kwargs = randomization.as_text(dict(experiment.env_kwargs or {}))
    whole = flat(own) | flat(whole_tree(experiment.config), "algorithm.")
    for name, value in whole.items():
        if is_function(name, value):
            whole[name] = "a function"
    return json.loads(json.dumps(whole | {"env_kwargs": env_kwargs}, default=str))


def _resolve(
    algorithm: Algorithm, layers: Sequence[Mapping[str, Any]], env: object
) -> tuple[Options, Any]:
    """The settings of the run and of the algorithm; ConfigError for a name that is none, with what it may mean."""
    for layer in layers:
        check_names(layer, Options, algorithm, env)
    return resolve(Options, algorithm.Config, *layers)


def _below(
    algorithm: Algorithm, config: object, settings: Mapping[str, Any], env: str
) -> tuple[Mapping[str, Any], frozenset[str]]:
    """What lies below `settings`, the preset or a config, and the names of all that was given by hand."""
    algo_name, named_preset = algos.name_of(algorithm), settings.get("preset")
    given = names_in(settings)
    if config is None:
        return preset(algo_name, named_preset, env), given
    if named_preset is not None:
        raise ConfigError(
            f"preset={named_preset!r} beside config=...: both are where settings start from; leave one out"
        )
    if not isinstance(config, algorithm.Config):
        raise ConfigError(
            f"{algo_name} needs a config of type {algorithm.Config.__name__}, or the path of a TOML file, "
            f"got {type(config).__name__}"
        )
    own = shallow(config)
    return own, given | names_in(own)


def _with_keywords(
    tuned: Mapping[str, Any], env_kwargs: Mapping[str, Any] | None
) -> tuple[dict[str, Any], Mapping[str, Any] | None]:
    """A preset without the keywords that it has for the environment, and these below those that were given."""
    rest = dict(tuned)
    own: Mapping[str, Any] = rest.pop("env_kwargs", {})
    return rest, {**own, **(env_kwargs or {})} if own else env_kwargs


def _of_path(
    path: Path,
    env: Source,
    algo: str | Algorithm | ModuleType | None,
    policy: PolicySource | None,
    settings: Mapping[str, Any],
    *,
    trust: bool,
) -> Experiment:
    """The experiment of a configuration file, where a call gives the environment and maybe more."""
    name = None if algo is None else algos.name_of(algos.load(algo))
    read = Experiment.of_file(
        read_file(path, algo=name, preset=settings.get("preset")),
        given={"env": name_of(env), **settings},
        source=env,
        policy=policy,
        trust=trust,
        named=() if algo is None else ["algo"],
    )
    return replace(read, reopened=False)


def read_file(path: Path, *, algo: str | None, preset: str | None) -> dict[str, Any]:
    """A configuration file.

    Raises:
        ConfigError: no such file, or an algorithm or a preset beside it: it decides both.
    """
    saved = read_toml(path)
    own = saved.get("algo", algos.DEFAULT)
    if preset is not None or algo not in (None, own):
        raise ConfigError(
            f"{path} decides the algorithm and its settings; leave algo and preset out"
        )
    return saved


def _imported(name: str) -> nn.Module | Callable[[Spec], nn.Module]:
    if name in ("MlpPolicy", "CnnPolicy", "MultiInputPolicy"):
        raise ConfigError(
            f"leave out policy={name!r}: the default network follows from the spaces of observations and actions, and "
            "network={...} changes it"
        )
    if not all(name.partition(":")):
        hint = ""
        if Path(name).suffix in (".zip", ".pt", ".pth"):
            hint = "; files of weights are not read: load them into a module, and give that"
        raise ConfigError(f"a policy is named package.module:Class, got {name!r}{hint}")
    return import_object(name)
