"""Text of a prompt that a tokenizer truncates."""

from __future__ import annotations

from typing import Any


def truncated_text(tokenizer: Any, prompt: str, context: int) -> str:
    """Text at the end of a prompt that exceeds `context` tokens of a transformers tokenizer; "" if none.

    As the user wrote it, or decoded from the tokens if the tokenizer does not map them to characters.
    """
    room = context - tokenizer.num_special_tokens_to_add(pair=False)
    # Not verbose: the tokenizer would warn of its limit, which the conditioning reports.
    options = {"add_special_tokens": False, "truncation": False, "verbose": False}
    if not tokenizer.is_fast:
        return str(tokenizer.decode(tokenizer(prompt, **options).input_ids[room:], skip_special_tokens=True)).strip()
    offsets = tokenizer(prompt, return_offsets_mapping=True, **options).offset_mapping
    return prompt[offsets[room][0] :].strip() if len(offsets) > room else ""
