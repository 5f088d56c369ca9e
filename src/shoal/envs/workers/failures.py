"""Failures on their way from a worker to its parent: the exception, and beside it its class, text and traceback."""

from __future__ import annotations

import os
import traceback
from contextlib import suppress
from dataclasses import dataclass

from shoal.envs.workers.pipe import pack, unpack
from shoal.types import EnvError, text_of


@dataclass(frozen=True, slots=True)
class Failure:
    """An exception in another process."""

    text: str
    """Its class and what it says."""
    notes: tuple[str, ...]
    where: str
    """The process and its traceback."""
    packed: bytes
    """The exception itself; empty where it cannot be pickled and made again."""

    def exception(self) -> Exception:
        """The exception; an EnvError with its text where its class cannot be imported here."""
        made: object = None
        why = ""
        if self.packed:
            try:
                made = unpack(self.packed)
            except Exception as error:
                why = f"shoal: it could not be made again in this process: {_named(error)}"
        if not isinstance(made, Exception):
            made = EnvError(self.text)
            for note in (*self.notes, why):
                if note:
                    made.add_note(note)
        with suppress(Exception):  # it is the user's class
            made.add_note(self.where)
        return made


def failure_of(error: BaseException, number: int, word: str = "worker") -> Failure:
    """What worker `number` (or what `word` calls it), this process, says of an exception."""
    trace = "".join(traceback.format_exception(error)).rstrip()
    where = f"shoal: in {word} {number}, pid {os.getpid()}:\n{trace}"
    notes = [text_of(note) for note in getattr(error, "__notes__", ())]
    packed = b""
    try:
        packed = pack(error)
        twin = unpack(packed)
        if type(twin) is not type(error) or str(twin) != str(error):
            packed = b""
    except Exception as why:
        packed = b""
        where += f"\nshoal: it could not be pickled: {_named(why)}"
    return Failure(_named(error), tuple(notes), where, packed)


def _named(error: BaseException) -> str:
    return f"{type(error).__name__}: {text_of(error)}"
