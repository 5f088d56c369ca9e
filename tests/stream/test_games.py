"""Games of several players: each player's tokens and masks, rewards by player, opponents, and that nothing is lost."""

from __future__ import annotations

import os
import signal
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import torch
from torch.optim import SGD

from shoal.learn.learner import Learner
from shoal.learn.older import Age, Older
from shoal.llm.sampler.local import LocalSampler
from shoal.llm.sampler.protocol import Drawn, Sampling
from shoal.llm.scorers.pool import ScorerPool
from shoal.llm.tasks.game import GameError, Move, Position
from shoal.llm.tasks.opponents import own_move
from shoal.llm.tasks.play import GamePool
from shoal.llm.tasks.task import Prompt
from shoal.math.group_advantages import advantage_of
from shoal.stream.groups.games import Games
from shoal.stream.groups.groups import Groups
from shoal.stream.groups.process import ProcessSampler
from shoal.stream.groups.rival import Rival
from shoal.stream.groups.turns import turns_of
from shoal.types import ConfigError
from tests.llm.letters import Letters
from tests.llm.toy import toy_model
from tests.stream.test_conversations import Script, close
from tests.stream.test_groups import Drawn as Config
from tests.stream.test_groups import taken

if TYPE_CHECKING:
    from shoal.stream.groups.flight import Group
    from shoal.types import Answers


def never(prompt: object, answer: str) -> float:
    """No scorer is asked what a game says."""
    raise AssertionError(prompt, answer)


def stream(
    *,
    task: Any = None,
    pool: GamePool | None = None,
    max_staleness: int = 0,
    apart: bool = False,
    rival: Age | None = None,
    sampling: Sampling | None = None,
    lr: float = 0.0,
    **settings: Any,
) -> Groups:
    """Groups of the toy game."""
    task, model = task or Letters(), toy_model()
    cfg = Config(max_completion_length=30, sampling=sampling or Sampling(temperature=0.7), **settings)
    model.temperature = cfg.sampling.temperature
    drawing = cfg.sampling.drawing(cfg.max_completion_length)
    kind = ProcessSampler if apart else LocalSampler
    sampler = kind(model, drawing, slots=8, seed=1)
    learner, other = Learner(model, SGD, lr=lr), None
    if rival is not None:
        older = Older(learner, "opponent", rival)
        other = Rival(LocalSampler(older.module, drawing, slots=8, seed=1), older)
    turns = turns_of(task, model, sampler, cfg, pool=pool, rival=other)
    scorers = ScorerPool(lambda: never, workers=0)
    return Groups(task, sampler, scorers, learner, cfg, turns=turns, max_staleness=max_staleness)


def drawn(number: int, token: list[int], version: int, *, truncated: bool = False) -> Drawn:
    """A turn in the group 0; its log-probabilities count up."""
    n = len(token)
    logprob = -np.arange(1.0, n + 1, dtype=np.float32)
    return Drawn(0, number, np.array(token), logprob, np.full(n, version), truncated)


def scripted(max_tokens: int, **settings: Any) -> tuple[Games, Script, Group]:
    """Games of letters with a scripted model: two from the start 0, whose tokens are "a a ?" and "b a ?"."""
    from shoal.stream.groups.flight import Flight

    task, script = Letters(), Script()
    made: Any = script
    pool = GamePool(lambda: task, name=task.name, **settings)
    games = Games(task, toy_model(), made, pool, max_tokens=max_tokens, cuts=False, one_learns=bool(settings))
    group = Flight(1, 0).admit(games.ask(0), 2, 0, games.learners(0))
    games.begin([group], 2)
    return games, script, group


def test_the_turns_of_each_player_become_one_answer() -> None:
    """Worked by hand. Tokens: . 0, ? 1 (also line ends), a 2, b 3, c 4, d 5; game 1 has the answers 2 and 3."""
    games, script, group = scripted(20)
    assert group.told(2) == (2, 2, 1)
    assert group.told(3) == (3, 2, 1)
    groups = {0: group}
    assert games.poll(groups) == []
    assert [(one.numbers, one.prompt, one.begun) for one in script.asked] == [
        ((0,), (2, 2, 1), ((),)),
        ((2,), (2, 2, 1), ((),)),
    ]
    script.asked.clear()
    assert not games.take(group, drawn(2, [4, 0], 3))  # A says c
    games.poll(groups)
    assert script.asked[-1].begun == ((1, 4, 1),)  # B sees it before its first turn
    assert script.asked[-1].prompt == (3, 2, 1)
    assert not games.take(group, drawn(3, [5, 0], 4))
    games.poll(groups)
    assert script.asked[-1].begun == ((4, 0, 1, 5, 1),)  # A saw d
    games.take(group, drawn(2, [2, 0], 5))
    games.poll(groups)
    games.take(group, drawn(3, [2, 0], 6))
    assert games.poll(groups) == [(group, 2)]
    a, b = group.drawn[2], group.drawn[3]
    assert a.token.tolist() == [4, 0, 1, 5, 1, 2, 0]
    assert a.chosen.tolist() == [True, True, False, False, False, True, True]
    assert a.version.tolist() == [3, 3, 0, 0, 0, 5, 5]
    assert b.token.tolist() == [1, 4, 1, 5, 0, 1, 2, 1, 2, 0]
    assert b.chosen.tolist() == [False] * 3 + [True] * 2 + [False] * 3 + [True] * 2
    assert b.logprob.tolist() == [0, 0, 0, -1, -2, 0, 0, 0, -1, -2]
    assert group.reward == {2: -1.0, 3: 1.0}  # c + a < d + a
    assert not group.complete


