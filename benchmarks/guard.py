"""The guard, measured: twelve injected failures, and healthy runs that it leaves alone.

python -m benchmarks.guard                          all of it: failures x 5 seeds x CartPole and LunarLander, 50 runs
python -m benchmarks.guard --failures gradient entropy --envs CartPole-v1 --seeds 1
python -m benchmarks.guard --failures --healthy 20  healthy runs alone

Each seed is trained by the environment's preset until the policy is good, on one thread. Its run directory is copied
for each failure, and resumed with it: a failure of the environment lasts until the end of the run, one of weights or
optimizer happens once. What is measured: after how many updates the guard acts, and the greedy return over 100
episodes of a sound environment of the policy that the run leaves, beside that of the verified best when the failure
began. Appended to benchmarks/results/guard.jsonl.
"""

from __future__ import annotations

import argparse
import json
import math
import shutil
import tempfile
import time
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import gymnasium as gym
import torch

import shoal
from benchmarks import machine
from benchmarks.peers.broken_env import IN_ENV, Breakable, breakable, fault
from shoal.algos.presets import preset
from shoal.envs.registry import make
from shoal.learn.acting import Acting
from shoal.learn.learner import Learner
from shoal.run.evaluate import evaluate
from shoal.run.guard.notes import read_notes

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from torch import nn

    from shoal.experiment.result import Result
    from shoal.run.guard.seen import Seen
    from shoal.run.guard.watch import Watch
    from shoal.run.run import Run

RESULT = Path(__file__).parent / "results" / "guard.jsonl"
UPDATES = {"CartPole-v1": 40, "LunarLander-v3": 90}
"""Updates of the preset until a policy is good, and so many more with the failure at most."""
MORE = 60
WITHIN = 10
"""Updates within which the guard is to act."""
LOSS = 0.05
"""Share of the verified best's return that the final policy may lack."""
EPISODES = 100
HEALTHY: tuple[tuple[str, str, int], ...] = (
    ("CartPole-v1", "ppo", 200_000),
    ("CartPole-v1", "a2c", 200_000),
    ("CartPole-v1", "dqn", 50_000),
    ("CartPole-v1", "pqn", 150_000),
    ("CartPole-v1", "impala", 200_000),
    ("Acrobot-v1", "ppo", 300_000),
    ("Acrobot-v1", "a2c", 300_000),
    ("MountainCar-v0", "ppo", 600_000),
    ("Pendulum-v1", "ppo", 200_000),
    ("LunarLander-v3", "ppo", 500_000),
)
"""Environment, algorithm and steps of the healthy runs, by their presets; each of several seeds."""


# -------------------------------------------------------------------------------- what goes wrong in the learner


class Exploding(Learner):
    """A learner whose step size is a thousand times what it is set to."""

    @property
    def learning_rate(self) -> float:
        """As it is."""
        return self.networks["policy"].learning_rate

    @learning_rate.setter
    def learning_rate(self, value: float) -> None:
        self.networks["policy"].learning_rate = 1000 * value


def explode_rate(learner: Learner) -> None:
    """A thousand times the learning rate that the algorithm sets at each update."""
    learner.__class__ = Exploding


def collapse_entropy(learner: Learner) -> None:
    """Logits a hundred times as large: the policy is sure of everything."""
    weights = [x for name, x in learner.policy.named_parameters() if name.startswith("actor")]
    with torch.no_grad():
        for parameter in weights[-2:]:
            parameter.mul_(100)


def overwrite(learner: Learner) -> None:
    """Weights that are NaN."""
    with torch.no_grad():
        learner.flat.fill_(math.nan)


def corrupt_optimizer(learner: Learner) -> None:
    """Second moments of 0 and first moments from elsewhere."""
    optimizer: Any = learner.networks["policy"].optimizer
    with torch.no_grad():
        for state in optimizer.state.values():
            state["exp_avg"].normal_()
            state["exp_avg_sq"].zero_()


def scale_gradient(learner: Learner) -> None:
    """Losses a thousand times as large, and nothing that cuts the gradient."""
    before = learner.step
    learner.networks["policy"].descent.max_grad_norm = math.inf

    def step(loss: Any, batch: Any, cfg: Any) -> Any:
        def scaled(output: Any, steps: Any, cfg: Any) -> Any:
            value, stats = loss(output, steps, cfg)
            return 1000 * value, stats

        scaled.__name__ = loss.__name__
        prepare = getattr(loss, "prepare", None)
        if prepare is not None:
            scaled.prepare = prepare  # pyright: ignore[reportFunctionMemberAccess]
        return before(scaled, batch, cfg)

    learner.step = step


