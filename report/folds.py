"""The folds of a cross-validation, each a run of its own -> one run whose test set is every image."""

from collections.abc import Sequence
from functools import partial
from typing import NamedTuple

import numpy as np
import pandas as pd

import data
from checkpoints.trained import Trained
from dataset import leakage
from dataset.csvfile import read_back
from dataset.prepare import Prepared
from dataset.splits import split_hash
from dataset.table import LEFT_OUT, targets, usable
from machine import is_first, say
from measure.assess import assess_collected
from measure.calls import read_logits
from measure.collect import Collected, joined, unpacked
from measure.imagetable import image_table
from measure.scores import FOLD, HEADS, compared, mean_and_std, shown_in
from report import results
from report.cells import score_at
from report.folder import FOLD_OF, RunFolder
from report.results import OUTPUTS


class Folds(NamedTuple):
    """The folds of a run.

    Attributes
    ----------
    n : folds of each repeat.
    runs : the folder of each fold of all repeats, finished.
    """

    n: int
    runs: Sequence[RunFolder]


def as_tested(tables: Sequence[pd.DataFrame]) -> pd.DataFrame:
    """One table of those of all folds: each row from the fold that tests it, or else from one that leaves it out.

    What a fold leaves out, because its model or its initial weights have learned from it, differs between folds.
    """
    kinds = [np.select([one["split"] == "test", one["status"] == LEFT_OUT], [0, 1], 2) for one in tables]
    fold = np.argmin(kinds, axis=0)
    return pd.concat([one[fold == place] for place, one in enumerate(tables)]).loc[tables[0].index]


def place_of(folder: RunFolder, fold: int) -> RunFolder:
    """The folder of a fold, from 1 on."""
    return folder.below(f"fold-{fold}")


