from __future__ import annotations

import os

import torch

# Files run side by side, and threads that outnumber the cores wait for each other at every step.
torch.set_num_threads(1)
os.environ["OMP_NUM_THREADS"] = "1"  # of the processes that tests start
