//! A new disk that carries its name only when it is whole: written beside, made durable, renamed.

use std::path::Path;
use std::sync::Arc;
use vmrescue_base::error::{Error, Layer, Result};
use vmrescue_block::{DiskMut, OutputFile, OutputRules, WritableDevice};

/// A file under construction. Dropping it without [`NewFile::finish`] removes it.
pub struct NewFile {
    output: OutputFile,
    file: DiskMut,
}

impl NewFile {
    /// Begins a file that will be `path`, as `rules` allow.
    ///
    /// # Errors
    /// `AlreadyExists`; `Refused` for what must not be replaced; `Invalid` for a pipe, which cannot hold a disk.
    pub fn create(path: &Path, rules: &OutputRules) -> Result<NewFile> {
        let output = rules.create(path)?;
        let device = output
            .device()
            .ok_or_else(|| Error::invalid(Layer::Host, "a disk needs a file of its own").in_file(path))?;
        let file = DiskMut::new(Arc::clone(&device) as Arc<dyn WritableDevice>);
        Ok(NewFile { output, file })
    }

    /// The file, for container writers.
    pub fn file(&self) -> &DiskMut {
        &self.file
    }

    /// Makes the file durable and gives it its name.
    ///
    /// # Errors
    /// Of the host; then the file is gone.
    pub fn finish(self) -> Result<()> {
        self.output.finish()
    }
}
