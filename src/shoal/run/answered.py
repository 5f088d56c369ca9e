"""Evaluation of a language model: its most probable answers to a task's prompts."""

from __future__ import annotations

from contextlib import closing
from typing import TYPE_CHECKING, cast

import numpy as np

from shoal.llm.sampler.local import LocalSampler
from shoal.llm.sampler.protocol import Drawing, Request
from shoal.llm.scorers.score import ScorerError
from shoal.llm.tasks.asked import prompt_of
from shoal.llm.tasks.game import GameError
from shoal.llm.tasks.opponents import evaluating
from shoal.stream.groups.conversations import Conversations
from shoal.stream.groups.flight import Group
from shoal.stream.groups.games import Games

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from shoal.llm.model import LanguageModel
    from shoal.llm.scorers.pool import ScorerPool
    from shoal.llm.tasks.game import Game
    from shoal.llm.tasks.source import TaskSource
    from shoal.llm.tasks.task import Dialogue
    from shoal.types import Floats

STEPS = 16
"""Tokens of each answer that are drawn at a time."""
BLOCK_S = 0.1
"""Seconds that it waits for replies, or for scores, at a time."""


def answered(
    model: LanguageModel,
    source: TaskSource,
    *,
    episodes: int,
    seed: int,
    between: Callable[[], None],
    temperature: float = 0.0,
) -> tuple[Floats, Floats]:
    """Rewards and numbers of tokens [episodes] of one answer to each of the task's first prompts.

    In a task of several turns an answer is a whole conversation, replies included. An answer that nothing judged is
    left out. `between` is called again and again between tokens.

    Raises:
        ScorerError: an answer could not be judged, where the run's settings have that as an error; or none could.
    """
    task = source.task
    drawing = Drawing(source.max_tokens, temperature, stop=source.stop)
    slots = min(source.language.slots, episodes)
    sampler = LocalSampler(model, drawing, slots=slots, seed=seed)
    if source.spec.num_players > 1:
        return played(model, source, sampler, episodes=episodes, between=between)
    tokenizer = model.tokenizer
    groups: dict[int, Group] = {}
    for number in range(episodes):
        prompt = prompt_of(task, number)
        token = tuple(tokenizer.encode_prompt(prompt))
        groups[number] = Group(number, prompt, token, since=0, wanted=1)
    sampler.submit([Request(one.key, one.token, (0,)) for one in groups.values()])
    replies, conversations = source.reply_pool(), None
    if replies is not None:
        conversations = Conversations(
            cast("Dialogue", task),
            model,
            sampler,
            replies,
            max_tokens=source.max_tokens,
        )
    try:
        with source.judges() as judges:
            finished = _finished(sampler, conversations, groups, between)
            rewards = _judged(model, judges, finished, between)
    finally:
        if conversations is not None:
            conversations.close()
    lengths = [len(group.drawn[0].token) for group in groups.values()]
    known = rewards == rewards
    return rewards[known], np.array(lengths, float)[known]


def _judged(
    model: LanguageModel,
    judges: ScorerPool,
    finished: Iterator[Group],
    between: Callable[[], None],
) -> Floats:
    """What the answers have earned, by the keys of their groups; NaN where nothing judged one, and it is left out.

    Raises:
        ScorerError: an answer could not be judged, and that is an error; or none could.
    """
    rewards: dict[int, float] = {}
    failure = ""
    for group in finished:
        text = group.text.get(0)
        if text is None:
            text = model.tokenizer.decode(group.drawn[0].token.tolist())
        judges.submit(group.key, group.prompt, text)
    while judges.pending:
        between()
        for one in judges.poll(BLOCK_S):
            failure = failure or one.failure or ""
            rewards[one.key] = np.nan if one.reward is None else one.reward
    found = np.array([rewards[key] for key in sorted(rewards)])
    if np.isnan(found).all():
        raise ScorerError(f"none of {len(found)} answers was judged: {failure}", 0)
    return found


def played(
    model: LanguageModel,
    source: TaskSource,
    sampler: LocalSampler,
    *,
    episodes: int,
    between: Callable[[], None],
) -> tuple[Floats, Floats]:
    """Rewards and numbers of tokens of one game from each of the first starts, those apart that were called off.

    Against an opponent the model plays each of the players in turn; else it plays all, and their mean counts.

    Raises:
        GameError: none came to its end.
    """
    game, language = cast("Game", source.task), source.language
    name = evaluating(language.opponent, language.eval_opponent, game)
    pool = source.game_pool(name)
    assert pool is not None
    games = Games(
        game,
        model,
        sampler,
        pool,
        max_tokens=source.max_tokens,
        cuts=False,
        one_learns=bool(name),
    )
    groups: dict[int, Group] = {}
    for key in range(episodes):
        asked, learners = games.ask(key), games.learners(key)
        group = Group(key, asked.prompt, asked.token, since=0, wanted=len(learners))
        group.others, group.learners = asked.others, learners
        groups[key] = group
    with closing(games):
        games.begin(list(groups.values()), 1)
        for _ in _finished(sampler, games, groups, between):
            pass
    ended = [group for group in groups.values() if group.num_episodes]
    if not ended:
        raise GameError(f"{game.name}: none of {episodes} games came to its end")
    known = [[x for x in group.reward.values() if x == x] for group in ended]
    tokens = [[len(one.token) for one in group.drawn.values()] for group in ended]
    returns = [sum(rewards) / len(rewards) for rewards in known]
    return np.array(returns), np.array([float(sum(parts)) for parts in tokens])


def _finished(
    sampler: LocalSampler,
    turns: Conversations | Games | None,
    groups: dict[int, Group],
    between: Callable[[], None],
) -> Iterator[Group]:
    """Each group when its answer is finished."""
    while sampler.pending or (turns is not None and turns.pending):
        between()
        for drawn in sampler.poll(STEPS):
            group = groups[drawn.key]
            if turns is None:
                group.drawn[drawn.number] = drawn
                yield group
            elif turns.take(group, drawn):
                yield group
        if turns is not None and turns.pending:
            block_s = 0.0 if sampler.pending else BLOCK_S
            for group, _ in turns.poll(groups, block_s):
                yield group
