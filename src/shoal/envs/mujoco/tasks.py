"""What Gymnasium's MuJoCo classes observe and pay, as native code reads it: arrays of the simulation, and weights.

Each function here says the same as `step`, `_get_obs` and `_get_rew` of its class; tests compare their bits.
"""

from __future__ import annotations

import operator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from shoal.envs.python_env import read_flag
from shoal.types import ConfigError, text_of

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray

    Array = NDArray[np.float64]

ANYTHING = -np.inf, np.inf
FINITE = -np.finfo(np.float64).max, np.finfo(np.float64).max


class Unlike(ConfigError):  # noqa: N818  # a ConfigError that "auto" answers with another backend
    """Native code would not do what Gymnasium's class does."""


@dataclass
class Reading:
    """What a step of one environment reads: views of its simulation's arrays, and the weights of its reward."""

    place: Array
    """Its first number is the place along x; [bodies, 3] where there are masses."""
    shown: list[tuple[Array, float, float]]
    """The observation's parts, each clipped to a range."""
    healthy: list[tuple[Array, float, float, bool]] = field(
        default_factory=list[tuple["Array", float, float, bool]]
    )
    """Numbers and the range in which they lie while the body is healthy; whether without the range's ends."""
    masses: Array | None = None
    contacts: Array | None = None
    """The contact forces, where they are observed or cost something."""
    terms: dict[str, Any] = field(default_factory=dict[str, Any])
    """The keywords of _native.MujocoRows."""


def half_cheetah(env: Any) -> Reading:
    """Pays its speed, less the cost of its action."""
    return Reading(env.data.qpos, _position_and_velocity(env, 1), terms=_speed(env))


def swimmer(env: Any) -> Reading:
    """The same with two places left out."""
    return Reading(env.data.qpos, _position_and_velocity(env, 2), terms=_speed(env))


def hopper(env: Any) -> Reading:
    """Also pays for being healthy: all of the state, the height and the angle lie in their ranges."""
    reading = walker2d(env)
    low, high = _range(env, "_healthy_state_range")
    state = env.data.qpos[2:], env.data.qvel
    reading.healthy += [(part, low, high, True) for part in state]
    return reading


def walker2d(env: Any) -> Reading:
    """Also pays for being healthy: height and angle lie in their ranges."""
    data = env.data
    healthy = [
        (data.qpos[1:2], *_range(env, "_healthy_z_range"), True),
        (data.qpos[2:3], *_range(env, "_healthy_angle_range"), True),
    ]
    shown = _position_and_velocity(env, 1, fastest=10)
    return Reading(data.qpos, shown, healthy, terms=_speed(env) | _health(env))


def ant(env: Any) -> Reading:
    """Pays the speed of one body and for being healthy, less the cost of the action and of the contact forces."""
    data = env.data
    forces = _range(env, "_contact_force_range")
    shown = _position_and_velocity(env, 2)
    if vars(env)["_include_cfrc_ext_in_observation"]:
        shown.append((data.cfrc_ext[1:], *forces))
    healthy = [
        (data.qpos[2:3], *_range(env, "_healthy_z_range"), False),
        (data.qpos, *FINITE, False),
        (data.qvel, *FINITE, False),
    ]
    costs = {
        "contact": _number(env, "_contact_cost_weight"),
        "contact_forces": forces,
    }
    return Reading(
        data.body(vars(env)["_main_body"]).xpos,
        shown,
        healthy,
        contacts=data.cfrc_ext,
        terms=_speed(env) | _health(env) | costs,
    )


def humanoid(env: Any) -> Reading:
    """Pays the speed of its center of mass and for being healthy, less the costs of controls and contact forces."""
    data = env.data
    shown = _position_and_velocity(env, 2)
    parts = {
        "_include_cinert_in_observation": data.cinert[1:],
        "_include_cvel_in_observation": data.cvel[1:],
        "_include_qfrc_actuator_in_observation": data.qfrc_actuator[6:],
        "_include_cfrc_ext_in_observation": data.cfrc_ext[1:],
    }
    shown += [
        (part, *ANYTHING) for name, part in parts.items() if vars(env)[name] is True
    ]
    costs = {
        "control_of_action": False,
        "contact": _number(env, "_contact_cost_weight"),
        "contact_costs": _range(env, "_contact_cost_range"),
    }
    return Reading(
        data.xipos,
        shown,
        [(data.qpos[2:3], *_range(env, "_healthy_z_range"), True)],
        masses=env.model.body_mass,
        contacts=data.cfrc_ext,
        terms=_speed(env) | _health(env) | costs,
    )


