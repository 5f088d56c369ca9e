"""What the numbers of well-known environments' observations and actions are called."""

from __future__ import annotations

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
