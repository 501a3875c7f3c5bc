"""Training losses of each head, by name: `LOSSES`. A model's loss is the sum over its heads.

A loss maps (logits, target) to its mean over the images. A parameter ``frequencies`` receives (K,), each class's share
of the labelled training images that an epoch draws. The target of the label head is (N,) class positions, or (N, K)
probabilities with mixed images or soft labels.

Shapes: N images, K classes, H x W pixels.
"""

from collections.abc import Callable

import torch.nn.functional as F
from torch import Tensor

Loss = Callable[..., Tensor]
SMALLEST_SHARE = 1e-4  # assumed of a class without training images, which validation images may have
FOCUS = 2.0  # gamma of the focal loss


def with_offset(loss: Loss, offset: Tensor) -> Loss:
    """The loss of logits + offset (K,), log(share of the drawn images / share of all) of each class.

    The softmax of logits + offset is that of the drawn images, so the softmax of the logits is that of all images (King
    and Zeng 2001, Political Analysis 9:137-163).
    """
    return lambda logits, label: loss(logits + offset.to(logits), label)


def weighted_cross_entropy(logits: Tensor, label: Tensor, frequencies: Tensor, power: float = 1.0) -> Tensor:
    """Cross-entropy with class weights frequency ** -power, scaled to a mean of 1 over the training images.

    With power 1 all classes weigh the same. The sum is divided by the number of images, not by their weights, so that
    the mean over an epoch does not depend on its batches.
    """
    shares = frequencies.to(logits)
    weight = shares.clamp(min=SMALLEST_SHARE) ** -power
    return F.cross_entropy(logits, label, weight=weight / (weight * shares).sum(), reduction="none").mean()


def sqrt_weighted_cross_entropy(logits: Tensor, label: Tensor, frequencies: Tensor) -> Tensor:
    """`weighted_cross_entropy` with power 1/2."""
    return weighted_cross_entropy(logits, label, frequencies, power=0.5)


def logit_adjusted_loss(logits: Tensor, label: Tensor, frequencies: Tensor) -> Tensor:
    """Cross-entropy of logits + log frequencies, whose top-1 class then has the best mean recall.

    Menon et al. 2021, arXiv:2007.07314. The softmax of the logits is that of a population with equally frequent
    classes.
    """
    return F.cross_entropy(logits + frequencies.to(logits).clamp(min=SMALLEST_SHARE).log(), label)


def focal_loss(logits: Tensor, label: Tensor) -> Tensor:
    """Cross-entropy times (1 - p) ** `FOCUS` for the true class's probability p (Lin et al. 2017, arXiv:1708.02002)."""
    log_p = logits.log_softmax(dim=1)
    target = label if label.ndim == 2 else F.one_hot(label, logits.shape[1])
    return -(target * (1 - log_p.exp()) ** FOCUS * log_p).sum(dim=1).mean()


def dice_loss(logits: Tensor, mask: Tensor) -> Tensor:
    """1 - Dice of each image's probabilities (N, 1, H, W), averaged (Milletari et al. 2016, arXiv:1606.04797).

    One pixel is added to numerator and denominator, so that an empty prediction for an empty mask costs nothing.
    """
    probability = logits.sigmoid().flatten(1)
    mask = mask.flatten(1)
    both, each = (probability * mask).sum(dim=1), (probability + mask).sum(dim=1)
    return 1 - ((2 * both + 1) / (each + 1)).mean()


def bce_and_dice_loss(logits: Tensor, mask: Tensor) -> Tensor:
    return F.binary_cross_entropy_with_logits(logits, mask) + dice_loss(logits, mask)


LOSSES: dict[str, dict[str, Loss]] = {
    "label": {
        "cross-entropy": F.cross_entropy,
        "weighted": weighted_cross_entropy,
        "sqrt-weighted": sqrt_weighted_cross_entropy,
        "logit-adjusted": logit_adjusted_loss,
        "focal": focal_loss,
    },
    "mask": {"bce": F.binary_cross_entropy_with_logits, "bce+dice": bce_and_dice_loss},
}
