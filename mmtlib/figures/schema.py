"""The method as a drawing: two networks, two means, and who teaches whom."""

from __future__ import annotations

import matplotlib.pyplot as plt
from matplotlib.axes import Axes
from matplotlib.lines import Line2D
from matplotlib.patches import FancyArrowPatch

from mmtlib.figures.style import BLUE, GREEN, GREY, MAX_WIDTH, VERMILLION

TOP, MIDDLE, BOTTOM = 2.5, 1.25, 0.0  # view 1 above, view 2 below
_BOXES = {  # name → (place, text, edge colour)
    "images": ((0.0, MIDDLE), "a batch\nof images", GREY),
    "view 1": ((1.5, TOP), "view 1", GREY),
    "view 2": ((1.5, BOTTOM), "view 2", GREY),
    "labels": ((1.5, MIDDLE), "pseudo\nlabels", VERMILLION),
    "network 1": ((3.5, TOP), "network 1\nθ₁", "black"),
    "network 2": ((3.5, BOTTOM), "network 2\nθ₂", "black"),
    "mean 1": ((6.2, TOP), "mean network 1\nE[θ₁]", GREEN),
    "mean 2": ((6.2, BOTTOM), "mean network 2\nE[θ₂]", GREEN),
    "clusters": (
        (8.5, MIDDLE),
        "once an epoch:\nk-means on the\nmeans' features\n→ pseudo labels",
        VERMILLION,
    ),
}
_LOOKS = {  # what an arrow means: colour, line
    "images in, features out": (GREY, "-"),
    "hard losses (pseudo labels)": (VERMILLION, "-"),
    "soft losses (the other mean)": (BLUE, "-"),
    "update of the mean": (GREEN, "--"),
}
_ARROWS = (  # from, to, which look, bend
    ("images", "view 1", "images in, features out", 0.0),
    ("images", "view 2", "images in, features out", 0.0),
    ("view 1", "network 1", "images in, features out", 0.0),
    ("view 2", "network 2", "images in, features out", 0.0),
    ("view 1", "mean 1", "images in, features out", -0.25),
    ("view 2", "mean 2", "images in, features out", 0.25),
    ("labels", "network 1", "hard losses (pseudo labels)", 0.0),
    ("labels", "network 2", "hard losses (pseudo labels)", 0.0),
    ("mean 1", "network 2", "soft losses (the other mean)", 0.0),
    ("mean 2", "network 1", "soft losses (the other mean)", 0.0),
    ("network 1", "mean 1", "update of the mean", 0.0),
    ("network 2", "mean 2", "update of the mean", 0.0),
    ("mean 1", "clusters", "images in, features out", 0.0),
    ("mean 2", "clusters", "images in, features out", 0.0),
)


def mmt_schema(ax: Axes | None = None) -> Axes:
    """One step of MMT: what each network sees, and what it learns from."""
    if ax is None:
        ax = plt.subplots(figsize=(MAX_WIDTH, 3.8), layout="constrained")[1]
    boxes = {
        name: ax.text(*place, text, ha="center", va="center", fontsize=9, zorder=3,
                      bbox={"boxstyle": "round,pad=0.4", "facecolor": "white", "edgecolor": color, "linewidth": 1.8})
        for name, (place, text, color) in _BOXES.items()
    }  # fmt: skip
    ax.set(xlim=(-0.7, 9.6), ylim=(-0.9, 3.4))
    ax.set_axis_off()
    lines = [
        Line2D([], [], color=color, linestyle=line, label=name) for name, (color, line) in _LOOKS.items()
    ]
    ax.legend(handles=lines, loc="upper center", bbox_to_anchor=(0.5, 0.02), ncols=2, fontsize=9)
    ax.figure.draw_without_rendering()  # boxes get their size, and arrows end at their edges
    for start, end, look, bend in _ARROWS:
        color, line = _LOOKS[look]
        ax.add_patch(
            FancyArrowPatch(_BOXES[start][0], _BOXES[end][0], connectionstyle=f"arc3,rad={bend}", arrowstyle="-|>",
                            mutation_scale=12, linewidth=1.6, color=color, linestyle=line, shrinkA=0, shrinkB=0,
                            patchA=boxes[start].get_bbox_patch(), patchB=boxes[end].get_bbox_patch())
        )  # fmt: skip
    return ax
