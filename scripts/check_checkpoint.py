#!/usr/bin/env python3
"""Open a checkpoint with other people's tools: Hugging Face's safetensors, hashlib, jsonschema. None of our code.

    pip install safetensors numpy jsonschema
    python3 scripts/check_checkpoint.py RUN/checkpoints/step-000200
"""
import hashlib, json, pathlib, sys

import jsonschema
from safetensors.numpy import load_file

SCHEMA = pathlib.Path(__file__).parent.parent / "crates/train/schema/precision-manifest.schema.json"


def main(folder: pathlib.Path) -> None:
    for name, expected in json.loads((folder / "manifest.json").read_text())["files"].items():
        content = (folder / name).read_bytes()
        assert len(content) == expected["bytes"], f"{name}: {len(content)} bytes, expected {expected['bytes']}"
        assert hashlib.sha256(content).hexdigest() == expected["sha256"], f"{name}: another SHA-256"
    schema = json.loads(SCHEMA.read_text())
    jsonschema.Draft202012Validator.check_schema(schema)
    precision = json.loads((folder / "precision.json").read_text())
    jsonschema.Draft202012Validator(schema).validate(precision)
    files = {name: load_file(folder / name) for name in ("model.safetensors", "optimiser.safetensors")}
    for tensor in precision["tensors"]:
        found = files[tensor["file"]].pop(tensor["name"])
        assert list(found.shape) == tensor["shape"], f"{tensor['name']}: {found.shape}, expected {tensor['shape']}"
        assert found.dtype.name == {"f32": "float32", "i32": "int32"}[tensor["storage"]], tensor["name"]
    assert not any(files.values()), f"tensors that precision.json does not name: {files}"
    print(f"{folder}: {len(precision['tensors'])} tensors, trained in {precision['policy']['name']}: as it says")


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit(__doc__)
    main(pathlib.Path(sys.argv[1]))
