//! The pictures beneath a folder, and what is passed over on the way to them.

use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};

use super::kind::{self, Kind, LOOKED_AT};
use crate::class_names;
use crate::error::DataError;
use crate::files;

/// Folders and files that programs leave behind: photo stations and network drives (Synology,
/// QNAP), macOS, Windows, Linux desktops, Python, Jupyter, JavaScript.
const LEFT_BY_PROGRAMS: [&str; 21] = [
    "@eadir",
    "@tmp",
    "@recycle",
    "#recycle",
    "#snapshot",
    "@recently-snapshot",
    "__macosx",
    "icon\r",
    "network trash folder",
    "temporary items",
    "thumbs.db",
    "ehthumbs.db",
    "desktop.ini",
    "$recycle.bin",
    "system volume information",
    "lost+found",
    "__pycache__",
    "node_modules",
    "_gsdata_",
    "picasa.ini",
    "zbthumbnail.info",
];
/// As [`LEFT_BY_PROGRAMS`], with a dot before the name.
const HIDDEN_BY_PROGRAMS: [&str; 20] = [
    ".ds_store",
    ".appledouble",
    ".git",
    ".gitignore",
    ".gitattributes",
    ".gitkeep",
    ".keep",
    ".svn",
    ".hg",
    ".dvc",
    ".ipynb_checkpoints",
    ".thumbnails",
    ".cache",
    ".directory",
    ".idea",
    ".vscode",
    ".nomedia",
    ".picasa.ini",
    ".picasaoriginals",
    ".dropbox",
];

/// A folder with the pictures in it and beneath it.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Tree {
    pub(crate) path: PathBuf,
    /// PNG, JPEG and PNM files, and files that are named as pictures but are none, in the order of
    /// their names.
    pub(crate) images: Vec<PathBuf>,
    /// Pictures in formats that are not read.
    pub(crate) unread: Vec<(PathBuf, &'static str)>,
    pub(crate) folders: Vec<Tree>,
}

impl Tree {
    /// The folder's name, composed.
    pub(crate) fn name(&self) -> String {
        class_names::normal(&self.path.file_name().unwrap_or_default().to_string_lossy())
    }

    /// Pictures in it and beneath it.
    pub(crate) fn count(&self) -> usize {
        self.direct() + self.folders.iter().map(Tree::count).sum::<usize>()
    }

    /// Pictures in it, not in its folders.
    pub(crate) fn direct(&self) -> usize {
        self.images.len() + self.unread.len()
    }

    /// The folders in it that have pictures in or beneath them.
    pub(crate) fn filled(&self) -> Vec<&Tree> {
        self.folders.iter().filter(|folder| folder.count() > 0).collect()
    }

    /// Whether all its pictures are in folders.
    pub(crate) fn is_of_folders(&self) -> bool {
        self.direct() == 0 && !self.filled().is_empty()
    }

    pub(crate) fn gather(&self, images: &mut Vec<PathBuf>, unread: &mut Vec<(PathBuf, &'static str)>) {
        images.extend_from_slice(&self.images);
        unread.extend_from_slice(&self.unread);
        self.folders.iter().for_each(|folder| folder.gather(images, unread));
    }
}

/// What is not in a [`Tree`], and why.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct PassedOver {
    no_pictures: Vec<PathBuf>,
    by_programs: Vec<PathBuf>,
    hidden: Vec<PathBuf>,
    links_back: Vec<PathBuf>,
    no_files: Vec<PathBuf>,
}

impl PassedOver {
    /// Without what lies in these folders.
    pub(crate) fn outside<'p>(&self, folders: impl Iterator<Item = &'p PathBuf> + Clone) -> PassedOver {
        let outside = |paths: &Vec<PathBuf>| {
            let is_outside = |path: &&PathBuf| !folders.clone().any(|folder| path.starts_with(folder));
            paths.iter().filter(is_outside).cloned().collect()
        };
        PassedOver {
            no_pictures: outside(&self.no_pictures),
            by_programs: outside(&self.by_programs),
            hidden: outside(&self.hidden),
            links_back: outside(&self.links_back),
            no_files: outside(&self.no_files),
        }
    }

    /// A sentence for each reason, with examples of paths in `root`.
    pub(crate) fn notes(&self, root: &Path) -> Vec<String> {
        let said = |paths: &[PathBuf], what: &str, advice: &str| {
            (!paths.is_empty()).then(|| format!("{} {what}: {}{advice}.", paths.len(), examples(paths, root)))
        };
        [
            said(
                &self.no_pictures,
                "file(s) passed over because they are no pictures of a format that is known here",
                "",
            ),
            said(&self.by_programs, "file(s) or folder(s) passed over that programs leave behind", ""),
            said(
                &self.hidden,
                "file(s) or folder(s) passed over because their names begin with a dot",
                "; rename what is to be read",
            ),
            said(&self.links_back, "link(s) passed over that lead back to a folder above them", ""),
            said(&self.no_files, "entries passed over that are neither files nor folders", ""),
        ]
        .into_iter()
        .flatten()
        .collect()
    }
}

