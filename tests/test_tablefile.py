"""Tables as programs write them: each is read, or refused with file, line and remedy."""

import gzip
import io
import zipfile

import numpy as np
import pytest
from conftest import picture

from dataset import tablefile
from dataset.choice import Choice
from dataset.classes import classes_of
from dataset.layout import find
from dataset.table import read_layout, read_table
from dataset.tablefile import read_rows

LINES = ["image,label", "a,mel", "b,nv", "é,bkl"]


@pytest.fixture
def photos(tmp_path):
    """A folder with the images a, b and é, two of them in folders that look like classes."""
    for place, name in (("batch a", "a"), ("batch b", "b"), ("batch b", "é")):
        (tmp_path / place).mkdir(exist_ok=True)
        picture(len(name)).save(tmp_path / place / f"{name}.jpg")
    return tmp_path


def labels_of(folder):
    table = read_table(folder)
    return dict(zip(table["image"], table["label"].astype(object)))


@pytest.mark.parametrize("delimiter", [";", "\t", "|", ","])
@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-16-le", "utf-16-be", "cp1252"])
def test_a_table_of_any_delimiter_and_encoding_is_read(photos, delimiter, encoding):
    text = "\r\n".join(LINES).replace(",", delimiter)
    (photos / "labels.csv").write_bytes(text.encode(encoding))
    assert labels_of(photos) == {"a": "MEL", "b": "NV", "é": "BKL"}


@pytest.mark.parametrize("name", ["labels.tsv", "labels.tab", "labels.txt", "labels", "HAM10000_metadata"])
def test_a_table_of_another_suffix_or_none_is_read(photos, name):
    (photos / name).write_text("\n".join(LINES).replace(",", "\t"), encoding="utf-8")
    assert labels_of(photos)["a"] == "MEL"


def test_the_line_in_which_excel_names_the_delimiter_is_no_header(photos):
    (photos / "t.csv").write_text("sep=;\n" + "\n".join(LINES).replace(",", ";"), encoding="utf-8")
    assert labels_of(photos)["b"] == "NV"
    (photos / "t.csv").write_text('sep=;\nimage;label\na;"mel\n', encoding="utf-8")
    with pytest.raises(ValueError, match=r"t\.csv, line 3: "):
        read_table(photos)


def test_decimal_commas_are_points(photos):
    (photos / "t.csv").write_text("image;MEL;NV;age\na;1,0;0,0;55,5\nb;0,0;1,0;60,0\n")
    table = read_table(photos)
    assert list(table["label"].astype(object)) == ["MEL", "NV"] and list(table["age"]) == [55.5, 60]


@pytest.mark.parametrize("first", ["a.jpg,melanoma", "a,melanoma"])
def test_a_table_without_header_is_read(photos, first):
    (photos / "ISBI2016_ISIC_Part3_Training_GroundTruth.csv").write_text(f"{first}\nb,nevus\n")
    assert labels_of(photos) == {"a": "MEL", "b": "NV"}


def test_a_table_without_header_is_told_by_the_likeness_of_its_lines_where_no_image_is_there(tmp_path):
    (tmp_path / "t.csv").write_text("ISIC_0000000,benign\nISIC_0000001,malignant\n")
    assert read_rows(tmp_path / "t.csv")["image"].tolist() == ["ISIC_0000000", "ISIC_0000001"]


def test_of_a_table_without_header_and_with_more_columns_the_first_line_is_a_row(photos):
    (photos / "t.csv").write_text("1,a.jpg,melanoma,55\n2,b.jpg,nevus,60\n")
    assert labels_of(photos) == {"a": "MEL", "b": "NV"}


@pytest.mark.parametrize("column", ["path", "Image Name", "imageID", "derm", "Bild", "my pictures"])
def test_images_may_be_named_in_a_column_of_any_name(photos, column):
    (photos / "t.csv").write_text(f"{column},label\nbatch a/a.jpg,mel\nbatch b/b.jpg,nv\n")
    assert labels_of(photos) == {"a": "MEL", "b": "NV"}


def test_a_column_that_names_the_images_comes_before_one_that_is_called_so(photos):
    (photos / "t.csv").write_text("image,photo no,label\n17,a,mel\n18,b,nv\n")
    assert labels_of(photos) == {"a": "MEL", "b": "NV"}