IN_LEARNER: dict[str, Callable[[Learner], None]] = {
    "learning_rate": explode_rate,
    "entropy": collapse_entropy,
    "nan_weights": overwrite,
    "optimizer": corrupt_optimizer,
    "gradient": scale_gradient,
}
FAILURES = (*IN_LEARNER, *IN_ENV, "slow_worker")


class Injection:
    """A callback that lets a failure happen when the first line of a resumed run is written."""

    episodes = False

    def __init__(self, name: str) -> None:
        """`name`: of the failure."""
        self.name, self.since = name, -1

    def __call__(self, run: Run, record: Any) -> None:
        """The failure happens after this update."""
        if self.since >= 0:
            return
        self.since = run.updates
        if self.name in IN_LEARNER:
            IN_LEARNER[self.name](watch_of(run).learner)
        else:
            fault.name = self.name


def watch_of(run: Run) -> Watch:
    """Who watches the learner."""
    assert run.guard is not None
    return next(iter(run.guard.watches.values()))


class Best(Injection):
    """Keeps the verified best, when the failure begins and at each line."""

    state: Any = None
    figure = math.nan
    policy: nn.Module | None = None
    lost: list[float]
    """The share of what was gained that is lost, at each check after the failure began."""

    def __init__(self, name: str) -> None:
        """`name`: of the failure."""
        super().__init__(name)
        self.lost = []

    def rule(self, seen: Seen) -> None:
        """A rule that finds nothing, and takes notes."""
        gained = seen.best_return - seen.first_return
        if self.since >= 0 and gained > 0:
            self.lost.append(round((seen.best_return - seen.mean_return) / gained, 2))

    def __call__(self, run: Run, record: Any) -> None:
        """Takes the best when the failure begins."""
        if self.since < 0:
            best = watch_of(run).states.best
            if best is not None:
                self.state, self.figure = best.state["networks"]["policy"]["module"], best.figure
            self.policy = watch_of(run).learner.policy
        super().__call__(run, record)


def greedy(policy: nn.Module, env: str) -> float:
    """The mean return over 100 greedy episodes of a sound environment."""
    rows = make(env, 20)
    try:
        return evaluate(policy, rows, episodes=EPISODES, acting=Acting(7)).mean
    finally:
        rows.close()


def settings(env: str, seed: int, folder: str) -> dict[str, Any]:
    """What all runs have: the preset of the environment, one thread, no early end."""
    told: dict[str, Any] = {"algo": "ppo"} | preset("ppo", None, env)
    told |= {"seed": seed, "run_dir": folder, "panel": "none", "num_threads": 1, "stop_at": math.inf}
    return told | {"final_episodes": 0, "confirm_episodes": 0, "backend": "serial", "preset": "none"}


def steps_of(told: dict[str, Any]) -> int:
    """Environment steps of an update."""
    return told["num_envs"] * told["num_steps"]


def prepared(env: str, seed: int, folder: str) -> tuple[Path, dict[str, Any]]:
    """A run that went well, and its settings."""
    told = settings(env, seed, folder)
    told["total_timesteps"] = UPDATES[env] * steps_of(told)
    fault.name = ""
    made: Any = partial(breakable, env)
    result = _trained(made, told)
    return result.path, told


def measure(env: str, seed: int, name: str, sound: Path, told: dict[str, Any], more: int) -> dict[str, Any]:
    """One failure: when the guard acted, what it did, and what the run leaves."""
    there = sound.with_name(f"{sound.name}-{name}")
    shutil.copytree(sound, there)
    injection = Best(name)
    failed, policy = "", None
    begun = time.perf_counter()
    try:
        result = shoal.resume(
            there,
            factory=partial(breakable, env),
            panel="none",
            callbacks=[injection],
            rules=[injection.rule],
            total_timesteps=told["total_timesteps"] + more * steps_of(told),
            checkpoint_every=10**9,
        )
        policy, reason, updates = result.policy, result.stop_reason, result.steps // steps_of(told)
    except Exception as error:  # what a failing environment raises
        failed = f"{type(error).__name__}: {error}"
        reason, updates = failed, -1
    fault.name = ""
    seconds = time.perf_counter() - begun
    notes = read_notes(there).interventions
    acted = [x for x in notes if x.update >= injection.since]
    if policy is None:
        policy = shoal.load(there, factory=partial(breakable, env), tag="best").policy
    final = greedy(policy, env)
    best = math.nan
    if injection.state is not None and injection.policy is not None:
        injection.policy.load_state_dict(injection.state)
        best = greedy(injection.policy, env)
    after = acted[0].update - injection.since if acted else None
    return {
        "kind": "failure",
        "env": env,
        "seed": seed,
        "failure": name,
        "injected_at": injection.since,
        "acted_after": after,
        "acted": after is not None and after <= WITHIN,
        "actions": [f"{x.update - injection.since} {x.rule} {x.action}" for x in acted],
        "verified_return": injection.figure,
        "best_greedy": best,
        "final_greedy": final,
        "kept": final >= best - LOSS * abs(best),
        "reason": reason,
        "updates": updates,
        "lost": injection.lost,
        "seconds": round(seconds, 1),
    }


