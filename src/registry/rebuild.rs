//! A new hive out of what can still be read of a damaged one: keys with their times, classes and security, values with their
//! data. What was lost is a list of defects.

use super::cell::{NONE, compare_names};
use super::editor::HiveEditor;
use super::hive::Hive;
use super::key::Key;
use std::borrow::Cow;
use std::collections::{HashMap, HashSet};
use vmrescue_base::error::{Defect, ErrorKind, Layer, Result, Severity};
use vmrescue_base::limits::MAX_KEY_DEPTH;
use vmrescue_base::time::FileTime;

/// Rebuilds `damaged`; the new file, and what is not in it.
///
/// # Errors
/// `NoSpace` when the result would be too large.
pub fn rebuild(damaged: &Hive) -> Result<(Vec<u8>, Vec<Defect>)> {
    let root = damaged.root();
    let name = root.name();
    let is_name = super::path::is_key_name(&name);
    let mut editor = HiveEditor::new_hive(if is_name { &name } else { "ROOT" })?;
    editor.copy_base(damaged);
    let mut builder = Builder {
        editor,
        lost: Vec::new(),
        security: HashMap::new(),
        seen: HashSet::from([root.offset]),
        path: String::new(),
    };
    if !is_name {
        builder.lose(&root, "its name, which is ROOT now");
    }
    let target = builder.editor.hive().root().offset;
    builder.fill(&root, target, 0)?;
    let edited = builder.editor.finish(FileTime::now())?;
    Ok((edited.bytes, builder.lost))
}

struct Builder {
    editor: HiveEditor,
    lost: Vec<Defect>,
    /// Security cells of the new hive by the cell of the old one.
    security: HashMap<u32, u32>,
    /// Keys that were taken, so that a loop ends.
    seen: HashSet<u32>,
    /// Where the copying is, for what is said of a loss.
    path: String,
}

impl Builder {
    /// Notes a loss, by the path of the key that it concerns.
    fn lose(&mut self, key: &Key<'_>, what: &str) {
        let place = if self.path.is_empty() { "the root key" } else { &self.path };
        let text = format!("{place}: {what}");
        self.lost.push(Defect::new("hive-lost", Severity::Error, Layer::Hive, key.file_offset(), text));
    }

    /// Copies everything of `source` but its name into the key at `target`.
    fn fill(&mut self, source: &Key<'_>, target: u32, depth: usize) -> Result<()> {
        if let Some(class) = source.class_bytes() {
            self.editor.set_class(target, class)?;
        }
        self.secure(source, target)?;
        let (values, broken) = source.values_lenient();
        for error in broken {
            self.lose(source, &format!("a value ({})", error.detail()));
        }
        let mut offsets = Vec::new();
        for value in values {
            let buried = value.is_tombstone() && self.editor.hive().minor_version() >= 6;
            // What a layer has deleted has no data, whatever stands there.
            let data = if buried { Ok(Cow::Borrowed(&[][..])) } else { value.data() };
            let made = data.and_then(|data| self.editor.new_value(&value.name(), value.data_type(), &data));
            match made {
                Ok(made) => {
                    if buried {
                        self.editor.bury(made)?;
                    }
                    offsets.push(made);
                }
                // Its data cannot be read, or are more than Windows takes.
                Err(e) if matches!(e.kind(), ErrorKind::Damaged | ErrorKind::Limit) => {
                    self.lose(source, &format!("value {} ({})", value.name(), e.detail()));
                }
                Err(e) => return Err(e),
            }
        }
        self.editor.set_values(target, &offsets)?;
        if depth > 0 && source.is_link() {
            self.editor.make_link(target)?;
        }
        self.children(source, target, depth)?;
        self.editor.copy_flags(target, source)?;
        self.editor.set_times(target, source.last_written());
        Ok(())
    }

    fn children(&mut self, source: &Key<'_>, target: u32, depth: usize) -> Result<()> {
        let (children, broken) = source.subkeys_lenient();
        for error in broken {
            self.lose(source, &format!("subkeys ({})", error.detail()));
        }
        let (mut made, mut names): (Vec<(String, u32)>, HashSet<String>) = (Vec::new(), HashSet::new());
        for child in children {
            let name = child.name();
            if !super::path::is_key_name(&name) {
                self.lose(&child, "a subkey without a name that could be");
                continue;
            }
            if depth >= MAX_KEY_DEPTH || !self.seen.insert(child.offset) {
                self.lose(&child, &format!("subkey {name}, listed twice or nested too deeply"));
                continue;
            }
            if !names.insert(vmrescue_base::names::folded(&name)) {
                self.lose(&child, &format!("a second subkey {name}"));
                continue;
            }
            let node = self.editor.new_node(&name, target)?;
            let above = self.path.len();
            self.path = super::path::below(&self.path, &name);
            self.fill(&child, node, depth + 1)?;
            self.path.truncate(above);
            made.push((name, node));
        }
        made.sort_by(|(a, _), (b, _)| compare_names(a, b));
        let offsets: Vec<u32> = made.into_iter().map(|(_, offset)| offset).collect();
        self.editor.set_subkeys(target, &offsets)?;
        self.editor.widen_for_children(target)
    }

    fn secure(&mut self, source: &Key<'_>, target: u32) -> Result<()> {
        let old = source.number(44);
        let descriptor = source.security().filter(|bytes| super::check::descriptor::wrong(bytes).is_none());
        let new = match (self.security.get(&old), descriptor) {
            (Some(known), _) => *known,
            (None, Some(descriptor)) => {
                let made = self.editor.new_security(descriptor)?;
                self.security.insert(old, made);
                made
            }
            (None, None) => {
                self.lose(source, "its security descriptor; the root's is used");
                self.editor.hive().root().number(44)
            }
        };
        if new != NONE {
            self.editor.use_security(target, new)?;
        }
        Ok(())
    }
}
