import io
import os
import struct
import zlib

import numpy as np
import pytest
from conftest import decoded, disc, picture, state_of
from PIL import Image

from dataset import images, opening
from dataset.table import LABEL_ONLY, LEFT_OUT, USED, describe_table


def test_bad_images_are_left_out_with_the_reason_and_the_rest_is_used(folder, monkeypatch):
    monkeypatch.setattr(opening, "MAX_PIXELS", 100 * 100)
    for name in ("good", "gone", "empty", "cut", "text"):
        folder.add(name)
    folder.add("huge", image=picture(size=(200, 100)), suffix=".png")
    place = folder.write().path / "images"
    (place / "gone.jpg").unlink()
    (place / "empty.jpg").write_bytes(b"")
    (place / "cut.jpg").write_bytes((place / "cut.jpg").read_bytes()[:700])
    (place / "text.jpg").write_text("not an image" * 50)
    table, _ = decoded(folder)
    assert state_of(table, "good") == (USED, "")
    assert state_of(table, "gone") == (LEFT_OUT, "image is missing")
    assert state_of(table, "empty") == (LEFT_OUT, "image: file is empty")
    assert state_of(table, "cut")[1].startswith("image: damaged")
    assert state_of(table, "text") == (
        LEFT_OUT,
        "image: not an image in a known format (JPEG, PNG, BMP, TIFF, WEBP)",
    )
    assert "more than 10,000 pixels" in state_of(table, "huge")[1]
    assert (table["status"] == LEFT_OUT).sum() == 5


def test_a_decompression_bomb_is_not_unpacked(tmp_path):
    Image.new("1", (20_000, 20_000)).save(tmp_path / "bomb.png")
    with pytest.raises(ValueError, match="pixels"):
        images.read_image(tmp_path / "bomb.png", 16)


@pytest.mark.parametrize("mode", ["L", "P", "RGBA", "CMYK", "LA", "1"])
def test_every_colour_mode_becomes_rgb(tmp_path, mode):
    flat = Image.new("RGB", (40, 30), (200, 200, 200))
    flat.paste((190, 190, 190), (0, 0, 8, 8))  # of one value it would be refused
    flat = flat.convert(mode)
    path = tmp_path / ("a.jpg" if mode == "CMYK" else "a.png")
    flat.save(path)
    expected = 255 if mode == "1" and np.asarray(flat).mean() > 0.9 else 200
    found = np.asarray(images.read_image(path, 16))
    assert found.shape == (16, 16, 3)
    assert abs(found.mean() - expected) < (60 if mode == "1" else 8)


def test_sixteen_bits_are_scaled_not_clipped(tmp_path):
    values = np.full((32, 32), 128 * 257, np.uint16)
    values[:, :16] = 65535
    Image.fromarray(values).save(tmp_path / "a.png")
    assert np.unique(images.read_image(tmp_path / "a.png", 32)).tolist() == [128, 255]


# A mask drawn on the stored pixels is recognized by its size, which only orientations from 5 on exchange.
@pytest.mark.parametrize(
    "orientation, mask_is", [*((n, "upright") for n in range(1, 9)), *((n, "as stored") for n in (5, 6, 7, 8))]
)
def test_a_turned_photograph_stands_upright_and_its_mask_stays_on_the_lesion(folder, orientation, mask_is):
    """A dark disc on white is stored turned; its EXIF orientation says how to turn it back."""
    upright = Image.fromarray(255 - np.asarray(disc((64, 48)))).convert("RGB")
    back = {1: None, 2: 0, 3: 3, 4: 1, 5: 5, 6: 2, 7: 6, 8: 4}[orientation]  # the transpose that EXIF undoes
    stored = upright if back is None else upright.transpose(Image.Transpose(back))
    mask = disc((64, 48))
    if mask_is == "as stored" and back is not None:
        mask = mask.transpose(Image.Transpose(back))
    exif = Image.Exif()
    exif[0x0112] = orientation
    folder.add("a", image=stored, mask=mask, exif=exif, quality=95)
    table, pixels = decoded(folder.write(), 32)
    unknown = "image is rotated by EXIF, and its mask may not be"
    assert state_of(table, "a") == (USED, unknown if orientation in (2, 3, 4) else "")
    dark = pixels[0, ..., 0] < 128
    assert dark[:, :16].sum() > 0.9 * dark.sum()  # upright: the disc is on the left
    assert (dark == (pixels[0, ..., 3] > 0)).mean() > 0.97


