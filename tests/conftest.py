"""One thread for torch: tiny tensors gain nothing from more, and shared machines stay calm."""

from __future__ import annotations

import torch

torch.set_num_threads(1)
