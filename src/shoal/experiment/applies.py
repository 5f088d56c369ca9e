"""Settings that were given but cannot apply to a run: refused by name, with what would make them apply."""

from __future__ import annotations

from dataclasses import MISSING, fields, is_dataclass, replace
from math import inf
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from gymnasium import spaces
from torch import nn

from shoal import algos
from shoal.experiment.language import idle_with_tasks, idle_without_tasks, on_tasks
from shoal.experiment.settings import flat, whole_tree
from shoal.learn.hardware import Hardware
from shoal.learn.trainable import cuts_gradients
from shoal.math.permutation import check_reachable
from shoal.memory.settings import Replay
from shoal.nets.encoder import MOST_FLAT
from shoal.nets.images import image_net
from shoal.nets.network import ActorCriticNet, Network, QNet
from shoal.remote.address import is_address
from shoal.run.exploit import level_of
from shoal.run.guard.settings import RULES_OF
from shoal.stream.explorers import Explorers
from shoal.types import ConfigError, leaf_spaces

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from shoal.experiment.experiment import Experiment
    from shoal.experiment.options import Options
    from shoal.types import Spec

WORKERS = (
    "num_workers",
    "step_timeout_s",
    "on_fault",
    "max_restarts",
    "own_cores",
)
"""Settings of the backend `workers` alone."""
SERVERS = ("step_timeout_s", "on_fault", "max_restarts")
"""Those that are for environments on servers and for actors too."""
NO_CELL = "set network.recurrent to gru or lstm"
PAST_VERSIONS = ("self_play.pool", "self_play.latest", "self_play.opponents")


def names_in(settings: Mapping[str, object]) -> frozenset[str]:
    """The dotted names of settings, nested ones in mappings or dataclasses."""
    plain: dict[str, object] = {}
    for name, value in settings.items():
        nested = is_dataclass(value) and not isinstance(value, type)
        plain[name] = whole_tree(value) if nested else value
    return frozenset(flat(plain))


def changed_between(before: Experiment, after: Experiment) -> frozenset[str]:
    """The dotted names of the settings in which two experiments of one algorithm differ."""
    theirs = flat(whole_tree(before.options)) | flat(whole_tree(before.config))
    ours = flat(whole_tree(after.options)) | flat(whole_tree(after.config))
    return frozenset(name for name in ours if ours[name] != theirs[name])


def check_applies(experiment: Experiment, spec: Spec) -> None:
    """ConfigError naming the first setting that was given, is not its default, and changes nothing here.

    What a preset or a configuration file holds beside is written for more than one environment and passes.
    """
    for name, why in _idle(experiment, spec):
        value, default = _value(experiment, name), _default(experiment, name)
        if name in experiment.given and value != default:
            raise ConfigError(f"{name}={value!r} would change nothing: {why}")
    options = experiment.options
    _check_held_out(options)
    if options.agents > 1 and options.population.exploit_interval:
        _check_exploit(experiment)
    most = algos.defaults(experiment.algorithm).get("max_staleness")
    if most == 0 and options.schedule == "async" and options.max_staleness:
        raise ConfigError(
            f"max_staleness={options.max_staleness}: {options.algo} learns rightly only from what its newest weights "
            "chose; set max_staleness=0, or choose an algorithm that corrects what older ones did, such as the default "
            "one"
        )


def _check_held_out(options: Options) -> None:
    """ConfigError where the guard is to judge by what no episode says."""
    name = options.guarding.held_out
    if name and name not in options.info_keys:
        raise ConfigError(
            f"guarding.held_out={name!r} is none of info_keys, {list(options.info_keys)}; add it there, or for a "
            "language model set language.held_out_scorer"
        )


def _check_exploit(experiment: Experiment) -> None:
    """ConfigError where agents that copy each other could not be compared, or nothing of theirs perturbed."""
    options, population = experiment.options, experiment.options.population
    if population.exploit_interval >= options.total_timesteps:
        raise ConfigError(
            f"population.exploit_interval={population.exploit_interval:,} steps are not over before the run is, after "
            f"total_timesteps={options.total_timesteps:,}; set it to a tenth of them, say"
        )
    level = level_of(population, options.agents)
    check_reachable(
        population.evaluation_episodes, level, "population.evaluation_episodes"
    )
    changing = _read_at_every_step(experiment)
    led = getattr(experiment.config, "learning_rate_schedule", None) == "kl"
    if led and "learning_rate" in population.varied:
        raise ConfigError(
            'population.exploit_interval: learning_rate_schedule="kl" sets the learning rate itself; choose another '
            "schedule, or vary other settings"
        )
    for name in population.varied:
        if name in changing:
            continue
        others = "none of its settings can"
        if changing:
            others = f"these can: {', '.join(changing)}"
        given = (
            "is varied, but"
            if population.vary
            else "is perturbed where nothing is varied, but"
        )
        raise ConfigError(
            f"population.exploit_interval: {name} {given} {options.algo} does not take another value while it "
            f"trains; {others}"
        )


