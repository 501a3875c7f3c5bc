"""Inference: from image files through a model to tables, masks, overlays and heat maps."""

from inference.drawing import caption, heat_map, mask_at, overlay, view_of
from inference.predictor import SHIPPED, Picture, Prediction, Predictor

__all__ = ["SHIPPED", "Picture", "Prediction", "Predictor", "caption", "heat_map", "mask_at", "overlay", "view_of"]
