"""After `import hf_token_compress` the Auto classes know VILA1.5, but have not loaded it."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from matrix import full_only
from vila_reference import CHECKPOINT

pytestmark = pytest.mark.core

OURS = "import hf_token_compress"
ORDERS = {
    "auto_config": f"{OURS}\nfrom transformers import AutoConfig",
    "auto_model": f"{OURS}\nimport transformers.models.auto.modeling_auto",
    "llava_config": f"{OURS}\nfrom transformers import LlavaConfig",
    "llava_model": f"{OURS}\nfrom transformers import LlavaForConditionalGeneration",
    "afterwards": f"from transformers import AutoProcessor\n{OURS}",
}


def run_python(code: str, folder: Path) -> str:
    result = subprocess.run(
        [sys.executable, "-c", code], cwd=folder, capture_output=True, text=True
    )
    assert result.returncode == 0, result.stderr
    return result.stdout.strip()


@pytest.mark.parametrize(
    "start",
    [
        pytest.param(ORDERS["auto_config"], id="auto_config"),
        *(
            full_only(ORDERS[name], id=name)
            for name in ("afterwards", "auto_model", "llava_config", "llava_model")
        ),
    ],
)
def test_any_order_of_imports(start: str, tmp_path: Path) -> None:
    """Transformers imports its parts in many orders, and VILA1.5 uses several of them."""
    code = (
        f"{start}\n"
        "import sys\n"
        "own = 'hf_token_compress.models.vila'\n"
        "names = ('configuration', 'modeling', 'processing', 'family')\n"
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


@pytest.fixture(scope="module")
def own_format(tmp_path_factory: pytest.TempPathFactory) -> Path:
    from hf_token_compress.models.vila import VilaForConditionalGeneration, VilaProcessor

    folder = tmp_path_factory.mktemp("own")
    VilaForConditionalGeneration.from_pretrained(CHECKPOINT).save_pretrained(folder)
    VilaProcessor.from_pretrained(CHECKPOINT).save_pretrained(folder)
    return folder


@pytest.mark.parametrize(
    ("name", "layout", "expected"),
    [
        full_only("AutoModel", "published", "VilaModel"),
        ("AutoModelForImageTextToText", "own", "VilaForConditionalGeneration"),
        full_only("AutoProcessor", "own", "VilaProcessor"),
    ],
)
def test_an_auto_class_alone(
    name: str, layout: str, expected: str, own_format: Path, tmp_path: Path
) -> None:
    folder = CHECKPOINT if layout == "published" else own_format
    code = EACH_AUTO_CLASS.format(name=name, folder=str(folder))
    assert run_python(code, tmp_path) == expected
