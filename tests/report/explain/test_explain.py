"""Explanations: attributions that add up, changes that change, trees judged elsewhere, every kind of policy."""

from __future__ import annotations

import json
from contextlib import closing
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import gymnasium as gym
import numpy as np
import pytest
import torch
from gymnasium import spaces
from torch import nn

import shoal
from shoal import cli
from shoal.envs.registry import make
from shoal.experiment.explaining import explain_run
from shoal.learn.acting import Acting
from shoal.nets.network import Network, QNet
from shoal.nets.policy import PlainPolicy, make_policy
from shoal.nets.q_network import make_q_network
from shoal.report.explain.attributions import integrated_gradients
from shoal.report.explain.explain import Asked, Explanation, Values, explain
from shoal.report.explain.film import panel
from shoal.report.explain.surrogate import surrogate_of
from shoal.report.explain.text import as_table, as_text
from shoal.report.explain.visits import Visits
from shoal.report.explain.writing import write_explanation
from shoal.run.evaluate import evaluate
from shoal.types import ConfigError

if TYPE_CHECKING:
    from pathlib import Path

FEW = Asked(episodes=4, states=12, points=16)


class Choosing(nn.Module):
    """Chooses by the third number alone."""

    def __init__(self) -> None:
        super().__init__()
        self.sharp = nn.Parameter(torch.tensor(4.0))

    def forward(self, obs: torch.Tensor) -> Any:
        """Logits and a value."""
        logit = self.sharp * obs[:, 2]
        return torch.stack([-logit, logit], 1), obs[:, 0] + 1


class Mixed(gym.Env[Any, Any]):
    """A dict of numbers and a choice."""

    observation_space = spaces.Dict({"at": spaces.Box(-1, 1, (2,), np.float32), "kind": spaces.Discrete(3)})
    action_space = spaces.Discrete(2)

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> Any:
        """Starts an episode."""
        super().reset(seed=seed)
        self.steps = 0
        return self._look(), {}

    def step(self, action: Any) -> Any:
        """Plays one of eight steps."""
        self.steps += 1
        return self._look(), 1.0, self.steps >= 8, False, {}

    def _look(self) -> Any:
        return {"at": self.np_random.uniform(-1, 1, 2).astype(np.float32), "kind": int(self.np_random.integers(3))}


class Picture(Mixed):
    """An image of bytes, of which one corner changes."""

    observation_space = spaces.Box(0, 255, (24, 24, 1), np.uint8)

    def _look(self) -> Any:
        image = np.zeros((24, 24, 1), np.uint8)
        image[:4, :4] = self.np_random.integers(0, 256, (4, 4, 1))
        return image


def explained(env: Any, policy: Any, asked: Asked = FEW, **settings: Any) -> Explanation:
    """What is said of a policy that `policy` makes of a specification."""
    with closing(make(env, 2)) as rows:
        torch.manual_seed(0)
        made = policy(rows.spec)
        values = Values(**settings)
        return explain(made, rows, acting=Acting(0, 1), asked=asked, values=values, max_steps=50)


def test_attributions_are_complete() -> None:
    torch.manual_seed(0)
    net = nn.Sequential(nn.Linear(5, 16), nn.Tanh(), nn.Linear(16, 3)).double()
    x, baseline = torch.randn(7, 5).double(), torch.randn(5).double()
    found = integrated_gradients(net, x, baseline, steps=256)
    assert found.shape == (7, 3, 5)
    change = net(x) - net(baseline)
    torch.testing.assert_close(found.sum(-1), change.detach(), atol=1e-4, rtol=0)


def test_attributions_of_a_line_are_its_terms() -> None:
    weight, x, baseline = torch.tensor([2.0, 0.0, -1.0]), torch.tensor([[1.0, 5.0, 3.0]]), torch.ones(3)
    found = integrated_gradients(lambda point: (point * weight).sum(1, keepdim=True), x, baseline, steps=1)
    assert found.tolist() == [[[0.0, 0.0, -2.0]]]


