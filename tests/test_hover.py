"""The hover page: seen working in a browser without a network, with names that would break a careless page."""

from __future__ import annotations

import json
import shutil
import subprocess

import numpy as np
import pytest
from browser import CHROMIUM, visit

from mmtlib import InputError
from mmtlib.figures import hover
from mmtlib.noise.measures import label_flow

EVIL = ["</script><script>throw Error('name')</script>", '"><img src=x onerror=throw>', "ä & ü.jpg"]
TITLE = "Station <b>& co</b> $$x^2$$ </title></script>"


def world(count: int = 60, epochs: int = 3) -> dict:
    rng = np.random.default_rng(0)
    labels = {
        "cluster": rng.integers(-1, 6, (epochs, count)),
        "identity": np.arange(count) % 7 + 100,
        "camera": np.arange(count) % 3 + 1,
        "label": np.array([["right"] * count, *rng.choice(["left out", "right", "wrong"], (epochs - 1, count))]),
    }
    return {
        "title": TITLE,
        "maps": rng.normal(size=(epochs, count, 2)),
        "images": rng.integers(0, 256, (count, 3, 16, 8), dtype=np.uint8),
        "names": [*EVIL, *(f"{i:04d}.jpg" for i in range(count - len(EVIL)))],
        "labels": labels,
        "captions": [f"NMI 0.{i}" for i in range(epochs)],
    }


def test_without_bokeh_the_message_names_the_remedy(tmp_path, monkeypatch):
    monkeypatch.setattr(hover, "find_spec", lambda name: None)
    with pytest.raises(InputError, match="make install WITH=hover"):
        hover.write_hover_page(tmp_path / "map.html", **world())


def test_arrays_that_do_not_fit_are_refused(tmp_path):
    pytest.importorskip("bokeh")
    for change in ({"labels": {"cluster": np.zeros((2, 60), int)}}, {"names": ["a"]}, {"captions": ["a"]}):
        with pytest.raises(InputError, match="expected maps"):
            hover.write_hover_page(tmp_path / "map.html", **world() | change)


def test_everything_is_inside_the_page(tmp_path):
    pytest.importorskip("bokeh")
    page = hover.write_hover_page(tmp_path / "map.html", **world()).read_text(encoding="utf-8")
    assert page.count("data:image/jpeg;base64,") == 60
    assert "https://" not in page.split("</head>")[0].split("<script")[0], "nothing is loaded"


def test_the_script_shows_the_epoch_and_the_colours_that_are_asked_for(tmp_path, monkeypatch):
    """The page's own script, run by Node on plain objects in the place of Bokeh's."""
    bokeh = pytest.importorskip("bokeh.models")
    if not (node := shutil.which("node")):
        pytest.skip("Node is not installed")
    parts, layout, given = [], hover._layout, world()
    monkeypatch.setattr(hover, "_layout", lambda *columns: parts.extend(columns) or layout(*columns))
    hover.write_hover_page(tmp_path / "map.html", **given)
    update = layout(*parts).select_one({"type": bokeh.Slider}).js_property_callbacks["change:value"][0]
    plain = {name: [each.data for each in value] if name == "epochs" else value for name, value in update.args.items()}
    plain |= {"shown": update.args["shown"].data, "labels": update.args["buttons"].labels}
    plain = {name: plain[name] for name in ("shown", "epochs", "captions", "legends", "labels")}
    script = f"""const given = {json.dumps(plain, default=lambda value: value.tolist())}
    const {{captions, legends}} = given, epochs = given.epochs.map((data) => ({{data}}))
    const shown = {{data: given.shown}}, caption = {{}}, slider = {{}}, buttons = {{labels: given.labels}}
    const seen = []
    for (slider.value of [1, 2, 3]) for (buttons.active of [0, 1, 2, 3]) {{ {update.code}
      seen.push({{...shown.data, caption: caption.text}}) }}
    console.log(JSON.stringify(seen))"""
    seen = json.loads(subprocess.run([node], input=script, capture_output=True, text=True, check=True).stdout)
    named = given["labels"]["cluster"][0]
    for epoch, modes in enumerate(zip(*[iter(seen)] * 4)):
        named = label_flow(named, given["labels"]["cluster"][epoch]).renamed if epoch else named
        groups = [named, *(given["labels"][name] for name in ("identity", "camera", "label"))]
        groups[3] = groups[3][epoch]
        for each, group in zip(modes, groups):
            assert np.allclose(each["x"], given["maps"][epoch, :, 0]) and each["cluster"] == named.tolist()
            assert each["caption"].startswith(f"NMI 0.{epoch}<br>")
            looks = list(zip(each["color"], each["marker"]))
            assert len(set(looks)) == len(set(group)) == len(set(zip(group, looks))), "a look per group"
            assert group.dtype.kind != "i" or all((g == -1) == (m == "dot") for g, (_, m) in zip(group, looks))
        right = {c for c, word in zip(modes[3]["color"], groups[3]) if word == "right"}
        assert right == {hover._COLORS[1]}, "a word keeps its colour, whichever words an epoch lacks"


