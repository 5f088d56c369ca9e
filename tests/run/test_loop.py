"""The loop around an algorithm: it may stand anywhere; callbacks, stop reasons, skipped steps, what else is saved."""

from __future__ import annotations

import copy
import json
import shutil
from itertools import product
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.optim import Adam

import shoal
from shoal.envs.registry import make
from shoal.learn.minibatches import minibatches
from shoal.math.returns import gae
from shoal.nets.policy import Network, make_policy
from shoal.run import checkpoint
from shoal.run.callbacks import EpisodeEnd
from shoal.run.directory import RunDirectory
from shoal.run.log import read
from shoal.stream.rollouts import rollouts
from shoal.types import ConfigError
from tests.learn.paths import CFG, PATHS, loss_of, ppo_loss
from tests.run.beats import Beats, every, linear, make_run, weights

if TYPE_CHECKING:
    from pathlib import Path

    from shoal.learn.learner import Learner
    from shoal.run.run import Run
    from shoal.types import Steps


def learn(learner: Learner, rollout: Steps, way: str, rng: np.random.Generator) -> None:
    """Two gradient steps of PPO."""
    advantage, target = gae(rollout, gamma=0.9, gae_lambda=0.9)
    for batch in minibatches(rollout, advantage, target, 2, rng):
        learner.step(loss_of(way, ppo_loss), batch, CFG)


def use(learner: Learner, way: str) -> None:
    """A learner's first steps, and back to what it was: native code has taken hold of its moments."""
    before = copy.deepcopy(learner.state())
    elsewhere = rollouts(make("CartPole-v1", 4), copy.deepcopy(learner.policy), num_steps=6)
    learn(learner, next(elsewhere), way, np.random.default_rng(0))
    learner.statistics()
    learner.restore(before)


def train(folder: Path, updates: int, *, when: str, way: str) -> tuple[Tensor, list[dict[str, Any]]]:
    """An algorithm that calls `run.loop` before or after its learner's first use; its weights and lines."""
    run = make_run(folder, num_envs=4, total_timesteps=updates * 4 * 6, native=way != "torch")
    env = make("CartPole-v1", 4)
    policy = make_policy(env.spec, Network(hidden=(8,), normalize_obs=True), 1)
    learner = run.learner(policy, Adam, lr=1e-2, eps=1e-5, max_grad_norm=0.5)
    stream = run.rollouts(env, learner, num_steps=6)
    if when == "before":
        batches = run.loop(stream, learner)
        use(learner, way)
    else:
        use(learner, way)
        batches = run.loop(stream, learner)
    for rollout in batches:
        learn(learner, rollout, way, run.rng)
        stream.publish()
    run.close()
    clock = ("time/", "speed/")
    lines = [{k: v for k, v in x.items() if not k.startswith(clock)} for x in read(folder / "metrics.jsonl")]
    return learner.flat.clone(), lines


@pytest.mark.parametrize("way", PATHS)
def test_loop_may_stand_anywhere(way: str, tmp_path: Path) -> None:
    """Whole or resumed, called before or after the learner's first use: one run, bit for bit."""
    expected: Any = None
    for when, later in product(("before", "after"), repeat=2):
        folder = tmp_path / f"{when} {later}"
        train(folder, 3, when=when, way=way)
        found = checkpoint.load(folder / "checkpoints")
        assert found is not None
        assert found.updates == 3
        parts = train(folder, 7, when=later, way=way)
        expected = expected or train(tmp_path / "whole", 7, when=when, way=way)
        assert torch.equal(parts[0], expected[0]), (when, later)
        assert parts[1] == expected[1], (when, later)


class Kept:
    """A callback that keeps all it is called with."""

    def __init__(self) -> None:
        self.records: list[Any] = []
        self.told: list[str] = []
        self.closed = 0

    def __call__(self, run: Run, record: Any) -> None:
        self.records.append(record)

    def warn(self, message: str) -> None:
        self.told.append(message)

    def close(self) -> None:
        self.closed += 1


class OnlyLines(Kept):
    """One that does without the ends of episodes."""

    episodes = False


