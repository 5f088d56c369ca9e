"""Policies as ONNX, TorchScript and torch's exported programs: the actions of torch; what cannot be one."""

import json
from pathlib import Path
from typing import Any, cast

import numpy as np
import pytest
import torch
from torch import nn

from shoal.deploy.export import Kind, export
from shoal.deploy.graphs import CHECKED, EXAMPLES
from shoal.deploy.greedy import Greedy
from shoal.nets.policy import wrap
from shoal.types import ConfigError, Spec
from tests.deploy.cases import CASES, IMAGES, Case, observations, spread
from tests.deploy.test_c import ROWS, ROWS_OF_IMAGES, allowed, assert_same, torch_actions

ALL = CASES | IMAGES


class Graph:
    """An exported file, run by what its users have."""

    def __init__(self, folder: Path, spec: Spec) -> None:
        said = json.loads((folder / "spec.json").read_text())
        self.spec, self.kind = spec, said["kind"]
        self.inputs = [port["name"] for port in said["calls"]["inputs"]]
        self.ports = said["calls"]["inputs"]
        (name,) = said["files"]
        self.file = str(folder / name)

    def __call__(self, obs: Any, rows: int, *extras: np.ndarray) -> tuple[Any, list[np.ndarray]]:
        given = [np.asarray(leaf) for leaf in self.spec.observation.flat(obs)] + list(extras)
        for port in self.ports[len(given) :]:
            given.append(np.zeros((rows, *port["shape"]), port["dtype"]))
        out = self.run(given)
        count = len(self.spec.action.leaves)
        return self.spec.action.tree(out[:count]), out[count:]

    def run(self, given: list[np.ndarray]) -> list[np.ndarray]:
        if self.kind == "onnx":
            import onnxruntime

            session = onnxruntime.InferenceSession(self.file, providers=["CPUExecutionProvider"])
            return cast("list[np.ndarray]", session.run(None, dict(zip(self.inputs, given, strict=True))))
        tensors = [torch.from_numpy(array) for array in given]
        if self.kind == "torchscript":
            with pytest.warns(DeprecationWarning, match="deprecated"):
                module: Any = torch.jit.load(self.file)
        else:
            module = torch.export.load(self.file).module()
        with torch.no_grad():
            return [one.numpy() for one in module(*tensors)]


def assert_equal(case: Case, kind: Kind, folder: Path, rows: int) -> None:
    """Two steps, the second with the states of the first."""
    policy, spec = case.make()
    export(policy, spec, folder / "out", to=kind)
    graph = Graph(folder / "out", spec)
    obs = observations(spec.observation_space, rows)
    action, states = graph(obs, rows)
    wanted, theirs = torch_actions(policy, obs, state=policy.initial_state(rows))
    assert_same(spec, action, wanted)
    if states:
        action, _ = graph(obs, rows, *states)
        wanted, _ = torch_actions(policy, obs, state=theirs)
        assert_same(spec, action, wanted)


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["onnx", "torchscript", "torch-export"])
@pytest.mark.parametrize("name", ALL)
def test_the_actions_of_torch(name: str, kind: Kind, tmp_path: Path) -> None:
    assert_equal(ALL[name], kind, tmp_path, ROWS if name in CASES else ROWS_OF_IMAGES)


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["onnx", "torchscript"])
@pytest.mark.parametrize("name", ["multi-discrete", "joint", "q-dueling"])
def test_masks(name: str, kind: Kind, tmp_path: Path) -> None:
    policy, spec = CASES[name].make()
    export(policy, spec, tmp_path / "out", to=kind, masks=True)
    obs, mask = observations(spec.observation_space, ROWS), allowed(spec, ROWS)
    action, _ = Graph(tmp_path / "out", spec)(obs, ROWS, mask)
    wanted, _ = torch_actions(policy, obs, mask=mask)
    assert_same(spec, action, wanted)


class Own(nn.Module):
    """A user's network, whose head is no tower."""

    def __init__(self, spec: Spec) -> None:
        super().__init__()
        self.first, self.mean, self.value = nn.Linear(6, 16), nn.Linear(16, 3), nn.Linear(16, 1)
        self.log_std = nn.Parameter(torch.zeros(3))

    def forward(self, obs: torch.Tensor) -> tuple[torch.Tensor, ...]:
        x = torch.nn.functional.silu(self.first(obs)) + obs.mean(-1, keepdim=True)
        return self.mean(x), self.log_std, self.value(x)


@pytest.mark.parametrize("kind", ["torchscript", pytest.param("onnx", marks=pytest.mark.slow)])
def test_modules_of_users(kind: Kind, tmp_path: Path) -> None:
    spec = CASES["gaussian"].make()[1]
    policy = spread(wrap(Own, spec))
    made = export(policy, spec, tmp_path / "out", to=kind)
    assert made.files[-1] == "spec.json"
    obs = observations(spec.observation_space, ROWS)
    action, _ = Graph(made.folder, spec)(obs, ROWS)
    assert_same(spec, action, torch_actions(policy, obs)[0])
    assert all(parameter.requires_grad for parameter in policy.parameters())


class Wavers(Own):
    """Which way it goes depends on the numbers that it sees."""

    def forward(self, obs: torch.Tensor) -> tuple[torch.Tensor, ...]:
        mean, log_std, value = super().forward(obs)
        return (mean + 1 if obs.sum() > -20 else mean - 1), log_std, value


def test_a_module_that_a_trace_does_not_hold(tmp_path: Path) -> None:
    spec = CASES["gaussian"].make()[1]
    policy = Greedy(wrap(Wavers, spec), spec, masks=False)
    few, many = (policy.examples(spec, count, seed) for count, seed in ((EXAMPLES, 0), (CHECKED, 1)))
    assert many[0].sum() < -20 < few[0].sum()  # the trace holds the way that few observations went
    with pytest.raises(ConfigError, match="another action than the policy; a module whose control flow"):
        export(policy.policy, spec, tmp_path / "out", to="torchscript")


def test_masks_where_nothing_is_chosen(tmp_path: Path) -> None:
    policy, spec = CASES["gaussian"].make()
    with pytest.raises(ConfigError, match="a mask is of choices"):
        export(policy, spec, tmp_path / "out", to="torchscript", masks=True)
    with pytest.raises(ConfigError, match="leave masks out"):
        export(policy, spec, tmp_path / "out", to="c", masks=True)
    with pytest.raises(ConfigError, match="to must be one of c, onnx"):
        export(policy, spec, tmp_path / "out", to=cast("Any", "tflite"))
    assert not (tmp_path / "out").exists()


def test_a_missing_package_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    policy, spec = CASES["gaussian"].make()
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(
        ConfigError, match=r"needs onnx and onnxscript and onnxruntime: pip install 'shoal-rl\[export\]'"
    ):
        export(policy, spec, tmp_path / "out", to="onnx")