def pool(folder: RunFolder, folds: Folds, data_set: Prepared, audits: bool) -> None:
    """Write the scores, tables and report of all folds together.

    Each image is judged by the model of the fold that tests it, with what was fitted on that fold's validation set.

    Parameters
    ----------
    data_set : of any fold, with the table of `as_tested`; its split does not count.
    audits : look for pairs of the same file, picture or lesion in two folds.

    Raises
    ------
    ValueError : two folds test the same image.
    """
    if not is_first():
        return
    records = [run.read_record() for run in folds.runs]
    tested = [_tested(run) for run in folds.runs]
    _refuse_overlap(tested, folds)
    table = _with_folds(data_set.table, tested, folds.n)
    rows = usable(table)
    audited = {name: value for name, value in folder.read_record().items() if name == "audit"}
    folder.record = {"started": records[0].get("started"), "tasks": {}} | audited
    _write_settings(folder, folds)
    folder.write_data(table)
    reading = [remark for remark in data_set.remarks if not remark.startswith("Split: ")]
    folder.note(reading=[*_remarks(rows, folds), *reading], folds=folds.n, repeats=len(folds.runs) // folds.n)
    audit = partial(_leakage, rows, data_set) if audits else None
    rows = rows.set_index("image", drop=False).rename_axis(None)
    for task in records[0]["tasks"]:
        if not all(record["tasks"].get(task, {}).get("measured") for record in records):
            say(f"{task} is not in all folds, so it is not pooled.")
            continue
        _pool_task(folder, folds, task, rows, data_set.pixels)
        facts = records[0]["tasks"][task]
        identity = {name: value for name, value in facts["identity"].items() if name != "split_hash"}
        folder.note_task(task, trained=True, identity=identity, measured=facts["measured"] | {"external": ""})
    has_pairs = len(folds.runs) == folds.n and results.compare_tasks(folder, data_set)
    folder.note(comparison=has_pairs, seconds=sum(record.get("seconds") or 0 for record in records))
    results.report_and_audit(folder, audit, split_hash(table))


def read_outputs(run: RunFolder, task: str) -> tuple[Collected, list[str]]:
    """What a fold's model gave for its test images, read with its own calibration; and the images' names.

    A task that was measured by an earlier command may have been measured over other views than this command's.
    """
    collected, images = unpacked(run.path / task / OUTPUTS)
    if collected.label is not None:
        measured = run.read_record()["tasks"][task]["measured"]
        trained = Trained.load(run.best_path(task), tta=measured["tta"])
        collected = collected._replace(calls=read_logits(collected.label, trained.calibration, trained.classes))
    return collected, images


def over_folds(metrics: Sequence[dict]) -> dict[str, dict]:
    """By score of the report or of comparisons: its value in each fold, their mean and standard deviation (n - 1).

    Both are None where the score is not defined in a fold.
    """
    scores = {}
    for head in [head for head in HEADS if head in metrics[0]]:
        for key, score in (shown_in("report", head) | compared(head)).items():
            values = [score_at(one, (head, *score.path))["value"] for one in metrics]
            scores[key] = {"values": values} | mean_and_std([None] if key.startswith("n_") else values)
    return scores


def _write_settings(folder: RunFolder, folds: Folds) -> None:
    """The folds' own settings and all of their machines: the command that pools them may name others, or train less."""
    whole = {"OUTPUT_DIR": str(folder.path), "FOLD": 0, "FOLDS": folds.n, "REPEATS": len(folds.runs) // folds.n}
    first, environments = folds.runs[0], []
    folder.write_json("config.json", first.read_json("config.json") | whole)
    for run in folds.runs:
        last = run.read_json("environment.json")
        environments += [*last.pop("before", []), last]
    *before, last = [one for place, one in enumerate(environments) if one not in environments[:place]]
    folder.write_json("environment.json", last | ({"before": before} if before else {}))
    if again := first.read_json("evaluation.json"):
        folder.write_json("evaluation.json", again | {"config": again["config"] | whole})


def _pool_task(folder: RunFolder, folds: Folds, task: str, rows: pd.DataFrame, pixels: data.Pixels) -> None:
    """Write the numbers, tables and figures of one task."""
    parts, names, fold = [], [], []
    for number, run in enumerate(folds.runs, start=1):
        collected, images = read_outputs(run, task)
        parts.append(collected)
        names += images
        fold += [number] * len(images)
    batches = data.Batches(pixels, rows.loc[names].reset_index(drop=True), 16)
    assessment = assess_collected(joined(parts), batches, f"{task}, {len(folds.runs)} folds")
    known = targets(batches.table)
    for name, table in assessment.tables.items():
        head = {"predictions": "label", "per_image": "mask", "per_image_native": "mask"}.get(name)
        of_table = known[head or name.removeprefix("per_image_")].to_numpy()
        assessment.tables[name] = table.assign(**{FOLD: np.array(fold)[of_table]})
    metrics = [run.read_json(f"{task}/metrics.json") for run in folds.runs]
    about = {name: metrics[0][name] for name in ("initial_weights", "views", "encoders", "initial_files")}
    about["folds"] = {"n": len(folds.runs), "scores": over_folds(metrics)}
    of_images = image_table(batches.table, assessment.collected, "test").assign(**{FOLD: fold})
    results.write_images(folder.below(task), [of_images], batches.classes)
    results.publish(folder.below(task), assessment, f"{task}, all {len(folds.runs)} folds", about)


def _tested(run: RunFolder) -> pd.Index:
    splits = read_back(run.path / "splits.csv")
    return pd.Index(splits.loc[splits["split"] == "test", "image"])


def _refuse_overlap(tested: Sequence[pd.Index], folds: Folds) -> None:
    for start in range(0, len(tested), folds.n):
        repeat = tested[start : start + folds.n]
        names = repeat[0].append(list(repeat[1:]))
        if names.has_duplicates:
            raise ValueError(
                f"Two folds test the image {names[names.duplicated()][0]!r}, so they are not of one split. Train all "
                "folds with the same data and settings."
            )


def _with_folds(table: pd.DataFrame, tested: Sequence[pd.Index], n_folds: int) -> pd.DataFrame:
    """The table with every usable row in the test set, and a column for each repeat: the fold that tests the image."""
    table = table.assign(split=np.where(table.index.isin(usable(table).index), "test", ""))
    for start in range(0, len(tested), n_folds):
        of_repeat = {image: start + i + 1 for i, part in enumerate(tested[start : start + n_folds]) for image in part}
        table[f"{FOLD_OF}{start // n_folds + 1}"] = table["image"].map(of_repeat).astype("Int64")
    return table


def _leakage(rows: pd.DataFrame, data_set: Prepared) -> pd.DataFrame:
    """Pairs of the same file, picture or lesion; those of two folds of the first repeat cross the split."""
    fold = rows[f"{FOLD_OF}1"].map("fold {}".format, na_action="ignore").astype(object).fillna("no fold")
    return leakage.audit(rows.assign(split=fold), data_set.pixels.thumbnails, by_image=None)


def _remarks(rows: pd.DataFrame, folds: Folds) -> list[str]:
    """What the report must say of pooled scores."""
    n_repeats = len(folds.runs) // folds.n
    times = "" if n_repeats == 1 else f", {n_repeats} times"
    counted = "" if n_repeats == 1 else " Numbers of images count each image once a repeat."
    return [
        f"Split: cross-validation with {folds.n} folds{times}. Every score is of the {len(rows):,} images of all test "
        "sets, each judged by a model that did not learn from it; no single model has these scores."
        f"{counted}",
        "Temperatures, thresholds, τ and the limits of prediction sets are each fold's own; where one number is shown, "
        "it is their mean. Each fold has a report of its own, in its folder.",
        "Pooled AUCs and average precisions rank images by the outputs of different models, so they tend to be lower "
        "than those of the single folds: see the mean over the folds.",
    ]
