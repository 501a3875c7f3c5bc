"""The README's picture: drawn lesions of the demo's test set as its multi-task model sees them.

python main.py --demo && python docs/picture.py
"""

import sys
import textwrap
from pathlib import Path

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

sys.path.insert(0, str(Path(__file__).parents[1]))
from dataset import images
from dataset.classes import name_of
from inference.drawing import mask_at
from inference.predictor import Predictor
from inference.verdict import verdict

RUN, DATA, WIDTH, HEIGHT = "outputs_demo", Path("demo_data"), 600, 248  # pixels in the README
COLUMNS = ("photograph", "true mask", "predicted mask", "heat map", "verdict")
LABELS = ("MEL", "NV", "BCC")  # one image each: the first of the test set


def main() -> None:
    """Write docs/lesions.jpg."""
    split = pd.read_csv(f"{RUN}/splits.csv").query("split == 'test'").drop_duplicates("label").set_index("label")
    predictor = Predictor(f"{RUN}/best_multitask_model.pth", explain=True)
    paths = [DATA / "images" / f"{split.image[label]}.jpg" for label in LABELS]
    predictions = predictor.predict([predictor.read(path) for path in paths])
    figure = Figure(figsize=(WIDTH / 72, HEIGHT / 72))  # so that a point is a pixel there
    places = {"left": 0, "right": 1, "bottom": 0, "top": 1 - 14 / HEIGHT, "wspace": 0.03, "hspace": 0.05}
    axes = figure.subplots(len(LABELS), len(COLUMNS), width_ratios=(1, 1, 1, 1, 2.1), gridspec_kw=places)
    for row, label, path, prediction in zip(axes, LABELS, paths, predictions):
        photograph = np.asarray(images.read_image(path, prediction.size))
        true = np.asarray(images.read_image(DATA / "masks" / f"{path.stem}_segmentation.png", prediction.size))
        for axis, pixels in zip(row, (photograph, true, mask_at(prediction.mask, prediction.size), photograph)):
            axis.imshow(pixels, cmap="gray")
        row[3].imshow(prediction.heat, cmap="inferno", alpha=0.6, vmin=0, vmax=1, extent=(0, *prediction.size, 0))
        lines = [f"Drawn as {name_of(label)}", *verdict(prediction, predictor.classes)]
        text = "\n".join(part for line in lines for part in textwrap.wrap(line, 40, subsequent_indent="  "))
        row[4].text(0.03, 0.5, text, va="center", fontsize=8.5, transform=row[4].transAxes)
        for axis in row:
            axis.set_axis_off()
    for axis, name in zip(axes[0], COLUMNS):
        axis.set_title(name, fontsize=9, pad=3)
    figure.savefig(Path(__file__).parent / "lesions.jpg", dpi=180, pil_kwargs={"quality": 88})


if __name__ == "__main__":
    main()
