"""How a run is used, as its pages say it: each line is followed."""

from __future__ import annotations

import re
import shlex
import shutil
import sys
from html import unescape
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
from gymnasium import spaces

import shoal
from shoal import cli
from shoal.experiment.explaining import explain_run
from shoal.report.groups import grouped, read_curve
from shoal.report.html import write_report
from shoal.report.signed.signed import write_signed
from shoal.report.usage import usage
from shoal.run.directory import RunDirectory
from shoal.run.handed import name_of_object
from shoal.run.origin import Origin
from shoal.types import ConfigError
from tests.experiment.test_language import SETTINGS
from tests.games import Shift
from tests.llm.toy import Successor
from tests.report.test_report import TINY

MODULE = '''
import torch
from gymnasium.envs.classic_control import CartPoleEnv
from torch import nn

class Cart(CartPoleEnv):
    pass

def make(render_mode=None):
    return Cart(render_mode=render_mode)

class Small(nn.Module):
    """A policy that is none of shoal's."""

    def __init__(self, spec):
        super().__init__()
        self.logits, self.value = nn.Linear(4, 2), nn.Linear(4, 1)

    def forward(self, obs):
        return self.logits(obs), self.value(obs)

NAME = Small(None)
'''
HERE = Path("runs/x")


class Choices(gym.Env[Any, Any]):
    """Observes no number, only which of three places it is at."""

    observation_space, action_space = spaces.Discrete(3), spaces.Discrete(2)

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> Any:
        super().reset(seed=seed)
        self.left = 5
        return 0, {}

    def step(self, action: Any) -> Any:
        self.left -= 1
        return int(action), 1.0, self.left == 0, False, {}


@pytest.fixture
def given(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """A user's module, in the folder where the user works."""
    (tmp_path / "handed_module.py").write_text(MODULE)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [str(tmp_path), *sys.path])
    monkeypatch.delitem(sys.modules, "handed_module", raising=False)
    import handed_module  # pyright: ignore[reportMissingImports]  (written above)

    yield handed_module
    sys.modules.pop("handed_module", None)


