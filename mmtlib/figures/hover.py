"""A map to explore: one HTML page with the images under the pointer, an epoch slider and a choice of colours.

The page holds its scripts, data and pictures and loads nothing. It is drawn by Bokeh, the optional part `hover`:
`make install WITH=hover`. Nothing else needs it.
"""

import base64
import io
from collections.abc import Mapping, Sequence
from importlib.util import find_spec
from itertools import accumulate
from pathlib import Path
from typing import Any

import numpy as np
from markupsafe import Markup
from PIL import Image

from mmtlib import InputError
from mmtlib.figures.pictures import as_pixels
from mmtlib.figures.style import BLUE, GREEN, GREY, ORANGE, PURPLE, SKY, VERMILLION
from mmtlib.files import write_atomic
from mmtlib.noise.measures import label_flow

_COLORS = np.array([BLUE, VERMILLION, GREEN, PURPLE, ORANGE, SKY])
_MARKERS = np.array(["circle", "square", "triangle", "diamond", "inverted_triangle", "plus", "hex"])
_TOOLTIP = """<div style="display:flex;gap:8px;width:22em;margin-bottom:4px">
<img src="@thumb" alt="" style="height:96px;image-rendering:pixelated">
<div style="overflow-wrap:anywhere"><b>@name</b>%s</div></div>"""
_UPDATE = """
const epoch = slider.value - 1, mode = buttons.labels[buttons.active]
const data = {...shown.data, ...epochs[epoch].data}
data.color = data[`${mode} color`]
data.marker = data[`${mode} marker`]
shown.data = data
caption.text = `${captions[epoch]}<br>${legends[mode]}`
"""


def can_hover() -> bool:
    """Whether Bokeh is installed, by which `write_hover_page` draws."""
    return find_spec("bokeh") is not None


def write_hover_page(path: str | Path, title: str, maps: np.ndarray, images: Any, names: Sequence[str],
                     labels: Mapping[str, np.ndarray], captions: Sequence[str]) -> Path:  # fmt: skip
    """Write the page; some thousand images make it slow and large.

    Args:
        maps: (E, N, 2), see `maps.umap_sequence`.
        images, names: uint8 (N, 3, H, W), an array or a tensor, and what to call each (N).
        labels: What can colour the points, the first one at the start: title → (N), or (E, N) where it differs from
            epoch to epoch. Integers (−1: none, grey) that differ are matched, so that colours hold still.
        captions: Per epoch, such as a number: a picture is not a measure.
    """
    if not can_hover():
        raise InputError("this page needs Bokeh, which is not installed: make install WITH=hover")
    from bokeh.embed import file_html
    from bokeh.resources import INLINE

    maps, pixels = np.asarray(maps, dtype=np.float32), as_pixels(images)
    shapes = {name: np.shape(each) for name, each in labels.items()}
    fits = all(shape in (maps.shape[:2], maps.shape[1:2]) for shape in shapes.values())
    if maps.shape != (len(captions), len(names), 2) or len(pixels) != len(names) or not fits:
        raise InputError(
            f"maps {maps.shape}, {len(pixels)} images, {len(names)} names, labels {shapes}, {len(captions)} captions: "
            "expected maps (E, N, 2), labels (N) or (E, N), a caption per epoch"
        )
    fixed: dict[str, Any] = {"name": list(map(str, names)), "thumb": list(map(_thumbnail, pixels))}
    epochs: list[dict[str, Any]] = [{"x": xy[:, 0], "y": xy[:, 1]} for xy in maps]
    legends = {}
    for name, each in labels.items():
        if each.ndim == 2 and each.dtype.kind == "i":  # clusters keep their numbers, and so their colours
            each = np.stack(list(accumulate(each, lambda before, after: label_flow(before, after).renamed)))
        values, codes = np.unique(each, return_inverse=True)
        codes = values[codes] if values.dtype.kind == "i" else codes
        legends[name] = _legend(name, values)
        if each.ndim == 1:
            fixed |= _looks(name, each, codes)
        for columns, row, numbers in zip(epochs, each, codes) if each.ndim == 2 else ():
            columns |= _looks(name, row, numbers)
    layout = _layout(title, fixed, epochs, legends, captions)
    return write_atomic(path, file_html(layout, INLINE, title=title))


