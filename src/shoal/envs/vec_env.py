"""The contract of every backend: rows that are received and sent."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    import gymnasium as gym
    from gymnasium.envs.registration import EnvSpec
    from numpy.typing import NDArray

    from shoal import _native
    from shoal.types import Bools, Ready, Spec, Tree


@dataclass(frozen=True, slots=True)
class Capabilities:
    """What a backend can do, so that nobody needs to ask for its type."""

    batch_rows: int = 0
    """Rows that each `recv` hands over, whichever are ready first; 0: in the order of sends."""
    whole_sends: bool = False
    """All rows are sent together."""
    restartable: bool = False
    """`restart` begins new episodes in some of the rows."""
    reset_options: bool = False
    """`restart` hands options to the environments' own reset."""
    can_save: bool = True
    """Rows go on exactly after `restore`; else each is cut as truncated there, and begins anew."""
    can_render: bool = False
    """`render` draws a row."""
    always_valid: bool = False
    """Every step of every row is valid."""
    frames_per_s: float = 30.0
    """The frame rate at which an episode plays in real time, one frame per step."""

    @property
    def in_order(self) -> bool:
        """Whether `recv` hands over the rows in the order of sends."""
        return not self.batch_rows


@dataclass(frozen=True, slots=True)
class NativePool:
    """Rows of native code: their pool, and the array [B, ...] that holds their observations."""

    pool: _native.Pool
    obs: NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class PythonRows:
    """Rows of Gymnasium environments in this process, for callers that speak with the environments themselves."""

    envs: list[gym.Env[Any, Any]]
    """The environment of each row, without Gymnasium's own outermost checks and time limit."""
    registered: EnvSpec | None
    """What the environments were registered with."""
    infos: list[dict[str, Any]]
    """The info of each row's last reset or step."""
    final_infos: list[dict[str, Any]]
    """The info with which each row's last episode ended."""


class VecEnv(Protocol):
    """B rows of one environment, reset in the same step.

    After `reset` or `restore` the first `recv` hands over all rows. From then on `recv` hands over the rows of the
    oldest `send` not yet received; up to two sends of disjoint rows may be under way.
    """

    @property
    def spec(self) -> Spec:
        """What a row observes and does; whether infos hold action masks is known after the first reset."""
        ...

    @property
    def num_rows(self) -> int:
        """Rows, B."""
        ...

    @property
    def capabilities(self) -> Capabilities:
        """What these rows can do."""
        ...

    @property
    def native_pool(self) -> NativePool | None:
        """The rows as native code steps them; None for those that native code does not step."""
        ...

    @property
    def python_rows(self) -> PythonRows | None:
        """The rows' environments and infos; None where they are not in this process, or no Gymnasium environments."""
        ...

    @property
    def dropped(self) -> Bools:
        """Rows that will never act again [B]."""
        ...

    def reset(self, seed: int | Sequence[int]) -> None:
        """Starts every row anew; row r is seeded with seed + r, or with its own entry of a sequence."""
        ...

    def restart(
        self,
        seeds: Sequence[int | None],
        rows: Bools,
        *,
        held: Bools,
        options: dict[str, Any] | None = None,
    ) -> None:
        """Begins a new episode in the rows where `rows` is true; the others stay where they are.

        Args:
            seeds: one a row; None goes on with the row's own generator, as Gymnasium's `reset()` does.
            rows: which rows, [B].
            held: rows that have begun an episode which nobody has seen; with the seed None they keep it, or begin it
                again with the options.
            options: go to each environment's own reset.

        Raises:
            ConfigError: these rows cannot be restarted, not just some of them, or take no options.
            RuntimeError: every row must be reset once before some are.
        """
        ...

    def recv(self) -> Ready:
        """Waits for the oldest rows under way.

        EnvError when an environment breaks its contract; its own exceptions arrive unchanged, with a note that names
        the row and step. After either nothing goes on before the next `reset` or `restore`.
        """
        ...

    def send(self, rows: slice, action: Tree) -> None:
        """Starts one step of `rows` (contiguous) with `action` [rows, ...].

        ValueError names the row of a bad action; nothing is stepped then.
        """
        ...

    def state(self) -> dict[str, Any]:
        """All that `restore` needs to go on exactly; RuntimeError while rows are under way."""
        ...

    def restore(self, state: dict[str, Any]) -> list[str]:
        """Continues from `state`; returns a sentence for each row whose episode had to be cut as truncated."""
        ...

    def render(self, row: int) -> NDArray[np.uint8]:
        """An RGB image of a row: [height, width, 3]. ConfigError where it cannot be rendered."""
        ...

    def close(self) -> None:
        """Frees what the rows hold; may be called twice."""
        ...


class Linked(Protocol):
    """Rows on servers whose rollouts may run in native code."""

    obs: NDArray[np.float32]
    """What all rows see [B, ...]."""

    def servers(self) -> list[tuple[int, int]]:
        """Of each server its rows and the number of the last request."""
        ...

    def roll(self, rollout: _native.LinkedRollout) -> None:
        """Runs a rollout that was made with `servers`; EnvError as of `recv`."""
        ...


def linked_of(env: VecEnv) -> Linked | None:
    """The rows as a native rollout takes them that go over sockets of this machine; None of others."""
    return getattr(env, "linked", None)


def slowest_of(env: VecEnv) -> float | None:
    """How many times as long for a step as the one in the middle the slowest of the rows' processes takes.

    None where the rows have no processes that could be compared (a method `slowest` of theirs), or nothing is new.
    """
    ask: Callable[[], float | None] | None = getattr(env, "slowest", None)
    return None if ask is None else ask()


def row_seeds(seed: int | Sequence[int], num_rows: int) -> list[int]:
    """One seed a row: seed + r, or the sequence's own; ValueError when there are too few or one is impossible."""
    if isinstance(seed, int | np.integer):
        seeds = [int(seed) + row for row in range(num_rows)]
    else:
        seeds = [int(one) for one in seed]
    if len(seeds) != num_rows:
        raise ValueError(
            f"expected one seed for each of {num_rows} rows, got {len(seeds)}"
        )
    for row, one in enumerate(seeds):
        if not 0 <= one < 2**64:
            raise ValueError(
                f"a seed must lie between 0 and 2**64 - 1, got {one} for row {row}"
            )
    return seeds
