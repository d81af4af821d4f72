//! Cures of a hive that an edit must not touch as it is: written anew from what can be read, taken as it lies when its logs are gone,
//! or with the counts of its security cells put right.

use vmrescue_base::error::{Defect, Error, Layer, Result, Severity};
use vmrescue_base::time::FileTime;
use vmrescue_registry::{Hive, HiveEditor, rebuild};

/// A hive after its cure.
#[derive(Debug)]
pub struct Cured {
    /// The file.
    pub bytes: Vec<u8>,
    /// What was done, in a few words.
    pub how: String,
    /// What was thrown away, by key.
    pub lost: Vec<Defect>,
    /// What is given up besides: a write that was not finished, and whose logs are gone. Only with consent.
    pub given_up: Option<String>,
}

/// Cures a hive; `None` when there is nothing that has one right cure.
///
/// # Errors
/// Of the editor and the rebuilder.
pub fn cure_hive(hive: &Hive) -> Result<Option<Cured>> {
    let defects = hive.check();
    let unfinished = hive.defects().iter().any(|defect| defect.code == "hive-not-clean");
    let given_up =
        unfinished.then(|| hive.clone().accept().defects().last().map(|d| d.detail.clone())).flatten();
    if defects.iter().any(|defect| defect.severity == Severity::Error) {
        let (bytes, lost) = rebuild(hive)?;
        let how = format!("what can be read of it, {} things lost", lost.len());
        return Ok(Some(Cured { bytes, how, lost, given_up }));
    }
    let miscounted =
        defects.iter().any(|defect| matches!(defect.code, "hive-security-count" | "hive-security-signature"));
    if hive.is_clean() && !miscounted {
        return Ok(None);
    }
    let mut how = Vec::new();
    let accepted = hive.clone().accept();
    if !hive.is_clean() {
        how.push(if unfinished {
            "as it lies, without its logs"
        } else {
            "a right checksum of its base block"
        });
    }
    let as_it_lies = accepted.bytes().to_vec();
    let mut editor = HiveEditor::new(accepted)?;
    let counted = if miscounted { editor.recount_security()? } else { 0 };
    let bytes = if counted > 0 {
        how.push("right heads of security cells");
        editor.finish(FileTime::now())?.bytes
    } else {
        as_it_lies
    };
    Ok(Some(Cured { bytes, how: how.join(", "), lost: Vec::new(), given_up }))
}

/// A copy of a hive in RegBack, as Windows takes it: Windows writes these with the first sequence number one ahead of the second.
///
/// # Errors
/// `Refused` for a damaged copy, and for one that another write left unfinished.
pub fn copy_of_hive(data: Vec<u8>) -> Result<Hive> {
    let number =
        |at: usize| data.get(at..at + 4).map(|four| u32::from_le_bytes([four[0], four[1], four[2], four[3]]));
    let ahead = number(4).zip(number(8)).is_some_and(|(begun, confirmed)| begun == confirmed.wrapping_add(1));
    let refused =
        |why: String| Error::refused(Layer::Hive, "the copy of the hive in RegBack is damaged").found(why);
    let mut hive = Hive::parse(data).map_err(|e| refused(e.detail()))?;
    if !hive.is_clean() {
        if !ahead || hive.defects().iter().any(|defect| defect.code == "hive-base-checksum") {
            return Err(refused("it was not closed".into()));
        }
        hive = hive.accept();
    }
    match hive.check().into_iter().find(|defect| defect.severity == Severity::Error) {
        Some(damage) => Err(refused(damage.to_string())),
        None => Ok(hive),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use vmrescue_registry::DataType;

    fn hive() -> Vec<u8> {
        let mut editor = HiveEditor::new_hive("ROOT").unwrap();
        editor.set_value(r"a\b", "v", DataType::BINARY, &[1; 20_000]).unwrap();
        editor.finish(FileTime::now()).unwrap().bytes
    }

    fn with(bytes: &[u8], at: usize, value: u32) -> Vec<u8> {
        let mut bytes = bytes.to_vec();
        bytes[at..at + 4].copy_from_slice(&value.to_le_bytes());
        let sum = bytes[..508].as_chunks::<4>().0.iter().fold(0, |sum, word| sum ^ u32::from_le_bytes(*word));
        bytes[508..512].copy_from_slice(&sum.to_le_bytes());
        bytes
    }

    fn good(bytes: &[u8]) -> bool {
        let hive = Hive::parse(bytes.to_vec()).unwrap();
        hive.is_clean() && hive.check().iter().all(|defect| defect.severity == Severity::Note)
    }

    #[test]
    fn each_state_has_its_cure() {
        let whole = hive();
        assert!(cure_hive(&Hive::parse(whole.clone()).unwrap()).unwrap().is_none());
        let begun = u32::from_le_bytes(whole[4..8].try_into().unwrap());
        // Logs gone: the hive as it lies, and what is given up is told.
        let dirty = Hive::parse(with(&whole, 4, begun + 3)).unwrap();
        let cured = cure_hive(&dirty).unwrap().unwrap();
        assert!(good(&cured.bytes) && cured.given_up.is_some_and(|text| text.contains("logs are gone")));
        assert_eq!(cured.bytes[4..8], cured.bytes[8..12]);
        // A wrong checksum alone is no loss.
        let mut torn = whole.clone();
        torn[508] ^= 1;
        let cured = cure_hive(&Hive::parse(torn).unwrap()).unwrap().unwrap();
        assert!(cured.given_up.is_none() && cured.bytes == whole);
        // A wrong count: in place, and nothing else changes.
        let security = whole.windows(2).position(|two| two == b"sk").unwrap();
        let mut wrong = whole.clone();
        wrong[security + 12] = 99;
        assert!(!good(&wrong));
        let cured = cure_hive(&Hive::parse(wrong.clone()).unwrap()).unwrap().unwrap();
        assert!(good(&cured.bytes) && cured.lost.is_empty() && cured.given_up.is_none());
        let differs = (4096..whole.len()).filter(|at| cured.bytes[*at] != wrong[*at]).count();
        assert_eq!(differs, 1);
        // An edit is told the cure.
        let error = HiveEditor::new(dirty).err().unwrap();
        assert!(error.advice_text().unwrap().contains("--allow-unsafe"));
    }

    #[test]
    fn copies_of_regback_are_one_ahead() {
        let whole = hive();
        let confirmed = u32::from_le_bytes(whole[8..12].try_into().unwrap());
        assert_eq!(copy_of_hive(whole.clone()).unwrap().bytes(), whole);
        let copy = copy_of_hive(with(&whole, 4, confirmed + 1)).unwrap();
        assert!(good(copy.bytes()));
        assert!(copy_of_hive(with(&whole, 4, confirmed + 2)).is_err());
        assert!(copy_of_hive(b"nothing".to_vec()).is_err());
    }
}
