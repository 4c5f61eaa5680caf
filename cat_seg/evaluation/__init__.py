"""Evaluation of semantic segmentation: which classes to ask for, and the metrics."""

from cat_seg.evaluation.sem_seg import SemSegEvaluator
from cat_seg.evaluation.vocabulary import using_vocabulary, vocabulary_of

__all__ = ["SemSegEvaluator", "using_vocabulary", "vocabulary_of"]
