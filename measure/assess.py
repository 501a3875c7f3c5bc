"""A model and a set of images -> its assessment: numbers, tables and figures."""

from typing import NamedTuple

import numpy as np
import pandas as pd
from torch import nn

import data
import evaluate
import visualize
from dataset.groups import groups_of, lesions_known
from dataset.table import targets
from measure import bootstrap
from measure.alarms import alarm_numbers
from measure.calls import read_logits
from measure.collect import Collected, collect
from measure.figures import Figures
from measure.numbers import heat_numbers, label_numbers, mask_numbers, mean_numbers
from measure.subgroups import is_biopsied, subgroup_numbers
from measure.tables import mask_table, prediction_table
from visualize import Figure


class Assessment(NamedTuple):
    """A model's performance on a set of images.

    Attributes
    ----------
    numbers : all scores with their intervals, as plain values, for metrics.json.
    tables : one row per image, by name.
    figures : by name; None for one that these images or this model do not give.
    collected : what all of these come from.
    """

    numbers: dict
    tables: dict[str, pd.DataFrame]
    figures: dict[str, Figure | None]
    collected: Collected


def assess(
    model: nn.Module, batches: data.Batches, calibration: dict, name: str, precision: str = "fp32"
) -> Assessment | None:
    """Run a model over all images of `batches`, and turn its outputs into numbers, tables and figures.

    Under torchrun every process calls this with the same images and runs over its share of them. The first one returns
    the assessment, the others None.

    Parameters
    ----------
    model : maps images (N, 3, H, W) to a dict of logits, ``"label"`` or ``"mask"`` or both; heat maps are assessed if
        it can `explain`, as `models.Model` does.
    batches : each head is assessed on the images that have its target. Columns of their table make the subgroups, as
        for `subgroup_numbers`.
    calibration : from `measure.calibrate.calibrate`.
    name : of the model, for the figures.

    Raises
    ------
    ValueError : as `evaluate.heads_of`.
    """
    collected = collect_calls(model, batches, calibration, precision)
    return collected and assess_collected(collected, batches, name, model, precision)


def collect_calls(model: nn.Module, batches: data.Batches, calibration: dict, precision: str) -> Collected | None:
    """As `collect`, of the heads of which some image has the target; with the calls."""
    collected = collect(model, batches, precision)
    if collected is None:
        return None
    known = targets(batches.table)
    collected = collected._replace(**{head: None for head in ("label", "mask") if not known[head].any()})
    if collected.label is None:
        return collected
    return collected._replace(calls=read_logits(collected.label, calibration, batches.classes))


def assess_collected(
    collected: Collected, batches: data.Batches, name: str, model: nn.Module | None = None, precision: str = "fp32"
) -> Assessment:
    """As `assess`, from outputs that are known; without a model there are no pictures of masks and heat maps.

    Parameters
    ----------
    collected : with `calls` if it has a `label`.
    """
    rows, known = batches.table, targets(batches.table)
    labelled, masked = known["label"].to_numpy(), known["mask"].to_numpy()
    resamples = bootstrap.resample_lesions(groups_of(rows))
    numbers = head_numbers(rows, collected, resamples)
    assessment = Assessment(numbers, {}, {}, collected)

    def figures_of(images: np.ndarray) -> Figures:
        some = batches.subset(np.flatnonzero(images))
        return Figures(model, some, collected.of(images), name, precision)

    of_masked = collected.of(masked)
    if collected.label is not None:
        numbers["label"]["heat_map"] = None if of_masked.heat is None else heat_numbers(of_masked.heat)
        assessment.tables["predictions"] = prediction_table(rows[labelled], collected.calls[labelled])
        assessment.figures.update(figures_of(labelled).of_labels())
        assessment.figures["net_benefit"] = net_benefit_figure(numbers, name)
    if collected.mask is not None:
        assessment.tables["per_image"] = mask_table(rows[masked], of_masked.mask)[["image", "iou", "dice"]]
        assessment.tables["per_image_native"] = mask_table(rows[masked], of_masked.native, of_masked.surface)
        assessment.figures.update(figures_of(masked).of_masks())
    if collected.unlike is not None:
        numbers["unlike"], numbers["intervals"]["unlike"] = alarm_numbers(collected.unlike[:, 0], resamples)
    for head, values in (collected.others or {}).items():
        has_target = known[head].to_numpy()
        if not has_target.any():
            continue
        of_images = dict(zip(evaluate.SCORES[head], values[has_target].T))
        numbers[head], numbers["intervals"][head] = mean_numbers(of_images, resamples.of(has_target))
        names = {"image": rows.loc[has_target, "image"].to_numpy()}
        assessment.tables[f"per_image_{head}"] = pd.DataFrame(names | of_images)
    numbers["subgroups"], numbers["gaps"] = subgroup_numbers(rows, collected, resamples)
    if (proved := is_biopsied(rows)).any():
        numbers["biopsied"] = head_numbers(rows[proved], collected.of(proved), resamples.of(proved))
    return assessment


def net_benefit_figure(numbers: dict, name: str) -> Figure | None:
    """The figure of the net benefit with its interval; None without malignant classes."""
    benefit, ends = (part["label"].get("net_benefit") for part in (numbers, numbers["intervals"]))
    if not benefit:
        return None
    curves = {kind: [values[kind] for values in benefit.values()] for kind in ("model", "all")}
    band = [ends[percent]["model"] or [values["model"]] * 2 for percent, values in benefit.items()]
    title = f"{name} (n = {numbers['label']['n_images']:,})"
    return visualize.net_benefit(list(map(int, benefit)), curves, band, title)


def head_numbers(rows: pd.DataFrame, collected: Collected, resamples: bootstrap.Resamples) -> dict:
    """Numbers of images and lesions, None if unknown; ``label``, ``mask`` and ``intervals`` of images with a target."""
    n_lesions = int(rows["lesion_id"].nunique()) if lesions_known(rows) else None
    numbers: dict = {"n_images": len(rows), "n_lesions": n_lesions, "intervals": {}}
    labelled, masked = (targets(rows)[head].to_numpy() for head in ("label", "mask"))
    if collected.label is not None and labelled.any():
        numbers["label"], numbers["intervals"]["label"] = label_numbers(
            rows[labelled], collected.calls[labelled], resamples.of(labelled)
        )
    if collected.mask is not None and masked.any():
        numbers["mask"], numbers["intervals"]["mask"] = mask_numbers(
            rows[masked], collected.of(masked), resamples.of(masked)
        )
    return numbers
