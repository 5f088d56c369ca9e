"""Games: several players speak in turns, each player's turns are one answer, and the whole game is one episode."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from shoal.llm.sampler.protocol import Request
from shoal.llm.sampler.slots import NUMBERS
from shoal.llm.tasks.asked import prompt_of
from shoal.llm.tasks.game import Move, forfeited
from shoal.stream.groups.flight import Asked
from shoal.stream.groups.match import Match
from shoal.stream.groups.sides import Hearing
from shoal.types import ConfigError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from shoal.llm.model import LanguageModel
    from shoal.llm.sampler.protocol import Drawn, Sampler
    from shoal.llm.tasks.game import Game, Position
    from shoal.llm.tasks.play import GamePool, Played
    from shoal.stream.groups.flight import Group
    from shoal.stream.groups.rival import Rival

    Rewards = tuple[float, ...]


class Games:
    """Games from the starts of a task, on their way between samplers and the game itself."""

    def __init__(
        self,
        game: Game,
        model: LanguageModel,
        sampler: Sampler,
        pool: GamePool,
        *,
        max_tokens: int,
        cuts: bool,
        one_learns: bool = False,
        rival: Rival | None = None,
    ) -> None:
        """None is under way.

        Args:
            game: the task.
            model: its tokenizer, and the most that it reads.
            sampler: draws the turns of the players that learn.
            pool: says what follows a move, and makes the moves of players that no model plays; closed with this.
            max_tokens: of what one player says and sees in a game.
            cuts: whether some tokens cannot be drawn, so that the sets of those that can are kept.
            one_learns: whether one player learns, another one in each group; else all do.
            rival: draws the turns of the others, closed with this; None: no model does.
        """
        self.failed = self.lost = 0
        """Games that were called off; and what their learning players had said."""
        self.rule_breaks = [0] * game.num_players
        """Games that ended with a move against the rules, by the player that made it."""
        self._game, self._decode = game, model.tokenizer.decode
        self._hearing = Hearing(game, model, max_tokens=max_tokens, cuts=cuts)
        self._sampler, self._rival, self._pool = sampler, rival, pool
        self._one_learns = one_learns
        self._open: dict[tuple[int, int], Match] = {}

    @property
    def pending(self) -> int:
        """Moves that are awaited from others than the sampler."""
        rival = 0 if self._rival is None else self._rival.pending
        return self._pool.pending + rival

    def ask(self, index: int) -> Asked:
        """A start by its number, and what each player is told there, in tokens."""
        prompt = prompt_of(self._game, index)
        token = self._hearing.told(prompt)
        return Asked(prompt, token[0], tuple(token[1:]))

    def learners(self, key: int) -> tuple[int, ...]:
        """The players that learn in a group."""
        players = self._game.num_players
        return (key % players,) if self._one_learns else tuple(range(players))

    def begin(self, groups: Sequence[Group], count: int) -> None:
        """Begins so many games from the start of each group."""
        players = self._game.num_players
        if count * players > NUMBERS:
            raise ConfigError(
                f"num_generations={count}: of a game of {players} players, {NUMBERS // players} are possible"
            )
        for group in groups:
            for number in range(count):
                self._ask(group, number, Match((), {}, awaited=True))

    def take(self, group: Group, drawn: Drawn) -> bool:
        """Takes in a turn that a sampler has finished; whether the game is over with it."""
        number, player = divmod(drawn.number, group.num_players)
        match = self._open[group.key, number]
        text = self._decode(drawn.token.tolist())
        match.sides[player] = match.sides[player].speak(drawn, text)
        if drawn.truncated:
            self._finish(group, number, forfeited(self._game, player))
            return True
        match.moves = *match.moves, Move(player, text)
        self._ask(group, number, match)
        return False

    def poll(
        self, groups: Mapping[int, Group], block_s: float = 0.0
    ) -> list[tuple[Group, int]]:
        """Has models move where it is their turn; an answer of each game that is over, by group and number.

        Args:
            groups: those in flight, by key.
            block_s: how long to wait for a first move.
        """
        over: list[tuple[Group, int]] = []
        requests: list[Request] = []
        for_rival: list[Request] = []
        for played in self._pool.poll(block_s):
            key, number = divmod(played.key, NUMBERS)
            group = groups[key]
            asked = self._go_on(group, number, played)
            if asked is None:
                over.append(_any_of(group, number))
            elif asked.numbers[0] % group.num_players in group.learners:
                requests.append(asked)
            else:
                for_rival.append(asked)
        if requests:
            self._sampler.submit(requests)
        return over + self._hear(for_rival, groups, block_s)

    def follow(self) -> None:
        """Called after each published version: the rival may take other weights."""
        if self._rival is not None:
            self._rival.follow()

    def state(self) -> dict[str, Any]:
        """All that `restore` needs; what the learning model draws is in its sampler's state."""
        return {
            "failed": self.failed,
            "lost": self.lost,
            "rule_breaks": list(self.rule_breaks),
            "rival": None if self._rival is None else self._rival.state(),
            "open": [match.state(*key) for key, match in self._open.items()],
        }

    def restore(self, state: Mapping[str, Any], groups: Mapping[int, Group]) -> None:
        """Continues; moves that were awaited are asked for again."""
        self.failed, self.lost = int(state["failed"]), int(state["lost"])
        self.rule_breaks = [int(count) for count in state["rule_breaks"]]
        if self._rival is not None:
            self._rival.restore(state["rival"])
        self._open.clear()
        for saved in state["open"]:
            key, number = int(saved["key"]), int(saved["number"])
            match = Match.of_state(saved)
            self._open[key, number] = match
            if match.awaited:
                self._ask(groups[key], number, match)

    def close(self) -> None:
        """Ends the game's processes, and the rival."""
        self._pool.close()
        if self._rival is not None:
            self._rival.close()

    def _ask(self, group: Group, number: int, match: Match) -> None:
        """Has the game say what follows."""
        match.awaited = True
        self._open[group.key, number] = match
        everybody = frozenset(range(group.num_players))
        models = frozenset(group.learners) if self._rival is None else everybody
        key = group.key * NUMBERS + number
        self._pool.submit(key, group.prompt, match.moves, models)

    def _go_on(self, group: Group, number: int, played: Played) -> Request | None:
        """What a model is asked where it is its turn; None where the game is over."""
        match, position = self._open[group.key, number], played.position
        match.moves = played.moves
        if position is None:
            self.failed += 1
            self._finish(group, number, None)
        elif position.rewards is not None:
            if position.broke_rules is not None:
                self.rule_breaks[position.broke_rules] += 1
            self._finish(group, number, position.rewards)
        else:
            return self._turn(group, number, match, position)
        return None

    def _turn(
        self, group: Group, number: int, match: Match, position: Position
    ) -> Request | None:
        """What the player to move is asked; None where it has no room left and forfeits the game."""
        player, prompt, shown = position.player, group.prompt, position.shown
        answer = number * group.num_players + player
        told, side = group.told(answer), match.sides.get(player)
        if side is None:
            empty = self._hearing.nothing(group.key, answer)
            now = self._hearing.first(prompt, player, shown, empty, len(told))
        else:
            now = self._hearing.later(prompt, player, shown, side, len(told))
        if now is None:
            match.sides[player] = match.sides[player].cut()
            self._finish(group, number, forfeited(self._game, player))
            return None
        match.sides[player], match.awaited = now, False
        return Request(group.key, told, (answer,), (tuple(now.said.token.tolist()),))

    def _hear(
        self, requests: list[Request], groups: Mapping[int, Group], block_s: float
    ) -> list[tuple[Group, int]]:
        """Takes in the turns of the rival; an answer of each game that is over with one of them."""
        if self._rival is None:
            return []
        over: list[tuple[Group, int]] = []
        wait = block_s > 0 and not self._pool.pending
        for one in self._rival.hear(requests, wait=wait):
            group = groups[one.key]
            if self.take(group, one):
                over.append(_any_of(group, one.number // group.num_players))
        return over

    def _finish(self, group: Group, number: int, rewards: Rewards | None) -> None:
        """Gives what the learning players said and earned to the group; None: the game is called off."""
        match = self._open.pop((group.key, number))
        self.lost += match.end(group, number, rewards)


def _any_of(group: Group, number: int) -> tuple[Group, int]:
    """An answer of a game, by its group and number."""
    return group, number * group.num_players + group.learners[0]
