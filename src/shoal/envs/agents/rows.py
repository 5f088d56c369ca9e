"""Environments of several agents as rows: each agent of each environment has a row of its own."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np

from shoal.envs import masks
from shoal.envs.agents.games import check_agents_alike, game_of
from shoal.envs.agents.padding import Padded, common_spaces, groups_of
from shoal.envs.generators import Generators, set_generator, spelled_out
from shoal.envs.masks import MaskReader
from shoal.envs.observations import TreeReader
from shoal.envs.python_env import (
    one_by_one,
    read_flag,
    read_info,
    read_rewards,
    stacked,
)
from shoal.envs.rendering import RENDER_MODE, frames_per_s, why_not_rendered
from shoal.envs.vec_env import (
    ActionCheck,
    Capabilities,
    InFlight,
    Outputs,
    not_finite,
    row_seeds,
    take,
)
from shoal.types import ConfigError, EnvError, Spec, assign, map_tree, select

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from shoal.envs.agents.games import Game
    from shoal.types import Bools, Ready, Tree


class AgentsEnv:
    """PettingZoo environments of A possible agents each behind the VecEnv contract, in this process.

    Row e * A + a is agent a of environment e. `turn` says whose next action counts; the actions of the other rows are
    ignored. A step is `valid` for the rows whose own step is complete: in a game of turns that is when the agent's next
    turn or its end has come. When no agent is left, the environment is reset in the same step.
    """

    def __init__(
        self,
        envs: list[Any],
        name: str,
        *,
        info_keys: tuple[str, ...] = (),
        first_row: int = 0,
    ) -> None:
        """`envs`: alike in their agents and spaces; else as SerialEnv."""
        self.envs = envs
        check_agents_alike(envs, name)
        self.games: list[Game] = [game_of(env) for env in envs]
        self.agents = agents = self.games[0].agents
        self.capabilities = Capabilities(
            restartable=True,
            can_render=getattr(envs[0], "render_mode", None) == RENDER_MODE,
            frames_per_s=frames_per_s(getattr(envs[0], "metadata", {})),
        )
        self._groups = groups_of(envs[0])
        observation, action = common_spaces(envs[0], name, groups=len(self._groups))
        if len(self._groups) > 1:
            self.games = [
                Padded(game, observation, action, self._groups) for game in self.games
            ]
        limits: dict[str, Any] = {
            "num_agents": len(agents),
            "agents": agents,
            "groups": len(self._groups),
        }
        limits |= {"in_turns": self.games[0].in_turns}
        self.spec = Spec.of(
            name, observation, action, info_keys=tuple(info_keys), **limits
        )
        self.num_rows, self.first_row = len(envs) * len(agents), first_row
        self._reader, self._action = TreeReader(self.spec), ActionCheck(self.spec)
        self._in_flight = InFlight(self.num_rows)
        self._actions: list[Tree] = []
        self.out = Outputs(self.spec, self.num_rows)
        self._slots = {agent: slot for slot, agent in enumerate(agents)}
        self._scratch: Tree = self.spec.observation.allocate(self.num_rows)
        self._masks = MaskReader(self.spec) if masks.in_observation(self.spec) else None
        if self._masks is not None:
            self._add_masks()
        self._running_return = np.zeros(self.num_rows)
        self._running_length = np.zeros(self.num_rows, np.int64)
        self._generators = Generators([env.unwrapped for env in envs])
        self._starts: list[dict[str, Any]] = [{}] * len(envs)
        self._played: list[list[Any]] = [[] for _ in envs]

    @property
    def native_pool(self) -> None:
        """Native code does not step these rows."""
        return

    @property
    def python_rows(self) -> None:
        """These rows are no Gymnasium environments in this process."""
        return

    @property
    def dropped(self) -> Bools:
        """No row is ever dropped."""
        return np.zeros(self.num_rows, np.bool_)

    def reset(self, seed: int | Sequence[int]) -> None:
        """Starts every environment anew, seeded as its first agent's row is."""
        everyone = np.ones(self.num_rows, np.bool_)
        self.restart(row_seeds(seed, self.num_rows), everyone, held=~everyone)

    def restart(
        self,
        seeds: Sequence[int | None],
        rows: Bools,
        *,
        held: Bools,
        options: dict[str, Any] | None = None,
    ) -> None:
        """Begins new episodes in all rows; ConfigError for a part of them, and for options."""
        if options:
            raise ConfigError(
                f"{self.spec.env_id}: environments of several agents take no options; backend='serial' takes {options}"
            )
        if not rows.all():
            raise ConfigError(
                f"{self.spec.env_id}: environments of several agents are reset all together"
            )
        self._in_flight.stop()
        self.out.clear()
        for number, own in enumerate(seeds[:: len(self.agents)]):
            self._begin(number, None if own is None else {"seed": own})
        self._show(range(len(self.envs)))
        self._ready()

    def send(self, rows: slice, action: Tree) -> None:
        """Notes the actions, of whole environments; the step itself happens in `recv`."""
        rows = self._in_flight.send(rows)
        try:
            if rows.start % len(self.agents) or rows.stop % len(self.agents):
                raise ValueError(
                    f"{self.spec.env_id}: rows {rows.start}..{rows.stop - 1} are no whole environments of "
                    f"{len(self.agents)} agents"
                )
            self._actions.append(self._action.copied(rows, action))
        except ValueError:
            self._in_flight.undo()
            raise

    def recv(self) -> Ready:
        """Steps the environments of the oldest send."""
        rows = self._in_flight.recv()
        if self._actions:
            try:
                self._step(rows, self._actions.pop(0))
            except BaseException:
                self._in_flight.stop(
                    "a step failed halfway; call reset(seed) or restore(state)"
                )
                self._actions.clear()
                raise
        return self.out.view(rows)

    def state(self) -> dict[str, Any]:
        """What each environment's episode began from, the actions since, and what the replay must come to."""
        self._in_flight.quiet()
        return {
            "starts": [spelled_out(start) for start in self._starts],
            "actions": [
                stacked(self.spec.action, [x for step in played for x in step])
                for played in self._played
            ],
            "obs": map_tree(np.copy, self.out.obs),
            "turn": self._turn.copy(),
            "returns": self._running_return.copy(),
            "lengths": self._running_length.copy(),
        }

    def restore(self, state: dict[str, Any]) -> list[str]:
        """Plays each environment's episode again; one that comes out different is cut as truncated and said so."""
        saved, here = map_tree(np.shape, state["obs"]), map_tree(np.shape, self.out.obs)
        if len(state["starts"]) != len(self.envs) or saved != here:
            raise ConfigError(
                f"{self.spec.env_id}: the saved state holds {len(state['starts'])} environments, rows of observations "
                f"{saved}; here are {len(self.envs)} with {here}"
            )
        self._in_flight.stop()
        self.out.clear()
        lost: list[str] = []
        for number in range(len(self.envs)):
            reason = self._replay(number, state)
            if reason:
                self._cut(number, state)
                rows = self._rows(number)
                named = f"rows {rows.start + self.first_row}..{rows.stop - 1 + self.first_row}"
                lost.append(
                    f"{self.spec.env_id}: {named} {reason}; its episode is cut as truncated"
                )
        self._ready()
        return lost

    def render(self, row: int) -> NDArray[np.uint8]:
        """What the environment of `row` renders, the same for all its agents; else as in SerialEnv."""
        if not self.capabilities.can_render:
            raise ConfigError(why_not_rendered(self.spec.env_id, self.envs[0]))
        return self.envs[row // len(self.agents)].render()

    def close(self) -> None:
        """Closes every environment."""
        envs, self.envs = self.envs, []
        self._in_flight.stop("the environment is closed")
        for env in envs:
            env.close()

    def groups(self) -> dict[str, list[int]]:
        """The rows of the agents with equal spaces, as a cast has them: each group by the name of its first agent."""
        worlds = range(len(self.games))
        return {
            name: [self._row(e, agent) for e in worlds for agent in own]
            for name, own in self._groups.items()
        }

    @property
    def _turn(self) -> Any:
        assert self.out.turn is not None
        return self.out.turn

    def _step(self, rows: slice, actions: Tree) -> None:
        out, count = self.out.view(rows), len(self.agents)
        out.reward[:] = 0
        out.terminated[:] = out.truncated[:] = out.valid[:] = False
        given = one_by_one(self.spec, actions)
        # An environment may change its action in place; what is kept for the replay stays as it was sent.
        kept = one_by_one(self.spec, map_tree(np.copy, actions))
        for first in range(0, rows.stop - rows.start, count):
            number = (rows.start + first) // count
            self._advance(number, given[first : first + count])
            self._played[number].append(kept[first : first + count])
        self._account(range(rows.start // count, rows.stop // count))

    def _advance(self, number: int, actions: list[Any]) -> None:
        where = self._where(number, len(self._played[number]) + 1)
        try:
            self.games[number].step(actions)
        except EnvError as error:
            raise EnvError(f"{where}: {error}") from None
        except Exception as error:
            error.add_note(f"shoal: raised by {where}, after the actions {actions}")
            raise

    def _account(self, numbers: range) -> None:
        """Hands over whose steps are complete and who left; begins anew where nobody is left."""
        out, steps = (
            self.out,
            [
                (number, *step)
                for number in numbers
                for step in self.games[number].rewards.items()
            ],
        )
        rows = np.array(
            [self._row(number, agent) for number, agent, _ in steps], np.int64
        )
        self._running_length[rows] += 1
        rewards = (
            read_rewards([reward for _, _, reward in steps]) if steps else np.zeros(0)
        )
        bad = (
            rewards
            if isinstance(rewards, int)
            else int(np.argmin(np.isfinite(rewards)))
            if steps
            else 0
        )
        if steps and (isinstance(rewards, int) or not np.isfinite(rewards[bad])):
            number, agent, reward = steps[bad]
            raise EnvError(
                f"{self._at(number, agent)} was given the reward {reward!r}; give a finite float"
            )
        out.valid[rows], out.reward[rows] = True, rewards
        self._running_return[rows] += rewards
        for number in numbers:
            for agent in self.games[number].left:
                self._end(number, agent)
            if not self.games[number].seen:
                self._begin(number, None)
        self._show(numbers)

    def _end(self, number: int, agent: str) -> None:
        """The agent's episode is over."""
        game, out, row = self.games[number], self.out, self._row(number, agent)
        (obs, *flags), where = game.left[agent], self._at(number, agent)
        terminated, truncated = read_flag(flags[0]), read_flag(flags[1])
        if terminated is None or truncated is None:
            raise EnvError(
                f"{where} was given the flags {flags}; terminated and truncated are bools"
            )
        if not self._reader.put(obs, out.final_obs, row):
            raise EnvError(f"{where} was given {self._reader.complaint(obs)}")
        bad = not_finite(
            self.spec.observation, take(out.final_obs, slice(row, row + 1))
        )
        if bad:
            raise EnvError(f"{where} was given the observation{bad[0].name} {bad[2]}")
        out.terminated[row], out.truncated[row] = terminated, truncated
        out.episode_return[row], out.episode_length[row] = (
            self._running_return[row],
            self._running_length[row],
        )
        for key, values in out.info.items():
            values[row] = read_info(game.infos.get(agent, {}), key, where)
        self._running_return[row] = self._running_length[row] = 0

    def _show(self, numbers: range) -> None:
        """What the agents see who act next, and which actions they may choose."""
        acting = [
            (number, *seen)
            for number in numbers
            for seen in self.games[number].seen.items()
        ]
        rows = np.array(
            [self._row(number, agent) for number, agent, _ in acting], np.int64
        )
        seen = [obs for _, _, obs in acting]
        block = take(self._scratch, slice(0, len(rows)))
        bad = self._reader.read(seen, block)
        if bad >= 0:
            raise EnvError(
                f"{self._at(*acting[bad][:2])} was given {self._reader.complaint(seen[bad])}"
            )
        wrong = not_finite(self.spec.observation, block)
        if wrong:
            leaf, bad, value = wrong
            raise EnvError(
                f"{self._at(*acting[bad][:2])} was given the observation{leaf.name} {value}"
            )
        assign(self.out.obs, rows, block)
        everyone = slice(self._rows(numbers[0]).start, self._rows(numbers[-1]).stop)
        self._turn[everyone] = False
        self._turn[rows] = True
        if self.out.action_mask is not None:
            self.out.action_mask[everyone] = True
        self._read_masks(acting, rows, block)

    def _begin(self, number: int, start: dict[str, Any] | None) -> None:
        """Resets an environment: as the start says ({"seed"} or {"generator"}), else from where its generator is."""
        game = self.games[number]
        if start is None:
            start = self._generators.start_of(number)
        elif "generator" in start:
            set_generator(self.envs[number].unwrapped, start["generator"])
        self._starts[number] = start
        where = self._where(number, 0)
        try:
            game.reset(**({} if "generator" in start else start))
        except EnvError as error:
            raise EnvError(f"{where}: {error}") from None
        except Exception as error:
            error.add_note(f"shoal: raised by {where}")
            raise
        if not game.seen:
            raise EnvError(f"{where} has no agents; `agents` lists those who act first")
        self._played[number] = []
        rows = self._rows(number)
        self._running_return[rows] = self._running_length[rows] = 0

    def _replay(self, number: int, state: dict[str, Any]) -> str:
        """Plays a saved episode again; returns why it is not the same, or nothing."""
        actions, rows, count = (
            state["actions"][number],
            self._rows(number),
            len(self.agents),
        )
        given = one_by_one(self.spec, map_tree(np.copy, actions))
        length = len(given) // count
        game, totals, own = (
            self.games[number],
            np.zeros(count),
            np.zeros(count, np.int64),
        )
        try:
            self._begin(number, state["starts"][number])
            for step in range(length):
                game.step(given[step * count : (step + 1) * count])
                if not game.seen:
                    return f"ended its episode after {step + 1} of the {length} saved steps"
                for slot, agent in enumerate(self.agents):
                    if agent in game.rewards:
                        totals[slot] = (
                            0
                            if agent in game.left
                            else totals[slot] + float(game.rewards[agent])
                        )
                        own[slot] = 0 if agent in game.left else own[slot] + 1
            self._show(range(number, number + 1))
        except Exception as error:
            return f"raised {type(error).__name__} ({error}) when its {length} steps were played again"
        turn = state["turn"][rows]
        here = [take(tree, rows) for tree in (self.out.obs, state["obs"])]
        same = map_tree(np.array_equal, *(select(tree, turn) for tree in here))
        alike = np.array_equal(turn, self._turn[rows]) and np.array_equal(
            totals, state["returns"][rows]
        )
        if not all(self.spec.observation.flat(same)) or not alike:
            return f"did not come back to its saved observations and returns after {length} steps"
        kept = one_by_one(self.spec, actions)
        self._played[number] = [
            kept[step * count : (step + 1) * count] for step in range(length)
        ]
        self._running_return[rows], self._running_length[rows] = totals, own
        return ""

    def _cut(self, number: int, state: dict[str, Any]) -> None:
        """The saved episode cannot go on: every agent's is truncated, and another begins."""
        out, rows = self.out, self._rows(number)
        self._begin(number, None)
        self._show(range(number, number + 1))
        out.truncated[rows] = True
        assign(out.final_obs, rows, take(state["obs"], rows))
        out.episode_return[rows], out.episode_length[rows] = (
            state["returns"][rows],
            state["lengths"][rows],
        )
        for values in out.info.values():
            values[rows] = np.nan

    def _read_masks(
        self, acting: list[tuple[int, str, Any]], rows: NDArray[np.int64], obs: Tree
    ) -> None:
        """What the agents may choose who act next; that infos hold masks is found out at the first reset."""
        infos: list[dict[str, Any]] = [
            self.games[number].infos.get(agent) or {} for number, agent, _ in acting
        ]
        if (
            self._masks is None
            and not self._in_flight.started
            and any(masks.KEY in info for info in infos)
        ):
            self._add_masks()
        reader, all_masks = self._masks, self.out.action_mask
        if reader is None or all_masks is None:
            return
        whole = masks.in_observation(self.spec)
        for first in range(1 if whole else len(rows)):
            part = slice(0, len(rows)) if whole else slice(first, first + 1)
            where = self._at(*acting[part.start][:2])
            if not whole and masks.KEY not in infos[first]:
                raise EnvError(
                    f"{where} was given no info[{masks.KEY!r}], though others were"
                )
            try:
                all_masks[rows[part]] = reader.read(
                    obs[masks.KEY] if whole else infos[first][masks.KEY],
                    len(rows[part]),
                )
            except ValueError as error:
                raise EnvError(f"{where} was given {error}") from None
        blocked = reader.blocked(all_masks[rows])
        if blocked >= 0:
            given = all_masks[rows[blocked]].astype(int)
            raise EnvError(
                f"{self._at(*acting[blocked][:2])} was given an {masks.KEY} without any option: {given}"
            )

    def _add_masks(self) -> None:
        self._masks = MaskReader(self.spec)
        self.spec = replace(self.spec, masked=True)
        self.out.add_masks(np.ones((self.num_rows, self._masks.size), np.bool_))

    def _ready(self) -> None:
        self._actions.clear()
        self._in_flight.begin()

    def _rows(self, number: int) -> slice:
        return slice(number * len(self.agents), (number + 1) * len(self.agents))

    def _row(self, number: int, agent: str) -> int:
        return number * len(self.agents) + self._slots[agent]

    def _where(self, number: int, step: int) -> str:
        """Names the environment and the step of its episode, 0 for the reset."""
        rows = self._rows(number)
        when = f"at step {step} of the episode" if step else "at the reset"
        return f"{self.spec.env_id}: rows {rows.start + self.first_row}..{rows.stop - 1 + self.first_row} {when}"

    def _at(self, number: int, agent: str) -> str:
        """Names an agent and the step of its episode."""
        row = self._row(number, agent)
        return f"{self.spec.env_id}: row {row + self.first_row} ({agent}) at step {self._running_length[row]}"
