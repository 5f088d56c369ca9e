"""Calls of every native binding with arguments that are right, or wrong in one place: no call may abort or hang.

`python -m tests.native_fuzz --calls 100000 --seed 0` runs on; tests/test_native_fuzz.py holds a short part of it.
"""

from __future__ import annotations

import argparse
import os
import tempfile
import time
from collections import Counter
from typing import TYPE_CHECKING, Any

import numpy as np

from shoal import _native
from tests.native_fuzz_replay import ReplayCalls

if TYPE_CHECKING:
    from collections.abc import Callable

Call = tuple[Any, list[Any], dict[str, Any]]
"""What is called, and with what."""

EXPECTED = (TypeError, ValueError, RuntimeError, MemoryError, OverflowError, KeyError, IndexError, OSError)
INTS = (-(2**63), -(2**31), -1, 0, 1, 2, 7, 1000, 2**31, 2**32 + 1, 2**63 - 1, 2**64)
FLOATS = (-1.0, 0.0, 1e-300, 1e300, float("inf"), float("-inf"), float("nan"))
TEXTS = ("", "x", "CartPole-v1", "gaussian", "uniform", "\0", "ü" * 99)
DTYPES = (np.float32, np.float64, np.int64, np.int32, np.uint64, np.uint32, np.uint8, np.bool_, np.complex64, object)
IDS = [name for name in _native.env_ids() if not name.startswith("Lunar")]
T, B, D, A, H = 3, 4, 5, 2, 8
"""Steps, rows, observations, actions and a memory's numbers."""
KEPT = 6
"""Objects of each kind that later calls may use."""
HELD = {"pool", "plan", "tower", "recurrent", "samples", "sequences", "adam", "signals", "state", "rings", "reader"}


def is_of(kind: str, made: list[Any]) -> bool:
    """Whether what something was made from names this kind."""
    return any(isinstance(part, str) and part == kind for part in made)


