from __future__ import annotations

import pytest

from cat_seg.cli.configs import main
from cat_seg.engine import load_config
from cat_seg.utils.paths import REPO_ROOT


def test_every_config_is_listed_with_its_first_comment(capsys):
    assert main([]) == 0
    listed = dict(line.split(maxsplit=1) for line in capsys.readouterr().out.splitlines())
    files = {file.stem: file for file in (REPO_ROOT / "configs").glob("*.yaml")}
    assert listed.keys() == files.keys()
    for name, summary in listed.items():
        assert f"# {summary}" == files[name].read_text().splitlines()[0]


@pytest.mark.parametrize("name", ["vitb_384_oft", "vitb_384_oft.yaml", "configs/vitb_384_oft.yaml"])
def test_one_is_printed(capsys, name):
    main([name])
    assert capsys.readouterr().out == (REPO_ROOT / "configs/vitb_384_oft.yaml").read_text()


def test_a_copy_loads_with_its_bases(tmp_path, capsys):
    target = tmp_path / "mine" / "my.yaml"
    main(["vitb_384_hpa_only", str(target)])
    assert load_config(str(target)) == load_config("configs/vitb_384_hpa_only.yaml")
    written = [line.removeprefix("wrote ") for line in capsys.readouterr().out.splitlines()]
    assert sorted(written) == sorted(str(file) for file in target.parent.iterdir())


def test_nothing_is_overwritten(tmp_path, capsys):
    target = tmp_path / "my.yaml"
    target.write_text("mine")
    base = tmp_path / "config.yaml"
    base.write_text("mine too")
    with pytest.raises(SystemExit) as ended:
        main(["vitb_384", str(target)])
    assert ended.value.code == 2
    assert "exists" in capsys.readouterr().err
    main(["vitb_384", str(tmp_path / "other.yaml")])
    assert (target.read_text(), base.read_text()) == ("mine", "mine too")


@pytest.mark.parametrize(
    ("arguments", "problem"),
    [(["nothing"], "unknown config 'nothing'; choose from"), (["vitb_384", "x"], "a .yaml")],
)
def test_wrong_arguments_are_one_line(capsys, arguments, problem):
    with pytest.raises(SystemExit) as ended:
        main(arguments)
    assert ended.value.code == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("error: ")
    assert problem in line
