"""Methods named by their configs."""

from __future__ import annotations

import pytest

from cat_seg.engine import load_config
from cat_seg.evaluation.results.methods import backbone_of, method_of

FINE_TUNE = "MODEL.SEM_SEG_HEAD.CLIP_FINETUNE"
NO_HPA = ("MODEL.HYPERSPHERICAL.USE_HPA", "False")
NO_AFR = ("MODEL.HYPERSPHERICAL.USE_AFR", "False")
# In the order of the table.
NAMES = [
    ("vitb_384", (), "CAT-Seg"),
    ("vitb_384_oft", (), "H-CLIP"),
    ("vitb_384_hpa_only", (), "H-CLIP + HPA"),
    ("vitb_384_afr_only", (), "H-CLIP + AFR"),
    ("vitb_384_enhanced", (), "HPS-Seg"),
    ("vitb_384_hyperbolic", (), "HyperCLIP"),
    ("vitb_384_hyperbolic_enhanced", (), "HyperCLIP + HPA + AFR"),
    ("vitb_384_hyperclip_plus", (), "HyperCLIP++"),
    ("vitb_384_hyro", (), "HyRo"),
    ("vitb_384", (FINE_TUNE, "full"), "CAT-Seg (full)"),
    ("vitb_384", (FINE_TUNE, "oft_qv"), "CAT-Seg (oft_qv)"),
]


@pytest.mark.parametrize(("config", "changes", "name"), NAMES)
def test_a_method_is_named_by_its_config(config, changes, name):
    assert method_of(load_config(f"configs/{config}.yaml", changes)).name == name


def test_the_switches_of_the_innovations_count_where_the_model_has_them():
    enhanced = load_config("configs/vitb_384_enhanced.yaml", [*NO_HPA, *NO_AFR])
    assert method_of(enhanced).name == "H-CLIP"
    # On by default in a config whose model has neither.
    assert load_config("configs/vitb_384_oft.yaml").MODEL.HYPERSPHERICAL.USE_HPA


def test_the_geodesic_cost_volume_makes_another_method():
    changes = ["MODEL.HYPERSPHERICAL.GEODESIC_CORRELATION", "True"]
    config = load_config("configs/vitb_384_enhanced.yaml", changes)
    assert method_of(config).name == "HPS-Seg + geodesic"


def test_methods_sort_into_the_order_of_the_table():
    methods = [method_of(load_config(f"configs/{name}.yaml", more)) for name, more, _ in NAMES]
    assert [method.name for method in sorted(reversed(methods))] == [name for *_, name in NAMES]


def test_backbones_are_architectures_or_the_names_of_their_files():
    assert backbone_of(load_config("configs/vitb_384.yaml")) == "ViT-B/16"
    assert backbone_of(load_config("configs/vitl_336.yaml")) == "ViT-L/14@336px"
    assert backbone_of(load_config("configs/quickstart.yaml")) == "quickstart_clip"
