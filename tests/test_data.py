import pickle
import warnings

import numpy as np
import pandas as pd
import pytest
import torch
from conftest import decoded, picture

import data
from augment import AUGMENTS, Augmentation
from dataset.cache import decode_table
from dataset.classes import HAM10000 as CLASSES
from dataset.classes import positions_of
from dataset.table import LABEL_ONLY, USED, read_table


@pytest.fixture
def batches(folder, device):
    for i in range(10):
        folder.add(f"i{i}", CLASSES[i % 7], suffix=".png")
    table, pixels = decode_table(read_table(folder.write().path), folder.path, 16, folder.path.parent / "cache")
    return lambda **options: data.Batches(pixels, table, 4, device=device, **options)


def test_a_batch_is_what_the_table_promises(batches, device):
    batch = next(iter(batches().epoch()))
    n = len(batch["image"])
    assert {values.device.type for values in batch.values()} == {device.type}
    assert batch["image"].shape == (n, 3, 16, 16) and batch["image"].dtype == torch.float32
    assert batch["image"].is_contiguous(memory_format=torch.channels_last)
    assert batch["label"].tolist() == [0, 1, 2, 3][:n] and batch["label"].dtype == torch.int64
    assert batch["mask"].shape == (n, 1, 16, 16) and set(batch["mask"].unique().tolist()) == {0.0, 1.0}


def test_batches_of_images_that_all_have_label_and_mask_say_nothing_of_it(batches):
    one = batches()
    assert set(next(one.epoch())) == {"image", "label", "mask"} and one.shares == {"label": 1, "mask": 1}
    by_hand = data.Batches(one.pixels, one.table[["row", "label"]], 4)
    assert set(next(by_hand.epoch())) == {"image", "label", "mask"}


def test_where_some_images_lack_a_target_each_batch_says_which_have_it(batches, device):
    """In an epoch's order, for each of two processes; three of ten images have no mask, and two no label."""
    one = batches()
    table = one.table.copy()
    table.loc[[0, 3, 8], "status"], table.loc[[1, 8], "label"] = LABEL_ONLY, None
    order = np.random.default_rng((5, 1)).permutation(10)
    for rank in (0, 1):
        some = data.Batches(one.pixels, table, 4, device=device, seed=5, share=(rank, 2))
        mine = [image for part in np.split(order, np.cumsum(some.sizes)[:-1]) for image in part[rank::2]]
        found = list(some.epoch(1))
        for name, without in (("has_mask", (0, 3, 8)), ("has_label", (1, 8))):
            has = torch.cat([batch[name] for batch in found])
            assert has.device.type == device.type and has.dtype == torch.bool
            assert has.tolist() == [image not in without for image in mine]
    assert some.shares == {"label": 0.8, "mask": 0.7}


def test_frequencies_are_shares_of_the_images_that_have_a_label(batches):
    one = batches()
    table = one.table.copy()
    table.loc[0, "label"] = None
    some = data.Batches(one.pixels, table, 4)
    assert one.frequencies.tolist() == pytest.approx([0.2, 0.2, 0.2, 0.1, 0.1, 0.1, 0.1])
    assert some.frequencies.tolist() == pytest.approx([1 / 9, 2 / 9, 2 / 9, *[1 / 9] * 4])


@pytest.mark.parametrize(("sampling", "power"), [("sqrt", 0.5), ("balanced", 0)])
def test_rare_classes_are_drawn_more_often_and_each_image_about_as_often_as_its_class_asks(sampling, power, batches):
    """Ten images of seven classes, and one that has no label, which is drawn once."""
    one = batches()
    table = one.table.copy()
    table.loc[9, "label"] = None
    some = data.Batches(one.pixels, table, 4, seed=3, sampling=sampling)
    labels = positions_of(table)
    counts = np.bincount(labels[:9])
    expected = (counts / 9) ** power / ((counts / 9) ** power).sum() * 9  # draws of each class
    epochs = np.array([np.bincount(some._draw(n)["order"], minlength=10) for n in range(1, 401)])
    assert (epochs.sum(axis=1) == 10).all()
    wanted = np.append((expected / counts)[labels[:9]], 1)
    assert (np.abs(epochs - wanted) < 1).all()  # rounded down or up
    np.testing.assert_allclose(epochs.mean(axis=0), wanted, atol=0.1)
    np.testing.assert_allclose(some.frequencies, expected / 9, rtol=1e-6)
    assert [epochs[0].tolist(), epochs[1].tolist()] == [
        np.bincount(
            data.Batches(one.pixels, table, 4, seed=3, sampling=sampling)._draw(n)["order"], minlength=10
        ).tolist()
        for n in (1, 2)
    ]


