"""Right calls of every native binding, one function a binding, for the fuzz to spoil."""

from __future__ import annotations

import itertools
import os
import tempfile
from collections import Counter
from contextlib import suppress
from functools import partial, wraps
from types import SimpleNamespace
from typing import Any

import numpy as np

from shoal import _native
from tests.native_fuzz_decoding import DecodingCalls
from tests.native_fuzz_linked import LinkedCalls
from tests.native_fuzz_replay import ReplayCalls
from tests.native_fuzz_stepping import SteppingCalls
from tests.native_fuzz_wire import WireCalls
from tests.native_wrong import Wrong

Call = tuple[Any, list[Any], dict[str, Any]]
"""What is called, and with what."""

EXPECTED = (
    *(TypeError, ValueError, RuntimeError, MemoryError, OverflowError, KeyError, IndexError, OSError),
    AttributeError,  # of an object whose attributes the core reads
)
IDS = [name for name in _native.env_ids() if not name.startswith("Lunar")]
T, B, D, A, H = 3, 4, 5, 2, 8
"""Steps, rows, observations, actions and a memory's numbers."""
OBJECTS = (
    *("pool", "plan", "tower", "recurrent", "adam", "rms_prop", "tally", "samples", "sequences", "rings", "reader"),
    *("channel", "linked"),
)
"""What has properties, or a length."""
HELD = (*OBJECTS, "signals", "state", "account", "recorder")
KEPT = 6
"""Objects of each kind that later calls may use."""


def is_of(kind: str, made: list[Any]) -> bool:
    """Whether what something was made from names this kind."""
    return any(isinstance(part, str) and part == kind for part in made)


def linear(*sizes: int) -> int:
    """Parameters of linear layers, one after another."""
    return sum(before * after + after for before, after in itertools.pairwise(sizes))


