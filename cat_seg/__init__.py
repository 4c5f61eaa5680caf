"""HPS-Seg: open-vocabulary semantic segmentation on CLIP, in detectron2."""

import warnings

# fvcore compiles a loss as it is imported, of which newer PyTorch warns at every start.
warnings.filterwarnings("ignore", "`torch.jit.script` is deprecated", FutureWarning)

from .compatibility import detectron2_problem
from .errors import fail

# Before other imports, some of which fail in an old detectron2.
if problem := detectron2_problem():
    fail(problem)

from .cat_seg_model import CATSeg
from .config import add_cat_seg_config
from .enhanced_cat_seg_model import EnhancedCATSeg

__all__ = ["CATSeg", "EnhancedCATSeg", "add_cat_seg_config"]
