"""Trained models -> the numbers, tables, figures and report in a run's folder.

Under torchrun every process calls these functions; the first one writes and prints.
"""

from collections.abc import Callable, Sequence
from functools import partial

import pandas as pd
from torch import nn

import data
import machine
from checkpoints.trained import Trained
from dataset import leakage
from dataset.classes import positions_of
from dataset.groups import groups_of
from dataset.prepare import OtherSet, Prepared
from dataset.splits import split_hash
from dataset.table import learnable, usable
from measure.alarms import fit_unlike
from measure.assess import Assessment, assess, collect_calls
from measure.calibrate import calibrate, calibrate_sets
from measure.collect import packed
from measure.difference import compare
from measure.imagetable import DIGITS, dictionary, image_table
from measure.numbers import tested_points
from measure.sets import COVERAGE
from measure.tables import console_table
from report import page
from report.folder import RunFolder
from report.run import read_head

NOT_AUDITED = (
    "The split was not audited for leakage ({}), so images of one lesion and near duplicates may be in several parts. "
    "To audit it, repeat the command without --no-audit; after a training, with --resume."
)
INTERRUPTED = "the audit was interrupted or is still running"
OUTPUTS = "outputs.npz"  # of a model on a set of images: the arrays of `Collected`
Parts = dict[str, data.Batches]  # by part of the split


def evaluated_as(
    external_dir: str, tta: bool, coverage: float = COVERAGE, subgroups: Sequence[str] = (), all_parts: bool = False
) -> dict:
    """How models are evaluated, for the record: a resumed run does it again if that has changed."""
    how = {"external": external_dir, "tta": tta, "coverage": coverage, "subgroups": list(subgroups)}
    return how | {"all_parts": all_parts}


def evaluate_model(
    folder: RunFolder, trained: Trained, parts: Parts, other: OtherSet | None, precision: str, measured: dict
) -> None:
    """Calibrate a model on the validation set, and assess it on the test set and on another data set.

    The checkpoint of the run itself gets what was fitted, and what its thresholds reached on the test set. `measured`
    is the result of `evaluated_as`, for the record.
    """
    name, is_own = trained.name, not trained.is_average and trained.path == folder.best_path(trained.name)
    folder.note_task(name, measured=None, external=None)  # the files may be left from two evaluations
    if is_own and trained.tta:  # predict.py needs what is fitted for the network without views as well
        alone = trained.alone
        fitted_network(alone, parts, precision, measured["coverage"])
        alone.keep(calibration=alone.calibration)
    network, judged = fitted_network(trained, parts, precision, measured["coverage"]), []
    for part in ("train", "val") if measured["all_parts"] else ():
        some = parts[part].whole()
        judged.append((some.table, collect_calls(network, some, trained.calibration, precision), part))

    def assess_on(batches: data.Batches, place: RunFolder, images: str, part: str) -> Assessment | None:
        assessment = assess(network, batches, trained.calibration, name, precision)
        publish(place, assessment, f"{name}, {images}", trained.provenance())
        if assessment:
            place.write(OUTPUTS, packed(assessment.collected, batches.table["image"]))
            judged.append((batches.table, assessment.collected, part))
        return assessment

    assessment = assess_on(parts["test"], folder.below(name), "test set", "test")
    if is_own:
        tested = machine.from_first(lambda: tested_points(assessment.numbers))  # the others have no assessment
        trained.keep(calibration=trained.calibration, tested=tested)
    if other and (batches := batches_of_other(trained, other, parts["test"])):
        assess_on(batches, folder.below("external").below(name), other.name, "external")
        folder.note_task(name, external={"folder": other.name, "left_out": other.left_out})
    if machine.is_first():
        write_images(folder.below(name), [image_table(*images) for images in judged], trained.classes)
    folder.note_task(name, measured=measured)


def fitted_network(trained: Trained, parts: Parts, precision: str, coverage: float = COVERAGE) -> nn.Module:
    """The network of a model, with everything that is fitted on the training and validation images.

    Whatever the checkpoint has is kept. Whatever it lacks (checkpoints of earlier versions may lack parts) is fitted if
    it was trained on exactly these images. Without a balanced rule, as for an average, everything is calibrated on any
    images.
    """
    device, is_ours = parts["test"].device, trained.learned_from(parts["train"].table["image"])
    if is_ours and not trained.checkpoint.get("unlike"):
        trained.learn_unlike(fit_unlike(trained.alone.network(device), parts["train"], parts["val"], precision))
    network = trained.network(device)
    if not trained.has_rule:
        learned = positions_of(parts["train"].table)
        trained.calibration = calibrate(network, parts["val"].whole(), precision, learned, coverage)
    elif is_ours and trained.sets.get("target") != coverage:
        sets = calibrate_sets(network, parts["val"].whole(), precision, trained.temperature, coverage)
        trained.calibration = trained.calibration | {"sets": sets}
    elif trained.sets.get("target") != coverage:
        kept = f"its own are for {trained.sets['target']:g}" if trained.sets else "none are known"
        why = f"{trained.path.name} was not trained on these images"
        machine.say(f"Prediction sets are not fitted for --coverage {coverage:g}, as {why}: {kept}.")
    return network


