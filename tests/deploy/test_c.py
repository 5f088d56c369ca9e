"""Policies as C: the actions of torch, for every head and kind of network; what is refused, and how."""

import subprocess
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from gymnasium import spaces
from torch import nn

from shoal.deploy.description import sha256_of
from shoal.deploy.export import export
from shoal.nets.distributions import masked
from shoal.nets.network import Network
from shoal.nets.policy import wrap
from shoal.types import ConfigError, Spec, choices, leaf_spaces, map_tree
from tests.deploy.cases import CASES, IMAGES, Case, image, observations
from tests.deploy.compiled import Compiled

ROWS = 10_000
ROWS_OF_IMAGES = 20


def exported(case: Case, folder: Path) -> tuple[Any, Spec, Compiled]:
    policy, spec = case.make()
    made = export(policy, spec, folder / "out", to="c")
    return policy, spec, Compiled(made.folder, spec)


def torch_actions(policy: Any, obs: Any, *, mask: Any = None, noise: Any = None, state: Any = None) -> tuple[Any, Any]:
    """The actions [N, ...] for one step of N rows, and their states."""
    rows = map_tree(lambda x: torch.from_numpy(x).unsqueeze(0), obs)
    count = len(next(iter(obs.values())) if isinstance(obs, dict) else obs)
    with torch.inference_mode():
        output = policy(rows, state, torch.zeros(1, count, dtype=torch.bool))
        legal = None if mask is None else torch.from_numpy(mask).unsqueeze(0)
        distribution = masked(output.distribution, legal)
        action = distribution.mode() if noise is None else distribution.sample(torch.from_numpy(noise).unsqueeze(0))
        return map_tree(lambda x: x.squeeze(0).numpy(), distribution.to_env(action)), output.state


def assert_same(spec: Spec, ours: Any, theirs: Any, *, other: int = 0) -> None:
    """Choices equal, but for `other` rows whose best options are equal up to rounding; floats within 2e-5."""
    for leaf, mine, wanted in zip(spec.action.leaves, spec.action.flat(ours), spec.action.flat(theirs), strict=True):
        given = mine.reshape(wanted.shape)
        if leaf.dtype.kind == "f":
            np.testing.assert_allclose(given, wanted, atol=2e-5, rtol=1e-5)
            assert len(np.unique(wanted.round(2))) > 3
        else:
            differing = (given != wanted).reshape(len(given), -1).any(-1)
            assert differing.sum() <= other
            assert len(np.unique(wanted)) > 1


def allowed(spec: Spec, count: int) -> np.ndarray:
    """Random masks that leave an option of each choice."""
    rng = np.random.default_rng(5)
    parts: list[np.ndarray] = []
    for _, space in leaf_spaces(spec.action_space):
        for options in choices(space) or [1] * int(np.prod(space.shape or ())):
            part = rng.random((count, options)) < 0.5
            part[np.arange(count), rng.integers(0, options, count)] = True
            parts.append(part)
    return np.concatenate(parts, 1)


QUICK = ("categorical", "lstm")
"""Cases of every test run; compiling each of them takes half a second."""


@pytest.mark.parametrize(
    "name", [name if name in QUICK else pytest.param(name, marks=pytest.mark.slow) for name in CASES]
)
def test_the_actions_of_torch_on_ten_thousand_observations(name: str, tmp_path: Path) -> None:
    policy, spec, library = exported(CASES[name], tmp_path)
    obs = observations(spec.observation_space, ROWS)
    state, theirs = library.state(ROWS), policy.initial_state(ROWS)
    for _ in range(3 if state is not None else 1):
        status, action = library.step(obs, ROWS, state=state)
        wanted, theirs = torch_actions(policy, obs, state=theirs)
        assert status == 0
        assert_same(spec, action, wanted)


@pytest.mark.slow
@pytest.mark.parametrize("name", IMAGES)
def test_the_actions_of_torch_on_images(name: str, tmp_path: Path) -> None:
    policy, spec, library = exported(IMAGES[name], tmp_path)
    obs = observations(spec.observation_space, ROWS_OF_IMAGES)
    state, theirs = library.state(ROWS_OF_IMAGES), policy.initial_state(ROWS_OF_IMAGES)
    for _ in range(2):
        status, action = library.step(obs, ROWS_OF_IMAGES, state=state)
        wanted, theirs = torch_actions(policy, obs, state=theirs)
        assert status == 0
        assert_same(spec, action, wanted)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["categorical", "multi-discrete", "multi-binary", "joint", "q-dueling", "gru"])
def test_masks(name: str, tmp_path: Path) -> None:
    policy, spec, library = exported(CASES[name], tmp_path)
    obs = observations(spec.observation_space, ROWS)
    mask = allowed(spec, ROWS)
    assert mask.shape[1] == library.calls["options"]
    status, action = library.step(obs, ROWS, mask=mask, state=library.state(ROWS))
    wanted, _ = torch_actions(policy, obs, mask=mask, state=policy.initial_state(ROWS))
    assert status == 0
    assert_same(spec, action, wanted)
    free, _ = torch_actions(policy, obs, state=policy.initial_state(ROWS))
    pairs = zip(spec.action.flat(free), spec.action.flat(wanted), strict=True)
    assert any(np.any(one != other) for one, other in pairs)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["categorical", "multi-discrete", "gaussian", "squashed-gaussian", "joint", "sac"])
