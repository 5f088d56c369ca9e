"""The quadratic program of the action guard: the allowed action that is nearest to the policy's."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

import numpy as np

from shoal.envs.action_guard.functions import answer_of, function_of
from shoal.envs.action_guard.limits import sized
from shoal.types import ConfigError, EnvError

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray

    from shoal.envs.action_guard.limits import Limits
    from shoal.types import Bools, Floats, Spec, Tree

MARGIN = 4.0
"""Roundings of an action's dtype by which a solution keeps off each inequality, so that none is violated by them."""


class Program:
    """min ||x - a||^2 subject to A(obs) x <= b(obs) and to the limits, for each row, by quadprog.

    Goldfarb & Idnani 1983, "A numerically stable dual method for solving strictly convex quadratic programs".
    What it gives satisfies A x <= b as float64 computes it, without a tolerance, each row divided by a power of two
    first, so that its largest coefficient is near 1; a region that is thinner than the roundings of the action's dtype
    counts as empty.
    """

    def __init__(
        self,
        given: str | Callable[..., Any],
        spec: Spec,
        limits: Limits | None,
        safe_action: tuple[float, ...],
    ) -> None:
        """`safe_action`: what is done where there is no solution; none: EnvError then.

        Raises:
            ConfigError: actions that are no Box of real numbers, no quadprog, or a safe action outside the limits.
        """
        if limits is None:
            raise ConfigError(
                f"{spec.env_id}: action_guard.inequalities are for a Box of real numbers, but the actions are "
                f"{spec.action_space}; use action_guard.constraint"
            )
        try:
            self._solve: Any = importlib.import_module("quadprog").solve_qp
        except ImportError as error:
            raise ConfigError(
                f"action_guard.inequalities need quadprog: pip install 'shoal-rl[action-guard]' ({error})"
            ) from error
        self._function = function_of("inequalities", given)
        self._spec, self._limits, self._size = spec, limits, len(limits.low)
        self._eps = MARGIN * float(np.finfo(limits.dtype).eps)
        self._instead = sized("safe_action", safe_action, self._size, spec)
        if self._instead is not None:
            self._check_safe(self._instead)

    def nearest(
        self,
        rows: slice,
        obs: Tree,
        wanted: Floats,
        previous: Floats,
        begun: Bools,
    ) -> Floats:
        """The allowed actions [n, D] nearest to `wanted` [n, D].

        Raises:
            EnvError: A or b of another shape or not finite; no solution, and no safe action.
        """
        matrix, bound = self._asked(rows, obs, len(wanted))
        low, high = self._limits.reach(previous, begun)
        found = self._limits.apply(wanted, previous, begun)
        broken = (_product(matrix, found) > bound).any(1)
        for row in np.flatnonzero(broken):
            one = slice(row, row + 1)
            solved = self._solved(
                matrix[row], bound[row], wanted[row], low[row], high[row]
            )
            if solved is not None:
                solved = self._limits.rounded(solved[None], previous[one], begun[one])
                if (_product(matrix[one], solved) > bound[one]).any():
                    solved = None
            if solved is not None:
                found[row] = solved[0]
            elif self._instead is not None:
                found[row] = self._instead
            else:
                raise EnvError(
                    f"{self._said}: no action satisfies the inequalities of row {rows.start + row}; relax them, or set "
                    "action_guard.safe_action, which is done then"
                )
        return found

    @property
    def _said(self) -> str:
        return f"{self._spec.env_id}: action_guard.inequalities"

    def _asked(
        self, rows: slice, obs: Tree, count: int
    ) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """A [n, m, D] and b [n, m] of the function, checked."""
        answer = answer_of(self._function, obs, said=self._said, rows=rows)
        try:
            matrix, bound = (np.asarray(part, np.float64) for part in answer)
        except (TypeError, ValueError) as error:
            raise EnvError(
                f"{self._said} must return (A [n, m, {self._size}], b [n, m]): {error}"
            ) from error
        shape = (count, bound.shape[-1] if bound.ndim else 0, self._size)
        if matrix.shape != shape or bound.shape != shape[:2]:
            raise EnvError(
                f"{self._said} gave A {matrix.shape} and b {bound.shape} for {count} observations; they must be "
                f"[{count}, m, {self._size}] and [{count}, m]"
            )
        bad = ~np.isfinite(matrix).all((1, 2)) | np.isnan(bound).any(1)
        if bad.any():
            raise EnvError(
                f"{self._said} gave numbers that are not finite for row {rows.start + int(np.argmax(bad))}"
            )
        return _scaled(matrix, bound)

    def _solved(
        self, matrix: Floats, bound: Floats, wanted: Floats, low: Floats, high: Floats
    ) -> Floats | None:
        """The solution [D] for one row, kept off the inequalities by a margin; None where there is none."""
        size = np.maximum(np.abs(wanted), 1.0)
        margin = self._eps * (np.abs(matrix) @ size + np.abs(bound))
        # A row of zeros is no inequality for the solver: whether it holds is compared with what is found.
        real = np.isfinite(bound) & matrix.any(1)
        below, above = np.isfinite(low), np.isfinite(high)
        unit = np.eye(self._size)
        sides = np.concatenate([-matrix[real], unit[below], -unit[above]])
        least = np.concatenate([margin[real] - bound[real], low[below], -high[above]])
        try:
            return self._solve(unit, wanted, np.ascontiguousarray(sides.T), least)[0]
        except ValueError:  # quadprog: "constraints are inconsistent, no solution"
            return None

    def _check_safe(self, action: Floats) -> None:
        """ConfigError for a safe action that the limits forbid."""
        if (action < self._limits.low).any() or (action > self._limits.high).any():
            raise ConfigError(
                f"{self._spec.env_id}: action_guard.safe_action {action.tolist()} lies outside "
                f"[{list(self._limits.low)}, {list(self._limits.high)}]; give one inside"
            )


def _scaled(matrix: Floats, bound: Floats) -> tuple[Floats, Floats]:
    """The same inequalities with coefficients whose largest lies in [0.5, 1).

    Sums of coefficients of any size stay finite then, and the solver sees all rows alike. A power of two rounds
    nothing; a bound that overflows by it is beyond every action.
    """
    largest = np.abs(matrix).max(2, initial=0.0)
    _, exponent = np.frexp(largest)
    with np.errstate(over="ignore", under="ignore"):
        return np.ldexp(matrix, -exponent[..., None]), np.ldexp(bound, -exponent)


def _product(matrix: Floats, action: Floats) -> Floats:
    """A x of each row: [n, m]."""
    return np.einsum("nmd,nd->nm", matrix, action)
