"""Upload files to a repository of mappers on the Hub."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from huggingface_hub import CommitInfo, HfApi, errors

from ..hub import first_line
from .files import CARD_FILE, CONFIG_FILE, WEIGHTS_FILE

_FILES = {
    f"{folder}{name}"
    for folder in ("", "image/", "video/")
    for name in (CONFIG_FILE, WEIGHTS_FILE, CARD_FILE)
}


def push_files(
    write: Callable[[Path, str], None],
    repo_id: str,
    *,
    private: bool | None = None,
    token: str | bool | None = None,
    branch: str | None = None,
    commit_message: str = "Upload token mapper",
    delete_patterns: Sequence[str] | str = (),
    **options: Any,
) -> CommitInfo:
    """Replace the mappers of a repository with one commit.

    The commit deletes the files of earlier mappers that are not written again, so that loading
    from the repository gives what was pushed.

    Args:
        write: Writes the files of the mappers and their card into the given folder; its second
            argument is the full Hub id.
        repo_id: Hub id, "user/name".
        private: Whether to make a new repository private.
        token: Token for the Hub; by default that of `hf auth login`.
        branch: Branch to push to; by default the main branch.
        commit_message: Message of the commit.
        delete_patterns: Other files to delete.
        **options: More arguments of `HfApi.upload_folder`, such as `create_pr`.

    Raises:
        ConnectionError: The Hub cannot be reached.
        HfHubHTTPError: The Hub refuses.
    """
    api = HfApi(token=token)
    with TemporaryDirectory() as name, _connection_errors(repo_id):
        folder = Path(name)
        repo_id = api.create_repo(repo_id, private=private, exist_ok=True).repo_id
        write(folder, repo_id)
        stale = sorted(file for file in _FILES if not (folder / file).exists())
        others = [delete_patterns] if isinstance(delete_patterns, str) else delete_patterns
        return api.upload_folder(
            repo_id=repo_id,
            folder_path=folder,
            revision=branch,
            commit_message=commit_message,
            delete_patterns=[*stale, *others],
            **options,
        )


@contextmanager
def _connection_errors(repo_id: str) -> Iterator[None]:
    """Turn the Hub client's errors of connection into one sentence each."""
    try:
        yield
    except errors.HfHubHTTPError:
        raise
    except errors.OfflineModeIsEnabled as error:
        raise ConnectionError(
            f"The mapper cannot be pushed to {repo_id!r} because HF_HUB_OFFLINE is set: unset it."
        ) from error
    except errors.HTTPError as error:  # type: ignore[attr-defined]  # of httpx or httpx2
        reason = first_line(error).rstrip(".")
        raise ConnectionError(
            f"The mapper cannot be pushed to {repo_id!r} because the Hub cannot be reached "
            f"({reason}): try again."
        ) from error
