"""How every figure looks: a colour-blind safe palette, one colour and marker per method, alt text with each figure."""

import base64
import io
from collections.abc import Sequence
from typing import Any

import matplotlib as mpl
import matplotlib.pyplot as plt
from markupsafe import Markup
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from mmtlib.config import METHODS

MAX_WIDTH = 7.0  # inches: fits a page and a notebook cell

# Okabe & Ito (2008), "Color universal design": told apart with every common kind of colour blindness.
BLACK, ORANGE, SKY, GREEN = "#000000", "#E69F00", "#56B4E9", "#009E73"
YELLOW, BLUE, VERMILLION, PURPLE = "#F0E442", "#0072B2", "#D55E00", "#CC79A7"
GREY = "#8A8A8A"  # what is left out: junk, images outside the highlighted groups
PALETTE = (BLUE, VERMILLION, GREEN, PURPLE, ORANGE, SKY, BLACK, YELLOW)
MARKERS = ("o", "s", "^", "D", "v", "P", "X", "p")

# Few colours for many methods: relatives share a colour and differ in marker and line.
_LOOKS = {
    "direct": (BLACK, "v", "--"),
    "direct_camera_norm": (BLACK, "1", ":"),
    "direct_camera_bn": (BLACK, "2", ":"),
    "supervised": (PURPLE, "^", "--"),
    "hard_single": (VERMILLION, "s", ":"),
    "hard": (VERMILLION, "o", "-"),
    "hard_falling_rate": (VERMILLION, "v", "--"),
    "hard_dbscan": (VERMILLION, "p", ":"),
    "hard_camera_norm": (VERMILLION, "1", ":"),
    "cluster_contrast": (YELLOW, "p", ":"),
    "cluster_contrast_kmeans": (YELLOW, "d", "-"),
    "mean_teacher": (SKY, "P", "-"),
    "mutual_learning": (ORANGE, "X", "-"),
    "co_teaching": (PURPLE, "*", "-"),
    "mmt": (BLUE, "D", "-"),
    "mmt_dbscan": (BLUE, "p", ":"),
    "mmt_camera_norm": (BLUE, "1", ":"),
    "mmt_dbscan_without_soft_losses": (GREEN, "p", ":"),
    "mmt_without_soft_ce": (SKY, "<", ":"),
    "mmt_without_soft_triplet": (SKY, ">", "--"),
    "mmt_without_soft_losses": (GREEN, "s", "-"),
    "mmt_without_hard_ce": (ORANGE, "<", ":"),
    "mmt_without_hard_triplet": (ORANGE, ">", "--"),
    "mmt_without_means": (GREEN, "X", ":"),
    "mmt_without_second_network": (BLACK, "h", "-"),
}
METHOD_STYLE: dict[str, dict[str, str]] = {
    name: dict(zip(("color", "marker", "linestyle"), _LOOKS[name])) for name in METHODS
}


def use_style() -> None:
    """Set the style of all figures that follow: sizes that stay legible when projected, the palette, a light grid."""
    plt.style.use("seaborn-v0_8-whitegrid")  # comes with matplotlib
    mpl.rc("figure", figsize=(MAX_WIDTH, 4.0), dpi=110)
    mpl.rc("savefig", dpi=160)
    mpl.rc("font", size=11, **{"sans-serif": ["DejaVu Sans"]})  # so does this: the same on every machine
    mpl.rc("axes", titlesize=12, titleweight="bold", edgecolor="#444444", linewidth=1.25)
    mpl.rc("axes", prop_cycle=mpl.cycler(color=PALETTE))
    mpl.rc(("xtick", "ytick"), labelsize=10)
    mpl.rc("legend", fontsize=10)
    mpl.rc("grid", color="#E3E3E3", linewidth=1)
    mpl.rc("patch", edgecolor="white", force_edgecolor=True)
    mpl.rc("lines", linewidth=2)
    mpl.rc("image", cmap="cividis")


def new_axes(ax: Axes | None, height: float = 4.0) -> Axes:
    """`ax` itself, or the axes of a new figure of full width and `height` inches."""
    return ax if ax is not None else plt.subplots(figsize=(MAX_WIDTH, height), layout="constrained")[1]


def legend(ax: Axes, figure: Figure | None = None, columns: int = 2) -> None:
    """The legend of `ax` under its plot, or under the whole figure, where it hides no data."""
    handles, labels = ax.get_legend_handles_labels()
    if figure is not None:
        figure.legend(handles, labels, loc="outside lower center", ncols=columns)
    else:
        ax.legend(handles, labels, loc="upper center", bbox_to_anchor=(0.5, -0.2), ncols=columns)


def name_rows(ax: Axes, names: Sequence[str]) -> None:
    """Names of the rows 0, 1, … of `ax`, the first on top, and a line at 0."""
    ax.axvline(0, color="#444444", linewidth=1.2)
    ax.set_yticks(range(len(names)), names)
    ax.set_ylim(len(names) - 0.5, -0.5)
    ax.grid(axis="y", visible=False)


def beside(ax: Axes, row: int, text: str, **look: Any) -> None:
    """A number at the right edge of a row."""
    ax.annotate(f" {text}", (1.01, row), xycoords=("axes fraction", "data"), va="center", **look)


def png(figure: Figure) -> bytes:
    """The figure as a PNG with nothing cut off; it is closed, so that a notebook does not show it once more."""
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", facecolor="white", bbox_inches="tight", pad_inches=0.08)
    plt.close(figure)
    return buffer.getvalue()


def html_image(image: bytes, alt: str, width: int) -> Markup:
    """An `<img>` that needs no file beside it, of a PNG's or GIF's bytes."""
    kind = "gif" if image.startswith(b"GIF") else "png"
    data = base64.b64encode(image).decode()
    return Markup('<img src="data:image/{};base64,{}" alt="{}" width="{}">').format(kind, data, alt, width)


def show(figure: Figure | Axes, alt: str) -> None:
    """Show a figure (or any axes of it) in a notebook, once, with a sentence or two for readers who do not see it."""
    whole = figure.get_figure(root=True) if isinstance(figure, Axes) else figure
    display_image(png(whole), alt, round(96 * whole.get_figwidth()))


def display_image(image: bytes, alt: str, width: int) -> None:
    """Put the image of `html_image` into a notebook."""
    from IPython.display import display

    display({"text/html": html_image(image, alt, width), "text/plain": alt}, raw=True)
