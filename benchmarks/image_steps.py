"""DQN's gradient steps on images, on one thread and on two: milliseconds of targets and of the step.

python -m benchmarks.image_steps              appends to benchmarks/results/image_steps.jsonl
python -m benchmarks.image_steps --rounds 9   more rounds, for a machine that others use

The two take turns. What counts is the least time of each: how long it takes where nothing else wants the cores.
"""

from __future__ import annotations

import argparse
import json
import time
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import torch
from gymnasium import spaces
from torch import Tensor
from torch.optim import Adam

from benchmarks import machine
from shoal.algos.dqn import DQN, dqn_loss
from shoal.learn.hardware import Hardware
from shoal.learn.learner import Learner
from shoal.learn.targets import add_target, next_outputs
from shoal.math.q_learning import best_action, q_target
from shoal.nets.network import QNet
from shoal.nets.q_network import action_values, make_q_network, values_of
from shoal.types import Spec, Transitions

RESULT = Path(__file__).parent / "results" / "image_steps.jsonl"
CFG = DQN()
THREADS = (1, 2)
STEPS_A_ROUND = 40


@dataclass(frozen=True, slots=True)
class Case:
    """Layers, a batch for them, and the form of an observation, which is of bytes."""

    image: str
    batch: int
    shape: tuple[int, ...]
    precision: str = "float32"


CASES = (
    Case("minatar", 64, (10, 10, 4)),
    Case("minatar", 256, (10, 10, 4)),
    Case("nature", 32, (4, 84, 84)),
    Case("nature", 32, (4, 84, 84), "bfloat16"),
)


def learner_of(case: Case, num_threads: int) -> Learner:
    """A Q-network and its target network."""
    spec = Spec.of("Images-v0", spaces.Box(0, 255, case.shape, np.uint8), spaces.Discrete(4))
    network = make_q_network(spec, QNet(image=case.image, precision=case.precision), 1)  # pyright: ignore[reportArgumentType]
    made = Learner(network, partial(Adam, lr=1e-4), hardware=Hardware(num_threads=num_threads), max_grad_norm=10.0)
    add_target(made, "target")
    return made


def batch_of(case: Case) -> Transitions:
    """Transitions of random bytes."""
    random, size = torch.Generator().manual_seed(0), case.batch

    def pixels() -> Tensor:
        return torch.randint(0, 256, (size, *case.shape), dtype=torch.uint8, generator=random)

    return Transitions(
        obs=pixels(),
        action=torch.randint(0, 4, (size,), generator=random),
        reward=torch.rand(size, generator=random),
        discount=torch.full((size,), 0.99),
        next_obs=pixels(),
        steps=torch.ones(size, dtype=torch.int32),
        weight=torch.ones(size),
        version=torch.zeros(size, dtype=torch.int32),
        target=torch.zeros(size),
        error=torch.zeros(size),
        key=np.zeros(size, np.int64),
    )


def one_step(learner: Learner, batch: Transitions) -> tuple[float, float]:
    """Seconds of the targets and of the gradient step, as in DQN's loop."""
    begun = time.perf_counter()
    outputs = next_outputs([learner.networks["target"], learner.networks["policy"]], batch)
    action = best_action(action_values(outputs[-1]), batch.next_action_mask)
    learned = q_target(batch.reward, batch.discount, values_of(outputs[0], action))
    between = time.perf_counter()
    learner.step(dqn_loss, batch.with_target(learned), CFG)
    return between - begun, time.perf_counter() - between


def measure(case: Case, rounds: int) -> dict[str, object]:
    """The least milliseconds of each number of threads."""
    learners = {threads: learner_of(case, threads) for threads in THREADS}
    batch, found = batch_of(case), {threads: list[tuple[float, float]]() for threads in THREADS}
    for _ in range(rounds):
        for threads, learner in learners.items():
            found[threads] += [one_step(learner, batch) for _ in range(STEPS_A_ROUND)]
    assert torch.equal(*(learner.flat for learner in learners.values())), "the threads changed bits"
    line: dict[str, object] = {"image": case.image, "batch": case.batch, "precision": case.precision}
    for threads, times in found.items():
        targets, step = (1e3 * np.array(times)).min(0)
        whole = 1e3 * np.array(times).sum(1).min()
        least = {"targets": targets, "step": step, "both": whole}
        line[f"threads_{threads}"] = {name: round(float(value), 3) for name, value in least.items()}
    return line


def main() -> None:
    """Measures all cases."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--out", type=Path, default=RESULT)
    options = parser.parse_args()
    torch.set_num_threads(1)
    at = {"date": time.strftime("%Y-%m-%d"), "machine": machine.describe(), "versions": machine.versions()}
    for case in CASES:
        line = measure(case, options.rounds)
        print(line, flush=True)
        with options.out.open("a") as file:
            file.write(json.dumps(line | at) + "\n")


if __name__ == "__main__":
    main()
