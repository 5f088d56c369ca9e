"""Defects of one line each in the equations for language models: a test must fail on every one."""

from tests.mutations import Mutation

UNBIASED = "tests/math/test_kept_sets.py::test_an_older_policys_truncated_samples_are_unbiased_within_what_it_kept"
SPLITS = "tests/math/test_token_weights.py::test_a_loss_does_not_depend_on_splits_and_packing"
LANGUAGE = [
    Mutation(
        "a ratio of probabilities is not renormalized over what the sampler kept",
        "math/kept_sets.py",
        "cut = ~kept & kept.any(-1, keepdim=True)",
        "cut = torch.zeros_like(kept)",
        UNBIASED,
    ),
    Mutation(
        "tokens are averaged over their micro-batch: the loss depends on how sequences are split",
        "math/token_weights.py",
        "if total is None:",
        "if total is None or normalize == 'token':",
        f"{SPLITS}[token-divisors1]",
    ),
    Mutation(
        "a ratio of a sequence is that of its mean in gradient too: tokens share what is each one's own",
        "math/token_ratios.py",
        "held = log.detach()",
        "held = log",
        "tests/math/test_token_losses.py::test_ratios_of_sequences_by_hand",
    ),
    Mutation(
        "the loss is the mean over a part: the gradient depends on what is read at a time",
        "algos/grpo.py",
        "value = weighted_sum(loss, weight)",
        "value = weighted_sum(loss, weight / weight.sum())",
        "tests/algos/test_grpo.py::test_a_step_does_not_depend_on_the_parts[12-CISPO]",
    ),
    Mutation(
        "tokens of older weights count as those of the newest",
        "algos/grpo.py",
        "loss = loss * importance",
        "loss = loss + 0 * importance",
        "tests/algos/test_grpo.py::test_losses_are_those_of_the_papers[truncated]",
    ),
    Mutation(
        "a group without signal is given the rounding of its mean, scaled up",
        "math/group_advantages.py",
        "centered = torch.where(_differ(reward, place), reward - mean, 0.0)",
        "centered = reward - mean",
        "tests/math/test_group_advantages.py::test_without_signal_nothing_is_left[0.0-group]",
    ),
    Mutation(
        "what stands in padding reaches the gradient",
        "math/token_ratios.py",
        "return torch.where(mask, logprob - old_logprob, torch.zeros_like(logprob))",
        "return (logprob - old_logprob) * mask",
        "tests/math/test_token_losses.py::test_ratios_of_tokens_by_hand",
    ),
]
