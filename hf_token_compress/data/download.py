"""Download an image that the user names by its address."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from ..hub import first_line
from .media import decode_image

if TYPE_CHECKING:
    from PIL import Image

_SCHEMES = ("http://", "https://")
_MOST_BYTES = 50_000_000
_SECONDS = 60.0
_SECONDS_OF_SILENCE = 15.0


def is_address(name: str) -> bool:
    """Whether a name is an address on the web rather than a file."""
    return name.lower().startswith(_SCHEMES)


def download_image(
    address: str, *, most_bytes: int = _MOST_BYTES, seconds: float = _SECONDS
) -> Image.Image:
    """The image at an address on the web, RGB and upright.

    Downloads with the session of huggingface_hub, which knows the user's proxies. Redirects are
    followed to other http and https addresses only. No login is sent.

    Args:
        address: It starts with http:// or https://.
        most_bytes: Largest download, in bytes.
        seconds: Longest download, in seconds.

    Raises:
        OSError: It cannot be downloaded, or downloads are turned off by HF_HUB_OFFLINE.
        ValueError: It is too large, or not an image that can be read.
    """
    from huggingface_hub import get_session, is_offline_mode

    if is_offline_mode():
        raise OSError(
            f"{address!r} is not downloaded, because HF_HUB_OFFLINE is set: unset it, or name a "
            "file."
        )
    # What a server compresses may grow beyond the limit as it is unpacked.
    headers = {"Accept": "image/*", "Accept-Encoding": "identity"}
    silence = min(seconds, _SECONDS_OF_SILENCE)
    content, end = bytearray(), time.monotonic() + seconds
    with (
        _one_sentence(address),
        get_session().stream(
            "GET", address, headers=headers, timeout=silence, follow_redirects=True
        ) as response,
    ):
        if not response.is_success:
            status = f"{response.status_code} {response.reason_phrase}".strip()
            raise OSError(f"{address!r} cannot be downloaded: the server answers {status}.")
        for part in response.iter_raw():
            content += part
            if len(content) > most_bytes:
                raise ValueError(
                    f"{address!r} has more than {most_bytes / 1e6:g} MB: make the image smaller, "
                    "or download it and name the file."
                )
            if time.monotonic() > end:
                raise TimeoutError(
                    f"{address!r} cannot be downloaded: it takes longer than {seconds:g} seconds."
                )
    try:
        return decode_image(bytes(content))
    except ValueError as error:
        kind = response.headers.get("Content-Type", "data of no stated type").split(";")[0]
        raise ValueError(
            f"What {address!r} leads to is not an image that can be read: the server sends {kind}."
        ) from error


@contextmanager
def _one_sentence(address: str) -> Iterator[None]:
    """The client's errors as errors of the operating system, with the address."""
    # The name of the client in every version of huggingface_hub.
    from huggingface_hub.utils import httpx  # type: ignore[attr-defined]

    try:
        yield
    except httpx.InvalidURL as error:
        raise ValueError(f"{address!r} is not a valid address: {first_line(error)}.") from error
    except httpx.TimeoutException as error:
        raise TimeoutError(
            f"{address!r} cannot be downloaded: the server does not answer."
        ) from error
    except httpx.HTTPError as error:
        reason = first_line(error).rstrip(".")
        raise OSError(f"{address!r} cannot be downloaded: {reason}.") from error
