"""What changes training images: each change against its formula."""

import numpy as np
import pytest
import torch

import augment
from augment import AUGMENTS, crop, draw_crops, draw_mixing, mix, rotate_and_flip


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


# Crops


def test_crops_lie_inside_the_image_and_are_as_large_as_promised():
    drawn = draw_crops(np.random.default_rng(0), 5000)
    sides, centres = drawn[:, :2], drawn[:, 2:]
    assert (centres - sides / 2 >= -1e-6).all() and (centres + sides / 2 <= 1 + 1e-6).all()
    area, ratio = sides.prod(1), sides[:, 0] / sides[:, 1]
    assert 0.43 < area.min() < 0.51 and area.max() > 0.97  # a side that would be longer than the image is cut
    assert np.mean(area) == pytest.approx(0.75, abs=0.02) and ratio.min() > 0.74 and ratio.max() < 1.34
    assert np.corrcoef(sides[:, 0], sides[:, 1])[0, 1] < 0.5  # height and width are not one


def test_a_crop_of_the_whole_image_changes_nothing(device):
    pixels = torch.randint(0, 256, (2, 9, 9, 4), dtype=torch.uint8, device=device)
    assert torch.equal(crop(pixels, torch.tensor([[1, 1, 0.5, 0.5]] * 2, device=device)), pixels)


def test_a_crop_of_the_upper_left_quarter_shows_it_twice_as_large(device):
    pixels = torch.randint(0, 256, (1, 8, 8, 4), dtype=torch.uint8, device=device)
    pixels[..., 3] = torch.where(pixels[..., 3] > 127, 255, 0)
    found = crop(pixels, torch.tensor([[0.5, 0.5, 0.25, 0.25]], device=device))
    quarter = pixels[:, :4, :4]
    assert torch.equal(found[..., 3], quarter[..., 3].repeat_interleave(2, 1).repeat_interleave(2, 2))
    channels = quarter[..., :3].permute(0, 3, 1, 2).float()
    expected = torch.nn.functional.interpolate(channels, size=(8, 8), mode="bilinear").round().permute(0, 2, 3, 1)
    inner = (found[:, :7, :7, :3].float() - expected[:, :7, :7]).abs()  # at the quarter's end its neighbours are seen
    assert inner.max() <= 1


def test_rows_and_columns_of_a_crop_are_not_swapped():
    pixels = torch.zeros(1, 8, 8, 4, dtype=torch.uint8)
    pixels[0, :4] = 255  # the upper half
    assert (crop(pixels, torch.tensor([[0.5, 1.0, 0.25, 0.5]]))[0, :7] == 255).all()
    assert (crop(pixels, torch.tensor([[0.5, 1.0, 0.75, 0.5]]))[0, 1:] == 0).all()


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
