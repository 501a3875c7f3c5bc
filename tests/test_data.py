import warnings

import numpy as np
import pandas as pd
import pytest
import torch
from conftest import disc, picture
from PIL import Image

import data
from dataset import cache, images, splits
from dataset.table import CLASSES, LABEL_ONLY, LEFT_OUT, USED, describe_table, find_files, read_table


def decoded(folder, size=16):
    return cache.decode_table(read_table(folder.path), folder.path, size, folder.path.parent / "cache")


def state_of(table, name):
    row = table[table["image"] == name].iloc[0]
    return row["status"], row["reason"]


# The CSV


def test_a_missing_folder_is_named_with_what_to_do(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"nowhere.*--data-dir.*--demo.*doi.org"):
        read_table(tmp_path / "nowhere")


def test_a_folder_without_csv_is_named_with_what_to_do(folder):
    with pytest.raises(FileNotFoundError, match=r"GroundTruth.csv.*--demo"):
        read_table(folder.path)


@pytest.mark.parametrize("content, message", [("", "is empty"), ("image,MEL,NV,BCC,AKIEC,BKL,DF,VASC\n", "no rows")])
def test_an_empty_csv_is_refused(folder, content, message):
    (folder.path / "GroundTruth.csv").write_text(content)
    with pytest.raises(ValueError, match=message):
        read_table(folder.path)


def test_missing_class_columns_are_named(folder):
    (folder.path / "GroundTruth.csv").write_text("image,MEL,NV\na,1,0\n")
    with pytest.raises(ValueError, match=r"lacks the columns BCC, AKIEC, BKL, DF, VASC"):
        read_table(folder.path)


def test_rows_that_name_no_file_or_no_class_are_left_out_with_the_reason(folder):
    folder.add("good")
    bad = {
        "two": ["1", "1", "0", "0", "0", "0", "0"],
        "none": ["0"] * 7,
        "half": ["0.5", "0.5", "0", "0", "0", "0", "0"],
        "words": ["yes", "0", "0", "0", "0", "0", "0"],
        "gap": ["", "1", "0", "0", "0", "0", "0"],
        "": ["1", "0", "0", "0", "0", "0", "0"],
    }
    folder.rows += [[name, *values] for name, values in bad.items()]
    table = read_table(folder.write().path)
    assert state_of(table, "good") == (USED, "")
    for name in ("two", "none", "half"):
        assert state_of(table, name) == (LEFT_OUT, "labels are not one-hot")
    for name in ("words", "gap"):
        assert state_of(table, name) == (LEFT_OUT, "labels are not numbers")
    assert state_of(table, "") == (LEFT_OUT, "empty name")


@pytest.mark.parametrize("name", ["../secret", "/etc/secret", "a/b", "..\\secret", "C:secret", ".."])
def test_a_name_with_a_path_in_it_opens_nothing(folder, name):
    picture().save(folder.path.parent / "secret.jpg")
    folder.add("good")
    folder.rows.append([name, 1, 0, 0, 0, 0, 0, 0])
    table = read_table(folder.write().path)
    assert list(table["status"]) == [USED, LEFT_OUT]
    assert list(table["reason"]) == ["", "unsafe name"]
    assert table["image_path"].iloc[1] == ""


def test_a_repeated_row_is_kept_once_and_a_contradicted_image_not_at_all(folder):
    folder.add("twice", "MEL")
    folder.add("torn", "MEL")
    folder.rows += [folder.rows[0], ["torn", 0, 1, 0, 0, 0, 0, 0]]
    table = read_table(folder.write().path)
    assert list(table["status"]) == [USED, LEFT_OUT, LEFT_OUT, LEFT_OUT]
    assert list(table["reason"][1:]) == ["conflicting labels", "duplicate row", "conflicting labels"]


def test_a_csv_from_a_spreadsheet_is_read(folder):
    for name in ("plain", "UPPER", "with space", "naïve"):
        folder.add(name)
    lines = ["\ufeffimage,note,MEL,NV,BCC,AKIEC,BKL,DF,VASC"]
    lines += [f"{name},x,0,1,0,0,0,0,0" for name in ("plain.jpg", "UPPER.JPG", " with space ", "nai\u0308ve")]
    (folder.path / "GroundTruth.csv").write_bytes("\r\n".join(lines).encode("utf-8"))
    (folder.path / "images" / "UPPER.jpg").rename(folder.path / "images" / "UPPER.JPG")
    table = read_table(folder.path)
    assert list(table["image"]) == ["plain", "UPPER", "with space", "naïve"]
    assert (table["status"] == USED).all() and (table["label"] == 1).all()


