"""What a model says of an image, in words, always in this order.

Unlike the training images or not; above or below the thresholds, with what those did in the test set; the prediction
set; the top-1 class. Of an image that is unlike the training images, only that is said: the table keeps the rest.
"""

from collections.abc import Sequence

from checkpoints.thresholds import Finding, certainty
from dataset.classes import NAMES, name_of, quoted
from encoders.unlike import ALARM
from inference.predictor import Prediction

UNLIKE = "Unlike the training images: do not rely on this"
N_NAMED = 5  # classes of a set, by descending probability
NOT_LOCALISED = (
    "The heat maps of this model do not localise: in its test set they lay no more on lesions than beside them."
)


def is_unlike(prediction: Prediction) -> bool:
    """Whether an image counts as unlike the training images; False where that is unknown."""
    return prediction.unlike is not None and prediction.unlike >= ALARM


def verdict(prediction: Prediction, classes: Sequence[str], in_full: bool = False) -> list[str]:
    """The lines about an image; [] for a model without labels that cannot tell what is unlike.

    Parameters
    ----------
    in_full : with percentile, probabilities and test results, for a console; else for a caption.
    """
    if is_unlike(prediction):
        closer = f" ({prediction.unlike:.1f} % of the validation images are closer)" if in_full else ""
        return [f"{UNLIKE}{closer}."]
    lines = []
    if in_full and prediction.unlike is not None:
        lines.append(f"Like the training images ({prediction.unlike:.1f} % of the validation images are closer).")
    if in_full:
        lines += [finding_in_full(finding) for finding in prediction.findings]
    for side in () if in_full else ("above", "below"):
        if names := [finding.point.name for finding in prediction.findings if finding.verdict == side]:
            lines.append(f"{side.capitalize()} the threshold: {', '.join(names)}")
    if prediction.members:
        lines.append(in_words(prediction.members, classes))
    if prediction.probabilities is not None:
        best = prediction.probabilities.argmax()
        lines.append(f"Top-1 class: {name_of(classes[best])} {certainty(prediction.probabilities[best])}")
    return lines


def finding_in_full(finding: Finding) -> str:
    """An operating point's verdict, with its threshold and test results."""
    name, where = finding.point.name.capitalize(), f"{finding.verdict} the " if finding.verdict else ""
    return f"{name}: probability {finding.probability:.4f}, {where}{finding.point.describe()}."


def in_words(members: Sequence[int], classes: Sequence[str]) -> str:
    """A prediction set as a string, names with a comma in quotes.

    Examples
    --------
    >>> in_words([0, 1], ["MEL", "NV"]), in_words([1], ["MEL", "NV"])
    ('One of: melanoma, nevus', 'Nevus')
    """
    codes = [classes[k] for k in members[:N_NAMED]]
    if len(members) == 1:
        return name_of(codes[0])
    more = f" and {len(members) - N_NAMED:,} more" if len(members) > N_NAMED else ""
    return f"One of: {', '.join(name_of(code).lower() if code in NAMES else quoted(code) for code in codes)}{more}"
