//! Where the symbolic links of Windows lead inside a mount, and the targets of links that are made through it.
//!
//! A target is a text of Windows: `\??\C:\dir` for junctions and absolute links, `..\dir` or `\dir` for relative ones
//! ([MS-FSCC] 2.1.2.4); or a path of Unix, in links of WSL ([MS-FSCC] 2.1.2.7) and Interix. It is shown as a relative path
//! that stays below the mount point: `..` and names are worked out as Windows does, in the text, so that no link to
//! a link can climb out. A relative target that climbs only at its beginning is shown word for word, because programs
//! (git above all) compare what they read with what they wrote.

/// Characters that stand in no name of Windows, so in no target.
const NEVER: [char; 8] = ['\\', ':', '*', '?', '"', '<', '>', '|'];

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

/// Takes a path of Unix apart, as WSL and Interix keep them. `/mnt/c` is where WSL has the volume C:.
pub(super) fn parse_unix(text: &str) -> Target {
    let names: Vec<String> = text.split('/').filter(|part| !part.is_empty()).map(String::from).collect();
    if !text.starts_with('/') {
        return Target::Here(names);
    }
    match names.as_slice() {
        [mnt, letter, rest @ ..] if mnt == "mnt" && letter.len() == 1 => {
            Target::Volume(format!("{}:", letter.to_uppercase()), rest.to_vec())
        }
        _ => Target::Root(names),
    }
}

/// True when a relative path climbs only at its beginning, and at most `depth` directories: it can be followed as it is.
pub(super) fn climbs_first(names: &[String], depth: usize) -> bool {
    let plain = |name: &&String| *name != ".";
    let climbs = names.iter().filter(plain).take_while(|name| *name == "..").count();
    climbs <= depth && names.iter().filter(plain).skip(climbs).all(|name| name != "..")
}

/// The words of Windows for names; `None` when one cannot be a name there.
fn words(names: &[String]) -> Option<String> {
    let bad = |c: char| c < ' ' || NEVER.contains(&c);
    (!names.iter().any(|name| name.contains(bad))).then(|| names.join("\\"))
}

/// The target of a link to a relative path: its separators turned round.
pub(super) fn relative_words(path: &str) -> Option<String> {
    let names: Vec<String> = path.split('/').filter(|part| !part.is_empty()).map(String::from).collect();
    words(&names).filter(|text| !text.is_empty() && !path.starts_with('/'))
}

/// The names of an absolute path of this machine below the mount point, `.` and `..` worked out.
pub(super) fn names_below(mounted_on: &str, path: &str) -> Option<Vec<String>> {
    let rest = path.strip_prefix(mounted_on)?;
    if !(rest.is_empty() || rest.starts_with('/')) {
        return None;
    }
    let names: Vec<String> = rest.split('/').filter(|part| !part.is_empty()).map(String::from).collect();
    let settled = settled(&[], &names);
    words(&settled).map(|_| settled)
}

/// Works out `.` and `..` of names below a root: what would climb above it stays there.
pub(super) fn settled(start: &[String], names: &[String]) -> Vec<String> {
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

    #[test]
    fn paths_of_unix_become_targets() {
        let names = |text: &str| text.split('/').map(String::from).collect::<Vec<_>>();
        assert_eq!(relative_words("../a//b/").as_deref(), Some(r"..\a\b"));
        assert_eq!(relative_words("./a").as_deref(), Some(r".\a"));
        assert_eq!([relative_words("/a"), relative_words("a:b"), relative_words("a\\b")], [None, None, None]);
        assert_eq!(names_below("/mnt/x", "/mnt/x/a/./b/../c"), Some(names("a/c")));
        assert_eq!(names_below("/mnt/x", "/mnt/x"), Some(Vec::new()));
        assert_eq!([names_below("/mnt/x", "/mnt/xy"), names_below("/mnt/x", "/etc")], [None, None]);
        assert_eq!(parse_unix("/mnt/c/Users"), Target::Volume("C:".into(), names("Users")));
        assert_eq!(parse_unix("/etc/passwd"), Target::Root(names("etc/passwd")));
        assert_eq!(parse_unix("../x"), Target::Here(names("../x")));
        let climbs = |text: &str, depth| climbs_first(&names(text), depth);
        assert!(climbs("../../a/./b", 2) && climbs("./../a", 1) && climbs("a", 0));
        assert!(!climbs("../../a", 1) && !climbs("a/../b", 5) && !climbs("../a/..", 5));
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