def test_masks_of_any_encoding_mark_the_same_pixels(folder):
    plain = disc()
    palette = plain.convert("P")
    palette.putpalette([0, 0, 0] * 255 + [90, 0, 0])
    red_on_black = Image.merge("RGB", [plain, Image.new("L", plain.size), Image.new("L", plain.size)])
    soft = Image.fromarray((np.asarray(plain) * 0.8).astype(np.uint8) + np.arange(40, dtype=np.uint8))
    forms = {
        "plain": plain, "ones": disc(inside=1), "palette": palette, "rgb": plain.convert("RGB"),
        "rgba": plain.convert("RGBA"), "red": red_on_black, "bits": plain.convert("1"), "soft": soft,
    }  # fmt: skip
    for name, mask in forms.items():
        folder.add(name, mask=mask)
    table, pixels = decoded(folder.write(), 24)
    expected = np.asarray(plain.resize((24, 24), Image.Resampling.NEAREST))
    for name, row in zip(table["image"], table["row"]):
        np.testing.assert_array_equal(pixels[row, ..., 3], expected, err_msg=name)
        assert state_of(table, name) == (USED, "mask has gray values" if name == "soft" else "")


def test_masks_that_cannot_be_used_leave_the_image_for_classification(folder):
    folder.add("none", mask=None)
    folder.add("cut")
    folder.add("square", mask=disc((40, 40)))
    folder.add("large", mask=disc((120, 90)))
    folder.add("black", mask=Image.new("L", (40, 30)))
    path = folder.write().path / "masks" / "cut_segmentation.png"
    path.write_bytes(path.read_bytes()[:60])
    table, pixels = decoded(folder, 24)
    assert state_of(table, "none") == (LABEL_ONLY, "mask is missing")
    assert state_of(table, "cut")[0] == LABEL_ONLY and "mask: " in state_of(table, "cut")[1]
    assert state_of(table, "square") == (LABEL_ONLY, "mask: mask is 40x40, image 40x30")
    assert state_of(table, "large") == (USED, "")
    assert state_of(table, "black") == (USED, "mask is empty")
    assert pixels[table.loc[table["image"] == "black", "row"].item(), ..., 3].max() == 0
    assert "1 used: mask is empty (e.g. black)" in describe_table(table)


def test_decoding_agrees_with_pillow(folder):
    folder.add("a", suffix=".png")
    _, pixels = decoded(folder.write(), 24)
    with Image.open(folder.path / "images" / "a.png") as image:
        np.testing.assert_array_equal(pixels[0, ..., :3], image.resize((24, 24), Image.Resampling.BILINEAR))


def test_a_square_turned_photograph_leaves_open_what_its_mask_was_drawn_on(folder):
    exif = Image.Exif()
    exif[0x0112] = 6
    folder.add("a", image=picture(size=(40, 40)), mask=disc((40, 40)), exif=exif)
    table, _ = decoded(folder.write())
    assert "its mask may not be" in state_of(table, "a")[1]


@pytest.mark.parametrize("inside", [1, 255, 256, 65535])
def test_masks_of_sixteen_bits_mark_the_same_pixels(folder, inside):
    sixteen = Image.fromarray(np.asarray(disc(inside=1)).astype(np.uint16) * np.uint16(inside))
    folder.add("a", mask=sixteen)
    table, pixels = decoded(folder.write(), 24)
    assert state_of(table, "a") == (USED, "")
    np.testing.assert_array_equal(pixels[0, ..., 3], np.asarray(disc().resize((24, 24), Image.Resampling.NEAREST)))


def test_gray_values_of_sixteen_bits_are_cut_at_half_of_their_range(folder):
    folder.add("a", mask=Image.fromarray(np.linspace(0, 65535, 40 * 30).reshape(30, 40).astype(np.uint16)))
    table, pixels = decoded(folder.write(), 30)
    assert state_of(table, "a") == (USED, "mask has gray values")
    assert (pixels[0, ..., 3] > 0).mean() == pytest.approx(0.5, abs=0.02)


