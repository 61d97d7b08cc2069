"""Say in one sentence why a model or a mapper cannot be loaded."""

from __future__ import annotations


def explain_failure(
    kind: str, name: str, error: BaseException, *, revision: str | None = None
) -> str:
    """One sentence that says why something cannot be loaded from a folder or the Hub.

    Args:
        kind: What it is, such as "model" or "mapper".
        name: The folder or Hub id that the user gave.
        error: What the Hub client or Transformers raised; its causes are looked at too.
        revision: Branch, tag or commit that the user gave.
    """
    from huggingface_hub import errors

    at_revision = "" if revision is None else f" at revision {revision!r}"
    # The first match wins: a gated repository is also one that is not found.
    reasons: tuple[tuple[type[BaseException] | tuple[type[BaseException], ...], str], ...] = (
        (
            errors.HFValidationError,
            f"There is no {kind} {name!r}: it is neither a folder nor a Hub id.",
        ),
        (
            errors.RevisionNotFoundError,
            f"The {kind} {name!r} has no revision {revision or 'main'!r} on the Hub.",
        ),
        (
            errors.GatedRepoError,
            f"The {kind} {name!r} is gated: request access on its page and log in with "
            "`hf auth login`.",
        ),
        (
            errors.RepositoryNotFoundError,
            f"There is no {kind} {name!r}: it is not a folder, and the Hub has no such repository "
            "that you can read (if it is private, log in with `hf auth login`).",
        ),
        (
            (errors.LocalEntryNotFoundError, errors.OfflineModeIsEnabled),
            f"The {kind} {name!r} is neither a folder nor in the cache{at_revision}, and the Hub "
            "cannot be reached or may not be asked.",
        ),
    )
    cause: BaseException | None = error
    while cause is not None:
        for types, sentence in reasons:
            if isinstance(cause, types):
                return sentence
        cause = cause.__cause__ or cause.__context__
    return f"The {kind} {name!r} cannot be loaded: {first_line(error).rstrip('.')}."


def first_line(error: BaseException) -> str:
    """The first line of an error's message; its type if the message is empty."""
    lines = (line.strip() for line in str(error).splitlines())
    return next((line for line in lines if line), type(error).__name__)
