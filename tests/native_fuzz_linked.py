"""Calls of sessions over sockets, which tests/native_fuzz.py makes among all others."""

from __future__ import annotations

import socket
import struct
from typing import TYPE_CHECKING, Any

import numpy as np

from shoal import _native

if TYPE_CHECKING:
    Call = tuple[Any, list[Any], dict[str, Any]]

STEPS, ROWS, OBS = 3, 4, 5
KEPT = 6


class LinkedCalls:
    """What `Fuzz` inherits."""

    rng: np.random.Generator
    any: Any
    acted: Any
    floats: Any
    flags: Any
    pick: Any
    damaged: Any
    outputs: Any
    ends: tuple[socket.socket, ...] = ()
    """The other ends of the last channels' sockets: who says something there."""

    def call_channel(self) -> Call:
        mine, other = socket.socketpair()
        self.ends = (*self.ends[-2 * KEPT :], mine, other)
        return _native.Channel, [mine.fileno()], {}

    def call_load(self) -> Call:
        step = _native.pack_step(6, 0, ROWS, [np.zeros(ROWS, np.int64)])
        frame = struct.pack("<I", len(step)) + step
        return self.any("channel")[0].load, [self.damaged(frame)], {}

    def call_serve_steps(self) -> Call:
        pool = _native.Pool("CartPole-v1", ROWS, 1, {})
        pool.attach(*self.outputs(pool))
        pool.reset(np.arange(ROWS, dtype=np.uint64))
        channel, _ = self.any("channel")
        what, args, _ = self.call_load()
        what(*args)
        return _native.serve_steps, [pool, channel, 5, 0.0, 0.1], {}

    def call_linked(self) -> Call:
        return self.linked_of(*(self.any("plan") if self.rng.random() < 0.5 else self.plain_plan()))

    def plain_plan(self) -> tuple[Any, list[Any]]:
        """One that every rollout takes, and what it was made from."""
        sizes: list[Any] = [OBS, [8], "categorical", [2], "tanh", 1, 64, 1]
        return _native.MlpPlan(np.zeros(OBS * 8 + 8 + 8 * 2 + 2 + OBS * 8 + 8 + 8 + 1, np.float32), *sizes), sizes

    def linked_of(self, plan: Any, made: list[Any]) -> Call:
        """A rollout of a plan that was made from these."""
        learns_values = any(isinstance(part, str) and part == "q_values" for part in made)
        action: Any = np.stack([self.acted(made) for _ in range(STEPS)])
        shape = (STEPS, ROWS)
        arrays = [self.floats(ROWS, OBS), self.flags(ROWS), np.zeros(ROWS, np.int64), self.floats(*shape, OBS)]
        arrays += [self.flags(*shape), action, *(self.floats(*shape) for _ in range(4))]
        arrays += [self.flags(*shape), self.flags(*shape), np.zeros(shape, np.int32)]
        arrays += [self.floats(STEPS * ROWS, OBS), np.zeros(shape), np.zeros(shape, np.int64), np.zeros((*shape, 0))]
        epsilon = np.full(ROWS, 0.5, np.float32) if learns_values else None
        rows = np.arange(ROWS, dtype=np.int64)
        return _native.LinkedRollout, [plan, [(1, 5), (3, 7)], 0, arrays, 1, 0, rows], {"epsilon": epsilon}

    def call_run(self) -> Call:
        linked, _ = self.any("linked")
        return linked.run, [[self.any("channel")[0], self.any("channel")[0]], 0.1], {}

    def call_requests(self) -> Call:
        return self.any("linked")[0].requests, [], {}

    def call_linked_take(self) -> Call:
        """Of a rollout that waits for it."""
        what, args, kwargs = self.linked_of(*self.plain_plan())
        linked = what(*args, **kwargs)
        linked.run([self.any("channel")[0], self.any("channel")[0]], 0.0)
        flags = np.zeros(1, np.bool_)
        arrays = [self.floats(1, OBS), np.zeros(1), flags, flags, ~flags, np.zeros(1), np.zeros(1, np.int64)]
        data = _native.pack_rows(6, 0, False, arrays, arrays, arrays[:1], flags, flags)
        found = None if data is None else _native.read_rows(data)
        assert found is not None
        return linked.take, [0, data, *found[4:]], {}