def test_more_than_a_hundred_labels_are_read(tmp_path):
    for k in range(101):
        picture(k, (8, 8)).save(tmp_path / f"i{k}.png")
    (tmp_path / "labels.csv").write_text("image,label\n" + "".join(f"i{k},disease {k}\n" for k in range(101)))
    assert len(classes_of(read_table(tmp_path))) == 101


def test_a_large_table_is_read_and_a_giant_one_refused_by_name(photos, monkeypatch):
    (photos / "labels.csv").write_text(
        "image,label\na,mel\nb,nv\n" + "\n" * (tablefile.PEEKED * 2) + "é,bkl\n", "utf-8"
    )
    assert labels_of(photos)["é"] == "BKL"
    monkeypatch.setattr(tablefile, "MAX_BYTES", 1000)
    with pytest.raises(ValueError, match=r"labels\.csv has more than 1,000 bytes"):
        read_table(photos)


@pytest.mark.parametrize(
    "content, message",
    [
        (b"image,label\na,mel,x\n", r"labels\.csv, line 2: 3 cells, but the header has 2: image, label\. Put"),
        (
            b"image,label\na,mel\nb,\xe9\xe9\n\xc3\xa9,nv\n",
            r"labels\.csv, line 3: not text in UTF-8.*Save it as CSV UTF-8",
        ),
        (b"PK\x03\x04 and so on", r"labels\.csv is an Excel workbook.*Save it as CSV UTF-8"),
        (b"image,label\na,m\0l\n", r"labels\.csv, line 2: .*binary data"),
    ],
)
def test_a_table_of_diagnoses_that_cannot_be_read_is_refused_before_folders_are_tried(photos, content, message):
    for code in ("melanoma", "nevus"):
        (photos / code).mkdir()
        picture().save(photos / code / f"{code}.jpg")
    (photos / "labels.csv").write_bytes(content)
    with pytest.raises(ValueError, match=message):
        read_table(photos)


def test_a_workbook_that_names_images_is_refused_with_what_to_save_it_as(tmp_path):
    for code in ("melanoma", "nevus"):
        (tmp_path / code).mkdir()
        picture().save(tmp_path / code / f"img_{code}.jpg")
    with zipfile.ZipFile(tmp_path / "truth.xlsx", "w") as book:
        book.writestr("xl/sharedStrings.xml", "<si><t>img_melanoma</t></si><si><t>img_nevus</t></si>")
    with pytest.raises(ValueError, match=r"truth\.xlsx names images.*Save its table as truth\.csv"):
        read_table(tmp_path)
    with zipfile.ZipFile(tmp_path / "truth.xlsx", "w") as book:
        book.writestr("xl/sharedStrings.xml", "<si><t>the cost of travel</t></si>")
    assert len(read_table(tmp_path)) == 2


def test_a_table_that_names_no_images_is_named_as_not_used(photos):
    (photos / "labels.csv").write_text("\n".join(LINES), encoding="utf-8")
    (photos / "hmnist_8_8_RGB.csv").write_text("pixel0000,label\n1,2\n")
    assert "Tables that name no images are not used: hmnist_8_8_RGB.csv." in find(photos).describe()


def test_a_broken_table_beside_ground_truth_is_named_and_stops_nothing(photos):
    (photos / "GroundTruth.csv").write_text("\n".join(LINES), encoding="utf-8")
    (photos / "old.csv").write_text("image,label\na,mel,x\n")
    assert "Not used, because it is unreadable" in find(photos).describe()


@pytest.mark.parametrize("header", [[], ["image label"]])
@pytest.mark.parametrize("name", ["labels.txt", "labels.dat", "labels.csv", "labels"])
def test_a_list_whose_cells_blanks_separate_is_read(photos, name, header):
    (photos / name).write_text("\n".join([*header, "a.jpg  melanoma", "b.jpg basal cell carcinoma"]))
    assert labels_of(photos) == {"a": "MEL", "b": "BCC"}


def test_prose_is_no_list(photos):
    (photos / "labels.csv").write_text("\n".join(LINES), encoding="utf-8")
    (photos / "README.txt").write_text("Images of skin\nThe diagnosis of an image was made by\nfive pathologists\n")
    assert "README" not in find(photos).describe()


@pytest.mark.parametrize(
    "above",
    ["# made by me", "# made by me; with care, in 2020\n#\n", '"Table 1: diagnoses, of 2020"', "My labels,,", "# "],
)
def test_a_comment_or_title_above_the_header_is_none(photos, above):
    text = "\n".join(LINES)
    (photos / "t.csv").write_text(above + ("" if above == "# " else "\n") + text, encoding="utf-8")
    assert labels_of(photos) == {"a": "MEL", "b": "NV", "é": "BKL"}
    (photos / "t.csv").write_text("# made by me\nimage,label\na,mel,x\n", encoding="utf-8")
    with pytest.raises(ValueError, match=r"t\.csv, line 3: 3 cells"):
        read_rows(photos / "t.csv")


