"""Whether off-policy estimates cover the true return: cases of known policies: tables, cart poles, linear systems.

`python -m benchmarks.off_policy_evaluation` makes 30 random Markov decision processes, whose returns are solved for,
and 20 cart poles, whose returns are the mean of 2,000 episodes. In each a behavior policy plays a log, from which
another policy's discounted return is estimated with 95 % intervals. Printed is how often each method's interval covers
it, and how wide it is beside that of as many episodes of the policy itself.
"""

from __future__ import annotations

import argparse
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from gymnasium import spaces
from torch import nn

from benchmarks.off_policy_boxes import box_case
from shoal.deploy.offline import Asked, OfflineScore, evaluate_offline
from shoal.memory.data_file import DataWriter, Episode
from shoal.nets.policy import wrap
from shoal.types import ConfigError, Spec

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray

    Array = NDArray[np.float64]

STATES, ACTIONS, LIMIT = 8, 3, 25
TABLE_EPISODES, POLE_EPISODES = 200, 150
TRUE_EPISODES = 2_000
GAMMA = 0.97


class Table(nn.Module):
    """A policy that is a table of logits [states, actions]."""

    def __init__(self, probability: Array) -> None:
        """`probability` [states, actions]."""
        super().__init__()
        self.logits = nn.Parameter(torch.from_numpy(np.log(probability)).float())

    def forward(self, obs: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """States [N] -> logits [N, actions], values [N]."""
        return self.logits[obs.long()], torch.zeros(len(obs))


class Linear(nn.Module):
    """A policy of a cart pole: logits that are linear in what is seen."""

    def __init__(self, weight: Array, scale: float) -> None:
        """`weight` [4]; the larger `scale`, the surer it is."""
        super().__init__()
        self.weight = nn.Parameter(torch.from_numpy(weight * scale).float())

    def forward(self, obs: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Observations [N, 4] -> logits [N, 2], values [N]."""
        push = obs @ self.weight
        return torch.stack([-push, push], -1) / 2, torch.zeros(len(obs))


@dataclass
class Process:
    """A random Markov decision process of a time limit; state 0 begins."""

    follow: Array
    """[states, actions, states]"""
    reward: Array
    """[states, actions]"""
    end: Array
    """[states], how likely an episode ends there."""

    @classmethod
    def drawn(cls, rng: np.random.Generator) -> Process:
        """Each action leads to few states."""
        follow = rng.dirichlet(np.full(STATES, 0.3), (STATES, ACTIONS))
        reward = rng.normal(0.5, 1, (STATES, ACTIONS))
        return cls(follow, reward, rng.uniform(0, 0.15, STATES))

    def value(self, policy: Array) -> float:
        """The discounted return of an episode, by backward induction."""
        value = np.zeros(STATES)
        for _ in range(LIMIT):
            after = (1 - self.end) * value
            value = (policy * (self.reward + GAMMA * self.follow @ after)).sum(1)
        return float(value[0])

    def play(self, policy: Array, rng: np.random.Generator) -> tuple[Episode, Array]:
        """An episode, and how likely its actions were."""
        states, actions, rewards = [0], list[int](), list[float]()
        ended = False
        while len(actions) < LIMIT and not ended:
            state = states[-1]
            action = int(rng.choice(ACTIONS, p=policy[state]))
            rewards.append(float(self.reward[state, action] + rng.normal(0, 0.5)))
            state = int(rng.choice(STATES, p=self.follow[state, action]))
            ended = rng.random() < self.end[state]
            states.append(state)
            actions.append(action)
        flags = np.zeros((2, len(actions)), np.bool_)
        flags[:, -1] = ended, not ended
        likely = np.log(policy[states[:-1], actions])
        return Episode(np.array(states), np.array(actions), np.array(rewards), flags[0], flags[1], likely), likely


def pole_episodes(weight: Array, scale: float, count: int, rng: np.random.Generator) -> list[Episode]:
    """Episodes of cart poles that a linear policy plays, all side by side."""
    state = rng.uniform(-0.05, 0.05, (count, 4))
    seen, acted, told = [state.copy()], [], []
    for _ in range(POLE_LIMIT):
        right = 1 / (1 + np.exp(-(state.astype(np.float32) @ weight) * scale))
        action = rng.random(count) < right
        told.append(np.log(np.where(action, right, 1 - right)))
        acted.append(action.astype(np.int64))
        state = pushed(state, action)
        seen.append(state.copy())
    fallen = np.array([(np.abs(s[:, 0]) > 2.4) | (np.abs(s[:, 2]) > 12 * np.pi / 180) for s in seen[1:]])
    return [_cut(number, fallen[:, number], seen, acted, told) for number in range(count)]


POLE_LIMIT = 60


def _cut(number: int, fallen: NDArray[np.bool_], seen: list[Array], acted: list[Array], told: list[Array]) -> Episode:
    ended = bool(fallen.any())
    steps = int(fallen.argmax()) + 1 if ended else POLE_LIMIT
    flags = np.zeros((2, steps), np.bool_)
    flags[:, -1] = ended, not ended
    obs = np.array([one[number] for one in seen[: steps + 1]], np.float32)
    action = np.array([one[number] for one in acted[:steps]])
    likely = np.array([one[number] for one in told[:steps]])
    return Episode(obs, action, np.ones(steps), flags[0], flags[1], likely)


def pushed(state: Array, right: NDArray[np.bool_]) -> Array:
    """One step of the cart poles of Barto, Sutton and Anderson (1983), Euler's method, 20 ms."""
    x, v, angle, spin = state.T
    force = np.where(right, 10.0, -10.0)
    sin, cos = np.sin(angle), np.cos(angle)
    push = (force + 0.05 * spin**2 * sin) / 1.1
    turn = (9.8 * sin - cos * push) / (0.5 * (4 / 3 - 0.1 * cos**2 / 1.1))
    move = push - 0.05 * turn * cos / 1.1
    return np.stack([x + 0.02 * v, v + 0.02 * move, angle + 0.02 * spin, spin + 0.02 * turn], 1)


@dataclass
class Outcome:
    """A case's true return, and the estimates of it."""

    kind: str
    true: float
    spread: float
    """Of the policy's own returns, by which widths are judged."""
    score: OfflineScore

    def __str__(self) -> str:
        """In a line."""
        best = self.score.best
        missed = "" if best.low <= self.true <= best.high else ", missed"
        return f"{self.kind}, true return {self.true:.4g}{missed}; {best}"


def scored(module: nn.Module, spec: Spec, episodes: list[Episode], seed: int, *, greedy: bool = False) -> OfflineScore:
    """The estimates from a log that is written and read again."""
    with tempfile.TemporaryDirectory() as folder:
        writer = DataWriter(Path(folder) / "log", spec, {"env_id": spec.env_id})
        for episode in episodes:
            writer.add(episode)
        writer.close()
        policy = wrap(module, spec)
        return evaluate_offline(policy, spec, writer.folder, Asked(gamma=GAMMA, greedy=greedy, seed=seed))


def table_case(seed: int) -> Outcome:
    """A table: the target policy is a mixture of the behavior's and another one."""
    rng = np.random.default_rng(seed)
    process = Process.drawn(rng)
    behavior = rng.dirichlet(np.full(ACTIONS, 2.0), STATES) * 0.9 + 0.1 / ACTIONS
    other = rng.dirichlet(np.full(ACTIONS, 0.5), STATES)
    target = 0.6 * behavior + 0.4 * other
    spec = Spec.of("Table-v0", spaces.Discrete(STATES), spaces.Discrete(ACTIONS))
    episodes = [process.play(behavior, rng)[0] for _ in range(TABLE_EPISODES)]
    own = [discounted(process.play(target, rng)[0].rewards) for _ in range(TABLE_EPISODES)]
    score = scored(Table(target), spec, episodes, seed)
    return Outcome("table", process.value(target), float(np.std(own)), score)


def pole_case(seed: int) -> Outcome:
    """A cart pole of 60 steps at most: the target policy is surer than the behavior's, and leans otherwise."""
    rng = np.random.default_rng(seed)
    weight = np.array([0.2, 0.6, 6.0, 1.6]) * rng.uniform(0.6, 1.4, 4)
    target = weight * rng.uniform(0.8, 1.2, 4)
    spec = Spec.of("Pole-v0", spaces.Box(-np.inf, np.inf, (4,), np.float32), spaces.Discrete(2))
    scale, surer = rng.uniform(0.3, 0.8), rng.uniform(1.1, 1.5)
    episodes = pole_episodes(weight, scale, POLE_EPISODES, rng)
    own = [discounted(one.rewards) for one in pole_episodes(target, scale * surer, TRUE_EPISODES, rng)]
    score = scored(Linear(target, scale * surer), spec, episodes, seed)
    return Outcome("cart pole", float(np.mean(own)), float(np.std(own)), score)


def linear_case(seed: int) -> Outcome | str:
    """A linear system whose actions are numbers, or why its log was refused."""
    case = box_case(seed)
    try:
        score = scored(case.module, case.spec, case.log, seed, greedy=True)
    except ConfigError as error:
        return f"linear system, refused: {error}"
    return Outcome("linear system", float(case.returns.mean()), float(case.returns.std()), score)


def discounted(rewards: Array) -> float:
    """Of one episode."""
    return float(rewards @ GAMMA ** np.arange(len(rewards)))


def report(outcomes: list[Outcome]) -> str:
    """Coverage and widths, a line for each method and kind."""
    lines = ["| method | cases | covered | width / width of as many own episodes |", "|---|---|---|---|"]
    names = dict.fromkeys(estimate.method for one in outcomes for estimate in one.score.estimates)
    for name in [*names, "best"]:
        for kind in ("table", "cart pole", "linear system"):
            some = [one for one in outcomes if one.kind == kind and _has(one, name)]
            lines += [_line(name, kind, some)] if some else []
    return "\n".join(lines)


def _has(outcome: Outcome, name: str) -> bool:
    return name == "best" or any(one.method == name for one in outcome.score.estimates)


def _line(name: str, kind: str, outcomes: list[Outcome]) -> str:
    covered, widths = 0, list[float]()
    for one in outcomes:
        estimates: dict[str, Any] = {estimate.method: estimate for estimate in one.score.estimates}
        estimate = one.score.best if name == "best" else estimates[name]
        covered += estimate.low <= one.true <= estimate.high
        fair = 2 * 1.96 * one.spread / np.sqrt(one.score.episodes)
        widths.append((estimate.high - estimate.low) / fair)
    return f"| {name} | {kind} | {covered} of {len(outcomes)} | {np.median(widths):.2f} |"


def main() -> None:
    """Prints the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--tables", type=int, default=30)
    parser.add_argument("--poles", type=int, default=20)
    parser.add_argument("--linear", type=int, default=20)
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args()
    torch.set_num_threads(1)
    cases: list[tuple[Callable[[int], Outcome | str], int]]
    cases = [(table_case, given.seed + number) for number in range(given.tables)]
    cases += [(pole_case, given.seed + 1_000 + number) for number in range(given.poles)]
    cases += [(linear_case, given.seed + 2_000 + number) for number in range(given.linear)]
    outcomes: list[Outcome] = []
    for number, (case, seed) in enumerate(cases, 1):
        found = case(seed)
        print(f"{number} of {len(cases)}: {found}", flush=True)
        outcomes += [] if isinstance(found, str) else [found]
    print(report(outcomes))
    few = [one.score.best.effective_episodes for one in outcomes]
    print(f"effective episodes: median {np.median(few):.0f}, least {min(few):.0f}")


if __name__ == "__main__":
    main()
