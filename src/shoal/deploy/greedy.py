"""The greedy policy as one module of plain tensors, which torch's exporters take: any policy, a user's own too."""

from __future__ import annotations

import copy
from itertools import accumulate
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import torch
from gymnasium.vector.utils import batch_space
from torch import Tensor, nn

from shoal.deploy.names import fields_of
from shoal.envs.mask_places import observed_places
from shoal.nets.distributions import masked
from shoal.nets.heads import head_size
from shoal.nets.images import ImageEncoder
from shoal.types import ConfigError, Layout, choices, leaf_spaces

if TYPE_CHECKING:
    from collections.abc import Sequence

    from shoal.envs.action_guard.limits import Limits
    from shoal.types import Spec, Tree


class Port(NamedTuple):
    """An array that a graph reads or gives: its name, and type and shape of one row."""

    name: str
    dtype: np.dtype[Any]
    shape: tuple[int, ...]


class Greedy(nn.Module):
    """Observations, a mask, the state before the step, each [N, ...], to the greedy actions and the state after it.

    All of it is handed over as tensors side by side, in the order of `inputs` and `outputs`. An episode begins with a
    state of zeros.
    """

    def __init__(
        self,
        policy: nn.Module,
        spec: Spec,
        *,
        masks: bool,
        limits: Limits | None = None,
    ) -> None:
        """A copy of `policy` on the CPU.

        Masks in the observations hold as they do in training. `masks`: whether another one is among the inputs;
        `limits`: of an action guard, which actions are held to.

        Raises:
            ConfigError: masks where there is nothing to choose.
        """
        super().__init__()
        if masks and not may_be_masked(spec):
            raise ConfigError(
                f"{spec.env_id}: a mask is of choices, and the actions {spec.action_space} have none; leave masks out"
            )
        self.policy = copy.deepcopy(policy).cpu().eval()
        for parameter in self.policy.parameters():
            parameter.requires_grad = False
        for module in self.policy.modules():
            if isinstance(module, ImageEncoder):
                module.native = False
        self.observation, self.action = spec.observation, spec.action
        self.masks = masks
        self.places = observed_places(spec)
        self.options = [
            sum(choices(part)) or int(np.prod(part.shape or ()))
            for _, part in leaf_spaces(spec.action_space)
        ]
        first: Tree = self.policy.initial_state(1)  # pyright: ignore[reportCallIssue]
        self.states = leaves_of(first)
        self.nested = isinstance(first, tuple)
        self.inputs = _ports(self.observation, "obs")
        self.outputs = _ports(self.action, "action")
        if masks:
            size = head_size(spec.action_space)
            self.inputs.append(Port("action_mask", np.dtype(np.bool_), (size,)))
        for number, state in enumerate(self.states):
            port = Port(f"state_{number}", np.dtype(np.float32), tuple(state.shape[1:]))
            self.inputs.append(port)
            self.outputs.append(port._replace(name=f"next_state_{number}"))
        self.limiter: Limiter | None = None
        if limits is not None:
            self.limiter = Limiter(limits)
            if limits.max_change:
                size = (len(limits.low),)
                held = Port("previous_action", np.dtype(np.float64), size)
                begun = Port("begun", np.dtype(np.bool_), ())
                self.inputs += [held, begun]
                self.outputs.append(held._replace(name="next_previous_action"))
                self.outputs.append(begun._replace(name="next_begun"))

    def forward(self, *given: Tensor) -> tuple[Tensor, ...]:
        """The inputs [N, ...] to the outputs [N, ...]."""
        count = len(self.observation.leaves)
        rows = [one.unsqueeze(0) for one in given[:count]]
        start = torch.zeros(1, given[0].shape[0], dtype=torch.bool)
        before = count + self.masks
        state = self._state(given[before : before + len(self.states)])
        output: Any = self.policy(self.observation.tree(rows), state, start)
        mask = self._allowed(given[:count], given[count] if self.masks else None)
        distribution = masked(output.distribution, mask)
        action = distribution.to_env(distribution.mode())
        flat: list[Tensor] = self.action.flat(action)
        actions: list[Tensor] = []
        for leaf, value in zip(self.action.leaves, flat, strict=True):
            kind = torch.from_numpy(np.empty(0, leaf.dtype)).dtype
            own = value.squeeze(0).to(kind)
            actions.append(own.reshape(own.shape[0], *leaf.shape))
        states = leaves_of(output.state)
        if self.limiter is None:
            return (*actions, *states)
        held = given[before + len(self.states) :]
        limited, *kept = self.limiter(actions[0], *held)
        return (limited, *states, *kept)

    def _allowed(self, obs: Sequence[Tensor], given: Tensor | None) -> Tensor | None:
        """The options [1, N, options] that the observations and a mask beside them leave; None: all."""
        mask = None if given is None else given.bool()
        if self.places:
            rows = obs[0].shape[0]
            found: list[Tensor] = []
            for leaf, options in enumerate(self.options):
                own = [place for place in self.places if place.action == leaf]
                found += [obs[one.observed].reshape(rows, -1) != 0 for one in own]
                if not own:
                    found.append(torch.ones(rows, options, dtype=torch.bool))
            observed = torch.cat(found, -1)
            mask = observed if mask is None else mask & observed
        return None if mask is None else mask.unsqueeze(0)

    def _state(self, given: Sequence[Tensor]) -> Tree:
        if not given:
            return None
        return tuple(given) if self.nested else given[0]

    def examples(self, spec: Spec, count: int, seed: int = 0) -> tuple[Tensor, ...]:
        """Inputs for `count` rows, drawn from the observation space; all options allowed, and states of zeros."""
        space = batch_space(copy.deepcopy(spec.observation_space), count)
        space.seed(seed)
        drawn = self.observation.flat(space.sample())
        arrays: list[np.ndarray[Any, Any]] = []
        for port, value in zip(self.inputs, drawn, strict=False):
            arrays.append(np.asarray(value).astype(port.dtype))
        parts = [choices(part) for _, part in leaf_spaces(spec.action_space)]
        for place in self.places:  # an observation leaves an option of every choice
            begins = np.array([0, *accumulate(parts[place.action])][:-1]) - place.first
            inside = begins[(begins >= 0) & (begins < place.size)]
            arrays[place.observed].reshape(count, -1)[:, inside] = 1
        for port in self.inputs[len(arrays) :]:
            fill = np.ones if port.name == "action_mask" else np.zeros
            arrays.append(fill((count, *port.shape), port.dtype))
        return tuple(torch.from_numpy(array) for array in arrays)


