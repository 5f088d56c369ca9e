"""Games of several players: what they must be, opponents, and the ones that come with shoal."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest

from shoal.llm.opening import first_tokens, told_tokens
from shoal.llm.tasks.game import Game, GameError, Move, Position, forfeited, is_game, position_of, turns_of
from shoal.llm.tasks.nim import Nim
from shoal.llm.tasks.opponents import evaluating, make_opponent, own_move
from shoal.llm.tasks.play import GamePool, play_on
from shoal.llm.tasks.registry import make_task
from shoal.llm.tasks.served import ServedOpponent
from shoal.llm.tasks.task import Message, Prompt
from shoal.types import ConfigError
from tests.llm.letters import Letters
from tests.llm.models import make_tokenizer
from tests.llm.scorers.test_judge import Server, completion, server

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["server"]


def moves(*texts: str) -> tuple[Move, ...]:
    """Two players in turn."""
    return tuple(Move(number % 2, text) for number, text in enumerate(texts))


def test_who_leaves_a_multiple_of_four_wins_nim() -> None:
    """Both play as well as they can; what is no move loses at once."""
    game = Nim()
    assert isinstance(game, Game)
    assert is_game(game)
    for index in range(20):
        prompt = game.prompt(index)
        _, ended = play_on(game, prompt, (), frozenset(), own_move)
        assert ended.rewards == ((-1.0, 1.0) if prompt.truth % 4 == 0 else (1.0, -1.0))
    seven = Prompt(0, "", 7)
    assert game.position(seven, moves("3")) == Position(1, "4 left: ")
    assert game.legal(seven, moves("3", "2")) == ["1", "2"]
    assert game.opponent(seven, ()) == "3"
    for wrong in ("4", "0", "", "-1", "three", "²"):
        assert game.position(seven, moves("1", wrong)) == Position(rewards=(1.0, -1.0), broke_rules=1)
    assert [game.told(seven, player) for player in (0, 1)] == ["A 7 stones: ", "B 7 stones: "]
    assert forfeited(game, 1) == (0.0, -1.0)


def test_a_game_as_a_conversation_of_one_player() -> None:
    """What it saw, and what it said."""
    game, prompt = Letters(), Letters().prompt(0)
    found = turns_of(game, prompt, moves("c", "d", "a"), 1)
    assert [(turn.role, turn.content) for turn in found] == [("user", "c"), ("assistant", "d"), ("user", "a")]


@pytest.mark.parametrize(
    ("position", "says"),
    [
        (lambda: 3, "position gave a int"),
        (lambda: 1 / 0, "ZeroDivisionError"),
        (lambda: Position(2), "the turn of player 2, and there are 2"),
        (lambda: Position(0, "\ud800"), "must be a text"),
        (lambda: Position(0, "x" * 200_000), "at most 100,000 characters"),
        (lambda: Position(rewards=(1.0,)), "2 finite numbers"),
        (
            lambda: Position(rewards=(1.0, float("inf"))),
            r"finite numbers, one for each player, of at most .* got \(1.0, inf",
        ),
    ],
)
def test_positions_that_are_none(position: Callable[[], Any], says: str) -> None:
    """Which game, start and move it was."""
    game = Letters()
    game.position = lambda prompt, moves: position()
    with pytest.raises(GameError, match=rf"letters: move 1 of the game from start 5.*{says}"):
        position_of(game, game.prompt(5), moves("a"))


def test_things_that_are_no_games() -> None:
    """Half a game is an error, no game is none."""
    assert not is_game(object())
    for changed, says in (
        ({"num_players": 1}, "num_players, from 2 to 64"),
        ({"max_turns": 0}, "max_turns, at least 1"),
        ({"reply": print}, "leave one of them out"),
    ):
        game: Any = Letters()
        for name, value in changed.items():
            setattr(game, name, value)
        with pytest.raises(ConfigError, match=says):
            is_game(game)


def speak(prompt: Prompt, turns: tuple[Message, ...]) -> str:
    """A player that repeats what it saw."""
    return turns[-1].content if turns else "a"


def hush(prompt: Prompt, turns: tuple[Message, ...]) -> Any:
    """A player that says nothing."""


def test_opponents_by_name() -> None:
    """A function, the game's own, and names that are none."""
    game, prompt = Letters(), Letters().prompt(0)
    speaker = make_opponent(f"{__name__}:speak", game)
    assert speaker(game, prompt, moves("c")) == "c"
    with pytest.raises(GameError, match="plays player 0 gave a NoneType"):
        play_on(game, prompt, (), frozenset([1]), make_opponent(f"{__name__}:hush", game))
    for name, says in (
        (f"{__name__}:NEVER", "NEVER"),
        ("http://127.0.0.1:1/v1", "names a server and no model"),
        ("http://example.com/v1#m", "unencrypted"),
    ):
        with pytest.raises((ConfigError, AttributeError), match=says):
            make_opponent(name, game)
    plain: Any = Nim()
    plain.opponent = None
    with pytest.raises(ConfigError, match="has none of its own"):
        make_opponent("task", plain)
    assert evaluating("self", "auto", game) == "task"
    assert evaluating("self", "auto", plain) == ""
    assert evaluating("version:-3", "auto", plain) == ""
    assert evaluating("a.b:c", "auto", game) == "a.b:c"
    assert evaluating("a.b:c", "self", game) == ""
    with pytest.raises(ConfigError, match="can be compared"):
        evaluating("self", "version:-3", game)


