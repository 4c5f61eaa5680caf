"""Tables and JSON."""

from __future__ import annotations

import pytest

from cat_seg.errors import UserError
from tools.benchmarking import report
from tools.benchmarking.experiment import by_stage
from tools.benchmarking.options import parse
from tools.benchmarking.stages import OTHER, Part
from tools.benchmarking.timing import spread

SECONDS = {
    Part("forward", OTHER): 1.0,
    Part("forward", "a stage"): 2.0,
    Part("backward", "a stage"): 5.0,
    Part("optimizer", OTHER): 3.0,
}
FLOPS = {Part("forward", "a stage"): 4e9, Part("backward", "a stage"): 8e9}


def result(**changes):
    content = {
        "options": {"mode": "train", "config_file": "c.yaml"},
        "environment": {"gpu": None, "cpu": "a cpu", "threads": 2, "torch": "2", "commit": "abc"},
        "work": {"classes": 5},
        "time": {
            "seconds": spread([8.0]),
            "units": spread([16.0]),
            "phases": {"forward": spread([3.0])},
        },
        "unit": {"side": 1000, "dtype": "float32", "flops": 2 * 10**9, "seconds": spread([0.5])},
        "memory": {"kind": "resident", "before": 2**30, "peak": 3 * 2**30},
        "stages": {"unit": 0.5, **by_stage(SECONDS, FLOPS)},
    }
    return content | changes


def cells(text):
    rows = [line.strip("|").split("|") for line in text.splitlines() if line.startswith("|")]
    return {row[0].strip(): [cell.strip() for cell in row[1:]] for row in rows}


def test_stages_and_their_sum():
    found = by_stage(SECONDS, FLOPS)
    assert [row["stage"] for row in found["rows"]] == [OTHER, "a stage"]
    assert found["sum"]["seconds"] == {"forward": 3.0, "backward": 5.0, "optimizer": 3.0}
    assert found["sum"]["flops"] == {"forward": 4e9, "backward": 8e9}


def test_the_tables():
    text = report.text(result())
    found = cells(text)
    assert "train of c.yaml: classes 5\non a cpu, 2 threads, torch 2, commit abc" in text
    # 12e9 operations are 6 units of 2e9; the stage's 7 s are 14 units of 0.5 s.
    assert found["a stage"] == ["2.000", "5.000", "14.00", "87.5", "4.0", "8.0", "6.00", "2.3"]
    assert found[OTHER] == ["1.000", "", "2.00", "12.5", "0.0", "0.0", "0.00", ""]
    assert found["sum"][:4] == ["3.000", "5.000", "16.00", "100.0"]
    assert text.index("| a stage") < text.index("| other") < text.index("| sum")
    assert found["fraction of the product's rate"][0] == "0.375"
    assert found["floor, units"][0] == "6"
    assert found["resident memory, peak, GiB"][0] == "3"


def test_two_results_beside_each_other():
    after = result(
        time={"seconds": spread([4.0]), "units": spread([8.0])},
        stages={"unit": 0.5, **by_stage({Part("forward", "new"): 1.0}, {})},
    )
    found = cells(report.comparison(result(), after))
    assert found["units"] == ["16.000", "8.000", "0.500"]
    assert found["a stage, units"] == ["14.000", "", ""]
    assert found["new, units"] == ["", "2.000", ""]
    assert found["peak memory, GiB"] == ["3.000", "3.000", "1.000"]
    with pytest.raises(UserError, match="--compare needs two results"):
        report.comparison(result(), {"sweep": "classes", "points": {}})


def test_json_is_whole_or_not_there(tmp_path):
    path = tmp_path / "new" / "result.json"
    report.write({"a": 1}, path)
    assert report.read(path) == {"a": 1}
    with pytest.raises(TypeError):
        report.write({"a": object()}, path)
    assert report.read(path) == {"a": 1}
    with pytest.raises(UserError, match="cannot be written"):
        report.write({}, path / "below_a_file.json")
    for wrong in (tmp_path / "missing.json", tmp_path / "text.json"):
        (tmp_path / "text.json").write_text("no json")
        with pytest.raises(UserError, match="is not a result of this tool"):
            report.read(wrong)


def test_the_environment_names_the_machine():
    found = report.environment(parse(["--device", "cpu", "--threads", "3"]))
    assert (found["threads"], found["gpu"], found["tf32"]) == (3, None, False)
    assert found["cpu"]
    assert {"torch", "python", "commit"} < found.keys()
