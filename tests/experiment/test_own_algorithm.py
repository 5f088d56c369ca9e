"""The algorithm of docs/algorithms.md, in a package of the test's own: what shoal's algorithms can, it can too."""

from __future__ import annotations

import importlib
import json
import os
import re
import signal
import subprocess
import sys
import time
import types
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import torch

import shoal
from shoal import algos, cli
from shoal.algos.ppo import PPO
from shoal.run import checkpoint
from shoal.run.directory import RunDirectory
from shoal.types import ConfigError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from types import ModuleType

PAGE = Path(__file__).parents[2] / "docs/algorithms.md"
SHOAL = str(Path(sys.executable).with_name("shoal"))
LOOP = "    for rollout in run.loop(stream, learner):\n"
PLAIN = ("--plain", "--no-report")
SMALL = (*PLAIN, "--num-envs", "8", "--num-steps", "16", "--stop-at", "inf")


def algorithm_of_the_page() -> str:
    """The Python block under "Custom algorithms" that is a whole module: the one that defines `train`."""
    section = PAGE.read_text(encoding="utf-8").partition("\n## Custom algorithms\n")[2]
    blocks = re.findall(r"^```python\n(.*?)^```$", section, re.DOTALL | re.MULTILINE)
    (whole,) = [block for block in blocks if "\ndef train(" in block]
    return whole


@pytest.fixture
def package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., str]]:
    """Writes a source into a package of the test's own, on the path; returns the module's name."""
    folder = tmp_path / "elsewhere"
    folder.mkdir()
    monkeypatch.syspath_prepend(str(folder))
    monkeypatch.setenv("PYTHONPATH", str(folder))
    made = f"own_{tmp_path.name}"

    def write(source: str, name: str = "reinforce") -> str:
        (folder / made).mkdir(exist_ok=True)
        (folder / made / "__init__.py").touch()
        (folder / made / f"{name}.py").write_text(source, encoding="utf-8")
        importlib.invalidate_caches()
        return f"{made}.{name}"

    yield write
    for name in [name for name in sys.modules if name.partition(".")[0] == made]:
        del sys.modules[name]


