"""A tiny cross-encoder of random weights, with a tokenizer of its own, saved as a folder."""

from pathlib import Path
from typing import Any

import torch
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors
from transformers import (
    BertConfig,
    BertForSequenceClassification,
    PreTrainedTokenizerFast,
    XLMRobertaConfig,
    XLMRobertaForSequenceClassification,
)

LETTERS = "abcdefghijklmnopqrstuvwxyz0123456789.?-"
SPECIAL = ["[PAD]", "[UNK]", "[CLS]", "[SEP]"]
SIZES: dict[str, Any] = {
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "intermediate_size": 64,
    "initializer_range": 0.6,  # so that scores differ well
    "pad_token_id": 0,
}


def save_bert(folder: Path, *, num_labels: int = 1, max_tokens: int = 64) -> Path:
    torch.manual_seed(7)
    vocabulary = save_tokenizer(folder)
    config = BertConfig(
        vocab_size=vocabulary,
        max_position_embeddings=max_tokens,
        num_labels=num_labels,
        **SIZES,
    )
    BertForSequenceClassification(config).save_pretrained(folder)
    return folder


def save_roberta(folder: Path, *, max_positions: int = 65) -> Path:
    torch.manual_seed(7)
    config = XLMRobertaConfig(
        vocab_size=save_tokenizer(folder),
        max_position_embeddings=max_positions,
        num_labels=1,
        type_vocab_size=1,
        **SIZES,
    )
    XLMRobertaForSequenceClassification(config).save_pretrained(folder)
    return folder


def save_tokenizer(folder: Path) -> int:
    """Save a WordPiece tokenizer that knows letters only; return the size of its vocabulary."""
    pieces = [*SPECIAL, *LETTERS, *(f"##{letter}" for letter in LETTERS)]
    tokenizer = Tokenizer(
        models.WordPiece({piece: i for i, piece in enumerate(pieces)}, unk_token="[UNK]")
    )
    tokenizer.normalizer = normalizers.BertNormalizer(lowercase=True)
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]",
        pair="[CLS] $A [SEP] $B:1 [SEP]:1",
        special_tokens=[("[CLS]", 2), ("[SEP]", 3)],
    )
    fast = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        pad_token="[PAD]",
        unk_token="[UNK]",
        cls_token="[CLS]",
        sep_token="[SEP]",
    )
    fast.save_pretrained(folder)
    return len(pieces)
