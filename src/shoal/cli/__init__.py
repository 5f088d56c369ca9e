"""The command line: parse first, import torch after."""

from __future__ import annotations

import os
import sys
import traceback
import warnings
from dataclasses import dataclass, make_dataclass, replace
from difflib import get_close_matches
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, NoReturn

import tyro

from shoal.types import ConfigError, EnvError

if TYPE_CHECKING:
    from collections.abc import Callable

COMMANDS = {
    "train": "train ENV: train a policy, then play 100 greedy episodes; exit status 0 only if they meet the threshold",
    "resume": "resume RUN: continue a run from its newest checkpoint",
    "eval": "eval RUN: play fresh episodes with a trained policy; --video films them",
    "report": "report RUN: draw the curves of a run into its directory, as curves.png and report.html",
    "runs": "list the runs: environment, algorithm, steps, return, state",
    "compare": "compare runs or configurations over seeds, at equal environment steps",
    "check-env": "check-env ENV: try an environment of one's own out, and say what to fix",
    "new-env": "new-env NAME: begin an environment in C++: its header, its test and its page",
    "envs": "list the environments",
    "algos": "list the algorithms",
}


MET, MISSED, BAD_USAGE, FAILED, INTERRUPTED, NO_READER = 0, 1, 2, 3, 130, 141
STATUSES = (
    "Exit status: 0, the greedy episodes met the threshold, or there is none; 1, they missed it; 2, a mistake in the "
    "options or settings; 3, the run failed (the environment, the disk, a loss that is not finite); 130, Ctrl-C."
)

ENV_OPTIONS = (
    "--env.NAME VALUE sets a parameter of the environment; uniform:LOW,HIGH, loguniform:LOW,HIGH, choice:A,B,... or "
    "normal:MEAN,STD,LOW,HIGH has every episode draw it; 'uniform:LOW,HIGH from START over STEPS' widens the range."
)


def main() -> None:
    """Entry point of `shoal`."""
    arguments = sys.argv[1:]
    if not arguments or arguments[0] in ("-h", "--help"):
        print("usage: shoal COMMAND [options]      (shoal COMMAND --help shows them)\n")
        print("\n".join(f"  {name:<9} {text}" for name, text in COMMANDS.items()))
        sys.exit(0 if arguments else 2)
    name = arguments[0]
    if name not in COMMANDS:
        near = get_close_matches(name, COMMANDS, n=2) or list(COMMANDS)
        _fail(
            BAD_USAGE, f"shoal: no command {name!r}; did you mean {' or '.join(near)}?"
        )
    actions: dict[str, Callable[[list[str]], int]] = {
        "train": _train,
        "resume": _resume,
        "eval": _eval,
        "report": _report,
        "runs": _runs,
        "compare": _compare,
        "check-env": _check_env,
        "new-env": _new_env,
        "envs": _envs,
        "algos": _algos,
    }
    sys.path.append(
        str(Path.cwd())
    )  # `--policy package.module:Class` and environments of one's own
    warnings.showwarning = _show_warning
    try:
        status = actions[name](arguments[1:])
        sys.stdout.flush()
        sys.exit(status)
    except ConfigError as error:
        _fail(BAD_USAGE, f"shoal {name}: {error}")
    except BrokenPipeError:  # the reader, such as `head`, has gone
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(NO_READER)
    except (EnvError, FloatingPointError, OSError) as error:
        _fail(FAILED, f"shoal {name}: {error}")
    except KeyboardInterrupt:
        sys.exit(INTERRUPTED)
    except (
        Exception
    ):  # an environment's or a policy's own, whose author needs to see where
        traceback.print_exc()
        sys.exit(FAILED)


def _fail(status: int, message: str) -> NoReturn:
    print(message, file=sys.stderr)
    sys.exit(status)


def _show_warning(message: Warning | str, *_: Any, **__: Any) -> None:
    print(f"warning: {message}", file=sys.stderr)


@dataclass(frozen=True, slots=True)
class Several:
    """Options of `train` that are about more than one run, or about what is printed."""

    seeds: int = 1
    """Train this many runs, one after another, with seeds seed, seed + 1, ..."""
    config: Path | None = None
    """A config.toml (of a run, or one's own) to start from."""
    json: bool = False
    """Print each line of metrics as JSON."""
    plain: bool = False
    """Print plain lines instead of the live panel."""
    report: bool = True
    """Draw curves.png and report.html into the run directory at the end."""


