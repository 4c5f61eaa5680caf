"""Print the figures in the documents that are counted or computed, not measured."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Sequence

import torch
from tabulate import tabulate

from cat_seg.data import DATASETS
from cat_seg.data.vocabularies import load_vocabulary, shipped_names, shipped_path
from cat_seg.engine import load_config
from cat_seg.engine.schedule import build_lr_scheduler
from cat_seg.modeling.clip import build_clip
from cat_seg.modeling.clip.adapters import FINE_TUNINGS
from cat_seg.modeling.clip.prompt_check import PromptReport
from cat_seg.modeling.clip.prompts import Prompts

ARCHITECTURE, GRID, CONTEXT = "ViT-B/16", (24, 24), 77
PUBLISHED_CONFIG = "configs/vitb_384_hyperbolic.yaml"
PUBLISHED_ITERATIONS = (19, 30)  # counted from 0, those of HyperCLIP's published log

Rows = list[list[object]]


def parameters() -> Rows:
    """Return the parameters of CLIP that each way of fine-tuning trains."""
    rows: Rows = [["fine-tuning", "trained", "in all", "share, %"]]
    for name in FINE_TUNINGS:
        clip = build_clip(ARCHITECTURE, None, name, "single", GRID)
        total = sum(each.numel() for each in clip.parameters())
        trained = sum(each.numel() for each in clip.parameters() if each.requires_grad)
        rows.append([name, f"{trained:,}", f"{total:,}", f"{100 * trained / total:.2f}"])
    return rows


def classes() -> Rows:
    """Return what CLIP reads of the shipped class lists."""
    prompts = Prompts("single", CONTEXT)
    headings = ["vocabulary", "classes", "read as equal", "longest", "tokens", "prefixes"]
    rows: Rows = [headings]
    for name in shipped_names():
        names = load_vocabulary(shipped_path(name))
        report = PromptReport(prompts, names, name)
        tree = prompts.tree(names)
        lengths = tree.reached.sum(dim=1)
        equal = sum(map(len, report.same))
        tokens = int(lengths.sum())
        rows.append([name, len(names), equal, int(lengths.max()), tokens, len(tree.tokens)])
    return rows


def images() -> Rows:
    """Return the number of images of complete datasets."""
    return [["dataset", "images"], *([spec.name, spec.expected] for spec in DATASETS)]


def schedule() -> Rows:
    """Return the learning rate at the iterations of the published log, counted from 0."""
    cfg = load_config(PUBLISHED_CONFIG, [])
    parameter = torch.nn.Parameter(torch.zeros(1))
    optimizer = torch.optim.SGD([parameter], cfg.SOLVER.BASE_LR)
    scheduler = build_lr_scheduler(cfg, optimizer)
    rows: Rows = [["iteration", "learning rate"]]
    for iteration in range(max(PUBLISHED_ITERATIONS) + 1):
        if iteration in PUBLISHED_ITERATIONS:
            rows.append([iteration, f"{optimizer.param_groups[0]['lr']:.15f}"])
        optimizer.step()
        scheduler.step()
    return rows


COUNTS: dict[str, Callable[[], Rows]] = {
    "parameters": parameters,
    "classes": classes,
    "images": images,
    "schedule": schedule,
}


def main(argv: Sequence[str] | None = None) -> None:
    """Print a table."""
    parser = argparse.ArgumentParser(prog="python -m tools.figures.count", description=__doc__)
    parser.add_argument("what", choices=COUNTS)
    headings, *rows = COUNTS[parser.parse_args(argv).what]()
    print(tabulate(rows, headings, "github", disable_numparse=True))


if __name__ == "__main__":
    sys.exit(main())
