"""Which pictures a command line names, what their outputs are called, and the table of what was said of them."""

import json
from collections import Counter
from pathlib import Path

import pandas as pd
import pytest
from conftest import disc, picture

from inference.inputs import Listed, list_pictures, output_names, refuse_data_folder
from inference.table import Table


def test_no_two_files_share_an_output_name(tmp_path):
    names = ["a/x.jpg", "b/x.jpg", "a/x.png", "a/X.jpg", "a/y.v1.jpg", "a/y.v2.jpg"]
    found = output_names([tmp_path / name for name in names])
    assert len({name.casefold() for name in found}) == len(names)
    assert found[1] == "b/x" and found[4] == "a/y.v1"


def test_a_data_folder_is_never_written_into(tmp_path):
    copy = tmp_path / "data"
    (copy / "masks").mkdir(parents=True)
    (copy / "GroundTruth.csv").write_text("image\n")
    for folder in (copy, copy / "masks", copy / "images"):
        with pytest.raises(ValueError, match="Name another --output-dir"):
            refuse_data_folder(folder)
    refuse_data_folder(copy / "predictions")
    refuse_data_folder(tmp_path / "elsewhere" / "predictions")


def test_folders_that_are_links_are_searched_once(tmp_path):
    photos = tmp_path / "photos"
    for folder in (photos, tmp_path / "more"):
        folder.mkdir()
    picture(1).save(photos / "one.png")
    picture(7).save(tmp_path / "more" / "seven.png")
    (photos / "linked").symlink_to(tmp_path / "more")
    (tmp_path / "more" / "up").symlink_to(photos)
    files = [one.file for one in list_pictures([str(photos)], tmp_path / "out")]
    assert files == [str(photos / "one.png"), str(photos / "linked" / "seven.png")]
    (photos / "a").symlink_to(tmp_path / "more")
    both = [one.file for one in list_pictures([str(photos), str(tmp_path / "more")], tmp_path / "out")]
    assert both == [str(photos / "one.png"), str(tmp_path / "more" / "seven.png")]


def test_parts_are_joined_in_the_order_of_the_pictures_whatever_stands_in_a_name(tmp_path):
    names = ["a,b", 'a"b', "a\nb", "a\rb", "\udcff", "plain"]
    listed, table = [Listed(name, name) for name in names], Table(tmp_path, ["predicted"])
    table.begin({})
    for rank in (0, 1):
        with table.open_part(rank) as write:
            for name in names[rank::2][::-1]:
                write([name, name, "", "NV"])
    assert table.join(listed).tolist() == [2] * 6 and not table.parts()
    content = (tmp_path / "predictions.csv").read_bytes()
    assert table.join(listed).tolist() == [2] * 6 and (tmp_path / "predictions.csv").read_bytes() == content
    table.write_json()
    assert [row["file"] for row in json.loads((tmp_path / "predictions.json").read_text())] == names
    read = pd.read_csv(tmp_path / "predictions.csv", encoding_errors="surrogateescape")
    assert read["file"].tolist() == names


# What is passed over


@pytest.fixture
def lay(tmp_path):
    """Saves pictures by name below a folder, masks where the name ends in png."""

    def save(*names):
        for number, name in enumerate(names):
            path = tmp_path / "in" / name
            path.parent.mkdir(parents=True, exist_ok=True)
            if path.suffix in (".heic", ".avif"):
                path.write_bytes(b"x")
            else:
                (disc() if path.suffix == ".png" else picture(number)).save(
                    path, "JPEG" if path.suffix[:2] == ".j" else None
                )
        return tmp_path / "in"

    return save


def listed_in(folder, output_dir="elsewhere"):
    passed = Counter()
    found = list_pictures([str(folder)], Path(output_dir), passed)
    return {Path(one.file).relative_to(folder).as_posix(): one.problem for one in found}, dict(passed)


def test_masks_are_passed_over_and_counted(lay):
    names = ["masks/a_segmentation.png", "images/a_mask.png", "images/a_lesion.png", "images/b.png", "deep/gt/a.png"]
    found, passed = listed_in(lay("images/a.jpg", "images/b.jpg", *names))
    assert found == {"images/a.jpg": "", "images/b.jpg": ""} and passed == {"masks": 5}


def test_a_photograph_whose_own_name_ends_in_lesion_is_predicted(lay):
    assert set(listed_in(lay("a.jpg", "a_lesion_1.jpg", "a_lesion.png"))[0]) == {"a.jpg", "a_lesion_1.jpg"}


def test_a_folder_of_masks_that_is_named_itself_is_predicted(lay):
    assert list(listed_in(lay("masks/a.png") / "masks")[0]) == ["a.png"]


@pytest.mark.parametrize("mark", ["record.json", "predictions.run.json"])
def test_what_we_have_written_is_passed_over_whole_and_counted(lay, mark):
    folder = lay("a.jpg", "outputs/x.png", "outputs/overlays/a.jpg", "outputs/figures/deep/b.png")
    (folder / "outputs" / mark).write_text("{}")
    assert listed_in(folder) == ({"a.jpg": ""}, {"written by main.py or predict.py": 3})


def test_jpegs_of_every_suffix_are_read_and_other_kinds_are_rows_of_skipped(lay):
    found, passed = listed_in(lay("a.jfif", "b.jpe", "c.heic", "d.avif"))
    assert found["a.jfif"] == found["b.jpe"] == "" and passed == {}
    assert found["c.heic"] == ".heic is not read: save it as JPEG, PNG or TIFF" and ".avif" in found["d.avif"]
