"""Evaluate one set of weights on every benchmark that is on disk, and print one table.

Follows the published protocol: sliding windows, no pooling in the class aggregation, and each
benchmark's own classes. Takes train_net.py's arguments; each benchmark's results go to
OUTPUT_DIR/inference/<dataset>/results.json. Existing results with the same weights, settings and
data are kept. Unusable images are skipped and reported. The exit status is nonzero if images were
skipped or a benchmark failed.
"""

from __future__ import annotations

import argparse

from detectron2.config import get_cfg

from cat_seg.data import BENCHMARKS, datasets_named, datasets_root, is_on_disk
from cat_seg.engine import argument_parser, check_weights, launch, load_config
from cat_seg.engine.benchmarks import LABELS, run
from cat_seg.engine.ranks import rank_0_reports_first
from cat_seg.errors import UserError, one_line_errors
from cat_seg.evaluation.protocol import protocol_overrides

EXAMPLE = """
example:
    $ %(prog)s --config-file configs/vitb_384_oft.yaml --benchmarks A-150 PC-59 \\
        MODEL.WEIGHTS output/oft/model_final.pth OUTPUT_DIR output/oft/eval
"""


def parse_arguments() -> argparse.Namespace:
    """Parse the command line."""
    parser = argument_parser(epilog=f"{__doc__}{EXAMPLE}")
    parser.add_argument(
        "--benchmarks",
        nargs="+",
        default=[],
        metavar="NAME",
        help=f"benchmarks ({', '.join(LABELS.values())}) or dataset names to evaluate on "
        "(default: all benchmarks)",
    )
    parser.add_argument(
        "--check", action="store_true", help="check whether any benchmark is on disk, and exit"
    )
    args = parser.parse_args()
    args.eval_only = True
    # If --benchmarks is the last option, argparse also assigns it the KEY VALUE pairs.
    sections = get_cfg()
    is_key = [name.split(".")[0] in sections for name in args.benchmarks]
    end = is_key.index(True) if any(is_key) else len(is_key)
    args.opts = args.benchmarks[end:] + args.opts
    args.benchmarks = args.benchmarks[:end]
    return args


def check_benchmarks() -> None:
    """Check that at least one benchmark is on disk, before spending days on training.

    Raises:
        UserError: there is none; the message says where benchmarks are expected.
    """
    if not any(is_on_disk(benchmark.dataset) for benchmark in BENCHMARKS):
        raise UserError(
            f"no benchmark dataset found in {datasets_root()}; see datasets/README.md, "
            "or train without evaluating with train_enhanced.sh"
        )


@one_line_errors
@rank_0_reports_first()
def main() -> None:
    """Parse the command line and start the processes."""
    args = parse_arguments()
    if args.check:
        check_benchmarks()
        return
    cfg = load_config(args.config_file, [*protocol_overrides(), *args.opts])
    try:
        args.datasets = datasets_named(args.benchmarks or [b.dataset for b in BENCHMARKS])
    except UserError as error:
        raise UserError(f"--benchmarks: {error}") from error
    if not args.resume:
        check_weights(cfg, cfg.MODEL.WEIGHTS, resume=False)
    cfg.DATASETS.TEST = tuple(filter(is_on_disk, args.datasets))
    if not cfg.DATASETS.TEST:
        raise UserError(f"no benchmark dataset found in {datasets_root()}; see datasets/README.md")
    launch(run, cfg, args)
