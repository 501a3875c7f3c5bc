"""What changes training images: each change against its formula."""

import colorsys

import numpy as np
import pytest
import torch
from torchvision.transforms import functional as reference

import augment
from augment import (
    AUGMENTS,
    change_pixels,
    chosen,
    crop_places,
    draw_crops,
    draw_mixing,
    mix,
    resample,
    rotate_and_flip,
)


def applied(names, pixels, **drawn):
    """The named changes, drawn from one generator as an epoch draws them, or as given."""
    rng = np.random.default_rng(0)
    values = {name: torch.from_numpy(AUGMENTS[name].draw(rng, len(pixels))) for name in names}
    return change_pixels(pixels, names, {name: value.to(pixels.device) for name, value in (values | drawn).items()})


def noise(n, size, device="cpu"):
    pixels = torch.randint(0, 256, (n, size, size, 4), generator=torch.Generator().manual_seed(0)).to(torch.uint8)
    pixels[..., 3] = torch.where(pixels[..., 3] > 127, 255, 0)
    return pixels.to(device)


def disc(n=8, size=65):
    """A dark disc on light skin, off the centre, with its mask."""
    y, x = torch.meshgrid(torch.arange(size), torch.arange(size), indexing="ij")
    inside = (y - 0.42 * size) ** 2 + (x - 0.6 * size) ** 2 < (0.22 * size) ** 2
    image = torch.where(inside[..., None], torch.tensor([60, 40, 30]), torch.tensor([210, 170, 150]))
    return torch.cat([image, 255 * inside[..., None]], -1).to(torch.uint8).repeat(n, 1, 1, 1)


@pytest.mark.parametrize(
    "names, message",
    [
        (("flips", "cutmax"), "no augmentation 'cutmax': did you mean 'cutmix'"),
        (("warp",), "no augmentation 'warp': choose among none, flips"),
        (("flips", "crops", "flips"), "named twice in flips, crops, flips"),
        (("none", "flips"), "'none' stands beside other augmentations"),
    ],
)
def test_names_that_cannot_be_meant_are_refused(names, message):
    with pytest.raises(ValueError, match=message):
        chosen(names)
    assert chosen("none") == ("none",) and chosen(["flips", "angles"]) == ("flips", "angles")


def test_the_eight_codes_give_eight_different_images(device):
    image = torch.arange(36, dtype=torch.uint8, device=device).reshape(1, 3, 3, 4)
    turned = rotate_and_flip(image.repeat(8, 1, 1, 1), torch.arange(8, device=device))
    assert len({tuple(one.flatten().tolist()) for one in turned}) == 8
    for code in range(8):
        expected = torch.rot90(image, code % 4, dims=(1, 2))
        assert torch.equal(turned[code], (expected.flip(2) if code > 3 else expected)[0])


def test_half_of_the_images_are_flipped_and_each_rotation_is_drawn():
    flips, rotations = (AUGMENTS[name].draw(np.random.default_rng(0), 10_000) for name in ("flips", "rotations"))
    assert set(flips) == {0, 4} and np.mean(flips == 4) == pytest.approx(0.5, abs=0.02)
    assert set(rotations) == set(range(4)) and np.mean(rotations) == pytest.approx(1.5, abs=0.04)


@pytest.mark.parametrize("first", range(8))
def test_flips_and_rotations_in_a_row_are_one_code(first, device):
    pixels, codes = noise(8, 5, device), torch.arange(8, device=device)
    first = torch.full_like(codes, first)
    expected = rotate_and_flip(rotate_and_flip(pixels, first), codes)
    assert torch.equal(rotate_and_flip(pixels, augment.merge_codes(first, codes)), expected)
    together = change_pixels(pixels, ("flips", "rotations"), {"flips": first, "rotations": codes})
    assert torch.equal(together, expected)


# Angles and crops


def crop(pixels, drawn):
    return resample(pixels, torch.from_numpy(crop_places(*np.split(np.array(drawn), 2, axis=1))).to(pixels.device))


def rotated(degrees, n=1):
    return torch.from_numpy(augment._rotation(np.full(n, np.radians(degrees)))).float()


@pytest.mark.parametrize("size", [8, 9])
def test_a_quarter_turn_by_angle_is_that_of_rotations(size, device):
    pixels = noise(1, size, device)
    for quarters in range(4):
        found = resample(pixels, rotated(90 * quarters).to(device))
        assert torch.equal(found, torch.rot90(pixels, quarters, dims=(1, 2)))


