"""The stream of groups: who is admitted when, how late they are learned from, and that nothing is lost."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import torch
from torch.optim import SGD

from shoal.learn.learner import Learner
from shoal.llm.sampler.local import LocalSampler
from shoal.llm.sampler.protocol import Sampling
from shoal.llm.scorers.pool import ScorerPool
from shoal.stream.groups.groups import Groups
from shoal.stream.groups.settings import DrawsGroups
from shoal.types import ConfigError
from tests.llm.toy import Successor, toy_model

if TYPE_CHECKING:
    from shoal.llm.tasks.task import Prompt
    from shoal.types import Answers


@dataclass(frozen=True, slots=True)
class Drawn(DrawsGroups):
    """What decides how groups come to be."""

    num_prompts: int = 2
    num_generations: int = 3
    max_completion_length: int = 5
    sampling: Sampling = field(default_factory=Sampling)
    dynamic_sampling: bool = False


class Flat(Successor):
    """A task that pays the same for everything at odd prompts."""

    def score(self, prompt: Prompt, answer: str) -> float:
        """The number of letters at even prompts."""
        return float(len(answer)) if prompt.index % 2 == 0 else 1.0


def groups(cfg: Any = None, *, task: Any = None, max_staleness: int = 0, slots: int = 4) -> Groups:
    """A stream of the toy task."""
    cfg, task, model = cfg or Drawn(), task or Successor(), toy_model()
    learner = Learner(model, SGD, lr=0.0)
    sampler = LocalSampler(model, cfg.sampling.drawing(cfg.max_completion_length), slots=slots, seed=1)
    scorers = ScorerPool(lambda: task.score, workers=0)
    return Groups(task, sampler, scorers, learner, cfg, max_staleness=max_staleness)


def taken(stream: Groups, count: int) -> list[Answers]:
    """So many batches, each published."""
    found: list[Answers] = []
    for _ in range(count):
        found.append(next(stream))
        stream.publish()
    return found


def same(a: Answers, b: Answers) -> bool:
    """Whether two batches have the same tokens, log-probabilities, versions and rewards."""
    pairs = [(a.prompt, b.prompt), (a.token, b.token), (a.mask, b.mask), (a.logprob, b.logprob)]
    pairs += [(a.version, b.version), (a.reward, b.reward), (a.truncated, b.truncated)]
    return all(torch.equal(x, y) for x, y in pairs)


def test_a_batch_holds_the_groups_of_its_prompts() -> None:
    """Two prompts, three answers each; rewards are those of the texts, log-probabilities the model's."""
    stream, model, task = groups(), toy_model(), Successor()
    first, second = taken(stream, 2)
    assert first.prompt_of.tolist() == [0, 0, 0, 1, 1, 1]
    assert stream.model.tokenizer.decode(second.prompt[1].tolist()) == "d ?"
    for row in range(6):
        text = stream.model.tokenizer.decode(first.token[row, : first.length[row]].tolist())
        prompt = task.prompt(int(first.prompt_of[row]))
        assert first.reward[row] == task.score(prompt, text)
    torch.testing.assert_close(model(first).logprob, first.logprob, rtol=1e-4, atol=1e-5)
    assert stream.env_steps == 12
    assert (second.version[second.mask] == 1).all()


def test_a_prompt_that_is_being_made_is_not_waited_for() -> None:
    """A sampler apart answers those that are there; the batches are the same."""

    class Making(Successor):
        made: frozenset[int] = frozenset({0, 1})

        def ready(self, index: int) -> bool:
            return index in self.made

    task = Making()
    stream = groups(task=task, max_staleness=1)
    stream.gathering.apart = True
    stream.gathering.admit(0)
    assert stream.gathering.flight.admitted == 2
    task.made = frozenset(range(20))
    stream.gathering.admit(0)
    assert stream.gathering.flight.admitted == 4
    (first,) = taken(stream, 1)
    assert same(first, taken(groups(max_staleness=1), 1)[0])


def test_a_batch_must_be_published_before_the_next() -> None:
    """A loop that forgets it would sample with old weights for ever."""
    stream = groups()
    next(stream)
    with pytest.raises(RuntimeError, match=r"stream\.publish\(\)"):
        next(stream)


def test_groups_without_signal_are_replaced() -> None:
    """With dynamic sampling every odd prompt gives its place to another."""
    stream = groups(Drawn(dynamic_sampling=True, num_prompts=1), task=Flat())
    batches = taken(stream, 3)
    for batch in batches:
        assert batch.reward.min() < batch.reward.max()
    assert stream.replaced >= 2
    assert stream.env_steps == 3 * (3 + stream.replaced)


def test_a_task_without_signal_ends_the_run() -> None:
    """It says so instead of sampling for ever."""

    class Never(Successor):
        def score(self, prompt: Prompt, answer: str) -> float:
            return 0.0

    with pytest.raises(ConfigError, match="had no signal"):
        taken(groups(Drawn(dynamic_sampling=True, num_prompts=1), task=Never()), 1)


@pytest.mark.parametrize("max_staleness", [1, 3])
def test_nothing_is_learned_later_than_allowed(max_staleness: int) -> None:
    """What is admitted before the learner needs it is learned from in its order, at most so many versions late."""
    stream = groups(max_staleness=max_staleness)
    late: list[int] = []
    for number, batch in enumerate(taken(stream, 8)):
        late.append(number - int(batch.version[batch.mask].min()))
    assert max(late) <= max_staleness
    assert late[0] == 0


@pytest.mark.parametrize("max_staleness", [0, 2])
def test_a_restored_stream_goes_on_to_the_token(max_staleness: int) -> None:
    """What was in flight is kept; the batches that follow are those of the stream that was not stopped."""
    stream = groups(max_staleness=max_staleness)
    taken(stream, 2)
    saved, version = stream.state(), stream.version
    wanted = taken(stream, 3)
    again = groups(max_staleness=max_staleness)
    again._learner.version = version
    again.restore(saved)
    for before, after in zip(wanted, taken(again, 3), strict=True):
        assert torch.equal(before.token, after.token)
        assert torch.equal(before.reward, after.reward)
        torch.testing.assert_close(before.logprob, after.logprob, rtol=1e-4, atol=1e-5)


def test_kept_sets_arrive() -> None:
    """With top-k no more than so many tokens could be drawn, and the drawn one is among them."""
    stream = groups(Drawn(sampling=Sampling(top_k=3)))
    (batch,) = taken(stream, 1)
    assert batch.kept is not None
    bits = np.unpackbits(batch.kept.numpy(), axis=-1, bitorder="little")
    assert (bits.sum(-1)[batch.mask.numpy()] == 3).all()
    chosen = np.take_along_axis(bits, batch.token.numpy()[..., None], -1)[..., 0]
    assert chosen[batch.mask.numpy()].all()
    model = partial(toy_model())
    torch.testing.assert_close(model(batch).logprob, batch.logprob, rtol=1e-4, atol=1e-5)
