"""Visualization of label maps: overlays, legends and contact sheets."""

from cat_seg.visualization.contact_sheet import contact_sheet
from cat_seg.visualization.overlay import draw_overlay, mask_image
from cat_seg.visualization.palette import palette

__all__ = ["contact_sheet", "draw_overlay", "mask_image", "palette"]
