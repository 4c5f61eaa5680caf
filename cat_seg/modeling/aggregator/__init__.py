"""The cost volume, its spatial and class aggregation, and the decoder."""

from cat_seg.modeling.aggregator.aggregator import AggregationLayer, Aggregator, Guidance
from cat_seg.modeling.aggregator.class_aggregation import ClassAggregation
from cat_seg.modeling.aggregator.cost_volume import cost_volume, scatter_logits, select_classes
from cat_seg.modeling.aggregator.spatial_aggregation import SpatialAggregation

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
