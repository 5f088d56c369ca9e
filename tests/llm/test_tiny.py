"""The small model that is made for a task: its tokenizer, its training, and the cache that holds it."""

import multiprocessing
import re
import subprocess
import sys
from dataclasses import dataclass, replace
from pathlib import Path

import pytest
import torch

from shoal.llm import tiny as tiny_module
from shoal.llm.loading import load_model
from shoal.llm.model import LanguageModel
from shoal.llm.pieces import END, PAD, make_tokenizer
from shoal.llm.pretraining import Example, Pretraining, answers_to, batched, go_back
from shoal.llm.tasks.task import Message, Prompt
from shoal.llm.tiny import Tiny, make_tiny, tiny_model
from shoal.types import ConfigError

SMALL = Tiny(
    hidden_size=32,
    intermediate_size=64,
    num_layers=2,
    num_heads=2,
    pretraining=Pretraining(
        skill=0.8, updates=100, every=40, examples=256, batch=32, learning_rate=1e-2, measured=64, wrong=0.9
    ),
)


@dataclass
class Next:
    """Which letter stands after another."""

    name: str = "next"
    letters: str = "abcd"

    def prompt(self, index: int) -> Prompt:
        first, second = (self.letters[(index + n) % len(self.letters)] for n in (0, 1))
        return Prompt(index, f"The letter after {first} is ", second)

    def solution(self, prompt: Prompt) -> str:
        return prompt.truth

    def score(self, prompt: Prompt, answer: str) -> float:
        return float(answer == prompt.truth)


@pytest.fixture(autouse=True)
def _cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SHOAL_CACHE", str(tmp_path / "cache"))


def test_pieces_of_a_task() -> None:
    texts = [f"The last letter of {n}x{n + 7} is é: " for n in range(50)]
    tokenizer = make_tokenizer(texts)
    tokens = tokenizer.encode(texts[12])
    assert [tokenizer.decode([token]) for token in tokens[:6]] == ["The last letter of ", "1", "2", "x", "1", "9"]
    assert tokenizer.decode(tokens) == texts[12]
    for text in ("The last letter", "¿ü", "a\nb", "The last letter of The last letter of ", " "):
        assert tokenizer.decode([*tokenizer.encode(text), *tokenizer.end]) == text
    assert tokenizer.size < 290


def test_what_users_write_is_no_special_token_of_ours() -> None:
    tokenizer = make_tokenizer(["what is it? "] * 9)
    assert [tokenizer.special["eos_token"], tokenizer.special["pad_token"]] == [END, PAD]


@pytest.mark.slow
def test_tokenizers_are_equal_in_every_process(tmp_path: Path) -> None:
    program = (
        "import sys; from pathlib import Path; from shoal.llm.pieces import make_tokenizer; "
        "texts = [f'{a} of the {b} of what is {a}{b} there' for a in 'pqr' for b in 'xyz']; "
        "make_tokenizer(texts).save(Path(sys.argv[1]))"
    )
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
        subprocess.run([sys.executable, "-c", program, str(tmp_path / name)], check=True)
    read = [(tmp_path / name / "tokenizer.json").read_bytes() for name in ("one", "two")]
    assert read[0] == read[1]


@pytest.fixture(scope="module")
def made() -> tuple[LanguageModel, list[str]]:
    """A model, and what was told while it was made."""
    lines: list[str] = []
    return make_tiny(Next(), SMALL, lines.append), lines


def test_learns_the_task_and_ends_as_a_model_that_is_often_wrong(made: tuple[LanguageModel, list[str]]) -> None:
    model, lines = made
    told = re.fullmatch(r"tiny knows next to (\d+)%, and begins with (\d+)% of its answers right", lines[-1])
    assert told is not None
    assert int(told[1]) >= 80
    assert 25 <= int(told[2]) <= 33
    assert re.fullmatch(r"pre-training of tiny on next: 40 updates, \d+% right, \d+ s", lines[0])
    task = Next()
    asked = [task.prompt(index) for index in range(4)]
    prompts = [tuple(model.tokenizer.encode_prompt(prompt)) for prompt in asked] * 50
    generator = torch.Generator().manual_seed(1)
    said = [model.tokenizer.decode(answer) for answer in answers_to(model, prompts, 4, generator)]
    right = sum(task.score(*one) for one in zip(asked * 50, said, strict=True)) / 200
    assert 0.15 <= right <= 0.45
    assert sum(len(answer) == 1 for answer in said) > 150  # it answers as the task wants


