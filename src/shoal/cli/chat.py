"""`shoal chat`: talks to the language model of a run, or to one in a folder."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import tyro

from shoal.cli.arguments import parse

if TYPE_CHECKING:
    from shoal.experiment.talking import Talk
    from shoal.llm.model import LanguageModel


@dataclass(frozen=True, slots=True)
class Given:
    """Options of `chat`."""

    run: Annotated[tyro.conf.Positional[str], tyro.conf.arg(metavar="RUN")]
    """Run directory, a directory of runs (the newest is used), the folder of a model, or smollm2."""
    run_dir: str = "runs"
    """Directory in which RUN is searched for as well."""
    prompt: str | None = None
    """Answer this and end; without it, each line that is read is a question."""
    temperature: float = 0.7
    """What logits are divided by; 0: the most probable answer."""
    top_p: float = 1.0
    """Draw among the most probable tokens that together have this probability."""
    max_tokens: int = 256
    """Tokens of an answer at most."""
    seed: int = 0
    """Of what is drawn."""


def main(arguments: list[str], about: str) -> int:
    """Talks; the exit status."""
    given = parse(Given, arguments, command="chat", about=about)
    from shoal.experiment.talking import Talk
    from shoal.llm.sampler.protocol import Drawing

    model, stop = _model(given)
    drawing = Drawing(given.max_tokens, given.temperature, top_p=given.top_p, stop=stop)
    talk = Talk(model, drawing, seed=given.seed)
    if given.prompt is not None:
        _answer(talk, given.prompt)
        return 0
    shown = sys.stdin.isatty()
    while True:
        if shown:
            print("> ", end="", flush=True)
        line = sys.stdin.readline()
        if not line:
            return 0
        if line.strip():
            _answer(talk, line.rstrip("\n"))


def _model(given: Given) -> tuple[LanguageModel, tuple[str, ...]]:
    """The model, and the texts that end its answers, as they did in training."""
    from shoal.experiment.talking import model_of, sampling_of
    from shoal.llm.loading import load_model
    from shoal.llm.model_folder import CONFIG

    if given.run == "smollm2" or (Path(given.run) / CONFIG).is_file():
        return load_model(given.run), ()
    model = model_of(given.run, given.run_dir)
    return model, sampling_of(given.run, given.run_dir).stop


def _answer(talk: Talk, question: str) -> None:
    """Prints an answer as it is drawn."""
    for part in talk.answer(question):
        print(part, end="", flush=True)
    print(flush=True)
