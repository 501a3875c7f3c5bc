"""Files of lesions, age, sex and site beside a sound GroundTruth.csv."""

from pathlib import Path

import numpy as np

from dataset.classes import HAM10000 as CLASSES
from dataset.table import read_table

from . import refused_well
from .csvs import CELLS, damaged

NAMES = (
    "HAM10000_metadata.csv",
    "ISIC2018_Task3_Training_LesionGroupings.csv",
    "ISIC_2019_Training_Metadata.csv",
    "a.csv",
)
HEADER = ["lesion_id", "image_id", "dx", "dx_type", "age", "sex", "localization"]


def one(seed: int, place: Path) -> None:
    rng = np.random.default_rng(seed)
    (place / "images").mkdir()
    names = [f"i{i}" for i in range(4)]
    for name in names:
        (place / "images" / f"{name}.jpg").touch()
    lines = [",".join(["image", *CLASSES]), *(f"{name},0,1,0,0,0,0,0" for name in names)]
    (place / "GroundTruth.csv").write_text("\n".join(lines))
    written = [place / name for name in rng.choice(NAMES, size=rng.integers(1, 3), replace=False)]
    for path in written:
        path.write_bytes(damaged(rng, list(HEADER), row))
    found = []
    for _ in range(2):
        try:
            table = read_table(place)
        except Exception as error:
            assert refused_well(error, *written), f"{type(error).__name__}: {error}"
            found.append(str(error))
        else:
            assert list(table["image"]) == names and (table["status"] != "left out").all()
            assert (table["lesion_id"] != "").all() and (table["lesion_known"] | (table["lesion_id"] == names)).all()
            found.append(table.to_csv())
    assert found[0] == found[1]


def row(rng: np.random.Generator) -> list[str]:
    odd = str(rng.choice(CELLS)) if rng.random() < 0.3 else "55.0"
    return [
        f"L{rng.integers(3)}",
        f"i{rng.integers(5)}",
        "nv",
        "histo",
        odd,
        str(rng.choice(["male", "unknown"])),
        "back",
    ]
