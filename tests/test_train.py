import copy
import math
from functools import partial

import numpy as np
import pandas as pd
import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch._subclasses.fake_tensor import FakeTensorMode

import data
import models
import train
from checkpoints.states import Checkpoints
from train import Recipe, fit


class Line(nn.Module):
    """The smallest network with both heads."""

    def __init__(self):
        super().__init__()
        self.label = nn.Linear(3, 2)
        self.mask = nn.Conv2d(3, 1, 1)

    def forward(self, image):
        return {"label": self.label(image.mean(dim=(2, 3))), "mask": self.mask(image)}


class Toy:
    """Batches of random images whose first channel tells label and mask; only the first `n_masks` have a mask."""

    def __init__(self, n=12, size=4, seed=0, device="cpu", n_masks=None):
        generator = torch.Generator().manual_seed(seed)
        self.image = torch.randn(n, 3, 4, 4, generator=generator).to(device)
        self.label = (self.image[:, 0].mean(dim=(1, 2)) > 0).long()
        self.mask = (self.image[:, :1] > 0).float()
        self.n_images, self.size, self.classes = n, size, ("low", "high")
        self.sizes = [min(size, n - start) for start in range(0, n, size)]
        self.has = {} if n_masks is None else {"has_mask": torch.arange(n, device=device) < n_masks}
        self.shares = {"label": 1.0, "mask": (n if n_masks is None else n_masks) / n}

    def __len__(self):
        return len(self.sizes)

    def epoch(self, epoch=0):
        order = torch.from_numpy(np.random.default_rng(epoch).permutation(self.n_images)).to(self.image.device)
        for chosen in order.split(self.size):
            has = {name: values[chosen] for name, values in self.has.items()}
            yield {"image": self.image[chosen], "label": self.label[chosen], "mask": self.mask[chosen], **has}


PLAIN = {"label": F.cross_entropy, "mask": F.binary_cross_entropy_with_logits}
STRONG = {"schedule": "cosine", "warm_up": 0.1, "ema": 0.9, "mask_loss": "bce+dice"}


def learner_of(model, recipe, n_steps):
    return train.Learner(model, recipe, recipe.losses(), "fp32", n_steps)


def run(tmp_path, epochs=3, resume=False, identity=None, batches=None, lr=0.05, shares=None, **options):
    """A model trained on the device of its batches, and its history."""
    torch.manual_seed(0)
    conditions, precision = options.pop("conditions", None), options.pop("precision", "fp32")
    batches = batches or Toy()
    model = Line().to(batches.image.device)
    checkpoints = Checkpoints(
        tmp_path / "best.pth",
        tmp_path / "task",
        description={"task": "toy"},
        identity=identity or {"data": "abc", "LR": lr},
        conditions=conditions or {"threads": 1},
        resume=resume,
    )
    options = {
        "recipe": train.Recipe(epochs, 4, lr, **options),
        "seed": 0,
        "precision": precision,
        "checkpoints": checkpoints,
    }
    history = fit(model, batches, shares or Toy(seed=1, device=batches.image.device), **options)
    return model, history


def same_weights(a, b):
    return all(torch.equal(x, y) for x, y in zip(a.state_dict().values(), b.state_dict().values(), strict=True))


def test_training_lowers_the_loss(tmp_path, device):
    _, history = run(tmp_path, epochs=20, batches=Toy(device=device))
    assert history[-1]["train_loss"] < 0.7 * history[0]["train_loss"]


def test_one_epoch_is_plain_adam_on_the_summed_losses(tmp_path, device):
    torch.manual_seed(0)
    reference = Line().to(device)
    optimizer = torch.optim.Adam(reference.parameters(), lr=0.05)
    for batch in Toy(device=device).epoch(1):
        output = reference(batch["image"])
        loss = nn.CrossEntropyLoss()(output["label"], batch["label"])
        loss = loss + nn.BCEWithLogitsLoss()(output["mask"], batch["mask"])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    model, _ = run(tmp_path, epochs=1, batches=Toy(device=device))
    for ours, theirs in zip(model.parameters(), reference.parameters()):
        torch.testing.assert_close(ours, theirs)


