"""Implementation of the shell scripts: train, resume, evaluate and compare.

Each step runs in its own child process. This module imports nothing heavy, so that argument errors
are reported immediately.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NoReturn

from cat_seg.cli.child import FIRST_SIGNAL, run
from cat_seg.errors import UserError
from cat_seg.utils.paths import WORK_ROOT, resolve

VARIANTS = ("oft", "hpa_only", "afr_only", "enhanced")
KEY = re.compile(r"[A-Z0-9_]+(\.[A-Z0-9_]+)+|SEED|OUTPUT_DIR|BENCHMARKS")


@dataclass(frozen=True)
class Arguments:
    """The command line of a script.

    positional: arguments before the first config key.
    overrides: KEY VALUE KEY VALUE ..., without OUTPUT_DIR.
    output: the value of OUTPUT_DIR.
    """

    positional: list[str]
    overrides: list[str]
    output: str | None


@dataclass(frozen=True)
class Script:
    """A script: its usage line, and the function that runs it and returns its exit status."""

    usage: str
    run: Callable[[Script, Sequence[str]], int]

    def fail(self, message: str) -> NoReturn:
        """Print an error and the usage, and exit with status 2."""
        print(f"error: {message}\nusage: {self.usage}", file=sys.stderr)
        raise SystemExit(2)

    def parse(self, argv: Sequence[str], most: int) -> Arguments:
        """Split a command line into at most `most` positional arguments and KEY VALUE pairs."""
        rest = [*argv]
        positional: list[str] = []
        while rest and len(positional) < most and not KEY.fullmatch(rest[0]):
            if rest[0] in ("-h", "--help"):
                print(f"usage: {self.usage}")
                raise SystemExit(0)
            positional.append(rest.pop(0))
        overrides: list[str] = []
        output = None
        while rest:
            key = rest.pop(0)
            if not KEY.fullmatch(key):
                self.fail(f"expected a config key such as SOLVER.MAX_ITER, not '{key}'")
            if not rest:
                self.fail(f"{key} needs a value")
            value = rest.pop(0)
            if key == "OUTPUT_DIR":
                output = value
            else:
                overrides += [key, value]
        return Arguments(positional, overrides, output)

    def gpus(self, text: str) -> str:
        """Check NUM_GPUS."""
        if not re.fullmatch("[1-9][0-9]*", text):
            self.fail(f"NUM_GPUS is '{text}'; it must be a positive integer")
        return text

    def config(self, path: str) -> str:
        """Check that a config file exists."""
        if not resolve(path).is_file():
            self.fail(f"config '{path}' not found; see configs/")
        return path

    def weights(self, text: str) -> str:
        """Find weights; a relative path also resolves from the repository root.

        Returns:
            A path, or the name of a model or repository; see `cat_seg.hub.locate`.
        """
        if resolve(text).exists():
            return str(resolve(text))
        # Imported here, because all other uses of the scripts need not wait for PyTorch.
        from cat_seg.hub.locating import check_name

        try:
            check_name(text)
            return text
        except UserError:
            self.fail(f"weights '{text}' not found; give a file, a folder or a model's name")


def train_enhanced(script: Script, argv: Sequence[str]) -> int:
    """Train HPS-Seg, or the model in CONFIG."""
    arguments = script.parse(argv, 3)
    gpus, config, output = _training(script, arguments, "configs/vitb_384_enhanced.yaml")
    return _train(gpus, config, output, arguments.overrides)


def run_train_test(script: Script, argv: Sequence[str]) -> int:
    """Train and evaluate HyperCLIP, or the model in CONFIG."""
    arguments = script.parse(argv, 3)
    gpus, config, output = _training(script, arguments, "configs/vitb_384_hyperbolic.yaml")
    return (
        _check_benchmarks()
        or _train_once(gpus, config, output, arguments.overrides)
        or _evaluate(gpus, config, output / "model_final.pth", arguments.overrides)
    )


def eval_enhanced(script: Script, argv: Sequence[str]) -> int:
    """Evaluate one set of weights on every benchmark that is on disk, or on those of BENCHMARKS."""
    arguments = script.parse(argv, 3)
    if len(arguments.positional) < 2:
        script.fail("CONFIG and WEIGHTS are required")
    config, weights, *rest = arguments.positional
    config, file = script.config(config), script.weights(weights)
    gpus = script.gpus(rest[0] if rest else "1")
    pairs = dict(zip(arguments.overrides[::2], arguments.overrides[1::2], strict=True))
    names = pairs.pop("BENCHMARKS", "")
    chosen = ["--benchmarks", *names.split(",")] if names else []
    overrides = [*chosen, *(text for pair in pairs.items() for text in pair)]
    return _evaluate(gpus, config, file, overrides, arguments.output)


def train_ablation(script: Script, argv: Sequence[str]) -> int:
    """Train and evaluate the baseline, each innovation alone, and both; print the results table."""
    arguments = script.parse(argv, 2)
    positional = arguments.positional
    gpus = script.gpus(positional[0] if positional else "4")
    given = arguments.output or (positional[1] if len(positional) > 1 else None)
    root = Path(given) if given else WORK_ROOT / "output" / "ablation"
    if status := _check_benchmarks():
        return status

    failed = []
    for index, name in enumerate(VARIANTS):
        step = f"variant {name} ({index + 1} of {len(VARIANTS)})"
        print(step, flush=True)
        config, output = f"configs/vitb_384_{name}.yaml", root / name
        status = _train_once(gpus, config, output, arguments.overrides)
        if status:
            return _unfinished(step, status)
        status = _evaluate(gpus, config, output / "model_final.pth", arguments.overrides)
        if status >= FIRST_SIGNAL:
            return _unfinished(step, status)
        if status:  # continue with the other variants
            failed.append(name)
    table = (str(root), "--output", str(root / "results.md"), "--chart", str(root / "results.png"))
    if status := run("results", *table):
        return _unfinished("the results table", status)
    return _unfinished(f"the evaluation of {' '.join(failed)}", 1) if failed else 0


SCRIPTS = {
    "train_enhanced": Script(
        "train_enhanced.sh [NUM_GPUS=4] [CONFIG=configs/vitb_384_enhanced.yaml] "
        "[OUTPUT_DIR=output/NAME for vitb_384_NAME.yaml] [KEY VALUE ...]",
        train_enhanced,
    ),
    "run_train_test": Script(
        "run_train_test.sh [NUM_GPUS=4] [CONFIG=configs/vitb_384_hyperbolic.yaml] "
        "[OUTPUT_DIR=output/NAME for vitb_384_NAME.yaml] [KEY VALUE ...]",
        run_train_test,
    ),
    "eval_enhanced": Script(
        "eval_enhanced.sh CONFIG WEIGHTS [NUM_GPUS=1] [OUTPUT_DIR FOLDER] [BENCHMARKS NAME,...] "
        "[KEY VALUE ...]",
        eval_enhanced,
    ),
    "train_ablation": Script(
        "train_ablation.sh [NUM_GPUS=4] [OUTPUT_ROOT=output/ablation] [KEY VALUE ...]",
        train_ablation,
    ),
}


def main(argv: Sequence[str] | None = None) -> int:
    """Run the script named by the first argument and return its exit status."""
    name, *rest = sys.argv[1:] if argv is None else argv
    script = SCRIPTS[name]
    return script.run(script, rest)


def _training(script: Script, arguments: Arguments, default: str) -> tuple[str, str, Path]:
    """Return NUM_GPUS, CONFIG and the output folder of a training."""
    gpus, config, output = [*arguments.positional, *[None] * 3][:3]
    gpus, config = script.gpus(gpus or "4"), script.config(config or default)
    name = Path(config).name.removesuffix(".yaml").removeprefix("vitb_384_")
    given = arguments.output or output
    return gpus, config, Path(given) if given else WORK_ROOT / "output" / name


def _check_benchmarks() -> int:
    """Check that there is a benchmark to evaluate on, before spending days on training."""
    return run("evaluate", "--check")


def _train(gpus: str, config: str, output: Path, overrides: Sequence[str]) -> int:
    resume = ["--resume"] if (output / "last_checkpoint").exists() else []
    given = ("--num-gpus", gpus, "--config-file", config, *resume, "OUTPUT_DIR", str(output))
    return run("train", *given, *overrides)


def _train_once(gpus: str, config: str, output: Path, overrides: Sequence[str]) -> int:
    final = output / "model_final.pth"
    if final.exists():
        print(f"{final} already exists; skipping training", flush=True)
        return 0
    return _train(gpus, config, output, overrides)


def _evaluate(
    gpus: str,
    config: str,
    weights: Path | str,
    overrides: Sequence[str],
    output: str | None = None,
) -> int:
    """Evaluate weights into `output`, by default `_evaluation_folder`; returns the exit status.

    MODEL.WEIGHTS comes last: in the overrides it names the weights that training started from.
    """
    where = output or str(_evaluation_folder(Path(weights)))
    given = ("--num-gpus", gpus, "--config-file", config, *overrides)
    return run("evaluate", *given, "MODEL.WEIGHTS", str(weights), "OUTPUT_DIR", where)


def _evaluation_folder(weights: Path) -> Path:
    """Return the folder eval beside model_final.pth or in a folder, eval_NAME for others."""
    if weights.is_dir():
        return weights / "eval"
    if not weights.is_file():  # the name of a model
        return WORK_ROOT / "output" / f"eval_{weights.name}"
    return weights.parent / ("eval" if weights.stem == "model_final" else f"eval_{weights.stem}")


def _unfinished(step: str, status: int) -> int:
    print(
        f"unfinished: {step}; completed work is kept, run the same command again to resume",
        file=sys.stderr,
    )
    return status
