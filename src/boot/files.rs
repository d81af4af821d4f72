//! Files as the loader sees them: each read once, with what would keep it from being loaded and what it imports.

use crate::screens::Fault;
use std::collections::BTreeMap;
use std::sync::Arc;
use vmrescue_base::bytes::is_zero;
use vmrescue_base::error::Result;
use vmrescue_fs::{FileSystem, read_file, resolve};
use vmrescue_windows::{Content, Installation, Machine, machine_name};

/// How a file is read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Kind {
    /// A program file that the loader or the kernel maps.
    Image,
    /// Data, such as a code page.
    Data,
}

/// A file and how it stands.
#[derive(Debug, Clone)]
pub(crate) struct Look {
    /// What is wrong with it, and in words.
    pub(crate) fault: Option<(Fault, String)>,
    /// Files that it imports.
    pub(crate) imports: Vec<String>,
}

/// Files of the Windows volume.
pub(crate) struct Files<'a> {
    machine: &'a Machine,
    fs: Arc<dyn FileSystem>,
    installation: &'a Installation,
    known: BTreeMap<(String, Kind), Look>,
}

impl<'a> Files<'a> {
    pub(crate) fn new(machine: &'a Machine, installation: &'a Installation) -> Result<Files<'a>> {
        Ok(Files {
            machine,
            fs: machine.file_system(installation.volume)?,
            installation,
            known: BTreeMap::new(),
        })
    }

    /// The guest path of parts from the root of the volume.
    pub(crate) fn path(&self, parts: &[String]) -> String {
        let volume = self.installation.path.split('\\').next().unwrap_or_default();
        format!("{volume}\\{}", parts.join("\\"))
    }

    /// True when there is a file. A directory that cannot be read counts as one: looking at the file will say why.
    pub(crate) fn exists(&self, parts: &[String]) -> bool {
        !matches!(resolve(&*self.fs, parts), Ok(None))
    }

    /// Looks at a file.
    pub(crate) fn look(&mut self, parts: &[String], kind: Kind) -> Look {
        let key = (parts.join("\\").to_lowercase(), kind);
        if let Some(known) = self.known.get(&key) {
            return known.clone();
        }
        let look = self.read(parts, kind);
        self.known.insert(key, look.clone());
        look
    }

    fn read(&self, parts: &[String], kind: Kind) -> Look {
        let bad = |fault, words: String| Look { fault: Some((fault, words)), imports: Vec::new() };
        let node = match resolve(&*self.fs, parts) {
            Ok(None) => return bad(Fault::Missing, "the file is missing".into()),
            Ok(Some(node)) => node,
            Err(e) => return bad(Fault::Unreadable, e.to_string()),
        };
        if kind == Kind::Data {
            return match read_file(&*self.fs, node, "") {
                Err(e) => bad(Fault::Unreadable, e.to_string()),
                Ok(bytes) if bytes.is_empty() => bad(Fault::Empty, "the file is empty".into()),
                Ok(bytes) if is_zero(&bytes) => bad(Fault::Zeroed, "the file is filled with zeros".into()),
                Ok(_) => Look { fault: None, imports: Vec::new() },
            };
        }
        // The loaders of 32-bit machines do not ask for signatures.
        let signed = self.installation.architecture != "x86";
        let program = match self.machine.program(self.installation.volume, node, signed) {
            Ok(program) => program,
            Err(e) => return bad(Fault::Unreadable, e.to_string()),
        };
        match &program.content {
            Content::Empty => bad(Fault::Empty, "the file is empty".into()),
            Content::Zeroed => bad(Fault::Zeroed, "the file is filled with zeros".into()),
            Content::Broken(words) => {
                let fault = if words.contains("cut off") { Fault::Cut } else { Fault::Damaged };
                bad(fault, words.clone())
            }
            Content::Program(pe) => {
                let own = machine_name(pe.machine);
                let known = !self.installation.architecture.is_empty();
                let fault = if known && own != self.installation.architecture {
                    Some((Fault::OtherMachine, format!("built for {own}")))
                } else if !pe.checksum_right {
                    Some((Fault::Checksum, "its checksum is wrong".into()))
                } else if let Some(signer) = program.broken_signature.as_ref().filter(|_| own != "x86") {
                    let words = format!(
                        "the signature by {signer} is for other content (hashes were compared, not the chain of certificates)"
                    );
                    Some((Fault::Signature, words))
                } else {
                    None
                };
                Look { fault, imports: program.imports.clone() }
            }
        }
    }
}
