"""Preprocessing: what a policy sees of an environment's rewards and observations, and what becomes of its actions."""

from __future__ import annotations

from dataclasses import dataclass, replace
from math import inf
from typing import Literal

import numpy as np
from gymnasium.vector.utils import batch_space

from shoal.envs import masks
from shoal.envs.finite import LARGEST, Tolerance
from shoal.types import ConfigError, Floats, Spec, check_room

SPACE_COPIES = 4
"""A space of stacked observations holds its lowest and highest numbers, and which of them are finite."""

MOST_FRAMES = 1024
"""Observations in a stack."""
TEXT_LENGTHS = {"none": 0, "characters": 64, "words": 16}
"""How long a text is where `text_length` says nothing."""
MOST_LENGTH = 4096
MOST_OPTIONS = 4096
"""Options of a whole number in `one_hot`."""
MOST_STEPS = 2**31 - 1
"""A time limit, as native code holds it."""


@dataclass(frozen=True, slots=True)
class Preprocessing:
    """What the policy sees of an environment, in this order: sticky actions, the step, the reward's scale, its clip.

    Returns and lengths of episodes always count the environment's own rewards.
    """

    frame_stack: int = 1
    """Number of observations to stack, oldest first; an episode starts with its first observation repeated."""
    sticky_actions: float = 0.0
    """Probability of repeating the previous action instead of the chosen one (Machado et al. 2018)."""
    reward_scale: float = 1.0
    """Factor on every reward, before clipping."""
    reward_clip: tuple[float, float] | None = None
    """Lower and upper bound that the scaled reward is clipped to."""
    reward_sign: bool = False
    """Replace each reward by its sign: -1, 0 or 1."""
    max_episode_steps: int = 0
    """Truncate episodes after this many steps; 0 keeps the environment's own limit."""
    keep_keys: tuple[str, ...] = ()
    """Keep only these keys of a Dict observation (Python environments); none named: all of them."""
    text: Literal["none", "characters", "words"] = "none"
    """Texts in observations as integers, one a character or the hash of each word; none: texts are refused."""
    text_length: int = 0
    """Characters or words of a text that are kept; 0: 64 characters or 16 words."""
    one_hot: tuple[int, ...] = ()
    """Options of each whole number along the last axis of a Box, which become zeros and a one; none: as they are."""
    final_nan: Literal["raise", "last_finite"] = "raise"
    """When the last observation of a terminated episode is NaN or infinite: `raise`, or take the one before it."""
    cost_key: str = ""
    """Info key of each step's cost, such as cost (Python environments); set it for steps that return six values too."""

    def __post_init__(self) -> None:
        """Refuses what cannot work."""
        fits = 1 <= self.frame_stack <= MOST_FRAMES
        if not fits or not 0 <= self.max_episode_steps <= MOST_STEPS:
            raise ConfigError(
                f"frame_stack must be at least 1 and at most {MOST_FRAMES:,}, and max_episode_steps at least 0 "
                f"(none) and at most {MOST_STEPS:,}, got {self.frame_stack} and {self.max_episode_steps}"
            )
        if self.final_nan not in ("raise", "last_finite"):
            raise ConfigError(
                f"final_nan must be raise or last_finite, got {self.final_nan!r}"
            )
        self._check_texts()
        if not all(2 <= options <= MOST_OPTIONS for options in self.one_hot):
            raise ConfigError(
                f"one_hot lists how many options whole numbers have, each 2 to {MOST_OPTIONS:,}, got {self.one_hot}"
            )
        if not 0 <= self.sticky_actions < 1:
            raise ConfigError(
                f"sticky_actions must be a probability below 1, got {self.sticky_actions}"
            )
        if not 0 < self.reward_scale < inf:
            raise ConfigError(
                f"reward_scale must be finite and above 0, got {self.reward_scale}"
            )
        if self.reward_sign and self.reward_scale != 1:
            raise ConfigError(
                f"reward_sign keeps nothing of reward_scale={self.reward_scale}; leave one of them out"
            )
        clip = self.reward_clip
        if clip is None:
            return
        if len(clip) != 2 or not clip[0] < clip[1]:
            raise ConfigError(
                f"reward_clip must be a lower and an upper bound, got {clip}"
            )
        if self.reward_sign:
            raise ConfigError(
                "reward_clip and reward_sign exclude each other; leave one of them out"
            )

    def _check_texts(self) -> None:
        if self.text not in TEXT_LENGTHS:
            raise ConfigError(
                f"text must be one of {', '.join(TEXT_LENGTHS)}, got {self.text!r}"
            )
        if not 0 <= self.text_length <= MOST_LENGTH:
            raise ConfigError(
                f"text_length must be at least 0 and at most {MOST_LENGTH:,}, got {self.text_length}"
            )
        if self.text_length and self.text == "none":
            raise ConfigError(
                "text_length is of texts, which text='none' refuses; set text to 'characters' or 'words'"
            )
        if isinstance(self.keep_keys, str):
            raise ConfigError(
                f"keep_keys is a list of keys, got {self.keep_keys!r}; write ({self.keep_keys!r},)"
            )

    @property
    def length_of_text(self) -> int:
        """Integers that a text becomes; 0 where texts are refused."""
        return self.text_length or TEXT_LENGTHS[self.text]

    @property
    def observes(self) -> bool:
        """Whether keys are chosen, texts become integers, or integers zeros and ones."""
        return bool(self.keep_keys) or self.numbers

    @property
    def numbers(self) -> bool:
        """Whether texts become integers, or integers zeros and ones."""
        return self.text != "none" or bool(self.one_hot)

    @property
    def plain(self) -> bool:
        """Whether actions and rewards stay as they are, and observations are not stacked."""
        same = replace(
            self,
            max_episode_steps=0,
            keep_keys=(),
            text="none",
            text_length=0,
            one_hot=(),
            final_nan="raise",
            cost_key="",
        )
        return same == Preprocessing()

    @property
    def tolerance(self) -> Tolerance:
        """What rows take that is not learned from as it is: any finite reward, where rewards are changed."""
        largest = LARGEST
        if self.changes_rewards:
            largest = float(np.finfo(np.float64).max)
        last_finite = self.final_nan == "last_finite"
        return Tolerance(last_finite=last_finite, largest_reward=largest)

    @property
    def may_overflow(self) -> bool:
        """Whether rewards that are learned from may come out of it too large for float32."""
        low, high = self.reward_bounds
        plays = self.reward_scale == 1 and (low, high) == (-inf, inf)
        bounded = self.reward_sign or (low >= -LARGEST and high <= LARGEST)
        return not (plays or bounded)

    def for_playing(self) -> Preprocessing:
        """The same with the environment's own rewards, which are not learned from: any size that training takes."""
        clip = (-inf, inf) if self.changes_rewards else None
        return replace(self, reward_scale=1.0, reward_clip=clip, reward_sign=False)

    @property
    def changes_rewards(self) -> bool:
        """Whether rewards are scaled, clipped or replaced by their signs."""
        scaled = self.reward_scale != 1
        return scaled or self.reward_sign or self.reward_clip is not None

    @property
    def reward_bounds(self) -> tuple[float, float]:
        """What rewards are clipped to; infinite where they are not."""
        return self.reward_clip or (-inf, inf)

    def spec(self, spec: Spec) -> Spec:
        """What a row observes behind it: each leaf with a new first axis of `frame_stack`."""
        if self.frame_stack == 1:
            return spec
        if masks.in_observation(spec):
            raise ConfigError(
                f"{spec.env_id}: frame_stack would stack the {masks.KEY} in the observation; give it in the info"
            )
        nbytes = spec.observation.offsets((1,))[1]
        what = f"{spec.env_id}: frame_stack={self.frame_stack}: one row's observations"
        check_room(SPACE_COPIES * self.frame_stack * nbytes, what, "stack fewer")
        space = batch_space(spec.observation_space, self.frame_stack)
        names = spec.feature_names
        return replace(
            spec.seeing(space), frame_stack=self.frame_stack, feature_names=names
        )

    def reward(self, reward: Floats) -> Floats:
        """The rewards that are learned from."""
        scaled = reward * self.reward_scale
        if self.reward_sign:
            return np.where(scaled > 0, 1.0, np.where(scaled < 0, -1.0, 0.0))
        if self.reward_clip is None:
            return scaled
        return np.clip(scaled, *self.reward_clip)
