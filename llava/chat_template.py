"""Conversation templates as Jinja text, for tokenizers and processors of transformers and what serves them.

It gives the text of `llava.conversation.render`; a turn's picture stands before its words, on its own line.
"""

import json

from llava.constants import DEFAULT_IMAGE_TOKEN
from llava.conversation import SeparatorStyle, Template

TEXT_MACRO = """\
{%- macro text(content) -%}
{%- if content is string -%}{{- content -}}
{%- else -%}
{%- for part in content if part['type'] == 'image' -%}{{- IMAGE -}}{%- endfor -%}
{%- for part in content if part['type'] == 'text' -%}{{- part['text'] -}}{%- endfor -%}
{%- endif -%}
{%- endmacro -%}
"""
SYSTEM = """\
{%- set ns = namespace(system=SYSTEM) -%}
{%- if messages and messages[0]['role'] == 'system' -%}
{%- set ns.system = text(messages[0]['content']) -%}
{%- set messages = messages[1:] -%}
{%- endif -%}
"""
TWO = """\
{{- ns.system + SEP -}}
{%- for message in messages -%}
{%- if message['role'] == 'user' -%}{{- USER + ': ' + text(message['content']) + SEP -}}
{%- else -%}{{- ASSISTANT + ': ' + text(message['content']) + SEP2 -}}
{%- endif -%}
{%- endfor -%}
{%- if add_generation_prompt -%}{{- ASSISTANT + ':' -}}{%- endif -%}
"""
JOINED = """\
{{- ns.system + SYSTEM_SEP -}}
{%- for message in messages -%}
{{- (USER if message['role'] == 'user' else ASSISTANT) + text(message['content']) + SEP -}}
{%- endfor -%}
{%- if add_generation_prompt -%}{{- ASSISTANT -}}{%- endif -%}
"""
LLAMA_2 = """\
{%- for message in messages -%}
{%- if message['role'] == 'user' -%}
{{- ('' if loop.first else SEP) + '[INST] ' -}}
{%- if loop.first and ns.system -%}{{- '<<SYS>>\\n' + ns.system + '\\n<</SYS>>\\n\\n' -}}{%- endif -%}
{{- text(message['content']) + ' [/INST]' -}}
{%- else -%}{{- ' ' + text(message['content']) + ' ' + SEP2 -}}
{%- endif -%}
{%- endfor -%}
"""
BODIES = {
    SeparatorStyle.SINGLE: TWO,
    SeparatorStyle.TWO: TWO,
    SeparatorStyle.MPT: JOINED,
    SeparatorStyle.PLAIN: JOINED,
    SeparatorStyle.LLAMA_2: LLAMA_2,
}


def chat_template(template: Template) -> str:
    """The Jinja text of a conversation template; a system message replaces the template's own."""
    plain = template.style is SeparatorStyle.PLAIN
    names = {
        "SYSTEM": template.system,
        "SYSTEM_SEP": "" if plain else template.sep,
        "SEP": template.sep,
        "SEP2": template.sep if template.sep2 is None else template.sep2,
        "USER": template.roles[0],
        "ASSISTANT": template.roles[1],
        "IMAGE": f"{DEFAULT_IMAGE_TOKEN}\n",
    }
    settings = "".join(f"{{%- set {name} = {json.dumps(value)} -%}}\n" for name, value in names.items())
    return settings + TEXT_MACRO + SYSTEM + BODIES[template.style]
