"""Replies as a stage of their own: tools run beside the sampler, and no conversation waits for another one's tool."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Literal, Self

from shoal.llm.stage.stage import Settings, Stage
from shoal.llm.stage.work import Failed, failed
from shoal.llm.tasks.dialogue import DialogueError, reply_to
from shoal.types import RAISED, ConfigError

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from shoal.llm.tasks.task import Dialogue, Message, Prompt

    Turns = tuple[Message, ...]

POLICIES = ("raise", "end")


@dataclass(frozen=True, slots=True)
class Replied:
    """What came of a turn."""

    key: int
    """As it was submitted."""
    message: Message | None
    """What the model reads next; None where the conversation is over."""
    seconds: float
    """That the task took, all tries together."""
    failure: str | None = None
    """Why there is no reply, where the task failed."""


class ReplyPool:
    """Has a task reply to turns, in processes or in this one. Every key that is submitted comes back exactly once."""

    def __init__(
        self,
        make_dialogue: Callable[[], Dialogue],
        *,
        name: str,
        workers: int = 0,
        timeout_s: float = 60.0,
        retries: int = 1,
        on_failure: Literal["raise", "end"] = "end",
        tell: Callable[[str], None] | None = None,
    ) -> None:
        """Makes the task, in every process.

        Args:
            make_dialogue: makes it.
            name: of the task, in messages.
            workers: processes; 0 replies in this one, inside `poll`, where nothing can end a call that hangs.
            timeout_s: seconds that a reply may take; its process is killed then, and another one started.
            retries: how often a task that raised, hung or ended its process is asked again.
            on_failure: then: `end` ends the conversation, with the reason; `raise` a DialogueError in `poll`.
            tell: told of the first conversation that ends so.

        Raises:
            ConfigError: a setting cannot work, or the task cannot go to other processes.
        """
        if on_failure not in POLICIES:
            raise ConfigError(
                f"on_failure is one of {', '.join(POLICIES)}, got {on_failure!r}"
            )
        self.name, self.on_failure, self._tell = name, on_failure, tell
        self.num_failures = 0
        """Conversations that the task could not go on with."""
        self._failed: list[DialogueError] = []
        self._asked: dict[int, int] = {}
        """The prompts of pending turns, by key."""
        self._stage: Stage[tuple[Prompt, Turns], _Answer] = Stage(
            partial(_Replying, make_dialogue),
            Settings(workers, timeout_s, retries),
            name=name,
            word="tool",
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @property
    def pending(self) -> int:
        """Turns that were submitted and got no reply yet."""
        return self._stage.pending

    def submit(self, key: int, prompt: Prompt, turns: Turns) -> None:
        """Has the task reply to the last turn; `key` comes back with the reply, and none is pending twice."""
        self._stage.submit(key, (prompt, turns))
        self._asked[key] = prompt.index

    def poll(self, block_s: float = 0.0) -> list[Replied]:
        """Replies that are there by now.

        Args:
            block_s: how long to wait for the first one where there is none.

        Raises:
            DialogueError: with on_failure="raise", the task failed; replies to other turns are not lost.
            StageError: a process was lost, and none takes its place.
        """
        if self._failed:
            raise self._failed.pop(0)
        found: list[Replied] = []
        for done in self._stage.poll(block_s):
            outcome, asked = done.outcome, self._asked.pop(done.key)
            if not isinstance(outcome, Failed):
                found.append(Replied(done.key, outcome.message, done.seconds))
                continue
            self.num_failures += 1
            times = "" if done.tries == 1 else f", {done.tries} times"
            text = (
                f"{self.name}: replying to prompt {asked} failed{times}: {outcome.text}"
            )
            if self.on_failure == "raise":
                self._failed.append(DialogueError(text))
            else:
                found.append(Replied(done.key, None, done.seconds, text))
                if self._tell is not None and self.num_failures == 1:
                    self._tell(f"{text}; that ends the conversation")
        if self._failed and not found:
            raise self._failed.pop(0)
        return found

    def close(self) -> None:
        """Ends the processes."""
        self._stage.close()
        self._asked.clear()


@dataclass(frozen=True, slots=True)
class _Answer:
    """A reply on its way: None alone could not be told from nothing."""

    message: Message | None


class _Replying:
    """The work: turns get replies."""

    batch_size = 1

    def __init__(self, make_dialogue: Callable[[], Dialogue]) -> None:
        self._dialogue = make_dialogue()

    def work(self, pieces: Sequence[tuple[Prompt, Turns]]) -> list[_Answer | Failed]:
        return [self._replied(prompt, turns) for prompt, turns in pieces]

    def _replied(self, prompt: Prompt, turns: Turns) -> _Answer | Failed:
        try:
            reply = reply_to(self._dialogue, prompt, turns)
        except RAISED as error:
            return failed(error)
        return _Answer(None if reply is None else reply.message)
