"""The hover page: seen working in a browser without a network, with names that would break a careless page."""

from __future__ import annotations

import sys

import numpy as np
import pytest
from browser import CHROMIUM, visit

from mmtlib import InputError
from mmtlib.figures import hover
from mmtlib.noise.measures import label_flow, wrong_labels

EVIL = ["</script><script>throw Error('name')</script>", '"><img src=x onerror=throw>', "ä & ü.jpg"]
TITLE = "Station <b>& co</b> $$x^2$$ </title></script>"


def world(count: int = 60, epochs: int = 3) -> dict:
    rng = np.random.default_rng(0)
    clusters = rng.integers(-1, 6, (epochs, count))
    return {
        "maps": rng.normal(size=(epochs, count, 2)),
        "images": rng.integers(0, 256, (count, 3, 16, 8), dtype=np.uint8),
        "clusters": clusters,
        "pids": np.arange(count) % 7 + 100,
        "camids": np.arange(count) % 3,
        "names": [*EVIL, *(f"{i:04d}.jpg" for i in range(count - len(EVIL)))],
    }


def test_without_bokeh_the_message_names_the_remedy(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "bokeh", None)
    monkeypatch.setitem(sys.modules, "bokeh.embed", None)
    with pytest.raises(InputError, match="make install WITH=hover"):
        hover.write_hover_page(tmp_path / "map.html", **world(), title="map")


def test_arrays_that_do_not_fit_are_refused(tmp_path):
    pytest.importorskip("bokeh")
    for change in ({"clusters": np.zeros((2, 60), int)}, {"names": ["a"]}, {"pids": np.zeros(3, int)}):
        with pytest.raises(InputError, match="expected maps"):
            hover.write_hover_page(tmp_path / "map.html", **world() | change, title="map")


def test_large_sets_are_sampled_and_the_page_says_so(tmp_path, monkeypatch):
    pytest.importorskip("bokeh")
    monkeypatch.setattr(hover, "LIMIT", 20)
    page = hover.write_hover_page(tmp_path / "map.html", **world(), title="map").read_text(encoding="utf-8")
    assert page.count("data:image/jpeg;base64,") == 20 and "20 of 60 images are shown" in page
    assert "https://" not in page.split("</head>")[0].split("<script")[0], "nothing is loaded"


def test_some_images_on_the_maps_and_the_numbers_of_all(tmp_path, monkeypatch):
    pytest.importorskip("bokeh")
    given, shown, layout, drawn = world(), np.array([5, 3, 40]), hover._layout, []
    monkeypatch.setattr(hover, "_layout", lambda *parts: drawn.extend(parts) or layout(*parts))
    given["maps"] = given["maps"][:, shown]
    hover.write_hover_page(tmp_path / "map.html", **given, title="map", shown=shown)
    _, per_epoch, _, texts, facts, *_ = drawn
    assert texts["name"] == [given["names"][i] for i in shown] and "3 of 60 images are shown" in facts[0]
    wrong = wrong_labels(given["clusters"][0], given["pids"])[shown]
    left_out = given["clusters"][0][shown] < 0
    assert per_epoch["error"][0].tolist() == np.where(left_out, 2, wrong).tolist(), "judged among all images"
    with pytest.raises(InputError, match="shown"):
        hover.write_hover_page(tmp_path / "map.html", **given, title="map", shown=shown[:2])


PROBE = """
const doc = Bokeh.documents[0]
const get = (name) => doc.get_model_by_name(name)
const look = () => ({x: Array.from(get('shown').data.x), color: get('shown').data.color,
  marker: get('shown').data.marker, cluster: Array.from(get('shown').data.cluster),
  error: get('shown').data.error_name, caption: get('caption').text})
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
    page = hover.write_hover_page(tmp_path / "map.html", **given, title=TITLE)
    told = visit(page, PROBE, tmp_path / "profile")
    assert told["errors"] == [] and told["refused"] == [] and told["images"] == []
    seen = told["value"]
    assert seen["names"] == EVIL and seen["title"] == TITLE and seen["text"] == [TITLE]
    assert EVIL[0] in seen["tip"] and seen["thumbnail"][0] == [8, 16], "the pointer shows the image"
    assert seen["canvases"] > 0 and seen["modes"] == ["identity", "cluster", "camera", "error"]
    assert np.allclose(seen["start"]["x"], given["maps"][0, :, 0], atol=1e-6)
    assert np.allclose(seen["third"]["x"], given["maps"][2, :, 0], atol=1e-6)
    renamed = given["clusters"][0]
    for later in given["clusters"][1:]:
        renamed = label_flow(renamed, later).renamed
    assert seen["third"]["cluster"] == renamed.tolist() and "NMI" in seen["third"]["caption"]
    left_out, wrong = renamed < 0, wrong_labels(given["clusters"][2], given["pids"])
    says = np.select([left_out, wrong], ["left out", "wrong"], "right")
    assert seen["third"]["error"] == says.tolist()
    looks = {mode: list(zip(seen[mode]["color"], seen[mode]["marker"])) for mode in seen["modes"]}
    for mode, groups in {"identity": given["pids"], "camera": given["camids"], "error": says,
                         "cluster": renamed}.items():  # fmt: skip
        assert len(set(zip(groups.tolist(), looks[mode]))) == len(set(groups.tolist())), (
            f"{mode}: a look per group"
        )
        assert len(set(looks[mode])) == len(set(groups.tolist())), f"{mode}: groups look different"
    assert "camera 3" in seen["camera"]["caption"] and "wrong" in seen["error"]["caption"]


@pytest.mark.slow
@pytest.mark.skipif(CHROMIUM is None, reason="Chromium is not installed")
def test_without_labels_the_page_says_what_can_be_said(tmp_path):
    pytest.importorskip("bokeh")
    page = hover.write_hover_page(tmp_path / "map.html", **world(epochs=1) | {"pids": None}, title="map")
    script = "const doc = Bokeh.documents[0]; return [doc.get_model_by_name('colours').labels, " \
             "doc.get_model_by_name('epoch').visible, doc.get_model_by_name('caption').text]"  # fmt: skip
    told = visit(page, script, tmp_path / "profile")
    assert told["errors"] == [] and told["value"][:2] == [["cluster", "camera"], False]
    assert "NMI" not in told["value"][2] and "clusters" in told["value"][2]
