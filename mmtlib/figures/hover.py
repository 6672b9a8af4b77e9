"""A map to explore: one HTML page with the images under the pointer, an epoch slider and a choice of colours.

The page holds its scripts, data and pictures and loads nothing. It is drawn by Bokeh, the optional part `hover`:
`make install WITH=hover`. Nothing else needs it.
"""

from __future__ import annotations

import base64
import io
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
from markupsafe import Markup
from PIL import Image

from mmtlib import InputError
from mmtlib.figures.style import BLACK, BLUE, GREY, PALETTE, VERMILLION, YELLOW
from mmtlib.files import write_atomic
from mmtlib.noise.measures import label_flow, label_quality, wrong_labels

LIMIT = 1500  # images on a page: more make it slow and large
_MARKERS = ("circle", "square", "triangle", "diamond", "inverted_triangle", "plus", "hex")
_COLORS = tuple(color for color in PALETTE if color not in (BLACK, YELLOW))  # yellow is lost on white
_ERRORS = ("right", "wrong", "left out")
_LEFT_OUT = (GREY, "dot")  # the look of an image without a label
_ERROR_LOOKS = ((BLUE, "circle"), (VERMILLION, "square"), _LEFT_OUT)

_TOOLTIP = """<div style="display:flex;gap:8px;width:22em;margin-bottom:4px">
<img src="@thumb" alt="" style="height:96px;image-rendering:pixelated">
<div style="overflow-wrap:anywhere"><b>@name</b><br>cluster @cluster, @camera_name%s</div></div>"""
_TRUTH = "<br>identity @identity_name<br>label: @error_name"

_UPDATE = """
const epoch = slider.value - 1, mode = modes[buttons.active], from = all.data, to = {...shown.data}
const code = from[`${mode}_${epoch}`] ?? from[mode]
to.x = from[`x_${epoch}`]
to.y = from[`y_${epoch}`]
to.cluster = from[`cluster_${epoch}`]
if (`error_${epoch}` in from) {
  to.error_name = Array.from(from[`error_${epoch}`], (c) => errors[c])
}
const looks = mode == 'error' ? error_looks : group_looks
const look = (c) => c < 0 ? left_out : looks[c % looks.length]
to.color = Array.from(code, (c) => look(c)[0])
to.marker = Array.from(code, (c) => look(c)[1])
shown.data = to
caption.text = `${captions[epoch]}<br>${legends[mode]}`
"""


def can_hover() -> bool:
    """Whether Bokeh is installed, by which `write_hover_page` draws."""
    return find_spec("bokeh") is not None


def write_hover_page(
    path: str | Path,
    maps: np.ndarray,
    images: Any,
    clusters: np.ndarray,
    pids: np.ndarray | None,
    camids: np.ndarray,
    names: Sequence[str],
    title: str,
    shown: np.ndarray | None = None,
) -> Path:
    """Write the page.

    Args:
        maps: (E, N, 2), see `maps.umap_sequence`; with `shown` (E, M, 2).
        images: uint8 (N, 3, H, W), an array or a tensor.
        clusters: Pseudo labels per epoch (E, N), −1 for images left out.
        pids: True identities (N); None where nobody knows them: then there is no choice of identity and error.
        camids: Cameras (N), 0-based as everywhere.
        names: Of the images (N), such as their file names.
        shown: Which images lie on the maps (M), as indices; None: all. Errors and the numbers beside the picture are
            those of all N images.

    Returns:
        The path. Of more than `LIMIT` images on the maps, a random sample is shown, always the same.

    Raises:
        InputError: Bokeh is not installed, or the arrays differ in length.
    """
    try:
        from bokeh.embed import file_html
        from bokeh.resources import INLINE
    except ImportError as error:
        raise InputError("this page needs Bokeh, which is not installed: make install WITH=hover") from error
    maps, clusters, camids = np.asarray(maps), np.asarray(clusters), np.asarray(camids)
    images = np.asarray(images.detach().cpu() if hasattr(images, "detach") else images)
    shown = np.arange(len(names)) if shown is None else np.asarray(shown)
    _check(maps, images, clusters, pids, camids, names, shown)
    facts = [_facts(labels, pids) for labels in clusters]
    clusters = _renamed(clusters)
    if len(shown) > LIMIT:
        some = np.sort(np.random.default_rng(0).choice(len(shown), LIMIT, replace=False))
        maps, shown = maps[:, some], shown[some]
    if len(shown) < len(names):
        facts = [f"{fact} {len(shown)} of {len(names)} images are shown." for fact in facts]
    columns = {"cluster": clusters[:, shown]}
    fixed = {"camera": np.unique(camids, return_inverse=True)[1][shown]}
    texts = {
        "thumb": _thumbnails(images[shown]),
        "name": [str(names[i]) for i in shown],
        "camera_name": [f"camera {camids[i] + 1}" for i in shown],
    }
    if pids is not None:
        columns["error"] = np.stack([_errors(labels, pids) for labels in clusters])[:, shown]
        fixed["identity"] = np.unique(pids, return_inverse=True)[1][shown]
        texts["identity_name"] = [str(pids[i]) for i in shown]
        texts["error_name"] = [_ERRORS[c] for c in columns["error"][0]]
    legends = _legends(np.unique(camids), "identity" in fixed)
    layout = _layout(maps, columns, fixed, texts, facts, legends, title)
    page = file_html(layout, INLINE, title=title)
    return write_atomic(path, page)


