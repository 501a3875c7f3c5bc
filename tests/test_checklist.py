"""The checklist of a run: every answer follows from the run's files, and none claims what they do not tell."""

import shutil

import pandas as pd
import pytest
from conftest import copied, edit, quick, text_of

from dataset.csvfile import read_back
from dataset.synthetic import NOTE
from report import page
from report.checklist import OPEN, as_markdown, items_of
from report.run import Run

SOURCE, SELECTION = "Source and licence of the images", "Selection of people and lesions"
DETAILS, SKIN = "Age, sex and body site", "Skin tones"
AMOUNT, LEFT_OUT = "Amount of data", "Images left out and missing values"
PREPARATION, ETHICS = "Preparation of the images", "Ethics approval, consent and privacy"
CLASSES, CONFIRMED, MASKS = "Diagnoses to predict", "How each diagnosis was confirmed, and by whom", "Masks"
PARTS, OVERLAP, COUNTS = "How the split was made", "Overlap between the parts", "Images of each class"
ARCHITECTURE, START, IN_OUT = "Architecture", "Initial weights", "Inputs and outputs"
SETTINGS, WEIGHTS, RARE, REPEATED = "Settings", "Choice of the weights", "Rare classes", "Repeated runs"
SCORES, THRESHOLDS = "Scores and their uncertainty", "Thresholds and calibration"
BASELINE, SUBGROUPS = "Comparison with simpler rules, people or other methods", "Subgroups and fairness"
MAIN_SCORES, FAILURES, ELSEWHERE = "Main scores", "Failures", "Data from elsewhere"
UNKNOWN, WEAK, CODE = "Limits of the model's predictions", "Known weaknesses of this run", "Code and weights"
TASKS = ("classification", "segmentation", "multitask")


def answers(folder):
    run = Run(folder)
    return {item.question: item.answer for item in items_of(run, page.cautions_of(run))}


def test_every_item_has_an_answer_and_names_who_asks_for_it(outputs):
    items = items_of(Run(outputs), ["A caution."])
    assert 25 <= len(items) <= 36 and len({item.question for item in items}) == len(items)
    groups = ["Data", "Labels", "Split", "Model", "Training", "Evaluation", "Results", "Limits", "Availability"]
    assert list(dict.fromkeys(item.group for item in items)) == groups
    for item in items:
        assert item.answer and set(item.guidelines.split(", ")) <= {"CLEAR Derm", "TRIPOD+AI", "CLAIM"}
        assert "{" not in item.answer and "None" not in item.answer.replace("None of", "").replace("None:", "")
    assert {item.question: item.answer for item in items}[WEAK] == "A caution."


def test_both_pages_show_every_answer_and_an_open_box_where_the_author_must_write(outputs):
    run = Run(outputs)
    items = items_of(run, page.cautions_of(run))
    lines, shown = (outputs / "checklist.md").read_text().splitlines(), text_of(page.build(outputs))
    boxes = [line for line in lines if line.startswith("- [")]
    assert len(boxes) == len(items)
    for item, line in zip(items, boxes):
        assert line.startswith("- [ ] " if OPEN in item.answer else "- [x] ")
        assert item.answer in line.replace("\\", "") and item.answer in shown and item.question in shown
    n_open = sum(item.is_open for item in items)
    assert 0 < n_open < len(items)
    assert f"{n_open} of {len(items)} have a part that only you can answer" in shown


def patients_alone(splits):
    return splits.assign(lesion_id=splits["image"], group="patient " + splits.index.astype(str))


def config(**values):
    return lambda folder: edit(folder / "config.json", lambda found: found.update(values))


def metrics(change, *tasks):
    def apply(folder):
        for task in tasks or TASKS:
            edit(folder / task / "metrics.json", change)

    return apply


def record(change):
    return lambda folder: edit(folder / "record.json", change)


def table(name, change):
    def apply(folder):
        found = read_back(folder / name)
        change(found).to_csv(folder / name, index=False)

    return apply


def without_test_images_of_vasc(splits):
    return splits[(splits["label"] != "VASC") | (splits["split"] != "test")]


def one_left_out(rows):
    """The reasons of the others are not those of a row that is left out."""
    n = len(rows) - 1
    return rows.assign(
        status=["left out", *["classification only"] * n], reason=["too dark (e.g. 3)", *["no mask"] * n]
    )


def stop_early(folder):
    record(lambda found: found["tasks"]["classification"]["identity"].update(epochs=30))(folder)


