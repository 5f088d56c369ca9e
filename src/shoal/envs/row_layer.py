"""What every layer around rows passes on from the rows within."""

from __future__ import annotations

from typing import TYPE_CHECKING

from shoal.envs.vec_env import slowest_of

if TYPE_CHECKING:
    from shoal.envs.vec_env import Capabilities, PythonRows, VecEnv
    from shoal.types import Bools


class RowLayer:
    """A base of layers around rows of any backend."""

    env: VecEnv
    """The rows within."""

    @property
    def capabilities(self) -> Capabilities:
        """What the rows within can do."""
        return self.env.capabilities

    @property
    def python_rows(self) -> PythonRows | None:
        """The environments of the rows within."""
        return self.env.python_rows

    @property
    def dropped(self) -> Bools:
        """Rows that will never act again."""
        return self.env.dropped

    def slowest(self) -> float | None:
        """How much longer the slowest of the processes of the rows within takes."""
        return slowest_of(self.env)
