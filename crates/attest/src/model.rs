//! The files of a model and their digests: the predicate of OpenSSF Model Signing 1.0.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, File};
use std::io::{self, Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use thiserror::Error;

use crate::digest::Digest;

/// The predicate's type.
pub const PREDICATE: &str = "https://model_signing/signature/v1.0";
/// What a signature never covers, at the top of the folder.
const NEVER: [&str; 4] = [".git", ".gitattributes", ".github", ".gitignore"];
/// The one name of a model that is a single file, in bundles of the reference implementation.
const SINGLE: &str = ".";

/// The files of a model.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "Fields")]
pub struct Manifest {
    resources: Vec<Resource>,
    serialization: Serialization,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Fields {
    resources: Vec<ResourceFields>,
    serialization: Serialization,
}

#[derive(Deserialize)]
struct ResourceFields {
    name: String,
    digest: Digest,
    algorithm: String,
}

#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
struct Resource {
    name: String,
    digest: Digest,
    algorithm: Algorithm,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
enum Algorithm {
    Sha256,
}

/// How files became resources.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Serialization {
    method: Method,
    hash_type: Algorithm,
    allow_symlinks: bool,
    #[serde(default, deserialize_with = "whole", skip_serializing_if = "Option::is_none")]
    shard_size: Option<u64>,
    #[serde(default, skip_serializing_if = "BTreeSet::is_empty")]
    ignore_paths: BTreeSet<String>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
enum Method {
    /// One resource a file.
    Files,
    /// One resource for each `shard_size` bytes of a file, the last of which may have fewer.
    Shards,
}

/// A number of bytes. The reference implementation writes it with a decimal point.
fn whole<'de, D: serde::Deserializer<'de>>(deserializer: D) -> Result<Option<u64>, D::Error> {
    /// Up to it every whole number is a double: 2^53.
    const EXACT: f64 = 9_007_199_254_740_992.0;
    let number = serde_json::Number::deserialize(deserializer)?;
    let decimal =
        || number.as_f64().filter(|x| x.fract() == 0.0 && (0.0..=EXACT).contains(x)).map(|x| x as u64);
    let bytes = number.as_u64().or_else(decimal);
    bytes.map(Some).ok_or_else(|| serde::de::Error::custom(format!("{number} is no number of bytes")))
}

impl TryFrom<Fields> for Manifest {
    type Error = String;

    fn try_from(Fields { resources, serialization }: Fields) -> Result<Manifest, String> {
        let sharded = serialization.method == Method::Shards;
        if sharded != serialization.shard_size.is_some_and(|size| size > 0) {
            return Err("`shard_size` does not suit the method".into());
        }
        if let Some(path) = serialization.ignore_paths.iter().find(|path| !is_relative(path)) {
            return Err(format!("`{path}` in `ignore_paths` is no path within the model"));
        }
        if resources.is_empty() {
            return Err("it lists no file".into());
        }
        let mut names = BTreeSet::new();
        for resource in &resources {
            let path = if sharded { file_of_shard(&resource.name) } else { Some(resource.name.as_str()) };
            let single = resources.len() == 1 && path == Some(SINGLE);
            if !path.is_some_and(|path| single || is_relative(path)) {
                return Err(format!("`{}` names no file within the model", resource.name));
            }
            if !names.insert(&resource.name) {
                return Err(format!("`{}` is listed twice", resource.name));
            }
            // The second is what the reference implementation calls it in shards.
            let of_shard = |size: u64| resource.algorithm == format!("sha256-sharded-{size}");
            if resource.algorithm != "sha256" && !serialization.shard_size.is_some_and(of_shard) {
                return Err(format!(
                    "`{}` is hashed by `{}`, not by SHA-256",
                    resource.name, resource.algorithm
                ));
            }
        }
        let algorithm = Algorithm::Sha256;
        let of = |ResourceFields { name, digest, .. }| Resource { name, digest, algorithm };
        Ok(Manifest { resources: resources.into_iter().map(of).collect(), serialization })
    }
}

/// Whether a path stays within its folder and is written in the one way that the specification
/// has: no `..`, `.`, empty part, leading or final `/`.
fn is_relative(path: &str) -> bool {
    path.split('/').all(|part| !matches!(part, "" | "." | "..")) && !path.contains(['\\', '\0'])
}

/// The path before `:<start>:<end>`.
fn file_of_shard(name: &str) -> Option<&str> {
    let number = |text: &str| !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit());
    let (rest, end) = name.rsplit_once(':')?;
    let (path, start) = rest.rsplit_once(':')?;
    (number(start) && number(end)).then_some(path)
}

/// Why a folder cannot be hashed, or is not the one that was signed.
#[derive(Debug, Error)]
pub enum ModelError {
    /// A file cannot be read.
    #[error("{}: {source}", path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// It is a single file.
    #[error(
        "{}: this is a file; a signature is of all files of a folder, so put the model into a folder of its own",
        path.display()
    )]
    NotAFolder {
        /// The file.
        path: PathBuf,
    },
    /// There is nothing in it.
    #[error("{}: there is no file to sign", path.display())]
    Empty {
        /// The folder.
        path: PathBuf,
    },
    /// A file cannot be named in a manifest.
    #[error("{}: {why}", path.display())]
    Unsignable {
        /// The file.
        path: PathBuf,
        /// Why.
        why: &'static str,
    },
    /// A path to leave out makes no sense.
    #[error(
        "`{0}` is no path within the model: write it from the folder's top, with `/`, without `..` and patterns"
    )]
    IgnoredPath(String),
    /// The folder has other files than were signed.
    #[error("{}", .0.sentence())]
    Differs(Difference),
}

