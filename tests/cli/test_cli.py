"""The command line: what it prints, its exit statuses, and that simple answers never wait for torch."""

from __future__ import annotations

import json
import re
import signal
import subprocess
import sys
import time
import warnings
from dataclasses import fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

import shoal
from shoal import cli
from shoal.cli import resume
from shoal.experiment import keywords
from shoal.run.directory import RunDirectory, list_runs

if TYPE_CHECKING:
    from collections.abc import Callable

SHOAL = str(Path(sys.executable).with_name("shoal"))
TINY = [
    "--num-envs=8",
    "--num-steps=16",
    "--num-minibatches=2",
    "--update-epochs=1",
    "--total-timesteps=640",
    "--plain",
]
POLICY = """
from torch import nn, tanh

class Small(nn.Module):
    def __init__(self, spec):
        super().__init__()
        self.body, self.logits, self.value = nn.Linear(4, 8), nn.Linear(8, 2), nn.Linear(8, 1)

    def forward(self, obs):
        hidden = tanh(self.body(obs))
        return self.logits(hidden), self.value(hidden)
"""


@pytest.fixture
def run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Callable[..., tuple[int, str, str]]:
    """Runs a command in this process, in an empty folder: exit status, stdout, stderr."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "200")

    def call(*arguments: str) -> tuple[int, str, str]:
        with monkeypatch.context() as patch:
            patch.setattr(sys, "argv", ["shoal", *arguments])
            patch.setattr(sys, "path", list(sys.path))
            with pytest.raises(SystemExit) as ended:
                cli.main()
        printed = capsys.readouterr()
        code = ended.value.code
        return (code if isinstance(code, int) else 0 if code is None else 1), printed.out, printed.err

    return call


def test_help(run: Any) -> None:
    """`--help` and no command at all list the commands; only the latter is a mistake."""
    status, out, _ = run("--help")
    assert status == 0
    assert all(f"  {name}" in out for name in cli.COMMANDS)
    assert run()[0] == 2


def test_version(run: Any) -> None:
    """Its one line, and success."""
    assert run("--version")[:2] == (0, f"shoal {shoal.__version__}\n")


@pytest.mark.parametrize("name", list(cli.COMMANDS))
def test_help_of_each_command(run: Any, name: str) -> None:
    """Each command has its own `--help`, which says what the list of commands says of it."""
    status, out, _ = run(name, "--help")
    assert status == 0
    assert out.startswith(f"usage: shoal {name} ")
    assert " ".join(cli.COMMANDS[name].split()) in " ".join(out.split())


def test_resume_takes_what_it_takes_in_python() -> None:
    """Schedules that were functions have options of their own; an action guard's are named by the run's file."""
    names = [name for name in keywords.Changes.__annotations__ if name != "action_guard"]
    changes = {name for name in names if not name.endswith("_schedule")}
    assert changes < {field.name for field in fields(resume.Given)}


def test_lists(run: Any) -> None:
    """`envs` and `algos` name what there is."""
    status, out, _ = run("envs")
    assert status == 0
    for name in ("CartPole-v1", "MountainCar-v0", "MountainCarContinuous-v0", "Acrobot-v1", "Pendulum-v1"):
        assert f"  {name}\n" in out
    status, out, _ = run("algos")
    assert status == 0
    assert re.search(r"^ +ppo +PPO: .*1707\.06347", out, re.MULTILINE)
    assert re.search(r"^ +a2c +A2C ", out, re.MULTILINE)


SIMPLE = ["--help", "envs", "algos", "runs", "trian", "resume --help", "eval --help", "compare --help", "report"]


@pytest.mark.parametrize("arguments", [line.split() for line in SIMPLE], ids=" ".join)
def test_simple_answers_without_torch(arguments: list[str], tmp_path: Path) -> None:
    """Torch is never imported for these; that is what keeps them under half a second."""
    program = (
        "import sys, atexit\n"
        "atexit.register(lambda: print('torch' in sys.modules, file=sys.stderr))\n"
        f"sys.argv = ['shoal', *{arguments!r}]\n"
        "from shoal.cli import main; main()"
    )
    done = subprocess.run([sys.executable, "-c", program], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == (2 if arguments in (["trian"], ["report"]) else 0)
    assert done.stderr.splitlines()[-1] == "False"


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["trian"], "no command 'trian'; did you mean train"),
        (["video", "x"], r"no command 'video'; `shoal eval RUN --video FILE.mp4` records one"),
        (["train", "--algo", "own/my_algo.py"], r"not by its file 'own/my_algo.py': write own\.my_algo"),
        (["train", "CartPol-v1"], "no environment 'CartPol-v1'.*did you mean CartPole-v1"),
        (["train", "--algo", "pp"], "no algorithm 'pp'; did you mean ppo"),
        (["train", "--num-env", "3"], "Perhaps you meant:.*--num-envs"),
        (["train", "--num-envs", "three"], "invalid|Error parsing --num-envs"),
        (["train", "--preset", "pac"], "ppo has no preset 'pac'"),
        (["train", "CartPole-v1", "--env", "Acrobot-v1"], "named twice: CartPole-v1 and --env Acrobot-v1"),
        (["train", "--algo"], "Missing value for argument '--algo'"),
        (["train", "--env.length"], "--env.length needs a name and a value"),
        (["train", "--env-kwargs", "length=3"], "--env-kwargs is check-env's; .* one by one: --env.NAME VALUE"),
        (["check-env", "reasoning-gym:chain_sum"], "is a task of a language model, no environment"),
        (["check-env", "CartPole-v1", "--env.own-length=3"], "CartPole-v1 has no keyword 'own_length'"),
        (["check-env", "CartPole-v1", "--seed", "-1"], "shoal check-env: seed must be a whole number from 0 to"),
        (["pause", "nowhere", "--timeout-s", "nan"], "--timeout-s must be at least 0, got nan"),
        (["train", "--seeds", "0"], "--seeds must be at least 1, got 0"),
        (["train", "--config", "none.toml"], "no file none.toml"),
        (["train", "--num-minibatches", "7"], "num_minibatches=4 would"),
        (["train", "--device", "cuda:99"], "device='cuda:99', but"),
        (["train", "--policy", "nowhere:Class"], "no module 'nowhere'"),
        (["train", "--backend", "nativ"], "unknown backend"),
        (["train", "--seed", "-1"], "seed must be a whole number from 0 to"),
        (["train", "--network.hiden", "3"], "--network.hidden"),
        (["train", "--learning-rate", "1", "2"], "^shoal train: --learning-rate takes one value, got 1 2 $"),
        (["train", "--network.hidden", "8", "8", "--seed", "1", "2"], "--seed takes one value, got 1 2"),
        (["train", "--init-from", "nowhere"], "no run at nowhere"),
        (["zzzz"], "no command 'zzzz'; `shoal --help` lists them"),
        (["resume", "nowhere"], "shoal resume: no run at nowhere; `shoal runs` lists them"),
        (["resume"], "required"),
        (["timeline", "nowhere"], "shoal timeline: no run at nowhere"),
        (["tune-speed", "--seconds", "0"], "--seconds must be at least 1, got 0"),
        (["tune-speed", "--free", "gamma"], "gamma"),
        (["tune-speed", "--out", "none/speed.toml"], "none/speed.toml cannot be written: there is no such folder"),
        (
            ["resume", "x", "--learning-rate", "3"],
            "resume cannot change 'learning_rate', .*config.toml --learning-rate",
        ),
        (
            ["resume", "x", "--network.hidden=8"],
            "resume cannot change 'network', only total_timesteps, stop_at, confirm",
        ),
        (["resume", "x", "--total-timestep", "3"], "nrecognized"),
        (["resume", "x", "--env.gravity", "3"], "resume cannot change the parameters of its environment"),
        (["resume", "x", "--learning-rate-schedule"], "--learning-rate-schedule needs a value"),
        (["resume", "x", "--on-fault", "explode"], "invalid choice|explode"),
        (["eval", "nowhere"], "shoal eval: no run at nowhere"),
        (["eval", "nowhere", "--tag", "newest"], "invalid choice|newest"),
        (["compare"], "required|nothing to compare"),
        (["envs", "--all"], "Unrecognized"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_mistakes(run: Any, arguments: list[str], told: str, tmp_path: Path) -> None:
    """A mistake: exit status 2, a short message on stderr that says what would work, no traceback, no directory."""
    status, out, err = run(*arguments)
    assert status == 2
    assert out == ""
    assert re.search(told, re.sub(r"[\s│]+", " ", err)), err
    assert "Traceback" not in err
    assert len(err) < 2500
    assert list(tmp_path.iterdir()) == []


def test_colors_of_a_library_s_warning(run: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """What a library colors for a terminal is plain text among shoal's own."""
    monkeypatch.setattr(
        "shoal.cli.algos.parse", lambda *_, **__: warnings.warn("\x1b[33mtoo \x1b[1mbright\x1b[0m", stacklevel=1)
    )
    with warnings.catch_warnings():
        warnings.simplefilter("always")
        monkeypatch.setattr(warnings, "showwarning", warnings.showwarning)  # which the command line replaces
        _, _, err = run("algos")
    assert err == "warning: too bright\n"