def test_the_feature_that_decides_comes_first() -> None:
    found = explained("CartPole-v1", lambda spec: PlainPolicy(Choosing(), spec))
    assert found.order()[0] == 2
    assert found.importance.share[2] > 0.999
    changes = found.counterfactuals
    assert changes is not None
    assert [change.feature for change in changes.nearest] == [2]
    first = changes.nearest[0]
    assert np.sign(first.before) != np.sign(first.after)
    assert {first.action, first.instead} == {"push left", "push right"}
    assert np.isinf(changes.sizes[:, [0, 1, 3]]).all()
    tree = found.surrogate
    assert tree is not None
    assert tree.fidelity > 0.9
    assert tree.rules.startswith("pole angle <=")
    assert f"fidelity {tree.fidelity:.3f}" in "\n".join(as_text(found))


def test_a_policy_with_a_memory() -> None:
    found = explained("CartPole-v1", lambda spec: make_policy(spec, Network(recurrent="gru"), 0))
    assert "memory" in found.notes[0]
    assert found.importance.incomplete < 0.05
    with torch.no_grad():  # with its state held, it chooses what it chose
        x = torch.from_numpy(found.decisions.values(found.at)).float()
        chosen = found.decisions.greedy(found.at, x)
    assert chosen.tolist() == [int(found.visits.action[step]) for step in found.at]


@pytest.mark.parametrize("env", ["Pendulum-v1", "LunarLanderContinuous-v3"])
def test_numbers_as_actions(env: str) -> None:
    found = explained(env, lambda spec: make_policy(spec, Network(), 0))
    assert found.surrogate is not None
    assert found.surrogate.measure.startswith("R²")
    assert found.importance.share.sum() == pytest.approx(1)


@pytest.mark.parametrize("squash", [pytest.param(False, id="clipped"), pytest.param(True, id="squashed")])
def test_beyond_a_bound_nothing_changes(*, squash: bool) -> None:
    """A mean that moves beyond the bound of a Box is the bound all the same: no other action."""

    def policy(spec: Any) -> nn.Module:
        made = make_policy(spec, Network(hidden=(8,), squash=squash), 0)
        for module in made.modules():
            if isinstance(module, nn.Linear) and module.out_features == 1:
                nn.init.constant_(module.weight, 20.0)
                nn.init.constant_(module.bias, 500.0)
        return made

    found = explained("Pendulum-v1", policy)
    assert found.counterfactuals is not None
    assert found.counterfactuals.nearest == []


def test_a_q_network() -> None:
    found = explained("CartPole-v1", lambda spec: make_q_network(spec, QNet(dueling=True), 0))
    assert found.importance.incomplete < 0.2
    assert found.criticism is not None


def test_choices_are_held() -> None:
    found = explained(Mixed, lambda spec: make_policy(spec, Network(), 0))
    assert found.features.names == ("at[0]", "at[1]")
    assert found.notes == ["choices among the observations are held as they were: kind"]


def test_images_have_saliency_maps(tmp_path: Path) -> None:
    found = explained(Picture, lambda spec: make_policy(spec, Network(image="minatar"), 0))
    sizes = np.abs(found.importance.attributions).reshape(-1, 24, 24)
    assert sizes[:, 8:, 8:].max() == 0
    assert sizes[:, :4, :4].max() > 0
    assert found.surrogate is None
    written = write_explanation(found, tmp_path / "explanation")
    assert [path.name for path in written] == ["explanation.txt", "explanation.json", "saliency.png", "critic.png"]