def averaged(found):
    found.update(averaged=["a.pth", "b.pth"])


def audit(folder):
    """The audit finds a pair of the same lesion across the split."""
    sides = {"image_a": "a", "image_b": "b", "lesion_a": "l", "lesion_b": "l", "split_a": "train", "split_b": "test"}
    pair = sides | {"kind": "same lesion", "similarity": "", "crosses": True, "crosses_by_image": True}
    pd.DataFrame([pair]).to_csv(folder / "leakage.csv", index=False)


CHANGES = [
    (SOURCE, config(data=NOTE), "Drawings made by dataset/synthetic.py"),
    (SOURCE, config(DATA_DIR="elsewhere"), "Read from elsewhere. You must say"),
    (
        SOURCE,
        table("splits.csv", lambda found: found.assign(lesion_id="HAM_" + found["lesion_id"])),
        "HAM10000, by its",
    ),
    (SELECTION, config(data=NOTE), "No people"),
    (DETAILS, metrics(lambda found: found.update(subgroups=[])), "the people's age and sex and site"),
    (DETAILS, metrics(lambda found: found["subgroups"][-1].update(value="of some", n_images=1234)), "of some (1,234)"),
    (SKIN, config(data=NOTE), "No people"),
    (
        SKIN,
        metrics(lambda found: found["subgroups"][0].update(group="fitzpatrick_skin_type", value="VI")),
        "type: VI (",
    ),
    (AMOUNT, table("splits.csv", lambda found: found.assign(lesion_id=found["image"])), "their lesions are unknown"),
    (AMOUNT, table("splits.csv", lambda found: found.assign(lesion_id="one")), "of 1 lesions"),
    (AMOUNT, table("splits.csv", lambda found: found.assign(group="one")), "in 1 groups"),
    (AMOUNT, table("splits.csv", lambda found: found.iloc[:20]), "20 images of"),
    (
        AMOUNT,
        table("splits.csv", lambda found: found.assign(lesion_id=["lesion", *found["image"][1:]])),
        "images, 1 of them with a lesion id",
    ),
    (
        LEFT_OUT,
        table("data_report.csv", one_left_out),
        "rows were left out: too dark (1). ",
    ),
    (
        LEFT_OUT,
        table(
            "data_report.csv",
            lambda found: found.assign(status=["classification only"] * 3 + list(found["status"][3:])),
        ),
        "3 images have no usable mask.",
    ),
    (
        LEFT_OUT,
        table(
            "data_report.csv", lambda found: found.assign(status=["segmentation only"] * 2 + list(found["status"][2:]))
        ),
        "2 images have no diagnosis.",
    ),
    (PREPARATION, config(IMAGE_SIZE=77), "resized to 77×77 pixels"),
    (PREPARATION, config(INVERT_MASKS=True), "Masks were inverted."),
    (PREPARATION, config(STRETCH_MASKS=True), "Masks were stretched"),
    (ETHICS, config(data=NOTE), "No people"),
    (CLASSES, record(lambda found: found.update(classes=["MEL", "NV"])), "MEL, NV."),
    (CLASSES, config(CLASSES=["bad=MEL,BCC", "NV"]), "by --classes: bad=MEL,BCC NV."),
    (CONFIRMED, config(data=NOTE), "By construction"),
    (CONFIRMED, metrics(lambda found: found["subgroups"][0].update(group="dx_type", value="lens")), "lens ("),
    (
        CONFIRMED,
        metrics(lambda found: found.update(subgroups=[])),
        "the share confirmed by histopathology",
    ),
    (CONFIRMED, config(SOFT_LABELS="soft.csv", SOFT_WEIGHT=0.4), "in soft.csv, with the weight 0.4"),
    (MASKS, config(data=NOTE), "Exact by construction"),
    (
        MASKS,
        metrics(lambda found: found["mask"].update(n_images=4321), "segmentation"),
        "4,321 test images have a mask",
    ),
    (PARTS, config(GROUP_BY_LESION=False), "by image"),
    (PARTS, config(GROUP_DUPLICATES=True), "near duplicates in one part"),
    (PARTS, config(TEST_FRACTION=0.31, SPLIT_SEED=7), "0.31 for test, seed 7"),
    (PARTS, record(lambda found: found.update(reading=["Other.", "Split: own."])), "images. Split: own."),
    (PARTS, config(EVALUATE_ONLY=True, CHECKPOINTS=["a.pth"]), "You must say: on which images the models in a.pth"),
    (PARTS, table("splits.csv", lambda found: found.assign(split="test")), "The split has 53 test images"),
    (OVERLAP, audit, "Pairs across the split: same file 0, same picture 0, same lesion 1."),
    (OVERLAP, lambda folder: (folder / "leakage.csv").unlink(), "No audit was made. You must say"),
    (OVERLAP, table("splits.csv", lambda found: found.assign(lesion_id=found["image"])), "Lesion ids are unknown"),
    (COUNTS, table("splits.csv", lambda found: found.assign(label="DF", split="val")), "MEL 0, 0, 0; "),
    (ARCHITECTURE, config(MODEL="Pooled, 5 parameters"), "Pooled, 5 parameters. You must say"),
    (ARCHITECTURE, metrics(lambda found: found.update(encoders=["resnet50"])), "ResNet-50 encoder, for"),
    (ARCHITECTURE, metrics(averaged), "average of 2 models"),
    (START, metrics(lambda found: found.update(initial_weights="imagenet", initial_files=["a.pth"])), ": a.pth."),
    (START, metrics(lambda found: found.pop("initial_weights")), "You must say: random, or"),
    (START, metrics(lambda found: found.update(initial_weights="unknown")), "You must say: random, or"),
    (
        IN_OUT,
        metrics(lambda found: found.pop("mask"), "segmentation", "multitask"),
        "Output: a probability for each class.",
    ),
    (SETTINGS, record(lambda found: found["tasks"]["multitask"]["identity"].update(lr=0.123)), "lr 0.123"),
    (SETTINGS, record(lambda found: found["tasks"]["multitask"]["identity"].clear()), "multitask: You must say"),
    (SETTINGS, stop_early, "epochs 1 of 30"),
    (WEIGHTS, metrics(lambda found: found.update(epoch=17)), "epoch 17, which had the lowest validation loss"),
    (WEIGHTS, metrics(averaged), "average of a.pth, b.pth"),
    (WEIGHTS, metrics(lambda found: found.pop("epoch")), "You must say: which weights"),
    (RARE, config(LABEL_LOSS="weighted"), "Classification loss: weighted."),
    (RARE, config(NEGATIVES=20), "drew 20 images of the commonest class for each image of the others. A second rule"),
    (RARE, config(EVALUATE_ONLY=True), "You must say: whether training weighted"),
    (REPEATED, record(lambda found: [one["identity"].update(seed=5) for one in found["tasks"].values()]), "the seed 5"),
    (REPEATED, record(lambda found: found["tasks"]["multitask"]["identity"].update(seed=5)), "No single seed is known"),
    (SCORES, metrics(lambda found: found.update(views=8), "multitask"), "multitask: average over 8 views"),
    (SCORES, table("splits.csv", lambda found: found.assign(lesion_id=found["image"])), "resamples of images"),
    (SCORES, table("splits.csv", patients_alone), "resamples of patients"),
    (PARTS, table("splits.csv", patients_alone), "split the data by patient, stratified"),
    (SCORES, table("splits.csv", lambda found: found.assign(group="one")), "groups (same lesion or patient)"),
    (THRESHOLDS, metrics(lambda found: found["label"]["calibration"].update(temperature=3.21), "multitask"), "3.21"),
    (BASELINE, metrics(lambda found: found["label"]["majority"].update({"class": "ODD"}), "classification"), "ODD"),
    (SUBGROUPS, metrics(lambda found: found.update(subgroups=[])), "No subgroup scores"),
    (MAIN_SCORES, metrics(lambda found: found["label"].update(accuracy=0.4321), "multitask"), "Accuracy 0.432"),
    (FAILURES, metrics(lambda found: found["mask"]["native"].update(failure_rate=0.123), "multitask"), "12.3 %"),
    (FAILURES, table("splits.csv", without_test_images_of_vasc), "whose performance is unknown: VASC."),
    (ELSEWHERE, config(EVALUATE_ONLY=True), "None apart from the test images."),
    (UNKNOWN, record(lambda found: found.update(classes=["MEL", "NV"])), "It has 2 classes"),
    (WEAK, config(data=NOTE), "synthetic drawings"),
    (
        CODE,
        lambda folder: edit(folder / "environment.json", lambda one: one.update(commit="abc+")),
        "abc, with uncommitted changes",
    ),
    (CODE, lambda folder: edit(folder / "environment.json", lambda one: one.pop("commit", None)), "code is unknown"),
    (CODE, lambda folder: [path.unlink() for path in folder.glob("*.pth")], "this folder holds no weights"),
]