def test_validation_does_not_depend_on_the_batch_size(device):
    model = Line().to(device)
    one, five = (train.validate(model, Toy(size=size, device=device), PLAIN, "fp32") for size in (1, 5))
    assert one == pytest.approx(five)
    assert one["val_loss"] == pytest.approx(one["val_label_loss"] + one["val_mask_loss"])


@pytest.mark.parametrize("size", [1, 5])
def test_where_some_images_lack_a_mask_validation_is_the_mean_over_those_that_have_one(size, device):
    model, batches = Line().to(device), Toy(size=size, device=device, n_masks=3)
    found, whole = (
        train.validate(model, batches, PLAIN, "fp32"),
        train.validate(model, Toy(device=device), PLAIN, "fp32"),
    )
    logits, mask = model(batches.image[:3])["mask"], batches.mask[:3]
    assert found["val_mask_loss"] == pytest.approx(F.binary_cross_entropy_with_logits(logits, mask).item())
    predicted, true = (values.flatten(1) > 0 for values in (logits, mask))
    dice = 2 * (predicted & true).sum(dim=1) / (predicted.sum(dim=1) + true.sum(dim=1))
    assert found["val_mask_dice"] == pytest.approx(dice.mean().item())
    assert found["val_label_loss"] == pytest.approx(whole["val_label_loss"])
    assert found["val_loss"] == pytest.approx(found["val_label_loss"] + found["val_mask_loss"])


def test_where_some_images_lack_a_mask_every_mask_weighs_the_same_in_an_epoch(tmp_path, device):
    """Three masks among twelve images, in batches of four that hold none, one and two of them."""
    torch.manual_seed(0)
    reference, batches = Line().to(device), Toy(device=device, n_masks=3)
    assert sorted(batch["has_mask"].sum().item() for batch in batches.epoch(1)) == [0, 1, 2]
    optimizer = torch.optim.Adam(reference.parameters(), lr=0.05)
    for batch in batches.epoch(1):
        output = reference(batch["image"])
        by_pixel = F.binary_cross_entropy_with_logits(output["mask"], batch["mask"], reduction="none")
        of_masks = by_pixel.mean(dim=(1, 2, 3)) * batch["has_mask"]
        loss = F.cross_entropy(output["label"], batch["label"]) + of_masks.sum() / (4 * 3 / 12)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    model, history = run(tmp_path, epochs=1, batches=batches)
    for ours, theirs in zip(model.parameters(), reference.parameters()):
        torch.testing.assert_close(ours, theirs)
    assert history[0]["train_loss"] == pytest.approx(history[0]["train_label_loss"] + history[0]["train_mask_loss"])


@pytest.mark.parametrize("head", ["label", "mask"])
def test_what_stands_in_the_place_of_a_missing_target_changes_nothing(tmp_path, head):
    weights = []
    for nothing in (0, 1) if head == "mask" else (-1, 1):
        batches = Toy()
        batches.has, batches.shares = {f"has_{head}": torch.arange(12) < 7}, {head: 7 / 12}
        getattr(batches, head)[7:] = nothing
        weights.append(run(tmp_path / str(nothing), epochs=2, batches=batches)[0])
    assert same_weights(*weights)


def test_a_batch_without_any_target_of_a_head_has_a_gradient_of_zero_for_all_its_weights():
    model, batch = Line(), next(Toy(n_masks=0).epoch(1))
    loss = train.head_losses(model(batch["image"]), batch, PLAIN, {"label": 1.0, "mask": 0.25})["mask"]
    loss.backward()
    assert loss == 0 and all((parameter.grad == 0).all() for parameter in model.mask.parameters())


