"""docs/migrating.md is tried row by row: calls are made, settings given to a training, options to the command line."""

import re
import shlex
import signal
from collections.abc import Callable
from dataclasses import fields
from pathlib import Path
from types import SimpleNamespace
from typing import Any, ClassVar

import gymnasium as gym
import numpy as np
import pytest
import torch
from torch import Tensor, nn

import shoal
from shoal import algos
from shoal.algos import a2c, ppo
from shoal.cli import eval as cli_eval
from shoal.cli import train as cli_train
from shoal.experiment import training
from shoal.experiment.foreign import FOREIGN
from shoal.experiment.options import Options
from shoal.learn.learner import Learner
from shoal.nets.policy import Network
from tests.docs.tables import read_code, read_rows

ROWS = read_rows("migrating.md", 3)
TINY: dict[str, Any] = {"num_envs": 4, "num_steps": 8, "total_timesteps": 64, "panel": "none", "stop_at": float("inf")}
PPO_TINY = {"num_minibatches": 2, "update_epochs": 1}
REPLAY_TINY = {"learning_starts": 32}
WITH_REPLAY = ("dqn", "sac", "td3")
SETTINGS = {field.name for kind in (Options, ppo.Config, a2c.Config, Network) for field in fields(kind)}

pytestmark = [pytest.mark.usefixtures("few_greedy_episodes"), pytest.mark.slow]


class Net(nn.Module):
    """A policy of the user's own."""

    def __init__(self, spec: Any) -> None:
        super().__init__()
        self.actor, self.critic = nn.Linear(spec.observation.single.shape[0], 2), nn.Linear(4, 1)

    def forward(self, obs: Tensor) -> tuple[Tensor, Tensor]:
        return self.actor(obs), self.critic(obs)


class OnlyZero(gym.Env[Any, Any]):
    """One of its two actions is masked."""

    observation_space = gym.spaces.Box(0, 1, (4,), np.float32)
    action_space = gym.spaces.Discrete(2)
    info: ClassVar = {"action_mask": np.array([1, 0], np.int8)}

    def reset(self, *, seed: int | None = None, options: Any = None) -> tuple[Any, Any]:
        super().reset(seed=seed)
        self.left = 5
        return np.zeros(4, np.float32), self.info

    def step(self, action: int) -> tuple[Any, float, bool, bool, Any]:
        assert action == 0
        self.left -= 1
        return np.zeros(4, np.float32), 1.0, self.left == 0, False, self.info


class Pictures(OnlyZero):
    """Observes an image and a vector, in a Dict."""

    observation_space = gym.spaces.Dict(
        {"image": gym.spaces.Box(0, 255, (36, 36, 3), np.uint8), "place": gym.spaces.Box(0, 1, (2,), np.float32)}
    )

    def see(self) -> Any:
        return {"image": np.zeros((36, 36, 3), np.uint8), "place": np.zeros(2, np.float32)}

    def reset(self, *, seed: int | None = None, options: Any = None) -> tuple[Any, Any]:
        return self.see(), super().reset(seed=seed, options=options)[1]

    def step(self, action: int) -> tuple[Any, float, bool, bool, Any]:
        return self.see(), *super().step(action)[1:]


def train(env: Any = "CartPole-v1", **settings: Any) -> Any:
    """`shoal.train` for a few steps."""
    algo = settings.get("algo", "ppo")
    own: dict[str, Any] = dict(PPO_TINY) if algo == "ppo" else {}
    if algo in WITH_REPLAY:
        own["replay"] = REPLAY_TINY | settings.pop("replay", {})
    merged: dict[str, Any] = TINY | own | settings
    return shoal.train(env, **merged)


def stop(run: Any, _: object) -> None:
    run.stop("reason")