def measure_slow(env: str, seed: int, folder: str) -> dict[str, Any]:
    """One of four workers takes ten times as long for each step after some updates; told is enough."""
    rows, steps, at, updates = 32, 64, 26, 36
    told = settings(env, seed, folder) | {"num_envs": rows, "num_steps": steps, "num_minibatches": 8}
    told |= {"total_timesteps": updates * rows * steps, "backend": "workers", "num_workers": 4, "own_cores": False}
    made: Any = Slowing(env, steps * at, seed + rows // 4)
    result = _trained(made, told)
    acted = [x for x in read_notes(result.path).interventions if x.rule in ("speed", "heartbeat")]
    since = acted[0].update - at if acted else None
    return {
        "kind": "failure",
        "env": env,
        "seed": seed,
        "failure": "slow_worker",
        "injected_at": at,
        "acted_after": since,
        "acted": since is not None and 0 <= since <= WITHIN,
        "actions": [f"{x.update - at} {x.rule} {x.action}" for x in acted],
        "kept": True,  # nothing is done to the policy
        "reason": result.stop_reason,
        "seconds": round(result.seconds, 1),
    }


@dataclass(frozen=True, slots=True)
class Slowing:
    """Makes environments whose steps take a millisecond, and from some step on ten in the first worker's process."""

    env: str
    after: int
    below: int
    """The rows that become slow have seeds below this."""

    def __call__(self) -> gym.Env[Any, Any]:
        """The next one."""
        return Breakable(gym.make(self.env), slow_after=self.after, slow_below=self.below)


def _trained(env: Any, told: dict[str, Any]) -> Result:
    """A run of settings that no type tells."""
    algo: Any = told.pop("algo")
    return shoal.train(env, algo=algo, **told)


def healthy(count: int) -> Iterator[dict[str, Any]]:
    """Healthy runs by their presets, with the guard as it is by default."""
    for number in range(count):
        env, algo, steps = HEALTHY[number % len(HEALTHY)]
        seed = 11 + number // len(HEALTHY)
        with tempfile.TemporaryDirectory() as folder:
            told: dict[str, Any] = {"algo": algo, "seed": seed, "total_timesteps": steps, "run_dir": folder}
            told |= {"num_threads": 1, "panel": "none", "stop_at": math.inf, "final_episodes": 0}
            result = _trained(env, told)
            notes = read_notes(result.path)
        yield {
            "kind": "healthy",
            "env": env,
            "algo": algo,
            "seed": seed,
            "steps": result.steps,
            "mean_return": result.mean_return,
            "interventions": notes.count,
            "said": [x.said for x in notes.interventions[:5]],
            "seconds": round(result.seconds, 1),
        }


def write(row: dict[str, Any]) -> None:
    """Appends a result, and prints it."""
    about = {"machine": machine.describe(), "versions": machine.versions()}
    RESULT.parent.mkdir(exist_ok=True)
    with RESULT.open("a", encoding="utf-8") as file:
        file.write(json.dumps(row | about) + "\n")
    print(json.dumps(row), flush=True)


def main() -> None:
    """Failures, healthy runs, or both."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--failures", nargs="*", default=list(FAILURES), choices=FAILURES)
    parser.add_argument("--envs", nargs="*", default=list(UPDATES))
    parser.add_argument("--seeds", type=int, nargs="*", default=[1, 2, 3, 4, 5])
    parser.add_argument("--more", type=int, default=MORE, help="updates with a failure, at most")
    parser.add_argument("--healthy", type=int, default=50)
    told = parser.parse_args()
    rows: list[dict[str, Any]] = []
    for env in told.envs if told.failures else []:
        for seed in told.seeds:
            with tempfile.TemporaryDirectory() as folder:
                run, given = prepared(env, seed, folder)
                for name in told.failures:
                    if name == "slow_worker":
                        rows.append(measure_slow(env, seed, folder))
                    else:
                        rows.append(measure(env, seed, name, run, given, told.more))
                    write(rows[-1])
    sound = list(map(_written, healthy(told.healthy)))
    if rows:
        acted, kept = (sum(bool(row[what]) for row in rows) for what in ("acted", "kept"))
        print(f"acted within {WITHIN} updates: {acted} of {len(rows)}; kept the verified best: {kept} of {len(rows)}")
    if sound:
        print(f"healthy runs that it acted in: {sum(bool(row['interventions']) for row in sound)} of {len(sound)}")


def _written(row: dict[str, Any]) -> dict[str, Any]:
    write(row)
    return row


if __name__ == "__main__":
    main()
