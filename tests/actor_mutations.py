"""Defects of actors of one line each: a test must fail on every one."""

from tests.mutations import Mutation

COLLECTED = "tests/stream/test_distant_actors.py::test_what_two_actors_collect_equals_one_process"
ACTORS = [
    Mutation(
        "a final observation of one actor is taken for another's",
        "stream/actors/parts.py",
        "slab.final_index[at] = np.where(index >= 0, index + slab.num_final, -1)",
        "slab.final_index[at] = index",
        COLLECTED,
    ),
    Mutation(
        "actors act with their first weights for ever",
        "stream/actors/pool.py",
        "if there and sent.get(role.name) != role.source.version:",
        "if there and role.name not in sent:",
        COLLECTED,
    ),
    Mutation(
        "rows of every actor draw the same noise",
        "stream/roles.py",
        "numbers += acting.first_row",
        "numbers += 0",
        COLLECTED,
    ),
    Mutation(
        "actors run further ahead than they may",
        "stream/actors/collecting.py",
        "while self.pool.under_way[number] + len(self._held[number]) <= self.ahead:",
        "while self.pool.under_way[number] + len(self._held[number]) <= self.ahead + 1:",
        "tests/stream/test_distant_actors.py::test_actors_are_a_rollout_ahead",
    ),
    Mutation(
        "what was collected ahead is lost when a run is saved",
        "stream/actors/collecting.py",
        'own.extend(Part.of_saved(part) for part in state["held"][str(number)])',
        "own.extend(())",
        "tests/stream/test_distant_actors.py::test_what_is_under_way_is_saved",
    ),
]