def _read_at_every_step(experiment: Experiment) -> tuple[str, ...]:
    """The settings that may change while an algorithm trains: what it names, or those that have a schedule."""
    named: Any = getattr(experiment.algorithm, "PERTURBABLE", None)
    if named is not None:
        return tuple(named)
    config: Any = experiment.config
    end = "_schedule"
    names = (field.name for field in fields(config))
    return tuple(name.removesuffix(end) for name in names if name.endswith(end))


def _value(experiment: Experiment, name: str) -> Any:
    first, *rest = name.split(".")
    on_run = hasattr(experiment.options, first)
    value = getattr(experiment.options if on_run else experiment.config, first)
    for step in rest:
        value = getattr(value, step)
    return value


def _default(experiment: Experiment, name: str) -> Any:
    """What the setting is where nobody says anything of it."""
    first, *rest = name.split(".")
    kinds: tuple[Any, Any] = type(experiment.options), experiment.algorithm.Config
    for field in (field for kind in kinds for field in fields(kind)):
        if field.name == first:
            value: Any = field.default
            if field.default_factory is not MISSING:
                value = field.default_factory()
            for step in rest:
                value = getattr(value, step, MISSING)
            return value
    return MISSING


def _idle(experiment: Experiment, spec: Spec) -> Iterator[tuple[str, str]]:
    """The names of settings that change nothing in this run, each with what would make them apply."""
    yield from _idle_guard(experiment.options)
    if on_tasks(experiment.algorithm):
        yield from idle_with_tasks(experiment, spec)
        return
    yield from idle_without_tasks(experiment)
    yield from _idle_of_run(experiment, spec)
    yield from _idle_agents(experiment)
    yield from _idle_schedules(experiment.config)
    yield from _idle_critics(experiment.config, spec)
    yield from _idle_shards(experiment, spec)
    yield from _idle_replay(experiment.config)
    yield from _idle_explorers(experiment.config, spec)
    yield from _idle_data(experiment)
    network = getattr(experiment.config, "network", None)
    if isinstance(network, QNet):
        yield from _idle_exploration(experiment.config)
    if isinstance(network, Network | QNet):
        yield from _idle_network(experiment, network, spec)


def _idle_network(
    experiment: Experiment, network: Network | QNet, spec: Spec
) -> Iterator[tuple[str, str]]:
    if experiment.policy is not None:
        asked = any(name.startswith("network.") for name in experiment.given)
        module = isinstance(experiment.policy, nn.Module)
        if not asked or (module and _is_default(experiment, spec)):
            return
        for field in fields(network):
            yield (
                f"network.{field.name}",
                "it belongs to the default network, but policy= brings its own; set it there",
            )
    elif isinstance(network, QNet):
        if not network.hidden:
            yield "network.activation", "network.hidden has no layer"
        if network.recurrent == "none":
            yield "network.recurrent_size", NO_CELL
        for name, why in _idle_of_encoder(network, spec):
            if name != "network.share":  # a Q-network has one tower
                yield name, why
    elif not hasattr(experiment.algorithm, "make_policy"):
        yield from _idle_of_network(network, spec)
        yield from _idle_of_encoder(network, spec)


def _is_default(experiment: Experiment, spec: Spec) -> bool:
    """Whether the policy given has the default network's weights: a run that has it is loaded without the object."""
    own = experiment.make_policy(spec).state_dict()
    made = replace(experiment, policy=None).make_policy(spec).state_dict()
    return {name: part.shape for name, part in own.items()} == {
        name: part.shape for name, part in made.items()
    }


