"""`mmt search`: rank lists as a table, and as one page with their pictures."""

import io
from pathlib import Path

import pandas as pd
import torch
from markupsafe import Markup
from PIL import Image
from torch import Tensor
from torch.nn import functional as F

from mmtlib.config import Settings
from mmtlib.data.tables import write_table
from mmtlib.data.tasks import load_images
from mmtlib.features import Features
from mmtlib.figures.pictures import overlaid
from mmtlib.figures.style import html_image
from mmtlib.files import shown, write_atomic, write_json
from mmtlib.networks import open_network
from mmtlib.pages.parts import render
from mmtlib.similarity_maps import similarity_maps

SHOWN = 30  # queries on the page; the table has all of them
HEIGHT = 128  # pixels of a picture on the page


def write_search_page(
    known: Features, ranks: pd.DataFrame, out: Path, command: str, note: str, explain: Path | None = None
) -> Path:
    """Write `ranks.csv`, `search.json` (what was searched, and how) and `search.html` into a folder.

    Args:
        ranks: Of `features.search` in what is `known`.
        command, note: How this was asked for, and what was left out of the answers; the page says both.
        explain: The weights of `known`, to show for each answer where it and the query are alike; None: do not.
    """
    about, settings = known.about, known.about["settings"]
    queries = ranks["query"].unique()
    listed = ranks[ranks["query"].isin(queries[:SHOWN])]
    paths = pd.unique(pd.concat([listed["query"], listed["path"]])).tolist()
    width = max(1, HEIGHT * settings["width"] // settings["height"])  # as the network sees it
    pictures = dict(zip(paths, load_images(about["data"]["root"], paths, HEIGHT, width)))
    alike = _alike(known, listed, pictures, explain) if explain else {}
    lists = []
    for query in queries[:SHOWN]:
        answers = []
        for row in listed[listed["query"] == query].to_dict("records"):
            image = _image(pictures[row["path"]], f"answer {row['rank']}: {shown(row['path'])}")
            maps, name = alike.get((query, row["path"]), ()), shown(row["path"].rpartition("/")[2])
            known_right = None if row["right"] is pd.NA else bool(row["right"])
            answers.append(row | {"image": image, "maps": maps, "name": name, "right": known_right})
        lead = _image(pictures[query], f"the query {shown(query)}")
        lists.append({"path": shown(query), "image": lead, "answers": answers})
    first = ranks[ranks["rank"] == 1]["right"].dropna()
    splits = ", ".join(f"{n:,} {part}" for part, n in about["splits"].items() if n)
    more = f", the first {SHOWN} shown; ranks.csv has all" if len(queries) > SHOWN else ""
    facts = [
        ("images", f"{len(known.images):,}: {splits}"),
        ("fingerprint of the images", about["data"]["fingerprint"]),
        ("SHA-256 of the weights", about["sha256"]),
        ("queries", f"{len(queries):,}{more}"),
    ]
    if len(first):
        facts.append(("first answer right", f"{first.mean():.1%} of the {len(first):,} where it is known"))
    write_table(out / "ranks.csv", ranks)
    write_json(out / "search.json", {"command": command, "note": note, **about})
    said = {"title": f"Search: {about['data']['name']}", "command": command, "note": note}
    page = render("search.html", facts=facts, lists=lists, explain=explain, **said)
    return write_atomic(out / "search.html", page)


def _alike(
    known: Features, listed: pd.DataFrame, pictures: dict[str, Tensor], weights: Path
) -> dict[tuple[str, str], tuple[Markup, ...]]:
    """Query and answer under their similarity maps, for each pair of the rank lists."""
    settings, pairs = Settings.of(known.about["settings"]), listed[["query", "path"]].to_numpy().T.tolist()
    device, paths = "cuda" if torch.cuda.is_available() else "cpu", list(pictures)
    network = open_network(weights, gain=settings.gain).to(device)
    images = load_images(known.about["data"]["root"], paths, settings.height, settings.width, device)
    place = {path: i for i, path in enumerate(paths)}
    maps = similarity_maps(network, *(images[[place[path] for path in side]] for side in pairs), batch=64)
    sides = []
    for side, each, name in zip(pairs, maps, ("query", "answer")):
        seen = torch.stack([pictures[path] for path in side])
        heat = F.interpolate(each[:, None], seen.shape[2:], mode="bilinear", antialias=True)[:, 0]
        over = torch.from_numpy(overlaid(seen, heat))
        sides.append([_image(one, f"map of the {name} {shown(path)}") for one, path in zip(over, side)])
    return dict(zip(zip(*pairs), zip(*sides)))


def _image(pixels: Tensor, alt: str) -> Markup:
    """An `<img>` that holds a picture (3, H, W)."""
    stream = io.BytesIO()
    Image.fromarray(pixels.permute(1, 2, 0).numpy()).save(stream, format="png")
    return html_image(stream.getvalue(), alt, pixels.shape[2])
