"""Configs from YAML files and the command line, with one-line error messages."""

from __future__ import annotations

import ast
import difflib
import logging
import os
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from detectron2.config import CfgNode, get_cfg

from cat_seg.config import add_cat_seg_config
from cat_seg.configuration.checks import check_values
from cat_seg.configuration.files import parse_yaml, read_config_files
from cat_seg.configuration.published import check_published, is_published
from cat_seg.data.custom import register_custom
from cat_seg.errors import UserError
from cat_seg.utils.paths import resolve

logger = logging.getLogger(__name__)

_HELP = "cat_seg/config.py and detectron2's config/defaults.py list the keys"
# Keys of MODEL.SEM_SEG_HEAD that may name a file in the folder of the config.
_BESIDE = ("TRAIN_CLASS_JSON", "TEST_CLASS_JSON", "CLIP_PRETRAINED", "CLIP_WEIGHTS")
_OWN = ("DATASETS.CUSTOM.", "MODEL.ADAPTER.")


def load_config(config_file: str, overrides: Sequence[str] = ()) -> CfgNode:
    """Build a config from a file and KEY VALUE pairs, and register its custom datasets.

    The published configs of CAT-Seg, H-CLIP, HPS-Seg and HyperCLIP load unchanged. Their keys
    without effect here are logged in one line; see `cat_seg.configuration.published`.

    Args:
        config_file: a YAML file; a relative path also resolves from the repository root. "" uses
            the defaults. A class list, CLIP config or CLIP weights named without a folder are
            looked up beside the file first.
        overrides: KEY VALUE KEY VALUE ...; the value of a section is YAML in braces.

    Raises:
        UserError: a missing or malformed file, an unknown key, a value of the wrong type or not
            supported, or a dataset that `cat_seg.data.custom.register_custom` refuses.
    """
    cfg = add_cat_seg_config(get_cfg())
    defaults = dict(leaves(cfg))
    published: dict[str, Any] = {}
    if config_file:
        for path, content in read_config_files(resolve(config_file)):
            try:
                merge(cfg, _with_files_beside(content, path), published)
            except UserError as error:
                raise UserError(f"{path}: {error}") from error
    _check_pairs(overrides)
    for key, value in zip(overrides[::2], overrides[1::2], strict=True):
        try:
            merge(cfg, _nested(key, value), published)
        except UserError as error:
            raise UserError(f"{_short(f'{key} {value}')}: {error}") from error
    changed = {
        key: value
        for key, value in published.items()
        if key not in defaults or _as_lists(value) != _as_lists(defaults[key])
    }
    unused = check_published(changed, cfg.MODEL.SEM_SEG_HEAD.CLIP_PRETRAINED)
    if unused:
        logger.warning(
            "Ignoring config keys that have no effect in this project: %s", ", ".join(unused)
        )
    check_values(cfg)
    register_custom(cfg)
    return cfg


def _with_files_beside(content: Mapping[str, Any], config: Path) -> Mapping[str, Any]:
    """Return a config file's content with absolute paths of the files beside it that it names."""
    model = content.get("MODEL")
    head = model.get("SEM_SEG_HEAD") if isinstance(model, Mapping) else None
    if not isinstance(model, Mapping) or not isinstance(head, Mapping):
        return content
    beside = {
        key: str(config.absolute().with_name(head[key]))
        for key in _BESIDE
        if isinstance(name := head.get(key), str)
        and name == os.path.basename(name) != ""
        and os.path.isfile(config.with_name(name))
    }
    return {**content, "MODEL": {**model, "SEM_SEG_HEAD": {**head, **beside}}}


def merge(cfg: CfgNode, section: Mapping[str, Any], published: dict[str, Any]) -> None:
    """Merge a nested mapping into a config, in place.

    Strings that are Python literals are evaluated, as in detectron2. An integer is accepted for a
    float, and a single value for a one-element list.

    Args:
        cfg: a full config.
        section: as read from YAML.
        published: filled with the keys, and their values, that exist only in the published code
            or that nothing here reads.

    Raises:
        UserError: naming the key that is unknown or whose value has the wrong type.
    """
    if section.get("VERSION", cfg.VERSION) != cfg.VERSION:
        raise UserError(
            f"VERSION is {section['VERSION']}; only configs of VERSION {cfg.VERSION} are supported"
        )
    _merge(cfg, section, published, ())