def _idle_of_run(experiment: Experiment, spec: Spec) -> Iterator[tuple[str, str]]:
    options = experiment.options
    yield from _idle_elsewhere(experiment)
    if options.schedule != "async":
        yield "max_staleness", f'it is for schedule="async", not {options.schedule!r}'
        if hasattr(experiment.config, "decoupled_clip"):
            yield (
                "decoupled_clip",
                'the newest weights act; it is for older ones, with schedule="async"',
            )
    policy = options.fault_policy
    if policy != "restart":
        yield "max_restarts", f"on_fault is {policy!r}; set it to 'restart'"
    if not options.eval_every:
        yield "eval_episodes", "set eval_every too, the steps between two evaluations"
    stop_at = options.stop_at
    if (spec.reward_threshold if stop_at is None else stop_at) in (None, inf):
        yield "confirm_episodes", "nothing ends training early; set stop_at too"
    limit = spec.max_episode_steps
    if limit is not None and options.eval_max_steps <= limit:
        yield (
            "eval_max_steps",
            f"it ends what has no end, and episodes of {spec.env_id} end after {limit:,} steps",
        )
    if options.normalize_reward:
        yield "reward_scale", "normalize_reward divides rewards by their own deviation"
    if not options.self_play.every:
        for name in PAST_VERSIONS:
            yield (
                name,
                "set self_play.every too, the updates between two past versions",
            )


def _idle_elsewhere(experiment: Experiment) -> Iterator[tuple[str, str]]:
    """Of rows in other processes, where there are none."""
    options, fleet = experiment.options, experiment.options.fleet
    remote = is_address(experiment.source) or fleet is not None
    beside = remote or options.actors
    why = f"it is for backend='workers', but this is {options.backend!r}"
    if fleet is not None:
        why = "it is for processes of this machine, and the environments are on a fleet"
    if options.backend != "workers" or fleet is not None:
        for name in WORKERS:
            watched = name == "step_timeout_s" and options.learners > 1
            if not (watched or (beside and name in SERVERS)):
                yield name, why
    if not options.actors:
        yield "actors_in", "there are no actors; set actors too"
    elif fleet is not None:
        yield "actors_in", "actors on a fleet are processes of its nodes"
    for field in fields(options.remote):
        name = f"remote.{field.name}"
        if not remote:
            yield name, "the environment is on no server"
        elif fleet is not None and field.name != "plane":
            yield name, "a fleet makes certificates of its own"
    yield from _idle_placement(options)


def _idle_placement(options: Options) -> Iterator[tuple[str, str]]:
    """Of what a fleet gives its servers."""
    if options.actors:
        yield "placement.servers", "actors are placed in the place of servers"
    if options.fleet is None:
        for field in fields(options.placement):
            yield f"placement.{field.name}", "there is no fleet; set fleet too"


def _idle_guard(options: Options) -> Iterator[tuple[str, str]]:
    """Of a guard that is off, and limits of rules that are."""
    if options.guard == "off":
        for field in fields(options.guarding):
            yield f"guarding.{field.name}", "the guard is off; set guard='on'"
        return
    for name, rules in RULES_OF.items():
        if not any(map(options.guarding.watches, rules)):
            why = f"the guard's rule {' and '.join(rules)} is off; take it out of guarding.without, or add it to "
            yield f"guarding.{name}", f"{why}guarding.rules"


def _idle_agents(experiment: Experiment) -> Iterator[tuple[str, str]]:
    options = experiment.options
    if getattr(experiment.config, "replay", None) is None:
        for name in ("population.memory", "population.mixing"):
            why = f"{options.algo} has no replay memory: each agent learns from its own steps"
            yield name, why
    if not options.curiosity.coef:
        for name in ("curiosity.learning_rate", "curiosity.share"):
            yield name, "set curiosity.coef too, what a bonus adds to rewards"
    if options.agents == 1:
        yield "curiosity.share", "there is one agent; set agents too"
        for field in fields(options.population):
            yield f"population.{field.name}", "there is one agent; set agents too"
    elif not options.population.exploit_interval:
        for name in ("quantile", "significance", "perturb"):
            yield f"population.{name}", "set population.exploit_interval too"


def _idle_shards(experiment: Experiment, spec: Spec) -> Iterator[tuple[str, str]]:
    options = experiment.options
    if "grad_shards" not in experiment.given:  # a policy is made to see
        return
    hardware = Hardware(torch.device(options.device), native=options.native)
    if not cuts_gradients(experiment.make_policy(spec), spec, hardware):
        yield (
            "grad_shards",
            "gradients are cut up in native code, and in torch those of image encoders on the CPU without a memory; "
            "this policy learns in torch, whole minibatches at a time",
        )


def _idle_schedules(config: Any) -> Iterator[tuple[str, str]]:
    for field in fields(config):
        name = field.name.removesuffix("_schedule")
        value = getattr(config, name, None)
        if name != field.name and isinstance(value, float) and not value:
            yield field.name, f"{name} is 0, whatever it is multiplied by; set it too"


