"""The same episodes again: from a seed, in another instance, beside another one, and from a saved state."""

from __future__ import annotations

import copy
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, NamedTuple, TypeAlias

from gymnasium.vector.utils import batch_space

from shoal.check.legal import legal_rows
from shoal.check.play import Player, plain, same
from shoal.check.report import shown
from shoal.types import Tree, select

if TYPE_CHECKING:
    from shoal.check.report import Findings
    from shoal.envs.agents.rows import AgentsEnv
    from shoal.envs.libraries.batched import BatchedEnv
    from shoal.envs.serial import SerialEnv

    Rows: TypeAlias = SerialEnv | AgentsEnv | BatchedEnv
    """Rows in this process, whose outputs are at hand."""

ADVICE = (
    "draw everything random from self.np_random, which super().reset(seed=seed) seeds (not from random, np.random or a "
    "generator of your own), and set all other state anew in reset()"
)


def check_repeats(
    found: Findings,
    player: Player,
    other: Player,
    *,
    seed: int,
    count: int,
) -> None:
    """Whether a seed and actions decide everything: again, in another instance, with another one between the steps."""
    player.env.action_space.seed(seed + 1)
    actions = [player.env.action_space.sample() for _ in range(count)]
    first = trace(player, seed, actions)
    again = trace(player, seed, actions)
    elsewhere = trace(other, seed, actions)
    for second, which in (
        (again, "after reset with the same seed"),
        (elsewhere, "in another instance"),
    ):
        difference = compare(first, second)
        if difference:
            says = f"with seed {seed} and the same actions, {which}: {difference}"
            found.error("determinism", says, ADVICE)
    says = f"{count} steps came out equal after reset(seed) and in a second instance"
    found.ok("determinism", says)
    if found.has("determinism"):
        return
    if compare(first, trace(other, seed + 1, actions)):
        found.ok("seed", "another seed gives other episodes")
    else:
        says = f"seeds {seed} and {seed + 1} gave the same {count} steps, so all rows see the same episodes"
        advice = f"begin reset() with super().reset(seed=seed), and {ADVICE}; leave it if nothing is meant to be random"
        found.warn("seed", says, advice)
    _check_apart(found, first, (player, other), seed=seed, actions=actions)


class Moment(NamedTuple):
    """What a reset or a step returned."""

    observation: Tree
    reward: float = 0.0
    terminated: bool = False
    truncated: bool = False

    @property
    def ended(self) -> bool:
        """Whether the episode ended."""
        return self.terminated or self.truncated


@dataclass(slots=True)
class Trace:
    """Copies of what an environment returned, over several episodes."""

    moments: list[Moment] = field(default_factory=list[Moment])

    def add_reset(self, obs: Tree) -> None:
        """Takes the first observation of an episode."""
        self.moments.append(Moment(copy.deepcopy(obs)))

    def add_step(self, made: tuple[Any, ...]) -> Moment:
        """Takes what a step returned."""
        obs, reward, terminated, truncated, _ = made
        moment = Moment(
            copy.deepcopy(obs),
            float(reward),
            bool(terminated),
            bool(truncated),
        )
        self.moments.append(moment)
        return moment


def trace(player: Player, seed: int, actions: list[object]) -> Trace:
    """What the actions lead to from a seed on, over several episodes."""
    traced = Trace()
    obs, _ = player.reset(seed)
    traced.add_reset(obs)
    for action in actions:
        given = copy.deepcopy(player.masks.legal(action))
        moment = traced.add_step(player.step(given))
        if moment.ended:
            obs, _ = player.reset()
            traced.add_reset(obs)
    return traced


def compare(first: Trace, second: Trace) -> str:
    """Where two traces part, or nothing."""
    step = 0
    for one, other in zip(first.moments, second.moments, strict=False):
        for name in Moment._fields:
            value, another = getattr(one, name), getattr(other, name)
            if not same(value, another):
                when = f"at step {step} of its episode" if step else "at a reset"
                return f"{when} the {name} was {shown(value)}, then {shown(another)}"
        step = 0 if one.ended else step + 1
    return ""


def _check_apart(
    found: Findings,
    alone: Trace,
    players: tuple[Player, Player],
    *,
    seed: int,
    actions: list[object],
) -> None:
    """Steps two instances in turn: what the first one returns, and has returned, must not depend on the second."""
    player, other = players
    advice = (
        "keep all state in self, set in __init__ or reset (not in the class, in the module or in a mutable default "
        "argument): rows of one process would overwrite each other"
    )
    traced = Trace()
    obs, _ = player.reset(seed)
    other.reset(seed + 1)
    traced.add_reset(obs)
    for action, others in zip(actions, reversed(actions), strict=True):
        made = player.step(copy.deepcopy(player.masks.legal(action)))
        moment = traced.add_step(made)
        obs, info = made[0], plain(made[4])
        info_before = copy.deepcopy(info)
        given = copy.deepcopy(other.masks.legal(others))
        _, _, terminated, truncated, _ = other.step(given)
        if terminated or truncated:
            other.reset()
        for what, value, copied in (
            ("observation", obs, moment.observation),
            ("info", info, info_before),
        ):
            if not same(value, copied):
                says = f"the {what} of one instance changed when another was stepped: {shown(copied)}, {shown(value)}"
                found.error("shared", f"{player.where()} {says}", advice)
                return
        if moment.ended:
            obs, _ = player.reset()
            traced.add_reset(obs)
    difference = compare(alone, traced)
    if difference:
        says = f"stepped in turn with a second instance, it comes out different: {difference}"
        found.error("shared", says, advice)
    found.ok("shared", "two instances stepped in turn do not touch each other")


def check_resume(
    found: Findings,
    env: Rows,
    again: Rows,
    *,
    seed: int,
    count: int,
) -> None:
    """Saves rows after `count` steps, and brings them back in the new rows `again`, as `shoal resume` does."""
    everything = slice(0, env.num_rows)
    actions = batch_space(env.spec.action_space, env.num_rows)
    actions.seed(seed)
    space = env.spec.action_space
    env.reset(seed + 1000)
    ready = env.recv()
    for _ in range(count):
        action = legal_rows(space, actions.sample(), ready.action_mask, ready.turn)
        env.send(everything, action)
        ready = env.recv()
    again.reset(seed)  # as a run that is resumed begins
    lost = again.restore(env.state())
    again.recv()
    if lost:
        reason = lost[0].partition(": ")[2].partition(";")[0]
        _warn_resume(found, f"in a new instance, {reason}")
        return
    for number in range(1, count + 1):
        action = legal_rows(space, actions.sample(), ready.action_mask, ready.turn)
        for rows in (again, env):
            rows.send(everything, action)
            ready = rows.recv()
        row = _different_row(env, again)
        if row >= 0:
            says = (
                f"row {row} differs {number} steps after it was saved and brought back"
            )
            _warn_resume(found, says)
            return
    found.ok("resume", f"rows saved after {count} steps and brought back go on exactly")


def _warn_resume(found: Findings, says: str) -> None:
    advice = f"{ADVICE}; otherwise `shoal resume` cuts such episodes as truncated, and says so"
    found.warn("resume", says, advice)


def _different_row(first: Rows, second: Rows) -> int:
    """The first row that differs, or -1."""
    one, other = first.out, second.out
    for row in range(first.num_rows):
        seen = one.turn is None or one.turn[row]
        equal = (
            one.reward[row] == other.reward[row]
            and one.terminated[row] == other.terminated[row]
            and (not seen or same(select(one.obs, row), select(other.obs, row)))
        )
        if not equal:
            return row
    return -1
