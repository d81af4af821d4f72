//! Claims on images, for several machines that share one job and one folder: no server, one file a claim.
//!
//! A claim is a file `KEY/NUMBER.json` that is made with "only when it is not there", which shared storage does atomically. The highest number
//! counts. Its owner gives signs of life by moving the time at which it expires; a claim that has expired is followed by the next number,
//! and the old owner finds that out before it writes to the image ([`Claim::check`]). The clocks of the machines must agree to
//! within the time that a claim holds.

use super::state::Outcome;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime, UNIX_EPOCH};
use vmrescue_base::error::{Error, ErrorKind, Layer, Result};
use vmrescue_transaction::write_durably;

/// The folder of claims, as one worker sees it.
#[derive(Debug, Clone)]
pub struct Leases {
    /// The folder.
    pub dir: PathBuf,
    /// Name of the worker.
    pub owner: String,
    /// How long a claim holds.
    pub seconds: u64,
}

/// A claim that this worker holds, or held.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Claim {
    dir: PathBuf,
    key: String,
    owner: String,
    /// The number that grows with every claim on the image.
    pub number: u32,
    seconds: u64,
}

/// What a try to claim an image gives.
#[derive(Debug, Clone)]
pub enum Taken {
    /// This worker has it.
    Mine(Claim),
    /// Another worker has it.
    Held {
        /// Its name.
        owner: String,
    },
    /// A worker has finished it.
    Finished {
        /// Its name.
        owner: String,
        /// With this outcome.
        outcome: Outcome,
    },
}

/// The content of a claim's file.
#[derive(Debug, Clone, Serialize, Deserialize)]
struct Sheet {
    image: PathBuf,
    owner: String,
    /// Seconds since 1970.
    expires: u64,
    /// Set when the work is done.
    outcome: Option<Outcome>,
}

fn now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs()
}

/// The name of an image in the folder of claims: all machines must name it the same.
fn key_of(image: &Path) -> String {
    vmrescue_base::text::hex(&Sha256::digest(image.to_string_lossy().as_bytes())[..16])
}

fn file_of(dir: &Path, key: &str, number: u32) -> PathBuf {
    dir.join(key).join(format!("{number:06}.json"))
}

/// The highest number of a claim on an image, 0 without any: its own folder is listed, whatever else is claimed.
fn highest(dir: &Path, key: &str) -> Result<u32> {
    let folder = dir.join(key);
    let failed = |e| Error::io("cannot be read", &folder, e);
    let entries = match std::fs::read_dir(&folder) {
        Ok(entries) => entries,
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(0),
        Err(e) => return Err(failed(e)),
    };
    let mut highest = 0;
    for entry in entries {
        // Other names are files on their way.
        let name = entry.map_err(failed)?.file_name();
        let number = name.to_str().and_then(|name| name.strip_suffix(".json")?.parse().ok());
        highest = highest.max(number.unwrap_or(0));
    }
    Ok(highest)
}

impl Leases {
    /// Tries to claim an image.
    ///
    /// # Errors
    /// Of the host.
    pub fn take(&self, image: &Path) -> Result<Taken> {
        let key = key_of(image);
        let folder = self.dir.join(&key);
        std::fs::create_dir_all(&folder).map_err(|e| Error::io("cannot be made", &folder, e))?;
        loop {
            let number = highest(&self.dir, &key)?;
            if number > 0 {
                let path = file_of(&self.dir, &key, number);
                if let Some(taken) = self.standing(&path)? {
                    return Ok(taken);
                }
            }
            let claim = Claim {
                dir: self.dir.clone(),
                key: key.clone(),
                owner: self.owner.clone(),
                number: number + 1,
                seconds: self.seconds,
            };
            if claim.make(image)? {
                return Ok(Taken::Mine(claim));
            }
        }
    }

