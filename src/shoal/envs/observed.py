"""What is kept of an observation: chosen keys of a Dict, and texts as integers of a fixed length."""

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
                    f"{name} has several agents, whose observations stay whole: leave keep_keys and text out"
                )
            inner, limit = strip(env)
            kept = Observed(inner, name, preprocessing)
        except BaseException as error:
            close_after(error, [env])
            raise
        return kept if limit is None else TimeLimit(kept, limit)

    return made


class Observed(gym.ObservationWrapper[Any, Any, Any]):
    """An environment of which a policy sees the chosen keys alone, and numbers instead of texts."""

    def __init__(
        self, env: gym.Env[Any, Any], name: str, preprocessing: Preprocessing
    ) -> None:
        """ConfigError for keys that the observation lacks, or where it has no texts."""
        super().__init__(env)
        self._preprocessing = preprocessing
        kept = _kept(env.observation_space, name, preprocessing.keep_keys)
        self.observation_space = _numbered(kept, preprocessing)
        if preprocessing.text != "none" and self.observation_space == kept:
            raise ConfigError(
                f"{name} observes no text, so text={preprocessing.text!r} changes nothing; leave it out"
            )

    def observation(self, observation: Tree) -> Tree:
        """What is seen of it."""
        return seen(observation, self.observation_space, self._preprocessing)


def seen(observation: Tree, space: Space[Any], preprocessing: Preprocessing) -> Tree:
    """What is seen of an observation, or of a batch of them, as `space` holds it.

    A value of another form stays as it is: whoever reads it says what is wrong.
    """
    keep = preprocessing.keep_keys
    if keep and isinstance(observation, Mapping):
        observation = {key: observation[key] for key in keep if key in observation}
    if preprocessing.text == "none":
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
