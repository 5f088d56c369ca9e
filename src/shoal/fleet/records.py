"""Records of the fleets that this user's learners run on this machine, by which other terminals find them."""

from __future__ import annotations

import json
import os
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import cast

import psutil

from shoal.run.drafts import draft_of, open_draft
from shoal.run.state_folder import state_folder

FOLDER = "fleets"


@dataclass(frozen=True, slots=True)
class Record:
    """A fleet, as the learner that has it wrote it down."""

    name: str
    where: str
    """local, auto or ray://HOST:PORT."""
    address: str
    """Of the cluster, for others who join it."""
    learner: int
    """Its process."""
    begun: float
    """When that process began, as another one may have its number by now."""
    folder: str
    """What the fleet keeps while it lasts."""
    token_file: str
    """Of the cluster's token; empty where it is this user's own affair."""
    what: str
    """What it is for."""

    @property
    def path(self) -> Path:
        """Where it is written."""
        return state_folder() / FOLDER / f"{self.name}.json"

    @property
    def lives(self) -> bool:
        """Whether its learner is there."""
        with suppress(psutil.Error):
            process = psutil.Process(self.learner)
            gone = process.status() == psutil.STATUS_ZOMBIE
            return not gone and process.create_time() == self.begun
        return False

    def write(self) -> None:
        """For this user alone to read; in one piece, as others list records at any time."""
        self.path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        draft = draft_of(self.path)
        with open_draft(draft, mode=0o600) as file:
            file.write(json.dumps(asdict(self)).encode())
        draft.replace(self.path)

    def remove(self) -> None:
        """Nothing where there is none."""
        self.path.unlink(missing_ok=True)


def own_process() -> tuple[int, float]:
    """This process's number, and when it began."""
    return os.getpid(), psutil.Process().create_time()


def records() -> list[Record]:
    """Those whose learners live, oldest first; what others left is removed."""
    found: list[Record] = []
    with suppress(OSError, RuntimeError):  # no home, no folder
        for path in sorted((state_folder() / FOLDER).glob("*.json")):
            record = _read(path)
            if record is None or not record.lives:
                path.unlink(missing_ok=True)
            else:
                found.append(record)
    return sorted(found, key=lambda record: record.begun)


def _read(path: Path) -> Record | None:
    """The record in a file; None where it holds none."""
    try:
        fields = cast("dict[str, object]", json.loads(path.read_bytes()))
        return Record(**fields)  # pyright: ignore[reportArgumentType]
    except (OSError, ValueError, TypeError):
        return None
