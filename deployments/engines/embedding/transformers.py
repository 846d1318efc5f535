"""Sentence encoders of the transformers family: mean- or cls-pooled BERT and its relatives.

On a CPU every core works on a batch of its own. One batch on all cores would make them wait for
each other after each of its hundreds of steps, which is slow where cores are shared.
"""

import os
from functools import partial

import torch

from deployments.config import EmbedderArgs
from deployments.engines.embedding.encoder import load_encoder
from deployments.engines.embedding.engine import BatchedEmbedder
from deployments.engines.embedding.model import Model
from deployments.engines.embedding.model_folder import read_model_folder
from deployments.engines.heap import trim
from deployments.engines.texts.tokenizer import FastTokenizer
from deployments.engines.weights import locate

_MAX_WORKERS = 8
"""More would wait for Python's lock; with more cores, a worker gets several."""


class TransformersEmbedder(BatchedEmbedder):
    """Loads a sentence-transformers folder and computes it with PyTorch."""

    def load(self, args: EmbedderArgs) -> Model:
        """Load the model; its worker threads, and nobody else, use PyTorch's own threads."""
        torch.set_num_threads(1)
        folder = read_model_folder(locate(args.source).folder)
        encoder = load_encoder(folder, args.device, args.precision)
        trim()
        num_threads = args.num_threads or len(os.sched_getaffinity(0))
        num_workers = min(num_threads, _MAX_WORKERS) if args.device == "cpu" else 1
        return Model(
            FastTokenizer(folder.path),
            encoder,
            encoder.dim,
            folder.max_tokens,
            num_workers,
            partial(torch.set_num_threads, num_threads // num_workers),
        )
