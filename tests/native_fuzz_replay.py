"""Calls of the replay memory's bindings, which tests/native_fuzz.py makes among all others."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from shoal import _native

if TYPE_CHECKING:
    Call = tuple[Any, list[Any], dict[str, Any]]

STEPS, ROWS, OBS, OPTIONS, BATCH = 3, 4, 5, 2, 6
"""Steps and rows of a block, numbers of an observation, options, transitions of a sample."""


class ReplayCalls:
    """What `Fuzz` inherits."""

    rng: np.random.Generator
    any: Any
    floats: Any
    flags: Any
    pick: Any

    def call_replay_bytes(self) -> Call:
        return _native.ReplayRings.bytes, [ROWS, 8, [4 * OBS], [8], OPTIONS], {}

    def call_rings(self) -> Call:
        frames = self.pick([1, 2])
        form: list[Any] = [ROWS, 8, [4 * OBS // frames], [8], OPTIONS]
        size = _native.ReplayRings.bytes(*form)
        memory = np.zeros(size + 64, np.uint8)
        start = -memory.ctypes.data % 64
        return _native.ReplayRings, [memory[start : start + size], *form, 7, frames], {}

    def call_insert(self) -> Call:
        rings, _ = self.any("rings")
        shape = (STEPS, ROWS)
        obs, final = self.floats(*shape, OBS), self.floats(STEPS * ROWS, OBS)
        arrays = [[obs], [np.zeros(shape, np.int64)], self.floats(*shape), self.flags(*shape), self.flags(*shape)]
        arrays += [~self.flags(*shape), self.flags(*shape), np.zeros(shape, np.int32)]
        index = np.arange(STEPS * ROWS, dtype=np.int32).reshape(shape)
        mask = np.ones((*shape, OPTIONS), np.bool_)
        return rings.insert, [0, *arrays, index, [final], mask], {"in_turns": self.pick([True, False])}

    call_insert_again = call_insert_too = call_insert

    def call_reader(self) -> Call:
        rings, _ = self.any("rings")
        return (
            _native.ReplayReader,
            [rings, BATCH, self.pick([1, 1, 3]), 0.9, 1],
            {
                "checked": True,
                "block_ends": self.pick([[], [ROWS], [1, ROWS]]),
                "shares": self.pick([[], [1.0], [0.5, 0.5]]),
                "recency": self.pick([1.0, 2.0]),
            },
        )

    def sampled(self) -> list[Any]:
        masks = [np.ones((BATCH, OPTIONS), np.bool_), np.ones((BATCH, OPTIONS), np.bool_)]
        numbers = [self.floats(BATCH), self.floats(BATCH), np.zeros(BATCH, np.int32), np.zeros(BATCH, np.int32)]
        numbers += [self.floats(BATCH), self.floats(BATCH), np.zeros(BATCH, np.int64)]
        return [[self.floats(BATCH, OBS)], [self.floats(BATCH, OBS)], [np.zeros(BATCH, np.int64)], *masks, *numbers]

    def call_attach_reader(self) -> Call:
        return self.any("reader")[0].attach, self.sampled(), {}

    def call_sample(self) -> Call:
        return self.any("reader")[0].sample, [self.pick([None, 1, BATCH])], {}

    call_sample_again = call_sample

    def call_prioritize_by(self) -> Call:
        return self.any("reader")[0].prioritize_by, [0.6, 1e-6, self.pick([0.0, 0.5])], {}

    def call_sample_prioritized(self) -> Call:
        return self.any("reader")[0].sample_prioritized, [self.pick([0.6, 0.6, 0.0]), 0.4, self.pick([None, 2])], {}

    def call_prioritize(self) -> Call:
        keys = self.rng.integers(0, ROWS * 16, BATCH)
        return self.any("reader")[0].prioritize, [keys, self.floats(BATCH)], {}

    def call_set_priorities(self) -> Call:
        reader, _ = self.any("reader")
        return reader.set_priorities, [np.zeros(ROWS * 8, np.float32), np.zeros(ROWS, np.uint64), 1.0, 0], {}

    # An actor beside critics.

    def one_tower(self, inputs: int, outputs: int) -> tuple[Any, int]:
        """A tower with a hidden layer, and how many parameters it has."""
        count = inputs * 8 + 8 + 8 * outputs + outputs
        params = (0.1 * self.rng.normal(size=count)).astype(np.float32)
        return _native.TowerPlan(params, inputs, [8], outputs, "relu", self.pick([1, 2]), 2), count

    def actor_critic(self, outputs: int) -> tuple[Any, int, int]:
        """One for observations of 5 numbers and actions of 2, and the parameters of its actor and its critics."""
        actor, count = self.one_tower(5, outputs)
        critics = [self.one_tower(7, 1) for _ in range(2)]
        return _native.ActorCritic(actor, [tower for tower, _ in critics], 2), count, sum(n for _, n in critics)

    def call_actor_critic(self) -> Any:
        args = [self.one_tower(5, 4)[0], [self.one_tower(7, 1)[0]], 2]
        return _native.ActorCritic, args, {}

    def call_soft_values(self) -> Any:
        plan, _, _ = self.actor_critic(4)
        obs = [self.floats(4, 5), self.floats(4, 5), self.floats(4, 2)]
        return plan.soft_values, [*obs, 0.2, self.floats(4)], {}

    def call_smoothed_values(self) -> Any:
        plan, _, _ = self.actor_critic(2)
        obs = [self.floats(4, 5), self.floats(4, 5), self.floats(4, 2)]
        return plan.smoothed_values, [*obs, 0.2, 0.5, self.floats(4)], {}

    def call_critics_gradient(self) -> Any:
        plan, _, count = self.actor_critic(4)
        given = [self.floats(4, 5), self.floats(4, 2), True, self.floats(4), self.floats(4)]
        return plan.critics_gradient, [*given, self.floats(count), self.floats(4), np.zeros(2)], {}

    def call_soft_gradient(self) -> Any:
        plan, count, _ = self.actor_critic(4)
        given = [self.floats(4, 5), self.floats(4, 5), self.floats(4, 2), 0.2]
        return plan.soft_gradient, [*given, self.floats(count), np.zeros(2)], {}

    def call_deterministic_gradient(self) -> Any:
        plan, count, _ = self.actor_critic(2)
        return plan.deterministic_gradient, [self.floats(4, 5), self.floats(4, 5), self.floats(count), np.zeros(1)], {}