PROBE = """
const doc = Bokeh.documents[0]
const get = (name) => doc.get_model_by_name(name)
const look = () => ({x: Array.from(get('shown').data.x), color: get('shown').data.color,
  marker: get('shown').data.marker, cluster: Array.from(get('shown').data.cluster),
  label: Array.from(get('shown').data.label), caption: get('caption').text})
const seen = {start: look(), modes: get('colours').labels, evil: typeof window.evil, title: document.title,
  names: get('shown').data.name.slice(0, 3), canvases: 0}
const moment = () => new Promise((done) => setTimeout(done, 200))
get('epoch').value = 3
await moment()
seen.third = look()
for (const mode of seen.modes) {
  get('colours').active = seen.modes.indexOf(mode)
  await moment()
  seen[mode] = look()
}
const deep = (node) => [node, ...Array.from(node.querySelectorAll('*'))].flatMap(
  (n) => n.shadowRoot ? [n, ...deep(n.shadowRoot)] : [n])
const view = Bokeh.index.find_one(get('map'))
const area = view.canvas_view.events_el, box = area.getBoundingClientRect()
const x = view.frame.x_scale.compute(get('shown').data.x[0]), y = view.frame.y_scale.compute(get('shown').data.y[0])
for (const kind of ['pointerover', 'pointermove']) {
  area.dispatchEvent(new PointerEvent(kind, {clientX: box.x + x, clientY: box.y + y, bubbles: true, composed: true,
    isPrimary: true, pointerType: 'mouse'}))
}
await moment()
const tips = deep(document).filter((n) => n.classList?.contains('bk-Tooltip')).flatMap((n) => deep(n))
seen.tip = tips.filter((n) => n.tagName == 'B').map((n) => n.textContent)
seen.thumbnail = tips.filter((n) => n.tagName == 'IMG').map((n) => [n.naturalWidth, n.naturalHeight])
seen.canvases = deep(document).filter((n) => n.tagName == 'CANVAS').length
seen.text = deep(document).filter((n) => n.tagName == 'H1').map((n) => n.textContent)
return seen
"""


@pytest.mark.slow
@pytest.mark.skipif(CHROMIUM is None, reason="Chromium is not installed")
def test_the_page_works_in_a_browser_offline(tmp_path):
    pytest.importorskip("bokeh")
    given = world()
    page = hover.write_hover_page(tmp_path / "map.html", **given)
    told = visit(page, PROBE, tmp_path / "profile")
    assert told["errors"] == [] and told["refused"] == [] and told["images"] == []
    seen, labels = told["value"], given["labels"]
    assert seen["names"] == EVIL and seen["title"] == TITLE and seen["text"] == [TITLE]
    assert EVIL[0] in seen["tip"] and seen["thumbnail"][0] == [8, 16], "the pointer shows the image"
    assert seen["canvases"] > 0 and seen["modes"] == list(labels)
    assert np.allclose(seen["start"]["x"], given["maps"][0, :, 0], atol=1e-6)
    assert np.allclose(seen["third"]["x"], given["maps"][2, :, 0], atol=1e-6)
    renamed = labels["cluster"][0]
    for later in labels["cluster"][1:]:
        renamed = label_flow(renamed, later).renamed
    assert seen["third"]["cluster"] == renamed.tolist() and "NMI 0.2" in seen["third"]["caption"]
    assert seen["third"]["label"] == labels["label"][2].tolist()
    looks = {mode: list(zip(seen[mode]["color"], seen[mode]["marker"])) for mode in seen["modes"]}
    last = {"cluster": renamed, "label": labels["label"][2]}
    for mode, groups in (labels | last).items():
        assert len(set(zip(groups.tolist(), looks[mode]))) == len(set(groups.tolist())) == len(set(looks[mode])), mode
    assert "3" in seen["camera"]["caption"] and "wrong" in seen["label"]["caption"]


@pytest.mark.slow
@pytest.mark.skipif(CHROMIUM is None, reason="Chromium is not installed")
def test_one_epoch_needs_no_slider(tmp_path):
    pytest.importorskip("bokeh")
    page = hover.write_hover_page(tmp_path / "map.html", **world(epochs=1))
    script = "return Bokeh.documents[0].get_model_by_name('epoch').visible"
    told = visit(page, script, tmp_path / "profile")
    assert told["errors"] == [] and told["value"] is False