def test_callbacks_get_lines_and_episodes(tmp_path: Path) -> None:
    """Two episodes a batch, then its line, which is what metrics.jsonl holds; names of agents where there are some."""
    both, lines = Kept(), OnlyLines()
    run = make_run(tmp_path, callbacks=[both, lines], total_timesteps=20, agents=("x", "y"))
    list(run.loop(Beats(2, [1.0, 5.0]), linear()))
    run.warn("look")
    run.close()
    assert both.records[:2] == [
        EpisodeEnd(step=10, row=0, agent="x", episode_return=1.0, length=7, info={}),
        EpisodeEnd(step=10, row=1, agent="y", episode_return=1.0, length=7, info={}),
    ]
    assert [type(record) for record in both.records] == [EpisodeEnd, EpisodeEnd, dict] * 2
    assert both.records[4].episode_return == 5.0
    assert lines.records == [record for record in both.records if isinstance(record, dict)]
    assert lines.records == read(tmp_path / "metrics.jsonl")
    assert (both.told, both.closed, lines.closed) == (["look"], 1, 1)


def test_an_episode_s_end_holds_its_info(run_dir: Path) -> None:
    """Through `train`: declared numbers of the last info, lengths and rows of real episodes."""
    kept = Kept()
    settings: dict[str, Any] = {"num_envs": 2, "num_steps": 32, "total_timesteps": 128, "num_minibatches": 2}
    result = shoal.train("CartPole-v1", run_dir=run_dir, panel="none", callbacks=[kept], **settings)
    ends = [record for record in kept.records if isinstance(record, EpisodeEnd)]
    lines = read(result.path / "metrics.jsonl")
    assert len(ends) == lines[-1]["episode/count"] > 0
    assert np.mean([end.length for end in ends]) == pytest.approx(lines[-1]["episode/length"])
    assert all(end.episode_return == end.length and end.agent == "" and end.row in (0, 1) for end in ends)
    assert {end.step for end in ends} <= {64, 128}
    assert kept.closed == 1


class Stops:
    """A callback that ends the run at an update's line, or at the end of an episode."""

    def __init__(self, update: int = 0, *, episode: int = 0) -> None:
        self.update, self.left = update, episode

    def __call__(self, run: Run, record: Any) -> None:
        if isinstance(record, EpisodeEnd):
            self.left -= 1
            if self.left == 0:
                run.stop("an episode")
        elif record["update"] == self.update:
            run.stop("enough")
            run.stop("too late to be the reason")


