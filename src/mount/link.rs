//! Where the symbolic links of Windows lead inside a mount.
//!
//! A target is a text of Windows: `\??\C:\dir` for junctions and absolute links, `..\dir` or `\dir` for relative ones
//! ([MS-FSCC] 2.1.2.4). It is shown as a relative path that stays below the mount point: `..` and names are worked
//! out as Windows does, in the text, so that no link to a link can climb out.

/// What a target is relative to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Target {
    /// The directory of the link.
    Here(Vec<String>),
    /// The root of the link's own volume.
    Root(Vec<String>),
    /// The root of a volume: a letter with a colon, or `Volume{...}`, as it stands in the text.
    Volume(String, Vec<String>),
}

fn parts(text: &str) -> Vec<String> {
    text.split(['\\', '/']).filter(|part| !part.is_empty()).map(String::from).collect()
}

/// Takes a target apart.
pub(super) fn parse(text: &str) -> Target {
    let absolute = [r"\??\", r"\\?\", r"\\.\"].iter().find_map(|prefix| text.strip_prefix(prefix));
    let drive = |text: &str| text.as_bytes().get(1) == Some(&b':');
    match absolute {
        None if text.starts_with(r"\\") => Target::Volume("UNC:".into(), parts(text)),
        None if !drive(text) && text.starts_with(['\\', '/']) => Target::Root(parts(text)),
        None if !drive(text) => Target::Here(parts(text)),
        absolute => {
            let mut all = parts(absolute.unwrap_or(text));
            let first = if all.is_empty() { String::new() } else { all.remove(0) };
            let first = if first.eq_ignore_ascii_case("UNC") { "UNC:".into() } else { first };
            Target::Volume(first, all)
        }
    }
}

/// Works out `.` and `..` of names below a root: what would climb above it stays there.
fn settled(start: &[String], names: &[String]) -> Vec<String> {
    let mut at = start.to_vec();
    for name in names {
        match name.as_str() {
            "." => {}
            ".." => drop(at.pop()),
            _ => at.push(name.clone()),
        }
    }
    at
}

/// The relative path from the link to `names` below `base`. `own` are the directories from the mount point to the
/// link's volume and `inside` those from there to the link.
pub(super) fn relative(
    own: &[String],
    inside: &[String],
    target: &Target,
    volume_base: impl Fn(&str) -> Option<Vec<String>>,
) -> String {
    let up = own.len() + inside.len();
    let below = match target {
        Target::Here(names) => [own.to_vec(), settled(inside, names)].concat(),
        Target::Root(names) => [own.to_vec(), settled(&[], names)].concat(),
        Target::Volume(volume, names) => {
            // A volume that is not here gets a name that nothing has: the link dangles, inside the mount.
            let base =
                volume_base(volume).unwrap_or_else(|| vec![format!("{}:", volume.trim_end_matches(':'))]);
            [base, settled(&[], names)].concat()
        }
    };
    let here = [own, inside].concat();
    let common = here.iter().zip(&below).take_while(|(a, b)| a == b).count();
    let climb = std::iter::repeat_n("..".to_string(), up - common);
    let path: Vec<String> = climb.chain(below[common..].iter().cloned()).collect();
    if path.is_empty() { ".".into() } else { path.join("/") }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn shown(own: &str, inside: &str, target: &str) -> String {
        let split =
            |text: &str| text.split('/').filter(|p| !p.is_empty()).map(String::from).collect::<Vec<_>>();
        relative(&split(own), &split(inside), &parse(target), |volume| {
            (volume == "C:").then(|| vec!["C".to_string()])
        })
    }

    #[test]
    fn targets_of_windows_stay_inside() {
        assert_eq!(shown("C", "Documents and Settings", r"\??\C:\Users"), "../Users");
        assert_eq!(shown("C", "", r"\??\C:\ProgramData"), "ProgramData");
        assert_eq!(shown("3", "a/b", r"\??\C:\x\y"), "../../../C/x/y");
        assert_eq!(shown("C", "a/b", r"..\c"), "../c");
        assert_eq!(shown("C", "a", r"..\..\..\..\etc\passwd"), "../etc/passwd");
        assert_eq!(shown("C", "a", r"x\..\..\..\..\etc"), "../etc");
        assert_eq!(shown("C", "a/b", r"\Windows"), "../../Windows");
        assert_eq!(shown("C", "a", r"\??\D:\x"), "../../D:/x");
        assert_eq!(shown("C", "a", r"\??\UNC\server\share"), "../../UNC:/server/share");
        assert_eq!(shown("C", "a", "."), ".");
    }

    proptest! {
        #[test]
        fn nothing_climbs_out(own in "[a-z]?", inside in "([a-z]/){0,3}", target in r"[a-z.\\/:?]{0,30}") {
            let path = shown(&own, &inside, &target);
            let mut depth = (own.len() + inside.matches('/').count()) as i64;
            prop_assert!(!path.starts_with('/'));
            let mut down = false;
            for part in path.split('/') {
                if part == ".." {
                    prop_assert!(!down, "{path}: up after down");
                    depth -= 1;
                } else {
                    down = true;
                }
            }
            prop_assert!(depth >= 0, "{path}");
        }
    }
}