    /// What a claim says while it stands; `None` when it has expired or was given back.
    fn standing(&self, path: &Path) -> Result<Option<Taken>> {
        let bytes = match std::fs::read(path) {
            Ok(bytes) => bytes,
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(None),
            Err(e) => return Err(Error::io("cannot be read", path, e)),
        };
        let Ok(sheet) = serde_json::from_slice::<Sheet>(&bytes) else {
            // Just being made, or its maker died while making it.
            let age = std::fs::metadata(path).and_then(|meta| meta.modified()).ok();
            let age = age.and_then(|time| time.elapsed().ok()).unwrap_or_default();
            let fresh = age < Duration::from_secs(self.seconds);
            return Ok(fresh.then(|| Taken::Held { owner: "a worker that just claimed it".into() }));
        };
        Ok(match sheet.outcome {
            Some(outcome) if outcome.is_done() => Some(Taken::Finished { owner: sheet.owner, outcome }),
            None if now() < sheet.expires => Some(Taken::Held { owner: sheet.owner }),
            _ => None,
        })
    }
}

impl Claim {
    fn path(&self) -> PathBuf {
        file_of(&self.dir, &self.key, self.number)
    }

    /// Makes the file; false when another worker was faster.
    fn make(&self, image: &Path) -> Result<bool> {
        let sheet = Sheet {
            image: image.to_path_buf(),
            owner: self.owner.clone(),
            expires: now() + self.seconds,
            outcome: None,
        };
        let path = self.path();
        let mut file = match std::fs::File::create_new(&path) {
            Ok(file) => file,
            Err(e) if e.kind() == std::io::ErrorKind::AlreadyExists => return Ok(false),
            Err(e) => return Err(Error::io("the claim cannot be made", &path, e)),
        };
        let bytes = serde_json::to_vec(&sheet).unwrap_or_default();
        let written = file.write_all(&bytes).and_then(|()| file.sync_all());
        written.map_err(|e| Error::io("the claim cannot be written", &path, e))?;
        Ok(true)
    }

    fn sheet(&self) -> Result<Sheet> {
        let path = self.path();
        let bytes = std::fs::read(&path).map_err(|e| Error::io("the claim cannot be read", &path, e))?;
        serde_json::from_slice(&bytes)
            .map_err(|e| Error::damaged(Layer::Batch, "the claim cannot be read").in_file(&path).caused_by(e))
    }

    /// Makes sure that the claim still stands: asked right before an image is written.
    ///
    /// # Errors
    /// `Busy` when it has expired or another worker followed.
    pub fn check(&self) -> Result<()> {
        let lost = |why: String| {
            Error::busy(Layer::Batch, "the claim on this image was lost; nothing was written")
                .in_file(self.path())
                .found(why)
                .advice("another worker has the image, or will take it; a longer --lease-seconds helps slow machines")
        };
        let number = highest(&self.dir, &self.key)?;
        if number != self.number {
            return Err(lost(format!("claim {number} follows claim {}", self.number)));
        }
        let sheet = self.sheet()?;
        if sheet.owner != self.owner {
            return Err(lost(format!("its owner is {}", sheet.owner)));
        }
        let time = now();
        if time >= sheet.expires {
            return Err(lost(format!("it expired {} seconds ago", time - sheet.expires)));
        }
        Ok(())
    }

    /// A sign of life: the claim holds for its full time again.
    ///
    /// # Errors
    /// As [`Claim::check`].
    pub fn renew(&self) -> Result<()> {
        self.check()?;
        let mut sheet = self.sheet()?;
        sheet.expires = now() + self.seconds;
        write_durably(&self.path(), &serde_json::to_vec(&sheet).unwrap_or_default())
    }

    /// The work ended: others leave a finished image alone, and may try one that failed.
    ///
    /// # Errors
    /// `Busy` when the claim was lost meanwhile.
    pub fn finish(&self, outcome: Outcome) -> Result<()> {
        match self.check() {
            Err(e) if e.kind() != ErrorKind::Busy || !outcome.is_done() => return Err(e),
            // Late, but nobody followed: what was done is done.
            Err(e) if highest(&self.dir, &self.key)? != self.number => return Err(e),
            _ => {}
        }
        let mut sheet = self.sheet()?;
        sheet.outcome = Some(outcome);
        write_durably(&self.path(), &serde_json::to_vec(&sheet).unwrap_or_default())
    }

    /// A third of the time that the claim holds: how often signs of life are given.
    pub fn beat(&self) -> Duration {
        Duration::from_secs(self.seconds) / 3
    }
}