def test_the_isic_2019_name_of_a_class_is_understood(folder):
    folder.add("a", "AKIEC")
    path = folder.write().path / "GroundTruth.csv"
    path.write_text(path.read_text().replace("AKIEC", "AK,SCC").replace("1.0", "1.0,0"))
    assert read_table(folder.path)["label"].tolist() == [CLASSES.index("AKIEC")]


# Folders


def test_the_folder_layouts_of_ham10000_are_found(tmp_path):
    for name in ("HAM10000_images_part_1", "HAM10000_images_part_2", "HAM10000_segmentations", "__MACOSX/images"):
        (tmp_path / name).mkdir(parents=True)
    picture().save(tmp_path / "HAM10000_images_part_1" / "a.jpg")
    picture().save(tmp_path / "HAM10000_images_part_2" / "b.JPEG")
    for name in ("a_segmentation.png", "b_mask.png", "._a_segmentation.png"):
        disc().save(tmp_path / "HAM10000_segmentations" / name)
    disc().save(tmp_path / "__MACOSX" / "images" / "c.png")
    images, masks = find_files(tmp_path)
    assert set(images) == {"a", "b"} and set(masks) == {"a", "b"}


def test_no_image_found_at_all_is_one_message(folder):
    folder.add("a", image=None)
    with pytest.raises(FileNotFoundError, match=r"images/.*'a'"):
        read_table(folder.write().path)


def test_lesion_ids_come_from_the_metadata_file(folder):
    for name in "abc":
        folder.add(name)
    (folder.write().path / "HAM10000_metadata.csv").write_text("lesion_id,image_id,dx\nL1,a,nv\nL1,b,nv\n")
    assert read_table(folder.path)["lesion_id"].tolist() == ["L1", "L1", "c"]


# Images and masks


def test_bad_images_are_left_out_with_the_reason_and_the_rest_is_used(folder, monkeypatch):
    monkeypatch.setattr(images, "MAX_PIXELS", 100 * 100)
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
        "image: not an image of a known kind (JPEG, PNG, BMP, TIFF, WEBP)",
    )
    assert "more than 10,000 pixels" in state_of(table, "huge")[1]
    assert (table["status"] == LEFT_OUT).sum() == 5


def test_a_decompression_bomb_is_not_unpacked(tmp_path):
    Image.new("1", (20_000, 20_000)).save(tmp_path / "bomb.png")
    with pytest.raises(ValueError, match="pixels"):
        images.read_image(tmp_path / "bomb.png", 16)


@pytest.mark.parametrize("mode", ["L", "P", "RGBA", "CMYK", "LA", "1"])
def test_every_colour_mode_becomes_rgb(tmp_path, mode):
    flat = Image.new("RGB", (40, 30), (200, 200, 200)).convert(mode)
    path = tmp_path / ("a.jpg" if mode == "CMYK" else "a.png")
    flat.save(path)
    expected = 255 if mode == "1" and np.asarray(flat).mean() > 0.9 else 200
    found = np.asarray(images.read_image(path, 16))
    assert found.shape == (16, 16, 3)
    assert abs(found.mean() - expected) < (60 if mode == "1" else 8)


def test_sixteen_bits_are_scaled_not_clipped(tmp_path):
    Image.fromarray(np.full((30, 40), 128 * 257, np.uint16)).save(tmp_path / "a.png")
    assert np.unique(images.read_image(tmp_path / "a.png", 16)).tolist() == [128]


# A mask drawn on the stored pixels is told by its size, so only from orientation 5 on, which exchange width and height.
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
    assert state_of(table, "a") == (USED, "")
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


# Cache


def test_the_second_run_decodes_nothing_and_a_changed_file_alone_again(folder, monkeypatch):
    calls = []
    decode_row = images.decode_row
    monkeypatch.setattr(cache, "decode_row", lambda *a: calls.append(a[0]) or decode_row(*a))
    for name in "abc":
        folder.add(name, suffix=".png")
    _, first = decoded(folder.write())
    first = first.copy()
    decoded(folder)
    assert len(calls) == 3
    picture(99).save(folder.path / "images" / "b.png")
    table, second = decoded(folder)
    assert [call.rsplit("/", 1)[1] for call in calls[3:]] == ["b.png"]
    row = table.set_index("image")["row"]
    np.testing.assert_array_equal(second[row["a"]], first[0])
    assert (second[row["b"]] != first[1]).any()


def test_a_damaged_cache_is_built_again(folder):
    folder.add("a")
    _, first = decoded(folder.write())
    first = first.copy()
    (place,) = (folder.path.parent / "cache").iterdir()
    (place / "index.json").write_text("{")
    np.testing.assert_array_equal(decoded(folder)[1], first)
    (pixels,) = [path for path in place.glob("*.u8") if path.name in (place / "index.json").read_text()]
    pixels.write_bytes(b"short")
    np.testing.assert_array_equal(decoded(folder)[1], first)


