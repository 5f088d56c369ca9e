"""`shoal new-env NAME`: a small whole environment in C++ to begin from, with its test and its page."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING

from shoal.types import ConfigError

if TYPE_CHECKING:
    from collections.abc import Mapping

HEADER = """\
// @id@: walk along a line to a goal.
#pragma once

#include <algorithm>

#include "core/env.hpp"

namespace shoal {

struct @Name@ {
  static constexpr std::string_view id = "@id@";
  static constexpr Box<2> observation_space{{-1, -1}, {1, 1}};  // the place and the goal
  static constexpr Discrete action_space{3};                    // stay, left, right
  static constexpr int max_episode_steps = 50;                  // 0: no limit
  static constexpr std::optional<double> reward_threshold = 0.9;
  static constexpr Frame frame{16, 84};

  struct Params {
    double step_cost = 0.01;
    static constexpr auto fields() { return std::array{Field{"step_cost", &Params::step_cost, 0, 1}}; }
  };

  // The state: numbers and arrays of numbers, no pointers.
  int place, goal;

  void reset(const Params& /*params*/, Pcg64& rng) noexcept {
    place = 0;
    goal = rng.next_double() < 0.5 ? -5 : 5;
  }

  Outcome step(const Params& params, std::int64_t action) noexcept {
    place = std::clamp(place + (action == 1 ? -1 : (action == 2 ? 1 : 0)), -10, 10);
    const bool reached = place == goal;
    return {(reached ? 1.0 : 0.0) - params.step_cost, reached};
  }

  void observe(std::span<float, 2> obs) const noexcept {
    obs[0] = static_cast<float>(place) / 10;
    obs[1] = static_cast<float>(goal) / 10;
  }

  // Whether a step may come to this state: asked when a row is restored from a checkpoint, whose bytes may be anything.
  bool valid(const Params& /*params*/) const noexcept {
    return place >= -10 && place <= 10 && (goal == -5 || goal == 5);
  }

  // A picture; leave it and `frame` out where there is nothing to see.
  void render(const Params& /*params*/, std::span<std::uint8_t> rgb) const noexcept {
    Canvas canvas(frame, rgb, colors::night);
    canvas.box((goal + 10) / 21.0, 0, (goal + 11) / 21.0, 1, colors::green);
    canvas.box((place + 10) / 21.0, 0, (place + 11) / 21.0, 1, colors::chalk);
  }
};

}  // namespace shoal
"""

TEST = '''\
"""@id@: steps worked by hand, and the best score."""

import numpy as np
import pytest

from shoal.envs.registry import make
from shoal.types import Ready

ENV_ID = "@id@"
STAY, LEFT, RIGHT = range(3)


def play(actions: list[int], **params: float) -> tuple[list[list[float]], Ready]:
    """One row from seed 0: the observations from the first on, and what the last step gave."""
    env = make(ENV_ID, 1, env_kwargs=dict(params))
    env.reset(0)
    ready = env.recv()
    seen = [ready.obs[0].tolist()]
    for action in actions:
        env.send(slice(0, 1), np.array([action]))
        ready = env.recv()
        seen.append(ready.obs[0].tolist())
    return seen, ready


def test_steps() -> None:
    seen, ready = play([LEFT, LEFT, STAY, RIGHT])
    assert [place for place, _ in seen] == pytest.approx([0, -0.1, -0.2, -0.2, -0.1])
    assert {abs(goal) for _, goal in seen} == {0.5}
    assert ready.reward[0] == -0.01
    assert not ready.terminated[0]


def test_the_best_score_is_five_steps_to_the_goal() -> None:
    goal = play([])[0][0][1]
    _, ready = play([LEFT if goal < 0 else RIGHT] * 5)
    assert ready.terminated[0]
    assert ready.episode_return[0] == pytest.approx(1 - 5 * 0.01)


def test_the_time_limit() -> None:
    _, ready = play([STAY] * 50)
    assert (ready.terminated[0], ready.truncated[0]) == (False, True)
    assert ready.episode_return[0] == pytest.approx(-0.5)


def test_the_parameter() -> None:
    assert play([STAY], step_cost=0.25)[1].reward[0] == -0.25
'''

FACTS = """\
| | |
|---|---|
| id | `@id@` |
| observation | the place and the goal, `Box(-1, 1, (2,))` |
| actions | stay, left, right |
| reward | 1 at the goal, less `step_cost` a step |
| parameters | `step_cost` 0.01, `max_episode_steps` 50 |
| best score | 0.95: five steps to the goal |
"""

PAGE = f"""\
# @Name@

Walk along a line to a goal. `native/envs/@stem@.hpp`, tested by `tests/test_env_@stem@.py`.

{FACTS}
```python
import shoal

run = shoal.train("@id@", total_timesteps=8_000, num_envs=8, panel="none")
print(run.greedy_return)
```
"""

FILES = {
    "native/envs/@stem@.hpp": HEADER,
    "tests/test_env_@stem@.py": TEST,
    "docs/worlds/@stem@.md": PAGE,
}


def new_env(name: str, folder: Path) -> list[Path]:
    """Writes the header, the test and the page of an environment; `make` then builds it, with nothing else edited.

    Args:
        name: such as `fruit_catch` or `FruitCatch`; the header's name, in camel case the struct's.
        folder: the checkout of shoal, or a folder in it.

    Raises:
        ConfigError: this is no checkout, or the name cannot be used; nothing is written then.
    """
    stem, struct = names_of(name)
    root = _checkout(folder.resolve())
    check_free(root / "native", stem, struct)
    words = {"@stem@": stem, "@Name@": struct, "@id@": f"shoal/{struct}-v0"}
    return write_files(root, FILES, words)


def names_of(name: str) -> tuple[str, str]:
    """The header's stem and the struct of an environment's name; ConfigError for one that cannot be used."""
    stem = re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "_", name).lower()
    if not re.fullmatch(r"[a-z][a-z0-9]*(_[a-z][a-z0-9]*)*", stem):
        raise ConfigError(
            f"an environment is named like fruit_catch or FruitCatch, got {name!r}"
        )
    return stem, "".join(word.capitalize() for word in stem.split("_"))


def write_files(
    root: Path, files: Mapping[str, str], words: Mapping[str, str]
) -> list[Path]:
    """Writes files below `root` with the words in the place of their marks; ConfigError where one is there already."""
    made: dict[Path, str] = {}
    for path, text in files.items():
        made[root / _filled(path, words)] = _filled(text, words)
    for path in made:
        if path.exists():
            raise ConfigError(f"{path} is there already; choose another name")
    for path, text in made.items():
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
    return list(made)


def _checkout(folder: Path) -> Path:
    for root in (folder, *folder.parents):
        if (root / "native/core/env.hpp").exists() and (root / "docs/worlds").is_dir():
            return root
    raise ConfigError(
        f"{folder} lies in no checkout of shoal, where environments are built in; "
        "`shoal new-env NAME --package` makes a package of its own, which needs none"
    )


def check_free(headers: Path, stem: str, struct: str) -> None:
    """Refuses a name that the native code already gives to something else."""
    taken = re.compile(
        rf"\b(?:struct|class|concept|using|namespace)\s+(?:{struct}|{stem})\b"
    )
    for path in sorted(headers.rglob("*.hpp")):
        if path.stem == stem or taken.search(path.read_text(encoding="utf-8")):
            raise ConfigError(
                f"{struct} is taken by {path.relative_to(headers.parent)}; choose another name"
            )


def _filled(text: str, words: Mapping[str, str]) -> str:
    for mark, word in words.items():
        text = text.replace(mark, word)
    return text
