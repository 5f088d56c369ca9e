"""The command line: parse first, import torch after."""

from __future__ import annotations

import sys
from dataclasses import dataclass, make_dataclass
from difflib import get_close_matches
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import tyro

from shoal.types import ConfigError, EnvError

if TYPE_CHECKING:
    from collections.abc import Callable

COMMANDS = {
    "train": "train ENV: train a policy, then play 100 greedy episodes; exit status 0 only if they meet the threshold",
    "resume": "resume RUN: continue a run from its newest checkpoint",
    "eval": "eval RUN: play fresh episodes with a trained policy",
    "runs": "list the runs: environment, algorithm, steps, return, state",
    "compare": "compare runs or configurations over seeds, at equal environment steps",
    "envs": "list the environments",
    "algos": "list the algorithms",
}


def main() -> None:
    """Entry point of `shoal`."""
    arguments = sys.argv[1:]
    if not arguments or arguments[0] in ("-h", "--help"):
        print("usage: shoal COMMAND [options]      (shoal COMMAND --help shows them)\n")
        print("\n".join(f"  {name:<8} {text}" for name, text in COMMANDS.items()))
        sys.exit(0 if arguments else 2)
    name = arguments[0]
    if name not in COMMANDS:
        near = get_close_matches(name, COMMANDS, n=2) or list(COMMANDS)
        sys.exit(f"shoal: no command {name!r}; did you mean {' or '.join(near)}?")
    actions: dict[str, Callable[[list[str]], int]] = {
        "train": _train,
        "resume": _resume,
        "eval": _eval,
        "runs": _runs,
        "compare": _compare,
        "envs": _envs,
        "algos": _algos,
    }
    try:
        sys.exit(actions[name](arguments[1:]))
    except (ConfigError, EnvError, OSError) as error:
        sys.exit(f"shoal {name}: {error}")
    except KeyboardInterrupt:
        sys.exit(130)


@dataclass(frozen=True, slots=True)
class Several:
    """Options of `train` that are about more than one run, or about what is printed."""

    seeds: int = 1
    """Train this many runs, with seeds seed, seed + 1, ..."""
    config: Path | None = None
    """A config.toml (of a run, or one's own) to start from."""
    json: bool = False
    """Print each line of metrics as JSON."""
    plain: bool = False
    """Print plain lines instead of the live panel."""


def _train(arguments: list[str]) -> int:
    from shoal import algos, job, launch
    from shoal.algos.presets import preset
    from shoal.run.config import build
    from shoal.run.directory import read_toml

    config_file = _peek(arguments, "--config")
    saved = read_toml(Path(config_file)) if config_file else {}
    algo = _peek(arguments, "--algo") or saved.get("algo", "ppo")
    positional = arguments[0] if arguments and not arguments[0].startswith("-") else None
    module = algos.load(algo)
    env = positional or saved.get("env", "CartPole-v1")
    if saved:
        _, start, config, env_kwargs = job.from_toml({"env": env} | saved)
    else:
        name = _peek(arguments, "--preset")
        start, config, env_kwargs = job.Launch(env, algo), build(module.Config, preset(algo, name, env)), None
    rest = arguments[1:] if positional else arguments
    form: Any = make_dataclass(
        "Train",
        [
            ("launch", Annotated[job.Launch, tyro.conf.arg(name="")]),
            ("several", Annotated[Several, tyro.conf.arg(name="")]),
            ("algorithm", Annotated[module.Config, tyro.conf.arg(name="")]),
        ],
    )
    given: Any = tyro.cli(
        form,
        prog="shoal train [ENV]",
        description=COMMANDS["train"],
        args=["--env", env, *rest],
        default=form(start, Several(), config),
    )
    panel = "json" if given.several.json else "plain" if given.several.plain else "auto"
    solved = True
    for number in range(given.several.seeds):
        result = launch.start(_seeded(given.launch, number), given.algorithm, panel=panel, env_kwargs=env_kwargs)
        solved &= result.solved
    return 0 if solved else 1


def _seeded(launched: Any, number: int) -> Any:
    from dataclasses import replace

    return replace(launched, seed=launched.seed + number)


def _resume(arguments: list[str]) -> int:
    from shoal import launch

    def options(run: tyro.conf.Positional[str], run_dir: str = "runs", *, json: bool = False) -> dict[str, Any]:
        return {"path": run, "run_dir": run_dir, "panel": "json" if json else "auto"}

    result = launch.resume(**tyro.cli(options, prog="shoal resume", args=arguments, description=COMMANDS["resume"]))
    return 0 if result.solved else 1


def _eval(arguments: list[str]) -> int:
    from shoal.loaded import load

    def options(run: tyro.conf.Positional[str], run_dir: str = "runs", episodes: int = 100, seed: int = 0) -> Any:
        return run, run_dir, episodes, seed

    run, run_dir, episodes, seed = tyro.cli(options, prog="shoal eval", args=arguments, description=COMMANDS["eval"])
    score = load(run, run_dir=run_dir).evaluate(episodes=episodes, seed=seed)
    print(f"mean return {score.mean:.2f}, standard deviation {score.std:.2f}, {episodes} greedy episodes")
    return 0


def _runs(arguments: list[str]) -> int:
    from shoal.run.compare import print_runs

    def options(run_dir: str = "runs") -> str:
        return run_dir

    print_runs(Path(tyro.cli(options, prog="shoal runs", args=arguments, description=COMMANDS["runs"])))
    return 0


def _compare(arguments: list[str]) -> int:
    from shoal.run.compare import compare

    def options(
        runs: tyro.conf.Positional[tuple[str, ...]], seeds: int = 5, plot: str = "compare.png", run_dir: str = "runs"
    ) -> Any:
        """Options of `compare`.

        Args:
            runs: runs, folders of runs, or config files (*.toml), of which missing runs are trained.
            seeds: seeds of each config file, from its own seed on.
            plot: the PNG to write.
            run_dir: where runs stand.
        """
        return runs, seeds, plot, run_dir

    given = tyro.cli(options, prog="shoal compare", args=arguments, description=COMMANDS["compare"])
    runs, seeds, plot, run_dir = given
    trainer: Any = None
    if any(path.endswith(".toml") for path in runs):
        from shoal import launch as trainer
    compare(runs, Path(run_dir), plot=Path(plot), seeds=seeds, trainer=trainer)
    return 0


def _envs(arguments: list[str]) -> int:
    from shoal.envs import native

    tyro.cli(_nothing, prog="shoal envs", args=arguments, description=COMMANDS["envs"])
    print("native (C++):")
    for name in native.ids():
        print(f"  {name}")
    print("any other Gymnasium id, or package.module:function, runs on the backend serial, e.g. LunarLander-v3")
    return 0


def _algos(arguments: list[str]) -> int:
    from shoal.algos import summaries

    tyro.cli(_nothing, prog="shoal algos", args=arguments, description=COMMANDS["algos"])
    for name, text in summaries().items():
        print(f"  {name:<6} {text}")
    return 0


def _nothing() -> None:
    """No options."""


def _peek(arguments: list[str], option: str) -> str | None:
    """The value of an option that must be known before the others can be parsed."""
    for at, argument in enumerate(arguments):
        if argument == option and at + 1 < len(arguments):
            return arguments[at + 1]
        if argument.startswith(f"{option}="):
            return argument.partition("=")[2]
    return None
