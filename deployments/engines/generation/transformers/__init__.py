"""The engine over transformers' continuous batching, for CPU and GPU."""

import os

# Read by OpenMP when torch is first imported. By default its threads spin while they wait for each
# other, hundreds of times per token: on cores that other processes want too, the waiting thread
# keeps the computing one from running. Source: 12 prompts of 530 tokens beside other busy
# processes on 2 cores took 21 steps in the time of 3.
os.environ.setdefault("OMP_WAIT_POLICY", "passive")
