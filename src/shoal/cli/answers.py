"""`shoal answers`: what a run's language model said in training."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated

import tyro

from shoal.cli.arguments import parse
from shoal.types import ConfigError
from shoal.types.text import printable

if TYPE_CHECKING:
    from shoal.run.said import Said, SaidAnswer

WIDTH = 2100


@dataclass(frozen=True, slots=True)
class Given:
    """Options of `answers`."""

    run: Annotated[tyro.conf.Positional[str], tyro.conf.arg(metavar="RUN")]
    """Run directory, or a directory of runs (the newest is used)."""
    last: int = 1
    """Of how many lines of metrics, the newest ones."""
    run_dir: str = "runs"
    """Directory in which RUN is searched for as well."""


def main(arguments: list[str], about: str) -> int:
    """Prints them; the exit status."""
    given = parse(Given, arguments, command="answers", about=about)
    from shoal.run.said import read_answers

    found = read_answers(given.run, last=given.last, run_dir=given.run_dir)
    if not found:
        raise ConfigError(
            f"{given.run} keeps no answers (answers.jsonl): it trains no language model, has no line of metrics yet, "
            "or language.log_answers is false"
        )
    for said in found:
        _show(said)
    return 0


def _show(said: Said) -> None:
    """A group, each text in one line."""
    print(f"update {said.update:,}, step {said.step:,}, weights {said.version:,}")
    print(f"  {printable(said.prompt, WIDTH)}")
    for one in said.answers:
        print(
            f"    {_number(one.reward):>8}  {printable(one.text, WIDTH)}  ({_of(one)})"
        )


def _of(one: SaidAnswer) -> str:
    """What else is known of an answer."""
    parts = [f"{one.tokens:,} tokens" + (", cut" if one.truncated else "")]
    parts += [f"{printable(k, 100)} {_number(x)}" for k, x in one.rewards.items()]
    return "; ".join(parts)


def _number(value: float | None) -> str:
    return "–" if value is None else f"{value:.3g}"
