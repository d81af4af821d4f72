//! A device that loses power: what was written after the last flush is lost, kept, or kept in part.

use crate::{BlockDevice, Geometry, WritableDevice};
use std::ops::Range;
use std::sync::{Mutex, MutexGuard, PoisonError};
use vmrescue_base::error::{Error, ErrorKind, Layer, Result};

/// What becomes of writes that were never flushed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fate {
    /// None of them reached the medium.
    Lost,
    /// All of them did.
    Kept,
    /// Every other 512-byte sector did, in an order of its own.
    Torn,
}

struct State {
    durable: Vec<u8>,
    volatile: Vec<u8>,
    operations: u64,
    dies_at: u64,
}

/// A device in memory that stops working at its n-th write or flush.
pub struct CrashDevice {
    state: Mutex<State>,
}

impl CrashDevice {
    /// A device holding `bytes` that fails from its `dies_at`-th write, length change or flush on (0: the first).
    pub fn new(bytes: Vec<u8>, dies_at: u64) -> CrashDevice {
        CrashDevice {
            state: Mutex::new(State { durable: bytes.clone(), volatile: bytes, operations: 0, dies_at }),
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Writes, length changes and flushes so far.
    pub fn operations(&self) -> u64 {
        self.state().operations
    }

    /// What the medium holds after the power came back.
    pub fn after_power_loss(&self, fate: Fate) -> Vec<u8> {
        let state = self.state();
        match fate {
            Fate::Lost => state.durable.clone(),
            Fate::Kept => state.volatile.clone(),
            Fate::Torn => {
                let length = state.durable.len().max(state.volatile.len());
                (0..length)
                    .step_by(512)
                    .flat_map(|start| {
                        let source = if (start / 512) % 2 == 0 { &state.volatile } else { &state.durable };
                        (start..(start + 512).min(length)).map(|i| source.get(i).copied().unwrap_or(0))
                    })
                    .collect()
            }
        }
    }

    fn step(state: &mut State) -> Result<()> {
        if state.operations >= state.dies_at {
            return Err(Error::new(ErrorKind::Io, Layer::Block, "the power is gone"));
        }
        state.operations += 1;
        Ok(())
    }
}

impl BlockDevice for CrashDevice {
    fn geometry(&self) -> Geometry {
        Geometry::of_bytes(self.state().volatile.len() as u64)
    }

    fn read_at(&self, offset: u64, buf: &mut [u8]) -> Result<()> {
        buf.copy_from_slice(&self.state().volatile[offset as usize..offset as usize + buf.len()]);
        Ok(())
    }
}

impl WritableDevice for CrashDevice {
    fn write_at(&self, offset: u64, data: &[u8]) -> Result<()> {
        let mut state = self.state();
        CrashDevice::step(&mut state)?;
        state.volatile[offset as usize..offset as usize + data.len()].copy_from_slice(data);
        Ok(())
    }

    fn zero_at(&self, range: Range<u64>) -> Result<()> {
        let mut state = self.state();
        CrashDevice::step(&mut state)?;
        state.volatile[range.start as usize..range.end as usize].fill(0);
        Ok(())
    }

    fn flush(&self) -> Result<()> {
        let mut state = self.state();
        CrashDevice::step(&mut state)?;
        state.durable = state.volatile.clone();
        Ok(())
    }

    fn set_length(&self, length_bytes: u64) -> Result<()> {
        let mut state = self.state();
        CrashDevice::step(&mut state)?;
        state.volatile.resize(length_bytes as usize, 0);
        Ok(())
    }
}