def inverted_pendulum(env: Any) -> Reading:
    """Pays 1 while the pole stands."""
    data = env.data
    healthy = [
        (data.qpos[1:2], -0.2, 0.2, False),
        (data.qpos, *FINITE, False),
        (data.qvel, *FINITE, False),
    ]
    shown = [(data.qpos, *ANYTHING), (data.qvel, *ANYTHING)]
    return Reading(data.qpos, shown, healthy, terms={"alive": 1.0})


READERS: dict[str, tuple[str, Callable[[Any], Reading]]] = {
    "Ant-v5": ("ant_v5:AntEnv", ant),
    "HalfCheetah-v5": ("half_cheetah_v5:HalfCheetahEnv", half_cheetah),
    "Hopper-v5": ("hopper_v5:HopperEnv", hopper),
    "Humanoid-v5": ("humanoid_v5:HumanoidEnv", humanoid),
    "InvertedPendulum-v5": (
        "inverted_pendulum_v5:InvertedPendulumEnv",
        inverted_pendulum,
    ),
    "Swimmer-v5": ("swimmer_v5:SwimmerEnv", swimmer),
    "Walker2d-v5": ("walker2d_v5:Walker2dEnv", walker2d),
}
"""Each id's class in gymnasium.envs.mujoco, and what a step of it reads."""


def reading_of(name: str, env: Any) -> Reading:
    """What a step of this environment reads; Unlike where Gymnasium's own would fail or read something else."""
    try:
        operator.index(env.frame_skip)
        reading = READERS[name][1](env)
    except (TypeError, LookupError, OverflowError) as error:
        raise Unlike(f"its step would fail: {text_of(error)}") from error
    if any(part.size == 0 for part, *_ in reading.healthy):
        raise Unlike("its model has fewer places than its class looks at")
    return reading


def _position_and_velocity(
    env: Any, left_out: int, fastest: float = np.inf
) -> list[tuple[Array, float, float]]:
    if not vars(env)["_exclude_current_positions_from_observation"]:
        left_out = 0
    return [
        (env.data.qpos[left_out:], *ANYTHING),
        (env.data.qvel, -fastest, fastest),
    ]


def _speed(env: Any) -> dict[str, Any]:
    return {
        "forward": _number(env, "_forward_reward_weight"),
        "control": _number(env, "_ctrl_cost_weight"),
    }


def _health(env: Any) -> dict[str, Any]:
    reward = vars(env)["_healthy_reward"]
    if type(reward) is int and reward < 0:
        raise Unlike(
            f"healthy_reward is {reward}, of which Python makes 0 where native code makes -0.0; give {reward}.0"
        )
    return {
        "alive": _number(env, "_healthy_reward"),
        "ends_unhealthy": _flag(env, "_terminate_when_unhealthy"),
    }


def _flag(env: Any, name: str) -> bool:
    """What a step returns as a flag; Unlike where that is none."""
    flag = read_flag(vars(env)[name])
    if flag is None:
        raise Unlike(f"{name[1:]} is {vars(env)[name]!r}, which is no bool")
    return flag


def _number(env: Any, name: str) -> float:
    """A weight; Unlike where NumPy would multiply it in another type than Python's numbers."""
    return _plain(vars(env)[name], name)


def _range(env: Any, name: str) -> tuple[float, float]:
    ends = tuple(vars(env)[name])
    if len(ends) != 2:
        raise Unlike(f"{name[1:]} is {ends}, which are not two numbers")
    low, high = ends
    return _plain(low, name), _plain(high, name)


def _plain(value: Any, name: str) -> float:
    if type(value) not in (int, float):
        raise Unlike(
            f"{name[1:]} is {value!r} of type {type(value).__name__}, but native code takes Python's int and float"
        )
    return float(value)
