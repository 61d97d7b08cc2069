from __future__ import annotations

import os

import torch

# Test files run in parallel: more threads than cores would only wait for each other.
torch.set_num_threads(1)
os.environ["OMP_NUM_THREADS"] = "1"  # for processes that tests start
