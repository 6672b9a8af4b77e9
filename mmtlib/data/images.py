"""Image files: finding them below a data set's root without ever leaving it, and decoding them."""

import importlib.util
import os
import posixpath
import textwrap
import warnings
from collections import Counter
from collections.abc import Iterable, Iterator
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

from mmtlib import InputError
from mmtlib.files import shown, some

Image.init()
if importlib.util.find_spec("pillow_heif"):
    importlib.import_module("pillow_heif").register_heif_opener()
# Not EPS (opening one starts Ghostscript), nor formats without a signature of their own (TGA, PCX)
_NAMES = "JPEG PNG BMP GIF WEBP TIFF PPM AVIF JPEG2000 PSD QOI SGI HEIF".split()
_FORMATS = tuple(name for name in _NAMES if name in Image.OPEN)
_READ = {suffix for suffix, name in Image.registered_extensions().items() if name in (*_FORMATS, "MPO")}
_PHONES = frozenset({".heic", ".heif", ".hif"})
_RAW = frozenset(".dng .cr2 .cr3 .nef .arw .raf .orf .rw2".split())  # TIFF holds only a thumbnail
IMAGE_SUFFIXES = frozenset({*_READ, *_PHONES, *_RAW, ".jxl", ".tga", ".pcx"})
MAX_PIXELS = 50_000_000  # a small file can unpack to gigabytes; pedestrian crops hold a hundredth of this


def is_image_name(name: str) -> bool:
    """Whether a file is called like an image. macOS's `._0002_c1.jpg` holds file attributes, not an image."""
    return not name.startswith(".") and os.path.splitext(name)[1].lower() in IMAGE_SUFFIXES


def is_image(file: str | Path) -> bool:
    """Whether a file is called like an image, or is one by its content whatever it is called."""
    name = os.path.basename(file)
    if is_image_name(name) or name.startswith(".") or not os.path.isfile(file):
        return is_image_name(name)
    try:
        with warnings.catch_warnings(action="ignore"), Image.open(file, formats=_FORMATS):
            return True
    except UnidentifiedImageError:
        return _is_heic(file)
    except Image.DecompressionBombError:
        return True  # to be named when it is decoded
    except Exception:  # as for a text that starts like a picture
        return False


def list_images(root: Path, folder: str) -> list[str]:
    """Paths of the images directly in `root/folder`, relative to `root`, sorted; images below it are refused."""
    _refuse_leaving(root, [folder])
    paths = [posixpath.join(folder, name) for name in sorted(os.listdir(root / folder))]
    paths = [path for path in paths if not os.path.isdir(root / path) and is_image(root / path)]
    _refuse_leaving(root, [path for path in paths if os.path.islink(root / path)])
    if below := some([child.name for child in subfolders(root / folder) if walk_images(child)]):
        raise InputError(f"{root / folder} holds folders with images ({below}): put these into it itself.")
    return paths


def walk_files(root: Path) -> Iterator[str]:
    """Paths of all files below `root`, relative to it, without hidden ones; linked folders within it are followed.

    Links that lead out of it, or in a circle, are refused.
    """

    def cannot(error: OSError) -> None:
        raise error

    for parent, folders, names in os.walk(root, onerror=cannot, followlinks=True):
        folders[:] = sorted(name for name in folders if not name.startswith((".", "__MACOSX")))
        here = Path(parent).relative_to(root)
        links = [(here / name).as_posix() for name in folders if os.path.islink(os.path.join(parent, name))]
        _refuse_leaving(root, links)
        for link in links:
            if os.path.realpath(root / link) in map(os.path.realpath, (root / link).parents):
                raise InputError(f"{root}: {shown(link)} links to a folder that holds it. Remove the link.")
        yield from ((here / name).as_posix() for name in sorted(names) if not name.startswith("."))


def walk_images(root: Path) -> list[str]:
    """Paths of all images below `root`, as `walk_files` gives them, sorted; by name or by content."""
    paths = sorted(path for path in walk_files(root) if is_image(root / path))
    _refuse_leaving(root, [path for path in paths if os.path.islink(root / path)])
    return paths


def inside(root: Path, paths: Iterable[str]) -> list[str]:
    """Normalise listed paths and refuse those that are no files below `root`, or lead out of it by `..` or a link."""
    paths = [posixpath.normpath(path) for path in paths]
    _refuse_leaving(root, sorted({posixpath.dirname(path) for path in paths}))
    files = {path: os.path.join(root, path) for path in paths}
    _refuse_leaving(root, [path for path in paths if os.path.islink(files[path])])
    if missing := [path for path in paths if not os.path.isfile(files[path])]:
        raise InputError(f"{root}: {len(missing)} of {len(paths)} listed files are missing: {some(missing)}.")
    return paths


def subfolders(folder: Path) -> list[Path]:
    """Folders in a folder, sorted, without hidden ones and the archive leftovers of macOS."""
    with os.scandir(folder) as entries:
        names = sorted(e.name for e in entries if e.is_dir() and os.access(e.path, os.R_OK | os.X_OK))
    return [folder / name for name in names if not name.startswith((".", "__MACOSX"))]


def tree(folder: Path, depth: int = 2, limit: int = 8) -> str:
    """Draw the folders below `folder`, each with its number of files and one file's name, for messages."""
    with os.scandir(folder) as entries:
        names = sorted(entry.name for entry in entries if not entry.is_dir())
    what = f"{len(names)} files, such as {names[-1]}" if names else "no files"
    below = subfolders(folder) if depth else []
    rest = [f"… and {len(below) - limit} more folders"] if len(below) > limit else []
    parts = [tree(child, depth - 1, limit) for child in below[:limit]] + rest
    return "\n".join([f"{folder.name}/  ({what})", *(textwrap.indent(part, "  ") for part in parts)])