def test_a_player_without_room_forfeits() -> None:
    """So does one whose turn is cut; who never spoke has nothing to learn from."""
    games, script, group = scripted(6)
    games.poll({0: group})
    assert games.take(group, drawn(0, [4] * 6, 0, truncated=True))
    assert group.reward[0] == -1.0
    assert group.drawn[0].truncated
    assert group.reward[1] == 0.0
    assert 1 not in group.drawn
    games.take(group, drawn(2, [4, 4, 0], 0))
    games.poll({0: group})
    games.take(group, drawn(3, [2, 0], 0))
    assert games.poll({0: group}) == [(group, 2)]  # three tokens, and three more to read, leave none
    assert (group.reward[2], group.reward[3]) == (-1.0, 0.0)
    assert group.drawn[2].truncated
    assert not group.drawn[3].truncated
    assert len(script.asked) == 3
    assert games.lost == 0


def test_a_player_that_can_never_speak_is_an_error() -> None:
    """The first thing that it reads fills its room."""
    games, _, group = scripted(3)
    games.poll({0: group})
    games.take(group, drawn(0, [4, 0], 0))
    with pytest.raises(ConfigError, match=r"player 1 of start 0 reads 3 tokens .* raise max_completion_length"):
        games.poll({0: group})


@pytest.fixture(scope="module")
def batches() -> list[Answers]:
    """Of a stream that is not disturbed."""
    return taken(stream(), 3)


def test_the_learner_sees_what_the_sampler_drew(batches: list[Answers]) -> None:
    """Each player has a prompt of its own; log-probabilities are the model's; baselines are those of the player."""
    model = toy_model()
    model.temperature = 0.7
    for batch in batches:
        assert batch.player is not None
        assert torch.equal(batch.prompt[batch.prompt_of, 0], batch.player + 2)
        with torch.no_grad():
            logprob = model(batch).logprob
        torch.testing.assert_close(logprob[batch.mask], batch.logprob[batch.mask], rtol=0, atol=1e-5)
        advantage = advantage_of("centered", batch.reward, batch.prompt_of)
        for place in range(len(batch.prompt)):
            own = batch.prompt_of == place
            assert len(set(batch.player[own].tolist())) == 1
            torch.testing.assert_close(advantage[own], batch.reward[own] - batch.reward[own].mean())
    second = batches[0].prompt[batches[0].prompt_of, 0] == 3
    assert not batches[0].mask[second][:, :3].any()  # what player 0 said
    assert batches[0].mask[second].any(1).all()


@pytest.mark.slow
def test_a_sampler_apart_draws_the_same(batches: list[Answers]) -> None:
    """Without staleness; also where it is killed in mid-game, and where games go on in a process of their own."""
    pool = GamePool(Letters, name="letters", workers=1)
    apart = stream(apart=True, pool=pool)
    try:
        sampler: Any = apart.gathering.sampler
        found = taken(apart, 1)
        sampler.load(apart.version, apart.model)
        apart.gathering.admit(apart._batches)
        games: Any = apart.gathering.turns
        while not any(match.moves for match in games._open.values()):
            apart.gathering.advance()
        os.kill(sampler.pid, signal.SIGKILL)
        found += taken(apart, 2)
    finally:
        apart.close()
    close(found, batches)


@pytest.mark.parametrize("where", ["game", "turn"])
def test_a_restored_stream_goes_on_in_mid_game(batches: list[Answers], where: str) -> None:
    """A move that was awaited is asked for again, a turn goes on at its token."""
    first = stream()
    found = taken(first, 1)
    gathering = first.gathering
    gathering.sampler.load(first.version, first.model)
    gathering.admit(first._batches)
    games: Any = gathering.turns
    gathering.advance()
    while not any(match.awaited == (where == "game") and match.moves for match in games._open.values()):
        gathering.take_drawn(1)
        if where == "turn":
            games.poll(gathering.flight.groups)
    saved = first.state()
    again = stream()
    again._learner.version = first.version
    again.restore(saved)
    other: Any = again.gathering.turns
    assert other._open.keys() == games._open.keys()
    close(found + taken(again, 2), batches)


