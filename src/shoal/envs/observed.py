"""What is kept of an observation: chosen keys of a Dict, texts as integers, and integers as zeros and ones."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any
from zlib import crc32

import gymnasium as gym
import numpy as np
from gymnasium import spaces
from gymnasium.wrappers import TimeLimit

from shoal.envs.agents.games import is_game
from shoal.envs.factories import near
from shoal.envs.masks import KEY
from shoal.envs.python_env import close_after, strip
from shoal.types import ConfigError, is_text

if TYPE_CHECKING:
    from collections.abc import Callable

    from gymnasium import Space
    from numpy.typing import NDArray

    from shoal.envs.preprocessing import Preprocessing
    from shoal.types import Tree

ALPHABET = " abcdefghijklmnopqrstuvwxyz0123456789"
"""Characters that are told apart, from number 2 on; 1 is any other one, 0 none."""
BUCKETS = 256
"""Numbers of a word: 0 is none, the others are its hash."""
FLAGS: Any = np.bool_
"""The dtype of truth values, which Gymnasium's Box takes and its annotation lacks."""
WORD = re.compile(r"\w+")


def observing(
    factory: Callable[[], Any], name: str, preprocessing: Preprocessing
) -> Callable[[], Any]:
    """The factory's environments with what `preprocessing` keeps of their observations, under the same time limit."""
    if not preprocessing.observes:
        return factory

    def made() -> Any:
        env = factory()
        try:
            if is_game(env):
                raise ConfigError(
                    f"{name} has several agents, whose observations stay whole: leave keep_keys, text and one_hot out"
                )
            inner, limit = strip(env)
            kept = Observed(inner, name, preprocessing)
        except BaseException as error:
            close_after(error, [env])
            raise
        return kept if limit is None else TimeLimit(kept, limit)

    return made


class Observed(gym.ObservationWrapper[Any, Any, Any]):
    """An environment of which a policy sees chosen keys alone, integers for texts, and zeros and ones for integers."""

    def __init__(
        self, env: gym.Env[Any, Any], name: str, preprocessing: Preprocessing
    ) -> None:
        """ConfigError for keys that the observation lacks, or where it has no texts or no such integers."""
        super().__init__(env)
        self._preprocessing = preprocessing
        kept = _kept(env.observation_space, name, preprocessing.keep_keys)
        numbered = _numbered(kept, preprocessing)
        if preprocessing.text != "none" and numbered == kept:
            raise ConfigError(
                f"{name} observes no text, so text={preprocessing.text!r} changes nothing; leave it out"
            )
        self.observation_space = _with_ones(numbered, preprocessing.one_hot)
        if preprocessing.one_hot and self.observation_space == numbered:
            raise ConfigError(
                f"one_hot={preprocessing.one_hot}: {name} observes no Box of whole numbers from 0 on whose last axis "
                f"has {len(preprocessing.one_hot)}, but {kept}; list the options of each number along that axis"
            )

    def observation(self, observation: Tree) -> Tree:
        """What is seen of it."""
        return seen(observation, self.observation_space, self._preprocessing)


def seen(observation: Tree, space: Space[Any], preprocessing: Preprocessing) -> Tree:
    """What is seen of an observation, or of a batch of them, as `space` holds it.

    A value of another form stays as it is: whoever reads it says what is wrong. ConfigError for a number that `one_hot`
    has no place for.
    """
    keep = preprocessing.keep_keys
    if keep and isinstance(observation, Mapping):
        observation = {key: observation[key] for key in keep if key in observation}
    if not preprocessing.numbers:
        return observation
    return _with_codes(observation, space, preprocessing)


def _with_codes(value: Tree, space: Space[Any], preprocessing: Preprocessing) -> Tree:
    match space:
        case spaces.Dict() if isinstance(value, Mapping):
            coded = dict(value)
            for key, part in space.spaces.items():
                if key in coded:
                    coded[key] = _with_codes(coded[key], part, preprocessing)
            return coded
        case spaces.Tuple() if isinstance(value, tuple | list):
            parts = zip(value, space.spaces, strict=False)
            coded = [_with_codes(inner, part, preprocessing) for inner, part in parts]
            return (*coded, *value[len(coded) :])
        case spaces.MultiDiscrete():
            return _codes(value, preprocessing)
        case spaces.Box() if _is_hot(space, preprocessing.one_hot):
            return _ones(value, preprocessing.one_hot)
        case _:
            return value


def _codes(value: Tree, preprocessing: Preprocessing) -> Tree:
    """The numbers of a text, or of several texts; what is no text stays as it is."""
    codes, length = character_codes, preprocessing.length_of_text
    if preprocessing.text == "words":
        codes = word_codes
    if isinstance(value, str):
        return codes(value, length)
    if isinstance(value, np.ndarray) and value.dtype.kind == "U":
        value = value.tolist()
    if isinstance(value, tuple | list) and value and isinstance(value[0], str):
        return np.array([codes(str(text), length) for text in value])
    return value


