"""Acting: a snapshot of a policy chooses actions for rows, with noise that is a function of (seed, row, step)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
import torch

from shoal import _native
from shoal.learn.lowering import lower
from shoal.learn.plan import Noise
from shoal.learn.weights import Snapshot
from shoal.nets.distributions import masked
from shoal.nets.epsilon_greedy import EpsilonGreedy
from shoal.nets.given import note_input
from shoal.types import RAISED, Acted, Spec, Tree, assign, check_seed, map_tree, select

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from torch import Tensor, nn

    from shoal.learn.plan import Plan
    from shoal.learn.ranks import Ranks
    from shoal.types import Bools, Layout


CPU = torch.device("cpu")


class Actor(Protocol):
    """Chooses actions for a fixed set of rows."""

    snapshot: Snapshot
    """The weights that it acts with."""
    acting: Acting
    """How it acts."""
    rows: NDArray[np.int64]
    row_step: NDArray[np.int64]
    state: Tree
    epsilon: NDArray[np.float32] | None
    """How often each row explores, where the policy is a Q-network."""

    def act(
        self,
        obs: Tree,
        start: Bools,
        rows: slice,
        *,
        action_mask: Bools | None = None,
        greedy: bool = False,
    ) -> Acted:
        """One step of `rows`, among the options that `action_mask` leaves.

        Advances their recurrent state and noise counters.
        """
        ...

    def value(
        self,
        obs: Tree,
        start: NDArray[np.bool_],
        rows: NDArray[np.intp],
        *,
        action_mask: Bools | None = None,
    ) -> NDArray[np.float32]:
        """Values of observations that follow the last step of `rows`; nothing advances.

        Those of a Q-network are of the options that `action_mask` leaves.
        """
        ...

    def update(
        self, policy: nn.Module, flat: Tensor, only: frozenset[str] = frozenset()
    ) -> None:
        """Takes the learner's weights over; of them `only` these parameters and buffers, where there are any."""
        ...


@dataclass(frozen=True, slots=True)
class Acting:
    """How a policy acts: none of it depends on the machine but the device."""

    seed: int
    stream: int = 0
    """Which sequence of noise: training 0, evaluation 1, and so on."""
    device: torch.device = CPU
    native: bool = True
    """Lower to native code where the policy can be."""
    num_threads: int = 1
    act_block: int = 64
    """Rows in one forward; part of the configuration, because torch's bits depend on it."""
    values: bool = True
    """Whether the value of what follows a step is wanted: `next_value` of a rollout."""
    first_row: int = 0
    """The number of the first row, in noise and seeds, where these rows are a part of more."""
    states: bool = False
    """Whether the recurrent state before each step is recorded, for a memory that hands out sequences."""
    executed: bool = False
    """Whether what rows did is recorded beside what was chosen, for a memory, where an action guard changes it."""
    latest: bool = False
    """Whether a rollout comes with what its rows saw after the last step, for values that the learner gives it."""
    ranks: Ranks | None = None
    """The processes whose rows are collected and learned from together, where this is one of several."""

    def __post_init__(self) -> None:
        """ConfigError for a seed that no noise has."""
        check_seed(self.seed)


def make_actor(
    policy: nn.Module,
    spec: Spec,
    num_rows: int,
    acting: Acting,
    *,
    rows: NDArray[np.int64] | None = None,
) -> Actor:
    """A PlanActor where the policy can be lowered, a TorchActor otherwise; `rows`: their numbers in the noise."""
    snapshot = Snapshot(policy)
    settings: dict[str, Any] = {
        "num_threads": acting.num_threads,
        "act_block": acting.act_block,
        "grad_shards": 1,
    }
    plan = (
        lower(snapshot.policy, spec, snapshot.flat, **settings)
        if acting.native
        else None
    )
    rows = np.arange(num_rows, dtype=np.int64) if rows is None else rows
    return (
        TorchActor(snapshot, rows, acting, spec.observation)
        if plan is None
        else PlanActor(snapshot, plan, rows, acting)
    )


class PlanActor:
    """A lowered policy that acts in native code."""

    def __init__(
        self, snapshot: Snapshot, plan: Plan, rows: NDArray[np.int64], acting: Acting
    ) -> None:
        """`plan` reads the snapshot's own weights; `rows` are their numbers in the noise."""
        self.snapshot, self.plan, self.rows, self.acting = snapshot, plan, rows, acting
        self.row_step = np.zeros(len(rows), np.int64)
        initial: Any = snapshot.policy.initial_state
        self.state: Tree = initial(len(rows))
        self.epsilon: NDArray[np.float32] | None = None

    def act(
        self,
        obs: Tree,
        start: Bools,
        rows: slice,
        *,
        action_mask: Bools | None = None,
        greedy: bool = False,
    ) -> Acted:
        """One step of `rows`."""
        acting = self.acting
        noise = Noise(acting.seed, acting.stream, self.rows[rows], self.row_step[rows])
        action, log_prob, value = self.plan.act(
            obs,
            start,
            None if self.state is None else select(self.state, rows),
            noise,
            greedy=greedy,
            action_mask=action_mask,
            epsilon=None if self.epsilon is None else self.epsilon[rows],
        )
        self.row_step[rows] += 1
        return Acted(self.plan.to_env(action), action, log_prob, value)

    def value(
        self,
        obs: NDArray[Any],
        start: NDArray[np.bool_],
        rows: NDArray[np.intp],
        *,
        action_mask: Bools | None = None,
    ) -> NDArray[np.float32]:
        """Values of observations that follow the last step of `rows`."""
        state = self.state
        if state is not None:
            state = select(state, torch.from_numpy(rows))
        return self.plan.value(obs, start, state, action_mask=action_mask)

    def update(
        self, policy: nn.Module, flat: Tensor, only: frozenset[str] = frozenset()
    ) -> None:
        """Takes the learner's weights over."""
        self.snapshot.update(policy, flat, only)
        self.plan.refresh_normalizer()


