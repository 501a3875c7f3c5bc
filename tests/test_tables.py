"""The tables that are written and printed of both rules' calls."""

import numpy as np
import pandas as pd

from dataset.classes import HAM10000 as CLASSES
from measure import bootstrap, tables
from measure import numbers as scoring
from measure.collect import Collected


def test_the_table_says_what_both_rules_call(both_rules):
    table, calibration, *_ = both_rules
    assert list(table) == ["image", "true", "predicted", "balanced", *CLASSES]
    scores = np.log(table[list(CLASSES)]) - 0.5 * np.log(calibration["prior"])
    assert (table["balanced"] == np.array(CLASSES)[scores.to_numpy().argmax(axis=1)]).all()
    assert (table["predicted"] == table[list(CLASSES)].idxmax(axis=1)).all()
    assert 0 < (table["predicted"] != table["balanced"]).mean() < 1


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


def test_distances_keep_their_names():
    rows = pd.DataFrame({"image": ["a"], "label": pd.Categorical(["x"]), "lesion_id": ["l"]})
    collected = Collected(mask=np.ones((1, 4)), native=np.ones((1, 4)), surface=np.array([[9.0, 2.0]]))
    found, _ = scoring.mask_numbers(rows, collected, bootstrap.resample_lesions(rows["lesion_id"], 20))
    table = tables.mask_table(rows, collected.native, collected.surface)
    assert (
        (found["native"]["mean_hd95"], found["native"]["mean_assd"]) == (9, 2) == (table["hd95"][0], table["assd"][0])
    )
