"""Tasks that do what they are told; processes import no more than this."""

from __future__ import annotations

import os
import signal
import time

from shoal.llm.tasks.task import Message, Prompt, Reply


class Slow:
    """Prompts that take a while; number 5 fails, number 7 ends its process."""

    name = "slow"
    threshold = 0.5

    def __init__(self, seconds: float = 0.0) -> None:
        self.seconds = seconds

    def prompt(self, index: int) -> Prompt:
        time.sleep(self.seconds)
        if index == 5:
            raise LookupError("no five")
        if index == 7:
            os.kill(os.getpid(), signal.SIGKILL)
        return Prompt(index, f"{index}?", f"{index}")

    def score(self, prompt: Prompt, answer: str) -> float:
        return float(answer == prompt.truth)


class Echo:
    """Repeats what the model says, until it says something else."""

    name = "echo"
    max_turns = 3

    def prompt(self, index: int) -> Prompt:
        return Prompt(index, "Say something.")

    def score(self, prompt: Prompt, answer: str) -> float:
        return 0.0

    def reply(self, prompt: Prompt, turns: tuple[Message, ...]) -> Reply:
        match turns[-1].content:
            case "raise":
                raise OverflowError("too loud")
            case "hang":
                time.sleep(600)
            case _:
                pass
        return Reply(Message("tool", turns[-1].content), done=turns[-1].content == "done")
