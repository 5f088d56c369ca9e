"""Counted calls: environments inside rows, whose every reset and step is known to have returned."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import gymnasium as gym
from gymnasium.wrappers import TimeLimit

from shoal.envs.agents.games import is_game
from shoal.envs.python_env import strip

if TYPE_CHECKING:
    from collections.abc import Callable


class Counter:
    """Calls so far."""

    def __init__(self) -> None:
        self.calls = 0

    def counting(self, factory: Callable[[], Any]) -> Callable[[], Any]:
        """The factory's environments, each of whose calls counts."""

        def made() -> Any:
            env = factory()
            if is_game(env):
                return self._counted_game(env)
            inner, limit = strip(env)
            counted = Counted(inner, self)
            return counted if limit is None else TimeLimit(counted, limit)

        return made

    def _counted_game(self, env: Any) -> Any:
        """A game whose steps count; its own object, whose method is replaced."""
        step = env.step

        def counted(actions: Any) -> Any:
            self.calls += 1
            return step(actions)

        env.step = counted
        return env


class Counted(gym.Wrapper[Any, Any, Any, Any]):
    """An environment that counts its calls."""

    def __init__(self, env: gym.Env[Any, Any], counter: Counter) -> None:
        """`counter`: of all that is counted together."""
        super().__init__(env)
        self._counter = counter

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[Any, dict[str, Any]]:
        """Counts, then resets; without what was not given, as environments may not take it."""
        self._counter.calls += 1
        given: dict[str, Any] = {"seed": seed, "options": options}
        return self.env.reset(**{k: x for k, x in given.items() if x is not None})

    def step(self, action: Any) -> Any:
        """Counts, then steps."""
        self._counter.calls += 1
        return self.env.step(action)
