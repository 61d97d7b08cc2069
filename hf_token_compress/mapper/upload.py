"""Mappers to the Hub."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from huggingface_hub import HfApi, errors

from .card import mapper_card
from .folders import CARD_FILE, CONFIG_FILE, WEIGHTS_FILE

_FILES = {
    f"{place}{name}"
    for place in ("", "image/", "video/")
    for name in (CONFIG_FILE, WEIGHTS_FILE, CARD_FILE)
}


def push_mappers(
    mappers: Mapping[str, Any],
    repo_id: str,
    *,
    private: bool | None = None,
    token: str | bool | None = None,
    branch: str | None = None,
    commit_message: str = "Upload token mapper",
    delete_patterns: Sequence[str] | str = (),
    **options: Any,
) -> str:
    """Upload mappers and one card of them all with one commit; returns the commit's address.

    The same commit deletes what earlier pushes left of mappers elsewhere in the repository, so that
    what is loaded from it is what was pushed.

    Args:
        mappers: `RelevanceMapper`s by their folders in the repository: "" is the repository itself.
        repo_id: Hub id, "user/name".
        private: Whether a new repository is private.
        token: Of the Hub; by default that of `hf auth login`.
        branch: Branch to push to; by default the main one.
        commit_message: Of the commit.
        delete_patterns: Other files to delete.
        **options: Others of `HfApi.upload_folder`, such as `create_pr`.

    Raises:
        ConnectionError: The Hub cannot be reached.
        HfHubHTTPError: The Hub refuses.
    """
    api = HfApi(token=token)
    with TemporaryDirectory() as name, _reaching_the_hub(repo_id):
        folder = Path(name)
        repo_id = api.create_repo(repo_id, private=private, exist_ok=True).repo_id
        for place, mapper in mappers.items():
            mapper.write_files(folder / place)
        described = [(mapper.config, mapper.parameter_count) for mapper in mappers.values()]
        mapper_card(described, repo_id=repo_id).save(folder / CARD_FILE)
        stale = sorted(file for file in _FILES if not (folder / file).exists())
        others = [delete_patterns] if isinstance(delete_patterns, str) else delete_patterns
        commit = api.upload_folder(
            repo_id=repo_id,
            folder_path=folder,
            revision=branch,
            commit_message=commit_message,
            delete_patterns=[*stale, *others],
            **options,
        )
    for mapper in mappers.values():
        mapper.lies_at(repo_id, commit.pr_revision or branch)
    return str(commit)


@contextmanager
def _reaching_the_hub(repo_id: str) -> Iterator[None]:
    try:
        yield
    except errors.HfHubHTTPError:
        raise
    except errors.OfflineModeIsEnabled as error:
        raise ConnectionError(
            f"The mapper cannot be pushed to {repo_id!r}, as HF_HUB_OFFLINE is set: unset it."
        ) from error
    except errors.HTTPError as error:  # type: ignore[attr-defined]  # httpx's, or httpx2's
        reason = (str(error).splitlines() or [type(error).__name__])[0].rstrip(".")
        raise ConnectionError(
            f"The mapper cannot be pushed to {repo_id!r}, as the Hub cannot be reached ({reason}): "
            "try again."
        ) from error