class Fuzz(ReplayCalls):
    """Makes calls from a seed; what they make is used by later ones."""

    def __init__(self, seed: int) -> None:
        """No object is there yet."""
        self.rng = np.random.default_rng(seed)
        self.held: dict[str, list[Any]] = {}
        self.counts: Counter[str] = Counter()
        self.makers: list[Callable[[], Call]] = [
            getattr(self, name) for name in sorted(dir(self)) if name.startswith("call_")
        ]

    def run(self, calls: int, seconds: float = float("inf")) -> int:
        """Makes so many calls, or as many as the time allows; how many."""
        end = time.monotonic() + seconds
        done = 0
        while done < calls and time.monotonic() < end:
            maker = self.makers[self.rng.integers(len(self.makers))]
            what, args, kwargs = maker()
            if self.rng.random() < 0.7:
                args, kwargs = self.spoil(args, kwargs)
            name = maker.__name__[5:]
            try:
                made = what(*args, **kwargs)
            except EXPECTED:
                self.counts[f"{name} refused"] += 1
            else:
                self.counts[name] += 1
                self.keep(name, made, args)
            done += 1
        return done

    def keep(self, name: str, made: Any, args: list[Any]) -> None:
        """Holds an object for later calls, with what it was made from."""
        if name == "fork_writer":
            os.waitpid(made, 0)
        if name in HELD:
            held = self.held.setdefault(name, [])
            held.append((made, args))
            del held[:-KEPT]

    def any(self, name: str) -> tuple[Any, list[Any]]:
        """One of the objects held; none yet: made rightly."""
        held = self.held.get(name)
        if not held:
            what, args, kwargs = getattr(self, f"call_{name}")()
            made = what(*args, **kwargs)
            self.keep(name, made, args)
            return made, args
        return held[self.rng.integers(len(held))]

    def spoil(self, args: list[Any], kwargs: dict[str, Any]) -> tuple[list[Any], dict[str, Any]]:
        """The arguments with one of them, or two, wrong."""
        args, kwargs = list(args), dict(kwargs)
        for _ in range(self.rng.integers(1, 3)):
            at = int(self.rng.integers(len(args) + len(kwargs))) if args or kwargs else -1
            if 0 <= at < len(args):
                args[at] = self.wrong(args[at])
            elif at >= 0:
                key = list(kwargs)[at - len(args)]
                kwargs[key] = self.wrong(kwargs[key])
        return args, kwargs

    def pick(self, values: Any) -> Any:
        """One of them."""
        return values[self.rng.integers(len(values))]

    def wrong(self, value: Any) -> Any:
        """Something else in the place of a value."""
        if self.rng.random() < 0.1:
            return self.pick([None, 3, "x", [], {}, b"", np.zeros(0), object()])
        match value:
            case np.ndarray():
                return self.wrong_array(value)
            case bool():
                return self.pick([None, 2, not value])
            case int():
                return self.pick(INTS)
            case float():
                return self.pick(FLOATS)
            case str():
                return self.pick(TEXTS)
            case list():
                return self.pick([[], [-1], [0] * 70, [2**40], value * 2, [self.wrong(part) for part in value]])
            case tuple():
                return tuple(self.wrong(part) for part in value)
            case dict():
                return self.pick(
                    [{}, {"": 1.0}, value | {"y": 2.0}, {key: self.wrong(part) for key, part in value.items()}]
                )
            case _:
                return self.pick([None, 1, "x"])

    def wrong_array(self, array: Any) -> Any:
        """Another dtype or shape, numbers of any kind, or memory that lies otherwise."""
        if array.dtype.hasobject:  # spoiled before: its bytes are references
            return self.other_shape(array)
        ways = (self.other_dtype, self.other_shape, self.elsewhere, self.other_bytes, self.other_number)
        return self.pick(ways)(array)

    def other_dtype(self, array: Any) -> Any:
        with np.errstate(all="ignore"):
            return array.astype(self.pick(DTYPES))

    def other_shape(self, array: Any) -> Any:
        if not array.ndim or not len(array):
            return array.reshape(-1)
        return self.pick([array[:-1], np.concatenate([array, array]), array[None], array.reshape(-1)])

    def elsewhere(self, array: Any) -> Any:
        """The same numbers, not aligned, not contiguous, or not to be written."""
        memory = np.zeros(array.nbytes + 1, np.uint8)
        memory[1:] = np.frombuffer(array.tobytes(), np.uint8)
        held = array.copy()
        held.flags.writeable = False
        apart = np.repeat(array, 2, axis=-1)[..., ::2] if array.ndim else array
        return self.pick([memory[1:].view(array.dtype).reshape(array.shape), held, apart])

    def other_bytes(self, array: Any) -> Any:
        memory = self.rng.integers(0, 256, array.nbytes, np.uint8)
        if array.dtype == np.bool_:
            memory &= 1
        return memory.view(array.dtype).reshape(array.shape)

    def other_number(self, array: Any) -> Any:
        spoiled = array.copy()
        if spoiled.size and spoiled.dtype.kind == "f":
            spoiled.flat[self.rng.integers(spoiled.size)] = self.pick(FLOATS)
        elif spoiled.size and spoiled.dtype.kind in "iu":
            low, high = np.iinfo(spoiled.dtype).min, np.iinfo(spoiled.dtype).max
            spoiled.flat[self.rng.integers(spoiled.size)] = self.pick([low, high, high // 2])
        return spoiled

    def floats(self, *shape: int) -> Any:
        return self.rng.normal(size=shape).astype(np.float32)

    def flags(self, *shape: int) -> Any:
        return self.rng.random(shape) < 0.2

    # Environments.

    def call_env_info(self) -> Call:
        return self.pick([_native.env_info, _native.env_info, _native.add_environments]), [self.pick(IDS)], {}

    def call_pool(self) -> Call:
        draws = [("max_episode_steps", "choice", [3.0], 0.0, 0.0)] if self.rng.random() < 0.1 else []
        if self.rng.random() < 0.2:
            kind = self.pick(["uniform", "loguniform", "normal", "choice"])
            numbers = {"normal": [0.5, 0.2, 0.0, 1.0]}.get(kind, [0.0, 1.0])
            draws = [("goal_velocity", kind, numbers, 0.0, 0.0)]
        env_id = self.pick(["MountainCar-v0", "MountainCarContinuous-v0"]) if draws else self.pick(IDS)
        given = {"frame_stack": self.pick([1, 1, 3]), "sticky_actions": self.pick([0.0, 0.3])}
        given |= {"reward_scale": 1.0, "reward_low": -1.0, "reward_high": 1.0}
        return _native.Pool, [env_id, B, self.pick([1, 1, 2]), {"max_episode_steps": 9.0}, draws], given

    def outputs(self, pool: Any) -> list[Any]:
        rows, size = pool.num_rows, pool.obs_size
        drawn = np.zeros((rows, pool.layout.partition("drawn: ")[2].count(",") + ("drawn: " in pool.layout)))
        numbers = [
            np.zeros((rows, size), np.float32),
            np.zeros(rows),
            np.zeros(rows, np.bool_),
            np.zeros(rows, np.bool_),
        ]
        return [*numbers, np.zeros((rows, size), np.float32), np.zeros(rows), np.zeros(rows, np.int64), drawn]

    def call_attach(self) -> Call:
        pool, _ = self.any("pool")
        return pool.attach, self.outputs(pool), {}

    def call_reset(self) -> Call:
        pool, _ = self.any("pool")
        return pool.reset, [np.arange(pool.num_rows, dtype=np.uint64)], {}

    def call_restart(self) -> Call:
        pool, _ = self.any("pool")
        rows = pool.num_rows
        return pool.restart, [np.arange(rows, dtype=np.uint64), self.flags(rows), self.flags(rows)], {}

    def call_send(self) -> Call:
        pool, _ = self.any("pool")
        actions: Any = np.zeros((pool.num_rows, pool.action_size), np.float32)
        if pool.discrete:
            actions = np.zeros(pool.num_rows, np.int64)
        return pool.send, [int(self.rng.integers(2)), 0, pool.num_rows, actions], {}

    call_send_again = call_send

    def call_recv(self) -> Call:
        return self.any("pool")[0].recv, [int(self.rng.integers(2))], {}

    call_recv_again = call_recv_too = call_recv

    def call_state(self) -> Call:
        return self.any("pool")[0].state, [], {}

    def call_restore(self) -> Call:
        states = self.held.get("state", [])
        pool, _ = self.any("pool")
        return pool.restore, [self.pick(states)[0] if states else np.zeros((B, 9), np.uint8)], {}

    def call_render(self) -> Call:
        return self.any("pool")[0].render, [0], {}

    # Numbers.

    def call_philox(self) -> Call:
        rows = np.arange(B, dtype=self.pick([np.int64, np.uint32]))
        what = self.pick([_native.philox_uniform, _native.philox_normal])
        return what, [1, 2, rows, np.arange(B, dtype=np.int64), A], {}

    def call_sticky_rows(self) -> Call:
        return _native.sticky_rows, [np.arange(B, dtype=np.uint64), np.arange(B, dtype=np.int64), 0.3], {}

    def scan(self) -> list[Any]:
        shape = (2, T, B)
        return [self.floats(*shape), self.flags(*shape), self.flags(*shape), self.flags(*shape)]

    def call_gae(self) -> Call:
        shape = (2, T, B)
        reward, *flags = self.scan()
        numbers = [reward, self.floats(*shape), self.floats(*shape), *flags]
        return _native.gae, [*numbers, np.full(2, 0.9), np.full(2, 0.8), self.floats(*shape)], {}

    def call_n_step(self) -> Call:
        reward, *flags = self.scan()
        shape = (2, T, B)
        return _native.n_step, [reward, self.floats(*shape), *flags, np.full(2, 0.9), 2, self.floats(*shape)], {}

    def call_gather(self) -> Call:
        seen = [self.floats(D) for _ in range(B)]
        return _native.gather, [seen, [0.5] * B, np.zeros((B, D), np.float32), np.zeros(B)], {}

    def call_copy_within(self) -> Call:
        low, high = np.full(D, -9, np.float32), np.full(D, 9, np.float32)
        return _native.copy_within, [self.floats(B, D), np.zeros((B, D), np.float32), low, high], {}

    def call_normalize_pixels(self) -> Call:
        pixels = self.rng.integers(0, 256, (2, 6, 7, 3), np.uint8)
        moments = [self.floats(6, 7, 3), self.floats(6, 7, 3)]
        return _native.normalize_pixels, [pixels, *moments, 5.0, True, np.zeros((2, 6, 7, 3), np.uint16)], {}

    # Processes.

    def call_signals(self) -> Call:
        size = _native.Signals.bytes(2)
        memory = np.zeros(size + 64, np.uint8)
        start = -memory.ctypes.data % 64
        return _native.Signals, [memory[start : start + size], 2], {}

    def call_signals_bytes(self) -> Call:
        return _native.Signals.bytes, [3], {}

    def call_post(self) -> Call:
        return self.any("signals")[0].post, [1, [0, 1], [0, 0], [2, 2]], {}

    def call_answer(self) -> Call:
        return self.any("signals")[0].answer, [int(self.rng.integers(2)), 1], {"failed": False}

    def call_wait(self) -> Call:
        signals, _ = self.any("signals")
        workers, tasks, ends = self.wrong([0, 1]), self.wrong([1, 1]), self.wrong([1, 2])
        return lambda: signals.wait(workers, tasks, ends, 0.0, 1e-4), [], {}

    def call_take(self) -> Call:
        signals, _ = self.any("signals")
        return lambda worker, done: signals.take(worker, done, 0.0, 1e-4), [0, 0], {}

    def call_look_at_signals(self) -> Call:
        signals, _ = self.any("signals")
        one = self.pick([signals.clear, signals.answered, signals.stray, signals.strayed])
        return one, [int(self.rng.integers(2))], {}

    def call_failed(self) -> Call:
        return self.any("signals")[0].failed, [0, 1], {}

    def call_map_shared(self) -> Call:
        with tempfile.TemporaryFile() as file:
            file.truncate(4096)
            fd, size = os.dup(file.fileno()), self.pick([64, 4096, 4097, 0, 2**62])

        def call() -> Any:
            try:
                return _native.map_shared(fd, size).sum()
            finally:
                os.close(fd)

        return call, [], {}

    def call_fork_writer(self) -> Call:
        if self.rng.random() < 0.95:  # a fork costs as much as a hundred other calls
            return _native.fork_writer, [[(b"", [np.zeros(3)])]], {}
        path = os.path.join(tempfile.gettempdir(), f"shoal-fuzz-{os.getpid()}").encode()
        return lambda: _native.fork_writer([(path, [np.zeros(3, np.uint8)])]), [], {}

    # Networks.

    def call_plan(self) -> Call:
        gaussian = self.rng.random() < 0.3
        count = 2 * (D * H + H) + H * A + A + H + 1 + A * gaussian
        kind = ["gaussian", [A]] if gaussian else ["categorical", [A]]
        params = 0.1 * self.floats(count)
        return _native.MlpPlan, [params, D, [H], *kind, self.pick(["tanh", "relu"]), 1, 2, 2], {}

    def call_tower(self) -> Call:
        return _native.TowerPlan, [0.1 * self.floats(D * H + H + H * A + A), D, [H], A, "tanh", 1, 2], {}

    def call_recurrent(self) -> Call:
        cell, gates = self.pick([("gru", 3), ("lstm", 4)])
        count = D * H + H + 2 * gates * (H * H + H) + H * A + A + H + 1
        args = [0.1 * self.floats(count), D, [H], cell, H, "categorical", [A], "tanh", 1, 2, 2]
        return _native.RecurrentPlan, args, {}

    def call_set_normalizer(self) -> Call:
        plan, _ = self.any(self.pick(["plan", "recurrent"]))
        return plan.set_normalizer, [self.floats(D), self.floats(D), 5.0], {}

    def call_set_action_bounds(self) -> Call:
        plan, _ = self.any("plan")
        return plan.set_action_bounds, [np.full(A, -1, np.float32), np.full(A, 1, np.float32)], {}

    def call_forward(self) -> Call:
        plan, _ = self.any("plan")
        return plan.forward, [self.floats(B, D), self.floats(B, A), self.floats(B)], {}

    def acted(self, args: list[Any]) -> Any:
        return self.floats(B, A) if is_of("gaussian", args) else np.zeros((B, 1), np.int64)

    def call_act(self) -> Call:
        plan, made = self.any("plan")
        noise = [1, 0, np.arange(B, dtype=np.int64), np.arange(B, dtype=np.int64), False]
        mask = None if is_of("gaussian", made) else self.flags(B, A)
        return plan.act, [self.floats(B, D), *noise, self.acted(made), self.floats(B), self.floats(B)], {"mask": mask}

    def call_forward_train(self) -> Call:
        plan, _ = self.any("plan")
        index = np.arange(B, dtype=np.int32)
        return plan.forward_train, [self.floats(B, D), index, self.floats(B, A), self.floats(B)], {}

    def call_backward(self) -> Call:
        plan, made = self.any("plan")
        grads = [self.floats(B, A), self.floats(B), self.floats(len(made[0]))]
        return plan.backward, [*grads, self.floats(B, D)], {}

    def call_tower_forward(self) -> Call:
        plan, _ = self.any("tower")
        return plan.forward, [self.floats(B, D), self.floats(B, A)], {}

    def call_tower_forward_train(self) -> Call:
        plan, _ = self.any("tower")
        return plan.forward_train, [self.floats(B, D), np.arange(B, dtype=np.int32), self.floats(B, A)], {}

    def call_tower_backward(self) -> Call:
        plan, made = self.any("tower")
        return plan.backward, [self.floats(B, A), self.floats(len(made[0])), self.floats(B, D)], {}

    def call_samples(self) -> Call:
        names = ("log_prob", "value", "advantage", "target")
        columns = {name: self.floats(T * B) for name in names}
        args = [self.floats(T * B, D), self.rng.integers(0, A, (T * B, 1)), columns]
        return _native.Samples, args, {"mask": self.pick([None, np.ones((T * B, A), np.bool_)])}

    def call_sequences(self) -> Call:
        samples, _ = self.any("samples")
        args = [samples, self.flags(T, B), self.floats(B, H), self.pick([None, self.floats(B, H)])]
        return _native.Sequences, args, {"valid": self.pick([None, self.flags(T, B)])}

    def call_adam(self) -> Call:
        count = self.pick([len(self.any(name)[1][0]) for name in ("plan", "recurrent")])
        return _native.Adam, [np.zeros(count, np.float32), np.zeros(count, np.float32)], {"learning_rate": 0.01}

    def call_rms_prop(self) -> Call:
        return _native.RMSProp, [np.zeros(9, np.float32)], {"learning_rate": 0.01, "alpha": 0.9, "eps": 1e-8, "step": 0}

    def call_apply(self) -> Call:
        adam, made = self.any("adam")
        return adam.apply, [self.floats(len(made[0])), self.floats(len(made[0])), 0.5], {}

    def loss(self) -> tuple[list[Any], Any]:
        name = self.pick(list(_native.fused_losses()))
        _, settings, stats = _native.fused_losses()[name]
        return [name, dict.fromkeys(settings, 0.5)], np.zeros(len(stats) + 1)

    def call_loss_step(self) -> Call:
        kind = self.pick(["plan", "recurrent"])
        plan, _ = self.any(kind)
        data, _ = self.any("samples" if kind == "plan" else "sequences")
        (name, settings), stats = self.loss()
        index = self.rng.integers(0, B, B).astype(np.int32)
        return plan.loss_step, [name, data, index, settings, self.any("adam")[0], 0.5, stats], {}

    def call_loss_gradient(self) -> Call:
        kind = self.pick(["plan", "recurrent"])
        plan, made = self.any(kind)
        data, _ = self.any("samples" if kind == "plan" else "sequences")
        (name, settings), stats = self.loss()
        index = self.rng.integers(0, B, B).astype(np.int32)
        return plan.loss_gradient, [name, data, index, settings, self.floats(len(made[0])), stats], {}

    def memory(self, made: list[Any]) -> list[Any]:
        return [self.floats(B, H), self.floats(B, H) if is_of("lstm", made) else None]

    def call_recurrent_forward(self) -> Call:
        plan, made = self.any("recurrent")
        outs = [self.floats(B, A), self.floats(B)]
        return plan.forward, [self.floats(B, D), self.flags(B), *self.memory(made), *outs], {}

    def call_recurrent_act(self) -> Call:
        plan, made = self.any("recurrent")
        noise = [1, 0, np.arange(B, dtype=np.int64), np.arange(B, dtype=np.int64), False]
        outs = [np.zeros((B, 1), np.int64), self.floats(B), self.floats(B)]
        return plan.act, [self.floats(B, D), self.flags(B), *self.memory(made), *noise, *outs], {}

    def call_recurrent_forward_train(self) -> Call:
        plan, _ = self.any("recurrent")
        sequences, _ = self.any("sequences")
        index = np.arange(B, dtype=np.int32)
        return plan.forward_train, [sequences, index, self.floats(T, B, A), self.floats(T, B)], {}

    def call_recurrent_backward(self) -> Call:
        plan, made = self.any("recurrent")
        return plan.backward, [self.floats(T, B, A), self.floats(T, B), self.floats(len(made[0]))], {}

    def call_rollout(self) -> Call:
        """Of a pool of Memory, whose observations are as many as the networks'."""
        what, args, _ = self.call_pool()
        pool = what("shoal/Memory-v0", *args[1:4])
        pool.attach(*self.outputs(pool))
        if self.rng.random() < 0.9:
            pool.reset(np.arange(B, dtype=np.uint64))
        kind = self.pick(["plan", "recurrent"])
        plan, made = self.any(kind)
        action: Any = self.floats(T, B, A) if is_of("gaussian", made) else np.zeros((T, B, 1), np.int64)
        current = [self.floats(B, D), self.flags(B), np.zeros(B, np.int64)]
        slab = [self.floats(T, B, D), self.flags(T, B), action, *(self.floats(T, B) for _ in range(4))]
        slab += [self.flags(T, B), self.flags(T, B), np.zeros((T, B), np.int32), self.floats(T * B, D)]
        slab += [np.zeros((T, B)), np.zeros((T, B), np.int64), np.zeros((T, B, 0))]
        memory = self.memory(made) if kind == "recurrent" else []
        return plan.rollout, [pool, *current, *memory, *slab, 1, 0, np.arange(B, dtype=np.int64)], {}


def main() -> None:
    """Runs the calls that the command line asks for, and says how many of each kind there were."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--calls", type=int, default=100_000)
    parser.add_argument("--seconds", type=float, default=float("inf"))
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args()
    fuzz = Fuzz(given.seed)
    done = fuzz.run(given.calls, given.seconds)
    refused = sum(count for name, count in fuzz.counts.items() if name.endswith("refused"))
    kinds = len({name.removesuffix(" refused") for name in fuzz.counts})
    print(f"{done:,} calls of {kinds} kinds, {refused:,} refused, seed {given.seed}")


if __name__ == "__main__":
    main()
