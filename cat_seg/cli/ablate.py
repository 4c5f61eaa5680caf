"""Train and evaluate H-CLIP, HPA alone, AFR alone and HPS-Seg, like train_ablation.sh."""

from __future__ import annotations

import sys
from collections.abc import Sequence

from cat_seg.cli.scripts import SCRIPTS

HELP = """\
usage: hps-seg ablate [NUM_GPUS=4] [OUTPUT_ROOT=output/ablation] [KEY VALUE ...]

Train and evaluate H-CLIP, HPA alone, AFR alone and HPS-Seg, then print the results table. Finished
steps are kept: run the same command again to resume. Use a separate folder for each seed.

examples:
  hps-seg ablate 4
  hps-seg ablate 4 output/ablation_seed1 SEED 1
"""


def main(argv: Sequence[str] | None = None) -> int:
    """Run the ablation and return its exit status."""
    given = [*(sys.argv[1:] if argv is None else argv)]
    if given[:1] in (["-h"], ["--help"]):
        print(HELP, end="")
        return 0
    script = SCRIPTS["train_ablation"]
    return script.run(script, given)
