//! Whether the folders in a folder are classes, or parts of the data (train and test) that have
//! class folders in them.
//!
//! Names show parts, and so does a general sign: "classes" that have the same sub-folders, in which
//! all their pictures lie. What stays unclear is refused, with what to write.

use std::collections::BTreeSet;
use std::path::Path;

use super::tree::Tree;

/// What a part of the data is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Role {
    Train,
    Test,
    Validation,
    Unlabelled,
}

const ROLES: [(Role, &[&str]); 4] = [
    (Role::Train, &["train", "training", "trn", "learn", "learning"]),
    (Role::Test, &["test", "testing", "tests", "tst", "holdout", "heldout", "eval", "evaluation"]),
    (Role::Validation, &["val", "valid", "validation", "validate", "dev", "development"]),
    (
        Role::Unlabelled,
        &["unlabeled", "unlabelled", "unlabel", "unsup", "unsupervised", "pred", "predict", "prediction"],
    ),
];
/// Words beside the role in the name of a part.
const FILLERS: [&str; 20] = [
    "set", "sets", "data", "dataset", "datasets", "image", "images", "img", "imgs", "pic", "pics", "picture",
    "pictures", "photo", "photos", "sample", "samples", "split", "seg", "folder",
];

/// A role read from a folder's name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Named {
    role: Role,
    /// The name says nothing else.
    alone: bool,
}

impl Named {
    fn of(name: &str) -> Option<Named> {
        let words = words(name);
        let role_of =
            |word: &str| ROLES.iter().find(|(_, names)| names.contains(&word)).map(|(role, _)| *role);
        let mut found = None;
        let mut alone = true;
        for word in &words {
            match role_of(word) {
                Some(role) if found.is_none_or(|earlier| earlier == role) => found = Some(role),
                // Both: neither.
                Some(_) => return None,
                None => alone &= FILLERS.contains(&word.as_str()),
            }
        }
        found.map(|role| Named { role, alone })
    }
}

/// A name cut at everything that is no letter, at capitals and where a filler is glued on:
/// `seg_train`, `TrainImages`, `trainset` and `val2017` hold a role each.
fn words(name: &str) -> Vec<String> {
    let mut words = vec![String::new()];
    let mut after_small = false;
    for c in name.chars() {
        if !c.is_alphabetic() || c.is_uppercase() && after_small {
            words.push(String::new());
        }
        if c.is_alphabetic() {
            words.last_mut().expect("never empty").extend(c.to_lowercase());
        }
        after_small = c.is_lowercase();
    }
    // `hold-out` and `held_out` are one word.
    for i in (1..words.len()).rev() {
        if words[i] == "out" && matches!(words[i - 1].as_str(), "hold" | "held") {
            words.remove(i);
            words[i - 1] += "out";
        }
    }
    let is_role = |word: &str| ROLES.iter().any(|(_, names)| names.contains(&word));
    let bare = |word: String| {
        let parted = FILLERS.iter().find_map(|filler| {
            word.strip_suffix(filler).or_else(|| word.strip_prefix(filler)).filter(|rest| is_role(rest))
        });
        parted.map(str::to_owned).unwrap_or(word)
    };
    words.into_iter().filter(|word| !word.is_empty()).map(bare).collect()
}

/// A folder that may be a part of the data.
struct Part<'t> {
    /// Its folder of class folders, which may lie beneath it (`seg_train/seg_train/CLASS`).
    tree: &'t Tree,
    name: String,
    named: Option<Named>,
}

impl<'t> Part<'t> {
    fn of(folder: &'t Tree) -> Part<'t> {
        let name = folder.name();
        Part { tree: unwrapped(folder, &BTreeSet::new()), named: Named::of(&name), name }
    }

    fn is(&self, role: Role) -> bool {
        self.named.is_some_and(|named| named.role == role)
    }

    /// Its name says what it is for and nothing else.
    fn is_plainly_named(&self) -> bool {
        self.named.is_some_and(|named| named.alone)
    }

    /// All its folders are named as those beside it: some archives hold a second copy of all.
    fn repeats(&self, beside: &BTreeSet<String>) -> bool {
        self.tree.is_of_folders() && self.inner().is_subset(beside)
    }

    /// Names of its folders, for comparison.
    fn inner(&self) -> BTreeSet<String> {
        inner(self.tree)
    }
}

fn names(parts: &[Part]) -> BTreeSet<String> {
    parts.iter().map(|part| part.name.to_lowercase()).collect()
}

fn inner(tree: &Tree) -> BTreeSet<String> {
    tree.filled().iter().map(|folder| folder.name().to_lowercase()).collect()
}

/// The folder of which the classes are folders: `tree`, or one beneath it where all lies in a
/// single folder that is none of the `classes`.
fn unwrapped<'t>(mut tree: &'t Tree, classes: &BTreeSet<String>) -> &'t Tree {
    while let ([only], 0) = (tree.filled().as_slice(), tree.direct()) {
        let same_name = only.name().to_lowercase() == tree.name().to_lowercase();
        if classes.contains(&only.name().to_lowercase()) || !(only.is_of_folders() || same_name) {
            break;
        }
        tree = only;
    }
    tree
}

