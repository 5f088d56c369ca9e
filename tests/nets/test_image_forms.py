"""Images of every form reach the convolutions: stacks of color images, floats, many channels, none."""

from __future__ import annotations

import warnings
from typing import Literal, TypeAlias

import numpy as np
import pytest
import torch
from gymnasium import spaces

from shoal.envs.preprocessing import Preprocessing
from shoal.nets.images import ImageEncoder, sides_of
from shoal.nets.network import Network
from shoal.nets.policy import make_policy
from shoal.types import ConfigError, Spec

Precision: TypeAlias = Literal["float32", "bfloat16"]


FLAGS = spaces.Box(0, 1, (10, 10, 4), np.dtype(bool))  # pyright: ignore[reportArgumentType, reportCallIssue]


def encoder(space: spaces.Box, network: Network, *, stack: int = 1) -> torch.nn.Module:
    spec = Preprocessing(frame_stack=stack).spec(Spec.of("Test-v0", space, spaces.Discrete(2)))
    policy = make_policy(spec, network, 0)
    made = policy.encoder
    assert isinstance(made, torch.nn.Module)
    return made


@pytest.mark.parametrize(
    ("shape", "stack", "sides"),
    [
        ((64, 64), 4, (64, 64, 4)),
        ((3, 64, 64), 4, (64, 64, 12)),
        ((64, 64, 3), 4, (64, 64, 12)),
        ((64, 64, 12), 1, (64, 64, 12)),
        ((210, 160, 3), 2, (210, 160, 6)),
    ],
)
def test_bytes_of_three_and_four_axes_are_images(shape: tuple[int, ...], stack: int, sides: tuple[int, ...]) -> None:
    made = encoder(spaces.Box(0, 255, shape, np.uint8), Network(), stack=stack)
    assert isinstance(made, ImageEncoder)
    assert sides_of(made.shape) == sides
    assert made.first.weight.shape[1] == sides[2]


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
@pytest.mark.parametrize("normalize", [False, True])
@pytest.mark.parametrize("order", ["last", "first"])
def test_a_stack_of_color_images_is_its_frames_side_by_side(
    *, precision: Literal["float32", "bfloat16"], normalize: bool, order: str
) -> None:
    """The same weights see the stack, and one image of 6 channels that was put together by hand."""
    network = Network(precision=precision, normalize_obs=normalize)
    shape = (40, 40, 3) if order == "last" else (3, 40, 40)
    stacked = encoder(spaces.Box(0, 255, shape, np.uint8), network, stack=2)
    plain = encoder(spaces.Box(0, 255, (40, 40, 6), np.uint8), network)
    frames = torch.randint(0, 256, (5, 2, *shape), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    hand = torch.cat([frames[:, k] if order == "last" else frames[:, k].permute(0, 2, 3, 1) for k in range(2)], -1)
    assert hand.shape == (5, 40, 40, 6)
    for made, seen in ((stacked, frames), (plain, hand)):
        assert isinstance(made, ImageEncoder)
        made.observe(seen)
    torch.testing.assert_close(stacked(frames), plain(hand))


@pytest.mark.parametrize(("low", "high"), [(0.0, 1.0), (-1.0, 1.0), (0.0, 255.0)])
def test_floats_are_scaled_by_their_bounds(low: float, high: float) -> None:
    network = Network(image="nature")
    floats = encoder(spaces.Box(low, high, (40, 40, 3), np.float32), network)
    plain = encoder(spaces.Box(0, 255, (40, 40, 3), np.uint8), network)
    pixels = torch.randint(0, 256, (5, 40, 40, 3), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    scaled = low + pixels.float() * ((high - low) / 255)
    torch.testing.assert_close(floats(scaled), plain(pixels), atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("normalize", [False, True])
def test_truth_values_are_images_where_layers_are_asked_for(*, normalize: bool) -> None:
    """As in MinAtar: the same as bytes of 0 and 255, normalized or not; by themselves they are flattened."""
    space = FLAGS
    network = Network(image="minatar", normalize_obs=normalize)
    flags, plain = encoder(space, network), encoder(spaces.Box(0, 255, (10, 10, 4), np.uint8), network)
    seen = torch.rand(6, 10, 10, 4, generator=torch.Generator().manual_seed(0)) < 0.3
    for made, shown in ((flags, seen), (plain, seen.to(torch.uint8) * 255)):
        assert isinstance(made, ImageEncoder)
        made.observe(shown)
    torch.testing.assert_close(flags(seen), plain(seen.to(torch.uint8) * 255))
    assert flags(seen).shape == (6, 128)
    assert sum(p.numel() for p in flags.parameters()) == 9 * 4 * 16 + 16 + 8 * 8 * 16 * 128 + 128
    assert not isinstance(encoder(space, Network()), ImageEncoder)


def test_layers_that_are_too_large_are_refused_with_those_that_fit() -> None:
    space = FLAGS
    with pytest.raises(ConfigError, match=r'needs 20 x 20 .* use image="flat" or "impala" or "minatar"'):
        encoder(space, Network(image="nips"))


def test_an_image_without_a_channel_has_one_where_layers_are_asked_for() -> None:
    flat = spaces.Box(0, 255, (84, 84), np.uint8)
    pixels = torch.randint(0, 256, (5, 84, 84), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    made = encoder(flat, Network(image="nature"))
    plain = encoder(spaces.Box(0, 255, (84, 84, 1), np.uint8), Network())
    torch.testing.assert_close(made(pixels), plain(pixels.unsqueeze(-1)))
    assert not isinstance(encoder(flat, Network()), ImageEncoder)


def test_floats_without_bounds_are_refused_where_layers_are_asked_for() -> None:
    space = spaces.Box(-np.inf, np.inf, (40, 40, 3), np.float32)
    with pytest.raises(ConfigError, match=r'image="nature" scales pixels by the bounds .* such as 0 and 1'):
        encoder(space, Network(image="nature"))
    assert not isinstance(encoder(space, Network()), ImageEncoder)


@pytest.mark.parametrize("shape", [(200, 200), (12_000,)])
def test_what_is_large_is_not_flattened_without_a_word(shape: tuple[int, ...]) -> None:
    space = spaces.Box(-1, 1, shape, np.float32)
    with pytest.warns(UserWarning, match=r"are flattened: the network's first layer reads \d\d,000 numbers"):
        encoder(space, Network(hidden=(4,)))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        encoder(space, Network(hidden=(4,), image="flat"))
