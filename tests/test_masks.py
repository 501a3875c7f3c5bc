"""Which of a mask's values are lesion: nothing that was drawn becomes empty."""

import io

import numpy as np
import pytest
from conftest import decoded, disc, state_of
from PIL import Image, ImageDraw

from dataset.images import decode_row
from dataset.masks import decode_mask, is_drawn, lesion_values, reduced
from dataset.prepare import Reading, decode, split

CORE, RING = disc(inside=1), disc()


def rings(skin, border, core, mode="L", dtype=np.uint8):
    """A core with a border around it on skin, (30, 40)."""
    y, x = np.mgrid[:30, :40]
    distance = np.hypot(x - 15, y - 15)
    values = np.select([distance < 5, distance < 9], [core, border], skin).astype(dtype)
    return Image.fromarray(values) if mode == "L" else Image.fromarray(values).convert(mode)


def content(image, kind="PNG", **options):
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def lesion_of(image, kind="PNG", how=""):
    mask, note = decode_mask(content(image, kind), image.size, 1, how)
    return np.asarray(mask) > 0, note


def inside(radius):
    y, x = np.mgrid[:30, :40]
    return np.hypot(x - 15, y - 15) < radius


@pytest.mark.parametrize(
    "values, radius",
    [((0, 1, 2), 9), ((0, 2, 1), 9), ((0, 50, 100), 9), ((0, 128, 255), 9), ((0, 1, 3), 9), ((0, 255, 1), 5)],
    ids=str,
)
def test_few_values_are_an_index_and_255_beside_small_ones_is_void(values, radius):
    found, note = lesion_of(rings(*values))
    np.testing.assert_array_equal(found, inside(radius))
    assert note.startswith("mask has several values")


@pytest.mark.parametrize("white", [255, 254, 249])
@pytest.mark.parametrize("how", ["", "inverted"])
def test_small_values_that_are_rare_beside_white_are_noise_and_no_index(how, white):
    values = np.where(inside(9), white, 0).astype(np.uint8)
    values[14, [2, 3, 30]] = 1
    found, note = lesion_of(Image.fromarray(values), how=how)
    np.testing.assert_array_equal(found, ~inside(9) if how else inside(9))
    assert note.startswith("mask has gray values")


@pytest.mark.parametrize("how", ["", "inverted"])
def test_a_small_lesion_in_a_wide_frame_of_void_is_no_noise(how):
    found, _ = lesion_of(rings(255, 0, 1), how=how)
    np.testing.assert_array_equal(found, inside(9) & ~inside(5) if how else inside(5))


def test_the_noise_of_a_jpeg_is_no_lesion():
    drawn = Image.new("L", (400, 300))
    ImageDraw.Draw(drawn).rectangle([61, 80, 239, 175], fill=255)
    jpeg = content(drawn, "JPEG", quality=95)
    assert {0, 1, 255} == set(np.unique(np.asarray(Image.open(io.BytesIO(jpeg)))))
    found = np.asarray(decode_mask(jpeg, drawn.size, 1)[0]) > 0
    np.testing.assert_array_equal(found, np.asarray(drawn) > 0)


@pytest.mark.parametrize(
    "drawn, skin",
    [
        ((1, 0, 0), (0, 0, 0)),
        ((0, 0, 1), (0, 0, 0)),
        ((1, 0, 0, 255), (0, 0, 0, 255)),
        ((255, 0, 0), (76, 76, 76)),
        ((0, 255, 20), (255, 129, 0)),
    ],
    ids=str,
)
def test_colours_of_one_gray_are_told_apart(drawn, skin):
    mask = Image.fromarray(np.where(inside(9)[..., None], drawn, skin).astype(np.uint8))
    np.testing.assert_array_equal(lesion_of(mask)[0], inside(9))