def _train(arguments: list[str]) -> int:
    from shoal import algos
    from shoal.algos.presets import preset
    from shoal.experiment.experiment import Experiment
    from shoal.experiment.options import Options
    from shoal.experiment.settings import resolve
    from shoal.experiment.training import start as begin
    from shoal.run.directory import read_toml

    arguments, own_kwargs = _env_kwargs(arguments)
    config_file, name = _peek(arguments, "--config"), _peek(arguments, "--preset")
    saved = read_toml(Path(config_file)) if config_file else {}
    algo = _peek(arguments, "--algo") or saved.get("algo", "ppo")
    positional = (
        arguments[0] if arguments and not arguments[0].startswith("-") else None
    )
    module = algos.load(algo)
    named = _peek(arguments, "--env")
    if positional and named and positional != named:
        raise ConfigError(
            f"the environment is named twice: {positional} and --env {named}"
        )
    env = positional or _peek(arguments, "--env") or saved.get("env", "CartPole-v1")
    if saved:
        if name or algo != saved.get("algo", "ppo"):
            raise ConfigError(
                f"{config_file} decides the algorithm and its settings; leave --algo and --preset out"
            )
        read = Experiment.of_file(saved | {"env": env})
        start, config, env_kwargs = read.options, read.config, read.env_kwargs
    else:
        layers = (algos.defaults(module), preset(algo, name, env))
        named_in = {"env": env, "algo": algo}
        start, config = resolve(Options, module.Config, *layers, named_in)
        env_kwargs = None
    rest = arguments[1:] if positional else arguments
    form: Any = make_dataclass(
        "Train",
        [
            ("launch", Annotated[Options, tyro.conf.arg(name="")]),
            ("several", Annotated[Several, tyro.conf.arg(name="")]),
            ("algorithm", Annotated[module.Config, tyro.conf.arg(name="")]),
        ],
    )
    given: Any = tyro.cli(
        form,
        prog="shoal train [ENV]",
        description=f"{COMMANDS['train']}\n\n{ENV_OPTIONS}\n\n{STATUSES}",
        args=["--env", env, *rest],
        default=form(start, Several(), config),
    )
    env_kwargs = {**(env_kwargs or {}), **own_kwargs}
    if given.several.seeds < 1:
        raise ConfigError(f"--seeds must be at least 1, got {given.several.seeds}")
    panel, seed = (
        _panel(json=given.several.json, plain=given.several.plain),
        given.launch.seed,
    )
    status = MET
    for number in range(given.several.seeds):
        own = replace(given.launch, seed=seed + number)
        report = given.several.report
        experiment = Experiment(
            own, given.algorithm, module, own.env, env_kwargs, own.policy
        )
        result = begin(experiment, panel=panel, report=report)
        if result.interrupted:
            return INTERRUPTED
        status = status if result.solved else MISSED
    return status


def _panel(*, json: bool, plain: bool) -> str:
    return "json" if json else "plain" if plain else "auto"


def _resume(arguments: list[str]) -> int:
    from shoal.experiment import training

    def options(
        run: tyro.conf.Positional[str],
        run_dir: str = "runs",
        total_timesteps: int | None = None,
        stop_at: float | None = None,
        device: str | None = None,
        *,
        json: bool = False,
        plain: bool = False,
        report: bool = True,
    ) -> Any:
        """Options of `resume`.

        Args:
            run: a run directory, or a folder of runs (the newest).
            run_dir: where it is looked for as well.
            total_timesteps: environment steps of the whole run, if they shall be others than planned.
            stop_at: mean return at which training stops, if it shall be another; inf never stops early.
            device: where the policy learns, if it shall be elsewhere.
            json: print each line of metrics as JSON.
            plain: print plain lines instead of the live panel.
            report: draw curves.png and report.html into the run directory at the end.
        """
        changes = {
            "total_timesteps": total_timesteps,
            "stop_at": stop_at,
            "device": device,
        }
        settings = {
            "run_dir": run_dir,
            "panel": _panel(json=json, plain=plain),
            "report": report,
        }
        return run, settings | {
            name: value for name, value in changes.items() if value is not None
        }

    about = f"{COMMANDS['resume']}\n\n{STATUSES}"
    run, settings = tyro.cli(
        options, prog="shoal resume", args=arguments, description=about
    )
    result = training.resume(run, **settings)
    return INTERRUPTED if result.interrupted else MET if result.solved else MISSED


def _eval(arguments: list[str]) -> int:
    from shoal.experiment.agent import load
    from shoal.report.video import check_target

    def options(
        run: tyro.conf.Positional[str],
        run_dir: str = "runs",
        episodes: int = 100,
        seed: int = 0,
        tag: Literal["", "best"] = "",
        video: Path | None = None,
        video_rows: int = 4,
        video_steps: int = 2000,
    ) -> Any:
        """Options of `eval`.

        Args:
            run: a run directory, or a folder of runs (the newest).
            run_dir: where it is looked for as well.
            episodes: how many to play, each with the policy's likeliest actions.
            seed: of the episodes; another one plays others.
            tag: the checkpoint: the newest, or the best.
            video: an .mp4 or .gif to write, of the first episodes side by side.
            video_rows: how many of them.
            video_steps: where the video ends though some of them go on.
        """
        return (run, run_dir, tag), (episodes, seed), (video, video_rows, video_steps)

    arguments, env_kwargs = _env_kwargs(arguments)
    about = f"{COMMANDS['eval']}\n\n{ENV_OPTIONS}"
    given = tyro.cli(options, prog="shoal eval", args=arguments, description=about)
    (run, run_dir, tag), (episodes, seed), (video, video_rows, video_steps) = given
    if video is not None:
        check_target(video)
    loaded = load(run, run_dir=run_dir, tag=tag, env_kwargs=env_kwargs)
    score = loaded.evaluate(episodes=episodes, seed=seed)
    print(
        f"mean return {score.mean:.2f}, standard deviation {score.std:.2f}, {episodes} greedy episodes",
        flush=True,
    )
    if video is not None:
        os.environ.setdefault(
            "SDL_VIDEODRIVER", "dummy"
        )  # pygame draws into memory: it shall open no window
        os.environ.setdefault("PYGAME_HIDE_SUPPORT_PROMPT", "1")
        film = loaded.film(video, rows=video_rows, seed=seed, max_steps=video_steps)
        print(
            f"video: {video}, {film.frames} frames, returns {', '.join(f'{x:.1f}' for x in film.returns)}"
        )
    return 0


