from __future__ import annotations

import random
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from mmtlib import InputError
from mmtlib.batches import IMAGENET_MEAN, IMAGENET_STD, augment, identity_batches, normalise
from mmtlib.data.tasks import load_images

DEVICES = ["cpu", *(["cuda"] if torch.cuda.is_available() else [])]


def random_images(batch: int, height: int, width: int, seed: int = 0) -> torch.Tensor:
    values = np.random.default_rng(seed).integers(1, 256, (batch, 3, height, width), dtype=np.uint8)
    return torch.from_numpy(values)


def load_one(path: Path, height: int = 8, width: int = 4) -> np.ndarray:
    return load_images(path.parent, [path.name], height, width)[0].permute(1, 2, 0).numpy()


# --- load_images --------------------------------------------------------------------------------


def test_images_are_resized_whatever_the_number_of_threads(tmp_path, monkeypatch):
    rng = np.random.default_rng(0)
    sources = [
        Image.fromarray(rng.integers(0, 256, (int(h), int(w), 3), dtype=np.uint8))
        for h, w in rng.integers(1, 60, (150, 2))
    ]
    names = [f"sub {i % 3}/{i}.png" for i in range(150)]
    for name, source in zip(names, sources):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        source.save(tmp_path / name)
    images = load_images(tmp_path, names, 24, 12)
    assert images.shape == (150, 3, 24, 12) and images.dtype == torch.uint8 and images.is_contiguous()
    for image, source in zip(images, sources):
        expected = np.asarray(source.resize((12, 24), Image.Resampling.BICUBIC))
        assert np.array_equal(image.permute(1, 2, 0).numpy(), expected)
    for threads in (1, 3):
        monkeypatch.setattr("mmtlib.processes.usable_cores", lambda: threads)  # noqa: B023
        assert torch.equal(load_images(tmp_path, names, 24, 12), images)


def test_no_images_is_an_empty_tensor(tmp_path):
    assert load_images(tmp_path, [], 8, 4).shape == (0, 3, 8, 4)


def test_cmyk(tmp_path):
    Image.new("CMYK", (4, 8), (0, 255, 255, 0)).save(tmp_path / "a.jpg", quality=95)
    assert np.abs(load_one(tmp_path / "a.jpg").astype(int) - (255, 0, 0)).max() <= 6


@pytest.mark.parametrize("suffix", ["png", "tif"])
def test_sixteen_bits_are_scaled_not_clipped(tmp_path, suffix):
    values = np.repeat(np.linspace(0, 65535, 8).astype(np.uint16)[:, None], 4, 1)
    Image.fromarray(values).save(tmp_path / f"a.{suffix}")
    expected = np.rint(values / 257)[..., None].repeat(3, 2)
    assert np.array_equal(load_one(tmp_path / f"a.{suffix}"), expected)


def test_transparency_is_laid_over_white(tmp_path, recwarn):
    image = Image.new("P", (4, 8), 0)
    image.putpalette([0, 0, 0, 10, 200, 30, 90, 90, 90])
    image.paste(1, (0, 4, 4, 8))
    image.save(tmp_path / "bytes.png", transparency=bytes([0, 255, 255]))
    image.save(tmp_path / "index.gif", transparency=0)
    for name in ("bytes.png", "index.gif"):
        pixels = load_one(tmp_path / name)
        assert (pixels[:4] == 255).all() and (pixels[4:] == (10, 200, 30)).all(), name
    Image.new("RGBA", (4, 8), (0, 0, 0, 51)).save(tmp_path / "a.png")
    assert (load_one(tmp_path / "a.png") == 204).all()  # a fifth of black over white
    assert not recwarn.list


def test_grey_bilevel_and_palette(tmp_path):
    Image.new("L", (4, 8), 77).save(tmp_path / "a.png")
    Image.new("1", (4, 8), 1).save(tmp_path / "b.png")
    assert (load_one(tmp_path / "a.png") == 77).all() and (load_one(tmp_path / "b.png") == 255).all()


