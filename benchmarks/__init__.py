"""Scripts that compare: speed, accuracy, heat maps, near duplicates, unlike images."""

import sys
from collections.abc import Callable

import machine
import settings


def start(main: Callable[[], None]) -> None:
    """Run a script; a user's mistake, such as a missing data folder, ends in one message."""
    try:
        main()
    except (ValueError, OSError) as error:
        sys.exit(settings.stop(*machine.in_words(error, ".", "Free some space, or name other folders.")))
