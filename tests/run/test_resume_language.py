"""A run on a task that is killed and resumed learns from every answer once, and draws none of them again."""

from __future__ import annotations

import json
import time
from typing import TYPE_CHECKING, Any

import psutil
import pytest

from shoal.llm.model_folder import save_model
from tests.llm.toy import toy_model

if TYPE_CHECKING:
    from pathlib import Path

    from tests.fork_server import Interpreter

CHILD = """
import json, os, signal, sys, time
sys.path.append(sys.argv[2])
from shoal.experiment.training import resume, train
from shoal.run.loop import Loop
from shoal.stream.groups.flight import Flight

task = json.loads(sys.argv[1])
write, take, save = Loop._write_line, Flight.take, Loop.save

def told(**what):
    with open(task["log"], "a") as file:
        file.write(json.dumps(what) + "\\n")

def noted(self, batches):
    found = take(self, batches)
    if found is not None:
        told(batch=batches, tokens={g.key: [g.drawn[n].token.tolist() for n in sorted(g.drawn)] for g in found})
    return found

def kept(self, **how):
    flight = self.stream.gathering.flight
    save(self, **how)
    held = {g.key: {n: d.token.tolist() for n, d in g.drawn.items()} for g in flight.groups.values()}
    under_way = self.stream.gathering.sampler._book.answers()
    begun = [(one.key, one.number, list(one.token[one.prompt :])) for one in under_way]
    told(saved=self.run.updates, held=held, begun=begun)

def write_then_die(self):
    write(self)
    if self.run.updates == task["die_at"]:
        self._writer.wait()
        children = [child.pid for child in __import__("psutil").Process().children(recursive=True)]
        told(children=children)
        os.kill(os.getpid(), signal.SIGKILL)

Flight.take, Loop._write_line, Loop.save = noted, write_then_die, kept
if task["resume"]:
    resume(task["path"], panel="none")
else:
    train("tests.llm.toy:Successor", panel="none", name="run", final_episodes=0, stop_at=1e9, **task["settings"])
"""
SETTINGS: dict[str, Any] = {
    "algo": "grpo",
    "num_prompts": 3,
    "num_generations": 4,
    "max_completion_length": 24,
    "learning_rate": 1e-3,
    "total_timesteps": 12 * 40,
    "checkpoint_every": 12 * 6,
    "schedule": "async",
    "max_staleness": 2,
}


@pytest.mark.slow
def test_every_answer_is_learned_from_once(interpreter: Interpreter, tmp_path: Path) -> None:
    """Killed twice: batches hold each group once, with the tokens that the checkpoint held; nothing is left behind.

    Answers that were under way when a checkpoint was written go on from its tokens.
    """
    save_model(toy_model(), tmp_path / "model")
    settings = SETTINGS | {"model": str(tmp_path / "model"), "run_dir": str(tmp_path / "runs")}
    log = tmp_path / "log.jsonl"
    root = str(__import__("pathlib").Path(__file__).parents[2])
    for number, die_at in enumerate((9, 23, -1)):
        found = list((tmp_path / "runs").glob("*/*/run"))
        task = {"settings": settings, "log": str(log), "die_at": die_at, "resume": number > 0}
        task |= {"path": str(found[0]) if found else ""}
        ended = interpreter.run(CHILD, json.dumps(task), root, folder=tmp_path)
        assert ended.returncode == (0 if die_at < 0 else -9), ended
    lines = [json.loads(line) for line in log.read_text().splitlines()]
    time.sleep(1.0)
    children = [pid for line in lines for pid in line.get("children", [])]
    assert len(children) >= 4
    assert not [pid for pid in children if psutil.pid_exists(pid)]
    batches: dict[int, dict[str, Any]] = {}
    held: dict[str, Any] = {}
    begun: list[Any] = []
    resumed, continued = False, 0
    for line in lines:
        resumed |= "children" in line
        if "saved" in line:
            held, begun, resumed = line["held"], line["begun"], False
        elif "batch" in line:
            batches[line["batch"]] = line["tokens"]
            for key, tokens in line["tokens"].items():
                for answer, token in held.get(key, {}).items():
                    assert tokens[int(answer)] == token
            for key, answer, token in begun:
                if str(key) in line["tokens"]:
                    assert line["tokens"][str(key)][answer][: len(token)] == token
                    continued += resumed and bool(token)
    assert continued > 0
    assert sorted(batches) == list(range(len(batches)))
    keys = [int(key) for tokens in batches.values() for key in tokens]
    assert len(keys) == len(set(keys)) == 3 * len(batches)
    assert set(range(max(keys) - 8)) <= set(keys)
