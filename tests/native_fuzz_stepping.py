"""Calls of what steps and records rows, which tests/native_fuzz.py makes among all others."""

from __future__ import annotations

import ctypes
from contextlib import suppress
from functools import partial
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import numpy as np

from shoal import _native

if TYPE_CHECKING:
    Call = tuple[Any, list[Any], dict[str, Any]]

STEPS, ROWS, OBS = 3, 4, 5
CONTROLS = 2
# Of a function that may be called with anything, and of a pointer: what addresses are cannot be checked, so that these
# two are never spoiled.
NOTHING = ctypes.cast(ctypes.pythonapi.Py_IsInitialized, ctypes.c_void_p).value or 0
POINTER = ctypes.c_void_p()


class SteppingCalls:
    """What `Fuzz` inherits."""

    rng: np.random.Generator
    any: Any
    acted: Any
    floats: Any
    flags: Any
    pick: Any

    def call_account(self) -> Call:
        out = SimpleNamespace(
            obs=np.zeros((ROWS, OBS), np.float32),
            reward=np.zeros(ROWS),
            terminated=self.flags(ROWS),
            truncated=self.flags(ROWS),
        )
        return _native.Account, [out, np.zeros(ROWS), np.zeros(ROWS, np.int64), np.full(ROWS, 9, np.int64)], {}

    def call_account_step(self) -> Call:
        account, _ = self.any("account")
        first = int(self.rng.integers(ROWS))
        seen = [self.floats(OBS) for _ in range(ROWS - first)]
        return account.step, [first, seen, [0.5] * len(seen), 10.0], {}

    def call_recorder(self) -> Call:
        plan, made = self.any("plan")
        shape = (STEPS, ROWS)
        action = np.stack([self.acted(made) for _ in range(STEPS)])
        floats = [self.floats(*shape) for _ in range(3)]
        flags = [self.flags(*shape) for _ in range(3)]
        rows = [self.flags(ROWS), np.zeros(ROWS, np.int64), np.arange(ROWS, dtype=np.int64)]
        learns_values = any(isinstance(part, str) and part == "q_values" for part in made)
        epsilon = np.full(ROWS, 0.5, np.float32) if learns_values else None
        args = [plan, self.floats(*shape, OBS), self.flags(*shape), action, *floats, *flags]
        return _native.StepRecorder, [*args, np.zeros(shape, np.int32), *rows, 1, 2, epsilon], {}

    def call_see(self) -> Call:
        kind = self.pick([np.float32, np.float64])
        return self.any("recorder")[0].see, [self.floats(ROWS, OBS).astype(kind)], {}

    def call_watch(self) -> Call:
        flags = [self.flags(ROWS) for _ in range(3)]
        return self.any("recorder")[0].watch, [np.zeros(ROWS), *flags], {}

    def call_recorder_act(self) -> Call:
        recorder, _ = self.any("recorder")
        if self.rng.random() < 0.5:
            for kind in (np.float32, np.float64):  # a recorder takes one of them
                with suppress(ValueError):
                    recorder.see(np.zeros((ROWS, OBS), kind))
        return recorder.act, [int(self.rng.integers(STEPS)), 7], {}

    def call_record(self) -> Call:
        recorder, _ = self.any("recorder")
        if self.rng.random() < 0.5:
            ended = np.zeros(ROWS, np.bool_)
            recorder.watch(np.zeros(ROWS), ended, ended, self.pick([~ended, ended]))
        return recorder.record, [int(self.rng.integers(STEPS))], {}

    def call_simulated(self) -> Call:
        made = partial(_native.MujocoRows, NOTHING, self.pick([0, NOTHING]), ctypes.addressof(POINTER))
        terms = {"forward": 1.0, "alive": 1.0, "control": 0.1, "contact": 0.1, "contact_forces": (-1.0, 1.0)}
        more = {"control_of_action": True, "contact_costs": (0.0, 10.0), "ends_unhealthy": True}
        return made, [CONTROLS, int(self.rng.integers(1, 3))], {"frame_skip": 2, "dt": 0.1} | terms | more

    def simulated(self) -> Any:
        what, args, kwargs = self.call_simulated()
        return what(*args, **kwargs)

    def call_simulated_add(self, rows: Any = None) -> Call:
        add = partial((rows or self.simulated()).add, NOTHING, NOTHING)
        seen, forces, masses = np.zeros(OBS), np.ones((3, 6)), self.pick([None, np.ones(2)])
        shown, healthy = [(seen, -1.0, 1.0)], [(seen[:2], -1.0, 1.0, True)]
        return add, [np.zeros(CONTROLS), np.zeros((2, 3)), masses, self.pick([None, forces]), shown, healthy], {}

    def call_simulated_step(self) -> Call:
        rows, first = self.simulated(), int(self.rng.integers(ROWS))
        for _ in range(ROWS):
            what, args, _ = self.call_simulated_add(rows)
            what(*args)
        out = [np.zeros((ROWS, OBS)), np.zeros(ROWS), self.flags(ROWS)]
        return rows.step, [first, self.floats(ROWS - first, CONTROLS), *out, 1e30, 1e30], {}