def _idle_critics(config: Any, spec: Spec) -> Iterator[tuple[str, str]]:
    """Of actors with critics Q(s, a): of their networks, of the temperature, and of noise on the target's actions."""
    network = getattr(config, "network", None)
    if isinstance(network, ActorCriticNet):
        if not network.hidden:
            yield "network.activation", "network.hidden has no layer"
        names = [field.name for field in fields(network)]
        for name, why in _idle_of_encoder(network, spec):
            if name.removeprefix("network.") in names:
                yield name, why
    if not getattr(config, "autotune", True):
        why = "autotune is off, and ent_coef is the temperature for good; leave autotune on to aim at an entropy"
        yield "target_entropy", why
    if not getattr(config, "policy_noise", True):
        yield "noise_clip", "policy_noise is 0, and there is no noise to clip"
    elif not getattr(config, "noise_clip", True):
        yield "policy_noise", "noise_clip is 0, which cuts all of it off"


def _idle_data(experiment: Experiment) -> Iterator[tuple[str, str]]:
    """Of what is learned from outside, where nothing is."""
    if experiment.options.data is not None:
        return
    yield "offline_updates", "set data too, the data set that is learned from"
    replay = getattr(experiment.config, "replay", None)
    if not isinstance(replay, Replay):
        yield "data_fraction", "set data too, the data set that is learned from"
    elif not replay.inserted_size:
        why = "set data too, the data set that is learned from, or replay.inserted_size, for steps that are inserted"
        yield "data_fraction", why


def _idle_replay(config: Any) -> Iterator[tuple[str, str]]:
    replay = getattr(config, "replay", None)
    if isinstance(replay, Replay) and not replay.alpha:
        why = (
            "batches are drawn uniformly; set replay.alpha, the exponent of priorities"
        )
        yield "replay.beta", why


def _idle_explorers(config: Any, spec: Spec) -> Iterator[tuple[str, str]]:
    """Of the network of policies that explore for a memory."""
    explorers = getattr(config, "explorers", None)
    if not isinstance(explorers, Explorers):
        return
    yield "explorers.network.recurrent_size", "explorers have no memory"
    for find in (_idle_of_network, _idle_of_encoder):
        for name, why in find(explorers.network, spec):
            yield f"explorers.{name}", why


def _idle_exploration(config: Any) -> Iterator[tuple[str, str]]:
    """Of epsilon's fall, where it has the names that a Q-network's settings use."""
    first = getattr(config, "epsilon_start", None)
    if first is not None and first == getattr(config, "epsilon_end", None):
        why = f"epsilon_start and epsilon_end are both {first:g}: nothing falls"
        yield "exploration_fraction", why


def _idle_of_network(network: Network, spec: Spec) -> Iterator[tuple[str, str]]:
    if network.recurrent == "none":
        yield "network.recurrent_size", NO_CELL
        if not network.hidden:
            yield "network.activation", "network.hidden has no layer"
    actions = [part for _, part in leaf_spaces(spec.action_space)]
    if not any(isinstance(part, spaces.Box) for part in actions):
        why = f"it is for Box actions, but these are {spec.action_space}"
        for name in ("squash", "log_std_init", "sde_interval"):
            yield f"network.{name}", why


def _idle_of_encoder(
    network: Network | QNet | ActorCriticNet, spec: Spec
) -> Iterator[tuple[str, str]]:
    seen = [part for _, part in leaf_spaces(spec.observation_space)]
    if not any(isinstance(part, spaces.Box) for part in seen):
        yield "network.normalize_obs", f"no part of {spec.observation_space} is a Box"
    images = [image_net(spec.seeing(part), network.image) for part in seen]
    if not any(images):
        forms = ", ".join(f"{np.dtype(part.dtype)} {part.shape}" for part in seen)
        why = f"no observation of {spec.env_id} goes through an image encoder: {forms}"
        yield "network.precision", why
        large = any(int(np.prod(part.shape or ())) > MOST_FLAT for part in seen)
        warned = large and network.image == "flat"
        if not (warned or any(image_net(spec.seeing(part), "auto") for part in seen)):
            yield "network.image", why
    elif isinstance(spec.observation_space, spaces.Box):
        why = "the features of an image encoder go straight to the heads"
        if getattr(network, "recurrent", "none") != "none":
            why = "the features of an image encoder go straight to the recurrent layer"
        for name in ("hidden", "activation", "share"):
            yield f"network.{name}", why
