#!/usr/bin/env python3
"""Makes crates/float/tests/golden/formats.json: what ml_dtypes and numpy make of every code and of 10^7 f32 values.

    pip install ml_dtypes numpy            # ml_dtypes 0.6 or later
    pip install torch torchao              # optional: checks the MX forms here against torchao's
    python scripts/golden_formats.py

For each format the file holds
  decode          the values of all codes, as f32 bits in hexadecimal (8-bit formats) or as a SHA-256 (16-bit formats);
  midpoints       the codes of all numbers halfway between two neighbours, of the number where overflow begins, of their f32
                  neighbours, and of special values, with either sign: as hexadecimal and as a SHA-256;
  encode_sha256   the codes of 10^7 values drawn by `values`, which the Rust test draws too;
  stochastic_sha256  the codes of 240 000 of them rounded stochastically with a fixed key.
Every NaN is the canonical one before it is hashed: as f32 0x7fc00000; as a code what ml_dtypes makes of NaN; as an f16
code 0x7e00 with its sign (numpy keeps payloads, as processors do).

`blocks` holds SHA-256 of codes and scales of the block-scaled forms, computed here from their definitions with numpy and
ml_dtypes alone.
"""
import hashlib, json, warnings
from pathlib import Path

import ml_dtypes, numpy as np

OUT = Path(__file__).resolve().parent.parent / "crates/float/tests/golden/formats.json"
COUNT, PART, SEED = 10_000_000, 1_000_000, 20_26
BLOCK_COUNT, ROW = 240_000, 600      # 600 is no multiple of 16, 32 or 128
u32, u64 = np.uint32, np.uint64

FORMATS = {  # name: (type, code type, code of the largest finite value, mantissa bits)
    "f16": (np.float16, np.uint16, 0x7BFF, 10),
    "bf16": (ml_dtypes.bfloat16, np.uint16, 0x7F7F, 7),
    "e4m3": (ml_dtypes.float8_e4m3fn, np.uint8, 0x7E, 3),
    "e5m2": (ml_dtypes.float8_e5m2, np.uint8, 0x7B, 2),
    "e4m3fnuz": (ml_dtypes.float8_e4m3fnuz, np.uint8, 0x7F, 3),
    "e5m2fnuz": (ml_dtypes.float8_e5m2fnuz, np.uint8, 0x7F, 2),
    "e3m2": (ml_dtypes.float6_e3m2fn, np.uint8, 0x1F, 2),
    "e2m3": (ml_dtypes.float6_e2m3fn, np.uint8, 0x1F, 3),
    "e2m1": (ml_dtypes.float4_e2m1fn, np.uint8, 0x07, 1),
}


def sha(a):
    return hashlib.sha256(np.ascontiguousarray(a).tobytes()).hexdigest()


def philox(counters, seed=SEED):
    """Philox4x32-10 with this key: four words for each counter, given as its four words."""
    c = [np.asarray(w).astype(u64) for w in np.broadcast_arrays(*counters)]
    k = [u64(seed), u64(0)]
    low, w = u64(0xFFFFFFFF), u64(32)
    for _ in range(10):
        p0, p1 = u64(0xD2511F53) * c[0], u64(0xCD9E8D57) * c[2]
        c = [(p1 >> w) ^ c[1] ^ k[0], p1 & low, (p0 >> w) ^ c[3] ^ k[1], p0 & low]
        k = [(k[0] + u64(0x9E3779B9)) & low, (k[1] + u64(0xBB67AE85)) & low]
    return [x.astype(u32) for x in c]


def values(first, count, narrow=False):
    """Bits of f32 values `first` .. `first + count`: any bits; any exponent with few mantissa bits; exponents where small
    formats have their values, with many ties, or one f32 step beside them. `narrow` leaves out the first two kinds."""
    w0, w1, w2, w3 = philox([np.arange(first, first + count), 0, 0, 0])
    kind = w1 % u32(4)
    if narrow:
        kind = kind | u32(2)
    small = u32(100) + w2 % u32(48)
    field = np.where(kind == 1, w2 % u32(255), small)
    mantissa = w0 & u32(0x7FFFFF) & ~((u32(1) << (w3 % u32(24))) - u32(1))
    beside = np.where(kind == 3, (w3 >> u32(8)) % u32(3), u32(1))
    bits = (w0 & u32(0x80000000)) | (field << u32(23)) | mantissa
    return np.where(kind == 0, w0, bits + beside - u32(1)).astype(u32)


