"""The ladder: who may enter a stage, sign it, or go back, and what is missing where he may not."""

from __future__ import annotations

from typing import TYPE_CHECKING

from shoal.run.stage_file import NAME, STAGES, TEXT, Signature, change_stages, now
from shoal.types import ConfigError
from shoal.types.arguments import string_of

if TYPE_CHECKING:
    from pathlib import Path

    from shoal.run.stage_file import Entry, Stages


def check_stage(name: str) -> int:
    """The number of a stage; ConfigError where there is none."""
    if string_of("stage", name) not in STAGES:
        raise ConfigError(f"there is no stage {name[:40]!r}; they are {STAGES}")
    return STAGES.index(name)


def check_may_enter(stages: Stages, stage: str, policy: str) -> None:
    """ConfigError, with what is missing, where the policy may not enter a stage yet."""
    number = check_stage(stage)
    if not number:
        return
    before = STAGES[number - 1]
    found = next((x for x in stages.standing(policy) if x.stage == before), None)
    if found is None:
        raise ConfigError(
            f"{stage} cannot be entered: this policy, {policy[:12]}, never entered {before}{_another(stages, before)}; "
            f"{_begin(stages, policy)}"
        )
    missing = lacks(found)
    if missing:
        raise ConfigError(f"{stage} cannot be entered: {before} {missing}")


def lacks(entry: Entry) -> str:
    """What an entry lacks for the next stage, as the rest of a sentence; empty where nothing."""
    if not entry.measured:
        return (
            f"was not measured yet: `shoal stage RUN --enter {entry.stage} --data FILE`"
        )
    broken = [str(one) for one in entry.criteria if not one.holds]
    if broken:
        return f"was measured, and {'; '.join(broken)}"
    if entry.signed is None:
        return 'is not signed: `shoal stage RUN --sign "A. NAME"`'
    return ""


def _another(stages: Stages, stage: str) -> str:
    """Whose signature there is instead."""
    others = [
        one
        for one in stages.entries
        if one.stage == stage and one.signed is not None and one.withdrawn is None
    ]
    if not others or others[-1].signed is None:
        return ""
    newest = others[-1]
    assert newest.signed is not None
    return (
        f" (the signature of {newest.signed.name} is of another policy, {newest.policy[:12]}, and void for this "
        "one: it has changed since)"
    )


def _begin(stages: Stages, policy: str) -> str:
    standing = stages.standing(policy)
    if not standing:
        return "it begins with `shoal stage RUN --enter simulate`"
    return f"it is in {standing[-1].stage}"


def signed(stages: Stages, policy: str, name: str) -> Stages:
    """With the current stage of a policy signed.

    Raises:
        ConfigError: no stage was entered, its criteria do not hold, it is signed already, or that is no name.
    """
    _check_name(name)
    standing = stages.standing(policy)
    if not standing:
        newest = stages.standing()
        why = _another(stages, newest[-1].stage) if newest else ""
        raise ConfigError(
            f"there is nothing to sign: this policy, {policy[:12]}, entered no stage{why}; it begins with `shoal "
            "stage RUN --enter simulate`"
        )
    entry = standing[-1]
    if entry.signed is not None:
        raise ConfigError(f"{entry.stage} is signed already, by {entry.signed.name}")
    missing = lacks(entry)
    if entry.measured and entry.holds:
        missing = ""
    if missing:
        raise ConfigError(f"{entry.stage} cannot be signed: it {missing}")
    return stages.replaced(entry, signed=Signature(name.strip(), now()))


def rolled_back(stages: Stages, name: str, reason: str) -> tuple[Stages, str]:
    """With the newest stage withdrawn, of whichever policy it is, and all that the same policy had entered after it.

    Returns:
        The stages, and what was withdrawn, in a sentence.

    Raises:
        ConfigError: no stage stands, or a name or a reason is missing.
    """
    _check_name(name)
    reason = string_of("reason", reason)
    if not reason.strip() or len(reason) > TEXT or not reason.isprintable():
        raise ConfigError(
            f"a rollback needs a reason of at most {TEXT} printable characters (--reason)"
        )
    standing = stages.standing()
    if not standing:
        raise ConfigError("there is nothing to go back from: no stage was entered")
    last = standing[-1]
    word = Signature(name.strip(), now(), reason.strip())
    made = stages
    for entry in stages.entries:
        mine = entry.policy == last.policy and entry.withdrawn is None
        if mine and entry.number >= last.number:
            made = made.replaced(entry, withdrawn=word)
    return made, f"{last.stage} of the policy {last.policy[:12]} was withdrawn"


def roll_back(folder: Path, name: str, reason: str) -> str:
    """`rolled_back` in the file of a run directory; needs neither the policy nor its environment."""
    said: list[str] = []

    def change(stages: Stages) -> Stages:
        made, told = rolled_back(stages, name, reason)
        said.append(told)
        return made

    change_stages(folder, change)
    return said[0]


def _check_name(given: object) -> None:
    text = given if isinstance(given, str) else ""
    if not text.strip() or len(text) > NAME or not text.isprintable():
        raise ConfigError(
            f"whoever signs has a name of at most {NAME} printable characters, got {text[:40] or given!r}"
        )
