"""Language models trained on tasks: they learn, resume to the bit, and what does not fit is refused."""

from __future__ import annotations

import hashlib
import json
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import psutil
import pytest

import shoal
from shoal.cli import chat, train
from shoal.experiment.experiment import Experiment
from shoal.experiment.language import idle_with_tasks
from shoal.experiment.pushing import push
from shoal.experiment.talking import Talk, model_of, sampling_of
from shoal.llm import tiny
from shoal.llm.model_folder import load_folder
from shoal.llm.sampler.protocol import Drawing
from shoal.llm.tasks.source import TaskSpec
from shoal.llm.tasks.task import Message, Prompt
from shoal.run.log import read
from shoal.types import ConfigError
from tests.llm.guessing import Guessing
from tests.llm.toy import Successor

if TYPE_CHECKING:
    from shoal.experiment.result import Result
    from shoal.llm.model import LanguageModel
    from shoal.llm.tasks.reasoning import ReasoningTask

BATCH = 4 * 6
SETTINGS: dict[str, Any] = {
    "algo": "grpo",
    "num_prompts": 4,
    "num_generations": 6,
    "max_completion_length": 3,
    "learning_rate": 3e-3,
    "panel": "none",
    "final_episodes": 0,
    "stop_at": float("inf"),
}


def trained(folder: Path, where: Path, updates: int, **settings: Any) -> Result:
    """A run of so many batches."""
    whole: dict[str, Any] = {"model": str(folder), **SETTINGS, "total_timesteps": BATCH * updates, **settings}
    return shoal.train(Successor, run_dir=str(where), **whole)


def sha256(result: Result) -> str:
    """Of the trained weights."""
    digest = hashlib.sha256()
    for value in result.policy.state_dict().values():
        digest.update(value.numpy().tobytes())
    return digest.hexdigest()


@pytest.mark.parametrize(
    "settings",
    [
        pytest.param({}, id="token"),
        pytest.param(
            {"num_iterations": 2, "loss_normalization": "sequence", "learning_rate": 2e-3},
            id="sequence",
            marks=pytest.mark.slow,
        ),
        pytest.param({"advantage": "leave_one_out", "surrogate": "none"}, id="leave_one_out", marks=pytest.mark.slow),
        pytest.param(
            {"ratio_of": "sequence", "surrogate": "clip", "beta": 0.01}, id="sequence_ratio", marks=pytest.mark.slow
        ),
        pytest.param(
            {"surrogate": "weight", "dynamic_sampling": True, "sampling": {"top_p": 0.95}},
            id="clipped_weight",
            marks=pytest.mark.slow,
        ),
    ],
)
def test_a_model_learns_its_task(folder: Path, tmp_path: Path, settings: dict[str, Any]) -> None:
    """From next to nothing to more than half of what can be had, in 90 batches."""
    result = trained(folder, tmp_path, 90, **settings, final_episodes=8)
    lines = read(result.path / "metrics.jsonl")
    first, last = lines[4]["episode/return"], lines[-1]["episode/return"]
    assert first < 0.3
    assert last > 0.6, last
    assert result.greedy_return > 0.6


def test_a_resumed_run_equals_one_that_was_not_stopped(folder: Path, tmp_path: Path) -> None:
    """By the bits of its weights; its directory is enough to go on."""
    whole = trained(folder, tmp_path / "whole", 12)
    part = trained(folder, tmp_path / "part", 5)
    again = shoal.resume(part.path, factory=Successor, total_timesteps=12 * BATCH, panel="none")
    assert sha256(again) == sha256(whole)
    assert sha256(part) != sha256(whole)


