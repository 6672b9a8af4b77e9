"""Image files: finding them below a data set's root without ever leaving it, and decoding them."""

from __future__ import annotations

import os
import posixpath
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

from mmtlib import InputError

IMAGE_SUFFIXES = frozenset({".jpg", ".jpeg", ".png", ".bmp", ".gif", ".webp", ".tif", ".tiff", ".ppm"})
MAX_PIXELS = 50_000_000  # a small file can unpack to gigabytes; pedestrian crops hold a hundredth of this
_FORMATS = ("JPEG", "PNG", "BMP", "GIF", "WEBP", "TIFF", "PPM")  # not EPS: opening one starts Ghostscript


def is_image_name(name: str) -> bool:
    """Whether a file is called like an image. macOS's `._0002_c1.jpg` holds file attributes, not an image."""
    return not name.startswith(".") and os.path.splitext(name)[1].lower() in IMAGE_SUFFIXES


def shown(name: object) -> str:
    """A file's name for a message: in quotes and with escapes where it holds what does not print, as a line break."""
    return text if (text := str(name)).isprintable() else repr(text)


def some(items: Sequence[object], limit: int = 10, separator: str = ", ") -> str:
    """The first `limit` items for a message, and how many more there are."""
    rest = [f"… and {len(items) - limit} more"] if len(items) > limit else []
    return separator.join([shown(item) for item in items[:limit]] + rest)


def list_images(root: Path, folder: str) -> list[str]:
    """Paths of the images directly in `root/folder`, relative to `root`, sorted.

    Raises:
        InputError: the folder or an image is a link that leads out of `root`.
    """
    _refuse(root, [folder] if _leaves(root, folder) else [])
    with os.scandir(root / folder) as entries:
        linked = {f"{folder}/{e.name}": e.is_symlink() for e in entries if is_image_name(e.name)}
    _refuse(root, [path for path in linked if linked[path] and _leaves(root, path)])
    return sorted(linked)


def walk_images(root: Path) -> Iterator[str]:
    """Paths of all images below `root`, relative to it; linked and hidden folders are not entered."""
    for parent, folders, names in os.walk(root):
        folders[:] = sorted(name for name in folders if not name.startswith((".", "__MACOSX")))
        folder = Path(parent).relative_to(root)
        paths = [(folder / name).as_posix() for name in sorted(names) if is_image_name(name)]
        _refuse(root, [path for path in paths if os.path.islink(root / path) and _leaves(root, path)])
        yield from paths


def inside(root: Path, paths: Iterable[str]) -> list[str]:
    """Normalise listed paths and make sure that each is a file below `root`.

    Every folder is read once, so a list of 100,000 files takes about a second.

    Raises:
        InputError: a path is absolute, leads out of `root` (by `..` or by a link), or no such file exists.
    """
    paths = [posixpath.normpath(path) for path in paths]
    _refuse(root, [path for path in paths if os.path.isabs(path) or path.split("/")[0] == ".."])
    folders = sorted({posixpath.dirname(path) for path in paths})
    _refuse(root, [folder for folder in folders if _leaves(root, folder)])
    linked: dict[str, bool] = {}
    for folder in folders:
        if os.path.isdir(root / folder):
            with os.scandir(root / folder) as entries:
                files = (entry for entry in entries if not entry.is_dir())
                linked.update((posixpath.join(folder, file.name), file.is_symlink()) for file in files)
    missing = [path for path in paths if path not in linked]
    if missing:
        raise InputError(f"{root}: {len(missing)} of {len(paths)} listed files are missing: {some(missing)}.")
    _refuse(root, [path for path in paths if linked[path] and _leaves(root, path)])
    return paths


def subfolders(folder: Path) -> list[Path]:
    """Folders in a folder, sorted, without hidden ones and the archive leftovers of macOS."""
    with os.scandir(folder) as entries:
        names = sorted(e.name for e in entries if e.is_dir() and os.access(e.path, os.R_OK | os.X_OK))
    return [folder / name for name in names if not name.startswith((".", "__MACOSX"))]


