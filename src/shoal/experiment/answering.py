"""A loaded language model answers: one question, or several at once."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any, TypeAlias, cast, overload

from shoal.llm.model import LanguageModel
from shoal.llm.sampler.local import LocalSampler
from shoal.llm.sampler.protocol import Request
from shoal.llm.tasks.task import Message, Prompt
from shoal.types import ConfigError, check_seed
from shoal.types.arguments import flag_of, whole_of

if TYPE_CHECKING:
    from collections.abc import Sequence

    from torch import nn

    from shoal.experiment.experiment import Experiment
    from shoal.types import Spec

Question: TypeAlias = "str | tuple[Message, ...]"


class Answers:
    """What an `Agent` says where it is a language model."""

    policy: nn.Module
    spec: Spec
    experiment: Experiment

    @overload
    def answer(
        self,
        question: Question,
        *,
        greedy: bool = True,
        max_tokens: int | None = None,
        seed: int = 0,
    ) -> str: ...

    @overload
    def answer(
        self,
        question: list[str] | list[tuple[Message, ...]],
        *,
        greedy: bool = True,
        max_tokens: int | None = None,
        seed: int = 0,
    ) -> list[str]: ...

    def answer(
        self,
        question: Question | Sequence[Question],
        *,
        greedy: bool = True,
        max_tokens: int | None = None,
        seed: int = 0,
    ) -> str | list[str]:
        """What the language model of a run says to a question; of a list of questions, a list of answers.

        It is asked as in training: by its chat template where `language.chat` says so, after `language.system`, and
        `sampling.stop` ends an answer. In a task of several turns it is the first one. Several at once are faster.

        Args:
            question: text, or the messages of a chat.
            greedy: the most probable token each time; False draws as in training (`sampling`).
            max_tokens: of an answer; None: the run's `max_completion_length`.
            seed: of what is drawn; the same question at the same place gets the same answer.

        Raises:
            ConfigError: a policy of an environment, something else than text, or no room for an answer.
        """
        model = self.policy
        if not isinstance(model, LanguageModel):
            raise ConfigError(
                f"{self.spec.env_id}: this is a policy of an environment, which answers no questions; agent.act(obs) "
                "gives its action"
            )
        alone = not isinstance(question, list)
        asked = [_question(one) for one in ([question] if alone else question)]
        check_seed(seed)
        config: Any = self.experiment.config
        most = config.max_completion_length if max_tokens is None else max_tokens
        drawing = config.sampling.drawing(whole_of("max_tokens", most, 1))
        if flag_of("greedy", greedy):
            drawing = replace(drawing, temperature=0.0)
        slots = min(self.experiment.options.language.slots, max(1, len(asked)))
        sampler = LocalSampler(model, drawing, slots=slots, seed=seed)
        encode = model.tokenizer.encode_prompt
        sampler.submit(
            [
                Request(number, tuple(encode(Prompt(number, one))), (0,))
                for number, one in enumerate(asked)
            ]
        )
        said: dict[int, str] = {}
        while sampler.pending:
            for drawn in sampler.poll():
                said[drawn.key] = model.tokenizer.decode(drawn.token.tolist())
        answers = [said[number] for number in range(len(asked))]
        return answers[0] if alone else answers


def _question(given: object) -> Question:
    """ConfigError where it is no text, nor messages."""
    if isinstance(given, str):
        return given
    parts = cast("tuple[object, ...]", given) if isinstance(given, tuple) else ()
    if not parts or not all(isinstance(part, Message) for part in parts):
        raise ConfigError(
            f"a question is text, or a tuple of Message(role, content), got {given!r:.200}; several are a list of them"
        )
    return cast("tuple[Message, ...]", parts)