def test_angles_inside_the_image_are_those_of_torchvision():
    pixels = noise(1, 33)
    y, x = torch.meshgrid(torch.arange(33), torch.arange(33), indexing="ij")
    inside = (y - 16) ** 2 + (x - 16) ** 2 < 15**2  # no border is seen here
    channels = pixels.permute(0, 3, 1, 2).float()
    found = resample(pixels, rotated(25)).permute(0, 3, 1, 2).float()
    image = reference.rotate(channels[:, :3], 25, reference.InterpolationMode.BILINEAR)
    assert (found[:, :3] - image)[..., inside].abs().max() < 0.51
    mask = reference.rotate(channels[:, 3:], 25, reference.InterpolationMode.NEAREST)
    assert torch.equal(found[:, 3:][..., inside], mask[..., inside])


def test_what_lies_beyond_a_border_is_its_reflection():
    pixels = noise(1, 6)
    shifted = torch.eye(3)[None].clone()
    shifted[0, 0, 2] = 2 / 6 * 2  # two pixels to the right
    columns = [2, 3, 4, 5, 5, 4]
    assert torch.equal(resample(pixels, shifted), pixels[:, :, columns])


def test_angles_are_drawn_from_the_whole_circle():
    drawn = AUGMENTS["angles"].draw(np.random.default_rng(0), 8000)
    angles = np.degrees(np.arctan2(drawn[:, 1, 0], drawn[:, 0, 0]))
    assert np.histogram(angles, 8, (-180, 180))[0] == pytest.approx(1000, abs=150)
    np.testing.assert_allclose(np.linalg.det(drawn), 1, rtol=1e-5)


@pytest.mark.parametrize("names", [("angles",), ("crops",), ("angles", "crops"), ("crops", "flips", "angles")])
def test_the_mask_stays_on_its_lesion_and_remains_zero_or_full(names):
    found = applied(names, disc())
    lesion, mask = found[..., 0] < 135, found[..., 3] > 0
    overlap = (lesion & mask).sum((1, 2)) / (lesion | mask).sum((1, 2))
    assert overlap.min() > 0.9 and set(found[..., 3].unique().tolist()) == {0, 255}
    assert not torch.equal(found[0], found[1])


def test_angles_and_crops_in_a_row_resample_once_in_their_order(monkeypatch):
    quarter, left = rotated(90), torch.from_numpy(crop_places(np.array([[1, 0.5]]), np.array([[0.5, 0.25]])))
    pixels, calls = noise(1, 8), []
    once, twice = resample(resample(pixels, quarter), left), resample(resample(pixels, left), quarter)
    sample = augment.F.grid_sample
    monkeypatch.setattr(augment.F, "grid_sample", lambda *a, **k: calls.append(k["mode"]) or sample(*a, **k))
    found = applied(("angles", "crops"), pixels, angles=quarter, crops=left)
    assert torch.equal(found, once) and not torch.equal(found, twice) and calls == ["bilinear", "nearest"]


# Crops


def test_crops_lie_inside_the_image_and_are_as_large_as_promised():
    drawn = draw_crops(np.random.default_rng(0), 5000)
    sides, centres = drawn[:, [1, 0], [1, 0]], (drawn[:, [1, 0], 2] + 1) / 2  # height and width, row and column
    assert (centres - sides / 2 >= -1e-6).all() and (centres + sides / 2 <= 1 + 1e-6).all()
    area, ratio = sides.prod(1), sides[:, 0] / sides[:, 1]
    assert 0.43 < area.min() < 0.51 and area.max() > 0.97  # a side that would be longer than the image is cut
    assert np.mean(area) == pytest.approx(0.75, abs=0.02) and ratio.min() > 0.74 and ratio.max() < 1.34
    assert np.corrcoef(sides[:, 0], sides[:, 1])[0, 1] < 0.5  # height and width are not one


def test_a_crop_of_the_whole_image_changes_nothing(device):
    pixels = torch.randint(0, 256, (2, 9, 9, 4), dtype=torch.uint8, device=device)
    assert torch.equal(crop(pixels, [[1, 1, 0.5, 0.5]] * 2), pixels)


