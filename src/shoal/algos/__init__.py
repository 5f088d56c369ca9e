"""Algorithms: one file each, a frozen config and a loop, readable top to bottom; and how one is found by its name."""

from __future__ import annotations

import ast
import importlib
import inspect
from dataclasses import is_dataclass
from difflib import get_close_matches
from functools import cache
from pathlib import Path
from threading import Lock
from typing import TYPE_CHECKING, Any, Protocol, cast

from shoal.envs.factories import as_module
from shoal.types import ConfigError

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from types import ModuleType

    from torch import nn

    from shoal.envs.vec_env import VecEnv
    from shoal.run.run import Run
    from shoal.types import Spec

DEFAULT = "ppo"
"""The algorithm that is taken where none is named."""


class Algorithm(Protocol):
    """What a module must offer to be trained, resumed, evaluated and compared like shoal's own.

    It may also have `make_policy(spec, cfg, seed)`, where the default network will not do, `PLAIN_POLICY(module,
    spec)`, which makes a policy of a user's plain module, `DEFAULTS`, a dict of the run's settings that suit it, such
    as {"num_envs": 32}, and `PERTURBABLE`, the names of the settings that it looks up at every step (else those that
    have a schedule), so that they may change while several agents train. One that corrects nothing where older weights
    chose has "max_staleness": 0 among its DEFAULTS: schedule="async" is refused there with more.
    """

    __name__: str
    Config: type[Any]
    """A frozen dataclass of the algorithm's own settings."""

    def train(self, cfg: Any, env: VecEnv, run: Run, /) -> nn.Module:
        """Trains until the run ends and returns the policy."""
        ...


ONE_PARSES = Lock()
"""Python 3.11 counts the depth of what it parses for all threads together, and raises SystemError where two parse."""


def summaries() -> dict[str, str]:
    """The names of shoal's algorithms and the first sentence of each file, read without importing it (or torch)."""
    return dict(_read_summaries())


@cache
def _read_summaries() -> dict[str, str]:
    """The same, read once: every run asks several times."""
    found: dict[str, str] = {}
    for path in sorted(Path(__file__).parent.glob("*.py")):
        with ONE_PARSES:
            parsed = ast.parse(path.read_text(encoding="utf-8"))
        defined = {getattr(node, "name", "") for node in parsed.body}
        if "train" in defined:
            found[path.stem] = (ast.get_docstring(parsed) or "").partition("\n")[0]
    return found


def load(algo: str | Algorithm | ModuleType) -> Algorithm:
    """An algorithm by its name in any case, by the name of its module (`my_package.my_algo`), or the module itself.

    Raises:
        ConfigError: there is no such algorithm (with the nearest names), or the module lacks what one must have.
    """
    if not isinstance(algo, str):
        return checked(algo)
    names = list(summaries())
    if algo.lower() in names:
        return checked(importlib.import_module(f"{__name__}.{algo.lower()}"))
    if algo.endswith(".py"):
        raise ConfigError(
            f"an algorithm of your own is named by its module, not by its file {algo!r}: write {as_module(algo)}"
        )
    parts = algo.split(".")
    if all(part.isidentifier() for part in parts):
        try:
            return checked(importlib.import_module(algo))
        except ModuleNotFoundError as error:
            missing = error.name or ""
            if not f"{algo}.".startswith(f"{missing}."):
                raise  # it is there; something that it imports is not
            if len(parts) > 1:
                raise ConfigError(
                    f"no module {missing!r} for the algorithm {algo!r}; is its folder on the path?"
                ) from error
    near = get_close_matches(algo, names, n=3, cutoff=0.4) or names
    raise ConfigError(
        f"no algorithm {algo!r}; did you mean {' or '.join(near)}? "
        "One of your own is named by its module, such as my_package.my_algo"
    )


def checked(module: object) -> Algorithm:
    """The module as an algorithm; ConfigError with the missing piece, or where its name would find shoal's own."""
    name = getattr(module, "__name__", repr(module))
    if name in summaries():
        raise ConfigError(
            f"the module {name} is called like shoal's own algorithm {name!r}, which its runs would be resumed and "
            "loaded with; rename the module or put it in a package"
        )
    config = getattr(module, "Config", None)
    if not isinstance(config, type) or not is_dataclass(config):
        raise ConfigError(
            f"{name} is no algorithm: it has no Config, a frozen dataclass of its settings"
        )
    if not _is_frozen(config):
        raise ConfigError(
            f"{name} is no algorithm: its Config can be changed; make it frozen: @dataclass(frozen=True)"
        )
    train = getattr(module, "train", None)
    if not callable(train):
        raise ConfigError(f"{name} is no algorithm: it has no train(cfg, env, run)")
    _check_call(f"{name}.train", train, "cfg, env, run")
    own = getattr(module, "make_policy", None)
    if own is not None:
        _check_call(f"{name}.make_policy", own, "spec, cfg, seed")
    return cast("Algorithm", module)


def _is_frozen(kind: type) -> bool:
    return kind.__dataclass_params__.frozen


def _check_call(name: str, function: Callable[..., object], takes: str) -> None:
    """ConfigError unless the function can be called with these arguments, by their order."""
    try:
        inspect.signature(function).bind(*takes.split(", "))
    except TypeError as error:
        raise ConfigError(f"{name} is called as ({takes}), but {error}") from error


def name_of(algorithm: Algorithm) -> str:
    """The name by which `load` finds it again."""
    return algorithm.__name__.removeprefix("shoal.algos.")


def defaults(algorithm: Algorithm) -> Mapping[str, Any]:
    """The run's settings that suit an algorithm."""
    return getattr(algorithm, "DEFAULTS", {})


def plain_policy(algorithm: Algorithm) -> Callable[[nn.Module, Spec], nn.Module]:
    """What makes a policy of a user's plain module: the algorithm's own, or `(logits, value)` is expected of it."""
    from shoal.nets.policy import PlainPolicy

    return getattr(algorithm, "PLAIN_POLICY", PlainPolicy)


def make_policy(algorithm: Algorithm, spec: Spec, cfg: object, seed: int) -> nn.Module:
    """The policy of an algorithm: its own, or the default network with weights drawn from `seed`.

    Raises:
        ConfigError: its own is no torch module.
    """
    from shoal.nets import policy

    own = getattr(algorithm, "make_policy", None)
    if own is not None:
        made = own(spec, cfg, seed)
        return policy.wrapped(made, spec, f"{algorithm.__name__}.make_policy")
    network = getattr(cfg, "network", None) or policy.Network()
    return policy.make_policy(spec, network, seed)
