"""The commands about environments of one's own: check-env and new-env."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, Literal

import tyro


def check_env_command(arguments: list[str], *, about: str) -> int:
    """`shoal check-env`: the exit status."""
    from shoal.check.check_env import check_env, read_kwargs

    def options(
        env: tyro.conf.Positional[str],
        env_kwargs: tuple[str, ...] = (),
        steps: int = 5000,
        seed: int = 0,
        timeout: float = 30.0,
        backend: Literal["serial", "workers"] = "serial",
        *,
        json: bool = False,
    ) -> Any:
        """Options of `check-env`.

        Args:
            env: a Gymnasium id, or package.module:function (or :Class).
            env_kwargs: keywords of its constructor, as name=value.
            steps: random steps of the longest check.
            seed: of the environment and of the actions.
            timeout: seconds after which a call that has not returned counts as hanging.
            backend: workers also steps rows of it in processes, which must do what rows of serial do.
            json: print one JSON object instead of the table.
        """
        settings = {
            "env_kwargs": read_kwargs(env_kwargs),
            "steps": steps,
            "seed": seed,
            "timeout_s": timeout,
        }
        return env, settings | {"backend": backend}, json

    about = (
        f"{about}\n\nExit status: 0, no errors; 1, errors; 2, a mistake in the options."
    )
    env, settings, as_json = tyro.cli(
        options, prog="shoal check-env", args=arguments, description=about
    )
    report = check_env(env, **settings, hard=True)
    if as_json:
        print(json.dumps(report.record()))
    else:
        from rich.console import Console

        report.show(Console(highlight=False))
    return 0 if report.ok else 1


def new_env_command(arguments: list[str], *, about: str) -> int:
    """`shoal new-env`: the exit status."""
    from shoal.envs.scaffold import new_env

    def options(name: tyro.conf.Positional[str]) -> str:
        """Options of `new-env`.

        Args:
            name: of the environment, such as fruit_catch; called in a checkout of shoal.
        """
        return name

    written = new_env(
        tyro.cli(options, prog="shoal new-env", args=arguments, description=about),
        Path(),
    )
    print("\n".join(str(path) for path in written))
    print(f"`make` builds it; `make test ARGS=tests/{written[1].name}` tests it")
    return 0