def test_the_legend_below_a_table_is_no_row(photos):
    rows = ["|| Name || Histological Diagnosis || Clinical Diagnosis ||", "|| a || || 2 ||", "|| b || || 0 ||"]
    (photos / "PH2_dataset.txt").write_text("\n".join([*rows, "", "", "Legend:", "0 - Common Nevus; 2 - Melanoma"]))
    assert labels_of(photos) == {"a": "2", "b": "0"}
    (photos / "PH2_dataset.txt").write_text("\n".join([*rows, "|| a"]))
    with pytest.raises(ValueError, match="line 4"):
        read_rows(photos / "PH2_dataset.txt")


def saved_otherwise(kind, names):
    """Bytes of a file of this kind that names these images."""
    text, buffer = "image,label\n" + "".join(f"{name},mel\n" for name in names), io.BytesIO()
    if kind == ".csv.gz":
        return gzip.compress(text.encode())
    if kind == ".npz":
        np.savez(buffer, image=np.array(names))
    else:
        with zipfile.ZipFile(buffer, "w") as archive:
            archive.writestr("labels.csv", text)
    return buffer.getvalue()


@pytest.mark.parametrize("kind", [".csv.gz", ".npz", ".zip", ".csv.zip"])
def test_a_packed_table_is_refused_or_named_beside_another(tmp_path, kind):
    for name in ("img_a", "img_b"):
        picture(len(name)).save(tmp_path / f"{name}.jpg")
    (tmp_path / f"truth{kind}").write_bytes(saved_otherwise(kind, ["img_a", "img_b"]))
    with pytest.raises(ValueError, match=r"truth.*names images.*Save its table as truth\.csv"):
        find(tmp_path)
    (tmp_path / "truth.csv").write_text("image,label\nimg_a,mel\nimg_b,nv\n")
    assert f"Skipped: 1 .{kind.split('.')[-1]} files, an unsupported format" in find(tmp_path).describe()


def test_a_second_truth_that_says_otherwise_is_named_and_one_that_says_the_same_is_not(photos):
    for name in ("GroundTruth.csv", "GroundTruth_corrected.csv"):
        (photos / name).write_text("\n".join(LINES), encoding="utf-8")
    assert "corrected" not in find(photos).describe()
    (photos / "GroundTruth_corrected.csv").write_text("image,label\na,nv\nb,nv\n")
    said = find(photos).describe()
    assert (
        "GroundTruth_corrected.csv is not used: it names no further image in the folder, and different diagnoses for 1"
        in said
    )


@pytest.mark.parametrize("rows, why", [("", "has no rows"), ("a,unknown\nb,\n", "its column label names no diagnosis")])
def test_a_table_without_any_diagnosis_is_named_with_the_reason(photos, rows, why):
    (photos / "labels.csv").write_text(f"image,label\n{rows}")
    (photos / "t.csv").write_text("\n".join(LINES), encoding="utf-8")
    assert "labels.csv" in find(photos).describe() and why in find(photos).describe()


@pytest.mark.parametrize("suffix", [".csv", ".txt"])
def test_lists_that_are_called_as_diagnoses_are_refused_and_what_to_do_works(photos, suffix):
    for name, cells in (("melanoma", "a.jpg\n"), ("nevus", "b.jpg\né.jpg\n")):
        (photos / f"{name}{suffix}").write_text("image\n" * (suffix == ".csv") + cells, encoding="utf-8")
    with pytest.raises(ValueError, match=r"lists of images named after diagnoses: melanoma.*labels\.csv"):
        find(photos)
    (photos / "labels.csv").write_text("image,label\na.jpg,melanoma\nb.jpg,nevus\n")
    assert labels_of(photos) == {"a": "MEL", "b": "NV"}


@pytest.mark.parametrize("suffix", [".dcm", ".jpg.png", ".JPG"])
def test_a_name_with_another_suffix_than_the_files_is_found(photos, suffix):
    (photos / "t.csv").write_text(f"image,label\na{suffix},mel\nb{suffix},nv\n")
    assert labels_of(photos) == {"a": "MEL", "b": "NV"}


