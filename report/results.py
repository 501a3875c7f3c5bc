"""A trained model and a set of images -> numbers, tables and pictures in a folder."""

import json
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pandas as pd
import torch
import torch.nn.functional as F
from tqdm import tqdm

import data
import evaluate
import visualize
from dataset import images
from dataset.table import CLASSES, USED
from models import Model

OPERATING_POINTS = {"melanoma": ("MEL",), "malignant": ("MEL", "BCC", "AKIEC")}  # classes to find, against the rest
AGE_BANDS = ((0, 40, "under 40"), (40, 60, "40 to 59"), (60, 200, "60 and over"))  # years
N_EXPLAINED = 6  # images in the heat map figure
Write = Callable[[str, str | bytes], None]


def assess(
    model: Model,
    batches: data.Batches,
    calibration: dict,
    *,
    task: str,
    precision: str,
    write: Write,
    note: str = "",
    about: dict | None = None,
    metadata: pd.DataFrame | None = None,
) -> dict:
    """Measure a model on all images of `batches`; write its numbers, tables and pictures, and return the numbers.

    Parameters
    ----------
    calibration : from `calibrate`.
    write : (file name, content), called for each file.
    note : stands in every picture and in metrics.json.
    about : further plain values for metrics.json.
    metadata : columns image, age, sex, localization, for subgroups.
    """
    rows = batches.table
    masked = (rows["status"] == USED).to_numpy()
    resamples = evaluate.resample_lesions(rows["lesion_id"])
    collected = collect(model, batches, precision)
    found: dict = ({"data": note} if note else {}) | (about or {})
    found |= {"n_images": len(rows), "n_lesions": int(rows["lesion_id"].nunique()), "intervals": {}}
    if "label" in collected:
        found["label"], found["intervals"]["label"] = label_numbers(rows, collected, resamples, calibration)
    if "mask" in collected:
        found["mask"], found["intervals"]["mask"] = mask_numbers(rows[masked], collected, resamples[:, masked])
    found["subgroups"] = subgroup_numbers(rows, collected, resamples, metadata)
    pictures = Pictures(model, batches, collected, task, precision)
    if "label" in collected:
        write("predictions.csv", as_csv(prediction_table(rows, collected["label"])))
        figures, found["label"]["heat_map"] = pictures.of_labels(calibration)
        draw_all(figures, write, note)
    if "mask" in collected:
        write("per_image.csv", as_csv(mask_table(rows[masked], collected["mask"])[["image", "iou", "dice"]]))
        write("per_image_native.csv", as_csv(mask_table(rows[masked], collected["native"], collected["surface"])))
        draw_all(pictures.of_masks(), write, note)
    write("metrics.json", json.dumps(found, indent=2) + "\n")
    return found


def collect(model: Model, batches: data.Batches, precision: str) -> dict[str, np.ndarray]:
    """Run the model over all images once; M of the N have a mask.

    Returns
    -------
    label : (N, K) logits.
    mask, native : (M, 4) `evaluate.mask_counts` at the network's size, and at each mask file's own.
    surface : (M, 2) 95 % Hausdorff and average surface distance in pixels of the mask file.
    """
    kept: dict[str, list] = {}
    rows, start = batches.table, 0
    progress = tqdm(batches.epoch(), "measuring", len(batches), leave=False, unit="batch", disable=None)
    with ThreadPoolExecutor(torch.get_num_threads()) as pool:
        for batch, output in evaluate.infer(model, progress, precision):
            part = rows.iloc[start : start + len(batch["image"])]
            start += len(part)
            if "label" in output:
                kept.setdefault("label", []).append(output["label"].cpu().numpy())
            masked = part["status"].to_numpy() == USED
            if "mask" in output and masked.any():
                logits, mask = output["mask"].cpu()[masked], batch["mask"].cpu()[masked]
                kept.setdefault("mask", []).append(evaluate.mask_counts(logits, mask).numpy())
                native = list(pool.map(native_overlap, logits, part["image_path"][masked], part["mask_path"][masked]))
                kept.setdefault("native", []).append(np.stack([counts for counts, _ in native]))
                kept.setdefault("surface", []).append(np.stack([surface for _, surface in native]))
    return {name: np.concatenate(values).astype(float) for name, values in kept.items()}


def native_overlap(logits: torch.Tensor, image_path: str, mask_path: str) -> tuple[np.ndarray, tuple[float, float]]:
    """Overlap and surface distances at the mask file's own size, to which the logits (1, H, W) are resized."""
    true = images.read_native_mask(image_path, mask_path)
    full = F.interpolate(logits[None], size=true.shape, mode="bilinear", align_corners=False)
    counts = evaluate.mask_counts(full, torch.from_numpy(true)[None, None])[0].numpy()
    return counts, evaluate.surface_distances(full[0, 0].numpy() > 0, true)


