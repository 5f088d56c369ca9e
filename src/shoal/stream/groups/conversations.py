"""Conversations: answers of several turns, between which the task replies. What was drawn stays as it was drawn."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from shoal.llm.between import reply_tokens
from shoal.llm.feed_forward import NOT_KNOWN
from shoal.llm.sampler.protocol import Drawn, Request
from shoal.llm.sampler.slots import NUMBERS
from shoal.llm.tasks.asked import prompt_of
from shoal.llm.tasks.dialogue import answer_of
from shoal.llm.tasks.task import Message
from shoal.stream.groups.flight import Asked, drawn_of, parts_of

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from numpy.typing import NDArray

    from shoal.llm.model import LanguageModel
    from shoal.llm.sampler.protocol import Sampler
    from shoal.llm.tasks.replies import Replied, ReplyPool
    from shoal.llm.tasks.task import Dialogue
    from shoal.stream.groups.flight import Group


@dataclass(frozen=True, slots=True)
class Conversation:
    """An answer that is not finished, after its first turn."""

    turns: tuple[Message, ...]
    """What was said since the prompt."""
    said: Drawn
    """The tokens of it."""
    awaited: bool
    """Whether a reply is awaited; else the model draws its next turn."""


class Conversations:
    """Answers to prompts of a task of several turns, on their way between the sampler and the task's replies."""

    def __init__(
        self,
        dialogue: Dialogue,
        model: LanguageModel,
        sampler: Sampler,
        replies: ReplyPool,
        *,
        max_tokens: int,
    ) -> None:
        """None is under way.

        Args:
            dialogue: the task.
            model: its tokenizer, and the most that it reads.
            sampler: draws turns.
            replies: has the task reply; closed with this.
            max_tokens: of an answer, all turns and replies together.
        """
        self.failed = 0
        """Replies that failed, and ended their conversations."""
        self.lost = 0
        """None: what was said until then is judged."""
        self._dialogue, self._tokenizer = dialogue, model.tokenizer
        self._sampler, self._replies = sampler, replies
        self._max_tokens = max_tokens
        self._max_length = model.architecture.max_length
        self._open: dict[tuple[int, int], Conversation] = {}

    @property
    def pending(self) -> int:
        """Replies that are awaited."""
        return self._replies.pending

    def ask(self, index: int) -> Asked:
        """A prompt of the task by its number, and its tokens."""
        prompt = prompt_of(self._dialogue, index)
        return Asked(prompt, tuple(self._tokenizer.encode_prompt(prompt)))

    def learners(self, key: int) -> tuple[int, ...]:
        """The model alone."""
        del key
        return (0,)

    def begin(self, groups: Sequence[Group], count: int) -> None:
        """Has the model begin so many answers to the prompt of each group."""
        numbers = tuple(range(count))
        self._sampler.submit([Request(one.key, one.token, numbers) for one in groups])

    def take(self, group: Group, drawn: Drawn) -> bool:
        """Takes in a turn that the sampler has finished; whether the whole answer is finished with it."""
        key = drawn.key, drawn.number
        before = self._open.pop(key, None)
        turns, said = (), drawn
        if before is not None:
            turns, said = before.turns, joined(before.said, drawn)
        text = self._tokenizer.decode(drawn.token.tolist())
        now = Conversation((*turns, Message("assistant", text)), said, awaited=True)
        if drawn.truncated:
            self._finish(group, now)
            return True
        self._ask(group, now)
        return False

    def poll(
        self, groups: Mapping[int, Group], block_s: float = 0.0
    ) -> list[tuple[Group, int]]:
        """Has the model go on where there is a reply; the answers, by group and number, that are finished instead.

        Args:
            groups: those in flight, by key.
            block_s: how long to wait for a first reply.
        """
        finished: list[tuple[Group, int]] = []
        requests: list[Request] = []
        for replied in self._replies.poll(block_s):
            key, number = divmod(replied.key, NUMBERS)
            group, one = groups[key], self._open.pop((key, number))
            further = self._further(group, one, replied)
            if further.awaited:
                self._finish(group, further)
                finished.append((group, number))
                continue
            self._open[key, number] = further
            begun = tuple(further.said.token.tolist())
            requests.append(Request(key, group.token, (number,), (begun,)))
        if requests:
            self._sampler.submit(requests)
        return finished

    def follow(self) -> None:
        """Nothing here depends on weights."""

    def state(self) -> dict[str, Any]:
        """All that `restore` needs; what the model draws is in the sampler's state."""
        return {
            "failed": self.failed,
            "open": [
                parts_of(one.said)
                | {
                    "key": one.said.key,
                    "awaited": one.awaited,
                    "turns": [[turn.role, turn.content] for turn in one.turns],
                }
                for one in self._open.values()
            ],
        }

    def restore(self, state: Mapping[str, Any], groups: Mapping[int, Group]) -> None:
        """Continues; replies that were awaited are asked for again."""
        self.failed = int(state["failed"])
        self._open.clear()
        for saved in state["open"]:
            said = drawn_of(int(saved["key"]), saved)
            turns = tuple(Message(role, content) for role, content in saved["turns"])
            one = Conversation(turns, said, awaited=bool(saved["awaited"]))
            self._open[said.key, said.number] = one
            if one.awaited:
                self._ask(groups[said.key], one)

    def close(self) -> None:
        """Ends the processes that reply."""
        self._replies.close()

    def _ask(self, group: Group, one: Conversation) -> None:
        self._open[group.key, one.said.number] = one
        number = group.key * NUMBERS + one.said.number
        self._replies.submit(number, group.prompt, one.turns)

    def _further(
        self, group: Group, one: Conversation, replied: Replied
    ) -> Conversation:
        """The conversation with the reply; as it was where it is over, or has no room left for another token."""
        self.failed += replied.failure is not None
        if replied.message is None:
            return one
        turns = *one.turns, replied.message
        last = int(one.said.token[-1])
        heard = reply_tokens(self._tokenizer, group.prompt, turns, last)
        most = min(self._max_tokens, self._max_length - len(group.token))
        if len(one.said.token) + len(heard) >= most:
            return replace(one, said=replace(one.said, truncated=True))
        said = joined(one.said, outside(one.said, heard))
        return Conversation(turns, said, awaited=False)

    def _finish(self, group: Group, one: Conversation) -> None:
        """Gives the answer to its group, with what of it is scored."""
        number = one.said.number
        group.drawn[number] = one.said
        group.text[number] = answer_of(self._dialogue, group.prompt, one.turns)


