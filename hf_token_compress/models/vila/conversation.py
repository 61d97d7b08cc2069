"""The conversations that VILA1.5 was trained on, as chat templates."""

from __future__ import annotations

from collections.abc import Container

# A line break follows every image; for a video, the processor writes its frames as such images.
_CONTENT = """\
{%- macro content(message) -%}
{%- if message.content is string -%}
{{ message.content }}
{%- else -%}
{%- for part in message.content -%}
{%- if part.type == 'image' -%}
{{ '<image>\\n' }}
{%- elif part.type == 'video' -%}
{{ '<video>' }}
{%- else -%}
{{ part.text }}
{%- endif -%}
{%- endfor -%}
{%- endif -%}
{%- endmacro -%}
{%- if messages and messages[0].role == 'system' -%}
{%- set system = content(messages[0]) -%}
{%- set turns = messages[1:] -%}
{%- else -%}
{%- set system = default_system -%}
{%- set turns = messages -%}
{%- endif -%}
"""

_VICUNA = """\
{%- set default_system = "A chat between a curious user and an artificial intelligence assistant. \
The assistant gives helpful, detailed, and polite answers to the user's questions." -%}
<CONTENT>
{{- system + ' ' -}}
{%- for turn in turns -%}
{%- if turn.role == 'assistant' -%}
{{ 'ASSISTANT: ' + content(turn) + '</s>' }}
{%- else -%}
{{ 'USER: ' + content(turn) + ' ' }}
{%- endif -%}
{%- endfor -%}
{%- if add_generation_prompt -%}
{{ 'ASSISTANT:' }}
{%- endif -%}
"""

_LLAMA_3 = """\
{%- set default_system = "You are a helpful language and vision assistant. You are able to \
understand the visual content that the user provides, and assist the user with a variety of tasks \
using natural language." -%}
<CONTENT>
{{- '<|begin_of_text|><|start_header_id|>system<|end_header_id|>\\n\\n' + system + '<|eot_id|>' -}}
{%- for turn in turns -%}
{{ '<|start_header_id|>' + turn.role + '<|end_header_id|>\\n\\n' + content(turn) }}
{{- '<|end_of_text|>' if loop.last and not add_generation_prompt else '<|eot_id|>' -}}
{%- endfor -%}
{%- if add_generation_prompt -%}
{{ '<|start_header_id|>assistant<|end_header_id|>\\n\\n' }}
{%- endif -%}
"""

_HERMES_2 = """\
{%- set default_system = "Answer the questions." -%}
<CONTENT>
{{- '<|im_start|>system\\n' + system + '<|im_end|>' -}}
{%- for turn in turns -%}
{{ '<|im_start|>' + turn.role + '\\n' + content(turn) + '<|im_end|>' }}
{%- endfor -%}
{%- if add_generation_prompt -%}
{{ '<|im_start|>assistant\\n' }}
{%- endif -%}
"""

CHAT_TEMPLATES = {
    name: template.replace("<CONTENT>\n", _CONTENT)
    for name, template in {
        "vicuna_v1": _VICUNA,
        "llama_3": _LLAMA_3,
        "hermes-2": _HERMES_2,
    }.items()
}

# The published code chooses by the checkpoint's name: the first part found in it counts. If there
# is none, the tokens of its tokenizer decide.
_BY_NAME = {
    "vila1.5-3b": "vicuna_v1",
    "vila1.5-8b": "llama_3",
    "vila1.5-13b": "vicuna_v1",
    "vila1.5-40b": "hermes-2",
    "llama-3": "llama_3",
    "llama3": "llama_3",
}
_BY_TOKEN = {"<|eot_id|>": "llama_3", "<|im_end|>": "hermes-2"}


def choose_conversation(name: str, tokens: Container[str]) -> str:
    """Choose the one of `CHAT_TEMPLATES` that a published checkpoint was trained on.

    Args:
        name: Its Hub id or folder.
        tokens: The tokens of its tokenizer.
    """
    by_name = [template for part, template in _BY_NAME.items() if part in name.lower()]
    by_token = [template for token, template in _BY_TOKEN.items() if token in tokens]
    return [*by_name, *by_token, "vicuna_v1"][0]
