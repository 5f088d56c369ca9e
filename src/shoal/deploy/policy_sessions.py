"""Sessions of a policy's server: one stream each, with the memory of its rows, and none that is silent for too long."""

from __future__ import annotations

import threading
import time
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from shoal.deploy.description import sha256_of
from shoal.remote import policies_pb2 as wire
from shoal.remote.batches import Batch
from shoal.remote.frames import MOST_BYTES
from shoal.types import ConfigError, EnvError

if TYPE_CHECKING:
    from collections.abc import Callable

    from shoal.deploy.player import Player
    from shoal.types import Bools, Spec

    MakePlayer = Callable[[int, bool, int], Player]
    """Of a number of rows, whether actions are drawn, and the seed of that."""

PROTOCOL = 1
LOOK_S = 1.0
"""At most: how often somebody looks who has been silent for too long."""


class Limits(NamedTuple):
    """What clients may have."""

    most_rows: int
    """Of one session."""
    most_sessions: int
    idle_s: float
    """A session without a request for so long ends."""


class PolicySession:
    """One client's rows."""

    def __init__(self, player: Player) -> None:
        """`player`: for as many rows as the client has."""
        self._player = player
        spec, rows = player.spec, player.num_rows
        self._obs = Batch(spec.observation, rows)
        self._action = Batch(spec.action, rows)
        self._start = np.ones(rows, np.bool_)

    def act(self, step: Any) -> Any:
        """The reply to a `PolicyStep`: the actions, or the sentence that says why there are none."""
        try:
            obs: bytes = step.obs
            self._obs.read(obs, 0, len(obs), "observations")
            start = self._flags(step.start, (self._player.num_rows,), "starts")
            options = (self._player.num_rows, self._player.options)
            mask = self._flags(step.mask, options, "masks")
            begins = self._start if start is None else self._start | start
            action = self._player.act(self._obs.tree, begins, mask)
        except (ValueError, EnvError) as error:
            return wire.PolicyReply(refused=str(error))
        self._start = np.zeros(self._player.num_rows, np.bool_)
        leaves = self._player.spec.action.flat(action)
        for to, value in zip(self._action.arrays, leaves, strict=True):
            to[...] = value
        return wire.PolicyReply(action=self._action.block.tobytes())

    @staticmethod
    def _flags(given: bytes, shape: tuple[int, ...], what: str) -> Bools | None:
        """Bytes as flags of a shape; None where there are none."""
        if not given:
            return None
        expected = int(np.prod(shape))
        if len(given) != expected:
            raise ValueError(
                f"{what} of {len(given)} bytes where {expected} belong, one each for {list(shape)}"
            )
        return np.frombuffer(given, np.uint8).reshape(shape) != 0


class PolicySessions:
    """All sessions of a server."""

    def __init__(self, make_player: MakePlayer, spec: Spec, limits: Limits) -> None:
        """Looks after them from now on, until `stop`."""
        self._make_player, self._spec, self._limits = make_player, spec, limits
        self._sha256 = sha256_of(spec)
        self._lock = threading.Lock()
        self._heard: dict[Callable[[], None], float] = {}
        self._stopped = threading.Event()
        self._watch = threading.Thread(target=self._look, daemon=True)
        self._watch.start()

    def open(self, asked: Any, end: Callable[[], None]) -> PolicySession:
        """A session for a `PolicyOpen`, whose stream `end` ends.

        Raises:
            ConfigError: another protocol or specification, too many rows, or as many sessions as there may be.
        """
        self._check(asked)
        with self._lock:
            if len(self._heard) >= self._limits.most_sessions:
                raise ConfigError(
                    f"{len(self._heard)} clients have sessions already; this server takes no more of them"
                )
            self._heard[end] = time.monotonic()
        try:
            return PolicySession(
                self._make_player(asked.rows, asked.sample, asked.seed)
            )
        except BaseException:
            self.close(end)
            raise

    def hear(self, end: Callable[[], None]) -> None:
        """Notes that a session's client has said something."""
        self._heard[end] = time.monotonic()

    def close(self, end: Callable[[], None]) -> None:
        """Forgets a session."""
        with self._lock:
            self._heard.pop(end, None)

    def stop(self) -> None:
        """Looks no more."""
        self._stopped.set()
        self._watch.join()

    def _check(self, asked: Any) -> None:
        if asked.protocol != PROTOCOL:
            raise ConfigError(
                f"the client speaks protocol {asked.protocol}, this server {PROTOCOL}; install the same shoal on both "
                "sides"
            )
        if asked.spec_sha256 and asked.spec_sha256 != self._sha256:
            raise ConfigError(
                f"the policy was trained for other observations or actions ({self._spec.env_id}, specification "
                f"{self._sha256[:12]}) than the client has ({str(asked.spec_sha256)[:12]!a}); serve a policy of the "
                "client's environment"
            )
        most = self._limits.most_rows
        if not 1 <= asked.rows <= most:
            raise ConfigError(
                f"a session of this server has 1 to {most} rows, the client asked for {asked.rows}"
            )
        nbytes = self._spec.observation.offsets((asked.rows,))[1]
        if nbytes > MOST_BYTES // 2:
            raise ConfigError(
                f"the observations of {asked.rows} rows have {nbytes:,} bytes, more than a message may; ask for fewer"
            )

    def _look(self) -> None:
        """Ends those that have been silent for too long."""
        idle_s = self._limits.idle_s
        while not self._stopped.wait(min(LOOK_S, idle_s / 2)):
            with self._lock:
                now = time.monotonic()
                silent = [end for end, at in self._heard.items() if now - at > idle_s]
            for end in silent:
                end()