def encode(name, bits):
    kind, code, _, _ = FORMATS[name]
    x = bits.view(np.float32)
    codes = x.astype(kind).view(code).copy()
    if name == "f16":
        nan = np.isnan(x)
        codes[nan] = 0x7E00 | (bits[nan] >> u32(31) << u32(15)).astype(code)
    return codes


def decode(name, codes):
    kind, code, _, _ = FORMATS[name]
    x = codes.astype(code).view(kind).astype(np.float32)
    bits = x.view(u32).copy()
    bits[np.isnan(x)] = 0x7FC00000
    return bits


SPECIAL = [0, 1, 0x007FFFFF, 0x00800000, 0x7F7FFFFF, 0x7F800000, 0x7F800001, 0x7FC00000, 0x7FC12345]


def midpoints(name):
    _, code, largest, mantissa = FORMATS[name]
    v = decode(name, np.arange(largest + 1)).view(np.float32).astype(np.float64)
    step = 2.0 ** (np.floor(np.log2(v[-1])) - mantissa)
    middle = (v + np.append(v[1:], v[-1] + step)) / 2
    bits = middle.astype(np.float32).view(u32)
    assert (bits.view(np.float32) == middle).all()
    around = np.stack([bits - u32(1), bits, bits + u32(1)], axis=1).reshape(-1)
    positive = np.concatenate([around, np.array(SPECIAL, u32)])
    return np.concatenate([positive, positive | u32(0x80000000)])


def formats():
    out = {}
    for name, (kind, code, _, _) in FORMATS.items():
        width = {"e3m2": 6, "e2m3": 6, "e2m1": 4}.get(name, np.dtype(code).itemsize * 8)
        table, middles = decode(name, np.arange(1 << width)), encode(name, midpoints(name))
        h = hashlib.sha256()
        for first in range(0, COUNT, PART):
            h.update(encode(name, values(first, PART)).tobytes())
        entry = {"encode_sha256": h.hexdigest()}
        if width > 8:
            entry |= {"decode_sha256": sha(table), "midpoints_sha256": sha(middles)}
        else:
            entry |= {"decode": "".join(f"{b:08x}" for b in table), "midpoints": bytes(middles).hex()}
        entry["stochastic_sha256"] = sha(stochastic(name, values(0, BLOCK_COUNT, narrow=True)))
        out[name] = entry
        print(name, entry["encode_sha256"][:16])
    return out