def test_goes_back_to_where_it_is_right_as_often_as_wanted() -> None:
    """From 0.8 to 0.1 along one weight; 0.3 lies at 0.714."""
    model = torch.nn.Linear(1, 1, bias=False)
    torch.nn.init.constant_(model.weight, 1.0)
    asked: list[float] = []

    def measure() -> float:
        asked.append(model.weight.item())
        return 0.8 - 0.7 * asked[-1]

    found = go_back(model, [torch.zeros(1, 1)], 0.1, 0.3, measure)
    assert asked == [0.5, 0.75, 0.625, 0.6875]
    assert model.weight.item() == 0.75  # the last one is right too often
    assert found == pytest.approx(0.8 - 0.7 * 0.75)
    assert go_back(model, [torch.zeros(1, 1)], 0.29, 0.3, lambda: 0.5) == 0.29
    assert model.weight.item() == 0.75  # where no other place will do, it stays


def test_a_task_that_is_not_learned_is_told() -> None:
    lines: list[str] = []
    few = Pretraining(updates=4, every=2, examples=32, batch=16, measured=8)
    make_tiny(Next(), Tiny(32, 64, 1, 2, pretraining=few), lines.append)
    assert lines[-1].startswith("the model of next learned to be right in")


def test_made_once(monkeypatch: pytest.MonkeyPatch) -> None:
    few = replace(SMALL, pretraining=Pretraining(updates=2, examples=32, batch=16, measured=8))
    first = tiny_model(Next(), few)
    monkeypatch.setattr(tiny_module, "make_tiny", None)  # would fail if it were called
    second = tiny_model(Next(), few, temperature=0.5)
    assert all(torch.equal(value, second.state_dict()[name]) for name, value in first.state_dict().items())
    assert (first.temperature, second.temperature) == (1.0, 0.5)
    for task, settings in ((Next(letters="abce"), few), (Next(name="other"), few), (Next(), SMALL)):
        with pytest.raises(TypeError, match="not callable"):
            tiny_model(task, settings)


def make_in_process(queue: multiprocessing.Queue) -> None:
    lines: list[str] = []
    model = tiny_model(Next(), SMALL, report=lines.append)
    queue.put((model.head.sum().item(), lines))


@pytest.mark.slow
def test_two_processes_make_it_once() -> None:
    context = multiprocessing.get_context("spawn")
    queue = context.Queue()
    processes = [context.Process(target=make_in_process, args=(queue,)) for _ in range(2)]
    for process in processes:
        process.start()
    (first, one), (second, two) = queue.get(), queue.get()
    for process in processes:
        process.join()
    assert first == second
    assert sum("pre-training" in line for line in one) * sum("pre-training" in line for line in two) == 0


def test_same_bits_from_the_same_seed() -> None:
    def weights(seed: int) -> torch.Tensor:
        few = Pretraining(updates=3, examples=32, batch=16, measured=8)
        model = make_tiny(Next(), Tiny(32, 64, 1, 2, seed=seed, pretraining=few), lambda line: None)
        return torch.cat([value.detach().flatten() for value in model.parameters()])

    before = torch.get_rng_state()
    first = weights(0)
    assert torch.equal(before, torch.get_rng_state())
    assert torch.equal(first, weights(0))
    assert not torch.equal(first, weights(1))


@dataclass
class Unsolved:
    name: str = "unsolved"

    def prompt(self, index: int) -> Prompt:
        return Prompt(index, "Why?")

    def score(self, prompt: Prompt, answer: str) -> float:
        return 0.0


class Chat(Next):
    def prompt(self, index: int) -> Prompt:
        return Prompt(index, (Message("user", "Why?"),), "so")


def test_tasks_that_it_cannot_be_made_for() -> None:
    with pytest.raises(ConfigError, match="unsolved has none"):
        load_model("tiny", task=Unsolved())
    with pytest.raises(ConfigError, match="let it ask in plain text"):
        load_model("tiny", task=Chat())


def test_cache_must_be_absolute(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SHOAL_CACHE", "models")
    with pytest.raises(ConfigError, match="absolute"):
        load_model("tiny", task=Next())


def test_sampling_follows_the_model(made: tuple[LanguageModel, list[str]]) -> None:
    """Frequencies of first tokens against the model's own log-probabilities."""
    model, _ = made
    prompt = tuple(model.tokenizer.encode("The letter after a is "))
    generator = torch.Generator().manual_seed(0)
    drawn = answers_to(model, [prompt] * 2000, 1, generator)
    share = sum(answer == model.tokenizer.encode("b") for answer in drawn) / 2000
    with torch.no_grad():
        logprob = model(batched([Example(prompt, tuple(model.tokenizer.encode("b")))])).logprob
    assert share == pytest.approx(logprob.exp().item(), abs=0.04)
