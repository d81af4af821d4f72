//! A new hive out of what can still be read of a damaged one: keys with their times, classes and security, values with their
//! data. What was lost is a list of defects.

use super::cell::{NONE, compare_names};
use super::editor::HiveEditor;
use super::hive::Hive;
use super::key::Key;
use std::collections::{HashMap, HashSet};
use vmrescue_base::error::{Defect, Layer, Result, Severity};
use vmrescue_base::limits::MAX_KEY_DEPTH;
use vmrescue_base::time::FileTime;

/// Rebuilds `damaged`; the new file, and what is not in it.
///
/// # Errors
/// `NoSpace` when the result would be too large.
pub fn rebuild(damaged: &Hive) -> Result<(Vec<u8>, Vec<Defect>)> {
    let root = damaged.root();
    let name = root.name();
    let is_name =
        !name.is_empty() && vmrescue_base::names::units(&name).count() <= super::path::MAX_NAME_UNITS;
    let mut editor = HiveEditor::new_hive(if is_name { &name } else { "ROOT" })?;
    editor.copy_base(damaged);
    let mut builder =
        Builder { editor, lost: Vec::new(), security: HashMap::new(), seen: HashSet::from([root.offset]) };
    if !is_name {
        builder.lose(&root, "the name of the root key, which is ROOT now".into());
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
}

impl Builder {
    fn lose(&mut self, key: &Key<'_>, text: String) {
        let at = key.file_offset();
        self.lost.push(Defect::new("hive-lost", Severity::Error, Layer::Hive, at, text));
    }

    /// Copies everything of `source` but its name into the key at `target`.
    fn fill(&mut self, source: &Key<'_>, target: u32, depth: usize) -> Result<()> {
        if let Some(class) = source.class_name() {
            self.editor.set_class(target, &class)?;
        }
        self.secure(source, target)?;
        let (values, broken) = source.values_lenient();
        for error in broken {
            self.lose(source, format!("a value of {}: {error}", source.name()));
        }
        let mut offsets = Vec::new();
        for value in values {
            match value.data() {
                Ok(data) => offsets.push(self.editor.new_value(&value.name(), value.data_type(), &data)?),
                Err(e) => self.lose(source, format!("value {} of {}: {e}", value.name(), source.name())),
            }
        }
        self.editor.set_values(target, &offsets)?;
        if source.is_link() {
            self.editor.make_link(target);
        }
        self.children(source, target, depth)?;
        self.editor.set_times(target, source.last_written());
        Ok(())
    }

    fn children(&mut self, source: &Key<'_>, target: u32, depth: usize) -> Result<()> {
        let (children, broken) = source.subkeys_lenient();
        for error in broken {
            self.lose(source, format!("subkeys of {}: {error}", source.name()));
        }
        let (mut made, mut names): (Vec<(String, u32)>, HashSet<String>) = (Vec::new(), HashSet::new());
        for child in children {
            let name = child.name();
            if name.is_empty() || vmrescue_base::names::units(&name).count() > super::path::MAX_NAME_UNITS {
                self.lose(&child, format!("a subkey of {} without a name that could be", source.name()));
                continue;
            }
            if depth >= MAX_KEY_DEPTH || !self.seen.insert(child.offset) {
                self.lose(&child, format!("{name}: listed twice, or nested too deeply"));
                continue;
            }
            if !names.insert(vmrescue_base::names::folded(&name)) {
                self.lose(&child, format!("{name}: a second subkey of this name"));
                continue;
            }
            let node = self.editor.new_node(&name, target)?;
            self.fill(&child, node, depth + 1)?;
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
                self.lose(
                    source,
                    format!("{} has no security descriptor; the root's is used", source.name()),
                );
                self.editor.hive().root().number(44)
            }
        };
        if new != NONE {
            self.editor.use_security(target, new);
        }
        Ok(())
    }
}