def calibrate(model: Model, batches: data.Batches, precision: str) -> dict:
    """What is fitted on the validation set and applied unchanged elsewhere; {} for a model without labels.

    Returns
    -------
    temperature : divides the logits.
    thresholds : of the summed probability of each operating point's classes.
    """
    logits = [
        output["label"].cpu() for _, output in evaluate.infer(model, batches.epoch(), precision) if "label" in output
    ]
    if not logits:
        return {}
    logits, true = torch.cat(logits).numpy().astype(float), batches.table["label"].to_numpy()
    probabilities = evaluate.softmax(logits)
    thresholds = {}
    for name, codes in OPERATING_POINTS.items():
        positive, score = one_against_rest(true, probabilities, codes)
        thresholds[name] = evaluate.operating_threshold(positive, score)
    return {"temperature": evaluate.fit_temperature(true, logits), "thresholds": thresholds}


def one_against_rest(true: np.ndarray, probabilities: np.ndarray, codes) -> tuple[np.ndarray, np.ndarray]:
    """Whether each image is of one of the classes, and their summed probability."""
    members = [CLASSES.index(code) for code in codes]
    return np.isin(true, members), probabilities[:, members].sum(axis=1)


def label_numbers(rows: pd.DataFrame, collected: dict, resamples: np.ndarray, calibration: dict) -> tuple[dict, dict]:
    """All scores of the labels with intervals, for metrics.json."""
    true, probabilities = rows["label"].to_numpy(), evaluate.softmax(collected["label"])
    calibrated = evaluate.softmax(collected["label"], calibration["temperature"])

    def scores(weights: np.ndarray) -> evaluate.Scores:
        found = evaluate.label_scores(true, probabilities, CLASSES, weights)
        found |= under("official", evaluate.official_label_scores(true, probabilities, CLASSES, weights))
        found |= under("calibration.before", evaluate.calibration_scores(true, probabilities, weights))
        found |= under("calibration.after", evaluate.calibration_scores(true, calibrated, weights))
        for name, codes in OPERATING_POINTS.items():
            positive, score = one_against_rest(true, probabilities, codes)
            values = evaluate.binary_scores(positive, score >= calibration["thresholds"][name], weights)
            kept = {key: values[key] for key in ("sensitivity", "specificity", "ppv")}
            found |= under(f"operating_points.{name}", kept)
        return found

    numbers, intervals = evaluate.with_intervals(scores, resamples)
    for k, code in enumerate(CLASSES):
        numbers["per_class"][code]["support"] = int((true == k).sum())
    numbers["calibration"]["temperature"] = calibration["temperature"]
    for name, threshold in calibration["thresholds"].items():
        numbers["operating_points"][name]["threshold"] = None if np.isnan(threshold) else threshold
    return numbers | {"n_images": len(true)}, intervals


def mask_numbers(rows: pd.DataFrame, collected: dict, resamples: np.ndarray) -> tuple[dict, dict]:
    """All scores of the masks with intervals: at the network's size, `native` at the mask's, and by diagnosis."""
    surface = dict(zip(("hd95", "assd"), collected["surface"].T))

    def native(weights: np.ndarray) -> evaluate.Scores:
        distances = {f"mean_{name}": evaluate.weighted_mean(weights, values) for name, values in surface.items()}
        return evaluate.mask_scores(collected["native"], weights) | distances

    def scores(weights: np.ndarray) -> evaluate.Scores:
        found = evaluate.mask_scores(collected["mask"], weights) | under("native", native(weights))
        for k, code in enumerate(CLASSES):
            found |= under(f"by_class.{code}", native(weights * (rows["label"].to_numpy() == k)))
        return found

    numbers, intervals = evaluate.with_intervals(scores, resamples)
    for k, code in enumerate(CLASSES):
        numbers["by_class"][code]["n_images"] = int((rows["label"] == k).sum())
    return numbers | {"n_images": len(rows)}, intervals


def subgroup_numbers(rows: pd.DataFrame, collected: dict, resamples: np.ndarray, metadata: pd.DataFrame | None) -> list:
    """For each age band, sex and site: images, lesions, and the heads' main scores with intervals."""
    if metadata is None:
        return []
    known = rows[["image", "lesion_id"]].merge(metadata.drop_duplicates("image"), "left", "image")
    known["age"] = known["age"].map(age_band)
    found = []
    for column in ("age", "sex", "localization"):
        for value in sorted(known[column].dropna().unique()):
            member = (known[column] == value).to_numpy()
            numbers, intervals = evaluate.with_intervals(lambda w: _main_scores(rows, collected, w * member), resamples)  # noqa: B023
            group = {"group": column, "value": value, "n_images": int(member.sum())}
            group["n_lesions"] = int(known.loc[member, "lesion_id"].nunique())
            found.append(group | numbers | {"intervals": intervals})
    return found


