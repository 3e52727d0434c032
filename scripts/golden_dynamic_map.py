#!/usr/bin/env python3
"""Makes crates/float/tests/golden/dynamic_map.txt: the 8-bit codes of bitsandbytes' block-wise optimiser state.

    pip install torch bitsandbytes
    python scripts/golden_dynamic_map.py

One line for each of 256 codes: the value of the signed code (first moments, momentum) and of the unsigned one (second
moments), as f32 bits in hexadecimal, from `bitsandbytes.functional.create_dynamic_map`.
"""
from pathlib import Path

import bitsandbytes.functional as functional
import numpy as np

OUT = Path(__file__).resolve().parent.parent / "crates/float/tests/golden/dynamic_map.txt"

maps = [functional.create_dynamic_map(signed=signed).numpy().astype("<f4") for signed in (True, False)]
signed, unsigned = (m.view(np.uint32) for m in maps)
OUT.write_text("".join(f"{a:08x} {b:08x}\n" for a, b in zip(signed, unsigned)))
