"""The engine over transformers' continuous batching, for CPU and GPU."""

import os

# Read by OpenMP when torch is first imported: how long its threads spin while they wait for each
# other, hundreds of times per token. Spinning for long (the default) keeps the computing thread
# from its core when other processes want one too: 12 prompts beside busy processes on 2 cores took
# 21 steps in the time of 3 without it. Not spinning at all costs a quarter of the speed of one
# stream on a quiet machine: engine to plain loop 0.87, with 2,000 turns 1.03, with 30,000 1.22.
os.environ.setdefault("GOMP_SPINCOUNT", "10000")