def test_nothing_is_written_into_the_data_folder(folder):
    folder.fill(1)
    before = {path: path.stat().st_mtime_ns for path in folder.path.rglob("*")}
    decoded(folder)
    assert {path: path.stat().st_mtime_ns for path in folder.path.rglob("*")} == before


# Split


def lesion_table(seed=0, n_lesions=1500):
    """A table like HAM10000's: seven classes of very different size, one to six images a lesion."""
    rng = np.random.default_rng(seed)
    label = rng.choice(7, n_lesions, p=[0.08, 0.7, 0.05, 0.04, 0.09, 0.02, 0.02])
    n_images = rng.choice([1, 2, 3, 4, 5, 6], n_lesions, p=[0.74, 0.18, 0.05, 0.01, 0.01, 0.01])
    lesion = np.repeat(np.arange(n_lesions), n_images)
    return pd.DataFrame(
        {
            "image": [f"i{i:05}" for i in range(len(lesion))],
            "lesion_id": [f"L{i}" for i in lesion],
            "label": label[lesion],
            "status": USED,
        }
    )


def test_no_lesion_is_in_two_parts_and_each_class_has_its_share_to_within_a_lesion():
    table = lesion_table()
    table["split"] = splits.split_table(table, 0.15, 0.15, seed=42)
    lesions = table.groupby("lesion_id").agg(split=("split", "first"), n=("split", "nunique"), label=("label", "first"))
    assert (lesions["n"] == 1).all()
    for _, members in lesions.groupby("label"):
        for part, share in (("train", 0.7), ("val", 0.15), ("test", 0.15)):
            assert abs((members["split"] == part).sum() - share * len(members)) <= 1


def test_lesions_of_several_images_are_as_common_in_every_part():
    table = lesion_table()
    split = splits.split_table(table, 0.15, 0.15, seed=42)
    lesions = table.assign(split=split).groupby("lesion_id").agg(split=("split", "first"), n=("image", "size"))
    shares = (lesions["n"] > 1).groupby(lesions["split"]).mean()
    assert shares.max() - shares.min() < 0.02


def test_the_split_depends_on_the_seed_alone_not_on_the_rows_order():
    table = lesion_table()
    first = splits.split_table(table, 0.15, 0.15, seed=1)
    shuffled = table.sample(frac=1, random_state=3)
    pd.testing.assert_series_equal(
        splits.split_table(shuffled, 0.15, 0.15, seed=1).sort_index(), first, check_names=False
    )
    assert (splits.split_table(table, 0.15, 0.15, seed=2) != first).any()


def test_a_split_by_image_leaks_and_is_counted():
    table = lesion_table()
    table["split"] = splits.split_table(table, 0.15, 0.15, seed=42, group_by_lesion=False)
    train = set(table.loc[table["split"] == "train", "lesion_id"])
    expected = sum(lesion in train for lesion in table.loc[table["split"] == "test", "lesion_id"])
    assert splits.n_leaked(table, table["split"]) == expected > 0
    assert f"Split by image, {expected} of" in splits.describe_split(table, 0.15, 0.15, 42)


def test_a_class_of_too_few_lesions_is_named_with_the_choices():
    table = lesion_table()
    extra = pd.DataFrame({"image": ["x", "y", "z"], "lesion_id": ["X", "X", "Y"], "label": 5, "status": USED})
    table = pd.concat([table[table["label"] != 5], extra], ignore_index=True)
    with pytest.raises(
        ValueError, match=r"DF \(Dermatofibroma\) has 2 lesion\(s\), 3 image\(s\).*--no-group-by-lesion"
    ):
        splits.split_table(table, 0.15, 0.15, seed=0)


def test_three_lesions_reach_all_three_parts():
    table = pd.DataFrame({"image": list("abc"), "lesion_id": list("abc"), "label": 0, "status": USED})
    assert sorted(splits.split_table(table, 0.15, 0.15, seed=0)) == ["test", "train", "val"]


def test_an_absent_class_is_named_and_does_not_stop():
    table = lesion_table()
    table = table[table["label"] != 6]
    table["split"] = splits.split_table(table, 0.15, 0.15, seed=0)
    assert "VASC (Vascular Lesion) has no image" in splits.describe_split(table, 0.15, 0.15, 0)


