"""GRPO and kin: answers to each prompt are judged beside each other (Shao et al. 2024, arXiv 2402.03300)."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Literal, NamedTuple

import torch
from torch.optim import Adam

from shoal.learn.answers import base_logprobs_of, logprobs_of, minibatches_of
from shoal.learn.learner import POLICY
from shoal.llm.sampler.protocol import Sampling
from shoal.math.divergence import kl_estimate
from shoal.math.group_advantages import group_advantage, leave_one_out
from shoal.math.token_corrections import importance_weights
from shoal.math.token_losses import (
    clipped_surrogate,
    over_tokens,
    weighted_policy_gradient,
)
from shoal.math.token_ratios import sequence_ratio, token_ratio
from shoal.math.token_weights import token_weights, weighted_sum
from shoal.types import Answers, check_ranges

if TYPE_CHECKING:
    from torch import Tensor, nn

    from shoal.llm.model import TokenOutput
    from shoal.llm.tasks.source import TaskSource
    from shoal.run.run import Run

SOURCE = "tasks"
DEFAULTS = {"total_timesteps": 20_000}


@dataclass(frozen=True, slots=True)
class GRPO:
    """Settings of GRPO. A batch is num_prompts groups of num_generations answers."""

    learning_rate: float = 3e-4
    """Step size of Adam; larger learns faster and forgets the language sooner."""
    num_prompts: int = 8
    """Prompts of a batch; more make the gradient less noisy."""
    num_generations: int = 8
    """Answers to each prompt; more make it likelier that some are better than others."""
    max_completion_length: int = 32
    """Tokens of an answer at most; what is longer is cut."""
    num_iterations: int = 1
    """Passes over each batch; more use it better and move further from what it was drawn with."""
    num_minibatches: int = 1
    """Gradient steps of a pass, on whole groups each."""
    baseline: Literal["mean", "leave_one_out"] = "mean"
    """What a reward is compared with: the mean of its group, or of the group's other answers (RLOO)."""
    scale_rewards: Literal["group", "batch", "none"] = "group"
    """What an advantage is divided by: the deviation of the group's rewards, of the batch's, or nothing."""
    loss_normalization: Literal["sequence", "token", "constant"] = "token"
    """What counts the same: every answer (GRPO), every token (DAPO), or a token of whatever batch (Dr. GRPO)."""
    ratio_of: Literal["token", "sequence"] = "token"
    """Whose change of probability is bounded: each token's, or that of its whole answer (GSPO)."""
    surrogate: Literal["clip", "weight", "none"] = "clip"
    """How it is bounded: gradients beyond epsilon are clipped, or only their weights are (CISPO), or nothing."""
    epsilon: float = 0.2
    """Bound of the change of a token's probability downwards, and upwards unless epsilon_high is given."""
    epsilon_high: float | None = None
    """That upwards; more let unlikely tokens become likely sooner."""
    beta: float = 0.0
    """Weight of the divergence from the model that training began with, or from the one that a LoRA is trained beside;
    more keep it closer, 0 needs no such model."""
    correction: Literal["none", "truncate", "mask"] = "truncate"
    """What an answer of older weights counts: as a new one; by its importance weight, truncated; or nothing where that
    weight is beyond the bound (IcePop)."""
    importance_bound: float = 2.0
    """Importance weights are cut, or masked, beyond this; more correct more and are noisier."""
    sampling: Sampling = field(default_factory=Sampling)
    """How tokens are drawn; log-probabilities are those of what could be drawn."""
    max_grad_norm: float = 1.0
    """The gradient's norm is cut to this."""
    dynamic_sampling: bool = False
    """Replace groups whose answers all earn the same by others."""
    mask_truncated_completions: bool = False
    """Learn nothing from answers that were cut at their most tokens."""

    def __post_init__(self) -> None:
        """Refuses what cannot work."""
        check_ranges(self, num_prompts=(1, 2**16), num_generations=(2, 2**15))
        check_ranges(
            self, num_iterations=(1, 1000), num_minibatches=(1, self.num_prompts)
        )
        check_ranges(self, epsilon=(0, 1), beta=(0, 1e6), importance_bound=(1, 1e6))


Config = GRPO


class Statistics(NamedTuple):
    """Means over the tokens that are learned; `policy` is the loss."""

    policy: Tensor
    kl: Tensor
    entropy: Tensor
    ratio_deviation: Tensor
    importance: Tensor


