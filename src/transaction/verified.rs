//! What was verified, and therefore may be published: the values that publishing asks for.
//!
//! Making one seals the staging: no handle on it can write any more, so that what was looked at is what is written. The
//! container is always checked; what else is looked at is the caller's, who knows what was to be changed.

use super::{OperationId, Record, Transaction};
use vmrescue_base::error::{Defect, Error, ErrorKind, Layer, Result, Severity};
use vmrescue_base::progress::Progress;
use vmrescue_block::Disk;
use vmrescue_image as image;

/// The two sides that a verification holds against each other.
pub struct View {
    /// The host file as it is.
    pub before: Disk,
    /// The host file as it will be.
    pub staged: Disk,
}

/// A change that was staged and verified. Dropping it forgets the change.
pub struct Verified<T> {
    transaction: Transaction,
    /// What the verification said.
    pub said: T,
}

/// What a session staged so far, verified. Dropping it opens the staging again.
pub struct VerifiedPart<'t, T> {
    transaction: &'t mut Transaction,
    /// What is wrong with the container as it will be.
    container: Vec<Defect>,
    /// What the verification said.
    pub said: T,
}

/// The first defect of a container that is worse than a note and was not there before.
fn new_defect<'a>(before: &[Defect], after: &'a [Defect]) -> Option<&'a Defect> {
    let is_known = |new: &Defect| before.iter().any(|old| old.code == new.code && old.detail == new.detail);
    after.iter().find(|defect| defect.severity != Severity::Note && !is_known(defect))
}

impl Transaction {
    /// Looks at what is staged; the answer of `look` and the defects of the container as it will be.
    fn looked_at<T>(&self, look: impl FnOnce(&View) -> Result<T>) -> Result<(T, Vec<Defect>)> {
        self.refuse_changed()?;
        let view = View { before: self.before(), staged: self.file().as_disk() };
        if !self.host.is_file() && view.staged.len() != view.before.len() {
            let what = "a disk of this machine has the length that it has";
            return Err(Error::refused(Layer::Transaction, what)
                .in_file(self.host.path())
                .expected(format!("{} bytes", view.before.len()))
                .found(format!("{} bytes", view.staged.len())));
        }
        let after = image::check(&view.staged)?;
        if let Some(new) = new_defect(&self.container, &after) {
            let what = "our own check finds new damage in the staged container";
            return Err(Error::new(ErrorKind::Disagreement, Layer::Verify, what)
                .found(new)
                .advice("nothing was written; please report this"));
        }
        Ok((look(&view)?, after))
    }

    /// Ends the staging: from here on no handle on it writes. The container must have no new defect, and `look` must agree.
    ///
    /// # Errors
    /// `Refused` when the image is another one by now; `Disagreement` when the container got a new defect; of `look`. Then everything that was staged is forgotten.
    pub fn verify<T>(self, look: impl FnOnce(&View) -> Result<T>) -> Result<Verified<T>> {
        self.overlay.seal();
        let (said, _) = self.looked_at(look)?;
        Ok(Verified { transaction: self, said })
    }

    /// As [`Transaction::verify`], for a session that goes on afterwards.
    ///
    /// # Errors
    /// As [`Transaction::verify`]; everything stays staged, and staging goes on.
    pub fn verify_so_far<T>(&mut self, look: impl FnOnce(&View) -> Result<T>) -> Result<VerifiedPart<'_, T>> {
        self.overlay.seal();
        match self.looked_at(look) {
            Ok((said, container)) => Ok(VerifiedPart { transaction: self, container, said }),
            Err(e) => {
                self.overlay.unseal();
                Err(e)
            }
        }
    }
}

impl<T> Verified<T> {
    /// Bytes of the host file that publishing would change.
    ///
    /// # Errors
    /// Of reading the image.
    pub fn changed_bytes(&self) -> Result<u64> {
        self.transaction.changed_bytes()
    }

    /// True when publishing would change anything: a byte, or the length.
    ///
    /// # Errors
    /// Of reading the image.
    pub fn differs(&self) -> Result<bool> {
        let lengths = [self.transaction.file().len(), self.transaction.before().len()];
        Ok(lengths[0] != lengths[1] || self.changed_bytes()? > 0)
    }

    /// Writes what was staged into the image, through the journal. Without a difference nothing is written at all.
    ///
    /// # Errors
    /// `Refused` when the image was changed by somebody else since it was opened; otherwise of the host. After an
    /// error the image is the old one, or `recover` finishes the operation.
    pub fn publish(self, record: Record, progress: &dyn Progress) -> Result<Option<OperationId>> {
        self.transaction.publish(record, progress)
    }
}

impl<T> VerifiedPart<'_, T> {
    /// Writes what was staged so far into the image, as [`Verified::publish`] does; then the session goes on: the lock is
    /// kept, and everything that is open on [`Transaction::file`] stays valid. Nothing can be staged meanwhile; reading may go
    /// on. Records with the same word of session become one operation, whose journal grows: what one publish costs does not
    /// depend on how many there were. [`Transaction::finish`] closes it.
    ///
    /// # Errors
    /// As [`Verified::publish`]. After an error everything is still staged, readers see it, and the next call tries again; a
    /// journal that was begun is finished first.
    pub fn publish(mut self, record: Record, progress: &dyn Progress) -> Result<Option<OperationId>> {
        let published = self.transaction.publish_so_far(record, progress)?;
        self.transaction.container = std::mem::take(&mut self.container);
        Ok(published)
    }
}

impl<T> Drop for VerifiedPart<'_, T> {
    fn drop(&mut self) {
        self.transaction.overlay.unseal();
    }
}