class Calls(DecodingCalls, LinkedCalls, ReplayCalls, SteppingCalls, WireCalls, Wrong):
    """Every function `call_NAME` makes a right call; what earlier ones made is used by it."""

    def __init__(self, seed: int) -> None:
        """No object is there yet."""
        super().__init__(seed)
        self.held: dict[str, list[Any]] = {}
        self.reads: Counter[type] = Counter()
        self.writes: Counter[type] = Counter()

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
        while not self.held.get(name):
            what, args, kwargs = getattr(self, f"call_{name}")()
            with suppress(*EXPECTED):  # a few of the calls of a pool are wrong
                self.keep(name, what(*args, **kwargs), args)
        return self.pick(self.held[name])

    # Of every kind.

    def call_read(self) -> Call:
        """The next property, or a length: of all that an object has, those that were added later too."""
        made = self.any(self.pick(OBJECTS))[0]
        owners = (vars(owner).items() for owner in type(made).__mro__)
        found = [one for owner in owners for one in owner if isinstance(one[1], property) or one[0] == "__len__"]
        self.reads[type(made)] += 1
        one: Any = found[self.reads[type(made)] % len(found)][1]
        if isinstance(one, property):
            one = one.fget
        return partial(one, made), [], {}

    def call_write(self) -> Call:
        made, _ = self.any(self.pick(["adam", "rms_prop", "reader"]))
        found: list[Any] = [
            one for owner in type(made).__mro__ for one in vars(owner).values() if isinstance(one, property)
        ]
        writable = [one for one in found if one.fset is not None]
        self.writes[type(made)] += 1
        changed = writable[self.writes[type(made)] % len(writable)]
        return partial(changed.fset, made), [changed.fget(made)], {}

    def call_env_ids(self) -> Call:
        return self.pick([_native.env_ids, _native.kernel_names, _native.fused_losses]), [], {}

    def kernels(self) -> str:
        return self.pick(["", *_native.kernel_names()])

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
        given |= {"reward_sign": self.pick([False, True])}
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
        return _native.Pool.state, [self.any("pool")[0]], {}

    def call_restore(self) -> Call:
        pool, state = self.any("pool")[0], np.zeros((B, 9), np.uint8)
        if self.held.get("state"):
            state, (owner,) = self.pick(self.held["state"])
            pool = self.pick([pool, owner, owner])
        return pool.restore, [state], {}

    def call_render(self) -> Call:
        pool, _ = self.any("pool")
        if self.rng.random() < 0.3:
            pool = _native.Pool(self.pick(IDS), B, 1, {})
            pool.attach(*self.outputs(pool))
            pool.reset(np.arange(B, dtype=np.uint64))
        return pool.render, [0], {}

    call_render_again = call_render

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

    def call_q_lambda(self) -> Call:
        reward, *flags = self.scan()
        numbers = [reward, self.floats(2, T, B), *flags]
        return _native.q_lambda, [*numbers, np.full(2, 0.9), np.full(2, 0.8), self.floats(2, T, B)], {}

    def call_vtrace(self) -> Call:
        shape = (2, T, B)
        reward, *flags = self.scan()
        numbers = [reward, self.floats(*shape), self.floats(*shape), *flags, self.floats(*shape), self.floats(*shape)]
        out = [self.floats(*shape), self.floats(*shape)]
        return _native.vtrace, [*numbers, np.full(2, 0.9), np.full(2, 0.8), *out], {}

    def call_copy_within(self) -> Call:
        low, high = np.full(D, -9, np.float32), np.full(D, 9, np.float32)
        return _native.copy_within, [self.floats(B, D), np.zeros((B, D), np.float32), low, high], {}

    def call_convert_pixels(self) -> Call:
        pixels = self.rng.integers(0, 256, (2, 6, 7, 3), np.uint8)
        moments = [self.floats(6, 7, 3), self.floats(6, 7, 3)] if self.rng.random() < 0.5 else [None, None]
        out = np.zeros((2, 6, 7, 3), np.uint16 if self.rng.random() < 0.5 else np.float32)
        args = [pixels, *moments, 5.0, True, out, self.kernels()]
        return _native.convert_pixels, args, {}

    def call_fma_peak(self) -> Call:
        if self.rng.random() < 0.95:  # a timing of milliseconds
            return partial(_native.fma_peak, 2**40), [], {}
        return partial(_native.fma_peak, repeats=1), [], {}

    def call_tally(self) -> Call:
        out = SimpleNamespace(
            reward=np.zeros(B),
            terminated=self.flags(B),
            truncated=self.flags(B),
            valid=self.flags(B),
            episode_return=np.zeros(B),
            episode_length=np.zeros(B, np.int64),
        )
        return _native.Tally, [out, self.pick([False, True])], {}

    def call_tally_step(self) -> Call:
        tally, _ = self.any("tally")
        reward = self.rng.normal(size=B).astype(self.pick([np.float64, np.float32, np.int32, np.int64]))
        lives = self.rng.integers(0, 4, B).astype(self.pick([np.int32, np.int64]))
        only_reset = self.pick([None, self.flags(B)])
        return tally.step, [reward, self.flags(B), self.flags(B), only_reset, self.pick([None, lives])], {}

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
        return partial(signals.wait, spin_s=0.0, timeout_s=1e-4), [[0, 1], [1, 1], [1, 2]], {}

    def call_take(self) -> Call:
        signals, _ = self.any("signals")
        return partial(signals.take, spin_s=0.0, timeout_s=1e-4), [0, 0], {}

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

        @wraps(_native.map_shared)
        def call(fd: int, size: int) -> Any:
            try:
                return _native.map_shared(fd, size).sum()
            finally:
                os.close(fd)

        return partial(call, fd, size), [], {}

    def call_fork_writer(self) -> Call:
        if self.rng.random() < 0.95:  # a fork costs as much as a hundred other calls
            return _native.fork_writer, [[(b"", [np.zeros(3)])]], {}
        path = os.path.join(tempfile.gettempdir(), f"shoal-fuzz-{os.getpid()}").encode()
        return partial(_native.fork_writer, [(path, [np.zeros(3, np.uint8)])]), [], {}

    # Networks.

    def sizes(self) -> list[Any]:
        """Threads, rows in one forward, shards of a gradient."""
        return [self.pick([1, 1, 2, 3]), self.pick([1, 2, 32]), self.pick([1, 2, 3])]

    def call_plan(self) -> Call:
        head, hidden = self.pick(["categorical", "gaussian", "q_values"]), self.pick([[H], [H, 3]])
        count = linear(D, *hidden, A) + A * (head == "gaussian")
        count += linear(D, *hidden, 1) if head != "q_values" else 0
        args = [0.1 * self.floats(count), D, hidden, head, [A], self.pick(["tanh", "relu"]), *self.sizes()]
        return _native.MlpPlan, [*args, self.kernels()], {"shared": self.pick([True, False])}

    def call_tower(self) -> Call:
        hidden = self.pick([[H], [H, 3]])
        threads, act_block, shards = self.sizes()
        args = [0.1 * self.floats(linear(D, *hidden, A)), D, hidden, A, self.pick(["tanh", "relu"]), threads, shards]
        return _native.TowerPlan, args, {"act_block": act_block, "kernels": self.kernels()}

    def call_recurrent(self) -> Call:
        cell, gates = self.pick([("gru", 3), ("lstm", 4)])
        head = self.pick(["categorical", "gaussian"])
        count = linear(D, H) + 2 * gates * (H * H + H) + linear(H, A) + linear(H, 1) + A * (head == "gaussian")
        args = [0.1 * self.floats(count), D, [H], cell, H, head, [A], self.pick(["tanh", "relu"]), *self.sizes()]
        return _native.RecurrentPlan, [*args, self.kernels()], {}

    def call_set_normalizer(self) -> Call:
        plan, _ = self.any(self.pick(["plan", "recurrent"]))
        return plan.set_normalizer, [self.floats(D), self.floats(D), 5.0], {}

    def call_set_action_bounds(self) -> Call:
        plan, _ = self.any(self.pick(["plan", "recurrent"]))
        return plan.set_action_bounds, [np.full(A, -1, np.float32), np.full(A, 1, np.float32)], {}

    def call_rows_per_block(self) -> Call:
        plan, _ = self.any(self.pick(["plan", "recurrent"]))
        return plan.rows_per_block, [2, B], {}

    def call_forward(self) -> Call:
        plan, _ = self.any("plan")
        return plan.forward, [self.floats(B, D), self.floats(B, A), self.floats(B)], {}

    def acted(self, args: list[Any]) -> Any:
        return self.floats(B, A) if is_of("gaussian", args) else np.zeros((B, 1), np.int64)

    def call_act(self) -> Call:
        plan, made = self.any("plan")
        noise = [1, 0, np.arange(B, dtype=np.int64), np.arange(B, dtype=np.int64), False]
        mask = None if is_of("gaussian", made) else self.flags(B, A)
        epsilon = np.full(B, 0.5, np.float32) if is_of("q_values", made) else None
        outs = [self.acted(made), self.floats(B), self.floats(B)]
        return plan.act, [self.floats(B, D), *noise, *outs], {"mask": mask, "epsilon": epsilon}

    def call_forward_train(self) -> Call:
        plan, _ = self.any("plan")
        index = self.pick([None, np.arange(B, dtype=np.int32)])
        samples, made = self.any("samples")
        count = B if index is not None else len(made[0])
        if self.rng.random() < 0.3:
            return plan.forward_train, [samples, index, self.floats(count, A), self.floats(count)], {}
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
        grad = self.pick([None, self.floats(len(made[0]))])
        return plan.backward, [self.floats(B, A), grad, self.floats(B, D)], {}

    def call_samples(self, head: str | None = None) -> Call:
        names = ("log_prob", "value", "advantage", "target", "weight")
        columns = {name: self.floats(T * B) for name in names}
        gaussian = (head or self.pick(["categorical", "gaussian"])) == "gaussian"
        action: Any = self.floats(T * B, A) if gaussian else self.rng.integers(0, A, (T * B, 1))
        mask = None if gaussian else self.pick([None, np.ones((T * B, A), np.bool_)])
        error = self.pick([None, self.floats(T * B)])
        return _native.Samples, [self.floats(T * B, D), action, columns], {"mask": mask, "error": error}

    def call_sequences(self) -> Call:
        samples, _ = self.any("samples")
        args = [samples, self.flags(T, B), self.floats(B, H), self.pick([None, self.floats(B, H)])]
        return _native.Sequences, args, {"valid": self.pick([None, self.flags(T, B)])}

    def call_adam(self) -> Call:
        count = self.pick([len(self.any(name)[1][0]) for name in ("plan", "recurrent")])
        given = {"learning_rate": 0.01, "betas": (0.9, 0.999), "eps": 1e-8, "step": 0, "kernels": self.kernels()}
        return _native.Adam, [np.zeros(count, np.float32), np.zeros(count, np.float32)], given

    def call_rms_prop(self) -> Call:
        count = self.pick([len(self.any(name)[1][0]) for name in ("plan", "recurrent")])
        given = {"learning_rate": 0.01, "alpha": 0.9, "eps": 1e-8, "step": 0, "kernels": self.kernels()}
        return _native.RMSProp, [np.zeros(count, np.float32)], given

    def optimizer(self) -> tuple[Any, list[Any]]:
        return self.any(self.pick(["adam", "rms_prop"]))

    def call_apply(self) -> Call:
        optimizer, made = self.optimizer()
        return optimizer.apply, [self.floats(len(made[0])), self.floats(len(made[0])), 0.5], {}

    def loss(self, made: list[Any]) -> tuple[list[Any], Any]:
        """A loss of the policy's head, its settings and what its statistics are written to."""
        known, values = _native.fused_losses(), is_of("q_values", made)
        name = self.pick([name for name, told in known.items() if told[3] == values])
        _, settings, stats, _ = known[name]
        return [name, dict.fromkeys(settings, 0.5)], np.zeros(len(stats) + 1)

    def data(self, kind: str, made: list[Any]) -> Any:
        """Samples or sequences that are held, or some of the policy's head and cell."""
        if self.rng.random() < 0.5:
            return self.any("samples" if kind == "plan" else "sequences")[0]
        what, args, kwargs = self.call_samples("gaussian" if is_of("gaussian", made) else "categorical")
        samples = what(*args, **kwargs)
        return samples if kind == "plan" else _native.Sequences(samples, self.flags(T, B), *self.memory(made))

    def call_loss_step(self) -> Call:
        kind = self.pick(["plan", "recurrent"])
        plan, made = self.any(kind)
        data = self.data(kind, made)
        (name, settings), stats = self.loss(made)
        index = self.rng.integers(0, B, B).astype(np.int32)
        optimizer, _ = self.optimizer()
        if self.rng.random() < 0.5:
            optimizer = _native.Adam(*np.zeros((2, len(made[0])), np.float32), learning_rate=0.01)
        return plan.loss_step, [name, data, index, settings, optimizer, 0.5, stats], {}

    def call_loss_gradient(self) -> Call:
        kind = self.pick(["plan", "recurrent"])
        plan, made = self.any(kind)
        data = self.data(kind, made)
        (name, settings), stats = self.loss(made)
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
        outs = [self.acted(made), self.floats(B), self.floats(B)]
        mask = None if is_of("gaussian", made) else self.flags(B, A)
        return plan.act, [self.floats(B, D), self.flags(B), *self.memory(made), *noise, *outs], {"mask": mask}

    def call_recurrent_forward_train(self) -> Call:
        plan, _ = self.any("recurrent")
        sequences, _ = self.any("sequences")
        index = np.arange(B, dtype=np.int32)
        return plan.forward_train, [sequences, index, self.floats(T, B, A), self.floats(T, B)], {}

    def call_recurrent_backward(self) -> Call:
        plan, made = self.any("recurrent")
        if self.rng.random() < 0.3:
            index = np.arange(B, dtype=np.int32)
            with suppress(*EXPECTED):
                plan.forward_train(self.data("recurrent", made), index, self.floats(T, B, A), self.floats(T, B))
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
        explored = {"epsilon": np.full(B, 0.5, np.float32)} if is_of("q_values", made) else {}
        return plan.rollout, [pool, *current, *memory, *slab, 1, 0, np.arange(B, dtype=np.int64)], explored
