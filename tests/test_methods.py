"""The methods of a manuscript: every statement follows from the run's files, and every citation has its entry."""

import re

import pytest
from conftest import ROOT, edit

from dataset.csvfile import read_back
from dataset.synthetic import NOTE
from report import methods
from report.methods import author_and_year, bibliography, cited_in, cited_in_words, methods_of, references
from report.run import Run

TASKS = ("classification", "segmentation", "multitask")


def text_of(folder):
    return " ".join(methods_of(Run(folder)).values())


def identity(**values):
    return lambda folder: edit(
        folder / "record.json", lambda found: [one["identity"].update(values) for one in found["tasks"].values()]
    )


def metrics(**values):
    def change(folder):
        for task in TASKS:
            edit(folder / task / "metrics.json", lambda found: found.update(values))

    return change


def config(**values):
    return lambda folder: edit(folder / "config.json", lambda found: found.update(values))


def environment(**values):
    return lambda folder: edit(folder / "environment.json", lambda found: found.update(values))


def of_ham10000(folder):
    table = read_back(folder / "splits.csv")
    table.assign(lesion_id="HAM_" + table["lesion_id"]).to_csv(folder / "splits.csv", index=False)


def one_row_left_out(folder):
    table = read_back(folder / "data_report.csv")
    table.loc[0, ["status", "reason"]] = ["left out", "too dark (mean 3)"]
    table.to_csv(folder / "data_report.csv", index=False)


CHANGES = [
    (config(data=NOTE), "The images are drawings made by a program (synthetic demo data)"),
    (of_ham10000, "The images are from HAM10000, recognised by its lesion ids [@tschandl2018]."),
    (one_row_left_out, "rows were left out: too dark (1)."),
    (config(GROUP_BY_LESION=False), "by image, stratified by class"),
    (metrics(encoders=["resnext50_32x4d"]), "ResNeXt-50-32x4d encoder [@xie2017]"),
    (metrics(encoders=["convnext_tiny"]), "ConvNeXt-Tiny encoder [@liu2022convnet]"),
    (metrics(initial_weights="ImageNet", initial_files=["w.pth"]), "ImageNet weights [@russakovsky2015] (w.pth)."),
    (metrics(initial_weights="checkpoint", initial_files=["w.pth"]), "Its initial weights came from w.pth."),
    (identity(lr=0.123), "at a learning rate of 0.123"),
    (identity(weight_decay=0.05), "AdamW [@loshchilov2019] with a weight decay of 0.05"),
    (identity(schedule="cosine", warm_up=0.05), "a cosine [@loshchilov2017] after a linear warm-up over 5 % of"),
    (identity(schedule="linear"), "followed the schedule linear"),
    (
        identity(ema=0.99),
        "an exponential moving average with a decay of 0.99 per step, a variant of averaging [@polyak1992]",
    ),
    (identity(label_loss="focal"), "focal loss [@lin2017]"),
    (identity(label_loss="cube-root"), "Its loss was cube-root."),
    (identity(mask_loss="bce+dice"), "Dice loss [@milletari2016]"),
    (identity(augment="none"), "Training images were not augmented."),
    (identity(augment="flips mixup"), "Training images were augmented: flips, mixup [@zhang2018]."),
    (identity(soft_labels="s.csv", soft_weight=0.4), "class probabilities [@hinton2015] at a weight of 0.4"),
    (identity(dropout=0.25, label_smoothing=0.1), "Further settings: dropout 0.25, label smoothing 0.1."),
    (identity(epochs=30), "for 1 of 30 epochs"),
    (metrics(epoch=17), "The weights of epoch 17, which had the lowest validation loss"),
    (metrics(views=8), "averages over 8 views"),
    (environment(device="A GPU", precision="fp16"), "ran on A GPU"),
    (environment(torch="9.9"), "PyTorch 9.9 [@paszke2019]"),
    (environment(before=[{"device": "Old", "precision": "fp32", "torch": "1.0"}]), "Old () in fp32 and on"),
]


@pytest.mark.parametrize(("change", "words"), CHANGES, ids=[words[:30] for _, words in CHANGES])
def test_the_text_changes_with_the_runs_facts(change, words, copy):
    assert words not in text_of(copy)
    change(copy)
    assert words in text_of(copy)


def test_nothing_is_claimed_of_a_model_that_the_run_did_not_train(copy):
    edit(copy / "record.json", lambda found: [one["identity"].clear() for one in found["tasks"].values()])
    names = ("initial_weights", "epoch", "encoders")
    for task in TASKS:
        edit(copy / task / "metrics.json", lambda found: [found.pop(name) for name in names])
    found = methods_of(Run(copy))
    assert "Training" not in found and "Adam" not in " ".join(found.values())
    assert "encoder" not in found["Networks"] and "random" not in found["Networks"]


def test_what_only_the_authors_know_is_left_out(outputs):
    text = text_of(outputs)
    assert "You must say" not in text and "None" not in text.replace("None of", "") and "{" not in text
    assert not re.search(r"\s[.,;]|\.\.|  ", text)


def test_a_run_without_masks_claims_none(copy):
    edit(copy / "record.json", lambda found: [found["tasks"].pop(task) for task in TASKS[1:]])
    text = text_of(copy)
    assert "U-Net" not in text and "Masks" not in text and "Temperature" in text.title()


def test_what_is_cited_is_what_the_bibliography_holds(outputs):
    found = methods_of(Run(outputs))
    keys = cited_in(found)
    assert {"he2016" if "ResNet" in found["Networks"] else "kingma2015", "guo2017", "efron1993"} <= set(keys)
    bib = bibliography(keys, is_known=False)
    assert re.findall(r"@\w+{(\w+),", bib) == keys
    assert bib.startswith("The run does not know its data set") and "@" not in bib.split("\n")[0]
    assert "does not know" not in bibliography(keys, is_known=True)


def test_every_mark_has_an_entry_and_every_entry_a_mark():
    text = (ROOT / "report/methods.txt").read_text() + " ".join(methods.LOSSES.values())
    marks = {*re.findall(r"\[@(?!key\])(\w+)\]", text), *methods.ENCODER_CITES.values()}
    marks |= {*methods.AUGMENT_CITES.values(), *(key for _, key in methods.SOFTWARE.values() if key)}
    assert marks == set(references())
    for entry in references().values():
        assert entry.count("{") == entry.count("}") and re.search(r"\n  year = {\d{4}}", entry)


@pytest.mark.parametrize(
    ("key", "words"),
    [
        ("guo2017", "Guo et al. 2017"),
        ("kingma2015", "Kingma & Ba 2015"),
        ("vovk2012", "Vovk 2012"),
        ("torchvision2016", "TorchVision maintainers and contributors 2016"),
    ],
)
def test_an_entry_in_words(key, words):
    assert author_and_year(key) == words


def test_a_mark_that_is_a_name_of_the_data_stays_text():
    assert cited_in_words("class x [@nothing] [@guo2017].") == "class x [@nothing] (Guo et al. 2017)."
    assert cited_in({"Data": "[@nothing] [@guo2017]"}) == ["guo2017"]


@pytest.mark.parametrize("name", ["wide_resnet50_2", "resnet18", "efficientnet_v2_s", "efficientnet_b0", "swin_v2_t"])
def test_the_most_specific_family_is_cited(name):
    expected = {"wide_resnet50_2": "zagoruyko2016", "resnet18": "he2016", "efficientnet_v2_s": "tan2021"}
    expected |= {"efficientnet_b0": "tan2019", "swin_v2_t": "liu2022swin"}
    assert methods.encoder_cite(name) == f"[@{expected[name]}]"