def train(cfg: GRPO, task: TaskSource, run: Run) -> nn.Module:
    """Trains a language model on a task until the run ends."""
    policy = run.policy(task.spec)
    learner = run.learner(
        policy, Adam, lr=cfg.learning_rate, max_grad_norm=cfg.max_grad_norm
    )
    model, reference = learner.networks[POLICY], None
    adapted = getattr(policy, "part_trained", False)
    if cfg.beta and not adapted:
        reference = learner.add("reference", run.policy(task.spec))
    stream = run.groups(task, learner, cfg)
    for answers in run.loop(stream, learner):
        batch = judged(answers, cfg)
        if reference is not None:
            batch = replace(batch, reference_logprob=logprobs_of(reference, batch))
        elif cfg.beta:  # what a LoRA is trained beside
            batch = replace(batch, reference_logprob=base_logprobs_of(model, batch))
        if cfg.num_iterations * cfg.num_minibatches > 1:
            batch = replace(batch, proximal_logprob=logprobs_of(model, batch))
        for _ in range(cfg.num_iterations):
            for part in minibatches_of(batch, cfg.num_minibatches, run.rng):
                learner.step(grpo_loss, weighted(part, cfg), cfg)
        stream.publish()
    return learner.policy


def judged(answers: Answers, cfg: GRPO) -> Answers:
    """The answers with their advantages over the others of their group."""
    if cfg.baseline == "leave_one_out":
        advantage = leave_one_out(answers.reward, answers.prompt_of)
    else:
        advantage = group_advantage(
            answers.reward, answers.prompt_of, scale=cfg.scale_rewards
        )
    return replace(answers, advantage=advantage)


def weighted(batch: Answers, cfg: GRPO) -> Answers:
    """The batch of one gradient step with what each of its tokens counts."""
    weight = token_weights(
        batch.mask,
        normalize=cfg.loss_normalization,
        max_length=cfg.max_completion_length,
        truncated=batch.truncated if cfg.mask_truncated_completions else None,
    )
    return replace(
        batch, weight=weight, share=token_weights(batch.mask, normalize="token")
    )


def grpo_loss(
    output: TokenOutput, batch: Answers, cfg: GRPO
) -> tuple[Tensor, Statistics]:
    """The sum over tokens of weight * loss; `batch` needs `advantage`, `weight` and `share`.

    -w min(r A, clip(r, 1 - epsilon, 1 + epsilon_high) A) + beta KL(policy, reference), with r the ratio to the policy
    that the update began with and w, bounded, the one from what drew the answers to that (Hilton et al. 2022).
    """
    mask, logprob = batch.mask, output.logprob
    given, weight, share = batch.advantage, batch.weight, batch.share
    if given is None or weight is None or share is None:
        raise ValueError("this loss needs a batch with advantage, weight and share")
    proximal = batch.proximal_logprob
    if proximal is None:
        proximal = logprob.detach()
    importance = torch.ones_like(proximal)
    if cfg.correction != "none":
        importance = importance_weights(
            proximal,
            batch.logprob,
            mask,
            outside=cfg.correction,
            most=cfg.importance_bound,
        )
    compare = sequence_ratio if cfg.ratio_of == "sequence" else token_ratio
    ratio = compare(logprob, proximal, mask)
    high = cfg.epsilon if cfg.epsilon_high is None else cfg.epsilon_high
    advantage = over_tokens(given, mask)
    if cfg.surrogate == "clip":
        loss = clipped_surrogate(ratio, advantage, eps_low=cfg.epsilon, eps_high=high)
    else:
        moved = ratio.detach()
        if cfg.surrogate == "weight":
            moved = moved.clamp(1 - cfg.epsilon, 1 + high)
        loss = weighted_policy_gradient(logprob, advantage, moved, mask)
    loss = loss * importance
    if batch.reference_logprob is not None:
        kl = kl_estimate(logprob, batch.reference_logprob, mask, estimator="k3")
        loss = loss + cfg.beta * kl
    value = weighted_sum(loss, weight)
    drift = kl_estimate(logprob.detach(), batch.logprob, mask, estimator="k3")
    means = (drift, output.entropy, (ratio.detach() - 1).abs(), importance)
    return value, Statistics(value, *(weighted_sum(x, share) for x in means))