/// Where the class folders are.
pub(crate) struct Layout<'t> {
    /// The folder of the train classes, or of all.
    pub(crate) train: &'t Tree,
    /// The folder of the test classes.
    pub(crate) test: Option<&'t Tree>,
    /// The folder of the classes to choose models by.
    pub(crate) validation: Option<&'t Tree>,
    /// What is left out and why, one sentence each.
    pub(crate) notes: Vec<String>,
}

enum Judged<'t> {
    Classes,
    Parts { train: Part<'t>, others: Vec<Part<'t>> },
}

/// Finds train and test classes beneath a folder; the error says what is unclear, and
/// what to write.
pub(crate) fn find(root: &Tree) -> Result<Layout<'_>, String> {
    let top = unwrapped(root, &BTreeSet::new());
    let mut notes = Vec::new();
    if top != root {
        notes.push(format!("All images lie in `{}`.", shown(&top.path, &root.path)));
    }
    let layout = match judge(top)? {
        Judged::Classes => Layout { train: top, test: None, validation: None, notes },
        Judged::Parts { train, others } => {
            let (test, validation) = held_out(&train, &others, &mut notes)?;
            Layout { train: train.tree, test, validation, notes }
        }
    };
    // What was found to be class folders may be parts in their turn.
    check(layout.train)?;
    Ok(layout)
}

/// Whether the folders in `root` are classes; the error says what they are, and what to write.
pub(crate) fn check(root: &Tree) -> Result<(), String> {
    let top = unwrapped(root, &BTreeSet::new());
    match judge(top)? {
        Judged::Classes if top == root => Ok(()),
        Judged::Classes => {
            let path = top.path.display();
            Err(format!(
                "all images lie in the one folder `{path}`: {}",
                write(&format!("path = \"{path}\""))
            ))
        }
        Judged::Parts { train, others } => {
            let (test, validation) = held_out(&train, &others, &mut Vec::new())?;
            let mut keys = format!("path = \"{}\"", train.tree.path.display());
            for (key, tree) in [("test_path", test), ("validation_path", validation)] {
                if let Some(tree) = tree {
                    keys += &format!("` and `{key} = \"{}\"", tree.path.display());
                }
            }
            let names: Vec<&Part> = std::iter::once(&train).chain(&others).collect();
            Err(format!("{} are parts of the data, not classes: {}", quoted(&names), write(&keys)))
        }
    }
}

fn write(keys: &str) -> String {
    format!("write `{keys}`, or `folders = \"classes\"` if they are classes nevertheless")
}

fn shown(path: &Path, root: &Path) -> String {
    path.strip_prefix(root).unwrap_or(path).display().to_string()
}

fn quoted(parts: &[&Part]) -> String {
    let names: Vec<String> = parts.iter().map(|part| format!("`{}`", part.name)).collect();
    names.join(", ")
}

fn listed(names: &BTreeSet<String>) -> String {
    const SHOWN: usize = 5;
    let mut text = names.iter().take(SHOWN).map(|n| format!("`{n}`")).collect::<Vec<_>>().join(", ");
    if names.len() > SHOWN {
        text += &format!(" and {} more", names.len() - SHOWN);
    }
    text
}

