"""What a policy says now of a rollout that older weights may have chosen, and the proximal policy made of it."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import torch

from shoal.math.importance import importance_ratio, truncated
from shoal.nets.distributions import masked
from shoal.types import map_tree, select

if TYPE_CHECKING:
    from torch import Tensor

    from shoal.learn.learner import Learner
    from shoal.learn.plan import Plan
    from shoal.learn.trainable import Trainable
    from shoal.nets.policy import Output
    from shoal.types import Steps, Tree

MOST_STEPS = 256
"""In one forward of torch, unless the policy has a memory; bits depend on it."""


class Current(NamedTuple):
    """Of each step of a rollout [T, B], by the weights as they are; without gradients."""

    log_prob: Tensor
    """Of the action that was taken."""
    value: Tensor
    next_value: Tensor
    """Of what follows each step that an episode or the rollout ends with; elsewhere as those who acted said it."""


@torch.no_grad()
def current(learner: Learner, steps: Steps) -> Current:
    """The log-probabilities of a rollout's actions by the learner's policy, and its values.

    In native code where the policy is lowered. One with a memory begins with the rollout's own `state`, which the
    weights that acted had come to, and leaves `next_value` as it is; so does a rollout without `latest`.

    Args:
        learner: its policy has a distribution and a value.
        steps: a rollout [T, B]. Steps that are not `valid` get numbers too, of no meaning.
    """
    network = learner.networks["policy"]
    network.rejoin()
    if network.plan is not None:
        found = _said(_native_output(network.plan, steps), steps, slice(None))
    elif steps.state is not None:
        output = network.module(steps.obs, steps.state, steps.start)
        found = _said(output, steps, slice(None))
    else:
        found = _in_parts(network, steps)
    if steps.latest is None or steps.state is not None:
        return found
    return found._replace(next_value=_next_values(network, steps))


def with_proximal_policy(
    learner: Learner, steps: Steps, *, most: float | None
) -> Steps:
    """A rollout whose `log_prob` is of the learner's policy as it is, the proximal one, and not of the one that acted.

    What the policy may move away from is then apart from what the data came from (Hilton et al. 2021,
    arXiv 2110.00641, eq. 4); Fu et al. 2025, arXiv 2505.24298, take the proximal policy from the start of each update,
    as this does.

    Args:
        learner: about to learn from the rollout.
        steps: [T, B], with the log-probabilities of the policy that acted.
        most: `weight` = pi_proximal(a|s) / pi_behavior(a|s) is cut to this. None leaves the rollout as it is: the
            policy that acted is the proximal one too.
    """
    if most is None:
        return steps
    proximal = current(learner, steps).log_prob
    ratio = importance_ratio(proximal, steps.log_prob)
    return replace(steps, log_prob=proximal, weight=truncated(ratio, most))


def _native_output(plan: Plan, steps: Steps) -> Output:
    """Of all steps [T, B]."""
    num_steps, num_rows = steps.reward.shape
    if steps.state is not None:
        rows = np.arange(num_rows, dtype=np.int32)
        return plan.gradients.outputs(steps, rows, plan.flat)
    plan.refresh_normalizer()
    obs = map_tree(_all_steps, steps.obs)
    return plan.outputs(obs, lead=(num_steps, num_rows))


def _next_values(network: Trainable, steps: Steps) -> Tensor:
    """[T, B]: as it is, but where an episode was truncated, and after the last step of each row."""
    cut = steps.truncated & ~steps.terminated & (steps.final_index >= 0)
    index = steps.final_index[cut].long()

    def joined(final: Tensor, latest: Tensor) -> Tensor:
        return torch.cat([final[index], latest])

    found = steps.next_value.clone()
    num_steps, num_rows = found.shape
    obs = map_tree(joined, steps.final_obs, steps.latest)
    values = _values(network, obs, len(index) + num_rows)
    found[cut] = values[: len(index)]
    # The last step that counts: what comes after it only reset the row, or nobody stepped it any more.
    last = num_steps - 1 - steps.valid.flip(0).int().argmax(0)
    rows = torch.arange(num_rows, device=found.device)
    over = (steps.terminated | steps.truncated)[last, rows]
    found[last, rows] = torch.where(over, found[last, rows], values[len(index) :])
    return found


def _values(network: Trainable, obs: Tree, count: int) -> Tensor:
    """What a network without memory says of `count` observations."""
    if network.plan is not None:
        return network.plan.outputs(obs).value
    start = torch.zeros(1, count, dtype=torch.bool, device=network.flat.device)
    return network.module(map_tree(_one_step, obs), None, start).value[0]


def _all_steps(x: Tensor) -> Tensor:
    return x.flatten(0, 1)


def _one_step(x: Tensor) -> Tensor:
    return x.unsqueeze(0)


def _in_parts(network: Trainable, steps: Steps) -> Current:
    """The same of a policy in torch without a memory, a few steps of all rows at a time."""
    num_steps, num_rows = steps.reward.shape
    size = max(1, MOST_STEPS // num_rows)
    parts = [slice(t, t + size) for t in range(0, num_steps, size)]

    def said(part: slice) -> Current:
        with torch.no_grad():  # a thread of its own begins with gradients
            output = network.module(select(steps.obs, part), None, steps.start[part])
            return _said(output, steps, part)

    found = network.shards.each(said, parts, size=steps.reward.numel())
    return Current(*map(torch.cat, zip(*found, strict=True)))


def _said(output: Output, steps: Steps, part: slice) -> Current:
    mask = None if steps.action_mask is None else steps.action_mask[part]
    distribution = masked(output.distribution, mask)
    log_prob = distribution.log_prob(select(steps.action, part))
    return Current(log_prob, output.value, steps.next_value[part])