def _layout(title: str, fixed: dict, epochs: list[dict], legends: dict[str, str], captions: Sequence[str]):
    """The widgets and the figure, wired by one script; `fixed` are columns of the points that hold in every epoch."""
    from bokeh.layouts import column, row
    from bokeh.models import ColumnDataSource, CustomJS, Div, HoverTool, RadioButtonGroup, Slider
    from bokeh.plotting import figure

    modes, first = list(legends), fixed | epochs[0]
    look = {kind: first[f"{modes[0]} {kind}"] for kind in ("color", "marker")}
    shown = ColumnDataSource(first | look, name="shown")
    ends = {f"{axis}_range": _ends(np.concatenate([each[axis] for each in epochs])) for axis in "xy"}
    tools = {"tools": "pan,wheel_zoom,box_zoom,reset", "active_scroll": "wheel_zoom"}
    plot = figure(width=760, height=620, name="map", **tools, **ends)
    plot.scatter("x", "y", source=shown, color="color", marker="marker", size=8, alpha=0.75, line_color="white",
                 line_width=0.4)  # fmt: skip
    lines = "".join(f"<br>{mode} @{{{mode}}}" for mode in modes)
    plot.add_tools(HoverTool(tooltips=_TOOLTIP % lines, attachment="horizontal", limit=4))
    plot.axis.visible = False
    plot.grid.visible = False
    plot.toolbar.logo = None
    buttons = RadioButtonGroup(labels=modes, active=0, name="colours")
    slider = Slider(start=1, end=max(2, len(epochs)), value=1, step=1, title="epoch", name="epoch", width=300,
                    visible=len(epochs) > 1)  # fmt: skip
    text = {"disable_math": True, "width": 760}
    caption = Div(text=f"{captions[0]}<br>{legends[modes[0]]}", name="caption", **text)
    update = CustomJS(args={"shown": shown, "slider": slider, "buttons": buttons, "caption": caption,
                            "epochs": list(map(ColumnDataSource, epochs)), "captions": list(captions),
                            "legends": legends}, code=_UPDATE)  # fmt: skip
    slider.js_on_change("value", update)
    buttons.js_on_change("active", update)
    heading = Div(text=str(Markup("<h1 style='font-size:1.3em;margin:0'>{}</h1>").format(title)), **text)
    by = Div(text="colour by", disable_math=True, margin=(10, 5, 0, 5))
    return column(heading, row(by, buttons, slider), caption, plot)


def _ends(values: np.ndarray) -> tuple[float, float]:
    margin = 0.04 * np.ptp(values)
    return float(values.min() - margin), float(values.max() + margin)


def _thumbnail(picture: np.ndarray) -> str:
    """An image (H, W, 3) as a small JPEG in a data address; at most 128 pixels high."""
    image, buffer = Image.fromarray(picture), io.BytesIO()
    image.thumbnail((128, 128))
    image.save(buffer, "JPEG", quality=80)
    return f"data:image/jpeg;base64,{base64.b64encode(buffer.getvalue()).decode()}"


def _looks(name: str, labels: np.ndarray, codes: np.ndarray) -> dict[str, np.ndarray]:
    """Labels (N) as columns: themselves, a colour and a marker for each code, in 42 combinations; −1 is grey."""
    return {
        name: labels,
        f"{name} color": np.where(codes < 0, GREY, _COLORS[codes % 6]),
        f"{name} marker": np.where(codes < 0, "dot", _MARKERS[codes % 7]),
    }


def _legend(name: str, values: np.ndarray) -> str:
    """What the colours mean. Of many groups the pointer tells which is which."""
    if len(values) > 6:
        return f"A colour and shape for each {name}; they repeat. Grey: none."
    codes = values if values.dtype.kind == "i" else np.arange(len(values))
    dot = Markup('<span style="color:{}">&#9679;</span>&nbsp;{}')
    return " ".join(map(dot.format, _looks("", values, codes)[" color"], values))
