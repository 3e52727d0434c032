#!/usr/bin/env python3
"""Finds circles of imports: between crates, and between the modules of a crate.

A module stands for all that is beneath it, so that the modules of one parent are compared with each other: a circle between two
files of two folders is a circle between the folders. Paths that begin with `crate::`, `super::` or `self::` count, in `use` and
elsewhere, each as an import of the file that defines what it names, through re-exports. What stands under `#[cfg(test)]` does not
count, and a module and those beneath it may name each other.

    scripts/check_circles.py [ROOT]

Ends with 1 and the circles where there are any that ALLOWED does not name, or where ALLOWED names one that is gone.
"""

import re
import sys
import tomllib
from pathlib import Path

# Circles that are still there: the crate, the parent module, and the modules beneath it that import
# each other.
ALLOWED = [
    ("cpu", "attention", ("backward", "forward", "tiles", "unit")),
    ("data", "", ("batch", "dataset", "preprocessing", "sampler", "text")),
    ("nn", "", ("models", "spec")),
    ("train", "", ("checkpoint", "doctor", "memory", "session")),
]

ITEM = re.compile(r"\b(?:fn|struct|enum|union|trait|type|const|static|mod|macro_rules!)\s+(?:mut\s+)?(\w+)")
PATH = re.compile(r"(?<![\w:$])(?:crate|super|self)(?:\s*::\s*\w+)+")


def blank(match):
    return re.sub(r"[^\n]", " ", match.group())


def without_comments(text):
    """Rust text with comments and string contents replaced by spaces."""
    token = re.compile(
        r'//[^\n]*|/\*.*?\*/|b?r(#*)".*?"\1|b?"(?:\\.|[^"\\])*"|b?\'(?:\\[^\n]{1,8}?|[^\'\\\n])\'', re.S)
    return token.sub(blank, text)


def end_of_item(text, at):
    """Where the item that begins at `at` ends: behind its first `;` or its block."""
    depth = 0
    for i in range(at, len(text)):
        if text[i] in "{([":
            depth += 1
        elif text[i] in "})]":
            depth -= 1
            if depth == 0 and text[i] == "}" and not re.match(r"\s*;", text[i + 1:i + 9]):
                return i + 1
        elif text[i] == ";" and depth == 0:
            return i + 1
    return len(text)


def without_tests(text):
    """The text without items under `#[cfg(test)]`, and the names of test modules that are files of their own."""
    files = set()
    while (found := re.search(r"#\[cfg\((?:all\()?test\b[^\]]*\]", text)) is not None:
        end = end_of_item(text, found.end())
        item = text[found.end():end]
        files |= set(re.findall(r"\bmod\s+(\w+)\s*;", item))
        text = text[:found.start()] + " " + text[end:]
    return text, files


def leaves(tree, prefix=()):
    """The paths that a `use` tree names, each as its segments and the name it is known by here."""
    tree = tree.strip()
    brace = tree.find("{")
    if brace < 0:
        path, _, alias = tree.partition(" as ")
        segments = prefix + tuple(s.strip() for s in path.split("::") if s.strip())
        if segments and segments[-1] == "self":
            segments = segments[:-1]
        yield segments, alias.strip() or segments[-1]
        return
    prefix += tuple(s.strip() for s in tree[:brace].split("::") if s.strip())
    depth, start = 0, brace + 1
    inner = tree[brace + 1:tree.rindex("}")] + ","
    start = 0
    for i, c in enumerate(inner):
        depth += (c == "{") - (c == "}")
        if c == "," and depth == 0:
            if inner[start:i].strip():
                yield from leaves(inner[start:i], prefix)
            start = i + 1


class Module:
    def __init__(self, name, file):
        self.name, self.file = name, file
        text, self.tests = without_tests(without_comments(file.read_text()))
        uses = re.compile(r"(?<!\w)use\s+([^;]+);")
        self.uses = [leaf for found in uses.findall(text) for leaf in leaves(" ".join(found.split()))]
        self.text = uses.sub(" ", text)
        self.items = set(ITEM.findall(self.text)) - set(re.findall(r"\bmod\s+(\w+)\s*;", self.text))
        self.children = set(re.findall(r"\bmod\s+(\w+)\s*;", self.text)) - self.tests


