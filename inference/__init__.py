"""Inference: from image files through a model to tables, masks, overlays and heat maps."""

from inference.drawing import caption, heat_map, mask_at, overlay, view_of
from inference.predictor import SHIPPED, DecodedImage, Prediction, Predictor

__all__ = ["SHIPPED", "DecodedImage", "Prediction", "Predictor", "caption", "heat_map", "mask_at", "overlay", "view_of"]
