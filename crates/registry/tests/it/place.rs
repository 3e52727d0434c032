//! A registry in a folder of its own, for tests.

#![allow(dead_code)] // each program of tests uses some of it

use std::path::PathBuf;
use std::time::Duration;

use halfstep_attest::DateTime;
use halfstep_attest::digest::Digest;
use halfstep_attest::trust::Trust;
use halfstep_registry::Registry;
use halfstep_registry::actor::{Act, Actor, Vouching};
use halfstep_registry::moves::Grounds;
use halfstep_registry::names::{Alias, RegisteredName};
use halfstep_registry::version::{NewVersion, Version};

pub const DAY: u64 = 24 * 60 * 60;

/// A day of this test.
pub fn day(n: u64) -> DateTime {
    DateTime::from_unix_duration(Duration::from_secs(1_800_000_000 + n * DAY)).unwrap()
}

pub fn act(on: u64) -> Act {
    let who = Actor { name: "tester".into(), said_by: Vouching::System };
    Act { who, at: day(on), reason: None }
}

pub fn model() -> RegisteredName {
    "net".parse().unwrap()
}

pub struct Place {
    pub folder: tempfile::TempDir,
    pub registry: Registry,
}

impl Place {
    pub fn new() -> Place {
        let folder = tempfile::tempdir().unwrap();
        let registry = Registry::open_or_create(&folder.path().join("registry"), &act(0)).unwrap();
        Place { folder, registry }
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    pub fn files(&self, weights: &str) -> Vec<(String, PathBuf)> {
        let path = self.path(&format!("weights-{weights}"));
        std::fs::write(&path, weights).unwrap();
        std::fs::write(self.path("recipe"), "recipe").unwrap();
        vec![("checkpoints/w.safetensors".into(), path), ("recipe.toml".into(), self.path("recipe"))]
    }

    pub fn add(&self, weights: &str, on: u64) -> Version {
        let files = self.files(weights);
        self.registry.add(&NewVersion { model: model(), files: &files }, &act(on)).unwrap().0
    }

    pub fn promote(&self, version: &Version, on: u64) {
        self.registry.promote(version, &Alias::champion(), &Grounds::default(), &act(on), None).unwrap();
    }

    pub fn head(&self, alias: &Alias) -> (u64, Digest) {
        let head = self.registry.head(&model(), alias).unwrap();
        (head.record.number, head.record.to)
    }

    pub fn faults(&self) -> Vec<String> {
        self.registry.audit(&Trust::default(), day(0)).unwrap().faults
    }
}