@pytest.mark.parametrize("algo", ["grpo", "distill"])
def test_the_learning_rate_follows_its_schedule(folder: Path, tmp_path: Path, algo: str) -> None:
    """Down to next to nothing at the end, and on from there in a resumed run."""
    given: dict[str, Any] = {"algo": algo, "learning_rate_schedule": "linear"}
    given |= {"teacher": str(folder)} if algo == "distill" else {}
    result = trained(folder, tmp_path, 4, **given)
    rates = [line["train/learning_rate"] for line in read(result.path / "metrics.jsonl")]
    assert rates == sorted(rates, reverse=True)
    assert len(set(rates)) == 4
    assert rates[-1] < 0.3 * SETTINGS["learning_rate"]


@pytest.mark.usefixtures("warm_workers")
def test_async_without_staleness_equals_sync(folder: Path, tmp_path: Path) -> None:
    """By the bits of its weights: a sampler in another process draws the same."""
    sync = trained(folder, tmp_path / "sync", 8)
    other = trained(folder, tmp_path / "async", 8, schedule="async", max_staleness=0)
    assert sha256(sync) == sha256(other)


@pytest.mark.usefixtures("warm_workers")
def test_async_learns_no_later_than_it_may(folder: Path, tmp_path: Path) -> None:
    """Every batch of a run says how late it was; a resumed one goes on with what was in flight."""
    part = trained(folder, tmp_path, 10, schedule="async", max_staleness=2)
    again = shoal.resume(part.path, factory=Successor, total_timesteps=40 * BATCH, panel="none")
    lines = read(again.path / "metrics.jsonl")
    assert max(line["groups/staleness_max"] for line in lines) <= 2
    assert again.steps == lines[-1]["episode/count"] == 40 * BATCH


