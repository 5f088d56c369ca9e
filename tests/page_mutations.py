"""Defects of one line each in what the live page, its readings and the exporters promise."""

from tests.mutations import Mutation

PAGE = [
    Mutation(
        "another site reaches the page by giving its name this machine's address",
        "report/page/gate.py",
        "if len(hosts) != 1 or not HOST.fullmatch(hosts[0]):",
        "if not hosts:",
        "tests/report/page/test_gate.py::test_host[evil.example]",
    ),
    Mutation(
        "another page gives orders",
        "report/page/gate.py",
        'if site in FROM_HERE and origins == [f"http://{host}"]:',
        "if site in FROM_HERE:",
        "tests/report/page/test_gate.py::test_no_origin",
    ),
    Mutation(
        "a request needs no token",
        "report/page/gate.py",
        "if not (self._has_cookie(headers) or self._has_bearer(headers)):",
        "if False:",
        "tests/report/page/test_gate.py::test_token[/api/state]",
    ),
    Mutation(
        "films behind links are played",
        "report/page/films.py",
        "if kind is None or draft or not entry.is_file(follow_symlinks=False):",
        "if kind is None or draft:",
        "tests/report/page/test_answers.py::test_films",
    ),
    Mutation(
        "a file that was written anew is taken for the same",
        "run/following.py",
        "return before == self._tail",
        "return True",
        "tests/run/test_following.py::test_it_is_cut",
    ),
    Mutation(
        "names of numbers fill the memory",
        "run/following.py",
        "if len(self.by_key) >= LINE_NUMBERS:",
        "if False:",
        "tests/run/test_following.py::test_too_many_names",
    ),
    Mutation(
        "a tracker that fails ends the run",
        "run/exporting.py",
        "if self._must:",
        "if True:",
        "tests/run/test_exporting.py::test_a_tracker_that_fails[write]",
    ),
]
