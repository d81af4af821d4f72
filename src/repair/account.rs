//! The command that makes a local administrator when Windows starts: `net user`, and the group by its SID, because its name is
//! in the language of the machine.
//!
//! What `cmd` would take for something else than itself is refused before it is written: a password that comes out as another one
//! locks people out, and a quotation mark would begin a second command that runs as the system account.
//! Missing: characters outside of ASCII (a batch file is read in the machine's own code page), rules for passwords.

use vmrescue_base::error::{Error, Layer, Result};
use vmrescue_base::text::utf16le_bytes;

/// Characters that names of users cannot have ([MS-SAMR] 3.1.1.8.4, documented for `net user`).
const NOT_IN_NAMES: &str = "\"/\\[]:;|=,+*?<>@%&^'";
/// Longest name of a user.
const LONGEST_NAME: usize = 20;
/// Longest password that `net user` takes.
const LONGEST_PASSWORD: usize = 127;

/// The lines of the batch file.
///
/// # Errors
/// `Invalid` for a name or a password that would not arrive as it is.
pub(super) fn make_administrator(user: &str, password: &str) -> Result<String> {
    check_user(user)?;
    check_password(password)?;
    // In a batch file a percent sign is written twice; all else stands between quotation marks.
    let password = password.replace('%', "%%");
    let group = format!(
        "$g=(New-Object Security.Principal.SecurityIdentifier 'S-1-5-32-544').Translate([Security.Principal.NTAccount]).Value.Split('\\')[-1]; net localgroup $g \"{user}\" /add"
    );
    let group = base64(&utf16le_bytes(&group));
    let shell = r"%SystemRoot%\System32\WindowsPowerShell\v1.0\powershell.exe";
    Ok([
        // With /y: for more than 14 characters it would ask whether old systems matter, and nobody answers.
        format!("net user \"{user}\" \"{password}\" /add /y"),
        format!("net user \"{user}\" \"{password}\" /y"),
        format!("net user \"{user}\" /active:yes"),
        format!("if exist \"{shell}\" \"{shell}\" -NoProfile -NonInteractive -EncodedCommand {group}"),
        // Windows without PowerShell: only the English name is known.
        format!("if not exist \"{shell}\" net localgroup Administrators \"{user}\" /add"),
    ]
    .join("\r\n"))
}

fn check_user(user: &str) -> Result<()> {
    let wrong = user.chars().find(|c| !c.is_ascii() || c.is_ascii_control() || NOT_IN_NAMES.contains(*c));
    if let Some(c) = wrong {
        return Err(Error::invalid(Layer::Script, format!("the name of a user cannot have {c:?} here"))
            .expected("letters and digits of ASCII, spaces, dots, dashes"));
    }
    if user.trim().is_empty() || user.len() > LONGEST_NAME || user.ends_with('.') {
        return Err(Error::invalid(Layer::Script, "invalid user name")
            .expected(format!("1 to {LONGEST_NAME} characters, no dot at the end")));
    }
    Ok(())
}

/// Never tells the password.
fn check_password(password: &str) -> Result<()> {
    let wrong = |what: &str| {
        Error::invalid(Layer::Script, format!("this password would not arrive as it is: it has {what}"))
            .advice("choose a password of ASCII letters, digits and signs other than a quotation mark, and change it after the first logon")
    };
    if password.contains('"') {
        return Err(wrong("a quotation mark"));
    }
    if password.chars().any(|c| c.is_ascii_control()) {
        return Err(wrong("a control character"));
    }
    if !password.is_ascii() {
        return Err(wrong("a character outside of ASCII"));
    }
    if password.starts_with(['/', '*']) {
        return Err(wrong("a first character that `net user` takes for an option"));
    }
    if password.ends_with('\\') {
        return Err(wrong("a backslash at its end"));
    }
    if password.is_empty() || password.len() > LONGEST_PASSWORD {
        return Err(wrong("no character, or more than 127"));
    }
    Ok(())
}

/// RFC 4648, section 4.
fn base64(bytes: &[u8]) -> String {
    const DIGITS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    bytes
        .chunks(3)
        .flat_map(|three| {
            let number = three.iter().fold(0u32, |number, byte| number << 8 | u32::from(*byte))
                << (8 * (3 - three.len()));
            (0..4usize).map(move |digit| match digit <= three.len() {
                true => char::from(DIGITS[(number >> (18 - 6 * digit) & 63) as usize]),
                false => '=',
            })
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn base64_is_that_of_the_rfc() {
        for (text, coded) in
            [("", ""), ("f", "Zg=="), ("fo", "Zm8="), ("foo", "Zm9v"), ("foobar", "Zm9vYmFy")]
        {
            assert_eq!(base64(text.as_bytes()), coded);
        }
    }

    #[test]
    fn what_cmd_would_change_is_doubled_or_refused() {
        let lines = make_administrator("rescue", "P%ss%w0rd & more | > <^!").unwrap();
        assert!(
            lines.starts_with("net user \"rescue\" \"P%%ss%%w0rd & more | > <^!\" /add /y\r\n"),
            "{lines}"
        );
        for password in ["a\"b", "ü", "a\nb", "", "/add", "end\\", &"x".repeat(128)] {
            assert!(make_administrator("rescue", password).is_err(), "{password:?}");
        }
        for user in ["a\"b", "", " ", "a&b", "%x%", "ü", "end.", &"x".repeat(21)] {
            assert!(make_administrator(user, "Aa1").is_err(), "{user:?}");
        }
        let why = make_administrator("rescue", "geheim\"").unwrap_err();
        assert!(!format!("{why}").contains("geheim"), "a message tells no password");
    }
}
