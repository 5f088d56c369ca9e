"""What a policy would have done in logged episodes: how likely the logged actions are, and which ones it takes."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from gymnasium import spaces

from shoal.nets.distributions import Normal, SquashedNormal, from_env
from shoal.types import ConfigError, choices, leaf_spaces, map_tree

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from numpy.typing import NDArray
    from torch import Tensor, nn

    from shoal.memory.data import CheckedEpisode
    from shoal.types import Spec, Tree

    Array = NDArray[np.float64]

EPISODES = 64
"""In one forward pass."""
DRAWS = 8
"""Actions by which the mean over a policy of continuous actions is taken."""


@dataclass(frozen=True, slots=True, eq=False)
class Choices:
    """What a policy would do in each state of an episode of T steps."""

    log_prob: Array | None
    """[T], of the logged actions; None where a deterministic policy moves in a Box, which has no probabilities."""
    action: NDArray[np.float64]
    """[T + 1, K, D], actions as flat numbers; choices as one-hot vectors."""
    weight: Array
    """[T + 1, K], how likely each of these is; they sum to 1."""


def choices_of(
    policy: nn.Module,
    spec: Spec,
    episodes: Sequence[CheckedEpisode],
    *,
    greedy: bool,
    rng: np.random.Generator,
) -> Iterator[Choices]:
    """What a policy would do in each of the episodes, one after another.

    Args:
        policy: in the signature of policies; with a memory it sees each episode from its beginning.
        spec: of the environment.
        episodes: logged ones.
        greedy: whether it takes the mode of its distribution.
        rng: draws actions, where there are more than can be listed.

    Raises:
        ConfigError: a distribution that cannot tell how likely an action is.
    """
    listed = isinstance(spec.action_space, spaces.Discrete)
    for at in range(0, len(episodes), EPISODES):
        some = episodes[at : at + EPISODES]
        longest = max(episode.length for episode in some)
        obs = spec.observation.tree(_padded([one.obs for one in some], longest + 1))
        taken = spec.action.tree(_padded([one.action for one in some], longest))
        with torch.inference_mode():
            distribution = _distribution(policy, obs, longest + 1, len(some))
            likely = _log_prob(distribution, taken, longest, spec, greedy=greedy)
            if listed:
                action, weight = _listed(distribution, spec, greedy=greedy)
            else:
                action, weight = _drawn(distribution, spec, rng, greedy=greedy)
        for row, episode in enumerate(some):
            steps = episode.length
            own = None if likely is None else likely[:steps, row]
            yield Choices(own, action[: steps + 1, row], weight[: steps + 1, row])


def encoded(spec: Spec, action: Tree) -> NDArray[np.float64]:
    """Actions [..., *shape] of the environment as flat numbers [..., D]; choices as one-hot vectors."""
    parts: list[NDArray[np.float64]] = []
    for leaf, (_, space), value in zip(
        spec.action.leaves,
        leaf_spaces(spec.action_space),
        spec.action.flat(action),
        strict=True,
    ):
        array = np.asarray(value)
        lead = array.shape[: array.ndim - len(leaf.shape)]
        flat = array.reshape(*lead, -1)
        options = choices(space)
        if not options:
            parts.append(flat.astype(np.float64))
            continue
        first = np.asarray(getattr(space, "start", 0)).ravel()
        index = flat.astype(np.int64) - first
        for choice, count in enumerate(options):
            parts.append(np.eye(count)[index[..., choice]])
    return np.concatenate(parts, -1)


def _padded(leaves: list[list[NDArray[Any]]], length: int) -> list[NDArray[Any]]:
    """Each leaf of several episodes as one array [length, episodes, ...]; what lies behind an end repeats the last."""
    made: list[NDArray[Any]] = []
    for column in zip(*leaves, strict=True):
        filled = [
            np.concatenate([one, np.repeat(one[-1:], length - len(one), axis=0)])
            for one in column
        ]
        made.append(np.stack(filled, axis=1))
    return made


def _distribution(policy: Any, obs: Tree, length: int, count: int) -> Any:
    start = torch.zeros(length, count, dtype=torch.bool)
    start[0] = True
    state = policy.initial_state(count)
    seen = map_tree(torch.from_numpy, obs)
    return policy(seen, state, start).distribution


def _log_prob(
    distribution: Any, taken: Tree, length: int, spec: Spec, *, greedy: bool
) -> Array | None:
    """Of the logged actions [T, B]; None where they have no probabilities."""
    boxes = any(not choices(part) for _, part in leaf_spaces(spec.action_space))
    if boxes and (greedy or not isinstance(distribution, Normal | SquashedNormal)):
        return None
    if greedy:
        ours = _numbers(distribution.to_env(distribution.mode()))
        same = [
            (np.asarray(one)[:length] == np.asarray(other))
            .reshape(*other.shape[:2], -1)
            .all(-1)
            for one, other in zip(
                spec.action.flat(ours), spec.action.flat(taken), strict=True
            )
        ]
        return np.where(np.all(same, axis=0), 0.0, -np.inf)
    given = map_tree(_repeated, taken)
    if isinstance(distribution, Normal):
        log_prob = _clipped_log_prob(distribution, given)
    else:
        try:
            log_prob = distribution.log_prob(from_env(distribution, given))
        except ConfigError as error:
            raise ConfigError(f"{spec.env_id}: {error}") from error
    return log_prob[:length].double().numpy()


def _repeated(taken: NDArray[Any]) -> Tensor:
    """[T, ...] -> [T + 1, ...]: the distribution is of one state more."""
    return torch.from_numpy(np.concatenate([taken, taken[-1:]]))


def _clipped_log_prob(distribution: Normal, action: Tensor) -> Tensor:
    """Of actions that were clipped to their Box: at a bound the probability of all that lies beyond it."""
    low, high = distribution.low, distribution.high
    z = (action - distribution.mean) / distribution.log_std.exp()
    inside = -0.5 * z.square() - distribution.log_std - 0.5 * np.log(2 * np.pi)
    below = torch.special.log_ndtr(z)
    above = torch.special.log_ndtr(-z)
    each = torch.where(action <= low, below, torch.where(action >= high, above, inside))
    return each.double().sum(-1)


def _listed(
    distribution: Any, spec: Spec, *, greedy: bool
) -> tuple[NDArray[np.float64], Array]:
    """All options of a Discrete space [T, B, n, n], and how likely each is [T, B, n]."""
    space = spec.action_space
    assert isinstance(space, spaces.Discrete)
    mode = distribution.mode()
    count = int(space.n)
    if greedy:
        weight = torch.nn.functional.one_hot(mode, count).double()
    else:
        each = [
            distribution.log_prob(torch.full_like(mode, option))
            for option in range(count)
        ]
        weight = torch.stack(each, -1).double().softmax(-1)
    options = np.broadcast_to(np.eye(count), (*weight.shape, count))
    return options, weight.numpy()


def _drawn(
    distribution: Any, spec: Spec, rng: np.random.Generator, *, greedy: bool
) -> tuple[NDArray[np.float64], Array]:
    """Actions of a policy [T, B, K, D], each as likely [T, B, K]."""
    modes = distribution.mode()
    if greedy:
        found = [encoded(spec, _numbers(distribution.to_env(modes)))]
    else:
        lead = spec.action.flat(modes)[0].shape[:2]
        found = []
        for _ in range(DRAWS):
            noise = torch.from_numpy(_noise(distribution, lead, rng))
            sampled = distribution.to_env(distribution.sample(noise))
            found.append(encoded(spec, _numbers(sampled)))
    actions = np.stack(found, 2)
    return actions, np.full(actions.shape[:3], 1 / len(found))


def _numbers(action: Tree) -> Tree:
    def numbers(x: Tensor) -> NDArray[Any]:
        return x.numpy()

    return map_tree(numbers, action)


def _noise(
    distribution: Any, lead: tuple[int, ...], rng: np.random.Generator
) -> NDArray[np.float32]:
    """Noise of the kind that a distribution draws from."""
    shape = (*lead, distribution.noise_size)
    uniform = rng.random(shape, np.float32)
    normal = rng.standard_normal(shape, np.float32)
    if distribution.noise == "uniform":
        return uniform
    if distribution.noise == "normal":
        return normal
    split = distribution.num_uniform
    return np.concatenate([uniform[..., :split], normal[..., split:]], -1)
