"""Algorithms: one file each, a frozen config and a loop, readable top to bottom; and how one is found by its name."""

from __future__ import annotations

import ast
import importlib
from dataclasses import is_dataclass
from difflib import get_close_matches
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, cast

from shoal.types import ConfigError

if TYPE_CHECKING:
    from collections.abc import Mapping
    from types import ModuleType

    from torch import nn

    from shoal.envs.vec_env import VecEnv
    from shoal.run.run import Run
    from shoal.types import Spec

DEFAULT = "ppo"
"""The algorithm that is taken where none is named."""


class Algorithm(Protocol):
    """What a module must offer to be trained, resumed, evaluated and compared like shoal's own.

    It may also have `make_policy(spec, cfg, seed)`, where the default network will not do, and `DEFAULTS`, a dict of
    the run's settings that suit it, such as {"num_envs": 32}.
    """

    __name__: str
    Config: type[Any]
    """A frozen dataclass of the algorithm's own settings."""

    def train(self, cfg: Any, env: VecEnv, run: Run, /) -> nn.Module:
        """Trains until the run ends and returns the policy."""
        ...


def summaries() -> dict[str, str]:
    """The names of shoal's algorithms and the first sentence of each file, read without importing it (or torch)."""
    found: dict[str, str] = {}
    for path in sorted(Path(__file__).parent.glob("*.py")):
        parsed = ast.parse(path.read_text(encoding="utf-8"))
        defined = {getattr(node, "name", "") for node in parsed.body}
        if "train" in defined:
            found[path.stem] = (ast.get_docstring(parsed) or "").partition("\n")[0]
    return found


def load(algo: str | Algorithm | ModuleType) -> Algorithm:
    """An algorithm by the name of its module: `ppo`, `my_package.my_algo`, or the module itself.

    Raises:
        ConfigError: there is no such algorithm (with the nearest names), or the module lacks what one must have.
    """
    if not isinstance(algo, str):
        return checked(algo)
    if "." in algo:
        try:
            return checked(importlib.import_module(algo))
        except ModuleNotFoundError as error:
            if error.name is None or not algo.startswith(error.name):
                raise
            raise ConfigError(
                f"no module {error.name!r} for the algorithm {algo!r}; is its folder on the path?"
            ) from error
    names = list(summaries())
    if algo not in names:
        near = get_close_matches(algo, names, n=3, cutoff=0.4) or names
        raise ConfigError(
            f"no algorithm {algo!r}; did you mean {' or '.join(near)}? "
            "One of your own is named by its module, such as my_package.my_algo"
        )
    return checked(importlib.import_module(f"shoal.algos.{algo}"))


def checked(module: object) -> Algorithm:
    """The module as an algorithm; ConfigError with the missing piece."""
    name = getattr(module, "__name__", repr(module))
    config = getattr(module, "Config", None)
    if not isinstance(config, type) or not is_dataclass(config):
        raise ConfigError(
            f"{name} is no algorithm: it has no Config, a frozen dataclass of its settings"
        )
    if not callable(getattr(module, "train", None)):
        raise ConfigError(f"{name} is no algorithm: it has no train(cfg, env, run)")
    own = getattr(module, "make_policy", None)
    if own is not None and not callable(own):
        raise ConfigError(f"{name}: make_policy must be make_policy(spec, cfg, seed)")
    return cast("Algorithm", module)


def name_of(algorithm: Algorithm) -> str:
    """The name by which `load` finds it again."""
    return algorithm.__name__.removeprefix("shoal.algos.")


def defaults(algorithm: Algorithm) -> Mapping[str, Any]:
    """The run's settings that suit an algorithm."""
    return getattr(algorithm, "DEFAULTS", {})


def make_policy(algorithm: Algorithm, spec: Spec, cfg: object, seed: int) -> nn.Module:
    """The policy of an algorithm: its own, or the default network with weights drawn from `seed`."""
    own = getattr(algorithm, "make_policy", None)
    if own is not None:
        return own(spec, cfg, seed)
    from shoal.nets import policy

    network = getattr(cfg, "network", None) or policy.Network()
    return policy.make_policy(spec, network, seed)
