"""Tokenizers with the playground's small vocabulary, saved in the native formats of CLIP and BERT."""

from __future__ import annotations

import json
import string
from collections import Counter
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path

from transformers import BertTokenizer, CLIPTokenizer

from refcore_playground.grammar import words

SYMBOLS = sorted(set(string.ascii_lowercase + string.digits + string.punctuation))
CONTEXT_LENGTH = 32
"""Tokens, including start and end; the longest caption has 25."""


def clip_tokenizer() -> CLIPTokenizer:
    """A CLIP byte-pair tokenizer with one token per grammar word; other English text becomes letters.

    The end of text has the largest id, where a CLIP text tower pools.
    """
    vocabulary = [*SYMBOLS, *(s + "</w>" for s in SYMBOLS)]
    merges = byte_pair_merges(words())
    vocabulary += [a + b for a, b in merges]
    ids = {token: i for i, token in enumerate([*vocabulary, "<|startoftext|>", "<|endoftext|>"])}
    return CLIPTokenizer(vocab=ids, merges=merges, model_max_length=CONTEXT_LENGTH)


def byte_pair_merges(vocabulary: Sequence[str]) -> list[tuple[str, str]]:
    """Byte-pair merges that make each word one token, the most frequent pair first (arXiv 1508.07909)."""
    pieces = {word: [*word[:-1], word[-1] + "</w>"] for word in vocabulary}
    merges: list[tuple[str, str]] = []
    while pairs := Counter(pair for split in pieces.values() for pair in pairwise(split)):
        best = max(pairs, key=lambda pair: (pairs[pair], pair))
        merges.append(best)
        for split in pieces.values():
            i = 0
            while i < len(split) - 1:
                if (split[i], split[i + 1]) == best:
                    split[i : i + 2] = ["".join(best)]
                i += 1
    return merges


def save_clip_tokenizer(tokenizer: CLIPTokenizer, folder: Path) -> None:
    """Saves a tokenizer as transformers does, with `vocab.json` and `merges.txt` for older readers."""
    tokenizer.save_pretrained(folder)
    model = json.loads((folder / "tokenizer.json").read_text())["model"]
    (folder / "vocab.json").write_text(json.dumps(model["vocab"]))
    lines = [merge if isinstance(merge, str) else " ".join(merge) for merge in model["merges"]]
    (folder / "merges.txt").write_text("#version: 0.2\n" + "\n".join(lines) + "\n")


def bert_tokenizer() -> BertTokenizer:
    """A BERT word-piece tokenizer of the grammar's words, letters for other text, and BLIP-2's `[DEC]` token."""
    pieces = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *words()]
    pieces += [c for c in SYMBOLS if c not in pieces] + ["##" + c for c in SYMBOLS] + ["[DEC]"]
    return BertTokenizer(vocab={p: i for i, p in enumerate(pieces)}, bos_token="[DEC]", model_max_length=CONTEXT_LENGTH)


def save_bert_tokenizer(tokenizer: BertTokenizer, folder: Path) -> None:
    """Saves a tokenizer as transformers does, with `vocab.txt` for older readers."""
    tokenizer.save_pretrained(folder)
    ids = tokenizer.get_vocab()
    (folder / "vocab.txt").write_text("\n".join(sorted(ids, key=ids.__getitem__)) + "\n")
