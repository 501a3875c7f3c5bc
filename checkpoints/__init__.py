"""Model files: training states and trained models."""

from checkpoints.states import Checkpoints
from checkpoints.trained import Trained

__all__ = ["Checkpoints", "Trained"]
