"""Evaluation of semantic segmentation: test vocabularies, metrics and results files."""

from cat_seg.evaluation.record import (
    finished_results,
    incompleteness,
    results_file,
    run_record,
    source_commit,
    weights_record,
)
from cat_seg.evaluation.run import (
    ProcessOnly,
    build_evaluator,
    run_on_dataset,
    skipped_images,
)
from cat_seg.evaluation.sem_seg import SemSegEvaluator
from cat_seg.evaluation.tta import SemanticSegmentorWithTTA
from cat_seg.evaluation.vocabulary import check_test_datasets, using_vocabulary, vocabulary_of
from cat_seg.utils.agreement import raise_on_every_rank

__all__ = [
    "ProcessOnly",
    "SemSegEvaluator",
    "SemanticSegmentorWithTTA",
    "build_evaluator",
    "check_test_datasets",
    "finished_results",
    "incompleteness",
    "raise_on_every_rank",
    "results_file",
    "run_on_dataset",
    "run_record",
    "skipped_images",
    "source_commit",
    "using_vocabulary",
    "vocabulary_of",
    "weights_record",
]