def test_the_history_file_has_the_promised_columns(tmp_path):
    run(tmp_path, epochs=2)
    history = pd.read_csv(tmp_path / "task" / "history.csv")
    assert list(history["epoch"]) == [1, 2]
    columns = "train_loss val_loss val_label_accuracy val_mask_dice val_mask_iou train_seconds images_per_second"
    assert set(columns.split()) <= set(history.columns)


def test_an_epochs_line_fits_a_hundred_columns():
    names = ("val_label_accuracy", "val_mask_dice", "val_mask_iou")
    row = dict.fromkeys(names, 0.912) | {"epoch": 100, "train_loss": 1.23456, "val_loss": 1.3, "val_mask_loss": 0.4}
    line = train.epoch_line(row | {"train_seconds": 1234.56, "images_per_second": 318.4}, 200, is_best=True)
    scores = "accuracy 0.912  dice 0.912  iou 0.912"
    assert line == f"epoch 100/200  loss 1.235, val 1.300  {scores}  1235 s, 318 img/s *best" and len(line) <= 100


def test_the_best_checkpoint_is_of_the_lowest_validation_loss(tmp_path, device):
    _, history = run(tmp_path, epochs=6, lr=0.8, batches=Toy(device=device))
    best = torch.load(tmp_path / "best.pth", weights_only=True)
    losses = [row["val_loss"] for row in history]
    assert best["epoch"] == 1 + losses.index(min(losses))
    assert best["scores"]["val_loss"] == min(losses) and best["task"] == "toy"
    model = Line().to(device)
    model.load_state_dict(best["weights"])
    found = train.validate(model, Toy(seed=1, device=device), PLAIN, "fp32")
    assert found["val_loss"] == pytest.approx(min(losses))


def test_a_resumed_run_ends_with_the_same_weights(tmp_path, device):
    whole, _ = run(tmp_path / "whole", epochs=5, batches=Toy(device=device))
    with pytest.raises(Stop):
        run(tmp_path / "parts", epochs=5, batches=Stops(in_epoch=3, device=device))
    parts, _ = run(tmp_path / "parts", epochs=5, resume=True, batches=Toy(device=device))
    torch.testing.assert_close(parts.state_dict(), whole.state_dict())


@pytest.mark.parametrize(("recipe", "n_masks"), [({}, None), (STRONG, None), ({}, 5)])
def test_on_a_cpu_a_resumed_run_ends_with_the_same_weights_bit_for_bit(tmp_path, recipe, n_masks):
    whole, history = run(tmp_path / "whole", epochs=5, batches=Toy(n_masks=n_masks), **recipe)
    with pytest.raises(Stop):
        run(tmp_path / "parts", epochs=5, batches=Stops(in_epoch=3, n_masks=n_masks), **recipe)
    parts, resumed = run(tmp_path / "parts", epochs=5, resume=True, batches=Toy(n_masks=n_masks), **recipe)
    assert same_weights(whole, parts)
    assert [row["val_loss"] for row in resumed] == [row["val_loss"] for row in history]
    best = [torch.load(tmp_path / name / "best.pth", weights_only=True) for name in ("whole", "parts")]
    assert best[0]["epoch"] == best[1]["epoch"]
    assert all(torch.equal(best[0]["weights"][name], best[1]["weights"][name]) for name in best[0]["weights"])


class Stop(Exception):
    pass


class Stops(Toy):
    """Fails in the middle of an epoch."""

    def __init__(self, in_epoch, **options):
        super().__init__(**options)
        self.in_epoch = in_epoch

    def epoch(self, epoch=0):
        for step, batch in enumerate(super().epoch(epoch)):
            if epoch == self.in_epoch and step == 1:
                raise Stop
            yield batch


@pytest.mark.parametrize(("device", "expected"), [("cpu", torch.float64), ("mps", torch.float32)])
def test_sums_over_images_are_double_where_the_device_has_it(device, expected):
    """MPS refuses to make a float64; its tensors are feigned here, for the dtype alone."""
    with FakeTensorMode():
        value, totals = torch.empty((), device=device), {}
        train._accumulate(totals, {"loss": value}, {"image": torch.empty(4, 3, device=device)})
        train._accumulate(totals, {"loss": value}, {"image": torch.empty(4, 3, device=device)})
    assert totals["loss"].dtype == expected


