import csv
import io
import tracemalloc

import numpy as np
import pandas as pd
import pytest
from conftest import disc, picture, state_of

from dataset import csvfile
from dataset.choice import Choice
from dataset.classes import HAM10000 as CLASSES
from dataset.columns import FURTHER
from dataset.csvfile import as_csv, csv_parts, read_back
from dataset.layout import find, find_files
from dataset.table import LEFT_OUT, USED, describe_table, read_layout, read_table
from report.folder import RunFolder


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


def test_a_csv_without_classes_is_refused_with_what_it_has_and_what_was_expected(folder):
    (folder.path / "GroundTruth.csv").write_text("image,hospital\na,x\n")
    with pytest.raises(
        ValueError, match=r"names no classes; it has image, hospital. Expected: image,MEL,.*image,label"
    ):
        read_table(folder.path)


def test_rows_that_name_no_file_or_no_class_are_left_out_with_the_reason(folder):
    folder.add("good")
    bad = {
        "two": ["1", "1", "0", "0", "0", "0", "0"],
        "none": ["0"] * 7,
        "half": ["0.5", "0.5", "0", "0", "0", "0", "0"],
        "words": ["yes", "0", "0", "0", "0", "0", "0"],
        "text": ["0", "1", "0", "0", "0", "x", "0"],
        "": ["1", "0", "0", "0", "0", "0", "0"],
    }
    folder.rows += [[name, *values] for name, values in bad.items()]
    table = read_table(folder.write().path)
    assert state_of(table, "good") == (USED, "")
    for name in ("two", "none", "half"):
        assert state_of(table, name) == (LEFT_OUT, "labels are not one-hot")
    for name in ("words", "text"):
        assert state_of(table, name) == (LEFT_OUT, "labels are not numbers")
    assert state_of(table, "") == (LEFT_OUT, "empty name")


@pytest.mark.parametrize("name", ["../secret", "/etc/secret", "a/b", "..\\secret", "C:secret", ".."])
def test_a_name_with_a_path_in_it_opens_nothing(folder, name):
    picture().save(folder.path.parent / "secret.jpg")
    folder.add("good")
    folder.rows.append([name, 1, 0, 0, 0, 0, 0, 0])
    table = read_table(folder.write().path)
    assert list(table["status"]) == [USED, LEFT_OUT]
    assert table["reason"].iloc[1] == ("image is missing" if name == "a/b" else "unsafe name")
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
    assert (table["status"] == USED).all() and (table["label"] == "NV").all()


def test_the_isic_2019_name_of_a_class_is_understood(folder):
    folder.add("a", "AKIEC")
    path = folder.write().path / "GroundTruth.csv"
    path.write_text(path.read_text().replace("AKIEC", "AK,SCC").replace("1.0", "1.0,0"))
    assert read_table(folder.path)["label"].tolist() == ["AKIEC"]


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


def write_csv(folder, *lines, name="GroundTruth.csv", encoding="utf-8"):
    (folder.path / name).write_bytes("\n".join(lines).encode(encoding))
    return folder.path


HEADER = ",".join(["image", *CLASSES])


def test_columns_that_mean_the_same_class_are_refused_by_name(folder):
    with pytest.raises(ValueError, match="AK and AKIEC, which mean the same class"):
        read_table(write_csv(folder, f"{HEADER},AK", "a,0,1,0,0,0,0,0,0"))
    with pytest.raises(ValueError, match="more than one column NV"):
        read_table(write_csv(folder, f"{HEADER},NV", "a,0,1,0,0,0,0,0,0"))


def test_the_column_image_comes_before_its_other_names(folder):
    folder.add("a")
    for header in (f"isic_id,{HEADER}", f"image_id,{HEADER}"):
        assert list(read_table(write_csv(folder, header, "x,a,0,1,0,0,0,0,0"))["image"]) == ["a"]
    header = f"isic_id,{HEADER.replace('image', 'image_id')}"
    assert list(read_table(write_csv(folder, header, "x,a,0,1,0,0,0,0,0"))["image"]) == ["a"]


@pytest.mark.parametrize("name", ["NA", "nan", "null", "None", "001", "1e5", "True", "$x_1$", "=1+1", "😀"])
def test_a_name_is_text_whatever_it_looks_like(folder, name):
    folder.add(name)
    write_csv(folder, "lesion_id,image_id", f"007,{name}", name="HAM10000_metadata.csv")
    table = read_table(folder.write().path)
    assert list(table["image"]) == [name] and list(table["lesion_id"]) == ["007"] and table["status"].item() == USED
    (folder.path / "out.csv").write_text(as_csv(table), encoding="utf-8")
    back = read_back(folder.path / "out.csv")
    assert list(back["image"]) == [name] and list(back["lesion_id"]) == ["007"] and back["label"].item() == "NV"


