"""`tiny` for a game: a small model that knows what a move is, as it was shown games of moves drawn at random."""

from __future__ import annotations

import hashlib
import json
import time
from dataclasses import asdict, dataclass
from random import Random
from typing import TYPE_CHECKING

import torch

from shoal.llm.between import reply_tokens
from shoal.llm.model import LanguageModel
from shoal.llm.opening import first_tokens, told_tokens
from shoal.llm.pieces import make_tokenizer
from shoal.llm.pretraining import Example, Learning, answers_to, one_thread
from shoal.llm.tasks.game import Move, position_of, told_of
from shoal.llm.tasks.task import Message, Prompt
from shoal.llm.tiny_settings import architecture_of
from shoal.types import ConfigError

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from shoal.llm.tasks.game import Game
    from shoal.llm.tiny_settings import Tiny
    from shoal.llm.tokenizer import Tokenizer

RECIPE = 2
"""Counted up when equal settings come to give another model."""
FIRST, HELD_OUT = 2**24, 2**25
"""Numbers of the first start that the model is shown and of the first that it is measured on; runs ask from 0 on."""
GAMES = 2048
"""Games that it is shown, again and again."""
MEASURED = 256
"""Positions of a measurement."""
LEGAL = 0.97
"""The share of its moves that are by the rules at which it has seen enough."""


@dataclass(frozen=True, slots=True)
class Seen:
    """A game as one of its players has it: what it was told, saw first, and then its turns and what came between."""

    prompt: Prompt
    told: str
    first: str
    turns: tuple[Message, ...]
    """The last one is the player's."""
    legal: tuple[str, ...]
    """What it could have said there."""


def make_tiny_game(
    game: Game, settings: Tiny, report: Callable[[str], None]
) -> LanguageModel:
    """Trains the model, without a look at the cache.

    Raises:
        ConfigError: the game has no `legal`, or speaks in chats.
    """
    shown = settings.pretraining
    sides = [side for i in range(GAMES) for side in drawn_game(game, FIRST + i)]
    held = [side for i in range(MEASURED) for side in drawn_game(game, HELD_OUT + i)]
    few = sides[:512]
    texts = [side.told for side in few]
    texts += [turn.content for side in few for turn in side.turns]
    texts += [side.first for side in few]
    tokenizer = make_tokenizer(texts)
    examples = [example_of(tokenizer, side) for side in sides]
    measure = _Legality(game, tokenizer, held[:MEASURED])
    generator = torch.Generator().manual_seed(settings.seed)
    began = time.monotonic()
    with one_thread(), torch.random.fork_rng(devices=[]):
        torch.manual_seed(settings.seed)
        model = LanguageModel(architecture_of(settings, tokenizer), tokenizer)
        learning = Learning(model, shown, generator)
        order, legal, done = learning.draw(examples), 0.0, 0
        while done < shown.updates and legal < LEGAL:
            left = 1 - done / shown.updates
            learning.update(next(order), shown.learning_rate * max(0.1, left))
            done += 1
            if done % shown.every == 0 or done == shown.updates:
                legal = measure(model)
                passed = time.monotonic() - began
                report(
                    f"pre-training of tiny on {game.name}: {done} updates, {legal:.0%} of its moves by the rules, "
                    f"{passed:.0f} s"
                )
    report(f"tiny moves by the rules of {game.name} in {legal:.0%}, at random")
    return model


def drawn_game(game: Game, start: int) -> list[Seen]:
    """A game of random moves from a start, as each player has it that moved."""
    prompt, rng = game.prompt(start), Random(f"shoal:{start}")
    moves: tuple[Move, ...] = ()
    sides: dict[int, Seen] = {}
    while (position := position_of(game, prompt, moves)).rewards is None:
        player, legal = position.player, _legal(game, prompt, moves)
        text = rng.choice(legal)
        side = sides.get(player)
        if side is None:
            told = told_of(game, prompt, player)
            if not isinstance(told, str):
                raise ConfigError(
                    f"the model tiny has no chat template, and {game.name} speaks in chats; let it tell plain text"
                )
            side = Seen(prompt, told, position.shown, (), ())
            turns: tuple[Message, ...] = ()
        else:
            turns = *side.turns, Message("user", position.shown)
        turns = *turns, Message("assistant", text)
        sides[player] = Seen(prompt, side.told, side.first, turns, tuple(legal))
        moves = *moves, Move(player, text)
    return list(sides.values())


def example_of(tokenizer: Tokenizer, side: Seen) -> Example:
    """A side as a model reads and says it, in tokens."""
    told = told_tokens(tokenizer, side.told, "tiny")
    return Example(told, tuple(_said(tokenizer, side, len(side.turns))))


def key_of(game: Game, settings: Tiny) -> str:
    """A hash of what decides the model: the recipe, its settings, and games of random moves."""
    starts = [*range(FIRST, FIRST + 64), *range(HELD_OUT, HELD_OUT + 64)]
    sides = [side for start in starts for side in drawn_game(game, start)]
    content = {
        "recipe": RECIPE,
        "settings": asdict(settings),
        "game": game.name,
        "told": [[side.told, side.first] for side in sides],
        "turns": [[turn.content for turn in side.turns] for side in sides],
    }
    text = json.dumps(content, sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:24]


class _Legality:
    """The share of a model's last moves in some games that are by the rules."""

    def __init__(self, game: Game, tokenizer: Tokenizer, sides: Sequence[Seen]) -> None:
        self._sides = sides
        self._prompts = [
            (
                *told_tokens(tokenizer, side.told, game.name),
                *_said(tokenizer, side, len(side.turns) - 1),
            )
            for side in sides
        ]
        moves = [text for side in sides for text in side.legal]
        self._most = 1 + max(len(tokenizer.encode(text)) for text in moves)
        self._generator = torch.Generator().manual_seed(0)

    def __call__(self, model: LanguageModel) -> float:
        answers = answers_to(model, self._prompts, self._most, self._generator)
        texts = [model.tokenizer.decode(answer) for answer in answers]
        pairs = zip(texts, self._sides, strict=True)
        return sum(text in side.legal for text, side in pairs) / len(self._sides)


def _said(tokenizer: Tokenizer, side: Seen, count: int) -> list[int]:
    """The tokens from the start of a player's first turn on, over so many turns, replies counted."""
    tokens = first_tokens(tokenizer, side.told, side.first, "tiny")
    for number, turn in enumerate(side.turns[:count]):
        if turn.role == "assistant":
            tokens += [*tokenizer.encode(turn.content), tokenizer.end[0]]
        else:
            asked, turns = Prompt(0, side.told), side.turns[: number + 1]
            tokens += reply_tokens(tokenizer, asked, turns, tokens[-1])
    return tokens


def _legal(game: Game, prompt: Prompt, moves: tuple[Move, ...]) -> list[str]:
    legal: Callable[[Prompt, tuple[Move, ...]], list[str]] | None = getattr(
        game, "legal", None
    )
    if legal is None:
        raise ConfigError(
            f"the model tiny learns what a move is from moves by the rules, and {game.name} names none "
            "(legal(prompt, moves) -> list[str]); take another model"
        )
    return legal(prompt, moves)
