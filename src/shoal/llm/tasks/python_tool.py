"""Any task with Python as a tool: programs that the model writes are run, and it reads what they print."""

from __future__ import annotations

import re
from dataclasses import replace
from typing import TYPE_CHECKING

from shoal.llm.tasks.sandbox import PythonSandbox
from shoal.llm.tasks.task import Message, Reply
from shoal.types import ConfigError

if TYPE_CHECKING:
    from shoal.llm.tasks.sandbox import Limits
    from shoal.llm.tasks.task import Prompt, Task

# A block that is not closed ends with the turn: its end may have been a stop string.
PROGRAM = re.compile(r"```python\s*\n(.*?)(?:```|\Z)", re.DOTALL)
INSTRUCTION = (
    "You may run Python: write a program between ```python and ```, and you are told what it prints. "
    "Answer without a program when you know the answer."
)


class PythonTool:
    """A task whose answers may be worked out by programs. A turn without a program is the answer."""

    def __init__(
        self,
        task: Task,
        *,
        max_turns: int = 4,
        limits: Limits | None = None,
        unconfined: bool = False,
        instruction: str = INSTRUCTION,
    ) -> None:
        """Takes a task, whose prompts become chats.

        Args:
            task: of one turn.
            max_turns: turns of the model, at most.
            limits: what a program may take.
            unconfined: run programs where they cannot be parted from the rest of the machine.
            instruction: the system's message; where the task has one, it comes before it.

        Raises:
            ConfigError: programs cannot be parted from the rest here, or max_turns is no count.
        """
        if max_turns < 1:
            raise ConfigError(f"max_turns must be at least 1, got {max_turns}")
        self.name, self.max_turns = f"{task.name}+python", max_turns
        self.threshold: float | None = getattr(task, "threshold", None)
        self._task, self._instruction = task, instruction
        self._sandbox = PythonSandbox(limits, unconfined=unconfined)

    def prompt(self, index: int) -> Prompt:
        """The task's prompt of this number, as a chat that begins with the instruction."""
        asked = self._task.prompt(index)
        question = asked.question
        if isinstance(question, str):
            question = (Message("user", question),)
        told = self._instruction
        if question[0].role == "system":
            told = f"{told}\n{question[0].content}"
            question = question[1:]
        chat = (Message("system", told), *question)
        return replace(asked, question=chat)

    def reply(self, prompt: Prompt, turns: tuple[Message, ...]) -> Reply:
        """What the last program of the turn prints; done where there is none."""
        programs = PROGRAM.findall(turns[-1].content)
        if not programs:
            return Reply(Message("tool", ""), done=True)
        ran = self._sandbox.run(programs[-1])
        return Reply(Message("tool", ran.text or "[it printed nothing]"))

    def score(self, prompt: Prompt, answer: str) -> float:
        """As the task scores; nothing for a last turn that is still a program."""
        return 0.0 if PROGRAM.search(answer) else self._task.score(prompt, answer)
