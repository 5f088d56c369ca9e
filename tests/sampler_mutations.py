"""Defects of one line each in the sampler of language models: a test must fail on every one."""

from tests.mutations import Mutation

HERE = "tests/llm/test_sampler.py::"
EXACT = "tests/llm/test_sampler_exact.py::"
SAMPLER = [
    Mutation(
        "noise belongs to a slot: an answer depends on what is drawn beside it",
        "llm/sampler/slots.py",
        "return self.key[: self.active] * NUMBERS + self.number[: self.active]",
        "return np.arange(self.active)",
        f"{HERE}test_neither_slots_nor_order_matter",
    ),
    Mutation(
        "noise is counted from what an answer had begun with: a resumed one goes on in another way",
        "llm/sampler/local.py",
        "step = length - slots.prompt[:active]",
        "step = length - slots.given[:active]",
        f"{HERE}test_a_fork_shares_what_came_before_the_pivot",
    ),
    Mutation(
        "an answer is under its newest version as a whole",
        "llm/sampler/slots.py",
        "self.version[slot, drawn] = version",
        "self.version[slot] = version",
        f"{HERE}test_every_token_has_the_version_that_chose_it[keep]",
    ),
    Mutation(
        "a sampler keeps its old weights after a push",
        "llm/sampler/local.py",
        "self._pass = ExactPass(model) if exact else FastPass(model, rows=slots)",
        "self._pass = self.__dict__.setdefault('_first', FastPass(model, rows=slots))",
        f"{HERE}test_every_token_has_the_version_that_chose_it[refill]",
    ),
    Mutation(
        "log-probabilities are those of the whole distribution, not of what was kept",
        "llm/sampler/draw.py",
        "logits = logits.masked_fill(~kept, -torch.inf)",
        "kept = kept.clone()",
        f"{HERE}test_logprobs_and_kept_sets_are_the_models[top-p]",
    ),
    Mutation(
        "an answer moves to another slot without its keys and values",
        "llm/sampler/cache.py",
        "part[:, target] = part[:, source]",
        "part[:, target] = part[:, target]",
        f"{HERE}test_neither_slots_nor_order_matter",
    ),
    Mutation(
        "a prompt that was read with old weights is handed on to new answers",
        "llm/sampler/reading.py",
        "self._pass, self._held = taken, None",
        "self._pass = taken",
        f"{HERE}test_a_prompt_is_read_anew_by_new_weights",
    ),
    Mutation(
        "what an answer begins with ends it",
        "llm/sampler/ends.py",
        "slot, max(start[slot], length[slot] - self._width) : length[slot]",
        "slot, max(0, length[slot] - self._width) : length[slot]",
        f"{HERE}test_what_a_stop_text_is_completed_by",
    ),
    Mutation(
        "a token of probability 0 is drawn where the noise is nearly 1",
        "llm/sampler/draw.py",
        "level = uniform.clamp(max=BELOW_ONE)[:, None] * reached[:, -1:]",
        "level = uniform[:, None] * 1.0000002",
        "tests/llm/test_draw.py::test_a_token_without_a_chance_is_never_drawn",
    ),
    Mutation(
        "products have as many rows as there are answers: bits depend on the batch",
        "llm/blocks.py",
        "padded = F.pad(x, (0, 0, 0, -n % BLOCK))",
        "padded = x if n < BLOCK else F.pad(x, (0, 0, 0, -n % BLOCK))",
        f"{EXACT}test_bits_of_one_answer_alone",
    ),
    Mutation(
        "an answer's keys lie a position late",
        "llm/exact.py",
        "of_answer = (position - first).clamp(0, answers.shape[1] - 1)",
        "of_answer = (position - first - 1).clamp(0, answers.shape[1] - 1)",
        f"{EXACT}test_after_new_weights_they_are_those_of_each_version",
    ),
]
