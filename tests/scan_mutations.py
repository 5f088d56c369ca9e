"""Defects of one line each in the scans that correct for older weights; a test must fail on every one."""

from tests.mutations import Mutation

SCANS = [
    Mutation(
        "V-trace runs over an episode's end",
        "math/scan.hpp",
        "const bool cut = in.ended[at] != 0 || carry[b].going == 0;",
        "const bool cut = carry[b].going == 0;",
        "tests/math/test_corrections.py::test_vtrace_by_hand",
    ),
    Mutation(
        "V-trace weighs what follows a step by rho, not by c",
        "math/scan.hpp",
        "error[at] = weights.rho[at] * own + discount * weights.c[at] * later;",
        "error[at] = weights.rho[at] * own + discount * weights.rho[at] * later;",
        "tests/math/test_corrections.py::test_vtrace_by_hand",
    ),
    Mutation(
        "V-trace's advantages are not weighed",
        "math/scan.hpp",
        "advantage[at] = weights.rho[at] * (own + discount * later);",
        "advantage[at] = own + discount * later;",
        "tests/math/test_corrections.py::test_vtrace_without_clips_is_unbiased",
    ),
    Mutation(
        "V-trace bootstraps from values of the weights that acted",
        "math/scan.hpp",
        "const float follows = cut ? in.next_value[at] : carry[b].value;",
        "const float follows = in.next_value[at];",
        "tests/math/test_corrections.py::test_vtrace_passes_over_invalid_steps",
    ),
]
