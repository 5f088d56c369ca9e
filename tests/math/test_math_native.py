"""The native equations against numbers worked by hand and slow references in plain Python."""

import math
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from shoal import _native

MASK = 0xFFFFFFFF

SCANS: Any = _native  # called with unpacked arrays


def philox_reference(key: tuple[int, int], counter: tuple[int, int, int, int]) -> list[int]:
    """Philox4x32-10 as Salmon et al. write it."""
    k0, k1 = key
    c = list(counter)
    for _ in range(10):
        high0, low0 = divmod(0xD2511F53 * c[0], 1 << 32)
        high1, low1 = divmod(0xCD9E8D57 * c[2], 1 << 32)
        c = [high1 ^ c[1] ^ k0, low1, high0 ^ c[3] ^ k1, low0]
        k0 = (k0 + 0x9E3779B9) & MASK
        k1 = (k1 + 0xBB67AE85) & MASK
    return c


def words(seed: int, stream: int, row: int, step: int, size: int) -> list[int]:
    out: list[int] = []
    for block in range(-(-size // 4)):
        counter = (step & MASK, (step >> 32) & MASK, row, stream << 16 | block)
        out += philox_reference((seed & MASK, seed >> 32), counter)
    return out[:size]


def int64(*values: int) -> NDArray[np.int64]:
    return np.array(values, np.int64)


# The published test vectors of the authors' library (Random123, kat_vectors): key, counter, words.
PUBLISHED = [
    ((0, 0), (0, 0, 0, 0), (0x6627E8D5, 0xE169C58D, 0xBC57AC4C, 0x9B00DBD8)),
    ((MASK, MASK), (MASK, MASK, MASK, MASK), (0x408F276D, 0x41C83B0E, 0xA20BC7C6, 0x6D5451FD)),
    (
        (0xA4093822, 0x299F31D0),
        (0x243F6A88, 0x85A308D3, 0x13198A2E, 0x03707344),
        (0xD16CFE09, 0x94FDCCEB, 0x5001E420, 0x24126EA1),
    ),
]


@pytest.mark.parametrize(("key", "counter", "expected"), PUBLISHED)
def test_philox_published_vectors(
    key: tuple[int, int], counter: tuple[int, int, int, int], expected: tuple[int, int, int, int]
) -> None:
    assert tuple(philox_reference(key, counter)) == expected
    step = np.array([counter[0] | counter[1] << 32], np.uint64).view(np.int64)
    stream, block = divmod(counter[3], 1 << 16)
    got = _native.philox_uniform(key[0] | key[1] << 32, stream, int64(counter[2]), step, 4 * block + 4)
    np.testing.assert_array_equal(got[0, -4:], np.array([w >> 8 for w in expected], np.float32) * np.float32(2**-24))


def test_philox_uniform_equals_reference_for_any_batch() -> None:
    rows = np.arange(37, dtype=np.int64) * 11
    steps = np.arange(37, dtype=np.int64) * (1 << 31) + 5
    got = _native.philox_uniform(2**40 + 7, 3, rows, steps, 6)
    expected = [
        [(w >> 8) * 2.0**-24 for w in words(2**40 + 7, 3, int(r), int(s), 6)] for r, s in zip(rows, steps, strict=True)
    ]
    np.testing.assert_array_equal(got, np.array(expected, np.float32))
    one = _native.philox_uniform(2**40 + 7, 3, rows[20:21].astype(np.uint32), steps[20:21], 6)
    np.testing.assert_array_equal(one, got[20:21])


def test_philox_normal_is_box_muller_of_the_same_words() -> None:
    got = _native.philox_normal(9, 1, int64(4), int64(2), 5)
    w = words(9, 1, 4, 2, 8)
    expected: list[float] = []
    for k in range(4):
        radius = math.sqrt(-2.0 * math.log((w[2 * k] + 0.5) * 2.0**-32))
        angle = 2.0 * math.pi * w[2 * k + 1] * 2.0**-32
        expected += [radius * math.cos(angle), radius * math.sin(angle)]
    np.testing.assert_array_equal(got[0], np.array(expected[:5], np.float32))


def test_philox_normal_moments() -> None:
    count = 50_000
    noise = _native.philox_normal(1, 0, np.arange(count), np.zeros(count, np.int64), 4).astype(np.float64)
    bound = 5.0 / math.sqrt(noise.size)
    assert abs(noise.mean()) < bound
    assert abs(noise.var() - 1.0) < bound * math.sqrt(2.0)
    assert abs((noise[:, 0] * noise[:, 1]).mean()) < 5.0 / math.sqrt(count)


def one_row(*values: float) -> NDArray[np.float32]:
    """A slab [1, T, 1]."""
    return np.array(values, np.float32).reshape(1, -1, 1)


def one_flag(*values: int) -> NDArray[np.uint8]:
    return np.array(values, np.uint8).reshape(1, -1, 1)


def gae(slab: dict[str, Any], gamma: float, gae_lambda: float) -> NDArray[np.float32]:
    out = np.full_like(slab["reward"], np.nan)
    agents = slab["reward"].shape[0]
    _native.gae(
        slab["reward"],
        slab["value"],
        slab["next_value"],
        slab["terminated"],
        slab["ended"],
        slab["valid"],
        np.full(agents, gamma),
        np.full(agents, gae_lambda),
        out,
    )
    return out


def n_step(slab: dict[str, Any], gamma: float, n: int) -> NDArray[np.float32]:
    out = np.full_like(slab["reward"], np.nan)
    names = ("reward", "next_value", "terminated", "ended", "valid")
    SCANS.n_step(*(slab[name] for name in names), np.full(slab["reward"].shape[0], gamma), n, out)
    return out


def hand_slab() -> dict[str, Any]:
    """Step 1 is truncated, step 3 terminates, step 4 belongs to the next episode."""
    return {
        "reward": one_row(1, 2, 3, 4, 5),
        "value": one_row(10, 20, 30, 40, 50),
        "next_value": one_row(20, 24, 40, 99, 60),
        "terminated": one_flag(0, 0, 0, 1, 0),
        "ended": one_flag(0, 1, 0, 1, 0),
        "valid": one_flag(1, 1, 1, 1, 1),
    }


def test_gae_by_hand() -> None:
    # gamma 1/2, lambda 1/2: each advantage is its delta plus a quarter of the next one, unless the episode ended.
    # deltas: 1 + 10 - 10 = 1; 2 + 12 - 20 = -6; 3 + 20 - 30 = -7; 4 - 40 = -36; 5 + 30 - 50 = -15.
    expected = [1 - 6 / 4, -6.0, -7 - 36 / 4, -36.0, -15.0]
    np.testing.assert_array_equal(gae(hand_slab(), 0.5, 0.5), one_row(*expected))


def test_gae_passes_over_an_invalid_step() -> None:
    slab = hand_slab()
    slab["valid"] = one_flag(1, 1, 0, 1, 1)
    slab["ended"] = one_flag(0, 0, 1, 0, 0)
    slab["terminated"] = one_flag(0, 0, 0, 0, 0)
    # delta_3 = 4 + 99/2 - 40 = 13.5; A_3 = 13.5 - 15/4; A_1 = -6 + A_3/4, as if step 2 were not there.
    a3 = 13.5 - 15 / 4
    a1 = -6 + a3 / 4
    np.testing.assert_array_equal(gae(slab, 0.5, 0.5), one_row(1 + a1 / 4, a1, 0, a3, -15))


def test_n_step_by_hand() -> None:
    # n = 2, gamma 1/2; step 0: 1 + 2/2 and, cut by truncation, 24/4; step 1: 2 + 24/2; step 2: 3 + 4/2 (terminated).
    np.testing.assert_array_equal(n_step(hand_slab(), 0.5, 2), one_row(8, 14, 5, 4, 5 + 30))
    np.testing.assert_array_equal(n_step(hand_slab(), 0.5, 1), one_row(11, 14, 23, 4, 35))


def test_n_step_beyond_the_slab_equals_the_full_return() -> None:
    slab = hand_slab()
    slab["terminated"] = one_flag(0, 0, 0, 0, 0)
    slab["ended"] = one_flag(0, 0, 0, 0, 0)
    # 5 + 60/2 = 35; 4 + 35/2 = 21.5; 3 + 21.5/2 = 13.75; 2 + 13.75/2 = 8.875; 1 + 8.875/2 = 5.4375
    expected = one_row(5.4375, 8.875, 13.75, 21.5, 35)
    np.testing.assert_array_equal(n_step(slab, 0.5, 5), expected)
    np.testing.assert_array_equal(n_step(slab, 0.5, 1000), expected)


def random_slab(shape: tuple[int, int, int]) -> dict[str, Any]:
    rng = np.random.default_rng(5)
    terminated = (rng.random(shape) < 0.15).astype(np.uint8)
    return {
        "reward": rng.standard_normal(shape).astype(np.float32),
        "value": rng.standard_normal(shape).astype(np.float32),
        "next_value": rng.standard_normal(shape).astype(np.float32),
        "terminated": terminated,
        "ended": terminated | (rng.random(shape) < 0.15).astype(np.uint8),
        "valid": (rng.random(shape) < 0.8).astype(np.uint8),
    }


def gae_reference(slab: dict[str, Any], m: int, b: int, gamma: float, gae_lambda: float) -> list[float]:
    steps = slab["reward"].shape[1]
    out = [0.0] * steps
    carry = 0.0
    for t in reversed(range(steps)):
        at = (m, t, b)
        if not slab["valid"][at]:
            continue
        next_value = 0.0 if slab["terminated"][at] else float(slab["next_value"][at])
        delta = float(slab["reward"][at]) + gamma * next_value - float(slab["value"][at])
        carry = out[t] = delta + (0.0 if slab["ended"][at] else gamma * gae_lambda * carry)
    return out


def n_step_reference(slab: dict[str, Any], m: int, b: int, t: int, gamma: float, n: int) -> float:
    if not slab["valid"][m, t, b]:
        return 0.0
    taken: list[int] = []
    for k in range(t, slab["reward"].shape[1]):
        if slab["valid"][m, k, b]:
            taken.append(k)
            if slab["ended"][m, k, b] or len(taken) == n:
                break
    total = sum(gamma**i * float(slab["reward"][m, k, b]) for i, k in enumerate(taken))
    last = (m, taken[-1], b)
    return total + (0.0 if slab["terminated"][last] else gamma ** len(taken) * float(slab["next_value"][last]))


def test_scans_equal_references_on_a_population() -> None:
    slab = random_slab((3, 11, 7))
    gamma = np.array([0.9, 0.99, 1.0])
    lam = np.array([0.95, 0.5, 1.0])
    advantage = np.full((3, 11, 7), np.nan, np.float32)
    names = ("reward", "value", "next_value", "terminated", "ended", "valid")
    SCANS.gae(*(slab[name] for name in names), gamma, lam, advantage)
    for m in range(3):
        for b in range(7):
            expected = gae_reference(slab, m, b, gamma[m], lam[m])
            np.testing.assert_allclose(advantage[m, :, b], expected, atol=2e-5)
    for n in (1, 3, 11, 50):
        target = np.full((3, 11, 7), np.nan, np.float32)
        SCANS.n_step(*(slab[name] for name in names if name != "value"), gamma, n, target)
        for m, t, b in np.ndindex(3, 11, 7):
            assert target[m, t, b] == pytest.approx(n_step_reference(slab, m, b, t, float(gamma[m]), n), abs=2e-5)


def test_q_lambda_equals_a_slow_reference() -> None:
    slab = random_slab((2, 11, 7))
    target = np.full((2, 11, 7), np.nan, np.float32)
    names = ("reward", "next_value", "terminated", "ended", "valid")
    SCANS.q_lambda(*(slab[name] for name in names), np.array([0.9, 1.0]), np.array([0.65, 0.3]), target)
    for m, b in np.ndindex(2, 7):
        gamma, lam = ((0.9, 0.65), (1.0, 0.3))[m]
        later: float | None = None
        for t in reversed(range(11)):
            at = (m, t, b)
            if not slab["valid"][at]:
                assert target[at] == 0
                continue
            value = 0.0 if slab["terminated"][at] else float(slab["next_value"][at])
            later = value if later is None or slab["ended"][at] else later
            later = float(slab["reward"][at]) + gamma * ((1 - lam) * value + lam * later)
            assert target[at] == pytest.approx(later, abs=2e-5)


def test_bad_arguments_are_named() -> None:
    slab = hand_slab()
    slab["value"] = one_row(1, 2)
    with pytest.raises(ValueError, match=r"value must have shape \(1, 5, 1\), not \(1, 2, 1\)"):
        gae(slab, 0.5, 0.5)
    slab["value"] = np.zeros((1, 5, 1))
    with pytest.raises(ValueError, match="value must be an array of float32"):
        gae(slab, 0.5, 0.5)
    with pytest.raises(ValueError, match="n must be at least 1, not 0"):
        n_step(hand_slab(), 0.5, 0)
    with pytest.raises(ValueError, match="stream must be below 65536"):
        _native.philox_uniform(0, 1 << 16, int64(0), int64(0), 1)
    with pytest.raises(ValueError, match="rows must lie between 0 and 4294967295, not -1"):
        _native.philox_uniform(0, 0, int64(-1), int64(0), 1)
    with pytest.raises(ValueError, match=r"steps must have shape \(1,\), not \(2,\)"):
        _native.philox_uniform(0, 0, int64(0), int64(0, 1), 1)
