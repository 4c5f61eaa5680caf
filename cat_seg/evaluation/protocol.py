"""The published evaluation protocol: CAT-Seg's eval.sh, also used by its successors."""

from __future__ import annotations

# Sliding windows and no pooling in the class aggregation.
PROTOCOL = {"TEST.SLIDING_WINDOW": True, "MODEL.SEM_SEG_HEAD.POOLING_SIZES": [1, 1]}


def protocol_overrides() -> list[str]:
    """Return the protocol as KEY VALUE pairs; each dataset is tested with its own classes."""
    pairs = [text for key, value in PROTOCOL.items() for text in (key, str(value))]
    return [*pairs, "MODEL.SEM_SEG_HEAD.TEST_CLASS_JSON", ""]
