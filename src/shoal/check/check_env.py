"""`check_env`: what an environment must do to be trained, tried out on it and said in plain words."""

from __future__ import annotations

import re
import sys
import time
import tomllib
import traceback
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import gymnasium as gym

from shoal.check.phases import Phase, phases, shared_phases
from shoal.check.report import Report, duration, shown
from shoal.check.rows import close_all
from shoal.check.told import note_heard
from shoal.check.trial import Trial
from shoal.check.watch import TimeUp, place, within
from shoal.envs import packages
from shoal.envs.factories import factory_of, import_object
from shoal.envs.libraries.gymnasium_vector import make as make_vector
from shoal.envs.observed import observing
from shoal.envs.preprocessing import Preprocessing
from shoal.envs.told import Told, hearing
from shoal.envs.workers.settings import Workers
from shoal.types import RAISED, ConfigError, EnvError, check_seed
from shoal.types.calls import worded

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from shoal.envs.libraries.batched import BatchedEnv

NUM_PROCESSES = 2
UNWATCHED = ("workers",)
"""Phases in which no single step is watched."""
REFUSED = {
    "make": "return a gymnasium.Env",
    "spaces": "make the same spaces each time, whatever was drawn or loaded",
    "workers": "it steps in this process but not in another: give an import path or a function that makes it from "
    "numbers and texts, and open files, sockets and devices in its own __init__ and reset",
    "rows": "alone it did not do this: let no instance count, share or change what belongs to another",
}
SHARED = "keep what its interface promises; for games, parallel_api_test and api_test of pettingzoo.test tell more"
PLACES = {
    "make": "while it was made:",
    "speed": "in a plain loop:",
    "close": "in close():",
}

FOREIGN = {
    "warn": "nothing: warnings are part of the report",
    "skip_render_check": "nothing: rendering is not checked",
}
"""Arguments of Stable-Baselines3's `check_env`."""


@worded(FOREIGN)
def check_env(
    env: str | Callable[..., object],
    *,
    steps: int = 5000,
    seed: int = 0,
    env_kwargs: Mapping[str, object] | None = None,
    timeout_s: float = 30.0,
    backend: str = "serial",
    preprocessing: Preprocessing | None = None,
    hard: bool = False,
) -> Report:
    """Tries the contract of an environment out, under random actions, in this process.

    What takes long says so on stderr every ten seconds.

    Args:
        env: a Gymnasium id, `package.module:function`, or a callable that returns a new `gymnasium.Env` or PettingZoo
            environment each time; for the backend `vector` one that takes `num_envs` and returns a VectorEnv.
        steps: random steps of the longest check; fewer where they take more than some seconds.
        seed: of the environment and of the actions.
        env_kwargs: keywords of the environment's constructor.
        timeout_s: seconds after which a call that has not returned counts as hanging.
        backend: `workers` also steps rows of it in processes, which must do what rows of `serial` do; `vector` checks
            a gymnasium.vector.VectorEnv.
        preprocessing: `keep_keys`, `text` and `one_hot`, as training is to have them; what is left out is not checked.
        hard: end the process, its stack on stderr, should the environment block even Python's own signals.

    Raises:
        ConfigError: there is no such environment, it takes no such keyword, or it is other preprocessing. What the
            environment does wrong is found, never raised.
    """
    _check_usage(env, steps, timeout_s, backend)
    check_seed(seed)
    name = env if isinstance(env, str) else getattr(env, "__name__", type(env).__name__)
    began = time.perf_counter()
    heard: list[Told] = []
    with hearing(heard):
        trial = _trial(env, name, dict(env_kwargs or {}), steps, seed, backend)
        _observe(trial, preprocessing or Preprocessing(), backend)
        trial.startup_s = time.perf_counter() - began
        workers: Workers | None = None
        if backend == "workers":
            workers = Workers(num_workers=NUM_PROCESSES, step_timeout_s=timeout_s)
        unreached = _run_all(trial, phases(workers), timeout_s, hard=hard)
    note_heard(trial.found, heard)
    return _report(trial, unreached, began)


def _run_all(
    trial: Trial, planned: Sequence[Phase], timeout_s: float, *, hard: bool
) -> list[str]:
    """Runs phases until nothing more can be checked, and closes; the titles of those that were not reached."""
    unreached: list[str] = []
    making, *rest = planned
    if not _run(trial, making, timeout_s, hard=hard):
        trial.blocked = True
    if trial.is_game or trial.vector is not None:
        rest = shared_phases()
    for phase in rest:
        if trial.blocked:
            unreached.append(phase.title)
        elif not _run(trial, phase, timeout_s, hard=hard):
            trial.blocked = True
    _run(trial, Phase("close", 0.0, _close), timeout_s, hard=hard)
    return unreached


def _check_usage(env: object, steps: int, timeout_s: float, backend: str) -> None:
    """ConfigError for numbers, a backend or a native environment that cannot be checked."""
    if steps < 1 or timeout_s <= 0:
        raise ConfigError(
            f"steps must be at least 1 and timeout_s greater than 0, got {steps} and {timeout_s}"
        )
    if backend not in ("serial", "workers", "vector"):
        raise ConfigError(
            f"an environment is checked in rows of serial, of workers too, or of vector, got backend={backend!r}"
        )
    if isinstance(env, str) and packages.has(env) and env not in gym.registry:
        raise ConfigError(
            f"{env} is native, and check-env plays environments in Python; a native one is tested by "
            "tests of its own, which `shoal new-env` begins"
        )


