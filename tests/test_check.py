"""`check` says of a folder what a run would."""

import re
import shlex
import tempfile

import pandas as pd
import pytest
from conftest import disc, folder_of, picture

import main as program_main
from dataset import pixelfile
from dataset.__main__ import main


def test_check_says_what_main_would_find_and_changes_nothing(folder, capsys):
    folder.fill(4)
    folder.add("no_mask", mask=None)
    folder.add("no_image", image=None)
    folder.write()
    (folder.path / "images" / "NV_0.jpg").write_text("no picture")
    before = {path: path.stat().st_mtime_ns for path in folder.path.rglob("*")}
    main(["check", str(folder.path)])
    printed = capsys.readouterr().out
    for text in ("30 rows: 27 used, 2 left out, 1 classification only", "image is missing: put the file into images/",
                 "image: download the file again", "without it, only the label is used", "Lesion ids: none", "Split: ",
                 "MB of disk"):  # fmt: skip
        assert text in printed, text
    assert before == {path: path.stat().st_mtime_ns for path in folder.path.rglob("*")}


def test_check_knows_lesions_and_a_split_that_fails(demo_folder, folder, capsys):
    main(["check", str(demo_folder)])
    shown = capsys.readouterr().out
    assert "35 lesions" in shown and "\nMalignant classes: MEL, BCC, AKIEC.\n" in shown
    n_known = pd.read_csv(demo_folder / "HAM10000_metadata.csv")["age"].notna().sum()
    assert f"\nSubgroups: age ({n_known} images), sex (" in shown
    with pytest.raises(SystemExit) as stop:
        main(["check", str(folder.fill(2).path)])
    printed = capsys.readouterr()
    assert stop.value.code == 2 and "A run would stop here. Class MEL" in printed.err and "MB of disk" in printed.out


@pytest.mark.parametrize(
    ("column", "ids", "counts"),
    [
        ("lesion_id", ["L1", "L1", "L2", "L3", "", "", ""], r"images +lesions\nMEL +4 +3\nNV +3 +0\n"),
        ("patient_id", ["P1", "P1", "P2", "P3", "P4", "P5", "P6"], r" images\nMEL +4\n"),
    ],
)
def test_check_counts_only_lesions_that_are_known(column, ids, counts, tmp_path, capsys):
    values = [f"{'MEL' if k < 4 else 'NV'},{one}" for k, one in enumerate(ids)]
    main(["check", str(folder_of(tmp_path, values, f"image,diagnosis,{column}"))])
    printed = capsys.readouterr().out
    assert re.search(counts, printed)
    assert "No usable masks" in printed and "x mask is missing" not in printed  # said once


def test_check_advises_on_missing_masks_beside_damaged_ones(folder, capsys):
    """Of no image a mask is usable, but some have one: what to do about each is said."""
    for k in range(8):
        folder.add(f"i{k}", "MEL" if k % 2 else "NV", mask=None)
    for k in range(4):
        (folder.path / "masks" / f"i{k}_segmentation.png").write_bytes(b"no mask")
    main(["check", str(folder.write().path)])
    printed = capsys.readouterr().out
    assert "4 x mask is missing: put it" in printed and "4 x mask: download" in printed


def test_check_without_a_folder_is_one_message(tmp_path, capsys):
    with pytest.raises(SystemExit) as stop:
        main(["check", str(tmp_path / "nowhere")])
    error = capsys.readouterr().err.strip()
    assert stop.value.code == 2 and "No data folder at" in error and "\n" not in error


def test_an_image_size_that_main_refuses_is_refused(demo_folder, capsys):
    for size in ("32", "4096"):
        main(["check", str(demo_folder), "--image-size", size])
        assert f"At {size}x{size} pixels" in capsys.readouterr().out
    for size in ("31", "4097"):
        with pytest.raises(SystemExit) as stop:
            main(["check", str(demo_folder), "--image-size", size])
        assert stop.value.code == 2 and f"must lie in [32, 4096], not {size}" in capsys.readouterr().err
        assert program_main.RANGES["IMAGE_SIZE"] == "[32, 4096]"


def checked(capsys, *arguments):
    """The exit code of `check`, and what it printed."""
    try:
        main(["check", *map(str, arguments)])
        code = 0
    except SystemExit as stop:
        code = stop.code
    printed = capsys.readouterr()
    return code, printed.out, printed.err


