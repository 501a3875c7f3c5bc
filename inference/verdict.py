"""The verdict on an image in words, always in the same order.

First whether it is unlike the training images; then above or below each threshold; the prediction set; the top-1 class.
An image unlike the training images gets only that warning: the table keeps the rest.
"""

from collections.abc import Sequence

from checkpoints.thresholds import certainty
from checkpoints.trained import Trained
from dataset.classes import name_of, quoted
from encoders import coarse_heat
from encoders.unlike import ALARM
from evaluate import LOCALISING
from inference.predictor import Prediction

UNLIKE = "Unlike the training images: do not rely on this"
NOT_A_DEVICE = "Research code, not a medical device: never base a diagnosis on it."
N_NAMED = 5  # most probable classes of a set that are named
NOT_LOCALISED = (
    "The heat maps of this model do not localise lesions: in its test set, less than "
    f"{100 * LOCALISING:.0f} % of their energy lay inside the lesion."
)


def heat_remarks(trained: Trained) -> list[str]:
    """What limits the heat maps of a model."""
    coarse = coarse_heat(trained.provenance()["encoders"])
    return [NOT_LOCALISED] * (trained.localises is False) + [coarse] * bool(coarse)


def is_unlike(prediction: Prediction) -> bool:
    """Whether an image counts as unlike the training images; False where that is unknown."""
    return prediction.unlike is not None and prediction.unlike >= ALARM


def verdict(prediction: Prediction, classes: Sequence[str]) -> list[str]:
    """The verdict, one string per line; [] for a model without labels for which `Unlike` was not fitted."""
    if is_unlike(prediction):
        return [f"{UNLIKE}."]
    lines = []
    for side in ("above", "below"):
        if names := [finding.point.name for finding in prediction.findings if finding.verdict == side]:
            lines.append(f"{side.capitalize()} the threshold: {', '.join(names)}")
    if prediction.members:
        lines.append(f"Prediction set: {name_set(prediction.members, classes)}")
    if prediction.probabilities is not None:
        best = prediction.probabilities.argmax()
        lines.append(f"Top-1 class: {name_of(classes[best])}, {certainty(prediction.probabilities[best])}")
    return lines


def name_set(members: Sequence[int], classes: Sequence[str]) -> str:
    """A prediction set as a string: its classes, the most probable first; names with a comma in quotes.

    Examples
    --------
    >>> name_set([1, 0], ["MEL", "NV"])
    'Nevus, Melanoma'
    """
    more = f" and {len(members) - N_NAMED:,} more" if len(members) > N_NAMED else ""
    return ", ".join(quoted(name_of(classes[k])) for k in members[:N_NAMED]) + more
