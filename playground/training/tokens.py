"""Tokenizers with the playground's own small vocabulary, saved in the native formats of CLIP and BERT."""

from __future__ import annotations

import json
import string
from pathlib import Path

from transformers import BertTokenizer, CLIPTokenizer

from refcore_playground.grammar import words

CONTEXT_LENGTH = 32
"""Tokens, with the first and the last; the longest caption has 25."""


def clip_tokenizer(folder: Path) -> CLIPTokenizer:
    """A CLIP byte-pair tokenizer in which a grammar word is a token or two and any other English text is letters.

    The end of text has the largest id, which is where a CLIP text tower pools.
    """
    symbols = sorted(set(string.ascii_lowercase + string.digits + string.punctuation))
    vocabulary = symbols + [s + "</w>" for s in symbols]
    merges: list[str] = []
    known = set(vocabulary)
    for word in words():
        pieces = [*word[:-1], word[-1] + "</w>"]
        while len(pieces) > 1:  # from the left: "r e" -> "re", "re d</w>" -> "red</w>"
            merged = pieces[0] + pieces[1]
            if merged not in known:
                merges.append(f"{pieces[0]} {pieces[1]}")
                vocabulary.append(merged)
                known.add(merged)
            pieces[:2] = [merged]
    ids = {token: i for i, token in enumerate([*vocabulary, "<|startoftext|>", "<|endoftext|>"])}
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "vocab.json").write_text(json.dumps(ids))
    (folder / "merges.txt").write_text("#version: 0.2\n" + "\n".join(merges) + "\n")
    tokenizer = CLIPTokenizer(vocab=ids, merges=[tuple(m.split()) for m in merges], model_max_length=CONTEXT_LENGTH)
    tokenizer.save_pretrained(folder)
    return tokenizer


def bert_tokenizer(folder: Path) -> BertTokenizer:
    """A BERT word-piece tokenizer over the grammar's words, letters for the rest, and BLIP-2's `[DEC]` token."""
    pieces = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *words()]
    letters = sorted(set(string.ascii_lowercase + string.digits + string.punctuation))
    pieces += [c for c in letters if c not in pieces] + ["##" + c for c in letters] + ["[DEC]"]
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "vocab.txt").write_text("\n".join(pieces) + "\n")
    tokenizer = BertTokenizer(
        vocab={p: i for i, p in enumerate(pieces)}, bos_token="[DEC]", model_max_length=CONTEXT_LENGTH
    )
    tokenizer.save_pretrained(folder)
    return tokenizer