def shell(line: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Runs a command as a shell would split it."""
    command = shlex.split(line, comments=True)
    assert command[0] == "shoal"
    fewer = {
        "eval": ["--episodes", "2"],
        "explain": ["--episodes", "4"],
        "chat": ["--prompt", "a?", "--max-tokens", "2"],
    }
    monkeypatch.setattr(sys, "argv", [*command, *fewer.get(command[1], [])])
    with pytest.raises(SystemExit) as ended:
        cli.main()
    assert ended.value.code == 0, line


def follow(text: str, monkeypatch: pytest.MonkeyPatch, **names: Any) -> Any:
    """Does all that a page says of a run's use; the action."""
    commands, _, python = text.partition("import shoal\n")
    for line in filter(None, commands.splitlines()):
        shell(line, monkeypatch)
    scope: dict[str, Any] = {"shoal": shoal, "obs": np.zeros(4, np.float32), **names}
    exec(python, scope)
    return scope.get("action", scope.get("answer"))


def pages_of(path: Path) -> list[str]:
    """What both pages of a run say of its use."""
    run = RunDirectory(path)
    pages = [write_report(run), write_signed([run], path, pdf=False)[0]]
    found = [re.findall(r"<pre[^>]*>(shoal eval .*?)</pre>", page.read_text(), re.DOTALL) for page in pages]
    assert [len(texts) for texts in found] == [1, 1]
    return [unescape(texts[0]) for texts in found]


@pytest.mark.parametrize("kind", ["class", "object", "function"])
def test_objects_that_were_handed_over_are_named(kind: str, given: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """An environment and a policy as objects: the pages' commands and lines work, and without them errors name them."""
    env = given.make if kind == "function" else given.Cart
    policy = given.NAME if kind == "object" else given.Small
    path = shoal.train(env, policy=policy, run_dir="runs", panel="none", **TINY).path
    first, second = pages_of(path)
    assert first == second
    own = "Small(...)" if kind == "object" else "Small"
    short = env.__name__
    option = f"--env handed_module:{short} --policy " + ("MODULE:NAME" if kind == "object" else "handed_module:Small")
    assert f"shoal eval {path} {option}\n" in first
    assert f"shoal.load({str(path)!r}, factory={short}, policy={own})" in first
    told = f"its environment, {short}, and its policy, {own}, as objects, which no file holds: give them again, in "
    told += f"Python factory={short}, policy={own}; on the command line {option}"
    for attempt in (lambda: shoal.load(path), lambda: shoal.resume(path, panel="none")):
        with pytest.raises(ConfigError, match=re.escape(told)):
            attempt()
    followed = first.replace("MODULE:NAME", "handed_module:NAME").replace("Small(...)", "Small(None)")
    assert follow(followed, monkeypatch, Small=given.Small) in (0, 1)
    assert RunDirectory(path).read_origin().handed()  # also after `resume`
    shoal.resume(path, factory=env, policy=policy, panel="none", total_timesteps=768)
    assert len(RunDirectory(path).read_origin().handed()) == 2


def test_one_error_names_objects_and_schedules(given: Any, tmp_path: Path) -> None:
    """A schedule that no module has under a name is asked for beside the policy; one that was given no more."""
    plan: Any = lambda progress: 1 - progress / 2  # noqa: E731
    more = {"policy": given.Small, "learning_rate_schedule": plan}
    path = shoal.train("CartPole-v1", run_dir="runs", panel="none", **more, **TINY).path
    told = "--policy handed_module:Small; shoal resume needs also --learning-rate-schedule MODULE:FUNCTION, in Python"
    with pytest.raises(ConfigError, match=f"{told} learning_rate_schedule="):
        shoal.resume(path, panel="none", total_timesteps=768)
    with pytest.raises(ConfigError, match=r"--policy handed_module:Small$"):
        shoal.resume(path, panel="none", total_timesteps=768, learning_rate_schedule=plan)
    assert shoal.resume(path, panel="none", total_timesteps=768, **more).steps == 768


def test_runs_of_two_policies_are_no_seeds_of_one(given: Any, tmp_path: Path) -> None:
    """Neither has a setting that names it."""
    paths = [
        shoal.train("CartPole-v1", policy=policy, run_dir="runs", panel="none", **TINY).path
        for policy in (given.Small, given.NAME)
    ]
    told = r"policy: handed_module:Small \(.*\), handed_module:Small\(...\) \("
    with pytest.raises(ConfigError, match=told):
        write_signed([RunDirectory(path) for path in paths], tmp_path, pdf=False)
    groups = grouped([read_curve(RunDirectory(path)) for path in paths])
    assert [group.label for group in groups] == ["policy=handed_module:Small", "policy=handed_module:Small(...)"]


def test_a_run_without_a_checkpoint_can_only_begin_anew(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing else works for it."""
    monkeypatch.chdir(tmp_path)
    path = shoal.train("CartPole-v1", run_dir="runs", panel="none", **TINY).path
    shutil.rmtree(path / "checkpoints")
    said = unescape(write_report(RunDirectory(path)).read_text())
    assert f"shoal resume {path}  # there is no checkpoint yet" in said
    assert "shoal eval" not in said
    assert "shoal.load" not in said
    with pytest.raises(ConfigError, match="checkpoint"):
        shoal.load(path)


def commands_of(text: str) -> list[str]:
    """The first words after `shoal` of each line."""
    return re.findall(r"^shoal (\w+)", text, re.MULTILINE)


def test_a_language_model_is_asked_in_words(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No films and no explanation, which would refuse it."""
    monkeypatch.chdir(tmp_path)
    settings: dict[str, Any] = SETTINGS | {"total_timesteps": 64, "final_episodes": 0, "run_dir": "runs"}
    path = shoal.train(Successor, **settings).path
    said = pages_of(path)[0]
    assert commands_of(said) == ["eval", "chat", "push", "resume"]
    assert isinstance(follow(said, monkeypatch), str)
    with pytest.raises(ConfigError, match="chat RUN"):
        explain_run(shoal.load(path, factory=Successor))
    assert "nothing here explains it" in (path / "report.html").read_text()


@pytest.mark.parametrize("env", [Shift, Choices])
def test_what_cannot_be_explained_is_not_told_to_be(env: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Several agents, and observations without a number: `explain` refuses both."""
    monkeypatch.chdir(tmp_path)
    path = shoal.train(env, run_dir="runs", panel="none", **TINY).path
    said = pages_of(path)[0]
    assert commands_of(said) == ["eval", "eval", "resume"]
    agent = shoal.load(path, factory=env)
    with pytest.raises(ConfigError, match=r"several agents|choices alone"):
        explain_run(agent)
    shell(next(line for line in said.splitlines() if "resume" in line), monkeypatch)
    assert "nothing here explains it" in (path / "report.html").read_text()
    monkeypatch.chdir(tmp_path)
    plain = shoal.train("CartPole-v1", run_dir="runs", panel="none", **TINY).path
    assert commands_of(pages_of(plain)[0]) == ["eval", "eval", "explain", "resume"]
    assert "was not asked" in (plain / "report.html").read_text()


def test_a_file_whose_policy_was_an_object_begins_no_run_with_another(given: Any, tmp_path: Path) -> None:
    """The algorithm's own network would stand in silently for the user's."""
    path = shoal.train("CartPole-v1", policy=given.Small, run_dir="runs", panel="none", **TINY).path
    file = path / "config.toml"
    told = 'name it in the file, policy = "handed_module:Small"; or give the policy, policy=Small of train'
    with pytest.raises(ConfigError, match=re.escape(told)):
        shoal.train("CartPole-v1", config=file, panel="none")
    again = shoal.train("CartPole-v1", config=file, panel="none", policy=given.Small)
    assert [type(again.policy), RunDirectory(again.path).read_origin().policy] == [
        type(shoal.load(path, policy=given.Small).policy),
        "handed_module:Small",
    ]
    named = tmp_path / "named.toml"
    named.write_text('policy = "handed_module:Small"\n' + file.read_text())
    shoal.train("CartPole-v1", config=named, panel="none", trust=True)
    plain = tmp_path / "plain.toml"
    plain.write_text(file.read_text().replace('policy = "handed_module:Small"\n', ""))
    shoal.train("CartPole-v1", config=plain, panel="none")


def test_a_policy_of_shoals_own_follows_from_the_settings(run_dir: Path) -> None:
    """As it did before objects were named: it is loaded without them where the network is that of the settings."""
    first = shoal.train("CartPole-v1", run_dir=str(run_dir), panel="none", **TINY)
    second = shoal.train("CartPole-v1", run_dir=str(run_dir), panel="none", policy=first.policy, **TINY)
    assert "policy=" in pages_of(second.path)[0]
    assert shoal.load(second.path).act(np.zeros(4, np.float32)) in (0, 1)


def test_names_of_objects(given: Any) -> None:
    """What a command line finds has its module; lambdas and local functions have none."""

    def local() -> None:
        """Nobody can import it."""

    names = [name_of_object(one) for one in (None, "a:B", given.Cart, given.NAME, local, lambda: 1)]
    assert names == ["", "", "handed_module:Cart", "handed_module:Small(...)", "local", "<lambda>"]
    said = usage(HERE, {"env": "<lambda>"}, Origin("1", env="<lambda>", policy="local"))
    assert "shoal eval runs/x --env MODULE:YOURS --policy MODULE:local\n" in said
    assert "shoal.load('runs/x', factory=YOURS, policy=local)" in said


def test_nothing_that_a_file_says_becomes_a_command() -> None:
    """A stranger's config.toml is no place for code that somebody pastes."""
    for bad in ("a; rm -rf x", "m:C\nimport os", "$(id)", "m:C(1)", "os.system('x')", "m: C"):
        said = usage(HERE, {"env": "Toy-v0"}, Origin("1", env=bad, policy=bad))
        assert "shoal.load('runs/x', factory=YOURS, policy=YOURS)" in said, bad
        assert said.count("MODULE:YOURS") == 8, bad
        assert not any(part in said for part in ("rm", "id)", "import os", "system", "C(1"))


def test_an_environment_that_nobody_finds_by_its_name() -> None:
    """In runs of earlier versions a class that was handed over is needed again; ids and places are enough."""
    before = Origin()
    assert "shoal.load('runs/x', factory=Tank)" in usage(HERE, {"env": "Tank"}, before)
    assert "shoal eval runs/x --env MODULE:Tank --video" in usage(HERE, {"env": "Tank"}, before)
    for known in ("CartPole-v1", "tank:Tank", "grpc://127.0.0.1:50051"):
        assert "shoal.load('runs/x')" in usage(HERE, {"env": known}, before)