# fp16


def test_fp16_learns_with_a_scaled_loss_whose_scale_is_resumed(tmp_path, monkeypatch):
    """The scale doubles every two steps, so that one that is forgotten is another one."""
    scaler = torch.amp.GradScaler
    monkeypatch.setattr(torch.amp, "GradScaler", partial(scaler, init_scale=8.0, growth_interval=2))
    whole, history = run(tmp_path / "whole", epochs=4, precision="fp16")
    assert history[-1]["train_loss"] < history[0]["train_loss"]
    run(tmp_path / "parts", epochs=2, precision="fp16")
    scales, update = [], scaler.update
    monkeypatch.setattr(scaler, "update", lambda self: scales.append(self.get_scale()) or update(self))
    resumed, _ = run(tmp_path / "parts", epochs=4, precision="fp16", resume=True)
    assert same_weights(whole, resumed) and scales[0] == 8.0 * 2**3  # after six steps
    assert "scaler" not in torch.load(tmp_path / "whole" / "task" / "last.pth")["identity"]


def test_a_step_whose_gradients_overflow_is_skipped(tmp_path):
    model, batch = Line(), next(Toy().epoch())
    before = [one.clone() for one in model.parameters()]
    recipe = train.Recipe(1, 4, 0.05)
    learner = train.Learner(model, recipe, recipe.losses(), "fp16", 3)
    learner.scaler = torch.amp.GradScaler("cpu", init_scale=2.0**40)
    learner.step(batch, 0)
    assert all(torch.equal(one, other) for one, other in zip(before, model.parameters()))
    assert learner.scaler.get_scale() == 2.0**39


def test_gradients_that_overflow_at_every_step_end_the_training_in_one_message(tmp_path, monkeypatch):
    monkeypatch.setitem(train.LOSSES["label"], "huge", lambda logits, label: 1e6 * F.cross_entropy(logits, label))
    with pytest.raises(FloatingPointError, match=r"overflow in fp16 at every step.*--precision bf16 or fp32"):
        run(tmp_path, epochs=9, precision="fp16", label_loss="huge")


