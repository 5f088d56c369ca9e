"""Defects of one line each in the guard of a run; a test must fail on every one."""

from tests.mutations import Mutation

GUARD = [
    Mutation(
        "a state counts as good by the returns before it alone: what breaks down looks like the best",
        "run/guard/states.py",
        "figure=min(there.before, returns.mean),",
        "figure=there.before,",
        "tests/run/guard/test_guard.py::test_a_run_that_it_acted_in_ends_as_the_verified_best",
    ),
    Mutation(
        "a state is verified though something was found since it was taken",
        "run/guard/watch.py",
        "self.states.drop_candidate()",
        "pass",
        "tests/run/guard/test_guard.py::test_a_state_is_not_verified_over_a_finding",
    ),
    Mutation(
        "a rollback restores the moments that optimizers have now: copies share their memory",
        "run/guard/states.py",
        "return tree.detach().clone()",
        "return tree.detach()",
        "tests/run/guard/test_guard.py::test_a_rollback_is_the_last_good_state[10-7]",
    ),
    Mutation(
        "a resumed run forgets the halved learning rate",
        "learn/descent.py",
        'saved["rate_factor"] = self._rate_factor',
        "pass",
        "tests/run/guard/test_guard.py::test_halving_multiplies_whatever_rate_is_set",
    ),
    Mutation(
        "a run that the guard stopped goes on when it is resumed",
        "run/guard/guard.py",
        "self.run.stop(self.stopped)",
        "pass",
        "tests/run/guard/test_guard.py::test_a_run_that_was_stopped_stays_stopped",
    ),
    Mutation(
        "a first success is taken for an explosion of the value loss",
        "run/guard/reach.py",
        "self.grew |= high - low > GROWN * (self.high - self.low)",
        "self.grew |= high - low < self.high - self.low",
        "tests/run/guard/test_rules.py::test_a_first_success_is_no_explosion_and_another_unit_is_one",
    ),
]