def _observe(trial: Trial, preprocessing: Preprocessing, backend: str) -> None:
    """Checks what is kept of observations; ConfigError for other preprocessing, and for a vector environment."""
    if not preprocessing.plain or preprocessing.max_episode_steps:
        raise ConfigError(
            "check-env tests the environment's own steps: of preprocessing it takes keep_keys, text and one_hot alone"
        )
    if preprocessing.observes and backend == "vector":
        raise ConfigError(
            "keep_keys, text and one_hot are for single environments; a vector environment hands over "
            "observations whole"
        )
    trial.factory = observing(trial.factory, trial.name, preprocessing)


def _report(trial: Trial, unreached: Sequence[str], began: float) -> Report:
    return Report(
        trial.name,
        trial.found.all,
        (*trial.skipped, *unreached),
        trial.speed,
        time.perf_counter() - began,
    )


def _trial(
    env: str | Callable[..., object],
    name: str,
    env_kwargs: dict[str, object],
    steps: int,
    seed: int,
    backend: str,
) -> Trial:
    """What is checked, not made yet."""
    if backend != "vector":
        return Trial(name, factory_of(env, env_kwargs), steps, seed)
    source: Any = env
    if isinstance(env, str) and all(env.partition(":")):
        source = import_object(env)

    def rows(num_envs: int) -> BatchedEnv:
        return make_vector(source, num_envs, name=name, env_kwargs=env_kwargs)

    return Trial(name, factory=source, steps=steps, seed=seed, vector=rows)


def read_kwargs(given: Sequence[str]) -> dict[str, object]:
    """Keywords written as `name=value`; a value is TOML (`4`, `true`, `[1, 2]`), else a text as it stands."""
    read: dict[str, object] = {}
    for text in given:
        name, equals, value = text.partition("=")
        if not equals or not name.isidentifier():
            raise ConfigError(f"--env-kwargs takes name=value, got {text!r}")
        read[name] = read_value(value)
    return read


def read_value(text: str) -> object:
    """A value as TOML writes it, else the text as it stands."""
    try:
        return tomllib.loads(f"value = {text}")["value"]
    except tomllib.TOMLDecodeError:
        return text


def _run(trial: Trial, phase: Phase, timeout_s: float, *, hard: bool = False) -> bool:
    """Whether a phase came to its end; if not, why is found."""
    title = phase.title
    if title in UNWATCHED:
        timeout_s += phase.budget_s
    began = time.perf_counter()
    for player in trial.players:
        player.under_way = False
    ends_at_s = phase.budget_s + 3 * timeout_s if hard else None
    run = partial(phase.run, trial)
    try:
        tell = partial(_tell, title)
        within(timeout_s, run, beat=trial.calls, ends_at_s=ends_at_s, tell=tell)
    except TimeUp as up:
        waited = duration(time.perf_counter() - began)
        says = f"{_where(trial, title)} no answer after {waited}: it stood in {up}"
        advice = "nothing may wait for ever: give sockets, locks and loops a limit, and raise when it is reached"
        trial.found.error("hangs", says, advice)
    except (ConfigError, EnvError) as error:
        name = title if title in REFUSED else "rows"
        advice = SHARED if trial.rows else REFUSED[name]
        trial.found.error(name, str(error), advice)
    except (
        RAISED
    ) as error:  # `sys.exit()` too, which would end the check as if all were well
        _note_raised(trial, title, error)
    else:
        return True
    return False


def _tell(title: str, seconds: float) -> None:
    said = f"check-env: `{title}` goes on after {seconds:.0f} s"
    print(said, file=sys.stderr, flush=True)


def _close(trial: Trial) -> None:
    """Closes what was made, each twice; what hangs is left alone."""
    found = trial.found
    if found.has("hangs"):
        return
    if trial.rows:
        close_all(trial)
        found.ok("close", "works")
    for env in trial.envs:
        for turn in ("first", "second"):
            try:
                env.close()
            except RAISED as error:
                says = f"the {turn} close() raised {_named(error)}"
                advice = "close() frees what is there and may be called twice: if self.window: self.window.close()"
                note = found.error if turn == "first" else found.warn
                note("close", says, advice)
                break
    if trial.envs:
        found.ok("close", "works, twice")


def _note_raised(trial: Trial, title: str, error: BaseException) -> None:
    found = trial.found
    says = f"{_where(trial, title, error)} {_named(error)}, in {_place(error)}"
    if title == "make":
        advice = "it must be possible to make it, and more than once in one process"
        found.error("make", says, advice)
    elif title == "workers":
        found.error("workers", says, REFUSED["workers"])
    elif isinstance(error, TypeError) and "reset()" in str(error):
        advice = "write def reset(self, *, seed=None, options=None), and begin it with super().reset(seed=seed)"
        found.error("reset", says, advice)
    else:
        advice = "an exception ends the run: handle it in the environment, or end the episode by truncated=True"
        found.error("raises", says, advice)


def _where(trial: Trial, title: str, error: BaseException | None = None) -> str:
    """Where the environment stood in a phase that did not come to its end."""
    for player in trial.players:
        if player.under_way:
            return player.where()
    for note in _notes(error):
        return note.removeprefix("shoal: raised by ")
    return PLACES.get(title, "in rows of `serial`:")


def _notes(error: BaseException | None) -> list[str]:
    return getattr(error, "__notes__", [])


def _place(error: BaseException) -> str:
    """The line that raised; in a worker, which the error's note tells."""
    noted = [note for note in _notes(error) if note.startswith("shoal: in worker")]
    frames: list[tuple[str, str, str]] = []
    if noted:
        frames = re.findall(r'File "(.+?)", line (\d+), in (\S+)', noted[-1])
    if not frames:
        return place(traceback.extract_tb(error.__traceback__))
    file, line, name = frames[-1]
    return f"{Path(file).name}:{line} in {name}, in a worker's process"


def _named(error: BaseException) -> str:
    return f"{type(error).__name__}: {shown(error)}"