def test_an_opponent_behind_a_server(server: Server) -> None:
    """It is told what a player is; turns of one role that follow each other are one."""
    server.reply = lambda _: (200, completion("d"))
    opponent = ServedOpponent.of_name(f"{server.url}#some-model")
    game = Letters()
    pool = GamePool(Letters, name="letters", make_opponent=lambda: opponent, retries=0)
    for key in range(3):
        pool.submit(key, game.prompt(key), moves("c"), frozenset([0]))
    played = pool.poll()
    assert [one.moves[1:] for one in played] == [(Move(1, "d"),)] * 3
    assert server.asked[0]["model"] == "some-model"
    said = [one["messages"] for one in server.asked]
    assert [{"role": "user", "content": "ba?\n\nc"}] in said
    server.reply = lambda _: (200, b"<html>")
    pool.submit(7, game.prompt(0), moves("c"), frozenset([0]))
    (failed,) = pool.poll()
    assert failed.position is None
    assert failed.failure is not None
    assert "the reply is no chat completion" in failed.failure


def test_what_a_player_is_told_in_a_chat() -> None:
    """The template's text is cut where what is told ends: the same tokens begin every game of a start."""
    tokenizer = make_tokenizer()
    tokenizer.chat_template = "{% for m in messages %}<{{ m.role }}>{{ m.content }}</>{% endfor %}<assistant>"
    chat = (Message("system", "play"), Message("user", "rules \n"))
    told = told_tokens(tokenizer, chat, "player 0")
    assert tokenizer.decode(told) == "<system>play</><user>rules"
    assert tokenizer.decode(first_tokens(tokenizer, chat, "", "player 0")) == "</><assistant>"
    seen = first_tokens(tokenizer, chat, " a move ", "player 0")
    assert tokenizer.decode(seen) == "\n\na move</><assistant>"
    tokenizer.chats = True
    assert tokenizer.decode(told_tokens(tokenizer, "rules", "player 0")) == "<user>rules"
    with pytest.raises(ConfigError, match="the last one's is 'system'"):
        told_tokens(tokenizer, chat[:1], "player 0")
    tokenizer.chat_template = "{% for m in messages %}{{ m.content | upper }}{% endfor %}"
    with pytest.raises(ConfigError, match="leaves out what a user says, or changes it"):
        told_tokens(tokenizer, chat, "player 0")


@pytest.mark.filterwarnings("ignore")
def test_games_of_textarena() -> None:
    """Each player sees its side; a seed gives one game; a move against the rules is said, and then loses."""
    pytest.importorskip("textarena")
    game: Any = make_task("textarena:TicTacToe-v0", seed=2)
    assert is_game(game)
    prompt = game.prompt(0)
    assert "As Player 0, you will be 'O'" in prompt.question
    assert "As Player 1, you will be 'X'" in game.told(prompt, 1)
    first = position_of(game, prompt, ())
    assert (first.player, first.shown) == (0, "")
    second = position_of(game, prompt, moves("[4]"))
    assert second.player == 1
    assert second.shown.startswith("[Player 0] [4]\nPlayer 0 placed their symbol (O) in cell 4.")
    again = position_of(game, prompt, (*moves("[4]"), Move(1, "hm")))
    assert again.player == 1
    assert again.shown.startswith("Player 1 attempted an invalid move.")
    lost = position_of(game, prompt, (*moves("[4]"), Move(1, "hm"), Move(1, "hm")))
    assert lost == Position(rewards=(1.0, -1.0), broke_rules=1)
    won = moves("[4]", "[0]", "[2]", "[1]", "[6]")
    assert position_of(game, prompt, won).rewards == (1.0, -1.0)
    with pytest.raises(GameError, match="it was the turn of player 0, and 1 moved"):
        position_of(game, prompt, (Move(1, "[0]"),))
    deal = make_task("textarena:KuhnPoker-v0", seed=3)
    assert is_game(deal)
    hands = {deal.prompt(index).question for index in range(20)}
    assert len(hands) == 3
    assert deal.prompt(5) == deal.prompt(5)
    for kwargs, says in (
        ({"num_players": 3}, "with num_players=3 does not begin"),
        ({"num_players": 1}, "with num_players=1 does not begin"),
        ({"turns": 3}, "it takes"),
    ):
        with pytest.raises(ConfigError, match=says):
            make_task("textarena:TicTacToe-v0", kwargs=kwargs)


def test_unfinished_games() -> None:
    """A player that has had all its turns ends the game."""
    game, prompt = Letters(), Letters().prompt(0)
    game.position = lambda prompt, moves: Position(0, "again")
    ended = position_of(game, prompt, tuple(Move(0, "a") for _ in range(2)))
    assert ended == replace(Position(), rewards=(0.0, 0.0))
