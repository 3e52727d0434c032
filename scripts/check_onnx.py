#!/usr/bin/env python3
"""Runs models written by `halfstep export --onnx MODEL --test-data DIR` in ONNX Runtime and compares logits with ours.

    pip install onnx onnxruntime
    python scripts/check_onnx.py MODEL DIR [MODEL DIR …]

Prints the largest difference, and the unit roundoff of the file's precision: logits are rounded to it at several layers, and a
sum taken in another order may fall on the other side of a rounding. Ends with 1 if a difference exceeds 8 of these units of the
largest logit, or a predicted class differs where the two largest logits are farther apart than that.
"""
import sys
import numpy as np
import onnx
import onnxruntime
from onnx import numpy_helper

UNIT = {"fp32": 2.0**-24, "bf16": 2.0**-8, "fp16": 2.0**-11}


def check(path, folder):
    model = onnx.load(path)
    onnx.checker.check_model(model, full_check=True)
    notes = {p.key: p.value for p in model.metadata_props}
    read = lambda name: numpy_helper.to_array(onnx.load_tensor(f"{folder}/test_data_set_0/{name}.pb"))
    x, ours = read("input_0"), read("output_0")
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    theirs = session.run(None, {session.get_inputs()[0].name: x})[0].astype(np.float64)
    # Sums of n f32 products in another order differ by up to n units; a thousand is every sum here.
    unit = max(UNIT[notes["halfstep.precision"]], 1000 * 2.0**-24)
    difference, limit = np.abs(theirs - ours).max(), 8 * unit * np.abs(ours).max()
    ordered = np.sort(ours, axis=1)
    clear = ordered[:, -1] - ordered[:, -2] > 2 * limit
    same = (theirs.argmax(1) == ours.argmax(1))[clear].all()
    types = sorted({onnx.TensorProto.DataType.Name(t.data_type) for t in model.graph.initializer if np.prod(t.dims) > 64})
    print(f"{path}: {notes['halfstep.precision']}, weights {types}, largest difference {difference:.3g} of {np.abs(ours).max():.3g}, "
          f"limit {limit:.3g}, classes {'equal' if same else 'differ'}")
    return difference <= limit and same


if __name__ == "__main__":
    results = [check(*pair) for pair in zip(sys.argv[1::2], sys.argv[2::2])]
    sys.exit(0 if results and all(results) else 1)
