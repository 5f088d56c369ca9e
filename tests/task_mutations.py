"""Defects of one line each in tasks, scorers and the sandbox: a test must fail on every one."""

from tests.mutations import Mutation

REASONING = "tests/llm/tasks/test_reasoning.py"
POOL = "tests/llm/scorers/test_pool.py"
SANDBOX = "tests/llm/tasks/test_sandbox.py"
TALK = "tests/stream/test_conversations.py"
TASKS = [
    Mutation(
        "an answer that contains the right one is paid",
        "llm/tasks/answers.py",
        "return right is not None and number_of(answer) == right",
        "return truth in answer",
        f"{REASONING}::test_what_contains_the_answer_is_not_paid",
    ),
    Mutation(
        "an end token is scored as part of the answer",
        "llm/tasks/answers.py",
        "shorter = shorter.removesuffix(token).rstrip()",
        "shorter = shorter.rstrip()",
        f"{REASONING}::test_what_contains_the_answer_is_not_paid",
    ),
    Mutation(
        "an item depends on what the process drew before",
        "llm/tasks/reasoning.py",
        "random.seed(dataset.seed + place)",
        "pass",
        f"{REASONING}::test_the_process_own_generators_are_left_alone[list_functions]",
    ),
    Mutation(
        "prompts begin again after a block",
        "llm/tasks/reasoning.py",
        "seed = (self.seed + number * BLOCK + attempt * RESEED) % 2**32",
        "seed = (self.seed + attempt * RESEED) % 2**32",
        f"{REASONING}::test_prompts_are_those_of_one_endless_data_set",
    ),
    Mutation(
        "evaluation asks the prompts of training",
        "llm/tasks/registry.py",
        "seed=_other(seed) if held_out else seed,",
        "seed=seed,",
        "tests/llm/tasks/test_registry.py::test_reasoning_gym",
    ),
    Mutation(
        "a scorer that gives NaN is believed",
        "llm/scorers/score.py",
        "if not isfinite(given):",
        "if False:",
        f"{POOL}::test_failures_follow_the_policy[0]",
    ),
    Mutation(
        "a batch whose process died is lost",
        "llm/stage/dispatcher.py",
        "if len(jobs) > 1:",
        "if len(jobs) > 1 and not self._terms.workers:",
        f"{POOL}::test_a_batch_whose_process_dies_takes_no_other_answer_with_it",
    ),
    Mutation(
        "an interrupt loses the answer that was being scored",
        "llm/stage/stage.py",
        "jobs = [*islice(self.waiting, self._work.batch_size)]",
        "jobs = [*islice(self.waiting, self._work.batch_size)]; self.waiting.rotate(-1); self.waiting.pop()",
        f"{POOL}::test_an_interrupt_loses_no_answer",
    ),
    Mutation(
        "an error takes the scores before it with it",
        "llm/scorers/pool.py",
        "elif found:  # an error is raised by the next call: these are not lost",
        "elif False:",
        f"{POOL}::test_the_error_is_raised_and_loses_nothing[0]",
    ),
    Mutation(
        "a scorer that hangs is waited for",
        "llm/stage/dispatcher.py",
        "elif self._left_s(process) <= 0 and not process.pipe.poll():",
        "elif False:",
        f"{POOL}::test_a_scorer_that_hangs_is_killed_and_shown",
    ),
    Mutation(
        "a sum pays for a part that failed",
        "llm/scorers/weighted.py",
        "if isinstance(outcome, Failed):",
        "if isinstance(outcome, Failed) and (outcome := Score(1.0)) is None:",
        "tests/llm/scorers/test_scorers.py::test_a_sum_with_a_part_that_fails_has_no_score",
    ),
    Mutation(
        "10 % is taken for 10",
        "llm/scorers/math.py",
        "if _is_percent(truth) != _is_percent(answer):",
        "if False:",
        "tests/llm/scorers/test_scorers.py::test_mathematics",
    ),
    Mutation(
        "a judge's grade is taken from where the answer stands",
        "llm/scorers/judge.py",
        "grade = float(found[-1])",
        "grade = float(found[0])",
        "tests/llm/scorers/test_judge.py::test_grades",
    ),
    Mutation(
        "a program in the sandbox reaches the network",
        "llm/tasks/isolation.py",
        "apart = NEW_FILES | NEW_NAMES | NEW_IPC | NEW_PROCESSES | NEW_NETWORK",
        "apart = NEW_FILES | NEW_NAMES | NEW_IPC | NEW_PROCESSES",
        f"{SANDBOX}::test_nothing_else_is_there",
    ),
    Mutation(
        "a program in the sandbox can write what it may read",
        "llm/tasks/isolation.py",
        "attributes = _Attributes(READ_ONLY | NO_SETUID | NO_DEVICES)",
        "attributes = _Attributes(NO_SETUID | NO_DEVICES)",
        f"{SANDBOX}::test_nothing_else_is_there",
    ),
    Mutation(
        "a program in the sandbox prints without an end",
        "llm/tasks/sandbox.py",
        "if size > most:",
        "if False:",
        f"{SANDBOX}::test_limits",
    ),
    Mutation(
        "a conversation has no end",
        "llm/tasks/dialogue.py",
        "if spoken >= dialogue.max_turns:",
        "if spoken > dialogue.max_turns:",
        "tests/llm/tasks/test_dialogue.py::test_turns_are_bounded",
    ),
    Mutation(
        "what a tool says is learned",
        "stream/groups/conversations.py",
        "learned=np.zeros(n, np.bool_),",
        "learned=np.ones(n, np.bool_),",
        f"{TALK}::test_turns_and_replies_become_one_answer",
    ),
    Mutation(
        "a reply that leaves no room for a token is read",
        "stream/groups/conversations.py",
        "if len(one.said.token) + len(heard) >= most:",
        "if len(one.said.token) + len(heard) > most:",
        f"{TALK}::test_a_conversation_without_room_is_cut",
    ),
    Mutation(
        "a tool's failures are not counted",
        "stream/groups/conversations.py",
        "self.failed += replied.failure is not None",
        "self.failed += 0",
        f"{TALK}::test_a_tool_that_fails_ends_its_conversations_and_is_counted",
    ),
    Mutation(
        "the end of a turn is read twice",
        "llm/between.py",
        "if found and not before.strip():",
        "if False:",
        "tests/llm/test_between.py::test_what_was_said_and_heard_is_the_chat",
    ),
    Mutation(
        "the reply to a turn that is cut is awaited",
        "stream/groups/conversations.py",
        "if drawn.truncated:",
        "if False:",
        f"{TALK}::test_a_turn_that_was_cut_ends_the_conversation",
    ),
]
