"""File type detection, and explanations of why a file is not a readable checkpoint."""

from __future__ import annotations

import re
import zipfile
from pathlib import Path

HEAD = 1024  # bytes to inspect at the start of a file
AGAIN = "download it again"
CUT_OFF = f"is truncated: the download or copy was interrupted; {AGAIN}"
_LFS = b"version https://git-lfs.github.com/spec/"
_ZIP = b"PK\x03\x04"
_PICKLE = b"\x80"  # followed by the protocol number
_LEGACY = b"\x8a\nl\xfc\x9cF\xf9 j\xa8P\x19."  # PyTorch's magic number, after the pickle protocol
_ARCHIVES = {
    b"\x1f\x8b": "a gzip archive",
    b"BZh": "a bzip2 archive",
    b"\xfd7zXZ": "an xz archive",
    b"7z\xbc\xaf": "a 7-Zip archive",
    b"Rar!": "a RAR archive",
}
_CONTROL = bytes(code for code in range(32) if code not in b"\t\n\r\f") + b"\x7f"
_WANTED = "give a PyTorch (.pth, .pt, .bin) or safetensors file"


def is_zip(path: Path) -> bool:
    """Return whether the file is a complete zip archive, such as PyTorch writes."""
    return zipfile.is_zipfile(path)


def is_torchscript(path: Path) -> bool:
    """Return whether the file is a TorchScript archive, such as OpenAI's CLIP."""
    return is_zip(path) and any(name.endswith("/constants.pkl") for name in _members(path))


def is_safetensors(path: Path) -> bool:
    """Return whether the file starts like a safetensors file, whatever its suffix."""
    head = _head(path)
    return head[8:9] == b"{" and int.from_bytes(head[:8], "little") < 2**31


def why_no_checkpoint(path: Path) -> str | None:
    """Say what the file is if its first bytes show that it is not a complete checkpoint.

    Returns:
        The rest of a sentence that starts with the file's name, or None.

    Raises:
        OSError: the file cannot be read.
    """
    head = _head(path)
    if is_safetensors(path):  # check first: its leading length bytes can match any magic number
        whole = path.stat().st_size >= 8 + int.from_bytes(head[:8], "little")
        return None if whole else CUT_OFF
    text = head.removeprefix(b"\xef\xbb\xbf").lstrip()
    if not text:
        return f"is empty; {AGAIN}"
    if text.startswith(_LFS):
        return "is a Git LFS pointer, not the file itself; run git lfs pull"
    is_text = not any(byte in _CONTROL for byte in head)
    if is_text and text.startswith(b"<"):
        return f"is a web page, not a checkpoint: the download failed; {AGAIN}"
    for magic, name in _ARCHIVES.items():
        if head.startswith(magic):
            return f"is {name}, not a checkpoint; unpack it first"
    if head[257:262] == b"ustar" and not is_zip(path):
        return "is a tar archive, not a checkpoint; unpack it first"
    if head.startswith(_ZIP):
        return _why_no_zip(path)
    if _is_plain_pickle(path, head):
        return (
            "is a plain pickle file, such as detectron2's .pkl files: loading it could run code"
            " from the file; save its tensors with torch.save or as safetensors first"
        )
    if is_text:
        begin = text.decode(errors="replace").splitlines()[0][:40]
        return f"is a text file that starts with {begin!r}, not a checkpoint; {_WANTED}"
    return None


def why_unreadable(error: Exception) -> str:
    """Turn the reader's error on a file that looked like a checkpoint into an explanation."""
    text = str(error)
    if found := re.search(r"GLOBAL (\S+)", text):
        return (
            f"contains a Python object ({found[1]}), and loading it could run code from the file;"
            " save only the model's state_dict with torch.save"
        )
    cut = (
        "ran out of input",
        "unexpected eof",
        "unexpected end",
        "incomplete",
        "not fully covered",
    )
    if isinstance(error, EOFError) or any(sign in text.lower() for sign in cut):
        return CUT_OFF
    reason = re.sub(r"\x1b\[[0-9;]*m", "", text).strip().splitlines()
    return (
        "is damaged, or not a checkpoint that can be loaded safely"
        f" ({(reason or [type(error).__name__])[0][:120]}); {AGAIN}"
    )


def _head(path: Path) -> bytes:
    with open(path, "rb") as file:
        return file.read(HEAD)


def _members(path: Path) -> list[str]:
    try:
        with zipfile.ZipFile(path) as archive:
            return archive.namelist()
    except (zipfile.BadZipFile, NotImplementedError, ValueError, EOFError):
        return []


def _why_no_zip(path: Path) -> str | None:
    if not is_zip(path):
        return CUT_OFF
    names = _members(path)
    if names and not any(name.endswith(("data.pkl", "constants.pkl")) for name in names):
        return f"is a zip archive that contains {names[0]!r}, not a checkpoint; unpack it first"
    return None


def _is_plain_pickle(path: Path, head: bytes) -> bool:
    if head[:1] == _PICKLE:
        return not _LEGACY.startswith(head[2 : 2 + len(_LEGACY)])
    return path.suffix.lower() in (".pkl", ".pickle")