@pytest.mark.parametrize(("question", "change", "words"), CHANGES, ids=lambda value: value if value is str else None)
def test_an_answer_changes_with_the_runs_facts(question, change, words, copy):
    edit(
        copy / "environment.json", lambda found: found.update(commit=found.get("commit") or "1234567")
    )  # none without git
    assert words not in answers(copy)[question]
    change(copy)
    assert words in answers(copy)[question]


def test_a_run_without_masks_claims_none(copy):
    shutil.rmtree(copy / "segmentation")
    shutil.rmtree(copy / "multitask")
    record(lambda found: found.update(comparison=False, tasks={"classification": found["tasks"]["classification"]}))(
        copy
    )
    metrics(lambda found: found["label"].update(heat_map=None), "classification")(copy)
    found = answers(copy)
    assert found[MASKS] == "No mask is used." and "mask" not in found[IN_OUT] + found[SETTINGS] + found[FAILURES]
    assert "segmentation" not in " ".join(found.values()) and "single-task" not in found[BASELINE]


def test_a_run_without_diagnoses_claims_none(copy):
    for task in ("classification", "multitask"):
        shutil.rmtree(copy / task)
    only = {"comparison": False, "classes": []}
    record(lambda found: found.update(tasks={"segmentation": found["tasks"]["segmentation"]}, **only))(copy)
    table("splits.csv", lambda found: found.assign(label=""))(copy)
    found = answers(copy)
    assert found[CLASSES] == "None: only masks are predicted."
    assert found[CONFIRMED] == found[COUNTS] == found[RARE] == "No diagnosis is used."
    assert found[THRESHOLDS].startswith("No diagnosis is used") and "probability" not in found[IN_OUT]
    assert "classes" not in found[UNKNOWN] and "Always" not in found[BASELINE]