fn judge(tree: &Tree) -> Result<Judged<'_>, String> {
    let mut parts: Vec<Part> = tree.filled().into_iter().map(Part::of).collect();
    let is_train = |part: &Part| part.is(Role::Train) && part.tree.is_of_folders();
    let trains: Vec<usize> = (0..parts.len()).filter(|&i| is_train(&parts[i])).collect();
    let shared = same_sub_folders(&parts);
    if trains.len() > 1 && (shared.is_some() || trains.iter().all(|&i| parts[i].is_plainly_named())) {
        let several: Vec<&Part> = trains.iter().map(|&i| &parts[i]).collect();
        let names = quoted(&several);
        return Err(format!(
            "{names} are all named as train data: {}",
            write("path = …` and `test_path = …")
        ));
    }
    if let [train] = trains[..] {
        let classes = parts[train].inner();
        let beside = names(&parts);
        let belongs = |part: &Part| {
            part.is_plainly_named() || !part.inner().is_disjoint(&classes) || part.repeats(&beside)
        };
        let strangers: Vec<&Part> = parts.iter().filter(|part| !belongs(part)).collect();
        // With train and test data of the same classes, whatever else is there is no class.
        let is_test = |part: &Part| {
            let held_out = part.is(Role::Test) || part.is(Role::Validation);
            held_out && part.is_plainly_named() && !part.inner().is_disjoint(&classes)
        };
        let clear = parts[train].is_plainly_named() && parts.iter().any(is_test);
        if strangers.is_empty() || clear {
            let train = parts.remove(train);
            return Ok(Judged::Parts { train, others: parts });
        }
        if parts[train].is_plainly_named() {
            let (name, path) = (&parts[train].name, parts[train].tree.path.display());
            let others = quoted(&strangers);
            let keys = write(&format!("path = \"{path}\""));
            return Err(format!("`{name}` may be the train data or a class beside {others}: {keys}"));
        }
    }
    refuse_what_is_unclear(&parts, shared)?;
    Ok(Judged::Classes)
}

/// Parts without a folder of train data, parts inside classes, and what may be either.
fn refuse_what_is_unclear(parts: &[Part], shared: Option<BTreeSet<String>>) -> Result<(), String> {
    let all: Vec<&Part> = parts.iter().collect();
    // As `train` and `test`, or `trainA`, `trainB`, `testA` and `testB`.
    let any = |role: Role| parts.iter().any(|part| part.is(role));
    let train_and_test = any(Role::Train) && (any(Role::Test) || any(Role::Validation));
    if train_and_test && parts.iter().all(|part| part.named.is_some()) {
        return Err(format!(
            "{} are named as parts of the data but hold images without class folders: put the images of each \
             class into a folder of its own in them, named by the class (which a table of labels may tell), or \
             write `folders = \"classes\"` if they are classes nevertheless",
            quoted(&all)
        ));
    }
    let inside = |part: &Part| {
        let names = part.tree.filled();
        let is =
            |folder: &&Tree, role: Role| Named::of(&folder.name()).is_some_and(|n| n.alone && n.role == role);
        part.tree.is_of_folders()
            && names.iter().any(|folder| is(folder, Role::Train))
            && names.iter().all(|folder| Named::of(&folder.name()).is_some_and(|named| named.alone))
    };
    if !parts.is_empty() && parts.iter().all(inside) && parts.len() > 1 {
        return Err(format!(
            "each of {} has folders of train and test data in it ({}): put class folders into a train and a test \
             folder instead, or write `folders = \"classes\"` to take each class as a whole and hold images out \
             at random",
            quoted(&all),
            listed(&parts[0].inner())
        ));
    }
    if let Some(inner) = shared {
        let names = quoted(&all);
        let keys = "path = …` (the folder to train on) and `test_path = …";
        let unclear = "parts of the data, or classes with the same sub-folders";
        return Err(format!(
            "{names} have the same folders in them ({}), in which all images lie: they are {unclear}. If they are \
             parts, write `{keys}`; if they are classes, `folders = \"classes\"`",
            listed(&inner)
        ));
    }
    let beside = names(parts);
    let among =
        |part: &&Part| part.repeats(&beside) || part.is_plainly_named() && !part.inner().is_disjoint(&beside);
    match parts.iter().find(among) {
        Some(part) => Err(format!(
            "`{}` has folders named as the classes beside it ({}): if they are test data, move the other classes into \
             a folder of their own and write `path = …` and `test_path = …`; if they are the same images again, as in \
             some archives, move them out; if `{}` is a class, write `folders = \"classes\"`",
            part.name,
            listed(&part.inner()),
            part.name
        )),
        None => Ok(()),
    }
}

/// The names of the sub-folders, where all pictures lie in sub-folders and no folder has one that
/// the fullest lacks. With one such name (`CLASS/images`) nothing could be a class.
fn same_sub_folders(parts: &[Part]) -> Option<BTreeSet<String>> {
    let fullest = parts.iter().map(Part::inner).max_by_key(BTreeSet::len).filter(|names| names.len() > 1)?;
    let alike = |part: &Part| part.tree.is_of_folders() && part.inner().is_subset(&fullest);
    (parts.len() > 1 && parts.iter().all(alike)).then_some(fullest)
}

