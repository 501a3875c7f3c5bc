import json
import os
import subprocess

import numpy as np
import pandas as pd
import pytest
import torch
from conftest import ROOT
from sklearn import metrics
from test_distributed import TORCHRUN

import data
import evaluate
import models
from dataset import cache, images
from dataset.classes import HAM10000 as CLASSES
from dataset.table import LABEL_ONLY, USED, read_table
from measure import bootstrap, tables
from measure import numbers as scoring
from measure.assess import assess
from measure.calibrate import calibrate, fit_calibration
from measure.collect import Collected, collect, native_overlap
from report.folder import RunFolder
from report.results import publish

LEARNED = np.repeat(np.arange(7), (11, 67, 5, 3, 11, 1, 2))  # labels of 100 training images


@pytest.fixture(scope="module")
def measured(demo_folder, tmp_path_factory, device):
    """An untrained multi-task model on all demo images, with what `assess` returned and wrote."""
    model, batches = untrained(demo_folder, tmp_path_factory.mktemp("cache"), device)
    calibration = calibrate(model, batches, "fp32", LEARNED)
    folder = RunFolder(tmp_path_factory.mktemp("run"), "synthetic demo data")
    assessment = assess(model, batches, calibration, "multitask")
    publish(folder, assessment, "multitask, test set")
    return model, batches, calibration, assessment.numbers, folder.path


def untrained(folder, place, device="cpu"):
    table, pixels = cache.decode_table(read_table(folder), folder, 64, place)
    table["age"] = np.resize([35.0, 40.0, 85.0, np.nan], len(table))
    table["sex"] = np.resize(["female", "male"], len(table))
    table["localization"] = np.resize(["back", None, "face"], len(table))
    torch.manual_seed(0)
    return models.MultiTask().to(device).eval(), data.Batches(pixels, table, 16, device=device)


def probabilities_in(written):
    table = pd.read_csv(written / "predictions.csv")
    return table["true"].map(CLASSES.index).to_numpy(), table[list(CLASSES)].to_numpy()


def test_everything_is_written_and_drawn(measured):
    written = measured[-1]
    tables = {"metrics.json", "predictions.csv", "per_image.csv", "per_image_native.csv"}
    figures = (
        "confusion_matrix confusion_matrix_balanced roc_and_precision_recall reliability risk_coverage confident_errors"
    )
    figures += " heat_maps masks dice_by_class"
    assert {path.name for path in written.iterdir()} == tables | {f"{name}.png" for name in figures.split()}
    assert all((written / f"{name}.png").read_bytes().startswith(b"\x89PNG") for name in figures.split())


def test_every_point_estimate_has_an_interval_that_holds_it(measured):
    found = measured[3]

    def check(values, intervals, path=""):
        for name, value in values.items():
            if isinstance(value, dict) and name not in ("heat_map",):
                check(value, intervals[name], f"{path}.{name}")
            elif (
                name
                not in (
                    "n_images",
                    "support",
                    "temperature",
                    "tau",
                    "threshold",
                    "scale",
                    "heat_map",
                    "class",
                    "ece_if_calibrated",
                )
                and value is not None
            ):
                low, high = intervals[name] or (-np.inf, np.inf)
                assert low < high and (intervals[name] or intervals[f"{name}_kind"].startswith("none: "))
                # The bootstrap of a maximum or a small class may sit beside its point estimate; most must not.
                outside.extend([] if low - 1e-9 <= value <= high + 1e-9 else [f"{path}.{name}"])
                seen.append(name)

    outside, seen = [], []
    for head in ("label", "mask"):
        check(found[head], found["intervals"][head], head)
    assert len(seen) > 150 and len(outside) < 0.05 * len(seen), outside


def test_metrics_json_is_plain_json_without_nan(measured):
    text = (measured[-1] / "metrics.json").read_text()
    assert "NaN" not in text and json.loads(text)["data"] == "synthetic demo data"


