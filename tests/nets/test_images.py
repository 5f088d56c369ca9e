"""Networks for images: sizes by hand, pixels of either order, halves, and gradients in shards."""

import copy
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from gymnasium import spaces
from torch import Tensor, nn

from shoal import _native
from shoal.algos.presets import preset
from shoal.learn.shards import Shards
from shoal.learn.weights import Snapshot, pack
from shoal.nets.encoder import TreeEncoder
from shoal.nets.images import ImageEncoder
from shoal.nets.normalizer import PIXEL_CLIP, PixelNormalizer, convert_pixels
from shoal.nets.policy import MlpPolicy, Network, SharedPolicy, make_policy
from shoal.types import ConfigError, Spec, Steps, Transitions

PIXELS = torch.randint(0, 256, (6, 4, 84, 84), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))


def image_spec(*shape: int) -> Spec:
    return Spec.of("Image-v0", spaces.Box(0, 255, shape, np.uint8), spaces.Discrete(6))


def made(image: Any = "nature", *, precision: Any = "float32") -> nn.Module:
    return make_policy(image_spec(4, 84, 84), Network(image=image, precision=precision), seed=1)


def act(policy: nn.Module, obs: Tensor) -> tuple[Tensor, Tensor]:
    output = policy(obs.unsqueeze(0), None, torch.zeros(1, len(obs), dtype=torch.bool))
    return output.distribution.log_probs.squeeze(0), output.value.squeeze(0)


@pytest.mark.parametrize(
    ("image", "count"),
    [
        # 32 of 8x8x4, 64 of 4x4x32, 64 of 3x3x64, 512 of 7x7x64, then 6 logits and a value, each with its biases
        ("nature", 8_224 + 32_832 + 36_928 + 1_606_144 + 3_078 + 513),
        # 16 of 8x8x4, 32 of 4x4x16, 256 of 9x9x32
        ("nips", 4_112 + 8_224 + 663_808 + 1_542 + 257),
        # sections of 16, 32, 32: one convolution from the layer before and four inside; 256 of 11x11x32
        ("impala", 592 + 4 * 2_320 + 4_640 + 4 * 9_248 + 9_248 + 4 * 9_248 + 991_488 + 1_542 + 257),
    ],
)
def test_sizes_by_hand(image: str, count: int) -> None:
    policy = made(image)
    assert isinstance(policy, SharedPolicy)
    assert sum(p.numel() for p in policy.parameters()) == count
    logits, value = act(policy, PIXELS)
    assert logits.shape == (6, 6)
    assert value.shape == (6,)
    assert all(p.dtype == torch.float32 for p in policy.parameters())
    if image == "impala":
        assert sum(isinstance(m, nn.Conv2d) for m in policy.modules()) == 15


def test_nature_equals_its_layers_one_after_another() -> None:
    policy = made()
    layers: list[Any] = [m for m in copy.deepcopy(policy).double().modules() if isinstance(m, nn.Conv2d | nn.Linear)]
    first, second, third, dense, actor, critic = layers
    x = F.relu(F.conv2d(PIXELS.double() / 255, first.weight, first.bias, 4))
    x = F.relu(F.conv2d(x, second.weight, second.bias, 2))
    x = F.relu(F.conv2d(x, third.weight, third.bias)).permute(0, 2, 3, 1).flatten(1)
    x = F.relu(F.linear(x, dense.weight, dense.bias))
    log_probs, value = act(policy, PIXELS)
    assert (log_probs - F.linear(x, actor.weight, actor.bias).log_softmax(-1)).abs().max() < 1e-5
    assert (value - F.linear(x, critic.weight, critic.bias)[:, 0]).abs().max() < 1e-5


def test_weights_come_from_the_seed_alone() -> None:
    torch.manual_seed(5)
    one = made("impala")
    torch.manual_seed(6)
    assert all(a.equal(b) for a, b in zip(one.parameters(), made("impala").parameters(), strict=True))


def encoder_that_normalizes(*shape: int) -> ImageEncoder:
    policy: Any = make_policy(image_spec(*shape), Network(normalize_obs=True), 1)
    assert isinstance(policy.encoder, ImageEncoder)
    return policy.encoder


def test_channels_may_come_last() -> None:
    """The same pixels and weights in either order."""
    firsts, lasts = (make_policy(image_spec(*shape), Network(), 1) for shape in ((3, 40, 48), (40, 48, 3)))
    pixels = torch.randint(0, 256, (2, 3, 40, 48), dtype=torch.uint8)
    assert torch.allclose(act(firsts, pixels)[0], act(lasts, pixels.permute(0, 2, 3, 1))[0], atol=1e-6)


