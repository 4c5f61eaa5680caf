#!/usr/bin/env python
"""Train or evaluate a model; see --help."""

from __future__ import annotations

import argparse

from detectron2.config import CfgNode

from cat_seg.engine import (
    Trainer,
    argument_parser,
    beginning,
    evaluate,
    launch,
    load_config,
    setup,
)
from cat_seg.errors import one_line_errors


def run(cfg: CfgNode, args: argparse.Namespace) -> None:
    """Train, or with --eval-only evaluate, in this process."""
    if args.eval_only:
        evaluate(setup(cfg, args), resume=args.resume)
        return
    with beginning(cfg, args):
        trainer = Trainer(setup(cfg, args))
        trainer.resume_or_load(resume=args.resume)
    trainer.train()


@one_line_errors
def main() -> None:
    """Read the command line and start the processes."""
    args = argument_parser().parse_args()
    launch(run, load_config(args.config_file, args.opts), args)


if __name__ == "__main__":
    main()
