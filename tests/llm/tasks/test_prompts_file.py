"""Tasks from JSONL files."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest

from shoal.llm.tasks import prompts_file
from shoal.llm.tasks.prompts_file import PromptsFile
from shoal.llm.tasks.task import Message, Prompt, Task
from shoal.types import ConfigError

if TYPE_CHECKING:
    from pathlib import Path

GOOD = b'{"prompt": "What is 2 + 2?", "answer": "4"}\n'


def written(folder: Path, *lines: object) -> str:
    path = folder / "prompts.jsonl"
    path.write_text("".join(json.dumps(line) + "\n" for line in lines), encoding="utf-8")
    return str(path)


def test_prompts_come_again_in_the_order_of_the_seed(tmp_path: Path) -> None:
    path = written(tmp_path, *({"prompt": f"{i}?", "answer": i} for i in range(10)))
    plain, shuffled = PromptsFile(path, shuffle=False), PromptsFile(path, seed=1)
    assert isinstance(plain, Task)
    assert len(plain) == 10
    assert plain.prompt(13) == Prompt(13, "3?", "3")
    first = [shuffled.prompt(index).question for index in range(10)]
    assert sorted(first) == [f"{i}?" for i in range(10)] != first
    assert [shuffled.prompt(index).question for index in range(10, 20)] == first
    assert [PromptsFile(path, seed=1).prompt(index).question for index in range(10)] == first
    assert [PromptsFile(path, seed=2).prompt(index).question for index in range(10)] != first


def test_chats_and_answers(tmp_path: Path) -> None:
    chat = [{"role": "system", "content": "Be short."}, {"role": "user", "content": "2 + 2?"}]
    path = written(
        tmp_path, {"prompt": chat, "answer": ["4", "four"], "source": "hand"}, {"prompt": "1/2?", "answer": 0.5}
    )
    task = PromptsFile(path, shuffle=False)
    prompt = task.prompt(0)
    assert prompt.question == (Message("system", "Be short."), Message("user", "2 + 2?"))
    assert prompt.truth == ["4", "four"]
    assert [task.score(prompt, answer) for answer in ("4", "four</s>", "44", "")] == [1, 1, 0, 0]
    assert (task.solution(prompt), task.solution(task.prompt(1))) == ("4", "0.5")


def test_numbers_and_mathematics(tmp_path: Path) -> None:
    path = written(tmp_path, {"prompt": "a half?", "answer": "1/2"})
    numeric = PromptsFile(path, scoring="numeric", tolerance=0.02, extract="last_line")
    prompt = numeric.prompt(0)
    assert [numeric.score(prompt, answer) for answer in ("So:\n0.49", "0.48", "half")] == [1, 0, 0]
    math = PromptsFile(path, scoring="math", extract="boxed")
    answers = (r"\boxed{\frac{2}{4}}", r"\boxed{0.5}", r"\boxed{\frac{1}{3}}", "0.5", r"\boxed{}")
    assert [math.score(prompt, answer) for answer in answers] == [1, 1, 0, 0, 0]


@pytest.mark.parametrize(
    ("line", "message"),
    [
        (b"{", "line 2 is not JSON"),
        (b"\xff\xfe", "line 2 is not JSON"),
        (b"[" * 100_000, "line 2 is not JSON"),
        (b"3", "line 2 is a int; a line is an object"),
        (b'{"question": "2?", "answer": 1}', "line 2 has no field 'prompt', but 'question', 'answer'"),
        (b'{"prompt": "2?"}', "line 2 has no field 'answer', but 'prompt'; .* scoring='none' needs none"),
        (b'{"prompt": " ", "answer": 1}', "line 2: the field 'prompt' is empty"),
        (b'{"prompt": 1, "answer": 1}', "line 2: the field 'prompt' is a text or a list of messages, got 1"),
        (b'{"prompt": [], "answer": 1}', "line 2: the field 'prompt' is a text or a list"),
        (b'{"prompt": ["x"], "answer": 1}', "line 2: the field 'prompt', message 0, is an object"),
        (b'{"prompt": [{"role": "me", "content": ""}], "answer": 1}', "message 0: the field 'role' is one of system"),
        (b'{"prompt": [{"role": ["u"], "content": ""}], "answer": 1}', "message 0: the field 'role' is one of"),
        (b'{"prompt": [{"role": "user"}], "answer": 1}', "message 0: the field 'content' is a text, got None"),
        (b'{"prompt": "2?", "answer": null}', "line 2: the field 'answer' is a text, a finite number or a list"),
        (b'{"prompt": "2?", "answer": true}', "line 2: the field 'answer' is a text, a finite number or a list"),
        (b'{"prompt": "2?", "answer": NaN}', "line 2: the field 'answer' is a text, a finite number or a list"),
        (b'{"prompt": "2?", "answer": {}}', "line 2: the field 'answer' is a text, a finite number or a list"),
        (b'{"prompt": "2?", "answer": ""}', "line 2: the field 'answer' is empty"),
        (b'{"prompt": "2?", "answer": []}', "line 2: the field 'answer' is an empty list"),
        (b'{"prompt": "2\\ud83d?", "answer": 1}', r"line 2: the field 'prompt' has half a character, \\ud83d without"),
        (b'{"prompt": "2?", "answer": ["\\udc00"]}', "line 2: the field 'answer' has half a character"),
        (b'"' + b"x" * 2**20 + b'"', "line 2 is longer than 1,048,576 bytes"),
    ],
)
def test_wrong_lines_are_named(tmp_path: Path, line: bytes, message: str) -> None:
    path = tmp_path / "prompts.jsonl"
    path.write_bytes(GOOD + line + b"\n" + GOOD)
    with pytest.raises(ConfigError, match=message):
        PromptsFile(str(path))


def test_lines_for_scorers_of_ones_own(tmp_path: Path) -> None:
    """They need no answer, and their further fields come with the prompt."""
    path = tmp_path / "prompts.jsonl"
    path.write_text('{"prompt": "2?", "level": 3, "tags": ["a"]}\n{"prompt": "3?", "answer": 3}\n')
    task = PromptsFile(str(path), scoring="none", shuffle=False)
    free, known = task.prompt(0), task.prompt(1)
    assert (free.truth, free.fields) == (None, {"level": 3, "tags": ["a"]})
    assert (known.truth, known.fields) == ("3", {})
    with pytest.raises(ConfigError, match=r"leaves judging to language\.scorers"):
        task.score(known, "3")
    with pytest.raises(ConfigError, match="a line has no answer that a model could learn"):
        task.solution(free)


def test_files_that_cannot_be_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ConfigError, match=r"nothing\.jsonl cannot be read"):
        PromptsFile(str(tmp_path / "nothing.jsonl"))
    with pytest.raises(ConfigError, match="cannot be read"):
        PromptsFile(str(tmp_path))
    path = tmp_path / "empty.jsonl"
    path.write_bytes(b"\n\n")
    with pytest.raises(ConfigError, match="is empty; a line is"):
        PromptsFile(str(path))
    path.write_bytes(GOOD * 4)
    monkeypatch.setattr(prompts_file, "MAX_PROMPTS", 3)
    with pytest.raises(ConfigError, match="has more than 3 lines; split it"):
        PromptsFile(str(path))
    monkeypatch.setattr(prompts_file, "MAX_BYTES", 3)
    with pytest.raises(ConfigError, match="has 176 bytes, at most 3 are read; split it"):
        PromptsFile(str(path))


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"scoring": "own"}, "scoring is one of exact, numeric, math, none, got 'own'"),
        ({"extract": "own"}, "extract is one of whole"),
        ({"tolerance": 0.1}, "tolerance is for scoring='numeric', but this is 'exact'; leave it out"),
        ({"tolerance": -1.0, "scoring": "numeric"}, "tolerance must be between 0 and 1"),
    ],
)
def test_wrong_settings(tmp_path: Path, given: dict[str, Any], message: str) -> None:
    path = written(tmp_path, {"prompt": "2?", "answer": 2})
    with pytest.raises(ConfigError, match=message):
        PromptsFile(path, **given)
    with pytest.raises(ValueError, match="counted from 0"):
        PromptsFile(path).prompt(-1)