@pytest.fixture
def shoal_command(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Callable[..., tuple[int, str, str]]:
    """The command line in this process, in an empty folder: exit status, stdout, stderr."""
    folder = tmp_path / "work"
    folder.mkdir()
    monkeypatch.chdir(folder)

    def call(*arguments: str) -> tuple[int, str, str]:
        with monkeypatch.context() as patch:
            patch.setattr(sys, "argv", ["shoal", *arguments])
            patch.setattr(sys, "path", list(sys.path))
            with pytest.raises(SystemExit) as ended:
                cli.main()
        printed = capsys.readouterr()
        return int(ended.value.code or 0), printed.out, printed.err

    return call


def saved(run: str | Path) -> dict[str, Any]:
    """A run's newest checkpoint."""
    found = checkpoint.load(Path(run) / "checkpoints")
    assert found is not None
    return found.tree


def learned(run: str | Path) -> dict[str, torch.Tensor]:
    """Weights and optimizer moments of a run's newest checkpoint, by name."""
    network = saved(run)["learner"]["policy"]["networks"]["policy"]
    moments = network["optimizer"]["state"]
    return dict(network["module"]) | {
        f"{number}/{name}": torch.as_tensor(value) for number, state in moments.items() for name, value in state.items()
    }


def lines_of(run: str | Path) -> list[dict[str, float]]:
    """The lines of a run's metrics without those of the clock."""
    lines = [json.loads(line) for line in RunDirectory(Path(run)).metrics.read_text().splitlines()]
    return [{k: v for k, v in line.items() if not k.startswith(("time/", "speed/"))} for line in lines]


def assert_equal_runs(one: str | Path, other: str | Path) -> None:
    """Bit for bit: weights, moments, metrics."""
    left, right = learned(one), learned(other)
    assert left.keys() == right.keys()
    different = [name for name in left if not torch.equal(left[name], right[name])]
    assert different == []
    assert lines_of(one) == lines_of(other)


@pytest.mark.slow
def test_all_commands(package: Any, shoal_command: Any, tmp_path: Path) -> None:
    """Trained, evaluated, recorded, reported, listed, loaded, compared: by its module's name, as ours by theirs."""
    name = package(algorithm_of_the_page())
    options = ("--algo", name, *SMALL, "--total-timesteps", "2560", "--learning-rate", "0.01")
    status, out, err = shoal_command("train", "CartPole-v1", *options, "--name", "x")
    assert (status, err) == (0, "")
    path = f"runs/CartPole-v1/{name}/x"
    assert out.rstrip().endswith(path)
    config = RunDirectory(Path(path)).read_config()
    assert config["algo"] == name
    assert (config["num_envs"], config["total_timesteps"]) == (8, 2560)
    assert config["algorithm"]["learning_rate"] == 0.01
    assert {"loss/policy", "loss/value", "loss/grad_norm"} <= lines_of(path)[-1].keys()

    figure = re.search(r"greedy return ([\d.]+)", out)
    assert figure is not None
    status, out, err = shoal_command("eval", path, "--seed", "1", "--video", "x.gif", "--video-steps", "20")
    assert (status, err) == (0, "")
    mean = re.match(r"mean return ([\d.]+),", out)
    assert mean is not None
    assert f"{float(mean[1]):.1f}" == figure[1]  # the episodes of the run's own figure
    assert Path("x.gif").stat().st_size > 0

    agent = shoal.load(path)
    assert agent.act(np.zeros(4, np.float32)) in (0, 1)
    assert agent.act(np.zeros((3, 4), np.float32)).shape == (3,)
    assert agent.evaluate(episodes=100, seed=1).mean == RunDirectory(Path(path)).read_status()["greedy_return"]

    assert shoal_command("report", path)[0] == 0
    status, out, _ = shoal_command("runs")
    assert status == 0
    assert name in out.replace("\n", "").replace(" ", "")

    again = ("--config", f"{path}/config.toml", "--seed", "2", "--name", "y")
    assert shoal_command("train", *again, *PLAIN)[0] == 0
    ours = ("--num-minibatches", "2", "--update-epochs", "1", "--total-timesteps", "2560")
    assert shoal_command("train", "CartPole-v1", *SMALL, *ours)[0] == 0
    status, out, err = shoal_command("compare", f"runs/CartPole-v1/{name}", "runs/CartPole-v1/ppo")
    assert (status, err) == (0, "")
    assert name in out.replace("\n", "")
    assert Path("compare.png").exists()


def test_compare_trains_it(package: Any, shoal_command: Any) -> None:
    """A config file that names it is trained by `compare`, once, where the user trusts the file."""
    name = package(algorithm_of_the_page())
    Path("own.toml").write_text(
        f'env = "CartPole-v1"\nalgo = "{name}"\nnum_envs = 8\ntotal_timesteps = 1280\n[algorithm]\nnum_steps = 16\n'
    )
    status, out, err = shoal_command("compare", "own.toml", "--seeds", "2")
    assert (status, out) == (2, "")
    assert f"the configuration names '{name}' (algo), which would be imported and run" in err
    status, out, err = shoal_command("compare", "own.toml", "--seeds", "2", "--trust")
    assert (status, err) == (0, "")
    assert out.count("training own.toml") == 2
    assert "training" not in shoal_command("compare", "own.toml", "--seeds", "2", "--trust")[1]


def test_its_help(package: Any, shoal_command: Any) -> None:
    """`--help` shows its own settings beside the run's, with its DEFAULTS."""
    name = package(algorithm_of_the_page())
    status, out, _ = shoal_command("train", "Pendulum-v1", "--algo", name, "--help")
    assert status == 0
    text = re.sub(r"[\s│]+", " ", out)
    assert re.search(r"--num-envs INT .{,120}\(default: 32\)", text)
    assert re.search(r"--learning-rate FLOAT .{,120}\(default: 0\.003\)", text)
    assert "--network.hidden" in text
    assert "--clip-coef" not in text


def test_resumed_where_it_was_limited(package: Any, shoal_command: Any) -> None:
    """A run that ended at half of its steps and was continued equals the one that went through."""
    name = package(algorithm_of_the_page())
    options = ("--algo", name, *SMALL)
    shoal_command("train", *options, "--total-timesteps", "1280", "--name", "half")
    folder = f"runs/CartPole-v1/{name}"
    halfway = learned(f"{folder}/half")
    status, _, err = shoal_command("resume", f"{folder}/half", *PLAIN, "--total-timesteps", "2560")
    assert (status, err) == (0, "")
    shoal_command("train", *options, "--total-timesteps", "2560", "--name", "whole")
    assert_equal_runs(f"{folder}/half", f"{folder}/whole")
    assert any(not torch.equal(halfway[key], value) for key, value in learned(f"{folder}/whole").items())


@pytest.mark.slow
def test_resumed_where_it_was_killed(package: Any, shoal_command: Any) -> None:
    """A run whose process is killed after a checkpoint and that is resumed equals the one that went through."""
    name = package(algorithm_of_the_page())
    options = ("train", "--algo", name, *SMALL, "--total-timesteps", "12800", "--name")
    folder = Path("runs/CartPole-v1") / name
    with subprocess.Popen([SHOAL, *options, "killed"], stdout=subprocess.DEVNULL, env=dict(os.environ)) as process:
        deadline = time.monotonic() + 60
        while not list(folder.glob("killed/checkpoints/0*.json")):
            assert process.poll() is None
            assert time.monotonic() < deadline
            time.sleep(0.001)
        process.send_signal(signal.SIGKILL)
    assert process.returncode == -signal.SIGKILL
    assert saved(folder / "killed")["learner"]["policy"]["updates"] < 100
    assert shoal_command("resume", str(folder / "killed"), *PLAIN)[0] == 0
    shoal_command(*options, "whole")
    assert_equal_runs(folder / "killed", folder / "whole")


SETUP = """\
    shuffle = run.rng.permutation(5)
    learner.learning_rate = cfg.learning_rate * (1 + shuffle[0])
    learner.add("target", run.policy(env.spec))
    learner.networks["target"].module.load_state_dict(learner.policy.state_dict())
"""
MOVING = """\
        learner.learning_rate *= 0.99
        if run.updates % 3 == 0:
            learner.networks["target"].module.load_state_dict(learner.policy.state_dict())
        target = target + run.rng.normal() * 0.1
"""


@pytest.mark.parametrize("resumed", [pytest.param(False, marks=pytest.mark.slow), True], ids=["through", "resumed"])
def test_the_loop_may_be_asked_for_anywhere(package: Any, shoal_command: Any, *, resumed: bool) -> None:
    """`run.loop` before, between or after other lines that set up the learner changes no bit, also of a resumed run.

    The lines draw from run.rng, set the learning rate and add a network; each of them goes on moving in the loop.
    """
    source = algorithm_of_the_page()
    assert source.count(LOOP) == 1
    before, _, after = source.partition(LOOP)
    at = after.index("        advantage = ")
    body = "    for rollout in batches:\n" + after[:at] + MOVING + after[at:]
    ask = "    batches = run.loop(stream, learner)\n"
    first, second = SETUP.splitlines(keepends=True)[:2], SETUP.splitlines(keepends=True)[2:]
    places = {
        "early": ask + SETUP,
        "between": "".join(first) + ask + "".join(second),
        "late": SETUP + ask,
    }
    runs: list[Path] = []
    name = ""
    for place, lines in places.items():
        name = package(before + lines + body, place)
        options = ("train", "--algo", name, *SMALL, "--name", "x", "--total-timesteps")
        run = Path("runs/CartPole-v1") / name / "x"
        status, _, err = shoal_command(*options, "1280" if resumed else "2560")
        assert (status, err) == (0, "")
        if resumed:
            assert shoal_command("resume", str(run), *PLAIN, "--total-timesteps", "2560")[0] == 0
        runs.append(run)
    whole = ("train", "--algo", name, *SMALL, "--name", "whole", "--total-timesteps", "2560")
    shoal_command(*whole)
    for run in runs:
        assert_equal_runs(run, runs[-1].parent / "whole")
        targets = [saved(path)["learner"]["policy"]["networks"]["target"]["module"] for path in (run, runs[-1])]
        assert all(torch.equal(targets[0][key], value) for key, value in targets[1].items())


@pytest.mark.usefixtures("all_greedy_episodes")
def test_as_a_module_in_python(package: Any, tmp_path: Path) -> None:
    """`shoal.train(algo=module)`; the run is loaded and resumed by the module's name."""
    module: ModuleType = importlib.import_module(package(algorithm_of_the_page()))
    settings: Any = {"num_envs": 8, "num_steps": 16, "total_timesteps": 1280, "panel": "none", "stop_at": float("inf")}
    done = shoal.train("CartPole-v1", algo=module, run_dir=tmp_path / "runs", gamma=0.9, **settings)
    assert RunDirectory(done.path).read_config()["algorithm"]["gamma"] == 0.9
    assert shoal.load(done.path).evaluate(seed=1).mean == done.greedy_return
    assert shoal.resume(done.path, panel="none").greedy_return == done.greedy_return
    with pytest.raises(
        ConfigError, match=r"no setting 'clip_coef'; it is a setting of other algorithms, not of .*: clip_coef"
    ):
        shoal.train("CartPole-v1", algo=module, run_dir=tmp_path / "runs", clip_coef=0.1, **settings)


def test_a_learner_of_another_name_is_loaded(package: Any, tmp_path: Path) -> None:
    """`run.loop(stream, {"actor": learner})`: of one learner or several, the first is what is evaluated and loaded."""
    source = algorithm_of_the_page()
    assert LOOP in source
    settings: Any = {"num_envs": 8, "num_steps": 16, "total_timesteps": 512, "panel": "none", "stop_at": float("inf")}
    for name, learners in (("one", "{'actor': learner}"), ("two", "{'actor': learner, 'policy': other}")):
        other = "    other = run.learner(run.policy(env.spec), Adam, lr=1.0)\n    other.flat.zero_()\n"
        made = package(source.replace(LOOP, other + LOOP.replace("learner)", f"{learners})")), name)
        done = shoal.train("CartPole-v1", algo=importlib.import_module(made), run_dir=tmp_path / "runs", **settings)
        loaded = shoal.load(done.path).policy.state_dict()
        assert all(torch.equal(loaded[key], value) for key, value in done.policy.state_dict().items())


@pytest.mark.parametrize("where", ["before", "learned", "published"])
def test_a_loop_that_is_left_is_saved(where: str, package: Any, tmp_path: Path) -> None:
    """After `break` in the seventh batch, what is loaded is what was trained; a resume goes on from there."""
    source = algorithm_of_the_page()
    leave = "        if run.updates == 6:\n            break\n"
    publish = "        stream.publish()\n"
    places = {"before": (LOOP, LOOP + leave), "learned": (publish, leave + publish)}
    old, new = places.get(where, (publish, publish + leave))
    assert source.count(old) == 1
    module = importlib.import_module(package(source.replace(old, new)))
    settings: Any = {"num_envs": 8, "num_steps": 16, "total_timesteps": 128 * 400, "stop_at": float("inf")}
    done = shoal.train("CartPole-v1", algo=module, run_dir=tmp_path / "runs", panel="none", **settings)
    loaded = shoal.load(done.path).policy.state_dict()
    assert all(torch.equal(loaded[key], value) for key, value in done.policy.state_dict().items())
    status = RunDirectory(done.path).read_status()
    assert (status["state"], status["stop_reason"]) == ("finished", "the loop was left")
    assert (status["steps"], status["updates"]) == (7 * 128, 6 if where == "before" else 7)
    again = shoal.resume(done.path, panel="none", total_timesteps=128 * 9)
    assert again.steps == 128 * (8 if where == "before" else 9)


def test_a_loop_that_fails_is_not_saved(package: Any, tmp_path: Path) -> None:
    """An exception of the body is no `break`: the last checkpoint stays what it was."""
    source = algorithm_of_the_page()
    publish = "        stream.publish()\n"
    broken = source.replace(publish, publish + "        if run.updates == 6:\n            raise KeyError('mine')\n")
    module = importlib.import_module(package(broken))
    settings: Any = {"num_envs": 8, "num_steps": 16, "total_timesteps": 128 * 400, "stop_at": float("inf")}
    with pytest.raises(KeyError, match="mine"):
        shoal.train("CartPole-v1", algo=module, run_dir=tmp_path / "runs", panel="none", name="run", **settings)
    (status,) = (tmp_path / "runs").rglob("run.json")
    assert json.loads(status.read_text())["state"] == "failed"
    assert not list(status.parent.glob("checkpoints/*.json"))


CONFIG = "from dataclasses import dataclass\n@dataclass(frozen=True)\nclass Config:\n    rate: float = 0.1\n"
TRAIN = "def train(cfg, env, run): pass\n"


@pytest.mark.parametrize(
    ("source", "told"),
    [
        ("", "it has no Config, a frozen dataclass"),
        ("class Config: pass\n" + TRAIN, "it has no Config, a frozen dataclass"),
        (
            CONFIG.replace("(frozen=True)", "") + TRAIN,
            r"its Config can be changed; make it frozen: @dataclass\(frozen=True\)",
        ),
        (CONFIG, r"it has no train\(cfg, env, run\)"),
        (CONFIG + "def train(cfg, env): pass\n", r"train is called as \(cfg, env, run\), but too many positional"),
        (
            CONFIG + TRAIN + "make_policy = 3\n",
            r"make_policy is called as \(spec, cfg, seed\), but 3 is not a callable",
        ),
        (CONFIG + "    num_envs: int = 3\n" + TRAIN, "num_envs is a setting of the run, .*DEFAULTS"),
        (CONFIG + TRAIN + "DEFAULTS = {'num_env': 3}\n", "no setting 'num_env'; did you mean num_envs"),
    ],
    ids=["empty", "plain", "not-frozen", "no-train", "arguments", "make-policy", "engine-setting", "unknown-default"],
)
def test_what_is_missing_is_said(package: Any, shoal_command: Any, source: str, told: str) -> None:
    """A module that is no algorithm is refused when it is named, with the missing piece; nothing is left."""
    name = package(source, "broken")
    status, out, err = shoal_command("train", "--algo", name)
    assert (status, out) == (2, "")
    assert re.search(told, err), err
    assert not list(Path().iterdir())


@pytest.mark.parametrize("name", ["ppo", "a2c"])
def test_a_module_with_the_name_of_shoals_own(name: str, shoal_command: Any) -> None:
    """Its runs would be resumed and loaded as shoal's: it is refused when it is given, and nothing is left."""
    module = types.ModuleType(name)
    vars(module).update(Config=PPO, train=lambda cfg, env, run: None)
    with pytest.raises(ConfigError, match=f"called like shoal's own algorithm '{name}'.*rename the module or put it"):
        shoal.train("CartPole-v1", algo=module, panel="none")
    assert not list(Path().iterdir())
    assert algos.name_of(algos.load(importlib.import_module(f"shoal.algos.{name}"))) == name


NULLABLE = """
from dataclasses import dataclass

from shoal.algos import a2c


@dataclass(frozen=True)
class Config(a2c.Config):
    clip: float | None = 0.2


DEFAULTS = {"stop_at": 5.0}
seen = []


def train(cfg, env, run):
    seen.append((cfg.clip, run.settings.stop_at))
    return a2c.train(cfg, env, run)
"""


def test_none_is_resumed_as_none(package: Any, shoal_command: Any) -> None:
    """A setting that was given as None does not become its default again."""
    module = importlib.import_module(package(NULLABLE, "nullable"))
    trained = shoal.train("CartPole-v1", algo=module, panel="none", total_timesteps=160, clip=None, stop_at=None)
    shoal.resume(trained.path, panel="none", total_timesteps=320)
    assert module.seen == [(None, 475.0)] * 2
    assert RunDirectory(trained.path).read_config()["unset"] == ["algorithm.clip", "stop_at"]


def test_modules_that_are_not_there(package: Any, shoal_command: Any) -> None:
    """A package or a module that cannot be found is named; an import that fails inside one keeps its own error."""
    package("")
    assert "no module 'nowhere' for the algorithm 'nowhere.algo'" in shoal_command("train", "--algo", "nowhere.algo")[2]
    name = package("import not_installed_anywhere\n", "needy")
    status, _, err = shoal_command("train", "--algo", name)
    assert status != 0
    assert "not_installed_anywhere" in err


def test_a_module_outside_of_packages(package: Any, shoal_command: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """A single file in the current folder is named without a dot; a name that is no module's gets the nearest ones."""
    monkeypatch.delitem(sys.modules, "own_single_file", raising=False)
    Path("own_single_file.py").write_text(algorithm_of_the_page())
    status, _, err = shoal_command("train", "--algo", "own_single_file", *SMALL, "--total-timesteps", "640")
    assert (status, err) == (0, "")
    for name in ("ppp", "../ppo", "ppo.", ".ppo"):
        assert f"no algorithm '{name}'; did you mean ppo" in shoal_command("train", "--algo", name)[2]


def test_only_algorithms_are_listed() -> None:
    """Helper files beside shoal's algorithms are none; each one that is listed loads."""
    names = list(algos.summaries())
    assert {"ppo", "a2c"} <= set(names)
    for name in names:
        assert algos.name_of(algos.load(name)) == name
