"""Datasets, vocabularies and loaders; importing this package registers the datasets."""

from cat_seg.data.build import build_test_loader, build_train_loader, training_samples
from cat_seg.data.catalog import BENCHMARKS, DATASETS, LABELS, Benchmark, datasets_named
from cat_seg.data.folders import IMAGE_SUFFIXES
from cat_seg.data.reading import check_label_values, read_image, read_label
from cat_seg.data.registration import is_on_disk, register
from cat_seg.data.specs import DatasetSpec, Layout, datasets_root
from cat_seg.data.vocabularies import load_vocabulary, parse_vocabulary, vocabulary_from

__all__ = [
    "BENCHMARKS",
    "DATASETS",
    "IMAGE_SUFFIXES",
    "LABELS",
    "Benchmark",
    "DatasetSpec",
    "Layout",
    "build_test_loader",
    "build_train_loader",
    "check_label_values",
    "datasets_named",
    "datasets_root",
    "is_on_disk",
    "load_vocabulary",
    "parse_vocabulary",
    "read_image",
    "read_label",
    "register",
    "training_samples",
    "vocabulary_from",
]
