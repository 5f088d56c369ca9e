"""On-policy distillation: a teacher judges a model's own tokens (Agarwal et al. 2024, arXiv 2306.13649)."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, NamedTuple, cast

from torch.optim import Adam

from shoal.learn.answers import logprobs_of
from shoal.learn.corrections import correction_weights
from shoal.learn.older import beside
from shoal.llm.loading import load_teacher
from shoal.math.divergence import kl_estimate
from shoal.math.group_advantages import advantage_of
from shoal.math.rates import apply_schedules
from shoal.math.token_losses import over_tokens, weighted_policy_gradient
from shoal.math.token_weights import token_weights, weighted_sum
from shoal.stream.groups.settings import LearnsGroups
from shoal.types import Answers, ConfigError, check_ranges

if TYPE_CHECKING:
    from torch import Tensor, nn

    from shoal.llm.model import LanguageModel, TokenOutput
    from shoal.llm.tasks.source import TaskSource
    from shoal.run.run import Run

SOURCE, DEFAULTS = "tasks", {"total_timesteps": 20_000}


@dataclass(frozen=True, slots=True)
class Distill(LearnsGroups):
    """Settings of distillation; those of its groups come first."""

    teacher: str = ""
    """Who is learned from: smollm2 or a folder (a model of the same tokens), or older weights of the model itself:
    version:-10 (those of ten to nineteen versions ago), average:0.99 (their exponential average), first."""
    reward_weight: float = 0.0
    """What the task's own reward counts beside the teacher, as an advantage over the group; 0: nothing."""

    def __post_init__(self) -> None:
        """Refuses what cannot work."""
        super(Distill, self).__post_init__()
        check_ranges(self, reward_weight=(0, 1e6))


Config = Distill


class Statistics(NamedTuple):
    """Means over the tokens that are learned; `policy` is the loss, `teacher` the divergence from the teacher."""

    policy: Tensor
    teacher: Tensor
    kl: Tensor
    entropy: Tensor
    importance: Tensor


def train(cfg: Distill, task: TaskSource, run: Run) -> nn.Module:
    """Trains a language model on a task's prompts until the run ends."""
    if not cfg.teacher:
        raise ConfigError(
            "name the model that is learned from: teacher=FOLDER, or version:-10 for older weights of its own"
        )
    policy = cast("LanguageModel", run.policy(task.spec))
    policy.temperature = temperature = cfg.sampling.temperature
    learner = run.learner(
        policy, Adam, lr=cfg.learning_rate, max_grad_norm=cfg.max_grad_norm
    )
    which = cfg.teacher
    teacher = beside(
        learner, "teacher", which, lambda: load_teacher(which, policy, temperature)
    )
    stream = run.groups(task, learner, cfg)
    for answers in run.loop(stream, learner):
        batch = judged(answers, logprobs_of(teacher.network, answers), cfg)
        apply_schedules(cfg, run.progress, learner)
        learner.step(distillation_loss, batch, cfg)
        stream.publish()
        teacher.follow()
    return learner.policy


def judged(answers: Answers, teacher: Tensor, cfg: Distill) -> Answers:
    """The answers with the teacher's log-probabilities [S, L], and what each token is worth by them.

    An advantage of log teacher - log pi is, in the mean over the model's own tokens, minus KL(pi, teacher) of each
    token; what follows it is left out, as it is learned in its own place.
    """
    mask = answers.mask
    advantage = -kl_estimate(answers.logprob, teacher, mask, estimator="k1")
    if cfg.reward_weight:
        earned = advantage_of("group", answers.reward, answers.prompt_of)
        advantage = advantage + cfg.reward_weight * over_tokens(earned, mask) * mask
    weight = token_weights(mask, normalize="token")
    return replace(
        answers,
        advantage=advantage,
        weight=weight,
        share=weight,
        reference_logprob=teacher,
    )


def distillation_loss(
    output: TokenOutput, batch: Answers, cfg: Distill
) -> tuple[Tensor, Statistics]:
    """-w A log pi(token) in the mean over tokens, with w the bounded importance weight where older weights chose."""
    advantage, weight, teacher = batch.advantage, batch.weight, batch.reference_logprob
    if advantage is None or weight is None or teacher is None:
        raise ValueError("this loss needs a batch of `judged`")
    mask, logprob = batch.mask, output.logprob
    chosen = logprob.detach()
    importance = correction_weights(cfg.correction, chosen, batch)
    loss = weighted_policy_gradient(logprob, advantage, importance, mask)
    value = weighted_sum(loss, weight)
    apart = kl_estimate(chosen, teacher, mask, estimator="k1")
    drift = kl_estimate(chosen, batch.logprob, mask, estimator="k3")
    means = (apart, drift, output.entropy, importance)
    return value, Statistics(value, *(weighted_sum(x, weight) for x in means))