def _main_scores(rows: pd.DataFrame, collected: dict, weights: np.ndarray) -> evaluate.Scores:
    found = {}
    if "label" in collected:
        labels = evaluate.label_scores(rows["label"].to_numpy(), collected["label"], CLASSES, weights)
        found |= {name: labels[name] for name in ("accuracy", "balanced_accuracy")}
    if "mask" in collected:
        masked = (rows["status"] == USED).to_numpy()
        found["mean_dice"] = evaluate.mask_scores(collected["mask"], weights[:, masked])["mean_dice"]
    return found


def age_band(age) -> str | None:
    """The band of an age in years, given as a number or text; None if unknown."""
    age = pd.to_numeric(age, errors="coerce")
    return next((name for low, high, name in AGE_BANDS if low <= age < high), None)


def compare(single: pd.DataFrame, multi: pd.DataFrame, lesions: pd.Series) -> dict:
    """Multi-task less single-task on the images both have: paired bootstrap of lesions, McNemar's test for labels.

    Parameters
    ----------
    single, multi : two prediction tables, or two per-image mask tables, as `assess` writes them.
    lesions : lesion by image name.
    """
    both = single.merge(multi, on="image", suffixes=("_0", "_1"))
    resamples = evaluate.resample_lesions(both["image"].map(lesions))
    found = {"n_images": len(both)}
    if "dice_0" in both:
        dice = [both[f"dice_{i}"].to_numpy() for i in (0, 1)]
        return found | {
            "mean_dice": evaluate.paired_difference(lambda i, w: evaluate.weighted_mean(w, dice[i]), resamples)
        }
    true = pd.Categorical(both["true_0"], CLASSES).codes
    called = [pd.Categorical(both[f"predicted_{i}"], CLASSES).codes for i in (0, 1)]
    one_hot = [np.eye(len(CLASSES))[codes] for codes in called]

    def balanced(i: int, weights: np.ndarray) -> np.ndarray:
        return evaluate.label_scores(true, one_hot[i], CLASSES, weights)["balanced_accuracy"]

    found["balanced_accuracy"] = evaluate.paired_difference(balanced, resamples)
    return found | {"mcnemar": evaluate.mcnemar(called[0] == true, called[1] == true)}