def imbalanced(labels, n, **options):
    """Batches of 1x1 images with labels "a", "b", "c" or none (-1)."""
    label = pd.Categorical.from_codes(labels, ["a", "b", "c"])
    table = pd.DataFrame({"row": np.arange(len(labels)), "label": label, "status": USED})
    return data.Batches(np.zeros((len(labels), 1, 1, 4), np.uint8), table, 8, sampling=n, **options)


RARE = np.random.default_rng(0).permutation(np.repeat([-1, 0, 1, 2], [2, 4, 90, 1]))  # 7 that are not of class 1


def test_an_epoch_draws_so_many_of_the_commonest_class_for_each_other_image_without_replacement():
    some, epochs = imbalanced(RARE, 3, seed=5), []
    for n in range(1, 61):
        order = some._draw(n)["order"].numpy()
        assert len(order) == len(set(order)) == some.n_images == sum(some.sizes) == 28
        assert (RARE[order] == 1).sum() == 21 and sorted(RARE[order][RARE[order] != 1]) == [-1, -1, 0, 0, 0, 0, 2]
        epochs.append(order.tolist())
    assert epochs[0] != epochs[1] and epochs[0] == imbalanced(RARE, 3, seed=5)._draw(1)["order"].tolist()
    assert len({image for order in epochs for image in order}) == len(RARE)  # in the end each is drawn
    assert sum(len(batch["image"]) for batch in some.epoch(2)) == 28 and "28 of 97 train" in some.describe_draws()
    np.testing.assert_allclose(some.frequencies, np.array([4, 21, 1]) / 26, rtol=1e-6)
    np.testing.assert_allclose(some.prior, np.array([4, 90, 1]) / 95, rtol=1e-6)
    assert some.shares == pytest.approx({"label": 26 / 28, "mask": 1})


def test_processes_share_the_same_few_images_of_the_commonest_class():
    whole = imbalanced(RARE, 3, seed=5, augment=["rotations"])
    parts = [imbalanced(RARE, 3, seed=5, augment=["rotations"], share=(rank, 2)) for rank in (0, 1)]
    for together, *shares in zip(whole.epoch(2), *(part.epoch(2) for part in parts)):
        for rank, share in enumerate(shares):
            assert torch.equal(share["label"], together["label"][rank::2])


@pytest.mark.parametrize(
    "labels, n, n_drawn",
    [(RARE, 13, 97), (RARE, 12, 91), (np.ones(9, int), 3, 9), (np.full(9, -1), 3, 9), (RARE[:0], 3, 0)],
)
def test_no_more_of_the_commonest_class_are_drawn_than_there_are_and_all_if_there_is_no_other(labels, n, n_drawn):
    some = imbalanced(labels, n, seed=5)
    assert some.n_images == len(some._draw(1)["order"]) == n_drawn and some.offset.isfinite().all()
    assert bool(some.describe_draws()) == (n_drawn == 91)


def test_images_that_are_not_shuffled_are_all_there_whatever_is_drawn_to_learn():
    some = imbalanced(RARE, 3)
    assert some.n_images == 97 and not some.offset.any() and torch.equal(some.prior, some.frequencies)


def test_the_offset_is_of_few_negatives_alone_and_0_for_an_absent_class():
    labels = np.repeat([0, 1], [10, 90])
    few, balanced = imbalanced(labels, 3, seed=5), imbalanced(labels, "balanced", seed=5)
    np.testing.assert_allclose(few.offset, [np.log((10 / 40) / 0.1), np.log((30 / 40) / 0.9), 0], rtol=1e-5)
    assert not balanced.offset.any() and torch.equal(balanced.prior, balanced.frequencies)