class Crate:
    """The modules of one target: what its root declares, and what those do."""

    def __init__(self, root):
        self.modules = {}
        self.read((), root, root.parent)

    def read(self, name, file, folder):
        module = self.modules[name] = Module(name, file)
        for child in sorted(module.children):
            for path in (folder / f"{child}.rs", folder / child / "mod.rs"):
                if path.exists():
                    self.read(name + (child,), path, folder / child)

    def anchor(self, module, segments):
        """The module that a path begins in, and the rest of the path; nothing for a path into another crate."""
        name, segments = module.name, list(segments)
        if segments[0] == "crate":
            return (), segments[1:]
        if segments[0] in ("super", "self"):
            while segments and segments[0] in ("super", "self"):
                name = name[:-1] if segments.pop(0) == "super" else name
            return name, segments
        return (name, segments) if segments[0] in module.children else None

    def define(self, name, segments, seen=()):
        """The module whose file defines what `segments` names in the module `name`, and whether that is a module itself."""
        if (name, tuple(segments)) in seen:
            return None
        seen += ((name, tuple(segments)),)
        module = self.modules[name]
        if not segments or segments[0] in module.items:
            return name, not segments
        first, rest = segments[0], list(segments[1:])
        if first in module.children and name + (first,) in self.modules:
            return self.define(name + (first,), rest, seen)
        for path, alias in module.uses:
            at = self.anchor(module, path)
            if at is None:
                continue
            if alias == first:
                return self.define(at[0], at[1] + rest, seen)
            if alias == "*":
                found = self.define(at[0], at[1][:-1] + [first] + rest, seen)
                if found is not None and found[0] != at[0] or first in self.modules[at[0]].items:
                    return found
        return None

    def imports(self, module):
        """What a module names: the modules that define it, with the names."""
        named, local = [], {}
        for path, alias in module.uses:
            at = self.anchor(module, path)
            if at is None:
                continue
            target, segments = at
            if alias == "*":
                segments = segments[:-1]
            found = self.define(target, segments)
            if found is not None and found[1] and alias != "*":
                local[alias] = found[0]
            named.append((target, segments))
        named += [self.anchor(module, re.split(r"\s*::\s*", path)) for path in PATH.findall(module.text)]
        for alias, target in local.items():
            names = re.findall(rf"(?<![\w:]){alias}\s*::\s*(\w+)", module.text)
            named += [(target, [name]) for name in names]
        for name, segments in named:
            if name not in self.modules:
                continue
            # Of a path such as `op::Op::Cast`, the longest part that is known.
            for end in range(len(segments), -1, -1):
                found = self.define(name, segments[:end])
                if found is not None:
                    yield found[0], "::".join(segments) or "self"
                    break

    def between_siblings(self):
        """For each parent, its children and what each imports of another, with the places."""
        edges = {}
        for name, module in self.modules.items():
            for target, what in self.imports(module):
                shared = 0
                while shared < min(len(name), len(target)) and name[shared] == target[shared]:
                    shared += 1
                if shared == len(name) or shared == len(target):
                    continue
                siblings = edges.setdefault(name[:shared], {})
                place = (module.file, what, self.modules[target].file)
                siblings.setdefault((name[shared], target[shared]), set()).add(place)
        return edges


def circles(edges):
    """The sets of nodes that reach each other, by Tarjan's algorithm."""
    graph = {}
    for a, b in edges:
        graph.setdefault(a, set()).add(b)
        graph.setdefault(b, set())
    index, low, stack, found = {}, {}, [], []

    def visit(node):
        index[node] = low[node] = len(index)
        stack.append(node)
        for to in sorted(graph[node]):
            if to not in index:
                visit(to)
            if to in stack:
                low[node] = min(low[node], low[to])
        if low[node] == index[node]:
            at = stack.index(node)
            component = stack[at:]
            del stack[at:]
            if len(component) > 1 or node in graph[node]:
                found.append(sorted(component))

    for node in sorted(graph):
        if node not in index:
            visit(node)
    return found


def main():
    root = Path(sys.argv[1]) if len(sys.argv) > 1 else Path(__file__).resolve().parent.parent
    crates = {path.parent.name: tomllib.loads(path.read_text()) for path in sorted(root.glob("crates/*/Cargo.toml"))}
    package = {manifest["package"]["name"]: name for name, manifest in crates.items()}
    depends = {
        (name, package[dependency])
        for name, manifest in crates.items()
        for dependency in manifest.get("dependencies", {})
        if dependency in package
    }
    found, texts = [], []
    for component in circles(depends):
        found.append(("", "", tuple(component)))
        texts.append(f"crates that depend on each other: {', '.join(component)}")
    for name in crates:
        for target in ("lib.rs", "main.rs"):
            file = root / "crates" / name / "src" / target
            if not file.exists():
                continue
            for parent, edges in Crate(file).between_siblings().items():
                for component in circles(edges):
                    found.append((name, "::".join(parent), tuple(component)))
                    lines = [f"{name}: {'::'.join(('crate',) + parent)}: {', '.join(component)}"]
                    for (a, b), places in sorted(edges.items()):
                        if a in component and b in component:
                            lines += [f"    {file.relative_to(root)} uses {what} of {to.relative_to(root)}"
                                      for file, what, to in sorted(places)]
                    texts.append("\n".join(lines))
    new = [text for circle, text in zip(found, texts) if circle not in ALLOWED]
    gone = [circle for circle in ALLOWED if circle not in found]
    for text in new:
        print(f"circle: {text}")
    for circle in gone:
        print(f"no longer there, remove it from ALLOWED: {circle}")
    if new or gone:
        sys.exit(1)
    print(f"{len(crates)} crates: no circles but {len(ALLOWED)} that are allowed for now")


if __name__ == "__main__":
    main()
