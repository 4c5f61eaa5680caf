"""Download of single files from the Hugging Face Hub, with one line for everything that fails.

The cache, the login and offline mode are those of huggingface_hub: HF_HOME or HF_HUB_CACHE,
HF_TOKEN or `hf auth login`, and HF_HUB_OFFLINE.
"""

from __future__ import annotations

import hashlib
import logging
import re
import shutil
from functools import lru_cache
from pathlib import Path
from typing import NamedTuple

from detectron2.utils import comm

from cat_seg.errors import UserError
from cat_seg.hub.failures import explained, is_absent, is_offline

logger = logging.getLogger(__name__)

_COMMIT = re.compile(r"[0-9a-f]{40}")
_SHA1_HEX, _SHA256_HEX = 40, 64  # digits


class Repo(NamedTuple):
    """A repository on the Hub at a branch, tag or commit."""

    repo_id: str
    repo_type: str = "model"
    revision: str = "main"

    def __str__(self) -> str:
        at = "" if self.revision == "main" else f"@{self.revision}"
        return f"{self.repo_id}{at}"


# Files that this process has fetched: it uses one version of each, and asks the Hub once.
_FETCHED: dict[tuple[Repo, str], Path] = {}


def fetch(repo: Repo, filename: str, size: int | None = None, sha256: str | None = None) -> Path:
    """Return the path of a file of a repository in the cache, downloading it if necessary.

    A file in the cache that is damaged is downloaded again. Processes of a distributed run take
    what is in the cache without asking the Hub.

    Args:
        repo: the repository.
        filename: path of the file in it.
        size: expected size in bytes, None if unknown.
        sha256: expected SHA-256 in lowercase hex, None if unknown.

    Raises:
        UserError: the file cannot be downloaded, is not in the cache in offline mode, or is not
            the expected one.
    """
    found = fetch_if_there(repo, filename, size, sha256)
    if found is None:
        raise UserError(f"{repo} on the Hub has no file {filename}")
    return found


def fetch_if_there(
    repo: Repo, filename: str, size: int | None = None, sha256: str | None = None
) -> Path | None:
    """Do the same as `fetch`, but return None if the repository does not have the file."""
    path = _FETCHED.get((repo, filename))
    if path is None or not path.exists():
        path = _cached(repo, filename) if comm.get_world_size() > 1 else None
    if path is None:
        path = _current(repo, filename, size)
    if path is None:
        return None
    if problem := _damage(path, size, sha256):
        _forget(path)
        logger.warning("%s in the cache %s; downloading it again", path, problem)
        path = _current(repo, filename, size)
        if path is not None and (problem := _damage(path, size, sha256)):
            _forget(path)
            raise UserError(
                f"{filename} of {repo} {problem}; it was not kept; "
                "try again later, or ask its owner whether the file was replaced"
            )
    if path is not None:
        _FETCHED[repo, filename] = path
    return path


def _current(repo: Repo, filename: str, size: int | None) -> Path | None:
    """Return the file as the Hub has it now, or from the cache if the Hub cannot be asked."""
    from huggingface_hub import get_hf_file_metadata, hf_hub_download, hf_hub_url

    cached = _cached(repo, filename)
    if cached is not None and _COMMIT.fullmatch(repo.revision):  # a commit never changes
        return cached
    try:
        # Asked here first, because hf_hub_download retries for half a minute without a network.
        found = get_hf_file_metadata(
            hf_hub_url(repo.repo_id, filename, repo_type=repo.repo_type, revision=repo.revision)
        )
    except Exception as error:  # the types depend on the version of huggingface_hub
        if is_absent(error):
            return None
        if cached is None:
            raise UserError(explained(error, repo, filename)) from error
        if not is_offline(error):
            logger.warning("%s; using the file in the cache", explained(error, repo, filename))
        return cached
    if size is not None and found.size is not None and found.size != size:
        raise UserError(
            f"{filename} of {repo} has {found.size} bytes on the Hub, but {size} are recorded; "
            "it was replaced, so give the revision that you mean (@REVISION)"
        )
    if cached is None:
        _check_room(found.size, f"{filename} of {repo}")
        logger.info("Downloading %s of %s from the Hub", filename, repo)
    try:
        path = hf_hub_download(
            repo.repo_id, filename, repo_type=repo.repo_type, revision=repo.revision
        )
    except Exception as error:
        raise UserError(explained(error, repo, filename)) from error
    return Path(path)


def _cached(repo: Repo, filename: str) -> Path | None:
    from huggingface_hub import try_to_load_from_cache

    try:
        found = try_to_load_from_cache(
            repo.repo_id, filename, repo_type=repo.repo_type, revision=repo.revision
        )
    except ValueError as error:  # a malformed repository id
        raise UserError(explained(error, repo, filename)) from error
    return Path(found) if isinstance(found, str) else None


def _check_room(size: int | None, what: str) -> None:
    from huggingface_hub.constants import HF_HUB_CACHE

    folder = Path(HF_HUB_CACHE)
    existing = next((path for path in (folder, *folder.parents) if path.exists()), None)
    if size is None or existing is None:
        return
    free = shutil.disk_usage(existing).free
    if free < size:
        raise UserError(
            f"{what} needs {size / 1e6:.0f} MB, but {folder} has room for {free / 1e6:.0f} MB; "
            "make room, or set HF_HUB_CACHE to another folder"
        )


def _damage(path: Path, size: int | None, sha256: str | None) -> str | None:
    """Say how a file in the cache differs from the expected one, or None if it does not.

    The cache names files by their ETag, which for files on the Hub is the SHA-256 of a large file
    and git's SHA-1 of a small one.
    """
    status = path.stat()
    if size is not None and status.st_size != size:
        return f"has {status.st_size} bytes instead of {size}"
    blob = path.resolve().name
    is_blob = path.resolve() != path.absolute() and all(c in "0123456789abcdef" for c in blob)
    digests = _digests(path, status.st_size, status.st_mtime_ns)
    if sha256 is not None and digests.sha256 != sha256:
        return f"has the SHA-256 {digests.sha256} instead of {sha256}"
    if is_blob and len(blob) == _SHA256_HEX and digests.sha256 != blob:
        return "is damaged"
    if is_blob and len(blob) == _SHA1_HEX and digests.git != blob:
        return "is damaged"
    return None


class _Digests(NamedTuple):
    sha256: str
    git: str


@lru_cache
def _digests(path: Path, size: int, changed: int) -> _Digests:
    """Hash a file once per state of it."""
    sha256 = hashlib.sha256()
    git = hashlib.sha1(f"blob {size}\0".encode(), usedforsecurity=False)
    with open(path, "rb") as file:
        while block := file.read(1 << 22):
            sha256.update(block)
            git.update(block)
    return _Digests(sha256.hexdigest(), git.hexdigest())


def _forget(path: Path) -> None:
    """Remove a file from the cache."""
    path.resolve().unlink(missing_ok=True)
    path.unlink(missing_ok=True)
