"""What a referee's tokenizer leaves unread of a prompt."""

from __future__ import annotations

from typing import Any


def truncated_text(tokenizer: Any, prompt: str, context: int) -> str:
    """The end of a prompt that does not fit into `context` tokens of a transformers tokenizer, "" where all of it does.

    Given as the user wrote it where the tokenizer knows which characters a token came from, else decoded.
    """
    room = context - tokenizer.num_special_tokens_to_add(pair=False)
    # A tokenizer that is asked for everything warns of its own limit; the conditioning reports it better.
    options = {"add_special_tokens": False, "truncation": False, "verbose": False}
    if not tokenizer.is_fast:
        return str(tokenizer.decode(tokenizer(prompt, **options).input_ids[room:], skip_special_tokens=True)).strip()
    offsets = tokenizer(prompt, return_offsets_mapping=True, **options).offset_mapping
    return prompt[offsets[room][0] :].strip() if len(offsets) > room else ""
