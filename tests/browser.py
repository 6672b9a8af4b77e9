"""Pages judged: by their elements, and opened in a headless Chromium without a network."""

from __future__ import annotations

import html
import json
import re
import shutil
import subprocess
from html.parser import HTMLParser
from pathlib import Path
from typing import Any
from urllib.parse import unquote

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
FLAGS = ("--headless --no-sandbox --disable-gpu --disable-quic --no-first-run --disable-background-networking "
         "--disable-component-update --disable-sync "
         "--virtual-time-budget=20000").split()  # fmt: skip

# Whatever is not a file or inside the page is refused and reported.
_WATCH = """<meta http-equiv="Content-Security-Policy"
content="default-src file: data: blob: 'unsafe-inline' 'unsafe-eval'">
<script>
window.probe = {errors: [], refused: [], value: null}
document.addEventListener('securitypolicyviolation', (e) => probe.refused.push(e.blockedURI))
window.addEventListener('error', (e) => probe.errors.push(
  e.message ?? `cannot load ${e.target.outerHTML.slice(0, 200)}`), true)
window.addEventListener('unhandledrejection', (e) => probe.errors.push(String(e.reason)))
const log = console.error
console.error = (...words) => { probe.errors.push(words.map(String).join(' ')); log(...words) }
</script>"""
_TELL = """<script>
window.addEventListener('load', () => setTimeout(async () => {
  try { probe.value = await (async () => { %s })() } catch (e) { probe.errors.push(String(e.stack ?? e)) }
  probe.images = Array.from(document.images).filter((i) => !i.naturalWidth).map((i) => i.src.slice(0, 200))
  const seen = document.createElement('pre')
  seen.id = 'probe'
  seen.textContent = JSON.stringify(probe)
  document.body.append(seen)
}, 500))
</script>"""


class Elements(HTMLParser):
    """The elements of a page with their attributes, and its text."""

    def __init__(self, page: Path) -> None:
        super().__init__()
        self.found: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""
        self.feed(page.read_text(encoding="utf-8"))

    def handle_starttag(self, tag, attributes):
        self.found.append((tag, dict(attributes)))

    def handle_data(self, data):
        self.text += data


def faults(page: Path) -> list[str]:
    """What a page runs, loads, or links to without it being there: a page for reading offline has none of it."""
    elements = Elements(page)
    found = [f"{rule} in a style" for rule in re.findall(r"@import|url\(", elements.text)]
    for tag, attributes in elements.found:
        if tag in ("script", "iframe", "object", "embed", "base", "link", "form"):
            found.append(f"<{tag}>")
        found += [f"<{tag} {name}>" for name in attributes if name.startswith("on") or name == "srcset"]
        source, link = attributes.get("src"), attributes.get("href")
        if source is not None and not re.match(r"data:image/(png|gif|jpeg);base64,", source):
            found.append(f"<{tag} src={source}>")
        if link is not None and not (re.match(r"#|https://", link) or (page.parent / unquote(link)).exists()):
            found.append(f"<{tag} href={link}>")
        if tag == "img" and not attributes.get("alt"):
            found.append("<img> without alt")
    return found


def visit(page: Path, script: str, profile: Path, picture: Path | None = None,
          size: tuple[int, int] = (900, 1100)) -> dict[str, Any]:  # fmt: skip
    """Open a page, run a script in it when it has loaded, and tell what happened.

    Args:
        page: An HTML file; a copy with the watching script is written beside it.
        script: The body of an async JavaScript function; what it returns must be JSON.
        profile: A folder for the browser's own files.
        picture: Also write a screenshot here, of the page after the script.
        size: Width and height of the window in pixels.

    Returns:
        `value` (what the script returned), `errors` (logged or thrown), `refused` (addresses that are neither files nor
        in the page), `images` (without a picture).
    """
    text = page.read_text(encoding="utf-8")
    head = re.sub(r"(<head[^>]*>)", lambda m: m[0] + _WATCH, text, count=1)
    assert head != text, f"{page.name} has no head"
    copy = page.with_name(f"probe_{page.name}")
    copy.write_text(head + _TELL.replace("%s", script), encoding="utf-8")
    common = [
        CHROMIUM,
        *FLAGS,
        f"--window-size={size[0]},{size[1]}",
        "--host-resolver-rules=MAP * ~NOTFOUND",
        f"--user-data-dir={profile}",
    ]
    try:
        if picture is not None:
            subprocess.run([*common, f"--screenshot={picture}", copy.as_uri()], check=True, capture_output=True)
        done = subprocess.run([*common, "--dump-dom", copy.as_uri()], capture_output=True, text=True, timeout=300)
    finally:
        copy.unlink()
    found = re.search(r'<pre id="probe">(.*?)</pre>', done.stdout, re.DOTALL)
    assert found, f"the script of {page.name} did not end: {done.stderr[-2000:]}"
    return json.loads(html.unescape(found[1]))