def test_a_limit_keeps_that_many_images_of_every_class():
    table = lesion_table().assign(reason="")
    limited = splits.limit_table(table, 200, seed=0)
    used = limited[limited["status"] == USED]
    assert len(used) == 200 and (used["label"].value_counts() >= 10).all()
    assert (limited.loc[limited["status"] == LEFT_OUT, "reason"] == "beyond --limit").all()
    with pytest.raises(ValueError, match="too few"):
        splits.limit_table(table, 20, seed=0)


# Batches


@pytest.fixture
def batches(folder):
    for i in range(10):
        folder.add(f"i{i}", CLASSES[i % 7], suffix=".png")
    table, pixels = decoded(folder.write(), 16)
    return lambda **options: data.Batches(pixels, table, 4, **options)


def test_a_batch_is_what_the_table_promises(batches):
    batch = next(iter(batches().epoch()))
    n = len(batch["image"])
    assert batch["image"].shape == (n, 3, 16, 16) and batch["image"].dtype == torch.float32
    assert batch["image"].is_contiguous(memory_format=torch.channels_last)
    assert batch["label"].tolist() == [0, 1, 2, 3][:n] and batch["label"].dtype == torch.int64
    assert batch["mask"].shape == (n, 1, 16, 16) and set(batch["mask"].unique().tolist()) == {0.0, 1.0}


def test_images_are_normalised_with_the_imagenet_statistics(batches):
    one = batches()
    batch = next(iter(one.epoch()))
    by_hand = (one.pictures()[0][0] / 255 - np.array([0.485, 0.456, 0.406])) / np.array([0.229, 0.224, 0.225])
    np.testing.assert_allclose(batch["image"][0].permute(1, 2, 0), by_hand, atol=1e-5)


def test_every_image_comes_once_an_epoch_in_an_order_fixed_by_seed_and_epoch(batches):
    def labels(epoch, seed):
        return torch.cat([batch["label"] for batch in batches(seed=seed).epoch(epoch)]).tolist()

    assert sorted(labels(1, 5)) == sorted(i % 7 for i in range(10))
    assert labels(1, 5) == labels(1, 5)
    assert labels(1, 5) != labels(2, 5) and labels(1, 5) != labels(1, 6)


def test_turns_move_image_and_mask_together(batches):
    plain = batches()
    turned = batches(seed=3, augment="turns")
    order = np.random.default_rng((3, 1)).permutation(10)  # what the documentation of randomness promises
    images, masks = plain.pictures()
    found = list(turned.epoch(1))
    position = 0
    for batch in found:
        for image, mask in zip(batch["image"], batch["mask"]):
            source = order[position]
            both = np.dstack([data.normalise(torch.tensor(images[source])[None])[0].permute(1, 2, 0), masks[source]])
            now = np.dstack([image.permute(1, 2, 0), mask[0]])
            forms = [np.rot90(flipped, k) for k in range(4) for flipped in (both, both[:, ::-1])]
            assert any(np.allclose(now, form, atol=1e-5) for form in forms)
            position += 1


def test_the_eight_turns_are_eight_different_pictures():
    image = torch.arange(36, dtype=torch.uint8).reshape(1, 3, 3, 4)
    turned = data.turn(image.repeat(8, 1, 1, 1), torch.arange(8))
    assert len({tuple(one.flatten().tolist()) for one in turned}) == 8
    for code in range(8):
        expected = torch.rot90(image, code % 4, dims=(1, 2))
        assert torch.equal(turned[code], (expected.flip(2) if code > 3 else expected)[0])


def test_several_ranks_get_every_image_of_an_epoch_once_and_the_same_batches(batches):
    whole = [sorted(batch["label"].tolist()) for batch in batches(seed=5).epoch(1)]
    ranks = [[batch["label"].tolist() for batch in batches(seed=5, rank=r, n_ranks=2).epoch(1)] for r in (0, 1)]
    assert [sorted(a + b) for a, b in zip(*ranks)] == whole


def test_more_ranks_than_images_in_a_batch_are_refused(batches):
    with pytest.raises(ValueError, match="among 8 processes"):
        batches(rank=0, n_ranks=8)


def test_pixels_in_device_memory_give_the_same_batches(batches):
    from_disk = batches(seed=2, augment="turns")
    in_memory = batches(seed=2, augment="turns")
    in_memory.pixels = torch.from_numpy(np.array(in_memory.pixels))
    for a, b in zip(from_disk.epoch(3), in_memory.epoch(3), strict=True):
        assert all(torch.equal(a[key], b[key]) for key in a)


def test_load_image_gives_a_batch_of_one(tmp_path):
    picture().save(tmp_path / "a.png")
    assert data.load_image(tmp_path / "a.png", 24).shape == (1, 3, 24, 24)


def test_reading_warns_of_nothing(folder):
    folder.add("a")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        decoded(folder.write())