@pytest.mark.parametrize("mode", ["RGBA", "LA", "P"])
def test_a_shape_in_the_alpha_channel_is_the_mask(folder, mode):
    shape = disc()
    if mode == "P":
        mask = shape.point(lambda value: value > 0 and 1).convert("P")
        mask.putpalette([255, 0, 0, 255, 0, 0])
        mask.info["transparency"] = 0
    else:
        mask = Image.merge(mode, [*([Image.new("L", shape.size, 255)] * (len(mode) - 1)), shape])
    folder.add("a", mask=mask)
    table, pixels = decoded(folder.write(), 24)
    assert state_of(table, "a") == (USED, "")
    np.testing.assert_array_equal(pixels[0, ..., 3], np.asarray(shape.resize((24, 24), Image.Resampling.NEAREST)))


def test_a_full_mask_is_used_and_noted(folder):
    folder.add("a", mask=Image.new("L", (40, 30), 255))
    table, pixels = decoded(folder.write())
    assert state_of(table, "a") == (USED, "mask is full") and (pixels[0, ..., 3] == 255).all()


def exif_with(orientation: bytes) -> bytes:
    """An EXIF block of one entry: tag 0x0112 with this type, count and value."""
    return b"Exif\x00\x00MM\x00*\x00\x00\x00\x08\x00\x01\x01\x12" + orientation + b"\x00\x00\x00\x00"


ODD = {
    "bytes": exif_with(b"\x00\x01\x00\x00\x00\x02\x06\x06\x00\x00"),
    "text": exif_with(b"\x00\x02\x00\x00\x00\x02six\x00"),
    "above 8": exif_with(b"\x00\x03\x00\x00\x00\x01\x00\x09\x00\x00"),
    "cut": b"Exif\x00\x00MM\x00*\x00\x00",
    "no block": b"Exif\x00\x00what is this",
}


@pytest.mark.parametrize("kind", ODD)
@pytest.mark.parametrize("suffix", [".jpg", ".png", ".webp"])
def test_an_odd_orientation_says_nothing_and_the_picture_is_used(tmp_path, kind, suffix):
    picture().save(tmp_path / f"a{suffix}", exif=ODD[kind])
    picture().save(tmp_path / f"b{suffix}")
    np.testing.assert_array_equal(*(images.read_image(tmp_path / f"{name}{suffix}", 16) for name in "ab"))


def test_a_fax_is_no_photograph(tmp_path):
    disc().convert("1").save(tmp_path / "a.tiff", compression="group4")
    with pytest.raises(ValueError, match="fax compression"):
        images.read_image(tmp_path / "a.tiff", 16)


def test_what_is_no_file_or_cannot_be_read_is_left_out_with_the_reason(folder, monkeypatch):
    monkeypatch.setattr(opening, "MAX_BYTES", 10_000)
    for name in ("good", "dangling", "loop", "pipe", "sparse"):
        folder.add(name)
        if name != "good":
            (folder.path / "images" / f"{name}.jpg").unlink()
    place = folder.write().path / "images"
    (place / "dangling.jpg").symlink_to(place / "nowhere.jpg")
    (place / "loop.jpg").symlink_to(place / "loop.jpg")
    os.mkfifo(place / "pipe.jpg")
    with (place / "sparse.jpg").open("wb") as file:
        file.truncate(40_000_000_000)
    table, _ = decoded(folder)
    assert list(table["status"]) == [USED, *[LEFT_OUT] * 4]
    reasons = dict(zip(table["image"], table["reason"]))
    assert reasons["dangling"] == "image: No such file or directory" and "symbolic links" in reasons["loop"]
    assert reasons["pipe"] == "image: not a regular file" and reasons["sparse"] == "image: more than 10,000 bytes"


def test_of_several_frames_the_first_is_the_picture(tmp_path):
    frames = [picture(i) for i in range(3)]
    frames[0].save(tmp_path / "a.tiff", save_all=True, append_images=frames[1:])
    frames[0].save(tmp_path / "b.tiff")
    np.testing.assert_array_equal(*(images.read_image(tmp_path / f"{name}.tiff", 16) for name in "ab"))


