"""A split that the data bring: used as it is, named, audited, and completed from train by our own rule."""

import shlex
import zlib

import pandas as pd
import pytest
from conftest import disc, picture, quick

from dataset import ownsplit
from dataset.csvfile import read_back
from dataset.layout import find
from dataset.ownsplit import own_split
from dataset.prepare import Reading, decode, split
from dataset.roles import SPLITS
from dataset.splits import complete_split, describe_own
from dataset.table import LEFT_OUT, USED

N = 24


def images(place, names=None, folder="images"):
    for name in names or [f"i{k}" for k in range(N)]:
        path = place / folder / f"{name}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        picture(zlib.crc32(f"{folder}/{name}".encode())).save(path)
    return place


def parts_by_hand(val="val"):
    return ["train"] * 12 + [val] * 6 + ["test"] * 6


def write(path, header, rows):
    path.write_text("\n".join([header, *(",".join(map(str, row)) for row in rows)]) + "\n")


def labelled(k):
    return "mel" if k % 2 else "nv"


def made(place, tmp_path, **reading):
    reading, said = Reading(**reading), []
    decoded = decode(place, reading, image_size=32, cache_dir=tmp_path / "cache", say=said.append)
    prepared = split(decoded, reading, say=said.append)
    return prepared.table.set_index("image")["split"], "\n".join(said), prepared


@pytest.mark.parametrize("column", ["split", "Split", "SET", "partition"])
@pytest.mark.parametrize("val", ["val", "Validation", "VALID"])
def test_a_column_of_parts_is_used_as_it_is_and_named(tmp_path, column, val):
    place = images(tmp_path / "data")
    write(
        place / "t.csv",
        f"image,label,{column}",
        [(f"i{k}", labelled(k), part) for k, part in enumerate(parts_by_hand(val))],
    )
    parts, said, prepared = made(place, tmp_path)
    assert [parts[f"i{k}"] for k in range(N)] == parts_by_hand()
    assert f"Split: the data's own, by column {column} of t.csv." in said
    assert f"Split: the data's own, by column {column} of t.csv." in prepared.remarks


def test_a_column_of_other_words_is_no_split(tmp_path):
    place = images(tmp_path / "data")
    write(place / "t.csv", "image,label,set", [(f"i{k}", labelled(k), "train" if k else "ours") for k in range(N)])
    own = own_split(find(place))
    assert own.parts is None
    assert own.remarks == ("Not a split: column set of t.csv does not name images of train and of another part.",)


def test_the_column_of_another_table_counts(tmp_path):
    place = images(tmp_path / "data")
    write(place / "t.csv", "image,label", [(f"i{k}", labelled(k)) for k in range(N)])
    write(place / "meta.csv", "image_id,split", [(f"I{k}.png", part) for k, part in enumerate(parts_by_hand())][::-1])
    parts, said, _ = made(place, tmp_path)
    assert [parts[f"i{k}"] for k in range(N)] == parts_by_hand() and "column split of meta.csv" in said


def test_folders_of_parts_with_classes_are_a_split(tmp_path):
    place = tmp_path / "data"
    for part in ("train", "valid", "TEST"):
        for code in ("benign", "malignant"):
            images(place, [f"{k}" for k in range(4)], f"{part}/{code}")
    parts, said, prepared = made(place, tmp_path)
    assert parts.value_counts().to_dict() == {"train": 8, "val": 8, "test": 8} and "by the folder names" in said
    assert parts[prepared.table.set_index("image")["image_path"].str.contains("TEST")].unique().tolist() == ["test"]


def test_folders_of_parts_with_masks_alone_are_a_split(tmp_path):
    place = tmp_path / "data"
    for part, n in (("Training", 6), ("Validation", 3), ("Test_v2", 3)):
        images(place, [f"{part}{k}" for k in range(n)], f"ISIC-2017_{part}_Data")
        (place / f"ISIC-2017_{part}_Part1_GroundTruth").mkdir()
        for k in range(n):
            disc().save(place / f"ISIC-2017_{part}_Part1_GroundTruth" / f"{part}{k}_segmentation.png")
    parts, _, prepared = made(place, tmp_path)
    assert parts.value_counts().to_dict() == {"train": 6, "val": 3, "test": 3}
    assert (prepared.table["mask_path"] != "").all()


