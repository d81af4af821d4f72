//! Program files as the loader sees them, each read once for a machine, whoever asks: what they say of themselves, what they import, whether their
//! signature is for them. The bytes are not kept.

use super::authenticode::broken_signature;
use super::machine::Machine;
use super::pe::{PeInfo, pe_imports};
use std::sync::{Arc, PoisonError};
use vmrescue_base::bytes::is_zero;
use vmrescue_base::error::Result;
use vmrescue_fs::{NodeId, read_file};

/// What is in a file that should be a program.
#[derive(Debug, Clone)]
pub enum Content {
    /// No bytes.
    Empty,
    /// Zeros from the first byte to the last.
    Zeroed,
    /// A whole PE file.
    Program(PeInfo),
    /// No whole PE file: why.
    Broken(String),
}

/// What is known of a program file.
#[derive(Debug, Clone)]
pub struct Program {
    /// Bytes.
    pub size_bytes: u64,
    /// What is in it.
    pub content: Content,
    /// Names of the files that it imports.
    pub imports: Vec<String>,
    /// The signer of the signature in it, when that is for other content than the file's; looked for only where it was asked for.
    pub broken_signature: Option<String>,
    /// Whether the signature was looked at.
    signature_seen: bool,
}

impl Program {
    fn of(bytes: &[u8], signature: bool) -> Program {
        let content = if bytes.is_empty() {
            Content::Empty
        } else if is_zero(bytes) {
            Content::Zeroed
        } else {
            match PeInfo::parse(bytes) {
                Ok(pe) => Content::Program(pe),
                Err(e) => Content::Broken(e.message().to_string()),
            }
        };
        let whole = matches!(content, Content::Program(_));
        Program {
            size_bytes: bytes.len() as u64,
            imports: if whole { pe_imports(bytes) } else { Vec::new() },
            broken_signature: if whole && signature { broken_signature(bytes) } else { None },
            signature_seen: signature || !whole,
            content,
        }
    }

    /// What is said of a whole program file; `None` for everything else.
    pub fn info(&self) -> Option<&PeInfo> {
        match &self.content {
            Content::Program(info) => Some(info),
            Content::Empty | Content::Zeroed | Content::Broken(_) => None,
        }
    }
}

impl Machine {
    /// Looks at a program file of a volume, with `signature` at its signature, too. What is known is not read again.
    ///
    /// # Errors
    /// Of the file system.
    pub fn program(&self, volume: usize, node: NodeId, signature: bool) -> Result<Arc<Program>> {
        let known =
            self.programs.lock().unwrap_or_else(PoisonError::into_inner).get(&(volume, node)).cloned();
        if let Some(program) = known.filter(|program| program.signature_seen || !signature) {
            return Ok(program);
        }
        let bytes = read_file(&*self.file_system(volume)?, node, "")?;
        let program = Arc::new(Program::of(&bytes, signature));
        self.programs
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .insert((volume, node), Arc::clone(&program));
        Ok(program)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_no_program_is_told_apart() {
        let driver = crate::testing::driver("x.sys", "10.0.1.2", 0x8664);
        assert!(Program::of(&driver, true).info().is_some());
        assert!(matches!(Program::of(&[], true).content, Content::Empty));
        assert!(matches!(Program::of(&[0; 5000], true).content, Content::Zeroed));
        let cut = Program::of(&driver[..driver.len() / 2], true);
        assert!(matches!(&cut.content, Content::Broken(why) if why.contains("cut off")), "{cut:?}");
    }
}