/// How a folder differs from what was signed. Each list is in order of names.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Difference {
    /// Files with other bytes.
    pub changed: Vec<String>,
    /// Files that were signed and are gone.
    pub missing: Vec<String>,
    /// Files that were not signed.
    pub unsigned: Vec<String>,
}

impl Difference {
    fn sentence(&self) -> String {
        /// Most names of a list that are shown.
        const MOST: usize = 5;
        let list = |what: &str, names: &[String]| {
            let more = names.len().saturating_sub(MOST);
            let more = if more > 0 { format!(" and {more} more") } else { String::new() };
            let shown = names.iter().take(MOST).map(|n| format!("`{n}`")).collect::<Vec<_>>().join(", ");
            (!names.is_empty()).then(|| format!("{what} {shown}{more}"))
        };
        let parts = [
            list("other bytes in", &self.changed),
            list("missing:", &self.missing),
            list("not signed:", &self.unsigned),
        ];
        let parts: Vec<String> = parts.into_iter().flatten().collect();
        format!("these are not the files that were signed: {}", parts.join("; "))
    }
}

/// What becomes of files that a signature does not list.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unsigned {
    /// The model is refused.
    Refused,
    /// They are there, and nothing is said of them.
    Ignored,
}

impl Manifest {
    /// The files of a folder, in order of their names, less those at or below `ignored`, which are
    /// paths from its top with `/`.
    ///
    /// # Errors
    /// It is no folder, has no file, or one that cannot be read or named, or a symbolic link.
    pub fn of_folder(folder: &Path, ignored: &[String]) -> Result<Manifest, ModelError> {
        if folder.is_file() {
            return Err(ModelError::NotAFolder { path: folder.into() });
        }
        if let Some(path) = ignored.iter().find(|path| !is_relative(path) || path.contains(['*', '?', '['])) {
            return Err(ModelError::IgnoredPath(path.clone()));
        }
        let ignore_paths = ignored.iter().cloned().chain(NEVER.map(String::from)).collect();
        let serialization = Serialization {
            method: Method::Files,
            hash_type: Algorithm::Sha256,
            allow_symlinks: false,
            shard_size: None,
            ignore_paths,
        };
        let resources = serialization.resources(folder, &BTreeSet::new())?;
        if resources.is_empty() {
            return Err(ModelError::Empty { path: folder.into() });
        }
        Ok(Manifest { resources, serialization })
    }

    /// Files that were hashed already, by their paths from the folder's top.
    ///
    /// # Errors
    /// There is none, or a path that cannot stand in a manifest. The text says which.
    pub fn of_files(files: &BTreeMap<String, Digest>) -> Result<Manifest, String> {
        let resource = |(name, digest): (&String, &Digest)| ResourceFields {
            name: name.clone(),
            digest: *digest,
            algorithm: "sha256".into(),
        };
        let serialization = Serialization {
            method: Method::Files,
            hash_type: Algorithm::Sha256,
            allow_symlinks: false,
            shard_size: None,
            ignore_paths: BTreeSet::new(),
        };
        Manifest::try_from(Fields { resources: files.iter().map(resource).collect(), serialization })
    }

    /// Each file with its digest; none where it lists parts of files.
    pub fn files(&self) -> Option<BTreeMap<String, Digest>> {
        let of = |r: &Resource| (r.name.clone(), r.digest);
        (self.serialization.method == Method::Files).then(|| self.resources.iter().map(of).collect())
    }

    /// The digest over the digests of all files, in order: what names the model as a whole.
    pub fn root(&self) -> Digest {
        let digests: Vec<u8> = self.resources.iter().flat_map(|r| r.digest.0).collect();
        Digest::of(&digests)
    }

    /// How many files, or parts of files, it lists.
    pub fn len(&self) -> usize {
        self.resources.len()
    }

    /// Whether it lists nothing, which no manifest does.
    pub fn is_empty(&self) -> bool {
        self.resources.is_empty()
    }