def _merge(
    node: CfgNode, section: Mapping[str, Any], published: dict[str, Any], path: tuple[str, ...]
) -> None:
    for name, raw in section.items():
        key = ".".join((*path, str(name)))
        current = node.get(name)
        if isinstance(current, CfgNode):
            if raw is None:  # a section whose keys are all commented out
                continue
            if not isinstance(raw, Mapping):
                raise UserError(
                    f"{key} is a section, not a value; nest its keys in it instead of "
                    f"{_short(repr(raw))}"
                )
            if current.is_new_allowed():
                _add(current, raw, published, (*path, name))
            else:
                _merge(current, raw, published, (*path, name))
        elif name not in node:
            for leaf, value in leaves(raw, key):
                if not is_published(leaf):
                    raise UserError(_unknown(leaf))
                published[leaf] = _decoded(value)
        elif isinstance(raw, Mapping):
            raise UserError(f"{key} is not a section; set it to {_kind(current)}; {_HELP}")
        else:
            node[name] = _converted(key, raw, current)
            if is_published(key):
                published[key] = node[name]


def _add(
    node: CfgNode, section: Mapping[str, Any], published: dict[str, Any], path: tuple[str, ...]
) -> None:
    """Merge into a section that accepts arbitrary keys, and may have sections that do not."""
    for key, raw in section.items():
        name = str(key)
        current = node.get(name)
        if isinstance(current, CfgNode) and not current.is_new_allowed():
            _merge(node, {name: raw}, published, path)
        elif not isinstance(raw, Mapping):
            node[name] = raw
        else:
            if not isinstance(current, CfgNode):
                node[name] = CfgNode(new_allowed=True)
            _add(node[name], raw, published, (*path, name))


def _converted(key: str, raw: Any, current: Any) -> Any:
    """Convert a value to the type of the current one."""
    value = _decoded(raw)
    if current is None:
        return value
    if value is None:
        raise UserError(f"{key} has no value; set it to {_kind(current)}, such as {current!r}")
    if isinstance(current, str) and isinstance(raw, str):
        return value if isinstance(value, str) else raw
    if isinstance(current, list | tuple):
        example = _example(key, current)
        value = type(current)(value if isinstance(value, list | tuple) else (value,))
        # Check only, keep the numbers as given: INPUT.CROP.SIZE takes integer pixels or fractions.
        fits = all(_fits(_number(one, example), example) for one in value)
    else:
        value = _number(value, current)
        fits = _fits(value, current)
    if not fits:
        raise UserError(
            f"{key} is {_short(repr(raw))}; set it to {_kind(current)}, such as {current!r}"
        )
    return value


def _decoded(raw: Any) -> Any:
    if not isinstance(raw, str):
        return raw
    try:
        return ast.literal_eval(raw)
    except (ValueError, SyntaxError, TypeError, MemoryError, RecursionError):
        return raw


def _example(key: str, values: Sequence[Any]) -> Any:
    """Return an example of a list's element type, or None if any type is allowed."""
    if key.startswith("DATASETS."):
        return ""
    return values[0] if values else None


def _number(value: Any, example: Any) -> Any:
    return float(value) if type(value) is int and isinstance(example, float) else value


def _fits(value: Any, example: Any) -> bool:
    if isinstance(example, list | tuple):
        return isinstance(value, list | tuple)
    return example is None or type(value) is type(example)


def _kind(value: Any) -> str:
    kinds = {bool: "True or False", int: "an integer", float: "a number", str: "a string"}
    return kinds.get(type(value), "a list")


def _as_lists(value: Any) -> Any:
    return [_as_lists(one) for one in value] if isinstance(value, list | tuple) else value


def leaves(value: Any, key: str = "") -> Iterator[tuple[str, Any]]:
    """Yield every value in a nested mapping with its dotted key; a list is one value."""
    if isinstance(value, Mapping) and value:
        for name, below in value.items():
            yield from leaves(below, f"{key}.{name}" if key else str(name))
    else:
        yield key, value


def _unknown(key: str) -> str:
    known = [name for name, _ in leaves(add_cat_seg_config(get_cfg()))]
    if key in known:
        return (
            f"{key}: keys with dots do not work in a file; nest it, as in SOLVER: {{MAX_ITER: 100}}"
        )
    close = difflib.get_close_matches(key, known, n=1)
    guess = f"did you mean {close[0]}?" if close else _HELP
    return f"unknown config key {key}; {guess}"


def _check_pairs(overrides: Sequence[str]) -> None:
    for key in overrides[::2]:
        if key.startswith("--"):
            raise UserError(f"{key} comes after config overrides; put all options before KEY VALUE")
    if len(overrides) % 2:
        raise UserError(
            f"config overrides must be KEY VALUE pairs; a value is missing: {' '.join(overrides)}"
        )


def _nested(key: str, text: str) -> dict[str, Any]:
    section: Any = parse_yaml(text) if text.startswith("{") else text
    if key.startswith(_OWN):  # there is no default to take the type from
        section = _decoded(section)
    for part in reversed(key.split(".")):
        section = {part: section}
    return section


def _short(text: str) -> str:
    line = " ".join(text.split())
    return line if len(line) <= 120 else f"{line[:60]} ... {line[-60:]}"