def write_images(place: RunFolder, tables: Sequence[pd.DataFrame], classes: Sequence[str]) -> None:
    """Write images.csv and its columns.md."""
    table = pd.concat(tables)
    place.write_table("images.csv", table, DIGITS)
    place.write("columns.md", dictionary(list(table), classes))


def publish(place: RunFolder, assessment: Assessment | None, title: str, about: dict | None = None) -> None:
    """Write an assessment into a folder, and print its main numbers; nothing in other processes than the first.

    Parameters
    ----------
    about : further plain values for metrics.json.
    """
    if assessment:
        for name, table in assessment.tables.items():
            place.write_table(f"{name}.csv", table)
        place.draw_all(assessment.figures)
        note = {"data": place.caption} if place.caption else {}
        place.write_json("metrics.json", note | (about or {}) | assessment.numbers)
        print(console_table(title, assessment.numbers), flush=True)


def batches_of_other(trained: Trained, other: OtherSet, test: data.Batches) -> data.Batches | None:
    """The images of another data set that have a target of the model; None, with a message, if there are none."""
    rows = learnable(other.table, trained.heads)
    if len(rows):
        return data.Batches(other.pixels, rows, max(test.sizes), device=test.device)
    targets = " and no ".join(f"{head}s" for head in trained.heads)
    machine.say(f"{trained.name}: {other.name} has no {targets} to evaluate it with.")
    return None


def finish(folder: RunFolder, data_set: Prepared, audits: bool) -> None:
    """Write the comparison of the tasks and the report, with or without the audit for leakage."""
    folder.note(comparison=compare_tasks(folder, data_set), seconds=folder.seconds())
    rows = usable(data_set.table)
    audit = partial(leakage.audit, rows, data_set.pixels.thumbnails, data_set.by_image)
    report_and_audit(folder, audit if audits else None, split_hash(data_set.table))


def report_and_audit(folder: RunFolder, audit: Callable[[], pd.DataFrame] | None, split: str) -> None:
    """Write the report, then audit the split for leakage, and write the report again.

    So whatever ends the audit, a full disk or a lack of memory too, costs the audit alone.

    Parameters
    ----------
    audit : returns the result of `leakage.audit`; None to leave it out, and keep that of an earlier command.
    split : hash of the split.
    """
    if audit is None:
        known = folder.record.get("audit") or _audit_unrecorded(folder)
        problem = known["problem"] if known.get("split") == split else NOT_AUDITED.format("--no-audit")
        if problem:
            machine.say(f"\n{problem}")
        _report(folder, problem, split)
    else:
        _report(folder, NOT_AUDITED.format(INTERRUPTED), split)
        machine.say("\nThe report is written. The split is now audited for leakage.")
        _report(folder, _audited(folder, audit), split)


def _audit_unrecorded(folder: RunFolder) -> dict:
    """What the record would say of an audit by an earlier version, which did not write it there; {} for none."""
    splits = {facts.get("identity", {}).get("split_hash") for facts in folder.record["tasks"].values()}
    is_there = machine.from_first((folder.path / "leakage.csv").exists)
    return {"split": splits.pop(), "problem": ""} if is_there and len(splits) == 1 else {}


def _report(folder: RunFolder, problem: str, split: str) -> None:
    """Write the report; `problem` says why leakage.csv is missing or outdated, and is "" if it is not."""
    folder.note(audit={"split": split, "problem": problem})
    if machine.is_first():
        if problem:
            (folder.path / "leakage.csv").unlink(missing_ok=True)
        page.write(folder)
    folder.note(finished=True)


def _audited(folder: RunFolder, audit: Callable[[], pd.DataFrame]) -> str:
    """Write pairs of the same file, picture or lesion, and print how many cross the split; returns why it failed."""
    try:
        if machine.is_first():
            pairs = audit()
            folder.write_table("leakage.csv", pairs)
            machine.say(f"\n{leakage.describe_pairs(pairs)}")
    except (OSError, MemoryError, RuntimeError) as error:  # torch raises RuntimeError if memory is short
        problem = NOT_AUDITED.format(" ".join(f"{type(error).__name__}: {error}".split()))
        machine.say(f"\n{problem}")
        return problem
    return ""


def compare_tasks(folder: RunFolder, data_set: Prepared) -> bool:
    """Write the differences of the multi-task from the single-task models; returns whether there are any.

    Models of which only one was evaluated over the eight views are not compared.
    """
    differences = {}
    for task, head in (("classification", "label"), ("segmentation", "mask")):
        ways = [folder.facts(name).get("measured") for name in (task, "multitask")]
        if machine.is_first() and None not in ways and ways[0]["tta"] == ways[1]["tta"]:
            pair = [read_head(folder.path / name, head) for name in (task, "multitask")]
            differences[task] = compare(head, *pair, groups_of(usable(data_set.table).set_index("image")))
    if differences:
        folder.write_json("comparison.json", differences)
    return bool(differences)