    /// Hashes a folder, or a file where one was signed, and compares it with what was signed.
    /// `signature`, where it lies in the folder, is no part of the model, and neither is what lies
    /// at or below `ignored`.
    ///
    /// # Errors
    /// A file differs, is missing, or was not signed; the folder cannot be read.
    pub fn check(
        &self,
        model: &Path,
        signature: &Path,
        ignored: &[String],
        unsigned: Unsigned,
    ) -> Result<(), ModelError> {
        let mut here = match model.is_file() {
            true => self.single_file(model)?,
            false => {
                let mut own: BTreeSet<String> = within(model, signature).into_iter().collect();
                own.extend(ignored.iter().cloned());
                self.serialization.resources(model, &own)?
            }
        };
        let mut signed = self.resources.clone();
        here.sort();
        signed.sort();
        let name = |r: &Resource| r.name.clone();
        let names = |of: &[Resource]| of.iter().map(name).collect::<BTreeSet<_>>();
        let (names_here, names_signed) = (names(&here), names(&signed));
        let mut difference = Difference {
            changed: signed
                .iter()
                .filter(|r| names_here.contains(&r.name) && here.binary_search(r).is_err())
                .map(name)
                .collect(),
            missing: names_signed.difference(&names_here).cloned().collect(),
            unsigned: names_here.difference(&names_signed).cloned().collect(),
        };
        if unsigned == Unsigned::Ignored {
            difference.unsigned.clear();
        }
        if difference == Difference::default() { Ok(()) } else { Err(ModelError::Differs(difference)) }
    }

    /// The resources of a single file, under the name that was signed where it is the file's own or
    /// stands for it.
    fn single_file(&self, file: &Path) -> Result<Vec<Resource>, ModelError> {
        let own = file.file_name().map(|n| n.to_string_lossy().into_owned()).unwrap_or_default();
        let stands = self.resources.iter().any(|r| match self.serialization.method {
            Method::Files => r.name == SINGLE,
            Method::Shards => file_of_shard(&r.name) == Some(SINGLE),
        });
        self.serialization.hash(file, if stands { SINGLE } else { &own })
    }
}

/// The path of `file` from the top of `folder`, where it lies in it.
fn within(folder: &Path, file: &Path) -> Option<String> {
    let (folder, file) = (fs::canonicalize(folder).ok()?, fs::canonicalize(file).ok()?);
    file.strip_prefix(folder).ok()?.to_str().map(|path| path.replace('\\', "/"))
}

impl Serialization {
    /// Every file of a folder that counts, hashed, in order of names.
    fn resources(&self, folder: &Path, own: &BTreeSet<String>) -> Result<Vec<Resource>, ModelError> {
        let mut files = Vec::new();
        self.visit(folder, "", own, &mut files)?;
        files.sort();
        let mut resources = Vec::new();
        for name in &files {
            resources.extend(self.hash(&folder.join(name), name)?);
        }
        resources.sort();
        Ok(resources)
    }

    fn visit(
        &self,
        folder: &Path,
        prefix: &str,
        own: &BTreeSet<String>,
        files: &mut Vec<String>,
    ) -> Result<(), ModelError> {
        let of_file = |path: &Path| {
            let path = path.to_path_buf();
            move |source| ModelError::File { path, source }
        };
        for entry in fs::read_dir(folder).map_err(of_file(folder))? {
            let entry = entry.map_err(of_file(folder))?;
            let path = entry.path();
            let unsignable = |why| ModelError::Unsignable { path: path.clone(), why };
            let Ok(name) = entry.file_name().into_string() else {
                return Err(unsignable("its name is no UTF-8 and cannot stand in a manifest"));
            };
            let name = format!("{prefix}{name}");
            if NEVER.contains(&name.as_str()) || self.ignore_paths.contains(&name) || own.contains(&name) {
                continue;
            }
            if !is_relative(&name) {
                return Err(unsignable("its name cannot stand in a manifest"));
            }
            let mut kind = entry.file_type().map_err(of_file(&path))?;
            if kind.is_symlink() {
                if !self.allow_symlinks {
                    return Err(unsignable("it is a symbolic link, which a signature does not follow"));
                }
                kind = fs::metadata(&path).map_err(of_file(&path))?.file_type();
                if kind.is_dir() {
                    return Err(unsignable("it is a symbolic link to a folder, which is not followed"));
                }
            }
            match kind {
                kind if kind.is_dir() => self.visit(&path, &format!("{name}/"), own, files)?,
                kind if kind.is_file() => files.push(name),
                _ => return Err(unsignable("it is neither a file nor a folder")),
            }
        }
        Ok(())
    }

    /// A file's resource, or those of its shards.
    fn hash(&self, path: &Path, name: &str) -> Result<Vec<Resource>, ModelError> {
        let of_file = |source| ModelError::File { path: path.into(), source };
        let mut file = File::open(path).map_err(of_file)?;
        let algorithm = Algorithm::Sha256;
        let Some(size) = self.shard_size else {
            let digest = Digest::of_reader(file).map_err(of_file)?;
            return Ok(vec![Resource { name: name.into(), digest, algorithm }]);
        };
        let length = file.seek(SeekFrom::End(0)).map_err(of_file)?;
        file.rewind().map_err(of_file)?;
        let mut resources = Vec::new();
        let mut start = 0;
        while start < length {
            let end = start.saturating_add(size).min(length);
            let digest = Digest::of_reader((&mut file).take(end - start)).map_err(of_file)?;
            resources.push(Resource { name: format!("{name}:{start}:{end}"), digest, algorithm });
            start = end;
        }
        Ok(resources)
    }
}