class Masked(gym.Env[Any, Any]):
    """Of four options the first two and the last two are allowed in turns, as infos say."""

    observation_space: spaces.Space[Any] = spaces.Box(-1, 1, (2,), np.float32)
    action_space = spaces.Discrete(4)

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> Any:
        """Starts an episode."""
        super().reset(seed=seed)
        self.steps = 0
        return self._look()

    def step(self, action: Any) -> Any:
        """Plays one of eight steps."""
        if not self._mask()[action]:
            raise ValueError(f"{action} is not allowed in step {self.steps}")
        self.steps += 1
        obs, info = self._look()
        return obs, 1.0, self.steps >= 8, False, info

    def _mask(self) -> Any:
        return np.array([1, 1, 0, 0] if self.steps % 2 == 0 else [0, 0, 1, 1], np.int8)

    def _look(self) -> Any:
        return self.np_random.uniform(-1, 1, 2).astype(np.float32), {"action_mask": self._mask()}


class MaskedDict(Masked):
    """The same, as a part of the observation says."""

    observation_space = spaces.Dict(
        {"at": spaces.Box(-1, 1, (2,), np.float32), "action_mask": spaces.Box(0, 1, (4,), np.int8)}
    )

    def _look(self) -> Any:
        obs, info = super()._look()
        return {"at": obs} | info, {}


@pytest.mark.parametrize("env", [Masked, MaskedDict])
@pytest.mark.parametrize(("made", "network"), [(make_policy, Network()), (make_q_network, QNet())], ids=["pi", "q"])
def test_no_choice_is_one_that_was_not_allowed(env: Any, made: Any, network: Any) -> None:
    """Neither what the policy is said to do, nor what it would do after a change."""
    found = explained(env, lambda spec: made(spec, network, 0), Asked(episodes=6, states=48, points=16))
    decisions, at = found.decisions, list(range(len(found.seen)))
    allowed = found.visits.mask
    assert allowed is not None
    assert allowed.sum(1).tolist() == [2] * len(at)
    chosen = np.asarray(decisions.greedy(at, torch.from_numpy(found.seen).float()))
    assert chosen.tolist() == [int(action) for action in found.visits.action]
    assert found.counterfactuals is not None
    assert found.counterfactuals.nearest
    for change in found.counterfactuals.nearest:
        named = [decisions.names[option] for option in np.flatnonzero(allowed[change.step])]
        assert {change.action, change.instead} == set(named)
    assert np.isfinite(found.importance.attributions).all()
    assert np.abs(found.importance.attributions).max() < 1e6
    assert any("were allowed at each step" in note for note in found.notes)


def test_rewards_to_go() -> None:
    visits = Visits(
        [],
        [],
        np.zeros(0, np.bool_),
        [],
        np.zeros(4),
        np.array([1.0, 2.0, 3.0, 4.0]),
        np.array([0, 0, 1, 1]),
        np.array([0.0, 10.0]),
    )
    assert visits.to_go(0.5, 2.0).tolist() == [4.0, 4.0, 12.5, 13.0]
    assert visits.returns().tolist() == [3.0, 7.0]


def test_the_tree_is_judged_elsewhere() -> None:
    rng = np.random.default_rng(0)
    x = rng.normal(size=(400, 2))
    action, held = (x[:, 1] > 0).astype(float), np.arange(400) >= 300
    action[held] = 1 - action[held]  # what holds there is the opposite
    tree = surrogate_of(x, action, held, discrete=True, depth=3, features=["a", "b"], actions=["no", "yes"])
    assert tree.fidelity < 0.05
    assert tree.leaves == 2
    assert (tree.trained_on, tree.held_out) == (300, 100)


def test_costs_of_episodes() -> None:
    value, episode, start = np.zeros(3), np.array([0, 0, 1]), np.zeros(3, np.bool_)
    visits = Visits([], [], start, [], value, value, episode, np.zeros(2), np.array([1.0, 2.0, 4.0]))
    costs = visits.costs()
    assert costs is not None
    assert costs.tolist() == [3.0, 4.0]
    assert replace(visits, cost=None).costs() is None