def _layout(
    maps: np.ndarray,
    per_epoch: dict[str, np.ndarray],
    fixed: dict[str, np.ndarray],
    texts: dict[str, list[str]],
    facts: list[str],
    legends: dict[str, str],
    title: str,
):
    """The widgets and the figure, wired by one script that runs in the page."""
    from bokeh.layouts import column, row
    from bokeh.models import ColumnDataSource, CustomJS, Div, HoverTool, RadioButtonGroup, Slider
    from bokeh.plotting import figure

    every: dict[str, np.ndarray] = {name: codes.astype(np.int32) for name, codes in fixed.items()}
    for epoch, points in enumerate(maps.astype(np.float32)):
        every |= {f"x_{epoch}": points[:, 0], f"y_{epoch}": points[:, 1]}
        every |= {f"{name}_{epoch}": codes[epoch].astype(np.int32) for name, codes in per_epoch.items()}
    looks = [(_COLORS[i % 6], _MARKERS[i % 7]) for i in range(6 * 7)]  # each pair once
    first = [_LEFT_OUT if c < 0 else looks[c % len(looks)] for c in per_epoch["cluster"][0]]
    shown = ColumnDataSource(
        texts
        | {"x": every["x_0"], "y": every["y_0"], "cluster": every["cluster_0"]}
        | {"color": [color for color, _ in first], "marker": [marker for _, marker in first]},
        name="shown",
    )
    low, high = maps.min(axis=(0, 1)), maps.max(axis=(0, 1))
    margin = 0.04 * (high - low)
    plot = figure(
        width=760, height=620, tools="pan,wheel_zoom,box_zoom,reset", active_scroll="wheel_zoom",
        x_range=tuple(map(float, (low[0] - margin[0], high[0] + margin[0]))),
        y_range=tuple(map(float, (low[1] - margin[1], high[1] + margin[1]))),
        name="map",
    )  # fmt: skip
    plot.scatter("x", "y", source=shown, color="color", marker="marker", size=8, alpha=0.75, line_color="white",
                 line_width=0.4)  # fmt: skip
    tooltips = _TOOLTIP % (_TRUTH if "error" in per_epoch else "")
    plot.add_tools(HoverTool(tooltips=tooltips, attachment="horizontal", limit=4))
    plot.axis.visible = False
    plot.grid.visible = False
    plot.toolbar.logo = None
    modes = [mode for mode in ("identity", "cluster", "camera", "error") if mode in fixed | per_epoch]
    buttons = RadioButtonGroup(labels=modes, active=modes.index("cluster"), name="colours")
    slider = Slider(start=1, end=max(2, len(maps)), value=1, step=1, title="epoch", name="epoch", width=300,
                    visible=len(maps) > 1)  # fmt: skip
    caption = Div(text=f"{facts[0]}<br>{legends['cluster']}", disable_math=True, width=760, name="caption")
    update = CustomJS(
        args={"all": ColumnDataSource(every), "shown": shown, "slider": slider, "buttons": buttons,
              "caption": caption, "modes": modes, "errors": list(_ERRORS), "captions": facts, "legends": legends,
              "group_looks": looks, "error_looks": _ERROR_LOOKS, "left_out": _LEFT_OUT},
        code=_UPDATE,
    )  # fmt: skip
    slider.js_on_change("value", update)
    buttons.js_on_change("active", update)
    heading = Markup("<h1 style='font-size:1.3em;margin:0'>{}</h1>").format(title)
    head = Div(text=str(heading), disable_math=True, width=760)
    by = Div(text="colour by", disable_math=True, margin=(10, 5, 0, 5))
    return column(head, row(by, buttons, slider), caption, plot)


