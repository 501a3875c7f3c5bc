"""Soft labels: what is learned from them, and which tables are refused."""

import json

import numpy as np
import pandas as pd
import pytest
import torch
import torch.nn.functional as F
from conftest import quick

import augment
import data
import train
from dataset import table as tables
from dataset.soft import add_soft_labels, soft_targets

CLASSES = ("MEL", "NV", "BCC")


def six():
    """Four training images, the last without a diagnosis, one of val and one of test."""
    label = pd.Categorical(["MEL", "NV", "BCC", None, "NV", "MEL"], CLASSES)
    split = ["train"] * 4 + ["val", "test"]
    return pd.DataFrame(
        {"image": list("abcdef"), "label": label, "split": split, "status": tables.USED, "row": range(6)}
    )


def written(path, rows, name="image"):
    pd.DataFrame(rows, columns=[name, *CLASSES]).to_csv(path / "soft.csv", index=False)
    return path / "soft.csv"


ROWS = [("a", 0.5, 0.3, 0.2), ("b", 0.1, 0.9, 0.0), ("d", 0.2, 0.2, 0.6), ("e", 1, 0, 0), ("x", 0, 0, 1)]


def test_targets_are_blended_where_there_is_a_row_and_the_diagnosis_alone_elsewhere(tmp_path):
    table = six()
    summary = add_soft_labels(table, written(tmp_path, ROWS), 0.25)
    targets = soft_targets(table)
    np.testing.assert_allclose(targets[:3], [[0.875, 0.075, 0.05], [0.025, 0.975, 0], [0, 0, 1]], rtol=1e-6)
    assert np.isnan(targets[3:]).all()  # without a diagnosis, or not learned from
    assert "2 of 3 training images" in summary and "3 rows match no training image" in summary


def test_the_loss_is_cross_entropy_and_divergence_by_their_weights(tmp_path):
    """Their gradients are equal; the losses differ by a constant."""
    table, weight = six(), 0.7
    add_soft_labels(table, written(tmp_path, ROWS), weight)
    targets, soft = torch.tensor(soft_targets(table)[:2]), torch.tensor([ROWS[0][1:], ROWS[1][1:]])
    logits = torch.randn(2, 3, generator=torch.Generator().manual_seed(0), requires_grad=True)
    (ours,) = torch.autograd.grad(F.cross_entropy(logits, targets), logits)
    divergence = F.kl_div(logits.log_softmax(dim=1), soft, reduction="batchmean")
    both = (1 - weight) * F.cross_entropy(logits, torch.tensor([0, 1])) + weight * divergence
    (expected,) = torch.autograd.grad(both, logits)
    torch.testing.assert_close(ours, expected, atol=1e-6, rtol=0)


def batches_of(tmp_path, **options):
    table = six().iloc[:3]
    add_soft_labels(table, written(tmp_path, ROWS), 0.5)
    return data.Batches(np.zeros((6, 4, 4, 4), np.uint8), table, 3, **options)


def test_batches_have_them_to_learn_from_and_diagnoses_to_evaluate_with(tmp_path):
    (learned,) = batches_of(tmp_path, seed=1)
    (evaluated,) = batches_of(tmp_path)
    assert learned["label"].shape == (3, 3) and evaluated["label"].tolist() == [0, 1, 2]
    torch.testing.assert_close(learned["label"].sum(dim=1), torch.ones(3))


def test_a_soft_label_becomes_the_probability_among_the_drawn_images_and_a_diagnosis_stays(tmp_path):
    """Of a class drawn three times as often, odds of 0.5 to 0.5 become 1.5 to 0.5."""
    table = six()
    add_soft_labels(table, written(tmp_path, ROWS), 0.5)
    p = np.array([0.5 * 3, 0.3, 0.2 * 2])
    found = soft_targets(table, np.array([3.0, 1.0, 2.0]))
    np.testing.assert_allclose(found[0], 0.5 * np.eye(3)[0] + 0.5 * p / p.sum(), rtol=1e-6)
    np.testing.assert_allclose(found[2], [0, 0, 1])


def test_few_negatives_and_soft_labels_learn_the_soft_labels_of_all_images(tmp_path):
    """Soft labels alone are at the optimum where the softmax of the logits is them, which the offset must not move."""
    label = pd.Categorical(["MEL"] + ["NV"] * 9, CLASSES)
    rows = [(f"i{k}", 0.2, 0.7, 0.1) for k in range(10)]
    table = pd.DataFrame({"image": [row[0] for row in rows], "label": label, "split": "train", "status": tables.USED})
    add_soft_labels(table.assign(row=range(10)), written(tmp_path, rows), 1.0)
    table = table.assign(row=range(10))
    add_soft_labels(table, tmp_path / "soft.csv", 1.0)
    some = data.Batches(np.zeros((10, 4, 4, 4), np.uint8), table, 3, seed=1, sampling=2)
    (batch,) = some
    loss = train.Recipe(1, 3, 0.1).losses(some.frequencies, some.offset)["label"]
    logits = torch.tensor([[0.2, 0.7, 0.1]]).log().expand(3, 3).clone().requires_grad_()
    (slope,) = torch.autograd.grad(loss(logits, batch["label"]), logits)
    assert some.n_images == 3 and some.offset.abs().max() > 0.5
    torch.testing.assert_close(slope, torch.zeros(3, 3), atol=1e-6, rtol=0)