def test_rules_name_what_is_done() -> None:
    x = np.linspace(-1, 1, 40)[:, None]
    action = np.where(x > 0, [[0.5, -1.0]], [[0.25, 1.0]])
    held = np.arange(40) % 4 == 0
    tree = surrogate_of(x, action, held, discrete=False, depth=1, features=["level"], actions=["pump", "cooling"])
    assert [line.split(": ")[1] for line in tree.rules.splitlines()] == ["pump 0.25, cooling 1", "pump 0.5, cooling -1"]
    assert tree.rules.startswith("level <= ")


def test_short_episodes_are_not_favored() -> None:
    found = explained("CartPole-v1", lambda spec: make_policy(spec, Network(), 0), Asked(episodes=3, states=4))
    with closing(make("CartPole-v1", 2)) as rows:
        acting = Acting(0, 1)
        score = evaluate(make_policy(rows.spec, Network(), 0), rows, episodes=3, acting=acting)
    assert sorted(found.visits.returns()) == sorted(score.returns)


def test_names() -> None:
    named = Asked(episodes=1, states=4, points=4, feature_names="a, b,c,d")
    assert explained("CartPole-v1", lambda spec: make_policy(spec, Network(), 0), named).features.names == tuple("abcd")
    for wrong in ("a,b", "a,a,b,c", ",,,"):
        with pytest.raises(ConfigError, match="CartPole-v1 observes 4 numbers"):
            explained("CartPole-v1", lambda spec: make_policy(spec, Network(), 0), Asked(feature_names=wrong))


def test_several_agents_are_refused() -> None:
    with pytest.raises(ConfigError, match="several agents"):
        explained("shoal.envs.agents.tictactoe:TicTacToe", lambda spec: make_policy(spec, Network(), 0))


def test_critic_of_scaled_rewards() -> None:
    found = explained("CartPole-v1", lambda spec: PlainPolicy(Choosing(), spec), gamma=0.0, scale=3.0)
    criticism = found.criticism
    assert criticism is not None
    ends = np.append(found.visits.episode[1:] != found.visits.episode[:-1], True)
    assert set(criticism.came[~ends]) == {3.0}
    unknown = explained("CartPole-v1", lambda spec: PlainPolicy(Choosing(), spec), scale=None)
    assert unknown.criticism is None
    assert "divided by their deviation" in unknown.notes[0]


def test_panel_of_a_film() -> None:
    drawn = panel(["a", "b"], np.array([1.0, -0.5]), 60)
    assert drawn.shape == (60, 320, 3)
    assert drawn[17, 200, 2] > drawn[17, 200, 0]  # blue to the right
    assert drawn[43, 130, 0] > drawn[43, 130, 2]  # orange to the left


def test_command(run_dir: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    result = shoal.train(
        "CartPole-v1", total_timesteps=2_048, run_dir=str(run_dir), final_episodes=0, panel="none", num_threads=1
    )
    film = run_dir / "film.gif"
    asked = ["--episodes", "2", "--states", "8", "--film", str(film), "--film-steps", "3"]
    monkeypatch.setattr("sys.argv", ["shoal", "explain", str(result.path), *asked])
    with pytest.raises(SystemExit, match="0"):
        cli.main()
    said = capsys.readouterr().out
    assert "fidelity" in said
    assert film.stat().st_size > 0
    folder = result.path / "explanation"
    table = json.loads((folder / "explanation.json").read_text(encoding="utf-8"))
    assert {name for name, _ in table["importance"]} >= {"pole angle", "cart position"}
    assert (folder / "importance.png").read_bytes().startswith(b"\x89PNG")
    found = explain_run(shoal.load(result.path), Asked(episodes=2, states=8))
    assert as_table(found)["importance"] == table["importance"]


@pytest.mark.slow
@pytest.mark.parametrize("continuous", [False, True], ids=["choices", "numbers"])
def test_the_one_that_matters_is_first(continuous: Any) -> None:
    from benchmarks.explain import measure

    named = [measure(seed, continuous=continuous) for seed in range(1, 11)]
    assert [one.first for one in named] == [one.truth for one in named]
    assert min(one.fidelity - one.plain for one in named) > 0.2