/// The folders of test and of validation classes; what is left out is said. Without test data the
/// validation data are those.
fn held_out<'t>(
    train: &Part<'t>,
    others: &[Part<'t>],
    notes: &mut Vec<String>,
) -> Result<(Option<&'t Tree>, Option<&'t Tree>), String> {
    let classes = train.inner();
    let usable = |part: &Part| !inner(unwrapped(part.tree, &classes)).is_disjoint(&classes);
    let of_role =
        |role: Role| -> Vec<&Part> { others.iter().filter(|part| part.is(role) && usable(part)).collect() };
    let (mut tests, mut validation) = (of_role(Role::Test), of_role(Role::Validation));
    if tests.is_empty() {
        tests = std::mem::take(&mut validation);
    }
    if tests.len() > 1 {
        let named = quoted(&tests);
        return Err(format!(
            "{named} may each be the test data: write `path` and the one to test on as `test_path`"
        ));
    }
    let test = tests.first().copied();
    let validation = if let [only] = validation[..] { Some(only) } else { None };
    let beside: BTreeSet<String> = names(others).into_iter().chain([train.name.to_lowercase()]).collect();
    let is = |part: &Part, chosen: Option<&Part>| chosen.is_some_and(|chosen| std::ptr::eq(chosen, part));
    for part in others.iter().filter(|part| !is(part, test)) {
        notes.push(if is(part, validation) {
            format!(
                "`{}` ({} images) is the validation data: where a model is chosen from several, it is chosen by these.",
                part.name,
                part.tree.count()
            )
        } else if part.repeats(&beside) {
            format!("`{}` is left out: it has the folders beside it again.", part.name)
        } else {
            left_out(part, usable(part), test)
        });
    }
    let tree = |part: &Part<'t>| unwrapped(part.tree, &classes);
    Ok((test.map(tree), validation.map(tree)))
}

fn left_out(part: &Part, usable: bool, test: Option<&Part>) -> String {
    let (name, count, path) = (&part.name, part.tree.count(), part.tree.path.display());
    if !usable && part.tree.is_of_folders() {
        let folders = listed(&part.inner());
        return format!(
            "`{name}` ({count} images) is left out: its folders ({folders}) are none of the train classes."
        );
    }
    if !usable {
        return format!(
            "`{name}` is left out: its {count} image(s) are in no class folders, so that nothing can be measured on \
             them; once trained, `halfstep predict RUN \"{path}\"` classifies them."
        );
    }
    let why = match (part.is(Role::Unlabelled), part.named, test) {
        (true, ..) => "its name says that its images have no labels".to_owned(),
        (_, None, _) => "its name does not say what it is for".to_owned(),
        (.., Some(test)) => format!("a run has one folder of test images, which is `{}`", test.name),
        (.., None) => "it is no test data by its name".to_owned(),
    };
    format!("`{name}` ({count} images) is left out: {why}. To test on it, write `test_path = \"{path}\"`.")
}

/// What a look at class folders leaves to say, one sentence each.
pub(crate) fn remarks(classes: &Tree) -> Vec<String> {
    let mut notes = Vec::new();
    if classes.direct() > 0 {
        let examples = super::tree::examples(&classes.images, &classes.path);
        let count = classes.direct();
        notes.push(format!(
            "{count} image(s) left out because they are in no class folder ({examples}); move them into one to keep \
             them."
        ));
    }
    let names =
        |folders: Vec<&Tree>| folders.iter().map(|folder| folder.name()).collect::<BTreeSet<String>>();
    let empty = names(classes.folders.iter().filter(|folder| folder.count() == 0).collect());
    if !empty.is_empty() {
        notes.push(format!("No class, because without images: {}.", listed(&empty)));
    }
    let nested = names(classes.filled().into_iter().filter(|folder| !folder.filled().is_empty()).collect());
    if !nested.is_empty() {
        notes
            .push(format!("Images in folders within a class folder are of that class: {}.", listed(&nested)));
    }
    let parts = names(
        classes.filled().into_iter().filter(|f| Named::of(&f.name()).is_some_and(|n| n.alone)).collect(),
    );
    if !parts.is_empty() {
        notes.push(format!(
            "Taken as classes, although named as parts of the data: {}; move them out of the folder if they are none.",
            listed(&parts)
        ));
    }
    notes
}
