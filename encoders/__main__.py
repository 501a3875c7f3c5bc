"""List every encoder with its size.

python -m encoders
"""

import torch
from torch.utils.flop_counter import FlopCounterMode

from encoders import ENCODERS, blueprint, coarse_heat


def row(name: str) -> tuple[str, str, str, str, str]:
    """Name, parameters in millions, multiply-adds in billions at 224 x 224 pixels, channels, pixels per heat cell."""
    encoder = blueprint(name).eval()
    with torch.no_grad(), FlopCounterMode(display=False) as counted:
        encoder(torch.zeros(1, 3, 224, 224, device="meta"))
    n_parameters = sum(parameter.numel() for parameter in encoder.parameters())
    channels = ", ".join(map(str, encoder.channels))
    sizes = f"{n_parameters / 1e6:.1f}", f"{counted.get_total_flops() / 2e9:.2f}"
    return name, *sizes, channels, "32" if coarse_heat([name]) else "16"


if __name__ == "__main__":
    print("encoder | parameters (M) | multiply-adds (G) | channels | pixels per heat cell")
    for name in ENCODERS:
        print(" | ".join(row(name)), flush=True)