def _report(arguments: list[str]) -> int:
    from shoal.report.html import write_report
    from shoal.run.directory import find

    def options(run: tyro.conf.Positional[str], run_dir: str = "runs") -> Any:
        """Options of `report`.

        Args:
            run: a run directory, or a folder of runs (the newest).
            run_dir: where it is looked for as well.
        """
        return run, run_dir

    run, run_dir = tyro.cli(
        options, prog="shoal report", args=arguments, description=COMMANDS["report"]
    )
    print(write_report(find(run, Path(run_dir))))
    return 0


def _runs(arguments: list[str]) -> int:
    from shoal.report.run_table import print_runs

    def options(run_dir: str = "runs") -> str:
        """Options of `runs`.

        Args:
            run_dir: the folder of run directories.
        """
        return run_dir

    print_runs(
        Path(
            tyro.cli(
                options, prog="shoal runs", args=arguments, description=COMMANDS["runs"]
            )
        )
    )
    return 0


def _compare(arguments: list[str]) -> int:
    from shoal.report.compare import compare

    def options(
        runs: tyro.conf.Positional[tuple[str, ...]],
        seeds: int = 5,
        plot: str = "compare.png",
        run_dir: str = "runs",
    ) -> Any:
        """Options of `compare`.

        Args:
            runs: runs, folders of runs, or config files (*.toml), of which missing runs are trained.
            seeds: seeds of each config file, from its own seed on.
            plot: the PNG to write.
            run_dir: where runs stand.
        """
        return runs, seeds, plot, run_dir

    given = tyro.cli(
        options, prog="shoal compare", args=arguments, description=COMMANDS["compare"]
    )
    runs, seeds, plot, run_dir = given
    trainer: Any = None
    if any(path.endswith(".toml") for path in runs):
        from shoal.experiment import training as trainer
    compare(runs, Path(run_dir), plot=Path(plot), seeds=seeds, trainer=trainer)
    return 0


def _check_env(arguments: list[str]) -> int:
    from shoal.cli.environments import check_env_command

    return check_env_command(arguments, about=COMMANDS["check-env"])


def _new_env(arguments: list[str]) -> int:
    from shoal.cli.environments import new_env_command

    return new_env_command(arguments, about=COMMANDS["new-env"])


def _envs(arguments: list[str]) -> int:
    from shoal.envs import native

    tyro.cli(_nothing, prog="shoal envs", args=arguments, description=COMMANDS["envs"])
    print("native (C++):")
    for name in native.ids():
        print(f"  {name}")
    print(
        "any other Gymnasium id, or package.module:function, runs on the backend serial, e.g. Blackjack-v1"
    )
    return 0


def _algos(arguments: list[str]) -> int:
    from shoal.algos import summaries

    tyro.cli(
        _nothing, prog="shoal algos", args=arguments, description=COMMANDS["algos"]
    )
    for name, text in summaries().items():
        print(f"  {name:<6} {text}")
    return 0


def _nothing() -> None:
    """No options."""


def _env_kwargs(arguments: list[str]) -> tuple[list[str], dict[str, Any]]:
    """The arguments without those of the form `--env.NAME VALUE` or `--env.NAME=VALUE`, and what these set."""
    from shoal.check.check_env import read_value

    rest: list[str] = []
    found: dict[str, Any] = {}
    left = iter(arguments)
    for argument in left:
        if not argument.startswith("--env."):
            rest.append(argument)
            continue
        name, equals, value = argument.removeprefix("--env.").partition("=")
        value = value if equals else next(left, "")
        if not name or not value:
            raise ConfigError(f"{argument} needs a name and a value: --env.NAME VALUE")
        found[name] = read_value(value)
    return rest, found


def _peek(arguments: list[str], option: str) -> str | None:
    """The value of an option that must be known before the others can be parsed."""
    for at, argument in enumerate(arguments):
        if argument == option and at + 1 < len(arguments):
            return arguments[at + 1]
        if argument.startswith(f"{option}="):
            return argument.partition("=")[2]
    return None