def test_tables_called_as_parts_are_one_with_the_folder_of_the_part(tmp_path):
    place = tmp_path / "data"
    for shift, part in enumerate(("train", "val", "test")):
        for k in range(6):
            path = place / "images" / part / f"{k:03}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            picture(k + 10 * shift).save(path)
        write(place / f"{part}.csv", "image,label", [(f"{k:03}", labelled(k + shift)) for k in range(6)])
    parts, said, prepared = made(place, tmp_path)
    table = prepared.table
    assert parts.value_counts().to_dict() == {"train": 6, "val": 6, "test": 6}
    assert "train.csv and val.csv and test.csv, 18 images by name" in said
    for _, row in table.iterrows():
        assert f"/{row['split']}/" in row["image_path"]
        shift = ("train", "val", "test").index(row["split"])
        assert row["label"] == ("MEL" if (int(row["image_path"][-7:-4]) + shift) % 2 else "NV")


def test_a_table_of_train_alone_is_no_split(tmp_path):
    place = images(tmp_path / "data")
    write(place / "train.csv", "image,label", [(f"i{k}", labelled(k)) for k in range(N)])
    parts, said, _ = made(place, tmp_path)
    assert set(parts) == {"train", "val", "test"} and "Split: ours, by image." in said


@pytest.mark.parametrize("lacking", ["val", "test"])
def test_what_a_split_lacks_is_cut_from_train_and_no_lesion_with_it(tmp_path, lacking):
    place, own = images(tmp_path / "data"), {"val": "test", "test": "val"}[lacking]
    given = ["train"] * 18 + [own] * 6
    rows = [(f"i{k}", labelled(k // 2), part, f"L{k // 2}") for k, part in enumerate(given)]
    write(place / "t.csv", "image,label,split,lesion_id", rows)
    parts, said, prepared = made(place, tmp_path)
    assert (parts[[f"i{k}" for k in range(18, N)]] == own).all()
    assert set(parts[[f"i{k}" for k in range(18)]]) == {"train", lacking}
    assert prepared.table.groupby("lesion_id")["split"].nunique().max() == 1
    assert f"{lacking} cut from train" in said
    assert (parts == lacking).sum() == 4  # a lesion of each of two classes, 0.15 of all images being 0.18 of these


def test_a_split_file_comes_before_all_else_and_none_before_the_datas_own(tmp_path):
    place = images(tmp_path / "data")
    write(
        place / "t.csv", "image,label,split", [(f"i{k}", labelled(k), part) for k, part in enumerate(parts_by_hand())]
    )
    write(
        tmp_path / "mine.csv",
        "image,split",
        [(f"images/i{k}.png", part) for k, part in enumerate(parts_by_hand()[::-1])],
    )
    parts, said, _ = made(place, tmp_path, split_file=str(tmp_path / "mine.csv"))
    assert [parts[f"i{k}"] for k in range(N)] == parts_by_hand()[::-1] and "mine.csv" in said
    parts, said, _ = made(place, tmp_path, split_file="none")
    assert [parts[f"i{k}"] for k in range(N)] != parts_by_hand() and "Split: ours" in said


@pytest.mark.parametrize(
    "header, rows, message",
    [
        ("image,group", [("i0", "train")], "has the columns image, group. Expected image,split"),
        ("image,split", [("i0", "train"), ("i1", "ours")], "names the parts ours, train. Expected train, val, test"),
        ("image,split", [("i0", "train"), ("i0", "test")], "'i0' is assigned to several parts by .*mine"),
        ("image,split", [("i0.png", "train"), ("images/I0", "test")], "'i0' is assigned to several parts by .*mine"),
        ("image,split,set", [("i0", "train", "test"), ("i1", "test", "test")], "different splits, in column split"),
        ("image,is_train", [("i0", "0"), ("i1", "7")], "names the parts 0, 7. Expected train, val, test"),
        ("image,is_test", [("i0", "1"), ("i1", "maybe")], "names the parts 1, maybe. Expected train, val, test"),
        ("image,split", [("x", "train"), ("y", "test")], "gives the image counts train 0, val 0, test 0"),
    ],
)
def test_a_split_file_that_cannot_be_meant_is_refused(tmp_path, header, rows, message):
    place = images(tmp_path / "data")
    write(place / "t.csv", "image,label", [(f"i{k}", labelled(k)) for k in range(N)])
    write(tmp_path / "mine.csv", header, rows)
    with pytest.raises(ValueError, match=message):
        own_split(find(place), str(tmp_path / "mine.csv"))


def test_rows_in_no_part_are_left_out_and_counted(tmp_path):
    place = images(tmp_path / "data")
    given = [*parts_by_hand()[:-2], "", "unknown"]
    write(place / "t.csv", "image,label,split", [(f"i{k}", labelled(k), part) for k, part in enumerate(given)])
    parts, said, prepared = made(place, tmp_path)
    assert (
        prepared.table["status"] == LEFT_OUT
    ).sum() == 2 and "2 left out: in no part of the data's own split" in said
    assert list(parts[["i22", "i23"]]) == ["", ""]


def test_lesions_and_patients_across_a_given_split_are_counted(tmp_path):
    place = images(tmp_path / "data")
    rows = [
        (f"i{k}", labelled(k), part, f"L{min(k, 22)}", f"P{k % 5}") for k, part in enumerate(parts_by_hand())
    ]  # one lesion of two images, both in test; five patients, all in every part
    rows[0] = ("i0", "nv", "train", "L22", "P0")
    write(place / "t.csv", "image,label,split,lesion_id,patient_id", rows)
    _, said, prepared = made(place, tmp_path)
    assert "1 of 22 lesions are in several parts of it" in said and "5 of 5 patients are in several parts of it" in said
    assert "1 of 22 lesions are in several parts of it: scores are inflated." in prepared.remarks
    assert describe_own(prepared.table.assign(split="train"), prepared.table["split"], "x") == [
        "Split: the data's own, by x."
    ]


def test_a_run_trains_on_the_datas_own_split_and_its_report_says_so(tmp_path, capsys):
    place = images(tmp_path / "data")
    write(
        place / "t.csv", "image,label,split", [(f"i{k}", labelled(k), part) for k, part in enumerate(parts_by_hand())]
    )
    (place / "images" / "more.png").write_bytes((place / "images" / "i0.png").read_bytes())
    outputs = tmp_path / "outputs"
    assert quick(place, tmp_path) == 0
    assert "Split: the data's own, by column split of t.csv." in capsys.readouterr().out
    splits = read_back(outputs / "splits.csv").set_index("image")["split"]
    assert [splits[f"i{k}"] for k in range(N)] == parts_by_hand()
    page = (outputs / "report.html").read_text()
    assert "the data&#39;s own, by column split of t.csv" in page
    assert "1 images that no row of t.csv names are not used" in page


def test_a_split_file_that_is_missing_is_named_with_its_flag(demo_folder, tmp_path):
    with pytest.raises(ValueError, match=r"--split-file .*nowhere.csv is not a file\. Expected a CSV file with"):
        own_split(find(demo_folder), str(tmp_path / "nowhere.csv"))


def test_a_split_file_and_lesions_of_names_with_their_folder_go_to_the_right_one_of_two(tmp_path):
    place = tmp_path / "data"
    for site in ("north", "south"):
        images(place, [f"{k}" for k in range(8)], f"images/{site}")
    cells = [f"{site}/{k}.png" for site in ("north", "south") for k in range(8)]
    write(place / "t.csv", "image,label", [(cell, labelled(k)) for k, cell in enumerate(cells)])
    write(place / "lesions.csv", "image,lesion_id", [(cell, f"L{k}") for k, cell in enumerate(cells)][::-1])
    given = ["train"] * 8 + ["val"] * 4 + ["test"] * 4
    write(tmp_path / "s.csv", "image,split", list(zip(cells, given)))
    parts, _, prepared = made(place, tmp_path, split_file=str(tmp_path / "s.csv"))
    assert list(parts) == given and list(prepared.table["lesion_id"]) == [f"L{k}" for k in range(16)]
    write(tmp_path / "s.csv", "image,split", [*zip(cells, given), ("0.png", "train")])
    (remark,) = own_split(find(place), str(tmp_path / "s.csv")).remarks
    assert "1 of 17 rows" in remark and "or several (e.g. 0.png)" in remark


def test_the_splits_that_a_run_has_written_can_be_used_again(tmp_path):
    place = images(tmp_path / "data")
    write(place / "t.csv", "image,label", [(f"i{k}", labelled(k)) for k in range(N)])
    first, _, prepared = made(place, tmp_path)
    prepared.table[["image", "label", "lesion_id", "split"]].to_csv(tmp_path / "splits.csv", index=False)
    again, said, _ = made(place, tmp_path, split_file=str(tmp_path / "splits.csv"))
    assert again.to_dict() == first.to_dict() and "Split: the data's own, by" in said


@pytest.mark.parametrize("lacking, own", [("val", "test"), ("test", "val")])
def test_what_is_cut_has_its_share_of_all_images(lacking, own):
    """15 % of 1,000, where 150 of these are in the part that is there."""
    table = pd.DataFrame({"image": [f"i{k:04}" for k in range(1000)], "label": 0, "status": USED})
    table = table.assign(lesion_id=table["image"], lesion_known=False)
    given = pd.Series(["train"] * 850 + [own] * 150)
    parts = complete_split(table, given, 0.15, 0.15, seed=1)
    assert parts.value_counts().to_dict() == {"train": 700, "val": 150, "test": 150}


def test_a_column_of_parts_and_another_word_is_asked_about():
    cells = pd.Series(["train", "test", "extra"], name="split")
    with pytest.raises(ValueError, match=r"Column split holds 'extra' beside train and test.*--split-file none"):
        ownsplit._parts(cells)
    assert ownsplit._parts(pd.Series(["0", "1", "2"], name="fold")) is None


@pytest.mark.parametrize("head", [["image,split"], ["ID,set"], ["Bild,cohort"], []])
def test_a_split_file_of_any_header_or_none_is_read_and_rows_of_no_image_are_counted(tmp_path, head):
    place = images(tmp_path / "data")
    write(place / "t.csv", "image,label", [(f"i{k}", labelled(k)) for k in range(N)])
    rows = [*(f"i{k},{part}" for k, part in enumerate(parts_by_hand())), "elsewhere,train"]
    (tmp_path / "s.csv").write_text("\n".join([*head, *rows]))
    parts, said, prepared = made(place, tmp_path, split_file=str(tmp_path / "s.csv"))
    assert [parts[f"i{k}"] for k in range(N)] == parts_by_hand()
    remark = f"1 of {N + 1} rows of {tmp_path / 's.csv'} match no image, or several (e.g. elsewhere)."
    assert remark in said and remark in prepared.remarks


@pytest.mark.parametrize(
    "header, cells",
    [
        ("cohort", ["train", "test"]),
        ("data_split", ["Training set", "Test set"]),
        ("is_test", [0, 1]),
        ("is_train", [True, False]),
        ("train,test", ["1,0", "0,1"]),
    ],
)
def test_columns_and_flags_of_other_names_are_a_split(tmp_path, header, cells):
    place = images(tmp_path / "data")
    write(place / "t.csv", f"image,label,{header}", [(f"i{k}", labelled(k), cells[k >= 16]) for k in range(N)])
    own = own_split(find(place))
    assert list(own.parts) == ["train"] * 16 + ["test"] * 8 and own.where.endswith("of t.csv")


@pytest.mark.parametrize("header, cell", [("fold", "{}"), ("is_valid", "{}"), ("usage", "site {}")])
def test_a_column_called_as_a_split_of_other_words_is_named(tmp_path, header, cell):
    place = images(tmp_path / "data")
    write(place / "t.csv", f"image,label,{header}", [(f"i{k}", labelled(k), cell.format(k // 3 % 2)) for k in range(N)])
    _, said, _ = made(place, tmp_path)
    assert "Split: ours" in said and f"{header} of t.csv does not name images of train and of another part." in said


def test_an_image_in_two_parts_is_refused_in_the_table_too(tmp_path):
    place = images(tmp_path / "data")
    rows = [(f"i{k}", labelled(k), part) for k, part in enumerate(parts_by_hand())]
    write(place / "t.csv", "image,label,split", [*rows, ("images/i0.png", "nv", "test")])
    with pytest.raises(ValueError, match=r"'i0' is assigned to several parts by column split of t\.csv"):
        own_split(find(place))
    assert own_split(find(place), "none").parts is None


def test_splits_that_differ_are_asked_about_and_each_answer_works(tmp_path):
    place = images(tmp_path / "my data")
    for part, some in (("train", range(16)), ("test", range(16, N))):
        write(place / f"{part}.csv", "image,label", [(f"i{k}", labelled(k)) for k in some])
    write(place / "meta.csv", "image,split", [(f"i{k}", part) for k, part in enumerate(parts_by_hand())])
    with pytest.raises(
        ValueError, match=r"2 different splits, in train\.csv and test\.csv and in column split"
    ) as refused:
        own_split(find(place))
    asked = shlex.split(str(refused.value))
    files = [asked[k + 1] for k, word in enumerate(asked) if word == "--split-file"]
    assert files == [str(place / "meta.csv"), "none"]
    assert list(own_split(find(place), files[0]).parts) == parts_by_hand()
    write(place / "meta.csv", "image,split", [(f"i{k}", "train" if k < 16 else "test") for k in range(N)])
    assert own_split(find(place)).where == "train.csv and test.csv"


def test_a_split_of_few_images_is_asked_about(tmp_path):
    place = images(tmp_path / "data")
    write(place / "t.csv", "image,label", [(f"i{k}", labelled(k)) for k in range(N)])
    write(place / "demo.csv", "image,split", [("i0", "train"), ("i1", "test")])
    with pytest.raises(
        ValueError, match=r"a split of only 2 of its 24 images, in column split of demo.csv.*--split-file none"
    ):
        own_split(find(place))
    assert sorted(own_split(find(place), str(place / "demo.csv")).parts)[-2:] == ["test", "train"]


def test_parts_of_other_words_are_asked_about_and_the_advice_can_be_pasted(tmp_path):
    place = images(tmp_path / "data")
    words = {"train": ["old, thin", "b=c"], "val": ["it's x", "y"], "test": ["it's x", "y"]}
    rows = [f'i{k},"{words[part][k % 2]}",{part}' for k, part in enumerate(parts_by_hand())]
    (place / "t.csv").write_text("\n".join(["image,label,split", *rows]))
    with pytest.raises(ValueError, match="with none in common") as refused:
        made(place, tmp_path)
    flag = str(refused.value).partition("--classes ")[2].split("\n")[0]
    parts, _, prepared = made(place, tmp_path, classes=shlex.split(flag))
    assert list(prepared.table["label"].cat.categories) == ["b=c", "old, thin"] and set(parts) == {*SPLITS}


def test_the_advice_on_parts_of_other_words_joins_malignant_with_malignant(tmp_path):
    place = images(tmp_path / "data")
    words = {"train": ["malignant", "benign"], "val": ["malignant", "benign"], "test": ["1", "0"]}
    write(
        place / "t.csv", "image,label,split", [(f"i{k}", words[of][k % 2], of) for k, of in enumerate(parts_by_hand())]
    )
    with pytest.raises(ValueError, match="--classes benign=benign,0 malignant=malignant,1\n"):
        made(place, tmp_path)


def test_lists_called_as_parts_are_a_split(tmp_path):
    place = images(tmp_path / "data")
    write(place / "t.csv", "image,label", [(f"i{k}", labelled(k)) for k in range(N)])
    for part in ("train", "val", "test"):
        names = [f"images/i{k}.png" for k, of in enumerate(parts_by_hand()) if of == part]
        (place / f"{part}.txt").write_text("\n".join(names))
    assert list(own_split(find(place)).parts) == parts_by_hand()