@pytest.mark.parametrize("name", ["a\rb", "a\tb", "a\x00b", "a\x85b", "a\x7fb"])
def test_a_name_that_a_console_would_obey_is_left_out_and_its_row_reads_back_as_one(folder, name):
    folder.add("good")
    folder.rows.append([name, 0, 1, 0, 0, 0, 0, 0])
    if "\0" in name:
        with pytest.raises(ValueError, match="line 3"):
            read_table(folder.write().path)
        return
    table = read_table(folder.write().path)
    assert list(table["reason"]) == ["", "unsafe name"]
    assert len(list(csv.reader(io.StringIO(as_csv(table), newline="")))) == 3
    assert name not in describe_table(table)


def test_a_table_in_parts_is_the_text_of_pandas_with_escaped_characters(monkeypatch):
    """Values of every kind; characters that control a console in a part that is not the first."""
    table = pd.DataFrame(
        {
            "image": ["a", "b,c", 'say "d"', "e\nf", None, "g\x7f"],
            "label": pd.Categorical(["MEL", "NV", None, "x\ty", "NV", "MEL"]),
            "score": [0.1, 1 / 3, np.nan, 1e-9, 1e20, 2.0],
            "n": range(6),
            "is_used": [True, False] * 3,
            "mixed": [1, "two", None, 4.5, [5], True],
        },
        index=[3, 3, 1, 2, 0, 9],
    )
    expected = table.assign(image=["a", "b,c", 'say "d"', r"e\nf", None, r"g\x7f"])
    expected["label"] = ["MEL", "NV", None, r"x\ty", "NV", "MEL"]
    for digits in (None, "%.3g"):
        whole = expected.to_csv(index=False, lineterminator="\n", float_format=digits)
        for n_rows in (100, 4, 1):
            monkeypatch.setattr(csvfile, "N_ROWS", n_rows)
            assert len(parts := list(csv_parts(table, digits))) == -(-6 // n_rows) or n_rows == 100
            assert "".join(parts) == as_csv(table, digits) == whole
    assert as_csv(table.iloc[:0]) == "image,label,score,n,is_used,mixed\n"


def test_a_long_table_is_never_one_text_in_memory(tmp_path):
    table = pd.DataFrame(np.random.default_rng(0).random((80_000, 8))).assign(image="an_image_of_some_name")
    tracemalloc.start()
    RunFolder(tmp_path).write_table("a.csv", table)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    size = (tmp_path / "a.csv").stat().st_size
    assert size > 13e6 and peak < 2 * size
    assert len(read_back(tmp_path / "a.csv")) == 80_000


def test_a_comma_after_every_row_is_no_column(folder):
    folder.add("a")
    table = read_table(write_csv(folder, HEADER, "a,0,1,0,0,0,0,0,", ""))
    assert list(table["status"]) == [USED]
    assert list(read_table(write_csv(folder, HEADER + ",", "a,0,1,0,0,0,0,0,,"))["status"]) == [USED]


@pytest.mark.parametrize(
    "row", ["a,0,1,0,0,0,0,0,x", "a,0,1,0", 'a,0,1,0,0,0,0,"0', 'a,0,1,"0\nb,0,1,0"', '"a"b,0,1,0,0,0,0,0']
)
def test_a_line_that_is_no_row_is_refused_by_its_number(folder, row):
    lines = [HEADER, "c,0,1,0,0,0,0,0", "", row, "d,0,1,0,0,0,0,0"]
    with pytest.raises(ValueError, match=r"GroundTruth\.csv, line 4"):
        read_table(write_csv(folder, *lines))


def test_two_stray_quotes_do_not_swallow_the_rows_between(folder):
    lines = [HEADER, '"a,0,1,0,0,0,0,0', "b,0,1,0,0,0,0,0", 'c,0,1,0,0,0,0,0"', "d,0,1,0,0,0,0,0"]
    with pytest.raises(ValueError, match="line 2: unmatched quotation mark"):
        read_table(write_csv(folder, *lines))


def test_a_csv_that_is_no_file_is_one_message(folder):
    (folder.path / "GroundTruth.csv").mkdir()
    with pytest.raises(FileNotFoundError, match=r"Expected GroundTruth\.csv"):
        read_table(folder.path)


def test_a_data_folder_that_is_a_file_or_a_loop_of_links_is_one_message(tmp_path):
    (tmp_path / "file").write_text("")
    (tmp_path / "loop").symlink_to(tmp_path / "loop")
    for name in ("file", "loop"):
        with pytest.raises(FileNotFoundError, match=f"No data folder at .*{name}"):
            read_table(tmp_path / name)


def test_a_class_that_is_not_learned_is_named_as_the_reason(folder):
    folder.add("a")
    folder.add("s")
    place = write_csv(folder, f"{HEADER},SCC,UNK", "a,0,1,0,0,0,0,0,0,0", "s,0,0,0,0,0,0,0,1,0")
    assert list(read_table(place, CLASSES)["reason"]) == ["", "labelled SCC, which is not among the classes"]


# Lesions, age, sex and site


@pytest.mark.parametrize("name", ["ISIC_2019_Training_Metadata.csv", "mine.csv"])
def test_lesion_ids_of_any_release_are_read(folder, name):
    for image in "abc":
        folder.add(image)
    folder.write()
    lines = [
        "image,age_approx,anatom_site_general,lesion_id,sex",
        "a,55,torso,L1,male",
        "b,,,L1,unknown",
        "c,40,,,female",
    ]
    table = read_table(write_csv(folder, *lines, name=name))
    assert list(table["lesion_id"]) == ["L1", "L1", "c"] and list(table["lesion_known"]) == [True, True, False]
    assert table["age"].fillna(-1).tolist() == [55, -1, 40]
    assert table["sex"].isna().tolist() == [False, True, False] and table["localization"][0] == "torso"


@pytest.mark.parametrize("proof", ["dx_type", "diagnosis_confirm_type"])
@pytest.mark.parametrize("source", ["dataset", "attribution"])
def test_proof_source_and_skin_type_are_read_by_ham10000s_names_and_the_archives(folder, proof, source):
    for image in "ab":
        folder.add(image)
    folder.write()
    lines = [f"image,{proof},{source},fitzpatrick_skin_type", "a,histo,rosendahl,II", "b,,unknown,"]
    table = read_table(write_csv(folder, *lines, name="mine.csv"))
    assert table.loc[0, ["dx_type", "dataset", "fitzpatrick_skin_type"]].tolist() == ["histo", "rosendahl", "II"]
    assert table.loc[1, ["dx_type", "dataset", "fitzpatrick_skin_type"]].isna().all()


def test_a_column_that_only_the_user_names_is_kept_and_one_that_nobody_has_is_refused_with_those_there_are(folder):
    for image in "ab":
        folder.add(image)
    folder.write()
    layout = find(write_csv(folder, "image,camera,blank", "a,X1,", "b,X2,", name="mine.csv"))
    table, _ = read_layout(layout, Choice({}), columns=("Camera", "camera"))
    assert table["column camera"].tolist() == table["column Camera"].tolist() == ["X1", "X2"]
    assert not [name for name in read_layout(layout, Choice({}))[0] if name.startswith(FURTHER)]
    for name in ("lens", "dataset", "blank"):
        message = f"the column {name} with a known value .*are: image, MEL, .*, camera, blank"
        with pytest.raises(ValueError, match=message):
            read_layout(layout, Choice({}), columns=("camera", name))
        *_, remark = read_layout(layout, Choice({}), complete=False, columns=(name,))[1]
        assert f"column {name} with" in remark


def test_a_known_files_lesion_ids_come_before_anothers(folder):
    folder.add("a")
    folder.write()
    write_csv(folder, "image,lesion_id", "a,theirs", name="HAM10000_metadata.csv")
    assert read_table(write_csv(folder, "image,lesion_id", "a,mine", name="A.csv"))["lesion_id"].tolist() == ["theirs"]


# What this project has written


def test_what_predict_and_main_have_written_is_never_taken_for_data(folder):
    folder.add("a", mask=None)
    folder.write()
    for name in ("predictions/masks", "run/images"):
        (folder.path / name).mkdir(parents=True)
    disc().save(folder.path / "predictions" / "masks" / "a.png")
    (folder.path / "predictions" / "predictions.csv").write_text("file,output,predicted\n")
    picture().save(folder.path / "run" / "images" / "b.png")
    (folder.path / "run" / "record.json").write_text("{}")
    (folder.path / "killed" / "masks").mkdir(parents=True)
    disc().save(folder.path / "killed" / "masks" / "a.png")
    (folder.path / "killed" / "predictions.run.json").write_text("{}")
    images, masks = find_files(folder.path)
    assert set(images) == {"a"} and masks == {}


def test_of_several_masks_the_one_called_segmentation_is_used(folder):
    folder.add("a")
    disc().save(folder.path / "masks" / "a.png")
    disc().save(folder.path / "masks" / "a_mask.png")
    assert find_files(folder.write().path)[1]["a"].endswith("a_segmentation.png")
