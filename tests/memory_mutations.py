"""Defects of one line each in replay memories, sequences, recordings and what comes from outside."""

from tests.mutations import Mutation

MEMORY = [
    Mutation(
        "a memory in a file goes on behind its checkpoint, with steps that are taken again",
        "memory/replay_file.py",
        "memory.heads[:] = heads",
        "memory.gone = gone",
        "tests/memory/test_replay_file.py::test_what_was_not_overwritten_goes_on_exactly",
    ),
    Mutation(
        "a recording keeps views, which hold the last observation in every row in the end",
        "run/record.py",
        "self.obs.append(map_tree(np.copy, obs))  # views are written anew",
        "self.obs.append(obs)",
        "tests/run/test_record.py::test_the_environment_did_the_same[True]",
    ),
    Mutation(
        "an episode that its recording cut ends as if it had terminated",
        "memory/data.py",
        "self.truncated[-1] |= not self.terminated[-1]",
        "self.terminated[-1] |= not self.truncated[-1]",
        "tests/memory/test_data.py::test_transitions_by_hand",
    ),
    Mutation(
        "a resumed run goes on with another data set",
        "stream/data.py",
        'if state.get("sha256") != sha256:',
        'if not state.get("sha256"):',
        "tests/stream/test_data_draws.py::test_another_data_set_is_refused",
    ),
    Mutation(
        "what is inserted has no share of the batches",
        "stream/data.py",
        "self._own -= self.count",
        "self._own -= 0",
        "tests/stream/test_data_draws.py::test_what_is_inserted_has_its_share_from_then_on[0.0]",
    ),
    Mutation(
        "a goal in hindsight may be of the next episode",
        "memory/hindsight.py",
        "ahead = self._ends_of(rows, index) - index",
        "ahead = self._ends_of(rows, index) - index + 1",
        "tests/memory/test_hindsight.py::test_goals_are_later_ones_of_the_same_episode[1000]",
    ),
    Mutation(
        "sequences begin with the recurrent state after their first step",
        "stream/roles.py",
        "return tensor.numpy(force=True).copy()",
        "return tensor.numpy(force=True)",
        "tests/algos/test_r2d2.py::test_acting_and_learning_have_one_q[gru]",
    ),
    Mutation(
        "truncation treated as termination within a sequence",
        "memory/record_words.py",
        "goes_on = flags & TERMINATED == 0",
        "goes_on = flags & ENDED == 0",
        "tests/memory/test_sequences.py::test_sequences_over_each_kind_of_end",
    ),
    Mutation(
        "gradients go through the steps that warm up",
        "learn/sequences.py",
        "with torch.no_grad():",
        "with torch.enable_grad():",
        "tests/algos/test_r2d2.py::test_steps_that_warm_up_get_no_gradient[gru]",
    ),
]
