"""An explanation as pictures: the features' shares, what an episode's choices came from, values beside what came."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from shoal.report.curves import blank, plain_style

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from shoal.report.explain.explain import Explanation
    from shoal.types import Floats

BARS = 16
MAPS = 4
"""Observations whose saliency is shown."""


@plain_style()
def draw_importance(found: Explanation) -> Figure:
    """Each feature's share as a bar, the largest above, and how far it has to move until the action changes."""
    order = found.order()[:BARS]
    names = [found.features.names[at] for at in order]
    figure = blank(9, 1.2 + 0.35 * len(order))
    left, right = figure.subplots(1, 2, sharey=True)
    places = np.arange(len(order))[::-1]
    left.barh(places, 100 * found.importance.share[order])
    left.set_yticks(places, names)
    left.set(title="what choices come from", xlabel="% of all attributions")
    changes = found.counterfactuals
    if changes is not None:
        sizes = np.array([np.median(changes.sizes[:, at]) for at in order])
        finite = np.isfinite(sizes)
        right.barh(places[finite], sizes[finite], color="tab:orange")
        for place in places[~finite]:
            right.text(0, place, " none in the median step", va="center", fontsize=8)
    right.set(
        title="median change until the action changes",
        xlabel="standard deviations",
    )
    return figure


@plain_style()
def draw_saliency(found: Explanation) -> Figure:
    """Images that were seen, and below each how much of the choice came from each place."""
    shape = found.features.image
    assert shape is not None
    count = min(MAPS, len(found.at))
    chosen = np.linspace(0, len(found.at) - 1, count).round().astype(int)
    figure = blank(2.6 * count, 5.4)
    axes = figure.subplots(2, count, squeeze=False)
    for column, number in enumerate(chosen):
        step = found.at[number]
        seen = plane(found.seen[step].reshape(shape))
        sizes = np.abs(found.importance.attributions[number]).reshape(shape)
        axes[0, column].imshow(seen, cmap="gray")
        axes[0, column].set_title(f"step {step}", fontsize=9)
        axes[1, column].imshow(plane(sizes), cmap="inferno")
        for place in axes[:, column]:
            place.axis("off")
    axes[1, 0].set_title("where the choice comes from", fontsize=9)
    return figure


def plane(image: Floats) -> Floats:
    """An image of any stack and channels as [H, W]: the mean over them."""
    if image.ndim == 2:
        return image
    sides = sorted(range(image.ndim), key=lambda axis: image.shape[axis])[-2:]
    others = tuple(axis for axis in range(image.ndim) if axis not in sides)
    return image.mean(others)


@plain_style()
def draw_critic(found: Explanation) -> Figure:
    """What the critic expected and what came: over all steps, and in the episode where it was most wrong."""
    criticism = found.criticism
    assert criticism is not None
    figure = blank(9, 3.6)
    left, right = figure.subplots(1, 2)
    left.plot(criticism.came, criticism.value, ".", markersize=2)
    ends = [criticism.came.min(), criticism.came.max()]
    left.plot(ends, ends, color="gray", linewidth=0.8)
    left.set(title="all steps", xlabel="what came (discounted)", ylabel="expected")
    worst = criticism.worst[0]
    steps = found.visits.episode == worst.episode
    right.plot(criticism.value[steps], label="expected")
    right.plot(criticism.came[steps], label="came")
    right.axvline(worst.step, color="gray", linewidth=0.8, linestyle="--")
    right.set(title=f"episode {worst.episode + 1}, most wrong", xlabel="step")
    right.legend(fontsize="small")
    return figure
