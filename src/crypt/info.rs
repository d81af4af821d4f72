//! What is to be told of a BitLocker volume, with or without its key.

use serde::{Serialize, Serializer};
use vmrescue_base::time::FileTime;

/// A BitLocker volume.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct BitLocker {
    /// The volume's identifier.
    pub id: String,
    /// State in words: `encrypted`, `suspended`, `encrypting`, `decrypting`, `paused`, `decrypted`.
    pub state: &'static str,
    /// True when the key lies on the disk in the clear: whoever has the disk can read it.
    pub key_in_the_clear: bool,
    /// `AES-XTS 128` and the like.
    pub method: String,
    /// When encryption was set up.
    #[serde(serialize_with = "time_text")]
    pub created: Option<FileTime>,
    /// Name of machine, volume and day, as Windows wrote it.
    pub description: Option<String>,
    /// Version of the metadata: 1 Windows Vista, 2 Windows 7 and later.
    pub version: u16,
    /// Encrypted as it is written, "used space only".
    pub encrypt_on_write: bool,
    /// Bytes from the start that are encrypted, while the state is one on the way.
    pub encrypted_bytes: Option<u64>,
    /// How many of the three copies of the metadata are whole.
    pub good_copies: u32,
    /// What opens the volume.
    pub protectors: Vec<Protector>,
    /// True as long as nothing opened it.
    pub locked: bool,
    /// The protector that opened it, kind and id; `None` for a volume that is locked or not encrypted.
    pub unlocked_by: Option<String>,
    /// Why the keys that were given do not fit, or what else keeps it shut.
    pub why_locked: Vec<String>,
    /// Why it is shown and not written, if so.
    pub read_only: Option<String>,
}

/// A key protector.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Protector {
    /// Its id, as `manage-bde -protectors -get` shows it and as directories keep recovery passwords under.
    pub id: String,
    /// Kind in words: `recovery password`, `TPM`, `TPM and PIN`, `external key`, `password`, `clear key`, ...
    pub kind: String,
    /// When it was last changed.
    #[serde(serialize_with = "time_text")]
    pub changed: Option<FileTime>,
    /// Its name, if it has one.
    pub name: Option<String>,
}

/// A time as RFC 3339, or null.
fn time_text<S: Serializer>(time: &Option<FileTime>, out: S) -> Result<S::Ok, S::Error> {
    match time {
        Some(time) => out.collect_str(time),
        None => out.serialize_none(),
    }
}

impl BitLocker {
    /// What to tell a user whose volume is locked.
    pub fn locked_text(&self) -> String {
        let protectors: Vec<String> =
            self.protectors.iter().map(|p| format!("{} {{{}}}", p.kind, p.id)).collect();
        let list = if protectors.is_empty() { "none".to_string() } else { protectors.join(", ") };
        let text = match self.state {
            "decrypted" => format!("BitLocker, decrypted; protectors: {list}"),
            state => format!("locked by BitLocker ({}, {state}); protectors: {list}", self.method),
        };
        if self.why_locked.is_empty() { text } else { format!("{text}; {}", self.why_locked.join("; ")) }
    }

    /// What to tell of a volume that is open, in a line.
    pub fn open_text(&self) -> String {
        let by = match &self.unlocked_by {
            Some(by) => format!("opened by {by}"),
            None => "nothing is encrypted".to_string(),
        };
        let text = format!("BitLocker ({}, {}), {by}", self.method, self.state);
        match &self.read_only {
            Some(why) => format!("{text}; not written: {why}"),
            None => text,
        }
    }

    /// What a user does about a locked volume.
    pub fn advice(&self) -> String {
        let has = |kind: &str| self.protectors.iter().any(|p| p.kind == kind);
        let mut ways = Vec::new();
        if has("recovery password") {
            ways.push("--recovery-password with the 48 digits that are kept under the id above (or @FILE)");
        }
        if has("external key") {
            ways.push("--recovery-key with the .BEK file of that id, or the folder it lies in");
        }
        if has("password") {
            ways.push("--password-file with the password");
        }
        if ways.is_empty() {
            return "no protector of this volume opens it away from its machine: add a recovery password there \
                (manage-bde -protectors -add X: -RecoveryPassword), or unlock it there"
                .into();
        }
        format!("give its key: {}", ways.join("; "))
    }
}