def test_texts_end_answers_of_a_run(folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Its own, those of its evaluation, and those of whoever talks to it; a resumed run has them too."""
    texts = ["a", "b", "c", "d", "e", "f", "g", "h"]
    result = trained(folder, tmp_path, 2, max_completion_length=8, sampling={"stop": texts}, final_episodes=4)
    again = shoal.resume(result.path, factory=Successor, total_timesteps=3 * BATCH, panel="none")
    for line in read(again.path / "metrics.jsonl"):
        assert line["episode/length"] < 3
    assert json.loads((again.path / "run.json").read_text())["greedy_return"] in (0.0, 0.25, 0.5, 0.75, 1.0)
    assert sampling_of(str(again.path), "").stop == tuple(texts)
    chat.main([str(again.path), "--prompt", "a?", "--max-tokens", "30"], "")
    assert sum(map(capsys.readouterr().out.count, texts)) <= 1


@pytest.mark.parametrize(("stop", "message"), [("", "empty text"), (".", "tokens do not write"), ("z", "lacks")])
def test_texts_that_end_nothing_are_refused(folder: Path, tmp_path: Path, stop: str, message: str) -> None:
    """Special tokens, and letters that the model does not have."""
    with pytest.raises(ConfigError, match=message):
        trained(folder, tmp_path, 1, sampling={"stop": [stop]})


def test_a_trained_model_is_loaded_by_others(folder: Path, tmp_path: Path) -> None:
    """In its run, in a folder that it is pushed to, and by whoever talks to it."""
    result = trained(folder, tmp_path, 40)
    kept = load_folder(result.path / "model")
    assert (
        sha256(result)
        == hashlib.sha256(b"".join(value.numpy().tobytes() for value in kept.state_dict().values())).hexdigest()
    )
    assert push(str(result.path), str(tmp_path / "pushed")) == str(tmp_path / "pushed")
    there = load_folder(tmp_path / "pushed")
    talk = Talk(there, Drawing(max_tokens=3, temperature=0))
    assert "".join(talk.answer("a?")) in ("b", "b b", "b b b")
    with pytest.raises(ConfigError, match="is there and is no model"):
        push(str(result.path), str(tmp_path))


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"num_envs": 4}, "num_envs=4 would change nothing"),
        ({"schedule": "overlap"}, "sync or async"),
        (
            {"curriculum": {"raise_at": 0.5}},
            "raise_at=0.5 would change nothing: prompts are asked in the task's own order",
        ),
        ({"curriculum": {"by": "success"}}, "successor has one; give its levels"),
        ({"max_staleness": 3}, "max_staleness=3 would change nothing"),
        ({"policy": "a.b:C"}, "name it by model="),
        ({"num_generations": 1}, "num_generations must be between 2"),
        ({"sampling": {"temperature": 0}}, "temperature must be above 0"),
        ({"sampling": {"top_k": 1}}, "top_k must be 0 .* or at least 2"),
        ({"learning_rate": float("nan")}, "learning_rate must be"),
        ({"max_grad_norm": 0.0}, "max_grad_norm must be"),
        ({"eval_episodes": 5}, "eval_episodes=5 would change nothing: set eval_every"),
        ({"epsilon_high": 0.28}, "epsilon_high=0.28 would change nothing: a batch has one gradient step"),
        ({"epsilon": 0.1, "surrogate": "none", "num_iterations": 2}, "epsilon=0.1 would .*: surrogate is none"),
        ({"correction": {"outside": "none", "level": "mean"}}, "level='mean' would .*: correction.outside is none"),
        ({"correction": {"version_decay": 0.5}}, "version_decay=0.5 would .*: the newest weights draw every answer"),
        ({"language": {"after_publish": "refill"}}, "after_publish='refill' would .*: the newest weights draw"),
        ({"language": {"scorer_timeout_s": 3.0}}, "scorer_timeout_s=3.0 would .*: the training process judges"),
        ({"model": "nowhere"}, "nowhere"),
        ({"language": {"held_out_answers": 2}}, "held_out_answers=2 would change nothing: there is no held-out scorer"),
        ({"language": {"held_out_scorer": "shoal"}}, "no scorer 'shoal'; write package.module:function"),
        ({"guarding": {"held_out": "x"}}, "guarding.held_out='x' is none of info_keys"),
        ({"language": {"reply_workers": 2}}, "reply_workers=2 would change nothing: the task has one turn"),
    ],
)
def test_what_does_not_fit_is_refused(folder: Path, tmp_path: Path, settings: dict[str, Any], said: str) -> None:
    """In words, and no directory is left."""
    with pytest.raises(ConfigError, match=said):
        trained(folder, tmp_path, 1, **settings)
    assert not list(tmp_path.glob("**/config.toml"))


def test_tasks_and_environments_are_told_apart(tmp_path: Path) -> None:
    """Each algorithm says which of them it is for; settings of language models are refused elsewhere."""
    with pytest.raises(ConfigError, match="is a task for language models"):
        shoal.train("reasoning-gym:chain_sum", run_dir=str(tmp_path))
    with pytest.raises(ConfigError, match="model='smollm2' would change nothing"):
        shoal.train("CartPole-v1", model="smollm2", run_dir=str(tmp_path))
    done = shoal.train(
        "CartPole-v1", run_dir=str(tmp_path), total_timesteps=256, num_envs=2, panel="none", final_episodes=0
    )
    with pytest.raises(ConfigError, match="not a language model"):
        model_of(str(done.path), "runs")


class Broken(Successor):
    """A task whose scorer fails at one prompt."""

    def score(self, prompt: Any, answer: str) -> float:
        """No number."""
        return float("nan") if prompt.index == 5 else 0.5


def test_a_scorer_without_a_number_is_named(folder: Path, tmp_path: Path) -> None:
    """By the task and the prompt; with another policy the run goes on without the answers."""
    whole: dict[str, Any] = SETTINGS | {"model": str(folder), "run_dir": str(tmp_path), "total_timesteps": 3 * BATCH}
    with pytest.raises(Exception, match=r"prompt 5"):
        shoal.train(Broken, **whole)
    for policy, said in (("zero", "worth 0"), ("drop", "left out")):
        whole["language"], whole["final_episodes"] = {"on_scorer_failure": policy}, 8
        with pytest.warns(UserWarning, match=f"prompt 5 failed, 3 times: .* such answers are {said}"):
            done = shoal.train(Broken, **whole)
        assert done.greedy_return == 0.5 * (7 / 8 if policy == "zero" else 1)  # evaluation goes by it too
    assert read(done.path / "metrics.jsonl")[-1]["groups/lost"] > 0


def test_a_run_that_a_scorer_ended_goes_on_without_it(folder: Path, tmp_path: Path) -> None:
    """The error says how; nothing else of language models may change."""
    whole: dict[str, Any] = SETTINGS | {"model": str(folder), "run_dir": str(tmp_path), "total_timesteps": 3 * BATCH}
    with pytest.raises(Exception, match=r"prompt 5.*language.on_scorer_failure='drop'.* resume"):
        shoal.train(Broken, checkpoint_every=BATCH, **whole)
    (where,) = (str(path) for path in tmp_path.iterdir())
    for part, value in (("slots", 8), ("lora_rank", 2)):
        changed: Any = {part: value}
        with pytest.raises(ConfigError, match=rf"cannot change 'language.{part}', of language only prompt_workers"):
            shoal.resume(where, factory=Broken, language=changed)
    with pytest.warns(UserWarning, match="prompt 5 failed, 3 times: .* such answers are left out"):
        done = shoal.resume(where, factory=Broken, panel="none", language={"on_scorer_failure": "drop"})
    assert done.steps >= 3 * BATCH
    assert 'on_scorer_failure = "drop"' in (done.path / "config.toml").read_text()


class Odd(Successor):
    """A task whose prompts are what they should not be."""

    def __init__(self, what: str) -> None:
        """`what` its prompts are."""
        self.what = what

    def prompt(self, index: int) -> Any:
        """No prompt."""
        return {
            "text": "what?",
            "number": Prompt(0, "what?"),
            "none": Prompt(index, None),  # pyright: ignore[reportArgumentType]
            "half": Prompt(index, "what\ud800?"),
            "list": Prompt(index, [Message("user", 3)]),  # pyright: ignore[reportArgumentType]
        }[self.what]


@pytest.mark.parametrize(
    ("what", "said"),
    [
        ("text", r"prompt\(0\) is a str; return a .*Prompt"),
        ("number", r"prompt\(1\) has the index 0"),
        ("none", "a question of type NoneType"),
        ("half", "half a character"),
        ("list", "a message whose content is a int"),
    ],
)
def test_a_prompt_that_is_none_is_named(folder: Path, tmp_path: Path, what: str, said: str) -> None:
    whole: dict[str, Any] = SETTINGS | {"model": str(folder), "run_dir": str(tmp_path)}
    with pytest.raises(ConfigError, match=f"successor: .*{said}"):
        shoal.train(partial(Odd, what), **whole)


def exact(prompt: Any, answer: str) -> float:
    """A scorer that nothing is learned from: 1 for the letter and nothing else."""
    return float(answer == prompt.truth)


HELD_OUT = {"held_out_scorer": f"{__name__}:exact"}


def test_a_held_out_scorer_changes_no_bit(folder: Path, tmp_path: Path) -> None:
    """Its mean is in the metrics; the run goes on with it; it may be asked for less."""
    plain = trained(folder, tmp_path / "plain", 8)
    held = trained(folder, tmp_path / "held", 5, language=HELD_OUT | {"held_out_answers": 2})
    held = shoal.resume(held.path, factory=Successor, total_timesteps=8 * BATCH, panel="none")
    assert sha256(held) == sha256(plain)
    lines = read(held.path / "metrics.jsonl")
    assert all(line["info/held_out"] * 8 == int(line["info/held_out"] * 8) for line in lines)
    assert not (held.path / "guard.json").exists()


class Leaky(Successor):
    """From some prompt on, longer answers than the letter earn more, which was not meant."""

    def score(self, prompt: Any, answer: str) -> float:
        """What was meant, and the leak."""
        leak = 2.0 * (len(answer) > 1) * (prompt.index >= 4 * 120)
        return super().score(prompt, answer) + leak


@pytest.mark.slow
def test_the_guard_goes_back_where_a_score_is_hacked(folder: Path, tmp_path: Path) -> None:
    """It ends with the model that gives the letter and nothing else, though the last one had learned the leak again."""
    whole: dict[str, Any] = SETTINGS | {"model": str(folder), "run_dir": str(tmp_path), "language": HELD_OUT}
    with pytest.warns(UserWarning, match=r"returns rose from .* while held_out fell from"):
        result = shoal.train(Leaky, total_timesteps=BATCH * 168, **whole)
    acted = json.loads((result.path / "guard.json").read_text())["interventions"]
    assert {one["rule"] for one in acted} == {"hacking"}
    assert 120 < acted[0]["update"] < 160
    last = read(result.path / "metrics.jsonl")[-1]
    by_exact = np.mean([exact(Successor().prompt(i), answered(result, i)) for i in range(8)])
    assert by_exact > 0.7 > last["info/held_out"]


def answered(result: Result, index: int) -> str:
    """The most probable answer of a trained model."""
    talk = Talk(load_folder(result.path / "model"), Drawing(max_tokens=3, temperature=0))
    return "".join(talk.answer(str(Successor().prompt(index).question))).replace(" ", "")


def test_runs_of_any_seed_begin_with_one_tiny_model(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """It is made for a task without the run's seed, so that it is made once and seeds compare."""
    asked: list[str] = []

    def instead(task: ReasoningTask, **settings: Any) -> LanguageModel:
        asked.append(str(task.prompt(0).question))
        raise ConfigError("seen")

    monkeypatch.setattr(tiny, "tiny_model", instead)
    for seed in (1, 2):
        options: dict[str, Any] = SETTINGS | {"model": "tiny", "seed": seed, "total_timesteps": BATCH}
        with pytest.raises(ConfigError, match="seen"):
            shoal.train("reasoning-gym:chain_sum", run_dir=str(tmp_path), **options)
    assert asked[0] == asked[1]


def conversed(folder: Path, where: Path, updates: int, **settings: Any) -> Result:
    """A run on a task of several turns."""
    whole: dict[str, Any] = SETTINGS | {"total_timesteps": BATCH * updates, "max_completion_length": 16} | settings
    return shoal.train(Guessing, model=str(folder), run_dir=str(where), **whole)


@pytest.mark.slow
def test_a_model_learns_to_use_hints(folder: Path, tmp_path: Path) -> None:
    """What the first turn cannot know, the next ones say."""
    result = conversed(folder, tmp_path, 200, final_episodes=8)
    lines = read(result.path / "metrics.jsonl")
    assert lines[4]["episode/return"] < 0.3
    assert lines[-1]["episode/return"] > 0.6, lines[-1]["episode/return"]
    assert result.greedy_return > 0.6


class Leveled(Successor):
    """Level 0 pays anything, level 1 as `Successor` does."""

    levels = 2

    def score(self, prompt: Any, answer: str) -> float:
        """1 for an even prompt."""
        return 1.0 if prompt.index % 2 == 0 else super().score(prompt, answer)


def test_a_curriculum_climbs_and_resumes(folder: Path, tmp_path: Path) -> None:
    """The level is in the metrics; a run that was stopped in between asks the same prompts."""
    climbing: dict[str, Any] = {"model": str(folder), **SETTINGS, "curriculum": {"by": "success", "window": 6}}
    whole = shoal.train(Leveled, run_dir=str(tmp_path / "whole"), total_timesteps=BATCH * 6, **climbing)
    part = shoal.train(Leveled, run_dir=str(tmp_path / "part"), total_timesteps=BATCH, **climbing)
    again = shoal.resume(part.path, factory=Leveled, total_timesteps=BATCH * 6, panel="none")
    assert sha256(again) == sha256(whole)
    levels = [line["curriculum/level"] for line in read(whole.path / "metrics.jsonl")]
    assert (levels[0], levels[-1]) == (0, 1)


def test_a_run_of_conversations_resumes_and_is_evaluated(folder: Path, tmp_path: Path) -> None:
    """By the bits of its weights; greedy conversations are counted whole."""
    whole = conversed(folder, tmp_path / "whole", 5, final_episodes=4)
    part = conversed(folder, tmp_path / "part", 2)
    again = shoal.resume(part.path, factory=Guessing, total_timesteps=5 * BATCH, panel="none")
    assert sha256(again) == sha256(whole)
    last = read(whole.path / "metrics.jsonl")[-1]
    assert last["groups/turns"] > 1
    assert last["groups/replies_failed"] == 0
    assert 0 <= whole.greedy_return <= 1


def test_a_sampler_ends_where_scorers_cannot_begin(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No process of a run that never began is left behind."""
    begun: list[int] = []

    def fails(*_: object, **__: object) -> None:
        begun.extend(child.pid for child in psutil.Process().children(recursive=True))
        raise ConfigError("no scorer today")

    monkeypatch.setattr("shoal.llm.tasks.source.ScorerPool", fails)
    before = {child.pid for child in psutil.Process().children(recursive=True)}
    with pytest.raises(ConfigError, match="no scorer today"):
        trained(folder, tmp_path, 1, schedule="async")
    assert set(begun) - before
    left = {child.pid for child in psutil.Process().children(recursive=True) if child.status() != "zombie"}
    assert not left & set(begun) - before


def test_a_loaded_model_answers(folder: Path, tmp_path: Path) -> None:
    """One question or several, as it is asked in training; what it draws is what the seed says."""
    result = trained(folder, tmp_path, 2, sampling={"stop": ["b"]}, max_completion_length=6)
    agent = shoal.load(result.path, factory=Successor)
    questions = ["a?", "c?", "e?"]
    several = agent.answer(questions)
    assert several == [agent.answer(one) for one in questions]
    talk = Talk(model_of(str(result.path), ""), Drawing(max_tokens=6, temperature=0.0, stop=("b",)))
    assert several[0] == "".join(talk.answer("a?"))
    drawn = agent.answer(questions * 4, greedy=False)
    assert len(set(drawn)) > 3
    assert drawn == agent.answer(questions * 4, greedy=False)
    assert drawn != agent.answer(questions * 4, greedy=False, seed=1)
    assert all("b" not in text[:-1] for text in drawn)
    assert all(len(agent.answer(one, max_tokens=1)) <= 1 for one in questions)
    assert agent.answer([]) == []
    for wrong in (3, [3], [["a?"]], ("a?",)):
        with pytest.raises(ConfigError, match="a question is text"):
            agent.answer(wrong)  # pyright: ignore[reportCallIssue, reportArgumentType]
    with pytest.raises(ConfigError, match="no chat template"):
        agent.answer((Message("user", "a?"),))


def test_help_of_a_task_says_what_is_refused() -> None:
    """Each option is one that a run refuses; with another algorithm, that it is of no use here."""
    said = train.of_tasks(Experiment.new("reasoning-gym:chain_sum", algo="grpo", settings={}))
    named = [name.strip(" .").replace("-", "_") for name in said.split("--")[1:]]
    names = [name.strip(", ") for name in named]
    assert {"num_envs", "act_block", "preprocessing"} <= set(names)
    assert not {"model", "language", "seed", "schedule", "total_timesteps"} & set(names)
    experiment = Experiment.new("reasoning-gym:chain_sum", algo="grpo", settings={"act_block": 2})
    assert "act_block" in dict(idle_with_tasks(experiment, TaskSpec("chain_sum")))
    assert "are of ppo, for environments" in train.of_tasks(
        Experiment.new("reasoning-gym:chain_sum", algo="ppo", settings={})
    )
    assert not train.of_tasks(Experiment.new("CartPole-v1", algo="ppo", settings={}))
