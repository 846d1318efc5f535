"""Fine-tuning with LoRA: examples checked and encoded, training, evaluation, merging."""
