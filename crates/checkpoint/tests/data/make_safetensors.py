"""Makes the *.safetensors files beside this script, with the Python packages torch and safetensors (0.8.0).

The sums that it prints are kept in make_safetensors.sha256. Values follow simple rules, which crates/checkpoint/tests/safetensors.rs repeats.
"""

import hashlib
import pathlib

import torch
from safetensors.torch import save_file

HERE = pathlib.Path(__file__).parent


def ramp(count, dtype):
    """0, 1/4, 2/4, ... with alternating sign: exact in every float type up to 63."""
    values = torch.arange(count, dtype=torch.float64) / 4
    values[1::2] *= -1
    return values.to(dtype)


save_file(
    {
        "wide": ramp(6, torch.float64).reshape(2, 3),
        "single": ramp(12, torch.float32).reshape(3, 4),
        "half": ramp(10, torch.float16).reshape(5, 2),
        "brain": ramp(7, torch.bfloat16),
        "long": torch.tensor([-(2**63), -1, 0, 2**63 - 1]),
        "int": torch.tensor([-(2**31), 2**31 - 1], dtype=torch.int32),
        "short": torch.tensor([-32768, 32767], dtype=torch.int16),
        "tiny": torch.tensor([-128, 127], dtype=torch.int8),
        "byte": torch.tensor([0, 255], dtype=torch.uint8),
        "scalar": torch.tensor(2.5, dtype=torch.float32),
        "empty": torch.zeros((0, 3), dtype=torch.float16),
        "näme": torch.ones((1, 1, 2), dtype=torch.float32),
    },
    HERE / "genuine.safetensors",
    metadata={"quote": 'a "b" \\ c\n'},
)
save_file({"weight": torch.ones(2), "mask": torch.tensor([True, False])}, HERE / "genuine_bool.safetensors")
save_file({"weight": torch.ones(4).to(torch.float8_e4m3fn)}, HERE / "genuine_float8.safetensors")

for path in sorted(HERE.glob("genuine*.safetensors")):
    path.chmod(0o644)
    print(f"{hashlib.sha256(path.read_bytes()).hexdigest()}  {path.name}")
