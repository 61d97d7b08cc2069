"""docs/troubleshooting.md has every message of the library, and each says what to do."""

from __future__ import annotations

from pathlib import Path

from message_page import PAGE, listed, updated
from messages import messages, messages_of

MODULE = '''
import logging
import warnings

HINT = "Put it right."


def refuse(name):
    if name:
        raise ValueError(f"There is no folder {name!r}: make it first.")
    raise TypeError("one " + str(name) + f" and {HINT}")


def warn(name):
    warnings.warn(HINT, stacklevel=2)
    logging.getLogger(name).warning("%s is left out.", name)
    print("This is no message.")


def choose(error, few):
    raise KeyError("few" if few else "many") from error


def reason(name):
    """This sentence explains the function."""
    if name == "a":
        return "It is a."
    return f"{name} is not a."


def later(name):
    text = f"It is {name}."
    raise RuntimeError(text)


def helper(name):
    raise OSError(reason(name))
'''


def test_what_counts_as_a_message(tmp_path: Path) -> None:
    (tmp_path / "module.py").write_text(MODULE, encoding="utf-8")
    assert set(messages_of(tmp_path)) == {
        "There is no folder …: make it first.",
        "one … and Put it right.",
        "Put it right.",
        "… is left out.",
        "few",
        "many",
        "It is a.",
        "… is not a.",
        "It is ….",
    }


def test_the_page_has_every_message_and_no_other() -> None:
    on_the_page = listed(PAGE.read_text(encoding="utf-8"))
    assert set(messages()) == set(on_the_page), "run `make messages`, then read what it printed"


def test_every_message_says_what_to_do() -> None:
    """Itself, after a colon, or on the page."""
    for message, note in listed(PAGE.read_text(encoding="utf-8")).items():
        assert ": " in message or note, f"write after this message what to do: {message}"


def test_an_update_keeps_places_and_notes() -> None:
    page = "\n".join(
        [
            "# Title",
            "- `Not a message.`",
            "<!-- `make messages` -->",
            "## First",
            "- `There is no folder …: make it.` Why.",
            "- `Gone for good.` Why not.",
            "## Second",
            "- `` Run `this` instead: now. `` Because.",
            "",
        ]
    )
    first, second, third = Path("one/first.py"), Path("two/second.py"), Path("two/new/third.py")
    found = {
        "There is no folder … here: make it.": [first],
        "Run `this` instead: now.": [second],
        "Entirely new in its words: so be it.": [second],
        "From a folder that is new too.": [third],
    }
    after = updated(page, found)
    assert after.split("\n")[3:] == [
        "## First",
        "- `There is no folder … here: make it.` Why.",
        "## Second",
        "- `` Run `this` instead: now. `` Because.",
        "- `Entirely new in its words: so be it.`",
        "- `From a folder that is new too.`",
        "",
    ]
    assert updated(after, found) == after


def test_no_message_is_listed_twice() -> None:
    text = PAGE.read_text(encoding="utf-8")
    assert text.count("\n- `") == len(listed(text))