@pytest.mark.parametrize(
    "dtype, top",
    [(np.float32, 1), (np.float32, 255), (np.uint16, 255), (np.uint16, 4095), (np.uint16, 65535), (np.int32, 65535)],
)
def test_the_range_of_a_picture_is_that_of_its_values(tmp_path, dtype, top):
    ramp = np.tile(np.linspace(0, top, 32), (32, 1)).astype(dtype)
    Image.fromarray(ramp).save(tmp_path / "a.tif")
    found = np.asarray(images.read_image(tmp_path / "a.tif", 32))
    expected = np.linspace(0, 255, 32)
    assert np.abs(found[0, :, 0] - expected).max() < 2  # one for each rounding


@pytest.mark.parametrize("value", [0, 255, (200, 100, 50)])
def test_a_picture_of_one_value_is_left_out_with_the_reason(folder, value):
    mode = "RGB" if isinstance(value, tuple) else "L"
    folder.add("blank", image=Image.new(mode, (40, 30), value), suffix=".png")
    folder.add("a")
    table, _ = decoded(folder.write())
    assert state_of(table, "blank")[0] == LEFT_OUT and state_of(table, "a")[0] == USED
    assert state_of(table, "blank")[1].startswith("image: single value everywhere")


def deep_png(values):
    """A PNG of 16 bits for each of three colours, which Pillow cannot write."""
    height, width, _ = values.shape

    def chunk(kind, data):
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    rows = b"".join(b"\0" + row.astype(">u2").tobytes() for row in values)
    header = struct.pack(">IIBBBBB", width, height, 16, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")


def test_twelve_bits_of_colour_in_sixteen_are_not_read_as_black():
    values = np.random.default_rng(0).integers(0, 4096, (20, 30, 3))
    with pytest.raises(ValueError, match="nearly black, as if 12 bits were stored in 16: save it with 8 bits"):
        images.read_image(deep_png(values), 16)
    assert np.asarray(images.read_image(deep_png(values * 16), 16)).mean() > 100


def test_a_dark_photograph_of_eight_bits_is_one():
    dark = np.random.default_rng(0).integers(0, 12, (20, 30, 3)).astype(np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(dark).save(buffer, "PNG")
    assert np.asarray(images.read_image(buffer.getvalue(), 16)).max() <= 12


@pytest.mark.parametrize("orientation", range(1, 9))
def test_a_mask_at_its_own_size_stands_upright_as_its_image_does(tmp_path, orientation):
    """The mask is drawn on the upright picture, so that nothing is to be turned."""
    exif = Image.Exif()
    exif[opening.ORIENTATION] = orientation
    stored = (30, 40) if orientation >= 5 else (40, 30)
    picture(size=stored).save(tmp_path / "a.jpg", exif=exif)
    disc((40, 30)).save(tmp_path / "a.png")
    found = images.read_native_mask(tmp_path / "a.jpg", tmp_path / "a.png")
    np.testing.assert_array_equal(found, np.asarray(disc((40, 30))) > 0)


@pytest.mark.parametrize(("width", "status"), [(400, USED), (404, USED), (420, LABEL_ONLY), (440, LABEL_ONLY)])
def test_a_mask_may_differ_from_its_image_in_shape_by_rounding_alone(folder, width, status):
    """One per cent is a picture reduced to whole pixels; five are another picture."""
    folder.add("a", image=picture(size=(400, 300)), mask=disc((width, 300)))
    table, _ = decoded(folder.write())
    assert state_of(table, "a")[0] == status


def test_the_size_of_a_photograph_is_that_of_the_upright_one(tmp_path):
    """Which galleries draw it in. Orientation 6 turns by a quarter, 3 by half."""
    for orientation, size in {1: (60, 45), 3: (60, 45), 6: (45, 60)}.items():
        exif = Image.Exif()
        exif[0x0112] = orientation
        Image.new("RGB", (60, 45)).save(tmp_path / "a.jpg", exif=exif)
        assert images.own_size(tmp_path / "a.jpg") == size