def test_training_without_checkpoints_writes_nothing(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    fit(Line(), Toy(), Toy(seed=1), recipe=train.Recipe(1, 4, 0.1), seed=0, precision="fp32")
    assert not list(tmp_path.iterdir())


def test_a_label_loss_that_asks_for_frequencies_gets_those_of_the_training_images(tmp_path, monkeypatch):
    """Weighted by 1 / frequency the loss is no longer the mean over images, in training and in validation alike."""
    seen = []

    def asking(logits, target, frequencies):
        seen.append(frequencies)
        return F.cross_entropy(logits, target, weight=1 / frequencies)

    monkeypatch.setitem(train.LOSSES["label"], "asking", asking)
    batches = Toy()
    batches.frequencies = torch.tensor([0.25, 0.75])
    _, history = run(tmp_path, epochs=1, batches=batches, label_loss="asking")
    assert len(seen) == len(batches) + len(Toy(seed=1)) and all(one is batches.frequencies for one in seen)
    assert history[0]["val_label_loss"] != run(tmp_path / "plain", epochs=1)[1][0]["val_label_loss"]


def test_losses_that_take_frequencies_get_those_drawn_to_learn_and_the_prior_to_validate(tmp_path, monkeypatch):
    seen = []

    def asking(logits, target, frequencies):
        seen.append(frequencies.tolist())
        return F.cross_entropy(logits, target)

    monkeypatch.setitem(train.LOSSES["label"], "asking", asking)
    batches = Toy()
    batches.frequencies, batches.prior, batches.offset = torch.tensor([[0.5, 0.5], [0.25, 0.75], [1.0, -1.0]])
    _, history = run(tmp_path, epochs=1, batches=batches, label_loss="asking")
    assert seen == [[0.5, 0.5]] * len(batches) + [[0.25, 0.75]] * len(Toy(seed=1))
    assert history[0]["val_loss"] == run(tmp_path / "plain", epochs=1)[1][0]["val_loss"]  # without an offset


class Slope(nn.Module):
    """Logistic regression on the first channel of 1x1 images."""

    def __init__(self):
        super().__init__()
        self.label = nn.Linear(1, 2)

    def forward(self, image):
        return {"label": self.label(image[:, 0, 0])}


@pytest.mark.parametrize("is_offset", [True, False])
def test_probabilities_learned_from_few_negatives_are_those_of_all_images(is_offset):
    """Two Gaussians with means 2 standard deviations apart, one positive to 200 negatives, 10 of which are drawn.

    Their log odds are linear, so the mean probability over all images is the prior: here to within 15 %, as 200
    positives and 2,000 negatives an epoch allow. Without the offset it is more than ten times as high.
    """
    rng, labels = np.random.default_rng(0), np.repeat([0, 1], [40_000, 200])
    pixels = np.zeros((40_200, 1, 1, 4), np.uint8)
    pixels[:, 0, 0, 0] = (100 + 20 * rng.normal(2 * labels)).clip(0, 255).round()
    label = pd.Categorical.from_codes(labels, ["benign", "malignant"])
    table = pd.DataFrame({"row": np.arange(40_200), "label": label, "status": "used"})
    few, whole = data.Batches(pixels, table, 550, seed=1, sampling=10), data.Batches(pixels, table, 40_200)
    few.offset = few.offset if is_offset else None
    torch.manual_seed(0)
    model = Slope()
    recipe = Recipe(epochs=50, batch_size=550, lr=0.1, schedule="cosine")
    history = fit(model, few, whole, recipe=recipe, seed=0, precision="fp32")
    logits = model(whole[0]["image"])["label"].detach()
    mean = logits.softmax(dim=1)[:, 1].mean().item()
    assert history[-1]["val_loss"] == pytest.approx(F.cross_entropy(logits, whole[0]["label"]).item(), rel=1e-5)
    assert mean == pytest.approx(200 / 40_200, rel=0.15) if is_offset else mean > 10 * 200 / 40_200


def test_encoder_and_heads_learn_and_decay_at_their_own_rates_and_norms_and_biases_do_not_decay():
    model = models.Classifier(encoder="efficientnet_lite0")
    recipe = Recipe(epochs=1, batch_size=4, lr=1e-3, encoder_lr_scale=0.1, weight_decay=0.05)
    groups = train.parameter_groups(model, recipe)
    found = {id(weight): (g["scale"], g["weight_decay"]) for g in groups for weight in g["params"]}
    assert len(found) == len(list(model.parameters())) == sum(len(group["params"]) for group in groups)
    for name, weight in model.named_parameters():
        is_head = name.startswith("heads.label.linear")
        assert found[id(weight)] == (1.0 if is_head else 0.1, 0.05 if weight.ndim > 1 else 0.0), name


def test_a_group_takes_its_share_of_the_scheduled_rate_at_each_step():
    model = models.Classifier()
    recipe = Recipe(epochs=1, batch_size=2, lr=1e-3, schedule="cosine", encoder_lr_scale=0.1)
    learner = learner_of(model, recipe, 4)
    batch = {"image": torch.randn(2, 3, 32, 32), "label": torch.tensor([0, 1])}
    for number in range(4):
        learner.step(batch, number)
        rates = {group["scale"]: group["lr"] for group in learner.optimizer.param_groups}
        assert rates == pytest.approx({0.1: 0.1 * recipe.rate(number, 4), 1.0: recipe.rate(number, 4)})


def test_without_decay_a_step_is_adams_bit_for_bit():
    torch.manual_seed(0)
    model = models.Classifier()
    other = copy.deepcopy(model)
    learner = learner_of(model, Recipe(epochs=1, batch_size=2, lr=1e-3), 3)
    adam = torch.optim.Adam(other.parameters(), lr=1e-3, fused=True)
    batch = {"image": torch.randn(2, 3, 32, 32), "label": torch.tensor([0, 1])}
    for number in range(3):
        learner.step(batch, number)
        adam.zero_grad()
        torch.nn.functional.cross_entropy(other(batch["image"])["label"], batch["label"]).backward()
        adam.step()
    assert all(torch.equal(a, b) for a, b in zip(model.parameters(), other.parameters()))


def test_after_each_epoch_the_history_so_far_is_handed_over():
    seen, options = [], {"recipe": train.Recipe(3, 4, 0.05), "seed": 0, "precision": "fp32"}
    fit(
        Line(),
        Toy(),
        Toy(seed=1),
        after_epoch=lambda history: seen.append([row["epoch"] for row in history]),
        **options,
    )
    assert seen == [[1], [1, 2], [1, 2, 3]]


def test_a_loss_that_is_not_finite_stops_early_and_keeps_earlier_epochs(tmp_path, device):
    class Breaks(Toy):
        def epoch(self, epoch=0):
            for batch in super().epoch(epoch):
                yield batch if epoch < 3 else {**batch, "image": batch["image"] * float("inf")}

    with pytest.raises(FloatingPointError, match="epoch 3"):
        run(tmp_path, epochs=5, batches=Breaks(device=device))
    assert len(pd.read_csv(tmp_path / "task" / "history.csv")) == 2
    assert torch.load(tmp_path / "best.pth", weights_only=True)["epoch"] <= 2


def test_a_validation_loss_that_is_not_finite_stops_too(tmp_path, device):
    class Breaks(Toy):
        def epoch(self, epoch=0):
            for batch in super().epoch(epoch):
                yield {**batch, "image": batch["image"] * float("nan")}

    with pytest.raises(FloatingPointError, match="epoch 1, on the validation images"):
        run(tmp_path, batches=Toy(device=device), shares=Breaks(device=device))


def test_bf16_and_fp32_agree_within_rounding(device):
    model, batch = Line().to(device), next(Toy(device=device).epoch())
    with train.autocast(device, "bf16"):
        rough = model(batch["image"])
    exact = model(batch["image"])
    assert rough["mask"].dtype == torch.bfloat16
    torch.testing.assert_close(rough["mask"].float(), exact["mask"], atol=0.05, rtol=0.02)


# What a recipe may add


def test_a_step_is_adams_bit_for_bit():
    torch.manual_seed(0)
    ours, reference = Line(), Line()
    reference.load_state_dict(ours.state_dict())
    learner = learner_of(ours, train.Recipe(1, 4, 0.05), 3)
    adam = torch.optim.Adam(reference.parameters(), lr=0.05, fused=True)
    for number, batch in enumerate(Toy().epoch(1)):
        learner.step(batch, number)
        adam.zero_grad()
        sum(train.head_losses(reference(batch["image"]), batch, PLAIN).values()).backward()
        adam.step()
    assert same_weights(ours, reference)


def test_the_learning_rate_rises_in_a_line_and_falls_along_a_cosine_to_nothing():
    rates = [train.Recipe(1, 4, 2.0, schedule="cosine", warm_up=0.2).rate(step, 10) for step in range(11)]
    assert rates[:2] == pytest.approx([2 / 3, 4 / 3])
    assert rates[2:] == pytest.approx([1 + math.cos(math.pi * i / 8) for i in range(9)], abs=1e-12)
    assert {train.Recipe(1, 4, 0.1).rate(step, 10) for step in range(10)} == {0.1}


def test_the_moving_average_is_validated_and_saved_in_the_weights_place(tmp_path):
    model, history = run(tmp_path, epochs=1, ema=0.75)
    torch.manual_seed(0)
    line, averaged = Line(), None
    learner = learner_of(line, train.Recipe(1, 4, 0.05), 3)
    for number, batch in enumerate(Toy().epoch(1)):
        learner.step(batch, number)
        now, kept = line.label.weight.detach().clone(), min(0.75, (1 + number) / (10 + number))
        averaged = now if averaged is None else kept * averaged + (1 - kept) * now
    saved = torch.load(tmp_path / "best.pth", weights_only=True)["weights"]
    torch.testing.assert_close(saved["label.weight"], averaged)
    assert not torch.equal(saved["label.weight"], model.label.weight)
    best = Line()
    best.load_state_dict(saved)
    assert history[0]["val_loss"] == pytest.approx(train.validate(best, Toy(seed=1), PLAIN, "fp32")["val_loss"])


def test_the_moving_average_soon_forgets_where_the_weights_started():
    """After 27 steps a plain average of 0.99 would still be three quarters of the first step's weights."""
    model = nn.Linear(1, 1, bias=False)
    nn.init.constant_(model.weight, 1.0)
    learner = learner_of(model, train.Recipe(1, 4, 0.0, ema=0.99), 100)
    learner.parallel = lambda image: {"label": image[:, :, 0, 0] @ model.weight.T.repeat(3, 2)}
    batch = next(Toy().epoch(1))
    for number in range(27):
        with torch.no_grad():
            model.weight.fill_(1.0 if number == 0 else 0.0)
        learner.step(batch, number)
    assert 0 < learner.watched.weight.item() < 0.01


def test_of_epochs_that_are_equally_good_the_first_is_kept(tmp_path):
    _, history = run(tmp_path, epochs=3, lr=0.0)
    assert len({row["val_loss"] for row in history}) == 1
    assert torch.load(tmp_path / "best.pth", weights_only=True)["epoch"] == 1


def test_the_best_epoch_is_that_of_the_validation_images_where_the_training_images_disagree(tmp_path):
    """The validation images are labelled the other way round: what is learned makes them worse."""
    other = Toy(seed=1)
    other.label, other.mask = 1 - other.label, 1 - other.mask
    _, history = run(tmp_path, epochs=4, shares=other)
    assert history[-1]["train_loss"] < history[0]["train_loss"] and history[-1]["val_loss"] > history[0]["val_loss"]
    assert torch.load(tmp_path / "best.pth", weights_only=True)["epoch"] == 1


def test_a_module_that_draws_draws_anew_in_each_epoch_and_the_same_for_the_same_seed():
    class Draws(Line):
        def forward(self, image):
            drawn.append(torch.rand(()).item())
            return super().forward(image)

    def draws(seed):
        drawn.clear()
        options = {"recipe": train.Recipe(2, 12, 0.1), "seed": seed, "precision": "fp32"}
        fit(Draws(), Toy(size=12), Toy(size=12), **options)
        return drawn[1:]  # the first is of the check of the model's output

    drawn = []
    training, _, next_training, _ = first = draws(0)
    assert training != next_training and draws(0) == first != draws(1)


def gradient(weight):
    torch.manual_seed(0)
    learner = learner_of(Line(), train.Recipe(1, 4, 0.1), 1)
    learner.step(next(Toy().epoch()), 0, weight)
    return learner.model.label.weight.grad


def test_a_batch_counts_by_its_weight():
    torch.testing.assert_close(gradient(2.0), 2 * gradient(1.0))


def test_running_means_are_averaged_as_the_weights_are():
    """In the second step (2 / 11) of the average is kept."""
    model = Line()
    model.mask = nn.Sequential(nn.BatchNorm2d(3), nn.Conv2d(3, 1, 1))
    learner, means = learner_of(model, train.Recipe(1, 4, 0.1, ema=0.9), 3), []
    for number, batch in zip(range(2), Toy().epoch()):
        learner.step(batch, number)
        means.append(model.mask[0].running_mean.clone())
    expected = 2 / 11 * means[0] + 9 / 11 * means[1]
    torch.testing.assert_close(learner.watched.mask[0].running_mean, expected)