def test_train_and_its_status(run: Any, tmp_path: Path) -> None:
    """0 where the greedy episodes meet the threshold, 1 where they do not; the figure and the run are printed."""
    status, out, err = run("train", "CartPole-v1", *TINY, "--stop-at", "1000")
    assert (status, err) == (1, "")
    assert "(threshold 1000 missed)" in out
    status, out, _ = run(
        "train", "CartPole-v1", *TINY, "--stop-at", "5", "--network.hidden", "16", "8", "--name", "met"
    )
    assert status == 0
    assert out.splitlines()[-1].endswith("s: runs/CartPole-v1/ppo/met")
    assert "(threshold 5 met)" in out
    config = RunDirectory(tmp_path / "runs/CartPole-v1/ppo/met").read_config()
    assert config["algorithm"]["network"]["hidden"] == [16, 8]
    assert config["num_envs"] == 8
    assert config["algorithm"]["learning_rate"] == 3e-3  # the preset's


def test_help_of_train_documents_the_statuses(run: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """`shoal train --help` says what each exit status means and shows the preset's values as defaults."""
    monkeypatch.setenv("COLUMNS", "80")  # wider, the options stand in two columns
    status, out, _ = run("train", "Pendulum-v1", "--help")
    assert status == 0
    text = re.sub(r"[\s│]+", " ", out)
    for part in ("0, the greedy", "1, it did not", "2, invalid options", "3, the run failed", "130, Ctrl-C"):
        assert part in text
    assert re.search(r"--gamma FLOAT .{,80}\(default: 0\.95\)", text)


def test_json(run: Any, tmp_path: Path) -> None:
    """Each line of `--json` parses: the metrics, then the figure."""
    status, out, _ = run("train", "CartPole-v1", *TINY, "--stop-at", "5", "--json", "--eval-every", "300")
    lines = [json.loads(line) for line in out.splitlines()]
    assert status == 0
    assert [line["step"] for line in lines[:-1]] == list(range(128, 128 * len(lines), 128))
    assert "eval/return" in lines[2]
    assert lines[-1]["solved"] is True
    assert Path(lines[-1]["run"]).parent == tmp_path / "runs/CartPole-v1/ppo"


def test_seeds(run: Any, tmp_path: Path) -> None:
    """`--seeds 2` trains two runs with seeds that follow; one that misses decides the status."""
    status, out, _ = run("train", *TINY, "--seeds", "2", "--seed", "5", "--stop-at", "1000")
    assert status == 1
    assert out.count("greedy return") == 2
    assert sorted(r.read_status()["seed"] for r in list_runs(tmp_path / "runs")) == [5, 6]


@pytest.mark.slow
def test_own_policy_resume_eval_runs_and_config(run: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A policy in the current folder; then the run is resumed, evaluated, listed, and repeated from its config.toml."""
    monkeypatch.delitem(sys.modules, "mine_for_cli", raising=False)
    (tmp_path / "mine_for_cli.py").write_text(POLICY)
    given = ("--policy", "mine_for_cli:Small", "--stop-at", "inf")
    status, out, err = run("train", "CartPole-v1", *TINY, *given, "--name", "own")
    assert (status, err) == (0, "")
    figure = re.search(r"greedy return ([\d.]+)", out)
    assert figure
    status, out, _ = run("resume", "CartPole-v1/ppo/own", "--plain")
    assert status == 0
    assert figure[0] in out
    status, out, _ = run("resume", "CartPole-v1/ppo/own", "--plain", "--total-timesteps", "1280", "--stop-at", "1000")
    assert status == 1
    assert "1,280 steps" in out
    changed = ("--num-threads=1", "--eval-every=640", "--eval-episodes=2", "--keep-checkpoints=1", "--final-episodes=1")
    again = ("--policy", "mine_for_cli:Small", "--plain")
    assert run("resume", "CartPole-v1/ppo/own", *changed, *again)[0] in (0, 1)
    saved = RunDirectory(tmp_path / "runs/CartPole-v1/ppo/own").read_config()
    assert [saved[name[2:].partition("=")[0].replace("-", "_")] for name in changed] == [1, 640, 2, 1, 1]
    episodes = ("--episodes", "5", "--seed", "3")
    status, _, err = run("eval", "CartPole-v1/ppo/own", *episodes, "--max-steps", "9")
    assert (status, "episodes of CartPole-v1 end after 500 steps" in err) == (2, True)
    status, out, _ = run("eval", "CartPole-v1/ppo/own", *episodes, "--policy", "mine_for_cli:Small")
    assert status == 0
    assert re.fullmatch(r"mean return [\d.]+, standard deviation [\d.]+, 5 greedy episodes\n", out)
    status, out, _ = run("runs")
    assert status == 0
    assert re.search(r"CartPole-v1/ppo/own .*1,280.*finished", out)
    config = "runs/CartPole-v1/ppo/own/config.toml"
    status, out, _ = run("train", "--config", config, "--name", "again", "--plain", "--total-timesteps", "640")
    assert status == 1
    configs = [RunDirectory(tmp_path / "runs/CartPole-v1/ppo" / name).read_config() for name in ("own", "again")]
    assert configs[1]["algorithm"] == configs[0]["algorithm"]
    assert [config["total_timesteps"] for config in configs] == [1280, 640]
    status, _, err = run("train", "--config", config, "--algo", "a2c")
    assert status == 2
    assert "leave algo and preset out" in err


@pytest.mark.filterwarnings("default")
def test_damaged_checkpoint_is_said(run: Any, tmp_path: Path) -> None:
    """`eval` passes over a damaged checkpoint and says so on stderr, in one line."""
    run("train", "CartPole-v1", *TINY, "--stop-at", "inf", "--name", "x")
    newest = sorted((tmp_path / "runs/CartPole-v1/ppo/x/checkpoints").glob("0*.json"))[-1]
    newest.write_text("{}")
    status, _, err = run("eval", "runs/CartPole-v1/ppo/x", "--episodes", "2")
    assert status == 0
    assert err == f"warning: checkpoint {newest.name} is damaged (it is no manifest); using the one before\n"


def test_runs_that_fail(run: Any, tmp_path: Path) -> None:
    """A failure of the environment: exit status 3; its own exceptions keep their traceback."""
    source = (
        "import gymnasium as gym\n"
        "class Own(gym.Wrapper):\n"
        "    def step(self, action):\n"
        "        obs, *rest = self.env.step(action)\n"
        "        if self.kind == 'raise':\n"
        "            raise KeyError('coffee')\n"
        "        if self.kind == 'unplugged':\n"
        "            raise OSError('no camera')\n"
        "        return obs * float('nan'), *rest\n"
        "def make(kind):\n"
        "    env = Own(gym.make('CartPole-v1'))\n"
        "    env.kind = kind\n"
        "    return env\n"
        "def bad(): return make('nan')\n"
        "def unplugged(): return make('unplugged')\n"
        "def worse(): return make('raise')\n"
    )
    (tmp_path / "envs_for_cli.py").write_text(source)
    status, _, err = run("train", "envs_for_cli:bad", *TINY)
    assert status == 3
    assert re.fullmatch(r"shoal train: .*row 0 at step 1 .*nan.*\n", err)
    status, _, err = run("train", "envs_for_cli:worse", *TINY)
    assert status == 3
    assert "raise KeyError('coffee')" in err
    status, _, err = run("train", "envs_for_cli:unplugged", *TINY)
    assert status == 3
    assert re.fullmatch(r"shoal train: no camera\nshoal: raised by .*after the action \d\n", err)
    assert list_runs(tmp_path / "runs") == []


@pytest.mark.parametrize("times", [pytest.param(1, marks=pytest.mark.slow), 2])
def test_ctrl_c(tmp_path: Path, times: int) -> None:
    """SIGINT to a real process, once or twice: exit status 130, state stopped; the run can be resumed."""
    command = [
        SHOAL,
        "train",
        "CartPole-v1",
        "--total-timesteps",
        "5000000",
        "--stop-at",
        "inf",
        "--name",
        "x",
        "--json",
    ]
    with subprocess.Popen(command, cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        process.stdout.readline()
        for _ in range(times):
            process.send_signal(signal.SIGINT)
            time.sleep(0.0005)
        out, err = process.communicate(timeout=30)
    assert process.returncode == 130
    assert "Traceback" not in err
    run = RunDirectory(tmp_path / "runs/CartPole-v1/ppo/x")
    assert run.read_status()["state"] == "stopped"
    if times == 1:
        assert "goes on" in json.loads(out.splitlines()[-1])["warning"]
        assert run.read_status()["steps"] > 0


def test_tune_speed_and_timeline(run: Any, tmp_path: Path) -> None:
    """What one writes the other's training reads; a run says what it waited for."""
    small = [option for option in TINY if option != "--plain"]
    status, out, _ = run("tune-speed", "CartPole-v1", *small, "--num-threads=1", "--backend=native", "--seconds=1")
    assert status == 0
    assert "nothing was faster than the settings as they are" in out
    assert out.splitlines()[-1] == "shoal train CartPole-v1 --config speed.toml"
    assert (tmp_path / "speed.toml").read_text().startswith("# Settings for speed, measured by shoal tune-speed\n")
    more = ["--timeline=2", "--name=timed", "--plain", "--no-report", "--final-episodes=0"]
    assert run("train", "CartPole-v1", "--config", "speed.toml", *more)[0] in (0, 1)
    status, out, _ = run("timeline", "timed")
    assert status == 0
    assert out.startswith("updates 4 to 5, ")
    assert (tmp_path / "runs/CartPole-v1/ppo/timed/timeline.png").is_file()
    (tmp_path / "runs/CartPole-v1/ppo/timed/timeline.jsonl").write_text("[]\n")
    status, _, err = run("timeline", "timed")
    assert status == 2
    assert "timeline.jsonl is damaged: line 1: it is no table" in err


def test_closed_pipe(tmp_path: Path) -> None:
    """A reader that leaves early, such as `head`, is no error worth a message."""
    command = f"'{SHOAL}' train CartPole-v1 --help | head -1"
    done = subprocess.run(["bash", "-c", command], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.stdout.startswith("usage: shoal train")
    assert done.stderr == ""
