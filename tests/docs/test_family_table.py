"""The table of model families in the documentation, in the library, and in the tests."""

from __future__ import annotations

from family_table import PAGE, with_table
from tiny_models import every_family, tiny_family

from hf_token_compress.models.verified import VERIFIED


def test_the_page_holds_what_the_command_prints() -> None:
    page = PAGE.read_text()
    assert with_table(page) == page, "run `make families`"


def test_the_table_says_what_is_tested() -> None:
    assert set(VERIFIED) == set(every_family())
    for name, row in VERIFIED.items():
        maker = tiny_family(name)
        assert row.videos == maker.takes_videos, name
        assert row.since == maker.since, name