@pytest.mark.parametrize(
    "palette, radius",
    [
        ([9, 9, 9, 9, 9, 9], 9),
        ([0, 0, 0, 0, 0, 0, 255, 255, 255], 9),
        ([0, 0, 0, 0, 0, 1, 1, 0, 0], 9),
    ],
    ids=str,
)
def test_a_palettes_numbers_tell_what_its_colours_do_not(palette, radius):
    mask = rings(0, 1, min(2, len(palette) // 3 - 1)).convert("P")
    mask.putpalette(palette)
    np.testing.assert_array_equal(lesion_of(mask)[0], inside(radius))


def test_a_palettes_colours_tell_where_its_least_number_is_not_the_darkest():
    mask = rings(1, 0, 2).convert("P")
    mask.putpalette([255, 255, 255, 0, 0, 0, 255, 255, 255])
    np.testing.assert_array_equal(lesion_of(mask)[0], inside(9))


@pytest.mark.parametrize("mode", ["RGBA", "LA"])
@pytest.mark.parametrize("drawn", [0, 128])
def test_a_drawing_on_a_transparent_ground_is_the_lesion(mode, drawn):
    mask = Image.merge("LA", [rings(255, drawn, drawn), rings(0, 255, 255)]).convert(mode)
    np.testing.assert_array_equal(lesion_of(mask)[0], inside(9))


@pytest.mark.parametrize("ground", [0, 90, 255])
def test_a_mask_in_black_and_white_stays_so_in_a_transparent_frame(ground):
    mask = Image.merge("LA", [rings(ground, 0, 255), rings(0, 255, 255)])
    frame = rings(ground, 0, 255)
    assert lesion_of(mask)[0].tolist() == lesion_of(frame)[0].tolist()


def test_void_around_the_core_is_no_lesion_when_read_inverted_either():
    found, _ = lesion_of(rings(1, 255, 0), how="inverted")
    np.testing.assert_array_equal(found, inside(5))


def test_void_in_a_palette_is_told_by_its_number_whatever_its_colour():
    mask = rings(0, 255, 1).convert("P")
    mask.putpalette([0, 0, 0, 128, 0, 0] + [0, 0, 0] * 253 + [224, 224, 192])
    np.testing.assert_array_equal(lesion_of(mask)[0], inside(5))


@pytest.mark.parametrize("top", [255, 90, 4095, 65535])
def test_many_values_are_cut_at_half_of_their_own_range(top):
    ramp = np.linspace(0, top, 40 * 30).reshape(30, 40)
    found, note = lesion_of(Image.fromarray(ramp.astype(np.uint8 if top < 256 else np.uint16)))
    assert found.mean() == pytest.approx(0.5, abs=0.02) and note == "mask has gray values"


def test_the_whole_range_is_cut_above_128_as_the_organisers_do():
    assert lesion_values(list(range(256)))[0] == list(range(129, 256))


def test_a_mask_smoothed_at_its_edges_is_no_index():
    assert lesion_values([0, 1, 254, 255])[0] == [254, 255]


@pytest.mark.parametrize(
    "dtype, values", [(np.uint16, (0, 1000, 2000)), (np.float32, (0, 0.5, 1)), (np.uint16, (0, 300, 1))]
)
def test_few_values_of_any_range_are_an_index(dtype, values):
    kind = "TIFF" if dtype == np.float32 else "PNG"
    radius = 5 if values == (0, 300, 1) else 9  # 300 beside 1 is void
    np.testing.assert_array_equal(lesion_of(rings(*values, dtype=dtype), kind)[0], inside(radius))


def test_nothing_that_was_drawn_becomes_empty_at_the_networks_size():
    dot = Image.new("L", (640, 480), 0)
    dot.putpixel((100, 200), 255)
    small = np.asarray(reduced(dot, 32))
    assert np.argwhere(small).tolist() == [[200 * 32 // 480, 100 * 32 // 640]]
    assert not np.asarray(reduced(Image.new("L", (640, 480), 0), 32)).any()


def test_an_inverted_mask_is_noted_and_read_as_asked():
    inverted = disc().point(lambda value: 255 - value)
    assert lesion_of(inverted)[1] == "mask is lesion along all four borders"
    found, note = lesion_of(inverted, how="inverted")
    np.testing.assert_array_equal(found, np.asarray(disc()) > 0)
    assert note == ""


def test_a_lesion_at_three_borders_is_not_noted():
    wide = Image.new("L", (40, 30), 0)
    ImageDraw.Draw(wide).rectangle([0, 0, 39, 20], fill=255)
    assert lesion_of(wide)[1] == ""


def fill(folder, masks):
    for code in ("MEL", "NV"):
        for k in range(4):
            folder.add(f"{code}_{k}", code, mask=masks(k))
    return folder.write().path


def made(path, reading, cache):
    decoded = decode(path, reading, image_size=32, cache_dir=cache, say=str)
    return split(decoded, reading, say=str)


def test_where_most_masks_are_inverted_the_run_asks_and_obeys(folder, tmp_path):
    path = fill(folder, lambda k: disc().point(lambda value: 255 - value) if k else disc())
    with pytest.raises(ValueError, match=r"6 of 8 masks are lesion along all four borders.*pass --invert-masks"):
        made(path, Reading(), tmp_path / "cache")
    with pytest.raises(ValueError, match="omit --invert-masks"):
        made(fill(folder, lambda k: disc()), Reading(invert_masks=True), tmp_path / "cache")


def test_inverted_masks_are_decoded_as_their_opposites_and_not_from_the_others_cache(folder, tmp_path):
    path, expected = fill(folder, lambda k: disc().point(lambda value: 255 - value)), disc().resize((32, 32), 0)
    before = decode(path, Reading(), image_size=32, cache_dir=tmp_path / "cache", say=str)
    table, pixels, *_ = made(path, Reading(invert_masks=True), tmp_path / "cache")
    for row in table["row"]:
        np.testing.assert_array_equal(pixels[row][..., 3], np.asarray(expected))
    assert (np.asarray(before.pixels[0][..., 3]) != np.asarray(expected)).any()
    assert set(table["mask_how"]) == {"inverted"}


def test_square_masks_are_stretched_where_asked_and_else_named(folder, tmp_path):
    path = fill(folder, lambda k: disc((40, 30)).resize((32, 32), 0))
    decoded = decode(path, Reading(), image_size=32, cache_dir=tmp_path / "cache", say=str)
    assert set(decoded.table["reason"]) == {"mask: mask is 32x32, image 40x30"}
    assert "8 of 8 rows are not used, or only in part: mask: mask is 32x32, image 40x30." in decoded.remarks
    table, pixels, *_ = made(path, Reading(stretch_masks=True), tmp_path / "cache")
    assert set(table["reason"]) == {""}
    np.testing.assert_array_equal(pixels[table["row"].iloc[0]][..., 3], np.asarray(disc((40, 30)).resize((32, 32), 0)))


def test_a_mask_that_is_full_or_empty_stays_so(folder):
    for name, value in (("full", 255), ("empty", 0)):
        folder.add(name, mask=Image.new("L", (40, 30), value))
    table, _pixels = decoded(folder.write())
    assert state_of(table, "full")[1] == "mask is full" and state_of(table, "empty")[1] == "mask is empty"


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "TIFF", "BMP"])
def test_masks_are_told_from_photographs_by_their_values(tmp_path, kind):
    rng = np.random.default_rng(0)
    skin = rng.normal((220, 180, 160), 6, (30, 40, 3)).clip(0, 255).astype(np.uint8)
    pictures = {"mask": disc(), "index": CORE, "colour": skin, "gray": np.asarray(Image.fromarray(skin).convert("L"))}
    drawn = {}
    for name, values in pictures.items():
        image = values if isinstance(values, Image.Image) else Image.fromarray(values)
        image.save(tmp_path / name, kind)
        drawn[name] = is_drawn(tmp_path / name)
    assert drawn == {"mask": True, "index": True, "colour": False, "gray": False}


def test_a_mask_in_red_on_black_is_no_photograph(tmp_path):
    red = Image.merge("RGB", [disc(), Image.new("L", (40, 30)), Image.new("L", (40, 30))])
    red.save(tmp_path / "m.jpg")
    Image.effect_noise((40, 30), 90).convert("RGB").save(tmp_path / "i.png")
    assert decode_row(str(tmp_path / "i.png"), str(tmp_path / "m.jpg"), 16)[2]["mask_error"] == ""


@pytest.mark.parametrize("values", [[0, 1, 2, 3], [0, 1, 2, 3, 4], [0, 5, 9, 12]])
def test_a_few_small_numbers_are_an_index_and_no_soft_edge(values):
    assert lesion_values(values)[0] == values[1:]
    assert lesion_values([0, 1, 254, 255])[0] == [254, 255]