def _numbered(space: Space[Any], preprocessing: Preprocessing) -> Space[Any]:
    """The space with integers in the place of texts, where they are wanted."""
    match space:
        case spaces.Dict():
            parts = space.spaces.items()
            return spaces.Dict(
                {key: _numbered(part, preprocessing) for key, part in parts}
            )
        case spaces.Tuple():
            return spaces.Tuple(
                [_numbered(part, preprocessing) for part in space.spaces]
            )
        case _ if preprocessing.text != "none" and is_text(space):
            options = BUCKETS
            if preprocessing.text == "characters":
                options = len(ALPHABET) + 2
            return spaces.MultiDiscrete([options] * preprocessing.length_of_text)
        case _:
            return space


def _with_ones(space: Space[Any], one_hot: tuple[int, ...]) -> Space[Any]:
    """The space with truth values in the place of the integers that `one_hot` has the options of; masks stay."""
    match space:
        case spaces.Dict():
            parts = space.spaces.items()
            made = {k: p if k == KEY else _with_ones(p, one_hot) for k, p in parts}
            return spaces.Dict(made)
        case spaces.Tuple():
            return spaces.Tuple([_with_ones(part, one_hot) for part in space.spaces])
        case spaces.Box() if space.shape[-1:] == (len(one_hot),):
            if not np.issubdtype(space.dtype, np.integer) or (space.low < 0).any():
                return space
            return spaces.Box(0, 1, (*space.shape[:-1], sum(one_hot)), FLAGS)
        case _:
            return space


def _is_hot(space: spaces.Box, one_hot: tuple[int, ...]) -> bool:
    """Whether this part of what is seen may be what `_with_ones` made; `_ones` looks at the value itself."""
    return space.dtype == np.bool_ and space.shape[-1:] == (sum(one_hot),)


def _ones(value: Tree, one_hot: tuple[int, ...]) -> Tree:
    """Integers [..., C] as truth values [..., sum(one_hot)], one of them true for each; others stay as they are.

    ConfigError for a number that has no place.
    """
    numbers = np.asarray(value)
    if numbers.dtype.kind not in "iu" or numbers.shape[-1:] != (len(one_hot),):
        return value
    options = np.asarray(one_hot)
    outside = (numbers < 0) | (numbers >= options)
    if outside.any():
        *_, at = np.argwhere(outside)[0].tolist()
        raise ConfigError(
            f"the observation holds {numbers[outside][0]} at place {at} of its last axis, which has {one_hot[at]} "
            f"options in one_hot={one_hot}: numbers go from 0 to {one_hot[at] - 1} there; list more"
        )
    first = np.cumsum(options) - options
    cells = numbers.reshape(-1, len(one_hot)).astype(np.int64)
    ones = np.zeros((len(cells), sum(one_hot)), np.bool_)
    ones[np.arange(len(cells))[:, None], cells + first] = True
    return ones.reshape(*numbers.shape[:-1], sum(one_hot))


def character_codes(text: str, length: int) -> NDArray[np.int64]:
    """The numbers [length] of a text's first characters in lower case: see ALPHABET."""
    codes = np.zeros(length, np.int64)
    for at, character in enumerate(text.lower()[:length]):
        codes[at] = ALPHABET.find(character) + 2
    return codes


def word_codes(text: str, length: int) -> NDArray[np.int64]:
    """The hashes [length] of a text's first words in lower case, from 1 on: the same on every machine."""
    codes = np.zeros(length, np.int64)
    for at, word in enumerate(WORD.findall(text.lower())[:length]):
        codes[at] = 1 + crc32(word.encode()) % (BUCKETS - 1)
    return codes


def _kept(space: Space[Any], name: str, keep: tuple[str, ...]) -> Space[Any]:
    """The space of the chosen keys; ConfigError where one is not there, or their action masks would be lost."""
    if not keep:
        return space
    if not isinstance(space, spaces.Dict):
        raise ConfigError(
            f"keep_keys chooses among the keys of a Dict, but {name} observes {space}; leave it out"
        )
    for key in keep:
        if key not in space.spaces:
            hint = near(key, list(space.spaces))
            hint = hint or f"; it has {', '.join(space.spaces)}"
            raise ConfigError(f"keep_keys: {name} observes no {key!r}{hint}")
    if KEY in space.spaces and KEY not in keep:
        raise ConfigError(
            f"keep_keys would drop the {KEY} of {name}, by which actions are masked; name it as well"
        )
    return spaces.Dict({key: space.spaces[key] for key in keep})
