"""Evaluate one set of weights on every benchmark that is on disk, and print one table.

Follows the published protocol: sliding windows, no pooling in the class aggregation, and each
benchmark's own classes. With `--benchmarks MESS`, the benchmarks are the 22 datasets of MESS, and a
second table has the means over its domains. Takes train_net.py's arguments; each benchmark's
results go to OUTPUT_DIR/inference/<dataset>/results.json. Existing results with the same weights,
settings and data are kept. Unusable images are skipped and reported. The exit status is nonzero if
images were skipped or a benchmark failed.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence

from detectron2.config import get_cfg

from cat_seg.data import BENCHMARKS, datasets_named, datasets_root, is_on_disk
from cat_seg.data.catalog import LABELS, is_group, is_mess
from cat_seg.data.registration import spec_of
from cat_seg.engine import argument_parser, check_weights, launch, load_config
from cat_seg.engine.benchmarks import run
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
        help=f"benchmarks ({', '.join(benchmark.label for benchmark in BENCHMARKS)}), MESS or some "
        "of its 22 datasets (docs/mess.md), or dataset names to evaluate on (default: the six "
        "benchmarks)",
    )
    parser.add_argument(
        "--check",
        action="store_true",
        help="check whether any of the six benchmarks, or all of --benchmarks, are on disk, and "
        "exit",
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


def check_benchmarks(names: Sequence[str] = ()) -> None:
    """Check that there is data to evaluate on, before spending days on training.

    Args:
        names: from the command line. All of these datasets have to be on disk; without names, at
            least one of the six benchmarks.

    Raises:
        UserError: data is missing; the message says where it is expected.
    """
    datasets = _resolve(names)
    missing = [dataset for dataset in datasets if not is_on_disk(dataset)]
    if names and missing:
        raise UserError(_not_found(missing, f"{len(missing)} of {len(datasets)} datasets not"))
    if len(missing) == len(datasets):
        raise UserError(
            f"no benchmark dataset found in {datasets_root()}; see datasets/README.md, "
            "or train without evaluating with train_enhanced.sh"
        )


def _resolve(names: Sequence[str]) -> list[str]:
    try:
        return datasets_named(names or [benchmark.dataset for benchmark in BENCHMARKS])
    except UserError as error:
        raise UserError(f"--benchmarks: {error}") from error


def _not_found(datasets: Sequence[str], count: str) -> str:
    """Return a line about datasets that are not on disk, which begins with `count`."""
    if len(datasets) == 1:
        return spec_of(datasets[0]).missing()
    pages = dict.fromkeys(
        "docs/mess.md" if is_mess(dataset) else "datasets/README.md" for dataset in datasets
    )
    listed = ", ".join(LABELS.get(dataset, dataset) for dataset in datasets)
    return f"{count} found in {datasets_root()}: {listed}; see {' and '.join(pages)}"


@one_line_errors
@rank_0_reports_first()
def main() -> None:
    """Parse the command line and start the processes."""
    args = parse_arguments()
    if args.check:
        check_benchmarks(args.benchmarks)
        return
    cfg = load_config(args.config_file, [*protocol_overrides(), *args.opts])
    args.datasets = _resolve(args.benchmarks)
    # A group is evaluated as far as it is on disk, like the six by default.
    single = [name for name in args.benchmarks if not is_group(name)]
    args.required = _resolve(single) if single else []
    if not args.resume:
        check_weights(cfg, cfg.MODEL.WEIGHTS, resume=False)
    cfg.DATASETS.TEST = tuple(filter(is_on_disk, args.datasets))
    if not cfg.DATASETS.TEST:
        raise UserError(_not_found(args.datasets, "no benchmark dataset"))
    launch(run, cfg, args)