def test_draws_as_torch_does_from_the_same_noise(name: str, tmp_path: Path) -> None:
    policy, spec, library = exported(CASES[name], tmp_path)
    obs = observations(spec.observation_space, ROWS)
    rng = np.random.default_rng(4)
    sizes = library.calls["noise"]
    uniform = rng.random((ROWS, sizes["uniform"]), np.float32)
    noise = np.concatenate([uniform, rng.standard_normal((ROWS, sizes["normal"]), np.float32)], 1)
    status, action = library.step(obs, ROWS, noise=noise)
    wanted, _ = torch_actions(policy, obs, noise=noise)
    assert status == 0
    # A number within a rounding of a cumulative probability may fall on either side.
    assert_same(spec, action, wanted, other=3)


def test_what_is_refused_changes_nothing(tmp_path: Path) -> None:
    _, spec, library = exported(CASES["gru"], tmp_path)
    obs = observations(spec.observation_space, 3)
    state = library.state(3)
    assert library.step(obs, 3, state=state, length=5)[0] == 1
    obs[0, 4] = np.nan
    assert library.step(obs, 3, state=state)[0] == 2
    obs[0, 4] = 0
    mask = np.ones((3, 4), np.uint8)
    mask[0] = 0
    assert library.step(obs, 3, state=state, mask=mask)[0] == 4
    assert not any(state[name].any() for name in state.dtype.names)
    assert library.message(1) == b"the observation has another length than the policy was trained with"
    assert library.message(99) == b"an unknown status"
    check = library.library.policy_check_spec
    header = (tmp_path / "out" / "policy.h").read_text()
    assert f'"{sha256_of(spec)}"' in header
    assert check(sha256_of(spec).encode()) == 0
    assert library.message(check(b"another")).endswith(b"another specification of observations and actions")


@pytest.mark.slow
def test_choices_outside_their_space_are_refused(tmp_path: Path) -> None:
    _, spec, library = exported(CASES["joint"], tmp_path)
    obs = observations(spec.observation_space, 2)
    assert library.step(obs, 2)[0] == 0
    obs["keys"][1, 1] = 3
    assert library.step(obs, 2)[0] == 3


@pytest.mark.slow
def test_the_makefile_builds_an_example(tmp_path: Path) -> None:
    policy, spec = CASES["lstm"].make()
    export(policy, spec, tmp_path / "out", to="c", name="grip")
    subprocess.run(["make", "-s", "-C", str(tmp_path / "out")], check=True, timeout=100)
    said = subprocess.run([str(tmp_path / "out" / "example")], check=True, capture_output=True, text=True, timeout=60)
    assert "microseconds for one observation" in said.stdout


class Own(nn.Module):
    def __init__(self, spec: Spec) -> None:
        super().__init__()
        self.net = nn.Linear(6, 5)

    def forward(self, obs: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        numbers = self.net(obs)
        return numbers[:, :4], numbers[:, 4]


def test_modules_of_users_and_changed_ones_are_refused(tmp_path: Path) -> None:
    policy, spec = CASES["categorical"].make()
    with pytest.raises(ConfigError, match=r"a module of your own \(Own\).*onnx or torchscript"):
        export(wrap(Own, spec), spec, tmp_path / "out", to="c")
    policy.actor[0].register_forward_hook(lambda *_: None)
    with pytest.raises(ConfigError, match="a hook hangs on the policy's Linear"):
        export(policy, spec, tmp_path / "out", to="c")
    half, spec = Case(spaces.Discrete(2), Network(image="minatar", precision="bfloat16"), image(10, 10, 4)).make()
    with pytest.raises(ConfigError, match="bfloat16"):
        export(half, spec, tmp_path / "out", to="c")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("name", ["two words", "1st", "while", "a" * 50, 'x"; system("'])
def test_names_that_are_no_identifiers(name: str, tmp_path: Path) -> None:
    policy, spec = CASES["categorical"].make()
    with pytest.raises(ConfigError, match="name m"):
        export(policy, spec, tmp_path / "out", to="c", name=name)


def test_a_hostile_name_of_an_environment_stays_in_its_comment(tmp_path: Path) -> None:
    policy, spec = CASES["categorical"].make()
    spec = replace(spec, env_id='x */ int main(void) { system("id"); } /*\n#error\\')
    made = export(policy, spec, tmp_path / "out", to="c")
    header = (made.folder / "policy.h").read_text().splitlines()[0]
    assert header.count("*/") == 1
    Compiled(made.folder, spec)


def test_weights_that_are_not_finite_are_refused(tmp_path: Path) -> None:
    policy, spec = CASES["categorical"].make()
    with torch.no_grad():
        policy.actor[0].weight[0, 0] = torch.nan
    with pytest.raises(ConfigError, match="weights that are not finite"):
        export(policy, spec, tmp_path / "out", to="c")


def test_a_folder_that_is_there_is_left_alone(tmp_path: Path) -> None:
    policy, spec = CASES["categorical"].make()
    with pytest.raises(ConfigError, match="there already"):
        export(policy, spec, tmp_path, to="c")