def test_mixup_mixes_them():
    batch = {"image": torch.zeros(2, 1), "label": torch.tensor([[0.5, 0.5], [0.0, 1.0]])}
    mixed = augment.mix(batch, torch.tensor([0.75, 1.0]), 2)
    torch.testing.assert_close(mixed["label"], torch.tensor([[0.375, 0.625], [0.0, 1.0]]))


def test_a_table_of_predict_is_read_by_its_files_and_skipped_ones_have_no_row(tmp_path):
    table = six()
    add_soft_labels(table, written(tmp_path, [("photos/a.jpg", 0, 1, 0), ("photos/b.jpg", *[None] * 3)], "file"), 1)
    np.testing.assert_allclose(soft_targets(table)[:3], [[0, 1, 0], [0, 1, 0], [0, 0, 1]])


def test_names_are_those_of_the_data_whatever_their_folder_suffix_and_blanks(tmp_path):
    table = six().assign(image=["001", "NA", "c", "d", "e", "f"])
    (tmp_path / "soft.csv").write_text("image, MEL, NV, BCC\n x/001.jpg ,0,1,0\nNA,0,0,1\n")
    assert "2 of 3 training images" in add_soft_labels(table, tmp_path / "soft.csv", 1)
    np.testing.assert_allclose(soft_targets(table)[:2], [[0, 1, 0], [0, 0, 1]])


def test_a_class_named_as_a_column_of_predict_is_read_from_the_column_of_its_probabilities(tmp_path):
    label = pd.Categorical(["malignant", "benign"], ["malignant", "benign"])
    table = pd.DataFrame({"image": ["a", "b"], "label": label, "split": "train", "status": tables.USED})
    (tmp_path / "p.csv").write_text("file,malignant,malignant_,benign\na.jpg,above,0.75,0.25\n")
    add_soft_labels(table, tmp_path / "p.csv", 1)
    np.testing.assert_allclose(soft_targets(table), [[0.75, 0.25], [0, 1]])


def test_without_diagnoses_there_is_nothing_to_blend(tmp_path):
    with pytest.raises(ValueError, match="No training image has a diagnosis"):
        add_soft_labels(six().iloc[3:], written(tmp_path, ROWS), 0.5)


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ([*ROWS, ROWS[0]], "has a twice"),
        ([("a", 0.5, 0.3, 0.3)], "a are not probabilities that sum to 1"),
        ([("a", -0.5, 1.3, 0.2)], "a are not probabilities that sum to 1"),
        ([("a", 0.5, None, 0.5)], "a are not probabilities that sum to 1"),
        ([("", 1, 0, 0)], "without the name of an image"),
        ([("x", 1, 0, 0)], "names no training image"),
        ([("e", 1, 0, 0)], "names no training image"),
    ],
)
def test_a_table_that_cannot_be_learned_from_is_refused(rows, message, tmp_path):
    with pytest.raises(ValueError, match=message):
        add_soft_labels(six(), written(tmp_path, rows), 0.5)


def test_a_missing_table_or_class_is_one_message(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"no table of soft labels.*Name a CSV file"):
        add_soft_labels(six(), tmp_path / "none.csv", 0.5)
    (tmp_path / "two.csv").write_text("image,MEL,NV\na,0.5,0.5\n")
    with pytest.raises(ValueError, match="lacks the column BCC"):
        add_soft_labels(six(), tmp_path / "two.csv", 0.5)


def test_a_run_learns_from_them_and_another_table_is_another_run(demo_folder, tmp_path, capsys):
    table = tables.read_table(demo_folder)
    classes = list(table["label"].cat.categories)
    uniform = pd.DataFrame(1 / len(classes), index=table["image"], columns=classes)
    uniform.to_csv(tmp_path / "soft.csv")
    command = [demo_folder, tmp_path, "--soft-labels", str(tmp_path / "soft.csv")]
    assert quick(*command, "--soft-weight", "1") == 0
    assert "training images have one" in capsys.readouterr().out
    history = pd.read_csv(tmp_path / "outputs" / "classification" / "history.csv")
    assert history["train_loss"][0] > 0.95 * np.log(len(classes))  # of uniform targets no loss is lower
    identity = json.loads((tmp_path / "outputs" / "record.json").read_text())["tasks"]["classification"]["identity"]
    assert len(identity["soft_labels"]) == 12 and identity["soft_weight"] == 1
    assert quick(*command, "--resume", "--soft-weight", "0.5") == 2
    assert "soft weight was 1.0, is 0.5" in capsys.readouterr().err