def joined(first: Drawn, second: Drawn) -> Drawn:
    """One part of an answer and what follows it."""
    kept = None
    if first.kept is not None and second.kept is not None:
        kept = np.concatenate([first.kept, second.kept])
    return replace(
        second,
        token=np.concatenate([first.token, second.token]),
        logprob=np.concatenate([first.logprob, second.logprob]),
        version=np.concatenate([first.version, second.version]),
        kept=kept,
        learned=np.concatenate([first.chosen, second.chosen]),
        routing=_routing(first, second),
        prefix=second.prefix if first.prefix is None else first.prefix,
    )


def _routing(first: Drawn, second: Drawn) -> NDArray[np.int16] | None:
    """The experts of both parts; None where one of them has none."""
    if first.routing is None or second.routing is None:
        return None
    return np.concatenate([first.routing, second.routing])


def outside(answer: Drawn, token: list[int]) -> Drawn:
    """Tokens that an answer goes on with, and that the model did not choose."""
    n, kept = len(token), None
    if answer.kept is not None:
        kept = np.zeros((n, answer.kept.shape[1]), np.uint8)
    return replace(
        answer,
        token=np.array(token, np.int64),
        logprob=np.zeros(n, np.float32),
        version=np.zeros(n, np.int64),
        kept=kept,
        learned=np.zeros(n, np.bool_),
        routing=_not_known(answer.routing, n),
    )


def _not_known(like: NDArray[np.int16] | None, count: int) -> NDArray[np.int16] | None:
    """The routing of so many tokens that the model did not choose."""
    if like is None:
        return None
    return np.full((count, *like.shape[1:]), NOT_KNOWN, np.int16)