def test_a_crop_of_the_upper_left_quarter_shows_it_twice_as_large(device):
    pixels = torch.randint(0, 256, (1, 8, 8, 4), dtype=torch.uint8, device=device)
    pixels[..., 3] = torch.where(pixels[..., 3] > 127, 255, 0)
    found = crop(pixels, [[0.5, 0.5, 0.25, 0.25]])
    quarter = pixels[:, :4, :4]
    assert torch.equal(found[..., 3], quarter[..., 3].repeat_interleave(2, 1).repeat_interleave(2, 2))
    channels = quarter[..., :3].permute(0, 3, 1, 2).float()
    expected = torch.nn.functional.interpolate(channels, size=(8, 8), mode="bilinear").round().permute(0, 2, 3, 1)
    inner = (found[:, :7, :7, :3].float() - expected[:, :7, :7]).abs()  # at the quarter's end its neighbours are seen
    assert inner.max() <= 1


def test_rows_and_columns_of_a_crop_are_not_swapped():
    pixels = torch.zeros(1, 8, 8, 4, dtype=torch.uint8)
    pixels[0, :4] = 255  # the upper half
    assert (crop(pixels, [[0.5, 1.0, 0.25, 0.5]])[0, :7] == 255).all()
    assert (crop(pixels, [[0.5, 1.0, 0.75, 0.5]])[0, 1:] == 0).all()


# Brightness, contrast and colour