def test_games_are_no_staler_than_allowed() -> None:
    """Every token of every turn."""
    later = taken(stream(max_staleness=2), 4)
    late = [number - int(batch.version[batch.mask].min()) for number, batch in enumerate(later)]
    assert max(late) <= 2
    assert any(row[mask].unique().numel() > 1 for b in later for row, mask in zip(b.version, b.mask, strict=True))


class Hostile(Letters):
    """It fails at some starts."""

    def position(self, prompt: Prompt, moves: tuple[Move, ...]) -> Position:
        """Raises in the first game's first reply, and gives other things."""
        if prompt.index % 4 == 1 and moves:
            raise OSError("the board is gone")
        if prompt.index % 4 == 3 and moves:
            return Position(rewards=(1.0, float("nan")))
        return super().position(prompt, moves)


def test_a_game_that_fails_is_called_off_and_counted() -> None:
    """It is said once, its place is taken by others; with another policy it ends the run."""
    told: list[str] = []
    task = Hostile()
    pool = GamePool(lambda: task, name=task.name, retries=0, tell=told.append)
    noisy = stream(task=task, pool=pool)
    batch = taken(noisy, 2)[-1]
    assert set((batch.prompt[:, 1] - 2).tolist()) <= {0, 2, 4, 6}
    games: Any = noisy.gathering.turns
    assert games.failed == games.lost >= 6  # who had moved first
    assert noisy.gathering.num_lost == games.lost
    assert noisy.replaced >= 2
    (said,) = told
    assert "letters: the game from start 1 failed after 1 moves: GameError" in said
    assert "the board is gone; it is called off" in said
    strict = GamePool(lambda: task, name=task.name, retries=0, on_failure="raise")
    with pytest.raises(GameError, match="from start 1 failed"):
        taken(stream(task=task, pool=strict), 1)


def test_against_an_opponent_one_player_learns() -> None:
    """Another one in each group; what the opponent said is read and not learned."""
    pool = GamePool(Letters, name="letters", make_opponent=lambda: own_move)
    batch = taken(stream(pool=pool), 1)[0]
    assert batch.prompt[:, 0].tolist() == [2, 3]
    assert batch.player is not None
    assert batch.player.tolist() == batch.prompt_of.tolist()
    assert not batch.mask[batch.player == 1][:, :3].any()
    assert (batch.token[batch.player == 1][:, 1] == 5).all()  # d


def test_against_older_weights_the_newest_learn() -> None:
    """A rival of one version ago at least begins with the first weights, and has those of a batch after two more."""
    found, first = stream(rival=Age(versions=1)), toy_model().head
    taken(found, 1)
    with torch.no_grad():
        for parameter in found.model.parameters():
            parameter.mul_(0.5)
    games: Any = found.gathering.turns
    rival = games._rival
    batch = taken(found, 2)[-1]
    seen = rival._weights.module.head
    assert torch.equal(seen, found.model.head)
    assert batch.player is not None
    assert set(batch.player.tolist()) == {0, 1}
    with torch.no_grad():
        logprob = found.model(batch).logprob
    torch.testing.assert_close(logprob[batch.mask], batch.logprob[batch.mask], rtol=0, atol=1e-5)
    assert not torch.equal(seen, first)


@pytest.mark.slow
def test_a_restored_game_against_older_weights_is_the_same() -> None:
    """Turns of both are kept to the token."""
    whole = taken(stream(rival=Age()), 3)
    first = stream(rival=Age())
    found = taken(first, 1)
    gathering = first.gathering
    gathering.sampler.load(first.version, first.model)
    gathering.admit(first._batches)
    games: Any = gathering.turns
    while not games._rival.pending:
        gathering.advance()
    saved = first.state()
    again = stream(rival=Age())
    again._learner.version = first.version
    again.restore(saved)
    close(found + taken(again, 2), whole)


def test_three_players() -> None:
    """Each has its own prompt and reward; kept sets arrive for what was drawn."""
    (batch,) = taken(stream(task=Letters(num_players=3), sampling=Sampling(top_k=4)), 1)
    assert batch.player is not None
    assert set(batch.player.tolist()) == {0, 1, 2}
    with torch.no_grad():
        logprob = toy_model()(batch).logprob
    torch.testing.assert_close(logprob[batch.mask], batch.logprob[batch.mask], rtol=0, atol=1e-5)
