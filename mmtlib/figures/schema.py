"""The method as a drawing: two networks, two means, and who teaches whom."""

from matplotlib.axes import Axes
from matplotlib.patches import FancyArrowPatch

from mmtlib.figures.style import BLUE, GREEN, GREY, VERMILLION, new_axes

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
_ARROWS = {  # what an arrow means: colour, line, and which arrows are alike
    "images in, features out": (
        GREY,
        "-",
        "images > view 1, images > view 2, view 1 > network 1, view 2 > network 2, view 1 > mean 1, view 2 > mean 2, "
        "mean 1 > clusters, mean 2 > clusters",
    ),
    "hard losses (pseudo labels)": (VERMILLION, "-", "labels > network 1, labels > network 2"),
    "soft losses (the other mean)": (BLUE, "-", "mean 1 > network 2, mean 2 > network 1"),
    "update of the mean": (GREEN, "--", "network 1 > mean 1, network 2 > mean 2"),
}
_BENDS = {"view 1 > mean 1": -0.25, "view 2 > mean 2": 0.25}  # around the networks


def mmt_schema(ax: Axes | None = None) -> Axes:
    """One step of MMT: what each network sees, and what it learns from."""
    ax = new_axes(ax, height=3.8)
    boxes = {
        name: ax.text(*place, text, ha="center", va="center", fontsize=9, zorder=3,
                      bbox={"boxstyle": "round,pad=0.4", "facecolor": "white", "edgecolor": color, "linewidth": 1.8})
        for name, (place, text, color) in _BOXES.items()
    }  # fmt: skip
    ax.set(xlim=(-0.7, 9.6), ylim=(-0.9, 3.4))
    ax.set_axis_off()
    for name, (color, line, _) in _ARROWS.items():
        ax.plot([], [], color=color, linestyle=line, linewidth=2, label=name)
    ax.legend(loc="upper center", bbox_to_anchor=(0.5, 0.02), ncols=2, fontsize=9)
    ax.figure.draw_without_rendering()  # boxes get their size, and arrows end at their edges
    for color, line, arrows in _ARROWS.values():
        for arrow in arrows.split(", "):
            start, end = arrow.split(" > ")
            ax.add_patch(
                FancyArrowPatch(_BOXES[start][0], _BOXES[end][0], patchA=boxes[start].get_bbox_patch(), shrinkA=0,
                                patchB=boxes[end].get_bbox_patch(), shrinkB=0, arrowstyle="-|>", mutation_scale=12,
                                connectionstyle=f"arc3,rad={_BENDS.get(arrow, 0)}", linewidth=1.6, color=color,
                                linestyle=line)
            )  # fmt: skip
    return ax
