"""What one pass of a model is compared with: each mask file at its own size."""

import numpy as np
import torch
from PIL import Image

import data
import evaluate
from dataset import images
from measure.collect import collect, gather_rows, heat_inside, native_overlap


def test_logits_are_resized_to_a_masks_own_size_as_areas_not_from_corner_to_corner(tmp_path):
    """Of two columns, -1 and 3, four become -1, 0, 2 and 3; from corner to corner three would be above 0."""
    lesion = np.array([[0, 0, 255, 255]] * 4, np.uint8)
    Image.fromarray(lesion).save(tmp_path / "mask.png")
    Image.new("RGB", (4, 4), "red").save(tmp_path / "image.png")
    logits = torch.tensor([[[-1.0, 3.0], [-1.0, 3.0]]])
    counts, distances = native_overlap(logits, str(tmp_path / "image.png"), str(tmp_path / "mask.png"))
    assert counts.tolist() == [8, 0, 0, 8] and distances == (0, 0)


def test_a_pixel_at_a_masks_own_size_is_lesion_where_its_logit_is_above_nothing(tmp_path):
    """The same in both numbers: the overlap and the distances."""
    Image.fromarray(np.array([[0, 255]], np.uint8).repeat(2, axis=0)).save(tmp_path / "mask.png")
    Image.new("RGB", (2, 2), "red").save(tmp_path / "image.png")
    logits = torch.tensor([[[0.0, 0.4], [-0.1, 0.1]]])
    counts, distances = native_overlap(logits, str(tmp_path / "image.png"), str(tmp_path / "mask.png"))
    assert counts.tolist() == [2, 0, 0, 2] and distances == (0, 0)


def test_the_heat_inside_is_a_share_of_all_heat():
    heat, mask = torch.tensor([[6.0, 2.0], [0.0, 0.0]]), torch.tensor([[1.0, 0.0], [0.0, 1.0]])
    assert heat_inside(heat[None, None], mask[None, None]).tolist() == [[0.75, 0.5]]


def test_rows_that_were_dealt_out_one_by_one_come_back_in_their_order(monkeypatch):
    whole = np.arange(10).reshape(5, 2)
    monkeypatch.setattr("machine.gather", lambda _: [whole[0::3], whole[1::3], whole[2::3]])
    np.testing.assert_array_equal(gather_rows(whole[0::3]), whole)


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


def test_numbers_do_not_depend_on_the_batch_size(measured):
    model, batches, *_ = measured
    one, many = (
        collect(model, data.Batches(batches.pixels, batches.table, size, device=batches.device), "fp32")
        for size in (1, 16)
    )
    names = ["label", "heat", "mask", "native", "surface"]
    assert {*one._fields} == {*names, "calls", "unlike", "others"} and one.unlike is None and one.others == {}
    for name in names:
        a, b = getattr(one, name), getattr(many, name)
        np.testing.assert_allclose(a, b, rtol=1e-3, atol=1e-2 if name in ("label", "heat") else 3)


def test_processes_gather_the_outputs_in_one_order(measured, monkeypatch):
    """A set has another order in each process, and then the heat of one is gathered as the unlikeness of another."""
    model, batches, *_ = measured
    explained = model.explain
    with_unlike = lambda image: explained(image) | {"unlike": torch.zeros(len(image))}  # noqa: E731
    monkeypatch.setattr(model, "explain", with_unlike, raising=False)
    order = []
    monkeypatch.setattr("measure.collect.gather_rows", lambda values: order.append(values.shape[1]) or values)
    collect(model, batches.subset([0, 1]), "fp32")
    assert order == [7, 4, 4, 2, 2, 1]  # label; mask, native, surface; heat; unlike
