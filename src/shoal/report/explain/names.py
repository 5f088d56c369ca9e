"""What the numbers of known environments' observations and actions are called."""

from __future__ import annotations

from gymnasium import spaces

from shoal.types import ConfigError

LANDER = (
    "x position",
    "y position",
    "x velocity",
    "y velocity",
    "angle",
    "angular velocity",
    "left leg touches",
    "right leg touches",
)
FEATURES: dict[str, tuple[str, ...]] = {
    "CartPole-v0": ("cart position", "cart velocity", "pole angle", "pole velocity"),
    "CartPole-v1": ("cart position", "cart velocity", "pole angle", "pole velocity"),
    "MountainCar-v0": ("position", "velocity"),
    "MountainCarContinuous-v0": ("position", "velocity"),
    "Pendulum-v1": ("cos angle", "sin angle", "angular velocity"),
    "Acrobot-v1": (
        "cos angle 1",
        "sin angle 1",
        "cos angle 2",
        "sin angle 2",
        "angular velocity 1",
        "angular velocity 2",
    ),
    "LunarLander-v3": LANDER,
    "LunarLanderContinuous-v3": LANDER,
}
ACTIONS: dict[str, tuple[str, ...]] = {
    "CartPole-v0": ("push left", "push right"),
    "CartPole-v1": ("push left", "push right"),
    "MountainCar-v0": ("accelerate left", "do nothing", "accelerate right"),
    "MountainCarContinuous-v0": ("force",),
    "Pendulum-v1": ("torque",),
    "Acrobot-v1": ("torque -1", "torque 0", "torque +1"),
    "LunarLander-v3": ("do nothing", "left engine", "main engine", "right engine"),
    "LunarLanderContinuous-v3": ("main engine", "side engines"),
}


def given_names(given: str, count: int, env: str) -> tuple[str, ...]:
    """Names from a text with commas between; ConfigError where they are not `count` different ones."""
    names = tuple(name.strip() for name in given.split(","))
    if len(names) != count or len(set(names)) != count or not all(names):
        raise ConfigError(
            f"--feature-names: {env} observes {count} numbers, so give as many different names with commas "
            f"between, got {len(names)}: {given!r}"
        )
    return names


def action_names(env: str, space: spaces.Space[object]) -> tuple[str, ...]:
    """What the options of a Discrete space are called, or the components of a Box; empty for other spaces."""
    known = ACTIONS.get(env, ())
    if isinstance(space, spaces.Discrete):
        count, first = int(space.n), int(space.start)
        names = tuple(f"action {number + first}" for number in range(count))
    elif isinstance(space, spaces.Box):
        size = int(space.low.size)
        names = tuple(f"action[{at}]" for at in range(size))
    else:
        return ()
    return known if len(known) == len(names) else names