def test_a_report_of_an_own_model_says_only_what_it_was_told(copy):
    """Its files are those that report.own writes without history and settings."""
    edit(copy / "config.json", lambda found: [found.pop(name) for name in set(found) - {"DATA_DIR", "IMAGE_SIZE"}])
    config(MODEL="Pooled, 5 parameters")(copy)
    own = {"identity": {"precision": "fp32", "split_hash": "0"}, "trained": True, "measured": {}}
    record(lambda found: found.update(comparison=False, tasks={"classification": own}))(copy)
    names = ("initial_weights", "views", "encoders", "initial_files", "epoch")
    metrics(lambda found: [found.pop(name) for name in names], "classification")(copy)
    (copy / "leakage.csv").unlink()
    for path in copy.glob("*.pth"):
        path.unlink()
    found = answers(copy)
    for question in (ARCHITECTURE, START, SETTINGS, WEIGHTS, RARE, PARTS, OVERLAP, CODE):
        assert OPEN in found[question], question
    assert "precision" not in found[SETTINGS] and "made by this program" not in found[PARTS]


def test_scores_on_another_data_set_and_an_evaluation_of_its_own_are_told(short_run, demo_folder, folder, tmp_path):
    place = tmp_path / "run"
    copied(short_run, place)
    assert answers(place / "outputs")[ELSEWHERE].startswith("None: the test images are from the same folder")
    for code in ("MEL", "NV"):
        folder.add(f"{code}_0", code)
    other = folder.write().path
    options = ["--evaluate-only", "--tasks", "classification", "--external-dir", str(other)]
    assert quick(demo_folder, place, *options) == 0
    found = answers(place / "outputs")
    assert f"classification: 2 images of {other}: Accuracy" in found[ELSEWHERE]
    assert f"{demo_folder} and {other} were tested" in found[UNKNOWN]
    assert "Images of lesions known to be among their training data were left out." in found[PARTS]
    assert "cross-entropy" in found[RARE]  # trained by this run, before
    assert f"2 images of {other}" in (place / "outputs" / "checklist.md").read_text().replace("\\", "")


def test_names_from_the_data_are_no_markdown(copy):
    config(DATA_DIR="a_b*c`<b>[d]\n# e")(copy)
    run = Run(copy)
    text = as_markdown(items_of(run, []))
    assert r"Read from a\_b\*c\`\<b>\[d] # e." in text and "\n# e" not in text