def _thumbnails(images: np.ndarray) -> list[str]:
    """Each image as a small JPEG in a data address; at most 128 pixels high."""
    addresses = []
    for picture in images.transpose(0, 2, 3, 1):
        image, buffer = Image.fromarray(picture), io.BytesIO()
        image.thumbnail((128, 128))
        image.save(buffer, "JPEG", quality=80)
        addresses.append(f"data:image/jpeg;base64,{base64.b64encode(buffer.getvalue()).decode()}")
    return addresses


def _renamed(clusters: np.ndarray) -> np.ndarray:
    """Clusters in the names of the epoch before, where they match, so that colours hold still."""
    renamed = [clusters[0]]
    for labels in clusters[1:]:
        renamed.append(label_flow(renamed[-1], labels).renamed)
    return np.stack(renamed)


def _errors(labels: np.ndarray, pids: np.ndarray) -> np.ndarray:
    """Index into `_ERRORS` per image (N)."""
    return np.where(labels < 0, 2, wrong_labels(labels, pids))


def _facts(labels: np.ndarray, pids: np.ndarray | None) -> str:
    """Numbers that stand beside the picture: of all images, not only of those shown."""
    clusters, left_out = len(np.unique(labels[labels >= 0])), (labels < 0).mean()
    counts = f"{clusters} clusters, {left_out:.0%} of the images left out"
    if pids is None:
        return f"{counts}."
    quality = label_quality(labels, pids)
    return f"{counts}; NMI {quality['nmi']:.2f}, purity {quality['purity']:.2f}."


def _legends(camids: np.ndarray, truth: bool) -> dict[str, str]:
    """What the colours mean, per choice. Of many groups the pointer tells which is which."""
    dot = Markup('<span style="color:{}">&#9679;</span>&nbsp;{}')
    cameras = " ".join(dot.format(_COLORS[i % len(_COLORS)], f"camera {c + 1}") for i, c in enumerate(camids))
    note = "A colour and shape for each {}; they repeat. Grey: left out."
    legends = {"cluster": note.format("cluster"), "camera": cameras}
    if truth:
        errors = " ".join(dot.format(color, name) for (color, _), name in zip(_ERROR_LOOKS, _ERRORS))
        legends |= {"identity": "A colour and shape for each true identity; they repeat.", "error": errors}
    return legends


def _check(maps, images, clusters, pids, camids, names, shown) -> None:
    epochs, count = clusters.shape if clusters.ndim == 2 else (0, 0)
    found = {"maps": maps.shape, "images": images.shape, "clusters": clusters.shape, "camids": camids.shape,
             "names": (len(names),), "shown": shown.shape}  # fmt: skip
    lengths = {len(images), len(camids), len(names)} | (set() if pids is None else {len(pids)})
    inside = len(shown) and 0 <= shown.min() and shown.max() < count
    if maps.shape != (epochs, len(shown), 2) or lengths != {count} or not inside or images.dtype != np.uint8:
        found |= {} if pids is None else {"pids": np.shape(pids)}
        raise InputError(
            f"{found}: expected maps (E, N, 2), or one place per image shown, images uint8 (N, 3, H, W), "
            "clusters (E, N), and N of the others"
        )
