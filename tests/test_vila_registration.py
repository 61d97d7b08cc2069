"""After `import hf_token_compress`, the Auto classes know VILA1.5, and nothing else is loaded."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from vila_reference import CHECKPOINT

pytestmark = pytest.mark.core

FIRST = [
    "from transformers import AutoConfig",
    "from transformers import AutoModel",
    "from transformers import AutoProcessor",
    "from transformers import AutoTokenizer",
    "from transformers import LlavaConfig",
    "from transformers import LlavaForConditionalGeneration",
    "from transformers import PreTrainedModel",
    "import transformers.models.auto.modeling_auto",
]


def run_python(code: str, folder: Path) -> str:
    result = subprocess.run(
        [sys.executable, "-c", code], cwd=folder, capture_output=True, text=True
    )
    assert result.returncode == 0, result.stderr
    return result.stdout.strip()


@pytest.mark.parametrize("order", ["before", "after"])
@pytest.mark.parametrize("first", FIRST)
def test_whatever_is_imported_first(first: str, order: str, tmp_path: Path) -> None:
    """Transformers imports its parts in many orders, and VILA1.5 is built on several of them."""
    ours = "import hf_token_compress"
    start = f"{ours}\n{first}" if order == "before" else f"{first}\n{ours}"
    code = (
        f"{start}\n"
        "import sys\n"
        "own = 'hf_token_compress.models.vila'\n"
        "names = ('configuration', 'modeling', 'processing', 'adapter')\n"
        "print([name for name in names if f'{own}.{name}' in sys.modules])\n"
        "from transformers import AutoConfig\n"
        "print(type(AutoConfig.for_model('vila15')).__module__)\n"
    )
    assert run_python(code, tmp_path).splitlines() == [
        "[]",
        "hf_token_compress.models.vila.configuration",
    ]


EACH_AUTO_CLASS = """
import hf_token_compress
from transformers import {name}
print(type({name}.from_pretrained({folder!r})).__name__)
"""


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("AutoConfig", "VilaConfig"),
        ("AutoModel", "VilaModel"),
        ("AutoModelForImageTextToText", "VilaForConditionalGeneration"),
        ("AutoProcessor", "VilaProcessor"),
    ],
)
@pytest.mark.parametrize("layout", ["published", "own"])
def test_each_auto_class_alone(name: str, expected: str, layout: str, tmp_path: Path) -> None:
    folder = CHECKPOINT
    if layout == "own":
        folder = tmp_path / "own"
        from hf_token_compress.models.vila import VilaForConditionalGeneration, VilaProcessor

        VilaForConditionalGeneration.from_pretrained(CHECKPOINT).save_pretrained(folder)
        VilaProcessor.from_pretrained(CHECKPOINT).save_pretrained(folder)
    code = EACH_AUTO_CLASS.format(name=name, folder=str(folder))
    assert run_python(code, tmp_path) == expected
