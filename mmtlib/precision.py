"""Products in full float32, whatever precision PyTorch was told to make do with."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch


@contextmanager
def float32_products() -> Iterator[None]:
    """Inside, float32 matrix products are neither TF32 nor bfloat16; afterwards the setting is what it was.

    TF32 keeps 10 bits of a factor. A squared distance of near neighbours is a small difference of large products:
    with TF32 it would be mostly error, and triplets, ranks and clusters with it. Also a decorator.
    """
    if hasattr(torch.backends.cuda.matmul, "fp32_precision"):  # PyTorch 2.9 on: one setting per backend
        backends = torch.backends.cuda.matmul, torch.backends.mkldnn.matmul
        before = [backend.fp32_precision for backend in backends]
        for backend in backends:
            backend.fp32_precision = "ieee"
        try:
            yield
        finally:
            for backend, precision in zip(backends, before):
                backend.fp32_precision = precision
    else:
        precision = torch.get_float32_matmul_precision()
        torch.set_float32_matmul_precision("highest")
        try:
            yield
        finally:
            torch.set_float32_matmul_precision(precision)