class Pictures:
    """The figures of one model on one set of images, by file name."""

    def __init__(self, model: Model, batches: data.Batches, collected: dict, task: str, precision: str) -> None:
        self.model, self.batches, self.collected, self.task, self.precision = model, batches, collected, task, precision
        self.names, self.true = batches.table["image"].to_numpy(), batches.table["label"].to_numpy()
        self.masked = np.flatnonzero((batches.table["status"] == USED).to_numpy())

    def of_labels(self, calibration: dict) -> tuple[dict, dict]:
        """Confusion, ROC and precision-recall, reliability, risk and coverage, confident errors, heat maps; and the
        heat maps' numbers."""
        before = evaluate.softmax(self.collected["label"])
        after = evaluate.softmax(self.collected["label"], calibration["temperature"])
        matrix = evaluate.confusion_matrix(self.true, before)
        heat, energy = self._heat_maps(before)
        return {
            "confusion_matrix": visualize.confusion(matrix, CLASSES, self.task),
            "roc_and_precision_recall": visualize.ranking_curves(self.true, before, CLASSES, self.task),
            "reliability": visualize.reliability(self.true, before, after, evaluate.N_BINS, self.task),
            "risk_coverage": visualize.risk_coverage(*self._risk(before), self.task),
            "confident_errors": self._confident_errors(after),
            "heat_maps": heat,
        }, energy

    def of_masks(self) -> dict:
        """Best, median and worst masks, and Dice by diagnosis."""
        dice = evaluate.dice(self.collected["mask"])
        chosen = evaluate.best_median_worst(dice)
        picks = self.masked[chosen]
        few = self.batches.subset(picks)
        ((_, output),) = evaluate.infer(self.model, few.epoch(), self.precision)
        predicted = output["mask"][:, 0].gt(0).cpu().numpy()
        titles = [f"{self.names[i]}\n{CLASSES[self.true[i]]}, Dice {dice[j]:.3f}" for i, j in zip(picks, chosen)]
        heading = f"{self.task}: best, median and worst of {len(dice)} test images by Dice"
        by_class = {code: dice[self.true[self.masked] == k] for k, code in enumerate(CLASSES)}
        return {
            "masks": visualize.mask_rows(*few.pictures(), predicted, titles, heading),
            "dice_by_class": visualize.dice_by_class(by_class, self.task),
        }

    def _risk(self, probabilities: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        return evaluate.risk_coverage(probabilities.argmax(axis=1) == self.true, probabilities.max(axis=1))

    def _confident_errors(self, probabilities: np.ndarray):
        called = probabilities.argmax(axis=1)
        wrong = np.flatnonzero(called != self.true)
        picks = wrong[np.argsort(-probabilities[wrong, called[wrong]], kind="stable")][:8]
        if not len(picks):
            return None
        titles = [f"{self._verdict(i, called[i])} ({probabilities[i].max():.2f})" for i in picks]
        return visualize.gallery(
            self.batches.subset(picks).pictures()[0], titles, f"{self.task}: most confident errors"
        )

    def _heat_maps(self, probabilities: np.ndarray):
        """Grad-CAM of the likeliest class: a figure of the first images of each class, and how much of it is inside the
        true masks of all images that have one."""
        energy, inside, area = None, [], []
        if len(self.masked):
            rows = self.batches.table.iloc[self.masked]
            masked = data.Batches(self.batches.pixels, rows, 32, device=self.batches.device)
            for batch in masked.epoch():
                heat = self.model.heat_map(batch["image"])
                total = heat.sum(dim=(1, 2, 3)).clamp(min=1e-6)
                inside.append((heat * batch["mask"]).sum(dim=(1, 2, 3)) / total)
                area.append(batch["mask"].mean(dim=(1, 2, 3)))
            means = {"energy_in_mask": torch.cat(inside), "mask_area": torch.cat(area)}
            energy = {name: float(value.mean()) for name, value in means.items()} | {"n_images": len(self.masked)}
        picks = [int(np.flatnonzero(self.true == k)[0]) for k in range(len(CLASSES)) if (self.true == k).any()]
        few = self.batches.subset(picks)
        heat = self.model.heat_map(next(iter(few.epoch()))["image"])[:, 0].cpu().numpy()
        called = probabilities.argmax(axis=1)
        titles = [self._verdict(i, called[i]) for i in picks]
        heading = f"{self.task}: where the likeliest class is seen (Grad-CAM)"
        return visualize.heat_maps(*few.pictures(), heat, titles, heading), energy

    def _verdict(self, i: int, called: int) -> str:
        return f"{self.names[i]}\nis {CLASSES[self.true[i]]}, called {CLASSES[called]}"


def prediction_table(rows: pd.DataFrame, logits: np.ndarray) -> pd.DataFrame:
    """image, true, predicted, and the probability of each class."""
    classes, probabilities = np.array(CLASSES), evaluate.softmax(logits)
    table = pd.DataFrame(probabilities, columns=classes)
    table.insert(0, "image", rows["image"].to_numpy())
    table.insert(1, "true", classes[rows["label"]])
    table.insert(2, "predicted", classes[probabilities.argmax(axis=1)])
    return table


def mask_table(rows: pd.DataFrame, counts: np.ndarray, surface: np.ndarray | None = None) -> pd.DataFrame:
    """image and each of its mask scores."""
    table = pd.DataFrame({"image": rows["image"].to_numpy(), **evaluate.image_mask_scores(counts)})
    return table if surface is None else table.assign(hd95=surface[:, 0], assd=surface[:, 1])


def summary(title: str, found: dict) -> str:
    """The main numbers with their intervals, as a table for the console."""
    lines = [title]
    if label := found.get("label"):
        lines.append(f"  {'':6}{'precision':>10}{'recall':>10}{'F1':>10}{'images':>10}")
        for code, row in label["per_class"].items():
            values = "".join(f"{'-' if row[k] is None else f'{row[k]:.3f}':>10}" for k in ("precision", "recall", "f1"))
            lines.append(f"  {code:6}{values}{row['support']:>10}")
        lines += [with_interval(found, "label", name) for name in ("accuracy", "balanced_accuracy", "macro_f1")]
    if "mask" in found:
        lines += [
            with_interval(found, "mask", name) for name in ("mean_dice", "mean_iou", "pooled_dice", "failure_rate")
        ]
    return "\n".join(lines)


def with_interval(found: dict, head: str, name: str) -> str:
    low, high = found["intervals"][head][name]
    return f"  {name.replace('_', ' '):18} {found[head][name]:.3f}  (95 % interval {low:.3f} to {high:.3f})"


def draw_all(figures: dict, write: Write, note: str) -> None:
    for name, figure in figures.items():
        if figure is not None:
            write(f"{name}.png", visualize.png(figure, note))


def under(prefix: str, scores: evaluate.Scores) -> evaluate.Scores:
    return {f"{prefix}.{name}": values for name, values in scores.items()}


def as_csv(table: pd.DataFrame) -> str:
    return table.to_csv(index=False, lineterminator="\n")
