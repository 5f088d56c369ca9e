"""Defects of one line each in what servers of environments and their clients promise."""

from tests.mutations import Mutation

SERVERS = [
    Mutation(
        "a request that comes again steps once more",
        "remote/sessions.py",
        "elif number == self._kept[-1].number + 1:",
        "elif number:",
        "tests/remote/test_sessions.py::test_no_step_is_lost_or_doubled_by_connections_that_break[unix]",
    ),
    Mutation(
        "what had no reply when a connection broke is not asked again",
        "remote/link.py",
        "stream.send(data)",
        "pass",
        "tests/remote/test_sessions.py::test_no_step_is_lost_or_doubled_by_connections_that_break[unix]",
    ),
    Mutation(
        "a session whose connection broke is given away at once",
        "remote/sessions.py",
        "if not session.resume_s:",
        "if True:",
        "tests/remote/test_sessions.py::test_no_step_is_lost_or_doubled_by_connections_that_break[unix]",
    ),
    Mutation(
        "a session's older stream stays beside the newer one",
        "remote/sessions.py",
        "before()",
        "pass",
        "tests/remote/test_planes.py::test_a_session_has_one_stream",
    ),
    Mutation(
        "as many as like may connect and say nothing",
        "remote/greetings.py",
        "if self._count >= self._most:",
        "if False:",
        "tests/remote/test_guard.py::test_those_who_say_nothing_at_first",
    ),
]
