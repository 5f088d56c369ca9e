"""SmolLM2-135M-Instruct with LoRA on a task of reasoning-gym: does its reward rise, and what does it answer then?

shoal fetch smollm2
python -m benchmarks.smollm2            trains for 100 updates, appends to the results, draws docs/assets/smollm2.png
python -m benchmarks.smollm2 --draw     only draws what stands there

A row has for each update its seconds, the mean reward and tokens of its answers, and the same questions with the most
probable answers before and after; they are questions that training did not have.
"""

from __future__ import annotations

import argparse
import json
import math
import resource
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import shoal
from benchmarks import machine
from shoal.experiment.language import ask_in_chat
from shoal.llm.loading import load_model
from shoal.llm.sampler.local import LocalSampler
from shoal.llm.sampler.protocol import Drawing, Request
from shoal.llm.tasks.registry import make_task

if TYPE_CHECKING:
    from shoal.llm.model import LanguageModel
    from shoal.llm.tasks.task import Task

RESULT = Path(__file__).parent / "results" / "smollm2.jsonl"
PICTURE = Path(__file__).parents[1] / "docs" / "assets" / "smollm2.png"
TASK = "reasoning-gym:chain_sum"
KEYWORDS = {"min_terms": 2, "max_terms": 2, "min_digits": 1, "max_digits": 1, "extract": "last_number"}
SYSTEM = "Give the number."
SHOWN = 8
"""Questions whose answers are kept."""
ASKED = 100
"""Questions that the mean rewards before and after are over."""
WINDOW = 10
"""Updates that the curve's line is the mean of."""


def answers(model: LanguageModel, task: Task, most: int) -> list[dict[str, Any]]:
    """The most probable answer to each of the task's first questions, of so many tokens at most."""
    prompts = [task.prompt(number) for number in range(ASKED)]
    sampler = LocalSampler(model, Drawing(max_tokens=most, temperature=0), slots=32, seed=0)
    sampler.submit([Request(one.index, tuple(model.tokenizer.encode_prompt(one)), (0,)) for one in prompts])
    found: dict[int, str] = {}
    while sampler.pending:
        for drawn in sampler.poll():
            found[drawn.key] = model.tokenizer.decode(drawn.token.tolist())
    return [
        {"question": one.question, "answer": found[one.index], "reward": task.score(one, found[one.index])}
        for one in prompts
    ]


def train(args: argparse.Namespace) -> dict[str, Any]:
    """One run, and its row."""
    held_out = make_task(TASK, seed=args.seed, kwargs=KEYWORDS, held_out=True)
    model = load_model("smollm2")
    ask_in_chat(model.tokenizer, "auto", SYSTEM)
    before = answers(model, held_out, args.max_completion_length)
    del model
    settings: dict[str, Any] = {
        "num_prompts": args.num_prompts,
        "num_generations": args.num_generations,
        "max_completion_length": args.max_completion_length,
        "overlong_cache": args.overlong_cache,
        "learning_rate": args.learning_rate,
        "language": {"lora_rank": args.lora_rank, "system": SYSTEM},
        "schedule": args.schedule,
    }
    began, curve = time.perf_counter(), Curve()
    with tempfile.TemporaryDirectory() as folder:
        result = shoal.train(
            TASK,
            algo="grpo",
            model="smollm2",
            env_kwargs=KEYWORDS,
            seed=args.seed,
            total_timesteps=args.steps * args.num_prompts * args.num_generations,
            num_threads=args.threads,
            stop_at=math.inf,
            final_episodes=0,
            panel="none",
            run_dir=folder,
            callbacks=[curve],
            **settings,
        )
        saved = max(path.stat().st_size for path in (result.path / "checkpoints").glob("*.safetensors"))
    after = answers(cast("LanguageModel", result.policy), held_out, args.max_completion_length)
    return {
        "claim": "smollm2",
        "task": TASK,
        "keywords": KEYWORDS,
        "seed": args.seed,
        "settings": settings,
        "seconds": time.perf_counter() - began,
        "peak_memory_mb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024,
        "largest_checkpoint_file_mb": saved / 1e6,
        "before": sum(one["reward"] for one in before) / ASKED,
        "after": sum(one["reward"] for one in after) / ASKED,
        "answers": [
            {"question": a["question"], "before": a["answer"], "after": b["answer"]}
            for a, b in zip(before[:SHOWN], after[:SHOWN], strict=True)
        ],
        "curve": curve.points,
        "machine": machine.describe(),
    }


class Curve:
    """Seconds, mean reward and tokens of each batch, where the run's own means are over the last 100 answers."""

    def __init__(self) -> None:
        """Nothing was answered yet."""
        self.points: list[list[float]] = []
        self._episodes: list[tuple[float, float]] = []

    def __call__(self, run: Any, record: Any) -> None:
        """Takes an answer, or the line of an update."""
        if not isinstance(record, dict):
            self._episodes.append((record.episode_return, record.length))
            return
        del run
        if self._episodes:
            count = len(self._episodes)
            means = [sum(values) / count for values in zip(*self._episodes, strict=True)]
            self.points.append([record["time/elapsed"], *means])
            self._episodes = []
            print(f"update {len(self.points)}: reward {means[0]:.3f}, tokens {means[1]:.1f}", flush=True)


def draw(rows: list[dict[str, Any]]) -> None:
    """The reward over updates, and its running mean, of each row."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(6.4, 3.2), dpi=150, layout="constrained")
    axes = figure.add_subplot()
    for number, row in enumerate(rows):
        reward = [point[1] for point in row["curve"]]
        smooth = [sum(reward[max(0, k - WINDOW + 1) : k + 1]) / min(k + 1, WINDOW) for k in range(len(reward))]
        axes.plot(range(1, len(reward) + 1), reward, ".", color=f"C{number}", alpha=0.3, markersize=3)
        axes.plot(range(1, len(reward) + 1), smooth, color=f"C{number}", label=f"seed {row['seed']}")
    axes.set_xlabel("update")
    axes.set_ylabel("mean reward of a batch")
    axes.set_ylim(0, 1)
    axes.set_title("SmolLM2-135M-Instruct with LoRA on chain_sum")
    axes.legend(frameon=False)
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)
    FigureCanvasAgg(figure).print_png(PICTURE)


def newest(path: Path) -> list[dict[str, Any]]:
    """The last row of each seed."""
    rows = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
    return list({row["seed"]: row for row in rows}.values())


def main() -> None:
    """Train, append, draw."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--draw", action="store_true", help="draw only")
    parser.add_argument("--steps", type=int, default=100, help="updates")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--num_prompts", type=int, default=6)
    parser.add_argument("--num_generations", type=int, default=8)
    parser.add_argument("--max_completion_length", type=int, default=12)
    parser.add_argument("--overlong_cache", type=int, default=0)
    parser.add_argument("--learning_rate", type=float, default=5e-4)
    parser.add_argument("--lora_rank", type=int, default=8)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--schedule", choices=["sync", "async"], default="async")
    parser.add_argument("--out", type=Path, default=RESULT)
    args = parser.parse_args()
    if not args.draw:
        row = train(args)
        with args.out.open("a", encoding="utf-8") as file:
            file.write(json.dumps(row) + "\n")
        print(json.dumps({name: value for name, value in row.items() if name != "curve"}, indent=1))
    if args.out == RESULT:
        draw(newest(args.out))


if __name__ == "__main__":
    main()