def test_native_overlap_is_measured_at_the_mask_files_size(measured):
    model, batches, *_ = measured
    collected = collect(model, batches, "fp32")
    assert (collected.native.sum(axis=1) == 160 * 120).all()
    assert (collected.mask.sum(axis=1) == 64 * 64).all()


def test_a_perfect_outline_has_distance_zero_and_overlap_one(tmp_path, demo_folder):
    paths = [demo_folder / "images" / "synthetic_00000.jpg", demo_folder / "masks" / "synthetic_00000_segmentation.png"]
    true = torch.from_numpy(images.read_native_mask(*paths)).float()
    counts, distances = native_overlap((true * 2 - 1)[None], *paths)
    assert evaluate.dice(counts) == 1 and distances == (0, 0)


def test_thresholds_reach_their_sensitivity_where_they_were_fitted(measured):
    _, batches, calibration, found, _ = measured
    assert found["label"]["operating_points"]["melanoma"]["threshold"] == calibration["thresholds"]["melanoma"]
    assert found["label"]["operating_points"]["melanoma"]["sensitivity"] >= 0.9
    assert found["label"]["operating_points"]["malignant"]["sensitivity"] >= 0.9
    assert len(batches.table) == found["n_images"]


def test_probabilities_thresholds_and_scores_are_all_of_the_calibrated_scale(measured):
    """The threshold that is stored reaches its sensitivity in the table that is written."""
    model, batches, calibration, found, written = measured
    true, probabilities = probabilities_in(written)
    assert calibration["scale"] == found["label"]["calibration"]["scale"] == "calibrated"
    assert calibration["temperature"] != 1
    logits = collect(model, batches, "fp32").label
    expected = torch.tensor(logits / calibration["temperature"]).softmax(dim=1)
    np.testing.assert_allclose(probabilities, expected, atol=1e-9)
    melanoma, threshold = probabilities[:, 0], calibration["thresholds"]["melanoma"]
    reached = (melanoma[true == 0] >= threshold - 1e-12).mean()
    assert found["label"]["operating_points"]["melanoma"]["sensitivity"] == pytest.approx(reached)
    assert np.abs(melanoma - threshold).min() < 1e-12
    auc = metrics.roc_auc_score(true == 0, melanoma)
    assert found["label"]["official"]["per_class"]["MEL"]["auc"] == pytest.approx(auc)
    assert found["label"]["calibration"]["after"]["nll"] == pytest.approx(metrics.log_loss(true, probabilities))
    assert found["label"]["calibration"]["before"]["nll"] > found["label"]["calibration"]["after"]["nll"]


def test_the_prior_is_of_the_training_images_and_tau_is_fitted_after_the_temperature():
    true, logits = labels_and_logits()
    calibration = fit_calibration(true, logits, LEARNED, CLASSES)
    assert calibration["prior"] == pytest.approx([0.11, 0.67, 0.05, 0.03, 0.11, 0.01, 0.02])
    after = evaluate.softmax(logits, calibration["temperature"])
    assert calibration["tau"] == evaluate.fit_tau(true, after, calibration["prior"]) > 0
    assert type(calibration["tau"]) is float and {type(share) for share in calibration["prior"]} == {float}


def test_a_class_that_was_not_learned_has_a_prior_of_zero_and_the_rule_still_holds():
    true, logits = labels_and_logits()
    calibration = fit_calibration(true, logits, LEARNED[LEARNED < 6], CLASSES)
    assert calibration["prior"][6] == 0 and sum(calibration["prior"]) == pytest.approx(1)
    assert 0 <= calibration["tau"] <= 1.5


def labels_and_logits(n=300):
    """Labels as frequent as in `LEARNED`, and logits that lean towards them and towards the frequent ones."""
    rng = np.random.default_rng(0)
    true = rng.choice(LEARNED, n)
    return true, rng.normal(size=(n, 7)) + 2 * np.eye(7)[true] + np.log(np.bincount(LEARNED) / 100)


