"""HPS-Seg: open-vocabulary semantic segmentation on CLIP, in detectron2.

`from cat_seg import ...` registers the models with detectron2. The modules behind these names,
and PyTorch with them, are imported on first use, so that commands start fast.
"""

from __future__ import annotations

import importlib
import warnings
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from cat_seg.cat_seg_model import CATSeg
    from cat_seg.config import add_cat_seg_config
    from cat_seg.engine import load_config
    from cat_seg.enhanced_cat_seg_model import EnhancedCATSeg
    from cat_seg.hub import list_models
    from cat_seg.inference import Result, Segmenter, from_pretrained
    from cat_seg.predictor import Prediction, Predictor, read_rgb

__version__ = "0.1.0"
__all__ = [
    "CATSeg",
    "EnhancedCATSeg",
    "Prediction",
    "Predictor",
    "Result",
    "Segmenter",
    "__version__",
    "add_cat_seg_config",
    "from_pretrained",
    "list_models",
    "load_config",
    "read_rgb",
]

_MODULES = (
    "cat_seg.cat_seg_model",
    "cat_seg.config",
    "cat_seg.enhanced_cat_seg_model",
    "cat_seg.engine",
    "cat_seg.hub",
    "cat_seg.inference",
    "cat_seg.predictor",
)

# fvcore calls torch.jit.script on import, and newer PyTorch warns about it at every start.
warnings.filterwarnings("ignore", "`torch.jit.script` is deprecated", FutureWarning)


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from cat_seg.utils.compatibility import require_detectron2

    require_detectron2()
    # Import all modules: every name needs the models to be registered.
    for module in map(importlib.import_module, _MODULES):
        globals().update({n: getattr(module, n) for n in __all__ if hasattr(module, n)})
    return globals()[name]


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
