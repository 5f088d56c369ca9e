"""What a library that batches itself has to offer, to be brought to the contract of rows."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    import numpy as np
    from numpy.typing import NDArray

    from shoal.envs.vec_env import Capabilities
    from shoal.types import Bools, Spec, Tree


class Stepped(NamedTuple):
    """What one step of all rows came to, in arrays [B, ...].

    Anything that NumPy makes arrays of that shape of is taken; contiguous ones of the usual types are fastest.
    `final_obs` is read at ended rows; None means that `obs` still shows their last observation, and that the next step
    only resets them. `only_reset`: rows for which this was such a step.
    """

    obs: Tree
    reward: NDArray[Any]
    terminated: Bools
    truncated: Bools
    final_obs: Tree | None = None
    only_reset: Bools | None = None


class Library(Protocol):
    """A library that batches itself, as BatchedEnv uses it."""

    spec: Spec
    num_rows: int
    clip_reward: bool
    """Learning is given the signs of the rewards; returns are sums of the rewards themselves."""

    capabilities: Capabilities
    """`whole_sends`, and whether rows can be saved and drawn."""

    @property
    def infos(self) -> Mapping[str, Any]:
        """The joined infos of the last call, as Gymnasium's vector environments give them; their mask is read."""
        ...

    @property
    def lives(self) -> NDArray[Any] | None:
        """Lives left after the last call, [B], where a life lost is an end for learning, though not of the episode."""
        ...

    def reset(self, seeds: Sequence[int | None], rows: Bools) -> Tree:
        """Begins episodes in `rows`, seeded or (None) from their own generators; observations [B, ...] of all rows.

        They stay as they are until the next call. ConfigError where the library cannot begin just these.
        """
        ...

    def step(self, action: Tree) -> Stepped:
        """One step of all rows with actions that the space holds; its observations stay until the next call."""
        ...

    def state(self) -> dict[str, Any]:
        """What `restore` needs; empty where the library cannot be saved."""
        ...

    def restore(self, state: dict[str, Any]) -> Tree | None:
        """Comes back to `state` and returns the observations there; None where the library cannot."""
        ...

    def render(self, row: int, obs: Tree) -> NDArray[np.uint8]:
        """What a row looks like, whose observation is obs[row]: RGB [height, width, 3]. ConfigError where it cannot."""
        ...

    def close(self) -> None:
        """Frees what the library holds."""
        ...
