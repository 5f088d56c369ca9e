"""The stream `rollouts`: whole rollouts [T, B] of fresh experience, for on-policy algorithms."""

from __future__ import annotations

import time
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from shoal.envs.native import NativeEnv
from shoal.envs.vec_env import check_finite
from shoal.envs.workers.rows import WorkersEnv
from shoal.learn.acting import Acting, Actor, PlanActor, make_actor
from shoal.learn.weights import pack
from shoal.memory.slab import Slab
from shoal.nets.policy import PlainPolicy
from shoal.stream.casts import casting
from shoal.stream.meter import Meter
from shoal.stream.schedules import Overlap, Schedule, Sync
from shoal.types import ConfigError, Episodes, Ready, Tree, assign, map_tree, select

if TYPE_CHECKING:
    from collections.abc import Mapping

    from torch import nn

    from shoal.envs.vec_env import VecEnv
    from shoal.stream.casts import Cast, Rows


@dataclass(slots=True)
class Seat:
    """One role's place: the rows it plays, who acts for them, and the slab that keeps what happened."""

    role: str
    rows: Rows
    actor: Actor
    policy: nn.Module
    flat: torch.Tensor
    slab: Slab
    start: np.ndarray[Any, np.dtype[np.bool_]]
    final_values: list[tuple[int, Any, Any]]
    held: Slab | None
    """Where not all rows always act: what each row saw and did in its last step, until that is complete."""

    def take(self, policy: nn.Module) -> None:
        """Gives the actor the weights of `policy`, which may be another module than the last time."""
        if policy is not self.policy:
            self.policy, self.flat = policy, pack(policy)
        self.actor.update(policy, self.flat)

    def local(self, group: slice) -> tuple[slice, Rows] | None:
        """Where the rows shared with `group` stand: counted in this seat, and in the group."""
        if isinstance(self.rows, np.ndarray):  # a cast has one group, of all rows
            return slice(0, len(self.rows)), self.rows
        first, last = max(self.rows.start, group.start), min(self.rows.stop, group.stop)
        if first >= last:
            return None
        return (
            slice(first - self.rows.start, last - self.rows.start),
            slice(first - group.start, last - group.start),
        )


def rollouts(
    env: VecEnv,
    policy: nn.Module | Mapping[str, nn.Module],
    *,
    num_steps: int,
    schedule: Schedule | None = None,
    cast: Cast | None = None,
    acting: Acting | None = None,
    meter: Meter | None = None,
) -> Rollouts:
    """An endless stream of rollouts of `num_steps` steps of every row.

    Args:
        env: reset here with the acting seed.
        policy: acts by a snapshot that `publish` renews; with `cast`, one policy a role.
        num_steps: T, at least 1.
        schedule: Sync() by default, or Overlap().
        cast: the rows of each role, a slice or their numbers, together every row once; the stream then yields a dict of
            roles.
        acting: seed, device, and how forwards are cut into blocks.
        meter: where the seconds of the environment and of acting go.

    Raises:
        ConfigError: a setting that cannot work, with one that would.
    """
    if num_steps < 1:
        raise ConfigError(f"num_steps must be at least 1, got {num_steps}")
    return Rollouts(
        env,
        policy,
        num_steps,
        schedule or Sync(),
        cast,
        acting or Acting(0),
        meter or Meter(),
    )


