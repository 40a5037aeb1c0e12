"""Which number format convolutions run in."""

import torch

from hvae.training.config import TrainConfig


def uses_bf16(config: TrainConfig, device: torch.device) -> bool:
    """Returns whether convolutions run in bfloat16: as asked, or where the hardware has it.

    Without the instructions a CPU emulates bfloat16 convolutions: over ten times slower than
    float32 ones on an AVX2 machine.
    """
    if config.precision != "auto":
        return config.precision == "bf16"
    if device.type == "cuda":
        return bool(torch.cuda.is_bf16_supported(including_emulation=False))
    # Absent from some supported torch versions, where a CPU then keeps to float32.
    capabilities: dict[str, object] = getattr(torch.cpu, "get_capabilities", dict)()
    return bool(capabilities.get("avx512_bf16") or capabilities.get("amx_bf16"))