@pytest.fixture(scope="module")
def names(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """What the calls of the page find: a run, its agent, an observation."""
    run = train(run_dir=str(tmp_path_factory.mktemp("runs")))
    short = SimpleNamespace(
        train=lambda env, **given: train(env, **given | {"total_timesteps": 64}),  # whatever the page says
        load=shoal.load,
        resume=lambda path, **given: shoal.resume(path, panel="none", **given),
        check_env=shoal.check_env,
    )
    agent = shoal.load(run.path)
    return {"shoal": short, "run": run, "agent": agent, "obs": np.zeros(4, np.float32), "Net": Net, "stop": stop}


def given(experiment: Any, option: str) -> Any:
    """The value that a setting has after `--option`."""
    value: Any = experiment
    for name in option.removeprefix("--").removeprefix("no-").replace("-", "_").split("."):
        homes = (value, getattr(value, "options", None), getattr(value, "config", None))
        value = next(getattr(home, name) for home in homes if hasattr(home, name))
    return value


def try_option(code: str) -> None:
    """`--name value`, or a whole command: parsed, and what was said is what would be trained."""
    found: list[Any] = []

    def start(experiment: Any, **_: object) -> Any:
        found.append(experiment)
        return SimpleNamespace(stop_reason="", guard_stopped=False, solved=True)

    words = shlex.split(code)
    words = words[2:] if words[:2] == ["shoal", "train"] else ["CartPole-v1", *words]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(training, "start", start)
        assert cli_train.main(words, "") == 0
    for word, after in zip(words, [*words[1:], "--"], strict=True):
        if word.startswith("--"):
            said = not word.startswith("--no-") if after.startswith("--") else after
            value = given(found[0], word)
            assert value == said or float(value) == float(said), code


def try_code(code: str, names: dict[str, Any]) -> bool:
    """Tries what stands in one pair of backticks; whether it was something to try."""
    if code.startswith("shoal eval RUN"):
        words = shlex.split(code.replace("RUN", str(names["run"].path)))[2:]
        assert cli_eval.main([*words, "--video-rows", "1", "--video-steps", "3", "--episodes", "2"], "") in (0, 1)
    elif code.startswith(("shoal train", "--")):
        try_option(code)
    elif re.match(r"\w+=", code):
        settings = eval(f"dict({code})", names)
        train("Pendulum-v1" if settings.get("algo") == "td3" else "CartPole-v1", **settings)
    elif code.startswith(("shoal.", "agent.", "run.path")):
        eval(code, names)
    else:
        return code in SETTINGS
    return True


LACKS: dict[str, Callable[[], bool]] = {
    "c51.py": lambda: "c51" not in algos.summaries(),
    "ppo_atari_multigpu.py": lambda: Options("CartPole-v1").device == "cpu",
}
"""Rows with nothing here: what shows that it is missing."""


def masks_are_used() -> None:
    assert train(OnlyZero).steps == 64


def layers_follow_from_spaces() -> None:
    layers = [type(layer).__name__ for layer in train(Pictures).policy.modules()]
    assert "Conv2d" in layers
    assert "Linear" in layers


def equal_seeds_give_equal_weights() -> None:
    one, two = (torch.cat([p.flatten() for p in train(seed=4).policy.parameters()]) for _ in range(2))
    assert torch.equal(one, two)


def ctrl_c_ends_it_with_a_checkpoint() -> None:
    pressed: list[object] = []

    def press(_: object, record: object) -> None:
        if not pressed:
            pressed.append(record)
            signal.raise_signal(signal.SIGINT)

    with pytest.raises(KeyboardInterrupt, match="goes on"), pytest.warns(UserWarning, match="writing a checkpoint"):
        train(name="stopped", callbacks=[press])
    assert shoal.resume("stopped", panel="none").steps == 64


def an_atari_game_is_an_id() -> None:
    assert shoal.make_vec("ALE/Pong-v5", 1).single_observation_space.shape == (4, 84, 84)


PROSE: dict[str, Callable[[], None]] = {
    "CnnPolicy": layers_follow_from_spaces,
    "MaskablePPO": masks_are_used,
    "KeyboardInterrupt": ctrl_c_ends_it_with_a_checkpoint,
    "--torch-deterministic": equal_seeds_give_equal_weights,
    "ppo_atari.py": an_atari_game_is_an_id,
}
"""Rows whose cell has no code to run: what they say, tried."""


@pytest.mark.parametrize("cells", ROWS, ids=lambda cells: cells[0][:40])
def test_row(cells: list[str], names: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    there, here, _ = cells
    first = next(iter(read_code(there)), there)
    if here == "–":
        assert LACKS[first]()
        return
    tried = [code for code in read_code(here) if try_code(code, names)]
    if first in PROSE:
        PROSE[first]()
    else:
        assert tried or "](" in here, f"nothing to try in {here}"


def test_names_stand_for_names() -> None:
    """Where both cells are lists of names they are as long: n_steps is num_steps, n_epochs is update_epochs."""
    for there, here, _ in ROWS:
        if (codes := read_code(here)) and SETTINGS.issuperset(codes):
            assert len(read_code(there)) == len(codes), there


@pytest.mark.parametrize("name", FOREIGN)
def test_the_other_name_is_refused(name: str) -> None:
    """The message says what the page says: the name here. Every such name is on the page."""
    assert [there for there, _, _ in ROWS if name in there]
    with pytest.raises(shoal.ConfigError, match=re.escape(FOREIGN[name])):
        train(**{name: 1})


def test_batch_size(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """num_minibatches is num_envs * num_steps / batch_size."""
    monkeypatch.chdir(tmp_path)
    sizes: set[int] = set()
    step = Learner.step

    def watch(learner: Any, loss: Any, batch: Any, cfg: Any) -> Any:
        sizes.add(len(batch.index))
        return step(learner, loss, batch, cfg)

    monkeypatch.setattr(Learner, "step", watch)
    train(num_minibatches=2)
    assert sizes == {4 * 8 // 2}


def test_a_callback_ends_the_run(tmp_path: Path) -> None:
    assert train(callbacks=[stop], run_dir=str(tmp_path)).stop_reason == "reason"


@pytest.mark.parametrize("answer", [True, False, np.bool_(0)])
def test_a_callback_that_answers_is_refused(answer: object, tmp_path: Path) -> None:
    """At its first call, with what ends a run here."""

    def on_step(run: Any, record: Any) -> Any:
        calls.append(record)
        return answer

    calls: list[object] = []
    said = rf"the callback .*on_step returned {answer}, which ends no run.*run.stop\(reason\) ends a run"
    with pytest.raises(shoal.ConfigError, match=said):
        train(callbacks=[on_step], run_dir=str(tmp_path))
    assert len(calls) == 1


def test_a_callback_object_of_theirs_is_refused() -> None:
    theirs = SimpleNamespace(_on_step=lambda: False)
    with pytest.raises(shoal.ConfigError, match=r"cannot be called; in the place of _on_step is a function, and run.s"):
        train(callbacks=[theirs])
