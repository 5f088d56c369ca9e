"""The same episodes again: from a seed, in another instance, beside another one, and from a saved state."""

from __future__ import annotations

import copy
from typing import TYPE_CHECKING, Any, TypeAlias

from gymnasium.vector.utils import batch_space

from shoal.check.play import Player, draw, plain, same
from shoal.check.report import shown
from shoal.types import select

if TYPE_CHECKING:
    from shoal.check.report import Findings
    from shoal.envs.serial import SerialEnv

    Trace: TypeAlias = list[tuple[Any, float, bool, bool]]

ADVICE = (
    "draw everything random from self.np_random, which super().reset(seed=seed) seeds (not from random, np.random or a "
    "generator of your own), and set all other state anew in reset()"
)


def check_repeats(
    found: Findings, player: Player, other: Player, *, seed: int, count: int
) -> None:
    """Whether a seed and actions decide everything: again, in another instance, with another one between the steps."""
    player.env.action_space.seed(seed + 1)
    actions = [draw(player.env.action_space) for _ in range(count)]
    first = trace(player, seed, actions)
    again, elsewhere = trace(player, seed, actions), trace(other, seed, actions)
    for second, which in (
        (again, "after reset with the same seed"),
        (elsewhere, "in another instance"),
    ):
        difference = compare(first, second)
        if difference:
            says = f"with seed {seed} and the same actions, {which}: {difference}"
            found.error("determinism", says, ADVICE)
    found.ok(
        "determinism",
        f"{count} steps came out equal after reset(seed) and in a second instance",
    )
    if found.has("determinism"):
        return
    if compare(first, trace(other, seed + 1, actions)):
        found.ok("seed", "another seed gives other episodes")
    else:
        says = f"seeds {seed} and {seed + 1} gave the same {count} steps, so all rows see the same episodes"
        advice = f"begin reset() with super().reset(seed=seed), and {ADVICE}; leave it if nothing is meant to be random"
        found.warn("seed", says, advice)
    _check_apart(found, first, (player, other), seed=seed, actions=actions)


def trace(player: Player, seed: int, actions: list[Any]) -> Trace:
    """What the actions lead to from a seed on, over several episodes: copies."""
    made, _ = player.reset(seed)
    steps: Trace = [(copy.deepcopy(made), 0.0, False, False)]
    for action in actions:
        obs, reward, terminated, truncated, _ = player.step(copy.deepcopy(action))
        steps.append(
            (copy.deepcopy(obs), float(reward), bool(terminated), bool(truncated))
        )
        if terminated or truncated:
            steps.append((copy.deepcopy(player.reset()[0]), 0.0, False, False))
    return steps


def compare(first: Trace, second: Trace) -> str:
    """Where two traces part, or nothing."""
    names = ("observation", "reward", "terminated", "truncated")
    step = 0
    for one, other in zip(first, second, strict=False):
        for name, value, another in zip(names, one, other, strict=True):
            if not same(value, another):
                when = f"at step {step} of its episode" if step else "at a reset"
                return f"{when} the {name} was {shown(value)}, then {shown(another)}"
        step = 0 if one[2] or one[3] else step + 1
    return ""


def _check_apart(
    found: Findings,
    alone: Trace,
    players: tuple[Player, Player],
    *,
    seed: int,
    actions: list[Any],
) -> None:
    """Steps two instances in turn: what the first one returns, and has returned, must not depend on the second."""
    player, other = players
    advice = (
        "keep all state in self, set in __init__ or reset (not in the class, in the module or in a mutable default "
        "argument): rows of one process would overwrite each other"
    )
    obs, info = player.reset(seed)
    other.reset(seed + 1)
    steps: Trace = [(copy.deepcopy(obs), 0.0, False, False)]
    for number, action in enumerate(actions):
        obs, reward, terminated, truncated, info = player.step(copy.deepcopy(action))
        before, told = copy.deepcopy(obs), copy.deepcopy(plain(info))
        steps.append((before, float(reward), bool(terminated), bool(truncated)))
        if any(other.step(copy.deepcopy(actions[-1 - number]))[2:4]):
            other.reset()
        for what, value, copied in (
            ("observation", obs, before),
            ("info", plain(info), told),
        ):
            if not same(value, copied):
                says = f"the {what} of one instance changed when another was stepped: {shown(copied)}, {shown(value)}"
                found.error("shared", f"{player.where()} {says}", advice)
                return
        if terminated or truncated:
            steps.append((copy.deepcopy(player.reset()[0]), 0.0, False, False))
    difference = compare(alone, steps)
    if difference:
        says = f"stepped in turn with a second instance, it comes out different: {difference}"
        found.error("shared", says, advice)
    found.ok("shared", "two instances stepped in turn do not touch each other")


def check_resume(
    found: Findings, env: SerialEnv, again: SerialEnv, *, seed: int, count: int
) -> None:
    """Saves rows after `count` steps, and brings them back in the new rows `again`, as `shoal resume` does."""
    everything = slice(0, env.num_rows)
    actions = batch_space(env.spec.action_space, env.num_rows)
    actions.seed(seed)
    env.reset(seed + 1000)
    env.recv()
    for _ in range(count):
        env.send(everything, actions.sample())
        env.recv()
    again.reset(seed)  # as a run that is resumed begins
    lost = again.restore(env.state())
    again.recv()
    if lost:
        _warn_resume(
            found, f"in a new instance, {lost[0].partition(': ')[2].partition(';')[0]}"
        )
        return
    for number in range(1, count + 1):
        action = actions.sample()
        for rows in (env, again):
            rows.send(everything, action)
            rows.recv()
        row = _different_row(env, again)
        if row >= 0:
            _warn_resume(
                found,
                f"row {row} differs {number} steps after it was saved and brought back",
            )
            return
    found.ok("resume", f"rows saved after {count} steps and brought back go on exactly")


def _warn_resume(found: Findings, says: str) -> None:
    found.warn(
        "resume",
        says,
        f"{ADVICE}; otherwise `shoal resume` cuts such episodes as truncated, and says so",
    )


def _different_row(first: SerialEnv, second: SerialEnv) -> int:
    for row in range(first.num_rows):
        pairs = [
            (getattr(first.out, name)[row], getattr(second.out, name)[row])
            for name in ("reward", "terminated")
        ]
        pairs += [(select(first.out.obs, row), select(second.out.obs, row))]
        if not all(same(*pair) for pair in pairs):
            return row
    return -1
