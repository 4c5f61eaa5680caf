"""Open a page in the browser that segments pictures into the classes you name."""

from __future__ import annotations

import argparse
import importlib.util
from collections.abc import Sequence
from pathlib import Path

from detectron2.utils.logger import setup_logger

from cat_seg.data import IMAGE_SUFFIXES
from cat_seg.errors import UserError, one_line_errors, printable
from cat_seg.inference import from_pretrained
from cat_seg.utils.paths import WORK_ROOT

QUICKSTART = WORK_ROOT / "output" / "quickstart"
QUICKSTART_RUNS = ("full", "full_hyperbolic")
QUICKSTART_IMAGES = QUICKSTART / "datasets" / "quickstart" / "images"
MOST_MODELS = 2
MOST_EXAMPLES = 6
EXAMPLE = """\
examples:
  %(prog)s
  %(prog)s --model cat-seg-base
  %(prog)s --model output/first --model output/second
"""


def parse_args(argv: Sequence[str] | None) -> argparse.Namespace:
    """Parse the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, epilog=EXAMPLE, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--model",
        nargs="+",
        action="extend",
        default=[],
        metavar="NAME",
        help="a model's name, folder or file; two are shown side by side "
        "(default: that of `make quickstart`)",
    )
    parser.add_argument("--config-file", help="config of a --model that is a file")
    parser.add_argument("--device", help="cuda, cuda:1, mps or cpu (default: the best there is)")
    parser.add_argument(
        "--host", default="127.0.0.1", help="address to listen on (default: %(default)s)"
    )
    parser.add_argument(
        "--port", type=int, default=7860, help="port to listen on, 0 for any (default: %(default)s)"
    )
    parser.add_argument(
        "--share", action="store_true", help="also open a public address, through gradio's server"
    )
    parser.add_argument(
        "--examples", type=Path, metavar="FOLDER", help="folder of pictures to offer on the page"
    )
    parser.add_argument(
        "--opts",
        nargs="*",
        default=[],
        metavar="KEY VALUE",
        help="config changes, as MODEL.TF32 True",
    )
    args = parser.parse_args(argv)
    if len(args.model) > MOST_MODELS:
        parser.error(f"--model: at most {MOST_MODELS} models are shown side by side")
    return args


def default_model(folder: Path) -> Path:
    """Return the folder of the model that the quickstart trained in `folder`.

    Raises:
        UserError: there is none.
    """
    for name in QUICKSTART_RUNS:
        if (folder / name / "model_final.pth").is_file():
            return folder / name
    raise UserError(
        "there is no model yet: run `make quickstart`, which trains a small one, or give --model"
    )


def find_examples(folder: Path | None, is_quickstart: bool) -> list[Path]:
    """List the pictures to offer.

    Args:
        folder: where to look; None for the quickstart's validation images, if its model is used,
            or a photograph that comes with matplotlib.
        is_quickstart: whether the quickstart's model is used.

    Raises:
        UserError: the folder has no pictures.
    """
    if folder is not None:
        found = _pictures(folder) if folder.is_dir() else []
        if not found:
            raise UserError(f"--examples {folder}: no images there; give a folder of images")
        return found[:MOST_EXAMPLES]
    if is_quickstart:
        splits = [_pictures(split) for split in sorted(QUICKSTART_IMAGES.glob("*val*"))]
        return [path for split in splits for path in split[: MOST_EXAMPLES // 2]]
    import matplotlib

    photograph = Path(matplotlib.get_data_path(), "sample_data", "grace_hopper.jpg")
    return [photograph] if photograph.is_file() else []


def _pictures(folder: Path) -> list[Path]:
    return sorted(path for path in folder.iterdir() if path.suffix.lower() in IMAGE_SUFFIXES)


@one_line_errors
def main(argv: Sequence[str] | None = None) -> int:
    """Serve the page until it is interrupted, and return the exit status."""
    args = parse_args(argv)
    if importlib.util.find_spec("gradio") is None:
        raise UserError("the page needs gradio: run pip install 'gradio>=6,<7'")
    from cat_seg.app.server import Server  # it imports gradio, an extra

    setup_logger(name="cat_seg")
    sources = args.model or [str(default_model(QUICKSTART))]
    examples = find_examples(args.examples, is_quickstart=not args.model)
    models = [
        from_pretrained(source, device=args.device, config_file=args.config_file, opts=args.opts)
        for source in sources
    ]
    with Server(
        models, host=args.host, port=args.port, share=args.share, examples=examples
    ) as server:
        print(f"The page is at {server.url} (Ctrl-C stops it)", flush=True)
        if server.share_url:
            print(f"Anyone can open it at {printable(server.share_url)}", flush=True)
        server.wait()
    return 0
