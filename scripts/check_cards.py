#!/usr/bin/env python3
"""Has CycloneDX's strict validator and huggingface-hub read the cards of `halfstep card`.

    cargo build --features serve
    python3 scripts/check_cards.py target/debug/halfstep

Both come from PyPI into target/cards, with the versions of scripts/requirements/cards.txt (70 MB), and use no network. Read are the golden
files of the tests, and the cards of a comparison that is made here. What cannot run here is skipped and named, and the exit code is
then 0 all the same.
"""

import json
import pathlib
import subprocess
import sys
import tempfile

from environment import ROOT, python, skip

GOLDEN = ROOT / "crates/halfstep/src/cli/card/golden"
RECIPE = """
name = "tiny"
[data]
kind = "bundled"
name = "digits"
limit_train = 200
limit_test = 100
[model]
kind = "mlp"
hidden = [16]
[train]
epochs = 2
batch = 32
[compare]
seeds = 2
"""


def in_environment():
    """Goes on in the Python that has the readers."""
    if pathlib.Path(sys.prefix) != ROOT / "target/cards":
        sys.exit(subprocess.run([python("cards"), __file__, *sys.argv[1:]]).returncode)


def check_bom(path):
    from cyclonedx.schema import SchemaVersion
    from cyclonedx.validation.json import JsonStrictValidator

    fault = JsonStrictValidator(SchemaVersion.V1_7).validate_str(path.read_text())
    assert fault is None, f"{path}: {fault}"
    model = json.loads(path.read_text())["metadata"]["component"]
    names = [p["name"] for p in model["properties"]]
    assert all(name.startswith("halfstep:") for name in names) and len(set(names)) == len(names)
    print(f"CycloneDX 1.7, strict: {path.name}: accepted")


def check_card(path):
    # The parser alone: ModelCard.validate asks a server.
    from huggingface_hub import ModelCard
    from huggingface_hub.repocard_data import eval_results_to_model_index, model_index_to_eval_results

    data = ModelCard(path.read_text()).data
    written = data.to_dict()
    results = data.eval_results
    assert results, f"{path}: no results"
    index = eval_results_to_model_index(data.model_name, results)
    again = eval_results_to_model_index(*model_index_to_eval_results(index))
    assert again == index == written["model-index"], f"{path}: results do not come back as they were"
    precision = written["halfstep"]["precision"]
    for contraction in precision["contractions"]:
        assert set(contraction) == {"storage", "compute", "accumulation", "count"}
    assert set(precision["scaling"]) == {"loss", "operands"}
    print(f"huggingface-hub: {path.name}: {len(results)} results come back; trained in {precision['policy']}")


def main():
    if len(sys.argv) != 2:
        sys.exit(__doc__)
    program = pathlib.Path(sys.argv[1]).resolve()
    if subprocess.run([program, "card", "--help"], capture_output=True).returncode:
        skip(f"{program} is built without the feature serve")
    in_environment()
    folders = [GOLDEN]
    with tempfile.TemporaryDirectory() as place:
        place = pathlib.Path(place)
        (place / "recipe.toml").write_text(RECIPE)
        made = subprocess.run([program, "compare", "recipe.toml", "--precisions", "fp32,bf16,fp16,fp8", "--no-cache", "--out", "cmp"],
                              cwd=place, capture_output=True, text=True)
        assert made.returncode in (0, 1, 2), made.stderr
        for precision in ["fp32", "bf16", "fp16", "fp8"]:
            folders.append(place / precision)
            written = subprocess.run([program, "card", "cmp", "--precision", precision, "--out", precision],
                                     cwd=place, capture_output=True, text=True)
            assert written.returncode == 0, written.stderr
        for folder in folders:
            check_bom(folder / "model.cdx.json")
            check_card(folder / "README.md")


if __name__ == "__main__":
    main()
