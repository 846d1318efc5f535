"""A tiny decoder of random weights as a folder, and adapters over it as PEFT saves them."""

import copy
from pathlib import Path
from typing import Any

import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

SPECIAL = ["<unk>", "</s>"]
LETTERS = sorted(pre_tokenizers.ByteLevel.alphabet())


def save_llama(folder: Path, **settings: Any) -> Path:
    torch.manual_seed(3)
    config = LlamaConfig(
        vocab_size=len(SPECIAL) + len(LETTERS),
        hidden_size=64,
        intermediate_size=96,
        num_hidden_layers=3,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=2048,
        initializer_range=0.3,  # so that the best token is best by far
        bos_token_id=None,
        eos_token_id=1,
        tie_word_embeddings=False,
        **settings,
    )
    model = LlamaForCausalLM(config)
    model.save_pretrained(folder)
    vocabulary = {piece: number for number, piece in enumerate([*SPECIAL, *LETTERS])}
    tokenizer = Tokenizer(models.BPE(vocabulary, [], unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, unk_token="<unk>", eos_token="</s>"
    ).save_pretrained(folder)
    return folder


def save_adapter(folder: Path, model: Any, seed: int, **settings: Any) -> Path:
    """Save a random adapter over a model, which stays as it is."""
    import peft

    torch.manual_seed(seed)
    given = {"r": 4, "lora_alpha": 12, "target_modules": ["q_proj", "v_proj"]} | settings
    adapted = peft.get_peft_model(
        copy.deepcopy(model), peft.LoraConfig(task_type="CAUSAL_LM", **given)
    )
    with torch.no_grad():
        for name, weight in adapted.named_parameters():
            if "lora_" in name:
                weight.normal_(0.0, 0.3)
    adapted.save_pretrained(folder)
    return folder