class TorchActor:
    """Any policy, acting in torch in blocks of `act_block` rows."""

    def __init__(
        self,
        snapshot: Snapshot,
        rows: NDArray[np.int64],
        acting: Acting,
        layout: Layout,
    ) -> None:
        """`rows` are their numbers in the noise; the recurrent state of all of them lives here, on the device."""
        self.snapshot, self.rows, self.acting = snapshot, rows, acting
        self.layout = layout
        self.row_step = np.zeros(len(rows), np.int64)
        initial: Any = snapshot.policy.initial_state
        self.state: Tree = initial(len(rows))
        self.epsilon: NDArray[np.float32] | None = None

    @torch.inference_mode()
    def act(
        self,
        obs: Tree,
        start: Bools,
        rows: slice,
        *,
        action_mask: Bools | None = None,
        greedy: bool = False,
    ) -> Acted:
        """One step of `rows`."""
        size = rows.stop - rows.start
        blocks = [
            slice(a, min(a + self.acting.act_block, size))
            for a in range(0, size, self.acting.act_block)
        ]
        masks = [None if action_mask is None else action_mask[b] for b in blocks]
        pairs = zip(blocks, masks, strict=True)
        parts = [
            self._act_block(select(obs, b), start[b], rows, b, mask, greedy=greedy)
            for b, mask in pairs
        ]
        self.row_step[rows] += 1
        if len(parts) == 1:
            return parts[0]
        columns = [[getattr(p, name) for p in parts] for name in Acted.__slots__]
        return Acted(*(map_tree(_joined, *column) for column in columns))

    def _act_block(
        self,
        obs: Tree,
        start: Any,
        rows: slice,
        block: slice,
        mask: Any,
        *,
        greedy: bool,
    ) -> Acted:
        at = slice(rows.start + block.start, rows.start + block.stop)
        output = self._forward(
            obs, start, None if self.state is None else select(self.state, at)
        )
        if self.state is not None:
            assign(self.state, at, output.state)
        distribution: Any = masked(output.distribution, self._legal(mask))
        value = _value(output, distribution)
        if self.epsilon is not None:
            epsilon = torch.from_numpy(self.epsilon[at]).to(self.acting.device)
            distribution = distribution.exploring(epsilon.unsqueeze(0))
        action = (
            distribution.mode()
            if greedy
            else distribution.sample(self._noise(distribution, at))
        )
        log_prob = distribution.log_prob(action)
        parts = (distribution.to_env(action), action, log_prob, value)
        return Acted(*(map_tree(_array, x) for x in parts))

    @torch.inference_mode()
    def value(
        self,
        obs: Tree,
        start: NDArray[np.bool_],
        rows: NDArray[np.intp],
        *,
        action_mask: Bools | None = None,
    ) -> NDArray[np.float32]:
        """Values of observations that follow the last step of `rows`."""
        state = (
            None if self.state is None else select(self.state, torch.from_numpy(rows))
        )
        output = self._forward(obs, start, state)
        legal = self._legal(action_mask)
        return _array(_value(output, masked(output.distribution, legal)))

    def _legal(self, mask: Bools | None) -> Tensor | None:
        """A mask [n, options] as [1, n, options] on the device."""
        if mask is None:
            return None
        return torch.from_numpy(mask).to(self.acting.device).unsqueeze(0)

    def update(
        self, policy: nn.Module, flat: Tensor, only: frozenset[str] = frozenset()
    ) -> None:
        """Takes the learner's weights over."""
        self.snapshot.update(policy, flat, only)

    def _forward(self, obs: Tree, start: NDArray[np.bool_], state: Tree) -> Any:
        def tensor(array: NDArray[Any]) -> Tensor:
            return (
                torch.from_numpy(array)
                .to(self.acting.device, non_blocking=True)
                .unsqueeze(0)
            )

        policy, seen = self.snapshot.policy, map_tree(tensor, obs)
        try:
            return policy(seen, state, tensor(start))
        except RAISED as error:
            note_input(error, policy, seen, self.layout)
            raise

    def _noise(self, distribution: Any, rows: slice) -> Tensor:
        acting, size = self.acting, distribution.noise_size
        # Counted in intervals, the noise is the same throughout each of them.
        step = self.row_step[rows] // getattr(distribution, "noise_interval", 1)
        where = (acting.seed, acting.stream, self.rows[rows], step)
        if distribution.noise == "joint":
            # A number's words are fixed by its position. Normal ones stand after whole blocks of four words, so that
            # none of them shares a word with a uniform one.
            uniforms = distribution.num_uniform
            first = -(-uniforms // 4) * 4
            normal = _native.philox_normal(*where, first + size - uniforms)[:, first:]
            noise = np.concatenate(
                [_native.philox_uniform(*where, uniforms), normal], axis=1
            )
        else:
            draw = (
                _native.philox_uniform
                if distribution.noise == "uniform"
                else _native.philox_normal
            )
            noise = draw(*where, size)
        return torch.from_numpy(noise).to(acting.device).unsqueeze(0)


def _value(output: Any, distribution: object) -> Tensor:
    """The value that a policy gives, or a Q-network's highest one among the options of its masked distribution."""
    if (
        isinstance(distribution, EpsilonGreedy)
        and distribution is not output.distribution
    ):
        return distribution.values.amax(-1)
    return output.value


def _array(x: Tensor) -> NDArray[Any]:
    return x.squeeze(0).cpu().numpy()


def _joined(*parts: NDArray[Any]) -> NDArray[Any]:
    return np.concatenate(parts)