@pytest.mark.parametrize("save", [1, 3])
def test_a_callback_stops_a_run(save: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """After the batch at hand, with a checkpoint of it, and the first reason in run.json."""
    every(monkeypatch, save=save)
    run = make_run(tmp_path, callbacks=[Stops(2)])
    assert list(run.loop(Beats(1, [1.0]), linear())) == [1, 2]
    run.close()
    found = checkpoint.load(tmp_path / "checkpoints")
    assert found is not None
    assert found.updates == 2
    kept = RunDirectory(tmp_path).read_status()
    assert (run.stop_reason, kept["stop_reason"], kept["updates"], kept["steps"]) == ("enough", "enough", 2, 20)


def test_an_episode_stops_a_run(tmp_path: Path) -> None:
    """The batch in which it ended is still learned from."""
    run = make_run(tmp_path, callbacks=[Stops(episode=3)])
    assert list(run.loop(Beats(2, [1.0]), linear())) == [1, 2]
    assert run.stop_reason == "an episode"
    run.close()


def test_a_callback_stops_training(run_dir: Path) -> None:
    """Through `train`: the run is finished, not failed; resumed, it goes on to its end."""
    settings: dict[str, Any] = {"num_envs": 2, "num_steps": 8, "total_timesteps": 160, "num_minibatches": 2}
    result = shoal.train("CartPole-v1", run_dir=run_dir, panel="none", callbacks=[Stops(4)], **settings)
    assert (result.stop_reason, result.steps) == ("enough", 64)
    kept = json.loads((result.path / "run.json").read_text())
    assert (kept["state"], kept["stop_reason"]) == ("finished", "enough")
    again = shoal.resume(result.path, panel="none")
    assert (again.stop_reason, again.steps) == ("total_timesteps", 160)


def test_a_run_without_a_directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """`shoal.run.open` writes nothing; lines reach the callbacks."""
    monkeypatch.chdir(tmp_path)
    kept = OnlyLines()
    run = shoal.run.open(total_timesteps=30, num_envs=2, callbacks=[kept])
    env = make("CartPole-v1", 2)
    learner = run.learner(run.policy(env.spec), Adam, lr=1e-2)
    stream = run.rollouts(env, learner, num_steps=5)
    for rollout in run.loop(stream, learner):
        learn(learner, rollout, "fused", run.rng)
        stream.publish()
    run.close()
    assert [(line["step"], line["version"]) for line in kept.records] == [(10, 1), (20, 2), (30, 3)]
    assert (run.progress, run.updates, list(tmp_path.iterdir())) == (20 / 30, 3, [])


class Means(NamedTuple):
    """Statistics of the loss below."""

    error: Tensor


def line_loss(networks: Any, batch: float, cfg: float) -> tuple[Tensor, Means]:
    """The square of the line's error at `batch`, times `cfg`."""
    error = networks["policy"](torch.tensor([batch])).square().sum() * cfg
    return error, Means(error.detach())


def test_skipped_steps_are_counted_in_the_lines(tmp_path: Path) -> None:
    """No key before there was one; then all so far; means are over the steps that were taken; a resume goes on."""
    for total in (40, 60):
        run = make_run(tmp_path, total_timesteps=total)
        learner = linear()
        learner.learning_rate = 1e-3
        for number in run.loop(Beats(1, [1.0]), learner):
            learner.update(line_loss, 1.0, 1.0, of="policy")
            if number in (2, 4, 5):
                learner.update(line_loss, 1.0, float("nan"), of="policy")
        run.close()
    lines = read(tmp_path / "metrics.jsonl")
    assert [line.get("learner/skipped") for line in lines] == [None, 1, 1, 2, 3, 3]
    assert (learner.updates, learner.skipped) == (6, 3)
    assert all(np.isfinite(line["loss/error"]) for line in lines)
    assert [line["train/learning_rate"] for line in lines] == [1e-3] * 6


@pytest.mark.parametrize(("bad", "kept"), [(1, "no checkpoint was written yet"), (4, "checkpoint of update 2 is kept")])
def test_a_batch_of_skipped_steps_ends_the_run(
    bad: int, kept: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Both of its steps were not finite: the error says which update, and nothing of it is saved."""
    every(monkeypatch, save=2)
    run, learner = make_run(tmp_path), linear()
    learner.learning_rate = 1e-3
    factor = {bad: float("inf")}

    def go() -> None:
        for number in run.loop(Beats(1, [1.0]), learner):
            for _ in range(2):
                learner.update(line_loss, 1.0, factor.get(number, 1.0), of="policy")

    with pytest.raises(
        FloatingPointError, match=rf"update {bad} at step {bad}0: .* in any of 2 gradient steps; .*{kept}"
    ):
        go()
    run.close()
    found = checkpoint.load(tmp_path / "checkpoints")
    assert (0 if found is None else found.updates) == bad // 4 * 2
    assert [line["update"] for line in read(tmp_path / "metrics.jsonl")] == list(range(1, bad))


def test_a_batch_without_a_step_is_no_error() -> None:
    """An algorithm may wait for more before it learns."""
    run = shoal.run.open(total_timesteps=50)
    assert list(run.loop(Beats(1, [1.0]), linear())) == [1, 2, 3, 4, 5]
    run.close()


def test_every_network_is_saved(tmp_path: Path) -> None:
    """A second network with momentum of its own and a target without an optimizer: two updates and two equal four."""

    def go(folder: Path, total: int) -> Learner:
        run, learner = make_run(folder, total_timesteps=total), linear()
        nn.init.constant_(learner.flat, 0.5)
        learner.add("critic", nn.Linear(1, 1), torch.optim.SGD, lr=1e-3, momentum=0.9)
        learner.add("target", nn.Linear(1, 1))
        for name in ("critic", "target"):
            nn.init.constant_(learner.networks[name].flat, 0.25)
        for number in run.loop(Beats(1, [1.0]), learner):
            learner.update(critic_loss, float(number), 1.0, of="critic")
            learner.networks["target"].flat.lerp_(learner.networks["critic"].flat, 0.1)
        run.close()
        return learner

    whole = go(tmp_path / "whole", 40)
    go(tmp_path / "parts", 20)
    parts = go(tmp_path / "parts", 40)
    found = checkpoint.load(tmp_path / "parts" / "checkpoints")
    assert found is not None
    assert set(found.tree["learner"]["policy"]["networks"]) == {"policy", "critic", "target"}
    for name, network in whole.networks.items():
        assert torch.equal(network.flat, parts.networks[name].flat), name
    assert not torch.equal(whole.networks["critic"].flat, whole.networks["target"].flat)
    assert whole.flat.tolist() == [0.5, 0.5]


def critic_loss(networks: Any, batch: float, cfg: float) -> tuple[Tensor, Means]:
    """The critic is to be one above its target at `batch`."""
    seen = torch.tensor([batch])
    error = (networks["critic"](seen) - networks["target"](seen) - cfg).square().sum()
    return error, Means(error.detach())


class Counter:
    """A part of an algorithm with state of its own."""

    def __init__(self) -> None:
        self.count = 0

    def state(self) -> dict[str, int]:
        return {"count": self.count}

    def restore(self, saved: dict[str, int]) -> None:
        self.count = saved["count"]


def test_what_else_is_saved(tmp_path: Path) -> None:
    """Parts with `state` and `restore`, modules and optimizers, by name; a part that a checkpoint lacks is named."""
    for total in (30, 50):
        run = make_run(tmp_path, total_timesteps=total)
        counter, module = Counter(), nn.Linear(2, 1)
        nn.init.zeros_(module.bias)
        optimizer = torch.optim.SGD(module.parameters(), lr=1.0, momentum=0.5)
        parts = {"counter": counter, "module": module, "optimizer": optimizer}
        for _ in run.loop(Beats(1, [1.0]), linear(), state=parts):
            counter.count += 1
            optimizer.zero_grad()
            module.bias.sum().backward()
            optimizer.step()
        run.close()
    # Momentum: steps of 1, 1.5, 1.75, 1.875 and 1.9375.
    assert (counter.count, module.bias.item()) == (5, -8.0625)
    found = checkpoint.load(tmp_path / "checkpoints")
    assert found is not None
    assert set(found.tree) == {"learner", "stream", "run", "other"}
    assert set(found.tree["other"]) == set(parts)
    run = make_run(tmp_path)
    with pytest.raises(ConfigError, match="update 5 holds no 'replay'"):
        next(run.loop(Beats(1, [1.0]), linear(), state={"replay": Counter()}))
    with pytest.raises(ConfigError, match="update 5 holds no 'critic'"):
        next(run.loop(Beats(1, [1.0]), {"critic": linear()}))
    with pytest.raises(ConfigError, match=r"update 5 holds 'counter', which was not given to run\.loop"):
        next(run.loop(Beats(1, [1.0]), linear()))
    run.close()
    assert weights(found).keys() == {"weight", "bias"}


def test_a_network_that_is_added_too_late_is_named(tmp_path: Path) -> None:
    """Added between two batches, it is in the checkpoint and not in the learner that goes on: nothing of it is lost."""
    for total in (20, 40):
        run, learner = make_run(tmp_path, total_timesteps=total), linear()
        batches = run.loop(Beats(1, [1.0]), learner)
        if total == 40:
            with pytest.raises(ConfigError, match="holds a network 'critic'; add it before the first batch"):
                next(batches)
        else:
            next(batches)
            learner.add("critic", nn.Linear(1, 1))
            assert len(list(batches)) == 1
        run.close()


@pytest.mark.parametrize("gone", ["manifests", "folder"])
def test_checkpoints_that_are_gone(gone: str, tmp_path: Path) -> None:
    """The run does not begin anew over its lines: the error names what is missing, again and again."""
    run = make_run(tmp_path, total_timesteps=30)
    list(run.loop(Beats(1, [1.0]), linear()))
    run.close()
    lines = (tmp_path / "metrics.jsonl").read_bytes()
    folder = tmp_path / "checkpoints"
    if gone == "folder":
        shutil.rmtree(folder)
    for path in folder.glob("0*.json"):
        path.unlink()
    for _ in range(2):
        run = make_run(tmp_path, total_timesteps=60)
        with pytest.raises(ConfigError, match=r"no checkpoint \(such as 0000000003\.json\).*made 3 updates"):
            next(run.loop(Beats(1, [1.0]), linear()))
        run.close()
        assert (tmp_path / "metrics.jsonl").read_bytes() == lines


@pytest.mark.parametrize("reason", ["", " ", None, 3])
def test_a_stop_needs_a_reason(reason: Any) -> None:
    """Without one the run would go on."""
    run = shoal.run.open(total_timesteps=50)
    with pytest.raises(ValueError, match="needs a reason"):
        run.stop(reason)
    run.close()


@pytest.mark.parametrize("reason", ["interrupted", "stopped"])
def test_a_stop_has_no_reason_that_says_who_interrupted(reason: str) -> None:
    """A run that ended by it would count as one that Ctrl-C cut short."""
    run = shoal.run.open(total_timesteps=50)
    with pytest.raises(ValueError, match="is the reason of runs that Ctrl-C or `shoal stop` ended"):
        run.stop(reason)
    run.close()


def test_a_run_has_one_loop() -> None:
    """A second one would begin again from the last checkpoint, or empty the metrics."""
    run = shoal.run.open(num_envs=2, total_timesteps=100)
    assert len(list(run.loop(Beats(1, [1.0]), linear()))) == 10
    with pytest.raises(ConfigError, match="this run has its loop already"):
        run.loop(Beats(1, [1.0]), linear())


@pytest.mark.parametrize("name", ["step", "update", "version", "time/elapsed", "speed/sps", "episode/return"])
def test_the_run_s_own_numbers_keep_their_names(name: str) -> None:
    with pytest.raises(ConfigError, match=f"run.log: '{name}' is one of the run's own numbers"):
        shoal.run.open().log({name: 1.0})


@pytest.mark.parametrize("value", ["0.5", None, torch.zeros(2), np.zeros(2), [1.0]], ids=str)
def test_what_is_logged_is_one_number(value: Any) -> None:
    with pytest.raises(ConfigError, match="'my/x' must be one number"):
        shoal.run.open().log({"my/x": value})


@pytest.mark.parametrize(
    ("setting", "value"),
    [
        ("total_timesteps", 0),
        ("total_timesteps", float("nan")),
        ("num_envs", -4),
        ("num_envs", 2.5),
        ("seed", -1),
        ("seed", 2**64),
        ("stop_at", float("nan")),
        ("stop_at", "5"),
    ],
)
def test_a_run_without_a_directory_checks_its_settings(setting: str, value: Any) -> None:
    with pytest.raises(ConfigError, match=f"{setting} must be"):
        shoal.run.open(**{setting: value})


def test_what_is_learned_after_the_last_batch_is_saved(tmp_path: Path) -> None:
    """Two more epochs after the loop: the checkpoint of the last update holds what they came to."""
    run = make_run(tmp_path, num_envs=4, total_timesteps=2 * 4 * 6)
    env = make("CartPole-v1", 4)
    learner = run.learner(make_policy(env.spec, Network(hidden=(8,)), 1), Adam, lr=1e-2)
    stream = run.rollouts(env, learner, num_steps=6)
    rollouts_seen: list[Steps] = []
    for rollout in run.loop(stream, learner):
        rollouts_seen.append(rollout)
        stream.publish()
    learn(learner, rollouts_seen[-1], "fused", np.random.default_rng(0))
    run.leave()
    run.close()
    found = checkpoint.load(tmp_path / "checkpoints")
    assert found is not None
    assert found.updates == 2
    saved, own = weights(found), learner.policy.state_dict()
    assert all(torch.equal(saved[name], own[name]) for name in own)


@pytest.mark.parametrize("callbacks", [print, [None]], ids=["no list", "no function"])
def test_callbacks_are_a_list_of_functions(callbacks: Any, run_dir: Path) -> None:
    with pytest.raises(ConfigError, match="callback"):
        shoal.run.open(callbacks=callbacks)
    with pytest.raises(ConfigError, match="callback"):
        shoal.train("CartPole-v1", callbacks=callbacks, run_dir=run_dir, panel="none")
    assert not list(run_dir.rglob("config.toml"))


def test_what_cannot_be_saved_is_named() -> None:
    run = shoal.run.open(total_timesteps=100)
    with pytest.raises(ConfigError, match=r"state\['scale'\] is of the type float; it needs state\(\)"):
        run.loop(Beats(1, [1.0]), linear(), state={"scale": 1.0})