def first_entry(path: Path) -> str:
    """The name of some image in a folder, or the first line of a file; empty when there is none."""
    if path.is_dir():
        with os.scandir(path) as entries:
            return next((entry.name for entry in entries if is_image_name(entry.name)), "")
    with path.open(encoding="utf-8-sig", errors="replace") as stream:
        return stream.readline(1000)


def tree(folder: Path, depth: int = 2, limit: int = 8) -> str:
    """Draw the folders below `folder`, each with its number of files and one file's name, for messages."""

    def lines(at: Path, level: int) -> Iterator[str]:
        with os.scandir(at) as entries:
            names = sorted(entry.name for entry in entries if not entry.is_dir())
        below = subfolders(at)
        what = f"{len(names)} files, such as {names[-1]}" if names else "no files"
        yield f"{'  ' * level}{at.name}/  ({what})"
        if level < depth:
            for child in below[:limit]:
                yield from lines(child, level + 1)
            if len(below) > limit:
                yield f"{'  ' * (level + 1)}… and {len(below) - limit} more folders"

    return "\n".join(lines(folder, 0))


def read_image(path: str | Path, height: int, width: int, *, fast: bool = False) -> np.ndarray:
    """Decode one image and resize it (bicubic, as the authors do): content decides the format, EXIF the rotation.

    Animations give their first frame, transparency is laid over white, 16 bits are scaled to 8.

    Args:
        path: the file.
        height: rows of the result, H.
        width: columns of the result, W.
        fast: let JPEG decode at a lower resolution near H x W; quicker, but not the same pixels.

    Returns:
        The image (H, W, 3), uint8, RGB.

    Raises:
        InputError: the reason why it cannot be read (without the file's name).
    """
    try:
        with Image.open(path, formats=_FORMATS) as image:
            if image.width * image.height > MAX_PIXELS:
                raise InputError(f"{image.width} x {image.height} pixels, the limit is {MAX_PIXELS:,}")
            if fast:
                image.draft("RGB", (width, height))
            upright = ImageOps.exif_transpose(image) if image.getexif().get(0x0112, 1) != 1 else image
            rgb = _to_rgb(upright)
            if rgb.size != (width, height):
                rgb = rgb.resize((width, height), Image.Resampling.BICUBIC)
            return np.asarray(rgb)
    except InputError:
        raise
    except Exception as error:  # decoders of damaged files raise anything, from OSError to SyntaxError
        raise InputError(_reason(path, error)) from error


def _to_rgb(image: Image.Image) -> Image.Image:
    if image.mode == "RGB":
        image.load()
        return image
    if image.mode == "F":
        raise InputError("floating-point pixels have no known range; save it as 8-bit RGB")
    if image.mode.startswith("I"):  # convert("RGB") would clip 16-bit values at 255 and turn the image white
        values = np.asarray(image.convert("I"))
        if values.min() < 0 or values.max() > 65535:
            raise InputError("32-bit pixels have no known range; save it as 8-bit RGB")
        image = Image.fromarray(((values + 128) // 257).astype(np.uint8))
    if image.has_transparency_data:
        rgba = image.convert("RGBA")
        return Image.alpha_composite(Image.new("RGBA", rgba.size, "white"), rgba).convert("RGB")
    return image.convert("RGB")


def _reason(path: str | Path, error: Exception) -> str:
    if isinstance(error, FileNotFoundError):
        return "no such file"
    if os.path.isfile(path) and os.path.getsize(path) == 0:
        return "the file is empty"
    if isinstance(error, UnidentifiedImageError):
        return f"not an image in a known format ({', '.join(_FORMATS)})"
    return f"{type(error).__name__}: {error}"


def _leaves(root: Path, path: str) -> bool:
    """Whether a path, with all links followed, lies outside `root`."""
    real, home = os.path.realpath(root / path), os.path.realpath(root)
    return real != home and not real.startswith(os.path.join(home, ""))


def _refuse(root: Path, paths: Sequence[str]) -> None:
    if paths:
        raise InputError(
            f"{len(paths)} paths lead out of {root} or are absolute: {some(paths)}. A data set must lie "
            "in its folder: copy the files into it, or name the folder that really holds them."
        )