class Limiter(nn.Module):
    """An action guard's limits, of actions [N, *shape] of one Box."""

    low: Tensor
    high: Tensor
    change: Tensor

    def __init__(self, limits: Limits) -> None:
        """Of D numbers each."""
        super().__init__()
        self.slow = bool(limits.max_change)
        for name, given in (
            ("low", limits.low),
            ("high", limits.high),
            ("change", limits.max_change or (0.0,)),
        ):
            self.register_buffer(name, torch.tensor(given, dtype=torch.float64))

    def forward(self, action: Tensor, *held: Tensor) -> tuple[Tensor, ...]:
        """Actions, the ones before [N, D] and whether there were any [N], to actions, and the same for the next step.

        What rounding moved too far is moved back by one and a half roundings: graphs have no next number.
        """
        flat = action.reshape(action.shape[0], -1)
        low, high = self.low, self.high
        if not self.slow:
            wanted = flat.double().clamp(low, high).to(flat.dtype)
            return (wanted.reshape(action.shape),)
        previous, begun = held
        among = begun.unsqueeze(-1)
        low = torch.where(among, torch.maximum(low, previous - self.change), low)
        high = torch.where(among, torch.minimum(high, previous + self.change), high)
        wanted = torch.minimum(torch.maximum(flat.double(), low), high)
        kept = wanted.to(flat.dtype).double()
        apart = kept - previous
        rounding = 0.75 * torch.finfo(flat.dtype).eps * kept.abs()
        nearer = (kept - apart.sign() * rounding).to(flat.dtype).double()
        kept = torch.where(among & (apart.abs() > self.change), nearer, kept)
        done = kept.to(flat.dtype).reshape(action.shape)
        return done, kept, torch.ones_like(begun)


def leaves_of(state: Tree) -> tuple[Tensor, ...]:
    """The tensors of a recurrent state, a tensor or a tuple of them; none where there is no memory."""
    if state is None:
        return ()
    return tuple(state) if isinstance(state, tuple) else (state,)


def may_be_masked(spec: Spec) -> bool:
    """Whether there is anything to choose."""
    return any(choices(part) for _, part in leaf_spaces(spec.action_space))


def _ports(layout: Layout, name: str) -> list[Port]:
    """A port for each leaf, named after its path."""
    fields = fields_of(layout)
    names = [f"{name}_{field}" for field in fields] or [name]
    pairs = zip(names, layout.leaves, strict=True)
    return [Port(own, leaf.dtype, leaf.shape) for own, leaf in pairs]
