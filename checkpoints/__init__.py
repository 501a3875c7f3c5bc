"""A model in a file: the states of a training, and what was trained."""

from checkpoints.states import Checkpoints
from checkpoints.trained import Trained

__all__ = ["Checkpoints", "Trained"]