def test_copies_of_an_image_are_shuffled_apart(batches):
    """The only image of its class is drawn several times, in an epoch of ten images."""
    one = batches()
    table = one.table.copy()
    table["label"] = table["label"].cat.set_categories(["a", "b"])
    table.loc[:8, "label"], table.loc[9, "label"] = "a", "b"
    some = data.Batches(one.pixels, table, 4, seed=3, sampling="balanced")
    gaps = [np.diff(np.flatnonzero(some._draw(n)["order"] == 9)) for n in range(1, 21)]
    assert all(len(gap) == 4 for gap in gaps) and any(gap.max() > 1 for gap in gaps)


def test_images_that_are_not_shuffled_are_all_drawn_once_in_their_order(batches):
    one = batches()
    some = data.Batches(one.pixels, one.table, 4, sampling="balanced")
    assert some._draw(1)["order"].tolist() == list(range(10)) and (some.frequencies == one.frequencies).all()


def test_the_share_of_images_with_a_mask_is_that_of_the_drawn_images(batches):
    """The only two images of the first class have no mask; of balanced classes they are a seventh."""
    one = batches()
    table = one.table.copy()
    first = positions_of(table) == 0
    table.loc[first, "status"] = LABEL_ONLY
    some = data.Batches(one.pixels, table, 4, seed=3, sampling="balanced")
    assert first.sum() == 2 and some.shares == pytest.approx({"label": 1, "mask": 6 / 7})


def test_images_are_normalised_with_the_imagenet_statistics(batches):
    one = batches()
    batch = next(iter(one.epoch()))
    by_hand = (one.images_and_masks()[0][0] / 255 - np.array([0.485, 0.456, 0.406])) / np.array([0.229, 0.224, 0.225])
    np.testing.assert_allclose(batch["image"][0].permute(1, 2, 0).cpu(), by_hand, atol=1e-5)


def test_every_image_comes_once_an_epoch_in_an_order_fixed_by_seed_and_epoch(batches):
    def labels(epoch, seed):
        return torch.cat([batch["label"] for batch in batches(seed=seed).epoch(epoch)]).tolist()

    assert sorted(labels(1, 5)) == sorted(i % 7 for i in range(10))
    assert labels(1, 5) == labels(1, 5)
    assert labels(1, 5) != labels(2, 5) and labels(1, 5) != labels(1, 6)


def test_a_shuffled_image_keeps_its_label_and_its_mask(batches):
    one = batches()
    images, masks = one.images_and_masks()
    known = {image.tobytes(): (label, mask.tobytes()) for image, label, mask in zip(images, one.labels.tolist(), masks)}
    assert len(known) == 10
    order = np.random.default_rng((3, 2)).permutation(10)
    position = 0
    for batch in batches(seed=3).epoch(2):
        for image, label, mask in zip(batch["image"].cpu(), batch["label"].tolist(), batch["mask"].cpu()):
            expected = images[order[position]]
            normal = data.normalise(torch.tensor(expected)[None])[0]
            assert torch.allclose(image, normal) and known[expected.tobytes()] == (
                label,
                (mask[0] > 0).numpy().tobytes(),
            )
            position += 1


def test_a_subset_comes_in_the_order_that_is_asked_for(batches):
    (batch,) = batches().subset([6, 0, 3])
    assert batch["label"].tolist() == [6, 0, 3]


def test_turns_move_image_and_mask_together(batches):
    plain = batches()
    turned = batches(seed=3, augment="rotations")
    order = np.random.default_rng((3, 1)).permutation(10)  # what the documentation of randomness promises
    images, masks = plain.images_and_masks()
    found = list(turned.epoch(1))
    position = 0
    for batch in found:
        for image, mask in zip(batch["image"].cpu(), batch["mask"].cpu()):
            source = order[position]
            both = np.dstack([data.normalise(torch.tensor(images[source])[None])[0].permute(1, 2, 0), masks[source]])
            now = np.dstack([image.permute(1, 2, 0), mask[0]])
            forms = [np.rot90(flipped, k) for k in range(4) for flipped in (both, both[:, ::-1])]
            assert any(np.allclose(now, form, atol=1e-5) for form in forms)
            position += 1