def test_check_takes_the_flags_of_a_run_and_its_advice_can_be_followed_as_printed(folder, tmp_path, capsys):
    """DF has two lesions: the advice is pasted."""
    folder.fill(4)
    folder.rows = [row for row in folder.rows if row[0] not in ("DF_2", "DF_3")]
    code, _, error = checked(capsys, folder.write().path)
    assert code == 2 and "Class DF" in error
    advice = shlex.split(error.split("learn only the other classes: ")[1].strip())
    assert advice[0] == "--classes" and checked(capsys, folder.path, *advice)[0] == 0
    code, printed, _ = checked(capsys, folder.path, "--classes", "malignant=MEL,BCC,AKIEC", "benign=NV,BKL,DF,VASC")
    assert code == 0 and "malignant is MEL and BCC and AKIEC" in printed
    (tmp_path / "s.csv").write_text(
        "image,split\n" + "".join(f"{row[0]},{'train' if i % 3 else 'test'}\n" for i, row in enumerate(folder.rows))
    )
    code, printed, _ = checked(capsys, folder.path, "--classes", "NV", "MEL", "--split-file", tmp_path / "s.csv")
    assert "Split: the data's own, by" in printed and "s.csv; val cut from train" in printed


def test_check_follows_its_own_advice_on_masks_and_zeros(folder, capsys):
    for k in range(8):
        folder.add(f"{k}", "MEL" if k % 2 else "NV", mask=disc().point(lambda value: 255 - value))
    code, _, error = checked(capsys, folder.write().path)
    assert code == 2 and "pass --invert-masks" in error
    assert checked(capsys, folder.path, "--invert-masks")[0] == 0
    (folder.path / "GroundTruth.csv").write_text(
        "image,melanoma,seborrheic_keratosis\n" + "".join(f"{k},{k % 2},0\n" for k in range(8))
    )
    code, _, error = checked(capsys, folder.path, "--invert-masks")
    assert code == 2 and "--zeros NV" in error
    assert checked(capsys, folder.path, "--invert-masks", "--zeros", "NV")[0] == 0


def test_check_says_that_a_run_would_stop_where_there_is_nothing_to_learn(folder, capsys):
    for k in range(6):
        folder.add(f"{k}", "NV", mask=None)
    code, printed, error = checked(capsys, folder.write().path, "--classes", "NV")
    assert code == 2 and "A run would stop here. Each part of the split needs masks, or diagnoses of" in error
    assert "Split: ours" in printed


def test_check_closes_the_pixels_before_it_removes_them(folder, monkeypatch):
    """Windows does not delete an open file."""
    events = []
    kind, cleanup = pixelfile.PixelFile, tempfile.TemporaryDirectory.cleanup
    init, close = kind.__init__, kind.close
    monkeypatch.setattr(kind, "__init__", lambda self, *a: (events.append("opened"), init(self, *a))[1])
    monkeypatch.setattr(kind, "close", lambda self: (events.append("closed"), close(self))[1])
    monkeypatch.setattr(
        tempfile.TemporaryDirectory, "cleanup", lambda self: (events.append("removed"), cleanup(self))[1]
    )
    main(["check", str(folder.fill(4).path)])
    assert events[-1] == "removed" and events.count("opened") == events.count("closed") > 0


def test_check_and_a_run_say_the_same_of_a_folder(folder, tmp_path, capsys):
    folder.fill(4)
    folder.add("more", image=None)
    picture(99).save(folder.write().path / "images" / "unnamed.png")
    _, printed, _ = checked(capsys, folder.path)
    run = ["--data-dir", str(folder.path), "--output-dir", str(tmp_path / "o"), "--cache-dir", str(tmp_path / "c")]
    config = program_main.parse_arguments([*run, "--image-size", "32"])
    program_main.prepare_data(config)
    said = capsys.readouterr().out.strip().splitlines()
    assert len(said) > 10 and [line for line in said if line not in printed.splitlines()] == []


def test_a_held_out_source_is_checked_as_a_run_reads_it(folder, capsys):
    folder.fill(6)
    lines = [f"{row[0]},{row[0]},{'female' if row[0].endswith(('0', '1')) else 'male'}" for row in folder.rows]
    (folder.path / "HAM10000_metadata.csv").write_text("\n".join(["image_id,lesion_id,sex", *lines]) + "\n")
    main(["check", str(folder.path), "--test-where", "sex=female", "--subgroups", "sex"])
    assert "the test set is sex=female (14 images)" in capsys.readouterr().out
    for flags, words in ((["--test-where", "sex=none"], "sex"), (["--subgroups", "camera"], "camera")):
        with pytest.raises(SystemExit) as stop:
            main(["check", str(folder.path), *flags])
        assert stop.value.code == 2 and words in capsys.readouterr().err