def test_columns_of_measurements_are_left_out_unless_they_are_asked_for(tmp_path):
    header = "isic_id,age_approx,MEL,count,few,width,colour,site"
    rows = [f"a{i},{50 + i / 8},{i / 32},{i},{i % 4}.5,{i / 8 + 0.0625},{-i}.{i}e-3,s{i}" for i in range(64)]
    (tmp_path / "t.csv").write_text("\n".join([header, *rows]))
    used = ["image", "age_approx", "MEL", "count", "few", "site"]
    assert list(read_rows(tmp_path / "t.csv")) == used
    asked = read_rows(tmp_path / "t.csv", wanted=["Width"])
    assert list(asked) == [*used[:5], "width", "site"] and asked["width"].tolist()[1] == "0.1875"


def test_decimals_that_name_images_are_kept(tmp_path):
    for i in range(30):
        picture(i).save(tmp_path / f"{i}.25.jpg")
    (tmp_path / "labels.csv").write_text("where,dx\n" + "".join(f"{i}.25,{('nv', 'mel')[i % 2]}\n" for i in range(30)))
    table = read_table(tmp_path)
    assert (table["image_path"] != "").sum() == 30 and table["image"].tolist()[1] == "1.25"


def test_a_column_of_measurements_is_found_by_subgroups_and_named_among_the_columns(photos):
    values = "".join(f"{name},nv,{i}.5\n" for i, name in enumerate("abé"))
    (photos / "t.csv").write_text("image,dx,width\n" + values + "".join(f"x{i},nv,{i}.25\n" for i in range(40)))
    kept, _ = read_layout(find(photos, columns=["width"]), Choice.of(()), columns=["width"])
    assert kept["column width"].tolist()[:3] == ["0.5", "1.5", "2.5"]
    with pytest.raises(ValueError, match="columns are: image, dx, width"):
        read_layout(find(photos, columns=["depth"]), Choice.of(()), columns=["depth"])


def test_a_legend_after_a_blank_line_is_dropped_and_a_list_of_one_column_is_not(tmp_path):
    (tmp_path / "t.csv").write_text("image,label\na,nv\nb,mel\n\nSource: the clinic\nAll rights reserved\n")
    assert read_rows(tmp_path / "t.csv")["image"].tolist() == ["a", "b"]
    (tmp_path / "t.csv").write_text("image,label\na,nv\nalone\nb,mel\n")
    with pytest.raises(ValueError, match=r"line 3: 1 cells, but the header has 2"):
        read_rows(tmp_path / "t.csv")
    (tmp_path / "t.csv").write_text("image\na\n\nb\n")
    assert read_rows(tmp_path / "t.csv")["image"].tolist() == ["a", "b"]


@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
def test_lines_end_as_on_any_system(tmp_path, end):
    (tmp_path / "t.csv").write_bytes(end.join(["image,label", "a,nv", "", 'b,"mel"']).encode())
    assert read_rows(tmp_path / "t.csv").to_numpy().tolist() == [["a", "nv"], ["b", "mel"]]
    (tmp_path / "t.csv").write_text('image,label\na,"nv\nb,mel"\n')
    with pytest.raises(ValueError, match="line 2: unmatched quotation mark"):
        read_rows(tmp_path / "t.csv")


@pytest.mark.parametrize("name", ["lesion", "lesion_number", "Patient"])
def test_lesions_numbered_with_decimals_are_no_measurements(tmp_path, name):
    rows = "".join(f"a{i},nv,{i // 4 + 1}.{i % 4 + 1}\n" for i in range(100))
    (tmp_path / "t.csv").write_text(f"image,dx,{name}\n{rows}")
    assert read_rows(tmp_path / "t.csv")[name].nunique() == 100


def test_whole_numbers_are_no_measurements_however_they_are_written(tmp_path):
    rows = "".join(f"a{i},{i}.00,{-i},{i / 7}\n" for i in range(100))
    (tmp_path / "t.csv").write_text(f"image,number,below,measured\n{rows}")
    assert list(read_rows(tmp_path / "t.csv")) == ["image", "number", "below"]


def test_decimals_that_name_images_in_another_spelling_are_kept(tmp_path):
    for i in range(1, 31):
        picture(i).save(tmp_path / f"{i:03}.5.jpg")
    (tmp_path / "labels.csv").write_text("nr,dx\n" + "".join(f"{i}.5,{('nv', 'mel')[i % 2]}\n" for i in range(1, 31)))
    assert (read_table(tmp_path)["image_path"] != "").sum() == 30
