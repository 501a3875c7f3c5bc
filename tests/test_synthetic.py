import numpy as np
import pytest
from PIL import Image

from dataset import synthetic
from dataset.__main__ import main
from dataset.classes import HAM10000
from dataset.table import USED, read_table


def test_the_same_seed_writes_the_same_files(tmp_path):
    for name in ("a", "b"):
        synthetic.write_dataset(tmp_path / name, seed=7, lesions={"MEL": 1, "NV": 2})
    synthetic.write_dataset(tmp_path / "c", seed=8, lesions={"MEL": 1, "NV": 2})
    contents = {
        name: {p.relative_to(tmp_path / name): p.read_bytes() for p in (tmp_path / name).rglob("*") if p.is_file()}
        for name in "abc"
    }
    assert contents["a"] == contents["b"] != contents["c"]


def test_it_is_read_as_a_clean_data_set_of_seven_classes_with_lesion_ids(demo_folder):
    table = read_table(demo_folder)
    assert (table["status"] == USED).all()
    assert set(table["label"]) == set(HAM10000)
    assert table["lesion_id"].nunique() == 35 < len(table)


def test_every_mask_has_the_images_size_and_marks_a_lesion_that_differs_from_the_skin(demo_folder):
    for path in sorted((demo_folder / "images").iterdir()):
        image = np.asarray(Image.open(path), float)
        mask = np.asarray(Image.open(demo_folder / "masks" / f"{path.stem}_segmentation.png"))
        assert mask.shape == image.shape[:2] == (synthetic.HEIGHT, synthetic.WIDTH)
        assert set(np.unique(mask)) == {0, 255} and 0.01 < (mask > 0).mean() < 0.6
        inside, outside = image[mask > 0].mean(axis=0), image[mask == 0].mean(axis=0)
        assert np.abs(inside - outside).max() > 10


def test_it_says_that_it_is_synthetic(demo_folder):
    assert "Synthetic" in (demo_folder / "README.txt").read_text()
    assert all(path.name.startswith("synthetic_") for path in (demo_folder / "images").iterdir())


def test_an_image_is_known_to_be_drawn_by_the_readme_of_its_folder(demo_folder, tmp_path):
    drawn = next((demo_folder / "images").iterdir())
    assert synthetic.shows_drawing(drawn) and not synthetic.shows_drawing(tmp_path / "a.jpg")
    (tmp_path / "README.txt").write_text("Photographs of real lesions.")
    assert not synthetic.shows_drawing(tmp_path / "images" / drawn.name)
    assert synthetic.note_of(demo_folder) == synthetic.NOTE and synthetic.note_of(tmp_path) == ""


def test_an_existing_folder_is_not_touched(tmp_path, capsys):
    (tmp_path / "mine").mkdir()
    with pytest.raises(FileExistsError):
        synthetic.write_dataset(tmp_path / "mine")
    with pytest.raises(SystemExit) as stop:
        main(["draw", str(tmp_path / "mine")])
    assert stop.value.code == 2 and "already exists" in capsys.readouterr().err
    assert not list((tmp_path / "mine").iterdir())
