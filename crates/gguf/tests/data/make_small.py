"""Writes small.gguf with gguf-py: every kind of metadata value and several tensor types, for the reader's tests.

Made with gguf 0.19.0 and numpy: python make_small.py small.gguf
"""

import sys

import gguf
import numpy as np

writer = gguf.GGUFWriter(sys.argv[1], "test")
writer.add_uint8("value.u8", 200)
writer.add_int8("value.i8", -100)
writer.add_uint16("value.u16", 60_000)
writer.add_int16("value.i16", -30_000)
writer.add_uint32("value.u32", 4_000_000_000)
writer.add_int32("value.i32", -2_000_000_000)
writer.add_uint64("value.u64", 2**63 + 1)
writer.add_int64("value.i64", -(2**62))
writer.add_float32("value.f32", 1.5)
writer.add_float64("value.f64", 0.1)
writer.add_bool("value.bool", True)
writer.add_string("value.string", "Zoë\n")
writer.add_array("array.strings", ["a", "", "ß"])
writer.add_array("array.ints", [1, -2, 3])
writer.add_array("array.floats", [0.5, 0.25])
writer.add_quantization_version(2)

grid = (np.arange(128, dtype=np.float32) - 64).reshape(2, 64) / 8
writer.add_tensor("dense.f32", grid)
writer.add_tensor("dense.f16", grid.astype(np.float16))
writer.add_tensor("cube", np.arange(24, dtype=np.float32).reshape(2, 3, 4))
for name in ("BF16", "Q8_0", "Q5_1", "Q5_0", "Q4_1", "Q4_0"):
    kind = gguf.GGMLQuantizationType[name]
    writer.add_tensor("packed." + name.lower(), gguf.quants.quantize(grid, kind), raw_dtype=kind)
writer.add_tensor("ints", np.array([1, -1, 2**31 - 1], dtype=np.int32))

writer.write_header_to_file()
writer.write_kv_data_to_file()
writer.write_tensors_to_file()
writer.close()
