"""Several learners of a language model as processes: one command, one result, whoever learned from which answer."""

from __future__ import annotations

import shutil
import signal
import time
from contextlib import suppress
from typing import TYPE_CHECKING, Any

import psutil
import pytest
import torch

import shoal
from shoal.llm.model_folder import load_folder, save_model
from shoal.run.log import read
from shoal.types import ConfigError, EnvError
from tests.llm.toy import Successor, toy_model

if TYPE_CHECKING:
    from pathlib import Path

    from torch import nn

    from shoal.experiment.result import Result
    from shoal.run.run import Run

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
    "num_threads": 1,
}
pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the toy model."""
    path = tmp_path_factory.mktemp("models") / "toy"
    save_model(toy_model(), path)
    return path


def trained(folder: Path, where: Path, updates: int, learners: int = 2, **settings: Any) -> Result:
    """A run of so many batches."""
    whole: dict[str, Any] = {"model": str(folder), **SETTINGS, "total_timesteps": BATCH * updates, **settings}
    return shoal.train(Successor, run_dir=str(where), learners=learners, **whole)


def weights(policy: nn.Module) -> torch.Tensor:
    """All weights."""
    return torch.cat([x.double().flatten() for x in policy.state_dict().values()])


def numbers(result: Result) -> list[dict[str, Any]]:
    """The metrics that no clock decides."""
    lines = read(result.path / "metrics.jsonl")
    return [{name: x for name, x in line.items() if not name.startswith(("time/", "speed/"))} for line in lines]


def children() -> list[psutil.Process]:
    """The learners beside this one, and what supervises them."""
    found: list[psutil.Process] = []
    for process in psutil.Process().children(recursive=True):
        with suppress(psutil.Error):
            found += [process] if "learner_process" in " ".join(process.cmdline()) else []
    return found


VARIANTS: list[dict[str, Any]] = [
    {},
    {"language": {"micro_tokens": 20}, "loss_normalization": "sequence", "sampling": {"top_p": 0.9}},
    {"num_iterations": 2, "num_minibatches": 2, "beta": 0.01, "dynamic_sampling": True},
    {"language": {"lora_rank": 2}, "beta": 0.01, "ratio_of": "sequence"},
    {"language": {"exact": True, "after_publish": "refill"}},
    {"language": {"shard": True}},
    {"language": {"shard": True, "micro_tokens": 20, "checkpoint_activations": True}, "loss_normalization": "sequence"},
    {"language": {"shard": True}, "num_iterations": 2, "num_minibatches": 2, "beta": 0.01},
    {"language": {"shard": True, "lora_rank": 2}, "beta": 0.01},
]
MIXED: list[dict[str, Any]] = [
    {"language": {"routing_replay": True}},
    {"language": {"routing_replay": True, "shard": True, "micro_tokens": 20}, "max_grad_norm": 0.5},
]


@pytest.mark.parametrize("settings", VARIANTS)
def test_two_processes_learn_what_one_does(folder: Path, tmp_path: Path, settings: dict[str, Any]) -> None:
    """Weights and metrics after six batches, to float tolerance; answers are the same."""
    two = trained(folder, tmp_path, 6, **settings)
    if "shard" in settings.get("language", {}):
        settings = settings | {"language": {name: x for name, x in settings["language"].items() if name != "shard"}}
    one = trained(folder, tmp_path, 6, learners=1, **settings)
    torch.testing.assert_close(weights(two.policy), weights(one.policy), rtol=1e-3, atol=1e-4)
    for mine, theirs in zip(numbers(two), numbers(one), strict=True):
        assert mine == pytest.approx(theirs, rel=1e-2, abs=1e-4)
    assert not children()


@pytest.mark.parametrize("settings", MIXED)
def test_two_processes_learn_a_mixture_of_experts_as_one_does(tmp_path: Path, settings: dict[str, Any]) -> None:
    """Also where experts see no token of a part."""
    save_model(toy_model(experts=6), tmp_path / "model")
    two = trained(tmp_path / "model", tmp_path, 4, **settings)
    one = {name: x for name, x in settings["language"].items() if name != "shard"}
    alone = trained(tmp_path / "model", tmp_path, 4, learners=1, **settings | {"language": one})
    torch.testing.assert_close(weights(two.policy), weights(alone.policy), rtol=1e-3, atol=1e-4)
    assert torch.equal(weights(load_folder(two.path / "model")), weights(two.policy))


@pytest.mark.filterwarnings("ignore:learners=3 are more than")
@pytest.mark.parametrize("language", [{}, {"shard": True}, {"shard": True, "lora_rank": 2}])
def test_a_run_goes_on_with_another_number_of_learners(folder: Path, tmp_path: Path, language: dict[str, Any]) -> None:
    """As one that was not stopped: with as many bit for bit, with one or three to float tolerance."""
    whole = trained(folder, tmp_path / "whole", 6, language=language)
    part = trained(folder, tmp_path / "part", 3, language=language)
    for learners in (2, 1, 3):
        at = shutil.copytree(part.path, tmp_path / str(learners))
        told: dict[str, Any] = {"total_timesteps": 6 * BATCH, "panel": "none", "learners": learners}
        again = shoal.resume(at, factory=Successor, **told)
        assert again.steps == whole.steps
        if learners == 2:
            assert torch.equal(weights(again.policy), weights(whole.policy))
        torch.testing.assert_close(weights(again.policy), weights(whole.policy), rtol=1e-3, atol=1e-4)
    if "lora_rank" not in language:
        assert torch.equal(weights(load_folder(again.path / "model")), weights(again.policy))


def test_async_samples_for_all_of_them(folder: Path, tmp_path: Path) -> None:
    """One sampler process, as late as it may; without staleness what `sync` learns."""
    late = trained(folder, tmp_path / "late", 12, schedule="async", max_staleness=2)
    assert max(line["groups/staleness_max"] for line in read(late.path / "metrics.jsonl")) <= 2
    assert late.steps == 12 * BATCH
    sync = trained(folder, tmp_path / "sync", 6)
    other = trained(folder, tmp_path / "async", 6, schedule="async", max_staleness=0)
    assert torch.equal(weights(sync.policy), weights(other.policy))


class Late:
    """A callback that does something once, when so many updates are over."""

    def __init__(self, update: int, what: Any) -> None:
        self.update, self.what = update, what

    def __call__(self, run: Run, record: Any) -> None:
        if isinstance(record, dict) and self.update and record["update"] >= self.update:
            self.update = 0
            self.what()


@pytest.mark.parametrize("shard", [False, True])
def test_a_learner_that_dies_is_named(folder: Path, tmp_path: Path, *, shard: bool) -> None:
    """The run ends soon, and can go on."""

    def kill() -> None:
        next(process for process in children() if not process.children()).send_signal(signal.SIGKILL)

    how: dict[str, Any] = {"callbacks": [Late(3, kill)], "checkpoint_every": BATCH}
    begun = time.monotonic()
    with pytest.raises(EnvError, match=r"learner 1 \(pid \d+\), learning, was killed by SIGKILL"):
        trained(folder, tmp_path, 10_000, **how, language={"shard": shard})
    assert time.monotonic() - begun < 60
    assert not children()
    at = next(tmp_path.rglob("config.toml")).parent
    again = shoal.resume(at, factory=Successor, total_timesteps=20 * BATCH, panel="none")
    assert again.steps >= 20 * BATCH


@pytest.mark.filterwarnings("ignore:Ctrl-C", "ignore:stopped at step")
def test_ctrl_c_ends_all_learners_with_a_checkpoint(folder: Path, tmp_path: Path) -> None:
    """What is under way is saved, and gone on with."""

    def interrupt() -> None:
        signal.raise_signal(signal.SIGINT)

    with pytest.raises(KeyboardInterrupt):
        trained(folder, tmp_path, 10_000, callbacks=[Late(3, interrupt)], schedule="async")
    assert not children()
    at = next(tmp_path.rglob("config.toml")).parent
    again = shoal.resume(at, factory=Successor, total_timesteps=20 * BATCH, panel="none")
    assert again.steps >= 20 * BATCH


def test_what_does_not_go_with_parts_is_refused(folder: Path, tmp_path: Path) -> None:
    """One learner has nothing to share, and exact products are no layers'."""
    with pytest.raises(ConfigError, match="one learner holds all"):
        trained(folder, tmp_path, 1, learners=1, language={"shard": True})
    with pytest.raises(ConfigError, match="does not go with exact=true"):
        trained(folder, tmp_path, 1, language={"shard": True, "exact": True, "after_publish": "refill"})
    with pytest.raises(ConfigError, match="has no experts"):
        trained(folder, tmp_path, 1, language={"routing_replay": True})


def test_rows_of_environments_stay_with_their_learners(tmp_path: Path) -> None:
    """Another number of learners is for language models alone."""
    told: dict[str, Any] = {"num_envs": 4, "num_steps": 8, "num_minibatches": 1, "panel": "none", "final_episodes": 0}
    run = shoal.train("CartPole-v1", total_timesteps=64, run_dir=str(tmp_path), **told)
    with pytest.raises(ConfigError, match="learners=2 cannot go on with them"):
        shoal.resume(run.path, learners=2, panel="none")
