"""One line for each way in which huggingface_hub fails."""

from __future__ import annotations

import errno
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from cat_seg.hub.download import Repo

_NO_ROOM = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
_LOGIN = "log in with `hf auth login` or set HF_TOKEN"


def is_absent(error: Exception) -> bool:
    """Return whether the repository is there at that revision, but not the file."""
    from huggingface_hub.errors import EntryNotFoundError, LocalEntryNotFoundError

    return isinstance(error, EntryNotFoundError) and not isinstance(error, LocalEntryNotFoundError)


def is_offline(error: Exception) -> bool:
    """Return whether HF_HUB_OFFLINE forbids the request."""
    from huggingface_hub.errors import OfflineModeIsEnabled

    return isinstance(error, OfflineModeIsEnabled)


def explained(error: Exception, repo: Repo, filename: str = "") -> str:
    """Return one line saying what happened and what to do.

    Args:
        error: what huggingface_hub raised.
        repo: the repository asked for.
        filename: the file in it, if one was asked for.
    """
    from huggingface_hub import constants, errors

    what = f"{filename} of {repo}" if filename else str(repo)
    status = getattr(getattr(error, "response", None), "status_code", None)
    if isinstance(error, errors.HFValidationError):
        return f"{repo.repo_id!r} is no repository name; give OWNER/NAME"
    if is_offline(error):
        return (
            f"HF_HUB_OFFLINE is set, and {what} is not in the cache {constants.HF_HUB_CACHE}; "
            "unset it to download the file"
        )
    if isinstance(error, errors.GatedRepoError):
        page = f"{constants.ENDPOINT}/{repo.repo_id}"
        return f"access to {repo} is restricted; ask for it on {page}, then {_LOGIN}"
    if isinstance(error, errors.RepositoryNotFoundError):
        return f"there is no {repo.repo_type} {repo.repo_id} on the Hub; if it is private, {_LOGIN}"
    if isinstance(error, errors.RevisionNotFoundError):
        return f"{repo.repo_id} on the Hub has no revision {repo.revision!r}"
    if status in (401, 403):
        return f"the Hub refused access to {what} (HTTP {status}); {_LOGIN}"
    if status is not None:
        return f"the Hub could not send {what} (HTTP {status}); try again later"
    if isinstance(error, OSError) and error.errno in _NO_ROOM:
        return (
            f"no space for {what} in {constants.HF_HUB_CACHE} ({error.strerror}); make room, or "
            "set HF_HUB_CACHE to another folder"
        )
    if "Consistency check failed" in str(error):
        return f"the download of {what} was cut off; nothing was kept, run the command again"
    if isinstance(error, OSError) and error.filename is not None:
        return f"cannot write {error.filename}: {error.strerror}; see HF_HUB_CACHE"
    reason = " ".join(str(error).split())[:120] or type(error).__name__
    return (
        f"cannot download {what} from {constants.ENDPOINT} ({reason}); check the network and "
        "HF_ENDPOINT, or give a local file"
    )