@pytest.fixture(scope="module")
def both_rules():
    """The table of labels and what is written of them, with a tau at which the rules differ."""
    true, logits = labels_and_logits()
    rows = pd.DataFrame({"image": [f"i{i}" for i in range(len(true))], "label": true})
    calibration = fit_calibration(true, logits, LEARNED, CLASSES) | {"tau": 0.5}
    resamples = bootstrap.resample_lesions(np.arange(len(true)) // 2, 200)
    numbers, intervals = scoring.label_numbers(rows, logits, resamples, calibration)
    return tables.prediction_table(rows, logits, calibration), calibration, resamples, numbers, intervals


def test_the_table_says_what_both_rules_call(both_rules):
    table, calibration, *_ = both_rules
    assert list(table) == ["image", "true", "predicted", "balanced", *CLASSES]
    scores = np.log(table[list(CLASSES)]) - 0.5 * np.log(calibration["prior"])
    assert (table["balanced"] == np.array(CLASSES)[scores.to_numpy().argmax(axis=1)]).all()
    assert (table["predicted"] == table[list(CLASSES)].idxmax(axis=1)).all()
    assert 0 < (table["predicted"] != table["balanced"]).mean() < 1


@pytest.mark.parametrize(("rule", "column"), [("likeliest", "predicted"), ("balanced", "balanced")])
def test_the_scores_of_each_rule_agree_with_scikit_learn_on_the_table(both_rules, rule, column):
    table, _, _, numbers, intervals = both_rules
    found, pair = numbers["rules"][rule], (table["true"], table[column])
    assert found["accuracy"] == pytest.approx(metrics.accuracy_score(*pair))
    assert found["balanced_accuracy"] == pytest.approx(metrics.balanced_accuracy_score(*pair))
    assert found["macro_f1"] == pytest.approx(metrics.f1_score(*pair, average="macro"))
    by_class = metrics.precision_recall_fscore_support(*pair, labels=list(CLASSES), zero_division=0)
    for k, code in enumerate(CLASSES):
        expected = [values[k] for values in by_class[:3]]
        assert [found["per_class"][code][key] for key in ("precision", "recall", "f1")] == pytest.approx(expected)
    low, high = intervals["rules"][rule]["accuracy"]
    assert low < found["accuracy"] < high


def test_the_likeliest_classes_scores_stand_where_they_stood(both_rules):
    numbers = both_rules[3]
    likeliest = numbers["rules"]["likeliest"]
    assert all(numbers[key] == value for key, value in likeliest.items() if key != "per_class")
    for code in CLASSES:
        own = {key: value for key, value in numbers["per_class"][code].items() if key != "support"}
        assert own == likeliest["per_class"][code]


def test_the_baseline_always_calls_the_class_that_is_commonest_in_training(both_rules):
    """NV, that 67 of the 100 training images have: right where the truth is NV, and on one class of seven."""
    table, *_, numbers, intervals = both_rules
    found = numbers["majority"]
    assert found["class"] == "NV" and found["accuracy"] == (table["true"] == "NV").mean()
    assert found["balanced_accuracy"] == pytest.approx(1 / 7)
    low, high = intervals["majority"]["accuracy"]
    assert low < found["accuracy"] < high


@pytest.mark.parametrize("name", ["accuracy", "balanced_accuracy"])
def test_what_the_balanced_rule_changes_is_paired_by_lesion(both_rules, name):
    table, _, resamples, numbers, intervals = both_rules
    true, *called = (pd.Categorical(table[key], CLASSES).codes.astype(int) for key in ("true", "predicted", "balanced"))
    expected = bootstrap.paired_difference(
        lambda i, weights: evaluate.label_scores(true, called[i], CLASSES, weights)[name], resamples
    )
    assert numbers["balanced_less_likeliest"][name] == pytest.approx(expected["difference"])
    assert intervals["balanced_less_likeliest"][name] == pytest.approx(expected["interval"])


def test_the_console_shows_both_rules_and_what_the_second_changes(both_rules):
    *_, numbers, intervals = both_rules
    shown = tables.console_table("a", {"label": numbers, "intervals": {"label": intervals}})
    lines = {line.split("  ")[1].strip(): line for line in shown.splitlines()[1:]}
    rules = [numbers["rules"][rule] for rule in ("likeliest", "balanced")]
    values = [rule["per_class"]["MEL"][key] for rule in rules for key in ("precision", "recall", "f1")]
    support = numbers["per_class"]["MEL"]["support"]
    mel = next(line for line in shown.splitlines() if line.startswith("  MEL"))
    assert mel.split() == ["MEL", *(f"{value:.3f}" for value in values), str(support)]
    assert all(f"{rule['accuracy']:.3f} (95 % interval" in lines["Accuracy"] for rule in rules)
    change = numbers["balanced_less_likeliest"]
    assert f"\n  The balanced rule (tau 0.50) changes accuracy by {change['accuracy']:+.3f} (95 % interval" in shown
    assert f"\n  and balanced accuracy by {change['balanced_accuracy']:+.3f} (95 % interval" in shown


def test_what_a_checkpoint_keeps_of_the_test_set_is_plain_and_from_the_metrics(measured):
    found = measured[3]
    tested = scoring.tested_points(found)
    assert list(tested) == ["melanoma", "malignant"] and scoring.tested_points({"mask": {}}) == {}
    for name, point in tested.items():
        source = found["label"]["operating_points"][name]
        expected = {key: source[key] for key in ("threshold", "sensitivity", "specificity")}
        assert point == expected | {"n_images": found["n_images"]}
        assert [type(value) for value in point.values()] == [float, float, float, int]


def test_a_model_of_masks_has_nothing_to_calibrate(measured):
    assert calibrate(models.Segmenter().to(measured[1].device), measured[1], "fp32", LEARNED) == {}


def assess_rows(measured, rows, calibration=None):
    model, batches, known, _, written = measured
    some = data.Batches(batches.pixels, rows, 16, device=batches.device)
    assessment = assess(model, some, calibration or known, "multitask")
    publish(RunFolder(written.with_name("some")), assessment, "multitask, some")
    return assessment.numbers


def test_nothing_is_perfect_about_a_class_without_images(measured):
    """Without a melanoma, what share of the melanomas is found is not known."""
    found = assess_rows(measured, measured[1].table[measured[1].table["label"] != "MEL"])
    point, interval = (part["operating_points"]["melanoma"] for part in (found["label"], found["intervals"]["label"]))
    assert point["sensitivity"] is None and interval["sensitivity"] is None
    assert point["specificity"] is not None and point["ppv"] in (0, None)
    official = found["label"]["official"]
    assert official["per_class"]["MEL"]["sensitivity"] == 1  # the organisers' convention
    of_present = [official["per_class"][code]["sensitivity"] for code in CLASSES[1:]]
    assert official["macro"]["sensitivity"] == pytest.approx((1 + sum(of_present)) / 7)
    assert official["macro_present"]["sensitivity"] == pytest.approx(np.mean(of_present))


def test_a_threshold_that_could_not_be_fitted_scores_nothing(measured):
    model, batches, *_ = measured
    rows = batches.table[batches.table["label"] != "MEL"]
    some = data.Batches(batches.pixels, rows, 16, device=batches.device)
    calibration = calibrate(model, some, "fp32", LEARNED)
    assert calibration["thresholds"]["melanoma"] is None and calibration["thresholds"]["malignant"] is not None
    found = assess_rows(measured, batches.table, calibration)
    nothing = dict.fromkeys(("sensitivity", "specificity", "ppv", "threshold"))
    assert found["label"]["operating_points"]["melanoma"] == nothing
    assert found["label"]["operating_points"]["malignant"]["sensitivity"] is not None


def test_subgroups_add_up(measured):
    found, rows = measured[3], measured[1].table
    for group in ("age", "sex", "localization"):
        members = [row for row in found["subgroups"] if row["group"] == group]
        known = rows[group].notna()
        assert sum(row["n_images"] for row in members) == known.sum()
        weighted = sum(row["accuracy"] * row["n_images"] for row in members) / known.sum()
        right = probabilities_in(measured[-1])[1].argmax(axis=1) == rows["label"].cat.codes
        assert weighted == pytest.approx(right[known].mean())


def test_a_table_that_knows_no_age_sex_or_site_has_no_subgroups(measured):
    rows = measured[1].table.drop(columns=["age", "sex", "localization"])
    assert assess_rows(measured, rows)["subgroups"] == []


def test_the_heat_maps_energy_is_of_the_images_with_a_mask(measured):
    model, batches, _, found, _ = measured
    inside, area = [], []
    for batch in batches.epoch():
        heat = model.heat_map(batch["image"])
        inside += ((heat * batch["mask"]).sum(dim=(1, 2, 3)) / heat.sum(dim=(1, 2, 3)).clamp(min=1e-6)).tolist()
        area += batch["mask"].mean(dim=(1, 2, 3)).tolist()
    expected = {"energy_in_mask": np.mean(inside), "mask_area": np.mean(area), "n_images": len(batches.table)}
    assert found["label"]["heat_map"] == pytest.approx(expected)


def test_images_without_a_mask_count_for_labels_alone(measured):
    rows = measured[1].table.copy()
    rows.loc[rows.index[::2], "status"] = LABEL_ONLY
    found = assess_rows(measured, rows)
    assert found["label"]["n_images"] == len(rows) and found["mask"]["n_images"] == len(rows) // 2


def test_each_head_is_measured_on_the_images_that_have_its_target(measured):
    """Numbers, tables, subgroups and the console; every second image has no label, and ten have no mask."""
    rows = measured[1].table.copy()
    rows.loc[rows.index[::2], "label"] = None
    rows.loc[rows.index[:10], "status"] = LABEL_ONLY
    found, written = assess_rows(measured, rows), measured[-1].with_name("some")
    labelled, masked = rows[rows["label"].notna()], rows[rows["status"] != LABEL_ONLY]
    assert list(pd.read_csv(written / "predictions.csv")["image"]) == list(labelled["image"])
    assert list(pd.read_csv(written / "per_image.csv")["image"]) == list(masked["image"])
    assert (found["label"]["n_images"], found["mask"]["n_images"]) == (len(labelled), len(masked))
    assert found["label"]["accuracy"] == measured_accuracy(measured, labelled["image"])
    assert {point["n_images"] for point in scoring.tested_points(found).values()} == {len(labelled)}
    women, men = (group for group in found["subgroups"] if group["group"] == "sex")  # in turn, from the first row on
    assert women["n_labels"] == 0 and women["accuracy"] is None
    assert "n_labels" not in men and men["accuracy"] == found["label"]["accuracy"]
    assert [group["n_masks"] for group in (women, men)] == [(masked["sex"] == sex).sum() for sex in ("female", "male")]
    shown = tables.console_table("a", found)
    assert f"{len(labelled)} images with a label" in shown and f"{len(masked)} images with a mask" in shown


def measured_accuracy(measured, images):
    """By the table that was written of all images."""
    table = pd.read_csv(measured[-1] / "predictions.csv").set_index("image").loc[images]
    return pytest.approx((table["predicted"] == table["true"]).mean())


def test_images_without_a_label_do_not_count_where_probabilities_are_calibrated():
    true, logits = labels_and_logits()
    of_all = fit_calibration(true, logits, LEARNED, CLASSES)
    more = np.concatenate([true, [-1, -1]]), np.concatenate([logits, np.full((2, 7), 9.0)])
    assert fit_calibration(*more, np.append(LEARNED, -1), CLASSES) == of_all


def test_ages_fall_into_bands():
    bands = scoring.age_bands(pd.Series([0, 35, 40.0, 59.5, 60, 85, np.nan]))
    expected = ["under 40", "under 40", "40 to 59", "40 to 59", "60 and over", "60 and over", None]
    assert bands.where(bands.notna(), None).tolist() == expected


def test_the_heat_map_is_grad_cam(measured, device):
    """At the coarse map's cells it agrees with gradients taken by autograd, up to the scaling to one."""
    model = measured[0]
    image = torch.randn(2, 3, 64, 64, device=device)
    features = model.encoder(image)
    features[-1].retain_grad()
    logits = model.heads["label"](features, (64, 64))
    logits.max(dim=1).values.sum().backward()
    weights = features[-1].grad.mean(dim=(2, 3), keepdim=True)
    expected = (weights * features[-1]).sum(dim=1).relu().detach()
    found = model.heat_map(image)
    assert found.shape == (2, 1, 64, 64)
    assert expected.amax(dim=(1, 2)).all()
    for ours, theirs in zip(found[:, 0, ::32, ::32], expected):
        torch.testing.assert_close(ours / ours.max(), theirs / theirs.max())
    with pytest.raises(ValueError, match="only outlines"):
        models.Segmenter().to(device).heat_map(image)


def test_numbers_do_not_depend_on_the_batch_size(measured):
    model, batches, *_ = measured
    one, many = (
        collect(model, data.Batches(batches.pixels, batches.table, size, device=batches.device), "fp32")
        for size in (1, 16)
    )
    assert one._fields == ("label", "heat", "mask", "native", "surface")
    for name, a, b in zip(one._fields, one, many):
        np.testing.assert_allclose(a, b, rtol=1e-3, atol=1e-2 if name in ("label", "heat") else 3)


TABLES = ("predictions.csv", "per_image.csv", "per_image_native.csv")
MEASURE = """
import json, pathlib, sys
import torch
import data, machine
from measure.assess import assess
from measure.calibrate import calibrate
from report.folder import RunFolder
from report.results import publish
from test_numbers import LEARNED, untrained

machine.join_processes(torch.device("cpu"))
rank = machine.rank()
assert machine.n_ranks() == 2
place = pathlib.Path(sys.argv[1])
model, batches = untrained(pathlib.Path(sys.argv[2]), place / "cache")
calibration = calibrate(model, batches, "fp32", LEARNED)
found = assess(model, batches, calibration, "multitask")
publish(RunFolder(place / f"of{rank}", "synthetic demo data"), found, "multitask")
one = data.Batches(batches.pixels, batches.table.iloc[:1], 16)  # which leaves nothing for the second process
calibration_of_one = calibrate(model, one, "fp32", LEARNED)
alone = assess(model, one, calibration_of_one, "multitask")
publish(RunFolder(place / f"one{rank}"), alone, "multitask")
assert (found is None) == (alone is None) == (not (place / f"of{rank}").exists()) == (rank > 0)
found, alone = found and found.numbers, alone and alone.numbers
(place / f"rank{rank}.json").write_text(json.dumps({"calibration": calibration, "found": found, "alone": alone}))
"""


def numbers_in(nested):
    """All values of nested dicts and lists, in order; None as NaN."""
    if isinstance(nested, dict | list):
        return [n for value in (nested.values() if isinstance(nested, dict) else nested) for n in numbers_in(value)]
    return [np.nan if nested is None else nested]


def test_two_processes_measure_what_one_does_and_the_first_writes_it(measured, demo_folder, tmp_path):
    if measured[1].device.type != "cpu":
        pytest.skip("the two processes measure on the CPU")
    (tmp_path / "two_processes.py").write_text(MEASURE)
    env = {**os.environ, "PYTHONPATH": f"{ROOT}{os.pathsep}{ROOT / 'tests'}", "OMP_NUM_THREADS": "1"}
    command = [*TORCHRUN, tmp_path / "two_processes.py", tmp_path, demo_folder]
    done = subprocess.run(command, env=env, capture_output=True, text=True, timeout=180)
    assert done.returncode == 0, done.stderr
    first, second = (json.loads((tmp_path / f"rank{rank}.json").read_text()) for rank in (0, 1))
    _, _, calibration, found, written = measured
    assert second["found"] is None and first["alone"]["n_images"] == 1
    for both in ((first["calibration"], calibration), (second["calibration"], calibration), (first["found"], found)):
        for one, other in zip(*map(numbers_in, both), strict=True):
            assert one == (other if isinstance(other, str) else pytest.approx(other, rel=1e-4, abs=1e-5, nan_ok=True))
    for name in TABLES:
        mine, theirs = (pd.read_csv(folder / name) for folder in (tmp_path / "of0", written))
        pd.testing.assert_frame_equal(mine, theirs, rtol=1e-4, atol=1e-5)


def test_scores_at_the_masks_own_size_are_means_of_their_own_table(whole_run):
    folder = whole_run[0] / "segmentation"
    found = json.loads((folder / "metrics.json").read_text())["mask"]
    small, own = (pd.read_csv(folder / f"{name}.csv") for name in ("per_image", "per_image_native"))
    assert abs(small["dice"] - own["dice"]).max() > 1e-3  # so that one cannot stand for the other
    for table, scores in ((small, found), (own, found["native"])):
        assert scores["mean_dice"] == pytest.approx(table["dice"].mean(), abs=1e-4)
        assert scores["mean_iou"] == pytest.approx(table["iou"].mean(), abs=1e-4)
    for name in ("hd95", "assd"):
        assert found["native"][f"mean_{name}"] == pytest.approx(own[name].mean(), abs=1e-3)


def interval_of(values, weights):
    """95 % of the weighted means of (N,) values."""
    return np.percentile((weights @ values) / weights.sum(axis=1), [2.5, 97.5])


def test_classes_and_subgroups_are_resampled_by_their_own_lesions():
    """Lesions of one image and of five in turn, so that other images' weights give another interval."""
    lesion = np.concatenate([np.full(1 + 4 * (k % 2), k) for k in range(20)])
    n = len(lesion)
    rows = pd.DataFrame({"image": [f"i{k}" for k in range(n)], "lesion_id": lesion, "status": USED})
    rows["label"] = pd.Categorical(np.where(np.arange(n) < 20, "x", "y"))
    rows["sex"], rows["mask_path"] = np.where(np.arange(n) < 20, "female", "male"), "a.png"
    counts = np.random.default_rng(0).integers(1, 100, (n, 4)).astype(float)
    collected = Collected(mask=counts, native=counts, surface=np.ones((n, 2)))
    resamples, male = bootstrap.resample_lesions(lesion, 200), np.arange(20, n)
    weights = np.concatenate(list(resamples.blocks()))[:, male]
    expected = interval_of(evaluate.dice(counts)[male], weights)
    _, intervals = scoring.mask_numbers(rows, collected, resamples)
    np.testing.assert_allclose(intervals["by_class"]["y"]["mean_dice"], expected)
    (group,) = [one for one in scoring.subgroup_numbers(rows, collected, resamples) if one["value"] == "male"]
    np.testing.assert_allclose(group["intervals"]["mean_dice"], expected)


def test_distances_keep_their_names():
    rows = pd.DataFrame({"image": ["a"], "label": pd.Categorical(["x"]), "lesion_id": ["l"]})
    collected = Collected(mask=np.ones((1, 4)), native=np.ones((1, 4)), surface=np.array([[9.0, 2.0]]))
    found, _ = scoring.mask_numbers(rows, collected, bootstrap.resample_lesions(rows["lesion_id"], 20))
    table = tables.mask_table(rows, collected.native, collected.surface)
    assert (
        (found["native"]["mean_hd95"], found["native"]["mean_assd"]) == (9, 2) == (table["hd95"][0], table["assd"][0])
    )


def test_the_majority_is_that_of_the_training_images_and_not_of_the_test_set():
    rows = pd.DataFrame({"label": pd.Categorical(["a", "a", "a", "b"], ["a", "b"]), "lesion_id": list("wxyz")})
    calibration = {"temperature": 1.0, "tau": 0.0, "prior": [0.4, 0.6], "scale": "calibrated", "thresholds": {}}
    resamples = bootstrap.resample_lesions(rows["lesion_id"], 20)
    numbers, _ = scoring.label_numbers(rows, np.array([[1.0, 0.0]] * 4), resamples, calibration)
    assert numbers[scoring.MAJORITY]["class"] == "b" and numbers[scoring.MAJORITY]["accuracy"] == 0.25
