from __future__ import annotations

from cat_seg.evaluation.results.differences import NOT_RECORDED, differences

CONTENT = {
    "dataset": "d",
    "config": {"MODEL": {"A": 1, "WEIGHTS": "x.pth"}, "OUTPUT_DIR": "x", "LIST": [1, 2]},
    "commit": "0123",
    "environment": {"torch": "2.9", "device": "GPU"},
    "weights": {"file": "x.pth", "sha256": "a" * 64},
    "vocabulary": ["red", "lime"],
    "data": {"images_sha256": "1", "classes_sha256": "2"},
    "counts": {"images": 3, "skipped": 0, "labeled_pixels": 9, "classes": 2},
}


def changed(**parts):
    return differences(CONTENT, CONTENT | parts)


def test_nothing_differs_but_paths_and_metrics():
    assert differences(CONTENT, CONTENT) == []
    config = CONTENT["config"] | {"OUTPUT_DIR": "y", "MODEL": {"A": 1, "WEIGHTS": "y.pth"}}
    assert changed(config=config, weights={"file": "y", "sha256": "a" * 64}, sem_seg={}) == []


def test_every_part_that_decides_a_figure_is_compared():
    config = {"MODEL": {"A": 2, "B": True}, "LIST": [1]}
    assert changed(config=config) == [
        ("setting", "MODEL.A", 1, 2),
        ("setting", "LIST", [1, 2], [1]),
        ("setting", "MODEL.B", None, True),
    ]
    assert changed(commit="0123-dirty") == [("code", "commit", "0123", "0123-dirty")]
    environment = {"torch": "2.10", "device": "GPU"}
    assert changed(environment=environment) == [("environment", "torch", "2.9", "2.10")]
    assert changed(weights={"sha256": "b"}) == [("weights", "sha256", "a" * 64, "b")]
    assert changed(weights={"untrained": True}) == [("weights", "sha256", "a" * 64, "untrained")]
    assert changed(dataset="e") == [("data", "dataset", "d", "e")]
    assert changed(vocabulary=["red", "blue"]) == [
        ("data", "classes", "2 names, 1: lime", "2 names, 1: blue")
    ]
    assert changed(vocabulary=["red"]) == [("data", "classes", "2 names", "1 names")]
    assert changed(data=CONTENT["data"] | {"images_sha256": "3"}) == [
        ("data", "images_sha256", "1", "3")
    ]
    counts = CONTENT["counts"] | {"images": 2, "skipped": 1}
    assert changed(counts=counts) == [("data", "images", 3, 2), ("data", "skipped", 0, 1)]


def test_what_an_earlier_version_did_not_record_is_one_row():
    earlier = {key: CONTENT[key] for key in ("dataset", "config", "weights", "vocabulary")}
    assert differences(earlier, CONTENT) == [
        ("code", "commit", NOT_RECORDED, "0123"),
        ("environment", "environment", NOT_RECORDED, "recorded"),
        ("data", "lists", NOT_RECORDED, "recorded"),
        ("data", "counts", NOT_RECORDED, "recorded"),
    ]
