"""Measure what a lossy setting changes: labels, mIoU and CPU time, on DATASETS.TEST.

Evaluates one model as its config says and, image by image in turn, with each set of changes.
`labels changed` counts pixels. `time` is the CPU time of the model relative to that without
changes.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Sequence

import torch
from detectron2.config import CfgNode
from tabulate import tabulate
from torch import Tensor

from cat_seg.engine import Trainer, check_weights, load_config, load_model
from cat_seg.engine.setup import check_device
from cat_seg.errors import UserError, one_line_errors
from cat_seg.evaluation.sem_seg import SemSegEvaluator
from cat_seg.evaluation.vocabulary import using_vocabulary, vocabulary_of
from cat_seg.modeling.reduction import Argmax
from cat_seg.modeling.segmentor import Segmentor
from cat_seg.utils.progress import bar

EXAMPLE = """\
example:
  python -m tools.agreement --config-file output/quickstart/full/config.yaml \\
      --change TEST.AMP.ENABLED True --change TEST.MOST_CLASSES 14 \\
      --opts MODEL.WEIGHTS output/quickstart/full/model_final.pth
"""


class Setting:
    """One model with its changes, and what was counted of its labels.

    Attributes:
        changed: pixels whose label differs from that without changes.
        seconds: CPU time of the model.
        scores: mIoU in percent, one for each dataset.
    """

    def __init__(self, cfg: CfgNode, changes: Sequence[str]) -> None:
        """Load the model of `cfg` with the changes (KEY, VALUE, ...).

        Raises:
            UserError: the changes or the weights cannot be used.
        """
        self.name = " ".join(changes) or "no change"
        self.model: Segmentor = load_model(cfg, cfg.MODEL.WEIGHTS)
        self.changed, self.seconds = 0, 0.0
        self.scores: list[float] = []

    def segment(self, batch: Sequence[dict]) -> list[Tensor]:
        """Return the labels (H, W) of each image."""
        start = time.process_time()
        labels = [winners.labels.cpu() for winners in self.model.segment(batch, Argmax)]
        self.seconds += time.process_time() - start
        return labels


def compare(cfg: CfgNode, settings: Sequence[Setting], dataset: str) -> int:
    """Evaluate all settings on a dataset, count the changed labels, and return the pixels.

    Args:
        cfg: the config without changes; the loader follows it.
        settings: the first is the reference.
        dataset: a registered dataset.
    """
    evaluators = [SemSegEvaluator(dataset) for _ in settings]
    loader, pixels = Trainer.build_test_loader(cfg, dataset), 0
    for batch in bar(iterable=loader, total=len(loader), unit="batch"):
        readable = [sample for sample in batch if "unreadable" not in sample]
        reference = None
        for setting, evaluator in zip(settings, evaluators, strict=True):
            with using_vocabulary(setting.model, vocabulary_of(cfg, dataset)), torch.no_grad():
                labels = setting.segment(readable)
            evaluator.process(readable, [{"labels": found} for found in labels])
            reference = reference or labels
            for found, own in zip(labels, reference, strict=True):
                setting.changed += int((found != own).sum())
        pixels += sum(own.numel() for own in reference or ())
    for setting, evaluator in zip(settings, evaluators, strict=True):
        setting.scores.append((evaluator.evaluate() or {})["sem_seg"]["mIoU"])
    return pixels


def parse(argv: Sequence[str] | None) -> argparse.Namespace:
    """Parse the command line."""
    parser = argparse.ArgumentParser(
        prog="python -m tools.agreement",
        description=__doc__,
        epilog=EXAMPLE,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--config-file", required=True, help="config of the model")
    parser.add_argument(
        "--change",
        nargs="+",
        action="append",
        required=True,
        metavar="KEY VALUE",
        help="a setting to compare with the config; repeat it for several comparisons",
    )
    parser.add_argument(
        "--opts", nargs="*", default=[], metavar="KEY VALUE", help="config changes for all"
    )
    return parser.parse_args(argv)


@one_line_errors
def main(argv: Sequence[str] | None = None) -> None:
    """Print one row for the model without changes and one for each change."""
    args = parse(argv)
    cfgs = [load_config(args.config_file, [*args.opts, *new]) for new in ([], *args.change)]
    cfg = cfgs[0]
    check_device(cfg)
    check_weights(cfg, cfg.MODEL.WEIGHTS, resume=False)
    if not cfg.DATASETS.TEST:
        raise UserError("DATASETS.TEST is empty; name the datasets to evaluate on")
    settings = [Setting(*each) for each in zip(cfgs, ([], *args.change), strict=True)]
    pixels = sum(compare(cfg, settings, dataset) for dataset in cfg.DATASETS.TEST)
    rows = [
        [
            setting.name,
            f"{100 * setting.changed / max(pixels, 1):.3f}",
            *(f"{score:.2f}" for score in setting.scores),
            f"{setting.seconds / settings[0].seconds:.2f}",
        ]
        for setting in settings
    ]
    headings = ["setting", "labels changed, %", *(f"mIoU {n}" for n in cfg.DATASETS.TEST), "time"]
    print(tabulate(rows, headings, tablefmt="github", disable_numparse=True))


if __name__ == "__main__":
    main()
