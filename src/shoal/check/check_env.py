"""`check_env`: what an environment must do to be trained, tried out on it and said in plain words."""

from __future__ import annotations

import contextlib
import re
import time
import tomllib
import traceback
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from shoal.check.play import Played, Player, check_ends, check_scales, play
from shoal.check.repeat import check_repeats, check_resume
from shoal.check.report import Findings, Report, Speed, duration, shown
from shoal.check.speed import NUM_ROWS, check_speed, run_bare, run_rows
from shoal.check.values import check_spaces
from shoal.check.watch import TimeUp, place, within
from shoal.check.workers import check_workers
from shoal.envs.agents.games import is_game
from shoal.envs.python_env import check_alike
from shoal.envs.registry import factory_of
from shoal.envs.serial import SerialEnv, make
from shoal.envs.workers.crew import Workers
from shoal.envs.workers.processes import START_S
from shoal.envs.workers.rows import make as make_workers
from shoal.types import ConfigError, EnvError

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    import gymnasium as gym

    from shoal.envs.vec_env import VecEnv
    from shoal.envs.workers.rows import WorkersEnv

PLAY_S, REPEAT_S, ROWS_S, BARE_S = 10.0, 4.0, 2.0, 3.0
MAX_REPEATED = 500
REFUSED = {
    "make": "return a gymnasium.Env",
    "spaces": "make the same spaces each time, whatever was drawn or loaded",
    "workers": "it steps in this process but not in another: give an import path or a function that makes it from "
    "numbers and texts, and open files, sockets and devices in its own __init__ and reset",
    "rows": "alone it did not do this: let no instance count, share or change what belongs to another",
}
PLACES = {
    "make": "while it was made:",
    "speed": "in a plain loop:",
    "close": "in close():",
}
RESUME_ROWS, NUM_PROCESSES = 3, 2
RUNS_OF_REPEATS = 16
"""So many times the repeated steps are made, over all instances and rows."""


def check_env(
    env: str | Callable[..., Any],
    *,
    steps: int = 5000,
    seed: int = 0,
    env_kwargs: dict[str, Any] | None = None,
    timeout_s: float = 30.0,
    backend: str = "serial",
    hard: bool = False,
) -> Report:
    """Tries the contract of an environment out, under random actions, in this process.

    Args:
        env: a Gymnasium id, `package.module:function`, or a callable that returns a new `gymnasium.Env` each time.
        steps: random steps of the longest check; fewer where they take more than some seconds.
        seed: of the environment and of the actions.
        env_kwargs: keywords of the environment's constructor.
        timeout_s: seconds after which a call that has not returned counts as hanging.
        backend: `workers` also steps rows of it in processes, which must do what rows of `serial` do.
        hard: end the process, its stack on stderr, should the environment block even Python's own signals.

    Raises:
        ConfigError: there is no such environment, or it takes no such keyword. What the environment does wrong is
            found, never raised.
    """
    if steps < 1 or timeout_s <= 0:
        raise ConfigError(
            f"steps must be at least 1 and timeout_s greater than 0, got {steps} and {timeout_s}"
        )
    if backend not in ("serial", "workers"):
        raise ConfigError(
            f"an environment is checked in rows of serial, or of workers too, got backend={backend!r}"
        )
    name = env if isinstance(env, str) else getattr(env, "__name__", type(env).__name__)
    began, skipped = time.perf_counter(), []
    check = Check(name, factory_of(env, env_kwargs or {}), steps=steps, seed=seed)
    check.startup_s = time.perf_counter() - began
    crew = (
        Workers(num_workers=NUM_PROCESSES, step_timeout_s=timeout_s)
        if backend == "workers"
        else None
    )
    for title, budget_s, phase in check.phases(crew):
        if check.blocked:
            skipped.append(title)
        elif not check.run(title, phase, timeout_s, budget_s=budget_s, hard=hard):
            check.blocked = True
    check.run("close", check.close, timeout_s, budget_s=0.0, hard=hard)
    return Report(
        name,
        check.found.all,
        (*check.skipped, *skipped),
        check.speed,
        time.perf_counter() - began,
    )


def read_kwargs(given: Sequence[str]) -> dict[str, Any]:
    """Keywords written as `name=value`; a value is TOML (`4`, `true`, `[1, 2]`), else a text as it stands."""
    read: dict[str, Any] = {}
    for text in given:
        name, equals, value = text.partition("=")
        if not equals or not name.isidentifier():
            raise ConfigError(f"--env-kwargs takes name=value, got {text!r}")
        read[name] = read_value(value)
    return read


def read_value(text: str) -> Any:
    """A value as TOML writes it, else the text as it stands."""
    try:
        return tomllib.loads(f"value = {text}")["value"]
    except tomllib.TOMLDecodeError:
        return text