def stochastic(name, bits):
    """Codes of finite values rounded away from zero where a random word is below the dropped fraction's first 32 bits,
    saturated. The words are those of seed 7, attempt 3, operation 2: four elements to a counter (op, attempt, 0, i / 4)."""
    kind, code, largest, mantissa = FORMATS[name]
    v = decode(name, np.arange(largest + 1)).view(np.float32).astype(np.float64)
    words = np.stack(philox([2, 3, 0, np.arange(len(bits) // 4)], seed=7), axis=1).reshape(-1)
    x = np.abs(bits.view(np.float32).astype(np.float64))
    below = np.searchsorted(v, x, side="right") - 1
    step = np.append(v[1:], v[-1] + 1)[below] - v[below]
    fraction = np.floor((x - v[below]) / step * 2.0**32)      # a step is a power of two: exact
    codes = np.minimum(below + (words < fraction), largest)
    sign = bits >> u32(31)
    if name.endswith("fnuz"):
        sign = np.where(codes == 0, 0, sign)
    width = int(np.log2(largest + 1)) + 1 if largest & (largest + 1) == 0 else np.dtype(code).itemsize * 8
    return (codes | sign.astype(np.int64) << (width - 1)).astype(code)


def tf32(bits):
    """Bits of f32 values rounded to 11 significant bits, ties away from zero, as PTX defines cvt.rna.tf32.f32."""
    x = bits.view(np.float32).astype(np.float64)
    # frexp gives a fraction in [1/2, 1); subnormals have the unit of the smallest normal number.
    fraction, exponent = np.frexp(np.where(np.isfinite(x), np.abs(x), 0))
    unit = np.maximum(exponent, -125) - 11
    rounded = np.ldexp(np.floor(np.ldexp(fraction, exponent - unit) + 0.5), unit)
    y = np.copysign(np.where(np.isfinite(x), rounded, x), x).astype(np.float32)      # infinite from 2^128 on
    out = y.view(u32).copy()
    out[np.isnan(x)] = 0x7FC00000
    return out


def tf32_edges():
    """Halfway points of every exponent and few mantissas, their f32 neighbours, and special values, with either sign."""
    mantissas = np.array([0, 1, 2, 511, 512, 1022, 1023], u32) << u32(13) | u32(0x1000)
    middle = (np.arange(255, dtype=u32)[:, None] << u32(23) | mantissas).reshape(-1)
    around = np.stack([middle - u32(1), middle, middle + u32(1)], axis=1).reshape(-1)
    positive = np.concatenate([around, np.array(SPECIAL, u32)])
    return np.concatenate([positive, positive | u32(0x80000000)])


def tf32_hashes():
    h = hashlib.sha256()
    for first in range(0, COUNT, PART):
        h.update(tf32(values(first, PART)).tobytes())
    return {"edges_sha256": sha(tf32(tf32_edges())), "values_sha256": h.hexdigest()}


def e8m0():
    kind = ml_dtypes.float8_e8m0fnu
    table = np.arange(256, dtype=np.uint8).view(kind).astype(np.float32)
    bits = table.view(u32).copy()
    bits[np.isnan(table)] = 0x7FC00000
    h = hashlib.sha256()
    for first in range(0, COUNT, PART):
        h.update(values(first, PART).view(np.float32).astype(kind).view(np.uint8).tobytes())
    return {"decode_sha256": sha(bits), "encode_sha256": h.hexdigest()}


def padded(x, block):
    """Blocks of the rows of x, the last of each row filled with zeros: [rows, blocks, block]."""
    rows, columns = x.shape
    blocks = -(-columns // block)
    y = np.zeros((rows, blocks * block), np.float32)
    y[:, :columns] = x
    return y.reshape(rows, blocks, block)


def unpadded(y, columns):
    return y.reshape(y.shape[0], -1)[:, :columns]


def saturated(name, x):
    kind, code, largest, _ = FORMATS[name]
    top = float(np.array([largest], code).view(kind).astype(np.float32)[0])
    return np.clip(x, np.float32(-top), np.float32(top)).astype(kind).view(code), top


def mx(x, name, rule):
    """OCP MX v1.0: [rows, columns] codes and [rows, blocks] e8m0 codes."""
    y = padded(x, 32)
    amax = np.abs(y).max(-1)
    top = saturated(name, np.float32([np.inf]))[1]
    emax, mantissa = int(np.floor(np.log2(top))), FORMATS[name][3]
    # frexp gives a fraction in [1/2, 1).
    fraction, exponent = np.frexp(amax.astype(np.float64))
    up = {
        "floor": np.zeros(amax.shape, bool),
        "even": fraction * 2 + 2.0 ** -(mantissa + 1) >= 2,
        "no_overflow": fraction * 2 > top / 2.0**emax,
    }[rule]
    e = np.clip(exponent - 1 + up - emax, -127, 127)
    e[amax == 0] = -127
    codes, _ = saturated(name, np.ldexp(y.astype(np.float64), -e[..., None]).astype(np.float32))
    return unpadded(codes, x.shape[1]), (e + 127).astype(np.uint8)


def nvfp4(x):
    """Codes, e4m3 block scales and the f32 tensor scale."""
    tensor = np.float32(np.abs(x).max()) / np.float32(2688)
    y = padded(x, 16)
    amax = np.abs(y).max(-1)
    scale, _ = saturated("e4m3", amax / np.float32(6) / tensor)
    by = scale.view(ml_dtypes.float8_e4m3fn).astype(np.float32) * tensor
    with np.errstate(divide="ignore", invalid="ignore"):
        codes, _ = saturated("e2m1", y / by[..., None])
    codes = np.where(by[..., None] > 0, codes, np.uint8(0))
    return unpadded(codes, x.shape[1]), scale, tensor


def fp8_blocks(x, name, rows, columns):
    """Codes and f32 scales of rows × columns blocks."""
    _, top = saturated(name, np.float32([np.inf]))
    codes, scales = np.zeros(x.shape, np.uint8), []
    for r in range(0, x.shape[0], rows):
        for c in range(0, x.shape[1], columns):
            part = x[r : r + rows, c : c + columns]
            scale = np.float32(np.abs(part).max()) / np.float32(top)
            codes[r : r + rows, c : c + columns] = saturated(name, part / scale)[0]
            scales.append(scale)
    return codes, np.array(scales, np.float32)


def check_with_torchao(x, name, rule, codes, scales):
    try:
        import torch
        from torchao.prototype.mx_formats.config import ScaleCalculationMode as Mode
        from torchao.prototype.mx_formats.mx_tensor import to_mx
    except ImportError:
        return False
    kind = {"e4m3": torch.float8_e4m3fn, "e5m2": torch.float8_e5m2}.get(name)
    if kind is None:
        return False
    whole = padded(x, 32).reshape(x.shape[0], -1)
    mode = {"floor": Mode.FLOOR, "even": Mode.EVEN, "no_overflow": Mode.RCEIL}[rule]
    s, q = to_mx(torch.from_numpy(whole), kind, 32, mode)
    s = s.view(torch.uint8).numpy().reshape(scales.shape)
    q = q.view(torch.uint8).numpy()[:, : x.shape[1]]
    # torchao's rceil multiplies by the rounded 1/largest, which may give a scale too many where
    # amax is a power of two times the largest value: counted, not hidden.
    other = np.argwhere(s != scales)
    same = unpadded(np.repeat(s == scales, 32, axis=1), x.shape[1])
    assert (q[same] == codes[same]).all(), (name, rule)
    print(f"mx {name} {rule}: torchao agrees, but for {len(other)} of {scales.size} scales")
    assert len(other) == 0 or rule == "no_overflow"
    return True


def blocks():
    x = values(0, BLOCK_COUNT, narrow=True).view(np.float32).reshape(-1, ROW).copy()
    x[3] = 0                    # a row of zeros
    x[5] *= np.float32(2.0**-120)   # and one near the end of f32
    out = {"values_sha256": sha(x)}
    for name in ["e4m3", "e5m2", "e3m2", "e2m3", "e2m1"]:
        for rule in ["floor", "even", "no_overflow"]:
            codes, scales = mx(x, name, rule)
            check_with_torchao(x, name, rule, codes, scales)
            out[f"mx {name} {rule}"] = {"codes": sha(codes), "scales": sha(scales)}
    codes, scales, tensor = nvfp4(x)
    out["nvfp4"] = {"codes": sha(codes), "scales": sha(scales), "tensor_scale": f"{tensor.view(u32):08x}"}
    y = np.delete(x, 3, 0)      # a block of zeros has scale 1, which the one-line definition here has not
    for name in ["e4m3", "e5m2"]:
        for rows in [1, 128]:
            codes, scales = fp8_blocks(y, name, rows, 128)
            assert (scales >= np.finfo(np.float32).tiny).all()
            out[f"fp8 {name} {rows}x128"] = {"codes": sha(codes), "scales": sha(scales)}
    return out


def main():
    warnings.simplefilter("ignore")
    h = hashlib.sha256()
    for first in range(0, COUNT, PART):
        h.update(values(first, PART).tobytes())
    golden = {
        "ml_dtypes": ml_dtypes.__version__,
        "numpy": np.__version__,
        "count": COUNT,
        "values_sha256": h.hexdigest(),
        "formats": formats(),
        "tf32": tf32_hashes(),
        "e8m0": e8m0(),
        "blocks": blocks(),
    }
    OUT.parent.mkdir(parents=True, exist_ok=True)
    OUT.write_text(json.dumps(golden, indent=1) + "\n")
    print(OUT.name, OUT.stat().st_size, "bytes")


if __name__ == "__main__":
    main()