def muted(n=2, size=6):
    """Colours of a middle range, which no change cuts."""
    pixels = noise(n, size)
    return torch.cat([(pixels[..., :3] // 4 + 90), pixels[..., 3:]], -1)


def as_colours(own, of_mean=0.0):
    return torch.from_numpy(augment._colours(own, of_mean))


def channels_of(pixels):
    return pixels[..., :3].permute(0, 3, 1, 2)


@pytest.mark.parametrize("name, adjust", [("brightness", "brightness"), ("contrast", "contrast")])
def test_brightness_and_contrast_are_those_of_torchvision(name, adjust):
    pixels, drawn = muted(), AUGMENTS[name].draw(np.random.default_rng(0), 2)
    found = channels_of(applied((name,), pixels, **{name: torch.from_numpy(drawn)}))
    for image, matrix, changed in zip(channels_of(pixels), drawn[:, 0], found):
        expected = getattr(reference, f"adjust_{adjust}")(image, float(matrix[0, 0]))
        assert (changed.int() - expected.int()).abs().max() <= 1
        assert abs(matrix[0, 0] - 1) <= 0.2 and not torch.equal(changed, image)


def test_colours_that_leave_the_range_are_cut_and_masks_stay(device):
    pixels = noise(2, 6, device)
    found = applied(("brightness",), pixels, brightness=as_colours(np.stack([2 * np.eye(3), np.eye(3)])))
    expected = torch.cat([(2 * pixels[:1, ..., :3].int()).clamp(max=255).to(torch.uint8), pixels[:1, ..., 3:]], -1)
    assert torch.equal(found[:1], expected) and torch.equal(found[1], pixels[1])


def test_saturation_is_that_of_torchvision():
    pixels = muted()
    own = augment.shift_chroma(np.array([0.6, 1.3]), np.zeros(2))
    found = channels_of(applied(("colour",), pixels, colour=as_colours(own)))
    for image, factor, changed in zip(channels_of(pixels), (0.6, 1.3), found):
        assert (changed.int() - reference.adjust_saturation(image, factor).int()).abs().max() <= 1


@pytest.mark.parametrize("shift", [-0.05, 0.05])
@pytest.mark.parametrize("colour", [(60, 40, 30), (210, 170, 150), (150, 90, 80), (120, 80, 100), (200, 120, 60)])
def test_hue_shifts_about_as_in_hsv_and_keeps_luma_and_gray(colour, shift):
    """About: equal steps in HSV are not equal angles in YIQ."""
    (matrix,) = augment.shift_chroma(np.ones(1), np.array([shift]))
    found = matrix @ colour
    turned = colorsys.rgb_to_hsv(*found)[0] - colorsys.rgb_to_hsv(*colour)[0]
    assert (turned + 0.5) % 1 - 0.5 == pytest.approx(shift, abs=0.03)
    assert found @ augment.LUMA == pytest.approx(np.dot(colour, augment.LUMA))
    np.testing.assert_allclose(matrix @ np.ones(3), np.ones(3), atol=1e-3)


def test_changes_of_colour_in_a_row_are_one_change(monkeypatch):
    names, rng = ("brightness", "contrast", "colour"), np.random.default_rng(3)
    pixels, drawn = muted(), {name: torch.from_numpy(AUGMENTS[name].draw(rng, 2)) for name in names}
    expected = pixels
    for name in names:
        expected = augment.recolour(expected, drawn[name])
    calls, baddbmm = [], torch.baddbmm
    monkeypatch.setattr(torch, "baddbmm", lambda *values: calls.append(1) or baddbmm(*values))
    found = applied(names, pixels, **drawn)
    assert (found.int() - expected.int()).abs().max() <= 2 and len(calls) == 1  # rounded once, not three times


def test_a_second_change_sees_the_mean_that_the_first_leaves():
    first, second = (
        as_colours(np.eye(3)[None] * 0.8, np.full((1, 3, 3), 0.1)),
        as_colours(np.eye(3)[None] * 0.7, np.eye(3)[None] * 0.5),
    )
    pixels = muted(1)
    expected = augment.recolour(augment.recolour(pixels, first), second)
    found = augment.recolour(pixels, augment.merge_colours(first, second))
    assert (found.int() - expected.int()).abs().max() <= 1


def test_saturation_and_hue_are_drawn_from_their_ranges():
    drawn = AUGMENTS["colour"].draw(np.random.default_rng(0), 4000)[:, 0].astype(float)
    chroma = (augment.IQY @ drawn @ np.linalg.inv(augment.IQY))[:, :2, 0]
    saturation, hue = np.hypot(*chroma.T), np.arctan2(chroma[:, 1], chroma[:, 0]) / (2 * np.pi)
    assert saturation.min() == pytest.approx(0.8, abs=0.01) and saturation.max() == pytest.approx(1.2, abs=0.01)
    assert hue.min() == pytest.approx(-0.05, abs=0.002) and hue.max() == pytest.approx(0.05, abs=0.002)
    assert abs(np.corrcoef(saturation, hue)[0, 1]) < 0.1


# Mixup


def batch_of(n, **more):
    generator = torch.Generator().manual_seed(0)
    image = torch.randn(n, 3, 2, 2, generator=generator).to(memory_format=torch.channels_last)
    mask = torch.randint(0, 2, (n, 1, 2, 2), generator=generator).float()
    return {"image": image, "label": torch.arange(n) % 3, "mask": mask} | more


def test_mixing_is_the_weighted_mean_of_images_labels_and_masks():
    batch, weight = batch_of(3), torch.tensor([0.75, 1.0, 0.6])
    mixed = mix(batch, weight, 4)
    assert mixed["label"].tolist() == [
        pytest.approx(row) for row in ([0.75, 0, 0.25, 0], [0, 1, 0, 0], [0.4, 0, 0.6, 0])
    ]
    for name in ("image", "mask"):
        torch.testing.assert_close(mixed[name][0], 0.75 * batch[name][0] + 0.25 * batch[name][2])
        torch.testing.assert_close(mixed[name][2], 0.6 * batch[name][2] + 0.4 * batch[name][0])


def test_what_lacks_a_target_is_not_mixed_nor_is_its_counterpart():
    batch = batch_of(4, has_label=torch.tensor([False, True, True, True]))
    batch["label"][0] = -1
    mixed = mix(batch, torch.full((4,), 0.5), 3)
    assert torch.equal(mixed["image"][[0, 3]], batch["image"][[0, 3]]) and mixed["label"][3].tolist() == [1, 0, 0]
    assert not torch.equal(mixed["image"][1], batch["image"][1])


def test_an_image_is_never_less_than_half_of_the_mixture():
    weights = draw_mixing(np.random.default_rng(0), 4000)
    beta = np.random.default_rng(1).beta(augment.MIXUP_ALPHA, augment.MIXUP_ALPHA, 4000)
    assert weights.min() >= 0.5 and weights.max() <= 1
    assert weights.mean() == pytest.approx(np.maximum(beta, 1 - beta).mean(), abs=0.01)


def test_the_loss_of_a_mixture_is_the_mixture_of_the_losses():
    logits, batch, weight = torch.randn(2, 3), batch_of(2), torch.tensor([0.7, 0.9])
    soft = mix(batch, weight, 3)["label"]
    each = torch.nn.functional.cross_entropy(logits, soft, reduction="none")
    own = torch.nn.functional.cross_entropy(logits, batch["label"], reduction="none")
    other = torch.nn.functional.cross_entropy(logits, batch["label"].flip(0), reduction="none")
    torch.testing.assert_close(each, weight * own + (1 - weight) * other)


def test_every_augmentation_draws_for_each_image_and_changes_pixels_or_batches():
    for name, change in AUGMENTS.items():
        assert name == "none" or (len(change.draw(np.random.default_rng(0), 5)) == 5)
        assert name == "none" or (change.pixels is None) != (change.batch is None)


# CutMix and cutout


def test_a_square_and_its_share_of_the_labels_come_from_the_other_end(device):
    batch = {"image": torch.arange(2.0).view(2, 1, 1, 1).expand(2, 3, 4, 8), "label": torch.tensor([0, 1])}
    batch |= {"mask": batch["image"][:, :1], "age": torch.tensor([10.0, 50.0])}
    batch = {name: values.to(device) for name, values in batch.items()}
    drawn = torch.tensor([[0.5, 0.25, 1.0], [0.5, 0.5, 0.5]], device=device)  # the first is cut at the right border
    found = augment.cut_and_mix(batch, drawn, 2)
    expected = torch.zeros(4, 8)
    expected[:2, 6:] = 1
    for channel in (*found["image"][0].cpu(), found["mask"][0, 0].cpu()):
        assert torch.equal(channel, expected)
    assert torch.equal(found["mask"][1, 0].cpu().sum(), torch.tensor(24.0))
    torch.testing.assert_close(found["label"].cpu(), torch.tensor([[28 / 32, 4 / 32], [8 / 32, 24 / 32]]))
    torch.testing.assert_close(found["age"].cpu(), torch.tensor([10 + 40 * 4 / 32, 50 - 40 * 8 / 32]))


@pytest.mark.parametrize("has", ["has_label", "has_mask"])
def test_what_lacks_a_target_is_not_cut_nor_is_its_counterpart(has):
    batch = batch_of(4, **{has: torch.tensor([False, True, True, True])})
    found = augment.cut_and_mix(batch, torch.tensor([[0.5, 0.25, 0.25]] * 4), 3)
    for name in ("image", "mask"):
        assert torch.equal(found[name][[0, 3]], batch[name][[0, 3]])
    assert not torch.equal(found["image"][1], batch["image"][1]) and found["label"][3].tolist() == [1, 0, 0]
    assert found["label"][1].tolist() == [0, 0.75, 0.25]


def test_soft_labels_are_cut_by_area():
    batch = batch_of(2) | {"label": torch.tensor([[0.5, 0.5], [0.0, 1.0]])}
    found = augment.cut_and_mix(batch, torch.tensor([[0.5, 0.25, 0.25], [0, 0.5, 0.5]]), 2)
    assert found["label"].tolist() == [[0.375, 0.625], [0, 1]]


def test_the_area_that_cutmix_keeps_is_uniform():
    side, *centre = AUGMENTS["cutmix"].draw(np.random.default_rng(0), 8000).T
    assert np.histogram(1 - side**2, 4, (0, 1))[0] == pytest.approx(2000, abs=150)
    assert np.mean(centre) == pytest.approx(0.5, abs=0.01) and abs(np.corrcoef(*centre)[0, 1]) < 0.05


def test_cutout_sets_a_square_of_the_image_to_the_mean_and_leaves_its_mask():
    batch = {"image": torch.ones(1, 3, 8, 8), "label": torch.tensor([1]), "mask": torch.ones(1, 1, 8, 8)}
    found = augment.cut_out(batch, torch.tensor([[0.25, 0.25, 0.5]]), 2)
    expected = torch.ones(3, 8, 8)
    expected[:, 1:3, 3:5] = 0
    assert torch.equal(found["image"][0], expected) and torch.equal(found["mask"], batch["mask"])
    assert found["label"].tolist() == [1]
    sides = AUGMENTS["cutout"].draw(np.random.default_rng(0), 4)[:, 0]
    assert sides.tolist() == [augment.CUTOUT_SIDE] * 4