@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_rotation_is_applied(tmp_path, orientation):
    upright = np.zeros((16, 8, 3), np.uint8)
    upright[:8, :4, 0] = 255  # red, top left
    upright[:8, 4:, 1] = 255  # green, top right
    stored = {  # how a camera held so stores the upright picture (EXIF 2.3, tag 274)
        1: upright, 2: upright[:, ::-1], 3: upright[::-1, ::-1], 4: upright[::-1],
        5: upright.swapaxes(0, 1), 6: np.rot90(upright), 7: upright[::-1, ::-1].swapaxes(0, 1),
        8: np.rot90(upright, -1),
    }[orientation]  # fmt: skip
    exif = Image.Exif()
    exif[0x0112] = orientation
    Image.fromarray(np.ascontiguousarray(stored)).save(tmp_path / "a.png", exif=exif)
    assert np.array_equal(load_one(tmp_path / "a.png", 16, 8), upright)


def test_animation_gives_its_first_frame(tmp_path):
    frames = [Image.new("RGB", (4, 8), colour) for colour in ("red", "blue", "lime")]
    for name in ("a.gif", "a.png", "a.webp"):
        extra = {"lossless": True} if name == "a.webp" else {}
        frames[0].save(tmp_path / name, save_all=True, append_images=frames[1:], **extra)
        assert (load_one(tmp_path / name) == (255, 0, 0)).all(), name


def test_content_decides_not_the_name(tmp_path):
    Image.new("RGB", (4, 8), "red").save(tmp_path / "a.jpg", "PNG")
    assert (load_one(tmp_path / "a.jpg") == (255, 0, 0)).all()


def test_one_pixel(tmp_path):
    Image.new("RGB", (1, 1), (9, 8, 7)).save(tmp_path / "a.png")
    assert (load_one(tmp_path / "a.png") == (9, 8, 7)).all()


