//! The recipe of a run whose directory may have been moved, together with its data.

use std::path::{Path, PathBuf};

use halfstep::data::DataSpec;
use halfstep::train::recipe::Recipe;
use halfstep::train::run_dir::{RECIPE, RunDir};
use halfstep::train::samples::RunSamples;

use super::failure::Failure;

/// The recipe in a run directory. Data that are no longer at their path are looked for where they
/// lay as seen from the directory.
pub fn recipe_of(dir: &RunDir) -> Result<Recipe, Failure> {
    let mut recipe = Recipe::read(&dir.file(RECIPE))?;
    let now = std::path::absolute(dir.path()).unwrap_or_else(|_| dir.path().to_path_buf());
    if let Some(samples) = RunSamples::read(dir)? {
        let specs = [&mut recipe.data].into_iter().chain(&mut recipe.evidence.foreign);
        for path in specs.flat_map(DataSpec::paths_mut).filter(|path| !path.exists()) {
            if let Some(moved) = moved(path, samples.directory(), &now).filter(|path| path.exists()) {
                *path = moved;
            }
        }
    }
    Ok(recipe)
}

/// Where `path` is if it was moved with a folder from `before` to `now`. All are absolute. None if
/// the two had no folder in common but the root.
fn moved(path: &Path, before: &Path, now: &Path) -> Option<PathBuf> {
    let common = path.components().zip(before.components()).take_while(|(a, b)| a == b).count();
    if common < 2 {
        return None;
    }
    let up = before.components().count() - common;
    let base = now.ancestors().nth(up)?;
    Some(path.components().skip(common).fold(base.to_path_buf(), |base, part| base.join(part)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_move_with_their_folder() {
        let moved =
            |path: &str, before: &str, now: &str| moved(Path::new(path), Path::new(before), Path::new(now));
        let there = |path: &str| Some(PathBuf::from(path));
        assert_eq!(moved("/a/b/d.csv", "/a/b/runs/r-1", "/c/runs/r-1"), there("/c/d.csv"));
        assert_eq!(moved("/a/b/r/d.csv", "/a/b/r", "/c/x"), there("/c/x/d.csv"));
        assert_eq!(moved("/a/data/d.csv", "/a/runs/r", "/x/y/r"), there("/x/data/d.csv"));
        assert_eq!(moved("/data/d.csv", "/home/r", "/c/r"), None);
        assert_eq!(moved("/a/d.csv", "/a/b/c/d/e", "/x"), None);
    }
}
