"""`shoal resume`: continues a run from its newest checkpoint."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field, fields
from typing import Annotated, Any, Literal

import tyro

from shoal.cli.arguments import (
    ENV_PREFIX,
    add_here,
    look_here,
    parse,
    take_schedules,
)
from shoal.cli.statuses import STATUSES, status_of
from shoal.cli.train import panel_name
from shoal.types import ConfigError

SCHEDULES = "--NAME-schedule MODULE:FUNCTION names a schedule again that the run was given as a function."


@dataclass(frozen=True, slots=True)
class GivenLanguage:
    """What becomes of a scorer, a reply or a server that fails, where a language model learns."""

    prompt_workers: int | None = None
    """Processes that make prompts before they are asked."""
    prompts_ahead: int | None = None
    """Prompts that they make ahead."""
    scorer_workers: int | None = None
    """Processes that judge answers; 0: the training process does."""
    scorer_timeout_s: float | None = None
    """Seconds that judging one answer may take, where processes judge."""
    scorer_retries: int | None = None
    """How often an answer is judged again after a failure."""
    on_scorer_failure: Literal["raise", "zero", "drop"] | None = None
    """Where judging an answer goes on failing: end the run, give it 0, or leave the answer out."""
    reply_workers: int | None = None
    """Processes that reply in tasks of several turns."""
    reply_timeout_s: float | None = None
    """Seconds that one reply may take, where processes reply."""
    reply_retries: int | None = None
    """How often a reply is asked for again after a failure."""
    on_reply_failure: Literal["end", "raise"] | None = None
    """Where a reply goes on failing: end the conversation, or the run."""
    engine_timeout_s: float | None = None
    """Seconds that a server of answers may be away."""


@dataclass(frozen=True, slots=True)
class Given:
    """Options of `resume`."""

    run: Annotated[tyro.conf.Positional[str], tyro.conf.arg(metavar="RUN")]
    """Run directory, or a directory of runs (the newest is used)."""
    run_dir: str = "runs"
    """Directory in which RUN is searched for as well."""
    env: str | None = None
    """The environment, as `package.module:Class`, where the run was given an object."""
    policy: str | None = None
    """The policy, as `package.module:Class`, where the run was given an object."""
    total_timesteps: int | None = None
    """New total number of environment steps of the run."""
    stop_at: float | None = None
    """New mean return at which training stops; inf never stops early."""
    confirm_episodes: int | None = None
    """Greedy episodes whose mean must reach it too, before that of training ends the run; 0: none."""
    device: str | None = None
    """New torch device: cpu, cuda or cuda:1."""
    num_threads: int | None = None
    """Threads for native code from now on; 0 means one per core, at most 4."""
    eval_every: int | None = None
    """Evaluate with greedy actions every this many steps from now on; 0: never."""
    eval_episodes: int | None = None
    """Episodes of each periodic evaluation."""
    eval_max_steps: int | None = None
    """Steps after which a greedy episode counts as endless, without a time limit."""
    final_episodes: int | None = None
    """Greedy episodes when training is over; 0: none."""
    checkpoint_every: int | None = None
    """Write a checkpoint every this many steps from now on; 0: about 20 per run."""
    keep_checkpoints: int | None = None
    """Number of newest checkpoints to keep, besides `best`."""
    timeline: int | None = None
    """Record who did what when in the last updates, so many, for `shoal timeline`; 0: in none."""
    guard: Literal["on", "off"] | None = None
    """Whether the guard watches from now on; off lets a run go on that it has stopped."""
    num_workers: int | None = None
    """Subprocesses of the workers backend; 0 means one per core."""
    step_timeout_s: float | None = None
    """Seconds that a worker may take to step before it counts as hung."""
    on_fault: Literal["auto", "raise", "restart", "drop"] | None = None
    """What follows when a worker dies, hangs or raises."""
    max_restarts: int | None = None
    """Maximum restarts of each worker."""
    own_cores: bool | None = None
    """Pin workers to separate CPU cores."""
    fleet: str | None = None
    """Ray cluster that runs the environments of a run that has a fleet: local, auto or ray://HOST:PORT."""
    learners: int | None = None
    """Processes that learn together from now on, where a language model learns."""
    language: GivenLanguage = field(default_factory=GivenLanguage)
    """Of language models."""
    json: bool = False
    """Print each line of metrics as JSON."""
    plain: bool = False
    """Print plain lines instead of the live panel."""
    report: bool = True
    """Plot curves.png and summary.html into the run directory when training ends."""
    trust: bool = False
    """Import and run what the file names (an environment, a policy, an algorithm), though nothing shows that you
    wrote it."""


def main(arguments: list[str], about: str) -> int:
    """Continues; the exit status."""
    arguments, schedules = take_schedules(arguments)
    _refuse_settings(arguments)
    about = f"{about}\n\n{SCHEDULES}\n\n{STATUSES}"
    given = parse(Given, arguments, command="resume", about=about)
    look_here(given.env, given.policy, *schedules.values())
    if given.trust:
        add_here()
    from shoal.experiment.options import CHANGEABLE
    from shoal.experiment.training import resume

    changes: dict[str, Any] = {name: getattr(given, name) for name in CHANGEABLE}
    wanted = {name: value for name, value in changes.items() if value is not None}
    wanted |= schedules
    parts = {
        name: value
        for name, value in asdict(given.language).items()
        if value is not None
    }
    if parts:
        wanted["language"] = parts
    result = resume(
        given.run,
        run_dir=given.run_dir,
        panel=panel_name(json=given.json, plain=given.plain),
        policy=given.policy,
        factory=given.env,
        report=given.report,
        trust=given.trust,
        **wanted,
    )
    return status_of(result)


def _refuse_settings(arguments: list[str]) -> None:
    """ConfigError for a setting of training that a resumed run keeps as it is."""
    from shoal.experiment.keywords import Changes, Settings

    own = {field.name for field in fields(Given)}
    changeable = [name for name in Changes.__annotations__ if name in own]
    for argument in arguments:
        option, _, _ = argument.partition("=")
        name = option.removeprefix("--").partition(".")[0].replace("-", "_")
        kept = name in Settings.__annotations__.keys() - own
        if option.startswith(ENV_PREFIX) or (option.startswith("--") and kept):
            told = "the parameters of its environment" if name == "env" else repr(name)
            raise ConfigError(
                f"resume cannot change {told}, only {', '.join(changeable)}; a new run with it: "
                f"shoal train --config RUN/config.toml {option} ..."
            )