class Rollouts:
    """See `rollouts`. Iterating raises until the batch before has been answered by `publish`."""

    def __init__(
        self,
        env: VecEnv,
        policy: nn.Module | Mapping[str, nn.Module],
        num_steps: int,
        schedule: Schedule,
        cast: Cast | None,
        acting: Acting,
        meter: Meter,
    ) -> None:
        if isinstance(env, WorkersEnv) and not env.in_order:
            raise ConfigError(
                f"a rollout needs its rows in the order of sends; leave batch_rows={env.crew.settings.batch_rows} out"
            )
        self.env, self.num_steps, self.acting, self.meter = (
            env,
            num_steps,
            acting,
            meter,
        )
        self.version = self.env_steps = 0
        self.episodes = Episodes(np.zeros(0), np.zeros(0, np.int64), {})
        self._cast = cast
        self._published = True
        self._groups = self._cut(schedule)
        pinned = acting.device.type == "cuda"
        policies, places = casting(policy, cast, env.num_rows)
        self._seats: list[Seat] = []
        # The first reset tells whether actions are masked, which decides how policies act.
        env.reset(acting.seed)
        first = env.recv()
        for role, rows in places.items():
            numbers = np.arange(env.num_rows, dtype=np.int64)[rows]
            played, count = policies[role], len(numbers)
            actor = make_actor(played, env.spec, count, acting, rows=numbers)
            if env.spec.in_turns and actor.state is not None:
                raise ConfigError(
                    f"{env.spec.env_id} is a game of turns, which policies with a memory cannot play yet"
                )
            slab = Slab(env.spec, num_steps, count, pinned=pinned)
            held = None if first.turn is None else Slab(env.spec, 1, count)
            start = np.ones(count, np.bool_)
            self._seats.append(
                Seat(role, rows, actor, played, pack(played), slab, start, [], held)
            )
        self._order = np.argsort(
            np.concatenate([seat.actor.rows for seat in self._seats])
        )
        if cast is not None and len(self._groups) > 1:
            raise ConfigError("a cast of several roles needs schedule Sync()")
        only = self._seats[0].actor
        self._plan = (
            only.plan if isinstance(only, PlanActor) and self._fusible(only) else None
        )
        self._obs: list[Tree] = []
        self._ends: list[tuple[Any, ...]] = []
        self._masks: list[Any] = []
        self._turns: list[Any] = []
        self._begin(first)

    def __iter__(self) -> Rollouts:
        """Itself."""
        return self

    def __next__(self) -> Any:
        """The next rollout: Steps, or a dict of roles with a cast."""
        if not self._published:
            raise RuntimeError(
                "pulled the next rollout before publish(policy): publish after every update"
            )
        self._published = False
        before = {seat.role: _copy_state(seat.actor.state) for seat in self._seats}
        for seat in self._seats:
            seat.slab.clear()
            seat.final_values.clear()
        self._ends.clear()
        if self._plan is not None:
            self._collect_native()
        else:
            self._collect()
        self.env_steps += self.num_steps * self.env.num_rows
        with self.meter.measure("transfer"):
            batch = {
                seat.role: seat.slab.steps(
                    version=self.version,
                    state=before[seat.role],
                    device=self.acting.device,
                )
                for seat in self._seats
            }
        return batch[self._seats[0].role] if self._cast is None else batch

    def publish(self, policy: nn.Module | Mapping[str, nn.Module]) -> int:
        """Gives the acting side the learner's weights and returns their version.

        Before that, `encoder.observe` of a policy in training mode (if it has one) gets the rollout's observations
        [N, ...], to merge them into its statistics; a policy in eval mode (a frozen opponent) keeps its own.
        """
        policies, _ = casting(policy, self._cast, self.env.num_rows)
        for seat in self._seats:
            learner = policies[seat.role]
            inner = learner.module if isinstance(learner, PlainPolicy) else learner
            encoder = getattr(inner, "encoder", None)
            observe = (
                getattr(encoder, "observe", None)
                if getattr(encoder, "normalises", True)
                else None
            )
            if callable(observe) and learner.training and not self._published:
                obs = map_tree(torch.from_numpy, select(seat.slab.obs, seat.slab.valid))
                observe(
                    map_tree(partial(torch.Tensor.to, device=self.acting.device), obs)
                )
            seat.take(learner)
        self.version += 1
        self._published = True
        return self.version

    def state(self) -> dict[str, Any]:
        """Rows, counters, random states: all that `restore` needs, taken after a publish."""
        seats = {
            seat.role: {
                "start": seat.start.copy(),
                "row_step": seat.actor.row_step.copy(),
                "recurrent": _copy_state(seat.actor.state),
            }
            | (
                {}
                if seat.held is None
                else {"held": seat.held.copy_acted((0, np.arange(len(seat.start))))}
            )
            for seat in self._seats
        }
        return {
            "env": self.env.state(),
            "seats": seats,
            "version": self.version,
            "env_steps": self.env_steps,
        }

    def restore(
        self, state: dict[str, Any], policy: nn.Module | Mapping[str, nn.Module]
    ) -> list[str]:
        """Continues from `state` with `policy`; returns a sentence for each episode that could not be continued."""
        policies, _ = casting(policy, self._cast, self.env.num_rows)
        for seat in self._seats:
            saved = state["seats"][seat.role]
            seat.start[:] = saved["start"]
            seat.actor.row_step[:] = saved["row_step"]
            if seat.actor.state is not None:
                assign(seat.actor.state, slice(None), saved["recurrent"])
            if seat.held is not None:
                seat.held.put_acted((0, np.arange(len(seat.start))), saved["held"])
            seat.take(policies[seat.role])
        lost = self.env.restore(state["env"])
        self._begin(self.env.recv())
        self.version, self.env_steps, self._published = (
            state["version"],
            state["env_steps"],
            True,
        )
        return lost

    def _cut(self, schedule: Schedule) -> list[slice]:
        rows, agents = self.env.num_rows, self.env.spec.num_agents
        if not isinstance(schedule, Overlap):
            return [slice(0, rows)]
        if rows < 2 * agents:
            raise ConfigError(
                f"schedule Overlap() needs at least {2 * agents} rows; set num_envs=2 or more, or Sync()"
            )
        half = rows // 2 // agents * agents
        return [slice(0, half), slice(half, rows)]

    def _fusible(self, actor: PlanActor) -> bool:
        alone = len(self._seats) == 1 and len(self._groups) == 1
        whole = self.acting.act_block % self.env.spec.num_agents == 0
        return (
            alone
            and whole
            and isinstance(self.env, NativeEnv)
            and actor.plan.can_roll()
        )

    def _joined(self, *parts: Any) -> Any:
        """The roles' actions in the order of rows."""
        return np.concatenate(parts)[self._order]

    def _begin(self, ready: Ready) -> None:
        self._obs = [select(ready.obs, group) for group in self._groups]
        mask = ready.action_mask
        if self.env.spec.masked and mask is None:
            raise ConfigError(
                f"{self.env.spec.env_id}: its backend does not hand over its action masks; serial does"
            )
        self._masks = [None if mask is None else mask[group] for group in self._groups]
        self._turns = [
            None if ready.turn is None else ready.turn[group] for group in self._groups
        ]
        for seat in self._seats:
            seat.start |= ready.truncated[seat.rows]

    def _collect_native(self) -> None:
        seat, env = self._seats[0], self.env
        assert self._plan is not None
        assert isinstance(env, NativeEnv)
        with self.meter.measure("acting"):
            self._plan.rollout(
                env,
                seat.slab,
                seat.start,
                seat.actor.row_step,
                seed=self.acting.seed,
                stream=self.acting.stream,
                rows=seat.actor.rows,
            )
        slab = seat.slab
        self._check_native()
        ended = slab.final_index >= 0
        info = dict(zip(env.spec.info_keys, slab.episode_info[ended].T, strict=True))
        self.episodes = Episodes(
            slab.episode_return[ended],
            slab.episode_length[ended],
            info,
            np.nonzero(ended)[1],
        )

    def _check_native(self) -> None:
        """EnvError where native rows, which nothing else looks at, were not finite."""
        for seat in self._seats:
            slab = seat.slab
            if not np.isfinite(float(slab.obs.sum()) + float(slab.reward.sum())):
                for t in range(self.num_steps):
                    check_finite(
                        self.env.spec,
                        slice(0, self.env.num_rows),
                        slab.obs[t],
                        slab.reward[t],
                    )

    def _collect(self) -> None:
        for number, group in enumerate(self._groups):
            self._act(0, number, group)
        for t in range(self.num_steps):
            for number, group in enumerate(self._groups):
                begun = time.perf_counter()
                ready = self.env.recv()
                self.meter.add("environment", time.perf_counter() - begun)
                self._obs[number], self._masks[number], self._turns[number] = (
                    ready.obs,
                    ready.action_mask,
                    ready.turn,
                )
                self._record(t, ready)
                if t + 1 < self.num_steps:
                    self._act(t + 1, number, group)
        if isinstance(self.env, NativeEnv):
            self._check_native()
        for seat in self._seats:
            self._bootstrap(seat)
        keys = self.env.spec.info_keys
        columns = np.array(self._ends, np.float64).reshape(-1, 3 + len(keys)).T
        rows, lengths = columns[0].astype(np.int64), columns[2].astype(np.int64)
        self.episodes = Episodes(
            columns[1], lengths, dict(zip(keys, columns[3:], strict=True)), rows
        )

    def _act(self, t: int, number: int, group: slice) -> None:
        begun = time.perf_counter()
        actions: list[Any] = []
        for seat in self._seats:
            places = seat.local(group)
            if places is None:
                continue
            mine, theirs = places
            obs = select(self._obs[number], theirs)
            slab = seat.slab
            assign(slab.obs, (t, mine), obs)
            slab.start[t, mine] = seat.start[mine]
            mask = None if self._masks[number] is None else self._masks[number][theirs]
            if slab.action_mask is not None:
                slab.action_mask[t, mine] = mask
            acted = seat.actor.act(obs, seat.start[mine], mine, action_mask=mask)
            assign(slab.action, (t, mine), acted.action)
            slab.log_prob[t, mine], slab.value[t, mine] = acted.log_prob, acted.value
            actions.append(acted.env_action)
            if seat.held is not None:
                on = np.flatnonzero(self._turns[number][theirs]) + mine.start
                seat.held.put_acted((0, on), slab.copy_acted((t, on)))
                seat.start[on] = False
        sent = time.perf_counter()
        self.meter.add("acting", sent - begun)
        self.env.send(
            group, actions[0] if len(actions) == 1 else map_tree(self._joined, *actions)
        )
        self.meter.add("environment", time.perf_counter() - sent)

    def _record(self, t: int, ready: Ready) -> None:
        ended = ready.terminated | ready.truncated
        for seat in self._seats:
            places = seat.local(ready.rows)
            if places is None:
                continue
            mine, theirs = places
            slab = seat.slab
            slab.reward[t, mine] = ready.reward[theirs]
            slab.terminated[t, mine], slab.truncated[t, mine] = (
                ready.terminated[theirs],
                ready.truncated[theirs],
            )
            slab.valid[t, mine] = ready.valid[theirs]
            if seat.held is not None:
                complete = np.flatnonzero(ready.valid[theirs]) + mine.start
                slab.put_acted((t, complete), seat.held.copy_acted((0, complete)))
                seat.start[mine] |= ended[theirs]
            else:
                if not ready.valid[theirs].all():
                    _move_cuts(slab, t, mine, select(ready.final_obs, theirs))
                seat.start[mine] = ended[theirs] | ~ready.valid[theirs]
            if (ended & ready.valid)[theirs].any():
                self._record_ends(seat, t, mine, select(ready.final_obs, theirs))
        for row in np.flatnonzero(ended & ready.valid & (ready.episode_length > 0)):
            numbers = (ready.info[key][row] for key in self.env.spec.info_keys)
            self._ends.append(
                (
                    ready.rows.start + row,
                    ready.episode_return[row],
                    ready.episode_length[row],
                    *numbers,
                )
            )

    def _record_ends(self, seat: Seat, t: int, mine: slice, final_obs: Tree) -> None:
        slab = seat.slab
        ended = slab.terminated[t, mine] | slab.truncated[t, mine]
        slab.keep_final(t, np.flatnonzero(ended), final_obs, first=mine.start)
        cut = np.flatnonzero(ended & ~slab.terminated[t, mine])
        if len(cut):
            begun = time.perf_counter()
            obs = select(final_obs, cut)
            values = seat.actor.value(
                obs, np.zeros(len(cut), np.bool_), cut + mine.start
            )
            seat.final_values.append((t, cut + mine.start, values))
            self.meter.add("acting", time.perf_counter() - begun)

    def _bootstrap(self, seat: Seat) -> None:
        slab = seat.slab
        slab.next_value[:-1] = slab.value[1:]
        for number, group in enumerate(self._groups):
            places = seat.local(group)
            if places is not None:
                mine, theirs = places
                obs = select(self._obs[number], theirs)
                rows = np.arange(mine.start, mine.stop)
                slab.next_value[-1, mine] = seat.actor.value(
                    obs, seat.start[mine], rows
                )
                if seat.held is not None:
                    waiting = np.flatnonzero(~self._turns[number][theirs]) + mine.start
                    slab.next_value[-1, waiting] = seat.held.value[0, waiting]
        if seat.held is not None:
            slab.link(slab.next_value[-1].copy())
        for t, rows, values in seat.final_values:
            slab.next_value[t, rows] = values
        slab.next_value[slab.terminated] = 0


def _move_cuts(slab: Slab, t: int, rows: slice, final_obs: Tree) -> None:
    """An episode that was cut before step t ended, truncated, with the step before; step t is only a reset."""
    cut = slab.truncated[t, rows] & ~slab.valid[t, rows]
    slab.truncated[t, rows] &= ~cut
    if t and cut.any():
        cut &= slab.valid[t - 1, rows] & ~(
            slab.terminated[t - 1, rows] | slab.truncated[t - 1, rows]
        )
        slab.truncated[t - 1, rows] |= cut
        slab.keep_final(t - 1, np.flatnonzero(cut), final_obs, first=rows.start)


def _copy_state(state: Tree) -> Tree:
    return None if state is None else map_tree(torch.clone, state)
