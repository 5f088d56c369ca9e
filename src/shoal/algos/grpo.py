"""GRPO and kin: answers to each prompt are judged beside each other (Shao et al. 2024, arXiv 2402.03300)."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Literal, NamedTuple

from torch.optim import Adam

from shoal.learn.answers import (
    add_reference,
    minibatches_of,
    weighted,
    with_proximal,
    with_reference,
)
from shoal.learn.corrections import correction_weights
from shoal.math.divergence import kl_estimate
from shoal.math.group_advantages import advantage_of
from shoal.math.overlong import overlong_penalty
from shoal.math.rates import apply_schedules
from shoal.math.token_losses import bounded_loss, over_tokens
from shoal.math.token_ratios import sequence_ratio, token_ratio
from shoal.math.token_weights import weighted_sum
from shoal.stream.groups.settings import LearnsGroups
from shoal.types import Answers, check_ranges

if TYPE_CHECKING:
    from torch import Tensor, nn

    from shoal.llm.model import TokenOutput
    from shoal.llm.tasks.source import TaskSource
    from shoal.run.run import Run

SOURCE, DEFAULTS = "tasks", {"total_timesteps": 20_000}


@dataclass(frozen=True, slots=True)
class GRPO(LearnsGroups):
    """Settings of GRPO; those of its groups come first."""

    num_iterations: int = 1
    """Passes over each batch; more use it better and move further from what it was drawn with."""
    num_minibatches: int = 1
    """Gradient steps of a pass, on whole groups each."""
    advantage: Literal["group", "batch", "centered", "leave_one_out"] = "group"
    """A reward less its group's mean over the group's deviation, the batch's, or 1; or less the others' mean (RLOO)."""
    loss_normalization: Literal["sequence", "token", "constant"] = "token"
    """What counts the same: every answer (GRPO), every token (DAPO), or a token of whatever batch (Dr. GRPO)."""
    ratio_of: Literal["token", "sequence"] = "token"
    """Whose change of probability is bounded: each token's, or that of its whole answer (GSPO)."""
    surrogate: Literal["clip", "weight", "none"] = "clip"
    """How it is bounded: gradients beyond epsilon are clipped, or only their weights are (CISPO), or nothing."""
    epsilon: float = 0.2
    """Bound of the change of a token's probability downwards."""
    epsilon_high: float = 0.2
    """That upwards; more lets unlikely tokens become likely sooner."""
    beta: float = 0.0
    """Weight of the divergence from the model that training began with; more keep it closer, 0 needs no such model."""
    overlong_cache: int = 0
    """Take up to 1 from the reward of answers that come within so many tokens of the most; 0: nothing."""
    mask_truncated_completions: bool = False
    """Learn nothing from answers that were cut at their most tokens."""

    def __post_init__(self) -> None:
        """Refuses what cannot work."""
        super(GRPO, self).__post_init__()
        check_ranges(self, num_minibatches=(1, self.num_prompts), beta=(0, 1e6))
        check_ranges(self, num_iterations=(1, 1000), epsilon=(0, 1))
        check_ranges(self, epsilon_high=(0, 10))
        check_ranges(self, overlong_cache=(0, self.max_completion_length))


Config = GRPO


class Statistics(NamedTuple):
    """Means over the tokens that are learned; `policy` is the loss."""

    policy: Tensor
    kl: Tensor
    entropy: Tensor
    importance: Tensor


def train(cfg: GRPO, task: TaskSource, run: Run) -> nn.Module:
    """Trains a language model on a task until the run ends."""
    policy = run.policy(task.spec)
    learner = run.learner(
        policy, Adam, lr=cfg.learning_rate, max_grad_norm=cfg.max_grad_norm
    )
    if cfg.beta:
        add_reference(learner, lambda: run.policy(task.spec))
    stream = run.groups(task, learner, cfg)
    for answers in run.loop(stream, learner):
        batch = judged(answers, cfg)
        if cfg.beta:
            batch = with_reference(learner, batch)
        if cfg.num_iterations * cfg.num_minibatches > 1:
            batch = with_proximal(learner, batch)
        apply_schedules(cfg, run.progress, learner)
        for _ in range(cfg.num_iterations):
            for part in minibatches_of(batch, cfg.num_minibatches, run.rng):
                learner.step(grpo_loss, weighted(part, cfg), cfg)
        stream.publish()
    return learner.policy


def judged(answers: Answers, cfg: GRPO) -> Answers:
    """The answers with their advantages over the others of their group."""
    reward, group = answers.reward, answers.prompt_of
    if cfg.overlong_cache:
        most, cache = cfg.max_completion_length, cfg.overlong_cache
        reward = reward + overlong_penalty(answers.length, max_length=most, cache=cache)
    return replace(answers, advantage=advantage_of(cfg.advantage, reward, group))


def grpo_loss(
    output: TokenOutput, batch: Answers, cfg: GRPO
) -> tuple[Tensor, Statistics]:
    """The sum over tokens of weight * loss; `batch` needs `advantage`, `weight` and `share`.

    -w min(r A, clip(r, 1 - epsilon, 1 + epsilon_high) A) + beta KL(policy, reference), with r the ratio to the policy
    that the update began with and w, bounded, the one from what drew the answers to that (Hilton et al. 2022).
    """
    advantage, weight, share = batch.advantage, batch.weight, batch.share
    if advantage is None or weight is None or share is None:
        raise ValueError("this loss needs a batch with advantage, weight and share")
    mask, logprob = batch.mask, output.logprob
    proximal = batch.proximal_logprob
    if proximal is None:
        proximal = logprob.detach()
    compare = sequence_ratio if cfg.ratio_of == "sequence" else token_ratio
    ratio = compare(logprob, proximal, mask)
    bounds = 1 - cfg.epsilon, 1 + cfg.epsilon_high
    advantage = over_tokens(advantage, mask)
    loss = bounded_loss(cfg.surrogate, logprob, ratio, advantage, mask, bounds)
    importance = correction_weights(cfg.correction, proximal, batch)
    loss = loss * importance
    if batch.reference_logprob is not None:
        kl = kl_estimate(logprob, batch.reference_logprob, mask, estimator="k3")
        loss = loss + cfg.beta * kl
    value = weighted_sum(loss, weight)
    drift = kl_estimate(logprob.detach(), batch.logprob, mask, estimator="k3")
    means = (drift, output.entropy, importance)
    return value, Statistics(value, *(weighted_sum(x, share) for x in means))