/// The first paths in words, relative to a folder.
pub(crate) fn examples(paths: &[PathBuf], root: &Path) -> String {
    const SHOWN: usize = 3;
    let name = |path: &PathBuf| format!("`{}`", path.strip_prefix(root).unwrap_or(path).display());
    let mut text = paths.iter().take(SHOWN).map(name).collect::<Vec<_>>().join(", ");
    if paths.len() > SHOWN {
        text += &format!(" and {} more", paths.len() - SHOWN);
    }
    text
}

/// Looks at the names of all files and at their first bytes.
pub(crate) fn scan(root: &Path) -> Result<(Tree, PassedOver), DataError> {
    files::require_folder(root)?;
    let mut passed = PassedOver::default();
    let tree = walk(root, &mut Vec::new(), &mut passed)?;
    Ok((tree, passed))
}

/// `above` has the true paths of the folders above this one.
fn walk(folder: &Path, above: &mut Vec<PathBuf>, passed: &mut PassedOver) -> Result<Tree, DataError> {
    let failed = |e: std::io::Error| DataError::read(folder, e);
    above.push(folder.canonicalize().map_err(failed)?);
    let mut entries = std::fs::read_dir(folder)
        .and_then(|entries| entries.map(|entry| Ok(entry?.path())).collect::<Result<Vec<_>, _>>())
        .map_err(failed)?;
    entries.sort();
    let mut tree = Tree { path: folder.to_owned(), ..Tree::default() };
    for path in entries {
        let name = path.file_name().unwrap_or_default().to_string_lossy().to_lowercase();
        // A link to nowhere is none of the kinds below.
        let kind = std::fs::metadata(&path).map(|m| m.file_type());
        if is_left_by_programs(&name) {
            passed.by_programs.push(path);
        } else if name.starts_with('.') {
            passed.hidden.push(path);
        } else if kind.as_ref().is_ok_and(|kind| kind.is_dir()) {
            if above.contains(&path.canonicalize().map_err(|e| DataError::read(&path, e))?) {
                passed.links_back.push(path);
            } else {
                tree.folders.push(walk(&path, above, passed)?);
            }
        } else if kind.is_ok_and(|kind| kind.is_file()) {
            match Kind::of(&first_bytes(&path)?) {
                Kind::Png | Kind::Jpeg | Kind::Pnm => tree.images.push(path),
                Kind::Other(format) => tree.unread.push((path, format)),
                Kind::NoPicture if kind::is_named_as_picture(&path) => tree.images.push(path),
                Kind::NoPicture => passed.no_pictures.push(path),
            }
        } else {
            passed.no_files.push(path);
        }
    }
    above.pop();
    Ok(tree)
}

fn is_left_by_programs(name: &str) -> bool {
    // `._x` is what macOS keeps beside `x` on foreign drives; trash folders have a number.
    LEFT_BY_PROGRAMS.contains(&name)
        || HIDDEN_BY_PROGRAMS.contains(&name)
        || name.starts_with("._")
        // Editors keep what a file was before the last change beside it.
        || name.ends_with('~')
        || name.starts_with(".trash")
}

pub(crate) fn first_bytes(path: &Path) -> Result<Vec<u8>, DataError> {
    let mut bytes = Vec::with_capacity(LOOKED_AT);
    File::open(path)
        .and_then(|file| file.take(LOOKED_AT as u64).read_to_end(&mut bytes))
        .map_err(|e| DataError::read(path, e))?;
    Ok(bytes)
}
