"""Cost volume, its spatial and class aggregation, and the decoder."""

from .aggregator import AggregationLayer, Aggregator, Guidance
from .classes import ClassAggregation
from .cost_volume import cost_volume, scatter_logits, select_classes
from .spatial import SpatialAggregation

__all__ = [
    "AggregationLayer",
    "Aggregator",
    "ClassAggregation",
    "Guidance",
    "SpatialAggregation",
    "cost_volume",
    "scatter_logits",
    "select_classes",
]