def test_images_are_normalized_place_by_place() -> None:
    """Against NumPy, in both orders of the axes; statistics are merged, the same for any number of threads."""
    rng = np.random.default_rng(0)
    seen = [rng.integers(0, 256, (n, 3, 40, 48), np.uint8) for n in (300, 7)]
    for images in seen:
        images[:, :, :20] = 90
    used = np.concatenate([seen[0][np.arange(251) * 300 // 251], seen[1]]).astype(float)
    firsts, lasts = (encoder_that_normalizes(*shape) for shape in ((3, 40, 48), (40, 48, 3)))
    before = torch.get_num_threads()
    for threads, encoder, axes in ((1, firsts, (0, 1, 2, 3)), (2, lasts, (0, 2, 3, 1))):
        torch.set_num_threads(threads)
        encoder.observe(torch.zeros(0, *encoder.shape, dtype=torch.uint8))
        for images in seen:
            encoder.observe(torch.from_numpy(images.transpose(axes)))
    torch.set_num_threads(before)
    layer, other = firsts.normalizer, lasts.normalizer
    assert layer is not None
    assert other is not None
    assert layer.mean.equal(other.mean)
    assert layer.inv_std.equal(other.inv_std)
    expected = ((seen[1] - used.mean(0)) / np.sqrt(used.var(0) + 1)).clip(-5, 5).transpose(0, 2, 3, 1)
    made_here = layer(torch.from_numpy(seen[1].transpose(0, 2, 3, 1)))
    assert np.abs(made_here.numpy() - expected).max() < 1e-5
    assert np.abs(made_here.numpy()[:, :20]).max() == 0  # what never changes is not seen


@pytest.mark.parametrize("rows", [2, 8, 16, 48])
def test_statistics_are_of_every_row(rows: int) -> None:
    """Rows take turns in what `observe` gets; each shows another gray, and the mean is that of all."""
    encoder = encoder_that_normalizes(1, 40, 40)
    grays = torch.arange(rows, dtype=torch.uint8) * 5
    encoder.observe(grays.repeat(2048 // rows)[:, None, None, None].expand(-1, 1, 40, 40))
    assert encoder.normalizer is not None
    assert abs(float(encoder.normalizer.mean[0, 0, 0]) - grays.double().mean()) < 2


def test_auto_flattens_small_images_and_flat_all() -> None:
    assert isinstance(make_policy(image_spec(1, 10, 10), Network(), 0), MlpPolicy)
    assert isinstance(make_policy(image_spec(4, 84, 84), Network(image="flat", hidden=(8,)), 0), MlpPolicy)
    assert isinstance(make_policy(image_spec(1, 10, 10), Network(image="impala"), 0), SharedPolicy)
    with pytest.raises(ConfigError, match=r'image="nature" needs 36 x 36 pixels or more, got 10 x 12'):
        make_policy(image_spec(1, 10, 12), Network(image="nature"), 0)


def test_an_image_in_a_dict_and_one_with_a_memory() -> None:
    space = spaces.Dict({"eye": spaces.Box(0, 255, (3, 40, 40), np.uint8), "nose": spaces.Box(-1, 1, (2,))})
    policy: Any = make_policy(Spec.of("Test-v0", space, spaces.Discrete(2)), Network(hidden=(8,)), 0)
    assert isinstance(policy.encoder, TreeEncoder)
    assert policy.encoder.size == 514
    obs = {"eye": torch.zeros(1, 5, 3, 40, 40, dtype=torch.uint8), "nose": torch.zeros(1, 5, 2)}
    assert policy(obs, None, torch.zeros(1, 5)).value.shape == (1, 5)
    recurrent: Any = make_policy(image_spec(3, 40, 40), Network(recurrent="lstm", recurrent_size=7), 0)
    output = recurrent(torch.zeros(2, 5, 3, 40, 40, dtype=torch.uint8), recurrent.initial_state(5), torch.zeros(2, 5))
    assert output.value.shape == (2, 5)
    assert recurrent.cell.weight_ih.shape == (28, 512)


def test_half_precision_is_near_and_the_snapshot_follows_the_weights() -> None:
    full, half = made(), made(precision="bfloat16")
    logits, value = act(full, PIXELS)
    near, near_value = act(half, PIXELS)
    assert near.dtype == near_value.dtype == torch.float32
    assert 0 < (value - near_value).abs().max() < 0.02 * value.abs().max()
    assert (logits - near).abs().max() < 0.02
    flat, snapshot = pack(half), Snapshot(half)
    learned = act(half, PIXELS)
    for _ in range(2):
        with torch.inference_mode():
            acted = act(snapshot.policy, PIXELS)
        learned = act(half, PIXELS)
        assert torch.allclose(acted[1], learned[1].detach(), rtol=0.01, atol=0.01)
        with torch.no_grad():
            flat *= 1.5
        snapshot.update(half, flat)
    assert not torch.allclose(learned[1], near_value, rtol=0.1)
    loss = act(half, PIXELS)[1].square().mean()
    gradients = torch.autograd.grad(loss, list(half.parameters()), allow_unused=True)
    assert all(g is None or g.dtype == torch.float32 for g in gradients)


def steps_of(pixels: Tensor) -> Steps:
    """Images as a minibatch [1, M] whose other numbers are zero."""
    zeros = torch.zeros(1, len(pixels))
    flags = zeros.bool()
    return Steps(
        obs=pixels.unsqueeze(0),
        start=flags,
        action=zeros.long(),
        log_prob=zeros,
        value=zeros,
        next_value=zeros,
        reward=zeros,
        terminated=flags,
        truncated=flags,
        valid=~flags,
        final_index=zeros.int(),
        final_obs=pixels[:0],
        state=None,
        version=zeros.int(),
    )


def mean_loss(policy: nn.Module) -> Callable[[Steps | Transitions], tuple[Tensor, list[Tensor]]]:
    def loss(part: Steps | Transitions) -> tuple[Tensor, list[Tensor]]:
        assert isinstance(part, Steps)
        logits, value = act(policy, part.obs[0])
        each = value.square() + logits.exp().square().sum(-1)
        return each.mean(), [value.mean(), each.mean()]

    return loss


def test_shards_sum_to_the_whole_whatever_the_threads() -> None:
    """Six observations in four parts of 1, 2, 1 and 2."""
    policy = made("nips")
    gradients: dict[tuple[int, int], list[Tensor]] = {}
    for shards, threads in ((1, 1), (4, 1), (4, 3)):
        cut = Shards(policy, shards, num_threads=threads)
        parts = cut.parts(steps_of(PIXELS))
        assert [len(part.obs[0]) for part in parts] == ([6] if shards == 1 else [1, 2, 1, 2])
        stats = cut.backward(mean_loss(policy), parts)
        gradients[shards, threads] = [p.grad for p in policy.parameters() if p.grad is not None]
        value = act(policy, PIXELS)[1].detach()
        assert abs(float(stats[0] - value.mean())) < 1e-5
    assert all(a.equal(b) for a, b in zip(gradients[4, 1], gradients[4, 3], strict=True))
    for one, parts in zip(gradients[1, 1], gradients[4, 1], strict=True):
        assert (one - parts).abs().max() <= 1e-4 * one.abs().max()


def test_the_preset_of_a_family() -> None:
    assert preset("ppo", None, "ALE/Breakout-v5")["clip_coef"] == 0.1
    assert preset("a2c", None, "ALE/Pong-v5")["network"]["image"] == "nips"
    assert preset("ppo", None, "Blackjack-v1") == {}


@pytest.mark.parametrize("kernels", _native.kernel_names())
@pytest.mark.parametrize("shape", [(4, 84, 84), (3, 37, 41), (12, 36, 36), (40, 36, 3), (1025, 3, 2)])
def test_pixels_in_one_pass_have_the_bits_of_torch(shape: tuple[int, ...], kernels: str) -> None:
    """Normalized and as they are, as float32 and as bfloat16."""
    last = shape[2] == 3
    normalizer = PixelNormalizer(shape if last else (*shape[1:], shape[0]))
    random = torch.Generator().manual_seed(0)
    normalizer.mean.uniform_(0, 255, generator=random)
    normalizer.inv_std.uniform_(0, 1, generator=random)
    images = torch.randint(0, 256, (3, *shape), dtype=torch.uint8, generator=random)
    placed = images if last else images.permute(0, 2, 3, 1)
    moments = (normalizer.mean.numpy(), normalizer.inv_std.numpy())
    for layer, given, expected in ((normalizer, moments, normalizer(placed)), (None, (None, None), placed.float())):
        for dtype in (torch.float32, torch.bfloat16):
            converted = convert_pixels(images, layer, channels_last=last, dtype=dtype)
            assert converted.dtype is dtype
            assert torch.equal(converted, expected.to(dtype))
        numbers, bits = (np.zeros(expected.shape, kind) for kind in (np.float32, np.uint16))
        for out in (numbers, bits):
            _native.convert_pixels(images.numpy(), *given, PIXEL_CLIP, last, out, kernels)
        assert np.array_equal(numbers, expected.numpy())
        assert np.array_equal(bits, expected.to(torch.bfloat16).view(torch.uint16).numpy())


def test_pixels_of_other_shapes_are_refused() -> None:
    mean = np.zeros((5, 5, 4), np.float32)
    pixels, out = np.zeros((1, 5, 5, 4), np.uint8), np.zeros((1, 5, 5, 4), np.uint16)
    with pytest.raises(ValueError, match=r"pixels must have shape \(1, 4, 5, 5\), not \(1, 5, 5, 4\)"):
        _native.convert_pixels(pixels, mean, mean, 5.0, False, out)
    with pytest.raises(ValueError, match="at least 1 channel"):
        _native.convert_pixels(pixels, None, None, 5.0, True, np.zeros((1, 5, 5, 0), np.uint16))
    with pytest.raises(ValueError, match="mean and inv_std must be given both"):
        _native.convert_pixels(pixels, mean, None, 5.0, True, out)
    with pytest.raises(ValueError, match="out must be an array of uint16"):
        _native.convert_pixels(pixels, None, None, 5.0, True, np.zeros((1, 5, 5, 4)))
