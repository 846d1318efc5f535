"""Sentence encoders of the transformers family: mean- or cls-pooled BERT and its relatives."""

import torch

from deployments.config import EmbedderArgs
from deployments.engines.embedding.encoder import load_encoder
from deployments.engines.embedding.engine import BatchedEmbedder
from deployments.engines.embedding.model import Model
from deployments.engines.embedding.model_folder import read_model_folder
from deployments.engines.embedding.tokenization import FastTokenizer
from deployments.engines.weights import locate


class TransformersEmbedder(BatchedEmbedder):
    """Loads a sentence-transformers folder and computes it with PyTorch."""

    def load(self, args: EmbedderArgs) -> Model:
        """Load the model on this thread, which alone will use PyTorch.

        The number of threads is set here because a second OpenMP pool, made by another thread of
        this process, would compete for the same cores.
        """
        if args.num_threads:
            torch.set_num_threads(args.num_threads)
        folder = read_model_folder(locate(args.source).folder)
        encoder = load_encoder(folder, args.device, args.precision)
        return Model(FastTokenizer(folder.path), encoder, encoder.dim, folder.max_tokens)
