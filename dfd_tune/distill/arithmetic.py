"""How torch computes in this process: in which arithmetic a GPU does float32, and whether runs that are equal must be.

The one place where these of torch's switches are set. None of them is part of a key. Not for: the precision of a
training, which is a setting (networks.py).
"""

from __future__ import annotations

import os

import torch

CUBLAS_VARIABLE = "CUBLAS_WORKSPACE_CONFIG"
DETERMINISTIC_WORKSPACES = (":4096:8", ":16:8")
"""Values of that variable with which cuBLAS gives the same result twice, by torch's documentation; the first is the
faster one."""
MATMUL_PRECISION, CONVOLUTION_PRECISION = "ieee", "tf32"
"""Of float32 on a GPU, as torch does it unless told otherwise: matrix products in float32 throughout; convolutions with
factors rounded to TF32's 10 bits of mantissa, and sums in float32."""


class LateError(RuntimeError):
    """CUDA is in use already, so that it is too late to ask for what is read when it begins."""


def compute(*, deterministic: bool) -> None:
    """Put this process into the asked state, whatever an earlier job of its has left.

    Args:
        deterministic: whether equal runs on equal machines must give equal bits. torch then raises RuntimeError at an
            operation that it has no such version of. Otherwise cuDNN tries out which of its algorithms is fastest for
            each of a training's few shapes.

    Raises:
        LateError: determinism is asked for where CUDA has begun without `CUBLAS_WORKSPACE_CONFIG`.
    """
    if deterministic and os.environ.get(CUBLAS_VARIABLE) not in DETERMINISTIC_WORKSPACES:
        if torch.cuda.is_initialized():
            raise LateError(
                f"CUDA has begun in this process, and {CUBLAS_VARIABLE} is none of "
                f"{', '.join(DETERMINISTIC_WORKSPACES)}; set it before."
            )
        # Stays when determinism is no longer asked for: it decides how much memory cuBLAS sets aside.
        os.environ[CUBLAS_VARIABLE] = DETERMINISTIC_WORKSPACES[0]
    torch.use_deterministic_algorithms(deterministic)
    torch.backends.cudnn.deterministic = deterministic
    torch.backends.cudnn.benchmark = not deterministic
    _set_float32()


def _set_float32() -> None:
    if hasattr(torch.backends.cudnn, "conv"):
        torch.backends.cuda.matmul.fp32_precision = MATMUL_PRECISION
        torch.backends.cudnn.conv.fp32_precision = CONVOLUTION_PRECISION
    else:  # torch before 2.9
        torch.backends.cuda.matmul.allow_tf32 = MATMUL_PRECISION == "tf32"
        torch.backends.cudnn.allow_tf32 = CONVOLUTION_PRECISION == "tf32"


NO_DETERMINISTIC_VERSION = "does not have a deterministic implementation"
"""What torch says of an operation, after its name."""