def read_image(path: str | Path, height: int, width: int, *, fast: bool = False) -> np.ndarray:
    """Decode one image and resize it (bicubic, as the authors do): content decides the format, EXIF the rotation.

    Animations give their first frame, transparency is laid over white, 12 and 16 bits are scaled to 8.

    Args:
        height, width: of the result (H, W, 3), uint8, RGB.
        fast: let JPEG decode at a lower resolution near H x W; quicker, but not the same pixels.

    Raises:
        InputError: the reason why it cannot be read (without the file's name).
    """
    try:
        if os.path.splitext(path)[1].lower() in _RAW:
            raise InputError("a camera's raw file; save it as JPEG or PNG")
        with Image.open(path, formats=_FORMATS) as image:
            if image.width * image.height > MAX_PIXELS:
                raise InputError(f"{image.width} x {image.height} pixels, the limit is {MAX_PIXELS:,}")
            if fast:
                image.draft("RGB", (width, height))
            rgb = _eight_bits(image)
            if rgb.mode != "RGB" and rgb.has_transparency_data:
                rgba = rgb.convert("RGBA")
                rgb = Image.alpha_composite(Image.new("RGBA", rgba.size, "white"), rgba)
            rgb = rgb if rgb.mode == "RGB" else rgb.convert("RGB")
            if (orientation := image.getexif().get(0x0112, 1)) != 1:  # once loaded: TIFF turns itself
                rgb.getexif()[0x0112] = orientation
                rgb = ImageOps.exif_transpose(rgb)
            if rgb.size != (width, height):
                rgb = rgb.resize((width, height), Image.Resampling.BICUBIC)
            return np.asarray(rgb)
    except InputError:
        raise
    except Exception as error:  # decoders of damaged files raise anything, from OSError to SyntaxError
        raise InputError(_reason(path, error)) from error


def _eight_bits(image: Image.Image) -> Image.Image:
    """The image with 8 bits a channel; deeper ones are scaled by the range that their format states."""
    tags = image.tag_v2 if image.format == "TIFF" else {}
    deep = any(";16" in str(tile) for tile in image.tile)
    if image.mode == "F" or (image.mode == "I" and image.format not in ("PNG", "PPM")):
        kind = "floating-point" if image.mode == "F" else "32-bit or signed"
        raise InputError(f"{kind} pixels have no known range; save it as 8-bit RGB")
    image.load()
    if not image.mode.startswith("I"):  # colour: Pillow has kept the upper 8 of 16 bits
        if deep and image.mode in ("RGB", "LA", "RGBA"):
            bands = image.getextrema()[: 1 if image.mode == "LA" else 3]
            _refuse_dark(max(high for _, high in bands) << 8 or 255)
        return image
    values = np.asarray(image).astype(np.int64)  # convert("RGB") would clip them at 255
    largest = 4095 if tags.get(258) == (12,) else 65535
    if largest == 65535 and image.format in ("PNG", "TIFF"):
        _refuse_dark(int(values.max()))
    if tags.get(262) == 0:  # white is zero: Pillow minds it up to 8 bits only
        values = largest - values
    return Image.fromarray(((values * 510 + largest) // (2 * largest)).astype(np.uint8))


def _refuse_dark(largest: int) -> None:
    if 0 < largest < 1 << 14:
        raise InputError(
            f"its 16-bit values stay below {1 << max(8, largest.bit_length()):,}, as of a camera with fewer bits, and "
            "would be nearly black; stretch the whole collection to 16 bits, or save it as 8-bit RGB"
        )


def _is_heic(path: str | Path) -> bool:
    """By the brand in a file's first bytes (ISO 14496-12)."""
    with open(path, "rb") as stream:
        head = stream.read(12)
    return head[4:8] == b"ftyp" and head[8:] in b"heic heix heim hevc heif mif1 msf1".split()


def _reason(path: str | Path, error: Exception) -> str:
    if isinstance(error, FileNotFoundError):
        return "no such file"
    if os.path.isfile(path) and os.path.getsize(path) == 0:
        return "the file is empty"
    if isinstance(error, UnidentifiedImageError):
        suffix = os.path.splitext(path)[1].lower()
        if suffix == ".jxl":
            return "JPEG XL, which Pillow cannot read; save it as JPEG or PNG"
        if suffix in _PHONES or _is_heic(path):
            return "HEIC, which Pillow reads with a plug-in (pip install pillow-heif); or save it as JPEG or PNG"
        return f"not an image in a known format ({', '.join(_FORMATS)})"
    return f"{type(error).__name__}: {error}"


def _refuse_leaving(root: Path, paths: Iterable[str]) -> None:
    """Refuse paths that are absolute or, with all links followed, lie outside `root`."""
    home = os.path.realpath(root)
    real = {path: os.path.join(os.path.realpath(root / path), "") for path in paths}
    if out := [p for p in real if os.path.isabs(p) or not real[p].startswith(os.path.join(home, ""))]:
        raise InputError(
            f"{len(out)} paths lead out of {root} or are absolute: {some(out)}. A data set must lie "
            "in its folder: copy the files into it, or name the folder that really holds them."
        )


def refuse_repeats(source: str | Path, paths: Iterable[str], where: str) -> None:
    """Refuse a list that names an image twice."""
    if twice := sorted(path for path, count in Counter(paths).items() if count > 1):
        raise InputError(f"{source}: {len(twice)} images are listed twice{where}: {some(twice)}.")