class Check:
    """The phases of a check, one after another, on two instances of an environment."""

    def __init__(
        self,
        name: str,
        factory: Callable[[], gym.Env[Any, Any]],
        *,
        steps: int,
        seed: int,
    ) -> None:
        """`factory` makes a new environment each time."""
        self.name, self.factory, self.steps, self.seed = name, factory, steps, seed
        self.found = Findings()
        self.envs: list[gym.Env[Any, Any]] = []
        self.blocked = False
        self.skipped: list[str] = []
        self.speed: Speed | None = None
        self.startup_s = 0.0
        self._played = Played()
        self._players: list[Player] = []

    def phases(
        self, crew: Workers | None
    ) -> list[tuple[str, float, Callable[[], None]]]:
        """What is checked in each phase, the seconds that it takes of its own, and the phase.

        `crew`: how rows in processes are made, if they shall be.
        """
        phases: list[tuple[str, float, Callable[[], None]]] = [
            ("make", 0.0, self._make),
            ("spaces", 0.0, self._spaces),
            ("values", PLAY_S, self._play),
            ("determinism", REPEAT_S, self._repeat),
            ("rows", ROWS_S, self._rows),
            ("speed", BARE_S, self._bare),
            ("resume", REPEAT_S, self._resume),
        ]
        if crew is not None:
            phases.append(("workers", START_S + REPEAT_S, lambda: self._workers(crew)))
        return phases

    def run(
        self,
        title: str,
        phase: Callable[[], None],
        timeout_s: float,
        *,
        budget_s: float,
        hard: bool,
    ) -> bool:
        """Whether a phase came to its end; if not, why is found."""
        if title in ("rows", "workers"):  # where no single step is watched
            timeout_s += budget_s
        began = time.perf_counter()
        for player in self._players:
            player.under_way = False
        try:
            within(
                timeout_s,
                phase,
                beat=self._beat,
                ends_at_s=budget_s + 3 * timeout_s if hard else None,
            )
        except TimeUp as up:
            says = f"{self._where(title)} no answer after {duration(time.perf_counter() - began)}: it stood in {up}"
            advice = "nothing may wait for ever: give sockets, locks and loops a limit, and raise when it is reached"
            self.found.error("hangs", says, advice)
        except (ConfigError, EnvError) as error:
            name = title if title in ("make", "spaces", "workers") else "rows"
            self.found.error(name, str(error), REFUSED[name])
        except Exception as error:
            self._raised(title, error)
        else:
            return True
        return False

    def close(self) -> None:
        """Closes what was made, each twice."""
        for env in self.envs if not self.found.has("hangs") else []:
            for time_of in ("first", "second"):
                try:
                    env.close()
                except Exception as error:
                    says = f"the {time_of} close() raised {_named(error)}"
                    advice = "close() frees what is there and may be called twice: if self.window: self.window.close()"
                    note = self.found.error if time_of == "first" else self.found.warn
                    note("close", says, advice)
                    break
        if self.envs and not self.found.has("hangs"):
            self.found.ok("close", "works, twice")

    def _make(self) -> None:
        began = time.perf_counter()
        self.envs.append(self.factory())
        self.startup_s += time.perf_counter() - began
        if is_game(self.envs[0]):
            self.found.error(
                "make",
                "has several agents",
                "pettingzoo.test checks it: parallel_api_test or api_test",
            )
            self.blocked = True
            return
        self.envs.append(self.factory())
        if self.envs[0].unwrapped is self.envs[1].unwrapped:
            says = "made twice, it is the same object"
            advice = "return a new environment from each call: rows are environments of their own"
            self.found.error("make", says, advice)
            self.blocked = True
        self.found.ok(
            "make",
            f"made twice, two objects, in {duration(time.perf_counter() - began)}",
        )

    def _spaces(self) -> None:
        check_spaces(self.found, self.envs[0])
        self.blocked = self.found.has("spaces") and self.found.failed
        if not self.blocked:
            check_alike(self.envs, self.name)

    def _play(self) -> None:
        self._players = [Player(env, self.name) for env in self.envs]
        self._played = play(
            self.found,
            self._players[0],
            seed=self.seed,
            steps=self.steps,
            budget_s=PLAY_S,
        )
        self.startup_s += self._played.first_reset_s
        if not self.found.failed:
            check_ends(self.found, self.envs[0], self._played)
            check_scales(self.found, self._played)
        self.blocked = self.found.failed

    def _repeat(self) -> None:
        player, other = self._players
        check_repeats(self.found, player, other, seed=self.seed, count=self._count())

    def _rows(self) -> None:
        rows = self._make_rows(NUM_ROWS)
        per_s = 0.0
        if rows:
            try:
                per_s = run_rows(
                    rows, seed=self.seed, steps=self.steps, budget_s=ROWS_S
                )
            finally:
                _close(rows)
            self.found.ok("rows", f"{NUM_ROWS} rows of the backend `serial` step")
        self.speed = Speed(self.startup_s, 0.0, per_s, NUM_ROWS, 0.0, 0.0)

    def _bare(self) -> None:
        player = self._players[0]
        loop = run_bare(player, steps=self.steps, budget_s=BARE_S)
        seconds = loop.step_s + loop.reset_s
        rows = self.speed.rows if self.speed else 0.0
        share, grown = loop.reset_s / seconds, max(0.0, loop.bytes_per_step)
        self.speed = Speed(
            self.startup_s, loop.steps / seconds, rows, NUM_ROWS, share, grown
        )
        check_speed(self.found, loop, self.speed, player)

    def _resume(self) -> None:
        if self.found.has("determinism", "shared") or not (
            rows := self._make_rows(RESUME_ROWS)
        ):
            self.skipped.append("resume")
            return
        again = self._make_rows(RESUME_ROWS)
        try:
            check_resume(
                self.found, rows, again or rows, seed=self.seed, count=self._count()
            )
        finally:
            _close(rows)
            if again:
                _close(again)

    def _workers(self, crew: Workers) -> None:
        if not (here := self._make_rows(NUM_ROWS)):
            self.skipped.append("workers")
            return
        there: WorkersEnv | None = None
        try:
            there = make_workers(self.factory, NUM_ROWS, name=self.name, workers=crew)
            if check_workers(
                self.found, here, there, seed=self.seed, count=self._count()
            ):
                per_s = run_rows(
                    there, seed=self.seed, steps=self.steps, budget_s=ROWS_S
                )
                done = f"{NUM_ROWS} rows in {NUM_PROCESSES} processes do the same: {per_s:,.0f} steps per second"
                self.found.ok("workers", done)
                self.speed = replace(self.speed, workers=per_s) if self.speed else None
        finally:
            _close(here)
            if there is not None:
                _close(there)

    def _make_rows(self, number: int) -> SerialEnv | None:
        """Rows of the backend `serial`; None where it cannot hold the spaces, of which was warned before."""
        try:
            return make(self.factory, number, name=self.name)
        except ConfigError:
            if not self.found.has("spaces"):
                raise
            self.skipped += [] if "rows" in self.skipped else ["rows"]
            return None

    def _beat(self) -> int:
        return sum(player.calls for player in self._players)

    def _count(self) -> int:
        """Steps that are repeated: as many as the time allows, at the speed seen before."""
        per_s = self._played.steps / max(self._played.seconds, 1e-6)
        return max(
            10, min(MAX_REPEATED, self.steps, int(per_s * REPEAT_S / RUNS_OF_REPEATS))
        )

    def _raised(self, title: str, error: Exception) -> None:
        says = f"{self._where(title, error)} {_named(error)}, in {_place(error)}"
        if title == "make":
            self.found.error(
                "make",
                says,
                "it must be possible to make it, and more than once in one process",
            )
        elif title == "workers":
            self.found.error("workers", says, REFUSED["workers"])
        elif isinstance(error, TypeError) and "reset()" in str(error):
            advice = "write def reset(self, *, seed=None, options=None), and begin it with super().reset(seed=seed)"
            self.found.error("reset", says, advice)
        else:
            advice = "an exception ends the run: handle it in the environment, or end the episode by truncated=True"
            self.found.error("raises", says, advice)

    def _where(self, title: str, error: Exception | None = None) -> str:
        """Where the environment stood in a phase that did not come to its end."""
        playing = [player.where() for player in self._players if player.under_way]
        notes = [
            note.removeprefix("shoal: raised by ")
            for note in getattr(error, "__notes__", [])
        ]
        return (playing or notes or [PLACES.get(title, "in rows of `serial`:")])[0]


def _close(rows: VecEnv) -> None:
    """Closes rows; what an environment's close raises is found where it is called by itself."""
    with contextlib.suppress(Exception):
        rows.close()


def _place(error: Exception) -> str:
    """The line that raised; in a worker, which the error's note tells."""
    noted = [
        note
        for note in getattr(error, "__notes__", [])
        if note.startswith("shoal: in worker")
    ]
    frames = (
        re.findall(r'File "(.+?)", line (\d+), in (\S+)', noted[-1]) if noted else []
    )
    if not frames:
        return place(traceback.extract_tb(error.__traceback__))
    file, line, name = frames[-1]
    return f"{Path(file).name}:{line} in {name}, in a worker's process"


def _named(error: Exception) -> str:
    return f"{type(error).__name__}: {shown(error)}"
