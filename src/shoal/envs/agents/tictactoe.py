"""Tic-tac-toe, as a game of turns for two agents: a small game that is solved, to learn by self-play."""

from __future__ import annotations

from functools import cache
from typing import Any

import numpy as np
from gymnasium import spaces

LINES = (
    (0, 1, 2),
    (3, 4, 5),
    (6, 7, 8),
    (0, 3, 6),
    (1, 4, 7),
    (2, 5, 8),
    (0, 4, 8),
    (2, 4, 6),
)
Board = tuple[int, ...]
"""Nine cells: 0 free, 1 of the agent who moves next, -1 of the other."""
EMPTY: Board = (0,) * 9


def moves(board: Board) -> list[int]:
    """The free cells."""
    return [cell for cell in range(9) if board[cell] == 0]


def move(board: Board, cell: int) -> Board:
    """The board after the agent who is to move has taken `cell`, as the other one sees it."""
    seen = [-owner for owner in board]
    seen[cell] = -1
    return tuple(seen)


def lost(board: Board) -> bool:
    """Whether the agent who is to move has lost already."""
    return any(board[a] == board[b] == board[c] == -1 for a, b, c in LINES)


@cache
def worth(board: Board) -> int:
    """What the game is worth to the agent who is to move when both play perfectly: -1, 0 or 1."""
    if lost(board):
        return -1
    return max((-worth(move(board, cell)) for cell in moves(board)), default=0)


def best(board: Board) -> list[int]:
    """Every perfect move."""
    return [cell for cell in moves(board) if -worth(move(board, cell)) == worth(board)]


class TicTacToe:
    """Agents `cross` and `nought` take cells in turn; three in a line are worth 1 to their owner and -1 to the other.

    Observes nine cells that are one's own and nine of the other's, and an action mask of the free ones; cross begins.
    The interface is that of `pettingzoo.AECEnv`.
    """

    possible_agents = ("cross", "nought")
    render_mode = None

    def __init__(self) -> None:
        """An empty board; `reset` begins."""
        self.metadata: dict[str, Any] = {"name": "tictactoe"}
        self.agents: list[str] = []
        self.agent_selection = "cross"
        self.board = EMPTY
        self._due: dict[str, float] = dict.fromkeys(self.possible_agents, 0.0)
        self._over = False
        seen = spaces.Box(0, 1, (18,), np.float32)
        self._observed = spaces.Dict(
            {"action_mask": spaces.MultiBinary(9), "observation": seen}
        )
        self._chosen = spaces.Discrete(9)

    @property
    def unwrapped(self) -> TicTacToe:
        """Itself."""
        return self

    def observation_space(self, agent: str) -> spaces.Dict:
        """Cells and mask."""
        return self._observed

    def action_space(self, agent: str) -> spaces.Discrete:
        """The cell to take."""
        return self._chosen

    def reset(
        self, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> None:
        """An empty board; nothing is drawn."""
        self.agents = list(self.possible_agents)
        self.agent_selection = "cross"
        self.board, self._over = EMPTY, False
        self._due = dict.fromkeys(self.possible_agents, 0.0)

    def observe(self, agent: str) -> dict[str, Any]:
        """The board as `agent` sees it."""
        cells = np.array(self.board)
        if agent != self.agent_selection:
            cells = -cells
        mask = (cells == 0).astype(np.int8)
        return {
            "action_mask": mask,
            "observation": np.concatenate([cells == 1, cells == -1]).astype(np.float32),
        }

    def last(
        self,
        observe: bool = True,  # noqa: FBT001, FBT002 PettingZoo's signature
    ) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        """What the agent whose turn it is sees, and what it was rewarded since its last turn."""
        agent = self.agent_selection
        seen = self.observe(agent) if observe else None
        return seen, self._due[agent], self._over, False, {}

    def step(self, action: int | None) -> None:
        """Takes a cell; ValueError for one that is not free. After the end each agent leaves with the action None."""
        agent = self.agent_selection
        if self._over:
            self.agents.remove(agent)
        else:
            if action is None or self.board[action] != 0:
                raise ValueError(f"{agent} cannot take cell {action} of {self.board}")
            self._due[agent] = 0.0
            self.board = move(self.board, int(action))
            if lost(self.board):
                self._due = dict.fromkeys(self.possible_agents, -1.0)
                self._due[agent] = 1.0
            self._over = lost(self.board) or not moves(self.board)
        self.agent_selection = "nought" if agent == "cross" else "cross"

    def close(self) -> None:
        """Nothing to close."""
