//! The file behind a service: present, whole, of which version, hashed, signed. Each path is looked at once, whoever asks.

use super::{built_for, no_file};
use crate::authenticode::{PeHashes, Signature, embedded_signature, pe_hashes};
use crate::component_store::Origin;
use crate::machine::{Installation, Machine};
use crate::pe::{PeInfo, machine_name};
use serde::Serialize;
use sha2::{Digest, Sha256};
use std::collections::BTreeMap;
use std::sync::Arc;
use vmrescue_base::error::Result;
use vmrescue_base::text::hex;
use vmrescue_fs::{FileSystem, NodeId, read_file, resolve};

/// How it stands with a file that the boot needs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Verdict {
    /// Nothing is wrong with it.
    Ok,
    /// Something should be looked at; Windows may start.
    Check,
    /// Windows cannot load it.
    Bad,
}

impl Verdict {
    /// The word for tables.
    pub fn name(self) -> &'static str {
        match self {
            Verdict::Ok => "ok",
            Verdict::Check => "check",
            Verdict::Bad => "BAD",
        }
    }
}

/// What is known of a file.
#[derive(Debug, Clone, Serialize)]
pub struct FileFacts {
    /// Path in the guest.
    pub path: String,
    /// Bytes; `None` when it is not there.
    pub size: Option<u64>,
    /// File version.
    pub version: Option<String>,
    /// OriginalFilename of the version resource.
    pub original_name: Option<String>,
    /// `amd64`, `arm64`, `x86`.
    pub machine: Option<&'static str>,
    /// Checksum in the header.
    pub checksum: Option<u32>,
    /// Whether that checksum is the file's, or zero.
    pub checksum_right: Option<bool>,
    /// SHA-256 of the file, where it was hashed.
    pub sha256: Option<String>,
    /// Authenticode hash with SHA-1, where it was hashed.
    pub authenticode_sha1: Option<String>,
    /// Authenticode hash with SHA-256, where it was hashed.
    pub authenticode_sha256: Option<String>,
    /// Who vouches for it.
    pub signature: Signature,
    /// What the component store says.
    pub store: Option<Origin>,
    /// What keeps Windows from loading it.
    pub problem: Option<String>,
    #[serde(skip)]
    pub(super) node: Option<NodeId>,
    #[serde(skip)]
    pub(super) sha256_bytes: Option<[u8; 32]>,
    #[serde(skip)]
    pub(super) hashes: Option<PeHashes>,
    #[serde(skip)]
    is_pe: bool,
}

/// Files of an installation, by their path in lower case.
pub(super) struct Files<'a> {
    fs: Arc<dyn FileSystem>,
    installation: &'a Installation,
    known: BTreeMap<String, FileFacts>,
}

impl<'a> Files<'a> {
    pub(super) fn new(machine: &Machine, installation: &'a Installation) -> Result<Files<'a>> {
        let fs = machine.file_system(installation.volume)?;
        Ok(Files { fs, installation, known: BTreeMap::new() })
    }

    pub(super) fn get(&self, path: &str) -> Option<&FileFacts> {
        self.known.get(&path.to_lowercase())
    }

    pub(super) fn get_mut(&mut self, path: &str) -> Option<&mut FileFacts> {
        self.known.get_mut(&path.to_lowercase())
    }

    pub(super) fn all(&self) -> impl Iterator<Item = &FileFacts> {
        self.known.values()
    }

    pub(super) fn all_mut(&mut self) -> impl Iterator<Item = &mut FileFacts> {
        self.known.values_mut()
    }

    /// True when there is a file at `parts` from the root of the Windows volume.
    pub(super) fn exists(&self, parts: &[String]) -> Result<bool> {
        Ok(resolve(&*self.fs, parts)?.is_some())
    }

    /// Looks at a file: as a PE file with `pe`, with its hashes and signature with `hash`. What is known already is not looked at again.
    pub(super) fn look(&mut self, path: &str, parts: &[String], pe: bool, hash: bool) -> Result<&FileFacts> {
        let key = path.to_lowercase();
        let enough = self.known.get(&key).is_some_and(|facts| {
            (facts.is_pe || !pe) && (facts.sha256.is_some() || !hash || facts.size.is_none())
        });
        if !enough {
            let facts = self.read(path, parts, pe, hash)?;
            self.known.insert(key.clone(), facts);
        }
        self.known.get(&key).ok_or_else(|| no_file(path))
    }

    fn read(&self, path: &str, parts: &[String], pe: bool, hash: bool) -> Result<FileFacts> {
        let mut facts = FileFacts {
            path: path.into(),
            size: None,
            version: None,
            original_name: None,
            machine: None,
            checksum: None,
            checksum_right: None,
            sha256: None,
            authenticode_sha1: None,
            authenticode_sha256: None,
            signature: Signature::NotLooked,
            store: None,
            problem: None,
            node: None,
            sha256_bytes: None,
            hashes: None,
            is_pe: pe,
        };
        let Some(node) = resolve(&*self.fs, parts)? else {
            facts.problem = Some("the file is missing".into());
            return Ok(facts);
        };
        facts.node = Some(node);
        facts.size = Some(self.fs.metadata(node)?.size_bytes);
        if !pe && !hash {
            return Ok(facts);
        }
        let bytes = match read_file(&*self.fs, node, "") {
            Ok(bytes) => bytes,
            Err(e) => {
                facts.problem = Some(e.message().to_string());
                return Ok(facts);
            }
        };
        if pe {
            self.parse(&mut facts, &bytes);
        }
        if hash {
            let sha256: [u8; 32] = Sha256::digest(&bytes).into();
            facts.sha256 = Some(hex(&sha256));
            facts.sha256_bytes = Some(sha256);
            // A file that is not whole has no hash that anybody signed.
            if let Some(hashes) = pe_hashes(&bytes).filter(|_| facts.machine.is_some()) {
                facts.authenticode_sha1 = Some(hex(&hashes.sha1));
                facts.authenticode_sha256 = Some(hex(&hashes.sha256));
                if let Some(signature) = embedded_signature(&bytes, &hashes) {
                    facts.signature = signature;
                }
                facts.hashes = Some(hashes);
            }
        }
        Ok(facts)
    }

    fn parse(&self, facts: &mut FileFacts, bytes: &[u8]) {
        match PeInfo::parse(bytes) {
            Ok(pe) => {
                facts.machine = Some(machine_name(pe.machine));
                facts.checksum = Some(pe.checksum);
                facts.checksum_right = Some(pe.checksum_right);
                if machine_name(pe.machine) != self.installation.architecture {
                    facts.problem = Some(built_for(pe.machine));
                } else if !pe.checksum_right {
                    facts.problem = Some("its checksum is wrong".into());
                }
                facts.version = pe.file_version;
                facts.original_name = pe.original_name;
            }
            Err(e) => facts.problem = Some(e.message().to_string()),
        }
    }
}
