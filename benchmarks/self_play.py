"""Self-play, measured: tic-tac-toe learned against past versions, then played against others.

python -m benchmarks.self_play           five seeds, appended to benchmarks/results/self_play.jsonl as each ends
python -m benchmarks.self_play --seeds 0 1

The bar, set before any training: on each of seeds 0 to 4 the greedy policy wins at least 90 % of 1,000 games against a
player at random, half of them moving first (a perfect player who moves second wins about 90 %), and loses none of 1,000
against a player who chooses among the perfect moves at random.
"""

from __future__ import annotations

import argparse
import json
import math
import tempfile
import time
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

import shoal
from benchmarks import machine
from shoal.envs.agents import tictactoe
from shoal.run.log import read

if TYPE_CHECKING:
    from collections.abc import Callable

    from shoal.envs.agents.tictactoe import Board
    from shoal.experiment.agent import Agent

    Player = Callable[[Board], int]

RESULT = Path(__file__).parent / "results" / "self_play.jsonl"
ENV = "shoal.envs.agents.tictactoe:TicTacToe"
GAMES = 1000
WINS, LOSSES = 0.9, 0


def learned(policy: Agent) -> Player:
    """The greedy policy as a player, each board asked once."""

    @cache
    def player(board: Board) -> int:
        cells = np.array(board)
        seen = np.concatenate([cells == 1, cells == -1]).astype(np.float32)
        return int(policy.act({"action_mask": (cells == 0).astype(np.int8), "observation": seen}))

    return player


def at_random(rng: np.random.Generator) -> Player:
    """Any free cell."""
    return lambda board: int(rng.choice(tictactoe.moves(board)))


def perfect(rng: np.random.Generator) -> Player:
    """Any perfect move."""
    return lambda board: int(rng.choice(tictactoe.best(board)))


def play(first: Player, second: Player) -> int:
    """One game: 1 if `first` won, -1 if it lost, 0 for a draw."""
    board, sign, players = tictactoe.EMPTY, 1, (first, second)
    for turn in range(9):
        board = tictactoe.move(board, players[turn % 2](board))
        if tictactoe.lost(board):
            return sign
        sign = -sign
    return 0


def match(player: Player, other: Player, games: int) -> dict[str, float]:
    """Shares of games won, drawn and lost by `player`, who begins every other one."""
    results = [play(player, other) if game % 2 == 0 else -play(other, player) for game in range(games)]
    return {name: results.count(value) / games for name, value in (("won", 1), ("drawn", 0), ("lost", -1))}


def beatable(player: Player) -> tuple[int, int]:
    """All lines of play that an opponent can choose, moving first or second: how many there are, how many it wins."""

    def follow(board: Board, *, own: bool) -> tuple[int, int]:
        if tictactoe.lost(board):
            return 1, int(own)
        if not tictactoe.moves(board):
            return 1, 0
        cells = [player(board)] if own else tictactoe.moves(board)
        found = [follow(tictactoe.move(board, cell), own=not own) for cell in cells]
        return sum(lines for lines, _ in found), sum(won for _, won in found)

    begun, answered = follow(tictactoe.EMPTY, own=True), follow(tictactoe.EMPTY, own=False)
    return begun[0] + answered[0], begun[1] + answered[1]


def measure(seed: int, **settings: Any) -> dict[str, Any]:
    """One run, and the strength of its greedy policy."""
    with tempfile.TemporaryDirectory() as folder:
        result = shoal.train(ENV, seed=seed, panel="none", run_dir=folder, stop_at=math.inf, **settings)
        player = learned(shoal.load(result.path))
        returns = [line["episode/return"] for line in read(result.path / "metrics.jsonl") if "episode/return" in line]
    rng = np.random.default_rng(seed)
    random, strong = match(player, at_random(rng), GAMES), match(player, perfect(rng), GAMES)
    lines, losing = beatable(player)
    return {
        "seed": seed,
        "steps": result.steps,
        "seconds": round(result.seconds, 1),
        "against_random": random,
        "against_perfect": strong,
        "lines_of_play": lines,
        "lines_lost": losing,
        "reached": random["won"] >= WINS and strong["lost"] <= LOSSES,
        "curve": [round(value, 3) for value in returns[:: max(1, len(returns) // 50)]],
    }


def main() -> None:
    """Trains and plays every seed with the preset."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, nargs="*", default=list(range(5)))
    bar = {"won_against_random": WINS, "lost_against_perfect": LOSSES, "games": GAMES}
    about = {"env": ENV, "bar": bar, "machine": machine.describe(), "versions": machine.versions()}
    for seed in parser.parse_args().seeds:
        row = measure(seed)
        print({key: value for key, value in row.items() if key != "curve"}, flush=True)
        with RESULT.open("a", encoding="utf-8") as file:
            file.write(json.dumps({"date": time.strftime("%Y-%m-%d"), **about, **row}) + "\n")


if __name__ == "__main__":
    main()
