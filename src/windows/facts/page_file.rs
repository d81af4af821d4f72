//! Page files: settings, and the files that are there.

use super::Source;
use serde::Serialize;

/// A page file.
#[derive(Debug, Clone, Serialize)]
pub struct PageFile {
    /// As it is set: `?:\pagefile.sys` leaves the volume to Windows.
    pub path: String,
    /// Smallest size in MiB; `None` when Windows decides.
    pub minimum_mib: Option<u64>,
    /// Largest size in MiB; `None` when Windows decides.
    pub maximum_mib: Option<u64>,
    /// Size of the file that is there, in bytes; `None` when there is none.
    pub file_bytes: Option<u64>,
}

pub(super) fn read(source: &Source<'_>) -> Vec<PageFile> {
    let key = r"%\Control\Session Manager\Memory Management";
    let settings = source.system.texts(key, "PagingFiles");
    settings.iter().take(64).map(|setting| page_file(source, setting)).collect()
}

fn parts(setting: &str) -> (String, Option<u64>, Option<u64>) {
    // The path may hold blanks, the sizes come last.
    let mut words: Vec<&str> = setting.split(' ').collect();
    let mut sizes = Vec::new();
    while sizes.len() < 2 && words.len() > 1 {
        match words.last().and_then(|word| word.parse::<u64>().ok()) {
            Some(size) => sizes.push(size),
            None => break,
        }
        words.pop();
    }
    sizes.reverse();
    let size = |i: usize| sizes.get(i).copied().filter(|size| *size != 0);
    (words.join(" ").trim().to_string(), size(0), size(1))
}

fn page_file(source: &Source<'_>, setting: &str) -> PageFile {
    let (path, minimum_mib, maximum_mib) = parts(setting);
    let place = match path.strip_prefix("?:") {
        Some(rest) => Some(source.own(rest.trim_start_matches('\\'))),
        None => source.guest_path(&path),
    };
    let file = place.as_deref().and_then(|place| source.node(place));
    let file_bytes =
        file.and_then(|(fs, node)| source.seen(&path, fs.metadata(node))).map(|data| data.size_bytes);
    PageFile { path, minimum_mib, maximum_mib, file_bytes }
}

#[cfg(test)]
mod tests {
    #[test]
    fn settings_have_a_path_and_two_sizes() {
        use super::parts;
        assert_eq!(parts(r"c:\pagefile.sys 0 0"), (r"c:\pagefile.sys".into(), None, None));
        assert_eq!(
            parts(r"D:\page file.sys 1024 4096"),
            (r"D:\page file.sys".into(), Some(1024), Some(4096))
        );
        assert_eq!(parts(r"?:\pagefile.sys"), (r"?:\pagefile.sys".into(), None, None));
    }
}