def test_augmentations_are_done_in_their_order_and_not_where_nothing_is_shuffled(batches, monkeypatch):
    done = []

    def change(name):
        return lambda pixels, drawn: done.append((name, drawn.tolist())) or pixels

    for name in ("a", "b"):
        row = Augmentation(lambda rng, n: rng.integers(100, size=n), pixels=change(name))
        monkeypatch.setitem(AUGMENTS, name, row)
    list(batches(seed=3, augment=("b", "a")).epoch(2))
    rng = np.random.default_rng((3, 2))
    rng.permutation(10)
    drawn = {name: rng.integers(100, size=10).tolist() for name in ("b", "a")}
    assert [name for name, _ in done] == ["b", "a"] * (len(done) // 2)
    for name in ("a", "b"):
        assert [value for which, some in done if which == name for value in some] == drawn[name]
    done.clear()
    list(batches(augment=("b", "a")).epoch(2))
    assert not done


def test_an_unknown_augmentation_is_refused_with_those_there_are(batches):
    with pytest.raises(ValueError, match="no augmentation 'warp': choose among none, flips, rotations, angles, crops"):
        batches(seed=1, augment=("rotations", "warp"))


def test_all_augmentations_in_a_row_repeat_within_an_epoch_and_change_with_it(batches):
    everything = tuple(name for name in AUGMENTS if name != "none")
    one = batches(seed=3, augment=everything)
    first, again, other = (list(one.epoch(number)) for number in (1, 1, 2))
    assert_equal(first, again)
    assert not any(torch.equal(a["image"], b["image"]) for a, b in zip(first, other))
    for batch in first:
        assert batch["label"].shape[1] == 7 and batch["image"].isfinite().all()
        torch.testing.assert_close(batch["label"].sum(1), torch.ones_like(batch["label"][:, 0]))
        assert batch["mask"].min() >= 0 and batch["mask"].max() <= 1
    single = data.Batches(one.pixels, one.table.iloc[:1], 4, seed=3, augment=everything)
    assert next(single.epoch())["label"].tolist() == [[1, 0, 0, 0, 0, 0, 0]]  # mixed with itself


def test_mixed_batches_have_probabilities_for_labels(batches):
    plain = next(batches(seed=3).epoch(1))
    mixed = next(batches(seed=3, augment="mixup").epoch(1))
    assert mixed["label"].shape == (*plain["label"].shape, 7)
    assert torch.equal(mixed["label"].argmax(1), plain["label"])
    torch.testing.assert_close(mixed["label"].sum(1), torch.ones(len(plain["label"]), device=plain["label"].device))


def test_several_ranks_get_every_image_of_an_epoch_once_and_the_same_batches(batches):
    whole = [sorted(batch["label"].tolist()) for batch in batches(seed=5).epoch(1)]
    ranks = [[batch["label"].tolist() for batch in batches(seed=5, share=(r, 2)).epoch(1)] for r in (0, 1)]
    assert [sorted(a + b) for a, b in zip(*ranks)] == whole


def test_a_batch_of_one_image_for_each_rank_is_enough(batches):
    assert batches(share=(0, 3)).sizes == [4, 3, 3]


def test_more_ranks_than_images_in_a_batch_are_refused(batches):
    with pytest.raises(ValueError, match="among 8 processes"):
        batches(share=(0, 8))


def test_pixels_in_device_memory_give_the_same_batches(batches, device):
    from_disk = batches(seed=2, augment="rotations")
    in_memory = batches(seed=2, augment="rotations")
    in_memory.pixels = data.copied(in_memory.pixels, device)
    for a, b in zip(from_disk.epoch(3), in_memory.epoch(3), strict=True):
        assert all(torch.equal(a[key], b[key]) for key in a)


CHANGED = {augment: {"seed": 6, "augment": augment} for augment in AUGMENTS} | {"in order": {}}


def assert_equal(found, expected):
    for batch, other in zip(found, expected, strict=True):
        assert set(batch) == set(other) and all(torch.equal(batch[name], other[name]) for name in batch)


def test_iterated_they_are_those_of_the_first_epoch_every_time(batches):
    one = batches(**CHANGED["rotations"])
    assert_equal(one, one.epoch(1))
    assert_equal(one, one)


@pytest.mark.parametrize("change", CHANGED)
def test_a_position_gives_the_batch_that_iteration_gives_there(batches, change):
    one = batches(**CHANGED[change])
    expected = list(one)
    assert len(expected) == 3
    assert_equal([one[i] for i in (0, 1, 2, -1, -2, -3)], [expected[i] for i in (0, 1, 2, -1, -2, -3)])


@pytest.mark.parametrize("position", [3, -4])
def test_a_position_beyond_the_last_batch_is_an_index_error(batches, position):
    with pytest.raises(IndexError):
        batches()[position]


def test_one_batch_by_its_position_reads_its_own_pixels_alone(batches):
    class Spy(np.ndarray):
        def __getitem__(self, rows):
            asked.extend(rows.tolist())
            return np.asarray(super().__getitem__(rows))

    one, asked = batches(seed=6), []
    one.pixels = one.pixels[:].view(Spy)
    found = one[-1]
    assert len(asked) == len(found["image"]) == 3  # 10 images in batches of 4, 3 and 3
    assert_equal([found], [list(batches(seed=6))[-1]])


def test_a_rank_asked_for_a_position_gives_its_own_share(batches):
    one = batches(seed=5, share=(1, 2))
    assert_equal([one[1]], [list(one)[1]])


@pytest.mark.parametrize("n_workers", [0, 2])
def test_a_data_loader_reads_them(batches, n_workers):
    one = batches()
    on_cpu = data.Batches(one.pixels, one.table, 4, **CHANGED["rotations"])
    assert_equal(torch.utils.data.DataLoader(on_cpu, batch_size=None, num_workers=n_workers), on_cpu)


def test_they_can_be_sent_to_a_worker_that_is_started_anew(batches):
    """As on macOS and Windows, and on Linux from Python 3.14."""
    one = batches()
    on_cpu = data.Batches(one.pixels, one.table, 4, **CHANGED["rotations"])
    assert_equal(pickle.loads(pickle.dumps(on_cpu)), on_cpu)


def test_load_image_gives_a_batch_of_one(tmp_path):
    picture().save(tmp_path / "a.png")
    assert data.load_image(tmp_path / "a.png", 24).shape == (1, 3, 24, 24)


def test_reading_warns_of_nothing(folder):
    folder.add("a")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        decoded(folder.write())


def test_pixels_are_copied_to_the_device_a_block_at_a_time(device, monkeypatch):
    monkeypatch.setattr(data, "COPIED_AT_A_TIME", 100)
    asked = []

    class Spy(np.ndarray):
        def __getitem__(self, rows):
            asked.append(rows)
            return np.asarray(super().__getitem__(rows))

    pixels = np.random.default_rng(0).integers(0, 256, (10, 2, 5, 4), np.uint8)  # 40 bytes an image
    copied = data.copied(pixels.view(Spy), device)
    np.testing.assert_array_equal(copied.cpu(), pixels)
    assert max(rows.stop - rows.start for rows in asked) == 2


def test_no_rows_are_no_batches(batches):
    one = batches()
    none = data.Batches(one.pixels, one.table.iloc[:0], 4)
    assert len(none) == 0 and none.n_images == 0 and list(none.epoch()) == []


@pytest.mark.parametrize("augment", AUGMENTS)
def test_images_lie_channels_last_however_they_are_changed(batches, augment):
    batch = next(batches(seed=1, augment=augment).epoch(1))
    assert batch["image"].is_contiguous(memory_format=torch.channels_last)