def test_bad_files_are_named_together(tmp_path, monkeypatch):
    noise = Image.fromarray(np.random.default_rng(0).integers(0, 256, (64, 32, 3), dtype=np.uint8))
    noise.save(tmp_path / "good.jpg")
    whole = (tmp_path / "good.jpg").read_bytes()
    (tmp_path / "cut.jpg").write_bytes(whole[: len(whole) // 2])
    (tmp_path / "empty.jpg").write_bytes(b"")
    (tmp_path / "zeros.jpg").write_bytes(bytes(500))
    (tmp_path / "text.jpg").write_text("no image")
    (tmp_path / "drawing.jpg").write_text("%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 4 8\n")
    (tmp_path / "folder.jpg").mkdir()
    Image.fromarray(np.ones((8, 4), np.float32)).save(tmp_path / "float.tif")
    Image.fromarray(np.full((8, 4), 70_000, np.int32)).save(tmp_path / "wide.tif")
    monkeypatch.setattr("mmtlib.data.images.MAX_PIXELS", 64 * 32)
    Image.new("L", (64, 33)).save(tmp_path / "bomb.png")
    bad = [
        "cut.jpg",
        "empty.jpg",
        "zeros.jpg",
        "text.jpg",
        "drawing.jpg",
        "folder.jpg",
        "float.tif",
        "wide.tif",
    ]
    bad += ["bomb.png", "gone.jpg"]
    with pytest.raises(InputError) as error:
        load_images(tmp_path, [bad[0], "good.jpg", *bad[1:]], 8, 4)
    lines = str(error.value).splitlines()
    assert lines[0].startswith(f"10 of 11 images in {tmp_path}")
    assert [line.split(":")[0].strip() for line in lines[1:]] == bad
    for name, reason in {
        "cut.jpg": "truncated", "empty.jpg": "empty", "zeros.jpg": "not an image", "float.tif": "floating",
        "drawing.jpg": "not an image", "wide.tif": "32-bit", "bomb.png": "64 x 33", "gone.jpg": "no such",
    }.items():  # fmt: skip
        assert reason in lines[1 + bad.index(name)], name

    with pytest.raises(InputError) as error:
        load_images(tmp_path, [f"gone {i}.jpg" for i in range(200)], 8, 4)
    assert str(error.value).startswith("200 of 200") and str(error.value).count("no such file") == 10
    assert "… and 190 more" in str(error.value)


def test_a_real_bomb_is_refused_before_it_is_unpacked(tmp_path):
    Image.new("1", (20_000, 15_000)).save(tmp_path / "bomb.png")  # 300 million pixels in a few kilobytes
    with pytest.raises(InputError, match="bomb.png: .*pixels"):
        load_images(tmp_path, ["bomb.png"], 8, 4)


def test_impossible_size(tmp_path):
    with pytest.raises(InputError, match="0 x 4"):
        load_images(tmp_path, [], 0, 4)


# --- identity_batches ---------------------------------------------------------------------------


def check_rows(batches: np.ndarray, pids: np.ndarray, camids: np.ndarray, num_ids: int, instances: int) -> None:
    """The definition, row by row."""
    for group in batches.reshape(-1, instances):
        anchor, others = group[0], group[1:]
        same = [i for i in range(len(pids)) if pids[i] == pids[anchor]]
        allowed = [i for i in same if camids[i] != camids[anchor]]
        allowed = allowed or [i for i in same if i != anchor] or [anchor]
        assert pids[anchor] >= 0 and set(others) <= set(allowed)
        times = [list(others).count(i) for i in allowed]
        assert max(times) - min(times) <= 1  # nothing is repeated before all have been drawn
    present = len(set(pids[pids >= 0].tolist()))
    for batch in batches:
        assert len(set(pids[batch].tolist())) == min(num_ids, present)


@pytest.mark.parametrize("num_ids", [1, 5, 16])
@pytest.mark.parametrize("instances", [1, 2, 4, 7])
def test_batches_follow_the_definition(num_ids, instances):
    rng = np.random.default_rng(num_ids * 10 + instances)
    pids = rng.choice(np.array([-1, 3, 4, 9, 11, 40, 41, 42, 77, 78]), 60, p=[0.1] + [0.2] + [0.0875] * 8)
    camids = rng.integers(0, 3, 60)
    pids[:3], camids[:3] = (500, 501, 501), (0, 2, 2)  # a single image, and two of one camera
    batches = identity_batches(pids, camids, 40, num_ids, instances, np.random.default_rng(1))
    assert batches.shape == (40, num_ids * instances) and batches.dtype == np.int64
    check_rows(batches, pids, camids, num_ids, instances)


def test_identities_come_in_permutations():
    pids, camids = np.repeat(np.arange(10), 3), np.tile(np.arange(3), 10)
    batches = identity_batches(pids, camids, 25, 4, 2, np.random.default_rng(0))
    drawn = pids[batches[:, ::2]].reshape(-1)
    passes = drawn.reshape(-1, 10)
    assert (np.sort(passes, 1) == np.arange(10)).all()
    assert len({tuple(p) for p in passes.tolist()}) == 10  # and not always the same one
    assert all(len(set(batch)) == 4 for batch in pids[batches[:, ::2]].tolist())


def test_fewer_identities_than_the_batch_takes_are_repeated_in_turn():
    pids = np.array([4, 5, 6])
    batches = pids[identity_batches(pids, np.zeros(3, int), 900, 4, 1, np.random.default_rng(0))]
    assert (np.sort(batches[:, :3], 1) == pids).all()
    repeated = np.bincount(batches[:, 3])[4:]
    assert np.abs(repeated - 300).max() < 4 * np.sqrt(900 * 1 / 3 * 2 / 3)


def test_draws_are_uniform():
    """Anchors over the images of an identity, others over those of the other cameras."""
    pids, camids = np.zeros(6, int), np.array([0, 0, 1, 1, 1, 2])
    groups = identity_batches(pids, camids, 6000, 1, 3, np.random.default_rng(0))
    anchors = np.bincount(groups[:, 0], minlength=6)
    assert np.abs(anchors - 1000).max() < 4 * np.sqrt(6000 * 1 / 6 * 5 / 6)
    for column in (1, 2):
        others = np.bincount(groups[groups[:, 0] == 0, column], minlength=6)
        share = others[2:] / others.sum()
        assert others[:2].sum() == 0 and np.abs(share - 0.25).max() < 4 * np.sqrt(0.25 * 0.75 / others.sum())
    assert (groups[:, 1] != groups[:, 2]).all()


def test_batches_of_a_tiny_world():
    one = identity_batches(np.array([7]), np.array([2]), 3, 4, 4, np.random.default_rng(0))
    assert (one == 0).all() and one.shape == (3, 16)
    two = identity_batches(np.array([5, -1, 5]), np.array([0, 0, 0]), 2, 2, 3, np.random.default_rng(0))
    assert set(two.reshape(-1).tolist()) == {0, 2}
    assert all(group[0] not in group[1:] for group in two.reshape(-1, 3))
    assert identity_batches(np.array([5]), np.array([0]), 0, 2, 3, np.random.default_rng(0)).shape == (0, 6)


def test_batches_follow_the_generator():
    rng = np.random.default_rng(0)
    pids, camids = rng.integers(0, 20, 200), rng.integers(0, 4, 200)
    first, again, other = (identity_batches(pids, camids, 5, 8, 4, np.random.default_rng(s)) for s in (3, 3, 4))
    assert np.array_equal(first, again) and not np.array_equal(first, other)


@pytest.mark.parametrize(
    ("pids", "camids", "sizes", "message"),
    [
        ([-1, -1], [0, 1], (1, 2, 2), "None of 2 images"),
        ([], [], (1, 2, 2), "None of 0 images"),
        ([1, 2], [0], (1, 2, 2), "same length"),
        ([1, 2], [0, 0], (1, 0, 2), "at least 1"),
        ([1, 2], [0, 0], (1, 2, 0), "at least 1"),
    ],
)
def test_batches_refuse(pids, camids, sizes, message):
    with pytest.raises(InputError, match=message):
        identity_batches(np.array(pids, int), np.array(camids, int), *sizes, np.random.default_rng(0))


# --- augment ------------------------------------------------------------------------------------


def find_view(image: np.ndarray, view: np.ndarray, padding: int, flips: tuple[bool, ...]) -> list[tuple]:
    """All (flip, top, left) whose crop of the padded image equals the view outside its erased pixels (0)."""
    found = []
    for flipped in flips:
        turned = image[:, :, ::-1] if flipped else image
        padded = np.pad(turned, ((0, 0), (padding, padding), (padding, padding)))
        for top in range(2 * padding + 1):
            for left in range(2 * padding + 1):
                crop = padded[:, top : top + image.shape[1], left : left + image.shape[2]]
                scaled = (crop / 255 - np.array(IMAGENET_MEAN)[:, None, None]) / np.array(IMAGENET_STD)[:, None, None]
                if np.abs(np.where(view == 0, 0, view - scaled)).max() < 1e-5:
                    found.append((flipped, top, left))
    return found


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("flip", [True, False])
@pytest.mark.parametrize("padding", [0, 1, 3])
@pytest.mark.parametrize("erasing", [0.0, 0.5, 1.0])
def test_every_view_is_one_flip_crop_and_erased_rectangle(device, flip, padding, erasing):
    images = random_images(24, 16, 8, seed=padding)
    before = images.clone()
    views = augment(images.to(device), torch.Generator().manual_seed(5), flip=flip, padding=padding, erasing=erasing)
    assert views.shape == images.shape and views.dtype == torch.float32 and views.device.type == device
    assert torch.equal(images, before)
    places, rectangles = set(), 0
    for image, view in zip(images.numpy(), views.cpu().numpy()):
        places.update(find_view(image, view, padding, (False, True))[:1] or pytest.fail("no such view"))
        hidden = (view == 0).all(0)  # no byte is normalised to 0
        rows, columns = np.flatnonzero(hidden.any(1)), np.flatnonzero(hidden.any(0))
        rectangles += hidden.any()
        if hidden.any():
            assert hidden[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1].all()  # one full rectangle
            assert 0.02 <= hidden.mean() <= 0.4
        assert ((view == 0).any(0) == hidden).all()
    assert {place[0] for place in places} == ({True, False} if flip else {False})
    assert {place[1:] for place in places} == {(0, 0)} or padding  # no padding, no shift
    assert padding == 0 or len({place[1:] for place in places}) > 4
    assert (rectangles == 0) if erasing == 0 else (rectangles == 24) if erasing == 1 else (4 <= rectangles <= 20)


def test_no_byte_is_normalised_to_the_erased_value():
    every = torch.arange(256, dtype=torch.uint8).view(1, 1, 16, 16).expand(1, 3, 16, 16)
    assert (normalise(every) != 0).all()


def test_normalise_is_the_formula():
    images = random_images(3, 5, 4)
    result = normalise(images)
    assert result.dtype == torch.float32
    for b, c, y, x in np.ndindex(3, 3, 5, 4):
        expected = (int(images[b, c, y, x]) / 255 - IMAGENET_MEAN[c]) / IMAGENET_STD[c]
        assert abs(float(result[b, c, y, x]) - expected) < 2e-6  # one grey level is 0.017


def authors_rectangle(height: int, width: int, rng: random.Random) -> tuple[int, int]:
    """Zhong et al.'s loop: the sides of the first rectangle that fits."""
    while True:
        area, aspect = rng.uniform(0.02, 0.4) * height * width, rng.uniform(0.3, 1 / 0.3)
        h, w = round((area * aspect) ** 0.5), round((area / aspect) ** 0.5)
        if w < width and h < height:
            return h, w


def test_erasing_has_the_distribution_of_the_published_loop():
    """Mean sides and centre over 4,000 rectangles, within four standard errors."""
    views = augment(random_images(4000, 64, 32), torch.Generator().manual_seed(0), padding=0, erasing=1.0)
    hidden = (views == 0).all(1).float()
    h, w = hidden.amax(2).sum(1).numpy(), hidden.amax(1).sum(1).numpy()
    rng = random.Random(0)
    expected = np.array([authors_rectangle(64, 32, rng) for _ in range(4000)])
    for ours, theirs in ((h, expected[:, 0]), (w, expected[:, 1]), (h * w, expected.prod(1))):
        error = np.sqrt(ours.var() / 4000 + theirs.var() / 4000)
        assert abs(ours.mean() - theirs.mean()) < 4 * error
        assert abs(ours.std() / theirs.std() - 1) < 0.08
    centre = (hidden * torch.arange(64).view(64, 1)).sum((1, 2)) / hidden.sum((1, 2))
    assert abs(float(centre.mean()) - 31.5) < 4 * float(centre.std()) / 4000**0.5
    # On small images rounding would leave the range in one rectangle of a hundred.
    views = augment(random_images(4000, 16, 8), torch.Generator().manual_seed(0), padding=0, erasing=1.0)
    share = (views == 0).all(1).float().mean((1, 2))
    assert 0.02 <= float(share.min()) and float(share.max()) <= 0.4


def test_flip_crop_and_erasing_are_uniform_and_independent():
    image = torch.arange(1, 256).repeat(3).view(1, 3, 255).to(torch.uint8)[..., :9].reshape(1, 3, 3, 3)
    views = augment(image.expand(8000, 3, 3, 3), torch.Generator().manual_seed(0), padding=1, erasing=0.0)
    different, counts = torch.unique(views, dim=0, return_counts=True)
    assert len(different) == 18  # 2 x 3 x 3
    assert (counts - 8000 / 18).abs().max() < 4 * (8000 / 18) ** 0.5


def test_views_follow_the_generator_and_switches_do_not_shift_it():
    images = random_images(8, 16, 8)
    generator = torch.Generator().manual_seed(1)
    first, second = augment(images, generator), augment(images, generator)
    generator.manual_seed(1)
    assert torch.equal(augment(images, generator, flip=True), first) and not torch.equal(first, second)
    generator.manual_seed(1)
    augment(images, generator, flip=False, padding=0, erasing=0.0)
    assert torch.equal(augment(images, generator), second)
    torch.manual_seed(0)
    expected = torch.rand(1)
    torch.manual_seed(0)
    augment(images, generator)
    assert torch.equal(torch.rand(1), expected)  # the global generator is left alone


@pytest.mark.parametrize("shape", [(1, 16, 8), (0, 16, 8), (2, 1, 1), (2, 5, 1)])
def test_small_batches_and_images(shape):
    images = random_images(*shape)
    views = augment(images, torch.Generator().manual_seed(0), padding=0, flip=False, erasing=1.0)
    assert views.shape == images.shape and views.isfinite().all()
    if shape[2] == 1:  # no rectangle is smaller than the image: nothing is erased
        assert torch.equal(views, normalise(images))


def test_switched_off_augmentation_only_normalises():
    images = random_images(4, 16, 8)
    views = augment(images, torch.Generator(), flip=False, padding=0, erasing=0.0)
    assert torch.equal(views, normalise(images))


def test_augment_refuses():
    images, generator = random_images(2, 16, 8), torch.Generator()
    for bad, message in (
        ({"padding": -1}, "padding -1"),
        ({"erasing": 1.5}, "erasing 1.5"),
    ):
        with pytest.raises(InputError, match=message):
            augment(images, generator, **bad)
    with pytest.raises(InputError, match="float32"):
        augment(images.float(), generator)
    with pytest.raises(InputError, match="expected uint8"):
        normalise(images[0])
